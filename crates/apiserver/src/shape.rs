//! Objects in the form the client asked for.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::convert;
use crate::http_types::{Answer, bytes_answer};
use crate::machinery;
use crate::negotiate::{Encoding, Form, Shape};
use crate::registry::Resource;
use crate::storage::Stored;

/// The stored object in the resource's version.
pub(crate) fn value_of(resource: &Resource, stored: &Stored) -> Value {
    convert::shown(resource, &stored.value).unwrap_or_else(|| (*stored.value).clone())
}

/// Its JSON, without building it anew where that is not needed.
pub(crate) fn bytes_of(resource: &Resource, stored: &Stored) -> Bytes {
    match convert::shown(resource, &stored.value) {
        None => stored.bytes.clone(),
        Some(copy) => copy.to_string().into(),
    }
}

/// `PartialObjectMetadata` of an object.
pub(crate) fn metadata_only(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

fn encode(encoding: Encoding, code: StatusCode, value: &Value) -> Answer {
    match encoding {
        Encoding::Json => {
            let mut text = value.to_string();
            text.push('\n');
            bytes_answer(code, "application/json", text)
        }
        Encoding::Yaml => {
            let text = yaml_serde::to_string(value).unwrap_or_else(|_| value.to_string());
            bytes_answer(code, "application/yaml", text)
        }
    }
}

/// An answer with one object.
pub(crate) fn object(
    resource: &Resource,
    form: Form,
    include: &str,
    code: StatusCode,
    value: &Value,
) -> Answer {
    match form.shape {
        Shape::Plain => encode(form.encoding, code, value),
        Shape::Metadata => encode(form.encoding, code, &metadata_only(value)),
        Shape::Table => {
            let metadata = machinery::table_metadata(value);
            let table = machinery::table(resource, &[value], metadata, include, true);
            encode(form.encoding, code, &table)
        }
    }
}

/// A page of a collection.
pub(crate) struct Page<'a> {
    pub resource: &'a Resource,
    pub items: Vec<std::sync::Arc<Stored>>,
    pub revision: u64,
    pub continue_token: String,
    pub remaining: Option<usize>,
}

impl Page<'_> {
    fn list_meta(&self) -> Value {
        let mut meta = json!({"resourceVersion": self.revision.to_string()});
        if !self.continue_token.is_empty() {
            meta["continue"] = self.continue_token.clone().into();
            if let Some(n) = self.remaining {
                meta["remainingItemCount"] = n.into();
            }
        }
        meta
    }

    /// The answer; plain lists are put together from bytes that exist already.
    pub fn answer(&self, form: Form, include: &str) -> Answer {
        let resource = self.resource;
        match form.shape {
            Shape::Plain if form.encoding == Encoding::Json => {
                let size: usize = self.items.iter().map(|i| i.bytes.len() + 1).sum();
                let mut out = Vec::with_capacity(size + 256);
                let head = format!(
                    "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
                    resource.list_kind,
                    resource.api_version(),
                    self.list_meta()
                );
                out.extend_from_slice(head.as_bytes());
                for (i, item) in self.items.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(&bytes_of(resource, item));
                }
                out.extend_from_slice(b"]}\n");
                bytes_answer(StatusCode::OK, "application/json", out)
            }
            Shape::Plain => {
                let items: Vec<Value> = self.items.iter().map(|i| value_of(resource, i)).collect();
                let list = json!({
                    "kind": resource.list_kind, "apiVersion": resource.api_version(),
                    "metadata": self.list_meta(), "items": items,
                });
                encode(form.encoding, StatusCode::OK, &list)
            }
            Shape::Metadata => {
                let items: Vec<Value> =
                    self.items.iter().map(|i| metadata_only(&i.value)).collect();
                let list = json!({
                    "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                    "metadata": self.list_meta(), "items": items,
                });
                encode(form.encoding, StatusCode::OK, &list)
            }
            Shape::Table => {
                let values: Vec<Value> = self.items.iter().map(|i| value_of(resource, i)).collect();
                let refs: Vec<&Value> = values.iter().collect();
                let table = machinery::table(resource, &refs, self.list_meta(), include, true);
                encode(form.encoding, StatusCode::OK, &table)
            }
        }
    }
}

/// Adds the `Warning` headers of RFC 7234 that kubectl prints.
pub(crate) fn with_warnings(mut answer: Answer, warnings: &[String]) -> Answer {
    for text in warnings {
        let clean: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let quoted = clean.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            answer.headers_mut().append(header::WARNING, value);
        }
    }
    answer
}
