//! Compiled schemas: one form for the OpenAPI documents of built-in kinds and for the structural schemas of CRDs.
//!
//! Decoding, pruning, defaulting, validation, strategic merge and server-side apply all walk this form.

use crate::cel::{self, Expression};
use crate::openapi;
use crate::prune::typed::{GoField, go_field};
use indexmap::IndexMap;
use regex::Regex;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

/// JSON type of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// No type is prescribed.
    Any,
    /// A map or a struct.
    Object,
    /// A list.
    Array,
    /// A string.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// true or false.
    Boolean,
}

/// Index of a node in its document.
pub type NodeId = usize;

/// `additionalProperties`.
#[derive(Debug, Clone, PartialEq)]
pub enum Additional {
    /// Allowed or not, of any form.
    Any(bool),
    /// Every value has this schema.
    Schema(NodeId),
}

/// Numeric and size bounds, as in JSON schema.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)] // the names are those of JSON schema
pub struct Bounds {
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub multiple_of: Option<f64>,
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub unique_items: bool,
    pub min_properties: Option<u64>,
    pub max_properties: Option<u64>,
}

/// A CEL rule of a schema.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The rule as written.
    pub source: String,
    /// The rule; the error says why it is none.
    pub rule: Result<Expression, String>,
    /// What a violation says.
    pub message: String,
    /// What a violation says, as an expression; it wins when it yields a text.
    pub message_expression: Option<Expression>,
    /// The kind of the error.
    pub reason: String,
    /// The field below that the error is about.
    pub field_path: String,
    /// Compares with the value before.
    pub uses_old: bool,
    /// Also holds where there is no value before; `oldSelf` is optional then.
    pub optional_old: bool,
}

impl Rule {
    fn of(v: &Value) -> Self {
        let text = |key: &str| v[key].as_str().unwrap_or("").to_string();
        let rule = cel::parse(&text("rule"));
        let message_expression = cel::parse(&text("messageExpression")).ok();
        let old = |e: &Expression| e.mentions("oldSelf");
        Self {
            source: text("rule"),
            uses_old: rule.as_ref().is_ok_and(old) || message_expression.as_ref().is_some_and(old),
            rule,
            message: text("message"),
            message_expression,
            reason: text("reason"),
            field_path: text("fieldPath"),
            optional_old: v["optionalOldSelf"] == true,
        }
    }
}

/// One schema.
#[derive(Debug, Clone)]
pub struct Node {
    /// Component name, for instance `io.k8s.api.core.v1.PodSpec`; empty for inline schemas.
    pub name: String,
    /// The node whose structure this one has; the fields below then only override (`default`, patch strategy).
    pub alias: Option<NodeId>,
    /// Type.
    pub ty: Type,
    /// Format (`int32`, `date-time`, `byte`, `int-or-string`, ...).
    pub format: String,
    /// Number or string.
    pub int_or_string: bool,
    /// null is a value.
    pub nullable: bool,
    /// Members.
    pub properties: IndexMap<String, NodeId>,
    /// Members that must be there.
    pub required: Vec<String>,
    /// Schema of other members.
    pub additional: Option<Additional>,
    /// Schema of list entries.
    pub items: Option<NodeId>,
    /// Default; null when there is none.
    pub default: Value,
    /// How Go writes it, when it is a field of a built-in struct.
    pub go: GoField,
    /// Allowed values; empty when any.
    pub enumeration: Vec<Value>,
    /// Regular expression a string must match: source and compiled form (`None` where it does not compile here).
    pub pattern: Option<(String, Option<Regex>)>,
    /// Bounds.
    pub bounds: Bounds,
    /// All of these must hold.
    pub all_of: Vec<NodeId>,
    /// At least one of these must hold.
    pub any_of: Vec<NodeId>,
    /// Exactly one of these must hold.
    pub one_of: Vec<NodeId>,
    /// This must not hold.
    pub not: Option<NodeId>,
    /// Unknown members stay.
    pub preserve_unknown: bool,
    /// A whole object with apiVersion, kind, metadata.
    pub embedded: bool,
    /// `x-kubernetes-list-type`: `atomic`, `set`, `map`; empty when not said.
    pub list_type: String,
    /// `x-kubernetes-list-map-keys`.
    pub list_map_keys: Vec<String>,
    /// `x-kubernetes-map-type`: `atomic`, `granular`; empty when not said.
    pub map_type: String,
    /// `x-kubernetes-patch-strategy`, split at commas.
    pub patch_strategy: Vec<String>,
    /// `x-kubernetes-patch-merge-key`.
    pub patch_merge_key: String,
    /// `x-kubernetes-validations` (CEL rules).
    pub rules: Vec<Rule>,
}

impl Node {
    fn empty() -> Self {
        Self {
            name: String::new(),
            alias: None,
            ty: Type::Any,
            format: String::new(),
            int_or_string: false,
            nullable: false,
            properties: IndexMap::new(),
            required: Vec::new(),
            additional: None,
            items: None,
            default: Value::Null,
            go: GoField::default(),
            enumeration: Vec::new(),
            pattern: None,
            bounds: Bounds::default(),
            all_of: Vec::new(),
            any_of: Vec::new(),
            one_of: Vec::new(),
            not: None,
            preserve_unknown: false,
            embedded: false,
            list_type: String::new(),
            list_map_keys: Vec::new(),
            map_type: String::new(),
            patch_strategy: Vec::new(),
            patch_merge_key: String::new(),
            rules: Vec::new(),
        }
    }

    /// The last part of the component name: `PodSpec`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or("")
    }
}

/// A set of nodes that refer to each other.
#[derive(Debug, Default)]
pub struct Document {
    nodes: Vec<Node>,
    by_name: HashMap<String, NodeId>,
}

impl Document {
    /// Compiles the `components.schemas` of an OpenAPI document.
    pub fn from_components(schemas: &Value) -> Self {
        let mut doc = Self::default();
        let Some(map) = schemas.as_object() else {
            return doc;
        };
        // Names first, so that references resolve whatever the order.
        for name in map.keys() {
            doc.by_name.insert(name.clone(), doc.nodes.len());
            doc.nodes.push(Node::empty());
        }
        for (name, schema) in map {
            let id = doc.by_name[name];
            let mut node = doc.compile(schema);
            node.name = name.clone();
            for (field, id) in &node.properties {
                doc.nodes[*id].go = go_field(name, field);
            }
            doc.nodes[id] = node;
        }
        doc
    }

    /// Compiles one schema without references (a CRD's) and returns its root.
    pub fn from_schema(schema: &Value) -> (Self, NodeId) {
        let mut doc = Self::default();
        let root = doc.add(schema);
        (doc, root)
    }

    /// The node itself, overrides included.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// The node that carries the structure, behind references.
    pub fn resolve(&self, mut id: NodeId) -> &Node {
        while let Some(next) = self.nodes[id].alias {
            id = next;
        }
        &self.nodes[id]
    }

    /// A component by name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.by_name.get(name).copied()
    }

    fn add(&mut self, schema: &Value) -> NodeId {
        let node = self.compile(schema);
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn add_all(&mut self, list: &Value) -> Vec<NodeId> {
        list.as_array()
            .into_iter()
            .flatten()
            .map(|s| self.add(s))
            .collect()
    }

    fn reference(&self, schema: &Value) -> Option<NodeId> {
        let name = schema["$ref"]
            .as_str()?
            .strip_prefix("#/components/schemas/")?;
        self.by_name.get(name).copied()
    }

    fn compile(&mut self, s: &Value) -> Node {
        let mut n = Node::empty();
        n.alias = self.reference(s);
        let text = |key: &str| s[key].as_str().unwrap_or("").to_string();
        let flag = |key: &str| s[key].as_bool().unwrap_or(false);
        let strings = |key: &str| -> Vec<String> {
            s[key]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|v| v.as_str().map(String::from))
                .collect()
        };
        // `allOf` with one reference is how OpenAPI says "that type, with these overrides".
        if n.alias.is_none()
            && let Some([only]) = s["allOf"].as_array().map(Vec::as_slice)
        {
            n.alias = self.reference(only);
        }
        if n.alias.is_none() {
            n.all_of = self.add_all(&s["allOf"]);
        }
        n.ty = match s["type"].as_str() {
            Some("object") => Type::Object,
            Some("array") => Type::Array,
            Some("string") => Type::String,
            Some("integer") => Type::Integer,
            Some("number") => Type::Number,
            Some("boolean") => Type::Boolean,
            _ => Type::Any,
        };
        n.format = text("format");
        n.int_or_string = flag("x-kubernetes-int-or-string") || n.format == "int-or-string";
        n.nullable = flag("nullable");
        if let Some(map) = s["properties"].as_object() {
            for (k, v) in map {
                let id = self.add(v);
                n.properties.insert(k.clone(), id);
            }
        }
        n.required = strings("required");
        n.additional = match &s["additionalProperties"] {
            Value::Bool(b) => Some(Additional::Any(*b)),
            v @ Value::Object(_) => Some(Additional::Schema(self.add(v))),
            _ => None,
        };
        if s["items"].is_object() {
            n.items = Some(self.add(&s["items"]));
        }
        n.default = s["default"].clone();
        n.enumeration = s["enum"].as_array().cloned().unwrap_or_default();
        n.pattern = s["pattern"]
            .as_str()
            .map(|p| (p.to_string(), Regex::new(p).ok()));
        n.bounds = Bounds {
            minimum: s["minimum"].as_f64(),
            exclusive_minimum: flag("exclusiveMinimum"),
            maximum: s["maximum"].as_f64(),
            exclusive_maximum: flag("exclusiveMaximum"),
            multiple_of: s["multipleOf"].as_f64(),
            min_length: s["minLength"].as_u64(),
            max_length: s["maxLength"].as_u64(),
            min_items: s["minItems"].as_u64(),
            max_items: s["maxItems"].as_u64(),
            unique_items: flag("uniqueItems"),
            min_properties: s["minProperties"].as_u64(),
            max_properties: s["maxProperties"].as_u64(),
        };
        n.any_of = self.add_all(&s["anyOf"]);
        n.one_of = self.add_all(&s["oneOf"]);
        if s["not"].is_object() {
            n.not = Some(self.add(&s["not"]));
        }
        n.preserve_unknown = flag("x-kubernetes-preserve-unknown-fields");
        n.embedded = flag("x-kubernetes-embedded-resource");
        n.list_type = text("x-kubernetes-list-type");
        n.list_map_keys = strings("x-kubernetes-list-map-keys");
        n.map_type = text("x-kubernetes-map-type");
        n.patch_strategy = text("x-kubernetes-patch-strategy")
            .split(',')
            .filter(|p| !p.is_empty())
            .map(String::from)
            .collect();
        n.patch_merge_key = text("x-kubernetes-patch-merge-key");
        n.rules = s["x-kubernetes-validations"]
            .as_array()
            .into_iter()
            .flatten()
            .map(Rule::of)
            .collect();
        n
    }
}

/// The schema of one kind in one version.
#[derive(Debug, Clone)]
pub struct ObjectSchema {
    /// The nodes.
    pub doc: Arc<Document>,
    /// The object itself.
    pub root: NodeId,
    /// A compiled-in kind: decoded strictly by type as Go structs are. Else a custom resource.
    pub builtin: bool,
    /// Group of the kind.
    pub group: String,
    /// Version of the kind.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// A custom resource that keeps unknown fields (`spec.preserveUnknownFields` or no schema).
    pub preserve_all: bool,
    /// A custom resource whose status is written through a subresource only.
    pub status_subresource: bool,
}

static DOCUMENTS: LazyLock<Mutex<HashMap<String, Option<Arc<Document>>>>> =
    LazyLock::new(Default::default);

/// The compiled schemas of a built-in group-version, made on first use.
pub fn document(group: &str, version: &str) -> Option<Arc<Document>> {
    let key = crate::meta::join_group_version(group, version);
    let mut cache = DOCUMENTS.lock().expect("no panic while compiling schemas");
    cache
        .entry(key)
        .or_insert_with(|| {
            let doc = openapi::builtin_value(group, version)?;
            Some(Arc::new(Document::from_components(
                &doc["components"]["schemas"],
            )))
        })
        .clone()
}

/// `ObjectMeta` as every object has it.
pub fn object_meta() -> (Arc<Document>, NodeId) {
    let doc = document("", "v1").expect("the core group is built in");
    let id = doc
        .find("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
        .expect("the core group has ObjectMeta");
    (doc, id)
}

/// Component name of a built-in kind.
pub fn component(group: &str, version: &str, kind: &str) -> String {
    match group {
        "" => format!("io.k8s.api.core.{version}.{kind}"),
        "apiextensions.k8s.io" => {
            format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}.{kind}")
        }
        "apiregistration.k8s.io" => {
            format!("io.k8s.kube-aggregator.pkg.apis.apiregistration.{version}.{kind}")
        }
        _ => format!(
            "io.k8s.api.{}.{version}.{kind}",
            group.split('.').next().unwrap_or(group)
        ),
    }
}

impl ObjectSchema {
    /// The schema of a built-in kind, subresource bodies (`autoscaling/v1 Scale`, `policy/v1 Eviction`, `v1 Binding`) included.
    pub fn builtin(group: &str, version: &str, kind: &str) -> Option<Self> {
        // Bodies of subresources live in the documents of the groups that use them.
        let host = match (group, kind) {
            ("autoscaling", "Scale") => ("apps", "v1"),
            _ => (group, version),
        };
        let mut doc = document(host.0, host.1)?;
        let mut root = doc.find(&component(group, version, kind));
        if root.is_none() {
            // TokenRequest is only ever the body of serviceaccounts/token.
            let core = document("", "v1")?;
            root = core.find(&component(group, version, kind));
            if root.is_some() {
                doc = core;
            }
        }
        if root.is_none() {
            root = doc.find(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}"));
        }
        Some(Self {
            root: root?,
            doc,
            builtin: true,
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            preserve_all: false,
            status_subresource: false,
        })
    }

    /// The schema of one version of a CRD. A version without a schema keeps everything.
    pub fn from_crd(crd: &Value, version: &str) -> Option<Self> {
        let spec = &crd["spec"];
        let v = spec["versions"]
            .as_array()?
            .iter()
            .find(|v| v["name"] == version)?;
        let schema = &v["schema"]["openAPIV3Schema"];
        let (doc, root) = Document::from_schema(schema);
        Some(Self {
            doc: Arc::new(doc),
            root,
            builtin: false,
            group: spec["group"].as_str()?.into(),
            version: version.into(),
            kind: spec["names"]["kind"].as_str()?.into(),
            preserve_all: !schema.is_object() || spec["preserveUnknownFields"] == true,
            status_subresource: v["subresources"]["status"].is_object(),
        })
    }

    /// The schema of a served resource, built-in or custom. Compiling a CRD's schema takes time: keep the result.
    pub fn of(resource: &crate::scheme::ResourceInfo) -> Option<Self> {
        match &resource.crd {
            Some(crd) => Self::from_crd(crd, &resource.version),
            None => Self::builtin(&resource.group, &resource.version, &resource.kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builtin_kind_has_a_schema() {
        // What can only be read is never decoded.
        let written = |r: &&std::sync::Arc<crate::scheme::ResourceInfo>| r.allows("create");
        for r in crate::scheme::builtin().iter().filter(written) {
            let s = ObjectSchema::of(r).unwrap_or_else(|| panic!("{} {}", r.api_version(), r.kind));
            assert!(
                s.doc.resolve(s.root).properties.contains_key("metadata"),
                "{}",
                r.kind
            );
            for sub in &r.subresources {
                if ["exec", "attach", "portforward", "proxy"].contains(&sub.name.as_str()) {
                    continue; // options in the query, no body
                }
                let (g, v) = if sub.version.is_empty() {
                    (&r.group, &r.version)
                } else {
                    (&sub.group, &sub.version)
                };
                assert!(
                    ObjectSchema::builtin(g, v, &sub.kind).is_some(),
                    "{}/{} {g}/{v} {}",
                    r.plural,
                    sub.name,
                    sub.kind
                );
            }
        }
    }

    #[test]
    fn merge_keys_and_references_survive_compilation() {
        let s = ObjectSchema::builtin("apps", "v1", "Deployment").unwrap();
        let spec = s.doc.resolve(s.doc.resolve(s.root).properties["spec"]);
        assert_eq!(
            s.doc.node(spec.properties["strategy"]).patch_strategy,
            ["retainKeys"]
        );
        let pod = s
            .doc
            .resolve(s.doc.resolve(spec.properties["template"]).properties["spec"]);
        let containers = s.doc.node(pod.properties["containers"]);
        assert_eq!(
            (
                containers.patch_merge_key.as_str(),
                containers.list_map_keys.as_slice()
            ),
            ("name", &["name".to_string()][..])
        );
    }
}
