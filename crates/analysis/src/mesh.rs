//! The mesh configuration as an object to analyze.

use serde_json::{Value, json};

use crate::kind::Kind;
use crate::object::{OWN_CLUSTER, Object};
use crate::yaml;

/// The mesh configuration where nothing else is said: the fields that analyzers look at.
#[must_use]
pub fn default_config() -> Value {
    json!({
        "rootNamespace": "istio-system",
        "ingressControllerMode": "STRICT",
        "ingressService": "istio-ingressgateway",
        "defaultConfig": {},
        "defaultProviders": {},
        "extensionProviders": [],
    })
}

/// The mesh configuration in `text`, with defaults.
///
/// # Errors
/// The text is not YAML, or no map.
pub fn config(text: &str) -> Result<Value, String> {
    let mut config = default_config();
    let read = yaml::parse(text)
        .and_then(|node| node.as_ref().map(yaml::to_json).transpose())
        .map_err(|error| error.to_string())?
        .unwrap_or_default();
    match read {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                config[name] = value;
            }
        }
        _ => return Err("the mesh configuration is no map".to_owned()),
    }
    Ok(config)
}

/// The networks in `text`.
///
/// # Errors
/// The text is not YAML.
pub fn networks(text: &str) -> Result<Value, String> {
    let node = yaml::parse(text).map_err(|error| error.to_string())?;
    node.as_ref()
        .map(yaml::to_json)
        .transpose()
        .map(|value| value.filter(Value::is_object).unwrap_or(json!({})))
        .map_err(|error| error.to_string())
}

/// The object of a mesh configuration of the control plane in `namespace`.
#[must_use]
pub fn config_object(config: Value, namespace: &str) -> Object {
    object(Kind::MeshConfig, "meshconfig", config, namespace)
}

/// The object of networks of the control plane in `namespace`.
#[must_use]
pub fn networks_object(networks: Value, namespace: &str) -> Object {
    object(Kind::MeshNetworks, "meshnetworks", networks, namespace)
}

fn object(kind: Kind, name: &str, mut value: Value, namespace: &str) -> Object {
    value["metadata"] = json!({"name": name, "namespace": namespace});
    Object::new(kind, value, OWN_CLUSTER, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_replaces_the_default() {
        let seen =
            config("rootNamespace: mesh\ndefaultProviders: {accessLogging: [envoy]}\n").unwrap();
        assert_eq!(seen["rootNamespace"], "mesh");
        assert_eq!(seen["ingressService"], "istio-ingressgateway");
        assert_eq!(seen["defaultProviders"]["accessLogging"][0], "envoy");
        assert!(config("- a").is_err());
        assert_eq!(config("# nothing\n").unwrap(), default_config());
    }
}
