//! `metadata.managedFields` and server-side apply.

use super::last_applied;
use super::ownership::{self, FieldSet, Place};
use crate::meta;
use crate::schema::{self, Document, NodeId, ObjectSchema};
use crate::status::StatusError;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Who writes, for `metadata.managedFields`.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// Field manager: `?fieldManager=` or the user agent up to the first slash.
    pub manager: &'a str,
    /// The subresource written to; empty for the object itself.
    pub subresource: &'a str,
    /// RFC 3339.
    pub now: &'a str,
}

/// At most so many managers of plain updates are kept apart; older ones are joined.
const MAX_UPDATE_MANAGERS: usize = 10;

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    manager: String,
    apply: bool,
    api_version: String,
    subresource: String,
    time: Option<String>,
    set: FieldSet,
}

impl Entry {
    fn same_manager(&self, o: &Entry) -> bool {
        self.manager == o.manager
            && self.apply == o.apply
            && self.subresource == o.subresource
            && (self.apply || self.api_version == o.api_version)
    }
    /// How conflicts name it.
    fn shown(&self) -> String {
        let mut out = crate::field::quote(&self.manager);
        if !self.subresource.is_empty() {
            out.push_str(&format!(
                " with subresource {}",
                crate::field::quote(&self.subresource)
            ));
        }
        if !self.apply {
            out.push_str(&format!(" using {}", self.api_version));
        }
        out
    }
}

fn decode(obj: &Value) -> Vec<Entry> {
    obj["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|e| e["fieldsV1"].is_object())
        .map(|e| {
            let text = |k: &str| e[k].as_str().unwrap_or("").to_string();
            Entry {
                manager: text("manager"),
                apply: e["operation"] == "Apply",
                api_version: text("apiVersion"),
                subresource: text("subresource"),
                time: e["time"].as_str().map(String::from),
                set: FieldSet::from_fields(&e["fieldsV1"]),
            }
        })
        .collect()
}

fn encode(obj: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|e| !e.set.is_empty() || e.apply);
    cap(&mut entries);
    entries.sort_by(|a, b| {
        (
            !a.apply,
            &a.time,
            &a.manager,
            &a.api_version,
            &a.subresource,
        )
            .cmp(&(
                !b.apply,
                &b.time,
                &b.manager,
                &b.api_version,
                &b.subresource,
            ))
    });
    if entries.is_empty() {
        meta::unset(obj, "managedFields");
        return;
    }
    let list: Vec<Value> = entries
        .into_iter()
        .map(|e| {
            let mut m = Map::new();
            m.insert("manager".into(), e.manager.into());
            m.insert(
                "operation".into(),
                if e.apply { "Apply" } else { "Update" }.into(),
            );
            m.insert("apiVersion".into(), e.api_version.into());
            if let Some(t) = e.time {
                m.insert("time".into(), t.into());
            }
            m.insert("fieldsType".into(), "FieldsV1".into());
            m.insert("fieldsV1".into(), e.set.to_fields());
            if !e.subresource.is_empty() {
                m.insert("subresource".into(), e.subresource.into());
            }
            Value::Object(m)
        })
        .collect();
    meta::set(obj, "managedFields", list);
}

/// Joins the oldest update managers of a version when there are too many.
fn cap(entries: &mut Vec<Entry>) {
    let updaters = entries.iter().filter(|e| !e.apply).count();
    if updaters <= MAX_UPDATE_MANAGERS {
        return;
    }
    let mut order: Vec<usize> = (0..entries.len()).filter(|i| !entries[*i].apply).collect();
    order.sort_by(|a, b| entries[*a].time.cmp(&entries[*b].time));
    let old: Vec<usize> = order[..updaters - MAX_UPDATE_MANAGERS + 1].to_vec();
    let mut buckets: Vec<Entry> = Vec::new();
    for i in &old {
        let e = &entries[*i];
        match buckets.iter_mut().find(|b| b.api_version == e.api_version) {
            Some(b) => {
                b.set = std::mem::take(&mut b.set).union(e.set.clone());
                b.time = b.time.clone().max(e.time.clone());
            }
            None => buckets.push(Entry {
                manager: "ancient-changes".into(),
                subresource: String::new(),
                ..e.clone()
            }),
        }
    }
    let mut i = 0;
    entries.retain(|_| {
        i += 1;
        !old.contains(&(i - 1))
    });
    entries.extend(buckets);
}

/// A schema with the metadata of custom resources at hand.
struct Context<'a> {
    schema: &'a ObjectSchema,
    meta: Option<(Arc<Document>, NodeId)>,
}

impl<'a> Context<'a> {
    fn new(schema: &'a ObjectSchema) -> Self {
        Self {
            schema,
            meta: (!schema.builtin).then(schema::object_meta),
        }
    }
    fn place(&self) -> Place<'_> {
        Place {
            doc: &self.schema.doc,
            id: (!self.schema.preserve_all).then_some(self.schema.root),
            builtin: self.schema.builtin,
            meta: self.meta.as_ref().map(|(doc, id)| (&**doc, *id)),
        }
    }
    fn api_version(&self) -> String {
        meta::join_group_version(&self.schema.group, &self.schema.version)
    }
    /// Fields nobody manages: identity, and the status where it has a door of its own.
    fn strip(&self, set: &mut FieldSet, subresource: &str) {
        set.without(&["f:apiVersion"]);
        set.without(&["f:kind"]);
        for f in [
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        ] {
            set.without(&["f:metadata", &format!("f:{f}")]);
        }
        set.unmark(&["f:metadata"]);
        if subresource.is_empty() && self.has_status() {
            set.without(&["f:status"]);
        }
        if subresource == "status" {
            set.without(&["f:spec"]);
        }
    }
    fn has_status(&self) -> bool {
        let s = self.schema;
        match crate::scheme::find_kind(&s.group, &s.version, &s.kind) {
            Some(r) => r.subresource("status").is_some(),
            // A custom resource: a written status that is dropped by the server shows no difference anyway.
            None => !s.builtin && s.status_subresource,
        }
    }
    /// What an absent object looks like: for built-in kinds the empty struct.
    fn empty(&self) -> Value {
        let mut v = json!({"apiVersion": self.api_version(), "kind": self.schema.kind});
        if self.schema.builtin {
            crate::prune::prune(self.schema, &mut v);
        }
        v
    }
}

fn without_managed(obj: &Value) -> Value {
    let mut out = obj.clone();
    meta::unset(&mut out, "managedFields");
    out
}

/// Updates `new.metadata.managedFields` for a write that is not an apply. `old`: the stored object, `None` on create.
/// Call after defaulting, before admission and storing.
pub fn track_update(schema: &ObjectSchema, old: Option<&Value>, new: &mut Value, writer: Writer) {
    let cx = Context::new(schema);
    // An explicit empty list clears all ownership.
    let cleared = new["metadata"]["managedFields"]
        .as_array()
        .is_some_and(|l| {
            l.len() <= 1 && l.iter().all(|e| e.as_object().is_some_and(Map::is_empty))
        });
    let mut entries = decode(new);
    meta::unset(new, "managedFields");
    if entries.is_empty() {
        entries = old.map(decode).unwrap_or_default();
    }
    if cleared && old.is_some() {
        return;
    }
    let empty;
    let before = match old {
        Some(o) => o,
        None => {
            empty = cx.empty();
            &empty
        }
    };
    let me = Entry {
        manager: writer.manager.into(),
        apply: false,
        api_version: cx.api_version(),
        subresource: writer.subresource.into(),
        time: Some(writer.now.into()),
        set: FieldSet::default(),
    };
    // That the object before has managedFields, and the new one not yet, is of no account: nobody manages those.
    let mut diff = ownership::compare(cx.place(), before, new);
    take(&mut entries, &me, &diff);
    let mine = entries.iter().position(|e| e.same_manager(&me));
    cx.strip(&mut diff.added, writer.subresource);
    cx.strip(&mut diff.modified, writer.subresource);
    let written = diff.modified.union(diff.added);
    match mine {
        Some(i) => {
            let set = entries[i].set.minus(&diff.removed).union(written);
            if set != entries[i].set {
                entries[i].set = set;
                entries[i].time = Some(writer.now.into());
            }
        }
        None => entries.push(Entry { set: written, ..me }),
    }
    encode(new, entries);
}

/// Takes changed and removed fields from all managers but `me`; returns what was taken (the conflicts).
fn take(
    entries: &mut Vec<Entry>,
    me: &Entry,
    diff: &ownership::Comparison,
) -> Vec<(Entry, FieldSet)> {
    let mut conflicts = Vec::new();
    for e in entries.iter_mut().filter(|e| !e.same_manager(me)) {
        let lost = e
            .set
            .intersection(&diff.modified)
            .union(e.set.intersection(&diff.added));
        if !lost.is_empty() {
            conflicts.push((e.clone(), lost.clone()));
            e.set = e.set.minus(&lost);
        }
        e.set = e.set.minus(&diff.removed);
    }
    // Whoever has lost the last field is no manager any more; an applier keeps its own, even empty.
    entries.retain(|e| e.same_manager(me) || !e.set.is_empty());
    conflicts
}

/// Server-side apply: merges `applied` into `live` (`None`: the object is created) by field ownership and returns the new
/// object with its managedFields, not yet defaulted. Conflicts without `force` are a 409 with a cause a field.
pub fn apply(
    schema: &ObjectSchema,
    live: Option<&Value>,
    applied: &Value,
    writer: Writer,
    force: bool,
) -> Result<Value, StatusError> {
    let cx = Context::new(schema);
    if meta::api_version(applied).is_empty() || meta::kind(applied).is_empty() {
        let (g, v) = meta::group_version(meta::api_version(applied));
        let gv = if g.is_empty() {
            format!("/{v}")
        } else {
            format!("{g}/{v}")
        };
        let gv = if gv == "/" { "/".to_string() } else { gv };
        return Err(StatusError::bad_request(format!(
            "invalid object type: {gv}, Kind={}",
            meta::kind(applied)
        )));
    }
    if applied["metadata"]["managedFields"]
        .as_array()
        .is_some_and(|l| !l.is_empty())
    {
        return Err(StatusError::bad_request(
            "metadata.managedFields must be nil",
        ));
    }
    let applied = without_managed(applied);
    let empty;
    let before = match live {
        Some(l) => without_managed(l),
        None => {
            empty = cx.empty();
            empty.clone()
        }
    };
    let mut entries = live.map(decode).unwrap_or_default();
    if let Some(l) = live
        && entries.is_empty()
    {
        // Nobody owns anything yet: what is there was there before.
        let mut set = ownership::fields_of(cx.place(), &without_managed(l));
        cx.strip(&mut set, "");
        set.member = false;
        entries.push(Entry {
            manager: "before-first-apply".into(),
            apply: false,
            api_version: cx.api_version(),
            subresource: String::new(),
            time: Some(writer.now.into()),
            set,
        });
    }
    let mut set = ownership::fields_of(cx.place(), &applied);
    set.member = false;
    cx.strip(&mut set, writer.subresource);
    let me = Entry {
        manager: writer.manager.into(),
        apply: true,
        api_version: cx.api_version(),
        subresource: writer.subresource.into(),
        time: Some(writer.now.into()),
        set,
    };
    let mine = entries.iter().position(|e| e.same_manager(&me));
    let last = mine.map(|i| entries[i].clone());
    match mine {
        Some(i) => entries[i].set = me.set.clone(),
        None => entries.push(me.clone()),
    }
    let mut merged = ownership::merge(cx.place(), &before, &applied);
    if let Some(last) = &last {
        // What this manager applied before and nobody owns now goes away.
        let owned = entries
            .iter()
            .fold(FieldSet::default(), |u, e| u.union(e.set.clone()))
            .with_named_ancestors();
        let gone = last.set.minus(&owned);
        ownership::remove(cx.place(), &mut merged, &gone);
    }
    if schema.builtin {
        crate::prune::prune(schema, &mut merged);
    }
    let mut after = entries.clone();
    let diff = ownership::compare(cx.place(), &before, &merged);
    let mut conflicts = take(&mut after, &me, &diff);
    let by_kubectl = writer.manager == last_applied::KUBECTL;
    if by_kubectl
        && !conflicts.is_empty()
        && let Some(last) = last_applied::of(&before, &me.api_version)
    {
        // Its own, applied on the client's side, as far as they are still as it applied them.
        let now = ownership::compare(cx.place(), &last, &before);
        let own = ownership::fields_of(cx.place(), &last)
            .minus(&now.modified)
            .minus(&now.added)
            .minus(&now.removed);
        for (_, set) in &mut conflicts {
            *set = set.minus(&own);
        }
        conflicts.retain(|(_, set)| !set.is_empty());
    }
    if !force && !conflicts.is_empty() {
        return Err(conflict(&conflicts));
    }
    let changed = last.as_ref().is_none_or(|l| l.set != me.set) || before != merged;
    if let Some(i) = after.iter().position(|e| e.same_manager(&me))
        && changed
    {
        after[i].time = Some(writer.now.into());
        after[i].api_version = me.api_version.clone();
    }
    if by_kubectl {
        last_applied::renew(&mut merged, &applied);
    }
    encode(&mut merged, after);
    Ok(merged)
}

fn conflict(conflicts: &[(Entry, FieldSet)]) -> StatusError {
    let all: Vec<(String, String)> = conflicts
        .iter()
        .flat_map(|(e, set)| set.paths().into_iter().map(|p| (e.shown(), p)))
        .collect();
    let causes: Vec<Value> = all
        .iter()
        .map(|(m, p)| json!({"reason": "FieldManagerConflict", "message": format!("conflict with {m}"), "field": p}))
        .collect();
    let message = if let [(m, p)] = all.as_slice() {
        format!("Apply failed with 1 conflict: conflict with {m}: {p}")
    } else {
        let mut managers: Vec<&String> = all.iter().map(|a| &a.0).collect();
        managers.sort();
        managers.dedup();
        let mut lines = Vec::new();
        for m in managers {
            lines.push(format!("conflicts with {m}:"));
            lines.extend(
                all.iter()
                    .filter(|a| a.0 == *m)
                    .map(|a| format!("- {}", a.1)),
            );
        }
        format!(
            "Apply failed with {} conflicts: {}",
            all.len(),
            lines.join("\n")
        )
    };
    StatusError {
        details: json!({"causes": causes}),
        ..StatusError::new(409, "Conflict", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configmap() -> ObjectSchema {
        ObjectSchema::builtin("", "v1", "ConfigMap").unwrap()
    }
    fn writer(manager: &str) -> Writer<'_> {
        Writer {
            manager,
            subresource: "",
            now: "2026-01-01T00:00:00Z",
        }
    }
    fn cm(data: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "zz"}, "data": data})
    }

    #[test]
    fn apply_takes_shares_and_gives_up_fields() {
        let s = configmap();
        let one = apply(&s, None, &cm(json!({"a": "1"})), writer("m1"), false).unwrap();
        assert_eq!(
            one["metadata"]["managedFields"][0]["fieldsV1"],
            json!({"f:data": {"f:a": {}}})
        );
        let e = apply(
            &s,
            Some(&one),
            &cm(json!({"a": "2", "b": "3"})),
            writer("m2"),
            false,
        )
        .unwrap_err();
        assert_eq!(
            e.message,
            "Apply failed with 1 conflict: conflict with \"m1\": .data.a"
        );
        assert_eq!(
            e.details,
            json!({"causes": [{"reason": "FieldManagerConflict", "message": "conflict with \"m1\"", "field": ".data.a"}]})
        );
        let two = apply(
            &s,
            Some(&one),
            &cm(json!({"a": "1", "b": "3"})),
            writer("m2"),
            false,
        )
        .unwrap();
        // m1 lets go of a, m2 still has it.
        let three = apply(&s, Some(&two), &cm(json!({})), writer("m1"), false).unwrap();
        assert_eq!(three["data"], json!({"a": "1", "b": "3"}));
        // m2 lets go of b, which nobody else has.
        let four = apply(
            &s,
            Some(&three),
            &cm(json!({"a": "1"})),
            writer("m2"),
            false,
        )
        .unwrap();
        assert_eq!(four["data"], json!({"a": "1"}));
    }

    #[test]
    fn updates_own_what_they_change() {
        let s = configmap();
        let mut new = cm(json!({"a": "b"}));
        track_update(&s, None, &mut new, writer("curl"));
        assert_eq!(
            new["metadata"]["managedFields"],
            json!([{"manager": "curl", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1",
                    "fieldsV1": {"f:data": {".": {}, "f:a": {}}}}])
        );
        let e = apply(&s, Some(&new), &cm(json!({"a": "x"})), writer("m"), false).unwrap_err();
        assert_eq!(
            e.message,
            "Apply failed with 1 conflict: conflict with \"curl\" using v1: .data.a"
        );
        let forced = apply(&s, Some(&new), &cm(json!({"a": "x"})), writer("m"), true).unwrap();
        assert_eq!(forced["data"], json!({"a": "x"}));
        assert_eq!(
            forced["metadata"]["managedFields"][1]["fieldsV1"],
            json!({"f:data": {}})
        );
    }
}
