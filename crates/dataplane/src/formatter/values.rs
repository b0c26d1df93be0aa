//! Where the values of commands come from.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

use super::time;
use crate::request::formatted;
use crate::stream::{Certificate, Metadata, StreamInfo, TlsSession};

/// Which host of the request.
#[derive(Debug, Clone, Copy)]
pub(super) enum HostOf {
    Now,
    Original,
    OriginalOrNow,
}

/// A moment of a request, for `%COMMON_DURATION%`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Instant {
    /// The request begins to come.
    Begin,
    /// It is there.
    Received,
    /// It is sent to the upstream.
    Sent,
    /// The answer begins to come.
    Answered,
    /// The answer is passed on.
    End,
    /// One that is not measured here.
    Unknown,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Address {
    Remote,
    DirectRemote,
    Local,
    UpstreamRemote,
    UpstreamLocal,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Peer,
    Local,
    UpstreamPeer,
    UpstreamLocal,
}

#[derive(Debug, Clone)]
pub(super) enum CertificateField {
    Uri,
    Dns,
    Subject,
    Issuer,
    Serial,
    Sha256,
    Sha1,
    Ip,
    Pem,
    NotBefore(Option<TimeFormat>),
    NotAfter(Option<TimeFormat>),
}

/// A format of times, as in `%START_TIME(...)%`.
pub(super) type TimeFormat = Arc<str>;

#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    Dynamic,
    Cluster,
    Upstream,
    Route,
    FilterState,
    None,
}

pub(super) const GRPC: [(&str, &str); 17] = [
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

pub(super) fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

pub(super) fn either(headers: &HeaderMap, first: &str, second: Option<&str>) -> Option<String> {
    let get = |name: &str| formatted(headers, name).filter(|value| !value.is_empty());
    get(first)
        .or_else(|| second.and_then(get))
        .map(|value| value.into_owned())
}

pub(super) fn some(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

pub(super) fn group(tls: &TlsSession) -> Option<String> {
    some(Some(tls.group.to_owned()))
}

pub(super) fn host_name(info: &StreamInfo<'_>) -> Option<String> {
    let named = info.upstream_host_name.filter(|name| !name.is_empty());
    named
        .map(str::to_owned)
        .or_else(|| info.upstream_host.map(|host| host.to_string()))
}

pub(super) fn host_name_alone(info: &StreamInfo<'_>) -> Option<String> {
    Some(without_port(&host_name(info)?).to_owned())
}

pub(super) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

pub(super) fn host(info: &StreamInfo<'_>, of: HostOf) -> Option<String> {
    let head = info.request?;
    let now = || Some(head.authority.to_owned());
    let original = || head.header("x-envoy-original-host").map(Cow::into_owned);
    let host = match of {
        HostOf::Now => now(),
        HostOf::Original => original(),
        HostOf::OriginalOrNow => original().or_else(now),
    }?;
    Some(without_port(&host).to_owned())
}

/// The network of so many bits that an address is in.
pub(super) fn network(address: IpAddr, bits: u8) -> String {
    match address {
        IpAddr::V4(address) => {
            let bits = bits.min(32);
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            format!("{}/{bits}", Ipv4Addr::from(u32::from(address) & mask))
        }
        IpAddr::V6(address) => {
            let bits = bits.min(128);
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            format!("{}/{bits}", Ipv6Addr::from(u128::from(address) & mask))
        }
    }
}

impl Instant {
    pub(super) fn compile(name: &str) -> Self {
        match name {
            "DS_RX_BEG" => Self::Begin,
            "DS_RX_END" => Self::Received,
            "US_TX_BEG" => Self::Sent,
            "US_RX_BEG" => Self::Answered,
            "DS_TX_END" => Self::End,
            _ => Self::Unknown,
        }
    }

    /// When it was, from the beginning.
    pub(super) fn of(self, info: &StreamInfo<'_>) -> Option<Duration> {
        match self {
            Self::Begin => Some(Duration::ZERO),
            Self::Received => info.request_duration,
            Self::Sent => info.sent_duration,
            Self::Answered => info.response_duration,
            Self::End => info.duration,
            Self::Unknown => None,
        }
    }
}

pub(super) fn address_of(which: Address, info: &StreamInfo<'_>) -> Option<SocketAddr> {
    match which {
        Address::Remote => Some(info.remote()),
        Address::DirectRemote => Some(info.connection.remote),
        Address::Local => Some(info.connection.local),
        Address::UpstreamRemote => info.upstream_local.and(info.upstream_host),
        Address::UpstreamLocal => info.upstream_local,
    }
}

pub(super) fn certificate_of<'a>(side: Side, info: &StreamInfo<'a>) -> Option<&'a Certificate> {
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

pub(super) fn certificate_field(
    certificate: &Certificate,
    field: &CertificateField,
) -> Option<String> {
    let moment = |time: Option<std::time::SystemTime>, format: &Option<TimeFormat>| {
        let mut text = String::new();
        match format {
            Some(format) => time::strftime(time?, format, &mut text),
            None => time::iso8601(time?, &mut text),
        }
        Some(text)
    };
    let text = match field {
        CertificateField::Uri => certificate.uris.join(","),
        CertificateField::Dns => certificate.dns.join(","),
        CertificateField::Subject => certificate.subject.clone(),
        CertificateField::Issuer => certificate.issuer.clone(),
        CertificateField::Serial => certificate.serial.clone(),
        CertificateField::Sha256 => certificate.sha256.clone(),
        CertificateField::Sha1 => certificate.sha1.clone(),
        CertificateField::Ip => certificate.ips.join(","),
        CertificateField::Pem => certificate.url_encoded_pem.clone(),
        CertificateField::NotBefore(format) => moment(certificate.not_before, format)?,
        CertificateField::NotAfter(format) => moment(certificate.not_after, format)?,
    };
    Some(text).filter(|text| !text.is_empty())
}

pub(super) fn metadata_of<'a>(source: Source, info: &StreamInfo<'a>) -> Option<&'a Metadata> {
    match source {
        Source::Dynamic => Some(info.metadata),
        Source::Cluster => info.cluster_metadata,
        Source::Upstream => info.upstream_metadata,
        Source::Route => info.route_metadata,
        Source::FilterState => info.filter_state,
        Source::None => None,
    }
}
