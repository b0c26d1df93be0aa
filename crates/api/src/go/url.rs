//! URLs as text (Go's `net/url`), as far as validation asks: whether one parses, and its parts.

use crate::field::quote;

/// The parts of a URL.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Url {
    /// Scheme in lower case; empty when there is none.
    pub scheme: String,
    /// Host with its port, as written; brackets of IPv6 addresses included.
    pub host: String,
    /// Path, unescaped.
    pub path: String,
    /// Path as written.
    pub escaped_path: String,
    /// What follows `?`, as written.
    pub query: String,
    /// What follows the scheme when it is no path (`mailto:x`).
    pub opaque: String,
}

impl Url {
    /// The host without port and brackets.
    pub fn hostname(&self) -> &str {
        let host = match self.host.rfind(']') {
            Some(end) => &self.host[..=end],
            None => self.host.split(':').next().unwrap_or(""),
        };
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port as written; empty when there is none.
    pub fn port(&self) -> &str {
        let after = self.host.rfind(']').map_or(0, |end| end + 1);
        self.host[after..].split_once(':').map_or("", |(_, p)| p)
    }

    /// The values of a query by name, in order. Malformed pairs are left out, as Go does.
    pub fn query_values(&self) -> Vec<(String, String)> {
        self.query
            .split('&')
            .filter(|pair| !pair.is_empty() && !pair.contains(';'))
            .filter_map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                let plain = |s: &str| unescape(&s.replace('+', " "), false).ok();
                Some((plain(key)?, plain(value)?))
            })
            .collect()
    }
}

/// `url.Parse`.
///
/// # Errors
/// Go's text.
pub fn parse(text: &str) -> Result<Url, String> {
    let (rest, _fragment) = text.split_once('#').unwrap_or((text, ""));
    parse_inner(rest, false).map_err(|why| format!("parse {}: {why}", quote(text)))
}

/// `url.ParseRequestURI`: an absolute URI or an absolute path.
///
/// # Errors
/// Go's text.
pub fn parse_request_uri(text: &str) -> Result<Url, String> {
    parse_inner(text, true).map_err(|why| format!("parse {}: {why}", quote(text)))
}

/// What Go refuses from 1.26 on, with which istiod is built and the API server is not: a second colon in the host of a web address.
///
/// # Errors
/// Go's text; `text` is what was parsed.
pub fn one_colon(url: &Url, text: &str) -> Result<(), String> {
    let web = matches!(url.scheme.as_str(), "http" | "https");
    match url.host.find(':') {
        Some(at) if web && !url.host.starts_with('[') && url.host[at + 1..].contains(':') => {
            let port = quote(&url.host[at..]);
            Err(format!(
                "parse {}: invalid port {port} after host",
                quote(text)
            ))
        }
        _ => Ok(()),
    }
}

fn parse_inner(text: &str, via_request: bool) -> Result<Url, String> {
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err("net/url: invalid control character in URL".into());
    }
    if text.is_empty() && via_request {
        return Err("empty url".into());
    }
    let mut url = Url::default();
    if text == "*" {
        url.path = "*".into();
        return Ok(url);
    }
    let (scheme, rest) = scheme_of(text)?;
    url.scheme = scheme.to_lowercase();
    let (mut rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    url.query = query.into();
    if !rest.starts_with('/') {
        if !url.scheme.is_empty() {
            url.opaque = rest.into();
            return Ok(url);
        }
        if via_request {
            return Err("invalid URI for request".into());
        }
        let segment = rest.split('/').next().unwrap_or("");
        if segment.contains(':') {
            return Err("first path segment in URL cannot contain colon".into());
        }
    }
    let has_authority = (!url.scheme.is_empty() || !via_request && !rest.starts_with("///"))
        && rest.starts_with("//");
    if has_authority {
        let after = &rest[2..];
        let end = after.find('/').unwrap_or(after.len());
        let (authority, path) = after.split_at(end);
        url.host = authority_host(authority)?;
        rest = path;
    }
    url.path = unescape(rest, false)?;
    url.escaped_path = rest.into();
    Ok(url)
}

fn scheme_of(text: &str) -> Result<(&str, &str), String> {
    for (i, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if i > 0 => {}
            '0'..='9' | '+' | '-' | '.' => return Ok(("", text)),
            ':' if i == 0 => return Err("missing protocol scheme".into()),
            ':' => return Ok((&text[..i], &text[i + 1..])),
            _ => return Ok(("", text)),
        }
    }
    Ok(("", text))
}

fn authority_host(authority: &str) -> Result<String, String> {
    let host = match authority.rsplit_once('@') {
        Some((user, host)) => {
            let fine = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
            if !user.chars().all(fine) {
                return Err("net/url: invalid userinfo".into());
            }
            host
        }
        None => authority,
    };
    let port = if host.starts_with('[') {
        let Some(end) = host.rfind(']') else {
            return Err("missing ']' in host".into());
        };
        &host[end + 1..]
    } else {
        host.rfind(':').map_or("", |at| &host[at..])
    };
    let number = port.strip_prefix(':').unwrap_or(port);
    if !port.is_empty() && (!port.starts_with(':') || !number.bytes().all(|b| b.is_ascii_digit())) {
        return Err(format!("invalid port {} after host", quote(port)));
    }
    unescape(host, true)
}

fn unescape(text: &str, host: bool) -> Result<String, String> {
    let mut out = Vec::new();
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'%' => {
                let hex = text
                    .get(i + 1..i + 3)
                    .filter(|h| h.bytes().all(|b| b.is_ascii_hexdigit()));
                let Some(hex) = hex else {
                    let shown: String = text[i..].chars().take(3).collect();
                    return Err(format!("invalid URL escape {}", quote(&shown)));
                };
                let value = u8::from_str_radix(hex, 16).unwrap_or_default();
                // In a host only bytes beyond ASCII may be escaped (and a zone's percent sign).
                if host && value < 0x80 && value != b'%' {
                    return Err(format!("invalid URL escape {}", quote(&text[i..i + 3])));
                }
                out.push(value);
                i += 3;
            }
            b if host && b < 0x80 && !host_byte(b) => {
                let shown = (b as char).to_string();
                return Err(format!("invalid character {} in host name", quote(&shown)));
            }
            b => {
                out.push(b);
                i += 1;
            }
        }
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

fn host_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]<>\"".contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let url = parse("HTTPS://user@id.example:8443/keys?a=1&b=%20x#f").unwrap();
        assert_eq!(
            (url.scheme.as_str(), url.host.as_str()),
            ("https", "id.example:8443")
        );
        assert_eq!((url.hostname(), url.port()), ("id.example", "8443"));
        assert_eq!(url.path, "/keys");
        assert_eq!(url.query_values()[1], ("b".into(), " x".into()));
        assert_eq!(parse("http://[::1]:80/").unwrap().hostname(), "::1");
        assert_eq!(parse("a/b").unwrap().path, "a/b");
    }

    #[test]
    fn texts_are_those_of_go() {
        for (text, want) in [
            ("id.example/keys", "invalid URI for request"),
            ("", "empty url"),
            (":x", "missing protocol scheme"),
            ("http://a:b/", r#"invalid port ":b" after host"#),
            ("http://a b/", r#"invalid character " " in host name"#),
            ("/%zz", r#"invalid URL escape "%zz""#),
        ] {
            assert_eq!(
                parse_request_uri(text).unwrap_err(),
                format!("parse {}: {want}", quote(text))
            );
        }
        let colons = "http://a:1:2/";
        assert_eq!(
            one_colon(&parse(colons).unwrap(), colons).unwrap_err(),
            r#"parse "http://a:1:2/": invalid port ":1:2" after host"#
        );
        assert_eq!(
            parse("1a:b").unwrap_err(),
            r#"parse "1a:b": first path segment in URL cannot contain colon"#
        );
    }
}
