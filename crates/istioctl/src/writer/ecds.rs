//! `proxy-config ecds`: extensions that are configured on their own.

use anyhow::Result;
use serde_json::{Value, json};

use super::{Format, message};
use crate::dump::{Dump, list, text};
use crate::go_sort;
use crate::table::Table;

const KIND: &str = "EcdsConfigDump";

/// The table.
///
/// # Errors
/// When the dump has no such section.
pub fn summary(dump: &Dump) -> Result<String> {
    let sections = dump.some_sections(KIND)?;
    let mut rows: Vec<(&str, &str)> = sections
        .iter()
        .flat_map(|section| list(section, "ecds_filters"))
        .map(|entry| {
            let extension = &entry["ecds_filter"];
            let url = text(&extension["typed_config"], "@type");
            (
                text(extension, "name"),
                url.trim_start_matches("type.googleapis.com/"),
            )
        })
        .collect();
    go_sort::sort(&mut rows, |a, b| (a.1, a.0) < (b.1, b.0));
    let mut table = Table::new(&["ECDS NAME", "TYPE"]);
    for (name, kind) in rows {
        table.row(&[name, kind]);
    }
    Ok(table.render(5))
}

/// The extensions themselves.
///
/// # Errors
/// When the dump has no such section.
pub fn dump(dump: &Dump, format: Format) -> Result<String> {
    let sections = dump.some_sections(KIND)?;
    let filters: Vec<&Value> = sections
        .iter()
        .flat_map(|section| list(section, "ecds_filters"))
        .collect();
    Ok(message(
        "envoy.admin.v3.EcdsConfigDump",
        &json!({"ecds_filters": filters}),
        format,
        false,
    ))
}
