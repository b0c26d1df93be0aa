//! Lines as a real Envoy 1.40 writes them (reference, section G.3).

use super::*;
use crate::flags::ResponseFlags;
use crate::request::RequestHead;
use crate::stream::{Connection, Metadata};
use http::{HeaderMap, HeaderValue, Method};
use std::time::{Duration, UNIX_EPOCH};

/// Istio's default text format.
const ISTIO: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

fn with<R>(test: impl FnOnce(&StreamInfo<'_>) -> R) -> R {
    let connection = Connection {
        id: 7,
        remote: "127.0.0.1:36410".parse().unwrap(),
        local: "127.0.0.1:10000".parse().unwrap(),
        tls: None,
        server_name: None,
        start: UNIX_EPOCH,
    };
    let mut headers = HeaderMap::new();
    headers.insert("user-agent", HeaderValue::from_static("curl/7.88.1"));
    headers.insert("x-request-id", HeaderValue::from_static("id-1"));
    let mut metadata = Metadata::new();
    metadata.insert(
        "jwt".into(),
        serde_json::json!({"payload": {"sub": "bob", "n": 5}}),
    );
    let mut info = StreamInfo::new(
        &connection,
        &metadata,
        UNIX_EPOCH + Duration::new(1_795_242_862, 98_000_000),
    );
    info.request = Some(RequestHead {
        method: &Method::GET,
        scheme: "http",
        authority: "127.0.0.1:10000",
        path: "/uh?a=b",
        headers: &headers,
    });
    info.protocol = Some("HTTP/1.1");
    info.response_code = Some(503);
    info.response_code_details = Some("no_healthy_upstream");
    info.flags = ResponseFlags::NO_HEALTHY_UPSTREAM;
    info.bytes_sent = 19;
    info.duration = Some(Duration::from_micros(900));
    info.upstream_cluster_raw = Some("empty");
    test(&info)
}

fn line(formatter: &Formatter) -> String {
    with(|info| {
        let mut out = String::new();
        formatter.format(info, &mut out);
        out
    })
}

#[test]
fn istios_default_line() {
    let text = line(&Formatter::text(ISTIO).expect("compiles"));
    assert_eq!(
        text,
        "[2026-11-21T06:34:22.098Z] \"GET /uh?a=b HTTP/1.1\" 503 UH no_healthy_upstream - \"-\" 0 19 0 - \"-\" \"curl/7.88.1\" \"id-1\" \"127.0.0.1:10000\" \"-\" empty - 127.0.0.1:10000 127.0.0.1:36410 - -\n"
    );
}

#[test]
fn json_keeps_types_and_says_null() {
    let format = serde_json::json!({"code": "%RESPONSE_CODE%", "up": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%", "who": "%DYNAMIC_METADATA(jwt:payload:sub)%", "all": "%DYNAMIC_METADATA(jwt:payload)%", "mix": "a%BYTES_SENT%b", "flags": "%RESPONSE_FLAGS%"});
    let text = line(&Formatter::json(&format).expect("compiles"));
    assert_eq!(
        serde_json::from_str::<Value>(&text).expect("JSON"),
        serde_json::json!({"code": 503, "up": null, "who": "bob", "all": {"sub": "bob", "n": 5}, "mix": "a19b", "flags": "UH"})
    );
    assert!(text.ends_with('\n'));
}

#[test]
fn commands_with_arguments() {
    let of = |format: &str| line(&Formatter::text(format).expect("compiles"));
    assert_eq!(of("%REQ(USER-AGENT):4%|%PATH(NQ):2%"), "curl|/u");
    assert_eq!(of("%START_TIME(%s.%3f)% 100%%"), "1795242862.098 100%");
    assert_eq!(
        of("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_REMOTE_PORT%"),
        "127.0.0.1 36410"
    );
    assert_eq!(
        of("%REQ_WITHOUT_QUERY(:PATH)% %QUERY_PARAM(a)% %REQ(NONE?:METHOD)%"),
        "/uh b GET"
    );
    assert_eq!(
        of("%PATH(NQ)% %PATH(WQ:PATH)% %PATH(NQ:ORIG)% %QUERY_PARAMS%"),
        "/uh /uh?a=b - a=b"
    );
    assert_eq!(
        of("%REQUESTED_SERVER_NAME(SNI_FIRST)% %REQUESTED_SERVER_NAME%"),
        "127.0.0.1 -"
    );
    assert_eq!(
        of("%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT(12)% %COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%"),
        "127.0.0.0/12 900"
    );
    assert_eq!(
        line(&Formatter::header("<%REQ(none)%>").expect("compiles")),
        "<>"
    );
    assert_eq!(
        Formatter::header("plain").expect("compiles").constant(),
        Some("plain")
    );
}

#[test]
fn what_is_wrong_is_named() {
    let error = |format: &str| Formatter::text(format).expect_err("invalid").to_string();
    for (format, problem) in [
        ("%NO_SUCH%", "Not supported field in StreamInfo: NO_SUCH"),
        ("%VIRTUAL_HOST_NAME%", "Not supported field in StreamInfo"),
        (
            "%UPSTREAM_PEER_SERIAL%",
            "Not supported field in StreamInfo",
        ),
        ("100%", "Couldn't find valid command at position 3"),
        ("%REQ(a)", "Couldn't find valid command at position 0"),
        ("%req(a)%", "Couldn't find valid command at position 0"),
        ("%PROTOCOL:x%", "Couldn't find valid command at position 0"),
        ("%REQ%", "REQ requires parameters"),
        ("%REQ(a?b?c)%", "More than 1 alternative header"),
        (
            "%PROTOCOL:3%",
            "PROTOCOL does not take any parameters or length",
        ),
        (
            "%HOSTNAME()%",
            "HOSTNAME does not take any parameters or length",
        ),
        (
            "%START_TIME:3%",
            "START_TIME does not allow length to be specified.",
        ),
        ("%PATH(ALL)%", "Invalid PATH option: 'ALL'"),
        ("%FILTER_STATE(a:b)%", "only support PLAIN/TYPED/FIELD"),
        (
            "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:h)%",
            "Invalid common duration precision: h.",
        ),
    ] {
        let said = error(format);
        assert!(said.contains(problem), "{format}: {said}");
    }
}
