//! The OpenAPI v2 document as kubectl reads it: the message `Document` of gnostic's `openapi.v2`. It has the definitions; paths are for
//! generators of clients, which read JSON.

use serde_json::{Map, Value};

/// Numbers of the fields, as gnostic's `OpenAPIv2.proto` has them.
mod field {
    pub mod document {
        pub const SWAGGER: u8 = 1;
        pub const INFO: u8 = 2;
        pub const DEFINITIONS: u8 = 9;
    }
    pub mod info {
        pub const TITLE: u8 = 1;
        pub const VERSION: u8 = 2;
    }
    /// Of `Definitions`, `Properties`: the one they have. Of `AdditionalPropertiesItem`, `ItemsItem`, `TypeItem`: the first.
    pub const ONLY: u8 = 1;
    /// Of a value with a name.
    pub mod named {
        pub const NAME: u8 = 1;
        pub const VALUE: u8 = 2;
    }
    /// Of `Any`.
    pub const YAML: u8 = 2;
    pub mod schema {
        pub const REF: u8 = 1;
        pub const FORMAT: u8 = 2;
        pub const DESCRIPTION: u8 = 4;
        pub const DEFAULT: u8 = 5;
        pub const REQUIRED: u8 = 19;
        pub const ENUM: u8 = 20;
        pub const ADDITIONAL_PROPERTIES: u8 = 21;
        pub const TYPE: u8 = 22;
        pub const ITEMS: u8 = 23;
        pub const PROPERTIES: u8 = 25;
        pub const VENDOR_EXTENSION: u8 = 31;
    }
}

/// A document with these definitions of OpenAPI v2.
pub(super) fn document<'a>(
    title: &str,
    version: &str,
    definitions: impl IntoIterator<Item = &'a Map<String, Value>>,
) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, field::document::SWAGGER, b"2.0");
    let mut info = Vec::new();
    put(&mut info, field::info::TITLE, title.as_bytes());
    put(&mut info, field::info::VERSION, version.as_bytes());
    put(&mut out, field::document::INFO, &info);
    let mut all = Vec::new();
    for some in definitions {
        put_schemas(&mut all, some);
    }
    put(&mut out, field::document::DEFINITIONS, &all);
    out
}

fn put(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    const LENGTH_DELIMITED: u64 = 2;
    varint(out, (u64::from(number) << 3) | LENGTH_DELIMITED);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn put_text(out: &mut Vec<u8>, number: u8, value: &Value) {
    if let Some(text) = value.as_str() {
        put(out, number, text.as_bytes());
    }
}

/// A value of any form: its JSON is YAML as well.
fn any(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, field::YAML, value.to_string().as_bytes());
    out
}

/// Schemas with names, into a message whose only field is a list of them.
fn put_schemas(out: &mut Vec<u8>, named: &Map<String, Value>) {
    for (name, value) in named {
        put(out, field::ONLY, &with_name(name, &schema(value)));
    }
}

fn with_name(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + value.len() + 12);
    put(&mut out, field::named::NAME, name.as_bytes());
    put(&mut out, field::named::VALUE, value);
    out
}

/// The message around something that may be of several kinds, of which only the first occurs.
fn first(inner: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(inner.len() + 6);
    put(&mut out, field::ONLY, inner);
    out
}

/// What a schema says of the form of values; limits of numbers and lengths are not read by those who read protobuf.
fn schema(value: &Value) -> Vec<u8> {
    use field::schema as number;
    let mut out = Vec::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        match key.as_str() {
            "$ref" => put_text(&mut out, number::REF, value),
            "format" => put_text(&mut out, number::FORMAT, value),
            "description" => put_text(&mut out, number::DESCRIPTION, value),
            "default" => put(&mut out, number::DEFAULT, &any(value)),
            "required" => {
                for name in value.as_array().into_iter().flatten() {
                    put_text(&mut out, number::REQUIRED, name);
                }
            }
            "enum" => {
                for one in value.as_array().into_iter().flatten() {
                    put(&mut out, number::ENUM, &any(one));
                }
            }
            "additionalProperties" if value.is_object() => {
                put(
                    &mut out,
                    number::ADDITIONAL_PROPERTIES,
                    &first(&schema(value)),
                );
            }
            "type" => {
                let mut item = Vec::new();
                put_text(&mut item, field::ONLY, value);
                put(&mut out, number::TYPE, &item);
            }
            "items" => put(&mut out, number::ITEMS, &first(&schema(value))),
            "properties" => {
                if let Some(properties) = value.as_object() {
                    let mut all = Vec::new();
                    put_schemas(&mut all, properties);
                    put(&mut out, number::PROPERTIES, &all);
                }
            }
            extension if extension.starts_with("x-") => {
                let named = with_name(extension, &any(value));
                put(&mut out, number::VENDOR_EXTENSION, &named);
            }
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_document_is_the_message_of_gnostic() {
        let definitions = json!({
            "a.B": {"type": "object", "maxLength": 3, "properties": {"c": {"$ref": "#/definitions/d"}}, "x-k": [1]},
            "d": {"type": "array", "items": {"type": "string"}},
        });
        let bytes = document("K", "v1", [definitions.as_object().unwrap()]);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "0a03322e3012070a014b120276314a5f\
             0a3c0a03612e421235b201080a066f626a656374ca01180a160a016312110a0f232f646566696e6974696f6e732f64fa010c0a03782d6b120512035b315d\
             0a1f0a0164121ab201070a056172726179ba010d0a0bb201080a06737472696e67"
        );
    }
}
