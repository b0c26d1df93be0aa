//! Validation of Istio's objects: what the webhook answers to the API server. The rules are in `istio-validation`.

use api::istio::MeshConfig;
use serde_json::Value;

use super::review::Verdict;

/// Decides about a request. Theater's own limits follow Istio's warnings; some depend on the configuration of the mesh, once it is known.
#[must_use]
pub fn decide(request: &Value, mesh: Option<&MeshConfig>) -> Verdict {
    if !matches!(request["operation"].as_str(), Some("CREATE" | "UPDATE")) {
        return Verdict::Allow(Vec::new());
    }
    let verdict = istio_validation::validate(&request["object"]);
    match verdict.error {
        Some(why) => Verdict::Deny(why),
        None => {
            let mut warnings = verdict.warnings;
            warnings.extend(verdict.limits);
            let in_mesh =
                mesh.map(|mesh| istio_validation::limits_in_mesh(&request["object"], mesh));
            warnings.extend(in_mesh.into_iter().flatten());
            Verdict::Allow(warnings)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn mistakes_are_denied_and_warnings_travel_along() {
        let rule = |weight: i32| {
            json!({"operation": "CREATE", "object": {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
                "metadata": {"name": "v", "namespace": "n"},
                "spec": {"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}, "weight": weight}]}]}}})
        };
        assert_eq!(decide(&rule(1), None), Verdict::Allow(Vec::new()));
        assert_eq!(
            decide(&rule(-1), None),
            Verdict::Deny("configuration is invalid: weight -1 < 0".into())
        );
        let mut deletion = rule(-1);
        deletion["operation"] = "DELETE".into();
        assert_eq!(decide(&deletion, None), Verdict::Allow(Vec::new()));
        let plugin = json!({"operation": "UPDATE", "object": {"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin",
            "metadata": {"name": "w", "namespace": "n"}, "spec": {"url": "oci://x/y"}}});
        let Verdict::Allow(warnings) = decide(&plugin, None) else {
            panic!("a WasmPlugin is allowed");
        };
        assert!(
            warnings.iter().any(|w| w.contains("no effect")),
            "{warnings:?}"
        );
    }

    fn warnings(object: Value, mesh: Value) -> Vec<String> {
        let mesh = serde_json::from_value(mesh).unwrap();
        let request = json!({"operation": "CREATE", "object": object});
        match decide(&request, Some(&mesh)) {
            Verdict::Allow(warnings) => warnings,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_envoy_filter_with_a_filter_that_the_proxies_lack_is_warned_of() {
        let filter = json!({"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
            "metadata": {"name": "f", "namespace": "n"},
            "spec": {"workloadSelector": {"labels": {"app": "a"}}, "configPatches": [
                {"applyTo": "HTTP_FILTER", "match": {"context": "SIDECAR_INBOUND"}, "patch": {"operation": "INSERT_FIRST", "value": {
                    "name": "tap", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
                        "grpc_service": {"envoy_grpc": {"cluster_name": "a"}}}}}},
                {"applyTo": "BOOTSTRAP", "patch": {"operation": "MERGE", "value": {"stats_flush_interval": "3s"}}}]}});
        let warnings = warnings(filter, json!({}));
        for (path, word) in [
            (
                "theater: spec.configPatches[0].patch.value: ",
                "ExternalProcessor",
            ),
            ("theater: spec.configPatches[1].applyTo: ", "bootstrap"),
        ] {
            let told = |warning: &String| warning.starts_with(path) && warning.contains(word);
            assert!(warnings.iter().any(told), "{path}{word}: {warnings:?}");
        }
    }

    #[test]
    fn a_telemetry_with_a_provider_that_writes_no_log_is_warned_of() {
        let mesh = json!({"extensionProviders": [
            {"name": "file", "envoyFileAccessLog": {"path": "/dev/stdout"}},
            {"name": "spans", "zipkin": {"service": "z", "port": 9411}}]});
        let telemetry = |providers: Value| {
            json!({"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry", "metadata": {"name": "t", "namespace": "n"},
                "spec": {"accessLogging": [{"providers": providers}]}})
        };
        let fine = json!([{"name": "envoy"}, {"name": "file"}]);
        assert!(warnings(telemetry(fine), mesh.clone()).is_empty());
        for (name, word) in [
            ("spans", "none for access logs"),
            ("nobody", "has no provider"),
        ] {
            let said = warnings(
                telemetry(json!([{"name": "envoy"}, {"name": name}])),
                mesh.clone(),
            );
            let path = "theater: spec.accessLogging[0].providers[1].name: ";
            assert!(
                matches!(&said[..], [one] if one.starts_with(path) && one.contains(word)),
                "{name}: {said:?}"
            );
        }
        let mut off = telemetry(json!([{"name": "nobody"}]));
        off["spec"]["accessLogging"][0]["disabled"] = true.into();
        assert!(warnings(off, mesh).is_empty());
    }
}
