//! Defaults of pods and pod templates.

use super::{list_mut, meta_insert, set, set_text, some_mut};
use serde_json::{Map, Value, json};

/// What pods and templates share.
pub fn spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        list_mut(spec, list).for_each(container);
    }
    set_text(spec, "restartPolicy", "Always");
    set(spec, "terminationGracePeriodSeconds", 30);
    set_text(spec, "dnsPolicy", "ClusterFirst");
    set(spec, "securityContext", json!({}));
    set_text(spec, "schedulerName", "default-scheduler");
    // The deprecated name of the field says the same.
    let account = ["serviceAccountName", "serviceAccount"]
        .iter()
        .find_map(|k| spec[*k].as_str().filter(|s| !s.is_empty()))
        .map(String::from);
    if let Some(account) = account {
        meta_insert(spec, "serviceAccountName", account.clone().into());
        meta_insert(spec, "serviceAccount", account.into());
    }
    list_mut(spec, "volumes").for_each(volume);
}

/// What pods get and templates do not.
pub fn only_pods(spec: &mut Value) {
    set(spec, "enableServiceLinks", true);
    let host_network = spec["hostNetwork"] == true;
    for list in ["initContainers", "containers"] {
        for c in list_mut(spec, list) {
            for p in list_mut(c, "ports") {
                if host_network && p["hostPort"].as_i64().unwrap_or(0) == 0 {
                    let port = p["containerPort"].clone();
                    meta_insert(p, "hostPort", port);
                }
            }
            let Some(limits) = c["resources"]["limits"].as_object().cloned() else {
                continue;
            };
            let resources = &mut c["resources"];
            if !resources["requests"].is_object() {
                resources["requests"] = Value::Object(Map::new());
            }
            for (k, v) in limits {
                set(&mut resources["requests"], &k, v);
            }
        }
    }
}

fn container(c: &mut Value) {
    set(c, "resources", json!({}));
    set_text(c, "terminationMessagePath", "/dev/termination-log");
    set_text(c, "terminationMessagePolicy", "File");
    let policy = if is_latest(c["image"].as_str().unwrap_or("")) {
        "Always"
    } else {
        "IfNotPresent"
    };
    set_text(c, "imagePullPolicy", policy);
    for p in list_mut(c, "ports") {
        set_text(p, "protocol", "TCP");
    }
    for e in list_mut(c, "env") {
        let Some(from) = some_mut(e, "valueFrom") else {
            continue;
        };
        if let Some(f) = some_mut(from, "fieldRef") {
            set_text(f, "apiVersion", "v1");
        }
        if let Some(f) = some_mut(from, "resourceFieldRef") {
            set(f, "divisor", "0");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(p) = some_mut(c, probe) else {
            continue;
        };
        for (k, v) in [
            ("timeoutSeconds", 1),
            ("periodSeconds", 10),
            ("successThreshold", 1),
            ("failureThreshold", 3),
        ] {
            if p[k].as_i64().unwrap_or(0) == 0 {
                meta_insert(p, k, v.into());
            }
        }
        if let Some(h) = some_mut(p, "httpGet") {
            http_get(h);
        }
        if let Some(g) = some_mut(p, "grpc") {
            set(g, "service", "");
        }
    }
    if let Some(l) = some_mut(c, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(h) = some_mut(l, hook).and_then(|h| some_mut(h, "httpGet")) {
                http_get(h);
            }
        }
    }
}

fn http_get(h: &mut Value) {
    set_text(h, "path", "/");
    set_text(h, "scheme", "HTTP");
}

/// The image's tag is `latest`, said or implied; a digest pins the image whatever the tag.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    // A colon before the last slash belongs to the registry's port.
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn volume(v: &mut Value) {
    let Some(m) = v.as_object_mut() else { return };
    if !m.iter().any(|(k, v)| k != "name" && !v.is_null()) {
        m.insert("emptyDir".into(), json!({}));
        return;
    }
    for kind in ["secret", "configMap", "downwardAPI", "projected"] {
        let Some(source) = some_mut(v, kind) else {
            continue;
        };
        set(source, "defaultMode", 420);
        list_mut(source, "items").for_each(downward_item);
        for s in list_mut(source, "sources") {
            if let Some(t) = some_mut(s, "serviceAccountToken") {
                set(t, "expirationSeconds", 3600);
            }
            if let Some(d) = some_mut(s, "downwardAPI") {
                list_mut(d, "items").for_each(downward_item);
            }
        }
    }
    if let Some(h) = some_mut(v, "hostPath") {
        set(h, "type", "");
    }
}

fn downward_item(item: &mut Value) {
    if let Some(f) = some_mut(item, "fieldRef") {
        set_text(f, "apiVersion", "v1");
    }
    if let Some(f) = some_mut(item, "resourceFieldRef") {
        set(f, "divisor", "0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_images_are_always_pulled() {
        for (image, latest) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("nginx:1.25", false),
            ("localhost:5000/x/nginx", true),
            ("localhost:5000/x/nginx:2", false),
            ("nginx@sha256:aa", false),
            ("nginx:latest@sha256:aa", false),
        ] {
            assert_eq!(is_latest(image), latest, "{image}");
        }
    }
}
