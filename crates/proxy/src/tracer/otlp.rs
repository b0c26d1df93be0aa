//! Spans as the messages of OpenTelemetry's trace service.

use std::time::UNIX_EPOCH;

use bytes::Bytes;
use xds::envoy::config::core::v3::TypedExtensionConfig;
use xds::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;
use xds::opentelemetry::proto::common::v1::any_value::Value as Kinds;
use xds::opentelemetry::proto::common::v1::{AnyValue, KeyValue};
use xds::opentelemetry::proto::resource::v1::Resource;
use xds::opentelemetry::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use super::{Kind, Span as Finished};

/// The method that takes spans.
pub const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// An attribute with a text.
pub fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Kinds::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}

/// The attributes of a variable: `key=value,key=value`.
pub fn attributes_of(text: &str) -> Vec<(String, String)> {
    text.split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

/// What detectors find out about the resource.
///
/// # Errors
/// A detector that is not there.
pub fn detected(detectors: &[TypedExtensionConfig]) -> Result<Vec<(String, String)>, String> {
    let mut attributes = Vec::new();
    for (index, detector) in detectors.iter().enumerate() {
        let known = detector.typed_config.as_ref().is_some_and(|any| {
            xds::any::message_name(any).ends_with(".EnvironmentResourceDetectorConfig")
        });
        if !known {
            return Err(format!(
                "resource_detectors[{index}]: {} is not supported",
                detector.name
            ));
        }
        let variable = std::env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        attributes.extend(attributes_of(&variable));
    }
    Ok(attributes)
}

/// The resource that is the service of this name, with further attributes.
pub fn resource(service: &str, more: Vec<(String, String)>) -> Resource {
    let own = [
        ("service.name", service),
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.name", "theater"),
        ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ];
    let mut attributes: Vec<KeyValue> = own
        .iter()
        .filter(|(key, _)| !more.iter().any(|(other, _)| other == key))
        .map(|(key, value)| attribute(key, value))
        .collect();
    attributes.extend(more.iter().map(|(key, value)| attribute(key, value)));
    Resource { attributes }
}

/// The call that hands over these spans.
pub fn request(spans: &[Finished], resource: &Resource) -> ExportTraceServiceRequest {
    let spans = spans
        .iter()
        .map(|span| {
            let start = span.start.duration_since(UNIX_EPOCH).unwrap_or_default();
            let error = span.tags.iter().any(|(name, _)| name == "error");
            Span {
                trace_id: span.context.trace.to_be_bytes().to_vec().into(),
                span_id: span.context.span.to_be_bytes().to_vec().into(),
                parent_span_id: span
                    .context
                    .parent
                    .map_or_else(Bytes::new, |parent| parent.to_be_bytes().to_vec().into()),
                name: span.name.clone(),
                kind: match span.kind {
                    Kind::Server => 2,
                    Kind::Client => 3,
                },
                start_time_unix_nano: start.as_nanos() as u64,
                end_time_unix_nano: (start + span.duration).as_nanos() as u64,
                attributes: span
                    .tags
                    .iter()
                    .map(|(name, value)| attribute(name, value))
                    .collect(),
                status: error.then_some(Status { code: 2 }),
            }
        })
        .collect();
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.clone()),
            scope_spans: vec![ScopeSpans { spans }],
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_from_a_variable() {
        assert_eq!(
            attributes_of("a=1, b = 2,nothing"),
            [("a".into(), "1".into()), ("b".into(), "2".to_owned())]
        );
        let resource = resource("me", vec![("service.name".into(), "other".into())]);
        let names = resource
            .attributes
            .iter()
            .filter(|attribute| attribute.key == "service.name");
        assert_eq!(names.count(), 1, "the variable wins");
    }
}
