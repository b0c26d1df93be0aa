//! Normalising paths.

use super::{EscapedSlashes, HttpConn, PathOutcome};

impl HttpConn {
    /// Checks and normalises the path of a request (`normalize_path`, `merge_slashes`, escaped slashes). An
    /// empty path (CONNECT) and `*` (OPTIONS) stay as they are.
    pub fn normalize(&self, path: &mut String) -> PathOutcome {
        if path.is_empty() || path == "*" {
            return PathOutcome::Go;
        }
        // A fragment is never sent by a client that means well.
        if path.contains('#') {
            return PathOutcome::Reject;
        }
        let end = path.find('?').unwrap_or(path.len());
        let mut redirect = false;
        let mut plain = path[..end].to_owned();
        if self.escaped_slashes != EscapedSlashes::Keep
            && let Some(unescaped) = unescape_slashes(&plain)
        {
            if self.escaped_slashes == EscapedSlashes::Reject {
                return PathOutcome::Reject;
            }
            redirect = self.escaped_slashes == EscapedSlashes::Redirect;
            plain = unescaped;
        }
        if self.normalize_path {
            match canonical(&plain) {
                Some(canonical) => plain = canonical,
                None => return PathOutcome::Reject,
            }
        }
        if self.merge_slashes && plain.contains("//") {
            // Slashes at both ends are kept each for itself, as Envoy does: nothing but slashes becomes two.
            let parts: Vec<&str> = plain.split('/').filter(|part| !part.is_empty()).collect();
            let first = if plain.starts_with('/') { "/" } else { "" };
            let last = if plain.ends_with('/') { "/" } else { "" };
            plain = format!("{first}{}{last}", parts.join("/"));
        }
        if plain != path[..end] {
            path.replace_range(..end, &plain);
        }
        if redirect {
            PathOutcome::Redirect(path.clone())
        } else {
            PathOutcome::Go
        }
    }
}

/// `%2F` and `%5C` as slashes; `None` if there are none.
fn unescape_slashes(path: &str) -> Option<String> {
    let escaped = |at: usize| match path.as_bytes().get(at..at + 3) {
        Some([b'%', b'2', b'F' | b'f']) => Some('/'),
        Some([b'%', b'5', b'C' | b'c']) => Some('\\'),
        _ => None,
    };
    let mut out = String::with_capacity(path.len());
    let mut rest = 0;
    for (at, _) in path.match_indices('%') {
        if let Some(slash) = escaped(at) {
            out.push_str(&path[rest..at]);
            out.push(slash);
            rest = at + 3;
        }
    }
    (rest > 0).then(|| out + &path[rest..])
}

/// RFC 3986: unreserved characters unescaped, dot segments resolved, backslashes as slashes. `None`: not a path.
/// Characters that a canonical path has only in their escaped form.
const ESCAPED: [char; 9] = [' ', '"', '<', '>', '^', '`', '{', '|', '}'];

fn canonical(path: &str) -> Option<String> {
    if !path.starts_with(['/', '\\']) {
        return None;
    }
    // Nearly all paths are canonical already.
    if !path.contains(ESCAPED) && !path.contains(['%', '\\', '.']) {
        return Some(path.to_owned());
    }
    let mut plain = String::with_capacity(path.len());
    let mut chars = path.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => plain.push('/'),
            '%' => {
                let code = path
                    .get(at + 1..at + 3)
                    .and_then(|hex| u8::from_str_radix(hex, 16).ok());
                match code.map(char::from) {
                    Some('\0') => return None,
                    Some(c) if c.is_ascii_alphanumeric() || "-._~".contains(c) => {
                        plain.push(c);
                        chars.nth(1);
                    }
                    _ => plain.push('%'),
                }
            }
            c if ESCAPED.contains(&c) => plain.push_str(&format!("%{:02X}", c as u32)),
            c => plain.push(c),
        }
    }
    let mut segments: Vec<&str> = Vec::new();
    let all: Vec<&str> = plain[1..].split('/').collect();
    let last = all.len() - 1;
    for (index, segment) in all.into_iter().enumerate() {
        match segment {
            "." | ".." => {
                if segment == ".." {
                    segments.pop();
                }
                if index == last {
                    segments.push("");
                }
            }
            segment => segments.push(segment),
        }
    }
    Some(format!("/{}", segments.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;

    fn normalize(config: serde_json::Value, path: &str) -> (String, PathOutcome) {
        let config: HttpConnectionManager =
            xds::json::from_value(config, true).expect("a valid message");
        let mut path = path.to_owned();
        let outcome = HttpConn::compile(&config)
            .expect("compiles")
            .normalize(&mut path);
        (path, outcome)
    }

    #[test]
    fn istios_base_normalisation() {
        let base = |path: &str| {
            let (path, outcome) = normalize(serde_json::json!({"normalize_path": true}), path);
            (outcome == PathOutcome::Go).then_some(path)
        };
        assert_eq!(
            base("/b/../redirect?x=../y").as_deref(),
            Some("/redirect?x=../y")
        );
        assert_eq!(base("/%41/%2e%2E/b").as_deref(), Some("/b"));
        assert_eq!(base("/a%2Fb//c").as_deref(), Some("/a%2Fb//c"));
        assert_eq!(base("/../../a/.").as_deref(), Some("/a/"));
        assert_eq!(base("/a/b/..").as_deref(), Some("/a/"));
        assert_eq!(base("\\a\\b").as_deref(), Some("/a/b"));
        assert_eq!(base("/a%zz").as_deref(), Some("/a%zz"));
        assert_eq!(base("/a%00"), None);
        assert_eq!(base("/a#b"), None);
        assert_eq!(base("no-slash"), None);
        assert_eq!(base("*").as_deref(), Some("*"));
    }

    #[test]
    fn slashes_are_merged_or_unescaped_where_wanted() {
        let merge = serde_json::json!({"normalize_path": true, "merge_slashes": true, "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD"});
        assert_eq!(
            normalize(merge, "//a%2f/b%5Cc"),
            ("/a/b/c".into(), PathOutcome::Go)
        );
        let reject = serde_json::json!({"path_with_escaped_slashes_action": "REJECT_REQUEST"});
        assert_eq!(normalize(reject, "/a%2Fb").1, PathOutcome::Reject);
        let redirect =
            serde_json::json!({"path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT"});
        assert_eq!(
            normalize(redirect.clone(), "/a%2Fb?q").1,
            PathOutcome::Redirect("/a/b?q".into())
        );
        assert_eq!(normalize(redirect, "/a?q=%2F").1, PathOutcome::Go);
    }
}
