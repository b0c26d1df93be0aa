//! `jwt_authn`: the rules are [`dataplane::jwt`]'s; here are its statistics and the key sets that have to be fetched.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use dataplane::jwt::{FILTER, Jwks, JwtAuthn};
use dataplane::route::MatchFacts;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, StatusCode, Uri};
use parking_lot::Mutex;
use xds::envoy::config::core::v3::http_uri::HttpUpstreamType;
use xds::envoy::extensions::filters::http::jwt_authn::v3 as config;
use xds::envoy::extensions::filters::http::jwt_authn::v3::jwt_provider::JwksSourceSpecifier;

use super::super::callout;
use super::super::connection::{Answer, Connection, Flow};
use super::super::record::{Head, Record};
use super::FilterContext;
use crate::config::listener::duration;
use crate::stats::groups::JwtStats;

/// The filter, compiled.
pub struct Jwt {
    rules: JwtAuthn,
    remote: HashMap<String, Remote>,
    stats: Arc<JwtStats>,
}

/// A key set that is fetched.
struct Remote {
    cluster: String,
    uri: Uri,
    timeout: Duration,
    keep: Duration,
    known: Mutex<Option<(Instant, Arc<Jwks>)>>,
}

/// What a route says.
pub enum PerRoute {
    /// The filter is off.
    Disabled,
    /// The name of the requirement.
    Requirement(String),
}

impl Jwt {
    /// Compiles the filter.
    ///
    /// # Errors
    /// The field that cannot be carried out.
    pub fn compile(
        config: &config::JwtAuthentication,
        context: &FilterContext<'_>,
    ) -> Result<Self, String> {
        if config.strip_failure_response {
            return Err("strip_failure_response: is not supported".into());
        }
        let rules = JwtAuthn::compile(config).map_err(|error| error.to_string())?;
        let mut remote = HashMap::new();
        for (name, provider) in &config.providers {
            let at = |field: &str, why: &str| format!("providers[{name:?}].{field}: {why}");
            if !provider.failed_status_in_metadata.is_empty() {
                return Err(at("failed_status_in_metadata", "is not supported"));
            }
            let Some(JwksSourceSpecifier::RemoteJwks(jwks)) = &provider.jwks_source_specifier
            else {
                continue;
            };
            let uri = jwks
                .http_uri
                .as_ref()
                .ok_or_else(|| at("remote_jwks.http_uri", "is missing"))?;
            let Some(HttpUpstreamType::Cluster(cluster)) = &uri.http_upstream_type else {
                return Err(at("remote_jwks.http_uri.cluster", "is missing"));
            };
            remote.insert(
                name.clone(),
                Remote {
                    cluster: cluster.clone(),
                    uri: uri
                        .uri
                        .parse()
                        .map_err(|_| at("remote_jwks.http_uri.uri", "is no URI"))?,
                    timeout: duration(uri.timeout.as_ref()).unwrap_or(Duration::from_secs(5)),
                    keep: duration(jwks.cache_duration.as_ref())
                        .filter(|keep| !keep.is_zero())
                        .unwrap_or(Duration::from_secs(600)),
                    known: Mutex::default(),
                },
            );
        }
        Ok(Self {
            rules,
            remote,
            stats: context
                .shared
                .stats
                .group(&format!("http.{}.jwt_authn", context.stat_prefix)),
        })
    }

    /// Judges a request.
    pub async fn run(
        &self,
        conn: &Rc<Connection>,
        record: &mut Record,
        flow: &mut Flow,
        route: Option<&PerRoute>,
    ) -> Option<Answer> {
        let named = match route {
            Some(PerRoute::Disabled) => return None,
            Some(PerRoute::Requirement(name)) => Some(name.as_str()),
            None => None,
        };
        let mut keys: HashMap<&str, Arc<Jwks>> = HashMap::new();
        for (name, remote) in &self.remote {
            if let Some(found) = self.fetched(conn, remote).await {
                keys.insert(name, found);
            }
        }
        let result = {
            let facts = MatchFacts {
                metadata: &record.metadata,
                client_certificate: conn
                    .info
                    .tls
                    .as_ref()
                    .and_then(|tls| tls.peer.as_ref())
                    .map(|_| true),
                source: record.remote.unwrap_or(conn.info.remote).ip(),
            };
            self.rules.check(
                &record.head.view(),
                &facts,
                named,
                SystemTime::now(),
                &|name| keys.get(name).cloned(),
            )
        };
        match result {
            Ok(effects) => {
                self.stats.allowed.inc();
                effects.apply(&mut record.head.change());
                if effects.clear_route_cache {
                    flow.reroute = true;
                }
                if !effects.metadata.is_empty() {
                    record
                        .metadata
                        .insert(FILTER.to_owned(), effects.metadata.into());
                }
                None
            }
            Err(failure) => {
                self.stats.denied.inc();
                let (reply, challenge) = failure.reply(&record.head.view());
                let mut headers = HeaderMap::new();
                if let Ok(challenge) = HeaderValue::try_from(challenge) {
                    headers.insert(header::WWW_AUTHENTICATE, challenge);
                }
                Some(Answer::Refused(reply, headers))
            }
        }
    }

    async fn fetched(&self, conn: &Connection, remote: &Remote) -> Option<Arc<Jwks>> {
        if let Some((at, keys)) = &*remote.known.lock()
            && at.elapsed() < remote.keep
        {
            return Some(keys.clone());
        }
        let head = Head {
            method: Method::GET,
            scheme: if remote.uri.scheme_str() == Some("https") {
                "https"
            } else {
                "http"
            },
            authority: remote
                .uri
                .authority()
                .map_or_else(String::new, ToString::to_string),
            path: remote
                .uri
                .path_and_query()
                .map_or_else(|| "/".to_owned(), ToString::to_string),
            headers: HeaderMap::new(),
        };
        let reply = callout::http(
            &conn.worker,
            &conn.shared,
            &remote.cluster,
            &head,
            Bytes::new(),
            remote.timeout,
        )
        .await;
        let keys = match reply {
            Ok(reply) if reply.status == StatusCode::OK => {
                Jwks::parse(&String::from_utf8_lossy(&reply.body))
            }
            Ok(reply) => Err(format!("HTTP status {}", reply.status)),
            Err(error) => Err(error.to_string()),
        };
        match keys {
            Ok(keys) => {
                self.stats.jwks_fetch_success.inc();
                let keys = Arc::new(keys);
                *remote.known.lock() = Some((Instant::now(), keys.clone()));
                Some(keys)
            }
            Err(error) => {
                self.stats.jwks_fetch_failed.inc();
                tracing::warn!("jwt_authn: {}: {error}", remote.uri);
                None
            }
        }
    }
}

impl PerRoute {
    /// Compiles what a route says.
    ///
    /// # Errors
    /// When it says nothing.
    pub fn compile(config: &config::PerRouteConfig) -> Result<Self, String> {
        use config::per_route_config::RequirementSpecifier;
        match &config.requirement_specifier {
            Some(RequirementSpecifier::Disabled(true)) => Ok(Self::Disabled),
            Some(RequirementSpecifier::RequirementName(name)) => {
                Ok(Self::Requirement(name.clone()))
            }
            _ => Err("requirement_specifier: disabled: true or requirement_name is needed".into()),
        }
    }
}
