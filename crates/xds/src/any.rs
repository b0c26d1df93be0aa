//! `google.protobuf.Any`: a message together with its type URL.

use crate::type_url;
use crate::wire::{DecodeError, Wire};
use prost_types::Any;

/// Puts a message into an `Any`.
pub fn pack<M: Wire>(message: &M) -> Any {
    Any {
        type_url: M::type_url(),
        value: message.to_wire(),
    }
}

/// Takes the message out of an `Any`; `None` if it holds a message of another type.
pub fn unpack<M: Wire>(any: &Any) -> Result<Option<M>, DecodeError> {
    if is::<M>(any) {
        M::from_wire(&any.value).map(Some)
    } else {
        Ok(None)
    }
}

/// Whether the `Any` holds a message of this type. Only the part after the last slash counts.
pub fn is<M: Wire>(any: &Any) -> bool {
    message_name(any) == M::FULL_NAME
}

/// The full name of the message in an `Any`, for instance `envoy.config.cluster.v3.Cluster`.
pub fn message_name(any: &Any) -> &str {
    type_url::message_name(&any.type_url)
}
