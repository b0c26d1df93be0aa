//! The downward API: `fieldRef` and `resourceFieldRef` of variables and volumes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity;

/// What field references need and the pod's spec does not say.
#[derive(Clone, Debug, Default)]
pub struct FieldContext {
    /// `status.podIP`; empty before the sandbox exists.
    pub pod_ip: String,
    /// `status.hostIP`.
    pub host_ip: String,
    /// Allocatable resources of the node: the value of a limit that is not set.
    pub allocatable: BTreeMap<String, Quantity>,
}

/// The value of a `fieldPath`.
///
/// # Errors
/// A message that names the unsupported path.
pub fn field_ref(pod: &Pod, path: &str, context: &FieldContext) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let own = |text: &Option<String>| text.clone().unwrap_or_default();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(map
            .and_then(|map| map.get(key))
            .cloned()
            .unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => own(&meta.name),
        "metadata.namespace" => own(&meta.namespace),
        "metadata.uid" => own(&meta.uid),
        "metadata.labels" => formatted_map(meta.labels.as_ref()),
        "metadata.annotations" => formatted_map(meta.annotations.as_ref()),
        "spec.nodeName" => spec
            .and_then(|spec| spec.node_name.clone())
            .unwrap_or_default(),
        "spec.serviceAccountName" => spec
            .and_then(|spec| spec.service_account_name.clone())
            .unwrap_or_else(|| "default".to_owned()),
        "status.podIP" | "status.podIPs" => context.pod_ip.clone(),
        "status.hostIP" | "status.hostIPs" => context.host_ip.clone(),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// Whether a field path names the pod's labels or annotations, which may change while it runs.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let open = path.find("['")?;
    Some((&path[..open], path[open + 2..].strip_suffix("']")?))
}

/// `key="value"` a line, sorted by key, the value quoted with Go's escapes.
fn formatted_map(map: Option<&BTreeMap<String, String>>) -> String {
    map.into_iter()
        .flatten()
        .map(|(key, value)| {
            let mut quoted = String::with_capacity(value.len() + 2);
            for character in value.chars() {
                match character {
                    '"' => quoted.push_str("\\\""),
                    '\\' => quoted.push_str("\\\\"),
                    '\n' => quoted.push_str("\\n"),
                    '\r' => quoted.push_str("\\r"),
                    '\t' => quoted.push_str("\\t"),
                    other => quoted.push(other),
                }
            }
            format!("{key}=\"{quoted}\"")
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// The value of a resource reference, divided by its divisor and rounded up. `own` is the container
/// the reference stands in; volumes name theirs in `containerName`.
///
/// # Errors
/// A message that names the unknown container or resource.
pub fn resource_field_ref(
    pod: &Pod,
    own: Option<&Container>,
    reference: &ResourceFieldSelector,
    context: &FieldContext,
) -> Result<String, String> {
    let named = reference
        .container_name
        .as_deref()
        .filter(|name| !name.is_empty());
    let container = match named {
        Some(name) => {
            let spec = pod.spec.as_ref();
            spec.into_iter()
                .flat_map(|spec| {
                    spec.containers
                        .iter()
                        .chain(spec.init_containers.iter().flatten())
                })
                .find(|container| container.name == name)
                .ok_or_else(|| format!("container {name} not found"))?
        }
        None => own.ok_or("resourceFieldRef needs containerName here")?,
    };
    let (list, resource) = reference
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource: {}", reference.resource))?;
    let resources = container.resources.as_ref();
    let set = match list {
        "limits" => resources.and_then(|resources| resources.limits.as_ref()),
        "requests" => resources.and_then(|resources| resources.requests.as_ref()),
        _ => {
            return Err(format!(
                "unsupported container resource: {}",
                reference.resource
            ));
        }
    }
    .and_then(|list| list.get(resource));
    let value = match (set, list) {
        (Some(quantity), _) => quantity::milli(&quantity.0),
        // An unset limit is what the node could give; an unset request is nothing.
        (None, "limits") => context
            .allocatable
            .get(resource)
            .and_then(|quantity| quantity::milli(&quantity.0)),
        (None, _) => Some(0),
    }
    .ok_or_else(|| {
        format!(
            "resource {} of container {} has no value",
            reference.resource, container.name
        )
    })?;
    let divisor = match &reference.divisor {
        Some(divisor) if divisor.0 != "0" && !divisor.0.is_empty() => quantity::milli(&divisor.0)
            .filter(|milli| *milli > 0)
            .ok_or_else(|| {
                format!(
                    "divisor {:?} of {} is no positive quantity",
                    divisor.0, reference.resource
                )
            })?,
        _ => 1000,
    };
    Ok((value.div_euclid(divisor) + i128::from(value.rem_euclid(divisor) != 0)).to_string())
}
