//! Defaults of the built-in kinds, and schema defaults of custom resources.
//!
//! Measured against a real kube-apiserver 1.32 (`tests/data/create.json`). What depends on the cluster (cluster IPs,
//! priorities, service account volumes) is admission, not a default.

mod autoscaling;
mod flowcontrol;
mod pod;
mod schema_defaults;
mod storage;

use crate::meta;
use crate::schema::ObjectSchema;
use serde_json::{Map, Value, json};

/// Sets a member when it is absent or null.
fn set(v: &mut Value, key: &str, default: impl Into<Value>) {
    if let Some(m) = v.as_object_mut()
        && m.get(key).is_none_or(Value::is_null)
    {
        m.insert(key.to_string(), default.into());
    }
}

/// Sets a string member when it is absent, null or empty.
fn set_text(v: &mut Value, key: &str, default: &str) {
    if v[key].as_str().unwrap_or("").is_empty() {
        meta_insert(v, key, default.into());
    }
}

fn meta_insert(v: &mut Value, key: &str, value: Value) {
    if let Some(m) = v.as_object_mut() {
        m.insert(key.to_string(), value);
    }
}

/// The entries of a list member, or none.
fn list_mut<'a>(v: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    v.get_mut(key)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// A struct member that is there.
fn some_mut<'a>(v: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    v.get_mut(key).filter(|m| m.is_object())
}

/// Fills in what the real API server fills in. Idempotent: run it after decoding, after a patch and after admission.
pub fn apply(schema: &ObjectSchema, obj: &mut Value) {
    if !schema.builtin {
        schema_defaults::apply(schema, obj);
        return;
    }
    match (schema.group.as_str(), schema.kind.as_str()) {
        ("", "Pod") => {
            if let Some(spec) = some_mut(obj, "spec") {
                pod::spec(spec);
                pod::only_pods(spec);
            }
        }
        ("apps", "Deployment") => deployment(obj),
        ("apps", "ReplicaSet") => {
            let spec = struct_mut(obj, "spec");
            set(spec, "replicas", 1);
            template(spec);
        }
        ("apps", "StatefulSet") => stateful_set(obj),
        ("apps", "DaemonSet") => daemon_set(obj),
        ("", "ReplicationController") => replication_controller(obj),
        ("", "PersistentVolume") => storage::volume(obj),
        ("", "PersistentVolumeClaim") => storage::claim(obj),
        ("storage.k8s.io", "StorageClass") => {
            set(obj, "reclaimPolicy", "Delete");
            set(obj, "volumeBindingMode", "Immediate");
        }
        ("storage.k8s.io", "CSIDriver") => storage::driver(obj),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => flowcontrol::schema(obj),
        ("flowcontrol.apiserver.k8s.io", _) => flowcontrol::level(obj),
        ("apiregistration.k8s.io", "APIService") => flowcontrol::api_service(obj),
        ("", "PodTemplate") => template(obj),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaling::apply(schema, obj),
        ("", "LimitRange") => limit_range(obj),
        ("scheduling.k8s.io", "PriorityClass") => {
            set(obj, "preemptionPolicy", "PreemptLowerPriority");
        }
        ("batch", "Job") => job(obj),
        ("batch", "CronJob") => cron_job(obj),
        ("", "Service") => service(obj),
        ("", "Secret") => secret(obj),
        ("", "Node") => {
            if let Some(status) = some_mut(obj, "status")
                && status["allocatable"].is_null()
                && status["capacity"].is_object()
            {
                let capacity = status["capacity"].clone();
                meta_insert(status, "allocatable", capacity);
            }
        }
        ("", "Namespace") => {
            // The name as a label, so that selectors can choose a namespace by name.
            let name = meta::name(obj).to_string();
            if !name.is_empty() {
                let labels = meta::metadata_mut(obj)
                    .entry("labels")
                    .or_insert_with(|| Value::Object(Map::new()));
                meta_insert(labels, "kubernetes.io/metadata.name", name.into());
            }
        }
        ("", "Endpoints") => {
            for subset in list_mut(obj, "subsets") {
                list_mut(subset, "ports").for_each(|p| set_text(p, "protocol", "TCP"));
            }
        }
        ("discovery.k8s.io", "EndpointSlice") => {
            for p in list_mut(obj, "ports") {
                set(p, "name", "");
                set(p, "protocol", "TCP");
            }
        }
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            set_text(struct_mut(obj, "roleRef"), "apiGroup", RBAC);
            for s in list_mut(obj, "subjects") {
                if s["kind"] == "User" || s["kind"] == "Group" {
                    set_text(s, "apiGroup", RBAC);
                }
            }
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => {
            let spec = struct_mut(obj, "spec");
            set(spec, "failurePolicy", "Fail");
            if let Some(m) = some_mut(spec, "matchConstraints") {
                match_resources(m);
            }
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding") => {
            let spec = struct_mut(obj, "spec");
            if let Some(m) = some_mut(spec, "matchResources") {
                match_resources(m);
            }
        }
        ("networking.k8s.io", "IngressClass") => {
            let spec = struct_mut(obj, "spec");
            if let Some(p) = some_mut(spec, "parameters") {
                set(p, "scope", "Cluster");
            }
        }
        ("admissionregistration.k8s.io", kind) => {
            for w in list_mut(obj, "webhooks") {
                webhook(w, kind == "MutatingWebhookConfiguration");
            }
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => crd(obj),
        ("authentication.k8s.io", "TokenRequest") => {
            set(struct_mut(obj, "spec"), "expirationSeconds", 3600)
        }
        _ => {}
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// A struct that Go always has, created when absent.
fn struct_mut<'a>(v: &'a mut Value, key: &str) -> &'a mut Value {
    if let Some(m) = v.as_object_mut() {
        let slot = m.entry(key.to_string()).or_insert(Value::Null);
        if slot.is_null() {
            *slot = json!({});
        }
    }
    &mut v[key]
}

fn template(spec: &mut Value) {
    let template = struct_mut(spec, "template");
    set_null_time(struct_mut(template, "metadata"));
    pod::spec(struct_mut(template, "spec"));
}

/// The creation time of a template's metadata, which is never set, is written as null.
fn set_null_time(metadata: &mut Value) {
    if let Some(m) = metadata.as_object_mut() {
        m.entry("creationTimestamp").or_insert(Value::Null);
    }
}

fn deployment(obj: &mut Value) {
    let spec = struct_mut(obj, "spec");
    set(spec, "replicas", 1);
    let strategy = struct_mut(spec, "strategy");
    set_text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = struct_mut(strategy, "rollingUpdate");
        set(rolling, "maxUnavailable", "25%");
        set(rolling, "maxSurge", "25%");
    }
    set(spec, "revisionHistoryLimit", 10);
    set(spec, "progressDeadlineSeconds", 600);
    template(spec);
}

fn stateful_set(obj: &mut Value) {
    let spec = struct_mut(obj, "spec");
    set(spec, "replicas", 1);
    set(spec, "revisionHistoryLimit", 10);
    set_text(spec, "podManagementPolicy", "OrderedReady");
    let strategy = struct_mut(spec, "updateStrategy");
    set_text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        set(struct_mut(strategy, "rollingUpdate"), "partition", 0);
    }
    let retention = struct_mut(spec, "persistentVolumeClaimRetentionPolicy");
    set_text(retention, "whenDeleted", "Retain");
    set_text(retention, "whenScaled", "Retain");
    for claim in list_mut(spec, "volumeClaimTemplates") {
        set_text(claim, "apiVersion", "v1");
        set_text(claim, "kind", "PersistentVolumeClaim");
        set_null_time(struct_mut(claim, "metadata"));
        storage::claim(claim);
    }
    template(spec);
}

fn daemon_set(obj: &mut Value) {
    let spec = struct_mut(obj, "spec");
    let strategy = struct_mut(spec, "updateStrategy");
    set_text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = struct_mut(strategy, "rollingUpdate");
        set(rolling, "maxUnavailable", 1);
        set(rolling, "maxSurge", 0);
    }
    set(spec, "revisionHistoryLimit", 10);
    template(spec);
    meta::map_mut(struct_mut(obj, "metadata"), "annotations")
        .entry(meta::TEMPLATE_GENERATION)
        .or_insert_with(|| "1".into());
}

fn replication_controller(obj: &mut Value) {
    let spec = struct_mut(obj, "spec");
    set(spec, "replicas", 1);
    if spec["template"].is_object() {
        template(spec);
    }
    let own = spec["template"]["metadata"]["labels"].clone();
    if own.as_object().is_some_and(|labels| !labels.is_empty()) {
        // What is not said is taken from the pods' labels.
        if spec["selector"].as_object().is_none_or(Map::is_empty) {
            meta_insert(spec, "selector", own.clone());
        }
        if meta::labels(obj).next().is_none() {
            meta::set(obj, "labels", own);
        }
    }
}

fn limit_range(obj: &mut Value) {
    let spec = struct_mut(obj, "spec");
    for limit in list_mut(spec, "limits") {
        if limit["type"] != "Container" {
            continue;
        }
        // A maximum is the default limit; a default limit, then a minimum, is the default request.
        for (from, to) in [
            ("max", "default"),
            ("default", "defaultRequest"),
            ("min", "defaultRequest"),
        ] {
            for (resource, amount) in limit[from].as_object().cloned().unwrap_or_default() {
                set(struct_mut(limit, to), &resource, amount);
            }
        }
    }
}

fn cron_job(obj: &mut Value) {
    let spec = struct_mut(obj, "spec");
    set_text(spec, "concurrencyPolicy", "Allow");
    set(spec, "suspend", false);
    set(spec, "successfulJobsHistoryLimit", 3);
    set(spec, "failedJobsHistoryLimit", 1);
    let jobs = struct_mut(spec, "jobTemplate");
    set_null_time(struct_mut(jobs, "metadata"));
    template(struct_mut(jobs, "spec"));
}

fn job(obj: &mut Value) {
    let spec = struct_mut(obj, "spec");
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        set(spec, "completions", 1);
    }
    set(spec, "parallelism", 1);
    set(
        spec,
        "backoffLimit",
        if spec["backoffLimitPerIndex"].is_null() {
            6
        } else {
            i32::MAX
        },
    );
    set(spec, "completionMode", "NonIndexed");
    set(spec, "suspend", false);
    set(spec, "manualSelector", false);
    let replacement = if spec["podFailurePolicy"].is_null() {
        "TerminatingOrFailed"
    } else {
        "Failed"
    };
    set(spec, "podReplacementPolicy", replacement);
    template(spec);
}

fn service(obj: &mut Value) {
    let spec = struct_mut(obj, "spec");
    set_text(spec, "sessionAffinity", "None");
    if spec["sessionAffinity"] == "None" {
        if let Some(m) = spec.as_object_mut() {
            m.shift_remove("sessionAffinityConfig");
        }
    } else if spec["sessionAffinity"] == "ClientIP" {
        let config = struct_mut(spec, "sessionAffinityConfig");
        set(struct_mut(config, "clientIP"), "timeoutSeconds", 10800);
    }
    set_text(spec, "type", "ClusterIP");
    for p in list_mut(spec, "ports") {
        set_text(p, "protocol", "TCP");
        if p["targetPort"].is_null() || p["targetPort"] == 0 || p["targetPort"] == "" {
            let port = p["port"].clone();
            if !port.is_null() {
                meta_insert(p, "targetPort", port);
            }
        }
    }
    let kind = spec["type"].as_str().unwrap_or("").to_string();
    let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer");
    if external
        || spec["externalIPs"]
            .as_array()
            .is_some_and(|l| !l.is_empty())
    {
        set_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if external || kind == "ClusterIP" {
        set(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", true);
    }
}

fn secret(obj: &mut Value) {
    use base64::Engine;
    // Plain strings are only ever written; they win over encoded ones.
    if let Some(Value::Object(plain)) = obj
        .as_object_mut()
        .and_then(|m| m.shift_remove("stringData"))
    {
        let data = struct_mut(obj, "data");
        for (k, v) in plain {
            let text = v.as_str().unwrap_or("");
            meta_insert(
                data,
                &k,
                base64::engine::general_purpose::STANDARD
                    .encode(text)
                    .into(),
            );
        }
    }
    set_text(obj, "type", "Opaque");
}

fn webhook(w: &mut Value, mutating: bool) {
    set(w, "failurePolicy", "Fail");
    set(w, "matchPolicy", "Equivalent");
    set(w, "namespaceSelector", json!({}));
    set(w, "objectSelector", json!({}));
    set(w, "timeoutSeconds", 10);
    if mutating {
        set(w, "reinvocationPolicy", "Never");
    }
    list_mut(w, "rules").for_each(|r| set(r, "scope", "*"));
    if let Some(service) = some_mut(w, "clientConfig").and_then(|c| some_mut(c, "service")) {
        set(service, "port", 443);
    }
}

fn match_resources(m: &mut Value) {
    set(m, "matchPolicy", "Equivalent");
    set(m, "namespaceSelector", json!({}));
    set(m, "objectSelector", json!({}));
    for rules in ["resourceRules", "excludeResourceRules"] {
        list_mut(m, rules).for_each(|r| set(r, "scope", "*"));
    }
}

fn crd(obj: &mut Value) {
    let spec = struct_mut(obj, "spec");
    let names = struct_mut(spec, "names");
    let kind = names["kind"].as_str().unwrap_or("").to_string();
    if !kind.is_empty() {
        set_text(names, "singular", &kind.to_lowercase());
        set_text(names, "listKind", &format!("{kind}List"));
    }
    let conversion = struct_mut(spec, "conversion");
    set_text(conversion, "strategy", "None");
    if let Some(service) = some_mut(conversion, "webhook")
        .and_then(|w| some_mut(w, "clientConfig"))
        .and_then(|c| some_mut(c, "service"))
    {
        set(service, "port", 443);
    }
}
