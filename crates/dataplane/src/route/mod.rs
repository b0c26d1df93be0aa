//! Routes: from the head of a request to the cluster, redirect or answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use xds::envoy::config::route::v3 as config;
use xds::prost_types::Any;

use crate::circuit::Priority;
use crate::error::ConfigError;
use crate::headers::HeaderMutations;
use crate::lb::Criteria;
use crate::request::{RequestHead, RequestHeadMut};
use crate::retry::RetryPolicy;
use crate::stream::{Metadata, StreamInfo};

mod action;
mod compile;
mod hash;
mod hosts;
mod internal_redirect;
mod path;
#[cfg(test)]
mod tests;
mod timeouts;

pub use hash::{HashResult, xxhash64};
pub use internal_redirect::{InternalRedirect, NotFollowed, Target};
pub use timeouts::Timeouts;

use action::{Redirect, Rewrite};
use hosts::Hosts;
use path::Match;

/// A route configuration, compiled.
#[derive(Debug)]
pub struct RouteTable {
    /// Its name.
    pub name: Arc<str>,
    hosts: Hosts,
    virtual_hosts: Box<[VirtualHost]>,
}

#[derive(Debug)]
struct VirtualHost {
    name: Arc<str>,
    require_tls: config::virtual_host::TlsRequirementType,
    routes: Box<[Arc<Route>]>,
    /// One for each route, where there are many.
    quick: Box<[path::Quick]>,
    /// Stands for the redirect to https, which no configured route describes.
    tls_redirect: Option<Arc<Route>>,
}

/// What a match may look at beside the head.
#[derive(Debug, Clone, Copy)]
pub struct MatchFacts<'a> {
    /// Metadata left by filters (JWT claims under `envoy.filters.http.jwt_authn`).
    pub metadata: &'a Metadata,
    /// Whether the client showed a certificate, and whether it was verified.
    pub client_certificate: Option<bool>,
    /// The client's address.
    pub source: std::net::IpAddr,
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
    /// `timeout`: 15 s when absent, `None` when disabled (0).
    pub timeout: Option<Duration>,
    /// `idle_timeout` of the stream; `Some(ZERO)` switches the connection manager's off.
    pub idle_timeout: Option<Duration>,
    /// The retry policy: the route's, else the virtual host's.
    pub retry: Option<Arc<RetryPolicy>>,
    /// `internal_redirect_policy`.
    pub internal_redirect: Option<Box<InternalRedirect>>,
    /// How many bytes of a request are kept for other tries, mirrors and redirects: the route's
    /// `request_body_buffer_limit` or `per_request_buffer_limit_bytes`, else the virtual host's, else 1 MiB.
    pub buffer_limit: usize,
    /// A CONNECT ends here: its bytes become a TCP connection (`connect_config`).
    pub terminates_connect: bool,
    /// `request_mirror_policies`.
    pub mirrors: Box<[Mirror]>,
    /// The entries of `weighted_clusters`; empty for a single cluster.
    pub weighted: Box<[WeightedCluster]>,
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
    /// What `metadata_match` asks of endpoints; of a weighted cluster see [`Route::criteria`].
    metadata_match: Option<Arc<Criteria>>,
    /// `decorator.operation`.
    pub decorator: Option<String>,
    /// Whether the decorator is sent to the upstream in x-envoy-decorator-operation.
    pub decorator_propagate: bool,
    /// `tracing.random_sampling` and the like, as given.
    pub tracing: Option<Arc<xds::envoy::config::route::v3::Tracing>>,
    /// `rate_limits` of the route and, where included, of the virtual host.
    pub rate_limits: Box<[crate::descriptors::RateLimit]>,
    /// Whether the host is replaced by the endpoint's name (`auto_host_rewrite`).
    pub auto_host_rewrite: bool,
    matches: Match,
    action: Action,
    request_headers: Box<[Arc<HeaderMutations>]>,
    response_headers: Box<[Arc<HeaderMutations>]>,
    rewrite: Option<Box<Rewrite>>,
    hash: Box<[hash::Policy]>,
    upgrades: Box<[(String, bool)]>,
    /// Most specific first: route, virtual host, route configuration; those that say something.
    filters: Box<[Arc<FilterConfigs>]>,
    max_stream: Option<Box<timeouts::StreamLimits>>,
}

type FilterConfigs = HashMap<String, Arc<Any>>;

#[derive(Debug)]
enum Action {
    Cluster(Arc<str>),
    ClusterHeader(http::HeaderName),
    Weighted(u64, DrawBy),
    Redirect(Box<Redirect>),
    TlsRedirect,
    Direct { status: u16, body: Bytes },
}

/// What decides about one of several weighted clusters.
#[derive(Debug)]
enum DrawBy {
    Chance,
    Header(http::HeaderName),
    /// The route's hash policy; chance, where it gives nothing.
    Hash,
}

/// A copy of a request, sent somewhere else without waiting for an answer.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// The cluster.
    pub cluster: Arc<str>,
    /// The share of requests.
    pub fraction: crate::matching::Fraction,
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
    request_headers: HeaderMutations,
    response_headers: HeaderMutations,
    host_rewrite: Option<String>,
    filters: FilterConfigs,
    /// The route's and its own together.
    metadata_match: Option<Arc<Criteria>>,
}

impl RouteTable {
    /// Compiles a route configuration. All errors are collected.
    pub fn compile(config: &config::RouteConfiguration) -> Result<Self, Vec<ConfigError>> {
        compile::table(config)
    }

    /// Finds where a request goes. At most one `random` number is drawn; as in Envoy it serves for weighted
    /// clusters and for matches by fraction alike.
    pub fn find(
        &self,
        head: &RequestHead<'_>,
        facts: &MatchFacts<'_>,
        random: &mut dyn FnMut() -> u64,
    ) -> Outcome {
        let Some(host) = self.hosts.find(head.authority) else {
            return Outcome::NotFound { virtual_host: None };
        };
        let virtual_host = &self.virtual_hosts[host];
        let mut drawn = None;
        let mut random = || *drawn.get_or_insert_with(&mut *random);
        if let Some(redirect) = virtual_host.tls_redirect(head) {
            return redirect.outcome(head, facts, &mut random);
        }
        let path = head.path_only();
        let may_match = |at: usize| {
            let quick = virtual_host.quick.get(at);
            quick.is_none_or(|quick| quick.may_match(path))
        };
        let mut routes = virtual_host.routes.iter().enumerate();
        match routes
            .find(|(at, route)| may_match(*at) && route.matches.matches(head, facts, &mut random))
        {
            Some((_, route)) => route.outcome(head, facts, &mut random),
            None => Outcome::NotFound {
                virtual_host: Some(virtual_host.name.clone()),
            },
        }
    }

    /// All routes, virtual host by virtual host.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.virtual_hosts.iter().flat_map(|host| &host.routes)
    }

    /// The names of all clusters that may be chosen or mirrored to (not those named by headers).
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<str>> {
        self.routes().flat_map(|route| {
            let single = match &route.action {
                Action::Cluster(cluster) => Some(cluster),
                _ => None,
            };
            let weighted = route.weighted.iter().map(|entry| &entry.cluster);
            single
                .into_iter()
                .chain(weighted)
                .chain(route.mirrors.iter().map(|mirror| &mirror.cluster))
        })
    }
}

impl VirtualHost {
    fn tls_redirect(&self, head: &RequestHead<'_>) -> Option<&Arc<Route>> {
        use config::virtual_host::TlsRequirementType as Requirement;
        let insecure = !head.scheme.eq_ignore_ascii_case("https");
        let needed = match self.require_tls {
            Requirement::None => false,
            Requirement::All => insecure,
            Requirement::ExternalOnly => {
                insecure
                    && head
                        .headers
                        .get("x-envoy-internal")
                        .is_none_or(|value| value != "true")
            }
        };
        if needed {
            self.tls_redirect.as_ref()
        } else {
            None
        }
    }
}

impl Route {
    fn outcome(
        self: &Arc<Self>,
        head: &RequestHead<'_>,
        facts: &MatchFacts<'_>,
        random: &mut dyn FnMut() -> u64,
    ) -> Outcome {
        let route = self.clone();
        match &self.action {
            Action::Cluster(cluster) => Outcome::Forward {
                route,
                cluster: cluster.clone(),
                weighted: None,
            },
            Action::ClusterHeader(name) => {
                let name = head
                    .headers
                    .get(name)
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or_default();
                Outcome::Forward {
                    route,
                    cluster: Arc::from(name),
                    weighted: None,
                }
            }
            Action::Weighted(total, by) => {
                let named = match by {
                    DrawBy::Chance => None,
                    DrawBy::Header(name) => head
                        .headers
                        .get(name)
                        .and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok()),
                    DrawBy::Hash => self.hash(head, facts.source, &mut *random).hash,
                };
                let mut left = named.unwrap_or_else(&mut *random) % total;
                for (index, entry) in self.weighted.iter().enumerate() {
                    match left.checked_sub(u64::from(entry.weight)) {
                        Some(rest) => left = rest,
                        None => {
                            let cluster = entry.cluster.clone();
                            return Outcome::Forward {
                                route,
                                cluster,
                                weighted: Some(index),
                            };
                        }
                    }
                }
                unreachable!("the weights add up to the total")
            }
            Action::Redirect(redirect) => {
                let location = redirect.location(head, &self.matches);
                Outcome::Redirect {
                    route,
                    status: redirect.status,
                    location,
                }
            }
            Action::TlsRedirect => {
                let location = format!("https://{}{}", head.authority, head.path);
                Outcome::Redirect {
                    route,
                    status: 301,
                    location,
                }
            }
            Action::Direct { status, body } => Outcome::Direct {
                route,
                status: *status,
                body: body.clone(),
            },
        }
    }

    /// Changes the head for the upstream: header mutations of the weighted cluster, route, virtual host and
    /// route configuration, then host and path rewrites (with x-envoy-original-host and -path, unless
    /// `suppress_envoy_headers` of the router says not to).
    pub fn apply_request(
        &self,
        head: &mut RequestHeadMut<'_>,
        weighted: Option<usize>,
        info: &StreamInfo<'_>,
        suppress_envoy_headers: bool,
    ) {
        let entry = weighted.and_then(|index| self.weighted.get(index));
        if let Some(entry) = entry {
            entry.request_headers.apply_request(head, info);
        }
        for mutations in &self.request_headers {
            mutations.apply_request(head, info);
        }
        if let Some(host) = entry.and_then(|entry| entry.host_rewrite.as_deref()) {
            // The route's own wins over it; nothing is told of it.
            *head.authority = host.to_owned();
        }
        if let Some(rewrite) = &self.rewrite {
            rewrite.host(head, suppress_envoy_headers);
            rewrite.path(head, &self.matches, suppress_envoy_headers);
        }
    }

    /// Gives a request that is redirected the path which its client is sent to: formats of logs and of added headers see it.
    pub fn apply_redirect(&self, head: &mut RequestHeadMut<'_>, suppress_envoy_headers: bool) {
        if let Action::Redirect(redirect) = &self.action
            && let Some(path) = redirect.rewritten(head.path, &self.matches)
        {
            action::replace_path(head, path, suppress_envoy_headers);
        }
    }

    /// Gives the request the name of the endpoint that was picked as its host, where `auto_host_rewrite` says so.
    pub fn apply_endpoint(
        &self,
        head: &mut RequestHeadMut<'_>,
        hostname: &str,
        suppress_envoy_headers: bool,
    ) {
        if self.auto_host_rewrite && !hostname.is_empty() {
            let append = self.rewrite.as_ref();
            let append = append.is_some_and(|rewrite| rewrite.append_forwarded_host);
            action::replace_host(head, hostname.to_owned(), append, suppress_envoy_headers);
        }
    }

    /// The path that the upstream will see, without changing anything: for explanations.
    pub fn rewritten_path(&self, path: &str) -> Option<String> {
        self.rewrite.as_ref()?.rewritten(path, &self.matches)
    }

    /// Changes the response headers likewise.
    pub fn apply_response(
        &self,
        headers: &mut HeaderMap,
        weighted: Option<usize>,
        info: &StreamInfo<'_>,
    ) {
        if let Some(entry) = weighted.and_then(|index| self.weighted.get(index)) {
            entry.response_headers.apply_response(headers, info);
        }
        for mutations in &self.response_headers {
            mutations.apply_response(headers, info);
        }
    }

    /// Hashes a request for the load balancer (RING_HASH, MAGLEV). `random` makes up missing cookies.
    pub fn hash(
        &self,
        head: &RequestHead<'_>,
        source: std::net::IpAddr,
        random: &mut dyn FnMut() -> u64,
    ) -> HashResult {
        hash::evaluate(&self.hash, head, source, random)
    }

    /// What the metadata of an endpoint must say, for clusters with subsets.
    pub fn criteria(&self, weighted: Option<usize>) -> Option<&Arc<Criteria>> {
        match weighted.and_then(|index| self.weighted.get(index)) {
            Some(entry) => entry.metadata_match.as_ref(),
            None => self.metadata_match.as_ref(),
        }
    }

    /// Whether there is any hash policy.
    pub fn has_hash_policy(&self) -> bool {
        !self.hash.is_empty()
    }

    /// Whether the route says something about upgrades to this protocol.
    pub fn upgrade(&self, protocol: &str) -> Option<bool> {
        self.upgrades
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(protocol))
            .map(|(_, enabled)| *enabled)
    }

    /// The most specific `typed_per_filter_config` for a filter: weighted cluster, route, virtual host, route
    /// configuration. The `Arc` is the same for all requests: its address can key a cache of compiled
    /// configurations.
    pub fn filter_config(&self, filter: &str, weighted: Option<usize>) -> Option<&Arc<Any>> {
        let entry = weighted.and_then(|index| self.weighted.get(index));
        let most_specific = entry.and_then(|entry| entry.filters.get(filter));
        most_specific.or_else(|| self.filters.iter().find_map(|level| level.get(filter)))
    }

    /// All `typed_per_filter_config`s that [`Route::filter_config`] may answer with, for compiling ahead.
    pub fn filter_configs(&self) -> impl Iterator<Item = (&str, &Arc<Any>)> {
        let own = self.filters.iter().flat_map(|level| level.iter());
        let weighted = self.weighted.iter().flat_map(|entry| entry.filters.iter());
        own.chain(weighted)
            .map(|(name, config)| (name.as_str(), config))
    }
}

/// A `RouteMatch` on its own, as other filters use it.
#[derive(Debug)]
pub struct RouteMatcher(Match);

impl RouteMatcher {
    /// Compiles it.
    pub fn compile(config: &config::RouteMatch) -> Result<Self, ConfigError> {
        Match::compile(config, false).map(Self)
    }

    /// Whether a request matches. Fractions other than none and all never do: nothing is drawn here.
    pub fn matches(&self, head: &RequestHead<'_>, facts: &MatchFacts<'_>) -> bool {
        self.0.matches(head, facts, &mut || u64::MAX)
    }
}

impl Mirror {
    /// Whether this request is copied.
    pub fn draw(&self, random: &mut dyn FnMut() -> u64) -> bool {
        self.fraction.draw(random)
    }

    /// The authority of the copy.
    pub fn authority(&self, authority: &str) -> String {
        if !self.host_rewrite.is_empty() {
            return self.host_rewrite.clone();
        }
        if !self.shadow_suffix {
            return authority.to_owned();
        }
        match hosts::port_start(authority) {
            Some(port) => format!("{}-shadow{}", &authority[..port], &authority[port..]),
            None => format!("{authority}-shadow"),
        }
    }
}
