//! Heads at sidecars and gateways.

use super::*;
use crate::stream::TlsSession;
use http::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

fn conn(json: Value) -> HttpConn {
    HttpConn::compile(&xds::json::from_value(json, true).expect("a valid message"))
        .expect("compiles")
}

fn connection(tls: Option<TlsSession>) -> Connection {
    Connection {
        id: 1,
        remote: "192.0.2.2:999".parse().unwrap(),
        local: "10.0.0.1:80".parse().unwrap(),
        tls: tls.map(Arc::new),
        server_name: None,
        start: UNIX_EPOCH,
    }
}

fn run(
    conn: &HttpConn,
    connection: &Connection,
    list: &[(&'static str, &str)],
) -> (HeaderMap, Ingress) {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        headers.append(*name, HeaderValue::from_str(value).expect("a value"));
    }
    let (mut authority, mut path) = ("a.example:80".to_owned(), "/".to_owned());
    let mut head = RequestHeadMut {
        method: &Method::GET,
        scheme: "",
        authority: &mut authority,
        path: &mut path,
        headers: &mut headers,
    };
    let ingress = conn
        .request(&mut head, connection, &|| "new-id".to_owned())
        .expect("goes on");
    (headers, ingress)
}

#[test]
fn a_sidecar_believes_its_peer() {
    let sidecar = conn(json!({"use_remote_address": false}));
    let list = [
        ("x-forwarded-for", "1.2.3.4, 5.6.7.8"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "old"),
        ("x-envoy-retry-on", "5xx"),
    ];
    let (headers, ingress) = run(&sidecar, &connection(None), &list);
    assert_eq!(headers["x-forwarded-for"], "1.2.3.4, 5.6.7.8");
    assert_eq!(headers["x-forwarded-proto"], "https");
    assert_eq!(headers["x-request-id"], "old");
    assert!(
        !headers.contains_key("x-envoy-retry-on"),
        "nothing is internal by default"
    );
    assert_eq!(
        (ingress.remote.to_string().as_str(), ingress.scheme),
        ("5.6.7.8:0", "https")
    );
    let (headers, ingress) = run(&sidecar, &connection(None), &[]);
    assert_eq!(headers["x-forwarded-proto"], "http");
    assert_eq!(headers["x-request-id"], "new-id");
    assert_eq!(ingress.remote, connection(None).remote);
}

#[test]
fn a_gateway_does_not() {
    let gateway = conn(json!({"use_remote_address": true}));
    let list = [
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "old"),
        ("x-envoy-decorator-operation", "x"),
    ];
    let (headers, ingress) = run(&gateway, &connection(None), &list);
    assert_eq!(headers["x-forwarded-for"], "1.2.3.4,192.0.2.2");
    assert_eq!(headers["x-forwarded-proto"], "http");
    assert_eq!(headers["x-request-id"], "new-id");
    assert_eq!(headers["x-envoy-external-address"], "192.0.2.2");
    assert!(!headers.contains_key("x-envoy-decorator-operation"));
    assert_eq!(ingress.remote.ip(), connection(None).remote.ip());
    let behind = conn(json!({"use_remote_address": true, "xff_num_trusted_hops": 1}));
    assert_eq!(
        run(&behind, &connection(None), &list).1.remote.to_string(),
        "1.2.3.4:0"
    );
    let own = conn(
        json!({"use_remote_address": true, "internal_address_config": {"cidr_ranges": [{"address_prefix": "192.0.2.0", "prefix_len": 24}]}}),
    );
    let (headers, ingress) = run(&own, &connection(None), &[("x-envoy-retry-on", "5xx")]);
    assert!(
        ingress.internal
            && headers["x-envoy-internal"] == "true"
            && headers.contains_key("x-envoy-retry-on")
    );
}

#[test]
fn hop_by_hop_headers_end_here() {
    let any = conn(json!({}));
    let list = [
        ("connection", "close, x-mine"),
        ("x-mine", "1"),
        ("keep-alive", "5"),
        ("te", "gzip, trailers"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
    ];
    let (headers, _) = run(&any, &connection(None), &list);
    for gone in [
        "connection",
        "x-mine",
        "keep-alive",
        "transfer-encoding",
        "upgrade",
    ] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    assert_eq!(headers["te"], "trailers");
    let (headers, _) = run(
        &any,
        &connection(None),
        &[("connection", "Upgrade"), ("upgrade", "websocket")],
    );
    assert!(headers.contains_key("upgrade") && headers.contains_key("connection"));
}

#[test]
fn client_certificates_are_forwarded_as_text() {
    let certificate = |uri: &str| {
        Some(Arc::new(Certificate {
            uris: vec![uri.into()],
            sha256: "ab12".into(),
            ..Default::default()
        }))
    };
    let tls = TlsSession {
        local: certificate("spiffe://td/ns/a/sa/b"),
        peer: certificate("spiffe://td/ns/c/sa/d"),
        ..Default::default()
    };
    let inbound = conn(
        json!({"forward_client_cert_details": "APPEND_FORWARD", "set_current_client_cert_details": {"subject": true, "dns": true, "uri": true}}),
    );
    let (headers, _) = run(
        &inbound,
        &connection(Some(tls.clone())),
        &[("x-forwarded-client-cert", "By=x")],
    );
    assert_eq!(
        headers["x-forwarded-client-cert"],
        "By=x,By=spiffe://td/ns/a/sa/b;Hash=ab12;Subject=\"\";URI=spiffe://td/ns/c/sa/d"
    );
    let gateway = conn(
        json!({"forward_client_cert_details": "SANITIZE_SET", "set_current_client_cert_details": {"uri": true}}),
    );
    let (headers, _) = run(
        &gateway,
        &connection(Some(tls)),
        &[("x-forwarded-client-cert", "By=x")],
    );
    assert_eq!(
        headers["x-forwarded-client-cert"],
        "By=spiffe://td/ns/a/sa/b;Hash=ab12;URI=spiffe://td/ns/c/sa/d"
    );
    let (headers, _) = run(
        &gateway,
        &connection(None),
        &[("x-forwarded-client-cert", "By=x")],
    );
    assert!(
        !headers.contains_key("x-forwarded-client-cert"),
        "plain text peers have no certificate"
    );
}

#[test]
fn responses_get_server_and_date() {
    let mut headers = HeaderMap::new();
    headers.insert("server", HeaderValue::from_static("app"));
    headers.insert("connection", HeaderValue::from_static("close"));
    conn(json!({"server_name": "istio-envoy"})).response(&mut headers, "now", None, false);
    assert_eq!(
        (&headers["server"], &headers["date"]),
        (&"istio-envoy".parse().unwrap(), &"now".parse().unwrap())
    );
    assert!(!headers.contains_key("connection"));
    headers.insert("server", HeaderValue::from_static("app"));
    conn(json!({"server_header_transformation": "PASS_THROUGH"})).response(
        &mut headers,
        "later",
        None,
        false,
    );
    assert_eq!(
        (&headers["server"], &headers["date"]),
        (&"app".parse().unwrap(), &"now".parse().unwrap())
    );
}

#[test]
fn hosts_are_trimmed_where_wanted() {
    let trim = |json: Value, host: &str| {
        let mut host = host.to_owned();
        conn(json).normalize_host(&mut host, 80);
        host
    };
    assert_eq!(trim(json!({"strip_any_host_port": true}), "a:81"), "a");
    assert_eq!(
        trim(json!({"strip_matching_host_port": true}), "a:81"),
        "a:81"
    );
    assert_eq!(
        trim(json!({"strip_matching_host_port": true}), "[::1]:80"),
        "[::1]"
    );
    assert_eq!(
        trim(json!({"strip_trailing_host_dot": true}), "a.b.:81"),
        "a.b:81"
    );
    assert!(
        conn(json!({"upgrade_configs": [{"upgrade_type": "websocket"}]}))
            .upgrade_allowed("WebSocket", None)
    );
}
