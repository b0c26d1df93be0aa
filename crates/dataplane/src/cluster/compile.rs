//! Compiling clusters.

use std::sync::Arc;
use std::time::Duration;

use xds::envoy::config::cluster::v3::cluster::{
    self, ClusterDiscoveryType, LbConfig, common_lb_config::LocalityConfigSpecifier,
};
use xds::envoy::config::cluster::v3::{Cluster, load_balancing_policy::Policy};
use xds::envoy::config::core::v3::{
    HttpProtocolOptions as CommonOptions, TransportSocket, UpstreamHttpProtocolOptions,
    transport_socket,
};
use xds::envoy::extensions::load_balancing_policies as policies;
use xds::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use xds::envoy::extensions::transport_sockets::tls::v3::{
    UpstreamTlsContext, common_tls_context::ValidationContextType,
};
use xds::envoy::extensions::upstreams::http::v3::{
    HttpProtocolOptions,
    http_protocol_options::{UpstreamProtocolOptions, explicit_http_config::ProtocolConfig},
};

use super::{
    AutoSni, ClusterConfig, Discovery, DnsOptions, HostSet, LbPolicy, ProxyProtocol, SlowStart,
    Subsets, TcpKeepalive, Transport, TransportMatch, Transports, UpstreamProtocol, duration,
};
use crate::circuit::Thresholds;
use crate::error::ConfigError;
use crate::matching::{metadata, struct_to_json};
use crate::outlier::OutlierConfig;
use crate::stream::Metadata;
use crate::unread::unread;

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const TRANSPORT_MATCH: &str = "envoy.transport_socket_match";

impl ClusterConfig {
    /// Compiles a cluster. All errors are collected.
    // http2_protocol_options and the like are deprecated, but static configurations still have them.
    #[allow(deprecated)]
    pub fn compile(config: &Cluster) -> Result<Self, Vec<ConfigError>> {
        let mut errors = unread(config);
        let mut keep = |error: ConfigError| errors.push(error);
        let discovery = discovery(config).map_err(&mut keep).ok();
        let lb = lb_policy(config).map_err(&mut keep).ok();
        let transports = Transports::compile(config).map_err(&mut keep).ok();
        let http = match config
            .typed_extension_protocol_options
            .get(HTTP_OPTIONS)
            .map(xds::any::unpack::<HttpProtocolOptions>)
        {
            None => None,
            Some(Ok(options)) => options,
            Some(Err(error)) => {
                keep(ConfigError::new(
                    "typed_extension_protocol_options",
                    format!("cannot be read: {error}"),
                ));
                None
            }
        };
        let mut assignment = None;
        if let Some(endpoints) = &config.load_assignment {
            match HostSet::compile(endpoints) {
                Ok(set) => assignment = Some(Arc::new(set)),
                Err(found) => errors.extend(
                    found
                        .into_iter()
                        .map(|error| error.within("load_assignment")),
                ),
            }
        }
        let sni = http
            .as_ref()
            .and_then(|http| http.upstream_http_protocol_options.as_ref())
            .or(config.upstream_http_protocol_options.as_ref());
        let auto_sni = match sni.map(auto_sni).transpose() {
            Ok(sni) => sni.filter(|sni| sni.send || sni.validate),
            Err(error) => {
                errors.push(error.within("upstream_http_protocol_options"));
                None
            }
        };
        let subsets = config.lb_subset_config.as_ref().map(Subsets::compile);
        let subsets = match subsets.transpose() {
            Ok(subsets) => subsets.flatten(),
            Err(error) => {
                errors.push(error.within("lb_subset_config"));
                None
            }
        };
        if subsets.is_some() && matches!(lb, Some(LbPolicy::ClusterProvided)) {
            errors.push(ConfigError::new(
                "lb_subset_config",
                "cannot be combined with lb_policy CLUSTER_PROVIDED",
            ));
        }
        if config.name.is_empty() {
            errors.push(ConfigError::new("name", "is missing"));
        }
        let (Some(discovery), Some(lb), Some(transports), true) =
            (discovery, lb, transports, errors.is_empty())
        else {
            return Err(errors);
        };
        let common_lb = config.common_lb_config.as_ref();
        let hashing = common_lb.and_then(|lb| lb.consistent_hashing_lb_config.as_ref());
        let default = CommonOptions::default();
        let common = http
            .as_ref()
            .and_then(|http| http.common_http_protocol_options.as_ref())
            .or(config.common_http_protocol_options.as_ref())
            .unwrap_or(&default);
        let http1 = http
            .as_ref()
            .map_or(config.http_protocol_options.as_ref(), http1_options);
        let http2 = http
            .as_ref()
            .map_or(config.http2_protocol_options.as_ref(), http2_options);
        let limit = |limit: Option<Duration>| limit.filter(|limit| !limit.is_zero());
        let keepalive = config
            .upstream_connection_options
            .as_ref()
            .and_then(|options| options.tcp_keepalive.as_ref());
        let seconds = |value: Option<u32>| value.map(|value| Duration::from_secs(value.into()));
        let max_requests = common
            .max_requests_per_connection
            .or(config.max_requests_per_connection);
        Ok(Self {
            name: config.name.as_str().into(),
            stat_name: if config.alt_stat_name.is_empty() {
                &config.name
            } else {
                &config.alt_stat_name
            }
            .as_str()
            .into(),
            discovery,
            dns: DnsOptions {
                refresh: duration(config.dns_refresh_rate.as_ref())
                    .unwrap_or(Duration::from_secs(5)),
                jitter: duration(config.dns_jitter.as_ref()).unwrap_or_default(),
                respect_ttl: config.respect_dns_ttl,
                ipv4: config.dns_lookup_family != cluster::DnsLookupFamily::V6Only as i32,
                ipv6: config.dns_lookup_family != cluster::DnsLookupFamily::V4Only as i32,
            },
            assignment,
            lb,
            panic_threshold: common_lb
                .and_then(|lb| lb.healthy_panic_threshold.as_ref())
                .map_or(50.0, |percent| percent.value),
            update_merge_window: common_lb
                .and_then(|lb| duration(lb.update_merge_window.as_ref()))
                .unwrap_or(Duration::from_secs(1)),
            locality_weighted: common_lb.is_some_and(|lb| {
                matches!(
                    lb.locality_config_specifier,
                    Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_))
                )
            }),
            subsets,
            hash_host_names: hashing.is_some_and(|hashing| hashing.use_hostname_for_hashing),
            hash_balance_factor: hashing.and_then(|hashing| hashing.hash_balance_factor),
            connect_timeout: duration(config.connect_timeout.as_ref())
                .unwrap_or(Duration::from_secs(5)),
            thresholds: Thresholds::of(config.circuit_breakers.as_ref()),
            outlier: config
                .outlier_detection
                .as_ref()
                .map(|outlier| Arc::new(OutlierConfig::compile(outlier))),
            proper_case: http1.is_some_and(proper_case),
            http1_trailers: http1.is_some_and(|http1| http1.enable_trailers),
            protocol: match http
                .as_ref()
                .and_then(|http| http.upstream_protocol_options.as_ref())
            {
                Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => {
                    match &explicit.protocol_config {
                        Some(ProtocolConfig::Http2ProtocolOptions(_)) => UpstreamProtocol::Http2,
                        _ => UpstreamProtocol::Http1,
                    }
                }
                Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(_)) => {
                    UpstreamProtocol::Downstream
                }
                Some(UpstreamProtocolOptions::AutoConfig(_)) => UpstreamProtocol::Auto,
                None if config.http2_protocol_options.is_some() => UpstreamProtocol::Http2,
                None => UpstreamProtocol::Http1,
            },
            max_requests_per_connection: max_requests.filter(|max| *max > 0).map(u64::from),
            idle_timeout: limit(Some(
                duration(common.idle_timeout.as_ref()).unwrap_or(Duration::from_secs(3600)),
            )),
            max_connection_duration: limit(duration(common.max_connection_duration.as_ref())),
            max_stream_duration: limit(duration(common.max_stream_duration.as_ref())),
            auto_sni,
            max_concurrent_streams: http2.and_then(|http2| http2.max_concurrent_streams),
            http2_keepalive: http2
                .and_then(|http2| http2.connection_keepalive.as_ref())
                .and_then(|keepalive| {
                    let interval = duration(keepalive.interval.as_ref())
                        .filter(|interval| !interval.is_zero())?;
                    Some((
                        interval,
                        duration(keepalive.timeout.as_ref()).unwrap_or(Duration::from_secs(20)),
                    ))
                }),
            buffer_limit: config.per_connection_buffer_limit_bytes.unwrap_or(1 << 20),
            bind_address: config
                .upstream_bind_config
                .as_ref()
                .and_then(|bind| bind.source_address.as_ref())
                .and_then(|address| address.address.parse().ok()),
            tcp_keepalive: keepalive.map(|keepalive| TcpKeepalive {
                probes: keepalive.keepalive_probes,
                time: seconds(keepalive.keepalive_time),
                interval: seconds(keepalive.keepalive_interval),
            }),
            pool_per_downstream_connection: config.connection_pool_per_downstream_connection,
            filters: config
                .filters
                .iter()
                .map(|filter| filter.name.clone())
                .collect(),
            metadata: Arc::new(metadata(config.metadata.as_ref())),
            secrets: transports.secrets(),
            transports,
        })
    }

    /// The transport to an endpoint with this metadata (`envoy.transport_socket_match` in it counts), and the
    /// name of the match.
    pub fn transport(&self, endpoint: &Metadata) -> (&Transport, Option<&str>) {
        let labels = endpoint
            .get(TRANSPORT_MATCH)
            .and_then(|labels| labels.as_object());
        let fits = |entry: &&TransportMatch| {
            entry
                .criteria
                .iter()
                .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
        };
        match self.transports.matches.iter().find(fits) {
            Some(entry) => (&entry.transport, Some(&entry.name)),
            None => (&self.transports.plain, None),
        }
    }

    /// All transports an endpoint may have, for preparing them ahead.
    pub fn transports(&self) -> impl Iterator<Item = &Transport> {
        self.transports
            .matches
            .iter()
            .map(|entry| &entry.transport)
            .chain([&self.transports.plain])
    }
}

fn auto_sni(options: &UpstreamHttpProtocolOptions) -> Result<AutoSni, ConfigError> {
    let header = match options.override_auto_sni_header.as_str() {
        "" | ":authority" | "host" => None,
        name => Some(http::HeaderName::try_from(name).map_err(|_| {
            ConfigError::new(
                "override_auto_sni_header",
                format!("{name:?} is not a header name"),
            )
        })?),
    };
    Ok(AutoSni {
        send: options.auto_sni,
        validate: options.auto_san_validation,
        header,
    })
}

fn http1_options(
    http: &HttpProtocolOptions,
) -> Option<&xds::envoy::config::core::v3::Http1ProtocolOptions> {
    match http.upstream_protocol_options.as_ref()? {
        UpstreamProtocolOptions::ExplicitHttpConfig(explicit) => {
            match explicit.protocol_config.as_ref()? {
                ProtocolConfig::HttpProtocolOptions(http1) => Some(http1),
                _ => None,
            }
        }
        UpstreamProtocolOptions::UseDownstreamProtocolConfig(downstream) => {
            downstream.http_protocol_options.as_ref()
        }
        UpstreamProtocolOptions::AutoConfig(auto) => auto.http_protocol_options.as_ref(),
    }
}

fn proper_case(http1: &xds::envoy::config::core::v3::Http1ProtocolOptions) -> bool {
    use xds::envoy::config::core::v3::http1_protocol_options::header_key_format::HeaderFormat;
    http1.header_key_format.as_ref().is_some_and(|format| {
        matches!(format.header_format, Some(HeaderFormat::ProperCaseWords(_)))
    })
}

fn http2_options(
    http: &HttpProtocolOptions,
) -> Option<&xds::envoy::config::core::v3::Http2ProtocolOptions> {
    match http.upstream_protocol_options.as_ref()? {
        UpstreamProtocolOptions::ExplicitHttpConfig(explicit) => {
            match explicit.protocol_config.as_ref()? {
                ProtocolConfig::Http2ProtocolOptions(http2) => Some(http2),
                _ => None,
            }
        }
        UpstreamProtocolOptions::UseDownstreamProtocolConfig(downstream) => {
            downstream.http2_protocol_options.as_ref()
        }
        UpstreamProtocolOptions::AutoConfig(auto) => auto.http2_protocol_options.as_ref(),
    }
}

fn discovery(config: &Cluster) -> Result<Discovery, ConfigError> {
    let original = || match &config.lb_config {
        Some(LbConfig::OriginalDstLbConfig(original)) => Discovery::OriginalDst {
            header: original
                .use_http_header
                .then(|| match original.http_header_name.as_str() {
                    "" => "x-envoy-original-dst-host".to_owned(),
                    name => name.to_owned(),
                }),
            port: original
                .upstream_port_override
                .and_then(|port| u16::try_from(port).ok()),
        },
        _ => Discovery::OriginalDst {
            header: None,
            port: None,
        },
    };
    match &config.cluster_discovery_type {
        None => Ok(Discovery::Static),
        Some(ClusterDiscoveryType::Type(kind)) => match cluster::DiscoveryType::try_from(*kind) {
            Ok(cluster::DiscoveryType::Static) => Ok(Discovery::Static),
            Ok(cluster::DiscoveryType::StrictDns) => Ok(Discovery::StrictDns),
            Ok(cluster::DiscoveryType::LogicalDns) => Ok(Discovery::LogicalDns),
            Ok(cluster::DiscoveryType::Eds) => {
                let service = config
                    .eds_cluster_config
                    .as_ref()
                    .map(|eds| eds.service_name.as_str());
                Ok(Discovery::Eds(
                    service
                        .filter(|name| !name.is_empty())
                        .unwrap_or(&config.name)
                        .to_owned(),
                ))
            }
            Ok(cluster::DiscoveryType::OriginalDst) => Ok(original()),
            Err(_) => Err(ConfigError::new(
                "type",
                format!("{kind} is not a known discovery type"),
            )),
        },
        Some(ClusterDiscoveryType::ClusterType(custom)) => match custom.name.as_str() {
            "envoy.clusters.dynamic_forward_proxy" => Ok(Discovery::DynamicForwardProxy),
            "envoy.cluster.static" => Ok(Discovery::Static),
            "envoy.cluster.strict_dns" => Ok(Discovery::StrictDns),
            "envoy.cluster.logical_dns" => Ok(Discovery::LogicalDns),
            "envoy.cluster.original_dst" => Ok(original()),
            name => Err(ConfigError::new(
                "cluster_type",
                format!("{name:?} is not supported"),
            )),
        },
    }
}

fn slow_start(config: Option<&cluster::SlowStartConfig>) -> SlowStart {
    config.map_or_else(SlowStart::default, |config| SlowStart {
        window: duration(config.slow_start_window.as_ref()).filter(|window| !window.is_zero()),
        aggression: config
            .aggression
            .as_ref()
            .map_or(1.0, |aggression| aggression.default_value),
        min_weight_percent: config
            .min_weight_percent
            .as_ref()
            .map_or(10.0, |percent| percent.value),
    })
}

/// The same in the form of the policies' own messages.
fn common_slow_start(config: Option<&policies::common::v3::SlowStartConfig>) -> SlowStart {
    let config = config.map(|config| cluster::SlowStartConfig {
        slow_start_window: config.slow_start_window,
        aggression: config.aggression.clone(),
        min_weight_percent: config.min_weight_percent,
    });
    slow_start(config.as_ref())
}

fn ring(min: Option<u64>, max: Option<u64>, murmur: bool) -> Result<LbPolicy, ConfigError> {
    let (min, max) = (min.unwrap_or(1024), max.unwrap_or(8 << 20));
    if min > max || max > 8 << 20 {
        return Err(ConfigError::new(
            "ring_hash_lb_config",
            format!("needs minimum {min} <= maximum {max} <= 8388608"),
        ));
    }
    Ok(LbPolicy::RingHash { min, max, murmur })
}

fn maglev(table: Option<u64>) -> Result<LbPolicy, ConfigError> {
    let table = table.unwrap_or(65_537);
    let prime = table > 1
        && (2..)
            .take_while(|divisor| divisor * divisor <= table)
            .all(|divisor| !table.is_multiple_of(divisor));
    if !prime || table > 5_000_011 {
        return Err(ConfigError::new(
            "maglev_lb_config.table_size",
            format!("{table} must be a prime up to 5000011"),
        ));
    }
    Ok(LbPolicy::Maglev { table })
}

fn lb_policy(config: &Cluster) -> Result<LbPolicy, ConfigError> {
    if let Some(list) = &config.load_balancing_policy {
        let known = list
            .policies
            .iter()
            .find_map(|policy| listed_policy(policy).transpose());
        return known.unwrap_or_else(|| {
            Err(ConfigError::new(
                "load_balancing_policy",
                "has no policy that is supported",
            ))
        });
    }
    use cluster::LbPolicy as Kind;
    Ok(
        match (Kind::try_from(config.lb_policy), &config.lb_config) {
            (Ok(Kind::RoundRobin), Some(LbConfig::RoundRobinLbConfig(lb))) => {
                LbPolicy::RoundRobin(slow_start(lb.slow_start_config.as_ref()))
            }
            (Ok(Kind::RoundRobin), _) => LbPolicy::RoundRobin(SlowStart::default()),
            (Ok(Kind::LeastRequest), Some(LbConfig::LeastRequestLbConfig(lb))) => {
                LbPolicy::LeastRequest {
                    choices: lb.choice_count.unwrap_or(2).max(1),
                    bias: lb
                        .active_request_bias
                        .as_ref()
                        .map_or(1.0, |bias| bias.default_value),
                    slow_start: slow_start(lb.slow_start_config.as_ref()),
                }
            }
            (Ok(Kind::LeastRequest), _) => LbPolicy::LeastRequest {
                choices: 2,
                bias: 1.0,
                slow_start: SlowStart::default(),
            },
            (Ok(Kind::Random), _) => LbPolicy::Random,
            (Ok(Kind::RingHash), Some(LbConfig::RingHashLbConfig(lb))) => ring(
                lb.minimum_ring_size,
                lb.maximum_ring_size,
                lb.hash_function == 1,
            )?,
            (Ok(Kind::RingHash), _) => ring(None, None, false)?,
            (Ok(Kind::Maglev), Some(LbConfig::MaglevLbConfig(lb))) => maglev(lb.table_size)?,
            (Ok(Kind::Maglev), _) => maglev(None)?,
            (Ok(Kind::ClusterProvided), _) => LbPolicy::ClusterProvided,
            (Ok(Kind::LoadBalancingPolicyConfig), _) => {
                return Err(ConfigError::new(
                    "load_balancing_policy",
                    "is missing, though lb_policy refers to it",
                ));
            }
            (Err(_), _) => {
                return Err(ConfigError::new(
                    "lb_policy",
                    format!("{} is not a known policy", config.lb_policy),
                ));
            }
        },
    )
}

/// One entry of `load_balancing_policy`; `None` if it is of an unknown kind.
fn listed_policy(policy: &Policy) -> Result<Option<LbPolicy>, ConfigError> {
    let Some(any) = policy
        .typed_extension_config
        .as_ref()
        .and_then(|extension| extension.typed_config.as_ref())
    else {
        return Ok(None);
    };
    let kind = xds::any::message_name(any);
    let Some(kind) = kind.strip_prefix("envoy.extensions.load_balancing_policies.") else {
        return Ok(None);
    };
    let wrong = |error| {
        ConfigError::new(
            "load_balancing_policy",
            format!("{kind} cannot be read: {error}"),
        )
    };
    Ok(Some(match kind {
        "round_robin.v3.RoundRobin" => {
            let lb = xds::any::unpack::<policies::round_robin::v3::RoundRobin>(any)
                .map_err(wrong)?
                .unwrap_or_default();
            LbPolicy::RoundRobin(common_slow_start(lb.slow_start_config.as_ref()))
        }
        "random.v3.Random" => LbPolicy::Random,
        "cluster_provided.v3.ClusterProvided" => LbPolicy::ClusterProvided,
        "least_request.v3.LeastRequest" => {
            let lb = xds::any::unpack::<policies::least_request::v3::LeastRequest>(any)
                .map_err(wrong)?
                .unwrap_or_default();
            LbPolicy::LeastRequest {
                choices: lb.choice_count.unwrap_or(2).max(1),
                bias: lb
                    .active_request_bias
                    .as_ref()
                    .map_or(1.0, |bias| bias.default_value),
                slow_start: common_slow_start(lb.slow_start_config.as_ref()),
            }
        }
        "ring_hash.v3.RingHash" => {
            let lb = xds::any::unpack::<policies::ring_hash::v3::RingHash>(any)
                .map_err(wrong)?
                .unwrap_or_default();
            // DEFAULT_HASH 0 is XX_HASH 1.
            ring(
                lb.minimum_ring_size,
                lb.maximum_ring_size,
                lb.hash_function == 2,
            )?
        }
        "maglev.v3.Maglev" => {
            let lb = xds::any::unpack::<policies::maglev::v3::Maglev>(any)
                .map_err(wrong)?
                .unwrap_or_default();
            maglev(lb.table_size)?
        }
        // Envoy would take it.
        _ => {
            return Err(ConfigError::new(
                "load_balancing_policy",
                format!("{kind} is not supported"),
            ));
        }
    }))
}

/// Compiles a transport socket of an upstream.
pub fn transport(config: Option<&TransportSocket>) -> Result<Transport, ConfigError> {
    let Some(config) = config else {
        return Ok(Transport::Raw);
    };
    let Some(transport_socket::ConfigType::TypedConfig(any)) = &config.config_type else {
        return match config.name.as_str() {
            "envoy.transport_sockets.raw_buffer" => Ok(Transport::Raw),
            name => Err(ConfigError::new(
                "typed_config",
                format!("of transport socket {name:?} is missing"),
            )),
        };
    };
    match xds::any::message_name(any) {
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" => Ok(Transport::Raw),
        "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport" => {
            let socket = xds::any::unpack::<ProxyProtocolUpstreamTransport>(any)
                .map_err(|error| ConfigError::new("typed_config", error.to_string()))?
                .unwrap_or_default();
            let settings = socket.config.unwrap_or_default();
            if settings.pass_through_tlvs.is_some() || !settings.added_tlvs.is_empty() {
                return Err(ConfigError::new(
                    "typed_config.config",
                    "pass_through_tlvs and added_tlvs are not supported",
                ));
            }
            let version = match settings.version {
                1 => ProxyProtocol::V2,
                _ => ProxyProtocol::V1,
            };
            let inner = transport(socket.transport_socket.as_ref())
                .map_err(|e| e.within("typed_config.transport_socket"))?;
            Ok(Transport::ProxyProtocol(version, Arc::new(inner)))
        }
        _ => match xds::any::unpack::<UpstreamTlsContext>(any) {
            Ok(Some(tls)) => Ok(Transport::Tls(Arc::new(tls))),
            Ok(None) => Err(ConfigError::new(
                "typed_config",
                format!("the transport socket {} is not supported", any.type_url),
            )),
            Err(error) => Err(ConfigError::new(
                "typed_config",
                format!("is not a valid UpstreamTlsContext: {error}"),
            )),
        },
    }
}

impl Transports {
    fn compile(config: &Cluster) -> Result<Self, ConfigError> {
        let mut matches = Vec::with_capacity(config.transport_socket_matches.len());
        for entry in &config.transport_socket_matches {
            let at = || {
                format!(
                    "transport_socket_matches[{:?}].transport_socket",
                    entry.name
                )
            };
            matches.push(TransportMatch {
                name: entry.name.clone(),
                criteria: entry
                    .r#match
                    .as_ref()
                    .map(struct_to_json)
                    .unwrap_or_default(),
                transport: transport(entry.transport_socket.as_ref())
                    .map_err(|error| error.within(&at()))?,
            });
        }
        let plain = transport(config.transport_socket.as_ref())
            .map_err(|error| error.within("transport_socket"))?;
        Ok(Self { plain, matches })
    }

    fn secrets(&self) -> Vec<String> {
        let mut names = Vec::new();
        for transport in self
            .matches
            .iter()
            .map(|entry| &entry.transport)
            .chain([&self.plain])
        {
            let transport = match transport {
                Transport::ProxyProtocol(_, inner) => inner,
                other => other,
            };
            let Transport::Tls(tls) = transport else {
                continue;
            };
            let Some(common) = &tls.common_tls_context else {
                continue;
            };
            names.extend(
                common
                    .tls_certificate_sds_secret_configs
                    .iter()
                    .map(|secret| secret.name.clone()),
            );
            let validation = match &common.validation_context_type {
                Some(ValidationContextType::ValidationContextSdsSecretConfig(secret)) => {
                    Some(secret)
                }
                Some(ValidationContextType::CombinedValidationContext(both)) => {
                    both.validation_context_sds_secret_config.as_ref()
                }
                _ => None,
            };
            names.extend(validation.map(|secret| secret.name.clone()));
        }
        names.sort_unstable();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests;
