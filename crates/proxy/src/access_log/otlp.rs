//! Access logs as OpenTelemetry knows them: records with a body and attributes.

use std::time::UNIX_EPOCH;

use bytes::Bytes;
use dataplane::StreamInfo;
use dataplane::formatter::Formatter;
use xds::envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig;
use xds::opentelemetry::proto::common::v1::any_value::Value as Kinds;
use xds::opentelemetry::proto::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use xds::opentelemetry::proto::logs::v1::LogRecord;

/// The method that takes records.
pub const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// What records say: formats in the places of texts.
pub struct Record {
    body: Option<Template>,
    attributes: Vec<(String, Template)>,
}

enum Template {
    Text(Formatter),
    List(Vec<Template>),
    Map(Vec<(String, Template)>),
}

impl Record {
    /// Compiles the formats.
    ///
    /// # Errors
    /// What of it is wrong or not there.
    pub fn compile(config: &OpenTelemetryAccessLogConfig) -> Result<Self, String> {
        // Istio's list of objects is about filters whose state this proxy does not keep as objects: none is ever there.
        if !config.custom_tags.is_empty() {
            return Err("custom_tags: is not supported".into());
        }
        let body = match &config.body {
            Some(body) if body.value.is_some() => {
                Some(Template::compile(body).map_err(|error| format!("body: {error}"))?)
            }
            _ => None,
        };
        let attributes = config.attributes.clone().unwrap_or_default();
        Ok(Self {
            body,
            attributes: fields(&attributes).map_err(|error| format!("attributes: {error}"))?,
        })
    }

    /// The record of a stream.
    pub fn of(&self, info: &StreamInfo<'_>) -> LogRecord {
        let since = info.start.duration_since(UNIX_EPOCH).unwrap_or_default();
        let trace = info
            .trace_id
            .and_then(|id| u128::from_str_radix(id, 16).ok())
            .zip(info.span_id);
        LogRecord {
            time_unix_nano: since.as_nanos() as u64,
            body: self.body.as_ref().map(|body| body.of(info)),
            attributes: values(&self.attributes, info),
            trace_id: trace
                .map_or_else(Bytes::new, |(trace, _)| trace.to_be_bytes().to_vec().into()),
            span_id: trace.map_or_else(Bytes::new, |(_, span)| span.to_be_bytes().to_vec().into()),
            ..LogRecord::default()
        }
    }
}

fn fields(list: &KeyValueList) -> Result<Vec<(String, Template)>, String> {
    let field = |field: &KeyValue| {
        let value = field.value.clone().unwrap_or_default();
        let template = Template::compile(&value).map_err(|error| format!("{}: {error}", field.key));
        Ok((field.key.clone(), template?))
    };
    list.values.iter().map(field).collect()
}

fn values(fields: &[(String, Template)], info: &StreamInfo<'_>) -> Vec<KeyValue> {
    let value = |(key, template): &(String, Template)| KeyValue {
        key: key.clone(),
        value: Some(template.of(info)),
        ..KeyValue::default()
    };
    fields.iter().map(value).collect()
}

impl Template {
    fn compile(value: &AnyValue) -> Result<Self, String> {
        Ok(match &value.value {
            Some(Kinds::StringValue(text)) => {
                Self::Text(Formatter::text(text).map_err(|error| error.to_string())?)
            }
            Some(Kinds::ArrayValue(list)) => Self::List(
                list.values
                    .iter()
                    .map(Self::compile)
                    .collect::<Result<_, _>>()?,
            ),
            Some(Kinds::KvlistValue(list)) => Self::Map(fields(list)?),
            _ => return Err("only strings, lists and maps of them are supported".into()),
        })
    }

    fn of(&self, info: &StreamInfo<'_>) -> AnyValue {
        AnyValue {
            value: Some(match self {
                Self::Text(formatter) => Kinds::StringValue(formatter.value(info)),
                Self::List(list) => Kinds::ArrayValue(ArrayValue {
                    values: list.iter().map(|template| template.of(info)).collect(),
                }),
                Self::Map(fields) => Kinds::KvlistValue(KeyValueList {
                    values: values(fields, info),
                }),
            }),
        }
    }
}
