//! The bootstrap that pilot-agent writes, from the pod's environment. It is made of messages, not read from JSON: that would
//! take the descriptors of all of Envoy's messages, time and megabytes that a starting sidecar need not spend.

use dataplane::matching::json_to_struct;
use serde_json::Value;
use xds::any::pack;
use xds::envoy::config::accesslog::v3::{AccessLog, access_log};
use xds::envoy::config::bootstrap::v3::bootstrap::{
    ApplicationLogConfig, DeferredStatOptions, DynamicResources, StaticResources,
    application_log_config::{LogFormat, log_format},
};
use xds::envoy::config::bootstrap::v3::{
    Admin, Bootstrap, LayeredRuntime, RuntimeLayer, runtime_layer::AdminLayer,
    runtime_layer::LayerSpecifier,
};
use xds::envoy::config::cluster::v3::{
    CircuitBreakers, Cluster, UpstreamConnectionOptions, circuit_breakers::Thresholds, cluster,
};
use xds::envoy::config::core::v3 as core;
use xds::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};
use xds::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use xds::envoy::config::metrics::v3::{
    StatsConfig, StatsMatcher, TagSpecifier, stats_matcher, tag_specifier::TagValue,
};
use xds::envoy::config::overload::v3::{OverloadManager, ResourceMonitor, resource_monitor};
use xds::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route,
    route_action::ClusterSpecifier, route_match::PathSpecifier,
};
use xds::envoy::extensions::access_loggers::file::v3::FileAccessLog;
use xds::envoy::extensions::compression::{
    brotli::compressor::v3::Brotli, gzip::compressor::v3::Gzip, zstd::compressor::v3::Zstd,
};
use xds::envoy::extensions::filters::http::compressor::v3::{Compressor, compressor};
use xds::envoy::extensions::filters::http::router::v3::Router;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_connection_manager::RouteSpecifier, http_filter,
};
use xds::envoy::extensions::resource_monitors::downstream_connections::v3::DownstreamConnectionsConfig;
use xds::envoy::extensions::upstreams::http::v3::{
    HttpProtocolOptions,
    http_protocol_options::{
        ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
    },
};
use xds::envoy::r#type::matcher::v3::{
    ListStringMatcher, RegexMatcher, StringMatcher, string_matcher::MatchPattern,
};
use xds::prost_types::{Any, Duration, Struct};
use xds::udpa::r#type::v1::TypedStruct;

use crate::Environment;

/// The parts of statistic names that become tags, as Istio's bootstrap has them.
const TAGS: [(&str, &str); 16] = [
    ("cluster_name", r"^cluster(\.(.+);)"),
    (
        "http_conn_manager_prefix",
        r"^http\.(((?:[_.[:digit:]\w]*|[_\[\]aAbBcCdDeEfF[:digit:]\w\:]*));\.)",
    ),
    ("thread_name", r"^server(\.(.+))\.watchdog"),
    ("tcp_prefix", r"^tcp\.((.*?)\.)\w+?$"),
    ("response_code", r"_rq(_(\d{3}))$"),
    ("response_code_class", r"_rq(_(\dxx))$"),
    (
        "http_conn_manager_listener_prefix",
        r"^listener(?=\.).*?\.http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)",
    ),
    (
        "listener_address",
        r"^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)",
    ),
    (
        "mongo_prefix",
        r"^mongo\.(.+?)\.(collection|cmd|cx_|op_|delays_|decoding_)(.*?)$",
    ),
    ("cache", r"(cache\.(.+?)\.)"),
    ("component", r"(component\.(.+?)\.)"),
    ("tag", r"(tag\.(.+?);\.)"),
    ("wasm_filter", r"(wasm_filter\.(.+?)\.)"),
    ("authz_enforce_result", r"rbac(\.(allowed|denied))"),
    ("authz_dry_run_action", r"(\.istio_dry_run_(allow|deny)_)"),
    ("authz_dry_run_result", r"(\.shadow_(allowed|denied))"),
];

/// The bootstrap as a message.
pub fn bootstrap(environment: &Environment) -> Bootstrap {
    let admin = environment.port("proxyAdminPort");
    let status = environment.port("statusPort");
    Bootstrap {
        application_log_config: Some(ApplicationLogConfig {
            log_format: Some(LogFormat {
                log_format: Some(log_format::LogFormat::TextFormat(
                    "%Y-%m-%dT%T.%fZ\t%l\tenvoy %n %g:%#\t%v\tthread=%t".into(),
                )),
            }),
        }),
        node: Some(environment.node()),
        layered_runtime: Some(LayeredRuntime {
            layers: vec![
                layer(
                    "global config",
                    LayerSpecifier::StaticLayer(runtime_layer(environment)),
                ),
                layer("admin", LayerSpecifier::AdminLayer(AdminLayer {})),
            ],
        }),
        bootstrap_extensions: vec![internal_listener()],
        stats_config: Some(stats_config(environment)),
        admin: Some(Admin {
            access_log: vec![AccessLog {
                name: "envoy.access_loggers.file".into(),
                config_type: Some(access_log::ConfigType::TypedConfig(pack(&FileAccessLog {
                    path: "/dev/null".into(),
                    ..Default::default()
                }))),
                ..Default::default()
            }],
            profile_path: "/var/lib/istio/data/envoy.prof".into(),
            address: Some(socket("127.0.0.1", admin)),
            ..Default::default()
        }),
        dynamic_resources: Some(DynamicResources {
            lds_config: Some(ads()),
            cds_config: Some(ads()),
            ads_config: Some(core::ApiConfigSource {
                api_type: core::api_config_source::ApiType::DeltaGrpc as i32,
                set_node_on_first_message_only: true,
                transport_api_version: core::ApiVersion::V3 as i32,
                grpc_services: vec![core::GrpcService {
                    target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(
                        core::grpc_service::EnvoyGrpc {
                            cluster_name: "xds-grpc".into(),
                            ..Default::default()
                        },
                    )),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            ..Default::default()
        }),
        static_resources: Some(StaticResources {
            clusters: vec![
                cluster(
                    "prometheus_stats",
                    QUARTER_SECOND,
                    socket("127.0.0.1", admin),
                ),
                cluster("agent", QUARTER_SECOND, socket("127.0.0.1", status)),
                http2(cluster(
                    "sds-grpc",
                    SECOND,
                    pipe("./var/run/secrets/workload-spiffe-uds/socket"),
                )),
                xds_cluster(),
            ],
            listeners: vec![
                listener(
                    15090,
                    "stats",
                    "/stats/prometheus",
                    "prometheus_stats",
                    compressors(),
                ),
                listener(15021, "agent", "/healthz/ready", "agent", Vec::new()),
            ],
            ..Default::default()
        }),
        overload_manager: Some(OverloadManager {
            resource_monitors: vec![ResourceMonitor {
                name: "envoy.resource_monitors.global_downstream_max_connections".into(),
                config_type: Some(resource_monitor::ConfigType::TypedConfig(pack(
                    &DownstreamConnectionsConfig {
                        max_active_downstream_connections: 2_147_483_647,
                    },
                ))),
            }],
            ..Default::default()
        }),
        deferred_stat_options: Some(DeferredStatOptions {
            enable_deferred_creation_stats: true,
        }),
        ..Default::default()
    }
}

fn layer(name: &str, specifier: LayerSpecifier) -> RuntimeLayer {
    RuntimeLayer {
        name: name.into(),
        layer_specifier: Some(specifier),
    }
}

fn internal_listener() -> core::TypedExtensionConfig {
    let value = serde_json::Map::from_iter([("buffer_size_kb".to_owned(), 64.into())]);
    core::TypedExtensionConfig {
        name: "envoy.bootstrap.internal_listener".into(),
        typed_config: Some(pack(&TypedStruct {
            type_url: "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"
                .into(),
            value: Some(json_to_struct(&value)),
        })),
    }
}

fn runtime_layer(environment: &Environment) -> Struct {
    let mut layer = serde_json::Map::from_iter(
        [
            (
                "envoy.deprecated_features:envoy.config.listener.v3.Listener.hidden_envoy_deprecated_use_original_dst",
                Value::from(true),
            ),
            ("envoy.reloadable_features.coalesce_lb_rebuilds_on_batch_update", false.into()),
            ("envoy.reloadable_features.fixed_heap_use_allocated", true.into()),
            ("envoy.reloadable_features.http_reject_path_with_fragment", false.into()),
            ("re2.max_program_size.error_level", "32768".into()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    if let Some(Value::Object(values)) = environment.proxy_config.get("runtimeValues") {
        for (name, value) in values {
            match value.as_str() {
                Some("") => {
                    layer.remove(name);
                }
                Some("true") => {
                    layer.insert(name.clone(), true.into());
                }
                Some("false") => {
                    layer.insert(name.clone(), false.into());
                }
                _ => {
                    layer.insert(name.clone(), value.clone());
                }
            }
        }
    }
    json_to_struct(&layer)
}

fn stats_config(environment: &Environment) -> StatsConfig {
    let mut patterns = vec![MatchPattern::Prefix("reporter=".into())];
    let user = |list: &str, annotation: &str| -> Vec<String> {
        let texts: Vec<String> = match environment.annotations.get(annotation) {
            Some(text) => text.split(',').map(|text| text.trim().to_owned()).collect(),
            None => environment
                .proxy_config
                .get("proxyStatsMatcher")
                .and_then(|matcher| matcher.get(list))
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|text| text.as_str().map(str::to_owned))
                .collect(),
        };
        texts
            .into_iter()
            .filter(|text| !text.is_empty())
            .map(|text| text.replace("{pod_ip}", &environment.ip))
            .collect()
    };
    let both = |mine: Vec<String>, fixed: &[&str]| {
        mine.into_iter()
            .chain(fixed.iter().map(|text| (*text).to_owned()))
            .collect::<Vec<_>>()
    };
    let prefixes = both(
        user(
            "inclusionPrefixes",
            "sidecar.istio.io/statsInclusionPrefixes",
        ),
        &[
            "cluster_manager",
            "listener_manager",
            "server",
            "cluster.xds-grpc",
            "wasm",
        ],
    );
    let mut fixed_suffixes = vec![
        "rbac.allowed",
        "rbac.denied",
        "shadow_allowed",
        "shadow_denied",
    ];
    if environment.flag("EXIT_ON_ZERO_ACTIVE_CONNECTIONS") {
        fixed_suffixes.push("downstream_cx_active");
    }
    let suffixes = both(
        user(
            "inclusionSuffixes",
            "sidecar.istio.io/statsInclusionSuffixes",
        ),
        &fixed_suffixes,
    );
    let regexes = both(
        user("inclusionRegexps", "sidecar.istio.io/statsInclusionRegexps"),
        &["vhost\\..*\\.route\\..*"],
    );
    patterns.extend(prefixes.into_iter().map(MatchPattern::Prefix));
    patterns.extend(suffixes.into_iter().map(MatchPattern::Suffix));
    patterns.extend(regexes.into_iter().map(|regex| {
        MatchPattern::SafeRegex(RegexMatcher {
            regex,
            ..Default::default()
        })
    }));
    patterns.push(MatchPattern::Prefix("component".into()));
    patterns.push(MatchPattern::Prefix("istio".into()));
    let pattern = |pattern| StringMatcher {
        match_pattern: Some(pattern),
        ..Default::default()
    };
    let tag = |(name, regex): &(&str, &str)| TagSpecifier {
        tag_name: (*name).to_owned(),
        tag_value: Some(TagValue::Regex((*regex).to_owned())),
    };
    StatsConfig {
        use_all_default_tags: Some(false),
        stats_tags: TAGS.iter().map(tag).collect(),
        stats_matcher: Some(StatsMatcher {
            stats_matcher: Some(stats_matcher::StatsMatcher::InclusionList(
                ListStringMatcher {
                    patterns: patterns.into_iter().map(pattern).collect(),
                },
            )),
        }),
        ..Default::default()
    }
}

fn ads() -> core::ConfigSource {
    core::ConfigSource {
        initial_fetch_timeout: Some(Duration::default()),
        resource_api_version: core::ApiVersion::V3 as i32,
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource {},
        )),
        ..Default::default()
    }
}

fn address(address: core::address::Address) -> core::Address {
    core::Address {
        address: Some(address),
    }
}

fn socket(host: &str, port: u32) -> core::Address {
    address(core::address::Address::SocketAddress(core::SocketAddress {
        address: host.into(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port)),
        ..Default::default()
    }))
}

fn pipe(path: &str) -> core::Address {
    address(core::address::Address::Pipe(core::Pipe {
        path: path.into(),
        mode: 0,
    }))
}

const SECOND: Duration = Duration {
    seconds: 1,
    nanos: 0,
};
const QUARTER_SECOND: Duration = Duration {
    seconds: 0,
    nanos: 250_000_000,
};

fn cluster(name: &str, timeout: Duration, address: core::Address) -> Cluster {
    let endpoint = LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(address),
            ..Default::default()
        })),
        ..Default::default()
    };
    Cluster {
        name: name.into(),
        alt_stat_name: format!("{name};"),
        cluster_discovery_type: Some(cluster::ClusterDiscoveryType::Type(
            cluster::DiscoveryType::Static as i32,
        )),
        connect_timeout: Some(timeout),
        lb_policy: cluster::LbPolicy::RoundRobin as i32,
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: name.into(),
            endpoints: vec![LocalityLbEndpoints {
                lb_endpoints: vec![endpoint],
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn http2(mut cluster: Cluster) -> Cluster {
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(
            ExplicitHttpConfig {
                protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(
                    core::Http2ProtocolOptions::default(),
                )),
            },
        )),
        ..Default::default()
    };
    cluster.typed_extension_protocol_options.insert(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".into(),
        pack(&options),
    );
    cluster
}

#[expect(
    deprecated,
    reason = "Istio's bootstrap still sets max_requests_per_connection here"
)]
fn xds_cluster() -> Cluster {
    let limits = |priority: core::RoutingPriority| Thresholds {
        priority: priority as i32,
        max_connections: Some(100_000),
        max_pending_requests: Some(100_000),
        max_requests: Some(100_000),
        ..Default::default()
    };
    let mut cluster = http2(cluster("xds-grpc", SECOND, pipe("./etc/istio/proxy/XDS")));
    cluster.circuit_breakers = Some(CircuitBreakers {
        thresholds: vec![
            limits(core::RoutingPriority::Default),
            limits(core::RoutingPriority::High),
        ],
        ..Default::default()
    });
    cluster.upstream_connection_options = Some(UpstreamConnectionOptions {
        tcp_keepalive: Some(core::TcpKeepalive {
            keepalive_time: Some(300),
            ..Default::default()
        }),
        ..Default::default()
    });
    cluster.max_requests_per_connection = Some(1);
    cluster
}

fn http_filter(name: String, config: Any) -> HttpFilter {
    HttpFilter {
        name,
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

#[expect(deprecated, reason = "Istio's bootstrap still sets content_type here")]
fn compressors() -> Vec<HttpFilter> {
    [
        ("brotli", pack(&Brotli::default())),
        ("zstd", pack(&Zstd::default())),
        ("gzip", pack(&Gzip::default())),
    ]
    .into_iter()
    .map(|(name, library)| {
        let types = [
            "text/plain",
            "application/vnd.google.protobuf",
            "application/openmetrics-text",
            "application/openmetrics-protobuf",
        ];
        let config = Compressor {
            compressor_library: Some(core::TypedExtensionConfig {
                name: format!("stats_{name}"),
                typed_config: Some(library),
            }),
            response_direction_config: Some(compressor::ResponseDirectionConfig {
                common_config: Some(compressor::CommonDirectionConfig {
                    content_type: types.map(str::to_owned).into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        http_filter(
            format!("envoy.filters.http.compressor.{name}"),
            pack(&config),
        )
    })
    .collect()
}

/// A listener of the agent: what begins with `path` goes to the cluster.
fn listener(
    port: u32,
    prefix: &str,
    path: &str,
    cluster: &str,
    mut filters: Vec<HttpFilter>,
) -> Listener {
    filters.push(http_filter(
        "envoy.filters.http.router".into(),
        pack(&Router::default()),
    ));
    let to_cluster = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix(path.into())),
            ..Default::default()
        }),
        action: Some(route::Action::Route(RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.into())),
            ..Default::default()
        })),
        ..Default::default()
    };
    let manager = HttpConnectionManager {
        stat_prefix: prefix.into(),
        route_specifier: Some(RouteSpecifier::RouteConfig(RouteConfiguration {
            virtual_hosts: vec![VirtualHost {
                name: "backend".into(),
                domains: vec!["*".into()],
                routes: vec![to_cluster],
                ..Default::default()
            }],
            ..Default::default()
        })),
        http_filters: filters,
        ..Default::default()
    };
    Listener {
        name: format!("0.0.0.0_{port}"),
        address: Some(socket("0.0.0.0", port)),
        ignore_global_conn_limit: true,
        bypass_overload_manager: true,
        filter_chains: vec![FilterChain {
            filters: vec![Filter {
                name: "envoy.filters.network.http_connection_manager".into(),
                config_type: Some(filter::ConfigType::TypedConfig(pack(&manager))),
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
