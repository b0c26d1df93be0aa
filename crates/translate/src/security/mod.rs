//! Request authentication and authorization.

use xds::envoy::config::listener::v3::Filter;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

/// Filters of an HTTP connection manager.
#[derive(Debug, Clone, Default)]
pub(crate) struct HttpPolicies {
    /// CUSTOM policies.
    pub(crate) custom: Vec<HttpFilter>,
    /// Tokens.
    pub(crate) jwt: Vec<HttpFilter>,
    /// AUDIT, DENY, ALLOW.
    pub(crate) rules: Vec<HttpFilter>,
}

/// Filters of a TCP chain.
#[derive(Debug, Clone, Default)]
pub(crate) struct TcpPolicies {
    /// CUSTOM policies, then AUDIT, DENY, ALLOW.
    pub(crate) filters: Vec<Filter>,
}

/// The filters of HTTP chains of a proxy.
pub(crate) fn http_policies(
    _context: &crate::context::Context<'_>,
    _class: crate::context::ListenerClass,
) -> HttpPolicies {
    HttpPolicies::default()
}

/// The filters of TCP chains of a proxy.
pub(crate) fn tcp_policies(
    _context: &crate::context::Context<'_>,
    _class: crate::context::ListenerClass,
) -> TcpPolicies {
    TcpPolicies::default()
}
