//! CertificateSigningRequests.

use super::{Errors, list, text};
use crate::field::FieldError;
use base64::Engine;
use serde_json::Value;

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// Whether bytes are a PEM block of this type.
fn is_pem(bytes: &[u8], block: &str) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.contains(&format!("-----BEGIN {block}-----"))
        && text.contains(&format!("-----END {block}-----"))
}

fn bytes(v: &Value) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD
        .decode(text(v))
        .unwrap_or_default()
}

/// A request, new or changed.
pub fn request(obj: &Value) -> Errors {
    let spec = &obj["spec"];
    let mut out = Vec::new();
    let request = bytes(&spec["request"]);
    if !is_pem(&request, "CERTIFICATE REQUEST") {
        let shown: Vec<String> = request.iter().map(|b| format!("{b:#x}")).collect();
        out.push(FieldError::invalid_go(
            "spec.request",
            format!("[]byte{{{}}}", shown.join(", ")),
            "PEM block type must be CERTIFICATE REQUEST",
        ));
    }
    let usages = list(&spec["usages"]);
    if usages.is_empty() {
        out.push(FieldError::required("spec.usages", ""));
    }
    for (i, usage) in usages.iter().enumerate() {
        if !USAGES.contains(&text(usage)) {
            out.push(FieldError::not_supported(
                format!("spec.usages[{i}]"),
                usage,
                &USAGES,
            ));
        }
    }
    for (i, usage) in usages.iter().enumerate() {
        if usages[..i].contains(usage) {
            out.push(FieldError::duplicate(format!("spec.usages[{i}]"), usage));
        }
    }
    out.extend(signer_name(&spec["signerName"]));
    if spec["expirationSeconds"].as_i64().is_some_and(|n| n < 600) {
        out.push(FieldError::invalid(
            "spec.expirationSeconds",
            &spec["expirationSeconds"],
            "may not specify a duration less than 600 seconds (10 minutes)",
        ));
    }
    out.extend(conditions(list(&obj["status"]["conditions"])));
    out
}

fn signer_name(signer: &Value) -> Errors {
    const AT: &str = "spec.signerName";
    let name = text(signer);
    let wrong = |shown: &str, why: &str| vec![FieldError::invalid(AT, &shown.into(), why)];
    if name.is_empty() {
        return vec![FieldError::required(AT, "")];
    }
    if name == "kubernetes.io/legacy-unknown" {
        return wrong(
            name,
            "the legacy signerName is not allowed via this API version",
        );
    }
    let parts: Vec<&str> = name.split('/').collect();
    let &[domain, path] = parts.as_slice() else {
        return wrong(
            name,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
    };
    let mut out = Vec::new();
    for why in super::names::dns_subdomain(domain) {
        out.extend(wrong(domain, &why));
    }
    if out.is_empty() && domain.split('.').count() < 2 {
        out.extend(wrong(
            domain,
            "should be a domain with at least two segments separated by dots",
        ));
    }
    for why in super::names::dns_subdomain(path) {
        out.extend(wrong(path, &why));
    }
    out
}

fn conditions(all: &[Value]) -> Errors {
    let mut out = Vec::new();
    for (i, c) in all.iter().enumerate() {
        let at = format!("status.conditions[{i}]");
        let kind = text(&c["type"]);
        if kind.is_empty() {
            out.push(FieldError::required(format!("{at}.type"), ""));
        }
        let allowed: &[&str] = match kind {
            "Approved" | "Denied" | "Failed" => &["True"],
            _ => &["False", "True", "Unknown"],
        };
        match text(&c["status"]) {
            "" => out.push(FieldError::required(format!("{at}.status"), "")),
            status if !allowed.contains(&status) => out.push(FieldError::not_supported(
                format!("{at}.status"),
                &c["status"],
                allowed,
            )),
            _ => {}
        }
        let before = &all[..i];
        let opposite = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if !opposite.is_empty() && before.iter().any(|b| b["type"] == opposite) {
            out.push(FieldError::invalid(
                format!("{at}.type"),
                &c["type"],
                "Approved and Denied conditions are mutually exclusive",
            ));
        }
        if before.iter().any(|b| b["type"] == c["type"]) {
            out.push(FieldError::duplicate(format!("{at}.type"), &c["type"]));
        }
    }
    out
}

/// What a write may change; `subresource` is `approval`, `status` or empty.
pub fn request_update(obj: &Value, old: &Value, subresource: &str) -> Errors {
    let mut out = request(obj);
    let of = |o: &Value, kind: &str| -> Vec<Value> {
        list(&o["status"]["conditions"])
            .iter()
            .filter(|c| c["type"] == kind)
            .cloned()
            .collect()
    };
    for kind in ["Approved", "Denied", "Failed"] {
        let (was, is) = (of(old, kind), of(obj, kind));
        let change = if is.len() < was.len() {
            "remove"
        } else if subresource == "approval" || kind == "Failed" || is == was {
            continue;
        } else if is.len() > was.len() {
            "add"
        } else {
            "modify"
        };
        out.push(FieldError::forbidden(
            "status.conditions",
            format!("updates may not {change} a condition of type {kind:?}"),
        ));
    }
    let (was, is) = (&old["status"]["certificate"], &obj["status"]["certificate"]);
    if was != is {
        if subresource != "status" {
            out.push(FieldError::forbidden(
                "status.certificate",
                "updates may not set certificate content",
            ));
        } else if !text(was).is_empty() {
            out.push(FieldError::forbidden(
                "status.certificate",
                "updates may not modify existing certificate content",
            ));
        } else if !is_pem(&bytes(is), "CERTIFICATE") {
            out.push(FieldError::invalid(
                "status.certificate",
                &"<certificate data>".into(),
                "must contain at least one CERTIFICATE PEM block",
            ));
        }
    }
    out
}
