//! HTTP through a proxy from a static bootstrap: routing, answers of its own, retries, timeouts, limits, bodies, upgrades.

mod support;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::*;

/// An address where nobody listens.
/// A place where connections are refused, and that is nobody else's as long as the socket lives.
fn nobody() -> (tokio::net::TcpSocket, std::net::SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[test]
fn answers_of_its_own_are_envoys() {
    let (_socket, refused) = nobody();
    let clusters = format!(
        "{}{}",
        cluster("empty", &[], ""),
        cluster("refused", &[refused], "")
    );
    let running = Running::start(&http(
        &[
            "{match: {prefix: /uh}, route: {cluster: empty}}",
            "{match: {prefix: /uf}, route: {cluster: refused}}",
            "{match: {prefix: /nc}, route: {cluster: nowhere}}",
            "{match: {prefix: /direct}, direct_response: {status: 200, body: {inline_string: hello}}}",
            "{match: {prefix: /teapot}, direct_response: {status: 418}}",
            "{match: {prefix: /redirect}, redirect: {path_redirect: /new}}",
        ],
        &clusters,
        "",
    ));
    let main = running.address("main");
    let reset = "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure";
    for (path, status, body) in [
        ("/uh", 503, "no healthy upstream"),
        ("/uf", 503, reset),
        ("/nc", 503, ""),
        ("/direct", 200, "hello"),
        ("/a/../direct", 200, "hello"),
        ("/teapot", 418, ""),
        ("/redirect", 301, ""),
        ("/other", 404, ""),
    ] {
        let answer = get(main, path, "");
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (status, body),
            "{path}"
        );
        assert_eq!(answer.header("server"), Some("envoy"), "{path}");
    }
    assert!(
        get(main, "/teapot", "")
            .head
            .starts_with("HTTP/1.1 418 Unknown\r\n")
    );
    assert_eq!(
        get(main, "/redirect", "").header("location"),
        Some("http://test.local/new")
    );
    let grpc = get(main, "/uh", "content-type: application/grpc\r\n");
    assert_eq!((grpc.status, grpc.header("grpc-status")), (200, Some("14")));
    assert_eq!(grpc.header("grpc-message"), Some("no healthy upstream"));
    running.counts(&[
        "http.main.no_route: 1",
        "http.main.no_cluster: 1",
        "cluster.refused.upstream_cx_connect_fail: 1",
    ]);
}

#[test]
fn broken_requests_are_refused_like_envoy_refuses_them() {
    let running = Running::start(&http(
        &["{match: {prefix: /}, direct_response: {status: 200}}"],
        &cluster("x", &[], ""),
        "",
    ));
    let main = running.address("main");
    let large = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n",
        "a".repeat(61 * 1024)
    );
    let many: String = (0..101).map(|i| format!("x{i}: 1\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n");
    for (request, status) in [
        ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", 426),
        ("nonsense\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            400,
        ),
        (&large, 431),
        (&many, 431),
    ] {
        let answer = exchange(main, request.as_bytes());
        assert_eq!(
            answer.status,
            status,
            "{:?}",
            &request[..request.len().min(80)]
        );
    }
}

#[test]
fn requests_reach_the_backend_with_envoys_headers() {
    let backend = Backend::saying("hi");
    let running = Running::start(&http(
        &["{match: {prefix: /}, route: {cluster: app, timeout: 3s}}"],
        &cluster("app", &[backend.address], ""),
        "",
    ));
    let main = running.address("main");
    let answer = get(
        main,
        "/a?b=c",
        "X-Thing: 1\r\nConnection: x-gone\r\nX-Gone: 1\r\nTE: trailers, gzip\r\n",
    );
    assert_eq!((answer.status, answer.body.as_str()), (200, "hi"));
    assert!(
        answer.header("x-envoy-upstream-service-time").is_some() && answer.header("date").is_some()
    );
    let seen = backend.seen.lock().unwrap()[0].head.clone();
    assert!(
        seen.starts_with("GET /a?b=c HTTP/1.1\r\nhost: test.local\r\n"),
        "{seen}"
    );
    for line in [
        "x-thing: 1\r\n",
        "x-forwarded-proto: http\r\n",
        "x-envoy-expected-rq-timeout-ms: 3000\r\n",
    ] {
        assert!(seen.contains(line), "{line:?} is not in {seen}");
    }
    assert!(
        seen.contains("x-request-id: ") && !seen.contains("x-gone"),
        "{seen}"
    );
    // The connection to the backend is used again.
    for _ in 0..5 {
        assert_eq!(get(main, "/", "").status, 200);
    }
    assert_eq!(backend.connections.load(Ordering::Relaxed), 1);
}

#[test]
fn weights_and_matches_choose_the_cluster() {
    let (one, two) = (Backend::saying("one"), Backend::saying("two"));
    let clusters = format!(
        "{}{}",
        cluster("one", &[one.address], ""),
        cluster("two", &[two.address], "")
    );
    let running = Running::start(&http(
        &[
            "{match: {prefix: /, headers: [{name: x-canary, string_match: {exact: 'true'}}]}, route: {cluster: two}}",
            "{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: one, weight: 80}, {name: two, weight: 20}]}}}",
        ],
        &clusters,
        "",
    ));
    let main = running.address("main");
    assert_eq!(get(main, "/", "X-Canary: true\r\n").body, "two");
    let mut stream = connect(main);
    let mut twos = 0;
    const REQUESTS: usize = 1000;
    for _ in 0..REQUESTS {
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        twos += usize::from(read_answer(&mut stream).unwrap().body == "two");
    }
    // 20 % of 1000 with a standard deviation of 12.6: five of them either way.
    assert!(
        (137..=263).contains(&twos),
        "{twos} of {REQUESTS} went to the smaller weight"
    );
}

#[test]
fn retries_try_again_and_say_so() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = calls.clone();
    let backend = Backend::start(move |seen| {
        counter.fetch_add(1, Ordering::Relaxed);
        let count = seen
            .head
            .lines()
            .find_map(|line| line.strip_prefix("x-envoy-attempt-count: "))
            .unwrap_or("0");
        if seen.head.contains("/never") || count.trim() != "3" {
            answer("503 X", "bad")
        } else {
            ok("good")
        }
    });
    let yaml = http(
        &[
            "{match: {prefix: /}, route: {cluster: app, retry_policy: {retry_on: 5xx, num_retries: 2, retry_back_off: {base_interval: 0.001s}}}}",
        ],
        &cluster("app", &[backend.address], ""),
        "",
    )
    .replace("domains: [\"*\"]", "domains: [\"*\"]\n              include_request_attempt_count: true");
    let running = Running::start(&yaml);
    let main = running.address("main");
    let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(exchange(main, request).body, "good");
    assert_eq!(calls.load(Ordering::Relaxed), 3);
    assert!(
        backend
            .seen
            .lock()
            .unwrap()
            .iter()
            .all(|seen| seen.body == b"hello"),
        "the body is sent every time"
    );
    let failed = get(main, "/never", "");
    assert_eq!(
        (failed.status, failed.body.as_str()),
        (503, "bad"),
        "the last answer is passed on"
    );
    assert_eq!(calls.load(Ordering::Relaxed), 6);
    running.counts(&[
        "cluster.app.upstream_rq_retry: 4",
        "cluster.app.upstream_rq_retry_limit_exceeded: 1",
    ]);
}

#[test]
fn timeouts_are_504_while_the_backend_still_thinks() {
    let (backend, _release) = Backend::held("late");
    let running = Running::start(&http(
        &["{match: {prefix: /}, route: {cluster: app, timeout: 0.2s}}"],
        &cluster("app", &[backend.address], ""),
        "",
    ));
    let answer = get(running.address("main"), "/", "");
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (504, "upstream request timeout")
    );
    running.counts(&["cluster.app.upstream_rq_timeout: 1"]);
}

#[test]
fn a_backend_that_hangs_up_is_a_503() {
    let backend = Backend::start(|_| Vec::new());
    let running = Running::start(&http(
        &["{match: {prefix: /}, route: {cluster: app}}"],
        &cluster("app", &[backend.address], ""),
        "",
    ));
    let answer = get(running.address("main"), "/", "");
    let body = "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
    assert_eq!((answer.status, answer.body.as_str()), (503, body));
}

#[test]
fn faults_delay_and_abort() {
    let backend = Backend::saying("hi");
    let fault = "{match: {prefix: /}, route: {cluster: app}, typed_per_filter_config: {envoy.filters.http.fault: \
        {'@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, \
        delay: {fixed_delay: 0.15s, percentage: {numerator: 100}}, abort: {http_status: 418, percentage: {numerator: 100}}}}}";
    let running = Running::start(&http(&[fault], &cluster("app", &[backend.address], ""), ""));
    let start = Instant::now();
    let answer = get(running.address("main"), "/", "");
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (418, "fault filter abort")
    );
    assert!(start.elapsed() >= Duration::from_millis(150));
    assert_eq!(backend.count(), 0);
}

/// The limit is the cluster's, the queues are each worker's: a worker whose requests wait must not depend on another one's
/// connections to end.
#[test]
fn whoever_waits_for_a_connection_gets_one_whichever_worker_had_the_last() {
    let backend = Backend::saying("once");
    let few = "circuit_breakers: {thresholds: [{max_connections: 1, max_pending_requests: 1000}]}, \
        typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: \
        {\"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
        common_http_protocol_options: {max_requests_per_connection: 1}, explicit_http_config: {http_protocol_options: {}}}}";
    let running = Running::try_start_with(
        &http(
            &["{match: {prefix: /}, route: {cluster: app, timeout: 0s}}"],
            &cluster("app", &[backend.address], few),
            "",
        ),
        proxy::server::Options {
            concurrency: 4,
            ..Default::default()
        },
    )
    .unwrap();
    let main = running.address("main");
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(move || {
                for _ in 0..25 {
                    assert_eq!(get(main, "/", "Connection: close\r\n").status, 200);
                }
            });
        }
    });
    running.counts(&["cluster.app.upstream_rq_pending_active: 0"]);
    let stats = running.page("/stats?filter=cluster.app.upstream_cx_overflow");
    assert!(
        !stats.contains("upstream_cx_overflow: 0"),
        "nobody waited: {stats}"
    );
}

#[test]
fn a_full_circuit_breaker_overflows() {
    let (backend, release) = Backend::held("slow");
    let breaker = "circuit_breakers: {thresholds: [{max_connections: 1, max_pending_requests: 1}]}";
    let running = Running::start(&http(
        &["{match: {prefix: /}, route: {cluster: app}}"],
        &cluster("app", &[backend.address], breaker),
        "",
    ));
    let main = running.address("main");
    let first = std::thread::spawn(move || get(main, "/", ""));
    until("the first request is at the backend", || {
        backend.count() == 1
    });
    let second = std::thread::spawn(move || get(main, "/", ""));
    running.counts(&["cluster.app.upstream_rq_pending_active: 1"]);
    let third = get(main, "/", "");
    let body = "upstream connect error or disconnect/reset before headers. reset reason: overflow";
    assert_eq!((third.status, third.body.as_str()), (503, body));
    assert_eq!(third.header("x-envoy-overloaded"), Some("true"));
    drop(release);
    assert_eq!(first.join().unwrap().status, 200);
    assert_eq!(second.join().unwrap().status, 200);
    assert_eq!(backend.connections.load(Ordering::Relaxed), 1);
}

#[test]
fn outlier_detection_ejects_and_the_other_host_serves() {
    let (bad, good) = (
        Backend::start(|_| answer("500 X", "bad")),
        Backend::saying("good"),
    );
    let outlier = "outlier_detection: {consecutive_5xx: 3, max_ejection_percent: 100, base_ejection_time: 60s, interval: 1s}";
    let running = Running::start(&http(
        &["{match: {prefix: /}, route: {cluster: app}}"],
        &cluster("app", &[bad.address, good.address], outlier),
        "",
    ));
    let main = running.address("main");
    for _ in 0..20 {
        get(main, "/", "");
    }
    assert_eq!(bad.count(), 3, "three failures eject");
    let clusters = running.page("/clusters");
    let line = format!("app::{}::health_flags::/failed_outlier_check", bad.address);
    assert!(clusters.contains(&line), "{clusters}");
    running.counts(&["cluster.app.outlier_detection.ejections_active: 1"]);
}

#[test]
fn bodies_stream_in_both_directions() {
    let backend = Backend::start(|seen| {
        let size = seen.body.len();
        let mut out = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for part in seen.body.chunks(50_000) {
            out.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            out.extend_from_slice(part);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"0\r\n\r\n");
        assert!(size > 0);
        out
    });
    let running = Running::start(&http(
        &["{match: {prefix: /}, route: {cluster: app}}"],
        &cluster("app", &[backend.address], ""),
        "",
    ));
    let main = running.address("main");
    let body: Vec<u8> = (0..700_000u32).map(|i| b'a' + (i % 26) as u8).collect();
    let mut stream = connect(main);
    write!(
        stream,
        "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    stream.write_all(&body).unwrap();
    let answer = read_answer(&mut stream).unwrap();
    assert_eq!(answer.body.as_bytes(), body);
    // The same connection again, chunked.
    let mut request =
        b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    request.extend_from_slice(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n");
    stream.write_all(&request).unwrap();
    assert_eq!(read_answer(&mut stream).unwrap().body, "hello world");
}

#[test]
fn websockets_pass_and_other_upgrades_do_not() {
    let backend = Backend::start(|seen| {
        assert!(seen.head.contains("upgrade: websocket"), "{}", seen.head);
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"
            .to_vec()
    });
    let running = Running::start(&http(
        &["{match: {prefix: /}, route: {cluster: app}}"],
        &cluster("app", &[backend.address], ""),
        "",
    ));
    let main = running.address("main");
    let mut stream = connect(main);
    stream
        .write_all(
            b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .unwrap();
    let answer = read_answer(&mut stream).unwrap();
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    stream.write_all(b"ping").unwrap();
    let mut echo = [0u8; 4];
    stream.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"ping");
    let refused = get(main, "/", "Connection: Upgrade\r\nUpgrade: other\r\n");
    assert_eq!((refused.status, refused.body.as_str()), (403, ""));
}

#[test]
fn expect_is_answered_or_passed_on() {
    let backend = Backend::saying("done");
    let running = Running::start(&http(
        &["{match: {prefix: /}, route: {cluster: app}}"],
        &cluster("app", &[backend.address], ""),
        "",
    ));
    let mut stream = connect(running.address("main"));
    stream
        .write_all(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n",
        )
        .unwrap();
    let mut buffer = [0u8; 25];
    stream.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").unwrap();
    assert_eq!(read_answer(&mut stream).unwrap().body, "done");
}

#[test]
fn admin_pages_are_envoys() {
    let backend = Backend::saying("hi");
    let running = Running::start(&http(
        &["{match: {prefix: /}, route: {cluster: app}}"],
        &cluster("app", &[backend.address], ""),
        "",
    ));
    get(running.address("main"), "/", "");
    assert_eq!(running.page("/ready"), "LIVE\n");
    assert_eq!(
        running.page("/listeners"),
        format!("main::{}\n", running.address("main"))
    );
    let info: serde_json::Value = serde_json::from_str(&running.page("/server_info")).unwrap();
    assert_eq!(info["state"], "LIVE");
    let dump: serde_json::Value =
        serde_json::from_str(&running.page("/config_dump?include_eds")).unwrap();
    let types: Vec<&str> = dump["configs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|config| config["@type"].as_str().unwrap())
        .collect();
    let expected: Vec<String> = [
        "Bootstrap",
        "Clusters",
        "Endpoints",
        "Listeners",
        "Routes",
        "Secrets",
    ]
    .iter()
    .map(|kind| format!("type.googleapis.com/envoy.admin.v3.{kind}ConfigDump"))
    .collect();
    assert_eq!(types, expected);
    assert_eq!(
        dump["configs"][1]["static_clusters"][0]["cluster"]["name"],
        "app"
    );
    let masked: serde_json::Value =
        serde_json::from_str(&running.page("/config_dump?mask=bootstrap")).unwrap();
    assert_eq!(masked["configs"].as_array().unwrap().len(), 1);
    let clusters: serde_json::Value =
        serde_json::from_str(&running.page("/clusters?format=json")).unwrap();
    assert_eq!(
        clusters["cluster_statuses"][0]["host_statuses"][0]["health_status"]["eds_health_status"],
        "HEALTHY"
    );
    let metrics = running.page("/stats/prometheus");
    let line =
        "envoy_cluster_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"app\"} 1";
    assert!(metrics.contains(line), "{metrics}");
    assert_eq!(
        running.page("/reset_counters"),
        "Method GET not allowed, POST required."
    );
    assert_eq!(get(running.admin(), "/nothing", "").status, 404);
    let logging = exchange(
        running.admin(),
        b"POST /logging?http=debug HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    .body;
    assert!(logging.contains("  http: debug\n"), "{logging}");
}

#[test]
fn wrong_configuration_is_refused_with_its_place() {
    let yaml = http(
        &["{match: {prefix: /}, route: {cluster: app}}"],
        &cluster("app", &[], ""),
        "",
    )
    .replace("            validate_clusters: false\n", "")
    .replace("cluster: app}}", "cluster: other}}");
    let Err(error) = Running::try_start(&yaml) else {
        panic!("it starts")
    };
    assert!(error.contains("route: unknown cluster 'other'"), "{error}");
    let yaml = http(
        &["{match: {prefix: /}, direct_response: {status: 200}}"],
        &cluster("app", &[], ""),
        "",
    )
    .replace(
        "envoy.extensions.filters.http.cors.v3.Cors",
        "envoy.extensions.filters.http.wasm.v3.Wasm",
    );
    let Err(error) = Running::try_start(&yaml) else {
        panic!("it starts")
    };
    assert!(error.contains("wasm.v3.Wasm is not supported"), "{error}");
}
