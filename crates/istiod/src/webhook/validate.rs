//! Validation of Istio's objects: what the webhook answers to the API server. The rules are in `istio-validation`.

use serde_json::Value;

use super::review::Verdict;

/// Decides about a request. Theater's own limits follow Istio's warnings.
#[must_use]
pub fn decide(request: &Value) -> Verdict {
    if !matches!(request["operation"].as_str(), Some("CREATE" | "UPDATE")) {
        return Verdict::Allow(Vec::new());
    }
    let verdict = istio_validation::validate(&request["object"]);
    match verdict.error {
        Some(why) => Verdict::Deny(why),
        None => {
            let mut warnings = verdict.warnings;
            warnings.extend(verdict.limits);
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
        assert_eq!(decide(&rule(1)), Verdict::Allow(Vec::new()));
        assert_eq!(
            decide(&rule(-1)),
            Verdict::Deny("configuration is invalid: weight -1 < 0".into())
        );
        let mut deletion = rule(-1);
        deletion["operation"] = "DELETE".into();
        assert_eq!(decide(&deletion), Verdict::Allow(Vec::new()));
        let plugin = json!({"operation": "UPDATE", "object": {"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin",
            "metadata": {"name": "w", "namespace": "n"}, "spec": {"url": "oci://x/y"}}});
        let Verdict::Allow(warnings) = decide(&plugin) else {
            panic!("a WasmPlugin is allowed");
        };
        assert!(
            warnings.iter().any(|w| w.contains("no effect")),
            "{warnings:?}"
        );
    }
}
