//! Objects in the form the client asked for.

use std::sync::Arc;

use api::table::Source;
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
pub(crate) fn value_of(resource: &Resource, stored: &Stored) -> Arc<Value> {
    converted(resource, stored).map_or_else(|| stored.shared(), Arc::new)
}

/// The object in the resource's version; `None`: as it is stored.
fn converted(resource: &Resource, stored: &Stored) -> Option<Value> {
    if convert::keeps(resource) {
        return None;
    }
    convert::shown(resource, &stored.glance())
}

/// Whether a filter lets a stored object through: its fields are those of the version that is shown.
pub(crate) fn passes(
    filter: &machinery::Filter,
    resource: &Resource,
    stored: &Arc<Stored>,
) -> bool {
    if crate::conversion::of(resource).is_some() && !filter.is_empty() {
        return filter.matches(&value_of(resource, stored));
    }
    filter.is_empty() || filter.matches(&stored.glance())
}

/// The same with its text, which is not built anew where that is not needed.
pub(crate) fn shown(resource: &Resource, stored: &Arc<Stored>) -> Arc<Stored> {
    match converted(resource, stored) {
        None => stored.clone(),
        Some(copy) => Arc::new(Stored::of(copy, stored.revision)),
    }
}

/// `PartialObjectMetadata` of an object.
fn put_metadata(out: &mut Vec<u8>, object: &Stored) {
    out.extend_from_slice(
        br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#,
    );
    out.extend_from_slice(object.metadata());
    out.push(b'}');
}

/// An object of a list: what all of a built-in kind's have in common, `kind` and `apiVersion`, is said once, by the list.
fn put_item(out: &mut Vec<u8>, resource: &Resource, object: &Stored) {
    if resource.info.crd.is_none() {
        out.push(b'{');
        out.extend_from_slice(object.without_type());
    } else {
        out.extend_from_slice(&object.bytes);
    }
}

/// One object in a shape, as JSON. `columns`: a table says what its columns are.
pub(crate) fn text(
    resource: &Resource,
    shape: Shape,
    include: &str,
    columns: bool,
    object: &Stored,
) -> Bytes {
    match shape {
        Shape::Plain => object.bytes.clone(),
        Shape::Metadata => {
            let mut out = Vec::with_capacity(object.metadata().len() + 128);
            put_metadata(&mut out, object);
            out.into()
        }
        Shape::Table => {
            // What is not stored, the answer of a dry run, has no revision of the store.
            let version = match object.revision {
                0 => api::meta::resource_version(&object.glance()).to_owned(),
                revision => revision.to_string(),
            };
            let metadata = json!({"resourceVersion": version});
            machinery::table(resource, &[object], &metadata, include, columns).into()
        }
    }
}

fn encode(encoding: Encoding, code: StatusCode, text: &[u8]) -> Answer {
    if encoding == Encoding::Yaml
        && let Ok(yaml) = serde_json::from_slice::<Value>(text).map(|v| yaml_serde::to_string(&v))
        && let Ok(yaml) = yaml
    {
        return bytes_answer(code, "application/yaml", yaml);
    }
    let mut line = Vec::with_capacity(text.len() + 1);
    line.extend_from_slice(text);
    line.push(b'\n');
    bytes_answer(code, "application/json", line)
}

/// An answer with one object.
pub(crate) fn object(
    resource: &Resource,
    form: Form,
    include: &str,
    code: StatusCode,
    object: &Stored,
) -> Answer {
    let text = text(resource, form.shape, include, true, object);
    encode(form.encoding, code, &text)
}

/// A page of a collection.
pub(crate) struct Page<'a> {
    pub resource: &'a Resource,
    pub items: Vec<Arc<Stored>>,
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

    /// The answer, put together from texts that exist already.
    pub fn answer(&self, form: Form, include: &str) -> Answer {
        let resource = self.resource;
        let mut out;
        if form.shape == Shape::Table {
            let mut items: Vec<Arc<Stored>> =
                self.items.iter().map(|i| shown(resource, i)).collect();
            if resource.is(api::flowcontrol::GROUP, "flowschemas") {
                // People see them in the order in which they are tried.
                items.sort_by_key(|i| i.value()["spec"]["matchingPrecedence"].as_i64());
            }
            let rows: Vec<&dyn Source> = items.iter().map(|i| &**i as &dyn Source).collect();
            out = machinery::table(resource, &rows, &self.list_meta(), include, true);
        } else {
            let (kind, version) = match form.shape {
                Shape::Metadata => ("PartialObjectMetadataList", "meta.k8s.io/v1".to_owned()),
                _ => (resource.list_kind.as_str(), resource.api_version()),
            };
            let size: usize = self.items.iter().map(|i| i.bytes.len() + 1).sum();
            out = Vec::with_capacity(size + 256);
            let head = format!(
                "{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{},\"items\":[",
                self.list_meta()
            );
            out.extend_from_slice(head.as_bytes());
            for (i, item) in self.items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                match form.shape {
                    Shape::Metadata => put_metadata(&mut out, item),
                    _ => put_item(&mut out, resource, &shown(resource, item)),
                }
            }
            out.extend_from_slice(b"]}");
        }
        match form.encoding {
            Encoding::Json => {
                out.push(b'\n');
                bytes_answer(StatusCode::OK, "application/json", out)
            }
            Encoding::Yaml => encode(form.encoding, StatusCode::OK, &out),
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
