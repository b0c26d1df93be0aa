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
mod jwks;
mod limits;
mod message;
mod messages;
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

use decode::Unknown;
use message::Message;
use problem::{Found, Problem, Validation, one};
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

/// Decodes an object of Istio and asks the rules of its kind; None for other kinds.
fn checked(object: &Value, unknown: Unknown) -> Option<Result<Checked<'_>, String>> {
    let kind = object["kind"].as_str().unwrap_or("");
    let version = object["apiVersion"].as_str().unwrap_or("");
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let check = check_of(group, kind).filter(|_| group.ends_with(".istio.io"))?;
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or("");
    let namespace = metadata["namespace"].as_str().unwrap_or("");
    Some(decode::decode(kind, &object["spec"], unknown).map(|spec| {
        let decoded = Object {
            name,
            namespace,
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
        let limits = limits::warnings(kind, &decoded);
        Checked {
            kind,
            namespace,
            name,
            validation,
            limits,
        }
    }))
}

struct Checked<'a> {
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
    validation: Validation,
    limits: Vec<String>,
}

/// What of an accepted object has no effect in a mesh with this configuration, apart from [`Verdict::limits`].
#[must_use]
pub fn limits_in_mesh(object: &Value, mesh: &api::istio::MeshConfig) -> Vec<String> {
    limits::warnings_in_mesh(object, mesh)
}

/// Checks an object as it would be stored. No rule of Istio compares with the object before.
pub fn validate(object: &Value) -> Verdict {
    let Checked {
        kind,
        namespace,
        name,
        validation,
        limits,
    } = match checked(object, Unknown::Skipped) {
        Some(Ok(checked)) => checked,
        Some(Err(why)) => return Verdict::refused(format!("error decoding configuration: {why}")),
        None => {
            let text = |field: &str| object[field].as_str().unwrap_or("");
            return Verdict::refused(format!(
                "unrecognized type {}, Kind={}",
                text("apiVersion"),
                text("kind")
            ));
        }
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
            "unknown field {} on {kind} resource {namespace}/{name}",
            api::field::quote(key),
        ));
    }
    Verdict {
        error: None,
        warnings: validation.warning.map_or_else(Vec::new, |w| w.texts()),
        limits,
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

impl From<Validation> for Findings {
    fn from(validation: Validation) -> Self {
        let texts = |found: Found| found.map_or_else(Vec::new, Problem::texts);
        Self {
            errors: texts(validation.error),
            warnings: texts(validation.warning),
        }
    }
}

/// What the rules of a kind say about an object, one by one, as `istioctl analyze` tells it. Nothing for kinds that are not Istio's.
///
/// # Errors
/// The spec does not fit, in the words of Go's JSON decoder: `json: cannot unmarshal number into Go value of type string`.
pub fn findings(object: &Value) -> Result<Findings, String> {
    match checked(object, Unknown::Skipped) {
        Some(checked) => Ok(checked?.validation.into()),
        None => Ok(Findings::default()),
    }
}

/// Whether the status of an object of Istio's can be decoded.
///
/// # Errors
/// A field does not fit, in the words of Go's JSON decoder, as for [`findings`].
pub fn check_status(status: &Value) -> Result<(), String> {
    decode::status(status)
}

/// [`findings`] for an object of a file, in which an unknown field of the spec is an error too; None for kinds that are not Istio's.
///
/// # Errors
/// As [`findings`], and `unknown field "timeuot" in istio.networking.v1alpha3.HTTPRoute`.
pub fn strict_findings(object: &Value) -> Option<Result<Findings, String>> {
    let checked = checked(object, Unknown::Refused)?;
    Some(checked.map(|checked| checked.validation.into()))
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
