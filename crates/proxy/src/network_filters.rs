//! Network filters in front of the one that serves: who may connect, and how many.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use dataplane::StreamInfo;
use dataplane::local_ratelimit::TokenBucket;
use dataplane::matching::MetadataMatch;
use dataplane::rbac::Rbac;
use dataplane::stream::Metadata;
use xds::envoy::extensions::filters::network::connection_limit::v3::ConnectionLimit as LimitConfig;
use xds::envoy::extensions::filters::network::ext_authz::v3::ExtAuthz as AuthzConfig;
use xds::envoy::extensions::filters::network::local_ratelimit::v3::LocalRateLimit as RateConfig;
use xds::envoy::service::auth::v3::attribute_context::Peer;
use xds::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};

use crate::config::Shared;
use crate::config::listener::{Chain, NetworkFilter, duration};
use crate::http::callout::GrpcTarget;
use crate::http::filters::ext_authz::{CHECK, address_of, principal};
use crate::stats::groups::{
    ConnectionLimitStats, NetworkExtAuthzStats, NetworkRateLimitStats, TcpStats,
};
use crate::worker::Worker;

/// `connection_limit`, compiled.
pub struct ConnectionLimit {
    max: u64,
    delay: Duration,
    active: Arc<AtomicU64>,
    stats: Arc<ConnectionLimitStats>,
}

/// A place among the connections that are allowed.
struct Place {
    active: Arc<AtomicU64>,
    stats: Arc<ConnectionLimitStats>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
        self.stats.active_connections.dec();
    }
}

impl ConnectionLimit {
    /// Compiles the filter.
    ///
    /// # Errors
    /// When it has no limit.
    pub fn compile(config: &LimitConfig, shared: &Shared) -> Result<Self, String> {
        Ok(Self {
            max: config
                .max_connections
                .filter(|max| *max > 0)
                .ok_or("max_connections: must be at least 1")?,
            delay: duration(config.delay.as_ref()).unwrap_or_default(),
            active: Arc::default(),
            stats: shared
                .stats
                .group(&format!("connection_limit.{}", config.stat_prefix)),
        })
    }

    fn take(&self) -> Option<Place> {
        let place = self
            .active
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |active| {
                (active < self.max).then_some(active + 1)
            });
        if place.is_err() {
            self.stats.limited_connections.inc();
            return None;
        }
        self.stats.active_connections.inc();
        Some(Place {
            active: self.active.clone(),
            stats: self.stats.clone(),
        })
    }
}

/// `local_ratelimit`, compiled.
pub struct ConnectionRate {
    bucket: TokenBucket,
    stats: Arc<NetworkRateLimitStats>,
}

impl ConnectionRate {
    /// Compiles the filter.
    ///
    /// # Errors
    /// The field that cannot be carried out.
    pub fn compile(config: &RateConfig, shared: &Shared) -> Result<Self, String> {
        if !config.share_key.is_empty() {
            return Err("share_key: is not supported".into());
        }
        let bucket = config
            .token_bucket
            .as_ref()
            .ok_or("token_bucket: is missing")?;
        Ok(Self {
            bucket: TokenBucket::compile(bucket)
                .map_err(|error| error.within("token_bucket").to_string())?,
            stats: shared
                .stats
                .group(&format!("local_rate_limit.{}", config.stat_prefix)),
        })
    }
}

/// `ext_authz` for connections, compiled.
pub struct ConnectionAuthz {
    service: GrpcTarget,
    allow_on_failure: bool,
    enabled: Option<MetadataMatch>,
    stats: Arc<NetworkExtAuthzStats>,
}

impl ConnectionAuthz {
    /// Compiles the filter.
    ///
    /// # Errors
    /// The field that cannot be carried out.
    pub fn compile(config: &AuthzConfig, shared: &Shared) -> Result<Self, String> {
        for (field, set) in [
            ("shadow_mode", config.shadow_mode),
            ("send_tls_alert_on_denial", config.send_tls_alert_on_denial),
            ("include_peer_certificate", config.include_peer_certificate),
            ("include_tls_session", config.include_tls_session),
            (
                "bootstrap_metadata_labels_key",
                !config.bootstrap_metadata_labels_key.is_empty(),
            ),
            (
                "metadata_context_namespaces",
                !config.metadata_context_namespaces.is_empty(),
            ),
        ] {
            if set {
                return Err(format!("{field}: is not supported"));
            }
        }
        Ok(Self {
            service: GrpcTarget::compile(config.grpc_service.as_ref(), Duration::from_millis(200))?,
            allow_on_failure: config.failure_mode_allow,
            enabled: config
                .filter_enabled_metadata
                .as_ref()
                .map(MetadataMatch::compile)
                .transpose()
                .map_err(|error| format!("filter_enabled_metadata: {error}"))?,
            stats: shared
                .stats
                .group(&format!("ext_authz.{}", config.stat_prefix)),
        })
    }

    async fn check(
        &self,
        worker: &Worker,
        shared: &Shared,
        info: &dataplane::Connection,
    ) -> Result<(), &'static str> {
        let tls = info.tls.as_deref();
        let peer = |address, certificate: Option<&dataplane::stream::Certificate>| Peer {
            address: Some(address_of(address)),
            principal: principal(certificate),
            ..Peer::default()
        };
        let request = CheckRequest {
            attributes: Some(AttributeContext {
                source: Some(peer(info.remote, tls.and_then(|tls| tls.peer.as_deref()))),
                destination: Some(peer(info.local, tls.and_then(|tls| tls.local.as_deref()))),
                ..AttributeContext::default()
            }),
        };
        self.stats.total.inc();
        match self
            .service
            .unary::<CheckResponse>(worker, shared, CHECK, &request)
            .await
        {
            Ok(answer) if answer.status.as_ref().is_none_or(|status| status.code == 0) => {
                self.stats.ok.inc();
                Ok(())
            }
            Ok(_) => {
                self.stats.denied.inc();
                Err("ext_authz_denied")
            }
            Err(error) => {
                tracing::debug!("ext_authz: {}: {error}", self.service.cluster);
                self.stats.error.inc();
                if self.allow_on_failure {
                    self.stats.failure_mode_allowed.inc();
                    return Ok(());
                }
                Err("ext_authz_error")
            }
        }
    }
}

/// What a connection holds while it is served.
#[derive(Default)]
pub struct Admitted {
    /// What filters found out.
    pub metadata: Metadata,
    places: Vec<Place>,
}

/// Lets a connection through the filters of its chain.
///
/// # Errors
/// Why it is refused, for `%CONNECTION_TERMINATION_DETAILS%`.
pub async fn admit(
    worker: &Rc<Worker>,
    shared: &Arc<Shared>,
    chain: &Chain,
    info: &dataplane::Connection,
    tcp: Option<&TcpStats>,
) -> Result<Admitted, String> {
    let mut admitted = Admitted::default();
    for filter in &chain.filters {
        match filter {
            NetworkFilter::Rbac(rules) => rbac(rules, info, &mut admitted.metadata, tcp)?,
            NetworkFilter::ConnectionLimit(limit) => match limit.take() {
                Some(place) => admitted.places.push(place),
                None => {
                    tokio::time::sleep(limit.delay).await;
                    return Err("connection_limit_exceeded".to_owned());
                }
            },
            NetworkFilter::LocalRateLimit(rate) => {
                if !rate.bucket.take(shared.started.elapsed()) {
                    rate.stats.rate_limited.inc();
                    return Err("local_ratelimit_exceeded".to_owned());
                }
            }
            NetworkFilter::ExtAuthz(authz) => {
                if authz
                    .enabled
                    .as_ref()
                    .is_none_or(|wanted| wanted.matches(&admitted.metadata))
                {
                    authz.check(worker, shared, info).await?;
                }
            }
            NetworkFilter::MetadataExchange
            | NetworkFilter::IstioStats(_)
            | NetworkFilter::SniCluster
            | NetworkFilter::SniForward(_) => {}
        }
    }
    Ok(admitted)
}

/// The name under which rules that only watch leave what they found.
const RBAC: &str = "envoy.filters.network.rbac";

fn rbac(
    rules: &Rbac,
    info: &dataplane::Connection,
    metadata: &mut Metadata,
    stats: Option<&TcpStats>,
) -> Result<(), String> {
    let now = SystemTime::now();
    let noted = {
        let stream = StreamInfo::new(info, metadata, now);
        rules
            .shadow(&stream)
            .map(|decision| rules.shadow_metadata(&decision))
    };
    if let Some(fields) = noted {
        let entry = metadata.entry(RBAC.to_owned());
        match entry.or_insert_with(|| serde_json::Map::new().into()) {
            serde_json::Value::Object(all) => all.extend(fields),
            other => *other = fields.into(),
        }
    }
    let decision = rules.decide(&StreamInfo::new(info, metadata, now));
    if !decision.allowed {
        if let Some(stats) = stats {
            stats.rbac_denied.inc();
        }
        return Err(decision.details());
    }
    if let Some(stats) = stats.filter(|_| rules.enforces()) {
        stats.rbac_allowed.inc();
    }
    Ok(())
}
