//! Headers of which Envoy keeps one line, however many come: a further value is written behind those before it, after a comma.
//! Of all others every line stays by itself.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Which way headers go: requests and answers have other lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the upstream.
    Request,
    /// To the client.
    Response,
}

/// In requests; sorted.
const REQUEST: [&str; 60] = [
    "accept",
    "accept-encoding",
    "access-control-request-headers",
    "access-control-request-method",
    "access-control-request-private-network",
    "authentication",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-type",
    "expect",
    "grpc-accept-encoding",
    "grpc-timeout",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "origin",
    "pragma",
    "proxy-connection",
    "proxy-status",
    "referer",
    "te",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-client-trace-id",
    "x-envoy-attempt-count",
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-external-address",
    "x-envoy-force-trace",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-internal",
    "x-envoy-ip-tags",
    "x-envoy-is-timeout-retry",
    "x-envoy-max-retries",
    "x-envoy-original-host",
    "x-envoy-original-path",
    "x-envoy-original-url",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-stream-duration-ms",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
];

/// In requests and answers.
const REQUEST_ID: &str = "x-request-id";

/// In answers; sorted.
const RESPONSE: [&str; 36] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-allow-private-network",
    "access-control-expose-headers",
    "access-control-max-age",
    "age",
    "cache-control",
    "connection",
    "content-encoding",
    "content-type",
    "date",
    "etag",
    "expires",
    "grpc-message",
    "grpc-status",
    "keep-alive",
    "last-modified",
    "location",
    "proxy-connection",
    "proxy-status",
    "server",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "x-envoy-attempt-count",
    "x-envoy-decorator-operation",
    "x-envoy-degraded",
    "x-envoy-immediate-health-check-fail",
    "x-envoy-ratelimited",
    "x-envoy-upstream-canary",
    "x-envoy-upstream-healthchecked-cluster",
    "x-envoy-upstream-service-time",
    REQUEST_ID,
];

/// Whether a header (in lower case) has one line in this direction.
pub fn is_list(direction: Direction, name: &str) -> bool {
    match direction {
        Direction::Request => name == REQUEST_ID || REQUEST.binary_search(&name).is_ok(),
        Direction::Response => RESPONSE.binary_search(&name).is_ok(),
    }
}

/// Makes one line of several, as they came from outside.
pub fn fold(direction: Direction, headers: &mut HeaderMap) {
    // Nearly always every name is there once.
    if headers.len() == headers.keys_len() {
        return;
    }
    let repeated: Vec<HeaderName> = headers
        .keys()
        .filter(|name| headers.get_all(*name).iter().nth(1).is_some())
        .filter(|name| is_list(direction, name.as_str()))
        .cloned()
        .collect();
    for name in repeated {
        let lines: Vec<&[u8]> = headers
            .get_all(&name)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        if let Ok(all) = HeaderValue::from_bytes(&lines.join(&b',')) {
            headers.insert(name, all);
        }
    }
}

/// Adds a value: to the line that is there, or as another one.
pub fn append(
    direction: Direction,
    headers: &mut HeaderMap,
    name: &HeaderName,
    value: HeaderValue,
) {
    let old = headers.get(name).map(HeaderValue::as_bytes);
    if let Some(old) = old
        && is_list(direction, name.as_str())
        && let Ok(all) = HeaderValue::from_bytes(&[old, value.as_bytes()].join(&b','))
    {
        headers.insert(name, all);
    } else {
        headers.append(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_sorted() {
        assert!(REQUEST.is_sorted() && RESPONSE.is_sorted());
    }

    #[test]
    fn lists_become_one_line_and_others_stay_as_they_came() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("via", "a"),
            ("x-own", "1"),
            ("via", "b"),
            ("x-own", "2"),
            ("origin", "o"),
            ("origin", "p"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let mut answer = headers.clone();
        fold(Direction::Request, &mut headers);
        fold(Direction::Response, &mut answer);
        let all = |headers: &HeaderMap, name: &str| -> Vec<String> {
            let values = headers.get_all(name).iter();
            values
                .map(|value| value.to_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(all(&headers, "via"), ["a,b"]);
        assert_eq!(all(&headers, "x-own"), ["1", "2"]);
        assert_eq!(all(&headers, "origin"), ["o,p"]);
        assert_eq!(all(&answer, "origin"), ["o", "p"], "no list in an answer");
        append(
            Direction::Request,
            &mut headers,
            &HeaderName::from_static("via"),
            HeaderValue::from_static("c"),
        );
        assert_eq!(all(&headers, "via"), ["a,b,c"]);
    }
}
