//! Validation with the API server's texts, measured against a real kube-apiserver 1.32 (`tests/data/create.json`,
//! `tests/data/update.json`).
//!
//! Covered are the mistakes people make; rules about features we do not serve (volumes of cloud providers, Windows, ...) are
//! left out.

mod access;
mod admission;
mod aggregation;
mod autoscaling;
mod certificates;
mod config;
mod container;
mod crd;
mod custom;
mod flowcontrol;
mod gostring;
mod metadata;
pub mod names;
mod networking;
mod pod;
mod pod_update;
pub mod policy;
mod rules;
mod service;
pub mod storage;
mod workload;

use crate::field::FieldError;
use crate::meta::list;
use crate::schema::ObjectSchema;
use crate::scheme::ResourceInfo;
use serde_json::Value;

/// What the checks of one kind return.
pub(crate) type Errors = Vec<FieldError>;

/// Errors of a new object (already defaulted). Turn them into a 422 with [`crate::status::StatusError::invalid`].
pub fn create(resource: &ResourceInfo, schema: &ObjectSchema, obj: &Value) -> Vec<FieldError> {
    let mut errors = metadata::create(resource, obj);
    if schema.builtin {
        errors.extend(body(schema, obj));
    } else {
        let found = custom::validate(schema, obj, None, &errors);
        errors.extend(found);
    }
    if schema.builtin && resource.kind == "Ingress" {
        errors.extend(networking::ingress_create(obj));
    }
    errors
}

/// Warnings about finalizers of a custom resource that are not named by a domain, and so may be somebody else's, too; none about
/// those that `old` has already.
#[must_use]
pub fn finalizer_warnings(obj: &Value, old: Option<&Value>) -> Vec<String> {
    metadata::doubtful_finalizers(obj, old)
        .map(|f| format!("metadata.finalizers: {f:?}: prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers"))
        .collect()
}

/// Errors of a changed object: those of a new one, and changes of what may not change.
/// `subresource`: the one written to (`status`), if any.
pub fn update(
    resource: &ResourceInfo,
    schema: &ObjectSchema,
    obj: &Value,
    old: &Value,
    subresource: Option<&str>,
) -> Vec<FieldError> {
    let mut errors = metadata::update(obj, old);
    if schema.builtin && subresource.is_some() {
        if resource.group == "certificates.k8s.io" {
            errors.extend(certificates::request_update(
                obj,
                old,
                subresource.unwrap_or(""),
            ));
        }
        if resource.kind == "Namespace" && subresource == Some("status") {
            errors.extend(config::namespace_phase(obj));
        }
        if resource.group == "apps" && subresource == Some("status") {
            errors.extend(workload::status(obj));
        }
        // Subresources of built-in kinds write parts that the strategies keep apart.
        errors.extend(metadata::common(obj));
        return errors;
    }
    errors.extend(metadata::common(obj));
    if !schema.builtin {
        let found = custom::validate(schema, obj, Some(old), &errors);
        errors.extend(found);
        return errors;
    }
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => errors.extend(pod_update::update(obj, old)),
        ("", "Service") => {
            errors.extend(service::update(obj, old));
            errors.extend(body(schema, obj));
        }
        ("", "Secret") => {
            errors.extend(config::secret_update(obj, old));
            errors.extend(body(schema, obj));
        }
        ("", "ConfigMap") => {
            errors.extend(config::config_map_update(obj, old));
            errors.extend(body(schema, obj));
        }
        ("", "Node") => errors.extend(config::node_update(obj, old)),
        ("apps", "StatefulSet") => {
            errors.extend(body(schema, obj));
            errors.extend(workload::stateful_set_update(obj, old));
        }
        ("apps", "ControllerRevision") => {
            errors.extend(body(schema, obj));
            errors.extend(workload::controller_revision_update(obj, old));
        }
        ("apps", _) => {
            errors.extend(body(schema, obj));
            errors.extend(workload::selector_update(obj, old));
        }
        ("", "ResourceQuota") => {
            errors.extend(body(schema, obj));
            errors.extend(policy::resource_quota_update(obj, old));
        }
        ("scheduling.k8s.io", "PriorityClass") => {
            errors.extend(policy::priority_class_update(obj, old));
        }
        ("node.k8s.io", "RuntimeClass") => {
            errors.extend(body(schema, obj));
            errors.extend(immutable("handler", &obj["handler"], &old["handler"]));
        }
        ("networking.k8s.io", "IngressClass") => {
            errors.extend(networking::ingress_class_update(obj, old));
            errors.extend(body(schema, obj));
        }
        ("", "PersistentVolumeClaim") => {
            errors.extend(body(schema, obj));
            errors.extend(storage::claim_update(obj, old));
        }
        ("", "PersistentVolume") => {
            errors.extend(body(schema, obj));
            errors.extend(storage::volume_update(obj, old));
        }
        ("storage.k8s.io", "StorageClass") => {
            errors.extend(body(schema, obj));
            errors.extend(storage::class_update(obj, old));
        }
        ("certificates.k8s.io", _) => errors.extend(certificates::request_update(obj, old, "")),
        ("batch", "Job") => {
            errors.extend(body(schema, obj));
            errors.extend(workload::job_update(obj, old));
        }
        ("rbac.authorization.k8s.io", _) => {
            errors.extend(body(schema, obj));
            errors.extend(access::role_ref_update(obj, old));
        }
        ("discovery.k8s.io", "EndpointSlice") => {
            errors.extend(service::endpoint_slice(obj));
            errors.extend(immutable(
                "addressType",
                &obj["addressType"],
                &old["addressType"],
            ));
        }
        ("apiextensions.k8s.io", _) => {
            errors.extend(body(schema, obj));
            errors.extend(crd::update(obj, old));
        }
        _ => errors.extend(body(schema, obj)),
    }
    errors
}

/// What must hold for an object of a built-in kind itself, new or changed.
fn body(schema: &ObjectSchema, obj: &Value) -> Errors {
    match (schema.group.as_str(), schema.kind.as_str()) {
        ("", "Pod") => pod::pod(obj),
        ("", "Service") => service::service(obj),
        ("", "Endpoints") => service::endpoints(obj),
        ("", "ConfigMap") => config::config_map(obj),
        ("", "Secret") => config::secret(obj),
        ("", "Event") => config::event(obj),
        ("apps", "Deployment") => workload::deployment(obj),
        ("apps", "ReplicaSet") => workload::replica_set(obj),
        ("apps", "StatefulSet") => workload::stateful_set(obj),
        ("apps", "DaemonSet") => workload::daemon_set(obj),
        ("apps", "ControllerRevision") => workload::controller_revision(obj),
        ("", "ReplicationController") => workload::replication_controller(obj),
        ("", "PodTemplate") => workload::pod_template(obj),
        ("", "ResourceQuota") => policy::resource_quota(obj),
        ("", "LimitRange") => policy::limit_range(obj),
        ("policy", "PodDisruptionBudget") => policy::disruption_budget(obj),
        ("scheduling.k8s.io", "PriorityClass") => policy::priority_class(obj),
        ("node.k8s.io", "RuntimeClass") => policy::runtime_class(obj),
        ("batch", "Job") => workload::job(obj),
        ("batch", "CronJob") => workload::cron_job(obj),
        ("discovery.k8s.io", "EndpointSlice") => service::endpoint_slice(obj),
        ("rbac.authorization.k8s.io", kind) => access::rbac(kind, obj),
        ("coordination.k8s.io", "Lease") => config::lease(obj),
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => admission::policy(obj),
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding") => {
            admission::binding(obj)
        }
        ("admissionregistration.k8s.io", _) => access::webhooks(obj),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaling::horizontal_pod_autoscaler(obj),
        ("", "PersistentVolumeClaim") => storage::claim(obj),
        ("", "PersistentVolume") => storage::volume(obj),
        ("storage.k8s.io", "StorageClass") => storage::class(obj),
        ("certificates.k8s.io", _) => certificates::request(obj),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => flowcontrol::schema(obj),
        ("flowcontrol.apiserver.k8s.io", _) => flowcontrol::level(obj),
        ("apiregistration.k8s.io", _) => aggregation::api_service(obj),
        ("networking.k8s.io", "Ingress") => networking::ingress(obj),
        ("networking.k8s.io", "IngressClass") => networking::ingress_class(obj),
        ("apiextensions.k8s.io", _) => crd::create(obj),
        _ => Vec::new(),
    }
}

/// `field is immutable` when the values differ.
fn immutable(path: &str, new: &Value, old: &Value) -> Option<FieldError> {
    (new != old).then(|| FieldError::invalid(path, new, "field is immutable"))
}

/// `must be greater than or equal to 0`.
fn nonnegative(path: String, v: &Value) -> Option<FieldError> {
    v.as_i64()
        .filter(|n| *n < 0)
        .map(|_| FieldError::invalid(path, v, "must be greater than or equal to 0"))
}

/// A string, empty when absent.
fn text(v: &Value) -> &str {
    v.as_str().unwrap_or("")
}

/// One `Invalid value` a message.
fn invalid_each(path: &str, v: &Value, messages: Vec<String>) -> impl Iterator<Item = FieldError> {
    messages
        .into_iter()
        .map(move |m| FieldError::invalid(path, v, m))
}

/// Keys and values of a map of labels.
fn labels(path: &str, map: &Value) -> Errors {
    let mut out = Vec::new();
    for (k, v) in crate::meta::pairs(map) {
        out.extend(invalid_each(path, &k.into(), names::qualified_name(k)));
        out.extend(invalid_each(path, &v.into(), names::label_value(v)));
    }
    out
}

/// A `metav1.LabelSelector`.
fn label_selector(path: &str, selector: &Value) -> Errors {
    let mut out = labels(&format!("{path}.matchLabels"), &selector["matchLabels"]);
    for (i, e) in list(&selector["matchExpressions"]).iter().enumerate() {
        let p = format!("{path}.matchExpressions[{i}]");
        let values = list(&e["values"]);
        match text(&e["operator"]) {
            "In" | "NotIn" if values.is_empty() => {
                out.push(FieldError::required(
                    format!("{p}.values"),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                ));
            }
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    out.push(FieldError::forbidden(
                        format!("{p}.values"),
                        "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                    ));
                }
            }
            _ => out.push(FieldError::invalid(
                format!("{p}.operator"),
                &text(&e["operator"]).into(),
                "not a valid selector operator",
            )),
        }
        out.extend(invalid_each(
            &format!("{p}.key"),
            &e["key"],
            names::qualified_name(text(&e["key"])),
        ));
        for (j, v) in values.iter().enumerate() {
            out.extend(invalid_each(
                &format!("{p}.values[{j}]"),
                v,
                names::label_value(text(v)),
            ));
        }
    }
    out
}
