//! Redirects that the proxy follows itself.

use std::borrow::Cow;
use std::rc::Rc;

use dataplane::route::{InternalRedirect, NotFollowed, Outcome, Route};
use http::Method;
use http::header::{self, HeaderName, HeaderValue};

use super::connection::{Connection, Flow};
use super::record::{Head, Record};
use super::router::Success;

const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-envoy-original-url");

/// Makes the request that a redirect asks for out of the one that was redirected. `false`: the redirect is passed on.
pub(super) fn prepare(
    conn: &Rc<Connection>,
    record: &mut Record,
    flow: &mut Flow,
    policy: &InternalRedirect,
    code: u16,
    success: &Success,
) -> bool {
    // The body is needed once more, from its beginning.
    let complete = record
        .replay
        .as_ref()
        .is_none_or(|replay| replay.borrow().copy().is_some());
    let headers = &success.answer.headers;
    let Some(location) = headers.get(header::LOCATION).filter(|_| complete) else {
        return false;
    };
    let stats = &conn.manager.stats;
    let location = location.to_str().unwrap_or_default();
    let target = match policy.target(location, record.head.scheme, record.redirects) {
        Ok(target) => target,
        Err(why) => {
            match why {
                NotFollowed::BadLocation => &stats.passthrough_internal_redirect_bad_location,
                NotFollowed::UnsafeScheme => &stats.passthrough_internal_redirect_unsafe_scheme,
                NotFollowed::TooMany => &stats.passthrough_internal_redirect_too_many_redirects,
            }
            .inc();
            return false;
        }
    };
    let before = record.route.clone().map(|route| (route, record.weighted));
    let head = &mut record.head;
    let (old_method, old_headers) = (head.method.clone(), head.headers.clone());
    let original = format!("{}://{}{}", head.scheme, head.authority, head.path);
    let old_scheme = std::mem::replace(&mut head.scheme, target.scheme);
    let old_authority = std::mem::replace(&mut head.authority, target.authority.clone());
    let old_path = std::mem::replace(&mut head.path, target.path.clone());
    for name in &policy.copied {
        head.headers.remove(name);
        for value in headers.get_all(name) {
            head.headers.append(name, value.clone());
        }
    }
    let outcome = conn.select(record, flow);
    let found = !matches!(outcome, Outcome::NotFound { .. });
    let refused = if found {
        let name = |route: Option<&Route>| route.map_or("", |route| &*route.name).to_owned();
        let from = name(before.as_ref().map(|(route, _)| &**route));
        let to = name(record.route.as_deref());
        let secure = conn.info.tls.is_some();
        let steps = &mut record.redirect_steps;
        (!policy.permits(&from, &to, steps, secure, &target))
            .then_some(&stats.passthrough_internal_redirect_predicate)
    } else {
        Some(&stats.passthrough_internal_redirect_no_route)
    };
    if let Some(counter) = refused {
        counter.inc();
        record.head = Head {
            method: old_method,
            scheme: old_scheme,
            authority: old_authority,
            path: old_path,
            headers: old_headers,
        };
        // As in Envoy, whose log has the route that was found and not taken, or knows the cluster no more.
        if found {
            flow.answered_by = before;
        } else {
            conn.select(record, flow);
            record.cluster = None;
        }
        return false;
    }
    if code == 303 && record.head.method != Method::GET && record.head.method != Method::HEAD {
        record.head.method = Method::GET;
        record.head.headers.remove(header::CONTENT_LENGTH);
        record.bytes_tunnelled = record.bytes_received();
        record.replay = None;
    }
    if let Ok(original) = HeaderValue::try_from(original) {
        record.head.headers.insert(ORIGINAL_URL, original);
    }
    record.details = Cow::Borrowed("internal_redirect");
    true
}
