//! Decoding, defaults and validation against the answers of a real API server (`data/README.md`).

use serde_json::{Value, json};
use std::sync::Arc;
use theater_api::prune::{Duplicates, FieldValidation};
use theater_api::schema::ObjectSchema;
use theater_api::scheme::{self, ResourceInfo};
use theater_api::status::StatusError;

fn resource(gv: &str, kind: &str) -> Arc<ResourceInfo> {
    let (g, v) = theater_api::meta::group_version(gv);
    if let Some(r) = scheme::find_kind(g, v, kind) {
        return r;
    }
    let crd: Value = yaml_serde::from_str(include_str!("data/crd.yaml")).unwrap();
    scheme::from_crd(&crd)
        .into_iter()
        .find(|r| r.kind == kind)
        .expect("the probe CRD has the kind")
}

/// What the server's strategies and admission add, which is not this crate's part.
fn mask(o: &mut Value) {
    let kind = o["kind"].as_str().unwrap_or("").to_string();
    if let Some(m) = o["metadata"].as_object_mut() {
        m.shift_remove("creationTimestamp");
        m.shift_remove("namespace");
        if kind == "Namespace" || kind == "Job" {
            m.shift_remove("labels");
        }
        if kind.starts_with("PersistentVolume") {
            m.shift_remove("finalizers");
        }
    }
    if let Some(m) = o.as_object_mut()
        && kind != "Node"
    {
        m.shift_remove("status");
    }
    if kind == "Namespace" || kind == "Node" {
        o.as_object_mut().unwrap().shift_remove("spec");
    }
    if let Some(spec) = o["spec"].as_object_mut() {
        match kind.as_str() {
            "Pod" => {
                for k in [
                    "tolerations",
                    "priority",
                    "preemptionPolicy",
                    "serviceAccount",
                    "serviceAccountName",
                ] {
                    spec.shift_remove(k);
                }
            }
            "Job" => {
                spec.shift_remove("selector");
                spec["template"]["metadata"]
                    .as_object_mut()
                    .unwrap()
                    .shift_remove("labels");
            }
            "CertificateSigningRequest" => {
                for k in ["username", "groups", "extra"] {
                    spec.shift_remove(k);
                }
            }
            "Service" => {
                // What the allocator gives.
                for k in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                    spec.shift_remove(k);
                }
            }
            _ => {}
        }
    }
}

/// What the API server does to a new object between the wire and storage, as far as this crate has a part in it.
fn create(
    r: &ResourceInfo,
    schema: &ObjectSchema,
    input: &Value,
) -> Result<(Value, Vec<String>), StatusError> {
    let mut o = input.clone();
    let warnings = theater_api::prune::decode(
        schema,
        &mut o,
        &Duplicates::default(),
        FieldValidation::Warn,
    )?;
    if r.namespaced {
        theater_api::meta::set(&mut o, "namespace", "probe");
    }
    theater_api::defaults::apply(schema, &mut o);
    let errors = theater_api::validate::create(r, schema, &o);
    if errors.is_empty() {
        return Ok((o, warnings));
    }
    Err(StatusError::invalid(
        &r.group,
        &r.kind,
        theater_api::meta::name(&o),
        &errors,
    ))
}

/// Whole Go structs, some with addresses of pointers, are not repeated: such values are compared without the value.
fn without_go_dump(message: &str) -> String {
    for start in [
        "core.PodTemplateSpec{",
        "flowcontrol.FlowSchemaSpec{",
        "flowcontrol.PriorityLevelConfigurationSpec{",
        "core.SecurityContext{",
        "[]apiextensions.",
        "[]v1.OwnerReference{",
        "map[",
        "{",
        "[",
    ] {
        if message
            .strip_prefix("Invalid value: ")
            .is_some_and(|rest| rest.starts_with(start))
        {
            return format!(
                "Invalid value: ...: {}",
                message.rsplit(": ").next().unwrap_or("")
            );
        }
    }
    message.to_string()
}

/// Texts with their parts in order: Go's map order makes that of some errors random.
fn sorted_causes(status: &Value) -> Vec<String> {
    let mut out: Vec<String> = status["details"]["causes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| {
            format!(
                "{} {}: {}",
                c["reason"].as_str().unwrap_or(""),
                c["field"].as_str().unwrap_or(""),
                without_go_dump(c["message"].as_str().unwrap_or(""))
            )
        })
        .collect();
    out.sort();
    out
}

/// Cases whose answer comes from a part that is not this crate's: why.
const ELSEWHERE: &[(&str, &str)] = &[
    ("name-generate-bad", "the generated name is random"),
    ("service-mixed", "node ports are allocated elsewhere"),
];

#[test]
fn objects_are_answered_as_the_real_server_answers() {
    let mut cases: Vec<Value> = serde_json::from_str(include_str!("data/create.json")).unwrap();
    let later: Vec<Value> = serde_json::from_str(include_str!("data/kinds.json")).unwrap();
    cases.extend(later);
    let only = std::env::var("CASE").ok();
    let mut failures = Vec::new();
    for case in &cases {
        let name = case["case"].as_str().unwrap();
        if ELSEWHERE.iter().any(|(c, _)| *c == name) || only.as_deref().is_some_and(|o| o != name) {
            continue;
        }
        let input = &case["input"];
        let r = resource(
            input["apiVersion"].as_str().unwrap(),
            input["kind"].as_str().unwrap(),
        );
        let schema = ObjectSchema::of(&r).unwrap();
        let want = if case["status"].is_object() {
            let s = &case["status"];
            json!({"code": s["code"], "causes": sorted_causes(s), "message": if s["code"] == 422 { Value::Null } else { s["message"].clone() }})
        } else {
            let mut o = case["object"].clone();
            mask(&mut o);
            o
        };
        let got = match create(&r, &schema, input) {
            Ok((mut o, _)) => {
                mask(&mut o);
                o
            }
            Err(e) => {
                let s = e.to_value();
                json!({"code": s["code"], "causes": sorted_causes(&s), "message": if s["code"] == 422 { Value::Null } else { s["message"].clone() }})
            }
        };
        if got != want {
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
