//! Clusters as istiod writes them.

use super::*;
use serde_json::{Value, json};

fn compile(json: Value) -> Result<ClusterConfig, Vec<ConfigError>> {
    ClusterConfig::compile(&xds::json::from_value(json, true).expect("a valid message"))
}

#[test]
fn what_is_not_said_is_envoys_default() {
    let cluster = compile(json!({"name": "c"})).expect("compiles");
    assert_eq!(cluster.discovery, Discovery::Static);
    assert_eq!(cluster.lb, LbPolicy::RoundRobin(SlowStart::default()));
    assert_eq!(cluster.connect_timeout, Duration::from_secs(5));
    assert_eq!(cluster.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(cluster.panic_threshold, 50.0);
    assert_eq!(cluster.protocol, UpstreamProtocol::Http1);
    assert_eq!(cluster.thresholds[0].connections, 1024);
}

/// What istiod sends for a service with a sidecar on the other side.
#[test]
fn an_istio_cluster_chooses_its_transport_by_endpoint() {
    let cluster = compile(json!({
        "name": "outbound|80||a", "alt_stat_name": "outbound|80||a;", "type": "EDS", "lb_policy": "LEAST_REQUEST",
        "eds_cluster_config": {"service_name": "outbound|80||a"}, "common_lb_config": {"healthy_panic_threshold": {}},
        "transport_socket_matches": [
            {"name": "tlsMode-istio", "match": {"tlsMode": "istio"}, "transport_socket": {"name": "envoy.transport_sockets.tls",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    "sni": "outbound_.80_._.a", "common_tls_context": {"tls_certificate_sds_secret_configs": [{"name": "default"}],
                        "combined_validation_context": {"validation_context_sds_secret_config": {"name": "ROOTCA"}}}}}},
            {"name": "tlsMode-disabled", "match": {}, "transport_socket": {"name": "envoy.transport_sockets.raw_buffer",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}}],
        "typed_extension_protocol_options": {HTTP_OPTIONS: {"@type": format!("type.googleapis.com/{HTTP_OPTIONS}"),
            "common_http_protocol_options": {"idle_timeout": "0s", "max_requests_per_connection": 1},
            "use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {"max_concurrent_streams": 7}}}}
    }))
    .expect("compiles");
    assert_eq!(cluster.discovery, Discovery::Eds("outbound|80||a".into()));
    assert_eq!(
        (cluster.panic_threshold, cluster.protocol),
        (0.0, UpstreamProtocol::Downstream)
    );
    assert_eq!(
        (cluster.idle_timeout, cluster.max_requests_per_connection),
        (None, Some(1))
    );
    assert_eq!(cluster.max_concurrent_streams, Some(7));
    assert_eq!(cluster.secrets, ["ROOTCA", "default"]);
    let with = |labels: Value| {
        let mut metadata = Metadata::new();
        metadata.insert(TRANSPORT_MATCH.into(), labels);
        cluster.transport(&metadata).1.map(str::to_owned)
    };
    assert_eq!(
        with(json!({"tlsMode": "istio"})).as_deref(),
        Some("tlsMode-istio")
    );
    assert_eq!(
        with(json!({"tlsMode": "other"})).as_deref(),
        Some("tlsMode-disabled")
    );
    assert_eq!(
        cluster.transport(&Metadata::new()).1,
        Some("tlsMode-disabled")
    );
    assert!(matches!(
        cluster.transports().next(),
        Some(Transport::Tls(_))
    ));
}

#[test]
fn every_error_is_named() {
    let errors = compile(
        json!({"name": "c", "lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": "65536"},
        "cluster_type": {"name": "envoy.clusters.aggregate"}}),
    )
    .expect_err("invalid");
    let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(
        text[0].contains("cluster_type: \"envoy.clusters.aggregate\" is not supported"),
        "{text:?}"
    );
    assert!(
        text[1].contains("maglev_lb_config.table_size: 65536 must be a prime"),
        "{text:?}"
    );
}
