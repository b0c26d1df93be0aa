//! The rules of an HTTP connection manager: what happens to every request and response whatever its route.

use std::net::SocketAddr;
use std::time::Duration;

use crate::address::Cidr;

mod compile;
mod head;
mod path;

/// What happens to headers whose names contain underscores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Underscores {
    /// They pass.
    Allow,
    /// The request is refused.
    Reject,
    /// The header is left out.
    Drop,
}

/// What to do with escaped slashes (`%2F`, `%5C`) in paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// Leave them.
    Keep,
    /// Refuse the request with 400.
    Reject,
    /// Unescape and redirect (307) to the new path.
    Redirect,
    /// Unescape and go on.
    Forward,
}

/// What to do with `x-forwarded-client-cert`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardClientCert {
    /// Remove it.
    Sanitize,
    /// Pass it on if the peer has a certificate.
    ForwardOnly,
    /// Append our element if the peer has a certificate.
    AppendForward,
    /// Replace it by our element if the peer has a certificate, else remove it.
    SanitizeSet,
    /// Pass it on in any case.
    AlwaysForwardOnly,
}

/// What to do with the `server` header of responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerHeader {
    /// Replace it.
    Overwrite,
    /// Set it if it is missing.
    AppendIfAbsent,
    /// Leave it.
    PassThrough,
}

/// An HTTP connection manager, compiled: everything but routes, filters, access logs and codecs.
#[derive(Debug, Clone)]
pub struct HttpConn {
    /// The address that stands for peers on the loopback in x-forwarded-for; the caller sets it.
    pub node_address: Option<std::net::IpAddr>,
    /// `headers_with_underscores_action`.
    pub underscores: Underscores,
    /// `stat_prefix`.
    pub stat_prefix: String,
    /// `server_name`, `envoy` by default.
    pub server_name: String,
    /// `server_header_transformation`.
    pub server_header: ServerHeader,
    /// `use_remote_address`.
    pub use_remote_address: bool,
    /// `xff_num_trusted_hops`.
    pub trusted_hops: u32,
    /// `skip_xff_append`.
    pub skip_xff_append: bool,
    /// `append_x_forwarded_port`: tells the upstream which port was asked.
    pub append_forwarded_port: bool,
    /// `normalize_path`.
    pub normalize_path: bool,
    /// `merge_slashes`.
    pub merge_slashes: bool,
    /// `path_with_escaped_slashes_action`.
    pub escaped_slashes: EscapedSlashes,
    /// `forward_client_cert_details`.
    pub forward_client_cert: ForwardClientCert,
    /// `generate_request_id`, true by default.
    pub generate_request_id: bool,
    /// `preserve_external_request_id`.
    pub preserve_external_request_id: bool,
    /// `always_set_request_id_in_response`.
    pub request_id_in_response: bool,
    /// `via`.
    pub via: String,
    /// `stream_idle_timeout`, 5 min by default; `None` is off.
    pub stream_idle_timeout: Option<Duration>,
    /// `request_timeout`.
    pub request_timeout: Option<Duration>,
    /// `request_headers_timeout`.
    pub request_headers_timeout: Option<Duration>,
    /// `delayed_close_timeout`, 1 s by default: so long a connection that is closed is read from, so that the last words are not lost to a
    /// reset.
    pub delayed_close_timeout: Duration,
    /// Idle connections are closed after this; 1 h by default.
    pub idle_timeout: Option<Duration>,
    /// Connections are drained after this.
    pub max_connection_duration: Option<Duration>,
    /// Streams are ended after this.
    pub max_stream_duration: Option<Duration>,
    /// Requests per connection.
    pub max_requests_per_connection: Option<u64>,
    /// `max_request_headers_kb`, 60 by default.
    pub max_request_headers_kb: u32,
    /// `max_headers_count`, 100 by default.
    pub max_headers_count: u32,
    /// `accept_http_10`.
    pub accept_http10: bool,
    /// `proxy_100_continue`.
    pub proxy_100_continue: bool,
    /// The protocols that may be upgraded to (lower case; `websocket`).
    pub upgrades: Vec<String>,
    /// Ports are cut off the authority: any port, or the listener's own.
    pub strip_any_port: bool,
    /// `strip_matching_host_port`.
    pub strip_matching_port: bool,
    /// `strip_trailing_host_dot`.
    pub strip_trailing_dot: bool,
    /// What counts as inside; nothing by default.
    internal: Vec<Cidr>,
    certificate_details: Vec<CertificateDetail>,
}

/// A part of our own element in x-forwarded-client-cert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CertificateDetail {
    Cert,
    Subject,
    Uri,
    Dns,
    Issuer,
}

/// What came of looking at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathOutcome {
    /// Go on with the (changed) path.
    Go,
    /// Refuse: [`crate::local_reply::PATH_NORMALIZATION_FAILED`].
    Reject,
    /// Redirect with 307 to this path.
    Redirect(String),
}

/// What was found out about a request on its way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ingress {
    /// The client: the connection's peer, or whom x-forwarded-for names.
    pub remote: SocketAddr,
    /// Whether it came from inside (`x-envoy-internal: true`).
    pub internal: bool,
    /// `:scheme` for routing: the request's own, else that of x-forwarded-proto.
    pub scheme: &'static str,
}
