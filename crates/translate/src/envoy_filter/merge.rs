//! Merging of messages, as protobuf does: set fields win, messages merge, lists grow, entries of maps are replaced by key.

use super::Patch;
use crate::Problem;
use api::istio::PatchOperation;
use prost_reflect::{DynamicMessage, ReflectMessage as _, Value as Field};
use xds::prost_types::Any;

/// What happens to the items that a list has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lists {
    Append,
    Replace,
}

/// Merges the value of a patch into a message; on an error the message stays as it is.
pub(super) fn message<M: xds::Wire>(target: &mut M, patch: &Patch) -> Result<(), Problem> {
    let Some(value) = &patch.value else {
        return Ok(());
    };
    let lists = match patch.operation {
        PatchOperation::MergeAndReplaceList => Lists::Replace,
        _ => Lists::Append,
    };
    let failed = |error: &dyn std::fmt::Display| {
        patch.problem(
            ".patch.value",
            format!("cannot be merged and is ignored: {error}"),
        )
    };
    let mut merged = DynamicMessage::decode(value.descriptor(), target.to_wire().as_slice())
        .map_err(|error| failed(&error))?;
    fields(&mut merged, value, lists);
    *target = M::from_wire(&xds::json::encode(&merged)).map_err(|error| failed(&error))?;
    Ok(())
}

/// Merges a typed configuration into another one of the same type. Different types cannot be merged: a `TypedStruct` into a
/// real type is the usual mistake.
pub(super) fn any(target: &mut Any, value: &Any, patch: &Patch) -> Result<(), Problem> {
    let field = ".patch.value.typed_config";
    let (own, other) = (
        xds::any::message_name(target),
        xds::any::message_name(value),
    );
    if own != other {
        return Err(patch.problem(
            field,
            format!("is a {other}, and cannot be merged into the {own} that is there; use the same @type"),
        ));
    }
    let decode = |any: &Any| {
        let descriptor = xds::json::descriptor(&any.type_url).map_err(|error| error.to_string())?;
        DynamicMessage::decode(descriptor, any.value.as_slice()).map_err(|error| error.to_string())
    };
    let failed = |error| patch.problem(field, format!("cannot be merged and is ignored: {error}"));
    let mut merged = decode(target).map_err(failed)?;
    fields(&mut merged, &decode(value).map_err(failed)?, Lists::Append);
    target.value = xds::json::encode(&merged);
    Ok(())
}

fn fields(target: &mut DynamicMessage, value: &DynamicMessage, lists: Lists) {
    for (field, value) in value.fields() {
        match value {
            Field::List(items) if lists == Lists::Append => {
                if let Some(own) = target.get_field_mut(&field).as_list_mut() {
                    own.extend(items.iter().cloned());
                }
            }
            Field::Map(entries) => {
                if let Some(own) = target.get_field_mut(&field).as_map_mut() {
                    own.extend(
                        entries
                            .iter()
                            .map(|(key, value)| (key.clone(), value.clone())),
                    );
                }
            }
            // 10s merged with 0.75s is 0.75s and not 10.75s.
            Field::Message(inner)
                if inner.descriptor().full_name() != "google.protobuf.Duration"
                    && target.has_field(&field) =>
            {
                if let Some(own) = target.get_field_mut(&field).as_message_mut() {
                    fields(own, inner, lists);
                }
            }
            other => target.set_field(&field, other.clone()),
        }
    }
}
