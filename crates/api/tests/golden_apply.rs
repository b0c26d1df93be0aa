//! Server-side apply against the answers of a real API server (`data/README.md`).

use serde_json::Value;
use theater_api::patch::{self, Writer};
use theater_api::schema::ObjectSchema;
use theater_api::scheme;

fn masked(o: &Value) -> Value {
    let mut o = o.clone();
    for key in [
        "uid",
        "creationTimestamp",
        "resourceVersion",
        "generation",
        "namespace",
    ] {
        theater_api::meta::unset(&mut o, key);
    }
    if let Some(m) = o.as_object_mut() {
        m.shift_remove("status");
    }
    if o["kind"] == "Service" {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            o["spec"].as_object_mut().unwrap().shift_remove(key);
        }
    }
    for e in o["metadata"]["managedFields"]
        .as_array_mut()
        .into_iter()
        .flatten()
    {
        e.as_object_mut().unwrap().shift_remove("time");
    }
    // The order of entries depends on times.
    if let Some(l) = o["metadata"]["managedFields"].as_array_mut() {
        l.sort_by_key(|e| e.to_string());
    }
    o
}

#[test]
fn applies_are_answered_as_the_real_server_answers() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("data/apply.json")).unwrap();
    let mut failures = Vec::new();
    for case in &cases {
        for (i, step) in case["steps"].as_array().unwrap().iter().enumerate() {
            let s = &step["step"];
            if s.get("o").is_none() {
                continue;
            }
            let applied = &s["o"];
            let (g, v) = theater_api::meta::group_version(theater_api::meta::api_version(applied));
            let kind = theater_api::meta::kind(applied);
            let r = scheme::find_kind(g, v, kind).unwrap_or_else(|| {
                let crd: Value = yaml_serde::from_str(include_str!("data/crd.yaml")).unwrap();
                scheme::from_crd(&crd).remove(0)
            });
            let schema = ObjectSchema::of(&r).unwrap();
            let live = step["live"].is_object().then_some(&step["live"]);
            let writer = Writer {
                manager: s["a"].as_str().unwrap(),
                subresource: "",
                now: "2030-01-01T00:00:00Z",
            };
            let (want, got) = match patch::apply(&schema, live, applied, writer, s["f"] == true) {
                Ok(mut o) => {
                    theater_api::defaults::apply(&schema, &mut o);
                    (masked(&step["answer"]), masked(&o))
                }
                Err(e) => (step["answer"].clone(), e.to_value()),
            };
            if want != got {
                failures.push(format!(
                    "{} step {i}\n  want {want}\n  got  {got}",
                    case["case"]
                ));
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} steps differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
}
