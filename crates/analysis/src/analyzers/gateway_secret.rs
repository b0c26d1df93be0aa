//! `gateway.SecretAnalyzer`: credentials that are missing (IST0101) or no certificate (IST0161).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;

use crate::context::Context;
use crate::fields::Fields;
use crate::hosts::short_or_full_name;
use crate::kind::Kind;
use crate::labels;
use crate::messages;
use crate::object::Object;

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    for gateway in context.each(Kind::Gateway) {
        let selector = gateway.spec.texts_by_key("selector");
        // Secrets are looked for beside the workload.
        let namespace = context
            .each(Kind::Pod)
            .find(|pod| labels::selects(&selector, &pod.labels))
            .map(Object::namespace)
            .filter(|namespace| !namespace.is_empty());
        let Some(namespace) = namespace else {
            let text = labels::text(&selector);
            context.report(
                messages::referenced_resource_not_found(gateway, "selector", &text)
                    .at(&format!("spec.selector.{}", labels::first(&selector))),
            );
            continue;
        };
        for (index, server) in gateway.spec.items("servers").iter().enumerate() {
            let credential = server.field("tls").text("credentialName");
            if credential.is_empty() {
                continue;
            }
            let line = format!("spec.servers[{index}].tls.credentialName");
            let (secret_namespace, name) = short_or_full_name(namespace, credential);
            match context.store.find(Kind::Secret, secret_namespace, name) {
                None => context.report(
                    messages::referenced_resource_not_found(gateway, "credentialName", credential)
                        .at(&line),
                ),
                Some(secret) if !is_valid(secret, context.now) => context.report(
                    messages::invalid_gateway_credential(gateway, gateway.name(), namespace)
                        .at(&line),
                ),
                Some(_) => {}
            }
        }
    }
}

/// Whether a Secret has a key and a certificate that is valid now.
fn is_valid(secret: &Object, now: i64) -> bool {
    let data = secret.spec.field("data");
    let value = |name: &str| {
        let value = STANDARD.decode(data.text(name)).unwrap_or_default();
        (!value.is_empty()).then_some(value)
    };
    let certificate = [("cert", "key"), ("tls.crt", "tls.key")]
        .into_iter()
        .find_map(|(certificate, key)| value(key).and(value(certificate)));
    let Some(certificate) = certificate else {
        return false;
    };
    let Ok((pem, _)) = Pem::read(std::io::Cursor::new(certificate)) else {
        return false;
    };
    let mut rest = pem.contents.as_slice();
    while !rest.is_empty() {
        let Ok((after, certificate)) = X509Certificate::from_der(rest) else {
            return false;
        };
        let validity = certificate.validity();
        if now > validity.not_after.timestamp() || now < validity.not_before.timestamp() {
            return false;
        }
        rest = after;
    }
    true
}
