//! Tokens signed here, judged as Istio's filter configuration asks.

use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use http::HeaderMap;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;
use std::time::UNIX_EPOCH;

struct Issuer {
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random)
                .expect("a key");
        Self { key, random }
    }

    fn jwks(&self) -> String {
        let point = self.key.public_key().as_ref();
        let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "x": x, "y": y}]}).to_string()
    }

    fn sign(&self, kid: &str, payload: &Value) -> String {
        let head = BASE64.encode(json!({"alg": "ES256", "kid": kid}).to_string());
        let signed = format!("{head}.{}", BASE64.encode(payload.to_string()));
        let signature = self
            .key
            .sign(&self.random, signed.as_bytes())
            .expect("a signature");
        format!("{signed}.{}", BASE64.encode(signature))
    }
}

/// One provider, tokens optional: what istiod makes of a RequestAuthentication.
fn filter(issuer: &Issuer, more: Value) -> JwtAuthn {
    let mut provider = json!({"issuer": "me", "local_jwks": {"inline_string": issuer.jwks()}, "payload_in_metadata": "payload",
        "normalize_payload_in_metadata": {"space_delimited_claims": ["scope"]}});
    provider
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let json = json!({"providers": {"origins-0": provider}, "bypass_cors_preflight": true, "rules": [{"match": {"prefix": "/"}, "requires": {"requires_any": {"requirements": [
        {"provider_name": "origins-0"}, {"allow_missing": {}}]}}}]});
    JwtAuthn::compile(&xds::json::from_value(json, true).expect("a valid message"))
        .expect("compiles")
}

fn check(filter: &JwtAuthn, token: Option<&str>, path: &str) -> Result<Effects, Failure> {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        headers.insert(
            "authorization",
            HeaderValue::try_from(format!("Bearer {token}")).expect("a value"),
        );
    }
    let head = RequestHead {
        method: &Method::GET,
        scheme: "http",
        authority: "a",
        path,
        headers: &headers,
    };
    let metadata = Metadata::new();
    let facts = MatchFacts {
        metadata: &metadata,
        client_certificate: None,
        source: std::net::Ipv4Addr::LOCALHOST.into(),
    };
    filter.check(
        &head,
        &facts,
        None,
        UNIX_EPOCH + Duration::from_secs(1_000_000),
        &|_| None,
    )
}

#[test]
fn a_token_may_be_missing_but_not_wrong() {
    let issuer = Issuer::new();
    let filter = filter(&issuer, json!({}));
    assert_eq!(check(&filter, None, "/"), Ok(Effects::default()));
    let token = |payload: Value| issuer.sign("k", &payload);
    let good = check(
        &filter,
        Some(&token(
            json!({"iss": "me", "sub": "bob", "scope": "read write"}),
        )),
        "/",
    )
    .expect("valid");
    assert_eq!(good.metadata["payload"]["scope"], json!(["read", "write"]));
    assert_eq!(good.metadata["payload"]["sub"], "bob");
    let failure =
        |payload: Value| check(&filter, Some(&token(payload)), "/").expect_err("not valid");
    assert_eq!(
        failure(json!({"iss": "me", "exp": 999_000})),
        Failure::Expired
    );
    assert_eq!(
        failure(json!({"iss": "me", "nbf": 1_000_100})),
        Failure::NotYetValid
    );
    assert!(
        check(
            &filter,
            Some(&token(json!({"iss": "me", "exp": 999_950}))),
            "/"
        )
        .is_ok(),
        "a minute of clock skew"
    );
    assert_eq!(failure(json!({"iss": "other"})), Failure::UnknownIssuer);
    assert_eq!(
        check(&filter, Some(&issuer.sign("z", &json!({"iss": "me"}))), "/"),
        Err(Failure::NoKey)
    );
    let forged = Issuer::new().sign("k", &json!({"iss": "me"}));
    assert_eq!(
        check(&filter, Some(&forged), "/"),
        Err(Failure::Verification)
    );
    assert_eq!(
        check(&filter, Some("no-token"), "/"),
        Err(Failure::BadFormat)
    );
    assert_eq!(
        check(&filter, Some("a.b.c"), "/"),
        Err(Failure::HeaderBase64)
    );
    let query = format!("/?access_token={}", token(json!({"iss": "me"})));
    assert!(
        !check(&filter, None, &query)
            .expect("valid")
            .metadata
            .is_empty()
    );
}

#[test]
fn the_wrong_audience_is_forbidden() {
    let issuer = Issuer::new();
    let filter = filter(&issuer, json!({"audiences": ["https://api.example/"]}));
    let token = |audience: Value| issuer.sign("k", &json!({"iss": "me", "aud": audience}));
    assert!(check(&filter, Some(&token(json!(["x", "api.example"]))), "/").is_ok());
    let failure = check(&filter, Some(&token(json!("x"))), "/").expect_err("not allowed");
    let headers = HeaderMap::new();
    let head = RequestHead {
        method: &Method::GET,
        scheme: "http",
        authority: "a:80",
        path: "/p",
        headers: &headers,
    };
    let (reply, challenge) = failure.reply(&head);
    assert_eq!(
        (reply.status, &*reply.body),
        (403, "Audiences in Jwt are not allowed")
    );
    assert_eq!(
        reply.details,
        "jwt_authn_access_denied{Audiences_in_Jwt_are_not_allowed}"
    );
    assert_eq!(
        challenge,
        "Bearer realm=\"http://a:80/p\", error=\"invalid_token\""
    );
    assert_eq!(Failure::Expired.reply(&head).0.status, 401);
}

#[test]
fn accepted_tokens_are_stripped_and_turned_into_headers() {
    let issuer = Issuer::new();
    let more = json!({"forward_payload_header": "x-payload", "claim_to_headers": [{"header_name": "x-sub", "claim_name": "sub"}, {"header_name": "x-no", "claim_name": "no"}]});
    let filter = filter(&issuer, more);
    let token = issuer.sign("k", &json!({"iss": "me", "sub": "bob"}));
    let effects = check(&filter, Some(&token), "/").expect("valid");
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_static("Bearer x"));
    let (mut authority, mut path) = (String::new(), "/".to_owned());
    effects.apply(&mut RequestHeadMut {
        method: &Method::GET,
        scheme: "http",
        authority: &mut authority,
        path: &mut path,
        headers: &mut headers,
    });
    assert!(!headers.contains_key("authorization") && !headers.contains_key("x-no"));
    assert_eq!(headers["x-sub"], "bob");
    assert_eq!(
        headers["x-payload"].as_bytes(),
        token.split('.').nth(1).unwrap().as_bytes()
    );
}

/// Measured on Envoy: the token goes, the rest of the query stays.
#[test]
fn a_token_in_the_query_is_stripped() {
    let issuer = Issuer::new();
    let token = issuer.sign("k", &json!({"iss": "me"}));
    let apply = |filter: &JwtAuthn| {
        let mut path = format!("/p?access_token={token}&z=1");
        let effects = check(filter, None, &path).expect("valid");
        let (mut authority, mut headers) = (String::new(), HeaderMap::new());
        effects.apply(&mut RequestHeadMut {
            method: &Method::GET,
            scheme: "http",
            authority: &mut authority,
            path: &mut path,
            headers: &mut headers,
        });
        path
    };
    assert_eq!(apply(&filter(&issuer, json!({}))), "/p?z=1");
    assert!(apply(&filter(&issuer, json!({"forward": true}))).contains("access_token"));
}

#[test]
fn a_required_token_must_be_there() {
    let issuer = Issuer::new();
    let json = json!({"providers": {"p": {"issuer": "me", "remote_jwks": {}}}, "rules": [{"match": {"prefix": "/open"}},
        {"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}]});
    let filter = JwtAuthn::compile(&xds::json::from_value(json, true).expect("a valid message"))
        .expect("compiles");
    assert_eq!(filter.remote_providers().collect::<Vec<_>>(), ["p"]);
    assert_eq!(check(&filter, None, "/"), Err(Failure::Missing));
    assert!(check(&filter, None, "/open").is_ok());
    assert_eq!(
        check(&filter, Some(&issuer.sign("k", &json!({"iss": "me"}))), "/"),
        Err(Failure::JwksFetch)
    );
}

#[test]
fn keys_of_unknown_kinds_are_skipped() {
    assert!(Jwks::parse(r#"{"keys": [{"kty": "new"}]}"#).is_err());
    assert!(Jwks::parse(r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0"}, {"kty": "new"}]}"#).is_ok());
}
