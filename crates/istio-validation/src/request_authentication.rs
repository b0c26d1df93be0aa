//! RequestAuthentication.

use crate::Object;
use crate::message::Message;
use crate::problem::{Found, Problem, Validation};
use crate::{headers, jwks, names, selector};
use api::field::quote;
use api::go::{strconv, url};

pub(crate) fn validate(object: &Object<'_>) -> Validation {
    let spec = object.spec;
    let mut v = selector::of_policy(spec);
    for rule in spec.messages("jwtRules") {
        v.errors(jwt_rule(rule));
        for (i, key) in jwks::parse(rule.text("jwks")).iter().flatten().enumerate() {
            if key.private {
                v.warn(format!(
                    "jwks key at index {i} contains private key material; only public keys are used for verification"
                ));
            }
        }
    }
    v
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
        && let Err(why) = jwks::parse(jwks)
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
    url::one_colon(&parsed, uri)?;
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
