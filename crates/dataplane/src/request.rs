//! Views over the head of a request: what routes and filters look at and change.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// The head of a request, whatever protocol carried it.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// `:method`.
    pub method: &'a Method,
    /// `:scheme`, `http` or `https`.
    pub scheme: &'a str,
    /// `:authority`, as sent (with its port); empty when there is none.
    pub authority: &'a str,
    /// `:path`: path and query.
    pub path: &'a str,
    /// All other headers.
    pub headers: &'a HeaderMap,
}

impl<'a> RequestHead<'a> {
    /// The bytes of the names and values of all headers, pseudo headers that are there among them.
    pub fn bytes(&self) -> u64 {
        let pseudo = [
            (":method", self.method.as_str()),
            (":scheme", self.scheme),
            (":authority", self.authority),
            (":path", self.path),
        ];
        let there = pseudo.iter().filter(|(_, value)| !value.is_empty());
        let pseudo: usize = there.map(|(name, value)| name.len() + value.len()).sum();
        pseudo as u64 + header_bytes(self.headers)
    }

    /// The path without query and fragment.
    pub fn path_only(&self) -> &'a str {
        path_only(self.path)
    }

    /// The query without `?` and fragment; empty when there is none.
    pub fn query(&self) -> &'a str {
        let path = self.path.split('#').next().unwrap_or_default();
        path.split_once('?').map_or("", |(_, query)| query)
    }

    /// The first value of a query parameter, not decoded, as Envoy compares it.
    pub fn query_param(&self, name: &str) -> Option<&'a str> {
        self.query().split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then_some(value)
        })
    }

    /// A header or pseudo header (`:path`, `:authority` or `host`, ...). Repeated headers are joined by commas.
    pub fn header(&self, name: &str) -> Option<Cow<'a, str>> {
        match name {
            ":method" => Some(Cow::Borrowed(self.method.as_str())),
            ":scheme" => Some(Cow::Borrowed(self.scheme)),
            ":path" => Some(Cow::Borrowed(self.path)),
            ":authority" | "host" => Some(Cow::Borrowed(self.authority)),
            name => joined(self.headers, name),
        }
    }

    /// The value of a cookie.
    pub fn cookie(&self, name: &str) -> Option<&'a str> {
        self.headers
            .get_all(http::header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .find_map(|line| {
                line.split(';').find_map(|pair| {
                    let (key, value) = pair.trim().split_once('=')?;
                    (key == name).then(|| value.trim_matches('"'))
                })
            })
    }

    /// Whether the content type makes this a gRPC request (`application/grpc`, `application/grpc+...`).
    pub fn is_grpc(&self) -> bool {
        is_grpc(self.headers)
    }
}

/// The head of a request that is to be changed.
#[derive(Debug)]
pub struct RequestHeadMut<'a> {
    /// `:method`.
    pub method: &'a Method,
    /// `:scheme`.
    pub scheme: &'a str,
    /// `:authority`; empty when there is none.
    pub authority: &'a mut String,
    /// `:path`.
    pub path: &'a mut String,
    /// All other headers.
    pub headers: &'a mut HeaderMap,
}

impl RequestHeadMut<'_> {
    /// The same head, to read.
    pub fn view(&self) -> RequestHead<'_> {
        RequestHead {
            method: self.method,
            scheme: self.scheme,
            authority: self.authority,
            path: self.path,
            headers: self.headers,
        }
    }

    /// Sets a header, replacing all values; `:authority`, `host` and `:path` change the head itself.
    pub fn set(&mut self, name: &str, value: &str) {
        match name {
            ":authority" | "host" => value.clone_into(self.authority),
            ":path" => value.clone_into(self.path),
            _ => {
                if let (Ok(name), Ok(value)) =
                    (HeaderName::try_from(name), HeaderValue::try_from(value))
                {
                    self.headers.insert(name, value);
                }
            }
        }
    }
}

/// The bytes of names and values.
pub fn header_bytes(headers: &HeaderMap) -> u64 {
    let lines = headers.iter();
    lines
        .map(|(name, value)| (name.as_str().len() + value.len()) as u64)
        .sum()
}

/// Whether a header's name begins with one of these: most requests have none of the headers by which Envoy is told something, and need
/// not be searched for each of them.
pub fn any_begins(headers: &HeaderMap, beginnings: &[&str]) -> bool {
    let begins = |name: &HeaderName| {
        let name = name.as_str();
        beginnings
            .iter()
            .any(|beginning| name.starts_with(beginning))
    };
    headers.keys().any(begins)
}

/// Whether there may be headers that steer the router: time limits, retries, hedging.
pub fn is_steered(headers: &HeaderMap) -> bool {
    let steering = [
        "x-envoy-upstream-rq-",
        "x-envoy-upstream-alt-",
        "x-envoy-retr",
        "x-envoy-max-retries",
        "x-envoy-hedge-",
    ];
    any_begins(headers, &steering)
}

/// The path without query and fragment.
pub fn path_only(path: &str) -> &str {
    path.find(['?', '#']).map_or(path, |end| &path[..end])
}

/// All values of a header joined by commas; `None` when it is absent. Borrows when there is one value.
pub fn joined<'a>(
    headers: &'a HeaderMap,
    name: impl http::header::AsHeaderName,
) -> Option<Cow<'a, str>> {
    let mut values = headers.get_all(name).iter().map(text);
    let first = values.next()?;
    let Some(second) = values.next() else {
        return Some(first);
    };
    let mut all = first.into_owned();
    for value in std::iter::once(second).chain(values) {
        all.push(',');
        all.push_str(&value);
    }
    Some(Cow::Owned(all))
}

/// The value of a header as formats have it: the first line; where Envoy keeps a list there is but one ([`crate::lists`]).
pub fn formatted<'a>(headers: &'a HeaderMap, name: &str) -> Option<Cow<'a, str>> {
    headers.get(name).map(text)
}

/// A header value as text; bytes that are not UTF-8 are replaced.
pub fn text(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

/// Whether these headers are those of a gRPC message.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| {
            value
                .as_bytes()
                .strip_prefix(b"application/grpc")
                .is_some_and(|rest| rest.is_empty() || matches!(rest[0], b'+' | b';'))
        })
}

/// Percent encoding undone, where what comes out is text.
pub fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after
            .get(..2)
            .filter(|code| first == b'%' && code.iter().all(u8::is_ascii_hexdigit))
            .and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        match code {
            Some(code) => {
                out.push(code);
                rest = &after[2..];
            }
            None => {
                out.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_like_envoy_reads_it() {
        let mut headers = HeaderMap::new();
        headers.append("a", HeaderValue::from_static("1"));
        headers.append("a", HeaderValue::from_static("2"));
        headers.append("cookie", HeaderValue::from_static("x=1; user=\"bob\""));
        headers.append(
            "content-type",
            HeaderValue::from_static("application/grpc-web"),
        );
        let head = RequestHead {
            method: &Method::GET,
            scheme: "http",
            authority: "h:1",
            path: "/p?q=1&r#f",
            headers: &headers,
        };
        assert_eq!(head.path_only(), "/p");
        assert_eq!(head.query_param("q"), Some("1"));
        assert_eq!(head.query_param("r"), Some(""));
        assert_eq!(head.query_param("s"), None);
        assert_eq!(head.header("a").as_deref(), Some("1,2"));
        assert_eq!(head.header(":authority").as_deref(), Some("h:1"));
        assert_eq!(head.cookie("user"), Some("bob"));
        assert!(!head.is_grpc(), "grpc-web is another protocol");
    }
}
