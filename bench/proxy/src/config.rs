//! Configurations for both proxies: bootstraps in Envoy's JSON.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::program::local;

const HCM: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters.http";
const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";
const OPTIONS: &str = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// What a hop is besides plain.
#[derive(Debug, Clone, Default)]
pub struct Hop {
    pub port: u16,
    pub admin: u16,
    /// Where requests go.
    pub to: u16,
    /// The upstream speaks HTTP/2.
    pub http2: bool,
    /// A line for each request in Istio's default format.
    pub log: bool,
    /// TLS towards the client, from `CERTIFICATES/server.pem`.
    pub accepts_tls: bool,
    /// TLS towards the upstream, from `CERTIFICATES/client.pem`.
    pub opens_tls: bool,
    /// Instead of one route for everything.
    pub virtual_hosts: Option<Value>,
}

/// The format Istio logs in unless told otherwise.
const LOG: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

fn address(at: SocketAddr) -> Value {
    json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}})
}

/// The route a sidecar has for a service: a time limit and Istio's retries.
pub fn route(prefix: &str, cluster: &str) -> Value {
    json!({"match": {"prefix": prefix}, "route": {"cluster": cluster, "timeout": "15s",
        "retry_policy": {"retry_on": "connect-failure,refused-stream,unavailable", "num_retries": 2}}})
}

/// Many virtual hosts, one for each service, the way a sidecar has them for one port. The last leads to `app` as well.
pub fn virtual_hosts(services: usize) -> Value {
    let hosts: Vec<Value> = (0..services)
        .map(|n| {
            json!({"name": format!("{}:9080", service(n)), "domains": domains(n), "routes": [
                {"match": {"prefix": "/", "headers": [{"name": "x-canary", "string_match": {"exact": "yes"}}]},
                 "route": {"cluster": "app", "timeout": "15s"}},
                route("/", "app")]})
        })
        .collect();
    Value::Array(hosts)
}

/// One virtual host with many prefixes; the last is the one asked for.
pub fn prefixes(count: usize) -> Value {
    let routes: Vec<Value> = (0..count)
        .map(|n| route(&format!("/prefix-{n}/"), "app"))
        .collect();
    json!([{"name": "all", "domains": ["*"], "routes": routes}])
}

/// The host name of a service.
pub fn service(n: usize) -> String {
    format!("service-{n}.shop.svc.cluster.local")
}

fn domains(n: usize) -> Vec<String> {
    let short = format!("service-{n}");
    [
        service(n),
        short.clone(),
        format!("{short}.shop"),
        format!("{short}.shop.svc"),
    ]
    .iter()
    .flat_map(|name| [name.clone(), format!("{name}:9080")])
    .collect()
}

fn manager(hop: &Hop, routes: Value) -> Value {
    let mut manager = json!({
        "@type": HCM, "stat_prefix": "bench", "codec_type": "AUTO", "use_remote_address": true,
        "http_filters": [
            {"name": "envoy.filters.http.fault", "typed_config": {"@type": format!("{FILTERS}.fault.v3.HTTPFault")}},
            {"name": "envoy.filters.http.cors", "typed_config": {"@type": format!("{FILTERS}.cors.v3.Cors")}},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": format!("{FILTERS}.router.v3.Router")}}],
    });
    manager
        .as_object_mut()
        .unwrap()
        .extend(routes.as_object().unwrap().clone());
    if hop.log {
        manager["access_log"] = json!([{"name": "envoy.access_loggers.file", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": "/dev/null", "log_format": {"text_format_source": {"inline_string": LOG}}}}]);
    }
    manager
}

fn listener(hop: &Hop, routes: Value, certificates: &Path) -> Value {
    let mut chain = json!({"filters": [
        {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager(hop, routes)}]});
    if hop.accepts_tls {
        chain["transport_socket"] = json!({"name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": format!("{TLS}.DownstreamTlsContext"), "require_client_certificate": true,
            "common_tls_context": common(certificates, "server", &["istio-http/1.1", "http/1.1", "h2"])}});
    }
    json!({"name": "bench", "address": address(local(hop.port)), "filter_chains": [chain]})
}

fn common(certificates: &Path, name: &str, protocols: &[&str]) -> Value {
    let file = |end: &str| json!({"filename": certificates.join(end)});
    json!({
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": protocols,
        "tls_certificates": [{"certificate_chain": file(&format!("{name}.pem")), "private_key": file(&format!("{name}.key"))}],
        "validation_context": {"trusted_ca": file("ca.pem"), "match_typed_subject_alt_names": [
            {"san_type": "URI", "matcher": {"prefix": "spiffe://cluster.local/"}}]},
    })
}

/// The endpoints of a cluster.
pub fn endpoints(name: &str, to: &[SocketAddr]) -> Value {
    let all: Vec<Value> = to
        .iter()
        .map(|at| json!({"endpoint": {"address": address(*at)}}))
        .collect();
    json!({"cluster_name": name, "endpoints": [{"lb_endpoints": all}]})
}

/// What every cluster of a sidecar has.
pub fn cluster(name: &str, http2: bool) -> Value {
    let mut cluster = json!({"name": name, "connect_timeout": "10s", "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [{"max_connections": 4294967295u32, "max_pending_requests": 4294967295u32,
            "max_requests": 4294967295u32, "max_retries": 4294967295u32}]},
        "outlier_detection": {"consecutive_5xx": 5, "interval": "10s", "base_ejection_time": "30s"}});
    if http2 {
        cluster["typed_extension_protocol_options"] = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions":
            {"@type": OPTIONS, "explicit_http_config": {"http2_protocol_options": {}}}});
    }
    cluster
}

/// A proxy of one hop, all of it in the bootstrap.
pub fn hop(hop: &Hop, certificates: &Path) -> Value {
    let hosts = hop.virtual_hosts.clone().unwrap_or_else(
        || json!([{"name": "all", "domains": ["*"], "routes": [route("/", "app")]}]),
    );
    let mut app = cluster("app", hop.http2);
    app["type"] = json!("STATIC");
    app["load_assignment"] = endpoints("app", &[local(hop.to)]);
    if hop.opens_tls {
        app["transport_socket"] = json!({"name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": format!("{TLS}.UpstreamTlsContext"), "sni": "outbound_.9080_._.reviews.shop.svc.cluster.local",
            "common_tls_context": common(certificates, "client", &["istio-http/1.1"])}});
    }
    let routes = json!({"route_config": {"name": "routes", "virtual_hosts": hosts}});
    json!({
        "admin": {"address": address(local(hop.admin))},
        "static_resources": {"listeners": [listener(hop, routes, certificates)], "clusters": [app]},
    })
}

/// A proxy that is told everything by a management server.
pub fn managed(admin: u16, management: SocketAddr) -> Value {
    let mut control = cluster("control", true);
    control["type"] = json!("STATIC");
    control["load_assignment"] = endpoints("control", &[management]);
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    json!({
        "node": {"id": "bench", "cluster": "bench"},
        "admin": {"address": address(local(admin))},
        "dynamic_resources": {"lds_config": ads, "cds_config": ads, "ads_config": {"api_type": "DELTA_GRPC",
            "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "control"}}]}},
        "static_resources": {"clusters": [control]},
    })
}

/// The listener of a managed proxy: its routes come from the management server.
pub fn managed_listener(port: u16) -> Value {
    let routes = json!({"rds": {"route_config_name": "9080",
        "config_source": {"ads": {}, "resource_api_version": "V3"}}});
    let hop = Hop {
        port,
        ..Hop::default()
    };
    listener(&hop, routes, Path::new(""))
}

/// The routes of a managed proxy to this many services; `version` comes back in a header of every answer.
pub fn managed_routes(services: usize, version: u64) -> Value {
    let hosts: Vec<Value> = (0..services)
        .map(|n| json!({"name": format!("{}:9080", service(n)), "domains": domains(n), "routes": [route("/", &cluster_name(n))]}))
        .collect();
    json!({"name": "9080", "virtual_hosts": hosts, "validate_clusters": false,
        "response_headers_to_add": [{"header": {"key": "x-version", "value": version.to_string()}}]})
}

/// The cluster of a service.
pub fn cluster_name(n: usize) -> String {
    format!("outbound|9080||{}", service(n))
}

/// The cluster of a service of a managed proxy; `seconds` is its limit for connecting, to make one that differs.
pub fn managed_cluster(n: usize, seconds: u64) -> Value {
    let name = cluster_name(n);
    let mut cluster = cluster(&name, false);
    cluster["type"] = json!("EDS");
    cluster["connect_timeout"] = json!(format!("{seconds}s"));
    cluster["eds_cluster_config"] = json!({"service_name": name,
        "eds_config": {"ads": {}, "resource_api_version": "V3"}});
    cluster
}
