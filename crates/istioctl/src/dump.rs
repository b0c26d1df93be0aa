//! What a proxy says about itself: `/config_dump`, read through the descriptors of Envoy's messages.

use anyhow::{Result, anyhow, bail};
use serde_json::Value;

const PREFIX: &str = "type.googleapis.com/envoy.admin.v3.";

/// A config dump in canonical protobuf JSON with proto field names, whatever spelling it came in.
#[derive(Debug)]
pub struct Dump {
    sections: Vec<Value>,
}

impl Dump {
    /// Reads the text of a dump.
    ///
    /// # Errors
    /// When it is not JSON or not a config dump.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let wrong = |reason: String| {
            anyhow!("error unmarshalling config dump response from Envoy: proto: {reason}")
        };
        if let Some(reason) = not_json(text) {
            return Err(wrong(reason));
        }
        let value: Value = serde_json::from_slice(text).map_err(|error| {
            wrong(format!(
                "syntax error (line {}:{}): {error}",
                error.line(),
                error.column()
            ))
        })?;
        let message = xds::json::dynamic_from_value("envoy.admin.v3.ConfigDump", &value, false);
        let message = message.map_err(|error| wrong(error.to_string()))?;
        let mut value = xds::json::dynamic_to_value(&message)?;
        let sections = match value["configs"].take() {
            Value::Array(sections) => sections,
            _ => Vec::new(),
        };
        Ok(Self { sections })
    }

    /// The section of a type like `ClustersConfigDump`; the last one, should there be several.
    ///
    /// # Errors
    /// When the dump has none.
    pub fn section(&self, kind: &str) -> Result<&Value> {
        self.sections(kind).last().ok_or_else(|| missing(kind))
    }

    /// The sections of a type.
    pub fn sections(&self, kind: &str) -> impl Iterator<Item = &Value> {
        let wanted = format!("{PREFIX}{kind}");
        self.sections
            .iter()
            .filter(move |section| section["@type"] == wanted.as_str())
    }

    /// The sections of a type, at least one.
    ///
    /// # Errors
    /// When the dump has none.
    pub fn some_sections(&self, kind: &str) -> Result<Vec<&Value>> {
        let sections: Vec<&Value> = self.sections(kind).collect();
        if sections.is_empty() {
            bail!(missing(kind));
        }
        Ok(sections)
    }
}

fn missing(kind: &str) -> anyhow::Error {
    anyhow!("config dump has no configuration type {PREFIX}{kind}")
}

/// Why bytes cannot be JSON, judged by their beginning, as protobuf's JSON reader says it.
fn not_json(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let blank = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    let start = text.trim_start_matches(blank);
    let Some(first) = start.chars().next() else {
        return Some("syntax error (line 1:1): unexpected token ".to_owned());
    };
    if "{[\"-0123456789tfn".contains(first) {
        return None;
    }
    let skipped = &text[..text.len() - start.len()];
    let line = skipped.matches('\n').count() + 1;
    let column = skipped.len() - skipped.rfind('\n').map_or(0, |at| at + 1) + 1;
    let word = |c: &char| c.is_ascii_alphanumeric() || "-+._".contains(*c);
    let mut token: String = start.chars().take_while(word).take(32).collect();
    if token.is_empty() {
        token.push(first);
    }
    Some(format!(
        "syntax error (line {line}:{column}): invalid value {token}"
    ))
}

/// The entries of a list field; none when it is absent.
pub fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// The text of a field; empty when it is absent.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// A socket address, a pipe or an internal address of Envoy.
pub struct Address<'a>(pub &'a Value);

impl<'a> Address<'a> {
    /// Host and port, if it is a socket address.
    pub fn socket(&self) -> Option<(&'a str, u64)> {
        let socket = &self.0["socket_address"];
        socket.is_object().then(|| {
            (
                text(socket, "address"),
                socket["port_value"].as_u64().unwrap_or(0),
            )
        })
    }

    /// The path, if it is a pipe.
    pub fn pipe(&self) -> Option<&'a str> {
        let pipe = &self.0["pipe"];
        pipe.is_object().then(|| text(pipe, "path"))
    }

    /// `envoy://LISTENER/ENDPOINT`, if it is an internal one.
    pub fn internal(&self) -> Option<String> {
        let internal = &self.0["envoy_internal_address"];
        let listener = internal["server_listener_name"].as_str()?;
        Some(format!(
            "envoy://{listener}/{}",
            text(internal, "endpoint_id")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_dump_is_refused_with_the_place() {
        let reason = |text: &str| {
            let error = Dump::parse(text.as_bytes()).unwrap_err().to_string();
            error.split("proto: ").nth(1).unwrap_or_default().to_owned()
        };
        assert_eq!(reason("# a"), "syntax error (line 1:1): invalid value #");
        assert_eq!(
            reason("\n  abc: 1"),
            "syntax error (line 2:3): invalid value abc"
        );
        assert_eq!(reason(""), "syntax error (line 1:1): unexpected token ");
    }

    #[test]
    fn both_spellings_of_fields_are_read() {
        let dump = Dump::parse(
            br#"{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
            "versionInfo": "7", "static_clusters": []}]}"#,
        )
        .unwrap();
        assert_eq!(
            dump.section("ClustersConfigDump").unwrap()["version_info"],
            "7"
        );
        let error = dump.section("RoutesConfigDump").unwrap_err().to_string();
        assert!(
            error.ends_with("envoy.admin.v3.RoutesConfigDump"),
            "{error}"
        );
    }
}
