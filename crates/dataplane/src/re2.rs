//! Regular expressions of RE2, Envoy's engine, for the crate `regex`, which reads some of them differently.
//!
//! `\d`, `\w`, `\s` and `\b` mean ASCII in RE2 (and a class of all of Unicode's letters and digits costs a proxy a hundred
//! kilobytes); inside of brackets, `[`, `&&`, `--` and `~~` stand for themselves, and so do braces that repeat nothing; `\Q`
//! quotes up to `\E`. Source: <https://github.com/google/re2/wiki/Syntax>.

use std::fmt::Write as _;

use regex::{Regex, RegexBuilder};

/// The most that a compiled expression may take, in bytes.
const SIZE_LIMIT: usize = 16 << 20;

/// How deep groups and repetitions nest at most: they are compiled by recursion, on the stack of a thread. RE2 takes 1000.
const NEST_LIMIT: u32 = 80;

/// Compiles an expression as RE2 reads it.
///
/// # Errors
/// Where it is none.
pub fn compile(expression: &str) -> Result<Regex, regex::Error> {
    build(&translate(expression))
}

/// Compiles an expression that must match a whole text.
///
/// # Errors
/// Where it is none.
pub fn whole(expression: &str) -> Result<Regex, regex::Error> {
    build(&format!(r"\A(?:{})\z", translate(expression)))
}

fn build(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern)
        .size_limit(SIZE_LIMIT)
        .nest_limit(NEST_LIMIT)
        .build()
}

/// The same expression in the syntax of the crate `regex`.
fn translate(expression: &str) -> String {
    let mut out = String::with_capacity(expression.len() + 16);
    let mut rest = expression;
    // Inside of brackets: how much of the expression was left behind the opening one.
    let mut class: Option<usize> = None;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        match (c, class) {
            ('\\', _) => {
                rest = escape(after, class.is_some(), &mut out);
                continue;
            }
            ('[', None) => {
                out.push('[');
                rest = after;
                if let Some(negated) = rest.strip_prefix('^') {
                    out.push('^');
                    rest = negated;
                }
                class = Some(rest.len());
                continue;
            }
            ('[', Some(_)) => match named_class(rest) {
                Some(name) => {
                    out.push_str(name);
                    rest = &rest[name.len()..];
                    continue;
                }
                None => out.push_str("\\["),
            },
            // The first character is one of the class, even this one.
            (']', Some(start)) if rest.len() == start => out.push_str("\\]"),
            (']', Some(_)) => {
                class = None;
                out.push(']');
            }
            ('&' | '~', Some(_)) => {
                out.push('\\');
                out.push(c);
            }
            ('-', Some(start)) if rest.len() == start || after.starts_with(']') => {
                out.push_str("\\-");
            }
            // A range that ends in `-`.
            ('-', Some(_)) if after.starts_with('-') => {
                out.push_str("-\\-");
                rest = &after[1..];
                continue;
            }
            ('{', None) if !repeats(after) => out.push_str("\\{"),
            _ => out.push(c),
        }
        rest = after;
    }
    out
}

/// What stands behind a backslash; returns the rest.
fn escape<'a>(after: &'a str, in_class: bool, out: &mut String) -> &'a str {
    let Some(c) = after.chars().next() else {
        out.push('\\');
        return after;
    };
    let rest = &after[c.len_utf8()..];
    if c == 'Q' && !in_class {
        let (quoted, rest) = rest.split_once("\\E").unwrap_or((rest, ""));
        out.push_str(&regex::escape(quoted));
        return rest;
    }
    let members = match c.to_ascii_lowercase() {
        'd' => "0-9",
        'w' => "0-9A-Za-z_",
        's' => "\\t\\n\\f\\r ",
        'b' if !in_class => {
            let _ = write!(out, "(?-u:\\{c})");
            return rest;
        }
        _ => {
            out.push('\\');
            out.push(c);
            return rest;
        }
    };
    match (c.is_ascii_uppercase(), in_class) {
        (true, _) => {
            let _ = write!(out, "[^{members}]");
        }
        (false, true) => out.push_str(members),
        (false, false) => {
            let _ = write!(out, "[{members}]");
        }
    }
    rest
}

/// `[:digit:]` at the start of a text.
fn named_class(text: &str) -> Option<&str> {
    let end = text.strip_prefix("[:")?.find(":]")? + 4;
    let name = &text[2..end - 2];
    let name = name.strip_prefix('^').unwrap_or(name);
    (!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase())).then(|| &text[..end])
}

/// Whether `N}`, `N,}` or `N,M}` follows.
fn repeats(after: &str) -> bool {
    let Some((counts, _)) = after.split_once('}') else {
        return false;
    };
    let (least, most) = counts.split_once(',').unwrap_or((counts, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !least.is_empty() && digits(least) && digits(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(expression: &str, text: &str) -> bool {
        let regex = compile(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
        regex
            .find(text)
            .is_some_and(|found| found.range() == (0..text.len()))
    }

    #[test]
    fn classes_are_ascii() {
        for (expression, yes, no) in [
            (r"\d+", "42", "٤٢"),
            (r"\w+", "a_1", "é"),
            (r"[\w.-]+", "a.b-c", "a é"),
            (r"[^\d]", "x", "1"),
            (r"[\D]", "٤", "4"),
            (r"\S\s", "a ", "a\u{a0}"),
            (r"\W", "é", "e"),
            (r"(?i)k", "K", "x"),
        ] {
            assert!(matches(expression, yes), "{expression} and {yes}");
            assert!(!matches(expression, no), "{expression} and {no}");
        }
        assert!(compile(r"a\b").unwrap().is_match("aé"));
        assert!(compile(r"^\B").unwrap().is_match("é"));
    }

    #[test]
    fn brackets_and_braces_stand_for_themselves_where_re2_says_so() {
        for (expression, yes) in [
            (r"[[a]+", "[a"),
            (r"[]a]+", "]a"),
            (r"[^]a]", "b"),
            (r"[a&&b]+", "a&b"),
            (r"[a~~b]+", "a~b"),
            (r"[+--]+", "+,-"),
            (r"[a-]+", "a-"),
            (r"[-a]+", "-a"),
            (r"[[:digit:]x]+", "1x"),
            (r"{id}", "{id}"),
            (r"a{,2}", "a{,2}"),
            (r"a{2}b{1,}c{0,1}", "aabbc"),
            (r"\Q[a.b]\E+", "[a.b]]"),
            (r"\Qa.b", "a.b"),
            (r"\[\]\\", r"[]\"),
            (r"/v\d{1,2}/[^/]+", "/v12/books"),
            (r"한국.", "한국어"),
        ] {
            assert!(matches(expression, yes), "{expression} and {yes}");
        }
        assert!(compile("(a").is_err());
    }
}
