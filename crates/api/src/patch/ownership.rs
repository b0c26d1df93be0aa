//! Sets of fields, and how values turn into them: the arithmetic below server-side apply.
//!
//! A field set is a tree whose edges are written as in `FieldsV1`: `f:name`, `k:{"name":"x"}` (entry of a keyed list),
//! `v:"x"` (entry of a set).

use crate::schema::{Additional, Document, NodeId, Type};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// A set of fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FieldSet {
    /// The field at this place belongs to the set.
    pub member: bool,
    children: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    /// Nothing in it.
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(FieldSet::is_empty)
    }
    /// From `FieldsV1`.
    pub fn from_fields(v: &Value) -> Self {
        let mut out = Self::default();
        for (k, v) in v.as_object().into_iter().flatten() {
            if k == "." {
                out.member = true;
                continue;
            }
            let mut child = Self::from_fields(v);
            child.member |= v.as_object().is_some_and(Map::is_empty);
            out.children.insert(k.clone(), child);
        }
        out
    }
    /// To `FieldsV1`.
    pub fn to_fields(&self) -> Value {
        let mut m = Map::new();
        for (k, c) in &self.children {
            if c.is_empty() {
                continue;
            }
            let mut v = c.to_fields();
            if c.member && c.children.values().any(|g| !g.is_empty()) {
                let inner = v.as_object_mut().expect("to_fields makes objects");
                inner.shift_insert(0, ".".into(), Value::Object(Map::new()));
            }
            m.insert(k.clone(), v);
        }
        Value::Object(m)
    }
    /// Adds a path.
    pub fn insert(&mut self, path: &[String]) {
        let mut at = self;
        for p in path {
            if !at.children.contains_key(p) {
                at.children.insert(p.clone(), Self::default());
            }
            at = at.children.get_mut(p).expect("it is there now");
        }
        at.member = true;
    }
    /// In either.
    pub fn union(mut self, o: Self) -> Self {
        self.member |= o.member;
        for (k, c) in o.children {
            match self.children.entry(k) {
                Entry::Vacant(free) => {
                    free.insert(c);
                }
                Entry::Occupied(mut mine) => {
                    let both = std::mem::take(mine.get_mut()).union(c);
                    mine.insert(both);
                }
            }
        }
        self
    }
    /// In this one, not in the other.
    pub fn minus(&self, o: &Self) -> Self {
        let mut out = Self {
            member: self.member && !o.member,
            children: BTreeMap::new(),
        };
        for (k, c) in &self.children {
            let rest = o
                .children
                .get(k)
                .map_or_else(|| c.clone(), |other| c.minus(other));
            if !rest.is_empty() {
                out.children.insert(k.clone(), rest);
            }
        }
        out
    }
    /// In both.
    pub fn intersection(&self, o: &Self) -> Self {
        let mut out = Self {
            member: self.member && o.member,
            children: BTreeMap::new(),
        };
        for (k, c) in &self.children {
            if let Some(other) = o.children.get(k) {
                let both = c.intersection(other);
                if !both.is_empty() {
                    out.children.insert(k.clone(), both);
                }
            }
        }
        out
    }
    /// Without a path and all below it.
    pub fn without(&mut self, path: &[&str]) {
        match path {
            [] => {}
            [last] => {
                self.children.remove(*last);
            }
            [first, rest @ ..] => {
                if let Some(c) = self.children.get_mut(*first) {
                    c.without(rest);
                }
            }
        }
    }
    /// Takes the membership of a field, not of those below it.
    pub fn unmark(&mut self, path: &[&str]) {
        match path {
            [] => self.member = false,
            [first, rest @ ..] => {
                if let Some(c) = self.children.get_mut(*first) {
                    c.unmark(rest);
                }
            }
        }
    }
    /// Fields on the way to members become members themselves (named fields only, not list entries).
    pub fn with_named_ancestors(&self) -> Self {
        let mut out = self.clone();
        for (k, c) in &mut out.children {
            let inner = c.with_named_ancestors();
            let full = !inner.is_empty();
            *c = inner;
            c.member |= full && k.starts_with("f:");
        }
        out
    }
    /// The members as paths for people: `.spec.containers[name="c"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect("", &mut out);
        out
    }
    fn collect(&self, path: &str, out: &mut Vec<String>) {
        if self.member {
            out.push(path.to_string());
        }
        for (k, c) in &self.children {
            c.collect(&format!("{path}{}", shown(k)), out);
        }
    }
}

fn shown(edge: &str) -> String {
    let (kind, rest) = edge.split_at(2);
    match kind {
        "f:" => format!(".{rest}"),
        "v:" => format!("[={rest}]"),
        "i:" => format!("[{rest}]"),
        _ => {
            let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let parts: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("[{}]", parts.join(","))
        }
    }
}

/// A place in a schema.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The document.
    pub doc: &'a Document,
    /// The node; `None` where nothing is known (types are then deduced from values).
    pub id: Option<NodeId>,
    /// A built-in kind.
    pub builtin: bool,
    /// ObjectMeta for the `metadata` of a custom resource's root.
    pub meta: Option<(&'a Document, NodeId)>,
}

enum Shape {
    Leaf,
    Map,
    Set,
    Keyed(Vec<String>),
}

impl<'a> Place<'a> {
    fn shape(&self, v: &Value) -> Shape {
        let deduced = || {
            if v.is_object() {
                Shape::Map
            } else {
                Shape::Leaf
            }
        };
        let Some(id) = self.id else { return deduced() };
        let (own, node) = (self.doc.node(id), self.doc.resolve(id));
        if own.map_type == "atomic" || node.map_type == "atomic" {
            return Shape::Leaf;
        }
        match node.ty {
            Type::Object
                if !node.properties.is_empty()
                    || matches!(node.additional, Some(Additional::Schema(_))) =>
            {
                Shape::Map
            }
            Type::Object if self.builtin => Shape::Leaf,
            Type::Object => Shape::Map,
            Type::Array => match if own.list_type.is_empty() { node } else { own } {
                n if n.list_type == "map" => Shape::Keyed(n.list_map_keys.clone()),
                n if n.list_type == "set" => Shape::Set,
                _ => Shape::Leaf,
            },
            Type::Any if !self.builtin && !node.int_or_string => deduced(),
            _ => Shape::Leaf,
        }
    }
    /// The place of a member, and whether the schema names it.
    fn member(&self, key: &str) -> (Place<'a>, bool) {
        if key == "metadata"
            && let Some((doc, id)) = self.meta
        {
            return (
                Place {
                    doc,
                    id: Some(id),
                    builtin: true,
                    meta: None,
                },
                true,
            );
        }
        let unknown = Place {
            id: None,
            meta: None,
            ..*self
        };
        let Some(id) = self.id else {
            return (unknown, false);
        };
        let node = self.doc.resolve(id);
        if let Some(p) = node.properties.get(key) {
            return (
                Place {
                    id: Some(*p),
                    meta: None,
                    ..*self
                },
                true,
            );
        }
        match node.additional {
            Some(Additional::Schema(s)) => (
                Place {
                    id: Some(s),
                    meta: None,
                    ..*self
                },
                false,
            ),
            _ => (unknown, false),
        }
    }
    fn item(&self) -> Place<'a> {
        Place {
            id: self.id.and_then(|id| self.doc.resolve(id).items),
            meta: None,
            ..*self
        }
    }
    /// The edge of a list entry, by its keys (with the schema's defaults for absent ones).
    fn key_edge(&self, keys: &[String], entry: &Value) -> String {
        let mut m: BTreeMap<&str, Value> = BTreeMap::new();
        let item = self.item();
        for k in keys {
            let v = match entry.get(k) {
                Some(v) => v.clone(),
                None => {
                    let default = item
                        .id
                        .and_then(|id| self.doc.resolve(id).properties.get(k))
                        .map_or(Value::Null, |p| self.doc.node(*p).default.clone());
                    if default.is_null() {
                        continue;
                    }
                    default
                }
            };
            m.insert(k, v);
        }
        format!("k:{}", serde_json::to_string(&m).unwrap_or_default())
    }
    /// The entries of a list with their edges.
    fn entries<'v>(&self, shape: &Shape, v: Option<&'v Value>) -> Vec<(String, &'v Value)> {
        let list = v.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        list.iter()
            .map(|e| match shape {
                Shape::Keyed(keys) => (self.key_edge(keys, e), e),
                _ => (format!("v:{e}"), e),
            })
            .collect()
    }
}

/// The fields of an applied configuration: leaves, list entries, and empty maps.
pub fn fields_of(place: Place, v: &Value) -> FieldSet {
    let mut out = FieldSet::default();
    let shape = place.shape(v);
    match &shape {
        Shape::Leaf => out.member = true,
        Shape::Map => {
            for (k, v) in v.as_object().into_iter().flatten() {
                let (sub, named) = place.member(k);
                let mut c = fields_of(sub, v);
                c.member |= v.is_null() || v.as_object().is_some_and(Map::is_empty) || !named;
                out.children.insert(format!("f:{k}"), c);
            }
        }
        Shape::Set | Shape::Keyed(_) => {
            for (edge, v) in place.entries(&shape, Some(v)) {
                let mut c = fields_of(place.item(), v);
                c.member = true;
                out.children.insert(edge, c);
            }
        }
    }
    out
}

/// What differs between two objects.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Fields that only the new one has.
    pub added: FieldSet,
    /// Leaves that differ.
    pub modified: FieldSet,
    /// Fields that only the old one has.
    pub removed: FieldSet,
}

/// Compares two objects.
pub fn compare(place: Place, old: &Value, new: &Value) -> Comparison {
    let mut out = Comparison::default();
    compare_at(place, Some(old), Some(new), &mut Vec::new(), &mut out);
    out
}

fn compare_at(
    place: Place,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<String>,
    out: &mut Comparison,
) {
    let shape = match (old, new) {
        (None, None) => return,
        (None, Some(n)) => {
            out.added.insert(path);
            place.shape(n)
        }
        (Some(o), None) => {
            out.removed.insert(path);
            place.shape(o)
        }
        (Some(o), Some(n)) => {
            let shape = place.shape(if n.is_null() { o } else { n });
            if matches!(shape, Shape::Leaf) && o != n {
                out.modified.insert(path);
            }
            shape
        }
    };
    match &shape {
        Shape::Leaf => {}
        Shape::Map => {
            let (o, n) = (
                old.and_then(Value::as_object),
                new.and_then(Value::as_object),
            );
            let mut keys: Vec<&String> = n.into_iter().flat_map(Map::keys).collect();
            keys.extend(
                o.into_iter()
                    .flat_map(Map::keys)
                    .filter(|k| !n.is_some_and(|n| n.contains_key(*k))),
            );
            for k in keys {
                let (before, now) = (o.and_then(|m| m.get(k)), n.and_then(|m| m.get(k)));
                // Most of an object stays as it was: that is seen without naming its fields.
                if before == now {
                    continue;
                }
                path.push(format!("f:{k}"));
                compare_at(place.member(k).0, before, now, path, out);
                path.pop();
            }
        }
        Shape::Set | Shape::Keyed(_) => {
            let (o, n) = (place.entries(&shape, old), place.entries(&shape, new));
            let item = place.item();
            for (edge, v) in &n {
                let before = o.iter().find(|(e, _)| e == edge).map(|(_, v)| *v);
                path.push(edge.clone());
                compare_at(item, before, Some(v), path, out);
                path.pop();
            }
            for (edge, v) in o.iter().filter(|(e, _)| !n.iter().any(|(f, _)| f == e)) {
                path.push(edge.clone());
                compare_at(item, Some(v), None, path, out);
                path.pop();
            }
        }
    }
}

/// Lays an applied configuration over a live object.
pub fn merge(place: Place, live: &Value, applied: &Value) -> Value {
    let shape = place.shape(applied);
    match &shape {
        Shape::Map if live.is_object() && applied.is_object() => {
            let mut out = live.as_object().cloned().unwrap_or_default();
            for (k, v) in applied.as_object().into_iter().flatten() {
                let merged = out
                    .get(k)
                    .map_or_else(|| v.clone(), |l| merge(place.member(k).0, l, v));
                out.insert(k.clone(), merged);
            }
            Value::Object(out)
        }
        Shape::Set | Shape::Keyed(_) if live.is_array() && applied.is_array() => {
            let (l, a) = (
                place.entries(&shape, Some(live)),
                place.entries(&shape, Some(applied)),
            );
            // The applied order counts; entries of the live list alone stand where they come first.
            let in_applied = |edge: &String| a.iter().any(|(e, _)| e == edge);
            let live_of = |edge: &String| l.iter().find(|(e, _)| e == edge).map(|(_, v)| *v);
            let mut out: Vec<Value> = Vec::new();
            let mut rest = l.iter().peekable();
            for (edge, v) in &a {
                while let Some((_, alone)) = rest.next_if(|(e, _)| !in_applied(e)) {
                    out.push((*alone).clone());
                }
                let both = live_of(edge);
                out.push(both.map_or_else(|| (*v).clone(), |live| merge(place.item(), live, v)));
                if both.is_some() {
                    // Its place in the live list is passed.
                    rest.next_if(|(e, _)| in_applied(e));
                }
            }
            out.extend(
                rest.filter(|(e, _)| !in_applied(e))
                    .map(|(_, v)| (*v).clone()),
            );
            Value::Array(out)
        }
        _ => applied.clone(),
    }
}

/// Removes the members of a set from a value.
pub fn remove(place: Place, v: &mut Value, set: &FieldSet) {
    let shape = place.shape(v);
    match &shape {
        Shape::Leaf => {}
        Shape::Map => {
            let Some(map) = v.as_object_mut() else { return };
            let keys: Vec<String> = map.keys().cloned().collect();
            for k in keys {
                let Some(c) = set.children.get(&format!("f:{k}")) else {
                    continue;
                };
                if c.member {
                    map.shift_remove(&k);
                } else {
                    remove(place.member(&k).0, &mut map[&k], c);
                }
            }
        }
        Shape::Set | Shape::Keyed(_) => {
            let edges: Vec<String> = place
                .entries(&shape, Some(v))
                .into_iter()
                .map(|(e, _)| e)
                .collect();
            let Some(list) = v.as_array_mut() else { return };
            let item = place.item();
            let mut edges = edges.iter();
            list.retain_mut(|entry| {
                let Some(c) = edges.next().and_then(|e| set.children.get(e)) else {
                    return true;
                };
                if c.member {
                    return false;
                }
                remove(item, entry, c);
                true
            });
        }
    }
}
