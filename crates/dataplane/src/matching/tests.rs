//! Matchers, from their JSON form.

use super::*;
use http::{HeaderMap, HeaderValue, Method};

fn header(json: Value, headers: &[(&'static str, &'static str)]) -> bool {
    let config: HeaderMatcher = xds::json::from_value(json, true).expect("a valid message");
    let map: HeaderMap = headers
        .iter()
        .map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v)))
        .collect();
    let head = RequestHead {
        method: &Method::GET,
        scheme: "http",
        authority: "a:80",
        path: "/",
        headers: &map,
    };
    HeaderMatch::compile(&config)
        .expect("compiles")
        .matches(&head)
}

#[test]
fn a_missing_header_matches_inverted_only_if_it_counts_as_empty() {
    let exact =
        serde_json::json!({"name": "x", "string_match": {"exact": "1"}, "invert_match": true});
    assert!(!header(exact.clone(), &[]));
    assert!(header(exact.clone(), &[("x", "2")]));
    assert!(!header(exact, &[("x", "1")]));
    let empty = serde_json::json!({"name": "x", "string_match": {"exact": "1"}, "invert_match": true, "treat_missing_header_as_empty": true});
    assert!(header(empty, &[]));
    let absent = serde_json::json!({"name": "x", "present_match": true, "invert_match": true});
    assert!(header(absent.clone(), &[]));
    assert!(!header(absent, &[("x", "")]));
}

#[test]
fn header_values_are_tested_whole() {
    let regex = serde_json::json!({"name": "x", "safe_regex_match": {"regex": "a|ab"}});
    assert!(header(regex.clone(), &[("x", "ab")]));
    assert!(!header(regex, &[("x", "abc")]));
    assert!(header(
        serde_json::json!({"name": ":authority", "exact_match": "a:80"}),
        &[]
    ));
    assert!(header(
        serde_json::json!({"name": "X", "range_match": {"start": "1", "end": "3"}}),
        &[("x", "2")]
    ));
    assert!(!header(
        serde_json::json!({"name": "x", "range_match": {"start": "1", "end": "3"}}),
        &[("x", "3")]
    ));
    let case =
        serde_json::json!({"name": "x", "string_match": {"contains": "BC", "ignore_case": true}});
    assert!(header(case, &[("x", "abcd")]));
    assert!(header(
        serde_json::json!({"name": "x", "string_match": {}}),
        &[("x", "anything")]
    ));
}

#[test]
fn a_substitution_uses_re2_groups() {
    let config = RegexMatchAndSubstitute {
        pattern: Some(RegexMatcher {
            regex: "^/service/([^/]+)(/.*)$".into(),
            ..Default::default()
        }),
        substitution: r"\2/instance/\1".into(),
    };
    assert_eq!(
        Substitution::compile(&config)
            .expect("compiles")
            .apply("/service/foo/v1/api"),
        "/v1/api/instance/foo"
    );
    let config = RegexMatchAndSubstitute {
        substitution: r"\3".into(),
        ..config
    };
    assert!(
        Substitution::compile(&config).is_err(),
        "there is no third group"
    );
}

#[test]
fn claims_match_as_a_string_or_in_a_list() {
    let config: MetadataMatcher = xds::json::from_value(
        serde_json::json!({"filter": "jwt", "path": [{"key": "payload"}, {"key": "groups"}],
            "value": {"or_match": {"value_matchers": [
                {"list_match": {"one_of": {"string_match": {"exact": "admin"}}}}, {"string_match": {"exact": "admin"}}]}}}),
        true,
    )
    .expect("a valid message");
    let matcher = MetadataMatch::compile(&config).expect("compiles");
    let with = |claim: Value| {
        let mut metadata = Metadata::new();
        metadata.insert(
            "jwt".into(),
            serde_json::json!({"payload": {"groups": claim}}),
        );
        matcher.matches(&metadata)
    };
    assert!(
        with("admin".into()) && with(serde_json::json!(["user", "admin"])) && !with("user".into())
    );
    assert!(!matcher.matches(&Metadata::new()));
}
