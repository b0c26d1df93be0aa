//! Whether a proxy has what its control plane would send: the configuration of both, compared by line.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::dump::{Dump, list, text};
use crate::proto_json;

/// Lines shown around a difference.
const CONTEXT: usize = 7;
/// Above this many pairs of lines, one block is shown as replaced instead of looking for the shortest difference.
const MOST_PAIRS: usize = 25_000_000;

/// Takes what is compared out of a dump.
type Section = fn(&Dump) -> Result<Value>;

/// The report of both dumps, each the text of a `/config_dump`.
///
/// # Errors
/// When one cannot be read.
pub fn report(istiod: &[u8], proxy: &[u8]) -> Result<String> {
    let (istiod, proxy) = (Dump::parse(istiod)?, Dump::parse(proxy)?);
    let mut out = String::new();
    let kinds: [(&str, Section); 3] = [
        ("Cluster", clusters),
        ("Listener", listeners),
        ("Route", routes),
    ];
    for (kind, section) in kinds {
        let side = |dump: &Dump| match section(dump) {
            Ok(value) => proto_json::indented(
                &proto_json::camel(&format!("envoy.admin.v3.{kind}sConfigDump"), &value),
                4,
            ),
            Err(error) => error.to_string(),
        };
        let loaded = if kind == "Route" {
            last_loaded(&proxy)
        } else {
            String::new()
        };
        let names = [format!("Istiod {kind}s"), format!("Envoy {kind}s")];
        match unified(&names, &side(&istiod), &side(&proxy)) {
            None => writeln!(out, "{kind}s Match{loaded}")?,
            Some(difference) => writeln!(out, "{kind}s Don't Match{loaded}\n{difference}")?,
        }
    }
    Ok(out)
}

/// Without what differs from one push to the next.
fn without_versions(mut entries: Vec<Value>, at: &str) -> Vec<Value> {
    for entry in &mut entries {
        if let Some(state) = entry.pointer_mut(at).and_then(Value::as_object_mut) {
            state.shift_remove("version_info");
            state.shift_remove("last_updated");
        }
    }
    entries
}

fn by_name(mut entries: Vec<Value>, path: &str) -> Vec<Value> {
    entries.sort_by(|a, b| {
        let name = |entry: &Value| {
            entry
                .pointer(path)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        name(a).cmp(&name(b))
    });
    entries
}

fn clusters(dump: &Dump) -> Result<Value> {
    let entries = list(
        dump.section("ClustersConfigDump")?,
        "dynamic_active_clusters",
    )
    .to_vec();
    Ok(json!({"dynamic_active_clusters": by_name(without_versions(entries, ""), "/cluster/name")}))
}

fn listeners(dump: &Dump) -> Result<Value> {
    let mut entries = list(dump.section("ListenersConfigDump")?, "dynamic_listeners").to_vec();
    entries.retain(|entry| entry["active_state"].is_object());
    for entry in &mut entries {
        if let Some(entry) = entry.as_object_mut() {
            entry.shift_remove("draining_state");
            entry.shift_remove("name");
        }
    }
    let entries = by_name(
        without_versions(entries, "/active_state"),
        "/active_state/listener/name",
    );
    Ok(json!({"dynamic_listeners": entries}))
}

fn routes(dump: &Dump) -> Result<Value> {
    let mut entries = list(dump.section("RoutesConfigDump")?, "dynamic_route_configs").to_vec();
    for entry in &mut entries {
        if let Some(Value::Array(hosts)) = entry.pointer_mut("/route_config/virtual_hosts") {
            hosts.sort_by(|a, b| text(a, "name").cmp(text(b, "name")));
        }
    }
    Ok(
        json!({"dynamic_route_configs": by_name(without_versions(entries, ""), "/route_config/name")}),
    )
}

fn last_loaded(proxy: &Dump) -> String {
    let section = proxy.section("RoutesConfigDump").ok();
    let latest = section
        .into_iter()
        .flat_map(|section| list(section, "dynamic_route_configs"))
        .filter_map(|entry| OffsetDateTime::parse(text(entry, "last_updated"), &Rfc3339).ok())
        .max();
    let shape = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] UTC"
    );
    latest
        .and_then(|at| at.format(&shape).ok())
        .map_or_else(String::new, |at| format!(" (RDS last loaded at {at})"))
}

/// The difference in unified form; nothing when there is none.
fn unified(names: &[String; 2], a: &str, b: &str) -> Option<String> {
    if a == b {
        return None;
    }
    let (a, b): (Vec<&str>, Vec<&str>) = (a.lines().collect(), b.lines().collect());
    let script = edits(&a, &b);
    let mut out = format!("--- {}\n+++ {}\n", names[0], names[1]);
    let changed: Vec<usize> = (0..script.len()).filter(|i| script[*i].0 != ' ').collect();
    let mut at = 0;
    while at < changed.len() {
        let start = changed[at].saturating_sub(CONTEXT);
        let mut last = at;
        while last + 1 < changed.len() && changed[last + 1] - changed[last] <= 2 * CONTEXT {
            last += 1;
        }
        let end = (changed[last] + CONTEXT + 1).min(script.len());
        let count =
            |of: &[(char, &str)], sign: char| of.iter().filter(|(kind, _)| *kind != sign).count();
        let (before, hunk) = (&script[..start], &script[start..end]);
        let _ = writeln!(
            out,
            "@@ -{},{} +{},{} @@",
            count(before, '+') + 1,
            count(hunk, '+'),
            count(before, '-') + 1,
            count(hunk, '-')
        );
        for (sign, line) in hunk {
            let _ = writeln!(out, "{sign}{line}");
        }
        at = last + 1;
    }
    Some(out)
}

/// Each line with what happens to it: kept, removed, added.
fn edits<'a>(a: &[&'a str], b: &[&'a str]) -> Vec<(char, &'a str)> {
    let head = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let rest = a.len().min(b.len()) - head;
    let tail = a
        .iter()
        .rev()
        .zip(b.iter().rev())
        .take(rest)
        .take_while(|(a, b)| a == b)
        .count();
    let (middle_a, middle_b) = (&a[head..a.len() - tail], &b[head..b.len() - tail]);
    let mut script: Vec<(char, &str)> = a[..head].iter().map(|line| (' ', *line)).collect();
    script.extend(middle(middle_a, middle_b));
    script.extend(a[a.len() - tail..].iter().map(|line| (' ', *line)));
    script
}

fn middle<'a>(a: &[&'a str], b: &[&'a str]) -> Vec<(char, &'a str)> {
    let removed = |lines: &[&'a str]| lines.iter().map(|line| ('-', *line)).collect::<Vec<_>>();
    let added = |lines: &[&'a str]| lines.iter().map(|line| ('+', *line)).collect::<Vec<_>>();
    if a.len().saturating_mul(b.len()) > MOST_PAIRS {
        return [removed(a), added(b)].concat();
    }
    // Longest common subsequence from each pair of places to the ends.
    let width = b.len() + 1;
    let mut longest = vec![0_u32; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            longest[i * width + j] = if a[i] == b[j] {
                longest[(i + 1) * width + j + 1] + 1
            } else {
                longest[(i + 1) * width + j].max(longest[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut script = Vec::new();
    while i < a.len() && j < b.len() {
        if a[i] == b[j] {
            script.push((' ', a[i]));
            i += 1;
            j += 1;
        } else if longest[(i + 1) * width + j] >= longest[i * width + j + 1] {
            script.push(('-', a[i]));
            i += 1;
        } else {
            script.push(('+', b[j]));
            j += 1;
        }
    }
    script.extend(removed(&a[i..]));
    script.extend(added(&b[j..]));
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_versions_are_no_difference() {
        let dump = |clusters: Value| {
            json!({"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
            "dynamic_active_clusters": clusters}]})
            .to_string()
            .into_bytes()
        };
        let cluster = |name: &str, version: &str| {
            json!({"version_info": version, "cluster":
            {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": name}})
        };
        let a = dump(json!([cluster("a", "1"), cluster("b", "1")]));
        let b = dump(json!([cluster("b", "7"), cluster("a", "7")]));
        assert!(report(&a, &b).unwrap().starts_with("Clusters Match\n"));
        let c = dump(json!([cluster("c", "7"), cluster("a", "7")]));
        let seen = report(&a, &c).unwrap();
        assert!(seen.contains("-                \"name\": \"b\""), "{seen}");
        assert!(seen.contains("+                \"name\": \"c\""), "{seen}");
    }
}
