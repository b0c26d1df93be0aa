//! Which resources are served: the built-in ones and those that CustomResourceDefinitions add.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, LazyLock, OnceLock};

use api::schema::ObjectSchema;
use api::scheme::ResourceInfo;
use serde_json::Value;

use crate::error::ApiError;
use crate::storage::{Key, Stored};

/// One resource in one version, and where its objects are.
#[derive(Debug)]
pub(crate) struct Resource {
    pub info: Arc<ResourceInfo>,
    /// Where its objects are kept; the same for all versions.
    pub table: Arc<str>,
    /// The version objects are kept in.
    pub storage_version: String,
    pub custom: Option<Custom>,
    schema: OnceLock<Option<ObjectSchema>>,
}

/// What a CustomResourceDefinition says about one version, looked up once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Custom {
    /// The entry of `spec.versions`.
    pub version: Value,
    pub status: bool,
    /// The warning of a deprecated version.
    pub deprecation: Option<String>,
    /// The schema has default values.
    pub defaults: bool,
    /// A webhook converts objects of other versions to this one.
    pub conversion: Option<Arc<crate::conversion::Conversion>>,
}

impl Deref for Resource {
    type Target = ResourceInfo;
    fn deref(&self) -> &ResourceInfo {
        &self.info
    }
}

impl Resource {
    fn builtin(info: &Arc<ResourceInfo>) -> Self {
        let (group, plural) = info.storage_key();
        Self {
            table: table_name(group, plural).into(),
            storage_version: info.version.clone(),
            custom: None,
            schema: OnceLock::new(),
            info: info.clone(),
        }
    }

    fn custom(info: &Arc<ResourceInfo>, definition: &Value) -> Self {
        let versions = definition["spec"]["versions"].as_array();
        let find =
            |wanted: &dyn Fn(&Value) -> bool| versions.into_iter().flatten().find(|v| wanted(v));
        let version = find(&|v| v["name"] == info.version.as_str())
            .cloned()
            .unwrap_or_default();
        let storage_version = find(&|v| v["storage"] == true)
            .and_then(|v| v["name"].as_str())
            .unwrap_or(&info.version)
            .to_owned();
        let deprecation = (version["deprecated"] == true).then(|| {
            version["deprecationWarning"].as_str().map_or_else(
                || format!("{} {} is deprecated", info.api_version(), info.kind),
                str::to_owned,
            )
        });
        Self {
            table: table_name(&info.group, &info.plural).into(),
            storage_version,
            custom: Some(Custom {
                status: version["subresources"]["status"].is_object(),
                deprecation,
                defaults: has_defaults(&version["schema"]["openAPIV3Schema"]),
                version,
                conversion: crate::conversion::Conversion::of(definition).map(Arc::new),
            }),
            schema: OnceLock::new(),
            info: info.clone(),
        }
    }

    /// The schema of its objects, compiled on first use.
    pub fn schema(&self) -> Option<&ObjectSchema> {
        self.schema
            .get_or_init(|| ObjectSchema::of(&self.info))
            .as_ref()
    }

    pub fn key(&self, namespace: &str, name: &str) -> Key {
        Key::new(
            &self.table,
            if self.namespaced { namespace } else { "" },
            name,
        )
    }

    pub fn has(&self, subresource: &str) -> bool {
        self.subresource(subresource).is_some()
    }

    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }

    pub fn not_found(&self, name: &str) -> ApiError {
        ApiError::not_found(&self.group, &self.plural, name)
    }
}

/// What a definition adds, one a served version.
fn added_by(definition: &Value) -> Vec<Arc<Resource>> {
    api::scheme::from_crd(definition)
        .iter()
        .map(|info| Arc::new(Resource::custom(info, definition)))
        .collect()
}

/// Does a schema fill in anything?
fn has_defaults(schema: &Value) -> bool {
    let inside = |key: &str| schema[key].as_object().is_some() && has_defaults(&schema[key]);
    schema.get("default").is_some()
        || inside("items")
        || inside("additionalProperties")
        || schema["properties"]
            .as_object()
            .is_some_and(|all| all.values().any(has_defaults))
}

/// The table of a group's plural.
pub(crate) fn table_name(group: &str, plural: &str) -> String {
    format!("{}/{plural}", if group.is_empty() { "core" } else { group })
}

static BUILTIN: LazyLock<Vec<Arc<Resource>>> = LazyLock::new(|| {
    api::scheme::builtin()
        .iter()
        .map(|info| Arc::new(Resource::builtin(info)))
        .collect()
});

/// An immutable picture of everything served; replaced as a whole when definitions change.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    resources: Vec<Arc<Resource>>,
    by_path: HashMap<(String, String, String), usize>,
    /// What definitions add, for discovery.
    pub custom: Vec<Arc<ResourceInfo>>,
    /// What each definition adds, by its revision.
    definitions: Vec<(u64, Vec<Arc<Resource>>)>,
    openapi_v2: OnceLock<bytes::Bytes>,
    openapi_v2_protobuf: OnceLock<bytes::Bytes>,
}

impl Registry {
    /// The built-in resources and those of the established definitions.
    #[cfg(test)]
    pub fn build<'a>(definitions: impl Iterator<Item = &'a Stored>) -> Self {
        Self::default().next(definitions)
    }

    /// The picture after this one. What a definition adds that has not changed is taken over with its compiled schemas, so
    /// that a new definition costs what it brings, however many there are.
    pub fn next<'a>(&self, definitions: impl Iterator<Item = &'a Stored>) -> Self {
        let known: HashMap<u64, &Vec<Arc<Resource>>> = self
            .definitions
            .iter()
            .map(|(revision, resources)| (*revision, resources))
            .collect();
        let mut out = Self::default();
        for resource in BUILTIN.iter() {
            out.add(resource);
        }
        for definition in definitions {
            let resources = match known.get(&definition.revision) {
                Some(resources) => (*resources).clone(),
                None => {
                    let definition = definition.glance();
                    if !crate::crd::is_established(&definition) {
                        continue;
                    }
                    added_by(&definition)
                }
            };
            for resource in &resources {
                out.add(resource);
                out.custom.push(resource.info.clone());
            }
            out.definitions.push((definition.revision, resources));
        }
        out
    }

    fn add(&mut self, resource: &Arc<Resource>) {
        let key = (
            resource.group.clone(),
            resource.version.clone(),
            resource.plural.clone(),
        );
        if self.by_path.contains_key(&key) {
            return;
        }
        self.by_path.insert(key, self.resources.len());
        self.resources.push(resource.clone());
    }

    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        let key = (group.to_owned(), version.to_owned(), plural.to_owned());
        self.by_path.get(&key).map(|i| &self.resources[*i])
    }

    /// The OpenAPI v2 document, made when somebody asks.
    pub fn openapi_v2(&self) -> bytes::Bytes {
        self.openapi_v2
            .get_or_init(|| api::openapi::v2::document(&self.custom).into())
            .clone()
    }

    /// The same as protobuf.
    pub fn openapi_v2_protobuf(&self) -> bytes::Bytes {
        self.openapi_v2_protobuf
            .get_or_init(|| api::openapi::v2::protobuf(&self.custom).into())
            .clone()
    }

    pub fn all(&self) -> &[Arc<Resource>] {
        &self.resources
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn definition(revision: u64, plural: &str, short: &str) -> Stored {
        let object = json!({
            "metadata": {"name": format!("{plural}.g.io")},
            "spec": {"group": "g.io", "scope": "Namespaced",
                "names": {"plural": plural, "kind": plural, "shortNames": [short]},
                "versions": [{"name": "v1", "served": true, "storage": true}]},
            "status": {"conditions": [{"type": "Established", "status": "True"}]},
        });
        Stored::of(object, revision)
    }

    #[test]
    fn unchanged_definitions_keep_what_they_have_compiled() {
        let (a, b) = (definition(1, "as", "a"), definition(2, "bs", "b"));
        let before = Registry::build([&a, &b].into_iter());
        let changed = definition(3, "bs", "bee");
        let after = before.next([&a, &changed].into_iter());
        let same = |plural: &str| {
            let find = |registry: &Registry| registry.find("g.io", "v1", plural).unwrap().clone();
            Arc::ptr_eq(&find(&before), &find(&after))
        };
        assert!(same("as"));
        assert!(!same("bs"));
        assert_eq!(after.find("g.io", "v1", "bs").unwrap().short_names, ["bee"]);
        let gone = after.next([&changed].into_iter());
        assert!(gone.find("g.io", "v1", "as").is_none());
        assert_eq!(gone.custom.len(), 1);
    }
}
