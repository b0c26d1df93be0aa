//! What the access log service is told about a stream: `envoy.data.accesslog.v3`.

use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use dataplane::request::header_bytes;
use dataplane::stream::{Certificate, TlsSession};
use dataplane::{ResponseFlags, StreamInfo};
use http::{HeaderMap, HeaderName};
use xds::envoy::config::core::v3 as core;
use xds::envoy::data::accesslog::v3::http_access_log_entry::HttpVersion;
use xds::envoy::data::accesslog::v3::response_flags::{Unauthorized, unauthorized::Reason};
use xds::envoy::data::accesslog::v3::tls_properties::certificate_properties::{
    SubjectAltName, subject_alt_name::San,
};
use xds::envoy::data::accesslog::v3::tls_properties::{CertificateProperties, TlsVersion};
use xds::envoy::data::accesslog::v3::{
    AccessLogCommon, ConnectionProperties, HttpAccessLogEntry, HttpRequestProperties,
    HttpResponseProperties, ResponseFlags as Flags, TcpAccessLogEntry, TlsProperties,
};
use xds::envoy::extensions::access_loggers::grpc::v3::HttpGrpcAccessLogConfig;

use super::Moment;

/// The headers that are told beside the usual ones.
#[derive(Debug)]
pub struct Headers {
    request: Vec<HeaderName>,
    response: Vec<HeaderName>,
    trailers: Vec<HeaderName>,
}

impl Headers {
    /// Reads their names.
    ///
    /// # Errors
    /// When one is no name of a header.
    pub fn compile(config: &HttpGrpcAccessLogConfig) -> Result<Self, String> {
        let names = |names: &[String], field: &str| -> Result<Vec<HeaderName>, String> {
            let name = |name: &String| {
                HeaderName::try_from(name.as_str())
                    .map_err(|_| format!("{field}: {name:?} is not the name of a header"))
            };
            names.iter().map(name).collect()
        };
        Ok(Self {
            request: names(
                &config.additional_request_headers_to_log,
                "additional_request_headers_to_log",
            )?,
            response: names(
                &config.additional_response_headers_to_log,
                "additional_response_headers_to_log",
            )?,
            trailers: names(
                &config.additional_response_trailers_to_log,
                "additional_response_trailers_to_log",
            )?,
        })
    }
}

/// The entry of a TCP connection, which is called `id`.
pub fn tcp(moment: Moment, info: &StreamInfo<'_>, id: String) -> TcpAccessLogEntry {
    TcpAccessLogEntry {
        common_properties: Some(AccessLogCommon {
            stream_id: id,
            ..common(moment, info)
        }),
        connection_properties: Some(ConnectionProperties {
            received_bytes: info.bytes_received,
            sent_bytes: info.bytes_sent,
        }),
    }
}

/// The entry of a request.
pub fn http(moment: Moment, info: &StreamInfo<'_>, headers: &Headers) -> HttpAccessLogEntry {
    HttpAccessLogEntry {
        common_properties: Some(common(moment, info)),
        protocol_version: match info.protocol {
            Some("HTTP/1.0") => HttpVersion::Http10,
            Some("HTTP/1.1") => HttpVersion::Http11,
            Some("HTTP/2") => HttpVersion::Http2,
            _ => HttpVersion::ProtocolUnspecified,
        } as i32,
        request: Some(request(info, headers)),
        response: Some(response(info, headers)),
    }
}

fn request(info: &StreamInfo<'_>, headers: &Headers) -> HttpRequestProperties {
    let mut out = HttpRequestProperties {
        request_body_bytes: info.bytes_received,
        ..HttpRequestProperties::default()
    };
    let Some(head) = &info.request else {
        return out;
    };
    let header = |name: &str| head.header(name).unwrap_or_default().into_owned();
    out.request_method = core::RequestMethod::from_str_name(head.method.as_str())
        .unwrap_or_default()
        .into();
    out.scheme = head.scheme.to_owned();
    out.authority = head.authority.to_owned();
    out.path = head.path.to_owned();
    out.user_agent = header("user-agent");
    out.referer = header("referer");
    out.forwarded_for = header("x-forwarded-for");
    out.request_id = header("x-request-id");
    out.original_path = header("x-envoy-original-path");
    out.request_headers_bytes = head.bytes();
    out.request_headers = chosen(Some(head.headers), &headers.request);
    out
}

fn response(info: &StreamInfo<'_>, headers: &Headers) -> HttpResponseProperties {
    HttpResponseProperties {
        response_code: info.response_code.map(u32::from),
        response_code_details: info.response_code_details.unwrap_or_default().to_owned(),
        response_headers_bytes: info.response_headers.map_or(0, |headers| {
            header_bytes(headers) + ":status200".len() as u64
        }),
        response_body_bytes: info.bytes_sent,
        response_headers: chosen(info.response_headers, &headers.response),
        response_trailers: chosen(info.response_trailers, &headers.trailers),
        // How many bytes heads took on the wire is not counted.
        ..HttpResponseProperties::default()
    }
}

fn chosen(
    headers: Option<&HeaderMap>,
    names: &[HeaderName],
) -> std::collections::BTreeMap<String, String> {
    let value = |name: &HeaderName| {
        let value = dataplane::request::joined(headers?, name.as_str())?;
        Some((name.to_string(), value.into_owned()))
    };
    names.iter().filter_map(value).collect()
}

fn common(moment: Moment, info: &StreamInfo<'_>) -> AccessLogCommon {
    let connection = info.connection;
    let since = info.start.duration_since(UNIX_EPOCH).unwrap_or_default();
    AccessLogCommon {
        downstream_remote_address: Some(address(info.remote())),
        downstream_direct_remote_address: Some(address(connection.remote)),
        downstream_local_address: Some(address(connection.local)),
        tls_properties: tls(connection.server_name.as_deref(), connection.tls.as_deref()),
        start_time: Some(xds::prost_types::Timestamp {
            seconds: since.as_secs() as i64,
            nanos: since.subsec_nanos() as i32,
        }),
        time_to_last_rx_byte: info.request_duration.map(duration),
        time_to_first_upstream_tx_byte: info.sent_duration.map(duration),
        time_to_first_upstream_rx_byte: info.response_duration.map(duration),
        duration: info.duration.map(duration),
        upstream_remote_address: info.upstream_host.map(address),
        upstream_local_address: info.upstream_local.map(address),
        // A cluster without a host to choose had no part in it.
        upstream_cluster: info
            .upstream_cluster_raw
            .filter(|_| info.upstream_host.is_some())
            .unwrap_or_default()
            .to_owned(),
        upstream_transport_failure_reason: info
            .upstream_transport_failure_reason
            .unwrap_or_default()
            .to_owned(),
        upstream_request_attempt_count: info.attempts.unwrap_or_default(),
        response_flags: flags(info.flags),
        metadata: (!info.metadata.is_empty()).then(|| core::Metadata {
            filter_metadata: info
                .metadata
                .iter()
                .filter_map(|(name, value)| {
                    let fields = dataplane::matching::json_to_struct(value.as_object()?);
                    Some((name.clone(), fields))
                })
                .collect(),
            ..core::Metadata::default()
        }),
        route_name: info.route_name.unwrap_or_default().to_owned(),
        connection_termination_details: info
            .connection_termination_details
            .unwrap_or_default()
            .to_owned(),
        stream_id: info
            .request
            .and_then(|head| head.header("x-request-id"))
            .unwrap_or_default()
            .into_owned(),
        downstream_wire_bytes_received: info.wire.downstream_received + info.bytes_received,
        downstream_wire_bytes_sent: info.wire.downstream_sent + info.bytes_sent,
        access_log_type: moment.into(),
        ..AccessLogCommon::default()
    }
}

fn address(address: SocketAddr) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: address.ip().to_string(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(
                address.port().into(),
            )),
            ..core::SocketAddress::default()
        })),
    }
}

fn duration(duration: Duration) -> xds::prost_types::Duration {
    xds::prost_types::Duration {
        seconds: duration.as_secs() as i64,
        nanos: duration.subsec_nanos() as i32,
    }
}

fn tls(server_name: Option<&str>, session: Option<&TlsSession>) -> Option<TlsProperties> {
    if server_name.is_none() && session.is_none() {
        return None;
    }
    let certificate = |certificate: Option<&Certificate>| CertificateProperties {
        subject_alt_name: certificate
            .into_iter()
            .flat_map(|certificate| &certificate.uris)
            .map(|uri| SubjectAltName {
                san: Some(San::Uri(uri.clone())),
            })
            .collect(),
        subject: certificate.map_or_else(String::new, |certificate| certificate.subject.clone()),
        issuer: certificate.map_or_else(String::new, |certificate| certificate.issuer.clone()),
    };
    Some(TlsProperties {
        tls_version: match session.map(|session| session.version) {
            Some("TLSv1.2") => TlsVersion::TlSv12,
            Some("TLSv1.3") => TlsVersion::TlSv13,
            _ => TlsVersion::VersionUnspecified,
        } as i32,
        tls_cipher_suite: session.and_then(|session| cipher_suite(&session.cipher)),
        tls_sni_hostname: server_name.unwrap_or_default().to_owned(),
        local_certificate_properties: session.map(|session| certificate(session.local.as_deref())),
        peer_certificate_properties: session.map(|session| certificate(session.peer.as_deref())),
        ..TlsProperties::default()
    })
}

/// The number of a cipher suite, from the registry of TLS parameters, by its OpenSSL name.
fn cipher_suite(name: &str) -> Option<u32> {
    const SUITES: [(&str, u32); 9] = [
        ("TLS_AES_128_GCM_SHA256", 0x1301),
        ("TLS_AES_256_GCM_SHA384", 0x1302),
        ("TLS_CHACHA20_POLY1305_SHA256", 0x1303),
        ("ECDHE-ECDSA-AES128-GCM-SHA256", 0xc02b),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", 0xc02c),
        ("ECDHE-RSA-AES128-GCM-SHA256", 0xc02f),
        ("ECDHE-RSA-AES256-GCM-SHA384", 0xc030),
        ("ECDHE-RSA-CHACHA20-POLY1305", 0xcca8),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", 0xcca9),
    ];
    let found = SUITES.iter().find(|(suite, _)| *suite == name);
    found.map(|(_, number)| *number)
}

fn flags(flags: ResponseFlags) -> Option<Flags> {
    if flags.is_empty() {
        return None;
    }
    let has = |flag: ResponseFlags| flags.contains(flag);
    Some(Flags {
        failed_local_healthcheck: has(ResponseFlags::FAILED_LOCAL_HEALTH_CHECK),
        no_healthy_upstream: has(ResponseFlags::NO_HEALTHY_UPSTREAM),
        upstream_request_timeout: has(ResponseFlags::UPSTREAM_REQUEST_TIMEOUT),
        local_reset: has(ResponseFlags::LOCAL_RESET),
        upstream_remote_reset: has(ResponseFlags::UPSTREAM_REMOTE_RESET),
        upstream_connection_failure: has(ResponseFlags::UPSTREAM_CONNECTION_FAILURE),
        upstream_connection_termination: has(ResponseFlags::UPSTREAM_CONNECTION_TERMINATION),
        upstream_overflow: has(ResponseFlags::UPSTREAM_OVERFLOW),
        no_route_found: has(ResponseFlags::NO_ROUTE_FOUND),
        delay_injected: has(ResponseFlags::DELAY_INJECTED),
        fault_injected: has(ResponseFlags::FAULT_INJECTED),
        rate_limited: has(ResponseFlags::RATE_LIMITED),
        unauthorized_details: has(ResponseFlags::UNAUTHORIZED_EXTERNAL_SERVICE).then_some(
            Unauthorized {
                reason: Reason::ExternalService.into(),
            },
        ),
        rate_limit_service_error: has(ResponseFlags::RATELIMIT_SERVICE_ERROR),
        downstream_connection_termination: has(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION),
        upstream_retry_limit_exceeded: has(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED),
        stream_idle_timeout: has(ResponseFlags::STREAM_IDLE_TIMEOUT),
        invalid_envoy_request_headers: has(ResponseFlags::INVALID_ENVOY_REQUEST_HEADERS),
        downstream_protocol_error: has(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR),
        upstream_max_stream_duration_reached: has(
            ResponseFlags::UPSTREAM_MAX_STREAM_DURATION_REACHED,
        ),
        response_from_cache_filter: has(ResponseFlags::RESPONSE_FROM_CACHE_FILTER),
        no_filter_config_found: has(ResponseFlags::NO_FILTER_CONFIG_FOUND),
        duration_timeout: has(ResponseFlags::DURATION_TIMEOUT),
        upstream_protocol_error: has(ResponseFlags::UPSTREAM_PROTOCOL_ERROR),
        no_cluster_found: has(ResponseFlags::NO_CLUSTER_FOUND),
        overload_manager: has(ResponseFlags::OVERLOAD_MANAGER),
        dns_resolution_failure: has(ResponseFlags::DNS_RESOLUTION_FAILED),
        downstream_remote_reset: has(ResponseFlags::DOWNSTREAM_REMOTE_RESET),
    })
}
