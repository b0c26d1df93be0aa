//! From what prost makes of the protos to what `xds` compiles: the same structs and enums, but instead of prost's
//! derives, which become functions for every field, two short functions a message (`wire::Fields`).

use anyhow::{Context, Result, bail, ensure};
use quote::ToTokens as _;
use syn::parse::Parser as _;
use syn::{Attribute, Expr, Fields, Item, ItemEnum, ItemImpl, ItemStruct, Lit, Meta, Token};

/// Rewrites one generated file.
///
/// # Errors
/// When there is something in it that no rule knows.
pub fn rewrite(source: &str) -> Result<String> {
    let mut file = syn::parse_file(source)?;
    items(&mut file.items)?;
    let header = source.lines().next().unwrap_or_default();
    Ok(format!("{header}\n{}", prettyplease::unparse(&file)))
}

fn items(all: &mut Vec<Item>) -> Result<()> {
    let mut out = Vec::new();
    for mut item in std::mem::take(all) {
        let mut more = Vec::new();
        match &mut item {
            Item::Mod(module) => {
                if let Some((_, inner)) = &mut module.content {
                    items(inner)?;
                }
            }
            Item::Struct(message) if derives(&message.attrs, "Message") => {
                more =
                    self::message(message).with_context(|| format!("message {}", message.ident))?;
            }
            Item::Enum(choice) if derives(&choice.attrs, "Oneof") => {
                more = oneof(choice).with_context(|| format!("oneof {}", choice.ident))?;
            }
            Item::Impl(block) => {
                if let Some(named) = name(block)? {
                    item = named;
                }
            }
            _ => {}
        }
        out.push(item);
        for text in more {
            out.push(syn::parse_str(&text).with_context(|| text.clone())?);
        }
    }
    *all = out;
    Ok(())
}

fn derives(attributes: &[Attribute], wanted: &str) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("derive") && {
            let text = attribute.meta.to_token_stream().to_string();
            text.contains(&format!("prost :: {wanted}"))
        }
    })
}

/// Replaces prost's derive by those of the standard library that it implies.
fn derive(attributes: &mut [Attribute], prost: &str, instead: &str) -> Result<()> {
    for attribute in attributes {
        if attribute.path().is_ident("derive") {
            let Meta::List(list) = &mut attribute.meta else {
                bail!("a derive without a list");
            };
            let text = list.tokens.to_string();
            let text = text.replace(&format!(":: prost :: {prost}"), instead);
            list.tokens = syn::parse_str(&text)?;
        }
    }
    Ok(())
}

/// What `#[prost(...)]` says about a field.
#[derive(Debug, Default)]
struct Field {
    kind: String,
    /// The name of the enum, of the oneof, or the types of a map.
    of: String,
    optional: bool,
    repeated: bool,
    boxed: bool,
    unpacked: bool,
    tags: Vec<u32>,
}

fn field(attributes: &mut Vec<Attribute>) -> Result<Field> {
    let mut found = Field::default();
    let position = attributes
        .iter()
        .position(|attribute| attribute.path().is_ident("prost"))
        .context("a field without #[prost]")?;
    let attribute = attributes.remove(position);
    let Meta::List(list) = attribute.meta else {
        bail!("#[prost] without a list");
    };
    let parser = syn::punctuated::Punctuated::<Meta, Token![,]>::parse_terminated;
    for meta in parser.parse2(list.tokens)? {
        let key = meta.path().to_token_stream().to_string();
        let value = match &meta {
            Meta::NameValue(pair) => match &pair.value {
                Expr::Lit(literal) => match &literal.lit {
                    Lit::Str(text) => text.value(),
                    _ => bail!("{key} is no text"),
                },
                _ => bail!("{key} is no literal"),
            },
            _ => String::new(),
        };
        match key.as_str() {
            "tag" | "tags" => {
                for tag in value.split(',') {
                    found.tags.push(tag.trim().parse()?);
                }
            }
            "optional" => found.optional = true,
            "repeated" => found.repeated = true,
            "boxed" => found.boxed = true,
            "packed" => found.unpacked = value == "false",
            "string" | "bytes" | "message" | "bool" | "int32" | "int64" | "uint32" | "uint64"
            | "fixed64" | "double" | "enumeration" | "oneof" | "btree_map" => {
                found.kind = key;
                found.of = value;
            }
            _ => bail!("unknown: {key}"),
        }
    }
    ensure!(!found.tags.is_empty(), "no tag");
    found.tags.sort_unstable();
    Ok(found)
}

/// The variant of `Place` for a kind of scalar.
fn place(kind: &str) -> Result<&'static str> {
    Ok(match kind {
        "string" => "String",
        "bytes" => "Bytes",
        "bool" => "Bool",
        "int32" | "enumeration" => "Int32",
        "int64" => "Int64",
        "uint32" => "Uint32",
        "uint64" => "Uint64",
        "fixed64" => "Fixed64",
        "double" => "Double",
        other => bail!("no place for {other}"),
    })
}

/// The method of `Writer` for a kind of scalar.
fn method(kind: &str) -> &str {
    if kind == "enumeration" { "int32" } else { kind }
}

fn message(message: &mut ItemStruct) -> Result<Vec<String>> {
    derive(&mut message.attrs, "Message", "Debug, Default")?;
    let name = message.ident.to_string();
    let mut all = Vec::new();
    if let Fields::Named(named) = &mut message.fields {
        for member in &mut named.named {
            let ident = member.ident.as_ref().context("a name")?.to_string();
            all.push((ident, field(&mut member.attrs)?));
        }
    }
    // The order of the numbers is the order in which prost and protoc write.
    all.sort_by_key(|(_, field)| field.tags[0]);
    let (mut places, mut writes, mut getters) = (String::new(), String::new(), String::new());
    for (ident, field) in &all {
        let tag = field.tags[0];
        let (place, write) = match (field.kind.as_str(), field.repeated) {
            ("oneof", _) => {
                let tags: Vec<String> = field.tags.iter().map(u32::to_string).collect();
                let of = &field.of;
                places += &format!(
                    "{} => {of}::field(&mut self.{ident}, number)?,",
                    tags.join(" | ")
                );
                writes += &format!("if let Some(value) = &self.{ident} {{ value.write(out); }}");
                continue;
            }
            ("btree_map", _) => map(ident, tag, &field.of)?,
            ("message", true) => (
                format!("Place::Message(added(&mut self.{ident}))"),
                format!("for value in &self.{ident} {{ out.message({tag}, value); }}"),
            ),
            ("message", false) if field.boxed => (
                format!("Place::Message(&mut **self.{ident}.get_or_insert_default())"),
                format!("if let Some(value) = &self.{ident} {{ out.message({tag}, &**value); }}"),
            ),
            ("message", false) => (
                format!("Place::Message(self.{ident}.get_or_insert_default())"),
                format!("if let Some(value) = &self.{ident} {{ out.message({tag}, value); }}"),
            ),
            (kind @ ("string" | "bytes"), true) => (
                format!("Place::{}(pushed(&mut self.{ident}))", self::place(kind)?),
                format!("for value in &self.{ident} {{ out.put_{kind}({tag}, value); }}"),
            ),
            (kind, true) => (
                format!("Place::{}s(&mut self.{ident})", self::place(kind)?),
                if field.unpacked {
                    let method = method(kind);
                    format!("for value in &self.{ident} {{ out.put_{method}({tag}, *value); }}")
                } else {
                    format!("out.{}s({tag}, &self.{ident});", method(kind))
                },
            ),
            (kind, false) => {
                ensure!(!field.optional, "optional {kind}");
                let reference = if matches!(kind, "string" | "bytes") {
                    "&"
                } else {
                    ""
                };
                (
                    format!("Place::{}(&mut self.{ident})", self::place(kind)?),
                    format!("out.{}({tag}, {reference}self.{ident});", method(kind)),
                )
            }
        };
        places += &format!("{tag} => {place},");
        writes += &write;
        if field.kind == "enumeration" && !field.repeated {
            let bare = ident.trim_start_matches("r#");
            let of = &field.of;
            getters += &format!(
                "/// The value of the enum, its first one if it is unknown.\n\
                 #[inline] pub fn {ident}(&self) -> {of} {{ {of}::try_from(self.{ident}).unwrap_or_default() }}\n\
                 /// Sets the field.\n\
                 #[inline] pub fn set_{bare}(&mut self, value: {of}) {{ self.{ident} = value as i32; }}"
            );
        }
    }
    if all.is_empty() {
        return Ok(vec![format!(
            "impl crate::wire::Fields for {name} {{
                fn field(&mut self, _: u32) -> Option<crate::wire::Place<'_>> {{ None }}
                fn write(&self, _: &mut crate::wire::Writer) {{}}
            }}"
        )]);
    }
    let mut out = vec![format!(
        "impl crate::wire::Fields for {name} {{
            fn field(&mut self, number: u32) -> Option<crate::wire::Place<'_>> {{
                {}
                Some(match number {{ {places} _ => return None }})
            }}
            fn write(&self, out: &mut crate::wire::Writer) {{ {writes} }}
        }}",
        uses(&places),
    )];
    if !getters.is_empty() {
        out.push(format!("impl {name} {{ {getters} }}"));
    }
    Ok(out)
}

/// The imports that the places need.
fn uses(places: &str) -> String {
    let mut out = String::new();
    for (word, import) in [
        ("Place::", "use crate::wire::Place;"),
        ("added(", "use crate::wire::added;"),
        ("pushed(", "use crate::wire::pushed;"),
        ("MessageMap(", "use crate::wire::MessageMap;"),
        ("ScalarMap(", "use crate::wire::ScalarMap;"),
    ] {
        if places.contains(word) {
            out += import;
        }
    }
    out
}

fn map(ident: &str, tag: u32, of: &str) -> Result<(String, String)> {
    let (key, value) = of.split_once(',').context("two types")?;
    let (key, value) = (key.trim(), value.trim());
    let key_reference = if key == "int64" { "*" } else { "" };
    let (kind, write) = match value {
        "message" => ("MessageMap", "out.entry_message(value);".to_owned()),
        "string" | "bytes" => ("ScalarMap", format!("out.{value}(2, value);")),
        "int32" => ("ScalarMap", "out.int32(2, *value);".to_owned()),
        other => bail!("no map to {other}"),
    };
    Ok((
        format!("Place::Map(Box::new({kind}(&mut self.{ident})))"),
        format!(
            "for (key, value) in &self.{ident} {{
                let start = out.begin({tag}); out.{key}(1, {key_reference}key); {write} out.end(start);
            }}"
        ),
    ))
}

fn oneof(choice: &mut ItemEnum) -> Result<Vec<String>> {
    derive(&mut choice.attrs, "Oneof", "Debug")?;
    let name = choice.ident.to_string();
    let (mut places, mut writes) = (String::new(), String::new());
    for variant in &mut choice.variants {
        let field = field(&mut variant.attrs)?;
        let ident = variant.ident.to_string();
        let tag = field.tags[0];
        let boxed = variant
            .fields
            .to_token_stream()
            .to_string()
            .contains("boxed :: Box");
        let (place, write) = match field.kind.as_str() {
            "message" if boxed => (
                "Place::Message(&mut **value)".to_owned(),
                format!("out.message({tag}, &**value)"),
            ),
            "message" => (
                "Place::Message(value)".to_owned(),
                format!("out.message({tag}, value)"),
            ),
            kind @ ("string" | "bytes") => (
                format!("Place::{}(value)", self::place(kind)?),
                format!("out.put_{kind}({tag}, value)"),
            ),
            kind => (
                format!("Place::{}(value)", self::place(kind)?),
                format!("out.put_{}({tag}, *value)", method(kind)),
            ),
        };
        places += &format!(
            "{tag} => {{
                if !matches!(current, Some(Self::{ident}(_))) {{ *current = Some(Self::{ident}(Default::default())); }}
                if let Some(Self::{ident}(value)) = current {{ return Some({place}); }}
            }}"
        );
        writes += &format!("Self::{ident}(value) => {write},");
    }
    Ok(vec![format!(
        "impl {name} {{
            /// The place of the field with this number, which becomes the one that is set.
            pub(crate) fn field(current: &mut Option<Self>, number: u32) -> Option<crate::wire::Place<'_>> {{
                use crate::wire::Place;
                match number {{ {places} _ => {{}} }}
                None
            }}
            /// Writes the field that is set.
            pub(crate) fn write(&self, out: &mut crate::wire::Writer) {{ match self {{ {writes} }} }}
        }}"
    )])
}

/// prost's name of a message becomes ours.
fn name(block: &ItemImpl) -> Result<Option<Item>> {
    let Some((_, path, _)) = &block.trait_ else {
        return Ok(None);
    };
    if path.to_token_stream().to_string() != ":: prost :: Name" {
        return Ok(None);
    }
    // Of a message inside of another, NAME is only the last part.
    let full_name = block.items.iter().find_map(|item| match item {
        syn::ImplItem::Fn(function) if function.sig.ident == "full_name" => {
            let text = function.block.to_token_stream().to_string();
            Some(text.split('"').nth(1)?.to_owned())
        }
        _ => None,
    });
    let full_name = full_name.context("a name without full_name")?;
    let this = block.self_ty.to_token_stream();
    Ok(Some(syn::parse_str(&format!(
        "impl crate::Wire for {this} {{ const FULL_NAME: &'static str = \"{full_name}\"; }}"
    ))?))
}
