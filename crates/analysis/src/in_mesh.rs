//! Which workloads have a sidecar, or are in ambient mode.

use serde_json::Value;

use crate::context::Context;
use crate::fields::Fields;
use crate::kind::Kind;
use crate::labels::Labels;
use crate::object::Object;

/// The container of the sidecar.
pub const PROXY: &str = "istio-proxy";
/// The label of a namespace that asks for sidecars.
pub const INJECTION_LABEL: &str = "istio-injection";
/// The label that names a revision of the control plane.
pub const REVISION_LABEL: &str = "istio.io/rev";
/// The label that asks for a mode of the data plane.
pub const DATAPLANE_MODE_LABEL: &str = "istio.io/dataplane-mode";
/// The label (or old annotation) of a pod that asks for a sidecar or none.
pub const INJECT: &str = "sidecar.istio.io/inject";

/// Whether the pods of a Deployment have a sidecar.
#[must_use]
pub fn deployment_in_mesh(deployment: &Object, context: &Context<'_>) -> bool {
    let template = deployment.spec.field("template");
    let metadata = template.field("metadata");
    in_mesh(
        &metadata.texts_by_key("annotations"),
        &metadata.texts_by_key("labels"),
        deployment.namespace(),
        template.field("spec").items("containers").iter(),
        context,
    )
}

/// Whether a Pod has a sidecar.
#[must_use]
pub fn pod_in_mesh(pod: &Object, context: &Context<'_>) -> bool {
    in_mesh(
        &pod.annotations,
        &pod.labels,
        pod.namespace(),
        all_containers(&pod.spec),
        context,
    )
}

/// Whether a Pod is captured by ambient mode.
#[must_use]
pub fn pod_in_ambient_mode(pod: &Object) -> bool {
    pod.annotation("ambient.istio.io/redirection") == "enabled"
}

/// Whether a Namespace is in ambient mode; a label that asks for sidecars has precedence.
#[must_use]
pub fn namespace_in_ambient_mode(namespace: &Object) -> bool {
    namespace.label(INJECTION_LABEL) != "enabled"
        && namespace.label(REVISION_LABEL).is_empty()
        && namespace.label(DATAPLANE_MODE_LABEL) == "ambient"
}

/// The containers of a pod, and its init containers, which may be sidecars.
pub fn all_containers(spec: &Value) -> impl Iterator<Item = &Value> {
    spec.items("containers")
        .iter()
        .chain(spec.items("initContainers"))
}

fn in_mesh<'a>(
    annotations: &Labels,
    labels: &Labels,
    namespace: &str,
    mut containers: impl Iterator<Item = &'a Value>,
    context: &Context<'_>,
) -> bool {
    let proxy = containers.find(|container| container.text("name") == PROXY);
    if proxy.is_some_and(|proxy| !proxy.text("image").is_empty()) {
        return true;
    }
    if let Some(value) = labels.get(INJECT).or_else(|| annotations.get(INJECT)) {
        return value == "true";
    }
    context
        .store
        .find(Kind::Namespace, "", namespace)
        .is_some_and(|namespace| namespace.label(INJECTION_LABEL) == "enabled")
}

/// Whether an object belongs to Istio itself.
#[must_use]
pub fn is_control_plane(object: &Object) -> bool {
    object.labels.contains_key("istio") || object.label("release") == "istio"
}
