//! Server-side printing against the tables of a real API server (`data/README.md`).

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};
use theater_api::scheme::{self, ResourceInfo};
use theater_api::table::{self, Cells, IncludeObject, Source};
use theater_api::time::Time;

struct Row {
    object: Arc<Value>,
    text: String,
    metadata: String,
    kept: OnceLock<Option<Arc<Cells>>>,
}

impl Row {
    fn new(object: &Value) -> Self {
        Self {
            object: Arc::new(object.clone()),
            text: object.to_string(),
            metadata: object["metadata"].to_string(),
            kept: OnceLock::new(),
        }
    }
}

impl Source for Row {
    fn object(&self) -> Arc<Value> {
        self.object.clone()
    }
    fn text(&self) -> &[u8] {
        self.text.as_bytes()
    }
    fn metadata(&self) -> &[u8] {
        self.metadata.as_bytes()
    }
    fn kept(&self) -> &OnceLock<Option<Arc<Cells>>> {
        &self.kept
    }
}

/// The table of these objects; made twice, the second time from what has been kept of the first.
fn table(
    r: &Arc<ResourceInfo>,
    objects: &[&Value],
    include: IncludeObject,
    columns: bool,
    now: Time,
) -> Value {
    let rows: Vec<Row> = objects.iter().map(|o| Row::new(o)).collect();
    let rows: Vec<&dyn Source> = rows.iter().map(|row| row as &dyn Source).collect();
    let print = |at| table::table(r, &rows, &json!({}), include, columns, at);
    // Another moment than the one of which something is kept.
    print(now - time::Duration::hours(30));
    let kept = print(now);
    let fresh: Vec<Row> = objects.iter().map(|o| Row::new(o)).collect();
    let rows: Vec<&dyn Source> = fresh.iter().map(|row| row as &dyn Source).collect();
    let text = table::table(r, &rows, &json!({}), include, columns, now);
    assert_eq!(
        String::from_utf8_lossy(&kept),
        String::from_utf8_lossy(&text)
    );
    serde_json::from_slice(&text).unwrap()
}

/// Ages may be a second off: the recorded time has no fractions.
fn close(a: &Value, b: &Value) -> bool {
    let seconds = |v: &Value| -> Option<(String, i64, String)> {
        let s = v.as_str()?;
        let start = s.find(|c: char| c.is_ascii_digit() && s.contains('s'))?;
        let start = s.find('(').map_or(start, |i| i + 1);
        let end = start + s[start..].find(|c: char| !c.is_ascii_digit())?;
        s[end..].starts_with('s').then(|| {
            (
                s[..start].into(),
                s[start..end].parse().unwrap_or(0),
                s[end..].into(),
            )
        })
    };
    a == b
        || matches!((seconds(a), seconds(b)), (Some(a), Some(b)) if a.0 == b.0 && a.2 == b.2 && (a.1 - b.1).abs() <= 1)
}

#[test]
fn tables_are_printed_as_the_real_server_prints_them() {
    let tables: Vec<Value> = serde_json::from_str(include_str!("data/tables.json")).unwrap();
    let mut failures = Vec::new();
    for t in &tables {
        let (g, v) = theater_api::meta::group_version(t["resource"][0].as_str().unwrap());
        let kind = t["resource"][1].as_str().unwrap();
        let r = scheme::find_kind(g, v, kind).unwrap_or_else(|| {
            let crd: Value = yaml_serde::from_str(include_str!("data/crd.yaml")).unwrap();
            scheme::from_crd(&crd).remove(0)
        });
        let now = theater_api::time::parse(t["now"].as_str().unwrap()).unwrap();
        let rows = t["rows"].as_array().unwrap();
        let objects: Vec<&Value> = rows.iter().map(|r| &r["object"]).collect();
        let got = table(&r, &objects, IncludeObject::Object, true, now);
        if got["columnDefinitions"] != t["columns"] {
            failures.push(format!(
                "{kind} columns\n  want {}\n  got  {}",
                t["columns"], got["columnDefinitions"]
            ));
        }
        for (i, want) in rows.iter().enumerate() {
            let row = &got["rows"][i];
            let same = want["cells"]
                .as_array()
                .unwrap()
                .iter()
                .zip(row["cells"].as_array().unwrap())
                .all(|(a, b)| close(a, b));
            if !same
                || want["cells"].as_array().unwrap().len() != row["cells"].as_array().unwrap().len()
                || want.get("conditions") != row.get("conditions")
            {
                failures.push(format!(
                    "{kind}\n  want {}\n  got  {}",
                    want["cells"], row["cells"]
                ));
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} rows differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn rows_carry_what_was_asked_for() {
    let r = scheme::find("", "v1", "configmaps").unwrap();
    let o = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "x"}, "data": {"a": "b"}});
    let now = theater_api::time::parse("2026-01-01T00:00:00Z").unwrap();
    let of = |include| table(&r, &[&o], include, false, now)["rows"][0]["object"].clone();
    assert_eq!(of(IncludeObject::None), Value::Null);
    assert_eq!(of(IncludeObject::Object), o);
    assert_eq!(
        of(IncludeObject::Metadata),
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "x"}})
    );
}
