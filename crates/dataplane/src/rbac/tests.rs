//! Policies as istiod writes them.

use super::*;
use crate::request::RequestHead;
use crate::stream::{Certificate, Connection, TlsSession};
use http::{HeaderMap, Method};
use serde_json::json;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

fn decide(rules: Value, peer: Option<&str>, request: Option<(&Method, &str)>) -> (bool, String) {
    let filter: HttpFilter =
        xds::json::from_value(json!({"rules": rules}), true).expect("a valid message");
    let rbac = Rbac::of_http(&filter).expect("compiles");
    let certificate = peer.map(|uri| {
        Arc::new(Certificate {
            uris: vec![uri.to_owned()],
            ..Default::default()
        })
    });
    let connection = Connection {
        id: 1,
        remote: "10.1.0.5:999".parse().unwrap(),
        local: "10.0.0.1:9080".parse().unwrap(),
        tls: certificate.map(|peer| {
            Arc::new(TlsSession {
                peer: Some(peer),
                ..Default::default()
            })
        }),
        server_name: None,
        start: UNIX_EPOCH,
    };
    let metadata = Metadata::new();
    let headers = HeaderMap::new();
    let mut info = StreamInfo::new(&connection, &metadata, UNIX_EPOCH);
    info.request = request.map(|(method, path)| RequestHead {
        method,
        scheme: "http",
        authority: "a:80",
        path,
        headers: &headers,
    });
    let decision = rbac.decide(&info);
    (decision.allowed, decision.details())
}

/// An AuthorizationPolicy as istiod writes it: who may GET /api/* on port 9080.
fn policy(action: &str, principal: Value) -> Value {
    json!({"action": action, "policies": {"ns[default]-policy[p]-rule[0]": {
        "permissions": [{"and_rules": {"rules": [
            {"or_rules": {"rules": [{"header": {"name": ":method", "string_match": {"exact": "GET"}}}]}},
            {"or_rules": {"rules": [{"url_path": {"path": {"prefix": "/api/"}}}]}},
            {"or_rules": {"rules": [{"destination_port": 9080}]}}]}}],
        "principals": [{"and_ids": {"ids": [{"or_ids": {"ids": [principal]}}]}}]}}})
}

const CLIENT: &str = "spiffe://cluster.local/ns/default/sa/client";

fn client(name: &str) -> Value {
    json!({"authenticated": {"principal_name": {"exact": name}}})
}

#[test]
fn allow_needs_a_match_and_deny_needs_none() {
    let get = Some((&Method::GET, "/api/x?y"));
    assert!(decide(policy("ALLOW", client(CLIENT)), Some(CLIENT), get).0);
    assert_eq!(
        decide(policy("ALLOW", client(CLIENT)), None, get),
        (false, "rbac_access_denied_matched_policy[none]".into()),
        "a plain text peer is nobody"
    );
    assert!(
        !decide(
            policy("ALLOW", client(CLIENT)),
            Some(CLIENT),
            Some((&Method::POST, "/api/x"))
        )
        .0
    );
    assert!(
        !decide(
            policy("ALLOW", client(CLIENT)),
            Some(CLIENT),
            Some((&Method::GET, "/other"))
        )
        .0
    );
    let denied = decide(policy("DENY", client(CLIENT)), Some(CLIENT), get);
    assert_eq!(
        denied,
        (
            false,
            "rbac_access_denied_matched_policy[ns[default]-policy[p]-rule[0]]".into()
        )
    );
    assert!(decide(policy("DENY", client("spiffe://other")), Some(CLIENT), get).0);
    assert!(decide(policy("LOG", client(CLIENT)), None, get).0);
}

#[test]
fn identities_are_read_from_filter_state_as_istio_does() {
    let state =
        |matcher: Value| json!({"filter_state": {"key": PEER_PRINCIPAL, "string_match": matcher}});
    let get = Some((&Method::GET, "/api/"));
    assert!(
        decide(
            policy("ALLOW", state(json!({"exact": CLIENT}))),
            Some(CLIENT),
            get
        )
        .0
    );
    let namespace = state(json!({"safe_regex": {"regex": ".*/ns/default/.*"}}));
    assert!(decide(policy("ALLOW", namespace.clone()), Some(CLIENT), get).0);
    assert!(!decide(policy("ALLOW", namespace.clone()), None, get).0);
    assert!(
        decide(policy("ALLOW", json!({"not_id": namespace})), None, get).0,
        "notNamespaces matches plain text"
    );
}

#[test]
fn an_empty_allow_denies_everybody_and_no_rules_nobody() {
    assert!(
        !decide(
            json!({"action": "ALLOW"}),
            Some(CLIENT),
            Some((&Method::GET, "/"))
        )
        .0
    );
    let none = Rbac::of_http(&HttpFilter::default()).expect("compiles");
    assert!(!none.enforces());
}

#[test]
fn connections_are_judged_without_a_request() {
    let ip = json!({"action": "ALLOW", "policies": {"p": {"permissions": [{"destination_port": 9080}],
        "principals": [{"direct_remote_ip": {"address_prefix": "10.1.0.0", "prefix_len": 16}}]}}});
    assert!(decide(ip, None, None).0);
    let path = json!({"action": "ALLOW", "policies": {"p": {"permissions": [{"url_path": {"path": {"prefix": "/"}}}], "principals": [{"any": true}]}}});
    assert!(!decide(path, None, None).0);
}

#[test]
fn templates_match_segments() {
    let template = |template: &str, path: &str| {
        let rules = json!({"action": "ALLOW", "policies": {"p": {"principals": [{"any": true}], "permissions": [{"uri_template": {"name": "uri-template",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig", "path_template": template}}}]}}});
        decide(rules, None, Some((&Method::GET, path))).0
    };
    assert!(template("/v1/*/items", "/v1/a/items") && !template("/v1/*/items", "/v1/a/b/items"));
    assert!(template("/v1/**", "/v1/a/b") && !template("/v1/*", "/v1/"));
}
