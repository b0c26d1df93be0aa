//! Which resources are served: the built-in ones and those that CustomResourceDefinitions add.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use api::schema::ObjectSchema;
use api::scheme::ResourceInfo;
use serde_json::Value;

use crate::error::ApiError;
use crate::storage::Key;

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
        let find = |wanted: &dyn Fn(&Value) -> bool| {
            versions
                .into_iter()
                .flatten()
                .find(|v| wanted(v))
                .cloned()
                .unwrap_or_default()
        };
        let version = find(&|v| v["name"] == info.version.as_str());
        let storage_version = find(&|v| v["storage"] == true)["name"]
            .as_str()
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

/// An immutable picture of everything served; replaced as a whole when definitions change.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    resources: Vec<Arc<Resource>>,
    by_path: HashMap<(String, String, String), usize>,
    /// What definitions add, for discovery.
    pub custom: Vec<Arc<ResourceInfo>>,
    openapi_v2: OnceLock<bytes::Bytes>,
}

impl Registry {
    /// The built-in resources and those of the established definitions.
    pub fn build<'a>(definitions: impl Iterator<Item = &'a Value>) -> Self {
        let mut out = Self::default();
        for info in api::scheme::builtin() {
            out.add(Resource::builtin(info));
        }
        for definition in definitions {
            if !crate::crd::is_established(definition) {
                continue;
            }
            for info in api::scheme::from_crd(definition) {
                out.add(Resource::custom(&info, definition));
                out.custom.push(info);
            }
        }
        out
    }

    fn add(&mut self, resource: Resource) {
        let key = (
            resource.group.clone(),
            resource.version.clone(),
            resource.plural.clone(),
        );
        if self.by_path.contains_key(&key) {
            return;
        }
        self.by_path.insert(key, self.resources.len());
        self.resources.push(Arc::new(resource));
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

    pub fn all(&self) -> &[Arc<Resource>] {
        &self.resources
    }
}
