//! What a request is about: the path of the Kubernetes API taken apart.

use http::Method;

/// A resource path.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Target {
    pub group: String,
    pub version: String,
    /// Empty when the path names none.
    pub namespace: String,
    pub plural: String,
    /// Empty for collections.
    pub name: String,
    /// Empty for the object itself.
    pub subresource: String,
    /// What follows the subresource (`proxy/<path>`).
    pub rest: String,
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Route {
    Resource(Target),
    /// Everything that is not an object: discovery, health, metrics, OpenAPI.
    Other,
}

/// Undoes percent-encoding; `None` when it is malformed or not UTF-8.
pub(crate) fn percent_decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'%' => {
                let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
                out.push(u8::try_from(digit(i + 1)? << 4 | digit(i + 2)?).ok()?);
                i += 3;
            }
            b'+' if plus_is_space => {
                out.push(b' ');
                i += 1;
            }
            other => {
                out.push(other);
                i += 1;
            }
        }
    }
    String::from_utf8(out).ok()
}

/// Takes a path apart. Segments are decoded one by one, so an encoded slash stays inside its
/// segment and can never reach another object.
pub(crate) fn route(path: &str) -> Option<Route> {
    let trimmed = path.trim_start_matches('/').trim_end_matches('/');
    let mut parts: Vec<String> = Vec::new();
    for part in trimmed.split('/') {
        parts.push(percent_decode(part, false)?);
    }
    let (group, version, rest) = match parts.first().map(String::as_str) {
        Some("api") if parts.len() > 2 => ("", parts[1].clone(), &parts[2..]),
        Some("apis") if parts.len() > 3 => (parts[1].as_str(), parts[2].clone(), &parts[3..]),
        _ => return Some(Route::Other),
    };
    let mut target = Target {
        group: group.to_owned(),
        version,
        ..Target::default()
    };
    let rest = match rest {
        // The namespace's own subresources look like namespaced collections.
        [ns, name, sub]
            if ns == "namespaces" && group.is_empty() && (sub == "status" || sub == "finalize") =>
        {
            target.plural = "namespaces".into();
            target.namespace = name.clone();
            target.name = name.clone();
            target.subresource = sub.clone();
            return Some(Route::Resource(target));
        }
        [ns, name] if ns == "namespaces" && group.is_empty() => {
            target.plural = "namespaces".into();
            target.namespace = name.clone();
            target.name = name.clone();
            return Some(Route::Resource(target));
        }
        [ns, namespace, rest @ ..] if ns == "namespaces" && !rest.is_empty() => {
            target.namespace = namespace.clone();
            rest
        }
        other => other,
    };
    let mut rest = rest.iter();
    target.plural = rest.next()?.clone();
    if let Some(name) = rest.next() {
        target.name = name.clone();
    }
    if let Some(sub) = rest.next() {
        target.subresource = sub.clone();
    }
    target.rest = rest.cloned().collect::<Vec<_>>().join("/");
    Some(Route::Resource(target))
}

/// The RBAC verb of a request.
pub(crate) fn verb(method: &Method, target: &Target, watch: bool) -> Option<&'static str> {
    Some(match *method {
        Method::GET | Method::HEAD if watch && target.name.is_empty() => "watch",
        Method::GET | Method::HEAD if target.name.is_empty() => "list",
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if target.name.is_empty() => "deletecollection",
        Method::DELETE => "delete",
        _ => return None,
    })
}

/// The decoded query, in order; keys may repeat (`command=…`).
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(pub Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Self {
        Self(
            text.split('&')
                .filter(|pair| !pair.is_empty())
                .filter_map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    Some((percent_decode(key, true)?, percent_decode(value, true)?))
                })
                .collect(),
        )
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }

    /// The value that the field selector wants of a field, whatever else it wants.
    pub fn exact_field(&self, field: &str) -> Option<&str> {
        self.text("fieldSelector").split(',').find_map(|term| {
            let value = term.trim().strip_prefix(field)?.strip_prefix('=')?;
            Some(value.strip_prefix('=').unwrap_or(value))
        })
    }

    /// The value, or the empty string.
    pub fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or("")
    }

    /// A boolean as Kubernetes reads it: present and not `false` or `0`.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key)
            .is_some_and(|v| !v.eq_ignore_ascii_case("false") && v != "0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Target {
        match route(path) {
            Some(Route::Resource(t)) => t,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn paths_name_objects() {
        let t = target("/apis/apps/v1/namespaces/d/deployments/x/scale");
        assert_eq!(
            (
                t.group.as_str(),
                t.namespace.as_str(),
                t.plural.as_str(),
                t.name.as_str(),
                t.subresource.as_str()
            ),
            ("apps", "d", "deployments", "x", "scale")
        );
        let t = target("/api/v1/pods");
        assert_eq!(
            (t.plural.as_str(), t.name.as_str(), t.namespace.as_str()),
            ("pods", "", "")
        );
        let t = target("/api/v1/namespaces/d");
        assert_eq!((t.plural.as_str(), t.name.as_str()), ("namespaces", "d"));
        let t = target("/api/v1/namespaces/d/finalize");
        assert_eq!(
            (t.plural.as_str(), t.subresource.as_str()),
            ("namespaces", "finalize")
        );
        let t = target("/api/v1/namespaces");
        assert_eq!((t.plural.as_str(), t.name.as_str()), ("namespaces", ""));
        let t = target("/api/v1/namespaces/d/pods/");
        assert_eq!((t.plural.as_str(), t.namespace.as_str()), ("pods", "d"));
    }

    #[test]
    fn other_paths_are_no_objects() {
        for path in [
            "/",
            "/api",
            "/api/v1",
            "/apis",
            "/apis/apps",
            "/apis/apps/v1",
            "/openapi/v3/apis/apps/v1",
            "/version",
        ] {
            assert_eq!(route(path), Some(Route::Other), "{path}");
        }
        assert_eq!(route("/api/v1/pods/%zz"), None);
        assert_eq!(route("/api/v1/pods/%ff"), None);
    }

    #[test]
    fn an_encoded_slash_does_not_open_another_object() {
        assert_eq!(target("/api/v1/namespaces/d/pods/a%2Fb").name, "a/b");
    }

    #[test]
    fn queries_keep_repeated_keys() {
        let q = Query::parse("command=ls&command=-l&watch=true&tail=&x=a%20b+c&follow");
        assert_eq!(q.0.iter().filter(|(k, _)| k == "command").count(), 2);
        assert!(q.flag("watch") && q.flag("follow"));
        assert_eq!(q.text("x"), "a b c");
    }
}
