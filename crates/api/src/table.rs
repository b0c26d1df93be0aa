//! Server-side printing: `Accept: application/json;as=Table;v=v1;g=meta.k8s.io`.

use crate::scheme::ResourceInfo;
use crate::time::Time;
use serde_json::{Value, json};

/// What of each object goes along with its row (`?includeObject=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// A PartialObjectMetadata; the default.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

/// A `meta.k8s.io/v1` Table of objects of one resource. `list_metadata` is the `metadata` of the list (resourceVersion,
/// continue, remainingItemCount); for one object, its resourceVersion. Watch events carry such a table with one row;
/// the real server sends the column definitions in the first event only (`columns = false` afterwards).
pub fn table(
    resource: &ResourceInfo,
    objects: &[&Value],
    list_metadata: Value,
    include: IncludeObject,
    columns: bool,
    now: Time,
) -> Value {
    let _ = (resource, objects, include, columns, now);
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list_metadata, "columnDefinitions": [], "rows": []})
}
