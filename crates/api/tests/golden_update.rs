//! Patches, immutability and managedFields against the answers of a real API server (`data/README.md`).

use serde_json::{Value, json};
use std::sync::Arc;
use theater_api::patch::{self, PatchKind, Writer};
use theater_api::prune::{self, FieldValidation};
use theater_api::schema::ObjectSchema;
use theater_api::scheme::{self, ResourceInfo};
use theater_api::status::StatusError;

fn resource(o: &Value) -> Arc<ResourceInfo> {
    let (g, v) = theater_api::meta::group_version(theater_api::meta::api_version(o));
    let kind = theater_api::meta::kind(o);
    scheme::find_kind(g, v, kind).unwrap_or_else(|| {
        let crd: Value = yaml_serde::from_str(include_str!("data/crd.yaml")).unwrap();
        scheme::from_crd(&crd).remove(0)
    })
}

/// What the API server does with a patch, as far as this crate has a part in it.
fn update(r: &ResourceInfo, schema: &ObjectSchema, case: &Value) -> Result<Value, StatusError> {
    let (old, p) = (&case["old"], &case["patch"]);
    let sub = case["sub"].as_str().unwrap_or("").trim_start_matches('/');
    let kind = PatchKind::from_content_type(case["type"].as_str().unwrap(), schema.builtin)?;
    let mut new = match kind {
        PatchKind::Json => patch::json(old, p)?,
        PatchKind::Merge => patch::merge(old, p),
        PatchKind::Strategic => patch::strategic(schema, old, p)?,
        PatchKind::Apply => unreachable!("update.yaml has no applies"),
    };
    let patched = new.clone();
    prune::decode_patched(
        schema,
        &mut new,
        (kind, p),
        &|| patched.clone(),
        FieldValidation::Warn,
    )?;
    theater_api::defaults::apply(schema, &mut new);
    // The strategies' part: each door writes its own half.
    if r.subresource("status").is_some() {
        if sub == "status" {
            let status = new["status"].clone();
            new = old.clone();
            new["status"] = status;
        } else if old.get("status").is_some() {
            new["status"] = old["status"].clone();
        } else {
            new.as_object_mut().unwrap().shift_remove("status");
        }
    }
    for key in ["generation", "creationTimestamp"] {
        if let Some(v) = old["metadata"].get(key) {
            theater_api::meta::set(&mut new, key, v.clone());
        } else {
            theater_api::meta::unset(&mut new, key);
        }
    }
    let errors =
        theater_api::validate::update(r, schema, &new, old, (!sub.is_empty()).then_some(sub));
    if !errors.is_empty() {
        return Err(StatusError::invalid(
            &r.group,
            &r.kind,
            theater_api::meta::name(old),
            &errors,
        ));
    }
    let writer = Writer {
        manager: "probe",
        subresource: sub,
        now: "2026-01-01T00:00:00Z",
    };
    patch::track_update(schema, Some(old), &mut new, writer);
    // The service registry drops these late.
    if new["spec"]["type"] == "ExternalName" && r.kind == "Service" {
        for key in ["ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            new["spec"].as_object_mut().unwrap().shift_remove(key);
        }
    }
    Ok(new)
}

fn causes(status: &Value) -> Vec<String> {
    let mut out: Vec<String> = status["details"]["causes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| {
            let message = c["message"]
                .as_str()
                .unwrap_or("")
                .lines()
                .next()
                .unwrap_or("");
            // Whole objects and Go structs are not repeated word for word.
            let message = match message.len() {
                0..=300 => message.to_string(),
                _ => format!("...{}", message.rsplit(": ").next().unwrap_or("")),
            };
            let message = if message.contains("(0x") || message.contains(":&") {
                format!("...{}", message.rsplit(": ").next().unwrap_or(""))
            } else {
                message
            };
            format!(
                "{} {}: {message}",
                c["reason"].as_str().unwrap_or(""),
                c["field"].as_str().unwrap_or("")
            )
        })
        .collect();
    out.sort();
    out.dedup();
    out
}

fn managed(v: &Value) -> Vec<(String, String, Value)> {
    let mut out: Vec<(String, String, Value)> = v
        .as_array()
        .into_iter()
        .flatten()
        .map(|e| {
            let id = format!("{} {} {}", e["manager"], e["operation"], e["subresource"]);
            (id, e["apiVersion"].to_string(), e["fieldsV1"].clone())
        })
        .collect();
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

/// Cases whose answer is partly another part's: why.
const ELSEWHERE: &[(&str, &str)] = &[(
    "metadata-times",
    "the registry resets the times before validation, but for the deletion time",
)];

#[test]
fn changes_are_answered_as_the_real_server_answers() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("data/update.json")).unwrap();
    let only = std::env::var("CASE").ok();
    let mut failures = Vec::new();
    for case in &cases {
        let name = case["case"].as_str().unwrap();
        if ELSEWHERE.iter().any(|(c, _)| *c == name) || only.as_deref().is_some_and(|o| o != name) {
            continue;
        }
        let old = &case["old"];
        let r = resource(old);
        let schema = ObjectSchema::of(&r).unwrap();
        let got = update(&r, &schema, case);
        let (want, got) = match got {
            Err(e) => {
                let s = e.to_value();
                // A mistake of the client is never an error of the server here; texts are the same.
                let code = match case["code"].as_u64() {
                    Some(500) => 400,
                    code => code.unwrap_or_default(),
                };
                (
                    json!([code, causes(&case["status"])]),
                    json!([s["code"], causes(&s)]),
                )
            }
            Ok(mut o) => {
                let mut want = case["object"].clone();
                let got_managed = managed(&o["metadata"]["managedFields"]);
                let want_managed = managed(&case["managed"]);
                for m in [&mut o, &mut want] {
                    if let Some(m) = m["metadata"].as_object_mut() {
                        for k in [
                            "uid",
                            "creationTimestamp",
                            "managedFields",
                            "resourceVersion",
                            "generation",
                        ] {
                            m.shift_remove(k);
                        }
                    }
                }
                if want.is_null() {
                    want = case["status"].clone();
                }
                (json!([want, want_managed]), json!([o, got_managed]))
            }
        };
        if want != got {
            failures.push(format!("{name}\n  want {want}\n  got  {got}"));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} cases differ:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}
