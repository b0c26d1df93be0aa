//! The seam to the pure Kubernetes machinery of the `api` crate: schemas, defaults, validation,
//! patches, tables, selectors, looked up for a served resource.

use api::patch::{PatchKind, Writer};
use api::prune::{Duplicates, FieldValidation};
use api::selector::{FieldSelector, LabelSelector};
use api::table::{IncludeObject, Source};
use bytes::Bytes;
use serde_json::Value;

use crate::error::{ApiError, ApiResult};
use crate::registry::Resource;
use crate::rest::write::WriteOptions;
use crate::target::Query;

/// Label and field selectors of a list or watch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Filter {
    pub fn from_query(query: &Query, resource: &Resource) -> ApiResult<Self> {
        Ok(Self {
            labels: LabelSelector::parse(query.text("labelSelector"))?,
            fields: FieldSelector::parse(query.text("fieldSelector"), &resource.info)?,
        })
    }

    /// The name that objects must have, where the field selector says it, and what else is selected.
    pub fn by_name(mut self) -> (Option<String>, Self) {
        let terms = &mut self.fields.terms;
        let at = terms
            .iter()
            .position(|(field, equal, _)| field == "metadata.name" && *equal);
        (at.map(|at| terms.remove(at).2), self)
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub fn matches(&self, object: &Value) -> bool {
        self.is_empty() || (self.labels.matches(object) && self.fields.matches(object))
    }
}

/// Does a `metav1.LabelSelector` select these labels? Null and `{}` select everything, as
/// they do for webhooks.
pub(crate) fn selects(selector: &Value, labels: &Value) -> bool {
    selector.is_null() || LabelSelector::from_value(selector).matches_labels(labels)
}

/// A `meta.k8s.io/v1` Table of objects as JSON; `include` is `includeObject`.
pub(crate) fn table(
    resource: &Resource,
    objects: &[&dyn Source],
    metadata: &Value,
    include: &str,
    columns: bool,
) -> Vec<u8> {
    let include = match include {
        "None" => IncludeObject::None,
        "Object" => IncludeObject::Object,
        _ => IncludeObject::Metadata,
    };
    let now = api::time::Time::now_utc();
    api::table::table(&resource.info, objects, metadata, include, columns, now)
}

/// Parses a body. The second value lists fields that are there twice.
pub(crate) fn parse(
    resource: &Resource,
    content_type: &str,
    bytes: &Bytes,
) -> ApiResult<(Value, Duplicates)> {
    let yaml = match content_type {
        "" | "application/json" | "*/*" => false,
        "application/yaml" => true,
        crate::body::PROTOBUF if resource.custom.is_none() => {
            let object = crate::body::parse(content_type, bytes, &resource.kind)?;
            return Ok((object, Duplicates::default()));
        }
        other => {
            return Err(ApiError::unsupported_media_type(
                other,
                crate::body::ACCEPTED,
            ));
        }
    };
    match resource.schema() {
        Some(schema) => api::prune::parse(schema, bytes, yaml),
        None => crate::body::parse(content_type, bytes, &resource.kind)
            .map(|v| (v, Duplicates::default())),
    }
}

/// Removes (or refuses) fields the schema does not know; returns what to warn about. `patched` makes the outcome of a patch once more.
pub(crate) fn decode(
    resource: &Resource,
    object: &mut Value,
    options: &WriteOptions,
    patched: &dyn Fn() -> Value,
) -> ApiResult<Vec<String>> {
    let Some(schema) = resource.schema() else {
        return Ok(Vec::new());
    };
    if let Some((kind, patch)) = &options.patch {
        let validation = options.field_validation;
        return api::prune::decode_patched(schema, object, (*kind, patch), patched, validation);
    }
    api::prune::decode(
        schema,
        object,
        &options.duplicates,
        options.field_validation,
    )
}

/// Removes what webhooks wrote and the schema does not know.
pub(crate) fn prune(resource: &Resource, object: &mut Value) {
    if let Some(schema) = resource.schema() {
        api::prune::prune(schema, object);
    }
}

/// Fills in default values.
pub(crate) fn default(resource: &Resource, object: &mut Value) {
    if let Some(schema) = resource.schema() {
        api::defaults::apply(schema, object);
    }
}

fn refuse(resource: &Resource, object: &Value, errors: &[api::field::FieldError]) -> ApiResult<()> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(
        &resource.group,
        &resource.kind,
        api::meta::name(object),
        errors,
    ))
}

/// Refuses what readers of the stored object could not get through.
fn bounded(object: &Value) -> ApiResult<()> {
    if api::meta::nests_deeper(object, api::meta::DEEPEST) {
        return Err(ApiError::bad_request(format!(
            "the object nests deeper than {} levels",
            api::meta::DEEPEST
        )));
    }
    Ok(())
}

/// Refuses wrong new objects.
pub(crate) fn validate_create(resource: &Resource, object: &Value) -> ApiResult<()> {
    bounded(object)?;
    let errors = match resource.schema() {
        Some(schema) => api::validate::create(&resource.info, schema, object),
        None => Vec::new(),
    };
    refuse(resource, object, &errors)
}

/// Refuses wrong changes.
pub(crate) fn validate_update(
    resource: &Resource,
    object: &Value,
    old: &Value,
    subresource: &str,
) -> ApiResult<()> {
    bounded(object)?;
    let sub = (!subresource.is_empty()).then_some(subresource);
    let errors = match resource.schema() {
        Some(schema) => api::validate::update(&resource.info, schema, object, old, sub),
        None => Vec::new(),
    };
    refuse(resource, object, &errors)
}

/// Keeps `metadata.managedFields` for writes that are not applies.
pub(crate) fn manage(
    resource: &Resource,
    old: Option<&Value>,
    object: &mut Value,
    options: &WriteOptions,
    subresource: &str,
    now: &str,
) {
    if let Some(schema) = resource.schema() {
        let writer = Writer {
            manager: &options.manager,
            subresource,
            now,
        };
        api::patch::track_update(schema, old, object, writer);
    }
}

/// Applies a patch that is not a server-side apply.
pub(crate) fn patched(
    resource: &Resource,
    kind: PatchKind,
    object: &Value,
    patch: &Value,
) -> ApiResult<Value> {
    match kind {
        PatchKind::Json => api::patch::json(object, patch),
        PatchKind::Merge => Ok(api::patch::merge(object, patch)),
        PatchKind::Strategic => match resource.schema() {
            Some(schema) => api::patch::strategic(schema, object, patch),
            None => Ok(api::patch::merge(object, patch)),
        },
        PatchKind::Apply => Err(ApiError::internal("an apply is not a patch")),
    }
}

/// Refuses an apply of fields that the schema does not know: nobody could own them.
pub(crate) fn declared(resource: &Resource, namespace: &str, wanted: &Value) -> ApiResult<()> {
    let Some(schema) = resource.schema() else {
        return Ok(());
    };
    let mut copy = wanted.clone();
    let told = api::prune::decode(
        schema,
        &mut copy,
        &Duplicates::default(),
        FieldValidation::Warn,
    )?;
    let unknown: Vec<String> = told
        .iter()
        .filter_map(|text| text.strip_prefix("unknown field \"")?.strip_suffix('"'))
        .map(|path| format!(".{path}: field not declared in schema"))
        .collect();
    let list = match unknown.as_slice() {
        [] => return Ok(()),
        [only] => only.clone(),
        several => format!("errors:\n  {}", several.join("\n  ")),
    };
    let message = format!(
        "failed to create typed patch object ({namespace}/{}; {}, Kind={}): {list}",
        api::meta::name(wanted),
        resource.api_version(),
        resource.kind
    );
    // The real server says 500; the mistake is the client's.
    Err(ApiError::new(400, "", message))
}

/// Server-side apply.
pub(crate) fn applied(
    resource: &Resource,
    live: Option<&Value>,
    wanted: &Value,
    options: &WriteOptions,
    subresource: &str,
    now: &str,
) -> ApiResult<Value> {
    let Some(schema) = resource.schema() else {
        return Err(ApiError::bad_request(
            "the resource cannot be applied: it has no schema",
        ));
    };
    let writer = Writer {
        manager: &options.manager,
        subresource,
        now,
    };
    api::patch::apply(schema, live, wanted, writer, options.force)
}

/// The `status` of a definition whose names are accepted.
pub(crate) fn established(definition: &Value, now: &str) -> Value {
    api::scheme::established_status(definition, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_that_nobody_declared_cannot_be_applied() {
        let registry = crate::registry::Registry::build(std::iter::empty());
        let resource = registry.find("", "v1", "configmaps").unwrap();
        let apply = |object: Value| declared(resource, "d", &object).map_err(|e| e.message);
        let head = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c"}});
        assert_eq!(apply(head.clone()), Ok(()));
        let mut wrong = head;
        wrong["oops"] = 1.into();
        assert_eq!(
            apply(wrong),
            Err("failed to create typed patch object (d/c; v1, Kind=ConfigMap): .oops: field not declared in schema".into())
        );
    }
}
