//! Get and list.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult};
use crate::http_types::{Answer, Request, json_answer};
use crate::machinery::Filter;
use crate::negotiate::Form;
use crate::registry::Resource;
use crate::shape::{self, Page};
use crate::state::Server;
use crate::storage::Stored;

/// Reads a `resourceVersion`; 0 when there is none. One from the future is refused, because
/// the client knows another server's objects.
pub(crate) fn revision(text: &str, current: u64) -> ApiResult<u64> {
    if text.is_empty() {
        return Ok(0);
    }
    let wanted: u64 = text.parse().map_err(|_| {
        ApiError::bad_request(format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })?;
    if wanted > current {
        let mut e = ApiError::timeout(
            &format!("Too large resource version: {wanted}, current: {current}"),
            1,
        );
        e.details["causes"] = json!([{
            "reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]);
        return Err(e);
    }
    Ok(wanted)
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

/// Where the next page begins.
#[derive(Debug, PartialEq)]
pub(crate) struct Continue {
    /// The revision the whole list is of; `None`: whatever is there now.
    pub revision: Option<u64>,
    /// The first key not yet shown.
    pub start: String,
}

impl Continue {
    pub fn encode(&self) -> String {
        let rv = self.revision.map_or(-1, |r| i64::try_from(r).unwrap_or(-1));
        let token = json!({"v": TOKEN_VERSION, "rv": rv, "start": self.start});
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    pub fn decode(text: &str) -> ApiResult<Self> {
        Self::read(text).map_err(|why| {
            ApiError::bad_request(format!(
                "invalid continue token: continue key is not valid: {why}"
            ))
        })
    }

    /// What is wrong with a token is said as Go's libraries say it.
    fn read(text: &str) -> Result<Self, String> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| {
            let strange = |b: u8| !(b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            let at = text.bytes().position(strange).unwrap_or(text.len());
            format!("illegal base64 data at input byte {at}")
        })?;
        let v: Value = serde_json::from_slice(&bytes).map_err(|e| {
            let text = String::from_utf8_lossy(&bytes);
            api::go::json::value(&text, api::go::json::Extent::Whole)
                .err()
                .unwrap_or_else(|| e.to_string())
        })?;
        let version = v["v"].as_str().unwrap_or("");
        if version != TOKEN_VERSION {
            return Err(format!(
                "server does not recognize this encoded version {version}"
            ));
        }
        let wrong = |what: &str| format!("{what} (version {TOKEN_VERSION})");
        let revision = match v["rv"].as_i64() {
            Some(-1) => None,
            Some(n) if n > 0 => u64::try_from(n).ok(),
            _ => return Err(wrong("incorrect encoded start resourceVersion")),
        };
        match v["start"].as_str() {
            None | Some("") => Err(wrong("encoded start key empty")),
            Some(start) => Ok(Self {
                revision,
                start: start.to_owned(),
            }),
        }
    }
}

const OLD_CONTINUE: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

fn expired_continue(start: &str) -> Answer {
    let mut status = ApiError::expired(OLD_CONTINUE).to_value();
    let next = Continue {
        revision: None,
        start: start.to_owned(),
    };
    status["metadata"] = json!({"continue": next.encode()});
    json_answer(StatusCode::GONE, &status)
}

/// Answers a list.
pub(crate) fn list(
    server: &Server,
    request: &Request,
    resource: &Resource,
    namespace: &str,
    filter: &Filter,
    form: Form,
) -> ApiResult<Answer> {
    let cache = server.storage.cache();
    let query = &request.query;
    let prefix = if namespace.is_empty() {
        String::new()
    } else {
        format!("{namespace}/")
    };
    let limit = super::list_options::check(query, false)?.limit;
    let wanted = revision(query.text("resourceVersion"), cache.revision())?;
    let token = query.text("continue");
    let mut start = String::new();
    let (items, at) = if !token.is_empty() {
        if wanted != 0 {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let token = Continue::decode(token)?;
        start = token.start;
        match token.revision {
            Some(r) => match cache.list_at(&resource.table, &prefix, r) {
                Ok(items) => (items, r),
                Err(_) => return Ok(expired_continue(&start)),
            },
            None => cache.list(&resource.table, &prefix),
        }
    } else {
        match query.text("resourceVersionMatch") {
            "Exact" => {
                let items = cache.list_at(&resource.table, &prefix, wanted).map_err(|old| {
                    ApiError::expired(format!(
                        "The resourceVersion for the provided list is too old: {} (oldest is {})",
                        old.asked, old.oldest
                    ))
                })?;
                (items, wanted)
            }
            _ => cache.list(&resource.table, &prefix),
        }
    };
    let mut matching: Vec<(Arc<str>, Arc<Stored>)> = items
        .into_iter()
        .filter(|(key, item)| **key >= *start && shape::passes(filter, resource, item))
        .collect();
    let mut continue_token = String::new();
    let mut remaining = None;
    if limit > 0 && matching.len() > limit {
        continue_token = Continue {
            revision: Some(at),
            start: matching[limit].0.as_ref().to_owned(),
        }
        .encode();
        if filter.is_empty() {
            remaining = Some(matching.len() - limit);
        }
        matching.truncate(limit);
    }
    let page = Page {
        resource,
        items: matching.into_iter().map(|(_, item)| item).collect(),
        revision: at,
        continue_token,
        remaining,
    };
    Ok(page.answer(form, query.text("includeObject")))
}

/// Answers a get of one object.
pub(crate) fn get(
    server: &Server,
    request: &Request,
    resource: &Resource,
    namespace: &str,
    name: &str,
    form: Form,
) -> ApiResult<Answer> {
    let stored = server
        .storage
        .cache()
        .get(&resource.key(namespace, name))
        .ok_or_else(|| resource.not_found(name))?;
    Ok(shape::object(
        resource,
        form,
        request.query.text("includeObject"),
        StatusCode::OK,
        &shape::shown(resource, &stored),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_survive_the_client() {
        let token = Continue {
            revision: Some(7),
            start: "d/a".into(),
        };
        assert_eq!(Continue::decode(&token.encode()).unwrap(), token);
        let any = Continue {
            revision: None,
            start: "d/a".into(),
        };
        assert_eq!(Continue::decode(&any.encode()).unwrap(), any);
        for (token, why) in [
            ("!!", "illegal base64 data at input byte 0"),
            (
                "abc",
                "invalid character 'i' looking for beginning of value",
            ),
            (
                "eyJ2IjoieCJ9",
                "server does not recognize this encoded version x",
            ),
        ] {
            let e = Continue::decode(token).unwrap_err();
            let expected = format!("invalid continue token: continue key is not valid: {why}");
            assert_eq!((e.code, e.message), (400, expected));
        }
    }
}
