//! Filter configurations: messages in an `Any`, or as JSON in a `TypedStruct` (what EnvoyFilters bring).

use prost_types::Any;
use serde_json::Value;
use xds::Wire;
use xds::udpa::r#type::v1::TypedStruct;

use crate::error::ConfigError;
use crate::matching::struct_to_json;

/// The message in an `Any`, directly or as a `TypedStruct`; `None` if it is of another type.
pub fn unpack<M: Wire>(any: &Any) -> Result<Option<M>, ConfigError> {
    let wrong = |problem: String| ConfigError::new("typed_config", problem);
    if xds::any::is::<M>(any) {
        return xds::any::unpack(any)
            .map_err(|error| wrong(format!("is not a valid {}: {error}", short_name::<M>())));
    }
    // xds.type.v3.TypedStruct has the same fields as udpa.type.v1.TypedStruct.
    if !matches!(
        xds::any::message_name(any),
        "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct"
    ) {
        return Ok(None);
    }
    let inner = TypedStruct::from_wire(&any.value)
        .map_err(|error| wrong(format!("is not a valid TypedStruct: {error}")))?;
    if xds::type_url::message_name(&inner.type_url) != M::FULL_NAME {
        return Ok(None);
    }
    let value = Value::Object(inner.value.as_ref().map(struct_to_json).unwrap_or_default());
    xds::json::from_value(value, false)
        .map(Some)
        .map_err(|error| wrong(format!("is not a valid {}: {error}", short_name::<M>())))
}

/// The name of a message without its package.
fn short_name<M: Wire>() -> &'static str {
    M::FULL_NAME.rsplit('.').next().unwrap_or_default()
}

/// The name of the message in an `Any` or in the `TypedStruct` in it.
pub fn message_name(any: &Any) -> String {
    match xds::any::message_name(any) {
        "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct" => {
            TypedStruct::from_wire(&any.value)
                .map(|inner| xds::type_url::message_name(&inner.type_url).to_owned())
                .unwrap_or_default()
        }
        name => name.to_owned(),
    }
}
