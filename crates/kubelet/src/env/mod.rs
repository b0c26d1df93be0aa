//! A container's environment, command and arguments, from its spec and the objects it refers to.

mod expand;
mod fields;
mod services;

pub use expand::expand;
pub use fields::{FieldContext, field_ref, resource_field_ref};
pub use services::{ServiceEnv, service_variables};

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};
use serde_json::Value;

/// Which kind of object a container refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefKind {
    /// `v1/ConfigMap`.
    ConfigMap,
    /// `v1/Secret`.
    Secret,
}

impl RefKind {
    fn title(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
    /// The resource name as messages of the API server spell it.
    pub fn lower(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }
}

/// The objects a pod may refer to, fetched beforehand.
pub type Objects = BTreeMap<(RefKind, String), Arc<Value>>;

/// Why a container cannot be configured: reason `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// The object does not exist.
    #[error("{} {name:?} not found", kind.lower())]
    NotFound {
        /// Kind of the missing object.
        kind: RefKind,
        /// Its name, in the pod's namespace.
        name: String,
    },
    /// The object has no such key.
    #[error("couldn't find key {key} in {} {namespace}/{name}", kind.title())]
    NoKey {
        /// Kind of the object.
        kind: RefKind,
        /// Namespace of the pod.
        namespace: String,
        /// Name of the object.
        name: String,
        /// The key that it lacks.
        key: String,
    },
    /// A field or resource reference that does not exist.
    #[error("{0}")]
    Field(String),
    /// A secret value that is not text.
    #[error(
        "key {key} of Secret {name} is not UTF-8 and cannot be an environment variable; mount it as a volume"
    )]
    NotText {
        /// Name of the secret.
        name: String,
        /// The key.
        key: String,
    },
}

/// The configmaps and secrets a container's environment refers to, optional ones included.
pub fn references(container: &Container) -> Vec<(RefKind, String)> {
    let mut found = Vec::new();
    for source in container.env_from.iter().flatten() {
        if let Some(reference) = &source.config_map_ref {
            found.push((RefKind::ConfigMap, reference.name.clone()));
        }
        if let Some(reference) = &source.secret_ref {
            found.push((RefKind::Secret, reference.name.clone()));
        }
    }
    for from in container
        .env
        .iter()
        .flatten()
        .filter_map(|variable| variable.value_from.as_ref())
    {
        if let Some(key) = &from.config_map_key_ref {
            found.push((RefKind::ConfigMap, key.name.clone()));
        }
        if let Some(key) = &from.secret_key_ref {
            found.push((RefKind::Secret, key.name.clone()));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// One key of a configmap (`data`, then `binaryData`) or secret, as bytes.
pub fn key_bytes(kind: RefKind, object: &Value, key: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).ok();
    match kind {
        RefKind::ConfigMap => match object["data"][key].as_str() {
            Some(text) => Some(text.as_bytes().to_vec()),
            None => object["binaryData"][key].as_str().and_then(decode),
        },
        RefKind::Secret => match object["data"][key].as_str() {
            Some(text) => decode(text),
            None => object["stringData"][key]
                .as_str()
                .map(|text| text.as_bytes().to_vec()),
        },
    }
}

/// All keys of a configmap or secret.
pub fn keys(kind: RefKind, object: &Value) -> Vec<String> {
    let fields: &[&str] = match kind {
        RefKind::ConfigMap => &["data", "binaryData"],
        RefKind::Secret => &["data"],
    };
    fields
        .iter()
        .filter_map(|field| object[*field].as_object())
        .flat_map(|map| map.keys().cloned())
        .collect()
}

/// Everything the environment of a container depends on besides its own spec.
pub struct EnvContext<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Addresses and node figures for field references.
    pub fields: &'a FieldContext,
    /// Configmaps and secrets by name; a missing entry means the object does not exist.
    pub objects: &'a Objects,
    /// Variables of the services the container may know (see [`service_variables`]).
    pub services: &'a [(String, String)],
    /// Variables of the image; the lowest precedence.
    pub image: &'a [(String, String)],
}

/// The environment of a container, in the order image, services, `envFrom`, `env`, each name once
/// with its last value. `$(NAME)` in `env` values refers to earlier `env` entries and services.
///
/// # Errors
/// When a required object or key is missing, or a field reference is unknown.
pub fn environment(
    container: &Container,
    context: &EnvContext<'_>,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut result = Ordered::default();
    for (name, value) in context.image.iter().chain(context.services) {
        result.set(name, value.clone());
    }
    for source in container.env_from.iter().flatten() {
        let (kind, name, optional) = match (&source.config_map_ref, &source.secret_ref) {
            (Some(map), _) => (RefKind::ConfigMap, &map.name, map.optional),
            (None, Some(secret)) => (RefKind::Secret, &secret.name, secret.optional),
            (None, None) => continue,
        };
        let Some(object) = context.objects.get(&(kind, name.clone())) else {
            if optional == Some(true) {
                continue;
            }
            return Err(EnvError::NotFound {
                kind,
                name: name.clone(),
            });
        };
        let prefix = source.prefix.as_deref().unwrap_or_default();
        for key in keys(kind, object) {
            let variable = format!("{prefix}{key}");
            // Names that no shell could hold are skipped, as the kubelet does.
            if variable.is_empty() || variable.contains('=') || !variable.is_ascii() {
                continue;
            }
            if let Some(text) =
                key_bytes(kind, object, &key).and_then(|bytes| String::from_utf8(bytes).ok())
            {
                result.set(&variable, text);
            }
        }
    }
    let services: BTreeMap<&str, &str> = context
        .services
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let mut own: BTreeMap<String, String> = BTreeMap::new();
    for variable in container.env.iter().flatten() {
        let value = match value_of(variable, container, context)? {
            Source::Literal(text) => expand(&text, |name| {
                own.get(name)
                    .map(String::as_str)
                    .or_else(|| services.get(name).copied())
                    .map(str::to_owned)
            }),
            Source::Reference(text) => text,
            Source::Absent => continue,
        };
        own.insert(variable.name.clone(), value.clone());
        result.set(&variable.name, value);
    }
    Ok(result.entries)
}

enum Source {
    Literal(String),
    Reference(String),
    Absent,
}

fn value_of(
    variable: &EnvVar,
    container: &Container,
    context: &EnvContext<'_>,
) -> Result<Source, EnvError> {
    let Some(from) = &variable.value_from else {
        return Ok(Source::Literal(variable.value.clone().unwrap_or_default()));
    };
    if let Some(field) = &from.field_ref {
        return field_ref(context.pod, &field.field_path, context.fields)
            .map(Source::Reference)
            .map_err(EnvError::Field);
    }
    if let Some(resource) = &from.resource_field_ref {
        return resource_field_ref(context.pod, Some(container), resource, context.fields)
            .map(Source::Reference)
            .map_err(EnvError::Field);
    }
    let (kind, name, key, optional) = if let Some(map) = &from.config_map_key_ref {
        (RefKind::ConfigMap, &map.name, &map.key, map.optional)
    } else if let Some(secret) = &from.secret_key_ref {
        (RefKind::Secret, &secret.name, &secret.key, secret.optional)
    } else {
        return Err(EnvError::Field(format!(
            "env {}: valueFrom names no source this node knows (fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef)",
            variable.name
        )));
    };
    let optional = optional == Some(true);
    let Some(object) = context.objects.get(&(kind, name.clone())) else {
        return if optional {
            Ok(Source::Absent)
        } else {
            Err(EnvError::NotFound {
                kind,
                name: name.clone(),
            })
        };
    };
    match key_bytes(kind, object, key) {
        Some(bytes) => String::from_utf8(bytes)
            .map(Source::Reference)
            .map_err(|_| EnvError::NotText {
                name: name.clone(),
                key: key.clone(),
            }),
        None if optional => Ok(Source::Absent),
        None => Err(EnvError::NoKey {
            kind,
            namespace: context.pod.metadata.namespace.clone().unwrap_or_default(),
            name: name.clone(),
            key: key.clone(),
        }),
    }
}

/// The argument vector: `command` replaces the entrypoint and drops the image's cmd, `args` replaces
/// cmd; `$(NAME)` is expanded from the container's environment.
pub fn argv(
    container: &Container,
    entrypoint: &[String],
    cmd: &[String],
    environment: &[(String, String)],
) -> Vec<String> {
    let command = container
        .command
        .as_deref()
        .filter(|command| !command.is_empty());
    let args = container.args.as_deref().filter(|args| !args.is_empty());
    let (head, tail): (&[String], &[String]) = match (command, args) {
        (Some(command), args) => (command, args.unwrap_or_default()),
        (None, Some(args)) => (entrypoint, args),
        (None, None) => (entrypoint, cmd),
    };
    let lookup = |name: &str| {
        environment
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
    };
    head.iter()
        .chain(tail)
        .map(|text| expand(text, lookup))
        .collect()
}

/// Last value wins, first position stays.
#[derive(Default)]
struct Ordered {
    entries: Vec<(String, String)>,
    index: BTreeMap<String, usize>,
}

impl Ordered {
    fn set(&mut self, name: &str, value: String) {
        match self.index.get(name) {
            Some(&at) => self.entries[at].1 = value,
            None => {
                self.index.insert(name.to_owned(), self.entries.len());
                self.entries.push((name.to_owned(), value));
            }
        }
    }
}

#[cfg(test)]
mod tests;
