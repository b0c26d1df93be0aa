//! Objects and where they come from.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;

use crate::fields::Fields;
use crate::kind::Kind;

/// The cluster whose API server is asked; objects of files belong to it too.
pub const OWN_CLUSTER: &str = "default";

/// An object that is analyzed.
#[derive(Debug, Clone)]
pub struct Object {
    /// Where it comes from, with its name.
    pub origin: Arc<Origin>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its `spec`; the whole object where there is none (ConfigMap, Secret, webhooks).
    pub spec: Value,
    /// Its `status`.
    pub status: Value,
}

/// Which object something is about, and where that object was read.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Kind of the object.
    pub kind: Kind,
    /// Its namespace; empty for objects without one.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The cluster it belongs to.
    pub cluster: String,
    /// The file it was read from.
    pub place: Option<Place>,
    /// Codes that the annotation `galley.istio.io/analyze-suppress` asks not to be told; `*` for all.
    pub suppressed: Vec<String>,
}

/// A place in a file.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// Name of the file, `-` for the standard input.
    pub file: String,
    /// Line where the object begins, starting at 1.
    pub line: usize,
    /// Lines of its single values by path, such as `spec.http[0].route[0].destination.host`.
    pub fields: HashMap<String, usize>,
}

impl Origin {
    /// `namespace/name`, or the name alone.
    #[must_use]
    pub fn full_name(&self) -> String {
        full_name(&self.namespace, &self.name)
    }

    /// How messages call it: `VirtualService shop/basket`.
    #[must_use]
    pub fn friendly_name(&self) -> String {
        format!("{} {}", self.kind.info().name, self.full_name())
    }

    /// The key by which messages are sorted.
    #[must_use]
    pub fn comparator(&self) -> String {
        format!("{}/{}/{}", self.kind.info().name, self.name, self.namespace)
    }

    /// The namespace it belongs to; a namespace belongs to itself.
    #[must_use]
    pub fn belongs_to(&self) -> &str {
        if self.kind == Kind::Namespace {
            &self.name
        } else {
            &self.namespace
        }
    }

    /// `file:line` of the object, or of `line` where one is given. JSON files have no lines.
    #[must_use]
    pub fn reference(&self, line: Option<usize>) -> Option<String> {
        let place = self.place.as_ref()?;
        let line = line.unwrap_or(place.line);
        let json = std::path::Path::new(&place.file)
            .extension()
            .is_some_and(|extension| extension == "json");
        if json || place.line == 0 || place.file.is_empty() {
            return Some(place.file.clone());
        }
        Some(format!("{}:{line}", place.file))
    }
}

/// `namespace/name`, or the name alone where there is no namespace.
#[must_use]
pub fn full_name(namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}/{name}")
    }
}

impl Object {
    /// The object of `kind` with this content, read from `cluster` and, for files, at `place`.
    #[must_use]
    pub fn new(kind: Kind, mut value: Value, cluster: &str, place: Option<Place>) -> Self {
        let metadata = value["metadata"].take();
        let namespace = if kind.info().namespaced {
            metadata.text("namespace").to_owned()
        } else {
            String::new()
        };
        let annotations = metadata.texts_by_key("annotations");
        let suppressed = annotations
            .get("galley.istio.io/analyze-suppress")
            .filter(|codes| !codes.is_empty())
            .map(|codes| codes.split(',').map(str::to_owned).collect())
            .unwrap_or_default();
        let origin = Arc::new(Origin {
            kind,
            namespace,
            name: metadata.text("name").to_owned(),
            cluster: cluster.to_owned(),
            place,
            suppressed,
        });
        let status = value["status"].take();
        let labels = metadata.texts_by_key("labels");
        let spec = match value.get_mut("spec") {
            Some(spec) if !kind.synthetic() => spec.take(),
            _ => value,
        };
        Self {
            origin,
            labels,
            annotations,
            spec,
            status,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.origin.name
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.origin.namespace
    }

    /// `namespace/name`.
    #[must_use]
    pub fn full_name(&self) -> String {
        self.origin.full_name()
    }

    /// A label, empty where there is none.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// An annotation, empty where there is none.
    #[must_use]
    pub fn annotation(&self, name: &str) -> &str {
        self.annotations.get(name).map_or("", String::as_str)
    }
}
