//! Protobuf's own messages, which `prost_types` has, and the wrappers, for which a field has the value itself.

use prost_types::value::Kind;
use prost_types::{Any, Duration, ListValue, Struct, Timestamp, Value};

use super::{Fields, MessageMap, Place, Wire, Writer, added};

macro_rules! wrappers {
    ($($kind:ty: $place:ident, $method:ident;)*) => {$(
        impl Fields for $kind {
            fn field(&mut self, number: u32) -> Option<Place<'_>> {
                (number == 1).then_some(Place::$place(self))
            }

            fn write(&self, out: &mut Writer) {
                out.$method(1, wrappers!(@ $method self));
            }
        }
    )*};
    (@ string $self:ident) => { $self };
    (@ $method:ident $self:ident) => { *$self };
}

wrappers! {
    bool: Bool, bool;
    i32: Int32, int32;
    i64: Int64, int64;
    u32: Uint32, uint32;
    u64: Uint64, uint64;
    f32: Float, float;
    f64: Double, double;
    String: String, string;
}

/// `google.protobuf.Empty`.
impl Fields for () {
    fn field(&mut self, _: u32) -> Option<Place<'_>> {
        None
    }

    fn write(&self, _: &mut Writer) {}
}

macro_rules! times {
    ($($message:ident),*) => {$(
        impl Fields for $message {
            fn field(&mut self, number: u32) -> Option<Place<'_>> {
                match number {
                    1 => Some(Place::Int64(&mut self.seconds)),
                    2 => Some(Place::Int32(&mut self.nanos)),
                    _ => None,
                }
            }

            fn write(&self, out: &mut Writer) {
                out.int64(1, self.seconds);
                out.int32(2, self.nanos);
            }
        }

        impl Wire for $message {
            const FULL_NAME: &'static str = concat!("google.protobuf.", stringify!($message));
        }
    )*};
}

times!(Duration, Timestamp);

impl Fields for Any {
    fn field(&mut self, number: u32) -> Option<Place<'_>> {
        match number {
            1 => Some(Place::String(&mut self.type_url)),
            2 => Some(Place::Blob(&mut self.value)),
            _ => None,
        }
    }

    fn write(&self, out: &mut Writer) {
        out.string(1, &self.type_url);
        out.bytes(2, &self.value);
    }
}

impl Wire for Any {
    const FULL_NAME: &'static str = "google.protobuf.Any";
}

impl Fields for Struct {
    fn field(&mut self, number: u32) -> Option<Place<'_>> {
        (number == 1).then(|| Place::Map(Box::new(MessageMap(&mut self.fields))))
    }

    fn write(&self, out: &mut Writer) {
        for (key, value) in &self.fields {
            let start = out.begin(1);
            out.string(1, key);
            out.entry_message(value);
            out.end(start);
        }
    }
}

impl Wire for Struct {
    const FULL_NAME: &'static str = "google.protobuf.Struct";
}

impl Fields for ListValue {
    fn field(&mut self, number: u32) -> Option<Place<'_>> {
        (number == 1).then(|| Place::Message(added(&mut self.values)))
    }

    fn write(&self, out: &mut Writer) {
        for value in &self.values {
            out.message(1, value);
        }
    }
}

/// The value of a kind, which is the one that is set from now on.
macro_rules! kind {
    ($current:expr, $kind:ident, $place:ident) => {{
        if !matches!($current, Some(Kind::$kind(_))) {
            *$current = Some(Kind::$kind(Default::default()));
        }
        match $current {
            Some(Kind::$kind(value)) => Some(Place::$place(value)),
            _ => None,
        }
    }};
}

impl Fields for Value {
    fn field(&mut self, number: u32) -> Option<Place<'_>> {
        let current = &mut self.kind;
        match number {
            1 => kind!(current, NullValue, Int32),
            2 => kind!(current, NumberValue, Double),
            3 => kind!(current, StringValue, String),
            4 => kind!(current, BoolValue, Bool),
            5 => kind!(current, StructValue, Message),
            6 => kind!(current, ListValue, Message),
            _ => None,
        }
    }

    fn write(&self, out: &mut Writer) {
        match &self.kind {
            Some(Kind::NullValue(value)) => out.put_int32(1, *value),
            Some(Kind::NumberValue(value)) => out.put_double(2, *value),
            Some(Kind::StringValue(value)) => out.put_string(3, value),
            Some(Kind::BoolValue(value)) => out.put_bool(4, *value),
            Some(Kind::StructValue(value)) => out.message(5, value),
            Some(Kind::ListValue(value)) => out.message(6, value),
            None => {}
        }
    }
}

impl Wire for Value {
    const FULL_NAME: &'static str = "google.protobuf.Value";
}
