//! The commands between percent signs.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::HeaderMap;
use serde_json::Value;

use super::time;
use crate::error::ConfigError;
use crate::matching::HeaderKey;
use crate::request::{formatted, path_only};
use crate::stream::{Certificate, Metadata, StreamInfo, TlsSession};

/// One command, compiled.
#[derive(Debug, Clone)]
pub struct Command(Kind);

#[derive(Debug, Clone, Copy)]
enum Part {
    Whole,
    Host,
    Port,
}

#[derive(Debug, Clone, Copy)]
enum Address {
    Remote,
    DirectRemote,
    Local,
    UpstreamRemote,
    UpstreamLocal,
}

#[derive(Debug, Clone, Copy)]
enum Side {
    Peer,
    Local,
    UpstreamPeer,
    UpstreamLocal,
}

#[derive(Debug, Clone, Copy)]
enum CertificateField {
    Uri,
    Dns,
    Subject,
    Issuer,
    Serial,
    Sha256,
    Pem,
    NotBefore,
    NotAfter,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    Dynamic,
    Cluster,
    Upstream,
    Route,
    FilterState,
}

#[derive(Debug, Clone, Copy)]
enum GrpcForm {
    Camel,
    Snake,
    Number,
}

#[derive(Debug, Clone)]
enum Kind {
    Fixed(Option<String>),
    Text(fn(&StreamInfo<'_>) -> Option<String>),
    Number(fn(&StreamInfo<'_>) -> Option<u64>),
    StartTime(Option<String>),
    EmitTime(Option<String>),
    Request(HeaderKey, Option<HeaderKey>),
    RequestWithoutQuery(HeaderKey, Option<HeaderKey>),
    Response(String, Option<String>),
    Trailer(String, Option<String>),
    Query(String),
    Address(Address, Part),
    Certificate(Side, CertificateField),
    Metadata(Source, Vec<String>),
    Grpc(GrpcForm),
}

impl Command {
    /// Reads a command with its argument.
    pub fn compile(name: &str, argument: Option<&str>) -> Result<Self, ConfigError> {
        let wrong = |problem: &str| ConfigError::new("", format!("%{name}%: {problem}"));
        let needed = || {
            argument
                .filter(|a| !a.is_empty())
                .ok_or_else(|| wrong("needs an argument in parentheses"))
        };
        let names = || -> Result<(String, Option<String>), ConfigError> {
            let argument = needed()?.to_ascii_lowercase();
            Ok(match argument.split_once('?') {
                Some((first, second)) => (first.to_owned(), Some(second.to_owned())),
                None => (argument, None),
            })
        };
        let keys = || -> Result<(HeaderKey, Option<HeaderKey>), ConfigError> {
            let (first, second) = names()?;
            let key = |name: &str| HeaderKey::compile(name).map_err(|e| wrong(&e.problem));
            Ok((key(&first)?, second.as_deref().map(key).transpose()?))
        };
        let path =
            || needed().map(|argument| argument.split(':').map(str::to_owned).collect::<Vec<_>>());
        if let Some(kind) = address(name).or_else(|| certificate(name)) {
            return Ok(Self(kind));
        }
        Ok(Self(match name {
            "START_TIME" | "START_TIME_LOCAL" => {
                Kind::StartTime(argument.filter(|a| !a.is_empty()).map(str::to_owned))
            }
            "EMIT_TIME" | "EMIT_TIME_LOCAL" => {
                Kind::EmitTime(argument.filter(|a| !a.is_empty()).map(str::to_owned))
            }
            "REQ" => keys().map(|(a, b)| Kind::Request(a, b))?,
            "REQ_WITHOUT_QUERY" => keys().map(|(a, b)| Kind::RequestWithoutQuery(a, b))?,
            "RESP" => names().map(|(a, b)| Kind::Response(a, b))?,
            "TRAILER" => names().map(|(a, b)| Kind::Trailer(a, b))?,
            "QUERY_PARAM" => Kind::Query(needed()?.to_owned()),
            "PATH" => Kind::Text(|i| Some(i.request?.path.to_owned())),
            "PROTOCOL" => Kind::Text(|i| i.protocol.map(str::to_owned)),
            "UPSTREAM_PROTOCOL" => Kind::Text(|i| i.upstream_protocol.map(str::to_owned)),
            "RESPONSE_CODE" => Kind::Number(|i| Some(u64::from(i.response_code.unwrap_or(0)))),
            "RESPONSE_CODE_DETAILS" => Kind::Text(|i| i.response_code_details.map(str::to_owned)),
            "CONNECTION_TERMINATION_DETAILS" => {
                Kind::Text(|i| i.connection_termination_details.map(str::to_owned))
            }
            "UPSTREAM_TRANSPORT_FAILURE_REASON" => Kind::Text(|i| {
                i.upstream_transport_failure_reason
                    .filter(|r| !r.is_empty())
                    .map(str::to_owned)
            }),
            "RESPONSE_FLAGS" => Kind::Text(|i| Some(i.flags.short())),
            "RESPONSE_FLAGS_LONG" => Kind::Text(|i| Some(i.flags.long())),
            "BYTES_RECEIVED" => Kind::Number(|i| Some(i.bytes_received)),
            "BYTES_SENT" => Kind::Number(|i| Some(i.bytes_sent)),
            "DOWNSTREAM_WIRE_BYTES_RECEIVED" => Kind::Number(|i| Some(i.wire.downstream_received)),
            "DOWNSTREAM_WIRE_BYTES_SENT" => Kind::Number(|i| Some(i.wire.downstream_sent)),
            "UPSTREAM_WIRE_BYTES_RECEIVED" => Kind::Number(|i| Some(i.wire.upstream_received)),
            "UPSTREAM_WIRE_BYTES_SENT" => Kind::Number(|i| Some(i.wire.upstream_sent)),
            "UPSTREAM_REQUEST_ATTEMPT_COUNT" => {
                Kind::Number(|i| Some(u64::from(i.attempts.unwrap_or(0))))
            }
            "DURATION" => Kind::Number(|i| i.duration.map(millis)),
            "REQUEST_DURATION" => Kind::Number(|i| i.request_duration.map(millis)),
            "RESPONSE_DURATION" => Kind::Number(|i| i.response_duration.map(millis)),
            "RESPONSE_TX_DURATION" => {
                Kind::Number(|i| i.duration?.checked_sub(i.response_duration?).map(millis))
            }
            "UPSTREAM_HOST" => Kind::Text(|i| i.upstream_host.map(|host| host.to_string())),
            "UPSTREAM_HOST_NAME" | "UPSTREAM_HOST_NAME_WITHOUT_PORT" => Kind::Text(|i| {
                i.upstream_host_name
                    .map(str::to_owned)
                    .or_else(|| i.upstream_host.map(|h| h.to_string()))
            }),
            "UPSTREAM_CLUSTER" => Kind::Text(|i| i.upstream_cluster.map(str::to_owned)),
            "UPSTREAM_CLUSTER_RAW" => Kind::Text(|i| i.upstream_cluster_raw.map(str::to_owned)),
            "REQUESTED_SERVER_NAME" => Kind::Text(|i| {
                i.connection
                    .server_name
                    .as_deref()
                    .filter(|n| !n.is_empty())
                    .map(str::to_owned)
            }),
            "ROUTE_NAME" => {
                Kind::Text(|i| i.route_name.filter(|n| !n.is_empty()).map(str::to_owned))
            }
            "VIRTUAL_HOST_NAME" => Kind::Text(|i| {
                i.virtual_host_name
                    .filter(|n| !n.is_empty())
                    .map(str::to_owned)
            }),
            "FILTER_CHAIN_NAME" => Kind::Text(|i| {
                i.filter_chain_name
                    .filter(|n| !n.is_empty())
                    .map(str::to_owned)
            }),
            "CONNECTION_ID" => Kind::Number(|i| Some(i.connection.id)),
            "HOSTNAME" => Kind::Text(|i| i.host_name.map(str::to_owned)),
            "LOCAL_REPLY_BODY" => Kind::Text(|i| i.local_reply_body.map(str::to_owned)),
            "STREAM_ID" => Kind::Text(|i| Some(i.request?.header("x-request-id")?.into_owned())),
            "TRACE_ID" => Kind::Text(|i| i.trace_id.map(str::to_owned)),
            "ACCESS_LOG_TYPE" => Kind::Text(|i| {
                Some(
                    if i.request.is_some() {
                        "DownstreamEnd"
                    } else {
                        "TcpConnectionEnd"
                    }
                    .into(),
                )
            }),
            "DOWNSTREAM_TLS_VERSION" => {
                Kind::Text(|i| i.connection.tls.as_ref().map(|tls| tls.version.to_owned()))
            }
            "DOWNSTREAM_TLS_CIPHER" => {
                Kind::Text(|i| i.connection.tls.as_ref().map(|tls| tls.cipher.clone()))
            }
            "UPSTREAM_TLS_VERSION" => {
                Kind::Text(|i| i.upstream_tls.map(|tls| tls.version.to_owned()))
            }
            "UPSTREAM_TLS_CIPHER" => Kind::Text(|i| i.upstream_tls.map(|tls| tls.cipher.clone())),
            "DYNAMIC_METADATA" => Kind::Metadata(Source::Dynamic, path()?),
            "CLUSTER_METADATA" => Kind::Metadata(Source::Cluster, path()?),
            "UPSTREAM_METADATA" => Kind::Metadata(Source::Upstream, path()?),
            "ROUTE_METADATA" => Kind::Metadata(Source::Route, path()?),
            "FILTER_STATE" | "UPSTREAM_FILTER_STATE" => {
                Kind::Metadata(Source::FilterState, path()?.into_iter().take(1).collect())
            }
            "METADATA" => {
                let mut path = path()?;
                let source = match path.remove(0).as_str() {
                    "DYNAMIC" => Source::Dynamic,
                    "CLUSTER" => Source::Cluster,
                    "UPSTREAM_HOST" => Source::Upstream,
                    "ROUTE" => Source::Route,
                    other => {
                        return Err(wrong(&format!(
                            "{other:?} is none of DYNAMIC, CLUSTER, UPSTREAM_HOST, ROUTE"
                        )));
                    }
                };
                Kind::Metadata(source, path)
            }
            "GRPC_STATUS" => Kind::Grpc(match argument {
                None | Some("" | "CAMEL_STRING") => GrpcForm::Camel,
                Some("SNAKE_STRING") => GrpcForm::Snake,
                Some("NUMBER") => GrpcForm::Number,
                Some(other) => {
                    return Err(wrong(&format!(
                        "{other:?} is none of CAMEL_STRING, SNAKE_STRING, NUMBER"
                    )));
                }
            }),
            "GRPC_STATUS_NUMBER" => Kind::Grpc(GrpcForm::Number),
            // The environment does not change while the process runs: it is read here, once.
            // One that is not set is a dash, also where a header would be left out for want of a value.
            "ENVIRONMENT" => Kind::Fixed(Some(
                std::env::var(needed()?).unwrap_or_else(|_| "-".to_owned()),
            )),
            // Known to Envoy, never known here.
            "VIRTUAL_CLUSTER_NAME"
            | "DOWNSTREAM_TLS_SESSION_ID"
            | "UPSTREAM_TLS_SESSION_ID"
            | "TLS_JA3_FINGERPRINT"
            | "TLS_JA4_FINGERPRINT"
            | "DOWNSTREAM_TRANSPORT_FAILURE_REASON"
            | "DOWNSTREAM_LOCAL_CLOSE_REASON"
            | "BYTES_RETRANSMITTED"
            | "PACKETS_RETRANSMITTED"
            | "UNIQUE_ID" => Kind::Fixed(None),
            _ => return Err(wrong("is not a known command")),
        }))
    }

    /// Appends the value; `false` (and nothing appended) when there is none.
    pub(super) fn write(&self, info: &StreamInfo<'_>, out: &mut String) -> bool {
        match &self.0 {
            Kind::StartTime(None) => time::iso8601(info.start, out),
            Kind::StartTime(Some(format)) => time::strftime(info.start, format, out),
            Kind::EmitTime(None) => {
                time::iso8601(info.start + info.duration.unwrap_or_default(), out)
            }
            Kind::EmitTime(Some(format)) => {
                time::strftime(info.start + info.duration.unwrap_or_default(), format, out)
            }
            Kind::Number(number) => match number(info) {
                Some(number) => drop(write!(out, "{number}")),
                None => return false,
            },
            Kind::Request(first, second) => {
                let Some(head) = info.request else {
                    return false;
                };
                let present =
                    |key: &HeaderKey| key.formatted(&head).filter(|value| !value.is_empty());
                match present(first).or_else(|| second.as_ref().and_then(present)) {
                    Some(value) => out.push_str(&value),
                    None => return false,
                }
            }
            Kind::Address(which, part) => {
                let Some(address) = self::address_of(*which, info) else {
                    return false;
                };
                match part {
                    Part::Whole => drop(write!(out, "{address}")),
                    Part::Host => match address.ip() {
                        IpAddr::V4(ip) => drop(write!(out, "{ip}")),
                        IpAddr::V6(ip) => drop(write!(out, "{ip}")),
                    },
                    Part::Port => drop(write!(out, "{}", address.port())),
                }
            }
            _ => match self.typed(info, None) {
                None => return false,
                Some(Value::String(text)) => out.push_str(&text),
                Some(other) => drop(write!(out, "{other}")),
            },
        }
        true
    }

    /// The value with its type, for JSON.
    pub(super) fn typed(&self, info: &StreamInfo<'_>, max: Option<usize>) -> Option<Value> {
        let text = match &self.0 {
            Kind::Fixed(text) => text.clone()?,
            Kind::Text(text) => text(info)?,
            Kind::Number(number) => return number(info).map(Value::from),
            Kind::StartTime(_) | Kind::EmitTime(_) | Kind::Request(..) | Kind::Address(..) => {
                let mut text = String::new();
                if !self.write(info, &mut text) {
                    return None;
                }
                if let (Kind::Address(_, Part::Port), Ok(port)) = (&self.0, text.parse::<u16>()) {
                    return Some(Value::from(port));
                }
                text
            }
            Kind::RequestWithoutQuery(first, second) => {
                let head = info.request?;
                let value = first
                    .value(&head)
                    .filter(|v| !v.is_empty())
                    .or_else(|| second.as_ref()?.value(&head))?;
                path_only(&value).to_owned()
            }
            Kind::Response(first, second) => {
                either(info.response_headers?, first, second.as_deref())?
            }
            Kind::Trailer(first, second) => {
                either(info.response_trailers?, first, second.as_deref())?
            }
            Kind::Query(name) => info.request?.query_param(name)?.to_owned(),
            Kind::Certificate(side, field) => {
                certificate_field(certificate_of(*side, info)?, *field)?
            }
            Kind::Metadata(source, path) => {
                let all = metadata_of(*source, info)?;
                let mut keys = path.iter();
                let mut value = all.get(keys.next()?)?;
                for key in keys {
                    value = value.get(key)?;
                }
                match value {
                    Value::String(text) => text.clone(),
                    Value::Null => return None,
                    other => return Some(other.clone()),
                }
            }
            Kind::Grpc(form) => {
                let status = |headers: &HeaderMap| {
                    headers
                        .get("grpc-status")?
                        .to_str()
                        .ok()?
                        .parse::<u32>()
                        .ok()
                };
                let number = info
                    .response_trailers
                    .and_then(status)
                    .or_else(|| info.response_headers.and_then(status))?;
                match form {
                    GrpcForm::Number => return Some(Value::from(number)),
                    GrpcForm::Camel => GRPC
                        .get(number as usize)
                        .map_or_else(|| number.to_string(), |n| n.0.to_owned()),
                    GrpcForm::Snake => GRPC
                        .get(number as usize)
                        .map_or_else(|| number.to_string(), |n| n.1.to_owned()),
                }
            }
        };
        Some(Value::String(match max {
            Some(max) => text.chars().take(max).collect(),
            None => text,
        }))
    }
}

const GRPC: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

fn either(headers: &HeaderMap, first: &str, second: Option<&str>) -> Option<String> {
    let get = |name: &str| formatted(headers, name).filter(|value| !value.is_empty());
    get(first)
        .or_else(|| second.and_then(get))
        .map(|value| value.into_owned())
}

fn address(name: &str) -> Option<Kind> {
    const BASES: [(&str, Address); 5] = [
        ("DOWNSTREAM_REMOTE", Address::Remote),
        ("DOWNSTREAM_DIRECT_REMOTE", Address::DirectRemote),
        ("DOWNSTREAM_LOCAL", Address::Local),
        ("UPSTREAM_REMOTE", Address::UpstreamRemote),
        ("UPSTREAM_LOCAL", Address::UpstreamLocal),
    ];
    BASES.into_iter().find_map(|(base, which)| {
        let part = match name.strip_prefix(base)? {
            "_ADDRESS" => Part::Whole,
            "_ADDRESS_WITHOUT_PORT" => Part::Host,
            "_PORT" => Part::Port,
            _ => return None,
        };
        Some(Kind::Address(which, part))
    })
}

fn address_of(which: Address, info: &StreamInfo<'_>) -> Option<SocketAddr> {
    match which {
        Address::Remote => Some(info.remote()),
        Address::DirectRemote => Some(info.connection.remote),
        Address::Local => Some(info.connection.local),
        Address::UpstreamRemote => info.upstream_host,
        Address::UpstreamLocal => info.upstream_local,
    }
}

fn certificate(name: &str) -> Option<Kind> {
    const SIDES: [(&str, Side); 4] = [
        ("DOWNSTREAM_PEER_", Side::Peer),
        ("DOWNSTREAM_LOCAL_", Side::Local),
        ("UPSTREAM_PEER_", Side::UpstreamPeer),
        ("UPSTREAM_LOCAL_", Side::UpstreamLocal),
    ];
    SIDES.into_iter().find_map(|(side, which)| {
        let field = match name.strip_prefix(side)? {
            "URI_SAN" => CertificateField::Uri,
            "DNS_SAN" => CertificateField::Dns,
            "SUBJECT" => CertificateField::Subject,
            "ISSUER" => CertificateField::Issuer,
            "SERIAL" => CertificateField::Serial,
            "FINGERPRINT_256" => CertificateField::Sha256,
            "CERT" => CertificateField::Pem,
            "CERT_V_START" => CertificateField::NotBefore,
            "CERT_V_END" => CertificateField::NotAfter,
            _ => return None,
        };
        Some(Kind::Certificate(which, field))
    })
}

fn certificate_of<'a>(side: Side, info: &StreamInfo<'a>) -> Option<&'a Certificate> {
    fn peer(tls: &TlsSession) -> Option<&Certificate> {
        tls.peer.as_deref()
    }
    fn local(tls: &TlsSession) -> Option<&Certificate> {
        tls.local.as_deref()
    }
    match side {
        Side::Peer => peer(info.connection.tls.as_deref()?),
        Side::Local => local(info.connection.tls.as_deref()?),
        Side::UpstreamPeer => peer(info.upstream_tls?),
        Side::UpstreamLocal => local(info.upstream_tls?),
    }
}

fn certificate_field(certificate: &Certificate, field: CertificateField) -> Option<String> {
    let moment = |time: Option<std::time::SystemTime>| {
        let mut text = String::new();
        time::iso8601(time?, &mut text);
        Some(text)
    };
    let text = match field {
        CertificateField::Uri => certificate.uris.join(","),
        CertificateField::Dns => certificate.dns.join(","),
        CertificateField::Subject => certificate.subject.clone(),
        CertificateField::Issuer => certificate.issuer.clone(),
        CertificateField::Serial => certificate.serial.clone(),
        CertificateField::Sha256 => certificate.sha256.clone(),
        CertificateField::Pem => certificate.url_encoded_pem.clone(),
        CertificateField::NotBefore => moment(certificate.not_before)?,
        CertificateField::NotAfter => moment(certificate.not_after)?,
    };
    Some(text).filter(|text| !text.is_empty())
}

fn metadata_of<'a>(source: Source, info: &StreamInfo<'a>) -> Option<&'a Metadata> {
    match source {
        Source::Dynamic => Some(info.metadata),
        Source::Cluster => info.cluster_metadata,
        Source::Upstream => info.upstream_metadata,
        Source::Route => info.route_metadata,
        Source::FilterState => info.filter_state,
    }
}
