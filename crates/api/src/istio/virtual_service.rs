//! VirtualService: where requests for a host go.

use super::{Destination, Duration, Percent, PortSelector, StringMatch};
use std::collections::BTreeMap;

message! {
    /// Routing rules for hosts.
    pub struct VirtualService {
        /// The hosts that the rules are for.
        pub hosts: Vec<String>,
        /// Gateways the rules apply to; `mesh` means all sidecars. Empty means `mesh`.
        pub gateways: Vec<String>,
        /// Rules for HTTP traffic, the first match wins.
        pub http: Vec<HttpRoute>,
        /// Rules for TLS traffic that is not terminated.
        pub tls: Vec<TlsRoute>,
        /// Rules for opaque TCP traffic.
        pub tcp: Vec<TcpRoute>,
        /// Namespaces that see this object: `.`, `*` or names.
        pub export_to: Vec<String>,
    }

    /// A VirtualService that holds some of the rules.
    pub struct Delegate {
        /// Its name.
        pub name: String,
        /// Its namespace; empty means that of the root.
        pub namespace: String,
    }

    /// One HTTP rule.
    pub struct HttpRoute {
        /// A name for logs.
        pub name: String,
        /// When the rule applies; the items are alternatives.
        #[serde(rename = "match")]
        pub matches: Vec<HttpMatchRequest>,
        /// Weighted destinations.
        pub route: Vec<HttpRouteDestination>,
        /// Answer with a redirect.
        pub redirect: Option<HttpRedirect>,
        /// Answer at once.
        pub direct_response: Option<HttpDirectResponse>,
        /// Take the rules from another VirtualService.
        pub delegate: Option<Delegate>,
        /// Change path or authority.
        pub rewrite: Option<HttpRewrite>,
        /// Time limit of the whole request.
        pub timeout: Option<Duration>,
        /// When and how often to try again.
        pub retries: Option<HttpRetry>,
        /// Failures to inject.
        pub fault: Option<HttpFaultInjection>,
        /// Where to send a copy.
        pub mirror: Option<Destination>,
        /// Several copies.
        pub mirrors: Vec<HttpMirrorPolicy>,
        /// Share of requests to copy, whole percents (deprecated).
        #[serde(alias = "mirror_percent")]
        pub mirror_percent: Option<u32>,
        /// Share of requests to copy.
        pub mirror_percentage: Option<Percent>,
        /// Cross-origin resource sharing.
        pub cors_policy: Option<CorsPolicy>,
        /// Header changes.
        pub headers: Option<Headers>,
    }

    /// Header changes in both directions.
    pub struct Headers {
        /// On the way to the service.
        pub request: Option<HeaderOperations>,
        /// On the way back.
        pub response: Option<HeaderOperations>,
    }

    /// Changes of headers.
    pub struct HeaderOperations {
        /// Overwrite or add.
        pub set: BTreeMap<String, String>,
        /// Append.
        pub add: BTreeMap<String, String>,
        /// Remove.
        pub remove: Vec<String>,
    }

    /// Conditions that have to hold together.
    pub struct HttpMatchRequest {
        /// A name for logs.
        pub name: String,
        /// The path.
        pub uri: Option<StringMatch>,
        /// The scheme.
        pub scheme: Option<StringMatch>,
        /// The method.
        pub method: Option<StringMatch>,
        /// The authority.
        pub authority: Option<StringMatch>,
        /// Headers by name.
        pub headers: BTreeMap<String, StringMatch>,
        /// The port the request was sent to.
        pub port: u32,
        /// Labels of the client.
        pub source_labels: BTreeMap<String, String>,
        /// Gateways the rule is for.
        pub gateways: Vec<String>,
        /// Query parameters by name.
        pub query_params: BTreeMap<String, StringMatch>,
        /// Compare the path without regard to case.
        pub ignore_uri_case: bool,
        /// Headers that must not match.
        pub without_headers: BTreeMap<String, StringMatch>,
        /// Namespace of the client.
        pub source_namespace: String,
        /// Prefix of the statistics of the route.
        pub stat_prefix: String,
    }

    /// A destination with its share.
    pub struct HttpRouteDestination {
        /// Where to.
        pub destination: Destination,
        /// The share, relative to the sum of all.
        pub weight: i32,
        /// Header changes for this destination.
        pub headers: Option<Headers>,
    }

    /// An answer that sends the client elsewhere.
    pub struct HttpRedirect {
        /// The new path.
        pub uri: String,
        /// Replaces the matched prefix of the path.
        pub prefix_rewrite: Option<String>,
        /// The new authority.
        pub authority: String,
        /// The new port.
        pub port: Option<u32>,
        /// How to find the new port.
        pub derive_port: Option<RedirectPortSelection>,
        /// The new scheme.
        pub scheme: String,
        /// Status code, 301 by default.
        pub redirect_code: u32,
    }

    /// An answer made by the proxy.
    pub struct HttpDirectResponse {
        /// Status code.
        pub status: u32,
        /// The body.
        pub body: Option<HttpBody>,
    }

    /// The body of an answer.
    pub struct HttpBody {
        /// As text.
        pub string: Option<String>,
        /// As base64.
        pub bytes: Option<String>,
    }

    /// A changed request line.
    pub struct HttpRewrite {
        /// Replaces the path, or the matched prefix of it.
        pub uri: String,
        /// Replaces the authority.
        pub authority: String,
        /// Replaces parts of the path by a regular expression.
        pub uri_regex_rewrite: Option<RegexRewrite>,
    }

    /// A replacement by regular expression.
    pub struct RegexRewrite {
        /// The RE2 expression.
        #[serde(rename = "match")]
        pub pattern: String,
        /// The replacement, with `\1` for groups.
        pub rewrite: String,
    }

    /// When to try again.
    pub struct HttpRetry {
        /// How often; 0 switches retries off.
        pub attempts: i32,
        /// Time limit of one try.
        pub per_try_timeout: Option<Duration>,
        /// Conditions, joined by commas; numbers are status codes.
        pub retry_on: String,
        /// Also try other localities.
        pub retry_remote_localities: Option<bool>,
        /// Do not try the same endpoint again (default true).
        pub retry_ignore_previous_hosts: Option<bool>,
        /// Shortest pause between tries.
        pub backoff: Option<Duration>,
    }

    /// Where to send a copy, and of how many requests.
    pub struct HttpMirrorPolicy {
        /// Where to.
        pub destination: Destination,
        /// Share of the requests; all by default.
        pub percentage: Option<Percent>,
    }

    /// Cross-origin resource sharing.
    pub struct CorsPolicy {
        /// Allowed origins, exact (deprecated).
        pub allow_origin: Vec<String>,
        /// Allowed origins.
        pub allow_origins: Vec<StringMatch>,
        /// Allowed methods.
        pub allow_methods: Vec<String>,
        /// Allowed request headers.
        pub allow_headers: Vec<String>,
        /// Response headers that scripts may read.
        pub expose_headers: Vec<String>,
        /// How long a browser may remember.
        pub max_age: Option<Duration>,
        /// Whether credentials may be sent.
        pub allow_credentials: Option<bool>,
        /// What happens to preflights of other origins.
        pub unmatched_preflights: UnmatchedPreflights,
    }

    /// Failures to inject.
    pub struct HttpFaultInjection {
        /// Answer late.
        pub delay: Option<FaultDelay>,
        /// Answer with an error.
        pub abort: Option<FaultAbort>,
    }

    /// A delay before the request is forwarded.
    pub struct FaultDelay {
        /// How long.
        pub fixed_delay: Option<Duration>,
        /// Not supported by Envoy.
        pub exponential_delay: Option<Duration>,
        /// Share of the requests, whole percents (deprecated).
        pub percent: i32,
        /// Share of the requests.
        pub percentage: Option<Percent>,
    }

    /// An error instead of an answer.
    pub struct FaultAbort {
        /// Status of an HTTP answer.
        pub http_status: Option<i32>,
        /// Status of a gRPC answer, by name.
        pub grpc_status: Option<String>,
        /// HTTP/2 error (refused).
        pub http2_error: Option<String>,
        /// Share of the requests.
        pub percentage: Option<Percent>,
    }

    /// One rule for TLS connections.
    pub struct TlsRoute {
        /// When it applies; the items are alternatives.
        #[serde(rename = "match")]
        pub matches: Vec<TlsMatchAttributes>,
        /// Weighted destinations.
        pub route: Vec<RouteDestination>,
    }

    /// Conditions on a TLS connection that hold together.
    pub struct TlsMatchAttributes {
        /// Server names, wildcard prefixes allowed.
        pub sni_hosts: Vec<String>,
        /// Addresses of the destination.
        pub destination_subnets: Vec<String>,
        /// The port.
        pub port: u32,
        /// Labels of the client.
        pub source_labels: BTreeMap<String, String>,
        /// Gateways the rule is for.
        pub gateways: Vec<String>,
        /// Namespace of the client.
        pub source_namespace: String,
    }

    /// One rule for TCP connections.
    pub struct TcpRoute {
        /// When it applies; the items are alternatives.
        #[serde(rename = "match")]
        pub matches: Vec<L4MatchAttributes>,
        /// Weighted destinations.
        pub route: Vec<RouteDestination>,
    }

    /// Conditions on a TCP connection that hold together.
    pub struct L4MatchAttributes {
        /// Addresses of the destination.
        pub destination_subnets: Vec<String>,
        /// The port.
        pub port: u32,
        /// Address of the client (not implemented by Istio).
        pub source_subnet: String,
        /// Labels of the client.
        pub source_labels: BTreeMap<String, String>,
        /// Gateways the rule is for.
        pub gateways: Vec<String>,
        /// Namespace of the client.
        pub source_namespace: String,
    }

    /// A destination of connections with its share.
    pub struct RouteDestination {
        /// Where to.
        pub destination: Destination,
        /// The share, relative to the sum of all.
        pub weight: i32,
    }
}

proto_enum! {
    /// How a redirect finds its port.
    pub enum RedirectPortSelection {
        /// The usual port of the new scheme.
        FromProtocolDefault,
        /// The port of the request.
        FromRequestPort,
    }

    /// What happens to a preflight whose origin is not allowed.
    pub enum UnmatchedPreflights {
        /// The same as `FORWARD`.
        Unspecified,
        /// The service gets it.
        Forward,
        /// The proxy answers without CORS headers.
        Ignore,
    }
}

impl HttpRoute {
    /// The port of a destination, if it names one.
    pub fn port(port: &Option<PortSelector>) -> Option<u32> {
        port.as_ref()
            .map(|port| port.number)
            .filter(|number| *number != 0)
    }
}
