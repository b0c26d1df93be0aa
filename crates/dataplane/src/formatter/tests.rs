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
    assert_eq!(of("%REQ(USER-AGENT):4%|%PROTOCOL:4%"), "curl|HTTP");
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
    assert!(error("%NO_SUCH%").contains("%NO_SUCH%: is not a known command"));
    assert!(error("100%").contains("write %%"));
    assert!(error("%REQ%").contains("needs an argument"));
    assert!(error("%PROTOCOL:x%").contains("is not a length"));
}
