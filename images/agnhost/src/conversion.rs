//! A conversion webhook between two versions of one kind: `hostPort: "h:p"` in v1 is `host` and `port` in v2.

use anyhow::Result;
use http::StatusCode;
use serde_json::{Value, json};

use crate::flags::{Flag, Flags};
use crate::server::{self, Request, handler, text};

/// Serves `/crdconvert`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let flags = Flags::parse(
        args,
        &[
            Flag::Value("tls-cert-file", ""),
            Flag::Value("tls-private-key-file", ""),
            Flag::Value("port", "443"),
        ],
    )?;
    let tls = server::tls_from_files(
        flags.text("tls-cert-file"),
        flags.text("tls-private-key-file"),
    )?;
    let handler = handler(|request: Request| async move {
        match request.path.as_str() {
            "/readyz" => text(StatusCode::OK, "ok"),
            "/crdconvert" => match serde_json::from_slice(&request.body) {
                Ok(review) => server::json(&reviewed(review)),
                Err(error) => text(
                    StatusCode::BAD_REQUEST,
                    format!("failed to deserialize body with error {error}\n"),
                ),
            },
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    });
    server::block_on(server::listen_and_serve(
        flags.get("port")?,
        Some(tls),
        handler,
    ))
}

/// The review with its response.
fn reviewed(review: Value) -> Value {
    let request = &review["request"];
    let wanted = request["desiredAPIVersion"].as_str().unwrap_or("");
    let mut converted = Vec::new();
    let mut result = json!({"metadata": {}, "status": "Success"});
    for object in request["objects"].as_array().into_iter().flatten() {
        match convert(object, wanted) {
            Ok(object) => converted.push(object),
            Err(why) => {
                result = json!({"metadata": {}, "status": "Failure", "message": why});
                converted.clear();
                break;
            }
        }
    }
    json!({
        "kind": review["kind"], "apiVersion": review["apiVersion"],
        "response": {"uid": request["uid"], "convertedObjects": converted, "result": result},
    })
}

fn convert(object: &Value, to: &str) -> Result<Value, String> {
    let mut out = object.clone();
    let from = object["apiVersion"].as_str().unwrap_or("");
    if from == to {
        return Err(format!(
            "conversion from a version to itself should not call the webhook: {to}"
        ));
    }
    let fields = out.as_object_mut().ok_or("not an object")?;
    match (from, to) {
        ("stable.example.com/v1", "stable.example.com/v2") => {
            if let Some(both) = fields.shift_remove("hostPort") {
                let both = both.as_str().unwrap_or("");
                let (host, port) = both
                    .split_once(':')
                    .filter(|(_, port)| !port.contains(':'))
                    .ok_or_else(|| format!("invalid hostPort value `{both}`"))?;
                fields.insert("host".into(), host.into());
                fields.insert("port".into(), port.into());
            }
        }
        ("stable.example.com/v2", "stable.example.com/v1") => {
            let host = fields.shift_remove("host");
            let port = fields.shift_remove("port");
            if host.is_some() || port.is_some() {
                let text =
                    |v: &Option<Value>| v.as_ref().and_then(Value::as_str).unwrap_or("").to_owned();
                let both = format!("{}:{}", text(&host), text(&port));
                fields.insert("hostPort".into(), both.into());
            }
        }
        ("stable.example.com/v1" | "stable.example.com/v2", _) => {
            return Err(format!("unexpected conversion version {to:?}"));
        }
        _ => return Err(format!("unexpected conversion version {from:?}")),
    }
    fields.insert("apiVersion".into(), to.into());
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_is_the_same() {
        let v1 = json!({"apiVersion": "stable.example.com/v1", "hostPort": "localhost:8080"});
        let v2 = convert(&v1, "stable.example.com/v2").unwrap();
        assert_eq!(
            (&v2["host"], &v2["port"]),
            (&json!("localhost"), &json!("8080"))
        );
        assert_eq!(convert(&v2, "stable.example.com/v1").unwrap(), v1);
        assert!(convert(&v1, "stable.example.com/v1").is_err());
    }
}
