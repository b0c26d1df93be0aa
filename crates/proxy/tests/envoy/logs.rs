//! A service that takes access logs over gRPC, `envoy.service.accesslog.v3` and OpenTelemetry's, and OpenTelemetry's over HTTP.

use std::sync::{Arc, Mutex};

use bytes::{Buf, Bytes, BytesMut};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use xds::Wire as _;
use xds::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use xds::envoy::service::accesslog::v3::stream_access_logs_message::LogEntries;
use xds::opentelemetry::proto::collector::logs::v1::ExportLogsServiceRequest;
use xds::opentelemetry::proto::common::v1::{AnyValue, KeyValue, any_value};

use crate::upstream::Script;

pub async fn serve<S>(stream: S, name: &str, script: Arc<Mutex<Script>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond, name.to_owned(), script.clone()));
    }
}

async fn answer(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    name: String,
    script: Arc<Mutex<Script>>,
) {
    let (parts, mut incoming) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let mut waiting = BytesMut::new();
    if parts
        .headers
        .get("content-type")
        .is_some_and(|kind| kind == "application/x-protobuf")
    {
        while let Some(Ok(data)) = incoming.data().await {
            let _ = incoming.flow_control().release_capacity(data.len());
            waiting.extend_from_slice(&data);
        }
        let mut seen: Vec<String> = parts
            .headers
            .iter()
            .filter(|(key, _)| !["content-length", "x-request-id"].contains(&key.as_str()))
            .map(|(key, value)| format!("{key}: {}", value.to_str().unwrap_or("?")))
            .collect();
        seen.sort();
        seen.insert(0, format!("{} {}", parts.method, parts.uri));
        let mut entries = vec![seen.join("\n")];
        entries.extend(of_open_telemetry(&waiting));
        let entries = entries.into_iter().map(|entry| format!("{name}: {entry}"));
        script.lock().unwrap().seen.extend(entries);
        let _ = respond.send_response(http::Response::new(()), true);
        return;
    }
    while let Some(Ok(data)) = incoming.data().await {
        let _ = incoming.flow_control().release_capacity(data.len());
        waiting.extend_from_slice(&data);
        while let Some(message) = next(&mut waiting) {
            let entries = match path.ends_with("StreamAccessLogs") {
                true => of_envoy(&message),
                false => of_open_telemetry(&message),
            };
            let mut script = script.lock().unwrap();
            script
                .seen
                .extend(entries.into_iter().map(|entry| format!("{name}: {entry}")));
        }
    }
    let head = http::Response::builder()
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let Ok(mut out) = respond.send_response(head, false) else {
        return;
    };
    let _ = out.send_data(Bytes::from_static(&[0; 5]), false);
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", 0.into());
    let _ = out.send_trailers(trailers);
}

/// The next gRPC message.
fn next(waiting: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(waiting.get(1..5)?.try_into().ok()?) as usize;
    (waiting.len() >= 5 + length).then(|| {
        waiting.advance(5);
        waiting.split_to(length).freeze()
    })
}

fn of_envoy(message: &[u8]) -> Vec<String> {
    let message = StreamAccessLogsMessage::from_wire(message).expect("a message of the access log");
    let mut all = Vec::new();
    if let Some(identifier) = message.identifier {
        let node = identifier.node.unwrap_or_default();
        all.push(format!(
            "the log {:?} of node {:?}",
            identifier.log_name, node.id
        ));
    }
    let mut entry = |any| {
        let mut value = xds::json::any_to_value(&any).expect("an entry");
        if let Some(map) = value.as_object_mut() {
            map.remove("@type");
        }
        plain(&mut value);
        all.push(serde_json::to_string_pretty(&value).unwrap());
    };
    match message.log_entries {
        Some(LogEntries::HttpLogs(logs)) => {
            for log in &logs.log_entry {
                entry(xds::any::pack(log));
            }
        }
        Some(LogEntries::TcpLogs(logs)) => {
            for log in &logs.log_entry {
                entry(xds::any::pack(log));
            }
        }
        None => {}
    }
    all
}

/// Addresses as text. Left out: times, of which only some are measured here, and how many bytes heads took, which depends
/// on times that stand in them.
fn plain(value: &mut Value) {
    let Value::Object(map) = value else { return };
    map.retain(|name, _| {
        !name.starts_with("time_to_")
            && !name.contains("_wire_bytes_")
            && !name.contains("_header_bytes_")
            && name != "response_headers_bytes"
    });
    for (name, value) in map {
        if let Some(socket) = value.get("socket_address") {
            let port = socket["port_value"].to_string();
            *value = format!("{}:{port}", socket["address"].as_str().unwrap()).into();
        } else if name == "start_time" || name == "duration" {
            *value = "*".into();
        } else {
            plain(value);
        }
    }
}

fn of_open_telemetry(message: &[u8]) -> Vec<String> {
    let export = ExportLogsServiceRequest::from_wire(message).expect("an export");
    let mut all = Vec::new();
    for logs in export.resource_logs {
        let resource = logs.resource.unwrap_or_default();
        for scope in logs.scope_logs {
            for record in scope.log_records {
                let entry = json!({
                    "resource": attributes(&resource.attributes),
                    "scope": scope.scope.is_some(),
                    "timed": record.time_unix_nano > 0,
                    "observed": record.observed_time_unix_nano > 0,
                    "severity": [record.severity_number, record.severity_text],
                    "body": record.body.as_ref().map(any),
                    "attributes": attributes(&record.attributes),
                    "trace": record.trace_id.len(),
                    "span": record.span_id.len(),
                });
                all.push(serde_json::to_string_pretty(&entry).unwrap());
            }
        }
    }
    all
}

fn attributes(list: &[KeyValue]) -> Value {
    let entry = |field: &KeyValue| {
        let value = field.value.as_ref().map_or(Value::Null, any);
        (field.key.clone(), value)
    };
    Value::Object(list.iter().map(entry).collect::<Map<_, _>>())
}

fn any(value: &AnyValue) -> Value {
    match &value.value {
        Some(any_value::Value::StringValue(text)) => json!(text),
        Some(any_value::Value::ArrayValue(list)) => list.values.iter().map(any).collect(),
        Some(any_value::Value::KvlistValue(list)) => attributes(&list.values),
        other => json!(format!("{other:?}")),
    }
}
