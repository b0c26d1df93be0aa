//! Tables and dumps of a proxy's configuration, from its admin interface's answers. Pure.

pub mod bootstrap;
pub mod cluster;
pub mod ecds;
pub mod eds;
pub mod endpoint;
pub mod listener;
pub mod names;
pub mod route;
pub mod secret;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::dump::Dump;
use crate::{proto_json, yaml};

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A table.
    Short,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

impl Format {
    /// Reads the value of `--output`.
    ///
    /// # Errors
    /// When there is no such format.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "short" => Self::Short,
            "json" => Self::Json,
            "yaml" => Self::Yaml,
            _ => bail!("output format {text:?} not supported"),
        })
    }
}

/// Messages with an `@type` each, as a JSON or YAML list.
pub fn messages(messages: &[&Value], format: Format) -> String {
    let list: Value = messages
        .iter()
        .map(|message| proto_json::camel_typed(message))
        .collect();
    let json = proto_json::indented_escaped(&list, 4);
    match format {
        Format::Yaml => format!("{}\n", yaml::to_string(&list)),
        _ => format!("{json}\n"),
    }
}

/// One message, as JSON or YAML. Which of Go's protobuf libraries writes the JSON differs between commands.
fn message(kind: &str, value: &Value, format: Format, legacy: bool) -> String {
    let mut plain = value.clone();
    if let Some(object) = plain.as_object_mut() {
        object.shift_remove("@type");
    }
    let value = proto_json::camel(kind, &plain);
    match format {
        Format::Yaml => format!("{}\n", yaml::to_string(&value)),
        _ if legacy => format!("{}\n", proto_json::legacy(kind, &value)),
        _ => format!("{}\n", proto_json::indented(&value, 4)),
    }
}

/// What `all` filters by.
#[derive(Debug, Default, Clone)]
pub struct Filters {
    /// Of clusters.
    pub cluster: cluster::Filter,
    /// Of listeners.
    pub listener: listener::Filter,
    /// Of routes.
    pub route: route::Filter,
    /// Of endpoints.
    pub endpoint: endpoint::Filter,
}

/// Everything in one: `proxy-config all`. What could be made before something was missing is in `out`.
///
/// # Errors
/// When the dump lacks a section.
pub fn full_summary(
    dump: &Dump,
    filters: &Filters,
    with_headers: bool,
    now: time::OffsetDateTime,
    out: &mut String,
) -> Result<()> {
    let header = |out: &mut String, title: &str| {
        if with_headers {
            out.push_str(&format!("------ {title} ------\n\n"));
        }
    };
    header(out, "BOOTSTRAP INFO");
    out.push_str(&bootstrap::summary(dump)?);
    out.push('\n');
    header(out, "CLUSTER INFO");
    out.push_str(&cluster::summary(dump, &filters.cluster, true)?);
    out.push('\n');
    header(out, "LISTENER INFO");
    out.push_str(&listener::summary(dump, &filters.listener, true)?);
    out.push('\n');
    header(out, "ROUTE INFO");
    out.push_str(&route::summary(dump, &filters.route, true)?);
    out.push('\n');
    header(out, "SECRET INFO");
    out.push_str(&secret::summary(dump, true, now)?);
    out.push('\n');
    header(out, "ENDPOINTS INFO");
    out.push_str(&eds::summary(dump, &filters.endpoint, true));
    Ok(())
}
