//! Messages and their bytes (the protobuf encoding, <https://protobuf.dev/programming-guides/encoding/>).
//!
//! A message tells where the value of each of its fields is ([`Fields`]); reading and writing is written once, for all of
//! them. prost's derives, which write both out for each field of each message, made this the longest part of Theater to
//! compile. This crate is one of its own because what is done for every byte is optimised, and the messages are not. What is read and written is the same: unknown fields are skipped, fields that are at their default are left
//! out, numbers are packed unless the proto says otherwise.

mod read;
mod well_known;
mod write;

use std::collections::BTreeMap;

use bytes::Bytes;

pub use write::{Writer, put_bytes};

/// Why bytes are not such a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to decode Protobuf message: {0}")]
pub struct DecodeError(pub(crate) String);

impl From<prost::DecodeError> for DecodeError {
    /// What prost says of messages that are read through their descriptor.
    fn from(error: prost::DecodeError) -> Self {
        let text = error.to_string();
        let reason = text.strip_prefix("failed to decode Protobuf message: ");
        Self(reason.unwrap_or(&text).to_owned())
    }
}

/// A message that has a name and can be read and written as a whole.
pub trait Wire: Fields + Default {
    /// The name with its package, for instance `envoy.config.cluster.v3.Cluster`.
    const FULL_NAME: &'static str;

    /// The type URL of an `Any` that holds such a message.
    fn type_url() -> String {
        format!("type.googleapis.com/{}", Self::FULL_NAME)
    }

    /// The message in these bytes.
    ///
    /// # Errors
    /// What is wrong with the encoding.
    fn from_wire(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut message = Self::default();
        read::merge(&mut message, bytes)
            .map_err(|DecodeError(what)| DecodeError(format!("{}: {what}", Self::FULL_NAME)))?;
        Ok(message)
    }

    /// The bytes of this message.
    fn to_wire(&self) -> Vec<u8> {
        write::whole(self)
    }
}

/// What a message knows about itself. Generated.
pub trait Fields {
    /// Where the value of the field with this number goes: of a repeated field a new one at its end, of a oneof the one that
    /// is set from now on. `None` if there is no such field.
    fn field(&mut self, number: u32) -> Option<Place<'_>>;

    /// Writes the fields that are set, in the order of their numbers.
    fn write(&self, out: &mut Writer);
}

/// The place of a value, and by that how it is encoded.
pub enum Place<'a> {
    /// A `bool`.
    Bool(&'a mut bool),
    /// An `int32` or an enum.
    Int32(&'a mut i32),
    /// An `int64`.
    Int64(&'a mut i64),
    /// A `uint32`.
    Uint32(&'a mut u32),
    /// A `uint64`.
    Uint64(&'a mut u64),
    /// A `fixed64`.
    Fixed64(&'a mut u64),
    /// A `float`.
    Float(&'a mut f32),
    /// A `double`.
    Double(&'a mut f64),
    /// A `string`.
    String(&'a mut String),
    /// A `bytes`.
    Bytes(&'a mut Bytes),
    /// A `bytes` of protobuf's own messages.
    Blob(&'a mut Vec<u8>),
    /// A message.
    Message(&'a mut dyn Fields),
    /// Repeated `int32` or enums.
    Int32s(&'a mut Vec<i32>),
    /// Repeated `uint32`.
    Uint32s(&'a mut Vec<u32>),
    /// Repeated `double`.
    Doubles(&'a mut Vec<f64>),
    /// A map.
    Map(Box<dyn Map + 'a>),
}

/// A map that takes entries.
pub trait Map {
    /// Reads one entry, `depth` messages deep.
    ///
    /// # Errors
    /// What is wrong with the encoding.
    fn entry(&mut self, bytes: &[u8], depth: u32) -> Result<(), DecodeError>;
}

/// A new value at the end of a repeated field.
pub fn pushed<T: Default>(values: &mut Vec<T>) -> &mut T {
    values.push(T::default());
    values.last_mut().expect("one was pushed")
}

/// A new message at the end of a repeated field.
pub fn added<M: Fields + Default>(messages: &mut Vec<M>) -> &mut dyn Fields {
    let message: &mut M = pushed(messages);
    message
}

/// A value that is no message.
pub trait Scalar: Default {
    /// Its place.
    fn place(&mut self) -> Place<'_>;
}

macro_rules! scalars {
    ($($kind:ty: $place:ident),*) => {$(
        impl Scalar for $kind {
            fn place(&mut self) -> Place<'_> {
                Place::$place(self)
            }
        }
    )*};
}

scalars!(String: String, Bytes: Bytes, i32: Int32, i64: Int64);

/// A map of messages.
pub struct MessageMap<'a, K, M>(pub &'a mut BTreeMap<K, M>);

/// A map of other values.
pub struct ScalarMap<'a, K, V>(pub &'a mut BTreeMap<K, V>);

/// The message that an entry of a map is.
struct Entry<K, V> {
    key: K,
    value: V,
    place: fn(&mut V) -> Place<'_>,
}

impl<K: Scalar, V> Fields for Entry<K, V> {
    fn field(&mut self, number: u32) -> Option<Place<'_>> {
        match number {
            1 => Some(self.key.place()),
            2 => Some((self.place)(&mut self.value)),
            _ => None,
        }
    }

    /// Entries are written by the message that has the map.
    fn write(&self, _: &mut Writer) {}
}

fn entry<K: Scalar + Ord, V: Default>(
    map: &mut BTreeMap<K, V>,
    place: fn(&mut V) -> Place<'_>,
    bytes: &[u8],
    depth: u32,
) -> Result<(), DecodeError> {
    let mut entry = Entry {
        key: K::default(),
        value: V::default(),
        place,
    };
    read::fields(&mut entry, bytes, depth)?;
    map.insert(entry.key, entry.value);
    Ok(())
}

impl<K: Scalar + Ord, M: Fields + Default> Map for MessageMap<'_, K, M> {
    fn entry(&mut self, bytes: &[u8], depth: u32) -> Result<(), DecodeError> {
        entry(self.0, |value| Place::Message(value), bytes, depth)
    }
}

impl<K: Scalar + Ord, V: Scalar> Map for ScalarMap<'_, K, V> {
    fn entry(&mut self, bytes: &[u8], depth: u32) -> Result<(), DecodeError> {
        entry(self.0, V::place, bytes, depth)
    }
}

/// The number of the next field and its value if that is a message, bytes or a string: for those who look into bytes without
/// reading the message.
///
/// # Errors
/// What is wrong with the encoding.
pub fn next_field<'a>(bytes: &mut &'a [u8]) -> Result<(u32, Option<&'a [u8]>), DecodeError> {
    let (number, kind) = read::key(bytes)?;
    if kind == read::LENGTH_DELIMITED {
        Ok((number, Some(read::delimited(bytes)?)))
    } else {
        read::skip(bytes, number, kind, 0)?;
        Ok((number, None))
    }
}
