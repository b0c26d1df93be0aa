//! `gateway.CertificateAnalyzer`: one certificate in several gateways of the same workloads (IST0138).

use serde_json::Value;

use crate::context::Context;
use crate::fields::Fields;
use crate::kind::Kind;
use crate::labels;
use crate::messages;

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    for gateway in context.each(Kind::Gateway) {
        let selector = gateway.spec.texts_by_key("selector");
        for other in context.each(Kind::Gateway) {
            let itself = other.full_name() == gateway.full_name();
            if itself || !labels::selects(&selector, &other.spec.texts_by_key("selector")) {
                continue;
            }
            let same = gateway.spec.items("servers").iter().any(|server| {
                other
                    .spec
                    .items("servers")
                    .iter()
                    .any(|another| same_certificate(server.field("tls"), another.field("tls")))
            });
            if same {
                let names = [gateway.full_name(), other.full_name()];
                context.report(
                    messages::gateway_duplicate_certificate(gateway, &names).at("metadata.name"),
                );
            }
        }
    }
}

fn same_certificate(one: &Value, other: &Value) -> bool {
    if !one.is_object() || !other.is_object() {
        return false;
    }
    let same = |field: &str| !one.text(field).is_empty() && one.text(field) == other.text(field);
    if one.text("credentialName").is_empty() && other.text("credentialName").is_empty() {
        return same("serverCertificate") && same("privateKey");
    }
    same("credentialName")
}
