//! WasmPlugin, and what TrafficExtension shares with it.

use crate::Object;
use crate::message::Message;
use crate::problem::{Found, Validation, one};
use crate::selector;
use api::go::url;

pub(crate) fn validate(object: &Object<'_>) -> Validation {
    let spec = object.spec;
    let mut v = selector::of_policy(spec);
    v.add(module(spec, 255));
    v.errors(ports(spec));
    v
}

/// The module to load. `name_limit` is the number that the text about names says.
pub(crate) fn module(wasm: Message<'_>, name_limit: u32) -> Validation {
    let mut v = Validation::default();
    v.errors(location(wasm.text("url")));
    v.errors(checksum(wasm.text("sha256")));
    if wasm.text("imagePullSecret").len() > 253 {
        v.fail("imagePullSecret field must be less than 253 characters long");
    }
    if wasm.text("pluginName").len() > 256 {
        v.fail(format!(
            "pluginName field must be less than {name_limit} characters long"
        ));
    }
    v.errors(environment(wasm.sub("vmConfig")));
    v
}

fn location(text: &str) -> Found {
    if text.is_empty() {
        return one("url field needs to be set");
    }
    let parse = |text: &str| {
        let parsed = url::parse_request_uri(text)?;
        url::one_colon(&parsed, text).map(|()| parsed)
    };
    let parsed = match parse(text) {
        Ok(parsed) => parsed,
        // Without a scheme it is an image.
        Err(why) => match parse(&format!("http://{text}")) {
            Ok(parsed) => parsed,
            Err(_) => return one(format!("failed to parse url: {why}")),
        },
    };
    if !matches!(
        parsed.scheme.as_str(),
        "" | "file" | "http" | "https" | "oci"
    ) {
        return one(format!(
            "url contains unsupported scheme: {}",
            parsed.scheme
        ));
    }
    None
}

fn checksum(text: &str) -> Found {
    if text.is_empty() {
        None
    } else if text.len() != 64 {
        one("sha256 field must be 64 characters long")
    } else if text.bytes().all(|b| matches!(b, b'a'..=b'f' | b'0'..=b'9')) {
        None
    } else {
        one("sha256 field must match [a-f0-9]{64} pattern")
    }
}

fn environment(vm: Message<'_>) -> Found {
    let mut seen = Vec::new();
    for variable in vm.messages("env") {
        let name = variable.text("name");
        if name.is_empty() {
            return one("spec.vmConfig.env invalid");
        }
        if name.len() > 256 {
            return one("env.name field must be less than 255 characters long");
        }
        if seen.contains(&name) {
            return one("duplicate env");
        }
        seen.push(name);
        if variable.name("valueFrom", "INLINE") != "INLINE" && !variable.text("value").is_empty() {
            return one("value may only be set when valueFrom is INLINE");
        }
    }
    None
}

/// The ports of the traffic it is for.
pub(crate) fn ports(spec: Message<'_>) -> Found {
    for (i, matched) in spec.messages("match").enumerate() {
        for (j, port) in matched.messages("ports").enumerate() {
            let number = port.int("number");
            if !(1..=65535).contains(&number) {
                return one(format!(
                    "spec.Match[{i}].Ports[{j}] is out of range: {number}"
                ));
            }
        }
    }
    None
}
