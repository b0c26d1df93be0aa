//! What Theater stores and does not carry out: said at once, naming the field and the consequence, and kept apart from what
//! Istio itself says.

use api::istio::MeshConfig;
use serde_json::Value;

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
            if patch.text("applyTo") == "HTTP_FILTER"
                && let Some(filter) = unknown_filter(patch)
            {
                say(
                    &format!("spec.configPatches[{i}].patch.value"),
                    &format!(
                        "the proxies do not have the filter {filter} and refuse listeners with it, the ones before stay"
                    ),
                );
            }
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

/// What of an object has no effect with the providers that the mesh has. Istio itself says nothing of it.
pub(crate) fn warnings_in_mesh(object: &Value, mesh: &MeshConfig) -> Vec<String> {
    let mut out = Vec::new();
    if object["kind"] != "Telemetry" {
        return out;
    }
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for (i, log) in list(&object["spec"]["accessLogging"]).iter().enumerate() {
        if log["disabled"] == true {
            continue;
        }
        for (j, provider) in list(&log["providers"]).iter().enumerate() {
            let name = provider["name"].as_str().unwrap_or_default();
            if let Some(why) = writes_no_log(name, mesh) {
                out.push(format!(
                    "theater: spec.accessLogging[{i}].providers[{j}].name: {why}"
                ));
            }
        }
    }
    out
}

/// Why a provider writes no access log.
fn writes_no_log(name: &str, mesh: &MeshConfig) -> Option<String> {
    let mut all = mesh.extension_providers.iter();
    let Some(provider) = all.find(|provider| provider.name.eq_ignore_ascii_case(name)) else {
        // Every mesh has this one.
        return (!name.eq_ignore_ascii_case("envoy")).then(|| {
            format!(
                "the mesh has no provider {name:?}, nothing is logged for it; name one of extensionProviders in the ConfigMap istio, or envoy"
            )
        });
    };
    let writes = provider.envoy_file_access_log.is_some()
        || provider.envoy_http_als.is_some()
        || provider.envoy_tcp_als.is_some()
        || provider.envoy_otel_als.is_some();
    (!writes).then(|| {
        format!(
            "the provider {name:?} of the mesh is none for access logs, nothing is logged for it"
        )
    })
}

/// The HTTP filters that the proxies have, by the message of their settings.
const HTTP_FILTERS: [&str; 22] = [
    "envoy.extensions.filters.http.bandwidth_limit.v3.BandwidthLimit",
    "envoy.extensions.filters.http.basic_auth.v3.BasicAuth",
    "envoy.extensions.filters.http.buffer.v3.Buffer",
    "envoy.extensions.filters.http.compressor.v3.Compressor",
    "envoy.extensions.filters.http.cors.v3.Cors",
    "envoy.extensions.filters.http.csrf.v3.CsrfPolicy",
    "envoy.extensions.filters.http.decompressor.v3.Decompressor",
    "envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig",
    "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
    "envoy.extensions.filters.http.fault.v3.HTTPFault",
    "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb",
    "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
    "envoy.extensions.filters.http.header_to_metadata.v3.Config",
    "envoy.extensions.filters.http.health_check.v3.HealthCheck",
    "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
    "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
    "envoy.extensions.filters.http.lua.v3.Lua",
    "envoy.extensions.filters.http.ratelimit.v3.RateLimit",
    "envoy.extensions.filters.http.rbac.v3.RBAC",
    "envoy.extensions.filters.http.router.v3.Router",
    "envoy.extensions.filters.http.set_metadata.v3.Config",
];

/// The filter that a patch adds, if the proxies do not have it. Istio's own and those inside of another message are not looked at.
fn unknown_filter(patch: Message<'_>) -> Option<String> {
    let value = patch.sub("patch").get("value")?;
    let config = value.get("typed_config").or(value.get("typedConfig"))?;
    let kind = config.maybe_text("@type")?;
    let name = kind.rsplit('/').next().unwrap_or(kind);
    let ours = !name.starts_with("envoy.extensions.filters.http.") || HTTP_FILTERS.contains(&name);
    (!ours).then(|| name.to_owned())
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
