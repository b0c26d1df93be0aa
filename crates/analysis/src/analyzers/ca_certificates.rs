//! `destinationrule.CaCertificateAnalyzer`: TLS to a server whose certificate is not checked (IST0128, IST0129).

use serde_json::Value;

use crate::context::Context;
use crate::fields::Fields;
use crate::kind::Kind;
use crate::messages;

const MODES: [&str; 4] = ["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"];

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    for rule in context.each(Kind::DestinationRule) {
        let host = rule.spec.text("host");
        let policy = rule.spec.field("trafficPolicy");
        let for_workloads = rule.spec.has("workloadSelector");
        if let Some(mode) = unverified(policy.field("tls"), for_workloads) {
            context.report(
                messages::no_server_certificate_verification_destination_level(
                    rule,
                    &rule.full_name(),
                    rule.namespace(),
                    mode,
                    host,
                )
                .at("spec.trafficPolicy.tls.caCertificates"),
            );
        }
        for (index, settings) in policy.items("portLevelSettings").iter().enumerate() {
            if let Some(mode) = unverified(settings.field("tls"), for_workloads) {
                // As protobuf writes the selector of a port.
                let port = match settings.field("port") {
                    Value::Null => "<nil>".to_owned(),
                    port => match port.number("number") {
                        0 => String::new(),
                        number => format!("number:{number}"),
                    },
                };
                context.report(
                    messages::no_server_certificate_verification_port_level(
                        rule,
                        &rule.full_name(),
                        rule.namespace(),
                        mode,
                        host,
                        &port,
                    )
                    .at(&format!(
                        "spec.trafficPolicy.portLevelSettings[{index}].tls.caCertificates"
                    )),
                );
            }
        }
    }
}

/// The mode, if it is one that trusts any server.
fn unverified(tls: &Value, for_workloads: bool) -> Option<&str> {
    let mode = tls.choice("mode", &MODES);
    let by_credential = !tls.text("credentialName").is_empty() && for_workloads;
    let verified = !tls.text("caCertificates").is_empty() || by_credential;
    (matches!(mode, "SIMPLE" | "MUTUAL") && !verified).then_some(mode)
}
