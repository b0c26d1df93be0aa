//! The bootstrap that pilot-agent writes, from the pod's environment.

use serde_json::{Map, Value, json};
use xds::envoy::config::bootstrap::v3::Bootstrap;

use super::Environment;

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

/// Types in the bootstrap, without their prefix.
const HCM: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
const COMPRESSOR: &str = "envoy.extensions.filters.http.compressor.v3.Compressor";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

fn url(name: &str) -> String {
    format!("type.googleapis.com/{name}")
}

/// The bootstrap as a message.
///
/// # Errors
/// When the environment holds something that fits no bootstrap (a stats matcher that is none).
pub fn bootstrap(environment: &Environment) -> Result<Bootstrap, String> {
    xds::json::from_value(value(environment), false).map_err(|error| format!("bootstrap: {error}"))
}

/// The bootstrap as JSON, in the order pilot-agent writes it.
fn value(environment: &Environment) -> Value {
    let admin = environment.config_number("proxyAdminPort");
    let status = environment.config_number("statusPort");
    json!({
        "application_log_config": {
            "log_format": {"text_format": "%Y-%m-%dT%T.%fZ\t%l\tenvoy %n %g:%#\t%v\tthread=%t"}
        },
        "node": environment.node(),
        "layered_runtime": {"layers": [
            {"name": "global config", "static_layer": runtime_layer(environment)},
            {"name": "admin", "admin_layer": {}},
        ]},
        "bootstrap_extensions": [{
            "name": "envoy.bootstrap.internal_listener",
            "typed_config": {
                "@type": url("udpa.type.v1.TypedStruct"),
                "type_url": url("envoy.extensions.bootstrap.internal_listener.v3.InternalListener"),
                "value": {"buffer_size_kb": 64},
            },
        }],
        "stats_config": stats_config(environment),
        "admin": {
            "access_log": [{
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": url("envoy.extensions.access_loggers.file.v3.FileAccessLog"),
                    "path": "/dev/null",
                },
            }],
            "profile_path": "/var/lib/istio/data/envoy.prof",
            "address": socket("127.0.0.1", admin, false),
        },
        "dynamic_resources": {
            "lds_config": ads(),
            "cds_config": ads(),
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "set_node_on_first_message_only": true,
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            },
        },
        "static_resources": {
            "clusters": [
                cluster("prometheus_stats", "0.250s", &socket("127.0.0.1", admin, true)),
                cluster("agent", "0.250s", &socket("127.0.0.1", status, true)),
                http2(cluster("sds-grpc", "1s", &pipe("./var/run/secrets/workload-spiffe-uds/socket"))),
                xds_cluster(),
            ],
            "listeners": [
                listener("0.0.0.0_15090", 15090, "stats", "/stats/prometheus", "prometheus_stats", &compressors()),
                listener("0.0.0.0_15021", 15021, "agent", "/healthz/ready", "agent", &[]),
            ],
        },
        "overload_manager": {"resource_monitors": [{
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": url("envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"),
                "max_active_downstream_connections": 2_147_483_647u32,
            },
        }]},
        "deferred_stat_options": {"enable_deferred_creation_stats": true},
    })
}

fn runtime_layer(environment: &Environment) -> Value {
    let mut layer = Map::new();
    layer.insert(
        "envoy.deprecated_features:envoy.config.listener.v3.Listener.hidden_envoy_deprecated_use_original_dst".into(),
        true.into(),
    );
    layer.insert(
        "envoy.reloadable_features.coalesce_lb_rebuilds_on_batch_update".into(),
        false.into(),
    );
    layer.insert(
        "envoy.reloadable_features.fixed_heap_use_allocated".into(),
        true.into(),
    );
    layer.insert(
        "envoy.reloadable_features.http_reject_path_with_fragment".into(),
        false.into(),
    );
    layer.insert("re2.max_program_size.error_level".into(), "32768".into());
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
    Value::Object(layer)
}

fn stats_config(environment: &Environment) -> Value {
    let mut patterns = vec![json!({"prefix": "reporter="})];
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
    patterns.extend(prefixes.into_iter().map(|text| json!({"prefix": text})));
    patterns.extend(suffixes.into_iter().map(|text| json!({"suffix": text})));
    patterns.extend(
        regexes
            .into_iter()
            .map(|text| json!({"safe_regex": {"regex": text}})),
    );
    patterns.push(json!({"prefix": "component"}));
    patterns.push(json!({"prefix": "istio"}));
    let tags: Vec<Value> = TAGS
        .iter()
        .map(|(name, regex)| json!({"tag_name": name, "regex": regex}))
        .collect();
    json!({
        "use_all_default_tags": false,
        "stats_tags": tags,
        "stats_matcher": {"inclusion_list": {"patterns": patterns}},
    })
}

fn ads() -> Value {
    json!({"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"})
}

fn socket(address: &str, port: u64, protocol: bool) -> Value {
    let mut socket = Map::new();
    if protocol {
        socket.insert("protocol".into(), "TCP".into());
    }
    socket.insert("address".into(), address.into());
    socket.insert("port_value".into(), port.into());
    json!({ "socket_address": socket })
}

fn pipe(path: &str) -> Value {
    json!({"pipe": {"path": path}})
}

fn cluster(name: &str, timeout: &str, address: &Value) -> Value {
    json!({
        "name": name,
        "alt_stat_name": format!("{name};"),
        "type": "STATIC",
        "connect_timeout": timeout,
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    })
}

fn http2(mut cluster: Value) -> Value {
    cluster["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": url(HTTP_OPTIONS),
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    });
    cluster
}

fn xds_cluster() -> Value {
    let mut cluster = http2(cluster("xds-grpc", "1s", &pipe("./etc/istio/proxy/XDS")));
    let limits = |priority: &str| {
        json!({
            "priority": priority, "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000,
        })
    };
    cluster["circuit_breakers"] = json!({"thresholds": [limits("DEFAULT"), limits("HIGH")]});
    cluster["upstream_connection_options"] = json!({"tcp_keepalive": {"keepalive_time": 300}});
    cluster["max_requests_per_connection"] = 1.into();
    cluster
}

fn compressors() -> Vec<Value> {
    [("brotli", "Brotli"), ("zstd", "Zstd"), ("gzip", "Gzip")]
        .into_iter()
        .map(|(name, kind)| {
            json!({
                "name": format!("envoy.filters.http.compressor.{name}"),
                "typed_config": {
                    "@type": url(COMPRESSOR),
                    "compressor_library": {
                        "name": format!("stats_{name}"),
                        "typed_config": {
                            "@type": url(&format!("envoy.extensions.compression.{name}.compressor.v3.{kind}")),
                        },
                    },
                    "response_direction_config": {"common_config": {"content_type": [
                        "text/plain", "application/vnd.google.protobuf", "application/openmetrics-text",
                        "application/openmetrics-protobuf",
                    ]}},
                },
            })
        })
        .collect()
}

fn listener(
    name: &str,
    port: u64,
    prefix: &str,
    path: &str,
    cluster: &str,
    filters: &[Value],
) -> Value {
    let mut filters = filters.to_vec();
    filters
        .push(json!({"name": "envoy.filters.http.router", "typed_config": {"@type": url(ROUTER)}}));
    json!({
        "name": name,
        "address": socket("0.0.0.0", port, true),
        "ignore_global_conn_limit": true,
        "bypass_overload_manager": true,
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": url(HCM),
                "codec_type": "AUTO",
                "stat_prefix": prefix,
                "route_config": {"virtual_hosts": [{
                    "name": "backend",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": path}, "route": {"cluster": cluster}}],
                }]},
                "http_filters": filters,
            },
        }]}],
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_bootstrap_is_one_and_shows_what_the_pod_asks_for() {
        let annotations = "sidecar.istio.io/statsInclusionPrefixes=\"cluster.outbound\"";
        let environment = Environment::new("sidecar", None, BTreeMap::new(), "", annotations);
        let message = bootstrap(&environment).unwrap();
        let back = xds::json::to_value(&message).unwrap();
        assert_eq!(
            back["stats_config"]["stats_matcher"]["inclusion_list"]["patterns"][1]["prefix"],
            "cluster.outbound"
        );
        assert_eq!(message.static_resources.unwrap().listeners.len(), 2);
    }
}
