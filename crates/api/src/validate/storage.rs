//! Persistent volumes, claims and storage classes.

use super::{Errors, gostring, invalid_each, label_selector, list, names, text};
use crate::field::{FieldError, key};
use crate::quantity::Quantity;
use serde_json::{Map, Value};

const ACCESS_MODES: [&str; 4] = [
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
/// Members of a volume's spec that say where its data is.
pub const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "azureFile",
    "flexVolume",
    "vsphereVolume",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

fn access_modes(path: &str, spec: &Value, out: &mut Errors) {
    let modes = list(&spec["accessModes"]);
    let at = format!("{path}.accessModes");
    for mode in modes {
        if !ACCESS_MODES.contains(&text(mode)) {
            out.push(FieldError::not_supported(at.as_str(), mode, &ACCESS_MODES));
        }
    }
    let single = modes.iter().any(|m| m == "ReadWriteOncePod");
    let others = modes
        .iter()
        .any(|m| m != "ReadWriteOncePod" && ACCESS_MODES.contains(&text(m)));
    if single && others {
        out.push(FieldError::forbidden(
            at,
            "may not use ReadWriteOncePod with other access modes",
        ));
    }
}

fn class_and_mode(path: &str, spec: &Value, out: &mut Errors) {
    let class = &spec["storageClassName"];
    if !text(class).is_empty() {
        out.extend(invalid_each(
            &format!("{path}.storageClassName"),
            class,
            names::dns_subdomain(text(class)),
        ));
    }
    let mode = &spec["volumeMode"];
    if !mode.is_null() && !VOLUME_MODES.contains(&text(mode)) {
        out.push(FieldError::not_supported(
            format!("{path}.volumeMode"),
            mode,
            &VOLUME_MODES,
        ));
    }
}

fn positive(path: String, amount: &Value) -> Option<FieldError> {
    let read = super::policy::quantity(amount)?;
    (read <= Quantity::from_units(0)).then(|| {
        FieldError::invalid_go(
            path,
            crate::field::quote(&read.to_string()),
            "must be greater than zero",
        )
    })
}

/// A PersistentVolumeClaim.
pub fn claim(obj: &Value) -> Errors {
    claim_spec("spec", &obj["spec"])
}

/// What a claim asks for, also in templates.
pub(super) fn claim_spec(path: &str, spec: &Value) -> Errors {
    let mut out = Vec::new();
    if list(&spec["accessModes"]).is_empty() {
        out.push(FieldError::required(
            format!("{path}.accessModes"),
            "at least 1 access mode is required",
        ));
    }
    if spec["selector"].is_object() {
        out.extend(label_selector(
            &format!("{path}.selector"),
            &spec["selector"],
        ));
    }
    access_modes(path, spec, &mut out);
    let amount = &spec["resources"]["requests"]["storage"];
    let at = format!("{path}.resources[storage]");
    if amount.is_null() {
        out.push(FieldError::required(at, ""));
    } else {
        out.extend(positive(at, amount));
    }
    class_and_mode(path, spec, &mut out);
    out
}

/// What may change in a claim: its volume and its class once, its size when it is bound.
pub fn claim_update(obj: &Value, old: &Value) -> Errors {
    let mut out = Vec::new();
    let (mut new_spec, mut old_spec) = (obj["spec"].clone(), old["spec"].clone());
    for once in ["volumeName", "storageClassName"] {
        if old_spec[once].is_null() {
            copy(&mut old_spec, &new_spec, once);
        }
    }
    if obj["status"]["phase"] == "Bound" && new_spec["resources"]["requests"].is_object() {
        let amount = old_spec["resources"]["requests"]["storage"].clone();
        new_spec["resources"]["requests"]["storage"] = amount;
    }
    if new_spec != old_spec {
        out.push(FieldError::forbidden(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        ));
    }
    let size = |spec: &Value| super::policy::quantity(&spec["resources"]["requests"]["storage"]);
    if let (Some(now), Some(before)) = (size(&obj["spec"]), size(&old["spec"]))
        && now < before
    {
        out.push(FieldError::forbidden(
            "spec.resources.requests.storage",
            "field can not be less than status.capacity",
        ));
    }
    out
}

fn copy(to: &mut Value, from: &Value, field: &str) {
    if let (Some(to), Some(value)) = (to.as_object_mut(), from.get(field)) {
        to.insert(field.to_owned(), value.clone());
    }
}

/// A PersistentVolume.
pub fn volume(obj: &Value) -> Errors {
    let spec = &obj["spec"];
    let mut out = Vec::new();
    if list(&spec["accessModes"]).is_empty() {
        out.push(FieldError::required("spec.accessModes", ""));
    }
    access_modes("spec", spec, &mut out);
    let empty = Map::new();
    let capacity = spec["capacity"].as_object().unwrap_or(&empty);
    if capacity.is_empty() {
        out.push(FieldError::required("spec.capacity", ""));
    }
    if capacity.len() != 1 || !capacity.contains_key("storage") {
        let shown: Vec<String> = capacity
            .iter()
            .map(|(k, v)| format!("{}:{}", crate::field::quote(k), gostring::quantity(v)))
            .collect();
        let shown = match shown.is_empty() {
            true => "core.ResourceList(nil)".to_owned(),
            false => format!("core.ResourceList{{{}}}", shown.join(", ")),
        };
        let mut error = FieldError::not_supported("spec.capacity", &Value::Null, &["storage"]);
        error.shown = Some(shown);
        out.push(error);
    }
    for (resource, amount) in capacity {
        out.extend(positive(key("spec.capacity", resource), amount));
    }
    let policy = &spec["persistentVolumeReclaimPolicy"];
    const POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];
    if !text(policy).is_empty() && !POLICIES.contains(&text(policy)) {
        out.push(FieldError::not_supported(
            "spec.persistentVolumeReclaimPolicy",
            policy,
            &POLICIES,
        ));
    }
    let present: Vec<&str> = SOURCES
        .into_iter()
        .filter(|s| spec[*s].is_object())
        .collect();
    match present.split_first() {
        None => out.push(FieldError::required("spec", "must specify a volume type")),
        Some((first, more)) => {
            if matches!(*first, "hostPath" | "local") {
                let at = format!("spec.{first}.path");
                let path = text(&spec[*first]["path"]);
                if path.is_empty() {
                    out.push(FieldError::required(at, ""));
                } else if path.split('/').any(|part| part == "..") {
                    out.push(FieldError::invalid(
                        at,
                        &path.into(),
                        "must not contain '..'",
                    ));
                }
                if *first == "local" && spec["nodeAffinity"]["required"].is_null() {
                    out.push(FieldError::required(
                        "spec.nodeAffinity",
                        "Local volume requires node affinity",
                    ));
                }
            }
            out.extend(more.iter().map(|s| {
                FieldError::forbidden(
                    format!("spec.{s}"),
                    "may not specify more than 1 volume type",
                )
            }));
        }
    }
    let required = &spec["nodeAffinity"]["required"];
    out.extend(super::pod::node_selector(
        "spec.nodeAffinity.required",
        required,
    ));
    class_and_mode("spec", spec, &mut out);
    out
}

/// What may not change in a volume.
pub fn volume_update(obj: &Value, old: &Value) -> Errors {
    let mut out = Vec::new();
    let (new, old) = (&obj["spec"], &old["spec"]);
    if SOURCES.iter().any(|s| new[*s] != old[*s]) {
        out.push(FieldError::forbidden(
            "spec.persistentvolumesource",
            "spec.persistentvolumesource is immutable after creation",
        ));
    }
    out.extend(super::immutable(
        "volumeMode",
        &new["volumeMode"],
        &old["volumeMode"],
    ));
    if !old["nodeAffinity"].is_null() {
        out.extend(super::immutable(
            "nodeAffinity",
            &new["nodeAffinity"],
            &old["nodeAffinity"],
        ));
    }
    out
}

/// A StorageClass.
pub fn class(obj: &Value) -> Errors {
    let mut out = Vec::new();
    let provisioner = &obj["provisioner"];
    if text(provisioner).is_empty() {
        out.push(FieldError::required("provisioner", ""));
    } else {
        let lower = text(provisioner).to_lowercase();
        out.extend(invalid_each(
            "provisioner",
            &lower.as_str().into(),
            names::qualified_name(&lower),
        ));
    }
    for (field, allowed) in [
        ("reclaimPolicy", ["Delete", "Retain"]),
        ("volumeBindingMode", ["Immediate", "WaitForFirstConsumer"]),
    ] {
        if !text(&obj[field]).is_empty() && !allowed.contains(&text(&obj[field])) {
            out.push(FieldError::not_supported(field, &obj[field], &allowed));
        }
    }
    out
}

/// What may not change in a class.
pub fn class_update(obj: &Value, old: &Value) -> Errors {
    let mut out: Errors = ["parameters", "provisioner", "reclaimPolicy"]
        .into_iter()
        .filter(|field| obj[*field] != old[*field])
        .map(|field| FieldError::forbidden(field, format!("updates to {field} are forbidden.")))
        .collect();
    out.extend(super::immutable(
        "volumeBindingMode",
        &obj["volumeBindingMode"],
        &old["volumeBindingMode"],
    ));
    out
}
