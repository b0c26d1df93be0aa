//! TLS of listeners (Gateway, Sidecar) and TLS towards services (DestinationRule).

use crate::message::Message;
use crate::problem::{Found, Validation, join, one};
use api::field::quote;
use api::istio::CIPHER_SUITES;

fn is_cipher(name: &str) -> bool {
    // Operators of cipher expressions begin with a sign and are taken as they are.
    let expression = name.chars().next().is_none_or(|c| !c.is_alphanumeric());
    expression || name == "ALL" || CIPHER_SUITES.contains(&name)
}

fn ciphers(tls: Message<'_>, validation: &mut Validation) {
    let (mut seen, mut invalid, mut double) = (Vec::new(), Vec::new(), Vec::new());
    for name in tls.texts("cipherSuites") {
        let list = if !is_cipher(name) {
            &mut invalid
        } else if seen.contains(&name) {
            &mut double
        } else {
            seen.push(name);
            continue;
        };
        if !list.contains(&name) {
            list.push(name);
        }
    }
    for (what, mut list) in [("invalid", invalid), ("duplicate", double)] {
        if !list.is_empty() {
            list.sort_unstable();
            validation.warn(format!(
                "ignoring {what} cipher suites: [{}]",
                list.join(" ")
            ));
        }
    }
}

/// TLS of a listener.
pub(crate) fn server(tls: Option<Message<'_>>) -> Validation {
    let mut v = Validation::default();
    let Some(tls) = tls else { return v };
    let set = |field: &str| !tls.text(field).is_empty();
    let some = |field: &str| !tls.list(field).is_empty();
    let mode = tls.name("mode", "PASSTHROUGH");
    if matches!(tls.text("minProtocolVersion"), "TLSV1_0" | "TLSV1_1") && !some("cipherSuites") {
        v.warn("TLS version below TLSV1_2 require setting compatible ciphers as by default they no longer include compatible ciphers.");
    }
    ciphers(tls, &mut v);
    if mode == "ISTIO_MUTUAL" {
        for (there, what) in [
            (set("serverCertificate"), "server certificate"),
            (set("privateKey"), "private key"),
            (set("caCertificates"), "CA bundle"),
            (some("tlsCertificates"), "tlsCertificates"),
            (set("credentialName"), "credentialName"),
            (some("credentialNames"), "credentialNames"),
        ] {
            if there {
                v.fail(format!("ISTIO_MUTUAL TLS cannot have associated {what}"));
            }
        }
        return v;
    }
    let unused = [
        "caCrl",
        "serverCertificate",
        "privateKey",
        "caCertificates",
        "credentialName",
    ]
    .into_iter()
    .any(set)
        || some("tlsCertificates")
        || some("credentialNames");
    if matches!(mode, "PASSTHROUGH" | "AUTO_PASSTHROUGH") && unused {
        v.warn(format!(
            "{mode} mode does not use certificates, they will be ignored"
        ));
    }
    let sources = [
        set("serverCertificate") && set("privateKey"),
        set("credentialName"),
        some("credentialNames"),
        some("tlsCertificates"),
    ];
    if sources.iter().filter(|there| **there).count() > 1 {
        v.fail("only one of credential_name, credential_names, server_certificate/private_key, tls_certificates should be specified");
    }
    let terminates = matches!(mode, "SIMPLE" | "MUTUAL" | "OPTIONAL_MUTUAL");
    if terminates && (set("credentialName") || some("credentialNames")) {
        return v;
    }
    if terminates {
        let name = if mode == "SIMPLE" {
            "SIMPLE TLS"
        } else {
            "MUTUAL TLS"
        };
        if mode != "SIMPLE" && !set("caCertificates") {
            v.fail(format!("{name} requires a client CA bundle"));
        }
        if tls.list("tlsCertificates").len() > 2 {
            v.warn(format!("{name} can support up to 2 server certificates"));
        }
        let own = [tls];
        let listed: Vec<Message<'_>> = tls.messages("tlsCertificates").collect();
        let certificates = if listed.is_empty() {
            &own[..]
        } else {
            &listed[..]
        };
        for certificate in certificates {
            if certificate.text("serverCertificate").is_empty() {
                v.fail(format!("{name} requires a server certificate"));
            }
            if certificate.text("privateKey").is_empty() {
                v.fail(format!("{name} requires a private key"));
            }
        }
    }
    if set("caCrl") {
        if set("credentialName") {
            v.fail("CRL is not supported with credentialName. CRL has to be specified in the credential");
        }
        if mode == "SIMPLE" {
            v.fail("CRL is not supported with SIMPLE TLS");
        }
    }
    v
}

/// TLS towards a service.
pub(crate) fn client(namespace: &str, tls: Option<Message<'_>>) -> Found {
    let tls = tls?;
    let set = |field: &str| !tls.text(field).is_empty();
    let mode = tls.name("mode", "DISABLE");
    let mut errors = None;
    if let Some(name) = tls.text("credentialName").strip_prefix("configmap://") {
        let problem = config_map(tls.text("credentialName"), name, namespace);
        if let Some(problem) = problem {
            join(
                &mut errors,
                one(format!("invalid configmap:// credentialName: {problem}")),
            );
        }
    }
    if tls.flag("insecureSkipVerify") {
        let names = !tls.list("subjectAltNames").is_empty();
        if mode == "SIMPLE" && (set("caCertificates") || set("credentialName") || names) {
            join(
                &mut errors,
                one(
                    "cannot specify CaCertificates or CredentialName or SubjectAltNames when InsecureSkipVerify is set true",
                ),
            );
        }
        if mode == "MUTUAL" && (set("caCertificates") || names) {
            join(
                &mut errors,
                one(
                    "cannot specify CaCertificates or SubjectAltNames when InsecureSkipVerify is set true",
                ),
            );
        }
    }
    if matches!(mode, "SIMPLE" | "MUTUAL") && set("credentialName") {
        if ["clientCertificate", "caCertificates", "privateKey", "caCrl"]
            .into_iter()
            .any(set)
        {
            join(
                &mut errors,
                one(
                    "cannot specify client certificates or CA certificate or CA CRL If credentialName is set",
                ),
            );
        }
        return errors;
    }
    if mode == "MUTUAL" {
        if !set("clientCertificate") {
            join(
                &mut errors,
                one("client certificate required for mutual tls"),
            );
        }
        if !set("privateKey") {
            join(&mut errors, one("private key required for mutual tls"));
        }
    }
    errors
}

/// `configmap://namespace/name` names one of the object's own namespace.
fn config_map(whole: &str, name: &str, namespace: &str) -> Option<String> {
    let invalid = |what: &str| {
        Some(format!(
            "invalid resource name {}. Expected {what}",
            quote(whole)
        ))
    };
    let mut parts = name.split('/');
    let (own, name) = (parts.next().unwrap_or(""), parts.next());
    match name {
        None => invalid("namespace and name"),
        _ if own.is_empty() => invalid("namespace"),
        Some("") => invalid("name"),
        _ if own != namespace || namespace.is_empty() => Some(format!(
            "namespace must match the configuration namespace {}",
            quote(namespace)
        )),
        _ => None,
    }
}
