//! ConfigMaps, Secrets, Events, Leases, Nodes.

use super::{Errors, immutable, invalid_each, names, nonnegative, text};
use crate::field::{FieldError, key};
use crate::meta;
use base64::Engine;
use serde_json::Value;

/// Total size of the values of a ConfigMap or Secret.
const MAX_SIZE: usize = 1024 * 1024;

fn keys(v: &Value) -> impl Iterator<Item = &String> {
    v.as_object().into_iter().flat_map(|m| m.keys())
}

fn decoded_len(v: &Value) -> usize {
    base64::engine::general_purpose::STANDARD
        .decode(text(v))
        .map_or(0, |b| b.len())
}

/// A ConfigMap.
pub fn config_map(obj: &Value) -> Errors {
    let mut out = Vec::new();
    let mut size = 0;
    for k in keys(&obj["data"]) {
        out.extend(invalid_each(
            &key("data", k),
            &k.as_str().into(),
            names::config_key(k),
        ));
        if obj["binaryData"].get(k).is_some() {
            out.push(FieldError::invalid(
                key("data", k),
                &k.as_str().into(),
                "duplicate of key present in binaryData",
            ));
        }
        size += text(&obj["data"][k]).len();
    }
    for k in keys(&obj["binaryData"]) {
        out.extend(invalid_each(
            &key("binaryData", k),
            &k.as_str().into(),
            names::config_key(k),
        ));
        size += decoded_len(&obj["binaryData"][k]);
    }
    if size > MAX_SIZE {
        out.push(FieldError::too_long("", MAX_SIZE));
    }
    out
}

/// What an immutable ConfigMap refuses.
pub fn config_map_update(obj: &Value, old: &Value) -> Errors {
    frozen(obj, old, &["data", "binaryData"])
}

fn frozen(obj: &Value, old: &Value, fields: &[&str]) -> Errors {
    let mut out = Vec::new();
    if old["immutable"] != true {
        return out;
    }
    let mut refuse = |f: &str| {
        out.push(FieldError::forbidden(
            f,
            "field is immutable when `immutable` is set",
        ))
    };
    if obj["immutable"] != true {
        refuse("immutable");
    }
    fields
        .iter()
        .filter(|f| obj[**f] != old[**f])
        .for_each(|f| refuse(f));
    out
}

/// A Secret.
pub fn secret(obj: &Value) -> Errors {
    let mut out = Vec::new();
    let data = &obj["data"];
    let mut size = 0;
    for k in keys(data) {
        out.extend(invalid_each(
            &key("data", k),
            &k.as_str().into(),
            names::config_key(k),
        ));
        size += decoded_len(&data[k]);
    }
    if size > MAX_SIZE {
        out.push(FieldError::too_long("data", MAX_SIZE));
    }
    let mut required = |k: &str| {
        if data.get(k).is_none() {
            out.push(FieldError::required(key("data", k), ""));
        }
    };
    match text(&obj["type"]) {
        "kubernetes.io/service-account-token" => {
            let name = "kubernetes.io/service-account.name";
            if meta::annotation(obj, name).unwrap_or("").is_empty() {
                out.push(FieldError::required(key("metadata.annotations", name), ""));
            }
        }
        "kubernetes.io/tls" => {
            required("tls.crt");
            required("tls.key");
        }
        "kubernetes.io/dockerconfigjson" => required(".dockerconfigjson"),
        "kubernetes.io/dockercfg" => required(".dockercfg"),
        "kubernetes.io/ssh-auth" => required("ssh-privatekey"),
        "kubernetes.io/basic-auth"
            if data.get("username").is_none() && data.get("password").is_none() =>
        {
            required("username");
            required("password");
        }
        _ => {}
    }
    for k in [".dockerconfigjson", ".dockercfg"] {
        let typed = text(&obj["type"]) == format!("kubernetes.io/{}", &k[1..]);
        if let Some(v) = data.get(k).filter(|_| typed) {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(text(v))
                .unwrap_or_default();
            if let Err(e) = serde_json::from_slice::<Value>(&bytes) {
                let text = String::from_utf8_lossy(&bytes);
                let why = crate::go::json::value(&text, crate::go::json::Extent::Whole).err();
                out.push(FieldError::invalid(
                    key("data", k),
                    &"<secret contents redacted>".into(),
                    why.unwrap_or_else(|| e.to_string()),
                ));
            }
        }
    }
    out
}

/// What a Secret refuses to change.
pub fn secret_update(obj: &Value, old: &Value) -> Errors {
    let mut out: Errors = immutable("type", &obj["type"], &old["type"])
        .into_iter()
        .collect();
    out.extend(frozen(obj, old, &["data"]));
    out
}

/// An Event.
pub fn event(obj: &Value) -> Errors {
    let ns = text(&obj["involvedObject"]["namespace"]);
    let own = meta::namespace(obj);
    let fits = if ns.is_empty() {
        own.is_empty() || own == "default"
    } else {
        ns == own
    };
    if fits {
        return Vec::new();
    }
    vec![FieldError::invalid(
        "involvedObject.namespace",
        &ns.into(),
        "does not match event.namespace",
    )]
}

/// A Lease.
pub fn lease(obj: &Value) -> Errors {
    let spec = &obj["spec"];
    let mut out = Vec::new();
    if spec["leaseDurationSeconds"]
        .as_i64()
        .is_some_and(|n| n <= 0)
    {
        out.push(FieldError::invalid(
            "spec.leaseDurationSeconds",
            &spec["leaseDurationSeconds"],
            "must be greater than 0",
        ));
    }
    out.extend(nonnegative(
        "spec.leaseTransitions".into(),
        &spec["leaseTransitions"],
    ));
    out
}

/// What a Node refuses to change.
pub fn node_update(obj: &Value, old: &Value) -> Errors {
    let mut out = Vec::new();
    let (new, old) = (&obj["spec"], &old["spec"]);
    if old["podCIDRs"].is_array() && new["podCIDRs"] != old["podCIDRs"] {
        out.push(FieldError::forbidden(
            "spec.podCIDRs",
            "node updates may not change podCIDR except from \"\" to valid",
        ));
    }
    if !text(&old["providerID"]).is_empty() && new["providerID"] != old["providerID"] {
        out.push(FieldError::forbidden(
            "spec.providerID",
            "node updates may not change providerID except from \"\" to valid",
        ));
    }
    out
}

/// The phase of a Namespace follows from whether it is being deleted.
pub fn namespace_phase(obj: &Value) -> Option<FieldError> {
    let (right, when) = match obj["metadata"]["deletionTimestamp"].is_null() {
        true => ("Active", "empty"),
        false => ("Terminating", "not empty"),
    };
    let phase = &obj["status"]["phase"];
    (phase != right).then(|| {
        FieldError::invalid(
            "status.Phase",
            &text(phase).into(),
            format!("may only be '{right}' if `deletionTimestamp` is {when}"),
        )
    })
}
