//! Links of pages that come through the proxy: absolute paths lead below the proxy's own path, or they would leave it.

/// Attributes that hold URLs, by element, as kube-apiserver rewrites them.
const ATTRIBUTES: [(&str, &[&str]); 20] = [
    ("a", &["href"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["formaction", "src", "usemap"]),
    ("link", &["href"]),
    ("object", &["codebase", "data"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// The page with `prefix` before the absolute paths of its links. Everything else stays as it is, byte by byte.
pub(crate) fn rewrite(page: &str, prefix: &str) -> String {
    let mut out = String::with_capacity(page.len() + 256);
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with("<!--") {
            let end = rest.find("-->").map_or(rest.len(), |end| end + 3);
            out.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        let end = tag_end(rest);
        tag(&rest[..end], prefix, &mut out);
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// Where a tag ends that begins here; `>` inside quotes does not end it.
fn tag_end(text: &str) -> usize {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '>') => return at + 1,
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    text.len()
}

fn tag(text: &str, prefix: &str, out: &mut String) {
    let name: String = text[1..]
        .chars()
        .take_while(char::is_ascii_alphanumeric)
        .collect::<String>()
        .to_ascii_lowercase();
    let known = ATTRIBUTES.iter().find(|(element, _)| *element == name);
    let Some((_, attributes)) = known else {
        out.push_str(text);
        return;
    };
    let mut rest = text;
    // Each `name="/`, where the name is one that holds a URL.
    while let Some(at) = rest.find(['"', '\'']) {
        let (head, tail) = rest.split_at(at + 1);
        out.push_str(head);
        let quote = &head[at..];
        let end = tail.find(quote).unwrap_or(tail.len());
        let attribute = head[..at]
            .trim_end()
            .strip_suffix('=')
            .map(str::trim_end)
            .and_then(|before| before.rsplit(char::is_whitespace).next())
            .unwrap_or("")
            .to_ascii_lowercase();
        let value = &tail[..end];
        if attributes.contains(&attribute.as_str())
            && value.starts_with('/')
            && !value.starts_with("//")
        {
            out.push_str(prefix);
        }
        let closed = (end + quote.len()).min(tail.len());
        out.push_str(&tail[..closed]);
        rest = &tail[closed..];
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::rewrite;

    #[test]
    fn absolute_paths_stay_below_the_proxy() {
        for (page, expected) in [
            (r#"<a href="/x">test</a>"#, r#"<a href="/p/x">test</a>"#),
            (
                r#"<A class='b' HREF = '/x?a>b'>"#,
                r#"<A class='b' HREF = '/p/x?a>b'>"#,
            ),
            (
                r#"<a href="//host/x"><a href="x"><a href="http://h/x">"#,
                r#"<a href="//host/x"><a href="x"><a href="http://h/x">"#,
            ),
            (
                r#"<img alt="/a" src="/b"/><p title="/c">1 < 2"#,
                r#"<img alt="/a" src="/p/b"/><p title="/c">1 < 2"#,
            ),
            (
                r#"<!-- <a href="/x"> --><script src='/s'></script>"#,
                r#"<!-- <a href="/x"> --><script src='/p/s'></script>"#,
            ),
            (r#"<a href="/unclosed"#, r#"<a href="/p/unclosed"#),
        ] {
            assert_eq!(rewrite(page, "/p"), expected);
        }
    }
}
