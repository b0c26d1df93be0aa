//! HTTP filters at work: tokens, limits, authorization services, bodies that are looked at or changed.

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use proxy::xds_client::ads::{Received, Sink as _};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use support::*;
use tonic::{Request, Response, Status};
use xds::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use xds::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use xds::envoy::service::auth::v3::check_response::HttpResponse;
use xds::envoy::service::auth::v3::{
    CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use xds::envoy::service::ratelimit::v3::rate_limit_response::Code;
use xds::envoy::service::ratelimit::v3::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use xds::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};

/// A bootstrap whose connection manager has these filters (name and settings) in front of the router.
fn bootstrap(filters: &[(&str, Value)], routes: &[&str], clusters: &str) -> String {
    let own: String = filters
        .iter()
        .map(|(name, config)| format!("          - {{name: {name}, typed_config: {config}}}\n"))
        .collect();
    http(routes, clusters, "").replace(
        "          - name: envoy.filters.http.fault\n",
        &format!("{own}          - name: envoy.filters.http.fault\n"),
    )
}

fn of(kind: &str, mut config: Value) -> Value {
    config["@type"] = format!("type.googleapis.com/envoy.extensions.filters.http.{kind}").into();
    config
}

const ALL: &str = "{match: {prefix: /}, route: {cluster: up}}";

struct Issuer(EcdsaKeyPair);

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
        Self(EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).expect("a key"))
    }

    fn jwks(&self) -> String {
        let point = self.0.public_key().as_ref();
        let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "x": x, "y": y}]}).to_string()
    }

    fn sign(&self, payload: Value) -> String {
        let head = BASE64.encode(json!({"alg": "ES256", "kid": "k"}).to_string());
        let signed = format!("{head}.{}", BASE64.encode(payload.to_string()));
        let random = SystemRandom::new();
        let signature = self
            .0
            .sign(&random, signed.as_bytes())
            .expect("a signature");
        format!("{signed}.{}", BASE64.encode(signature))
    }
}

/// A RequestAuthentication and an AuthorizationPolicy that wants a principal, as istiod translates them.
#[test]
fn tokens_are_checked_and_rules_see_their_claims() {
    let issuer = Issuer::new();
    let backend = Backend::saying("in");
    let jwt = of(
        "jwt_authn.v3.JwtAuthentication",
        json!({
            "providers": {"origins-0": {"issuer": "me", "local_jwks": {"inline_string": issuer.jwks()},
                "payload_in_metadata": "payload", "clear_route_cache": true}},
            "rules": [{"match": {"prefix": "/"}, "requires": {"requires_any": {"requirements":
                [{"provider_name": "origins-0"}, {"allow_missing": {}}]}}}]
        }),
    );
    let claim = |path: &[&str], value: &str| {
        json!({"metadata": {"filter": "envoy.filters.http.jwt_authn",
            "path": path.iter().map(|key| json!({"key": key})).collect::<Vec<_>>(),
            "value": {"string_match": {"exact": value}}}})
    };
    let rbac = of(
        "rbac.v3.RBAC",
        json!({"rules": {"action": "ALLOW", "policies": {"require-jwt": {
            "permissions": [{"any": true}],
            "principals": [claim(&["payload", "iss"], "me")]}}}}),
    );
    let special = format!(
        "{{match: {{prefix: /, dynamic_metadata: [{}]}}, direct_response: {{status: 200, body: {{inline_string: special}}}}}}",
        json!({"filter": "envoy.filters.http.jwt_authn", "path": [{"key": "payload"}, {"key": "group"}],
            "value": {"string_match": {"exact": "testers"}}})
    );
    let running = Running::start(&bootstrap(
        &[
            ("envoy.filters.http.jwt_authn", jwt),
            ("envoy.filters.http.rbac", rbac),
        ],
        &[&special, ALL],
        &cluster("up", &[backend.address], ""),
    ));
    let main = running.address("main");
    let ask = |token: &str| {
        let header = if token.is_empty() {
            String::new()
        } else {
            format!("authorization: Bearer {token}\r\n")
        };
        get(main, "/x", &header)
    };
    let good = issuer.sign(json!({"iss": "me", "sub": "u"}));
    let mut broken = good.clone();
    // The first letter of the signature: the last ones hold bits that do not count.
    let at = broken.rfind('.').unwrap() + 1;
    let other = if &broken[at..=at] == "A" { "B" } else { "A" };
    broken.replace_range(at..=at, other);
    for (what, token, status, body) in [
        ("no token", String::new(), 403, "RBAC: access denied"),
        ("a good token", good, 200, "in"),
        ("a broken signature", broken, 401, "Jwt verification fails"),
        (
            "no token at all",
            "nonsense".to_owned(),
            401,
            "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
        ),
        (
            "another issuer",
            issuer.sign(json!({"iss": "they", "sub": "u"})),
            401,
            "Jwt issuer is not configured",
        ),
        (
            "an expired token",
            issuer.sign(json!({"iss": "me", "exp": 1_000_000})),
            401,
            "Jwt is expired",
        ),
        (
            "a claim that routes",
            issuer.sign(json!({"iss": "me", "sub": "u", "group": "testers"})),
            200,
            "special",
        ),
    ] {
        let answer = ask(&token);
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (status, body),
            "{what}"
        );
        if status == 401 {
            assert_eq!(
                answer.header("www-authenticate"),
                Some("Bearer realm=\"http://test.local/x\", error=\"invalid_token\""),
                "{what}"
            );
        }
    }
    running.counts(&[
        "http.main.jwt_authn.allowed: 3",
        "http.main.jwt_authn.denied: 4",
    ]);
    let seen = backend.seen.lock().unwrap();
    assert!(
        !seen[0].head.to_ascii_lowercase().contains("authorization"),
        "the token is not passed on: {}",
        seen[0].head
    );
}

#[test]
fn keys_are_fetched_from_their_uri() {
    let issuer = Issuer::new();
    let jwks = issuer.jwks();
    let keys = Backend::start(move |_| ok(&jwks));
    let backend = Backend::saying("in");
    let jwt = of(
        "jwt_authn.v3.JwtAuthentication",
        json!({
            "providers": {"p": {"issuer": "me", "remote_jwks": {"http_uri":
                {"uri": "http://keys.local/jwks?x=1", "cluster": "keys", "timeout": "5s"}}}},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}]
        }),
    );
    let clusters = format!(
        "{}{}",
        cluster("up", &[backend.address], ""),
        cluster("keys", &[keys.address], "")
    );
    let running = Running::start(&bootstrap(&[("jwt", jwt)], &[ALL], &clusters));
    let token = issuer.sign(json!({"iss": "me"}));
    let header = format!("authorization: Bearer {token}\r\n");
    for _ in 0..2 {
        assert_eq!(get(running.address("main"), "/", &header).status, 200);
    }
    assert_eq!(get(running.address("main"), "/", "").status, 401);
    let seen = keys.seen.lock().unwrap();
    assert_eq!(seen.len(), 1, "fetched once, then known");
    assert!(
        seen[0]
            .head
            .starts_with("GET /jwks?x=1 HTTP/1.1\r\nhost: keys.local\r\n")
    );
}

/// What the courses write: nothing is limited before the filter is enabled and enforced.
#[test]
fn a_local_rate_limit_refuses_what_is_too_much() {
    let backend = Backend::saying("in");
    let bucket = json!({"max_tokens": 2, "tokens_per_fill": 2, "fill_interval": "3600s"});
    let all = json!({"default_value": {"numerator": 100, "denominator": "HUNDRED"}});
    let verbatim = of(
        "local_ratelimit.v3.LocalRateLimit",
        json!({"stat_prefix": "verbatim", "token_bucket": bucket}),
    );
    let enforced = of(
        "local_ratelimit.v3.LocalRateLimit",
        json!({"stat_prefix": "strict", "token_bucket": bucket, "filter_enabled": all, "filter_enforced": all,
            "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
            "response_headers_to_add": [{"header": {"key": "x-local-rate-limit", "value": "true"}}]}),
    );
    let other = format!(
        "{{match: {{prefix: /other}}, route: {{cluster: up}}, typed_per_filter_config: {{strict: {}}}}}",
        of(
            "local_ratelimit.v3.LocalRateLimit",
            json!({"stat_prefix": "other", "token_bucket": {"max_tokens": 1, "fill_interval": "3600s"},
            "filter_enabled": all, "filter_enforced": all, "status": {"code": 503}})
        )
    );
    let off = "{match: {prefix: /off}, route: {cluster: up}, typed_per_filter_config: {strict: {\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}}}";
    let running = Running::start(&bootstrap(
        &[("verbatim", verbatim), ("strict", enforced)],
        &[&other, off, ALL],
        &cluster("up", &[backend.address], ""),
    ));
    let main = running.address("main");
    let statuses =
        |path: &str, n: usize| -> Vec<u16> { (0..n).map(|_| get(main, path, "").status).collect() };
    let first = get(main, "/", "");
    assert_eq!(
        (first.status, first.header("x-ratelimit-remaining")),
        (200, Some("1"))
    );
    assert_eq!(statuses("/", 1), [200]);
    let limited = get(main, "/", "");
    assert_eq!(
        (limited.status, limited.body.as_str()),
        (429, "local_rate_limited")
    );
    assert_eq!(limited.header("x-local-rate-limit"), Some("true"));
    assert_eq!(limited.header("x-ratelimit-limit"), Some("2"));
    assert_eq!(statuses("/other", 2), [200, 503], "a bucket of the route");
    assert_eq!(statuses("/off", 4), [200; 4], "the route switches it off");
    running.counts(&[
        "strict.http_local_rate_limit.ok: 2",
        "strict.http_local_rate_limit.rate_limited: 1",
        "strict.http_local_rate_limit.enforced: 1",
        "verbatim.http_local_rate_limit.enabled: 0",
        "other.http_local_rate_limit.enforced: 1",
    ]);
}

#[test]
fn an_authorization_service_over_http_decides() {
    let backend = Backend::saying("in");
    let service = Backend::start(|seen| {
        let head = seen.head.to_ascii_lowercase();
        if head.contains("x-user: bob") {
            b"HTTP/1.1 200 OK\r\nx-who: bob\r\nx-secret: s\r\nx-for-client: c\r\ncontent-length: 0\r\n\r\n".to_vec()
        } else if head.contains("x-user: broken") {
            answer("500 Internal Server Error", "")
        } else {
            b"HTTP/1.1 401 Unauthorized\r\nx-why: nobody\r\nwww-authenticate: Basic\r\ncontent-length: 5\r\n\r\nwho??".to_vec()
        }
    });
    let filter = of(
        "ext_authz.v3.ExtAuthz",
        json!({"http_service": {"server_uri": {"uri": "http://authz", "cluster": "authz", "timeout": "5s"},
            "path_prefix": "/check",
            "authorization_response": {"allowed_upstream_headers": {"patterns": [{"exact": "x-who"}]},
                "allowed_client_headers": {"patterns": [{"exact": "x-why"}]},
                "allowed_client_headers_on_success": {"patterns": [{"exact": "x-for-client"}]}}},
            "allowed_headers": {"patterns": [{"exact": "x-user"}]}}),
    );
    let clusters = format!(
        "{}{}",
        cluster("up", &[backend.address], ""),
        cluster("authz", &[service.address], "")
    );
    let running = Running::start(&bootstrap(&[("authz", filter)], &[ALL], &clusters));
    let main = running.address("main");
    let allowed = get(main, "/a?b=c", "x-user: bob\r\nx-other: o\r\n");
    assert_eq!(
        (allowed.status, allowed.header("x-for-client")),
        (200, Some("c"))
    );
    {
        let seen = service.seen.lock().unwrap();
        assert!(
            seen[0]
                .head
                .starts_with("GET /check/a?b=c HTTP/1.1\r\nhost: test.local\r\n")
        );
        assert!(
            !seen[0].head.contains("x-other"),
            "not promised: {}",
            seen[0].head
        );
        let head = backend.seen.lock().unwrap()[0].head.clone();
        assert!(
            head.contains("x-who: bob") && !head.contains("x-secret"),
            "{head}"
        );
    }
    let denied = get(main, "/", "");
    assert_eq!((denied.status, denied.body.as_str()), (401, "who??"));
    assert_eq!(denied.header("x-why"), Some("nobody"));
    assert_eq!(denied.header("www-authenticate"), Some("Basic"));
    let failed = get(main, "/", "x-user: broken\r\n");
    assert_eq!((failed.status, failed.body.as_str()), (403, ""));
    running.counts(&[
        "http.main.ext_authz.ok: 1",
        "http.main.ext_authz.denied: 1",
        "http.main.ext_authz.error: 1",
        "cluster.up.ext_authz.denied: 1",
    ]);
    assert_eq!(backend.count(), 1);
}

/// Authorization and rate limits over gRPC, remembering what they were asked.
#[derive(Clone, Default)]
struct Services {
    checks: Arc<Mutex<Vec<CheckRequest>>>,
    limits: Arc<Mutex<Vec<RateLimitRequest>>>,
}

fn option(key: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: key.into(),
            value: value.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[tonic::async_trait]
impl Authorization for Services {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        let request = request.into_inner();
        let http = request
            .attributes
            .clone()
            .and_then(|attributes| attributes.request?.http)
            .unwrap_or_default();
        self.checks.lock().unwrap().push(request);
        let mut response = CheckResponse {
            status: Some(Default::default()),
            ..Default::default()
        };
        match http.headers.get("x-user").map(String::as_str) {
            Some("bob") => {
                response.http_response = Some(HttpResponse::OkResponse(OkHttpResponse {
                    headers: vec![option("x-who", "bob")],
                    headers_to_remove: vec!["x-user".into()],
                    response_headers_to_add: vec![option("x-checked", "yes")],
                    ..Default::default()
                }));
            }
            Some("lost") => return Err(Status::unavailable("gone")),
            _ => {
                response.status = Some(xds::google::rpc::Status {
                    code: 7,
                    ..Default::default()
                });
                response.http_response = Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
                    status: Some(xds::envoy::r#type::v3::HttpStatus { code: 418 }),
                    headers: vec![option("x-why", "nobody")],
                    body: "no tea".into(),
                }));
            }
        }
        Ok(Response::new(response))
    }
}

#[tonic::async_trait]
impl RateLimitService for Services {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let request = request.into_inner();
        let mut limits = self.limits.lock().unwrap();
        limits.push(request);
        let code = if limits.len() > 1 {
            Code::OverLimit
        } else {
            Code::Ok
        };
        Ok(Response::new(RateLimitResponse {
            overall_code: code as i32,
            ..Default::default()
        }))
    }
}

/// Serves both; ends with the runtime that is returned.
fn serve(services: &Services) -> (SocketAddr, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let services = services.clone();
    let address = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(AuthorizationServer::new(services.clone()))
                .add_service(RateLimitServiceServer::new(services))
                .serve_with_incoming(incoming),
        );
        address
    });
    (address, runtime)
}

/// Further fields of a cluster that speaks HTTP/2.
const HTTP2: &str = "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {\"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}";

#[test]
fn an_authorization_service_over_grpc_decides() {
    let backend = Backend::saying("in");
    let services = Services::default();
    let (address, _runtime) = serve(&services);
    let filter = of(
        "ext_authz.v3.ExtAuthz",
        json!({"grpc_service": {"envoy_grpc": {"cluster_name": "authz"}, "timeout": "5s"},
            "with_request_body": {"max_request_bytes": 4, "allow_partial_message": true}}),
    );
    let clusters = format!(
        "{}{}",
        cluster("up", &[backend.address], ""),
        cluster("authz", &[address], HTTP2)
    );
    let running = Running::start(&bootstrap(&[("authz", filter)], &[ALL], &clusters));
    let main = running.address("main");
    let post = |headers: &str| {
        exchange(
            main,
            format!(
                "POST /p HTTP/1.1\r\nHost: test.local\r\ncontent-length: 6\r\n{headers}\r\nabcdef"
            )
            .as_bytes(),
        )
    };
    let allowed = post("x-user: bob\r\n");
    assert_eq!(
        (allowed.status, allowed.header("x-checked")),
        (200, Some("yes"))
    );
    {
        let seen = backend.seen.lock().unwrap();
        assert_eq!(seen[0].body, b"abcdef", "the whole body goes on");
        assert!(seen[0].head.contains("x-who: bob") && !seen[0].head.contains("x-user"));
        let checks = services.checks.lock().unwrap();
        let http = checks[0]
            .attributes
            .clone()
            .unwrap()
            .request
            .unwrap()
            .http
            .unwrap();
        assert_eq!(
            (
                http.method.as_str(),
                http.path.as_str(),
                http.host.as_str(),
                http.body.as_str()
            ),
            ("POST", "/p", "test.local", "abcd")
        );
        assert_eq!(http.headers["x-envoy-auth-partial-body"], "true");
    }
    let denied = post("");
    assert_eq!((denied.status, denied.body.as_str()), (418, "no tea"));
    assert_eq!(denied.header("x-why"), Some("nobody"));
    assert_eq!(post("x-user: lost\r\n").status, 403);
    let grpc = post("content-type: application/grpc\r\n");
    assert_eq!(
        (grpc.status, grpc.header("grpc-message")),
        (200, Some("no tea"))
    );
}

#[test]
fn a_rate_limit_service_counts() {
    let backend = Backend::saying("in");
    let services = Services::default();
    let (address, _runtime) = serve(&services);
    let filter = of(
        "ratelimit.v3.RateLimit",
        json!({"domain": "shop", "timeout": "5s", "rate_limit_service": {"transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": "limits"}}}}),
    );
    let clusters = format!(
        "{}{}",
        cluster("up", &[backend.address], ""),
        cluster("limits", &[address], HTTP2)
    );
    let route = "{match: {prefix: /}, route: {cluster: up, rate_limits: [{actions: [{request_headers: {header_name: x-user, descriptor_key: user}}]}]}}";
    let running = Running::start(&bootstrap(&[("limits", filter)], &[route], &clusters));
    let main = running.address("main");
    assert_eq!(get(main, "/", "").status, 200, "nothing to count by");
    assert_eq!(get(main, "/", "x-user: bob\r\n").status, 200);
    let over = get(main, "/", "x-user: bob\r\n");
    assert_eq!((over.status, over.body.as_str()), (429, ""));
    assert_eq!(over.header("x-envoy-ratelimited"), Some("true"));
    let limits = services.limits.lock().unwrap();
    assert_eq!((limits.len(), limits[0].domain.as_str()), (2, "shop"));
    let entry = &limits[0].descriptors[0].entries[0];
    assert_eq!((entry.key.as_str(), entry.value.as_str()), ("user", "bob"));
    running.counts(&[
        "cluster.up.ratelimit.ok: 1",
        "cluster.up.ratelimit.over_limit: 1",
    ]);
}

#[test]
fn bodies_and_headers_are_looked_at_and_changed() {
    let page = "x".repeat(2000);
    let backend = Backend::start(move |seen| {
        if seen.head.contains("/short") {
            return ok("short");
        }
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nx-internal: i\r\n\r\n{page}",
            page.len()
        )
        .into_bytes()
    });
    let gzip = json!({"@type": "type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip"});
    let running = Running::start(&bootstrap(
        &[
            (
                "buffer",
                of("buffer.v3.Buffer", json!({"max_request_bytes": 10})),
            ),
            (
                "mutation",
                of(
                    "header_mutation.v3.HeaderMutation",
                    json!({"mutations": {
                        "request_mutations": [{"append": {"header": {"key": "x-added", "value": "%REQ(:METHOD)%"}}}],
                        "response_mutations": [{"remove": "x-internal"}]}}),
                ),
            ),
            (
                "compressor",
                of(
                    "compressor.v3.Compressor",
                    json!({"compressor_library": {"name": "text", "typed_config": gzip}}),
                ),
            ),
        ],
        &[ALL],
        &cluster("up", &[backend.address], ""),
    ));
    let main = running.address("main");
    let post = |body: &str| {
        exchange(
            main,
            format!(
                "POST /short HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            )
            .as_bytes(),
        )
    };
    assert_eq!(post("0123456789").status, 200);
    let large = post("0123456789a");
    assert_eq!(
        (large.status, large.body.as_str()),
        (413, "Payload Too Large")
    );
    {
        let seen = backend.seen.lock().unwrap();
        assert_eq!(seen.len(), 1);
        assert!(
            seen[0].head.contains("content-length: 10"),
            "{}",
            seen[0].head
        );
        assert!(seen[0].head.contains("x-added: POST"), "{}", seen[0].head);
    }
    let plain = get(main, "/", "");
    assert_eq!(
        (plain.body.len(), plain.header("content-encoding")),
        (2000, None)
    );
    assert_eq!(plain.header("x-internal"), None);
    let small = get(main, "/", "accept-encoding: gzip\r\n");
    assert_eq!(small.header("content-encoding"), Some("gzip"));
    assert_eq!(small.header("vary"), Some("Accept-Encoding"));
    assert!(small.body.len() < 500, "{} bytes", small.body.len());
    assert_eq!(
        get(main, "/short", "accept-encoding: gzip\r\n").header("content-encoding"),
        None
    );
}

#[test]
fn what_cannot_be_executed_is_refused_by_name_and_path() {
    for (filter, why) in [
        (
            json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"}),
            "http_filters[0] (own): envoy.extensions.filters.http.wasm.v3.Wasm is not supported",
        ),
        (
            of(
                "ext_authz.v3.ExtAuthz",
                json!({"grpc_service": {"google_grpc": {"target_uri": "a:1", "stat_prefix": "s"}}}),
            ),
            "http_filters[0] (own): grpc_service.google_grpc: is not supported",
        ),
        (
            of("buffer.v3.Buffer", json!({})),
            "http_filters[0] (own): max_request_bytes: must be more than 0",
        ),
    ] {
        let yaml = bootstrap(&[("own", filter)], &[ALL], &cluster("up", &[], ""));
        let error = Running::try_start(&yaml).err().expect("refused");
        assert!(error.contains(why), "{why:?} is not in {error:?}");
    }
    let route = "{match: {prefix: /}, route: {cluster: up, rate_limits: [{actions: [{remote_address_match: {descriptor_value: x}}]}]}}";
    let yaml = http(&[route], &cluster("up", &[], ""), "");
    let error = Running::try_start(&yaml).err().expect("refused");
    assert!(
        error.contains("routes[0].rate_limits[0].actions[0]")
            || error.contains("rate_limits[0].actions[0]"),
        "{error}"
    );
}

fn received(url: &str, name: &str, version: &str, body: &Value) -> Received {
    let message = xds::json::dynamic_from_value(url, body, true).expect("a message");
    Received {
        name: name.into(),
        version: version.into(),
        body: xds::prost_types::Any {
            type_url: url.into(),
            value: xds::json::encode(&message),
        },
    }
}

/// EnvoyFilter's EXTENSION_CONFIG: the listener says that there is a filter, its settings come on their own.
#[test]
fn settings_of_a_filter_may_come_on_their_own() {
    let backend = Backend::saying("in");
    let running = Running::start(&http(&[ALL], &cluster("up", &[backend.address], ""), ""));
    let manager = &running.proxy.manager;
    let listener = json!({
        "name": "late", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "late",
            "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "up"}}]}]},
            "http_filters": [
                {"name": "own", "config_discovery": {"config_source": {"ads": {}},
                    "type_urls": ["type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"]}},
                {"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]}]
    });
    let url = xds::type_url::LISTENER;
    manager
        .apply(
            url,
            "1",
            vec![received(url, "late", "1", &listener)],
            Vec::new(),
        )
        .expect("the listener is accepted");
    let url = xds::type_url::EXTENSION_CONFIG;
    assert!(manager.interests()[url].contains("own"), "it is asked for");
    assert!(
        !running.page("/listeners").contains("late"),
        "without the settings nobody is served"
    );
    let config = |value: &str| {
        json!({"name": "own", "typed_config": of("header_mutation.v3.HeaderMutation", json!({"mutations":
            {"response_mutations": [{"append": {"header": {"key": "x-own", "value": value}}}]}}))})
    };
    for value in ["one", "two"] {
        manager
            .apply(
                url,
                value,
                vec![received(url, "own", value, &config(value))],
                Vec::new(),
            )
            .expect("the settings are accepted");
        let answer = get(running.address("late"), "/", "");
        assert_eq!((answer.status, answer.header("x-own")), (200, Some(value)));
    }
    let wasm = json!({"name": "own", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"}});
    let error = manager
        .apply(url, "3", vec![received(url, "own", "3", &wasm)], Vec::new())
        .expect_err("refused");
    assert!(
        error.contains("own: envoy.extensions.filters.http.wasm.v3.Wasm is not supported"),
        "{error}"
    );
    assert_eq!(
        get(running.address("late"), "/", "").header("x-own"),
        Some("two")
    );
}
