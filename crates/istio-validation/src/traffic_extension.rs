//! TrafficExtension.

use crate::Object;
use crate::problem::{Validation, one};
use crate::{selector, wasm_plugin};

pub(crate) fn validate(object: &Object<'_>) -> Validation {
    let spec = object.spec;
    let (wasm, lua) = (spec.get("wasm"), spec.get("lua"));
    let mut v = Validation::default();
    if wasm.is_some() == lua.is_some() {
        v.fail("exactly one of wasm or lua must be set");
    }
    v.add(selector::of_policy(spec));
    if let Some(lua) = lua {
        v.errors(match lua.text("inlineCode").len() {
            0 => one("lua.inlineCode cannot be empty"),
            1..=65536 => None,
            _ => one("lua.inlineCode exceeds maximum size of 64KB"),
        });
    }
    if let Some(wasm) = wasm {
        v.add(wasm_plugin::module(wasm, 256));
    }
    v.errors(wasm_plugin::ports(spec));
    v
}
