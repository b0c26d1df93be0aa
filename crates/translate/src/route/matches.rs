//! Match conditions of HTTP rules: those that the proxy checks, and those that are known beforehand.

use crate::objects::{Labels, selects};
use api::istio::{HttpMatchRequest, MatchKind, StringMatch};
use xds::envoy::config::route::v3::{
    HeaderMatcher, QueryParameterMatcher, RouteMatch, header_matcher::HeaderMatchSpecifier,
    query_parameter_matcher::QueryParameterMatchSpecifier, route_match::PathSpecifier,
};
use xds::envoy::r#type::matcher::v3 as matcher;

/// Whether a rule concerns this kind of client at all. Named gateways are all that is looked at.
pub(crate) fn concerns(
    condition: &HttpMatchRequest,
    port: u32,
    gateways: &[&str],
    labels: &Labels,
    namespace: &str,
) -> bool {
    if condition.port != 0 && condition.port != port {
        return false;
    }
    if !condition.gateways.is_empty() {
        return condition
            .gateways
            .iter()
            .any(|gateway| gateways.contains(&gateway.as_str()));
    }
    selects(&condition.source_labels, labels)
        && (condition.source_namespace.is_empty() || condition.source_namespace == namespace)
}

/// The conditions that the proxy checks. For Kubernetes Ingresses a prefix ends at a `/`.
pub(crate) fn route_match(condition: Option<&HttpMatchRequest>, ingress: bool) -> RouteMatch {
    let mut out = RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
        ..Default::default()
    };
    let Some(condition) = condition else {
        return out;
    };
    for (headers, invert) in [
        (&condition.headers, false),
        (&condition.without_headers, true),
    ] {
        for (name, value) in headers {
            match claim_path(name) {
                Some(path) => out.dynamic_metadata.push(claim(path, value, invert)),
                None => out.headers.push(header(name, value, invert)),
            }
        }
    }
    out.headers.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(uri) = &condition.uri {
        out.path_specifier = Some(match uri.kind() {
            MatchKind::Exact(path) => PathSpecifier::Path(path.to_owned()),
            // A path that is left out, which API servers refuse, is any.
            MatchKind::Prefix("") if ingress => PathSpecifier::Prefix("/".to_owned()),
            MatchKind::Prefix(path) if ingress && path != "/" => {
                let path = path.strip_suffix('/').unwrap_or(path);
                PathSpecifier::PathSeparatedPrefix(path.to_owned())
            }
            MatchKind::Prefix(path) => PathSpecifier::Prefix(path.to_owned()),
            MatchKind::Regex(regex) => PathSpecifier::SafeRegex(regex_matcher(regex)),
            MatchKind::Present => PathSpecifier::Prefix("/".to_owned()),
        });
    }
    out.case_sensitive = Some(!condition.ignore_uri_case);
    for (name, value) in [
        (":method", &condition.method),
        (":authority", &condition.authority),
        (":scheme", &condition.scheme),
    ] {
        if let Some(value) = value {
            out.headers.push(header(name, value, false));
        }
    }
    out.query_parameters = condition
        .query_params
        .iter()
        .map(|(name, value)| query_parameter(name, value))
        .collect();
    out
}

/// Whether a route takes everything, so that those behind it are never reached.
pub(crate) fn is_catch_all(route: &RouteMatch) -> bool {
    let everything = match &route.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => prefix == "/",
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex == ".*",
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => prefix == "/",
        _ => false,
    };
    everything
        && route.headers.is_empty()
        && route.query_parameters.is_empty()
        && route.dynamic_metadata.is_empty()
}

pub(crate) fn regex_matcher(regex: &str) -> matcher::RegexMatcher {
    matcher::RegexMatcher {
        regex: regex.to_owned(),
        ..Default::default()
    }
}

/// A matcher for a text; `None` if it only has to be there.
pub(crate) fn string_matcher(value: &StringMatch) -> Option<matcher::StringMatcher> {
    use matcher::string_matcher::MatchPattern;
    let pattern = match value.kind() {
        MatchKind::Exact(text) => MatchPattern::Exact(text.to_owned()),
        MatchKind::Prefix(text) => MatchPattern::Prefix(text.to_owned()),
        MatchKind::Regex(regex) => MatchPattern::SafeRegex(regex_matcher(regex)),
        MatchKind::Present => return None,
    };
    Some(matcher::StringMatcher {
        match_pattern: Some(pattern),
        ..Default::default()
    })
}

fn header(name: &str, value: &StringMatch, invert: bool) -> HeaderMatcher {
    let present = matches!(value.kind(), MatchKind::Present | MatchKind::Regex("*"));
    let specifier = match string_matcher(value).filter(|_| !present) {
        Some(matcher) => HeaderMatchSpecifier::StringMatch(matcher),
        None => HeaderMatchSpecifier::PresentMatch(true),
    };
    HeaderMatcher {
        name: name.to_owned(),
        invert_match: invert,
        treat_missing_header_as_empty: invert && !present,
        header_match_specifier: Some(specifier),
    }
}

fn query_parameter(name: &str, value: &StringMatch) -> QueryParameterMatcher {
    let specifier = match string_matcher(value) {
        Some(matcher) => QueryParameterMatchSpecifier::StringMatch(matcher),
        None => QueryParameterMatchSpecifier::PresentMatch(true),
    };
    QueryParameterMatcher {
        name: name.to_owned(),
        query_parameter_match_specifier: Some(specifier),
    }
}

/// The claim that a header name such as `@request.auth.claims.role` or `@request.auth.claims[a][b]` means.
fn claim_path(name: &str) -> Option<Vec<&str>> {
    let rest = name.strip_prefix("@request.auth.claims")?;
    if let Some(path) = rest.strip_prefix('.') {
        return Some(path.split('.').collect());
    }
    let inner = rest.strip_prefix('[')?.strip_suffix(']')?;
    Some(inner.split("][").collect())
}

fn claim(path: Vec<&str>, value: &StringMatch, invert: bool) -> matcher::MetadataMatcher {
    let text = string_matcher(value).unwrap_or_default();
    let value = matcher::ValueMatcher {
        match_pattern: Some(matcher::value_matcher::MatchPattern::StringMatch(text)),
    };
    metadata_list_matcher(
        "envoy.filters.http.jwt_authn",
        ["payload"].into_iter().chain(path),
        value,
        invert,
    )
}

/// A metadata value that is a text, or a list with such a text.
pub(crate) fn metadata_list_matcher<'a>(
    filter: &str,
    path: impl IntoIterator<Item = &'a str>,
    value: matcher::ValueMatcher,
    invert: bool,
) -> matcher::MetadataMatcher {
    use matcher::{list_matcher, metadata_matcher, value_matcher};
    let listed = matcher::ValueMatcher {
        match_pattern: Some(value_matcher::MatchPattern::ListMatch(Box::new(
            matcher::ListMatcher {
                match_pattern: Some(list_matcher::MatchPattern::OneOf(Box::new(value.clone()))),
            },
        ))),
    };
    matcher::MetadataMatcher {
        filter: filter.to_owned(),
        path: path
            .into_iter()
            .map(|key| metadata_matcher::PathSegment {
                segment: Some(metadata_matcher::path_segment::Segment::Key(key.to_owned())),
            })
            .collect(),
        value: Some(matcher::ValueMatcher {
            match_pattern: Some(value_matcher::MatchPattern::OrMatch(matcher::OrMatcher {
                value_matchers: vec![listed, value],
            })),
        }),
        invert,
    }
}
