//! Pod specs.

use super::{Errors, container, invalid_each, label_selector, labels, list, names, service, text};
use crate::field::FieldError;
use serde_json::Value;

/// A new pod.
pub fn pod(obj: &Value) -> Errors {
    let mut out = spec("spec", &obj["spec"]);
    for key in ["containers", "initContainers"] {
        for (i, c) in list(&obj["spec"][key]).iter().enumerate() {
            let image = text(&c["image"]);
            if !image.trim().is_empty() && image.trim() != image {
                out.push(FieldError::invalid(
                    format!("spec.{key}[{i}].image"),
                    &c["image"],
                    "must not have leading or trailing whitespace",
                ));
            }
        }
    }
    out
}

fn supported(out: &mut Errors, path: String, v: &Value, allowed: &[&str]) {
    if !v.is_null() && !allowed.contains(&text(v)) {
        out.push(FieldError::not_supported(path, v, allowed));
    }
}

/// A pod spec at a path.
pub fn spec(path: &str, spec: &Value) -> Errors {
    let mut out = Vec::new();
    let at = |k: &str| format!("{path}.{k}");
    let (volume_errors, known) = volumes(&at("volumes"), list(&spec["volumes"]));
    out.extend(volume_errors);
    out.extend(container::containers(path, spec, &known));
    if spec["restartPolicy"].is_null() {
        out.push(FieldError::required(at("restartPolicy"), ""));
    }
    supported(
        &mut out,
        at("restartPolicy"),
        &spec["restartPolicy"],
        &["Always", "OnFailure", "Never"],
    );
    supported(
        &mut out,
        at("dnsPolicy"),
        &spec["dnsPolicy"],
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    if spec["dnsPolicy"] == "None" && list(&spec["dnsConfig"]["nameservers"]).is_empty() {
        let (field, what) = if spec["dnsConfig"].is_object() {
            (
                at("dnsConfig.nameservers"),
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            )
        } else {
            (
                at("dnsConfig"),
                "must provide `dnsConfig` when `dnsPolicy` is None",
            )
        };
        out.push(FieldError::required(field, what));
    }
    for (i, n) in list(&spec["dnsConfig"]["nameservers"]).iter().enumerate() {
        out.extend(service::ip(&at(&format!("dnsConfig.nameservers[{i}]")), n));
    }
    out.extend(labels(&at("nodeSelector"), &spec["nodeSelector"]));
    let security = &spec["securityContext"];
    for key in ["fsGroup", "runAsUser", "runAsGroup"] {
        out.extend(container::user_id(
            at(&format!("securityContext.{key}")),
            &security[key],
        ));
    }
    out.extend(sysctls(
        &at("securityContext.sysctls"),
        &security["sysctls"],
    ));
    out.extend(affinity(&at("affinity"), &spec["affinity"]));
    for (key, check) in [
        (
            "serviceAccountName",
            names::dns_subdomain as fn(&str) -> Vec<String>,
        ),
        ("nodeName", names::dns_subdomain),
        ("priorityClassName", names::dns_subdomain),
        ("hostname", names::dns_label),
        ("subdomain", names::dns_label),
    ] {
        let v = &spec[key];
        if !text(v).is_empty() {
            out.extend(invalid_each(&at(key), v, check(text(v))));
        }
    }
    let deadline = &spec["activeDeadlineSeconds"];
    if deadline
        .as_i64()
        .is_some_and(|n| !(1..=i64::from(i32::MAX)).contains(&n))
    {
        out.push(FieldError::invalid(
            at("activeDeadlineSeconds"),
            deadline,
            "must be between 1 and 2147483647, inclusive",
        ));
    }
    for (i, g) in list(&spec["readinessGates"]).iter().enumerate() {
        let p = at(&format!("readinessGates[{i}].conditionType"));
        out.extend(invalid_each(
            &p,
            &g["conditionType"],
            names::qualified_name(text(&g["conditionType"])),
        ));
    }
    for (i, t) in list(&spec["tolerations"]).iter().enumerate() {
        out.extend(toleration(&at(&format!("tolerations[{i}]")), t));
    }
    for (i, a) in list(&spec["hostAliases"]).iter().enumerate() {
        let p = at(&format!("hostAliases[{i}]"));
        out.extend(service::ip(&format!("{p}.ip"), &a["ip"]));
        for (j, h) in list(&a["hostnames"]).iter().enumerate() {
            out.extend(invalid_each(
                &format!("{p}.hostnames[{j}]"),
                h,
                names::dns_subdomain(text(h)),
            ));
        }
    }
    out.extend(spread(
        &at("topologySpreadConstraints"),
        list(&spec["topologySpreadConstraints"]),
    ));
    out
}

fn spread(path: &str, all: &[Value]) -> Errors {
    let mut out = Vec::new();
    for (i, c) in all.iter().enumerate() {
        let p = format!("{path}[{i}]");
        if c["maxSkew"].as_i64().unwrap_or(0) <= 0 {
            out.push(FieldError::invalid(
                format!("{p}.maxSkew"),
                &c["maxSkew"],
                "must be greater than zero",
            ));
        }
        if text(&c["topologyKey"]).is_empty() {
            out.push(FieldError::required(
                format!("{p}.topologyKey"),
                "can not be empty",
            ));
        }
        supported(
            &mut out,
            format!("{p}.whenUnsatisfiable"),
            &c["whenUnsatisfiable"],
            &["DoNotSchedule", "ScheduleAnyway"],
        );
        out.extend(label_selector(
            &format!("{p}.labelSelector"),
            &c["labelSelector"],
        ));
    }
    out
}

fn toleration(path: &str, t: &Value) -> Errors {
    let mut out = Vec::new();
    let (key, op) = (text(&t["key"]), text(&t["operator"]));
    if !key.is_empty() {
        out.extend(invalid_each(
            &format!("{path}.key"),
            &t["key"],
            names::qualified_name(key),
        ));
    }
    if key.is_empty() && op != "Exists" {
        out.push(FieldError::invalid(
            format!("{path}.operator"),
            &op.into(),
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        ));
    }
    if !t["tolerationSeconds"].is_null() && text(&t["effect"]) != "NoExecute" {
        out.push(FieldError::invalid(
            format!("{path}.effect"),
            &text(&t["effect"]).into(),
            "effect must be 'NoExecute' when `tolerationSeconds` is set",
        ));
    }
    match op {
        "" | "Equal" => out.extend(invalid_each(
            &format!("{path}.operator"),
            &t["value"],
            names::label_value(text(&t["value"])),
        )),
        "Exists" => {
            if !text(&t["value"]).is_empty() {
                out.push(FieldError::invalid(
                    format!("{path}.operator"),
                    &t["value"],
                    "value must be empty when `operator` is 'Exists'",
                ));
            }
        }
        _ => out.push(FieldError::not_supported(
            format!("{path}.operator"),
            &t["operator"],
            &["Equal", "Exists"],
        )),
    }
    if !text(&t["effect"]).is_empty() {
        supported(
            &mut out,
            format!("{path}.effect"),
            &t["effect"],
            &["NoSchedule", "PreferNoSchedule", "NoExecute"],
        );
    }
    out
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn affinity(path: &str, a: &Value) -> Errors {
    let mut out = Vec::new();
    let node = &a["nodeAffinity"];
    let required = format!("{path}.nodeAffinity.{REQUIRED}");
    out.extend(node_selector(&required, &node[REQUIRED]));
    for (i, t) in list(&node[PREFERRED]).iter().enumerate() {
        let p = format!("{path}.nodeAffinity.{PREFERRED}[{i}]");
        out.extend(weight(&p, &t["weight"]));
        out.extend(node_term(&format!("{p}.preference"), &t["preference"]));
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        for (i, t) in list(&a[kind][REQUIRED]).iter().enumerate() {
            out.extend(pod_term(&format!("{path}.{kind}.{REQUIRED}[{i}]"), t));
        }
        for (i, t) in list(&a[kind][PREFERRED]).iter().enumerate() {
            let p = format!("{path}.{kind}.{PREFERRED}[{i}]");
            out.extend(weight(&p, &t["weight"]));
            out.extend(pod_term(
                &format!("{p}.podAffinityTerm"),
                &t["podAffinityTerm"],
            ));
        }
    }
    out
}

/// A selector of nodes, when there is one.
pub(super) fn node_selector(path: &str, selector: &Value) -> Errors {
    if !selector.is_object() {
        return Vec::new();
    }
    let at = format!("{path}.nodeSelectorTerms");
    let terms = list(&selector["nodeSelectorTerms"]);
    let mut out = Vec::new();
    if terms.is_empty() {
        let why = "must have at least one node selector term";
        out.push(FieldError::required(at.as_str(), why));
    }
    for (i, term) in terms.iter().enumerate() {
        out.extend(node_term(&format!("{at}[{i}]"), term));
    }
    out
}

fn weight(path: &str, w: &Value) -> Option<FieldError> {
    (!(1..=100).contains(&w.as_i64().unwrap_or(0)))
        .then(|| FieldError::invalid(format!("{path}.weight"), w, "must be in the range 1-100"))
}

fn node_term(path: &str, t: &Value) -> Errors {
    let mut out = Vec::new();
    for (i, e) in list(&t["matchExpressions"]).iter().enumerate() {
        let p = format!("{path}.matchExpressions[{i}]");
        let values = list(&e["values"]);
        match text(&e["operator"]) {
            "In" | "NotIn" => {
                if values.is_empty() {
                    out.push(FieldError::required(
                        format!("{p}.values"),
                        "must be specified when `operator` is 'In' or 'NotIn'",
                    ));
                }
            }
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    out.push(FieldError::forbidden(
                        format!("{p}.values"),
                        "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                    ));
                }
            }
            "Gt" | "Lt" => {
                if values.len() != 1 {
                    out.push(FieldError::required(
                        format!("{p}.values"),
                        "must be specified single value when `operator` is 'Lt' or 'Gt'",
                    ));
                }
            }
            other => out.push(FieldError::invalid(
                format!("{p}.operator"),
                &other.into(),
                "not a valid selector operator",
            )),
        }
        out.extend(invalid_each(
            &format!("{p}.key"),
            &e["key"],
            names::qualified_name(text(&e["key"])),
        ));
    }
    out
}

fn pod_term(path: &str, t: &Value) -> Errors {
    let mut out = label_selector(&format!("{path}.labelSelector"), &t["labelSelector"]);
    let key = text(&t["topologyKey"]);
    let p = format!("{path}.topologyKey");
    if key.is_empty() {
        out.push(FieldError::required(p.clone(), "can not be empty"));
    }
    out.extend(invalid_each(&p, &key.into(), names::qualified_name(key)));
    out
}

/// Kinds of volumes, in the order in which a second one is found.
const VOLUME_KINDS: &[&str] = &[
    "emptyDir",
    "hostPath",
    "secret",
    "nfs",
    "persistentVolumeClaim",
    "downwardAPI",
    "configMap",
    "projected",
    "ephemeral",
    "csi",
];

/// Errors of volumes, and the names of the good ones.
fn volumes<'a>(path: &str, all: &'a [Value]) -> (Errors, Vec<&'a str>) {
    let mut out = Vec::new();
    let mut known: Vec<&str> = Vec::new();
    for (i, v) in all.iter().enumerate() {
        let p = format!("{path}[{i}]");
        let name = text(&v["name"]);
        let mut errors: Errors = Vec::new();
        if name.is_empty() {
            errors.push(FieldError::required(format!("{p}.name"), ""));
        } else {
            errors.extend(invalid_each(
                &format!("{p}.name"),
                &v["name"],
                names::dns_label(name),
            ));
        }
        if known.contains(&name) {
            errors.push(FieldError::duplicate(format!("{p}.name"), &v["name"]));
        }
        errors.extend(volume_source(&p, v));
        if errors.is_empty() {
            known.push(name);
        }
        out.extend(errors);
    }
    (out, known)
}

fn volume_source(path: &str, v: &Value) -> Errors {
    let mut out = Vec::new();
    let mut found = false;
    for kind in VOLUME_KINDS {
        let source = &v[*kind];
        if source.is_null() {
            continue;
        }
        if found {
            out.push(FieldError::forbidden(
                format!("{path}.{kind}"),
                "may not specify more than 1 volume type",
            ));
            continue;
        }
        found = true;
        let required = match *kind {
            "secret" => "secretName",
            "configMap" => "name",
            "hostPath" => "path",
            "persistentVolumeClaim" => "claimName",
            "downwardAPI" => {
                out.extend(downward_files(&format!("{path}.downwardAPI"), source));
                continue;
            }
            "projected" => {
                out.extend(projected(&format!("{path}.projected"), source));
                continue;
            }
            _ => continue,
        };
        if text(&source[required]).is_empty() {
            out.push(FieldError::required(
                format!("{path}.{kind}.{required}"),
                "",
            ));
        }
    }
    out
}

fn projected(path: &str, source: &Value) -> Errors {
    let mut out = Vec::new();
    for (i, s) in list(&source["sources"]).iter().enumerate() {
        let p = format!("{path}.sources[{i}]");
        for (kind, key) in [("secret", "name"), ("configMap", "name")] {
            if s[kind].is_object() && text(&s[kind][key]).is_empty() {
                out.push(FieldError::required(format!("{p}.{kind}.{key}"), ""));
            }
        }
        out.extend(downward_files(
            &format!("{p}.downwardAPI"),
            &s["downwardAPI"],
        ));
        let token = &s["serviceAccountToken"];
        if token.is_object() {
            let seconds = &token["expirationSeconds"];
            let field = format!("{p}.serviceAccountToken.expirationSeconds");
            if seconds.as_i64().is_some_and(|n| n < 600) {
                out.push(FieldError::invalid(
                    field,
                    seconds,
                    "may not specify a duration less than 10 minutes",
                ));
            } else if seconds.as_i64().is_some_and(|n| n > 1 << 32) {
                out.push(FieldError::invalid(
                    field,
                    seconds,
                    "may not specify a duration larger than 2^32 seconds",
                ));
            }
            if text(&token["path"]).is_empty() {
                out.push(FieldError::required(format!("{path}.path"), ""));
            }
        }
    }
    out
}

/// The files of a downward API volume. Which of them it is, the real server does not say.
fn downward_files(path: &str, source: &Value) -> Errors {
    let mut out = Vec::new();
    for file in list(&source["items"]) {
        let at = format!("{path}.path");
        match text(&file["path"]) {
            "" => out.push(FieldError::required(at, "")),
            name if name.starts_with('/') => {
                let why = "must be a relative path";
                out.push(FieldError::invalid(at, &file["path"], why));
            }
            name if name.split('/').any(|part| part == "..") => {
                out.push(FieldError::invalid(
                    at,
                    &file["path"],
                    "must not contain '..'",
                ));
            }
            _ => {}
        }
        let (field, resource) = (&file["fieldRef"], &file["resourceFieldRef"]);
        if field.is_object() {
            let at = format!("{path}.fieldRef.fieldPath");
            out.extend(container::field_path(&at, &field["fieldPath"], true));
            if resource.is_object() {
                let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                out.push(FieldError::invalid(path, &"resource".into(), why));
            }
        } else if resource.is_object() {
            let at = format!("{path}.resourceFieldRef");
            if text(&resource["containerName"]).is_empty() {
                out.push(FieldError::required(format!("{at}.containerName"), ""));
            }
            out.extend(container::resource_field(&at, resource));
        } else {
            let why = "one of fieldRef and resourceFieldRef is required";
            out.push(FieldError::required(path, why));
        }
    }
    out
}

/// Kernel parameters: named, once, in words separated by dots or slashes.
fn sysctls(path: &str, sysctls: &Value) -> Errors {
    const WORD: &str = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
    let is_word = |word: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        word.starts_with(inner)
            && word.ends_with(inner)
            && word.chars().all(|c| inner(c) || c == '-' || c == '_')
    };
    let mut out = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for (i, s) in list(sysctls).iter().enumerate() {
        let at = format!("{path}[{i}].name");
        let name = text(&s["name"]);
        if name.is_empty() {
            out.push(FieldError::required(at, ""));
        } else if name.len() > 253 || !name.split(['.', '/']).all(is_word) {
            out.push(FieldError::invalid(
                at,
                &s["name"],
                format!("must have at most 253 characters and match regex ^({WORD}[\\./])*{WORD}$"),
            ));
        } else if seen.contains(&name) {
            out.push(FieldError::duplicate(at, &s["name"]));
        }
        seen.push(name);
    }
    out
}

#[cfg(test)]
mod sysctl_tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_of_kernel_parameters() {
        let found: Vec<String> = sysctls(
            "s",
            &json!([{"name": "kernel.shm_rmid_forced"}, {"name": "foo-"}, {"name": "bar.."}, {"name": "net/ipv4/x"}, {"name": "kernel.shm_rmid_forced"}]),
        )
        .iter()
        .map(FieldError::to_string)
        .collect();
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(
            found[0],
            "s[1].name: Invalid value: \"foo-\": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
        );
        assert_eq!(
            found[2],
            "s[4].name: Duplicate value: \"kernel.shm_rmid_forced\""
        );
    }
}
