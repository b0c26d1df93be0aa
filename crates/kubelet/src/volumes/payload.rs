//! The content of volumes that are made of API objects.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, DownwardAPIVolumeFile, KeyToPath, Pod, SecretProjection, Volume,
};
use serde_json::Value;

use crate::env::{FieldContext, Objects, RefKind, field_ref, key_bytes, keys, resource_field_ref};

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Content.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// All files of a volume by relative path.
pub type Payload = BTreeMap<String, File>;

/// A service-account token a volume needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenKey {
    /// Audience; empty for the API server's own.
    pub audience: String,
    /// Lifetime in seconds.
    pub expiration_seconds: i64,
}

/// A volume that cannot be made: (volume, message) of a FailedMount event.
pub type VolumeError = (String, String);

/// What contents are made from.
pub struct VolumeContext<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Addresses and node figures.
    pub fields: &'a FieldContext,
    /// Configmaps and secrets by name.
    pub objects: &'a Objects,
    /// Tokens as asked for by [`token_requests`].
    pub tokens: &'a BTreeMap<TokenKey, String>,
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten())
}

/// The configmaps and secrets the volumes of a pod refer to, optional ones included.
pub fn references(pod: &Pod) -> Vec<(RefKind, String)> {
    let mut found = Vec::new();
    for volume in volumes(pod) {
        if let Some(map) = &volume.config_map {
            found.push((RefKind::ConfigMap, map.name.clone()));
        }
        if let Some(name) = volume
            .secret
            .as_ref()
            .and_then(|secret| secret.secret_name.clone())
        {
            found.push((RefKind::Secret, name));
        }
        let projected = volume
            .projected
            .as_ref()
            .and_then(|projected| projected.sources.as_ref());
        for source in projected.into_iter().flatten() {
            if let Some(map) = &source.config_map {
                found.push((RefKind::ConfigMap, map.name.clone()));
            }
            if let Some(secret) = &source.secret {
                found.push((RefKind::Secret, secret.name.clone()));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The tokens the volumes of a pod need.
pub fn token_requests(pod: &Pod) -> Vec<TokenKey> {
    let mut found: Vec<TokenKey> = volumes(pod)
        .filter_map(|volume| volume.projected.as_ref()?.sources.as_ref())
        .flatten()
        .filter_map(|source| source.service_account_token.as_ref())
        .map(|token| token_key(token.audience.as_deref(), token.expiration_seconds))
        .collect();
    found.sort();
    found.dedup();
    found
}

fn token_key(audience: Option<&str>, expiration: Option<i64>) -> TokenKey {
    TokenKey {
        audience: audience.unwrap_or_default().to_owned(),
        expiration_seconds: expiration.unwrap_or(3600).max(600),
    }
}

/// The files of a volume; `None` for a volume that starts empty and belongs to the containers.
///
/// # Errors
/// What the volume refers to does not exist, or its type is not offered on this node.
pub fn payload(volume: &Volume, context: &VolumeContext<'_>) -> Result<Option<Payload>, String> {
    if volume.empty_dir.is_some() {
        return Ok(None);
    }
    let mut files = Payload::new();
    if let Some(map) = &volume.config_map {
        let mode = mode(map.default_mode, 0o644);
        let optional = map.optional == Some(true);
        object_files(
            RefKind::ConfigMap,
            &map.name,
            map.items.as_deref(),
            optional,
            mode,
            context,
            &mut files,
        )?;
    } else if let Some(secret) = &volume.secret {
        let mode = mode(secret.default_mode, 0o644);
        let name = secret.secret_name.clone().unwrap_or_default();
        let optional = secret.optional == Some(true);
        object_files(
            RefKind::Secret,
            &name,
            secret.items.as_deref(),
            optional,
            mode,
            context,
            &mut files,
        )?;
    } else if let Some(downward) = &volume.downward_api {
        let mode = mode(downward.default_mode, 0o644);
        downward_files(downward.items.as_deref(), mode, context, &mut files)?;
    } else if let Some(projected) = &volume.projected {
        let default = mode(projected.default_mode, 0o644);
        for source in projected.sources.iter().flatten() {
            if let Some(ConfigMapProjection {
                name,
                items,
                optional,
            }) = &source.config_map
            {
                let optional = *optional == Some(true);
                object_files(
                    RefKind::ConfigMap,
                    name,
                    items.as_deref(),
                    optional,
                    default,
                    context,
                    &mut files,
                )?;
            }
            if let Some(SecretProjection {
                name,
                items,
                optional,
            }) = &source.secret
            {
                let optional = *optional == Some(true);
                object_files(
                    RefKind::Secret,
                    name,
                    items.as_deref(),
                    optional,
                    default,
                    context,
                    &mut files,
                )?;
            }
            if let Some(downward) = &source.downward_api {
                downward_files(downward.items.as_deref(), default, context, &mut files)?;
            }
            if let Some(token) = &source.service_account_token {
                let key = token_key(token.audience.as_deref(), token.expiration_seconds);
                let content = context.tokens.get(&key).ok_or_else(|| {
                    format!("no service account token for audience {:?}", key.audience)
                })?;
                files.insert(
                    token.path.clone(),
                    File {
                        content: content.clone().into_bytes(),
                        mode: default,
                    },
                );
            }
        }
    } else {
        return Err(unsupported(volume));
    }
    Ok(Some(files))
}

fn unsupported(volume: &Volume) -> String {
    if volume.host_path.is_some() {
        return "hostPath volumes are refused on this node: pods must not see the machine's files; use emptyDir, configMap, secret, projected or a persistentVolumeClaim".into();
    }
    // The one key besides `name` says which type it is.
    let object = serde_json::to_value(volume).unwrap_or(Value::Null);
    let kind = object
        .as_object()
        .and_then(|fields| fields.keys().find(|key| *key != "name").cloned())
        .unwrap_or_else(|| "no type".into());
    format!(
        "volume type {kind} is not offered on this node; use emptyDir, configMap, secret, downwardAPI, projected or persistentVolumeClaim"
    )
}

fn mode(given: Option<i32>, default: u32) -> u32 {
    given
        .and_then(|mode| u32::try_from(mode).ok())
        .unwrap_or(default)
        & 0o777
}

fn object_files(
    kind: RefKind,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: bool,
    default_mode: u32,
    context: &VolumeContext<'_>,
    files: &mut Payload,
) -> Result<(), String> {
    let Some(object) = context.objects.get(&(kind, name.to_owned())) else {
        return if optional {
            Ok(())
        } else {
            Err(format!("{} {name:?} not found", kind.lower()))
        };
    };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        for key in keys(kind, object) {
            if let Some(content) = key_bytes(kind, object, &key) {
                files.insert(
                    key,
                    File {
                        content,
                        mode: default_mode,
                    },
                );
            }
        }
        return Ok(());
    };
    for item in items {
        match key_bytes(kind, object, &item.key) {
            Some(content) => {
                check_path(&item.path)?;
                files.insert(
                    item.path.clone(),
                    File {
                        content,
                        mode: mode(item.mode, default_mode),
                    },
                );
            }
            None if optional => {}
            None => {
                return Err(format!(
                    "references non-existent {} key: {}",
                    kind.lower(),
                    item.key
                ));
            }
        }
    }
    Ok(())
}

fn downward_files(
    items: Option<&[DownwardAPIVolumeFile]>,
    default_mode: u32,
    context: &VolumeContext<'_>,
    files: &mut Payload,
) -> Result<(), String> {
    for item in items.into_iter().flatten() {
        check_path(&item.path)?;
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => field_ref(context.pod, &field.field_path, context.fields)?,
            (None, Some(resource)) => {
                resource_field_ref(context.pod, None, resource, context.fields)?
            }
            (None, None) => {
                return Err(format!(
                    "downwardAPI item {:?} has neither fieldRef nor resourceFieldRef",
                    item.path
                ));
            }
        };
        files.insert(
            item.path.clone(),
            File {
                content: text.into_bytes(),
                mode: mode(item.mode, default_mode),
            },
        );
    }
    Ok(())
}

fn check_path(path: &str) -> Result<(), String> {
    let bad = path.is_empty()
        || path.starts_with('/')
        || path.split('/').any(|part| part == ".." || part.is_empty());
    if bad {
        return Err(format!(
            "invalid path {path:?}: must be relative and must not contain '..'"
        ));
    }
    Ok(())
}
