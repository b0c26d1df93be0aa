//! What is known about a connection and about one stream on it: the input of access logs, header
//! formatting and access rules.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use serde_json::{Map, Value};

use crate::flags::ResponseFlags;
use crate::request::RequestHead;

/// Metadata that filters leave for each other: filter name (e.g. `envoy.filters.http.jwt_authn`) to a value.
pub type Metadata = Map<String, Value>;

/// What is read from a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Certificate {
    /// URI SANs, in order (`spiffe://...`).
    pub uris: Vec<String>,
    /// DNS SANs, in order.
    pub dns: Vec<String>,
    /// Address SANs, in order.
    pub ips: Vec<String>,
    /// The subject, RFC 2253 form.
    pub subject: String,
    /// The issuer, RFC 2253 form.
    pub issuer: String,
    /// The serial number, lower-case hexadecimal.
    pub serial: String,
    /// SHA-256 of the DER form, lower-case hexadecimal.
    pub sha256: String,
    /// SHA-1 of the DER form, lower-case hexadecimal.
    pub sha1: String,
    /// The certificate as URL-encoded PEM (XFCC's `Cert`).
    pub url_encoded_pem: String,
    /// Valid from.
    pub not_before: Option<SystemTime>,
    /// Valid until.
    pub not_after: Option<SystemTime>,
}

/// A TLS session with the client or with an upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsSession {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite by its OpenSSL name.
    pub cipher: String,
    /// The group of the key exchange, by OpenSSL's name; empty when it is unknown.
    pub group: &'static str,
    /// The server name we asked for, towards an upstream.
    pub server_name: Option<String>,
    /// The certificate we showed.
    pub local: Option<Arc<Certificate>>,
    /// The certificate the peer showed and that was verified.
    pub peer: Option<Arc<Certificate>>,
}

/// A downstream connection.
#[derive(Debug, Clone)]
pub struct Connection {
    /// A number of its own in this process.
    pub id: u64,
    /// The peer of the TCP connection.
    pub remote: SocketAddr,
    /// The address the peer wanted: the original destination where connections are redirected.
    pub local: SocketAddr,
    /// The TLS session, if the connection was terminated as TLS.
    pub tls: Option<Arc<TlsSession>>,
    /// The server name asked for in the client hello, whether TLS was terminated or not.
    pub server_name: Option<Arc<str>>,
    /// When it was accepted.
    pub start: SystemTime,
}

impl Connection {
    /// The verified certificate of the peer.
    pub fn peer_certificate(&self) -> Option<&Certificate> {
        self.tls.as_ref()?.peer.as_deref()
    }

    /// The peer's principal as access rules see it: first URI SAN, else first DNS SAN, else the subject.
    pub fn principal(&self) -> Option<&str> {
        let peer = self.peer_certificate()?;
        Some(
            peer.uris
                .first()
                .or(peer.dns.first())
                .unwrap_or(&peer.subject),
        )
    }
}

/// One stream (a request, or a whole connection for TCP) as far as it has come. Times are measured from
/// the stream's start. Everything unknown is `None`.
#[derive(Debug, Clone)]
pub struct StreamInfo<'a> {
    /// The connection it came on.
    pub connection: &'a Connection,
    /// The head of the request as it came or as it is now; `None` for TCP.
    pub request: Option<RequestHead<'a>>,
    /// The response headers.
    pub response_headers: Option<&'a HeaderMap>,
    /// The response trailers.
    pub response_trailers: Option<&'a HeaderMap>,
    /// When it began.
    pub start: SystemTime,
    /// Until the request was read.
    pub request_duration: Option<Duration>,
    /// Until the last try was sent.
    pub sent_duration: Option<Duration>,
    /// Until the first byte from the upstream.
    pub response_duration: Option<Duration>,
    /// Until the end.
    pub duration: Option<Duration>,
    /// `HTTP/1.0`, `HTTP/1.1`, `HTTP/2`.
    pub protocol: Option<&'a str>,
    /// The same, upstream.
    pub upstream_protocol: Option<&'a str>,
    /// The status sent to the client; `None` is logged as 0.
    pub response_code: Option<u16>,
    /// Why (`via_upstream`, `route_not_found`, ...).
    pub response_code_details: Option<&'a str>,
    /// Why the connection was ended.
    pub connection_termination_details: Option<&'a str>,
    /// What went wrong on the transport to the upstream.
    pub upstream_transport_failure_reason: Option<&'a str>,
    /// The response flags.
    pub flags: ResponseFlags,
    /// Body bytes from the client.
    pub bytes_received: u64,
    /// Body bytes to the client.
    pub bytes_sent: u64,
    /// Bytes on the wire, heads included: from the client, to the client, to the upstream, from the upstream.
    pub wire: WireBytes,
    /// The client, seen through x-forwarded-for; the connection's peer when `None`.
    pub downstream_remote: Option<SocketAddr>,
    /// The endpoint.
    pub upstream_host: Option<SocketAddr>,
    /// Its name, if it has one.
    pub upstream_host_name: Option<&'a str>,
    /// Our end of the connection to it.
    pub upstream_local: Option<SocketAddr>,
    /// The TLS session with it.
    pub upstream_tls: Option<&'a TlsSession>,
    /// The cluster's name (or its alternative stat name: `%UPSTREAM_CLUSTER%`).
    pub upstream_cluster: Option<&'a str>,
    /// The cluster's real name (`%UPSTREAM_CLUSTER_RAW%`).
    pub upstream_cluster_raw: Option<&'a str>,
    /// How often the request was sent.
    pub attempts: Option<u32>,
    /// The route's name.
    pub route_name: Option<&'a str>,
    /// The virtual host's name.
    pub virtual_host_name: Option<&'a str>,
    /// The name of the filter chain.
    pub filter_chain_name: Option<&'a str>,
    /// What the filters left.
    pub metadata: &'a Metadata,
    /// Metadata of the cluster (filter name -> struct).
    pub cluster_metadata: Option<&'a Metadata>,
    /// Metadata of the route.
    pub route_metadata: Option<&'a Metadata>,
    /// Metadata of the endpoint.
    pub upstream_metadata: Option<&'a Metadata>,
    /// Filter state objects that print as text.
    pub filter_state: Option<&'a Metadata>,
    /// Body of a local reply (`%LOCAL_REPLY_BODY%`).
    pub local_reply_body: Option<&'a str>,
    /// The name of this machine (`%HOSTNAME%`).
    pub host_name: Option<&'a str>,
    /// The trace this request belongs to (`%TRACE_ID%`).
    pub trace_id: Option<&'a str>,
    /// The number of the request's span in it.
    pub span_id: Option<u64>,
    /// Its spans are collected.
    pub traced: bool,
    /// It is a health check.
    pub health_check: bool,
}

/// Bytes on the wire, heads included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WireBytes {
    /// From the client.
    pub downstream_received: u64,
    /// To the client.
    pub downstream_sent: u64,
    /// To the upstream.
    pub upstream_sent: u64,
    /// From the upstream.
    pub upstream_received: u64,
}

impl<'a> StreamInfo<'a> {
    /// A stream about which nothing is known but its connection and its start.
    pub fn new(connection: &'a Connection, metadata: &'a Metadata, start: SystemTime) -> Self {
        Self {
            connection,
            request: None,
            response_headers: None,
            response_trailers: None,
            start,
            request_duration: None,
            sent_duration: None,
            response_duration: None,
            duration: None,
            protocol: None,
            upstream_protocol: None,
            response_code: None,
            response_code_details: None,
            connection_termination_details: None,
            upstream_transport_failure_reason: None,
            flags: ResponseFlags::NONE,
            bytes_received: 0,
            bytes_sent: 0,
            wire: WireBytes::default(),
            downstream_remote: None,
            upstream_host: None,
            upstream_host_name: None,
            upstream_local: None,
            upstream_tls: None,
            upstream_cluster: None,
            upstream_cluster_raw: None,
            attempts: None,
            route_name: None,
            virtual_host_name: None,
            filter_chain_name: None,
            metadata,
            cluster_metadata: None,
            route_metadata: None,
            upstream_metadata: None,
            filter_state: None,
            local_reply_body: None,
            host_name: None,
            trace_id: None,
            span_id: None,
            traced: false,
            health_check: false,
        }
    }

    /// The client's address: through x-forwarded-for, else the connection's peer.
    pub fn remote(&self) -> SocketAddr {
        self.downstream_remote.unwrap_or(self.connection.remote)
    }
}
