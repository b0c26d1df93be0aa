//! What peers send to proxies.

use std::net::IpAddr;
use std::time::UNIX_EPOCH;

use bytes::{Bytes, BytesMut};
use dataplane::http_conn::{HttpConn, PathOutcome};
use dataplane::request::{RequestHead, RequestHeadMut};
use dataplane::stream::Metadata;
use dataplane::tracing::{Context, Propagation};
use http::{HeaderMap, Method};
use proxy::body::Frame;
use proxy::h1::{decode, head};
use proxy::http::callout;
use proxy::tls::hello::Inspection;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;

use super::text;
use crate::Target;

pub(super) const TARGETS: &[Target] = &[
    target("http1-request-head", http1_request_head),
    target("http1-response-head", http1_response_head),
    target("http1-chunks", http1_chunks),
    target("http2-trailers", http2_trailers),
    target("tls-hello", tls_hello),
    target("proxy-protocol", proxy_protocol),
    target("protocol-sniffing", protocol_sniffing),
    target("request-path", request_path),
    target("request-headers", request_headers),
    target("jwt", jwt),
    target("jwks", jwks),
    target("peer-metadata", peer_metadata),
    target("admin-query", admin_query),
    target("grpc-message", grpc_message),
];

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target {
        name,
        run,
        also: &[],
    }
}

/// A head that is taken and written again is read the same.
fn http1_request_head(input: &[u8]) {
    let rules = head::HeadRules::default();
    let mut buf = BytesMut::from(input);
    while let Ok(Some(read)) = head::parse_request(&mut buf, &rules) {
        let mut again = BytesMut::from(read.method.as_str());
        again.extend_from_slice(b" ");
        again.extend_from_slice(&read.target);
        again.extend_from_slice(match read.version {
            head::Version::Http10 => b" HTTP/1.0\r\n",
            head::Version::Http11 => b" HTTP/1.1\r\n",
        });
        fields(&mut again, &read.headers);
        let written = String::from_utf8_lossy(&again).into_owned();
        let other = head::parse_request(&mut again, &rules).ok().flatten();
        let other = other.unwrap_or_else(|| panic!("{written:?} is not read"));
        assert_eq!(
            (other.method, other.target, other.version, other.framing),
            (read.method, read.target, read.version, read.framing),
            "{written:?}"
        );
        assert_eq!(other.headers, read.headers, "{written:?}");
    }
}

fn http1_response_head(input: &[u8]) {
    let mut buf = BytesMut::from(input);
    while let Ok(Some(read)) = head::parse_response(&mut buf, 64 * 1024) {
        let mut again = BytesMut::new();
        head::write_status_line(&mut again, read.version, read.status);
        fields(&mut again, &read.headers);
        let written = String::from_utf8_lossy(&again).into_owned();
        let other = head::parse_response(&mut again, 256 * 1024).ok().flatten();
        let other = other.unwrap_or_else(|| panic!("{written:?} is not read"));
        assert_eq!(
            (other.status, other.framing, other.keep_alive),
            (read.status, read.framing, read.keep_alive),
            "{written:?}"
        );
        assert_eq!(other.headers, read.headers, "{written:?}");
    }
}

fn fields(out: &mut BytesMut, headers: &HeaderMap) {
    for (name, value) in headers {
        head::write_header(out, name, value, head::HeaderCase::Lower);
    }
    out.extend_from_slice(b"\r\n");
}

/// What a chunked body says does not depend on how its bytes arrive.
fn http1_chunks(input: &[u8]) {
    let whole = chunks(input, input.len().max(1));
    for step in [1, 2, 7] {
        assert_eq!(chunks(input, step), whole, "in pieces of {step} bytes");
    }
}

/// The bytes of the body and whether it ended, or nothing where it is malformed.
fn chunks(input: &[u8], step: usize) -> Option<(Vec<u8>, bool)> {
    let mut decoder = decode::Decoder::new(decode::Framing::Chunked);
    let mut buf = BytesMut::new();
    let mut body = Vec::new();
    for piece in input.chunks(step) {
        buf.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buf) {
                Err(decode::Malformed) => return None,
                Ok(decode::Decoded::More) => break,
                Ok(decode::Decoded::End) => return Some((body, true)),
                Ok(decode::Decoded::Frame(frame)) => {
                    if let Frame::Data(data) = frame {
                        body.extend_from_slice(&data);
                    }
                }
            }
        }
    }
    Some((body, false))
}

/// Whether trailers are found to be malformed does not depend on how the bytes arrive.
fn http2_trailers(input: &[u8]) {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let found = |step: usize| {
        let mut watch = proxy::h2::trailers::Watch::default();
        watch.finds_malformed(preface);
        input.chunks(step).any(|piece| watch.finds_malformed(piece))
    };
    let whole = found(input.len().max(1));
    for step in [1, 3, 10] {
        assert_eq!(found(step), whole, "in pieces of {step} bytes");
    }
}

/// What is known of a handshake does not change when more of it comes.
fn tls_hello(input: &[u8]) {
    let mut known: Option<Inspection> = None;
    for end in 0..=input.len().min(700) {
        let seen = proxy::tls::hello::inspect(&input[..end]);
        match &known {
            None if seen != Inspection::More => known = Some(seen),
            None => {}
            Some(known) => assert_eq!(&seen, known, "after {end} bytes"),
        }
    }
    let _ = proxy::tls::hello::inspect(input);
}

/// A header is read the same whatever follows it, and never before it is there.
fn proxy_protocol(input: &[u8]) {
    let Ok(Some((length, source))) = proxy::listener::proxy_header(input) else {
        return;
    };
    assert!(length <= input.len(), "{length} bytes of {}", input.len());
    let alone = proxy::listener::proxy_header(&input[..length]);
    assert_eq!(alone, Ok(Some((length, source))));
    for end in 0..length {
        let early = proxy::listener::proxy_header(&input[..end]);
        assert_eq!(early, Ok(None), "after {end} of {length} bytes");
    }
}

/// What is found out from some bytes stays true when more come.
fn protocol_sniffing(input: &[u8]) {
    let mut known = None;
    for end in 0..=input.len().min(2000) {
        let seen = proxy::listener::looks_like_http(&input[..end]);
        match known {
            None => known = seen,
            Some(known) => assert_eq!(seen, Some(known), "after {end} bytes"),
        }
    }
}

fn request_path(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let (path, options) = text.split_once('\n').unwrap_or((text, ""));
    // `path_with_escaped_slashes_action`
    let escaped_slashes = options.bytes().next().map_or(0, |byte| i32::from(byte % 5));
    let manager = HttpConnectionManager {
        normalize_path: Some(true),
        merge_slashes: options.len() % 2 == 1,
        path_with_escaped_slashes_action: escaped_slashes,
        ..HttpConnectionManager::default()
    };
    let Ok(rules) = HttpConn::compile(&manager) else {
        return;
    };
    let mut once = path.to_owned();
    if rules.normalize(&mut once) == PathOutcome::Go {
        let mut twice = once.clone();
        let outcome = rules.normalize(&mut twice);
        // Unescaping may leave what another turn would unescape.
        if !once.contains('%') {
            assert_eq!(outcome, PathOutcome::Go, "{path:?} {once:?}");
            assert_eq!(twice, once, "{path:?}");
        }
    }
}

/// Everything that looks at a request's path and headers; the first line is the path, the others are headers.
fn request_headers(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let path = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let mut headers = HeaderMap::new();
    for line in lines.take(50) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        if let (Ok(name), Ok(value)) = (
            http::HeaderName::from_bytes(&line[..colon]),
            http::HeaderValue::from_bytes(&line[colon + 1..]),
        ) {
            headers.append(name, value);
        }
    }
    let authority = String::from_utf8_lossy(
        headers
            .get("host")
            .map(http::HeaderValue::as_bytes)
            .unwrap_or_default(),
    )
    .into_owned();
    let head = RequestHead {
        method: &Method::GET,
        scheme: "http",
        authority: &authority,
        path: &path,
        headers: &headers,
    };
    for name in ["a", "q", ""] {
        let _ = (head.query_param(name), head.cookie(name), head.header(name));
    }
    let _ = (head.path_only(), head.query(), head.is_grpc(), head.bytes());
    for propagation in [Propagation::B3, Propagation::W3c] {
        if let Some(context) = Context::read(&headers, propagation) {
            let mut written = HeaderMap::new();
            context.write(&mut written, propagation);
            let again = Context::read(&written, propagation);
            assert!(again.is_some(), "{written:?} is not read again");
        }
    }
    super::xds::route(&head);
    let _ = proxy::http::filters::grpc_web::Dialect::of(&headers);
    let rules = HttpConn::compile(&HttpConnectionManager {
        use_remote_address: Some(input.len().is_multiple_of(2)),
        xff_num_trusted_hops: 1,
        ..HttpConnectionManager::default()
    });
    let (mut authority, mut path) = (authority.clone(), path.clone());
    let mut changed = headers.clone();
    let mut head = RequestHeadMut {
        method: &Method::GET,
        scheme: "http",
        authority: &mut authority,
        path: &mut path,
        headers: &mut changed,
    };
    let made = || "12345678-1234-4234-8234-123456789abc".to_owned();
    if let Ok(rules) = rules {
        let _ = rules.request(&mut head, &super::xds::connection(), &made);
    }
}

/// A token that nobody signed: whatever it says, it is refused.
fn jwt(input: &[u8]) {
    use std::sync::OnceLock;
    static RULES: OnceLock<dataplane::jwt::JwtAuthn> = OnceLock::new();
    let rules = RULES.get_or_init(|| {
        let keys = include_str!("../../seeds/jwks/rsa.json");
        let config = serde_json::json!({
            "providers": {"p": {"issuer": "i", "audiences": ["a"], "local_jwks": {"inline_string": keys}}},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}],
        });
        let config = xds::json::from_value(config, true).expect("a configuration");
        dataplane::jwt::JwtAuthn::compile(&config).expect("rules")
    });
    let Ok(value) = http::HeaderValue::from_bytes(input) else {
        return;
    };
    let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, value)]);
    let head = RequestHead {
        method: &Method::GET,
        scheme: "http",
        authority: "a",
        path: "/",
        headers: &headers,
    };
    let metadata = Metadata::new();
    let facts = dataplane::route::MatchFacts {
        metadata: &metadata,
        client_certificate: None,
        source: IpAddr::from([127, 0, 0, 1]),
    };
    let judged = rules.check(&head, &facts, None, UNIX_EPOCH, &|_| None);
    let failure = judged.expect_err("nobody signed it");
    let _ = failure.reply(&head);
}

fn jwks(input: &[u8]) {
    if let Some(text) = text(input) {
        let _ = dataplane::jwt::Jwks::parse(text);
    }
}

fn peer_metadata(input: &[u8]) {
    let identity = proxy::http::istio::Identity::new(&Default::default());
    let _ = identity.peer("", input);
    let _ = identity.tcp_peer(input);
    if let Some(text) = text(input) {
        let _ = identity.endpoint(text);
    }
}

fn admin_query(input: &[u8]) {
    if let Some(text) = text(input) {
        let _ = proxy::web::query(text);
    }
}

/// A body that is one message is what its message is framed to.
fn grpc_message(input: &[u8]) {
    let body = Bytes::copy_from_slice(input);
    if let Some(message) = callout::unframe(&body) {
        assert_eq!(callout::frame(&message), body);
    }
}
