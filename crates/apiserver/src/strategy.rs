//! What the server itself writes into objects on their way in: identity, generation, initial
//! status, and who may change which half of an object. Kubernetes calls this a strategy.

use serde_json::{Map, Value, json};

use crate::registry::Resource;

/// Metadata only the server decides.
const SYSTEM: &[&str] = &[
    "uid",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// What is said to the author of an object of which something is kept but not carried out.
pub(crate) fn without_effect(r: &Resource, object: &Value) -> Option<&'static str> {
    const NO_AUDIT: &str =
        "there is no audit log: what this policy would write there is not recorded";
    match (r.group.as_str(), r.plural.as_str()) {
        ("networking.k8s.io", "ingresses") => {
            let class = &object["metadata"]["annotations"]["kubernetes.io/ingress.class"];
            let named = class == "istio"
                || class.is_null() && object["spec"]["ingressClassName"].is_string();
            (!named).then_some(
                "nothing acts on this Ingress: the annotation kubernetes.io/ingress.class: istio, or an IngressClass with the controller istio.io/ingress-controller, leads it to the ingress gateway",
            )
        }
        ("networking.k8s.io", "ingressclasses") => {
            (object["spec"]["controller"] != "istio.io/ingress-controller").then_some(
                "no controller of this name runs in this cluster: Ingresses of this class are kept and nothing acts on them; there is istio.io/ingress-controller",
            )
        }
        ("storage.k8s.io", "csidrivers" | "csinodes" | "csistoragecapacities" | "volumeattachments") => Some(
            "no CSI driver runs on the nodes of this cluster: the object is kept and nothing acts on it",
        ),
        ("storage.k8s.io", "storageclasses") => {
            let known = [api::storage::PROVISIONER, api::storage::NO_PROVISIONER];
            (!known.iter().any(|p| object["provisioner"] == *p)).then_some(
                "nothing in this cluster makes volumes for this provisioner: claims of this class wait until somebody makes a volume for them",
            )
        }
        ("", "persistentvolumes") => (object["spec"]["hostPath"].is_null()
            && object["spec"]["local"].is_null())
        .then_some(
            "the nodes of this cluster mount volumes of the types hostPath and local only: a pod that uses this one will not start",
        ),
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => {
            object["spec"]["auditAnnotations"]
                .as_array()
                .is_some_and(|all| !all.is_empty())
                .then_some(NO_AUDIT)
        }
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings") => {
            object["spec"]["validationActions"]
                .as_array()
                .is_some_and(|all| all.iter().any(|action| action == "Audit"))
                .then_some(NO_AUDIT)
        }
        _ => None,
    }
}

/// Kinds whose `metadata.generation` counts changes of what is wanted.
fn counts_generations(r: &Resource) -> bool {
    if r.custom.is_some() {
        return true;
    }
    matches!(
        (r.group.as_str(), r.plural.as_str()),
        (
            "apps" | "batch" | "policy" | "networking.k8s.io" | "discovery.k8s.io",
            _
        ) | ("admissionregistration.k8s.io" | "apiextensions.k8s.io", _)
            | ("", "replicationcontrollers" | "podtemplates")
            | ("scheduling.k8s.io", "priorityclasses")
            | (api::flowcontrol::GROUP, _)
    ) && !matches!(r.plural.as_str(), "controllerrevisions")
}

/// Kinds whose creator may not set a status.
fn status_is_cleared(r: &Resource) -> bool {
    match &r.custom {
        Some(custom) => custom.status,
        None => r.has("status") && !r.is("", "nodes"),
    }
}

/// Is something else wanted than before? That is a new generation.
fn wants_another(r: &Resource, new: &Value, old: &Value) -> bool {
    let keeps_status = r.custom.as_ref().is_some_and(|c| !c.status);
    let said = |key: &str| {
        !matches!(key, "kind" | "apiVersion" | "metadata") && (key != "status" || keeps_status)
    };
    let other = |one: &Value, two: &Value| {
        one.as_object()
            .into_iter()
            .flatten()
            .any(|(k, v)| said(k) && two.get(k) != Some(v))
    };
    other(new, old)
        || other(old, new)
        || r.is("apps", "deployments")
            && new["metadata"]["annotations"] != old["metadata"]["annotations"]
}

/// Fills in what a new object gets from the server.
pub(crate) fn prepare_create(r: &Resource, object: &mut Value, uid: &str, now: &str) {
    for field in SYSTEM.iter().chain(&["resourceVersion", "selfLink"]) {
        api::meta::unset(object, field);
    }
    if !r.namespaced {
        api::meta::unset(object, "namespace");
    }
    api::meta::set(object, "uid", uid);
    api::meta::set(object, "creationTimestamp", now);
    if counts_generations(r) {
        api::meta::set(object, "generation", 1);
    }
    if status_is_cleared(r)
        && let Some(map) = object.as_object_mut()
    {
        map.shift_remove("status");
    }
    match (r.group.as_str(), r.plural.as_str()) {
        ("", "namespaces") => {
            object["status"] = json!({"phase": "Active"});
            let finalizers = &mut object["spec"]["finalizers"];
            let mut list = finalizers.as_array().cloned().unwrap_or_default();
            if !list.iter().any(|f| f == "kubernetes") {
                list.push("kubernetes".into());
            }
            *finalizers = list.into();
            let name = api::meta::name(object).to_owned();
            label_namespace(object, &name);
        }
        ("", "pods") => {
            let class = qos_class(&object["spec"]);
            object["status"] = json!({"phase": "Pending", "qosClass": class});
        }
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => {
            object["status"] = json!({});
        }
        ("networking.k8s.io", "ingresses") => object["status"] = json!({"loadBalancer": {}}),
        ("", "services") => object["status"] = json!({"loadBalancer": {}}),
        ("apps", _) if r.has("status") => {
            // The real server leaves zero counts out, except where the type requires them.
            object["status"] = match r.plural.as_str() {
                "replicasets" => json!({"replicas": 0}),
                "statefulsets" => json!({"replicas": 0, "availableReplicas": 0}),
                "daemonsets" => json!({
                    "currentNumberScheduled": 0, "numberMisscheduled": 0,
                    "desiredNumberScheduled": 0, "numberReady": 0,
                }),
                _ => json!({}),
            };
        }
        ("", "persistentvolumes") => {
            object["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": now});
        }
        ("", "persistentvolumeclaims") => object["status"] = json!({"phase": "Pending"}),
        (crate::aggregation::GROUP, _) => {
            object["status"] = if object["spec"]["service"].is_null() {
                crate::api_services::local_status(now)
            } else {
                json!({})
            };
        }
        ("certificates.k8s.io" | api::flowcontrol::GROUP, _) => object["status"] = json!({}),
        ("autoscaling", _) => {
            object["status"] = match r.version.as_str() {
                "v1" => json!({"currentReplicas": 0, "desiredReplicas": 0}),
                _ => json!({"desiredReplicas": 0, "currentMetrics": null}),
            };
        }
        ("", "replicationcontrollers") => object["status"] = json!({"replicas": 0}),
        ("", "resourcequotas") | ("batch", "cronjobs") => object["status"] = json!({}),
        ("policy", "poddisruptionbudgets") => {
            object["status"] = json!({
                "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0,
            });
        }
        ("batch", "jobs") => {
            object["status"] = json!({});
            select_pods_of_job(object, uid);
        }
        _ => {}
    }
    mirror_addresses(r, object);
}

/// A job finds its pods by its own uid, unless its author says how.
fn select_pods_of_job(job: &mut Value, uid: &str) {
    if job["spec"]["manualSelector"] == true || !job["spec"]["template"].is_object() {
        return;
    }
    let name = api::meta::name(job).to_owned();
    let labels = api::meta::map_mut(api_template_metadata(job), "labels");
    for (key, value) in [("controller-uid", uid), ("job-name", name.as_str())] {
        labels.insert(key.to_owned(), value.into());
        labels.insert(format!("batch.kubernetes.io/{key}"), value.into());
    }
    let all = Value::Object(labels.clone());
    job["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"] = uid.into();
    if api::meta::labels(job).next().is_none() {
        api::meta::set(job, "labels", all);
    }
}

fn api_template_metadata(job: &mut Value) -> &mut Value {
    let metadata = &mut job["spec"]["template"]["metadata"];
    if !metadata.is_object() {
        *metadata = json!({});
    }
    metadata
}

/// Old and new form of an address are kept alike, whichever one the writer knows.
fn mirror_addresses(r: &Resource, object: &mut Value) {
    let pairs = match (r.group.as_str(), r.plural.as_str()) {
        ("", "pods") => ("status", "podIP", "podIPs"),
        ("", "nodes") => ("spec", "podCIDR", "podCIDRs"),
        _ => return,
    };
    let (half, one, many) = pairs;
    let Some(map) = object.get_mut(half).and_then(Value::as_object_mut) else {
        return;
    };
    let wrap = |v: &str| {
        if half == "status" {
            json!({"ip": v})
        } else {
            json!(v)
        }
    };
    let first = |list: &Value| {
        list[0]["ip"]
            .as_str()
            .or_else(|| list[0].as_str())
            .unwrap_or("")
            .to_owned()
    };
    let single = map
        .get(one)
        .and_then(Value::as_str)
        .unwrap_or("")
        .to_owned();
    let leading = map.get(many).map(first).unwrap_or_default();
    if single.is_empty() && !leading.is_empty() {
        map.insert(one.into(), leading.into());
    } else if !single.is_empty() && single != leading {
        map.insert(many.into(), json!([wrap(&single)]));
    }
}

/// Every namespace carries its own name as a label, so that selectors can name it.
pub(crate) fn label_namespace(object: &mut Value, name: &str) {
    let meta = api::meta::metadata_mut(object);
    let labels = meta
        .entry("labels")
        .or_insert_with(|| Value::Object(Map::new()));
    if let Some(labels) = labels.as_object_mut() {
        labels.insert("kubernetes.io/metadata.name".into(), name.into());
    }
}

/// The quality-of-service class of a pod: by the requests and limits of its containers.
pub(crate) fn qos_class(spec: &Value) -> &'static str {
    let mut guaranteed = true;
    let mut any = false;
    for list in ["initContainers", "containers"] {
        for c in spec[list].as_array().into_iter().flatten() {
            let res = &c["resources"];
            for name in ["cpu", "memory"] {
                let limit = &res["limits"][name];
                let request = &res["requests"][name];
                any |= !limit.is_null() || !request.is_null();
                guaranteed &= !limit.is_null() && (request.is_null() || request == limit);
            }
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn copy_field(to: &mut Value, from: &Value, field: &str) {
    if let Some(map) = to.as_object_mut() {
        match from.get(field) {
            Some(v) => {
                map.insert(field.into(), v.clone());
            }
            None => {
                map.shift_remove(field);
            }
        }
    }
}

/// Carries over what an update may not change, and counts the generation.
///
/// `subresource` is empty for the object itself; an update of `status` keeps everything else.
pub(crate) fn prepare_update(r: &Resource, object: &mut Value, old: &Value, subresource: &str) {
    let empty = Map::new();
    let old_meta = old["metadata"].as_object().unwrap_or(&empty);
    if subresource == "status" {
        let status = object.get_mut("status").map(Value::take);
        let meta = object["metadata"].take();
        let mut kept = old.clone();
        if let Some(map) = kept.as_object_mut() {
            match status {
                Some(status) => map.insert("status".into(), status),
                None => map.shift_remove("status"),
            };
        }
        if r.custom.is_none() {
            // Built-in kinds let labels, annotations and finalizers through with the status.
            let owners = kept["metadata"].get("ownerReferences").cloned();
            kept["metadata"] = meta;
            let kept_meta = api::meta::metadata_mut(&mut kept);
            match owners {
                Some(o) => kept_meta.insert("ownerReferences".into(), o),
                None => kept_meta.shift_remove("ownerReferences"),
            };
            if r.is("apps", "deployments") {
                // Except these, whose labels others go by.
                match old_meta.get("labels") {
                    Some(labels) => kept_meta.insert("labels".into(), labels.clone()),
                    None => kept_meta.shift_remove("labels"),
                };
            }
        } else if let Some(fields) = meta.get("managedFields") {
            api::meta::set(&mut kept, "managedFields", fields.clone());
        }
        *object = kept;
        if r.is("certificates.k8s.io", "certificatesigningrequests") {
            date_conditions(object, old);
        }
    } else if subresource == "approval" {
        // Nothing but who approved or denied, and what people write on it.
        let conditions = object["status"]["conditions"].clone();
        let mut kept = old.clone();
        kept["metadata"] = object["metadata"].clone();
        if conditions.is_array() {
            kept["status"]["conditions"] = conditions;
        }
        *object = kept;
        date_conditions(object, old);
    } else if subresource == "ephemeralcontainers" {
        // Nothing but containers that are added.
        let added = object["spec"]["ephemeralContainers"].clone();
        let fields = object["metadata"]["managedFields"].clone();
        *object = old.clone();
        if added.is_array() {
            object["spec"]["ephemeralContainers"] = added;
        }
        if !fields.is_null() {
            api::meta::set(object, "managedFields", fields);
        }
    } else if subresource.is_empty() {
        let keep_status = match &r.custom {
            Some(custom) => custom.status,
            None => r.has("status"),
        };
        if keep_status {
            copy_field(object, old, "status");
        }
        if r.is("certificates.k8s.io", "certificatesigningrequests") {
            // What was asked for stays what was asked for.
            copy_field(object, old, "spec");
        }
        if r.is("", "namespaces") {
            copy_field(object, old, "spec");
            let name = api::meta::name(old).to_owned();
            label_namespace(object, &name);
        }
    }
    let meta = api::meta::metadata_mut(object);
    for field in SYSTEM {
        match old_meta.get(*field) {
            Some(v) => {
                meta.insert((*field).into(), v.clone());
            }
            None => {
                meta.shift_remove(*field);
            }
        }
    }
    meta.shift_remove("selfLink");
    if old_meta.contains_key("deletionTimestamp") {
        // Nobody may hold a dying object longer than those who asked before it died.
        let allowed: Vec<&Value> = old_meta
            .get("finalizers")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .collect();
        if let Some(list) = meta.get_mut("finalizers").and_then(Value::as_array_mut) {
            list.retain(|f| allowed.contains(&f));
        }
    }
    mirror_addresses(r, object);
    if counts_generations(r) && subresource != "status" && wants_another(r, object, old) {
        let next = api::meta::generation(old) + 1;
        api::meta::set(object, "generation", next);
    }
}

/// Counts the templates of a DaemonSet, in the annotation that old clients look at. Nobody owns that count, so it is set when all else is
/// settled.
pub(crate) fn count_templates(r: &Resource, object: &mut Value, old: &Value) {
    if !r.is("apps", "daemonsets") {
        return;
    }
    let mut count: i64 = api::meta::annotation(old, api::meta::TEMPLATE_GENERATION)
        .and_then(|count| count.parse().ok())
        .unwrap_or(1);
    if object["spec"]["template"] != old["spec"]["template"] {
        count += 1;
    }
    api::meta::map_mut(&mut object["metadata"], "annotations").insert(
        api::meta::TEMPLATE_GENERATION.into(),
        count.to_string().into(),
    );
}

/// Times of a certificate request's conditions: of the change, where the writer names none.
fn date_conditions(object: &mut Value, old: &Value) {
    let now = crate::state::now();
    let before = old["status"]["conditions"].clone();
    let known =
        |kind: &Value| -> Option<&Value> { before.as_array()?.iter().find(|c| c["type"] == *kind) };
    for c in object["status"]["conditions"]
        .as_array_mut()
        .into_iter()
        .flatten()
    {
        let same = known(&c["type"]).filter(|b| b["status"] == c["status"]);
        if c["lastTransitionTime"].is_null() {
            c["lastTransitionTime"] = match same {
                Some(b) => b["lastTransitionTime"].clone(),
                None => now.clone().into(),
            };
        }
        if c["lastUpdateTime"].is_null() {
            c["lastUpdateTime"] = now.clone().into();
        }
    }
}

/// Is nothing of importance different? Such writes are answered without being written.
pub(crate) fn unchanged(new: &Value, old: &Value) -> bool {
    let (Some(a), Some(b)) = (new.as_object(), old.as_object()) else {
        return new == old;
    };
    let same_body = a.len() == b.len()
        && a.iter()
            .all(|(k, v)| k == "metadata" || b.get(k) == Some(v));
    same_body && same_metadata(&new["metadata"], &old["metadata"])
}

/// Is metadata the same but for the revision, and the times of managed fields?
fn same_metadata(new: &Value, old: &Value) -> bool {
    let counted = |meta: &Value| {
        meta.as_object()
            .map_or(0, |m| m.keys().filter(|k| *k != "resourceVersion").count())
    };
    let same = |key: &str, v: &Value| match key {
        "resourceVersion" => true,
        "managedFields" => same_managers(v, &old[key]),
        _ => old.get(key) == Some(v),
    };
    counted(new) == counted(old)
        && new
            .as_object()
            .into_iter()
            .flatten()
            .all(|(k, v)| same(k, v))
}

fn same_managers(new: &Value, old: &Value) -> bool {
    let (Some(a), Some(b)) = (new.as_array(), old.as_array()) else {
        return new == old;
    };
    let fields = [
        "manager",
        "operation",
        "apiVersion",
        "fieldsType",
        "fieldsV1",
        "subresource",
    ];
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|(x, y)| fields.iter().all(|field| x[field] == y[field]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(group: &str, plural: &str) -> std::sync::Arc<Resource> {
        let registry = crate::registry::Registry::build(std::iter::empty());
        registry.find(group, "v1", plural).unwrap().clone()
    }

    #[test]
    fn the_templates_of_a_daemon_set_are_counted_whatever_its_author_says() {
        let r = resource("apps", "daemonsets");
        let set = |count: &str, image: &str| {
            json!({"metadata": {"annotations": {api::meta::TEMPLATE_GENERATION: count}},
            "spec": {"template": {"image": image}}})
        };
        for (new, expected) in [(set("9", "a"), "3"), (set("3", "b"), "4")] {
            let mut new = new;
            count_templates(&r, &mut new, &set("3", "a"));
            assert_eq!(
                api::meta::annotation(&new, api::meta::TEMPLATE_GENERATION),
                Some(expected)
            );
        }
    }

    #[test]
    fn generation_counts_wishes_and_not_results() {
        let r = resource("apps", "deployments");
        let mut old =
            json!({"metadata": {"name": "a"}, "spec": {"replicas": 1}, "status": {"x": 1}});
        prepare_create(&r, &mut old, "u", "now");
        assert_eq!(old["metadata"]["generation"], 1);
        assert_eq!(old["status"], json!({}));
        let mut new = old.clone();
        new["spec"]["replicas"] = 2.into();
        new["status"] = json!({"forged": true});
        prepare_update(&r, &mut new, &old, "");
        assert_eq!(new["metadata"]["generation"], 2);
        assert_eq!(new["status"], json!({}));
        let mut status = old.clone();
        status["status"] = json!({"replicas": 1});
        status["spec"]["replicas"] = 9.into();
        prepare_update(&r, &mut status, &old, "status");
        assert_eq!(status["metadata"]["generation"], 1);
        assert_eq!(status["spec"]["replicas"], 1);
        assert_eq!(status["status"]["replicas"], 1);
    }

    #[test]
    fn authors_hear_what_is_not_carried_out() {
        let said = |group: &str, plural: &str, object: Value| {
            without_effect(&resource(group, plural), &object).is_some()
        };
        let ingress = |object: Value| said("networking.k8s.io", "ingresses", object);
        let annotated = |class: &str| json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": class}}});
        assert!(ingress(json!({})));
        assert!(ingress(annotated("nginx")));
        assert!(!ingress(annotated("istio")));
        assert!(!ingress(json!({"spec": {"ingressClassName": "istio"}})));
        let group = "admissionregistration.k8s.io";
        let binding = |actions: Value| json!({"spec": {"validationActions": actions}});
        let plural = "validatingadmissionpolicybindings";
        assert!(said(group, plural, binding(json!(["Deny", "Audit"]))));
        assert!(!said(group, plural, binding(json!(["Deny"]))));
        assert!(!said("apps", "deployments", json!({})));
    }

    #[test]
    fn labels_of_a_deployment_do_not_come_with_its_status() {
        let update = |group: &str, plural: &str| {
            let r = resource(group, plural);
            let old = json!({"metadata": {"name": "a", "labels": {"x": "old"}}, "spec": {}});
            let mut new = old.clone();
            new["metadata"]["labels"]["x"] = "new".into();
            prepare_update(&r, &mut new, &old, "status");
            new["metadata"]["labels"]["x"].clone()
        };
        assert_eq!(update("apps", "deployments"), "old");
        assert_eq!(update("apps", "replicasets"), "new");
    }

    #[test]
    fn a_job_finds_its_pods() {
        let r = resource("batch", "jobs");
        let mut job = json!({"metadata": {"name": "j"}, "spec": {"template": {"metadata": {"creationTimestamp": null}, "spec": {}}}});
        prepare_create(&r, &mut job, "u", "now");
        assert_eq!(
            job["spec"]["selector"]["matchLabels"],
            json!({"batch.kubernetes.io/controller-uid": "u"})
        );
        assert_eq!(
            job["spec"]["template"]["metadata"]["labels"]["job-name"],
            "j"
        );
        assert_eq!(
            job["metadata"]["labels"],
            job["spec"]["template"]["metadata"]["labels"]
        );
    }

    #[test]
    fn a_pod_has_its_address_in_both_forms() {
        let r = resource("", "pods");
        let old = json!({"metadata": {"name": "p"}, "status": {"phase": "Pending"}});
        let mut new = old.clone();
        new["status"]["podIP"] = "10.0.0.1".into();
        prepare_update(&r, &mut new, &old, "status");
        assert_eq!(new["status"]["podIPs"], json!([{"ip": "10.0.0.1"}]));
    }

    #[test]
    fn the_server_owns_identity() {
        let r = resource("", "configmaps");
        let mut o = json!({"metadata": {"name": "a", "uid": "mine", "deletionTimestamp": "x"}});
        prepare_create(&r, &mut o, "u", "now");
        assert_eq!(o["metadata"]["uid"], "u");
        assert!(o["metadata"].get("deletionTimestamp").is_none());
        let mut new = o.clone();
        new["metadata"]["uid"] = "other".into();
        prepare_update(&r, &mut new, &o, "");
        assert_eq!(new["metadata"]["uid"], "u");
        assert!(unchanged(&new, &o));
    }

    #[test]
    fn qos_follows_requests_and_limits() {
        let of = |r: Value| qos_class(&json!({"containers": [{"resources": r}]}));
        assert_eq!(of(json!({})), "BestEffort");
        assert_eq!(of(json!({"requests": {"cpu": "1"}})), "Burstable");
        assert_eq!(
            of(json!({"limits": {"cpu": "1", "memory": "1Gi"}})),
            "Guaranteed"
        );
    }
}
