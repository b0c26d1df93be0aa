//! Spans: which requests make them, what the next proxy is told, what the collector gets.

mod support;

use serde_json::{Value, json};
use support::*;

fn tracing(provider: Value, more: &str) -> String {
    format!(
        "          tracing: {{random_sampling: {{value: 100}}, custom_tags: [{{tag: mine, literal: {{value: yes}}}}, {{tag: who, request_header: {{name: x-user, default_value: nobody}}}}], provider: {{name: p, typed_config: {provider}}}{more}}}\n"
    )
}

fn zipkin() -> Value {
    json!({"@type": "type.googleapis.com/envoy.config.trace.v3.ZipkinConfig", "trace_id_128bit": true,
        "shared_span_context": false, "collector_endpoint_version": "HTTP_JSON",
        "collector_service": {"http_uri": {"uri": "http://zipkin.local/api/v2/spans", "cluster": "spans", "timeout": "5s"}}})
}

const ROUTE: &str =
    "{match: {prefix: /}, decorator: {operation: \"shop:80/*\"}, route: {cluster: up}}";

/// The spans that came, once there are so many.
fn spans(collector: &Backend, count: usize) -> Vec<Value> {
    let all = || -> Vec<Value> {
        let seen = collector.seen.lock().unwrap();
        seen.iter()
            .flat_map(|seen| {
                serde_json::from_slice::<Vec<Value>>(&seen.body).expect("a list of spans")
            })
            .collect()
    };
    until("the spans arrive", || all().len() >= count);
    all()
}

fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name)
            .then(|| value.trim().to_owned())
    })
}

#[test]
fn spans_reach_zipkin_and_the_trace_goes_on() {
    let backend = Backend::saying("in");
    let collector = Backend::start(|_| answer("202 Accepted", ""));
    let clusters = format!(
        "{}{}",
        cluster("up", &[backend.address], ""),
        cluster("spans", &[collector.address], "")
    );
    let running = Running::start(&http(&[ROUTE], &clusters, &tracing(zipkin(), "")));
    let main = running.address("main");
    let b3 = "x-b3-traceid: 80f198ee56343ba864fe8b2a57d3eff7\r\nx-b3-spanid: 05e3ac9a4f6e3b90\r\nx-b3-sampled: 1\r\nx-user: bob\r\n";
    let first = get(main, "/p?q=1", b3);
    assert_eq!(
        first.header("x-envoy-decorator-operation"),
        Some("shop:80/*"),
        "the caller is told the operation"
    );
    for _ in 0..4 {
        get(main, "/", "");
    }
    let spans = spans(&collector, 5);
    let span = spans
        .iter()
        .find(|span| span["traceId"] == "80f198ee56343ba864fe8b2a57d3eff7")
        .expect("the span of the first request");
    let head = backend.seen.lock().unwrap()[0].head.clone();
    assert_eq!(span["parentId"], "05e3ac9a4f6e3b90");
    assert_eq!(
        header(&head, "x-b3-spanid").as_deref(),
        span["id"].as_str(),
        "the upstream is told our span"
    );
    assert_eq!(
        header(&head, "x-b3-parentspanid").as_deref(),
        Some("05e3ac9a4f6e3b90")
    );
    let id = header(&head, "x-request-id").expect("a request id");
    assert_eq!(&id[14..15], "9", "the id tells that it is sampled: {id}");
    assert_eq!(
        (&span["name"], &span["kind"]),
        (&json!("shop:80/*"), &json!("SERVER"))
    );
    for (tag, value) in [
        ("http.method", "GET"),
        ("http.url", "http://test.local/p?q=1"),
        ("http.status_code", "200"),
        ("http.protocol", "HTTP/1.1"),
        ("component", "proxy"),
        ("upstream_cluster", "up"),
        ("response_flags", "-"),
        ("peer.address", "127.0.0.1"),
        ("guid:x-request-id", &id),
        ("mine", "yes"),
        ("who", "bob"),
    ] {
        assert_eq!(span["tags"][tag], value, "{tag} of {span}");
    }
    let own = spans
        .iter()
        .find(|span| span["parentId"].is_null())
        .expect("a trace of ours");
    assert_eq!(own["traceId"].as_str().map(str::len), Some(32));
    let request = collector.seen.lock().unwrap()[0].head.clone();
    assert!(
        request.starts_with("POST /api/v2/spans HTTP/1.1\r\nhost: zipkin.local\r\n"),
        "{request}"
    );
}

#[test]
fn tries_have_spans_of_their_own_where_asked_for() {
    let backend = Backend::start(|seen| {
        if seen.head.contains("/fail") {
            answer("503 Service Unavailable", "")
        } else {
            ok("in")
        }
    });
    let collector = Backend::start(|_| answer("202 Accepted", ""));
    let clusters = format!(
        "{}{}",
        cluster("up", &[backend.address], ""),
        cluster("spans", &[collector.address], "")
    );
    let route =
        "{match: {prefix: /}, route: {cluster: up, retry_policy: {retry_on: 5xx, num_retries: 1}}}";
    let running = Running::start(&http(
        &[route],
        &clusters,
        &tracing(zipkin(), ", spawn_upstream_span: true"),
    ));
    let main = running.address("main");
    assert_eq!(get(main, "/fail", "").status, 503);
    assert_eq!(get(main, "/", "").status, 200);
    let spans = spans(&collector, 5);
    let of = |kind: &str| spans.iter().filter(|span| span["kind"] == kind).count();
    assert_eq!((of("SERVER"), of("CLIENT")), (2, 3), "{spans:#?}");
    let failed = spans
        .iter()
        .find(|span| span["kind"] == "SERVER" && span["tags"]["http.status_code"] == "503")
        .expect("the span of the failed request");
    assert_eq!(failed["tags"]["error"], "true");
    let tries: Vec<&Value> = spans
        .iter()
        .filter(|span| span["parentId"] == failed["id"])
        .collect();
    assert_eq!(tries.len(), 2, "{spans:#?}");
    let last = backend.seen.lock().unwrap()[1].head.clone();
    let sent = header(&last, "x-b3-spanid");
    assert!(
        tries
            .iter()
            .any(|span| span["id"].as_str() == sent.as_deref())
    );
}

#[test]
fn spans_reach_an_opentelemetry_collector() {
    let backend = Backend::saying("in");
    let collector = Backend::saying("");
    let clusters = format!(
        "{}{}",
        cluster("up", &[backend.address], ""),
        cluster("spans", &[collector.address], "")
    );
    let otel = json!({"@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig", "service_name": "shop.default",
        "http_service": {"http_uri": {"uri": "otel.local/v1/traces", "cluster": "spans", "timeout": "5s"},
            "request_headers_to_add": [{"header": {"key": "x-key", "value": "secret"}}]}});
    let running = Running::start(&http(&[ROUTE], &clusters, &tracing(otel, "")));
    let parent = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    for _ in 0..5 {
        get(running.address("main"), "/", parent);
    }
    until("the spans arrive", || collector.count() > 0);
    let seen = collector.seen.lock().unwrap()[0].clone();
    assert!(
        seen.head
            .starts_with("POST /v1/traces HTTP/1.1\r\nhost: otel.local\r\n"),
        "{}",
        seen.head
    );
    assert_eq!(
        header(&seen.head, "content-type").as_deref(),
        Some("application/x-protobuf")
    );
    assert_eq!(header(&seen.head, "x-key").as_deref(), Some("secret"));
    for text in [
        "shop.default",
        "shop:80/*",
        "http.status_code",
        "service.name",
    ] {
        assert!(
            find(&seen.body, text.as_bytes()).is_some(),
            "{text} is in the message"
        );
    }
    let trace = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes();
    assert!(
        find(&seen.body, &trace).is_some(),
        "the trace is the caller's"
    );
    let head = backend.seen.lock().unwrap()[0].head.clone();
    let told = header(&head, "traceparent").expect("the trace goes on");
    assert!(
        told.starts_with("00-0af7651916cd43dd8448eb211c80319c-")
            && !told.contains("b7ad6b7169203331"),
        "{told}"
    );
}
