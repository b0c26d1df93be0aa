//! The bootstraps that agents make, as files.

use std::collections::BTreeMap;

use super::*;

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn check(environment: &Environment, expected: &str) {
    let made = xds::json::to_value(&bootstrap(environment)).unwrap();
    let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
    assert_eq!(made, expected, "{made:#}");
}

#[test]
fn a_sidecar_has_what_its_pod_asks_for() {
    let environment = Environment::new(
        "sidecar",
        None,
        variables(&[
            ("POD_NAME", "reviews-1"),
            ("POD_NAMESPACE", "books"),
            ("INSTANCE_IP", "10.1.0.7"),
            ("ISTIO_META_CLUSTER_ID", "one"),
            ("ISTIO_METAJSON_EXTRA", r#"{"list": [1, true, null, "x"]}"#),
            ("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "true"),
            (
                "PROXY_CONFIG",
                r#"{"discoveryAddress": "istiod:15012", "runtimeValues": {"a": "true", "b": "false", "c": "5",
                    "re2.max_program_size.error_level": ""},
                    "proxyStatsMatcher": {"inclusionSuffixes": ["upstream_rq_timeout"], "inclusionRegexps": ["outlier.*"]}}"#,
            ),
        ]),
        "app=\"reviews\"\nistio-locality=\"kr.seoul.a\"",
        "sidecar.istio.io/statsInclusionPrefixes=\"cluster.outbound,listener.{pod_ip}\"",
    );
    check(&environment, include_str!("sidecar.json"));
}

#[test]
fn a_gateway_without_wishes_has_the_defaults() {
    let environment = Environment::new(
        "router",
        Some("istio-system.svc.cluster.local"),
        BTreeMap::new(),
        "",
        "",
    );
    check(&environment, include_str!("router.json"));
}
