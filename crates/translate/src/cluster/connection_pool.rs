//! Connection pools: circuit breakers, timeouts, keep-alive and the HTTP options of the upstream.

use super::unlimited;
use crate::context::Context;
use crate::proto::{duration, percent};
use crate::protocol::Protocol;
use crate::traffic_policy::Policy;
use api::istio::{
    ConnectionPoolSettings, Duration, H2UpgradePolicy, HttpSettings, MeshH2UpgradePolicy,
    RetryBudget, TcpKeepalive,
};
use xds::envoy::config::cluster::v3::{
    CircuitBreakers, Cluster, UpstreamConnectionOptions, circuit_breakers::thresholds,
};
use xds::envoy::config::core::v3 as core;
use xds::envoy::extensions::upstreams::http::v3::{
    HttpProtocolOptions, http_protocol_options as http,
};

/// What is spoken to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upstream {
    Default,
    Http2,
    /// What the client speaks.
    Downstream,
}

/// The HTTP options of a cluster while it is being made.
#[derive(Debug, Clone)]
pub(crate) struct HttpOptions {
    pub(crate) upstream: Upstream,
    common: Option<core::HttpProtocolOptions>,
    http2: core::Http2ProtocolOptions,
    pub(crate) auto_sni: Option<core::UpstreamHttpProtocolOptions>,
    preserve_case: bool,
}

impl HttpOptions {
    /// For a port's protocol; `detects` says that unknown protocols are found out by this proxy.
    pub(crate) fn new(protocol: Protocol, detects: bool) -> Self {
        let upstream = match protocol {
            protocol if protocol.is_http2() => Upstream::Http2,
            Protocol::Auto if detects => Upstream::Downstream,
            _ => Upstream::Default,
        };
        Self {
            upstream,
            common: None,
            http2: core::Http2ProtocolOptions::default(),
            auto_sni: None,
            preserve_case: false,
        }
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.upstream == Upstream::Http2
    }

    /// The options, unless everything is Envoy's default.
    pub(crate) fn finish(self) -> Option<HttpProtocolOptions> {
        if self.upstream == Upstream::Default
            && self.common.is_none()
            && self.auto_sni.is_none()
            && !self.preserve_case
        {
            return None;
        }
        let http1 = core::Http1ProtocolOptions {
            header_key_format: self.preserve_case.then(crate::hcm::preserve_case),
            ..Default::default()
        };
        let options = match self.upstream {
            Upstream::Default => {
                explicit(http::explicit_http_config::ProtocolConfig::HttpProtocolOptions(http1))
            }
            Upstream::Http2 => explicit(
                http::explicit_http_config::ProtocolConfig::Http2ProtocolOptions(self.http2),
            ),
            Upstream::Downstream => http::UpstreamProtocolOptions::UseDownstreamProtocolConfig(
                http::UseDownstreamHttpConfig {
                    http_protocol_options: Some(http1),
                    http2_protocol_options: Some(self.http2),
                    ..Default::default()
                },
            ),
        };
        Some(HttpProtocolOptions {
            common_http_protocol_options: self.common,
            upstream_http_protocol_options: self.auto_sni,
            upstream_protocol_options: Some(options),
            ..Default::default()
        })
    }

    /// Keeps the case of HTTP/1 headers, where HTTP/1 may be spoken.
    pub(crate) fn preserve_case(&mut self, protocol: Protocol) {
        self.preserve_case = protocol.is_http_or_auto() && self.upstream != Upstream::Http2;
    }

    pub(crate) fn idle_timeout(&mut self, timeout: Duration) {
        self.common.get_or_insert_default().idle_timeout = Some(duration(timeout));
    }
}

fn explicit(config: http::explicit_http_config::ProtocolConfig) -> http::UpstreamProtocolOptions {
    http::UpstreamProtocolOptions::ExplicitHttpConfig(http::ExplicitHttpConfig {
        protocol_config: Some(config),
    })
}

/// Connection pool and retry budget of a policy, completed by the mesh.
pub(crate) fn effective_pool<'a>(
    context: &'a Context<'_>,
    policy: &Policy<'a>,
) -> Option<&'a ConnectionPoolSettings> {
    let mesh = context.snapshot.mesh.default_traffic_policy.as_ref();
    policy
        .pool
        .or_else(|| mesh.and_then(|mesh| mesh.connection_pool.as_ref()))
}

/// Applies a connection pool to a cluster.
pub(crate) fn apply(
    context: &Context<'_>,
    cluster: &mut Cluster,
    options: &mut HttpOptions,
    pool: Option<&ConnectionPoolSettings>,
    budget: Option<&RetryBudget>,
) {
    let mesh = &context.snapshot.mesh;
    let mut limits = unlimited();
    let tcp = pool.and_then(|pool| pool.tcp.as_ref());
    let http = pool.and_then(|pool| pool.http.as_ref());
    let set = |limit: &mut Option<u32>, value: i32| {
        if value > 0 {
            *limit = Some(value as u32);
        }
    };
    let mut connect_timeout = mesh.connect_timeout();
    let mut keepalive = mesh
        .tcp_keepalive
        .as_ref()
        .map(|settings| merged_keepalive(None, settings));
    let mut idle = None;
    let mut lifetime = None;
    if let Some(tcp) = tcp {
        set(&mut limits.max_connections, tcp.max_connections);
        connect_timeout = tcp.connect_timeout.unwrap_or(connect_timeout);
        lifetime = tcp.max_connection_duration;
        idle = tcp.idle_timeout;
        if let Some(own) = &tcp.tcp_keepalive {
            keepalive = Some(merged_keepalive(keepalive.take(), own));
        }
    }
    let mut per_connection = 0;
    let mut http2_settings = false;
    if let Some(http) = http {
        set(
            &mut limits.max_pending_requests,
            http.http1_max_pending_requests,
        );
        set(&mut limits.max_requests, http.http2_max_requests);
        set(&mut limits.max_retries, http.max_retries);
        per_connection = http.max_requests_per_connection;
        idle = http.idle_timeout.or(idle);
        http2_settings = http.max_concurrent_streams > 0 || http.http2_keep_alive.is_some();
        if options.is_http2() {
            apply_http2(http, &mut options.http2);
        }
    }
    if let Some(budget) = budget {
        limits.retry_budget = Some(thresholds::RetryBudget {
            budget_percent: Some(percent(budget.percent.unwrap_or(20.0))),
            budget_interval: budget.budget_interval.map(duration),
            min_retry_concurrency: Some(if budget.min_retry_concurrency == 0 {
                3
            } else {
                budget.min_retry_concurrency
            }),
        });
    }
    if idle.is_some() || per_connection > 0 || lifetime.is_some() || http2_settings {
        let common = options.common.get_or_insert_default();
        common.idle_timeout = idle.map(duration);
        common.max_connection_duration = lifetime.map(duration);
        if per_connection > 0 {
            common.max_requests_per_connection = Some(per_connection as u32);
        }
    }
    cluster.connect_timeout = Some(duration(connect_timeout));
    if let Some(keepalive) = keepalive {
        cluster.upstream_connection_options = Some(UpstreamConnectionOptions {
            tcp_keepalive: Some(keepalive),
            ..Default::default()
        });
    }
    cluster.circuit_breakers = Some(CircuitBreakers {
        thresholds: vec![limits],
        ..Default::default()
    });
}

fn apply_http2(http: &HttpSettings, options: &mut core::Http2ProtocolOptions) {
    if http.max_concurrent_streams > 0 {
        options.max_concurrent_streams = Some(http.max_concurrent_streams as u32);
    }
    if let Some(keepalive) = &http.http2_keep_alive {
        options.connection_keepalive = Some(core::KeepaliveSettings {
            interval: keepalive.interval.map(duration),
            timeout: keepalive.timeout.map(duration),
            ..Default::default()
        });
    }
}

fn merged_keepalive(
    base: Option<core::TcpKeepalive>,
    settings: &TcpKeepalive,
) -> core::TcpKeepalive {
    let mut out = base.unwrap_or_default();
    if settings.probes > 0 {
        out.keepalive_probes = Some(settings.probes);
    }
    if let Some(time) = settings.time {
        out.keepalive_time = Some(time.seconds() as u32);
    }
    if let Some(interval) = settings.interval {
        out.keepalive_interval = Some(interval.seconds() as u32);
    }
    out
}

/// What an outbound cluster speaks: the port's protocol, changed by the policy or the mesh.
pub(crate) fn choose_upstream(
    context: &Context<'_>,
    options: &mut HttpOptions,
    protocol: Protocol,
    pool: Option<&ConnectionPoolSettings>,
) {
    let http = pool.and_then(|pool| pool.http.as_ref());
    if http.is_some_and(|http| http.use_client_protocol) {
        options.upstream = Upstream::Downstream;
        return;
    }
    if options.upstream != Upstream::Default {
        return;
    }
    let upgrade = match http.map(|http| http.h2_upgrade_policy).unwrap_or_default() {
        H2UpgradePolicy::Upgrade => true,
        H2UpgradePolicy::DoNotUpgrade => false,
        H2UpgradePolicy::Default => {
            context.snapshot.mesh.h2_upgrade_policy == MeshH2UpgradePolicy::Upgrade
                && protocol.is_http()
        }
    };
    if upgrade {
        options.upstream = Upstream::Http2;
    }
}
