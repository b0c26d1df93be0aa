//! Filters by expression: what of a stream an expression can ask for, by the names of Envoy's attributes.

use std::sync::Arc;

use api::cel::{Key, Map, Value, parse};
use dataplane::StreamInfo;
use dataplane::stream::{Certificate, Metadata, TlsSession};
use http::HeaderMap;

/// A condition in the Common Expression Language.
pub struct Expression {
    parsed: api::cel::Expression,
    asked: Vec<(&'static str, Group)>,
    /// Names with capitals that the expression has somewhere: headers are found by them as well.
    capitals: Vec<String>,
}

/// One group of attributes of a stream.
type Group = fn(&StreamInfo<'_>) -> Value;

const GROUPS: [(&str, Group); 8] = [
    ("request", request),
    ("response", response),
    ("source", |info| address(Some(info.remote()))),
    ("destination", |info| address(Some(info.connection.local))),
    ("connection", connection),
    ("upstream", upstream),
    ("metadata", |info| {
        map([("filter_metadata", Some(json(info.metadata)))])
    }),
    ("xds", xds),
];

impl Expression {
    /// Reads an expression. Types are found out when it is evaluated, as Envoy does.
    ///
    /// # Errors
    /// Where it is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parsed = parse(text).map_err(|error| format!("expression: {error}"))?;
        let asked = GROUPS
            .into_iter()
            .filter(|(name, _)| parsed.mentions(name))
            .collect();
        let literals = text.split(['\'', '"']).skip(1).step_by(2);
        let capitals = literals.filter(|name| name.bytes().any(|byte| byte.is_ascii_uppercase()));
        Ok(Self {
            parsed,
            asked,
            capitals: capitals.map(str::to_owned).collect(),
        })
    }

    /// Whether it is true of a stream; what cannot be evaluated is not.
    pub fn holds(&self, info: &StreamInfo<'_>) -> bool {
        let values: Vec<(&str, Value)> = self
            .asked
            .iter()
            .map(|(name, group)| (*name, self.with_capitals(group(info))))
            .collect();
        matches!(self.parsed.eval(&values), Ok(Value::Bool(true)))
    }
}

impl Expression {
    fn with_capitals(&self, mut group: Value) -> Value {
        if self.capitals.is_empty() {
            return group;
        }
        if let Value::Map(group) = &mut group
            && let Some(Value::Map(headers)) =
                Arc::make_mut(group).get_mut(&Key::String("headers".into()))
        {
            let headers = Arc::make_mut(headers);
            for name in &self.capitals {
                let lower = Key::String(name.to_ascii_lowercase().into());
                if let Some(value) = headers.get(&lower).cloned() {
                    headers.insert(Key::String(name.as_str().into()), value);
                }
            }
        }
        group
    }
}

/// What there is of these.
fn map<const N: usize>(entries: [(&str, Option<Value>); N]) -> Value {
    let there = entries
        .into_iter()
        .filter_map(|(name, value)| Some((Key::String(name.into()), value?)));
    Value::Map(Arc::new(there.collect()))
}

fn text(text: &str) -> Value {
    Value::text(text)
}

fn number(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn nanoseconds(duration: std::time::Duration) -> Value {
    Value::Duration(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

fn json(metadata: &Metadata) -> Value {
    api::cel::plain(&serde_json::Value::Object(metadata.clone()))
}

fn address(address: Option<std::net::SocketAddr>) -> Value {
    map([
        ("address", address.map(|address| text(&address.to_string()))),
        ("port", address.map(|address| number(address.port().into()))),
    ])
}

fn headers(headers: &HeaderMap, pseudo: &[(&str, &str)]) -> Value {
    let mut all = Map::new();
    for (name, value) in pseudo {
        all.insert(Key::String((*name).into()), text(value));
    }
    for name in headers.keys() {
        if let Some(value) = dataplane::request::joined(headers, name.as_str()) {
            all.insert(Key::String(name.as_str().into()), text(&value));
        }
    }
    Value::Map(Arc::new(all))
}

fn request(info: &StreamInfo<'_>) -> Value {
    let head = info.request.as_ref();
    let header = |name: &str| Some(text(&head?.header(name)?));
    let of = |part: fn(&dataplane::RequestHead<'_>) -> String| Some(text(&part(head?)));
    map([
        ("path", of(|head| head.path.to_owned())),
        ("url_path", of(|head| head.path_only().to_owned())),
        ("query", of(|head| head.query().to_owned())),
        ("host", of(|head| head.authority.to_owned())),
        ("scheme", of(|head| head.scheme.to_owned())),
        ("method", of(|head| head.method.to_string())),
        (
            "headers",
            head.map(|head| {
                let pseudo = [
                    (":method", head.method.as_str()),
                    (":scheme", head.scheme),
                    (":authority", head.authority),
                    (":path", head.path),
                ];
                headers(head.headers, &pseudo)
            }),
        ),
        ("referer", header("referer")),
        ("useragent", header("user-agent")),
        ("id", header("x-request-id")),
        ("protocol", info.protocol.map(text)),
        ("time", Some(Value::Timestamp(info.start.into()))),
        ("duration", info.duration.map(nanoseconds)),
        ("size", Some(number(info.bytes_received))),
        ("total_size", Some(number(info.wire.downstream_received))),
    ])
}

fn response(info: &StreamInfo<'_>) -> Value {
    let grpc = [info.response_trailers, info.response_headers]
        .into_iter()
        .flatten()
        .find_map(|headers| headers.get("grpc-status")?.to_str().ok()?.parse().ok());
    map([
        ("code", info.response_code.map(|code| number(code.into()))),
        ("code_details", info.response_code_details.map(text)),
        ("flags", Some(number(info.flags.bits()))),
        ("grpc_status", grpc.map(Value::Int)),
        (
            "headers",
            info.response_headers.map(|all| {
                let code = info.response_code.unwrap_or_default().to_string();
                headers(all, &[(":status", &code)])
            }),
        ),
        (
            "trailers",
            info.response_trailers.map(|all| headers(all, &[])),
        ),
        ("size", Some(number(info.bytes_sent))),
        ("total_size", Some(number(info.wire.downstream_sent))),
        (
            "backend_latency",
            info.response_duration
                .zip(info.sent_duration)
                .map(|(came, sent)| nanoseconds(came.saturating_sub(sent))),
        ),
    ])
}

fn tls(session: Option<&TlsSession>) -> [(&'static str, Option<Value>); 9] {
    fn of(
        certificate: Option<&Arc<Certificate>>,
        field: fn(&Certificate) -> Option<&String>,
    ) -> Option<Value> {
        Some(text(
            certificate.and_then(|certificate| field(certificate))?,
        ))
    }
    let local = session.and_then(|session| session.local.as_ref());
    let peer = session.and_then(|session| session.peer.as_ref());
    [
        ("tls_version", session.map(|session| text(session.version))),
        ("subject_local_certificate", of(local, |c| Some(&c.subject))),
        ("subject_peer_certificate", of(peer, |c| Some(&c.subject))),
        ("dns_san_local_certificate", of(local, |c| c.dns.first())),
        ("dns_san_peer_certificate", of(peer, |c| c.dns.first())),
        ("uri_san_local_certificate", of(local, |c| c.uris.first())),
        ("uri_san_peer_certificate", of(peer, |c| c.uris.first())),
        (
            "sha256_peer_certificate_digest",
            of(peer, |c| Some(&c.sha256)),
        ),
        ("mtls", Some(Value::Bool(peer.is_some()))),
    ]
}

fn connection(info: &StreamInfo<'_>) -> Value {
    let connection = info.connection;
    let all = [
        ("id", Some(Value::Uint(connection.id))),
        (
            "requested_server_name",
            connection.server_name.as_deref().map(text),
        ),
        (
            "termination_details",
            info.connection_termination_details.map(text),
        ),
    ];
    with(all, tls(connection.tls.as_deref()))
}

fn upstream(info: &StreamInfo<'_>) -> Value {
    let host = info.upstream_host;
    let all = [
        ("address", host.map(|host| text(&host.to_string()))),
        ("port", host.map(|host| number(host.port().into()))),
        (
            "local_address",
            info.upstream_local.map(|local| text(&local.to_string())),
        ),
        (
            "transport_failure_reason",
            info.upstream_transport_failure_reason.map(text),
        ),
        (
            "request_attempt_count",
            info.attempts.map(|attempts| number(attempts.into())),
        ),
    ];
    with(all, tls(info.upstream_tls))
}

fn with<const N: usize, const M: usize>(
    some: [(&str, Option<Value>); N],
    more: [(&str, Option<Value>); M],
) -> Value {
    let all = some.into_iter().chain(more);
    let there = all.filter_map(|(name, value)| Some((Key::String(name.into()), value?)));
    Value::Map(Arc::new(there.collect()))
}

fn xds(info: &StreamInfo<'_>) -> Value {
    let metadata =
        |metadata: Option<&Metadata>| Some(map([("filter_metadata", Some(json(metadata?)))]));
    let name = |name: Option<&str>| name.map(text);
    map([
        ("cluster_name", name(info.upstream_cluster_raw)),
        ("cluster_metadata", metadata(info.cluster_metadata)),
        ("route_name", name(info.route_name)),
        ("route_metadata", metadata(info.route_metadata)),
        ("virtual_host_name", name(info.virtual_host_name)),
        ("filter_chain_name", name(info.filter_chain_name)),
        ("upstream_host_metadata", metadata(info.upstream_metadata)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::ResponseFlags;

    #[test]
    fn an_expression_asks_for_what_happened() {
        let connection = dataplane::Connection {
            id: 1,
            remote: "10.0.0.1:5000".parse().unwrap(),
            local: "10.0.0.2:80".parse().unwrap(),
            tls: None,
            server_name: None,
            start: std::time::SystemTime::UNIX_EPOCH,
        };
        let none = Metadata::new();
        let sent = HeaderMap::from_iter([(
            http::HeaderName::from_static("x-user"),
            http::HeaderValue::from_static("bob"),
        )]);
        let mut info = StreamInfo::new(&connection, &none, std::time::SystemTime::UNIX_EPOCH);
        info.request = Some(dataplane::RequestHead {
            method: &http::Method::GET,
            scheme: "http",
            authority: "shop:80",
            path: "/cart?item=1",
            headers: &sent,
        });
        info.response_code = Some(503);
        info.flags = ResponseFlags::NO_HEALTHY_UPSTREAM;
        info.upstream_cluster_raw = Some("outbound|80||shop");
        for (text, holds) in [
            ("response.code >= 400", true),
            ("response.code < 400", false),
            ("request.headers['x-user'] == 'bob'", true),
            ("'x-none' in request.headers", false),
            ("request.headers['X-User'] == 'bob'", true),
            ("request.headers['x-none'] == 'a'", false),
            (
                "request.url_path.startsWith('/cart') && request.query == 'item=1'",
                true,
            ),
            ("connection.mtls", false),
            ("!connection.mtls && destination.port == 80", true),
            ("response.flags == 2", true),
            (
                "xds.cluster_name == 'BlackHoleCluster' || response.code == 503",
                true,
            ),
            ("source.address == '10.0.0.1:5000'", true),
            // Not a condition, and something that is not there.
            ("request.path", false),
            ("response.grpc_status == 0", false),
        ] {
            let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(expression.holds(&info), holds, "{text}");
        }
        assert!(Expression::parse("response.code >").is_err());
    }
}
