//! What a mesh needs: mutual TLS between two proxies, HTTP/2 with trailers, TCP, and configuration from a management
//! server that changes under load.

mod support;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use pki::{Authority, CertRequest, Validity};
use proxy::xds_client::ads::{Received, Sink};
use support::*;
use xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds::envoy::config::route::v3::RouteConfiguration;

fn indent(pem: &str) -> String {
    pem.replace('\n', "\\n")
}

/// A chain, a key and the root for a workload.
fn certificate(authority: &Authority, id: &str) -> (String, String) {
    let validity = Validity::starting(
        SystemTime::now() - Duration::from_secs(60),
        Duration::from_secs(3600),
    );
    let mut request = CertRequest::server("", &[], &[], validity);
    request.uris = vec![id.to_owned()];
    request.client = true;
    let issued = authority.issue(&request).unwrap();
    (issued.chain_pem, issued.key_pem)
}

/// A common TLS context in flow style.
fn tls(chain: &str, key: &str, root: &str, san: &str, alpn: &str) -> String {
    format!(
        "common_tls_context: {{alpn_protocols: [{alpn}], tls_certificates: [{{certificate_chain: {{inline_string: \"{}\"}}, \
         private_key: {{inline_string: \"{}\"}}}}], validation_context: {{trusted_ca: {{inline_string: \"{}\"}}, \
         match_typed_subject_alt_names: [{{san_type: URI, matcher: {{{san}}}}}]}}}}",
        indent(chain),
        indent(key),
        indent(root)
    )
}

fn root() -> Authority {
    Authority::new_root(
        "root",
        "test",
        SystemTime::now() - Duration::from_secs(3600),
        10,
    )
    .unwrap()
}

/// An inbound proxy that wants certificates of `client_san`.
fn inbound(authority: &Authority, backend: SocketAddr, client_san: &str) -> Running {
    let (chain, key) = certificate(authority, "spiffe://test/ns/shop/sa/server");
    let context = tls(
        &chain,
        &key,
        authority.root_pem(),
        client_san,
        "h2, http/1.1",
    );
    let socket = format!(
        "      transport_socket: {{name: tls, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, require_client_certificate: true, {context}}}}}\n"
    );
    let more = "          forward_client_cert_details: APPEND_FORWARD\n          set_current_client_cert_details: {uri: true}\n";
    let yaml = http(
        &["{match: {prefix: /}, route: {cluster: app}}"],
        &cluster("app", &[backend], ""),
        more,
    )
    .replace("    - filters:\n", "    - filters:\n@@");
    // The transport socket stands beside the filters.
    let yaml = yaml.replace(
        "    - filters:\n@@",
        &format!("    -\n{socket}      filters:\n"),
    );
    Running::start(&yaml)
}

fn outbound(authority: &Authority, server: SocketAddr, server_san: &str, http2: bool) -> Running {
    let (chain, key) = certificate(authority, "spiffe://test/ns/shop/sa/client");
    let alpn = if http2 { "h2" } else { "http/1.1" };
    let context = tls(&chain, &key, authority.root_pem(), server_san, alpn);
    let protocol = if http2 {
        ", typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {\"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}"
    } else {
        ""
    };
    let socket = format!(
        "transport_socket: {{name: tls, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: outbound_.80_._.server, {context}}}}}{protocol}"
    );
    Running::start(&http(
        &["{match: {prefix: /}, route: {cluster: server}}"],
        &cluster("server", &[server], &socket),
        "",
    ))
}

#[test]
fn two_proxies_speak_mutual_tls() {
    for http2 in [false, true] {
        let authority = root();
        let backend = Backend::saying("secret");
        let server = inbound(&authority, backend.address, "prefix: 'spiffe://test/'");
        let client = outbound(
            &authority,
            server.address("main"),
            "exact: 'spiffe://test/ns/shop/sa/server'",
            http2,
        );
        for _ in 0..3 {
            let answer = get(client.address("main"), "/", "");
            assert_eq!(
                (answer.status, answer.body.as_str()),
                (200, "secret"),
                "http2: {http2}"
            );
        }
        let head = backend.seen.lock().unwrap()[0].head.clone();
        assert!(
            head.contains("x-forwarded-client-cert: ")
                && head.contains("URI=spiffe://test/ns/shop/sa/client"),
            "{head}"
        );
        assert!(head.contains("x-forwarded-proto: http"), "{head}");
        client.counts(&[
            "cluster.server.upstream_cx_total: 1",
            "cluster.server.ssl.handshake: 1",
        ]);
    }
}

#[test]
fn a_wrong_identity_on_either_side_is_refused() {
    let authority = root();
    let backend = Backend::saying("secret");
    let server = inbound(&authority, backend.address, "prefix: 'spiffe://test/'");
    let client = outbound(
        &authority,
        server.address("main"),
        "exact: 'spiffe://test/ns/shop/sa/other'",
        false,
    );
    let answer = get(client.address("main"), "/", "");
    assert_eq!(answer.status, 503);
    assert!(
        answer.body.ends_with("remote connection failure"),
        "{}",
        answer.body
    );
    client.counts(&["cluster.server.ssl.fail_verify_san: 1"]);

    let server = inbound(&authority, backend.address, "prefix: 'spiffe://elsewhere/'");
    let client = outbound(
        &authority,
        server.address("main"),
        "exact: 'spiffe://test/ns/shop/sa/server'",
        false,
    );
    assert_eq!(get(client.address("main"), "/", "").status, 503);

    let stranger = root();
    let client = outbound(
        &stranger,
        server.address("main"),
        "exact: 'spiffe://test/ns/shop/sa/server'",
        false,
    );
    assert_eq!(get(client.address("main"), "/", "").status, 503);
    assert_eq!(backend.count(), 0);
}

/// A gRPC-like HTTP/2 backend: echoes the body and ends with trailers.
fn http2_backend() -> SocketAddr {
    let (ready, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            ready.send(listener.local_addr().unwrap()).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        tokio::spawn(async move {
                            let mut body = request.into_body();
                            let mut all = Vec::new();
                            while let Some(Ok(data)) = body.data().await {
                                let _ = body.flow_control().release_capacity(data.len());
                                all.extend_from_slice(&data);
                            }
                            let response = http::Response::builder()
                                .header("content-type", "application/grpc");
                            let mut send = respond
                                .send_response(response.body(()).unwrap(), false)
                                .unwrap();
                            send.send_data(all.into(), false).unwrap();
                            let mut trailers = http::HeaderMap::new();
                            trailers.insert("grpc-status", "0".parse().unwrap());
                            send.send_trailers(trailers).unwrap();
                        });
                    }
                });
            }
        });
    });
    wait.recv().unwrap()
}

#[test]
fn http2_carries_bodies_and_trailers_through() {
    let backend = http2_backend();
    let options = "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {\"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}";
    let running = Running::start(&http(
        &["{match: {prefix: /}, route: {cluster: app}}"],
        &cluster("app", &[backend], options),
        "",
    ));
    let main = running.address("main");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(main).await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let calls = (0..20).map(|index| {
            let mut send = send.clone();
            async move {
                std::future::poll_fn(|cx| send.poll_ready(cx))
                    .await
                    .unwrap();
                let request = http::Request::post("http://test.local/call")
                    .header("content-type", "application/grpc")
                    .header("te", "trailers");
                let (response, mut body) =
                    send.send_request(request.body(()).unwrap(), false).unwrap();
                body.send_data(format!("message {index}").into(), true)
                    .unwrap();
                let response = response.await.unwrap();
                assert_eq!(response.status(), 200);
                let mut body = response.into_body();
                let mut all = Vec::new();
                while let Some(data) = body.data().await {
                    all.extend_from_slice(&data.unwrap());
                }
                assert_eq!(all, format!("message {index}").as_bytes());
                let trailers = body.trailers().await.unwrap().expect("trailers");
                assert_eq!(trailers["grpc-status"], "0");
            }
        });
        let all: Vec<_> = calls.collect();
        for call in all {
            call.await;
        }
    });
    running.counts(&["cluster.app.upstream_cx_http2_total: 1"]);
}

#[test]
fn tcp_passes_with_half_closes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let backend = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                // Answers only when the client has said everything.
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                all.reverse();
                stream.write_all(&all).unwrap();
            });
        }
    });
    let running = Running::start(&format!(
        r#"
static_resources:
  listeners:
  - name: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, cluster: app}}
  clusters:
{}"#,
        cluster("app", &[backend], "")
    ));
    let mut stream = connect(running.address("main"));
    stream.write_all(b"stressed").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "desserts");
}

#[test]
fn server_names_choose_chains_and_pass_through_unopened() {
    let authority = root();
    let backend = Backend::saying("through");
    let server = inbound(&authority, backend.address, "prefix: 'spiffe://test/'");
    let gateway = Running::start(&format!(
        r#"
static_resources:
  listeners:
  - name: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    listener_filters:
    - {{name: tls, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}}}
    filter_chains:
    - filter_chain_match: {{server_names: ["outbound_.80_._.server"]}}
      filters:
      - {{name: sni, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.sni_cluster.v3.SniCluster}}}}
      - name: tcp
        typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, cluster: black}}
  clusters:
{}"#,
        cluster("outbound_.80_._.server", &[server.address("main")], "")
    ));
    let client = outbound(
        &authority,
        gateway.address("main"),
        "exact: 'spiffe://test/ns/shop/sa/server'",
        false,
    );
    assert_eq!(get(client.address("main"), "/", "").body, "through");
    // Another name has no chain: the connection is reset.
    let mut plain = connect(gateway.address("main"));
    plain
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    assert!(read_answer(&mut plain).is_none());
}

fn received<M: xds::Resource>(message: &M) -> Received {
    Received {
        name: message.resource_name().to_owned(),
        version: "1".to_owned(),
        body: xds::any::pack(message),
    }
}

fn routes(name: &str, cluster: &str) -> RouteConfiguration {
    let json = serde_json::json!({
        "name": name,
        "validate_clusters": false,
        "virtual_hosts": [{"name": "v", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}]}]
    });
    xds::json::from_value(json, true).unwrap()
}

fn assignment(name: &str, address: SocketAddr) -> ClusterLoadAssignment {
    let json = serde_json::json!({"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address":
        {"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}}}}]}]});
    xds::json::from_value(json, true).unwrap()
}

#[test]
fn configuration_changes_under_load_lose_nothing() {
    let (one, two) = (Backend::saying("one"), Backend::saying("two"));
    let yaml = http(
        &["{match: {prefix: /}, direct_response: {status: 200}}"],
        &cluster("x", &[], ""),
        "",
    );
    let running = Running::start(&yaml);
    let manager = running.proxy.manager.clone();
    let apply = |url: &str, updated: Vec<Received>, removed: &[&str]| {
        let removed = removed.iter().map(|name| (*name).to_owned()).collect();
        manager.apply(url, "v", updated, removed).unwrap();
    };
    let eds_cluster = |name: &str, timeout: u64| -> xds::envoy::config::cluster::v3::Cluster {
        let json = serde_json::json!({"name": name, "type": "EDS", "connect_timeout": format!("{timeout}s"),
            "eds_cluster_config": {"eds_config": {"ads": {}}}});
        xds::json::from_value(json, true).unwrap()
    };
    let listener = |prefix: &str| -> xds::envoy::config::listener::v3::Listener {
        let json = serde_json::json!({"name": "dynamic",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
            "filter_chains": [{"filters": [{"name": "hcm", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": prefix, "rds": {"route_config_name": "table", "config_source": {"ads": {}}},
                "http_filters": [{"name": "router", "typed_config":
                    {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]}]});
        xds::json::from_value(json, true).unwrap()
    };
    apply(
        xds::type_url::CLUSTER,
        vec![
            received(&eds_cluster("one", 1)),
            received(&eds_cluster("two", 1)),
        ],
        &[],
    );
    assert!(manager.interests()[xds::type_url::ENDPOINT].contains("one"));
    manager
        .with_state(|state| assert_eq!(state.warming_clusters.len(), 2, "they wait for endpoints"));
    apply(xds::type_url::LISTENER, vec![received(&listener("a"))], &[]);
    manager.with_state(|state| {
        assert!(
            state.warming_listeners.contains_key("dynamic"),
            "it waits for routes"
        )
    });
    apply(
        xds::type_url::ENDPOINT,
        vec![
            received(&assignment("one", one.address)),
            received(&assignment("two", two.address)),
        ],
        &[],
    );
    apply(
        xds::type_url::ROUTE,
        vec![received(&routes("table", "one"))],
        &[],
    );
    let address = running.address("dynamic");
    assert_eq!(get(address, "/", "").body, "one");

    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, done) = (stop.clone(), done.clone());
            std::thread::spawn(move || {
                let mut bodies: HashMap<String, usize> = HashMap::new();
                let mut stream = connect(address);
                while !stop.load(Ordering::Relaxed) {
                    stream
                        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                        .unwrap();
                    let answer = read_answer(&mut stream).expect("an answer to every request");
                    assert_eq!(answer.status, 200, "{answer:?}");
                    *bodies.entry(answer.body.clone()).or_default() += 1;
                    done.fetch_add(1, Ordering::Relaxed);
                    if answer.header("connection") == Some("close") {
                        stream = connect(address);
                    }
                }
                bodies
            })
        })
        .collect();
    // The long form: so many changes over so many seconds.
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let rounds = number("THEATER_CHANGES").unwrap_or(60);
    let seconds = number("THEATER_CHANGES_SECONDS").unwrap_or(0);
    let start = std::time::Instant::now();
    for round in 0..rounds {
        until("its turn", || {
            start.elapsed() >= Duration::from_secs(seconds) * round as u32 / rounds as u32
        });
        let before = done.load(Ordering::Relaxed);
        let target = if round % 2 == 0 { "two" } else { "one" };
        match round % 4 {
            0 | 1 => apply(
                xds::type_url::ROUTE,
                vec![received(&routes("table", target))],
                &[],
            ),
            2 => {
                apply(
                    xds::type_url::CLUSTER,
                    vec![received(&eds_cluster("one", 2 + round))],
                    &[],
                );
                apply(
                    xds::type_url::ENDPOINT,
                    vec![received(&assignment("one", one.address))],
                    &[],
                );
            }
            _ => apply(
                xds::type_url::LISTENER,
                vec![received(&listener(&format!("a{round}")))],
                &[],
            ),
        }
        until("requests go on", || {
            done.load(Ordering::Relaxed) > before + 5
        });
    }
    stop.store(true, Ordering::Relaxed);
    let mut total: HashMap<String, usize> = HashMap::new();
    for client in clients {
        for (body, count) in client.join().expect("no request failed") {
            *total.entry(body).or_default() += count;
        }
    }
    assert!(total["one"] > 0 && total["two"] > 0, "{total:?}");
}

#[test]
fn what_cannot_be_used_is_refused_and_the_rest_counts() {
    let yaml = http(
        &["{match: {prefix: /}, direct_response: {status: 200}}"],
        &cluster("x", &[], ""),
        "",
    );
    let running = Running::start(&yaml);
    let manager = &running.proxy.manager;
    let good: xds::envoy::config::cluster::v3::Cluster =
        xds::json::from_value(serde_json::json!({"name": "good", "type": "STATIC"}), true).unwrap();
    let mut bad = good.clone();
    bad.name = "bad".into();
    bad.transport_socket = Some(xds::envoy::config::core::v3::TransportSocket {
        name: "tls".into(),
        config_type: Some(
            xds::envoy::config::core::v3::transport_socket::ConfigType::TypedConfig(
                xds::prost_types::Any {
                    type_url: "type.googleapis.com/no.such.Thing".into(),
                    value: Vec::new(),
                },
            ),
        ),
    });
    let error = manager
        .apply(
            xds::type_url::CLUSTER,
            "v",
            vec![received(&bad), received(&good)],
            Vec::new(),
        )
        .unwrap_err();
    assert!(
        error.starts_with("Error adding/updating cluster(s) bad: "),
        "{error}"
    );
    manager.with_state(|state| {
        assert!(state.clusters.contains_key("good") && !state.clusters.contains_key("bad"));
    });
    assert!(running.page("/config_dump").contains("error_state"));
}
