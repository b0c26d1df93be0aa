//! What istiod's admission webhook says to an object: the mistakes that no schema can see, and warnings about what is
//! deprecated or has no effect.
//!
//! Pure: an object in, a [`Verdict`] out, one file a kind. The texts are those of Istio 1.31, measured (`tests/golden`). What
//! Theater itself cannot carry out is in [`Verdict::limits`], apart from Istio's warnings.

mod authorization_policy;
mod decode;
mod destination_rule;
mod envoy_filter;
mod gateway;
mod header_value;
mod headers;
mod http_route;
mod jsonpb;
mod limits;
mod message;
mod names;
mod peer_authentication;
mod problem;
mod proxy_config;
mod request_authentication;
mod selector;
mod service_entry;
mod sidecar;
mod telemetry;
mod tls;
mod traffic_extension;
mod traffic_policy;
mod unreachable;
mod virtual_service;
mod wasm_plugin;
mod workload_entry;
mod workload_group;

use message::Message;
use problem::{Validation, one};
use serde_json::Value;

/// What the webhook answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why the object is refused, as kubectl prints it behind `denied the request: `.
    pub error: Option<String>,
    /// Istio's warnings; none beside an error.
    pub warnings: Vec<String>,
    /// What Theater does not carry out; none beside an error.
    pub limits: Vec<String>,
}

impl Verdict {
    fn refused(error: impl Into<String>) -> Self {
        Self {
            error: Some(error.into()),
            ..Self::default()
        }
    }
}

/// An object with its decoded spec.
#[derive(Clone, Copy)]
pub(crate) struct Object<'a> {
    pub name: &'a str,
    pub namespace: &'a str,
    pub spec: Message<'a>,
    metadata: &'a Value,
}

impl<'a> Object<'a> {
    pub fn annotation(&self, key: &str) -> Option<&'a str> {
        self.metadata["annotations"].get(key)?.as_str()
    }

    pub fn label(&self, key: &str) -> Option<&'a str> {
        self.metadata["labels"].get(key)?.as_str()
    }
}

type Check = fn(&Object<'_>) -> Validation;

fn check_of(group: &str, kind: &str) -> Option<Check> {
    Some(match (group.split('.').next().unwrap_or(""), kind) {
        ("networking", "VirtualService") => virtual_service::validate,
        ("networking", "DestinationRule") => destination_rule::validate,
        ("networking", "Gateway") => gateway::validate,
        ("networking", "ServiceEntry") => service_entry::validate,
        ("networking", "Sidecar") => sidecar::validate,
        ("networking", "WorkloadEntry") => workload_entry::validate,
        ("networking", "WorkloadGroup") => workload_group::validate,
        ("networking", "EnvoyFilter") => envoy_filter::validate,
        ("networking", "ProxyConfig") => proxy_config::validate,
        ("security", "AuthorizationPolicy") => authorization_policy::validate,
        ("security", "PeerAuthentication") => peer_authentication::validate,
        ("security", "RequestAuthentication") => request_authentication::validate,
        ("telemetry", "Telemetry") => telemetry::validate,
        ("extensions", "WasmPlugin") => wasm_plugin::validate,
        ("extensions", "TrafficExtension") => traffic_extension::validate,
        _ => return None,
    })
}

/// Checks an object as it would be stored. No rule of Istio compares with the object before.
pub fn validate(object: &Value) -> Verdict {
    let version = object["apiVersion"].as_str().unwrap_or("");
    let kind = object["kind"].as_str().unwrap_or("");
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let ours = group.ends_with(".istio.io");
    let Some(check) = check_of(group, kind).filter(|_| ours) else {
        return Verdict::refused(format!("unrecognized type {version}, Kind={kind}"));
    };
    let spec = match decode::decode(kind, &object["spec"]) {
        Ok(spec) => spec,
        Err(why) => return Verdict::refused(format!("error decoding configuration: {why}")),
    };
    let metadata = &object["metadata"];
    let decoded = Object {
        name: metadata["name"].as_str().unwrap_or(""),
        namespace: metadata["namespace"].as_str().unwrap_or(""),
        spec: Message(&spec),
        metadata,
    };
    let validation = match annotations(kind, &decoded) {
        Some(text) => Validation {
            error: one(text),
            warning: None,
        },
        None => check(&decoded),
    };
    if let Some(problem) = validation.error {
        return Verdict::refused(format!("configuration is invalid: {problem}"));
    }
    const KNOWN: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
    let unknown = object
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key)
        .find(|key| !KNOWN.contains(&key.as_str()));
    if let Some(key) = unknown {
        return Verdict::refused(format!(
            "unknown field {} on {kind} resource {}/{}",
            api::field::quote(key),
            decoded.namespace,
            decoded.name
        ));
    }
    Verdict {
        error: None,
        warnings: validation.warning.map_or_else(Vec::new, |w| w.texts()),
        limits: limits::warnings(kind, &decoded),
    }
}

/// What the rules of a kind say about an object, one by one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Why the webhook would refuse it.
    pub errors: Vec<String>,
    /// Istio's warnings, beside errors too.
    pub warnings: Vec<String>,
}

/// What the rules of a kind say about an object, as `istioctl analyze` tells it: one by one, and nothing about annotations. Nothing for
/// kinds that are not Istio's.
///
/// # Errors
/// The spec does not fit, in the words of Go's JSON decoder: `json: cannot unmarshal number into Go value of type string`.
pub fn findings(object: &Value) -> Result<Findings, String> {
    let version = object["apiVersion"].as_str().unwrap_or("");
    let kind = object["kind"].as_str().unwrap_or("");
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let Some(check) = check_of(group, kind).filter(|_| group.ends_with(".istio.io")) else {
        return Ok(Findings::default());
    };
    let spec = decode::decode(kind, &object["spec"])?;
    let metadata = &object["metadata"];
    let validation = check(&Object {
        name: metadata["name"].as_str().unwrap_or(""),
        namespace: metadata["namespace"].as_str().unwrap_or(""),
        spec: Message(&spec),
        metadata,
    });
    Ok(Findings {
        errors: validation
            .error
            .map_or_else(Vec::new, |found| found.texts()),
        warnings: validation
            .warning
            .map_or_else(Vec::new, |found| found.texts()),
    })
}

/// Annotations that mean something to istiod alone, or to one kind only.
fn annotations(kind: &str, object: &Object<'_>) -> Option<String> {
    const DRY_RUN: &str = "istio.io/dry-run";
    let (namespace, name) = (object.namespace, object.name);
    if let Some(value) = object.annotation(DRY_RUN) {
        if kind != "AuthorizationPolicy" {
            return Some(format!(
                "{namespace}/{name} has unsupported annotation {DRY_RUN}, please remove the annotation"
            ));
        }
        let action = object.spec.name("action", "ALLOW");
        if !matches!(action, "ALLOW" | "DENY") {
            return Some(format!(
                "the annotation {DRY_RUN} currently only supports action ALLOW/DENY, found action {action} in {namespace}/{name}"
            ));
        }
        if let Err(why) = api::go::strconv::parse_bool(value) {
            return Some(format!(
                "{namespace}/{name} has annotation {DRY_RUN} with invalid value ({value}): {why}"
            ));
        }
    }
    const REJECT: &str = "internal.istio.io/webhook-always-reject";
    if object.annotation(REJECT).is_some() {
        return Some(format!("\"{REJECT}\" annotation found, rejecting"));
    }
    [
        "internal.istio.io/parent-namespace",
        "internal.istio.io/parents",
    ]
    .into_iter()
    .find(|key| object.annotation(key).is_some())
    .map(|key| format!("\"{key}\" annotation found, this may not be set by users"))
}
