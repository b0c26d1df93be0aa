//! What all Istio messages have in common: their derives and their spelling in JSON. The JSON schemas are derived
//! with the feature `schemas` only, see `crd_schema`.

/// Structs in protobuf's JSON spelling: `lowerCamelCase` names, every field optional.
macro_rules! message {
    ($( $(#[$meta:meta])* pub struct $name:ident { $( $(#[$field_meta:meta])* pub $field:ident: $type:ty ),* $(,)? } )*) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name { $( $(#[$field_meta])* pub $field: $type ),* }
    )* };
}

/// Enums by their protobuf names; the first variant is the zero value.
macro_rules! proto_enum {
    ($( $(#[$meta:meta])* pub enum $name:ident {
        $(#[$zero_meta:meta])* $zero:ident, $( $(#[$variant_meta:meta])* $variant:ident ),* $(,)?
    } )*) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "schemas", derive(schemars::JsonSchema))]
        #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
        pub enum $name { #[default] $(#[$zero_meta])* $zero, $( $(#[$variant_meta])* $variant ),* }
    )* };
}
