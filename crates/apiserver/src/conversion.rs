//! Custom resources whose versions a webhook converts.
//!
//! Reading is not asynchronous, asking a webhook is. So what is about to be shown is converted beforehand ([`prepare`]), and
//! reading finds the copies here, by uid and revision.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::admission::webhook;
use crate::error::{ApiError, ApiResult};
use crate::registry::Resource;
use crate::state::Server;
use crate::storage::Stored;

/// How many copies of one resource version are kept.
const KEPT: usize = 10_000;
/// How long a webhook may take, in seconds: as long as the real server gives it.
const PATIENCE: u64 = 30;

/// The webhook of one version of a kind, and what it has converted to that version.
#[derive(Debug)]
pub(crate) struct Conversion {
    /// `spec.conversion.webhook.clientConfig`.
    client: Value,
    copies: Mutex<HashMap<String, Arc<Value>>>,
}

impl Conversion {
    /// The webhook a definition names; `None` when its versions only differ in name.
    pub fn of(definition: &Value) -> Option<Self> {
        let conversion = &definition["spec"]["conversion"];
        (conversion["strategy"] == "Webhook").then(|| Self {
            client: conversion["webhook"]["clientConfig"].clone(),
            copies: Mutex::default(),
        })
    }

    /// The converted copy of a stored object, when there is one.
    pub fn copy(&self, stored: &Value) -> Option<Arc<Value>> {
        self.copies.lock().get(&key(stored)).cloned()
    }

    fn keep(&self, stored: &Value, copy: Value) {
        let mut copies = self.copies.lock();
        if copies.len() >= KEPT {
            copies.clear();
        }
        copies.insert(key(stored), Arc::new(copy));
    }
}

fn key(object: &Value) -> String {
    format!(
        "{}/{}",
        api::meta::uid(object),
        api::meta::resource_version(object)
    )
}

/// The conversion of a resource, when a webhook does it.
pub(crate) fn of(resource: &Resource) -> Option<&Conversion> {
    resource.custom.as_ref()?.conversion.as_deref()
}

/// Converts stored objects that are about to be shown in the resource's version, as far as that has not been done.
pub(crate) async fn prepare<'a>(
    server: &Server,
    resource: &Resource,
    objects: impl IntoIterator<Item = &'a Stored>,
) -> ApiResult<()> {
    let Some(conversion) = of(resource) else {
        return Ok(());
    };
    let wanted = resource.api_version();
    let missing: Vec<&Value> = objects
        .into_iter()
        .map(Stored::value)
        .filter(|object| {
            object["apiVersion"] != wanted.as_str() && conversion.copy(object).is_none()
        })
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let converted = convert(server, resource, conversion, &missing, &wanted).await?;
    for (object, copy) in missing.into_iter().zip(converted) {
        conversion.keep(object, copy);
    }
    Ok(())
}

/// Everything of the resource in a namespace (empty: everywhere) or, with a name, one object.
pub(crate) async fn prepare_scope(
    server: &Server,
    resource: &Resource,
    namespace: &str,
    name: &str,
) -> ApiResult<()> {
    if of(resource).is_none() {
        return Ok(());
    }
    let cache = server.storage.cache();
    if !name.is_empty() {
        let found = cache.get(&resource.key(namespace, name));
        return prepare(server, resource, found.iter().map(AsRef::as_ref)).await;
    }
    let prefix = if namespace.is_empty() {
        String::new()
    } else {
        format!("{namespace}/")
    };
    let (all, _) = cache.list(&resource.table, &prefix);
    prepare(
        server,
        resource,
        all.iter().map(|(_, stored)| stored.as_ref()),
    )
    .await
}

/// Converts an object of the resource to the version that is kept.
pub(crate) async fn to_stored(
    server: &Server,
    resource: &Resource,
    object: &mut Value,
) -> ApiResult<()> {
    let Some(conversion) = of(resource) else {
        return Ok(());
    };
    let wanted = api::meta::join_group_version(&resource.group, &resource.storage_version);
    if object["apiVersion"] == wanted.as_str() {
        return Ok(());
    }
    let mut converted = convert(server, resource, conversion, &[object], &wanted).await?;
    if let Some(copy) = converted.pop() {
        *object = copy;
    }
    Ok(())
}

async fn convert(
    server: &Server,
    resource: &Resource,
    conversion: &Conversion,
    objects: &[&Value],
    wanted: &str,
) -> ApiResult<Vec<Value>> {
    let from = objects
        .first()
        .map_or("", |object| api::meta::api_version(object));
    let failed = |why: String| {
        ApiError::internal(format!(
            "conversion webhook for {from}, Kind={} failed: {why}",
            resource.kind
        ))
    };
    let uid = uuid::Uuid::new_v4().to_string();
    let review = json!({
        "kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
        "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": objects},
    });
    let response = webhook::exchange(server, &conversion.client, PATIENCE, &review, &uid)
        .await
        .map_err(&failed)?;
    read(&response, objects, wanted).map_err(failed)
}

/// Takes the converted objects out of an answer. What a webhook may change of the metadata are labels and annotations.
fn read(response: &Value, objects: &[&Value], wanted: &str) -> Result<Vec<Value>, String> {
    if response["result"]["status"] != "Success" {
        let message = response["result"]["message"].as_str().unwrap_or("");
        return Err(match message {
            "" => "conversion request failed without a message".to_owned(),
            why => why.to_owned(),
        });
    }
    let converted = response["convertedObjects"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    if converted.len() != objects.len() {
        return Err(format!(
            "webhook returned {} objects, expected {}",
            converted.len(),
            objects.len()
        ));
    }
    objects
        .iter()
        .zip(converted)
        .enumerate()
        .map(|(i, (before, mut after))| {
            if after["apiVersion"] != wanted {
                return Err(format!(
                    "webhook returned invalid converted object at index {i}: invalid groupVersion, expected {wanted}, got {}",
                    api::meta::api_version(&after)
                ));
            }
            if after["kind"] != before["kind"] {
                return Err(format!(
                    "webhook returned invalid converted object at index {i}: invalid kind, expected {}, got {}",
                    api::meta::kind(before),
                    api::meta::kind(&after)
                ));
            }
            if api::meta::name(&after) != api::meta::name(before) || api::meta::uid(&after) != api::meta::uid(before) {
                return Err(format!(
                    "webhook returned invalid metadata in object at index {i}: name, namespace and uid must stay as they are"
                ));
            }
            let mut metadata = before["metadata"].clone();
            for field in ["labels", "annotations"] {
                let value = after["metadata"][field].clone();
                if let Some(map) = metadata.as_object_mut() {
                    map.shift_remove(field);
                    if !value.is_null() {
                        map.insert(field.to_owned(), value);
                    }
                }
            }
            after["metadata"] = metadata;
            Ok(after)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_changes_the_object_and_not_who_it_is() {
        let before = json!({"apiVersion": "g.io/v1", "kind": "W", "host": "a", "metadata": {"name": "w", "uid": "u", "resourceVersion": "5", "labels": {"a": "b"}}});
        let answer =
            |after: Value| json!({"result": {"status": "Success"}, "convertedObjects": [after]});
        let after = json!({"apiVersion": "g.io/v2", "kind": "W", "hostPort": "a:1", "metadata": {"name": "w", "uid": "u", "resourceVersion": "9", "annotations": {"x": "y"}}});
        let read_one = |after: Value| read(&answer(after), &[&before], "g.io/v2");
        let out = read_one(after.clone()).unwrap();
        assert_eq!(
            out[0]["metadata"],
            json!({"name": "w", "uid": "u", "resourceVersion": "5", "annotations": {"x": "y"}})
        );
        assert_eq!(out[0]["hostPort"], "a:1");
        let mut other = after.clone();
        other["metadata"]["name"] = "z".into();
        assert!(read_one(other).is_err());
        let mut old = after;
        old["apiVersion"] = "g.io/v1".into();
        assert!(
            read_one(old)
                .unwrap_err()
                .contains("invalid groupVersion, expected g.io/v2, got g.io/v1")
        );
        let refused = json!({"result": {"status": "Failed", "message": "no"}});
        assert_eq!(read(&refused, &[&before], "g.io/v2").unwrap_err(), "no");
    }
}
