//! RequestAuthentication.

use crate::Object;
use crate::message::Message;
use crate::problem::{Found, Problem, Validation};
use crate::{headers, names, selector};
use api::field::quote;
use api::go::{strconv, url};
use serde_json::Value;

pub(crate) fn validate(object: &Object<'_>) -> Validation {
    let spec = object.spec;
    let mut v = selector::of_policy(spec);
    for rule in spec.messages("jwtRules") {
        v.errors(jwt_rule(rule));
        let keys = serde_json::from_str::<Value>(rule.text("jwks")).ok();
        for (i, key) in keys.iter().flat_map(keys_of).enumerate() {
            // `d` is the private part of RSA and elliptic keys, `k` a shared secret.
            if key.get("d").is_some() || key["kty"] == "oct" {
                v.warn(format!(
                    "jwks key at index {i} contains private key material; only public keys are used for verification"
                ));
            }
        }
    }
    v
}

/// The keys of a set, or the one key that stands for a set.
fn keys_of(set: &Value) -> &[Value] {
    match set["keys"].as_array() {
        Some(keys) => keys,
        None if set["kty"].is_string() => std::slice::from_ref(set),
        None => &[],
    }
}

/// The mistakes of a rule are a list, even a single one.
fn jwt_rule(rule: Message<'_>) -> Found {
    let mut errors: Vec<String> = Vec::new();
    let empty = |field: &str| rule.texts(field).iter().filter(|t| t.is_empty()).count();
    let mut fail = |text: &str| errors.push(text.into());
    for _ in 0..empty("audiences") {
        fail("audience must be non-empty string");
    }
    let uri = rule.text("jwksUri");
    if rule.text("issuer").is_empty() && uri.is_empty() {
        fail("issuer or jwksUri must be non-empty string");
    }
    if !uri.is_empty()
        && let Err(why) = jwks_uri(uri)
    {
        fail(&why);
    }
    let jwks = rule.text("jwks");
    if !jwks.is_empty()
        && let Err(why) = jwks_problem(jwks)
    {
        fail(&format!("jwks parse error: {why}"));
    }
    for location in rule.messages("fromHeaders") {
        if location.text("name").is_empty() {
            fail("location header name must be non-empty string");
        }
    }
    for _ in 0..empty("fromParams") {
        fail("location query must be non-empty string");
    }
    for _ in 0..empty("fromCookies") {
        fail("cookie name must be non-empty string");
    }
    for output in rule.messages("outputClaimToHeaders") {
        let (claim, header) = (output.text("claim"), output.text("header"));
        if claim.is_empty() || header.is_empty() {
            fail("outputClaimToHeaders header and claim value must be non-empty string");
        } else if let Some(why) = headers::strict_name(header) {
            fail(&why.to_string());
        }
    }
    if let Some(why) = names::duration(rule, "timeout") {
        fail(&why.to_string());
    }
    (!errors.is_empty()).then_some(Problem::Many(errors))
}

fn jwks_uri(uri: &str) -> Result<(), String> {
    let parsed = url::parse(uri)?;
    if !matches!(parsed.scheme.as_str(), "http" | "https") {
        return Err(format!(
            "URI scheme {} is not supported",
            quote(&parsed.scheme)
        ));
    }
    if !parsed.port().is_empty() {
        strconv::atoi(parsed.port())?;
    }
    Ok(())
}

/// Why a text is no set of keys. The words are those of the key library for the commonest mistakes.
fn jwks_problem(text: &str) -> Result<(), String> {
    let set: Value = serde_json::from_str(text).map_err(|error| {
        format!(
            "failed to unmarshal JWK set: {}",
            syntax_error(text, &error)
        )
    })?;
    for key in keys_of(&set) {
        match key["kty"].as_str() {
            Some("RSA" | "EC" | "OKP" | "oct") => {}
            other => {
                return Err(format!(
                    "failed to unmarshal key from JSON headers: invalid key type from JSON ({})",
                    other.unwrap_or("")
                ));
            }
        }
    }
    if keys_of(&set).is_empty() && set.get("keys").is_none() {
        return Err("failed to unmarshal JWK set: neither a key nor a set of keys".into());
    }
    Ok(())
}

/// What Go's JSON decoder says to a text that is no JSON, as far as the place tells.
fn syntax_error(text: &str, error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".into();
    }
    let line = text
        .lines()
        .nth(error.line().saturating_sub(1))
        .unwrap_or("");
    let at = error.column().saturating_sub(1);
    let found = line.chars().nth(at).unwrap_or(' ');
    let place = match line[..line.char_indices().nth(at).map_or(0, |(i, _)| i)]
        .trim_end()
        .chars()
        .last()
    {
        None | Some(':' | '[') => "looking for beginning of value",
        Some('{') => "looking for beginning of object key string",
        Some(',') => "looking for beginning of value",
        Some(_) => "after top-level value",
    };
    format!("invalid character '{found}' {place}")
}
