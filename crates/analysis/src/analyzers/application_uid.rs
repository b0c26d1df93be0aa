//! `applicationUID.Analyzer`: applications that run as the user of the sidecar (IST0144).

use serde_json::Value;

use crate::context::Context;
use crate::fields::Fields;
use crate::in_mesh::{PROXY, is_control_plane};
use crate::kind::Kind;
use crate::messages;

/// The user of the sidecar: its traffic is not captured.
const SIDECAR_USER: i64 = 1337;

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    for kind in [Kind::Pod, Kind::Deployment] {
        for object in context.each(kind) {
            let spec = match kind {
                Kind::Pod => &object.spec,
                _ => object.spec.field("template").field("spec"),
            };
            if !is_control_plane(object) && runs_as_sidecar(spec) {
                context.report(messages::invalid_application_uid(object));
            }
        }
    }
}

fn runs_as_sidecar(spec: &Value) -> bool {
    let user = |of: &Value| of.field("securityContext").number("runAsUser") == SIDECAR_USER;
    user(spec)
        || spec.items("containers").iter().any(|container| {
            !matches!(container.text("name"), PROXY | "istio-operator") && user(container)
        })
}
