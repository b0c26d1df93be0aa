//! How a value of a policy, with its wildcards, becomes a matcher.

use crate::route::matches::regex_matcher;
use xds::envoy::config::route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier};
use xds::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};

/// `*` is anything but nothing, `a*` a prefix, `*a` a suffix, everything else is exact.
pub(crate) fn text(value: &str) -> StringMatcher {
    with_prefix("", value)
}

/// The same with something before every value; a suffix becomes a regular expression then.
pub(crate) fn with_prefix(prefix: &str, value: &str) -> StringMatcher {
    let pattern = if value == "*" {
        MatchPattern::SafeRegex(regex_matcher(".+"))
    } else if let Some(end) = value.strip_prefix('*') {
        if prefix.is_empty() {
            MatchPattern::Suffix(end.to_owned())
        } else {
            MatchPattern::SafeRegex(regex_matcher(&format!("{prefix}.*{}", quote(end))))
        }
    } else if let Some(begin) = value.strip_suffix('*') {
        MatchPattern::Prefix(format!("{prefix}{begin}"))
    } else {
        MatchPattern::Exact(format!("{prefix}{value}"))
    };
    StringMatcher {
        match_pattern: Some(pattern),
        ..Default::default()
    }
}

pub(crate) fn regex(regex: &str) -> StringMatcher {
    StringMatcher {
        match_pattern: Some(MatchPattern::SafeRegex(regex_matcher(regex))),
        ..Default::default()
    }
}

/// A header; `*` only has to be there.
pub(crate) fn header(name: &str, value: &str, ignore_case: bool) -> HeaderMatcher {
    let specifier = if value == "*" {
        HeaderMatchSpecifier::PresentMatch(true)
    } else {
        HeaderMatchSpecifier::StringMatch(StringMatcher {
            ignore_case,
            ..text(value)
        })
    };
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(specifier),
        ..Default::default()
    }
}

/// Escapes what has a meaning in regular expressions.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if r"\.+*?()|[]{}^$".contains(character) {
            out.push('\\');
        }
        out.push(character);
    }
    out
}
