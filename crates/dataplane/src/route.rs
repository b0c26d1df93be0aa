//! Routes: from the head of a request to the cluster, redirect or answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use xds::envoy::config::route::v3::RouteConfiguration;
use xds::prost_types::Any;

use crate::circuit::Priority;
use crate::error::ConfigError;
use crate::request::{RequestHead, RequestHeadMut};
use crate::retry::RetryPolicy;
use crate::stream::{Metadata, StreamInfo};

/// A route configuration, compiled.
#[derive(Debug)]
pub struct RouteTable {
    /// Its name.
    pub name: Arc<str>,
}

/// What a match may look at beside the head.
#[derive(Debug, Clone, Copy)]
pub struct MatchFacts<'a> {
    /// Metadata left by filters (JWT claims under `envoy.filters.http.jwt_authn`).
    pub metadata: &'a Metadata,
    /// Whether the client showed a certificate, and whether it was verified.
    pub client_certificate: Option<bool>,
}

/// Where a request goes.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// To a cluster.
    Forward {
        /// The route.
        route: Arc<Route>,
        /// The cluster's name. Whether it exists is for the caller to see.
        cluster: Arc<str>,
        /// The entry of `weighted_clusters` that was drawn: index into [`Route::weighted`].
        weighted: Option<usize>,
    },
    /// The route answers itself.
    Direct {
        /// The route.
        route: Arc<Route>,
        /// The status.
        status: u16,
        /// The body; `text/plain` unless a header says otherwise.
        body: Bytes,
    },
    /// The client is sent elsewhere.
    Redirect {
        /// The route.
        route: Arc<Route>,
        /// The status.
        status: u16,
        /// The `location` header.
        location: String,
    },
    /// Nothing matches: 404 `NR`.
    NotFound {
        /// The virtual host, if its name matched but none of its routes did.
        virtual_host: Option<Arc<str>>,
    },
}

/// One route with everything inherited from its virtual host and route configuration.
#[derive(Debug)]
pub struct Route {
    /// The route's name; empty when it has none.
    pub name: Arc<str>,
    /// The virtual host's name.
    pub virtual_host: Arc<str>,
    /// `stat_prefix`.
    pub stat_prefix: String,
    /// `timeout`: 15 s when absent, `None` when disabled (0).
    pub timeout: Option<Duration>,
    /// `idle_timeout` of the stream; `Some(ZERO)` switches the connection manager's off.
    pub idle_timeout: Option<Duration>,
    /// `max_stream_duration`.
    pub max_stream_duration: Option<Duration>,
    /// The cap of the grpc-timeout header, if it counts at all; `Some(ZERO)` means no cap.
    pub grpc_timeout_max: Option<Duration>,
    /// The retry policy: the route's, else the virtual host's.
    pub retry: Option<Arc<RetryPolicy>>,
    /// `request_mirror_policies`.
    pub mirrors: Vec<Mirror>,
    /// The entries of `weighted_clusters`; empty for a single cluster.
    pub weighted: Vec<WeightedCluster>,
    /// The status for a cluster that does not exist, 503 by default.
    pub cluster_not_found_status: u16,
    /// The circuit breaker priority.
    pub priority: Priority,
    /// `include_request_attempt_count` of the virtual host: x-envoy-attempt-count to the upstream.
    pub attempt_count_in_request: bool,
    /// The same in the response.
    pub attempt_count_in_response: bool,
    /// `metadata.filter_metadata`.
    pub metadata: Arc<Metadata>,
    /// `decorator.operation`.
    pub decorator: Option<String>,
    /// Whether the decorator is sent to the upstream in x-envoy-decorator-operation.
    pub decorator_propagate: bool,
    /// `tracing.random_sampling` and the like, as given.
    pub tracing: Option<Arc<xds::envoy::config::route::v3::Tracing>>,
    /// `rate_limits` of the route and, where included, of the virtual host.
    pub rate_limits: Vec<xds::envoy::config::route::v3::RateLimit>,
    /// Whether the host is replaced by the endpoint's name (`auto_host_rewrite`).
    pub auto_host_rewrite: bool,
}

/// A copy of a request, sent somewhere else without waiting for an answer.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// The cluster.
    pub cluster: Arc<str>,
    /// The share of requests, parts of a million; 1 000 000 is all.
    pub millionths: u64,
    /// Whether `-shadow` is appended to the host.
    pub shadow_suffix: bool,
    /// `host_rewrite_literal`; empty for none.
    pub host_rewrite: String,
    /// `trace_sampled`.
    pub trace_sampled: Option<bool>,
}

/// One entry of `weighted_clusters`.
#[derive(Debug)]
pub struct WeightedCluster {
    /// The cluster.
    pub cluster: Arc<str>,
    /// Its weight.
    pub weight: u32,
}

/// The timeouts of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the whole request with all retries; `None` is no limit.
    pub global: Option<Duration>,
    /// For each try.
    pub per_try: Option<Duration>,
}

/// The result of hashing a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HashResult {
    /// The hash for ring hash and maglev; `None`: no policy had a value.
    pub hash: Option<u64>,
    /// Cookies to set, because they were missing and the policy has a lifetime for them.
    pub set_cookies: Vec<String>,
}

impl RouteTable {
    /// Compiles a route configuration. All errors are collected.
    pub fn compile(config: &RouteConfiguration) -> Result<Self, Vec<ConfigError>> {
        unimplemented!("{config:?}")
    }

    /// Finds where a request goes. `random` is drawn once for weighted clusters and once for each match by
    /// fraction.
    pub fn find(
        &self,
        head: &RequestHead<'_>,
        facts: &MatchFacts<'_>,
        random: &mut dyn FnMut() -> u64,
    ) -> Outcome {
        let _ = (facts, random());
        unimplemented!("{head:?}")
    }

    /// The names of all clusters that may be chosen (not those named by headers).
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<str>> {
        std::iter::empty()
    }
}

impl Route {
    /// Changes the head for the upstream: header mutations of the weighted cluster, route, virtual host and
    /// route configuration, host and path rewrites (with x-envoy-original-path).
    pub fn apply_request(
        &self,
        head: &mut RequestHeadMut<'_>,
        weighted: Option<usize>,
        info: &StreamInfo<'_>,
    ) {
        unimplemented!("{head:?} {weighted:?} {info:?}")
    }

    /// Changes the response headers likewise.
    pub fn apply_response(
        &self,
        headers: &mut HeaderMap,
        weighted: Option<usize>,
        info: &StreamInfo<'_>,
    ) {
        unimplemented!("{headers:?} {weighted:?} {info:?}")
    }

    /// Hashes a request for the load balancer (RING_HASH, MAGLEV). `random` makes up missing cookies.
    pub fn hash(
        &self,
        head: &RequestHead<'_>,
        source: std::net::IpAddr,
        random: &mut dyn FnMut() -> u64,
    ) -> HashResult {
        unimplemented!("{head:?} {source} {}", random())
    }

    /// Whether there is any hash policy.
    pub fn has_hash_policy(&self) -> bool {
        false
    }

    /// The timeouts of a request: the route's, changed by x-envoy-upstream-rq-timeout-ms,
    /// x-envoy-upstream-rq-per-try-timeout-ms and grpc-timeout.
    pub fn timeouts(&self, head: &RequestHead<'_>) -> Timeouts {
        unimplemented!("{head:?}")
    }

    /// Whether the route says something about upgrades to this protocol.
    pub fn upgrade(&self, protocol: &str) -> Option<bool> {
        unimplemented!("{protocol}")
    }

    /// The most specific `typed_per_filter_config` for a filter: weighted cluster, route, virtual host, route
    /// configuration. The `Arc` is the same for
    /// all requests: its address can key a cache of compiled configurations.
    pub fn filter_config(&self, filter: &str, weighted: Option<usize>) -> Option<&Arc<Any>> {
        let _: Option<BTreeMap<String, Any>> = None;
        unimplemented!("{filter} {weighted:?}")
    }
}
