//! Trace context: a service that calls another one passes on what it was called with, so that a
//! tracing backend sees one trace. The sidecars make the spans; this is all an application does.

use axum::http::{HeaderMap, HeaderName};

/// Headers that carry trace context: Zipkin B3, W3C Trace Context, Envoy's request id, and what
/// other tracers in the field use.
const CARRIED: [&str; 13] = [
    "x-request-id",
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-ot-span-context",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "baggage",
];

/// The trace headers of one request.
#[derive(Debug, Clone, Default)]
pub struct TraceContext(HeaderMap);

impl TraceContext {
    /// Takes the trace headers out of a request's headers.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut carried = HeaderMap::new();
        for name in CARRIED {
            let name = HeaderName::from_static(name);
            for value in headers.get_all(&name) {
                carried.append(name.clone(), value.clone());
            }
        }
        Self(carried)
    }

    /// Adds them to a request to another service.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.0 {
            headers.append(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trace_headers_are_passed_on() {
        let mut incoming = HeaderMap::new();
        incoming.insert("traceparent", "00-1-2-01".parse().unwrap());
        incoming.insert("x-b3-traceid", "1".parse().unwrap());
        incoming.insert("cookie", "secret".parse().unwrap());
        let mut outgoing = HeaderMap::new();
        TraceContext::of(&incoming).apply(&mut outgoing);
        assert_eq!(outgoing.len(), 2, "seen {outgoing:?}");
        assert_eq!(outgoing["traceparent"], "00-1-2-01");
    }
}
