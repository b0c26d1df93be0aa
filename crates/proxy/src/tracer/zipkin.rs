//! Zipkin's JSON, version 2.

use std::net::IpAddr;
use std::time::UNIX_EPOCH;

use dataplane::tracing::trace_id;
use serde_json::{Map, Value, json};

use super::{Kind, Span};

/// A list of spans of this service.
pub fn encode(spans: &[Span], service: &str) -> Vec<u8> {
    let all: Vec<Value> = spans.iter().map(|span| one(span, service)).collect();
    serde_json::to_vec(&all).unwrap_or_default()
}

fn one(span: &Span, service: &str) -> Value {
    let since = span.start.duration_since(UNIX_EPOCH).unwrap_or_default();
    let tags: Map<String, Value> = span
        .tags
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().into()))
        .collect();
    let address = match span.local.to_canonical() {
        IpAddr::V4(ip) => ("ipv4", ip.to_string()),
        IpAddr::V6(ip) => ("ipv6", ip.to_string()),
    };
    let mut endpoint = json!({ "serviceName": service });
    endpoint[address.0] = address.1.into();
    let mut out = json!({
        "traceId": trace_id(span.context.trace),
        "id": format!("{:016x}", span.context.span),
        "name": span.name,
        "kind": match span.kind { Kind::Server => "SERVER", Kind::Client => "CLIENT" },
        "timestamp": since.as_micros() as u64,
        "duration": span.duration.as_micros().max(1) as u64,
        "localEndpoint": endpoint,
        "tags": tags,
    });
    if let Some(parent) = span.context.parent {
        out["parentId"] = format!("{parent:016x}").into();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::tracing::Context;
    use std::time::Duration;

    #[test]
    fn a_span_is_written_as_zipkin_reads_it() {
        let span = Span {
            context: Context {
                trace: 0x1234 << 64 | 0xabcd,
                span: 0xef,
                parent: Some(0x12),
                sampled: Some(true),
            },
            name: "user-service:8081/*".into(),
            kind: Kind::Server,
            start: UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001),
            duration: Duration::from_micros(42),
            local: "10.0.0.1".parse().unwrap(),
            tags: vec![("http.method".into(), "GET".into())],
        };
        let text = encode(&[span], "user-service.theater");
        let value: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(
            value,
            json!([{"traceId": "0000000000001234000000000000abcd", "id": "00000000000000ef",
                "parentId": "0000000000000012", "name": "user-service:8081/*", "kind": "SERVER",
                "timestamp": 1_700_000_000_000_001_u64, "duration": 42,
                "localEndpoint": {"serviceName": "user-service.theater", "ipv4": "10.0.0.1"},
                "tags": {"http.method": "GET"}}])
        );
    }
}
