//! The xDS client against a management server: order of subscriptions, acknowledgement, refusal, reconnection.

mod support;

#[path = "support/management.rs"]
mod management;

use management::Management;
use serde_json::{Value, json};
use support::*;

/// All that is needed to reach a backend, by type and name.
fn resources(backend: std::net::SocketAddr) -> [(&'static str, &'static str, Value); 4] {
    [
        (
            xds::type_url::CLUSTER,
            "app",
            json!({"name": "app", "type": "EDS",
                "eds_cluster_config": {"service_name": "app-eds", "eds_config": {"ads": {}}}}),
        ),
        (
            xds::type_url::ENDPOINT,
            "app-eds",
            json!({"cluster_name": "app-eds", "endpoints": [{"lb_endpoints": [{"endpoint": {"address":
                {"socket_address": {"address": backend.ip().to_string(), "port_value": backend.port()}}}}]}]}),
        ),
        (
            xds::type_url::LISTENER,
            "dynamic",
            json!({"name": "dynamic",
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
                "filter_chains": [{"filters": [{"name": "hcm", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": "dynamic",
                    "rds": {"route_config_name": "table", "config_source": {"ads": {}}},
                    "http_filters": [{"name": "router", "typed_config":
                        {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]}]}),
        ),
        (
            xds::type_url::ROUTE,
            "table",
            json!({"name": "table", "virtual_hosts": [{"name": "v", "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}]}),
        ),
    ]
}

#[test]
fn a_management_server_drives_the_proxy() {
    let backend = Backend::saying("from the backend");
    let (server, address) = Management::start(|| ());
    let all = resources(backend.address);
    for (url, name, value) in all.clone() {
        server.has(url, vec![(name.to_owned(), value)]);
    }
    let running = Running::start(&format!(
        r#"
node: {{id: test-node, cluster: test}}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
dynamic_resources:
  lds_config: {{ads: {{}}}}
  cds_config: {{ads: {{}}}}
  ads_config:
    api_type: DELTA_GRPC
    grpc_services: [{{envoy_grpc: {{cluster_name: control}}}}]
static_resources:
  clusters:
{}"#,
        cluster("control", &[address], "")
    ));
    until("the proxy is live", || running.page("/ready") == "LIVE\n");
    let main = running.address("dynamic");
    assert_eq!(get(main, "/", "").body, "from the backend");

    let asked = server.requests();
    let order: Vec<&str> = asked
        .iter()
        .filter(|request| request.response_nonce.is_empty())
        .map(|request| xds::type_url::short_name(&request.type_url))
        .collect();
    assert_eq!(order, ["cds", "eds", "lds", "rds"]);
    assert_eq!(asked[0].node.as_ref().unwrap().id, "test-node");
    let subscribed = |short: &str| {
        asked
            .iter()
            .find(|request| {
                request.response_nonce.is_empty()
                    && xds::type_url::short_name(&request.type_url) == short
            })
            .map(|request| request.resource_names_subscribe.clone())
    };
    assert_eq!(subscribed("eds"), Some(vec!["app-eds".to_owned()]));
    assert_eq!(subscribed("rds"), Some(vec!["table".to_owned()]));
    until("everything is acknowledged", || {
        let requests = server.requests();
        all.iter().all(|(url, ..)| {
            requests.iter().any(|request| {
                request.type_url == *url
                    && !request.response_nonce.is_empty()
                    && request.error_detail.is_none()
            })
        })
    });

    // What cannot be used is refused with its reason; what was there before goes on.
    let bad = json!({"name": "bad", "type": "STATIC", "transport_socket": {"name": "x", "typed_config":
        {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}});
    let refused = server
        .send(xds::type_url::CLUSTER, &[("bad".to_owned(), bad)])
        .expect_err("the bad cluster is refused");
    assert!(refused.contains("cluster(s) bad: "), "{refused}");
    assert_eq!(get(main, "/", "").status, 200);

    // The stream ends: traffic goes on, and the client comes back with what it has.
    let before = server.requests().len();
    server.disconnect();
    until("the client is back", || {
        server.requests().len() > before + 3
    });
    let again = server.requests()[before..].to_vec();
    assert_eq!(again[0].type_url, xds::type_url::CLUSTER);
    assert_eq!(
        again[0]
            .initial_resource_versions
            .get("app")
            .map(String::as_str),
        Some("0")
    );
    assert!(again[0].node.is_some());
    assert_eq!(get(main, "/", "").status, 200);
}
