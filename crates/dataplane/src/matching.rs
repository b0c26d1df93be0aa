//! Matchers of strings, headers, query parameters, metadata and fractions.

use std::borrow::Cow;

use http::HeaderName;
use regex::Regex;
use serde_json::Value;
use xds::envoy::config::core::v3::RuntimeFractionalPercent;
use xds::envoy::config::route::v3::{
    HeaderMatcher, QueryParameterMatcher, header_matcher::HeaderMatchSpecifier,
    query_parameter_matcher::QueryParameterMatchSpecifier,
};
use xds::envoy::r#type::matcher::v3::{
    MetadataMatcher, RegexMatchAndSubstitute, RegexMatcher, StringMatcher, ValueMatcher,
    double_matcher, list_matcher, metadata_matcher, string_matcher::MatchPattern, value_matcher,
};
use xds::envoy::r#type::v3::FractionalPercent;

use crate::error::ConfigError;
use crate::request::{RequestHead, formatted, joined};
use crate::stream::Metadata;

/// A `StringMatcher`, compiled.
#[derive(Debug, Clone)]
pub enum StringMatch {
    /// The whole string.
    Exact(String),
    /// The beginning.
    Prefix(String),
    /// The end.
    Suffix(String),
    /// Anywhere.
    Contains(String),
    /// As above, without regard to case (ASCII).
    IgnoreCase(Box<StringMatch>),
    /// The whole string, RE2 syntax.
    Regex(Regex),
    /// Any string: a matcher without a pattern, as Istio sends it for "present".
    Any,
}

impl StringMatch {
    /// Compiles a matcher.
    pub fn compile(config: &StringMatcher) -> Result<Self, ConfigError> {
        let fold = |text: &String| {
            if config.ignore_case {
                text.to_ascii_lowercase()
            } else {
                text.clone()
            }
        };
        let matcher = match &config.match_pattern {
            Some(MatchPattern::Exact(text)) => Self::Exact(fold(text)),
            Some(MatchPattern::Prefix(text)) => Self::Prefix(fold(text)),
            Some(MatchPattern::Suffix(text)) => Self::Suffix(fold(text)),
            Some(MatchPattern::Contains(text)) => Self::Contains(fold(text)),
            // ignore_case does not change regular expressions.
            Some(MatchPattern::SafeRegex(regex)) => return Ok(Self::Regex(full_regex(regex)?)),
            Some(MatchPattern::Custom(custom)) => {
                return Err(ConfigError::new(
                    "custom",
                    format!("the string matcher {:?} is not supported", custom.name),
                ));
            }
            None => return Ok(Self::Any),
        };
        Ok(if config.ignore_case {
            Self::IgnoreCase(Box::new(matcher))
        } else {
            matcher
        })
    }

    /// Whether the text matches.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == exact,
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
            Self::Suffix(suffix) => text.ends_with(suffix.as_str()),
            Self::Contains(part) => text.contains(part.as_str()),
            Self::Regex(regex) => regex.is_match(text),
            Self::Any => true,
            Self::IgnoreCase(inner) => {
                let (text, len) = (text.as_bytes(), text.len());
                let equal = |pattern: &str, at: Option<&[u8]>| {
                    at.is_some_and(|at| at.eq_ignore_ascii_case(pattern.as_bytes()))
                };
                match &**inner {
                    Self::Exact(exact) => equal(exact, Some(text)),
                    Self::Prefix(prefix) => equal(prefix, text.get(..prefix.len())),
                    Self::Suffix(suffix) => equal(
                        suffix,
                        len.checked_sub(suffix.len()).and_then(|at| text.get(at..)),
                    ),
                    Self::Contains(part) => {
                        part.is_empty()
                            || text
                                .windows(part.len())
                                .any(|window| equal(part, Some(window)))
                    }
                    Self::Regex(_) | Self::Any | Self::IgnoreCase(_) => false,
                }
            }
        }
    }
}

/// A regular expression that must match the whole string.
pub fn full_regex(config: &RegexMatcher) -> Result<Regex, ConfigError> {
    crate::re2::whole(&config.regex).map_err(|error| not_valid(&config.regex, &error))
}

fn not_valid(expression: &str, error: &regex::Error) -> ConfigError {
    ConfigError::new(
        "regex",
        format!("{expression:?} is not a valid regular expression: {error}"),
    )
}

/// A path made of the variables of a URI template: `/{b}/x/{a}`.
#[derive(Debug, Clone)]
pub struct TemplateRewrite {
    matcher: Regex,
    /// Texts, each with the variable behind it.
    parts: Vec<(String, Option<String>)>,
}

impl TemplateRewrite {
    /// Compiles a rewrite for paths that the matcher, a [`uri_template`], matches.
    pub fn compile(template: &str, matcher: &Regex) -> Result<Self, ConfigError> {
        let wrong = |problem: String| {
            ConfigError::new("path_template_rewrite", format!("{template:?} {problem}"))
        };
        if !template.starts_with('/') {
            return Err(wrong("must begin with a slash".into()));
        }
        let mut parts = Vec::new();
        let mut left = template;
        while let Some((text, after)) = left.split_once('{') {
            let (name, rest) = after
                .split_once('}')
                .ok_or_else(|| wrong("has a { without }".into()))?;
            if !matcher.capture_names().flatten().any(|known| known == name) {
                return Err(wrong(format!(
                    "has the variable {name:?}, which the template of the match does not have"
                )));
            }
            parts.push((text.to_owned(), Some(name.to_owned())));
            left = rest;
        }
        parts.push((left.to_owned(), None));
        Ok(Self {
            matcher: matcher.clone(),
            parts,
        })
    }

    /// The new path, if the template matches this one (without a query).
    pub fn apply(&self, path: &str) -> Option<String> {
        let found = self.matcher.captures(path)?;
        let mut out = String::new();
        for (text, name) in &self.parts {
            out.push_str(text);
            if let Some(value) = name.as_ref().and_then(|name| found.name(name)) {
                out.push_str(value.as_str());
            }
        }
        Some(out)
    }
}

/// A URI template (`/pods/*/**`, `/{id}/x`) as a regular expression over the whole path: `*` and `{name}` are one
/// segment or a part of it, `**` any number of segments. Variables are groups by their names.
pub fn uri_template(template: &str) -> Result<Regex, ConfigError> {
    let wrong =
        |problem: &str| ConfigError::new("path_template", format!("{template:?} {problem}"));
    if !template.starts_with('/') {
        return Err(wrong("must begin with a slash"));
    }
    let segment = "[a-zA-Z0-9\\-._~%!$&'()+,;:@]+";
    let rest = "[a-zA-Z0-9\\-._~%!$&'()+,;:@=/]*";
    let glob = |glob: &str| match glob {
        "**" => Ok(rest.to_owned()),
        "*" => Ok(segment.to_owned()),
        other => Err(wrong(&format!("has the unknown operator {other:?}"))),
    };
    let mut pattern = String::new();
    let mut left = template;
    while let Some(at) = left.find(['*', '{']) {
        pattern.push_str(&regex::escape(&left[..at]));
        left = &left[at..];
        if let Some(after) = left.strip_prefix('{') {
            let end = after.find('}').ok_or_else(|| wrong("has a { without }"))?;
            let inner = &after[..end];
            let (name, inner) = inner.split_once('=').unwrap_or((inner, "*"));
            if !name.starts_with(|first: char| first.is_ascii_alphabetic()) {
                return Err(wrong(&format!(
                    "has the variable {name:?}, which is no name"
                )));
            }
            pattern.push_str(&format!("(?P<{name}>{})", glob(inner)?));
            left = &after[end + 1..];
        } else {
            let stars = if left.starts_with("**") { 2 } else { 1 };
            pattern.push_str(&glob(&left[..stars])?);
            left = &left[stars..];
        }
    }
    pattern.push_str(&regex::escape(left));
    Regex::new(&format!(r"\A{pattern}\z")).map_err(|error| not_valid(template, &error))
}

/// A search-and-replace with RE2's `\1` groups.
#[derive(Debug, Clone)]
pub struct Substitution {
    regex: Regex,
    replacement: String,
}

impl Substitution {
    /// Compiles it; a group that the pattern does not have is an error.
    pub fn compile(config: &RegexMatchAndSubstitute) -> Result<Self, ConfigError> {
        let pattern = config
            .pattern
            .as_ref()
            .ok_or_else(|| ConfigError::new("pattern", "is missing"))?;
        let regex = crate::re2::compile(&pattern.regex)
            .map_err(|error| not_valid(&pattern.regex, &error))
            .map_err(|error| error.within("pattern"))?;
        let mut replacement = String::new();
        let mut chars = config.substitution.chars();
        while let Some(c) = chars.next() {
            match (c, (c == '\\').then(|| chars.next()).flatten()) {
                ('\\', Some(digit)) if digit.is_ascii_digit() => {
                    let group = digit as usize - '0' as usize;
                    if group >= regex.captures_len() {
                        return Err(ConfigError::new(
                            "substitution",
                            format!("the pattern has no group {group}"),
                        ));
                    }
                    replacement.push_str(&format!("${{{group}}}"));
                }
                ('\\', Some('\\')) => replacement.push('\\'),
                ('\\', _) => {
                    return Err(ConfigError::new(
                        "substitution",
                        r"after \ only a digit or another \ may follow",
                    ));
                }
                ('$', _) => replacement.push_str("$$"),
                _ => replacement.push(c),
            }
        }
        Ok(Self { regex, replacement })
    }

    /// Replaces every match.
    pub fn apply<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.regex.replace_all(text, self.replacement.as_str())
    }
}

/// A header, or a part of the request line in the shape of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderKey {
    /// `:method`.
    Method,
    /// `:scheme`.
    Scheme,
    /// `:authority` or `host`.
    Authority,
    /// `:path`.
    Path,
    /// A header.
    Name(HeaderName),
}

impl HeaderKey {
    /// Reads a name.
    pub fn compile(name: &str) -> Result<Self, ConfigError> {
        Ok(match name.to_ascii_lowercase().as_str() {
            ":method" => Self::Method,
            ":scheme" => Self::Scheme,
            ":authority" | "host" => Self::Authority,
            ":path" => Self::Path,
            name => {
                Self::Name(HeaderName::try_from(name).map_err(|_| {
                    ConfigError::new("name", format!("{name:?} is not a header name"))
                })?)
            }
        })
    }

    /// Its value as formats have it, see [`formatted`].
    pub fn formatted<'a>(&self, head: &RequestHead<'a>) -> Option<Cow<'a, str>> {
        match self {
            Self::Name(name) => formatted(head.headers, name.as_str()),
            _ => self.value(head),
        }
    }

    /// Its value; repeated headers are joined by commas.
    pub fn value<'a>(&self, head: &RequestHead<'a>) -> Option<Cow<'a, str>> {
        match self {
            Self::Method => Some(Cow::Borrowed(head.method.as_str())),
            Self::Scheme => Some(Cow::Borrowed(head.scheme)),
            Self::Authority => Some(Cow::Borrowed(head.authority)),
            Self::Path => Some(Cow::Borrowed(head.path)),
            Self::Name(name) => joined(head.headers, name),
        }
    }
}

#[derive(Debug, Clone)]
enum ValueTest {
    Present(bool),
    Text(StringMatch),
    Range(std::ops::Range<i64>),
}

/// A `HeaderMatcher`, compiled.
#[derive(Debug, Clone)]
pub struct HeaderMatch {
    key: HeaderKey,
    test: ValueTest,
    invert: bool,
    missing_is_empty: bool,
}

impl HeaderMatch {
    /// Compiles a matcher.
    // Static configurations still use the deprecated forms.
    #[allow(deprecated)]
    pub fn compile(config: &HeaderMatcher) -> Result<Self, ConfigError> {
        let test = match &config.header_match_specifier {
            None => ValueTest::Present(true),
            Some(HeaderMatchSpecifier::PresentMatch(present)) => ValueTest::Present(*present),
            Some(HeaderMatchSpecifier::ExactMatch(text)) => {
                ValueTest::Text(StringMatch::Exact(text.clone()))
            }
            Some(HeaderMatchSpecifier::PrefixMatch(text)) => {
                ValueTest::Text(StringMatch::Prefix(text.clone()))
            }
            Some(HeaderMatchSpecifier::SuffixMatch(text)) => {
                ValueTest::Text(StringMatch::Suffix(text.clone()))
            }
            Some(HeaderMatchSpecifier::ContainsMatch(text)) => {
                ValueTest::Text(StringMatch::Contains(text.clone()))
            }
            Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => ValueTest::Text(
                StringMatch::Regex(full_regex(regex).map_err(|e| e.within("safe_regex_match"))?),
            ),
            Some(HeaderMatchSpecifier::StringMatch(text)) => {
                ValueTest::Text(StringMatch::compile(text).map_err(|e| e.within("string_match"))?)
            }
            Some(HeaderMatchSpecifier::RangeMatch(range)) => {
                ValueTest::Range(range.start..range.end)
            }
        };
        Ok(Self {
            key: HeaderKey::compile(&config.name)?,
            test,
            invert: config.invert_match,
            missing_is_empty: config.treat_missing_header_as_empty,
        })
    }

    /// Whether the request matches. A missing header never matches a value, not even inverted, unless it
    /// counts as empty.
    pub fn matches(&self, head: &RequestHead<'_>) -> bool {
        match &self.key {
            HeaderKey::Name(name) => self.matches_lines(head.headers, name),
            key => self.test(key.value(head)),
        }
    }

    /// The same for response headers.
    pub fn matches_headers(&self, headers: &http::HeaderMap) -> bool {
        match &self.key {
            HeaderKey::Name(name) => self.matches_lines(headers, name),
            _ => self.test(None),
        }
    }

    /// Of several lines each counts for itself: one that matches is enough, so that nobody hides a value in a list.
    fn matches_lines(&self, headers: &http::HeaderMap, name: &HeaderName) -> bool {
        let mut lines = headers.get_all(name).iter();
        let (Some(first), second) = (lines.next(), lines.next()) else {
            return self.test(None);
        };
        let Some(second) = second else {
            return self.test(Some(String::from_utf8_lossy(first.as_bytes())));
        };
        [first, second]
            .into_iter()
            .chain(lines)
            .any(|line| self.test(Some(String::from_utf8_lossy(line.as_bytes()))) != self.invert)
            != self.invert
    }

    fn test(&self, value: Option<Cow<'_, str>>) -> bool {
        let hit = match (&self.test, value) {
            // What counts as empty counts as there.
            (ValueTest::Present(present), value) => {
                (value.is_some() || self.missing_is_empty) == *present
            }
            (_, None) if !self.missing_is_empty => return false,
            (ValueTest::Text(text), value) => text.matches(value.as_deref().unwrap_or_default()),
            (ValueTest::Range(range), value) => value
                .as_deref()
                .unwrap_or_default()
                .parse()
                .is_ok_and(|number: i64| range.contains(&number)),
        };
        hit != self.invert
    }
}

/// A `QueryParameterMatcher`, compiled.
#[derive(Debug, Clone)]
pub struct QueryMatch {
    name: String,
    test: ValueTest,
}

impl QueryMatch {
    /// Compiles a matcher.
    pub fn compile(config: &QueryParameterMatcher) -> Result<Self, ConfigError> {
        let test = match &config.query_parameter_match_specifier {
            None => ValueTest::Present(true),
            Some(QueryParameterMatchSpecifier::PresentMatch(present)) => {
                ValueTest::Present(*present)
            }
            Some(QueryParameterMatchSpecifier::StringMatch(text)) => {
                ValueTest::Text(StringMatch::compile(text).map_err(|e| e.within("string_match"))?)
            }
        };
        Ok(Self {
            name: config.name.clone(),
            test,
        })
    }

    /// Whether the request matches: the first parameter of this name counts.
    pub fn matches(&self, head: &RequestHead<'_>) -> bool {
        match (&self.test, head.query_param(&self.name)) {
            (ValueTest::Present(present), value) => value.is_some() == *present,
            (ValueTest::Text(text), Some(value)) => text.matches(value),
            _ => false,
        }
    }
}

/// A `ValueMatcher`, compiled.
#[derive(Debug, Clone)]
pub enum ValueMatch {
    /// `null`.
    Null,
    /// A number in the half-open range.
    Number(std::ops::Range<f64>),
    /// Exactly this number.
    Exactly(f64),
    /// A string.
    Text(StringMatch),
    /// A boolean.
    Bool(bool),
    /// Anything (or nothing) but null.
    Present(bool),
    /// A list with such an element.
    OneOf(Box<ValueMatch>),
    /// One of these.
    Or(Vec<ValueMatch>),
}

impl ValueMatch {
    /// Compiles a matcher.
    pub fn compile(config: &ValueMatcher) -> Result<Self, ConfigError> {
        Ok(match &config.match_pattern {
            Some(value_matcher::MatchPattern::NullMatch(_)) => Self::Null,
            Some(value_matcher::MatchPattern::DoubleMatch(number)) => match &number.match_pattern {
                Some(double_matcher::MatchPattern::Range(range)) => {
                    Self::Number(range.start..range.end)
                }
                Some(double_matcher::MatchPattern::Exact(exact)) => Self::Exactly(*exact),
                None => {
                    return Err(ConfigError::new(
                        "double_match",
                        "has neither range nor exact",
                    ));
                }
            },
            Some(value_matcher::MatchPattern::StringMatch(text)) => {
                Self::Text(StringMatch::compile(text).map_err(|e| e.within("string_match"))?)
            }
            Some(value_matcher::MatchPattern::BoolMatch(value)) => Self::Bool(*value),
            Some(value_matcher::MatchPattern::PresentMatch(value)) => Self::Present(*value),
            Some(value_matcher::MatchPattern::ListMatch(list)) => match &list.match_pattern {
                Some(list_matcher::MatchPattern::OneOf(inner)) => Self::OneOf(Box::new(
                    Self::compile(inner).map_err(|e| e.within("list_match.one_of"))?,
                )),
                None => return Err(ConfigError::new("list_match.one_of", "is missing")),
            },
            Some(value_matcher::MatchPattern::OrMatch(or)) => {
                let each = |inner| Self::compile(inner).map_err(|e| e.within("or_match"));
                Self::Or(
                    or.value_matchers
                        .iter()
                        .map(each)
                        .collect::<Result<_, _>>()?,
                )
            }
            None => return Err(ConfigError::new("value", "has no pattern")),
        })
    }

    /// Whether a value matches.
    pub fn matches(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Self::Null, value) => value.is_some_and(Value::is_null),
            (Self::Number(range), value) => value
                .and_then(Value::as_f64)
                .is_some_and(|number| range.contains(&number)),
            (Self::Exactly(exact), value) => value
                .and_then(Value::as_f64)
                .is_some_and(|number| number == *exact),
            (Self::Text(text), value) => value
                .and_then(Value::as_str)
                .is_some_and(|value| text.matches(value)),
            (Self::Bool(wanted), value) => value.and_then(Value::as_bool) == Some(*wanted),
            (Self::Present(wanted), value) => {
                value.is_some_and(|value| !value.is_null()) == *wanted
            }
            (Self::OneOf(inner), value) => value
                .and_then(Value::as_array)
                .is_some_and(|list| list.iter().any(|item| inner.matches(Some(item)))),
            (Self::Or(any), value) => any.iter().any(|inner| inner.matches(value)),
        }
    }
}

/// A `MetadataMatcher`, compiled.
#[derive(Debug, Clone)]
pub struct MetadataMatch {
    filter: String,
    path: Vec<String>,
    value: ValueMatch,
    invert: bool,
}

impl MetadataMatch {
    /// Compiles a matcher.
    pub fn compile(config: &MetadataMatcher) -> Result<Self, ConfigError> {
        let value = config
            .value
            .as_ref()
            .ok_or_else(|| ConfigError::new("value", "is missing"))?;
        let key = |segment: &metadata_matcher::PathSegment| match &segment.segment {
            Some(metadata_matcher::path_segment::Segment::Key(key)) => key.clone(),
            None => String::new(),
        };
        Ok(Self {
            filter: config.filter.clone(),
            path: config.path.iter().map(key).collect(),
            value: ValueMatch::compile(value).map_err(|e| e.within("value"))?,
            invert: config.invert,
        })
    }

    fn value<'a>(&self, metadata: &'a Metadata) -> Option<&'a Value> {
        let mut value = metadata.get(&self.filter);
        for key in &self.path {
            value = value.and_then(|value| value.get(key));
        }
        value
    }

    /// Whether there is a value at its place.
    pub fn finds(&self, metadata: &Metadata) -> bool {
        self.value(metadata).is_some_and(|value| !value.is_null())
    }

    /// Whether the metadata matches.
    pub fn matches(&self, metadata: &Metadata) -> bool {
        self.value.matches(self.value(metadata)) != self.invert
    }
}

/// A share of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction {
    /// So many ...
    pub numerator: u32,
    /// ... of so many.
    pub denominator: u32,
}

impl Fraction {
    /// Every request.
    pub const ALL: Self = Self {
        numerator: 100,
        denominator: 100,
    };
    /// No request.
    pub const NONE: Self = Self {
        numerator: 0,
        denominator: 100,
    };

    /// Reads a fraction; a missing one is 0.
    pub fn compile(config: Option<&FractionalPercent>) -> Self {
        config.map_or(Self::NONE, |config| Self {
            numerator: config.numerator,
            denominator: match config.denominator {
                1 => 10_000,
                2 => 1_000_000,
                _ => 100,
            },
        })
    }

    /// Reads the default value of a runtime fraction (there is no runtime); missing as a whole: `default`.
    pub fn of_runtime(config: Option<&RuntimeFractionalPercent>, default: Self) -> Self {
        config.map_or(default, |config| {
            Self::compile(config.default_value.as_ref())
        })
    }

    /// Whether a request with this random number is one of them.
    pub fn hit(self, random: u64) -> bool {
        random % u64::from(self.denominator) < u64::from(self.numerator)
    }

    /// Draws only if the outcome is open.
    pub fn draw(self, random: &mut dyn FnMut() -> u64) -> bool {
        self.numerator >= self.denominator || (self.numerator > 0 && self.hit(random()))
    }
}

/// `filter_metadata` as JSON.
pub fn metadata(config: Option<&xds::envoy::config::core::v3::Metadata>) -> Metadata {
    let fields = config.iter().flat_map(|config| &config.filter_metadata);
    fields
        .map(|(filter, fields)| (filter.clone(), Value::Object(struct_to_json(fields))))
        .collect()
}

/// JSON as a generic message.
pub fn json_to_struct(fields: &serde_json::Map<String, Value>) -> prost_types::Struct {
    fn one(value: &Value) -> prost_types::Value {
        use prost_types::value::Kind;
        prost_types::Value {
            kind: Some(match value {
                Value::Null => Kind::NullValue(0),
                Value::Bool(value) => Kind::BoolValue(*value),
                Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(0.0)),
                Value::String(text) => Kind::StringValue(text.clone()),
                Value::Array(all) => Kind::ListValue(prost_types::ListValue {
                    values: all.iter().map(one).collect(),
                }),
                Value::Object(fields) => Kind::StructValue(json_to_struct(fields)),
            }),
        }
    }
    prost_types::Struct {
        fields: fields
            .iter()
            .map(|(key, value)| (key.clone(), one(value)))
            .collect(),
    }
}

/// A protobuf struct as JSON. Whole numbers become integers.
pub fn struct_to_json(fields: &prost_types::Struct) -> serde_json::Map<String, Value> {
    fields
        .fields
        .iter()
        .map(|(key, value)| (key.clone(), value_to_json(value)))
        .collect()
}

fn value_to_json(value: &prost_types::Value) -> Value {
    use prost_types::value::Kind;
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(*value),
        Some(Kind::StringValue(value)) => Value::String(value.clone()),
        Some(Kind::NumberValue(value)) if value.fract() == 0.0 && value.abs() < 9e15 => {
            Value::from(*value as i64)
        }
        Some(Kind::NumberValue(value)) => Value::from(*value),
        Some(Kind::StructValue(value)) => Value::Object(struct_to_json(value)),
        Some(Kind::ListValue(value)) => {
            Value::Array(value.values.iter().map(value_to_json).collect())
        }
    }
}

#[cfg(test)]
mod tests;
