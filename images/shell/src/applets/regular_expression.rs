//! Regular expressions of POSIX, basic and extended, in the words of the `regex` library.

use regex::bytes::{Regex, RegexBuilder};

/// Compiles a POSIX expression.
///
/// References to groups (`\1` within the expression) are refused: the library's promise of
/// linear time excludes them.
pub(super) fn compile(pattern: &str, extended: bool, ignore_case: bool) -> Result<Regex, String> {
    let text =
        translate(pattern, extended).map_err(|error| format!("bad regex '{pattern}': {error}"))?;
    RegexBuilder::new(&text)
        .case_insensitive(ignore_case)
        .unicode(std::str::from_utf8(pattern.as_bytes()).is_ok())
        .build()
        .map_err(|_| format!("bad regex '{pattern}'"))
}

/// A text that means itself.
pub(super) fn literal(text: &str) -> String {
    regex::escape(text)
}

/// An expression of POSIX as one of the library.
pub(super) fn translate(pattern: &str, extended: bool) -> Result<String, String> {
    let chars: Vec<char> = pattern.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    // Whether an item could begin here: there `*` means itself, and `^` the beginning.
    let mut start = true;
    let mut open = 0;
    while let Some(&c) = chars.get(at) {
        at += 1;
        let was_start = std::mem::replace(&mut start, false);
        let next = chars.get(at).copied();
        // Operators are written plainly in one form and with a backslash in the other.
        let (operator, escaped) = match (c, next) {
            ('\\', Some(next)) => {
                at += 1;
                (next, true)
            }
            ('\\', None) => return Err("trailing backslash".into()),
            (c, _) => (c, false),
        };
        match (operator, escaped) {
            ('(', _) if escaped != extended => {
                out.push('(');
                open += 1;
                start = true;
            }
            (')', _) if escaped != extended => {
                if open == 0 {
                    if extended {
                        out.push_str("\\)");
                        continue;
                    }
                    return Err("unmatched )".into());
                }
                out.push(')');
                open -= 1;
            }
            ('{', _) if escaped != extended => {
                let close = if extended { "}" } else { "\\}" };
                let rest: String = chars[at..].iter().collect();
                let end = rest.find(close).ok_or("unmatched {")?;
                let bounds = &rest[..end];
                if bounds.is_empty() || !bounds.chars().all(|c| c.is_ascii_digit() || c == ',') {
                    return Err("bad repetition".into());
                }
                let bounds = if bounds.starts_with(',') {
                    format!("0{bounds}")
                } else {
                    bounds.to_owned()
                };
                out.push_str(&format!("{{{bounds}}}"));
                at += rest[..end].chars().count() + close.len();
            }
            ('|', _) if escaped != extended => {
                out.push('|');
                start = true;
            }
            ('+' | '?', _) if escaped != extended => {
                if was_start {
                    out.push('\\');
                }
                out.push(operator);
            }
            ('*', false) if was_start => {
                out.push_str("\\*");
                start = false;
            }
            ('*', false) => out.push('*'),
            ('.', false) => out.push_str("(?s:.)"),
            ('^', false) if extended || was_start => {
                out.push('^');
                start = true;
            }
            ('$', false) => {
                let rest: String = chars[at..].iter().take(2).collect();
                let end = rest.is_empty() || rest.starts_with("\\)") || rest.starts_with("\\|");
                out.push_str(if extended || end { "$" } else { "\\$" });
            }
            ('[', false) => at = bracket(&chars, at, &mut out)?,
            ('w', true) => out.push_str("[[:alnum:]_]"),
            ('W', true) => out.push_str("[^[:alnum:]_]"),
            ('s', true) => out.push_str("[[:space:]]"),
            ('S', true) => out.push_str("[^[:space:]]"),
            ('b', true) => out.push_str("\\b"),
            ('B', true) => out.push_str("\\B"),
            ('<', true) => out.push_str("\\b{start}"),
            ('>', true) => out.push_str("\\b{end}"),
            ('n', true) => out.push_str("\\n"),
            ('t', true) => out.push_str("\\t"),
            ('1'..='9', true) => {
                return Err(format!(
                    "references to groups (\\{operator}) are not supported"
                ));
            }
            (c, _) => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    if open > 0 {
        return Err("unmatched (".into());
    }
    Ok(out)
}

/// `[…]`, whose opening is taken; where it ends.
fn bracket(chars: &[char], mut at: usize, out: &mut String) -> Result<usize, String> {
    const UNCLOSED: &str = "unmatched [";
    out.push('[');
    if chars.get(at) == Some(&'^') {
        out.push('^');
        at += 1;
    }
    let mut first = true;
    loop {
        let c = *chars.get(at).ok_or(UNCLOSED)?;
        at += 1;
        match c {
            ']' if !first => {
                out.push(']');
                return Ok(at);
            }
            '[' if chars.get(at) == Some(&':') => {
                let rest: String = chars[at + 1..].iter().collect();
                let (name, _) = rest.split_once(":]").ok_or(UNCLOSED)?;
                out.push_str(&format!("[:{name}:]"));
                at += name.chars().count() + 3;
            }
            '-' => {
                // Between two characters it is a range; the library wants others escaped.
                let range = !first && chars.get(at).is_some_and(|next| *next != ']');
                out.push_str(if range { "-" } else { "\\-" });
            }
            // A backslash is a character like others here, but \n and \t are widely used.
            '\\' if matches!(chars.get(at), Some('n' | 't')) => {
                out.push('\\');
                out.push(chars[at]);
                at += 1;
            }
            '[' | ']' | '\\' | '&' | '~' | '^' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        for (pattern, extended, text, expected) in [
            ("a+b", false, "a+b", true),
            ("a+b", true, "aab", true),
            ("a\\+b", false, "aab", true),
            ("\\(ab\\)\\{2\\}", false, "abab", true),
            ("(ab){2}", true, "abab", true),
            ("(ab){2}", false, "(ab){2}", true),
            ("a|b", true, "b", true),
            ("a|b", false, "a|b", true),
            ("*a", false, "*a", true),
            ("^[]x]*$", false, "]x", true),
            ("[^[:digit:]]", false, "12", false),
            ("[a\\]", false, "\\", true),
            ("a.c", false, "abc", true),
            ("x^y$z", false, "x^y$z", true),
            ("\\<a\\>", false, "b a c", true),
            ("[a-c-]", false, "-", true),
            ("[a&&b]", false, "&", true),
        ] {
            let regex = compile(pattern, extended, false).unwrap();
            assert_eq!(
                regex.is_match(text.as_bytes()),
                expected,
                "{pattern} {extended} {text}"
            );
        }
        for pattern in ["\\(a", "a\\", "[a", "\\(a\\)\\1", "a\\{x\\}"] {
            assert!(compile(pattern, false, false).is_err(), "{pattern}");
        }
    }
}
