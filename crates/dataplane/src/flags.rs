//! Response flags: why a stream ended as it did, as access logs and metrics name it.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// A set of response flags that remembers in which order they were set, because Envoy prints them in
/// that order (`URX,UF` for HTTP, `UF,URX` for TCP).
///
/// Packed: six bits a flag, the first flag lowest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ResponseFlags(u64);

const BITS: u32 = 6;
const MASK: u64 = (1 << BITS) - 1;

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $short:literal, $long:literal;)*) => {
        impl ResponseFlags {
            $($(#[$doc])* pub const $name: Self = Self($number + 1);)*
        }
        /// Short name, long name; the place is the flag's number.
        const NAMES: &[(&str, &str)] = &[$(($short, $long)),*];
    };
}

flags! {
    /// The local health check failed.
    FAILED_LOCAL_HEALTH_CHECK = 0, "LH", "FailedLocalHealthCheck";
    /// No healthy upstream host.
    NO_HEALTHY_UPSTREAM = 1, "UH", "NoHealthyUpstream";
    /// The upstream, or the route, took too long.
    UPSTREAM_REQUEST_TIMEOUT = 2, "UT", "UpstreamRequestTimeout";
    /// The stream was reset by this proxy.
    LOCAL_RESET = 3, "LR", "LocalReset";
    /// The upstream reset the stream.
    UPSTREAM_REMOTE_RESET = 4, "UR", "UpstreamRemoteReset";
    /// No connection to the upstream.
    UPSTREAM_CONNECTION_FAILURE = 5, "UF", "UpstreamConnectionFailure";
    /// The upstream closed the connection.
    UPSTREAM_CONNECTION_TERMINATION = 6, "UC", "UpstreamConnectionTermination";
    /// A circuit breaker was open.
    UPSTREAM_OVERFLOW = 7, "UO", "UpstreamOverflow";
    /// No route, or no filter chain.
    NO_ROUTE_FOUND = 8, "NR", "NoRouteFound";
    /// A delay was injected.
    DELAY_INJECTED = 9, "DI", "DelayInjected";
    /// An abort was injected.
    FAULT_INJECTED = 10, "FI", "FaultInjected";
    /// Refused by a rate limit.
    RATE_LIMITED = 11, "RL", "RateLimited";
    /// Refused by an external authorizer.
    UNAUTHORIZED_EXTERNAL_SERVICE = 12, "UAEX", "UnauthorizedExternalService";
    /// The rate limit service failed.
    RATELIMIT_SERVICE_ERROR = 13, "RLSE", "RatelimitServiceError";
    /// The client went away.
    DOWNSTREAM_CONNECTION_TERMINATION = 14, "DC", "DownstreamConnectionTermination";
    /// All attempts were used up.
    UPSTREAM_RETRY_LIMIT_EXCEEDED = 15, "URX", "UpstreamRetryLimitExceeded";
    /// The stream was idle for too long.
    STREAM_IDLE_TIMEOUT = 16, "SI", "StreamIdleTimeout";
    /// An x-envoy-* header had an invalid value.
    INVALID_ENVOY_REQUEST_HEADERS = 17, "IH", "InvalidEnvoyRequestHeaders";
    /// The client broke the protocol.
    DOWNSTREAM_PROTOCOL_ERROR = 18, "DPE", "DownstreamProtocolError";
    /// The maximal duration of a stream to the upstream was reached.
    UPSTREAM_MAX_STREAM_DURATION_REACHED = 19, "UMSDR", "UpstreamMaxStreamDurationReached";
    /// Answered from a cache.
    RESPONSE_FROM_CACHE_FILTER = 20, "RFCF", "ResponseFromCacheFilter";
    /// A filter's configuration never came.
    NO_FILTER_CONFIG_FOUND = 21, "NFCF", "NoFilterConfigFound";
    /// The connection's maximal duration was reached.
    DURATION_TIMEOUT = 22, "DT", "DurationTimeout";
    /// The upstream broke the protocol.
    UPSTREAM_PROTOCOL_ERROR = 23, "UPE", "UpstreamProtocolError";
    /// The route names a cluster that does not exist.
    NO_CLUSTER_FOUND = 24, "NC", "NoClusterFound";
    /// The overload manager refused.
    OVERLOAD_MANAGER = 25, "OM", "OverloadManagerTerminated";
    /// A name could not be resolved.
    DNS_RESOLUTION_FAILED = 26, "DF", "DnsResolutionFailed";
    /// Dropped by the drop_overload policy.
    DROP_OVERLOAD = 27, "DO", "DropOverload";
    /// The client reset the stream.
    DOWNSTREAM_REMOTE_RESET = 28, "DR", "DownstreamRemoteReset";
    /// Dropped unconditionally.
    UNCONDITIONAL_DROP_OVERLOAD = 29, "UDO", "UnconditionalDropOverload";
}

impl ResponseFlags {
    /// No flag.
    pub const NONE: Self = Self(0);

    /// Whether no flag is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all flags of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        other
            .numbers()
            .all(|number| self.numbers().any(|own| own == number))
    }

    /// Adds the flags of `other` that are not there yet. Ten fit; more never meet on one stream.
    pub fn set(&mut self, other: Self) {
        for number in other.numbers() {
            let taken = self.numbers().count() as u32;
            if taken * BITS < u64::BITS - BITS && !self.numbers().any(|own| own == number) {
                self.0 |= (number as u64 + 1) << (taken * BITS);
            }
        }
    }

    /// Short names joined by commas, `-` when there is none: `%RESPONSE_FLAGS%`.
    pub fn short(self) -> String {
        self.join(|(short, _)| short)
    }

    /// Long names joined by commas: `%RESPONSE_FLAGS_LONG%`.
    pub fn long(self) -> String {
        self.join(|(_, long)| long)
    }

    /// The flag with this short name.
    pub fn from_short(name: &str) -> Option<Self> {
        NAMES
            .iter()
            .position(|(short, _)| *short == name)
            .map(|number| Self(number as u64 + 1))
    }

    /// As a number with one bit a flag: `response.flags` of expressions.
    pub fn bits(self) -> u64 {
        self.numbers().fold(0, |bits, number| bits | 1 << number)
    }

    fn numbers(self) -> impl Iterator<Item = usize> {
        (0..u64::BITS / BITS)
            .map(move |place| (self.0 >> (place * BITS)) & MASK)
            .take_while(|flag| *flag != 0)
            .map(|flag| flag as usize - 1)
    }

    fn join(self, name: impl Fn(&'static (&'static str, &'static str)) -> &'static str) -> String {
        let mut text = String::new();
        for number in self.numbers() {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(name(&NAMES[number]));
        }
        if text.is_empty() {
            "-".to_owned()
        } else {
            text
        }
    }
}

impl BitOr for ResponseFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        let mut both = self;
        both.set(other);
        both
    }
}

impl BitOrAssign for ResponseFlags {
    fn bitor_assign(&mut self, other: Self) {
        self.set(other);
    }
}

impl fmt::Display for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl fmt::Debug for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_print_in_the_order_they_were_set() {
        assert_eq!(ResponseFlags::NONE.short(), "-");
        assert_eq!(
            (ResponseFlags::DELAY_INJECTED | ResponseFlags::FAULT_INJECTED).short(),
            "DI,FI"
        );
        let http = ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED
            | ResponseFlags::UPSTREAM_CONNECTION_FAILURE;
        assert_eq!(http.short(), "URX,UF");
        assert_eq!(
            http.long(),
            "UpstreamRetryLimitExceeded,UpstreamConnectionFailure"
        );
        let tcp = ResponseFlags::UPSTREAM_CONNECTION_FAILURE
            | ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED;
        assert_eq!(tcp.short(), "UF,URX");
        assert!(tcp.contains(http) && http.contains(ResponseFlags::NONE));
        assert!(!tcp.contains(ResponseFlags::NO_CLUSTER_FOUND));
        assert_eq!((tcp | tcp).short(), "UF,URX");
        assert_eq!(
            ResponseFlags::from_short("NC"),
            Some(ResponseFlags::NO_CLUSTER_FOUND)
        );
        assert_eq!(ResponseFlags::UNCONDITIONAL_DROP_OVERLOAD.short(), "UDO");
    }
}
