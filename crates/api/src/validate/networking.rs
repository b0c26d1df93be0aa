//! Ingresses and their classes.

use super::{Errors, immutable, invalid_each, list, names, text};
use crate::field::FieldError;
use crate::meta;
use serde_json::Value;

/// An Ingress.
pub(super) fn ingress(obj: &Value) -> Errors {
    let spec = &obj["spec"];
    let mut out = Vec::new();
    let rules = list(&spec["rules"]);
    if rules.is_empty() && spec["defaultBackend"].is_null() {
        out.push(FieldError::invalid_go(
            "spec",
            "null",
            "either `defaultBackend` or `rules` must be specified",
        ));
    }
    if !spec["defaultBackend"].is_null() {
        out.extend(backend("spec.defaultBackend", &spec["defaultBackend"]));
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = format!("spec.rules[{i}]");
        out.extend(host(&format!("{at}.host"), &rule["host"], true));
        if !rule["http"].is_null() {
            out.extend(paths(&format!("{at}.http"), &rule["http"]));
        }
    }
    for (i, tls) in list(&spec["tls"]).iter().enumerate() {
        for (j, name) in list(&tls["hosts"]).iter().enumerate() {
            out.extend(host(&format!("spec.tls[{i}].hosts[{j}]"), name, false));
        }
        if !text(&tls["secretName"]).is_empty() {
            out.extend(invalid_each(
                &format!("spec.tls[{i}].secretName"),
                &tls["secretName"],
                names::dns_subdomain(text(&tls["secretName"])),
            ));
        }
    }
    if let Some(class) = spec["ingressClassName"].as_str() {
        out.extend(invalid_each(
            "spec.ingressClassName",
            &spec["ingressClassName"],
            names::dns_subdomain(class),
        ));
    }
    out
}

/// What a new Ingress may not say twice differently.
pub(super) fn ingress_create(obj: &Value) -> Option<FieldError> {
    let annotation = meta::annotation(obj, "kubernetes.io/ingress.class")?;
    let class = obj["spec"]["ingressClassName"].as_str()?;
    (annotation != class).then(|| {
        FieldError::invalid(
            "annotations.kubernetes.io/ingress.class",
            &annotation.into(),
            "must match `ingressClassName` when both are specified",
        )
    })
}

fn host(path: &str, name: &Value, no_address: bool) -> Errors {
    let mut out = Vec::new();
    let host = text(name);
    if host.is_empty() {
        return out;
    }
    if no_address && host.parse::<std::net::IpAddr>().is_ok() {
        out.push(FieldError::invalid(
            path,
            name,
            "must be a DNS name, not an IP address",
        ));
    }
    let found = if host.contains('*') {
        names::wildcard_subdomain(host)
    } else {
        names::dns_subdomain(host)
    };
    out.extend(invalid_each(path, name, found));
    out
}

fn paths(path: &str, http: &Value) -> Errors {
    let mut out = Vec::new();
    let paths = list(&http["paths"]);
    if paths.is_empty() {
        out.push(FieldError::required(format!("{path}.paths"), ""));
    }
    for (i, p) in paths.iter().enumerate() {
        out.extend(one_path(&format!("{path}.paths[{i}]"), p));
    }
    out
}

fn one_path(at: &str, p: &Value) -> Errors {
    let mut out = Vec::new();
    let own = text(&p["path"]);
    let mut wrong =
        |why: String| out.push(FieldError::invalid(format!("{at}.path"), &own.into(), why));
    match p["pathType"].as_str() {
        None => {
            return vec![FieldError::required(
                format!("{at}.pathType"),
                "pathType must be specified",
            )];
        }
        Some("Exact" | "Prefix") => {
            if !own.starts_with('/') {
                wrong("must be an absolute path".into());
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"] {
                if own.contains(part) {
                    wrong(format!("must not contain '{part}'"));
                }
            }
            for end in ["/..", "/."] {
                if own.ends_with(end) {
                    wrong(format!("cannot end with '{end}'"));
                }
            }
        }
        Some("ImplementationSpecific") => {
            if !own.is_empty() && !own.starts_with('/') {
                wrong("must be an absolute path".into());
            }
        }
        Some(_) => out.push(FieldError::not_supported(
            format!("{at}.pathType"),
            &p["pathType"],
            &["Exact", "ImplementationSpecific", "Prefix"],
        )),
    }
    out.extend(backend(&format!("{at}.backend"), &p["backend"]));
    out
}

fn backend(path: &str, b: &Value) -> Errors {
    let empty = || Value::from("");
    let (service, resource) = (&b["service"], &b["resource"]);
    match (service.is_object(), resource.is_object()) {
        (true, true) => vec![FieldError::invalid(
            path,
            &empty(),
            "cannot set both resource and service backends",
        )],
        (false, true) => reference(&format!("{path}.resource"), resource),
        (true, false) => {
            let mut out = Vec::new();
            let at = format!("{path}.service");
            if text(&service["name"]).is_empty() {
                out.push(FieldError::required(format!("{at}.name"), ""));
            } else {
                out.extend(invalid_each(
                    &format!("{at}.name"),
                    &service["name"],
                    names::dns_1035_label(text(&service["name"])),
                ));
            }
            let port = &service["port"];
            let (name, number) = (text(&port["name"]), port["number"].as_i64().unwrap_or(0));
            match (name.is_empty(), number) {
                (false, 0) => out.extend(invalid_each(
                    &format!("{at}.port.name"),
                    &port["name"],
                    names::port_name(name),
                )),
                (false, _) => out.push(FieldError::invalid(
                    path,
                    &empty(),
                    "cannot set both port name & port number",
                )),
                (true, 0) => out.push(FieldError::required(
                    path,
                    "port name or number is required",
                )),
                (true, n) => out.extend(invalid_each(
                    &format!("{at}.port.number"),
                    &port["number"],
                    names::port_number(n),
                )),
            }
            out
        }
        (false, false) => vec![FieldError::invalid(
            path,
            &empty(),
            "resource or service backend is required",
        )],
    }
}

/// A reference to an object by kind and name.
fn reference(path: &str, r: &Value) -> Errors {
    let mut out = Vec::new();
    if let Some(group) = r["apiGroup"].as_str() {
        out.extend(invalid_each(
            &format!("{path}.apiGroup"),
            &r["apiGroup"],
            names::dns_subdomain(group),
        ));
    }
    for field in ["kind", "name"] {
        let at = format!("{path}.{field}");
        if text(&r[field]).is_empty() {
            out.push(FieldError::required(at, format!("{field} is required")));
        } else {
            out.extend(invalid_each(
                &at,
                &r[field],
                names::path_segment(text(&r[field])),
            ));
        }
    }
    out
}

/// An IngressClass.
pub(super) fn ingress_class(obj: &Value) -> Errors {
    let spec = &obj["spec"];
    let mut out = Vec::new();
    let controller = text(&spec["controller"]);
    let path = "spec.controller";
    if controller.is_empty() {
        out.push(FieldError::required(path, ""));
    } else {
        match controller.split_once('/') {
            Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => out.extend(
                invalid_each(path, &domain.into(), names::dns_subdomain(domain)),
            ),
            _ => out.push(FieldError::invalid(
                path,
                &spec["controller"],
                "must be a domain-prefixed path (such as \"acme.io/foo\")",
            )),
        }
    }
    let parameters = &spec["parameters"];
    if parameters.is_object() {
        let path = "spec.parameters";
        out.extend(reference(path, parameters));
        match parameters["scope"].as_str() {
            None => out.push(FieldError::required(format!("{path}.scope"), "")),
            Some("Namespace") if parameters["namespace"].is_null() => {
                out.push(FieldError::required(
                    format!("{path}.namespace"),
                    "`parameters.scope` is set to 'Namespace'",
                ));
            }
            Some("Cluster") if !parameters["namespace"].is_null() => {
                out.push(FieldError::forbidden(
                    format!("{path}.namespace"),
                    "`parameters.scope` is set to 'Cluster'",
                ));
            }
            Some("Cluster" | "Namespace") => {}
            Some(_) => out.push(FieldError::not_supported(
                format!("{path}.scope"),
                &parameters["scope"],
                &["Cluster", "Namespace"],
            )),
        }
    }
    out
}

/// The controller of a class stays.
pub(super) fn ingress_class_update(obj: &Value, old: &Value) -> Option<FieldError> {
    immutable(
        "spec.controller",
        &obj["spec"]["controller"],
        &old["spec"]["controller"],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(errors: Errors) -> Vec<String> {
        errors.iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn an_ingress_sends_requests_somewhere() {
        let good = json!({"spec": {"rules": [{"host": "*.a.io", "http": {"paths": [{"path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}});
        assert!(texts(ingress(&good)).is_empty());
        assert_eq!(
            texts(ingress(&json!({"spec": {}}))),
            ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]
        );
        let bad = json!({"spec": {"rules": [{"host": "10.0.0.1", "http": {"paths": [
            {"path": "a", "pathType": "Exact", "backend": {"service": {"name": "s", "port": {}}}},
            {"path": "/", "backend": {}}]}}]}});
        assert_eq!(
            texts(ingress(&bad)),
            [
                "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
                "spec.rules[0].http.paths[0].path: Invalid value: \"a\": must be an absolute path",
                "spec.rules[0].http.paths[0].backend: Required value: port name or number is required",
                "spec.rules[0].http.paths[1].pathType: Required value: pathType must be specified",
            ]
        );
    }

    #[test]
    fn a_class_names_its_controller() {
        let class = |controller: &str| json!({"spec": {"controller": controller}});
        assert!(texts(ingress_class(&class("example.com/controller"))).is_empty());
        assert_eq!(
            texts(ingress_class(&class("controller"))),
            [
                "spec.controller: Invalid value: \"controller\": must be a domain-prefixed path (such as \"acme.io/foo\")"
            ]
        );
        assert!(ingress_class_update(&class("a.io/b"), &class("a.io/c")).is_some());
    }
}
