//! Clusters of services: one for each port, and one more for each subset.

use super::connection_pool::{self, HttpOptions};
use super::{load_balancer, metadata, metadata_exchange, outlier, set_http_options, tls};
use crate::context::Context;
use crate::destination_rule::MergedRule;
use crate::endpoints::{self, ClusterRef};
use crate::names;
use crate::proto::{ads, boolean, duration, seconds, text};
use crate::protocol::Protocol;
use crate::registry::{Resolution, Service, ServicePort, TrafficDistribution};
use crate::traffic_policy::Policy;
use api::istio::{ClientTlsMode, Duration, SimpleLb, Subset, TrafficPolicy};
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig,
};
use xds::envoy::config::core::v3::{HealthStatus, HealthStatusSet, TypedExtensionConfig};
use xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;

const ORIGINAL_DST: ClusterDiscoveryType =
    ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32);

/// What the clusters of a service port have in common.
pub(crate) struct ServiceCluster<'a> {
    pub(crate) service: &'a Service,
    pub(crate) port: &'a ServicePort,
    pub(crate) rule: Option<&'a MergedRule>,
    /// For AUTO_PASSTHROUGH gateways: named by server name, without TLS.
    pub(crate) sni_forwarding: bool,
}

impl ServiceCluster<'_> {
    /// Whether the rule is for selected workloads.
    pub(crate) fn is_selected(&self) -> bool {
        self.rule
            .is_some_and(|rule| rule.spec.workload_selector.is_some())
    }
}

/// The clusters of a service port, with their endpoints where these come by EDS.
pub(crate) fn clusters(
    context: &Context<'_>,
    source: &ServiceCluster<'_>,
    out: &mut Vec<Cluster>,
    eds: &mut Vec<ClusterLoadAssignment>,
) {
    let service = source.service;
    if service.resolution == Resolution::DynamicDns && crate::host::is_wildcard(&service.host) {
        out.extend(crate::dynamic_dns::cluster(context, source));
        return;
    }
    let first = out.len();
    build(context, source, None, false, out, eds);
    // Subsets take the discovery type that the policy of the rule gave its own cluster, if they do not ask for another.
    let all_do = out
        .get(first)
        .is_some_and(|cluster| cluster.cluster_discovery_type == Some(ORIGINAL_DST));
    for subset in source.rule.iter().flat_map(|rule| &rule.spec.subsets) {
        let passthrough = all_do || asks_all(subset.traffic_policy.as_ref());
        build(context, source, Some(subset), passthrough, out, eds);
    }
}

/// Whether a policy asks for the address the client meant, apart from what it says about single ports.
fn asks_all(policy: Option<&TrafficPolicy>) -> bool {
    let balancer = policy.and_then(|policy| policy.load_balancer.as_ref());
    balancer.and_then(|balancer| balancer.simple) == Some(SimpleLb::Passthrough)
}

fn build(
    context: &Context<'_>,
    source: &ServiceCluster<'_>,
    subset: Option<&Subset>,
    passthrough: bool,
    out: &mut Vec<Cluster>,
    eds: &mut Vec<ClusterLoadAssignment>,
) {
    let (service, port) = (source.service, source.port);
    let subset_name = subset.map_or("", |subset| subset.name.as_str());
    let sni = names::outbound_sni(port.number, subset_name, &service.host);
    let name = if source.sni_forwarding {
        sni.clone()
    } else {
        names::outbound(port.number, subset_name, &service.host)
    };
    let defaults = context.snapshot.mesh.default_traffic_policy.as_ref();
    let mut policy =
        Policy::of_rule(source.rule.map(|rule| &rule.spec), port.number).or_of_mesh(defaults);
    if let Some(subset) = subset {
        policy = policy.with_subset(subset.traffic_policy.as_ref(), port.number);
    }
    let mut extra = Vec::new();
    if let Some(rule) = source.rule {
        extra.push((
            "config",
            text(names::config_path(
                "destination-rule",
                &rule.namespace,
                &rule.name,
            )),
        ));
    }
    match subset {
        Some(subset) => extra.push(("subset", text(subset.name.clone()))),
        None if service.mesh_external => extra.push(("external", boolean(true))),
        None => {}
    }
    let mut cluster = Cluster {
        name: name.clone(),
        alt_stat_name: match context.snapshot.mesh.outbound_cluster_stat_name.as_str() {
            "" => names::stat(&name),
            pattern => names::stat(&names::filled(
                pattern,
                service,
                &service.host,
                subset_name,
                port,
                0,
            )),
        },
        metadata: Some(metadata(&[service], extra)),
        ..Default::default()
    };
    if !context.proxy.plain_envoy {
        cluster.filters.push(metadata_exchange());
    }
    let place = ClusterRef {
        name: &name,
        service,
        port,
        subset: subset_name,
        rule: source.rule,
        sni_forwarding: source.sni_forwarding,
    };
    if passthrough {
        cluster.cluster_discovery_type = Some(ORIGINAL_DST);
    } else if !set_discovery(context, &mut cluster, &place) {
        return;
    }
    let mut options = HttpOptions::new(port.protocol, !context.proxy.is_router());
    let pool = policy.pool;
    connection_pool::choose_upstream(context, &mut options, port.protocol, pool);
    connection_pool::apply(
        context,
        &mut cluster,
        &mut options,
        pool,
        policy.retry_budget,
    );
    load_balancer::apply(context, &mut cluster, service, &port.target, &policy);
    if subset.is_none()
        && !source.sni_forwarding
        && service.keeps_draining()
        && let Some(shared) = &mut cluster.common_lb_config
    {
        let kept = [
            HealthStatus::Healthy,
            HealthStatus::Draining,
            HealthStatus::Unknown,
            HealthStatus::Degraded,
        ];
        shared.override_host_status = Some(HealthStatusSet {
            statuses: kept.map(|status| status as i32).to_vec(),
        });
    }
    cluster.outlier_detection = policy.outlier.map(outlier::settings);
    // Endpoints preferred by place are never given up in a panic.
    if let (Some(shared), Some(detection)) = (cluster.common_lb_config.as_mut(), policy.outlier)
        && service.traffic_distribution == TrafficDistribution::Any
    {
        let least = f64::from(detection.min_health_percent.max(0));
        shared.healthy_panic_threshold = Some(crate::proto::percent(least));
    }
    if !source.sni_forwarding {
        let upstream = tls::Upstream {
            service,
            policy,
            sni,
            selected: source.is_selected(),
            port_name: &port.name,
            asks_all: match subset {
                Some(subset) => asks_all(subset.traffic_policy.as_ref()),
                None => asks_all(
                    source
                        .rule
                        .and_then(|rule| rule.spec.traffic_policy.as_ref()),
                ),
            },
            dynamic: false,
        };
        tls::apply(context, &mut cluster, &mut options, &upstream);
    } else if policy
        .tls
        .is_some_and(|own| matches!(own.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual))
    {
        tls::mark_no_alpn_override(&mut cluster);
    }
    if context
        .proxy_config
        .proxy_headers
        .as_ref()
        .is_some_and(|headers| headers.preserve_http1_header_case == Some(true))
    {
        options.preserve_case(port.protocol);
    }
    if let Some(options) = options.finish() {
        set_http_options(&mut cluster, &options);
    }
    if cluster.eds_cluster_config.is_some() {
        eds.push(endpoints::load_assignment(context, &place, false));
    }
    out.push(cluster);
}

/// Sets how endpoints are found; false if the cluster has to be left out.
#[allow(deprecated)] // istiod still writes the plain DNS fields
fn set_discovery(context: &Context<'_>, cluster: &mut Cluster, place: &ClusterRef<'_>) -> bool {
    let kind = match place.service.resolution {
        Resolution::Static => DiscoveryType::Eds,
        Resolution::Passthrough if context.proxy.is_router() => DiscoveryType::Eds,
        Resolution::Passthrough => DiscoveryType::OriginalDst,
        Resolution::Dns if place.service.races_connections => DiscoveryType::LogicalDns,
        Resolution::Dns => DiscoveryType::StrictDns,
        Resolution::DnsRoundRobin => DiscoveryType::LogicalDns,
        Resolution::DynamicDns | Resolution::Alias => return false,
    };
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind as i32));
    match kind {
        DiscoveryType::Eds => {
            cluster.eds_cluster_config = Some(EdsClusterConfig {
                eds_config: Some(ads()),
                service_name: place.name.to_owned(),
            });
        }
        DiscoveryType::StrictDns | DiscoveryType::LogicalDns => {
            let assignment = endpoints::load_assignment(context, place, true);
            if assignment.endpoints.is_empty() {
                return false;
            }
            cluster.load_assignment = Some(assignment);
            cluster.dns_lookup_family = if place.service.races_connections {
                DnsLookupFamily::All
            } else {
                DnsLookupFamily::V4Only
            } as i32;
            cluster.dns_refresh_rate = Some(duration(
                context
                    .snapshot
                    .mesh
                    .dns_refresh_rate
                    .unwrap_or(Duration::from_secs(60)),
            ));
            cluster.dns_jitter = Some(xds::prost_types::Duration {
                nanos: 100_000_000,
                ..seconds(0)
            });
            cluster.respect_dns_ttl = true;
            cluster.typed_dns_resolver_config = Some(TypedExtensionConfig {
                name: "envoy.network.dns_resolver.cares".to_owned(),
                typed_config: Some(xds::any::pack(&CaresDnsResolverConfig {
                    udp_max_queries: Some(100),
                    ..Default::default()
                })),
            });
        }
        _ => {}
    }
    true
}

/// Ports of a service that have clusters.
pub(crate) fn ports(service: &Service) -> impl Iterator<Item = &ServicePort> {
    service
        .ports
        .iter()
        .filter(|port| port.protocol != Protocol::Udp)
}
