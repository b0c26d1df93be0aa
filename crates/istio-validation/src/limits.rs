//! What Theater stores and does not carry out: said at once, naming the field and the consequence, and kept apart from what
//! Istio itself says.

use crate::Object;
use crate::message::Message;

/// Why an object, or a part of it, has no effect in Theater.
pub(crate) fn warnings(kind: &str, object: &Object<'_>) -> Vec<String> {
    let mut out = Vec::new();
    let spec = object.spec;
    let mut say = |field: &str, consequence: &str| {
        out.push(format!("theater: {field}: {consequence}"));
    };
    match kind {
        "WasmPlugin" => say(
            "spec.url",
            "the proxies run no WebAssembly, the object is stored and has no effect",
        ),
        "TrafficExtension" => say(
            if spec.has("lua") {
                "spec.lua"
            } else {
                "spec.wasm"
            },
            "the proxies run no extensions, the object is stored and has no effect",
        ),
        _ => {}
    }
    if kind == "EnvoyFilter" {
        for (i, patch) in spec.messages("configPatches").enumerate() {
            if patch.text("applyTo") == "BOOTSTRAP" {
                say(
                    &format!("spec.configPatches[{i}].applyTo"),
                    "patches of the bootstrap are not applied, a proxy starts without them",
                );
            }
        }
    }
    if kind == "DestinationRule" {
        for (path, policy) in policies(spec) {
            if !policy
                .sub("outlierDetection")
                .list("outlierDetectionHttpErrorCodes")
                .is_empty()
            {
                say(
                    &format!("{path}.outlierDetection.outlierDetectionHttpErrorCodes"),
                    "not carried out, which answers count as errors does not change",
                );
            }
        }
    }
    out
}

/// Every traffic policy of a DestinationRule with its path.
fn policies(spec: Message<'_>) -> Vec<(String, Message<'_>)> {
    let mut out = vec![("spec.trafficPolicy".to_string(), spec.sub("trafficPolicy"))];
    for (i, subset) in spec.messages("subsets").enumerate() {
        let path = format!("spec.subsets[{i}].trafficPolicy");
        out.push((path, subset.sub("trafficPolicy")));
    }
    for (path, policy) in out.clone() {
        for (i, port) in policy.messages("portLevelSettings").enumerate() {
            out.push((format!("{path}.portLevelSettings[{i}]"), port));
        }
    }
    out
}
