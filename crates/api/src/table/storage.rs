//! Rows of volumes, claims, their classes and drivers, and of certificate requests.

use super::{age, list, text_or};
use crate::meta;
use crate::quantity::Quantity;
use crate::time::{Time, human_duration};
use serde_json::{Value, json};

/// The cells of an object of one of these kinds; `None` for any other kind.
pub(super) fn cells(kind: &str, o: &Value, now: Time) -> Option<Vec<Value>> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let name: Value = meta::name(o).into();
    let phase = || -> Value {
        match meta::deletion_timestamp(o) {
            Some(_) => "Terminating".into(),
            None => text_or(&status["phase"], "").into(),
        }
    };
    let mode: Value = text_or(&spec["volumeMode"], "<unset>").into();
    let attributes: Value = text_or(&spec["volumeAttributesClassName"], "<unset>").into();
    let flag = |v: &Value, default: bool| -> Value { v.as_bool().unwrap_or(default).into() };
    Some(match kind {
        "PersistentVolume" => {
            let claim = &spec["claimRef"];
            let claimed = match claim.is_object() {
                true => format!(
                    "{}/{}",
                    text_or(&claim["namespace"], ""),
                    text_or(&claim["name"], "")
                ),
                false => String::new(),
            };
            vec![
                name,
                amount(&spec["capacity"]["storage"]).into(),
                modes(&spec["accessModes"]).into(),
                text_or(&spec["persistentVolumeReclaimPolicy"], "").into(),
                phase(),
                claimed.into(),
                class(o).into(),
                attributes,
                text_or(&status["reason"], "").into(),
                age(o, now),
                mode,
            ]
        }
        "PersistentVolumeClaim" => {
            let volume = text_or(&spec["volumeName"], "");
            let (capacity, access) = match volume.is_empty() {
                true => (String::new(), String::new()),
                false => (
                    amount(&status["capacity"]["storage"]),
                    modes(&status["accessModes"]),
                ),
            };
            vec![
                name,
                phase(),
                volume.into(),
                capacity.into(),
                access.into(),
                class(o).into(),
                attributes,
                age(o, now),
                mode,
            ]
        }
        "StorageClass" => {
            let standard = [
                "storageclass.kubernetes.io/is-default-class",
                "storageclass.beta.kubernetes.io/is-default-class",
            ]
            .iter()
            .any(|a| meta::annotation(o, a) == Some("true"));
            let mark = if standard { " (default)" } else { "" };
            vec![
                format!("{}{mark}", meta::name(o)).into(),
                text_or(&o["provisioner"], "").into(),
                text_or(&o["reclaimPolicy"], "Delete").into(),
                text_or(&o["volumeBindingMode"], "Immediate").into(),
                flag(&o["allowVolumeExpansion"], false),
                age(o, now),
            ]
        }
        "CSIDriver" => {
            let tokens = match spec["tokenRequests"].as_array() {
                Some(all) => join(all.iter().map(|t| text_or(&t["audience"], ""))),
                None => "<unset>".to_owned(),
            };
            let lives = join(
                list(&spec["volumeLifecycleModes"])
                    .iter()
                    .filter_map(Value::as_str),
            );
            vec![
                name,
                flag(&spec["attachRequired"], true),
                flag(&spec["podInfoOnMount"], false),
                flag(&spec["storageCapacity"], false),
                tokens.into(),
                flag(&spec["requiresRepublish"], false),
                text_or(&json!(lives), "<none>").into(),
                age(o, now),
            ]
        }
        "CSINode" => vec![name, list(&spec["drivers"]).len().into(), age(o, now)],
        "VolumeAttachment" => vec![
            name,
            text_or(&spec["attacher"], "").into(),
            text_or(&spec["source"]["persistentVolumeName"], "").into(),
            text_or(&spec["nodeName"], "").into(),
            flag(&status["attached"], false),
            age(o, now),
        ],
        "CertificateSigningRequest" => {
            let duration = spec["expirationSeconds"].as_i64().map_or_else(
                || "<none>".to_owned(),
                |n| human_duration(::time::Duration::seconds(n)),
            );
            vec![
                name,
                age(o, now),
                text_or(&spec["signerName"], "<none>").into(),
                text_or(&spec["username"], "").into(),
                duration.into(),
                request_state(status).into(),
            ]
        }
        _ => return None,
    })
}

fn join<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    parts.collect::<Vec<_>>().join(",")
}

fn amount(v: &Value) -> String {
    match v {
        Value::String(s) => Quantity::parse(s).map_or_else(|_| s.clone(), |q| q.to_string()),
        Value::Null => "0".to_owned(),
        other => other.to_string(),
    }
}

/// `RWO,ROX`: each mode once, in the order Kubernetes writes them.
fn modes(v: &Value) -> String {
    let has = |mode: &str| list(v).iter().any(|m| m == mode);
    let known = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    join(
        known
            .iter()
            .filter(|(mode, _)| has(mode))
            .map(|(_, short)| *short),
    )
}

fn class(o: &Value) -> &str {
    meta::annotation(o, "volume.beta.kubernetes.io/storage-class")
        .unwrap_or_else(|| text_or(&o["spec"]["storageClassName"], ""))
}

fn request_state(status: &Value) -> String {
    let has = |kind: &str| {
        list(&status["conditions"])
            .iter()
            .any(|c| c["type"] == kind)
    };
    let mut out = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has("Failed") {
        out.push_str(",Failed");
    }
    if !text_or(&status["certificate"], "").is_empty() {
        out.push_str(",Issued");
    }
    out
}
