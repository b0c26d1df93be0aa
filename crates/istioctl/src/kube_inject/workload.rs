//! Where pods are in workloads, and what becomes of them.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::written;

/// The kinds that are looked at; everything else is copied as it is.
const KINDS: [(&str, &str); 9] = [
    ("v1", "ReplicationController"),
    ("v1", "Pod"),
    ("v1", "List"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "ReplicaSet"),
    ("apps/v1", "StatefulSet"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
];

/// Whether an object is, or has, something with pods.
pub(super) fn is_known(object: &Value) -> bool {
    KINDS
        .iter()
        .any(|(version, kind)| object["apiVersion"] == *version && object["kind"] == *kind)
}

/// Puts the sidecar into a workload; `warnings` tells what was left alone.
pub(super) async fn inject(
    object: &mut Value,
    patch: &impl AsyncFn(&Value, &str) -> Result<Option<Value>>,
    warnings: &mut Vec<String>,
) -> Result<()> {
    if object["kind"] != "List" {
        return one(object, patch, warnings).await;
    }
    for item in written::items(object, "items") {
        if is_known(item) {
            Box::pin(inject(item, patch, warnings)).await?;
        }
    }
    written::metadata(object);
    Ok(())
}

async fn one(
    object: &mut Value,
    patch: &impl AsyncFn(&Value, &str) -> Result<Option<Value>>,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    if kind == "ReplicationController" && !object["spec"]["template"].is_object() {
        bail!("spec.template is required value");
    }
    written::as_typed(object);
    let (metadata, spec) = places(&kind);
    let text = |place: &str, field: &str| {
        let value = object.pointer(&format!("{place}/{field}"));
        value.and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let or = |first: String, second: String| if first.is_empty() { second } else { first };
    let own = text("/metadata", "namespace");
    let name = or(text(metadata, "name"), text("/metadata", "name"));
    let namespace = or(text(metadata, "namespace"), own.clone());
    let shown = if own.is_empty() {
        name
    } else {
        format!("{own}/{name}")
    };
    let mut left = |why: &str| {
        warnings.push(format!(
            "===> Skipping injection because {kind} {shown:?} has {why}\n"
        ));
    };
    let of = |place: &str| object.pointer(place).cloned().unwrap_or(json!({}));
    let pod = json!({"metadata": of(metadata), "spec": of(spec)});
    if pod["spec"]["hostNetwork"] == true {
        left("host networking enabled");
        return Ok(());
    }
    let Some(patch) = patch(&pod, &namespace).await? else {
        left("sidecar injection disabled");
        return Ok(());
    };
    let patched = match api::patch::json(&pod, &patch) {
        Ok(patched) => patched,
        Err(error) => bail!(
            "the webhook's patch does not fit the pod: {}",
            error.message
        ),
    };
    for (place, field) in [(metadata, "metadata"), (spec, "spec")] {
        if let Some(value) = object.pointer_mut(place) {
            *value = patched[field].clone();
        }
    }
    written::as_typed(object);
    Ok(())
}

/// Where the metadata and the spec of pods are. Of a CronJob Istio takes the metadata of its jobs.
fn places(kind: &str) -> (&'static str, &'static str) {
    match kind {
        "Pod" => ("/metadata", "/spec"),
        "CronJob" => (
            "/spec/jobTemplate/metadata",
            "/spec/jobTemplate/spec/template/spec",
        ),
        _ => ("/spec/template/metadata", "/spec/template/spec"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube_inject::Injected;

    /// What comes of a file when the webhook adds a label, but not in a system namespace.
    fn injected(text: &str) -> Injected {
        let patch = async |pod: &Value, namespace: &str| {
            assert!(pod["spec"].is_object(), "{pod}");
            Ok((namespace != "kube-system").then(
                || json!([{"op": "add", "path": "/metadata/labels", "value": {"seen": namespace}}]),
            ))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime
            .unwrap()
            .block_on(Injected::of(text, patch))
            .unwrap()
    }

    #[test]
    fn only_workloads_are_changed_and_the_rest_is_copied_as_it_is() {
        let text = "# comment\napiVersion: v1\nkind: Service\nmetadata: {name: s}\n---\napiVersion: v1\nkind: Pod\n\
                    metadata: {name: p, namespace: a}\nspec: {containers: [{name: c}]}\n";
        assert_eq!(
            injected(text).text,
            "# comment\napiVersion: v1\nkind: Service\nmetadata: {name: s}\n---\n\
             apiVersion: v1\nkind: Pod\nmetadata:\n  labels:\n    seen: a\n  name: p\n  namespace: a\n\
             spec:\n  containers:\n  - name: c\n    resources: {}\nstatus: {}\n---\n"
        );
    }

    #[test]
    fn what_is_left_alone_is_told_and_written_all_the_same() {
        let text = "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: d}\nspec: {template: {spec: {hostNetwork: true}}}\n---\n\
                    apiVersion: batch/v1\nkind: Job\nmetadata: {name: j, namespace: kube-system}\nspec: {template: {spec: {}}}\n";
        let injected = injected(text);
        assert_eq!(
            injected.warnings,
            [
                "===> Skipping injection because DaemonSet \"d\" has host networking enabled\n",
                "===> Skipping injection because Job \"kube-system/j\" has sidecar injection disabled\n"
            ]
        );
        assert_eq!(injected.text.matches("---\n").count(), 2);
    }

    #[test]
    fn lists_are_opened_and_cron_jobs_carry_the_metadata_of_their_jobs() {
        let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: m}}\n\
                    - apiVersion: batch/v1\n  kind: CronJob\n  metadata: {name: c, namespace: b}\n  spec:\n    schedule: '* * * * *'\n    \
                    jobTemplate: {spec: {template: {spec: {containers: []}}}}\n";
        let text = injected(text).text;
        assert!(
            text.contains(
                "    jobTemplate:\n      metadata:\n        labels:\n          seen: b\n"
            ),
            "{text}"
        );
        assert!(text.ends_with("kind: List\nmetadata: {}\n---\n"), "{text}");
    }

    #[test]
    fn what_was_done_before_an_error_is_kept() {
        let injected = injected("apiVersion: v1\nkind: ConfigMap\n---\nkind: [\n");
        assert_eq!(injected.text, "apiVersion: v1\nkind: ConfigMap\n---\n");
        let error = injected.error.map(|error| error.to_string());
        assert_eq!(
            error.as_deref(),
            Some("error converting YAML to JSON: yaml: line 1: did not find expected node content")
        );
    }
}
