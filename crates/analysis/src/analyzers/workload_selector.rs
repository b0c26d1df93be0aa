//! `k8sgateway.SelectorAnalyzer`: selectors that meet pods of a Kubernetes Gateway, where only `targetRef` works (IST0166).

use crate::context::Context;
use crate::fields::Fields;
use crate::kind::Kind;
use crate::labels;
use crate::messages;

const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    for kind in [
        Kind::AuthorizationPolicy,
        Kind::RequestAuthentication,
        Kind::Telemetry,
        Kind::WasmPlugin,
    ] {
        for policy in context.each(kind) {
            let Some(selector) = labels::match_labels(&policy.spec) else {
                continue;
            };
            if policy.spec.has("targetRef") {
                continue;
            }
            for pod in context.each(Kind::Pod) {
                if let Some(gateway) = pod.labels.get(GATEWAY_NAME)
                    && pod.namespace() == policy.namespace()
                    && labels::selects(&selector, &pod.labels)
                {
                    context.report(messages::ineffective_selector(policy, gateway));
                }
            }
        }
    }
}
