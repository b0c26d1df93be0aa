//! `proxy-config bootstrap`.

use anyhow::Result;
use serde_json::Value;

use super::{Format, message};
use crate::dump::{Dump, text};
use crate::table::Table;

const KIND: &str = "BootstrapConfigDump";

/// The versions of Istio, its proxy and Envoy.
///
/// # Errors
/// When the dump has no bootstrap.
pub fn summary(dump: &Dump) -> Result<String> {
    let node = &dump.section(KIND)?["bootstrap"]["node"];
    let metadata = &node["metadata"];
    let mut table = Table::default();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            table.row(&[name, value]);
        }
    };
    line("Istio Version:", text(metadata, "ISTIO_VERSION"));
    let build = text(metadata, "ISTIO_PROXY_SHA");
    line(
        "Istio Proxy Version:",
        build.split(':').nth(1).unwrap_or(build),
    );
    line(
        "Envoy Version:",
        &envoy_version(&node["user_agent_build_version"]),
    );
    Ok(table.render(1))
}

fn envoy_version(build: &Value) -> String {
    let version = &build["version"];
    let number = |field: &str| version[field].as_u64().unwrap_or(0);
    let mut text = format!(
        "{}.{}.{}",
        number("major_number"),
        number("minor_number"),
        number("patch")
    );
    for (field, separator) in [
        ("build.label", '-'),
        ("revision.status", '/'),
        ("build.type", '/'),
        ("ssl.version", '/'),
    ] {
        if let Some(value) = build["metadata"].get(field) {
            text.push(separator);
            text.push_str(value.as_str().unwrap_or_default());
        }
    }
    text
}

/// The bootstrap itself.
///
/// # Errors
/// When the dump has no bootstrap.
pub fn dump(dump: &Dump, format: Format) -> Result<String> {
    Ok(message(
        "envoy.admin.v3.BootstrapConfigDump",
        dump.section(KIND)?,
        format,
        true,
    ))
}
