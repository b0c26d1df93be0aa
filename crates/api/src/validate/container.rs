//! Containers.

use super::{Errors, invalid_each, list, names, nonnegative, service, text};
use crate::field::FieldError;
use crate::quantity::Quantity;
use serde_json::Value;

/// All containers of a pod spec. `volumes`: the names that may be mounted.
pub fn containers(path: &str, spec: &Value, volumes: &[&str]) -> Errors {
    let mut out = Vec::new();
    let regular = list(&spec["containers"]);
    if regular.is_empty() {
        out.push(FieldError::required(format!("{path}.containers"), ""));
    }
    let host_network = spec["hostNetwork"] == true;
    let grace = spec["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    let mut seen: Vec<&str> = Vec::new();
    for (i, c) in regular.iter().enumerate() {
        let p = format!("{path}.containers[{i}]");
        out.extend(container(&p, c, volumes, host_network));
        unique(&mut out, &p, c, &mut seen);
        if !c["restartPolicy"].is_null() {
            out.push(FieldError::forbidden(
                format!("{p}.restartPolicy"),
                "may not be set for non-init containers",
            ));
        }
        out.extend(probes_and_hooks(&p, c, grace));
    }
    out.extend(host_ports(path, regular));
    for (i, c) in list(&spec["initContainers"]).iter().enumerate() {
        let p = format!("{path}.initContainers[{i}]");
        out.extend(container(&p, c, volumes, host_network));
        unique(&mut out, &p, c, &mut seen);
        let policy = &c["restartPolicy"];
        if !policy.is_null() && *policy != "Always" {
            out.push(FieldError::not_supported(
                format!("{p}.restartPolicy"),
                policy,
                &["Always"],
            ));
        }
        if *policy == "Always" {
            out.extend(probes_and_hooks(&p, c, grace));
        } else {
            for key in [
                "lifecycle",
                "livenessProbe",
                "readinessProbe",
                "startupProbe",
            ] {
                if !c[key].is_null() {
                    out.push(FieldError::forbidden(
                        format!("{p}.{key}"),
                        "may not be set for init containers without restartPolicy=Always",
                    ));
                }
            }
        }
    }
    out
}

fn unique<'a>(out: &mut Errors, path: &str, c: &'a Value, seen: &mut Vec<&'a str>) {
    let name = text(&c["name"]);
    if name.is_empty() {
        return;
    }
    if seen.contains(&name) {
        out.push(FieldError::duplicate(format!("{path}.name"), &c["name"]));
    }
    seen.push(name);
}

fn supported(out: &mut Errors, path: String, v: &Value, allowed: &[&str]) {
    if !v.is_null() && !allowed.contains(&text(v)) {
        out.push(FieldError::not_supported(path, v, allowed));
    }
}

fn container(path: &str, c: &Value, volumes: &[&str], host_network: bool) -> Errors {
    let mut out = Vec::new();
    let name = text(&c["name"]);
    if name.is_empty() {
        out.push(FieldError::required(format!("{path}.name"), ""));
    } else {
        out.extend(invalid_each(
            &format!("{path}.name"),
            &c["name"],
            names::dns_label(name),
        ));
    }
    if text(&c["image"]).is_empty() {
        out.push(FieldError::required(format!("{path}.image"), ""));
    }
    supported(
        &mut out,
        format!("{path}.terminationMessagePolicy"),
        &c["terminationMessagePolicy"],
        &["File", "FallbackToLogsOnError"],
    );
    out.extend(ports(
        &format!("{path}.ports"),
        list(&c["ports"]),
        host_network,
    ));
    out.extend(env(path, c));
    out.extend(mounts(path, c, volumes));
    supported(
        &mut out,
        format!("{path}.imagePullPolicy"),
        &c["imagePullPolicy"],
        &["Always", "IfNotPresent", "Never"],
    );
    out.extend(resources(&format!("{path}.resources"), &c["resources"]));
    let security = &c["securityContext"];
    for key in ["runAsUser", "runAsGroup"] {
        out.extend(user_id(
            format!("{path}.securityContext.{key}"),
            &security[key],
        ));
    }
    if security["allowPrivilegeEscalation"] == false && security["privileged"] == true {
        out.push(FieldError::invalid(
            format!("{path}.securityContext"),
            security,
            "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ));
    }
    out
}

/// A user or group number.
pub fn user_id(path: String, v: &Value) -> Option<FieldError> {
    v.as_i64()
        .filter(|n| !(0..=i64::from(i32::MAX)).contains(n))
        .map(|_| FieldError::invalid(path, v, "must be between 0 and 2147483647, inclusive"))
}

fn ports(path: &str, all: &[Value], host_network: bool) -> Errors {
    let mut out = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for (i, p) in all.iter().enumerate() {
        let at = format!("{path}[{i}]");
        let name = text(&p["name"]);
        if !name.is_empty() {
            let bad = names::port_name(name);
            if bad.is_empty() && seen.contains(&name) {
                out.push(FieldError::duplicate(format!("{at}.name"), &p["name"]));
            } else if bad.is_empty() {
                seen.push(name);
            }
            out.extend(invalid_each(&format!("{at}.name"), &p["name"], bad));
        }
        match p["containerPort"].as_i64().unwrap_or(0) {
            0 => out.push(FieldError::required(format!("{at}.containerPort"), "")),
            n => out.extend(invalid_each(
                &format!("{at}.containerPort"),
                &p["containerPort"],
                names::port_number(n),
            )),
        }
        let host = p["hostPort"].as_i64().unwrap_or(0);
        if host != 0 {
            out.extend(invalid_each(
                &format!("{at}.hostPort"),
                &p["hostPort"],
                names::port_number(host),
            ));
            if host_network && p["hostPort"] != p["containerPort"] {
                out.push(FieldError::invalid(
                    format!("{at}.hostPort"),
                    &p["hostPort"],
                    "must match `containerPort` when `hostNetwork` is true",
                ));
            }
        }
        supported(
            &mut out,
            format!("{at}.protocol"),
            &p["protocol"],
            &["SCTP", "TCP", "UDP"],
        );
    }
    out
}

/// Two containers of a pod cannot have the same port of the host.
fn host_ports(path: &str, all: &[Value]) -> Errors {
    let mut out = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    for (i, c) in all.iter().enumerate() {
        for (j, p) in list(&c["ports"]).iter().enumerate() {
            let host = p["hostPort"].as_i64().unwrap_or(0);
            if host == 0 {
                continue;
            }
            let key = format!("{}/{}/{host}", text(&p["protocol"]), text(&p["hostIP"]));
            if seen.contains(&key) {
                out.push(FieldError::duplicate(
                    format!("{path}.containers[{i}].ports[{j}].hostPort"),
                    &key.as_str().into(),
                ));
            }
            seen.push(key);
        }
    }
    out
}

const RESOURCE_FIELDS: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// Whether the downward API knows the field.
fn field_path_ok(path: &str) -> bool {
    const PLAIN: &[&str] = &[
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "metadata.labels",
        "metadata.annotations",
        "spec.nodeName",
        "spec.serviceAccountName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.hostNetwork",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
        "status.phase",
        "status.nominatedNodeName",
    ];
    PLAIN.contains(&path)
        || ["metadata.labels['", "metadata.annotations['"]
            .iter()
            .any(|p| path.starts_with(p))
            && path.ends_with("']")
}

fn env(path: &str, c: &Value) -> Errors {
    let mut out = Vec::new();
    for (i, e) in list(&c["env"]).iter().enumerate() {
        let at = format!("{path}.env[{i}]");
        let name = text(&e["name"]);
        if name.is_empty() {
            out.push(FieldError::required(format!("{at}.name"), ""));
        } else {
            out.extend(invalid_each(
                &format!("{at}.name"),
                &e["name"],
                names::env_name(name),
            ));
        }
        if e["valueFrom"].is_object() {
            out.extend(value_from(&format!("{at}.valueFrom"), e));
        }
    }
    let all = format!("{path}.envFrom");
    for (i, e) in list(&c["envFrom"]).iter().enumerate() {
        let at = format!("{all}[{i}]");
        let prefix = text(&e["prefix"]);
        if !prefix.is_empty() {
            out.extend(invalid_each(
                &format!("{at}.prefix"),
                &e["prefix"],
                names::env_name(prefix),
            ));
        }
        let sources: Vec<&str> = ["configMapRef", "secretRef"]
            .into_iter()
            .filter(|k| e[*k].is_object())
            .collect();
        for k in &sources {
            let name = text(&e[*k]["name"]);
            if name.is_empty() {
                out.push(FieldError::required(format!("{at}.{k}.name"), ""));
            } else {
                out.extend(invalid_each(
                    &format!("{at}.{k}.name"),
                    &e[*k]["name"],
                    names::dns_subdomain(name),
                ));
            }
        }
        match sources.len() {
            0 => out.push(FieldError::invalid(
                all.as_str(),
                &"".into(),
                "must specify one of: `configMapRef` or `secretRef`",
            )),
            1 => {}
            _ => out.push(FieldError::invalid(
                all.as_str(),
                &"".into(),
                "may not have more than one field specified at a time",
            )),
        }
    }
    out
}

/// Fields of a pod that a file can have.
const FILE_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

/// The field of a pod that a variable, or a file, takes its value from.
pub(super) fn field_path(at: &str, field: &Value, file: bool) -> Option<FieldError> {
    let path = text(field);
    if path.is_empty() {
        return Some(FieldError::required(at, ""));
    }
    if !field_path_ok(path) {
        let why = format!("error converting fieldPath: field label not supported: {path}");
        return Some(FieldError::invalid(at, field, why));
    }
    let unfit = file && !path.contains('[') && !FILE_FIELDS.contains(&path);
    unfit.then(|| FieldError::not_supported(at, field, &FILE_FIELDS))
}

/// The resource of a container that a variable or a file takes its value from.
pub(super) fn resource_field(path: &str, source: &Value) -> Option<FieldError> {
    let resource = text(&source["resource"]);
    let at = format!("{path}.resource");
    if resource.is_empty() {
        return Some(FieldError::required(at, ""));
    }
    let known = RESOURCE_FIELDS.contains(&resource) || resource.contains(".hugepages-");
    (!known).then(|| FieldError::not_supported(at, &source["resource"], RESOURCE_FIELDS))
}

fn value_from(path: &str, e: &Value) -> Errors {
    let mut out = Vec::new();
    let from = &e["valueFrom"];
    let kinds = [
        "fieldRef",
        "resourceFieldRef",
        "configMapKeyRef",
        "secretKeyRef",
    ];
    let set: Vec<&str> = kinds.into_iter().filter(|k| from[*k].is_object()).collect();
    for kind in &set {
        let source = &from[*kind];
        match *kind {
            "fieldRef" => {
                let at = format!("{path}.fieldRef.fieldPath");
                out.extend(field_path(&at, &source["fieldPath"], false));
            }
            "resourceFieldRef" => {
                out.extend(resource_field(&format!("{path}.resourceFieldRef"), source));
            }
            _ => {
                out.extend(invalid_each(
                    &format!("{path}.{kind}.name"),
                    &text(&source["name"]).into(),
                    names::dns_subdomain(text(&source["name"])),
                ));
                let key = text(&source["key"]);
                let at = format!("{path}.{kind}.key");
                if key.is_empty() {
                    out.push(FieldError::required(at, ""));
                } else {
                    out.extend(invalid_each(&at, &source["key"], names::config_key(key)));
                }
            }
        }
    }
    match set.len() {
        0 => out.push(FieldError::invalid(
            path,
            &"".into(),
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
        )),
        1 if !text(&e["value"]).is_empty() => {
            out.push(FieldError::invalid(path, &"".into(), "may not be specified when `value` is not empty"));
        }
        1 => {}
        _ => out.push(FieldError::invalid(path, &"".into(), "may not have more than one field specified at a time")),
    }
    out
}

fn mounts(path: &str, c: &Value, volumes: &[&str]) -> Errors {
    let mut out = Vec::new();
    for (list_key, path_key) in [
        ("volumeMounts", "mountPath"),
        ("volumeDevices", "devicePath"),
    ] {
        let mut seen: Vec<&str> = Vec::new();
        for (i, m) in list(&c[list_key]).iter().enumerate() {
            let at = format!("{path}.{list_key}[{i}]");
            let (name, target) = (text(&m["name"]), text(&m[path_key]));
            if name.is_empty() {
                out.push(FieldError::required(format!("{at}.name"), ""));
            } else if !volumes.contains(&name) {
                out.push(FieldError::not_found(format!("{at}.name"), &m["name"]));
            }
            if target.is_empty() {
                out.push(FieldError::required(format!("{at}.{path_key}"), ""));
            } else if seen.contains(&target) {
                out.push(FieldError::invalid(
                    format!("{at}.{path_key}"),
                    &m[path_key],
                    "must be unique",
                ));
            }
            seen.push(target);
        }
    }
    out
}

/// What is wrong with a resource that a container is to ask for: as a name, and as one of a container.
pub(super) fn resource_name(at: &str, resource: &str) -> Errors {
    let mut why = names::qualified_name(resource);
    let qualified = why.is_empty();
    let standard = ["cpu", "memory", "ephemeral-storage", "storage"].contains(&resource)
        || resource.starts_with("hugepages-");
    if resource.contains('/') {
        let native = resource.contains("kubernetes.io/");
        if !native && (!qualified || resource.starts_with("requests.")) {
            why.push("doesn't follow extended resource name standard".into());
        }
    } else if !standard {
        if qualified {
            why.push("must be a standard resource type or fully qualified".into());
        }
        why.push("must be a standard resource for containers".into());
    }
    let wrong = |why| FieldError::invalid_go(at, resource, why);
    why.into_iter().map(wrong).collect()
}

fn resources(path: &str, r: &Value) -> Errors {
    let mut out = Vec::new();
    let quantity = |v: &Value| Quantity::parse(text(v)).ok();
    for side in ["limits", "requests"] {
        for (k, v) in r[side].as_object().into_iter().flatten() {
            let at = format!("{path}.{side}[{k}]");
            out.extend(resource_name(&at, k));
            let Some(q) = quantity(v) else { continue };
            if q.is_negative() {
                out.push(FieldError::invalid(
                    at.as_str(),
                    v,
                    "must be greater than or equal to 0",
                ));
            }
            if k.contains('/') && !k.starts_with("kubernetes.io/") && !q.is_integer() {
                out.push(FieldError::invalid(at, v, "must be an integer"));
            }
        }
    }
    for (k, v) in r["requests"].as_object().into_iter().flatten() {
        let limit = &r["limits"][k];
        let (Some(request), Some(limit_value)) = (quantity(v), quantity(limit)) else {
            continue;
        };
        let extended = k.contains('/');
        if extended && request != limit_value {
            out.push(FieldError::invalid(
                format!("{path}.requests"),
                v,
                format!("must be equal to {k} limit of {limit_value}"),
            ));
        } else if !extended && request > limit_value {
            out.push(FieldError::invalid(
                format!("{path}.requests"),
                v,
                format!("must be less than or equal to {k} limit of {limit_value}"),
            ));
        }
    }
    out
}

/// Probes and hooks of a container that keeps running.
fn probes_and_hooks(path: &str, c: &Value, grace: i64) -> Errors {
    let mut out = Vec::new();
    for hook in ["postStart", "preStop"] {
        let h = &c["lifecycle"][hook];
        if h.is_object() {
            out.extend(handler(
                &format!("{path}.lifecycle.{hook}"),
                h,
                &["exec", "httpGet", "tcpSocket", "sleep"],
                grace,
            ));
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let p = &c[probe];
        if !p.is_object() {
            continue;
        }
        let at = format!("{path}.{probe}");
        out.extend(handler(
            &at,
            p,
            &["exec", "httpGet", "tcpSocket", "grpc"],
            grace,
        ));
        for key in [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ] {
            out.extend(nonnegative(format!("{at}.{key}"), &p[key]));
        }
        if probe != "readinessProbe" && p["successThreshold"].as_i64().is_some_and(|n| n != 1) {
            out.push(FieldError::invalid(
                format!("{at}.successThreshold"),
                &p["successThreshold"],
                "must be 1",
            ));
        }
    }
    out
}

/// The port of a probe or hook; one that is not given is 0.
fn action_port(path: &str, action: &Value) -> Errors {
    let at = format!("{path}.port");
    match &action["port"] {
        Value::Null => service::target_port(&at, &0.into()),
        port => service::target_port(&at, port),
    }
}

fn handler(path: &str, h: &Value, kinds: &[&str], grace: i64) -> Errors {
    let mut out = Vec::new();
    let mut found = false;
    for kind in kinds {
        let action = &h[*kind];
        if !action.is_object() {
            continue;
        }
        let at = format!("{path}.{kind}");
        if found {
            out.push(FieldError::forbidden(
                at,
                "may not specify more than 1 handler type",
            ));
            continue;
        }
        found = true;
        match *kind {
            "exec" => {
                if list(&action["command"]).is_empty() {
                    out.push(FieldError::required(format!("{at}.command"), ""));
                }
            }
            "httpGet" => {
                if text(&action["path"]).is_empty() {
                    out.push(FieldError::required(format!("{at}.path"), ""));
                }
                out.extend(action_port(&at, action));
                supported(
                    &mut out,
                    format!("{at}.scheme"),
                    &action["scheme"],
                    &["HTTP", "HTTPS"],
                );
            }
            "tcpSocket" | "grpc" => out.extend(action_port(&at, action)),
            _ => {
                let n = action["seconds"].as_i64().unwrap_or(0);
                if n <= 0 || n > grace {
                    let why = format!(
                        "must be greater than 0 and less than terminationGracePeriodSeconds ({grace}). Enable AllowPodLifecycleSleepActionZeroValue feature gate for zero sleep."
                    );
                    out.push(FieldError::invalid(at, &action["seconds"], why));
                }
            }
        }
    }
    if !found {
        out.push(FieldError::required(path, "must specify a handler type"));
    }
    out
}
