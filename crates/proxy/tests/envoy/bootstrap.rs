//! From a scene to an Envoy bootstrap. What is written for the reader of a case file instead of Envoy's own long form:
//!
//! - `filters: [{fault: {...}}]` and `typed_per_filter_config: {fault: {...}}` name a filter by its last word;
//! - a cluster's `upstreams: [a, b]` makes its endpoints, `{upstream: a}` stands for an endpoint's address, `protocol` is
//!   `http1`, `http2`, `downstream` or `auto`, `http_options` are further `HttpProtocolOptions`, `tls` is an `UpstreamTlsContext`;
//! - `$CERTS` is the directory of the test's certificates, `$a$` in a string the address of upstream `a`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::case::{Case, Scene};

const HTTP: &str = "type.googleapis.com/envoy.extensions.filters.http";

/// The line that is logged for each request unless the case says otherwise.
pub const LOG: &str = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %PROTOCOL% cluster=%UPSTREAM_CLUSTER% host=%UPSTREAM_HOST% tries=%UPSTREAM_REQUEST_ATTEMPT_COUNT% in=%BYTES_RECEIVED% out=%BYTES_SENT% route=%ROUTE_NAME% failure=%UPSTREAM_TRANSPORT_FAILURE_REASON%";

/// Clusters that every scene has.
fn standard() -> Vec<Value> {
    vec![
        json!({"name": "app", "upstreams": ["a"]}),
        json!({"name": "other", "upstreams": ["b"]}),
        json!({"name": "trio", "upstreams": ["a", "b", "c"]}),
        json!({"name": "h2", "upstreams": ["h2"], "protocol": "http2"}),
        json!({"name": "refused", "upstreams": ["refused"]}),
        json!({"name": "empty", "upstreams": []}),
    ]
}

/// The name of a case's listener, and the stat prefix of its connection manager.
pub fn listener_name(index: usize) -> String {
    format!("case{index}")
}

/// The bootstrap of a scene. `ports` are the upstreams', `logs` is the directory for access logs, `certs` that of the certificates.
pub fn build(
    scene: &Scene,
    upstreams: &BTreeMap<String, SocketAddr>,
    logs: &Path,
    certs: &Path,
) -> Value {
    let mut clusters: Vec<Value> = standard();
    clusters.extend(scene.clusters.iter().cloned());
    for case in &scene.cases {
        clusters.extend(case.clusters.iter().cloned());
    }
    // A scene's own cluster of a standard name replaces it.
    let mut named: Vec<Value> = Vec::new();
    for cluster in clusters {
        match named
            .iter()
            .position(|other| other["name"] == cluster["name"])
        {
            Some(at) if at < standard().len() => named[at] = cluster,
            Some(_) => panic!("two clusters {}", cluster["name"]),
            None => named.push(cluster),
        }
    }
    let clusters: Vec<Value> = named.into_iter().map(cluster).collect();
    let listeners: Vec<Value> = scene
        .cases
        .iter()
        .enumerate()
        .map(|(index, case)| listener(scene, case, index, logs))
        .collect();
    let mut all = json!({
        "admin": {"address": address("127.0.0.1:0".parse().unwrap())},
        "node": {"id": "test", "cluster": "test"},
        "static_resources": {"clusters": clusters, "listeners": listeners},
    });
    all.as_object_mut().unwrap().extend(scene.bootstrap.clone());
    expand(&mut all, upstreams, &certs.to_string_lossy());
    all
}

fn address(at: SocketAddr) -> Value {
    json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}})
}

fn listener(scene: &Scene, case: &Case, index: usize, logs: &Path) -> Value {
    let name = listener_name(index);
    let filters = match &case.network {
        Some(filters) => {
            let mut filters = filters.clone();
            for filter in &mut filters {
                if let Some(config) = filter
                    .get_mut("typed_config")
                    .and_then(Value::as_object_mut)
                {
                    config.insert("stat_prefix".into(), json!(name));
                }
            }
            filters
        }
        None => vec![manager(scene, case, &name, logs)],
    };
    let mut chain = json!({"filters": filters});
    if let Some(tls) = &case.tls {
        chain["transport_socket"] = transport_socket(tls, "DownstreamTlsContext");
    }
    let mut listener = json!({
        "name": name, "address": address("127.0.0.1:0".parse().unwrap()), "filter_chains": [chain],
    });
    listener
        .as_object_mut()
        .unwrap()
        .extend(case.listener.clone());
    listener
}

fn manager(scene: &Scene, case: &Case, name: &str, logs: &Path) -> Value {
    let virtual_hosts = if case.virtual_hosts.is_empty() {
        let mut routes = case.routes.clone();
        routes.extend(scene.routes.iter().cloned());
        let mut host = json!({"name": "all", "domains": ["*"], "routes": routes});
        host.as_object_mut()
            .unwrap()
            .extend(case.virtual_host.clone());
        vec![host]
    } else {
        case.virtual_hosts.clone()
    };
    let mut route_config =
        json!({"name": "local", "validate_clusters": false, "virtual_hosts": virtual_hosts});
    route_config
        .as_object_mut()
        .unwrap()
        .extend(case.route_config.clone());
    let mut filters: Vec<Value> = scene
        .filters
        .iter()
        .chain(&case.filters)
        .map(filter)
        .collect();
    filters.push(filter(&json!({"router": {}})));
    let format = case.log.as_deref().unwrap_or(LOG);
    let mut config = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name, "route_config": route_config, "http_filters": filters,
    });
    if !format.is_empty() {
        config["access_log"] = json!([{"name": "envoy.access_loggers.file", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": logs.join(format!("{name}.log")),
            "log_format": {"text_format_source": {"inline_string": format!("{format}\n")}},
        }}]);
    }
    let fields = config.as_object_mut().unwrap();
    if let (Some(filter), Some(log)) = (&case.log_filter, fields.get_mut("access_log")) {
        log[0]["filter"] = filter.clone();
    }
    if let Value::Array(logs) = fields.entry("access_log").or_insert(json!([])) {
        logs.extend(case.access_logs.iter().cloned());
    }
    fields.extend(scene.http.clone());
    fields.extend(case.http.clone());
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": config})
}

/// The name of a filter and the type of its configuration, per route or not.
fn known(word: &str, per_route: bool) -> Option<(&'static str, String)> {
    let (name, message) = match word {
        "fault" => ("envoy.filters.http.fault", "fault.v3.HTTPFault"),
        "cors" if per_route => ("envoy.filters.http.cors", "cors.v3.CorsPolicy"),
        "cors" => ("envoy.filters.http.cors", "cors.v3.Cors"),
        "rbac" if per_route => ("envoy.filters.http.rbac", "rbac.v3.RBACPerRoute"),
        "rbac" => ("envoy.filters.http.rbac", "rbac.v3.RBAC"),
        "local_ratelimit" => (
            "envoy.filters.http.local_ratelimit",
            "local_ratelimit.v3.LocalRateLimit",
        ),
        "csrf" => ("envoy.filters.http.csrf", "csrf.v3.CsrfPolicy"),
        "basic_auth" if per_route => (
            "envoy.filters.http.basic_auth",
            "basic_auth.v3.BasicAuthPerRoute",
        ),
        "basic_auth" => ("envoy.filters.http.basic_auth", "basic_auth.v3.BasicAuth"),
        "decompressor" => (
            "envoy.filters.http.decompressor",
            "decompressor.v3.Decompressor",
        ),
        "compressor" => ("envoy.filters.http.compressor", "compressor.v3.Compressor"),
        "bandwidth_limit" => (
            "envoy.filters.http.bandwidth_limit",
            "bandwidth_limit.v3.BandwidthLimit",
        ),
        "health_check" => (
            "envoy.filters.http.health_check",
            "health_check.v3.HealthCheck",
        ),
        "lua" if per_route => ("envoy.filters.http.lua", "lua.v3.LuaPerRoute"),
        "lua" => ("envoy.filters.http.lua", "lua.v3.Lua"),
        "router" => ("envoy.filters.http.router", "router.v3.Router"),
        _ => return None,
    };
    Some((name, format!("{HTTP}.{message}")))
}

fn filter(short: &Value) -> Value {
    let Some((word, config)) = short
        .as_object()
        .filter(|map| map.len() == 1)
        .and_then(|map| map.iter().next())
    else {
        return short.clone();
    };
    let Some((name, kind)) = known(word, false) else {
        panic!("the filter {word:?} is not known to the test");
    };
    json!({"name": name, "typed_config": typed(kind, config)})
}

fn typed(kind: String, config: &Value) -> Value {
    let mut map = Map::from_iter([("@type".to_owned(), json!(kind))]);
    map.extend(config.as_object().cloned().unwrap_or_default());
    Value::Object(map)
}

fn transport_socket(config: &Value, message: &str) -> Value {
    let kind = format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{message}");
    json!({"name": "envoy.transport_sockets.tls", "typed_config": typed(kind, config)})
}

fn cluster(mut cluster: Value) -> Value {
    let map = cluster.as_object_mut().expect("a cluster is a map");
    let name = map["name"].clone();
    if let Some(Value::Array(upstreams)) = map.remove("upstreams") {
        let endpoints: Vec<Value> = upstreams
            .into_iter()
            .map(|upstream| json!({"upstream": upstream}))
            .collect();
        map.insert(
            "load_assignment".into(),
            json!({"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}),
        );
    } else if let Some(assignment) = map.get_mut("load_assignment") {
        assignment["cluster_name"] = name;
    }
    map.entry("type").or_insert(json!("STATIC"));
    map.entry("connect_timeout").or_insert(json!("2s"));
    let protocol = map.remove("protocol");
    let options = map.remove("http_options");
    if protocol.is_some() || options.is_some() {
        let mut all = match protocol.as_ref().and_then(Value::as_str) {
            None | Some("http1") => json!({"explicit_http_config": {"http_protocol_options": {}}}),
            Some("http2") => json!({"explicit_http_config": {"http2_protocol_options": {}}}),
            Some("downstream") => {
                json!({"use_downstream_protocol_config": {"http2_protocol_options": {}}})
            }
            Some("auto") => json!({"auto_config": {"http2_protocol_options": {}}}),
            Some(other) => panic!("protocol {other:?}"),
        };
        all["@type"] =
            json!("type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions");
        if let Some(options) = options {
            all.as_object_mut()
                .unwrap()
                .extend(options.as_object().cloned().unwrap());
        }
        map.insert(
            "typed_extension_protocol_options".into(),
            json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": all}),
        );
    }
    if let Some(tls) = map.remove("tls") {
        map.insert(
            "transport_socket".into(),
            transport_socket(&tls, "UpstreamTlsContext"),
        );
    }
    cluster
}

/// The shorthands that may stand anywhere.
fn expand(value: &mut Value, upstreams: &BTreeMap<String, SocketAddr>, certs: &str) {
    match value {
        Value::String(text) => {
            if text.contains("$CERTS") {
                *text = text.replace("$CERTS", certs);
            }
            if text.contains('$') {
                *text = addresses(text, upstreams);
            }
        }
        Value::Array(list) => list
            .iter_mut()
            .for_each(|item| expand(item, upstreams, certs)),
        Value::Object(map) => {
            if let Some(Value::String(name)) = map.get("upstream").cloned() {
                map.remove("upstream");
                let at = upstreams
                    .get(&name)
                    .unwrap_or_else(|| panic!("no upstream {name:?}"));
                let mut endpoint = json!({"address": address(*at)});
                if let Some(hostname) = map.remove("hostname") {
                    endpoint["hostname"] = hostname;
                }
                map.insert("endpoint".into(), endpoint);
            }
            if let Some(Value::Object(configs)) = map.get_mut("typed_per_filter_config") {
                let short: Vec<String> = configs.keys().cloned().collect();
                for word in short {
                    if let Some((name, kind)) = known(&word, true) {
                        let config = configs.remove(&word).unwrap();
                        configs.insert(name.into(), typed(kind, &config));
                    }
                }
            }
            map.values_mut()
                .for_each(|item| expand(item, upstreams, certs));
        }
        _ => {}
    }
}

/// `$a$` becomes the address of upstream `a`.
pub fn addresses(text: &str, upstreams: &BTreeMap<String, SocketAddr>) -> String {
    let mut text = text.to_owned();
    for (name, at) in upstreams {
        text = text.replace(&format!("${name}$"), &at.to_string());
    }
    text
}
