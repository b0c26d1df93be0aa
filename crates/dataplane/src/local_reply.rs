//! The replies this proxy gives itself: status, body, flags and details, as Envoy gives them.

use std::borrow::Cow;

use crate::flags::ResponseFlags;

/// A reply that no upstream sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalReply {
    /// The HTTP status.
    pub status: u16,
    /// The body (`content-type: text/plain`); empty for none.
    pub body: Cow<'static, str>,
    /// The response flags it sets.
    pub flags: ResponseFlags,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: Cow<'static, str>,
    /// Headers of its own.
    pub headers: &'static [(&'static str, &'static str)],
    /// The grpc-status for gRPC requests, where it does not follow from the HTTP status.
    pub grpc_status: Option<u32>,
}

/// Why a stream to the upstream ended before its response began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResetReason {
    /// The connection could not be made: refused, unreachable, TLS failed.
    RemoteConnectionFailure,
    /// The connection could not be made for a reason of our own.
    LocalConnectionFailure,
    /// The connection took longer than connect_timeout.
    ConnectionTimeout,
    /// The upstream closed the connection.
    ConnectionTermination,
    /// The upstream reset the stream.
    RemoteReset,
    /// The upstream refused the stream (HTTP/2 REFUSED_STREAM).
    RemoteRefusedStreamReset,
    /// We reset the stream.
    LocalReset,
    /// A circuit breaker.
    Overflow,
    /// The upstream broke the protocol.
    ProtocolError,
}

impl ResetReason {
    /// The words in the body.
    pub const fn text(self) -> &'static str {
        match self {
            Self::RemoteConnectionFailure => "remote connection failure",
            Self::LocalConnectionFailure => "local connection failure",
            Self::ConnectionTimeout => "connection timeout",
            Self::ConnectionTermination => "connection termination",
            Self::RemoteReset => "remote reset",
            Self::RemoteRefusedStreamReset => "remote refused stream reset",
            Self::LocalReset => "local reset",
            Self::Overflow => "overflow",
            Self::ProtocolError => "protocol error",
        }
    }

    /// The response flag.
    pub const fn flag(self) -> ResponseFlags {
        match self {
            Self::RemoteConnectionFailure
            | Self::LocalConnectionFailure
            | Self::ConnectionTimeout => ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
            Self::ConnectionTermination => ResponseFlags::UPSTREAM_CONNECTION_TERMINATION,
            Self::RemoteReset | Self::RemoteRefusedStreamReset => {
                ResponseFlags::UPSTREAM_REMOTE_RESET
            }
            Self::LocalReset => ResponseFlags::LOCAL_RESET,
            Self::Overflow => ResponseFlags::UPSTREAM_OVERFLOW,
            Self::ProtocolError => ResponseFlags::UPSTREAM_PROTOCOL_ERROR,
        }
    }
}

const fn fixed(
    status: u16,
    body: &'static str,
    flags: ResponseFlags,
    details: &'static str,
) -> LocalReply {
    LocalReply {
        status,
        body: Cow::Borrowed(body),
        flags,
        details: Cow::Borrowed(details),
        headers: &[],
        grpc_status: None,
    }
}

/// `UH`: the cluster has no healthy host.
pub const NO_HEALTHY_UPSTREAM: LocalReply = fixed(
    503,
    "no healthy upstream",
    ResponseFlags::NO_HEALTHY_UPSTREAM,
    "no_healthy_upstream",
);
/// `UT`: the route's timeout.
pub const REQUEST_TIMEOUT: LocalReply = fixed(
    504,
    "upstream request timeout",
    ResponseFlags::UPSTREAM_REQUEST_TIMEOUT,
    "response_timeout",
);
/// `UT`: the timeout of the last try.
pub const PER_TRY_TIMEOUT: LocalReply = fixed(
    504,
    "upstream request timeout",
    ResponseFlags::UPSTREAM_REQUEST_TIMEOUT,
    "upstream_per_try_timeout",
);
/// `UT`: nothing moved in a try for too long.
pub const PER_TRY_IDLE_TIMEOUT: LocalReply = fixed(
    504,
    "upstream request timeout",
    ResponseFlags::UPSTREAM_REQUEST_TIMEOUT,
    "upstream_per_try_idle_timeout",
);
/// `NR`: no virtual host, or no route in it.
pub const ROUTE_NOT_FOUND: LocalReply =
    fixed(404, "", ResponseFlags::NO_ROUTE_FOUND, "route_not_found");
/// `RL`: the local rate limit (its status is configurable).
pub const LOCAL_RATE_LIMITED: LocalReply = fixed(
    429,
    "local_rate_limited",
    ResponseFlags::RATE_LIMITED,
    "local_rate_limited",
);
/// Access denied by RBAC; its details are [`crate::rbac`]'s business.
pub const RBAC_DENIED: LocalReply = fixed(
    403,
    "RBAC: access denied",
    ResponseFlags::NONE,
    "rbac_access_denied",
);
/// `SI`: the stream was idle before the response began.
pub const STREAM_IDLE_TIMEOUT: LocalReply = fixed(
    504,
    "stream timeout",
    ResponseFlags::STREAM_IDLE_TIMEOUT,
    "stream_idle_timeout",
);
/// The request took too long to arrive.
pub const REQUEST_OVERALL_TIMEOUT: LocalReply = fixed(
    408,
    "request timeout",
    ResponseFlags::NONE,
    "request_overall_timeout",
);
/// The stream lasted longer than the connection manager or the route lets it.
pub const STREAM_DURATION: LocalReply = LocalReply {
    status: 504,
    body: Cow::Borrowed("downstream duration timeout"),
    flags: ResponseFlags::NONE,
    details: Cow::Borrowed("max_duration_timeout"),
    headers: &[],
    grpc_status: Some(4),
};
/// `UMSDR`: max_stream_duration.
pub const MAX_STREAM_DURATION: LocalReply = fixed(
    504,
    "upstream max stream duration reached",
    ResponseFlags::UPSTREAM_MAX_STREAM_DURATION_REACHED,
    "upstream_max_stream_duration_reached",
);
/// The request has no authority.
pub const MISSING_HOST: LocalReply = fixed(400, "", ResponseFlags::NONE, "missing_host_header");
/// The path could not be normalised.
pub const PATH_NORMALIZATION_FAILED: LocalReply =
    fixed(400, "", ResponseFlags::NONE, "path_normalization_failed");
/// An upgrade that neither route nor connection manager allows.
pub const UPGRADE_REFUSED: LocalReply = fixed(403, "", ResponseFlags::NONE, "upgrade_failed");
/// HTTP/1.0 where it is not accepted.
pub const LOW_VERSION: LocalReply = fixed(
    426,
    "Upgrade Required",
    ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
    "low_version",
);
/// The request's body is larger than the buffer of a filter that needs it whole.
pub const REQUEST_TOO_LARGE: LocalReply = fixed(
    413,
    "Payload Too Large",
    ResponseFlags::NONE,
    "request_payload_too_large",
);
/// `DF`: dynamic forward proxy could not resolve the host.
pub const DNS_FAILURE: LocalReply = fixed(
    503,
    "DNS resolution failure",
    ResponseFlags::DNS_RESOLUTION_FAILED,
    "dns_resolution_failure",
);

/// `NC`: the route names a cluster that is not there; `status` is what the route says (503 by default).
pub fn cluster_not_found(status: u16) -> LocalReply {
    fixed(
        status,
        "",
        ResponseFlags::NO_CLUSTER_FOUND,
        "cluster_not_found",
    )
}

/// The upstream was lost before its response began. `transport_failure` (the TLS or socket error) goes to
/// the details only, `retried` changes the body.
pub fn upstream_reset(
    reason: ResetReason,
    transport_failure: Option<&str>,
    retried: bool,
) -> LocalReply {
    let body = if retried {
        format!(
            "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: {}",
            reason.text()
        )
    } else {
        format!(
            "upstream connect error or disconnect/reset before headers. reset reason: {}",
            reason.text()
        )
    };
    let mut details = reason.text().replace(' ', "_");
    if let Some(failure) = transport_failure.filter(|failure| !failure.is_empty()) {
        details.push('|');
        // Details must not break the columns of an access log.
        details.extend(
            failure
                .chars()
                .map(|c| if c.is_whitespace() { '_' } else { c }),
        );
    }
    LocalReply {
        status: if reason == ResetReason::ProtocolError {
            502
        } else {
            503
        },
        body: Cow::Owned(body),
        flags: reason.flag(),
        details: if reason == ResetReason::Overflow {
            Cow::Borrowed("upstream_reset_before_response_started{overflow}")
        } else {
            Cow::Owned(format!(
                "upstream_reset_before_response_started{{{details}}}"
            ))
        },
        headers: if reason == ResetReason::Overflow {
            &[("x-envoy-overloaded", "true")]
        } else {
            &[]
        },
        grpc_status: None,
    }
}

/// The grpc-status of a gRPC response whose HTTP status is this.
pub fn grpc_status(http: u16) -> u32 {
    match http {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

impl LocalReply {
    /// The grpc-status for a gRPC request: its own, else the one of its HTTP status.
    pub fn grpc_status(&self) -> u32 {
        self.grpc_status.unwrap_or_else(|| grpc_status(self.status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overflow_says_so_in_a_header() {
        let reply = upstream_reset(ResetReason::Overflow, None, false);
        assert_eq!(reply.status, 503);
        assert_eq!(
            reply.body,
            "upstream connect error or disconnect/reset before headers. reset reason: overflow"
        );
        assert_eq!(reply.headers, [("x-envoy-overloaded", "true")]);
        assert_eq!(reply.flags.short(), "UO");
        assert_eq!(reply.grpc_status(), 14);
    }

    #[test]
    fn the_transport_failure_is_only_in_the_details() {
        let reply = upstream_reset(
            ResetReason::RemoteConnectionFailure,
            Some("delayed connect error: 111"),
            true,
        );
        assert_eq!(
            reply.details,
            "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_111}"
        );
        assert!(
            reply
                .body
                .ends_with("retried and the latest reset reason: remote connection failure")
        );
    }
}
