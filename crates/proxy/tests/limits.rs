//! Limits of connections and streams: times, numbers, who may connect.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use support::*;

/// An address where connections are taken and nothing is ever said.
fn silent() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn one(more: &str, endpoint: SocketAddr) -> Running {
    let routes = [
        "{match: {prefix: /patient}, route: {cluster: up, timeout: 0s, idle_timeout: 60s}}",
        "{match: {prefix: /}, route: {cluster: up, timeout: 0s}}",
    ];
    Running::start(&http(
        &routes,
        &cluster("up", &[endpoint], ""),
        &format!("          {more}\n"),
    ))
}

#[test]
fn what_is_too_slow_is_told_so() {
    let (_listener, nobody) = silent();
    let whole = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let half_body = "POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 10\r\n\r\nabc";
    for (setting, request, status, body, stat) in [
        (
            "request_headers_timeout: 0.1s",
            "GET / HTTP/1.1\r\nHost:",
            408,
            "request header timeout",
            "downstream_rq_header_timeout",
        ),
        (
            "request_timeout: 0.1s",
            half_body,
            408,
            "request timeout",
            "downstream_rq_timeout",
        ),
        (
            "stream_idle_timeout: 0.1s",
            whole,
            504,
            "stream timeout",
            "downstream_rq_idle_timeout",
        ),
        (
            "stream_idle_timeout: 0.1s",
            half_body,
            408,
            "stream timeout",
            "downstream_rq_idle_timeout",
        ),
        (
            "common_http_protocol_options: {max_stream_duration: 0.1s}",
            whole,
            504,
            "downstream duration timeout",
            "downstream_rq_max_duration_reached",
        ),
    ] {
        let running = one(setting, nobody);
        let answer = exchange(running.address("main"), request.as_bytes());
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (status, body),
            "{setting}"
        );
        let line = format!("http.main.{stat}: 1");
        running.counts(&[&line]);
    }
}

#[test]
fn a_route_may_be_more_patient() {
    let backend = Backend::saying("in");
    let running = one("stream_idle_timeout: 0.05s", backend.address);
    assert_eq!(get(running.address("main"), "/patient", "").status, 200);
}

#[test]
fn a_connection_ends_after_so_many_requests() {
    let backend = Backend::saying("in");
    let running = one(
        "common_http_protocol_options: {max_requests_per_connection: 2}",
        backend.address,
    );
    let mut stream = connect(running.address("main"));
    for last in [false, true] {
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        let answer = read_answer(&mut stream).expect("an answer");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("connection") == Some("close"), last);
    }
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).unwrap(), 0, "it is closed");
}

#[test]
fn an_old_connection_is_drained() {
    let backend = Backend::saying("in");
    let running = one(
        "drain_timeout: 0.05s\n          common_http_protocol_options: {max_connection_duration: 1s}",
        backend.address,
    );
    let mut stream = connect(running.address("main"));
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    assert_eq!(read_answer(&mut stream).expect("an answer").status, 200);
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).unwrap(), 0, "it is closed");
}

/// A bootstrap with one TCP listener `main`: network filters (YAML flow items) and further fields of the TCP proxy.
fn tcp(filters: &str, more: &str, endpoint: SocketAddr) -> Running {
    Running::start(&format!(
        r#"
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  listeners:
  - name: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
{filters}      - name: envoy.filters.network.tcp_proxy
        typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: main, cluster: up{more}}}
  clusters:
{}"#,
        cluster("up", &[endpoint], "")
    ))
}

#[test]
fn connections_are_limited() {
    let backend = Backend::saying("in");
    let running = tcp(
        "      - {name: limit, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit, stat_prefix: few, max_connections: 1}}\n",
        "",
        backend.address,
    );
    let main = running.address("main");
    let ask = |stream: &mut std::net::TcpStream| {
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        read_answer(stream).map(|answer| answer.status)
    };
    let mut first = connect(main);
    assert_eq!(ask(&mut first), Some(200));
    let mut second = connect(main);
    assert_eq!(ask(&mut second), None, "there is no place for it");
    drop(first);
    until("the place is free again", || {
        ask(&mut connect(main)) == Some(200)
    });
    let stats = running.page("/stats?filter=connection_limit");
    assert!(
        !stats.contains("connection_limit.few.limited_connections: 0"),
        "{stats}"
    );
}

#[test]
fn an_http_proxy_is_asked_for_a_tunnel() {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = proxy.local_addr().unwrap();
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = proxy.accept().unwrap();
        let mut data = Vec::new();
        let mut chunk = [0; 1024];
        while find(&data, b"\r\n\r\n").is_none() {
            let n = stream.read(&mut chunk).unwrap();
            data.extend_from_slice(&chunk[..n]);
        }
        stream
            .write_all(b"HTTP/1.1 200 Connection established\r\n\r\nhello ")
            .unwrap();
        let n = stream.read(&mut chunk).unwrap();
        stream.write_all(&chunk[..n]).unwrap();
        String::from_utf8(data).unwrap()
    });
    let running = tcp(
        "",
        ", tunneling_config: {hostname: \"far.example:443\", headers_to_add: [{header: {key: x-key, value: k}}]}",
        address,
    );
    let mut stream = connect(running.address("main"));
    stream.write_all(b"echo").unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(String::from_utf8_lossy(&all), "hello echo");
    assert_eq!(
        asked.join().unwrap(),
        "CONNECT far.example:443 HTTP/1.1\r\nhost: far.example:443\r\nx-key: k\r\n\r\n"
    );
}
