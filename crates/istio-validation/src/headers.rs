//! Header names and operations on headers.

use crate::header_value;
use crate::message::Message;
use crate::problem::{Found, join, one};
use api::field::quote;

const EMPTY: &str = "header name cannot be empty";

fn is_token(name: &str) -> bool {
    name.bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+,-.^_`|~".contains(&b))
}

fn invalid(name: &str) -> Found {
    one(format!("header name {name} is not a valid header name"))
}

fn named(name: &str, fine: impl Fn(&str) -> bool) -> Found {
    if name.is_empty() {
        one(EMPTY)
    } else if fine(name) {
        None
    } else {
        invalid(name)
    }
}

/// Letters, digits, hyphens and underscores.
pub(crate) fn strict_name(name: &str) -> Found {
    named(name, |n| {
        n.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    })
}

/// Letters, digits and hyphens, as in Kubernetes' probes.
pub(crate) fn probe_name(name: &str) -> Found {
    named(name, |n| {
        n.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

/// A name in CORS lists, or `*`.
pub(crate) fn cors_name(name: &str) -> Found {
    named(name, |n| n == "*" || is_token(n))
}

/// A name in matches: also a pseudo header or a claim of a token.
pub(crate) fn match_name(name: &str) -> Found {
    const PSEUDO: [&str; 5] = [":method", ":scheme", ":authority", ":path", ":status"];
    named(name, |n| is_claim(n) || PSEUDO.contains(&n) || is_token(n))
}

/// `@request.auth.claims.x` or `@request.auth.claims[x]`.
pub(crate) fn is_claim(name: &str) -> bool {
    const CLAIMS: &str = "@request.auth.claims";
    if !name.to_lowercase().starts_with(CLAIMS) {
        return false;
    }
    let rest = &name[CLAIMS.len()..];
    rest.len() > 1 && rest.starts_with('.')
        || rest.len() > 2 && rest.starts_with('[') && rest.ends_with(']')
}

pub(crate) fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host")
}

fn pseudo(name: &str) -> Found {
    one(format!(
        "invalid header {}: header cannot have \":\" prefix",
        quote(name)
    ))
}

/// A name that is set on requests: the authority may be.
fn request_name(name: &str) -> Found {
    if name.is_empty() {
        one(EMPTY)
    } else if name.starts_with(':') && !is_authority(name) {
        pseudo(name)
    } else {
        None
    }
}

/// A name that is removed, or set on responses.
fn operation_name(name: &str) -> Found {
    if name.is_empty() {
        one(EMPTY)
    } else if name.eq_ignore_ascii_case("host") {
        one(format!(
            "invalid header {}: cannot set Host header",
            quote(name)
        ))
    } else if name.starts_with(':') {
        pseudo(name)
    } else {
        None
    }
}

fn value(value: &str) -> Found {
    // The real check's class of forbidden characters, read as it is written: control characters except tab.
    if value
        .bytes()
        .any(|b| b < 9 || (10..0x20).contains(&b) || b == 0x7f)
    {
        return one(format!("header value configuration {value} is invalid"));
    }
    let why = header_value::check(value).err()?;
    one(format!("header value configuration: {why}"))
}

/// `headers` of a route or of a destination.
pub(crate) fn operations(headers: Message<'_>) -> Found {
    let mut errors = None;
    for (direction, name) in [
        ("request", request_name as fn(&str) -> Found),
        ("response", operation_name),
    ] {
        let operations = headers.sub(direction);
        for field in ["add", "set"] {
            for (key, text) in operations.entries(field) {
                join(&mut errors, name(key));
                join(&mut errors, value(text.own_text()));
            }
        }
        for key in operations.texts("remove") {
            join(&mut errors, operation_name(key));
        }
    }
    errors
}
