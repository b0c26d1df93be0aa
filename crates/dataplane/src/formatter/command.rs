//! The commands between percent signs.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use http::HeaderMap;
use serde_json::Value;

use super::time;
use super::values::{
    Address, CertificateField, GRPC, HostOf, Instant, Side, Source, address_of, certificate_field,
    certificate_of, either, group, host, host_name, host_name_alone, metadata_of, millis, network,
    some,
};
use crate::error::ConfigError;
use crate::local_reply;
use crate::matching::HeaderKey;
use crate::request::{header_bytes, path_only, percent_decoded};
use crate::stream::StreamInfo;

/// One command, compiled.
#[derive(Debug, Clone)]
pub struct Command(Kind);

#[derive(Debug, Clone, Copy)]
enum Part {
    Whole,
    Host,
    /// The network of so many bits that it is in.
    Network(u8),
    Port,
}

/// What a path is taken from.
#[derive(Debug, Clone, Copy)]
enum PathOf {
    /// What the client asked for, or else what the request has now.
    OriginalOrNow,
    Original,
    Now,
}

/// Where `%REQUESTED_SERVER_NAME%` looks first.
#[derive(Debug, Clone, Copy)]
enum NameOf {
    /// Nowhere but in the client hello.
    Hello,
    HelloThenHost(HostOf),
    HostThenHello(HostOf),
}

/// What may stand behind a command's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// Neither parameters nor a length.
    Nothing,
    Optional,
    OptionalAndLength,
    Required,
    RequiredAndLength,
}

impl Takes {
    fn of(name: &str) -> Self {
        match name {
            "REQ" | "RESP" | "TRAILER" | "REQUEST_HEADER" | "RESPONSE_HEADER"
            | "RESPONSE_TRAILER" | "REQ_WITHOUT_QUERY" | "DYNAMIC_METADATA"
            | "CLUSTER_METADATA" | "UPSTREAM_METADATA" | "METADATA" | "ENVIRONMENT"
            | "QUERY_PARAM" => Self::RequiredAndLength,
            "COMMON_DURATION" => Self::Required,
            "FILTER_STATE" | "UPSTREAM_FILTER_STATE" | "QUERY_PARAMS" | "PATH" => {
                Self::OptionalAndLength
            }
            "START_TIME"
            | "START_TIME_LOCAL"
            | "EMIT_TIME"
            | "EMIT_TIME_LOCAL"
            | "GRPC_STATUS"
            | "REQUESTED_SERVER_NAME"
            | "RESPONSE_CODE_DETAILS" => Self::Optional,
            name if name.ends_with("_ADDRESS_WITHOUT_PORT")
                || name.ends_with("_CERT_V_START")
                || name.ends_with("_CERT_V_END") =>
            {
                Self::Optional
            }
            _ => Self::Nothing,
        }
    }

    /// Why these must not stand there.
    fn check(self, name: &str, argument: Option<&str>, length: bool) -> Result<(), ConfigError> {
        let wrong = |problem: &str| Err(ConfigError::new("", format!("{name} {problem}")));
        let given = argument.is_some_and(|argument| !argument.is_empty());
        match self {
            Self::Nothing if argument.is_some() || length => {
                wrong("does not take any parameters or length")
            }
            Self::Required | Self::RequiredAndLength if !given => wrong("requires parameters"),
            Self::Optional | Self::Required if length => {
                wrong("does not allow length to be specified.")
            }
            _ => Ok(()),
        }
    }
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
    /// All parameters of the query.
    Queries,
    /// The path, with its query or without.
    Path(PathOf, bool),
    ServerName(NameOf),
    /// From a moment to another, in so many nanoseconds a unit.
    Between(Instant, Instant, u128),
    Address(Address, Part),
    Certificate(Side, CertificateField),
    Metadata(Source, Vec<String>),
    Grpc(GrpcForm),
}

impl Command {
    /// Reads a command with its argument; `length`: it is to be cut.
    pub fn compile(name: &str, argument: Option<&str>, length: bool) -> Result<Self, ConfigError> {
        let wrong = |problem: &str| ConfigError::new("", format!("%{name}%: {problem}"));
        let needed = || {
            argument
                .filter(|a| !a.is_empty())
                .ok_or_else(|| ConfigError::new("", format!("{name} requires parameters")))
        };
        let names = || -> Result<(String, Option<String>), ConfigError> {
            let argument = needed()?.to_ascii_lowercase();
            Ok(match argument.split_once('?') {
                Some((_, second)) if second.contains('?') => {
                    return Err(ConfigError::new(
                        "",
                        format!("More than 1 alternative header specified in token: {argument}"),
                    ));
                }
                Some((first, second)) => (
                    first.to_owned(),
                    Some(second.to_owned()).filter(|second| !second.is_empty()),
                ),
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
        let known = match address(name, argument) {
            Some(kind) => Some(kind),
            None => certificate(name, argument),
        };
        if let Some(kind) = known {
            Takes::of(name).check(name, argument, length)?;
            return Ok(Self(kind));
        }
        let choice = |choices: &str| {
            let given = argument.unwrap_or_default();
            let problem = format!("Invalid {name} option: '{given}', only {choices} are allowed");
            ConfigError::new("", problem)
        };
        let kind = Ok(Self(match name {
            "START_TIME" | "START_TIME_LOCAL" => {
                Kind::StartTime(argument.filter(|a| !a.is_empty()).map(str::to_owned))
            }
            "EMIT_TIME" | "EMIT_TIME_LOCAL" => {
                Kind::EmitTime(argument.filter(|a| !a.is_empty()).map(str::to_owned))
            }
            "REQ" | "REQUEST_HEADER" => keys().map(|(a, b)| Kind::Request(a, b))?,
            "REQ_WITHOUT_QUERY" => keys().map(|(a, b)| Kind::RequestWithoutQuery(a, b))?,
            "RESP" | "RESPONSE_HEADER" => names().map(|(a, b)| Kind::Response(a, b))?,
            "TRAILER" | "RESPONSE_TRAILER" => names().map(|(a, b)| Kind::Trailer(a, b))?,
            "QUERY_PARAM" => Kind::Query(needed()?.to_owned()),
            "QUERY_PARAMS" => match argument {
                None | Some("" | "ORIG" | "DECODED") => Kind::Queries,
                Some(_) => return Err(choice("'ORIG'/'DECODED'")),
            },
            "PATH" => {
                let (query, of) = match argument.unwrap_or_default().split_once(':') {
                    Some(parts) => parts,
                    None => (argument.unwrap_or_default(), ""),
                };
                let query = match query {
                    "" | "WQ" => true,
                    "NQ" => false,
                    _ => return Err(choice("'WQ'/'NQ'")),
                };
                let of = match of {
                    "" | "ORIG_OR_PATH" => PathOf::OriginalOrNow,
                    "ORIG" => PathOf::Original,
                    "PATH" => PathOf::Now,
                    _ => return Err(choice("'ORIG'/'PATH'/'ORIG_OR_PATH'")),
                };
                Kind::Path(of, query)
            }
            "REQUESTED_SERVER_NAME" => {
                let (first, host) = match argument.unwrap_or_default().split_once(':') {
                    Some(parts) => parts,
                    None => (argument.unwrap_or_default(), ""),
                };
                let host = match host {
                    "" | "ORIG_OR_HOST" => HostOf::OriginalOrNow,
                    "ORIG" => HostOf::Original,
                    "HOST" => HostOf::Now,
                    _ => return Err(choice("'ORIG'/'HOST'/'ORIG_OR_HOST'")),
                };
                Kind::ServerName(match first {
                    "" | "SNI_ONLY" => NameOf::Hello,
                    "SNI_FIRST" => NameOf::HelloThenHost(host),
                    "HOST_FIRST" => NameOf::HostThenHello(host),
                    _ => return Err(choice("'SNI_ONLY'/'SNI_FIRST'/'HOST_FIRST'")),
                })
            }
            "COMMON_DURATION" => between(needed()?)?,
            "PROTOCOL" => Kind::Text(|i| i.protocol.map(str::to_owned)),
            "UPSTREAM_PROTOCOL" => Kind::Text(|i| i.upstream_protocol.map(str::to_owned)),
            "RESPONSE_CODE" => Kind::Number(|i| Some(u64::from(i.response_code.unwrap_or(0)))),
            "RESPONSE_CODE_DETAILS" => match argument {
                Some("ALLOW_WHITESPACES") => {
                    Kind::Text(|i| i.response_code_details.map(str::to_owned))
                }
                _ => Kind::Text(|i| {
                    let details = i.response_code_details?;
                    Some(details.replace(|c: char| c.is_ascii_whitespace(), "_"))
                }),
            },
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
            "DOWNSTREAM_WIRE_BYTES_RECEIVED" => {
                Kind::Number(|i| Some(i.wire.downstream_received + i.bytes_received))
            }
            "DOWNSTREAM_WIRE_BYTES_SENT" => {
                Kind::Number(|i| Some(i.wire.downstream_sent + i.bytes_sent))
            }
            "UPSTREAM_WIRE_BYTES_RECEIVED" => Kind::Number(|i| Some(i.wire.upstream_received)),
            "UPSTREAM_WIRE_BYTES_SENT" => Kind::Number(|i| Some(i.wire.upstream_sent)),
            "UPSTREAM_REQUEST_ATTEMPT_COUNT" => {
                Kind::Number(|i| Some(u64::from(i.attempts.unwrap_or(0))))
            }
            "DURATION" => Kind::Number(|i| i.duration.map(millis)),
            "REQUEST_DURATION" => Kind::Number(|i| i.request_duration.map(millis)),
            "RESPONSE_DURATION" => Kind::Number(|i| i.response_duration.map(millis)),
            "REQUEST_TX_DURATION" => Kind::Number(|i| i.sent_duration.map(millis)),
            "REQUEST_HEADERS_BYTES" => {
                Kind::Number(|i| Some(i.request.map_or(0, |head| head.bytes())))
            }
            "RESPONSE_HEADERS_BYTES" => Kind::Number(|i| {
                // `:status` and its three digits.
                Some(
                    i.response_headers
                        .map_or(0, |headers| 10 + header_bytes(headers)),
                )
            }),
            "RESPONSE_TRAILERS_BYTES" => {
                Kind::Number(|i| Some(i.response_trailers.map_or(0, header_bytes)))
            }
            "RESPONSE_TX_DURATION" => {
                Kind::Number(|i| i.duration?.checked_sub(i.response_duration?).map(millis))
            }
            "UPSTREAM_HOST" => Kind::Text(|i| i.upstream_host.map(|host| host.to_string())),
            "UPSTREAM_HOST_NAME" => Kind::Text(host_name),
            "UPSTREAM_HOST_NAME_WITHOUT_PORT" => Kind::Text(host_name_alone),
            // As there: only the host of the last try, once there was a connection to it.
            "UPSTREAM_HOSTS_ATTEMPTED" => {
                Kind::Text(|i| i.upstream_local.and(i.upstream_host).map(|h| h.to_string()))
            }
            "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT" => Kind::Text(|i| {
                i.upstream_local
                    .and(i.upstream_host)
                    .map(|h| h.ip().to_string())
            }),
            "UPSTREAM_HOST_NAMES_ATTEMPTED" => {
                Kind::Text(|i| i.upstream_local.and_then(|_| host_name(i)))
            }
            "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT" => {
                Kind::Text(|i| i.upstream_local.and_then(|_| host_name_alone(i)))
            }
            "UPSTREAM_CLUSTER" => Kind::Text(|i| i.upstream_cluster.map(str::to_owned)),
            "UPSTREAM_CLUSTER_RAW" => Kind::Text(|i| i.upstream_cluster_raw.map(str::to_owned)),
            "ROUTE_NAME" => {
                Kind::Text(|i| i.route_name.filter(|n| !n.is_empty()).map(str::to_owned))
            }
            "FILTER_CHAIN_NAME" => Kind::Text(|i| {
                i.filter_chain_name
                    .filter(|n| !n.is_empty())
                    .map(str::to_owned)
            }),
            "CONNECTION_ID" => Kind::Number(|i| Some(i.connection.id)),
            "HOSTNAME" => Kind::Text(|i| i.host_name.map(str::to_owned)),
            "LOCAL_REPLY_BODY" => {
                Kind::Text(|i| Some(i.local_reply_body.unwrap_or_default().to_owned()))
            }
            "STREAM_ID" => Kind::Text(|i| Some(i.request?.header("x-request-id")?.into_owned())),
            "TRACE_ID" => Kind::Text(|i| i.trace_id.map(str::to_owned)),
            "SPAN_ID" => Kind::Text(|i| i.span_id.map(|id| format!("{id:016x}"))),
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
            "DOWNSTREAM_TLS_GROUP" => Kind::Text(|i| group(i.connection.tls.as_deref()?)),
            "UPSTREAM_TLS_GROUP" => Kind::Text(|i| group(i.upstream_tls?)),
            "UPSTREAM_SERVER_NAME" => Kind::Text(|i| i.upstream_tls?.server_name.clone()),
            "UPSTREAM_TLS_VERSION" => {
                Kind::Text(|i| i.upstream_tls.map(|tls| tls.version.to_owned()))
            }
            "UPSTREAM_TLS_CIPHER" => Kind::Text(|i| i.upstream_tls.map(|tls| tls.cipher.clone())),
            "DYNAMIC_METADATA" => Kind::Metadata(Source::Dynamic, path()?),
            "CLUSTER_METADATA" => Kind::Metadata(Source::Cluster, path()?),
            "UPSTREAM_METADATA" => Kind::Metadata(Source::Upstream, path()?),
            "FILTER_STATE" | "UPSTREAM_FILTER_STATE" => {
                let mut path = path().unwrap_or_default().into_iter();
                let key = path.next().filter(|key| !key.is_empty()).ok_or_else(|| {
                    let problem = "Invalid filter state configuration, key cannot be empty.";
                    ConfigError::new("", problem)
                })?;
                if let Some(kind) = path.next()
                    && !["PLAIN", "TYPED", "FIELD"].contains(&kind.as_str())
                {
                    return Err(ConfigError::new(
                        "",
                        "Invalid filter state serialize type, only support PLAIN/TYPED/FIELD.",
                    ));
                }
                Kind::Metadata(Source::FilterState, vec![key])
            }
            "METADATA" => {
                let mut path = path()?;
                let source = match path.remove(0).as_str() {
                    "DYNAMIC" => Source::Dynamic,
                    "CLUSTER" => Source::Cluster,
                    "UPSTREAM_HOST" => Source::Upstream,
                    "ROUTE" => Source::Route,
                    // Of these nothing is kept for formats.
                    "LISTENER" | "LISTENER_FILTER_CHAIN" | "VIRTUAL_HOST" => Source::None,
                    other => {
                        let problem = format!("{other} is not supported type of metadata");
                        return Err(ConfigError::new("", problem));
                    }
                };
                Kind::Metadata(source, path)
            }
            "GRPC_STATUS" => Kind::Grpc(match argument {
                None | Some("" | "CAMEL_STRING") => GrpcForm::Camel,
                Some("SNAKE_STRING") => GrpcForm::Snake,
                Some("NUMBER") => GrpcForm::Number,
                Some(other) => {
                    let problem = format!(
                        "GrpcStatusFormatter only supports CAMEL_STRING, SNAKE_STRING or NUMBER. Got: {other}"
                    );
                    return Err(ConfigError::new("", problem));
                }
            }),
            "GRPC_STATUS_NUMBER" => Kind::Grpc(GrpcForm::Number),
            // The environment does not change while the process runs: it is read here, once.
            // One that is not set is a dash, also where a header would be left out for want of a value.
            "ENVIRONMENT" => Kind::Fixed(Some(
                std::env::var(needed()?).unwrap_or_else(|_| "-".to_owned()),
            )),
            // No filter sets flags of its own; addresses of this machine have no number.
            "CUSTOM_FLAGS"
            | "DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID"
            | "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID" => Kind::Fixed(Some(String::new())),
            "UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID" => {
                Kind::Text(|i| i.upstream_local.map(|_| String::new()))
            }
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
            | "DOWNSTREAM_CX_RTT"
            | "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED"
            | "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT"
            | "DOWNSTREAM_DETECTED_CLOSE_TYPE"
            | "DOWNSTREAM_DIRECT_LOCAL_ADDRESS"
            | "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT"
            | "DOWNSTREAM_DIRECT_LOCAL_PORT"
            | "DOWNSTREAM_HANDSHAKE_DURATION"
            | "DOWNSTREAM_HEADER_BYTES_RECEIVED"
            | "DOWNSTREAM_HEADER_BYTES_SENT"
            | "DOWNSTREAM_LOCAL_EMAIL_SAN"
            | "DOWNSTREAM_LOCAL_OTHERNAME_SAN"
            | "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1"
            | "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256"
            | "DOWNSTREAM_PEER_CHAIN_SERIALS"
            | "DOWNSTREAM_PEER_EMAIL_SAN"
            | "DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256"
            | "DOWNSTREAM_PEER_ISSUER_SERIAL"
            | "DOWNSTREAM_PEER_OTHERNAME_SAN"
            | "ROUNDTRIP_DURATION"
            | "ROUTE_RESOLUTION_COUNT"
            | "ROUTE_RESOLUTION_TIME_US"
            | "UPSTREAM_CONNECTION_ID"
            | "UPSTREAM_CONNECTION_IDS_ATTEMPTED"
            | "UPSTREAM_CONNECTION_POOL_READY_DURATION"
            | "UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED"
            | "UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT"
            | "UPSTREAM_DETECTED_CLOSE_TYPE"
            | "UPSTREAM_HEADER_BYTES_RECEIVED"
            | "UPSTREAM_HEADER_BYTES_SENT"
            | "UPSTREAM_LOCAL_CLOSE_REASON"
            | "UNIQUE_ID" => Kind::Fixed(None),
            "CEL" | "COALESCE" => return Err(wrong("is not supported by this proxy")),
            _ => {
                let problem = format!("Not supported field in StreamInfo: {name}");
                return Err(ConfigError::new("", problem));
            }
        }));
        // Who has never heard of a command says so, and not what stands behind it.
        Takes::of(name).check(name, argument, length)?;
        kind
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
                    Part::Host => drop(write!(out, "{}", address.ip())),
                    Part::Network(bits) => drop(write!(out, "{}", network(address.ip(), *bits))),
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
            Kind::Query(name) => percent_decoded(info.request?.query_param(name)?),
            Kind::Queries => {
                let (_, query) = info.request?.path.split_once('?')?;
                query.to_owned()
            }
            Kind::Path(of, query) => {
                let head = info.request?;
                let original = || head.header("x-envoy-original-path");
                let now = || Some(Cow::Borrowed(head.path));
                let path = match of {
                    PathOf::OriginalOrNow => original().or_else(now),
                    PathOf::Original => original(),
                    PathOf::Now => now(),
                }?;
                if *query {
                    path.into_owned()
                } else {
                    path.split('?').next().unwrap_or_default().to_owned()
                }
            }
            Kind::ServerName(of) => {
                let hello = || Some(info.connection.server_name.as_deref()?.to_owned());
                let host = |of: &HostOf| host(info, *of);
                let name = match of {
                    NameOf::Hello => hello(),
                    NameOf::HelloThenHost(of) => some(hello()).or_else(|| host(of)),
                    NameOf::HostThenHello(of) => some(host(of)).or_else(hello),
                };
                some(name)?
            }
            Kind::Between(start, end, unit) => {
                let passed = end.of(info)?.checked_sub(start.of(info)?)?;
                return Some(Value::from((passed.as_nanos() / unit) as u64));
            }
            Kind::Certificate(side, field) => {
                certificate_field(certificate_of(*side, info)?, field)?
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
                if !info.request?.is_grpc() {
                    return None;
                }
                let number = info
                    .response_trailers
                    .and_then(status)
                    .or_else(|| info.response_headers.and_then(status))
                    .or_else(|| info.response_code.map(local_reply::grpc_status))?;
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

fn address(name: &str, argument: Option<&str>) -> Option<Kind> {
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
            "_ADDRESS_WITHOUT_PORT" => match argument.and_then(|bits| bits.parse().ok()) {
                Some(bits) => Part::Network(bits),
                None => Part::Host,
            },
            "_PORT" => Part::Port,
            _ => return None,
        };
        Some(Kind::Address(which, part))
    })
}

fn certificate(name: &str, argument: Option<&str>) -> Option<Kind> {
    let format = || argument.filter(|format| !format.is_empty()).map(Arc::from);
    const SIDES: [(&str, Side); 4] = [
        ("DOWNSTREAM_PEER_", Side::Peer),
        ("DOWNSTREAM_LOCAL_", Side::Local),
        ("UPSTREAM_PEER_", Side::UpstreamPeer),
        ("UPSTREAM_LOCAL_", Side::UpstreamLocal),
    ];
    SIDES.into_iter().find_map(|(side, which)| {
        // Of each certificate other things can be asked.
        let field = match (which, name.strip_prefix(side)?) {
            (_, "URI_SAN") => CertificateField::Uri,
            (_, "DNS_SAN") => CertificateField::Dns,
            (_, "IP_SAN") => CertificateField::Ip,
            (Side::Peer | Side::Local | Side::UpstreamPeer, "SUBJECT") => CertificateField::Subject,
            (Side::Peer | Side::UpstreamPeer, "ISSUER") => CertificateField::Issuer,
            (Side::Peer, "SERIAL") => CertificateField::Serial,
            (Side::Peer, "FINGERPRINT_256") => CertificateField::Sha256,
            (Side::Peer, "FINGERPRINT_1") => CertificateField::Sha1,
            (Side::Peer | Side::UpstreamPeer, "CERT") => CertificateField::Pem,
            (Side::Peer | Side::UpstreamPeer, "CERT_V_START") => {
                CertificateField::NotBefore(format())
            }
            (Side::Peer | Side::UpstreamPeer, "CERT_V_END") => CertificateField::NotAfter(format()),
            _ => return None,
        };
        Some(Kind::Certificate(which, field))
    })
}

/// `FROM:TO[:UNIT]` of `%COMMON_DURATION%`.
fn between(argument: &str) -> Result<Kind, ConfigError> {
    let mut parts = argument.split(':');
    let (Some(from), Some(to)) = (parts.next(), parts.next()) else {
        let problem = format!("Invalid common duration configuration: {argument}.");
        return Err(ConfigError::new("", problem));
    };
    let unit = match parts.next() {
        None | Some("ms") => 1_000_000,
        Some("us") => 1_000,
        Some("ns") => 1,
        Some(other) => {
            let problem = format!("Invalid common duration precision: {other}.");
            return Err(ConfigError::new("", problem));
        }
    };
    Ok(Kind::Between(
        Instant::compile(from),
        Instant::compile(to),
        unit,
    ))
}
