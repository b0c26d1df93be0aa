//! Compiling route configurations.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use xds::envoy::config::core::v3::{HeaderValueOption, data_source::Specifier};
use xds::envoy::config::route::v3 as config;
use xds::envoy::config::route::v3::{route, route_action};
use xds::prost_types::Any;

use super::action::{Redirect, Rewrite};
use super::hosts::Hosts;
use super::path::Match;
use super::timeouts::StreamLimits;
use super::{
    Action, DrawBy, FilterConfigs, InternalRedirect, Mirror, Route, RouteTable, VirtualHost,
    WeightedCluster, hash,
};
use crate::circuit::Priority;
use crate::cluster::duration;
use crate::descriptors::RateLimit;
use crate::error::ConfigError;
use crate::headers::HeaderMutations;
use crate::lb::Criteria;
use crate::matching::{Fraction, metadata};
use crate::retry::RetryPolicy;
use crate::stream::Metadata;
use crate::unread::unread;

/// How many bytes of a request are kept where nothing else is said: as many as a connection buffers.
const BUFFER_LIMIT: usize = 1 << 20;

/// So many routes are worth a list of what can be told about their paths at a glance.
const MANY: usize = 8;

/// The limit of one level: the newer field stands on its own, the older one never raises what is usual.
fn buffer_limit(body: Option<u64>, request: Option<u32>) -> Option<usize> {
    match (body, request) {
        (Some(body), _) => Some(usize::try_from(body).unwrap_or(usize::MAX)),
        (None, Some(request)) => Some((request as usize).min(BUFFER_LIMIT)),
        (None, None) => None,
    }
}

/// What a level gives to the routes below it; nothing of it that is empty.
#[derive(Clone, Default)]
struct Level {
    request_headers: Option<Arc<HeaderMutations>>,
    response_headers: Option<Arc<HeaderMutations>>,
    filters: Option<Arc<FilterConfigs>>,
}

impl Level {
    fn compile(
        request: (&[HeaderValueOption], &[String]),
        response: (&[HeaderValueOption], &[String]),
        filters: &BTreeMap<String, Any>,
    ) -> Result<Self, ConfigError> {
        let mutations = |(add, remove): (&[_], &[_]), direction| {
            let mutations = HeaderMutations::compile(add, remove);
            let mutations = mutations.map_err(|e: ConfigError| e.within(direction))?;
            Ok((!mutations.is_empty()).then(|| Arc::new(mutations)))
        };
        Ok(Self {
            request_headers: mutations(request, "request")?,
            response_headers: mutations(response, "response")?,
            filters: (!filters.is_empty()).then(|| Arc::new(filter_configs(filters))),
        })
    }
}

fn filter_configs(filters: &BTreeMap<String, Any>) -> FilterConfigs {
    filters
        .iter()
        .map(|(name, config)| (name.clone(), Arc::new(config.clone())))
        .collect()
}

pub(super) fn table(table: &config::RouteConfiguration) -> Result<RouteTable, Vec<ConfigError>> {
    let mut errors = unread(table);
    let mut hosts = Hosts::new(table.ignore_port_in_host_matching);
    let mut virtual_hosts = Vec::with_capacity(table.virtual_hosts.len());
    let level = Level::compile(
        (
            &table.request_headers_to_add,
            &table.request_headers_to_remove,
        ),
        (
            &table.response_headers_to_add,
            &table.response_headers_to_remove,
        ),
        &table.typed_per_filter_config,
    );
    let level = level.unwrap_or_else(|error| {
        errors.push(error);
        Level::default()
    });
    if !table.vhost_header.is_empty() {
        errors.push(ConfigError::new("vhost_header", "is not supported"));
    }
    let shared = Shared::default();
    for (index, host) in table.virtual_hosts.iter().enumerate() {
        let at = format!("virtual_hosts[{index}]");
        for domain in &host.domains {
            if !hosts.add(domain, index) {
                let problem = format!(
                    "the domain {domain:?} of {:?} belongs to an earlier virtual host",
                    host.name
                );
                errors.push(ConfigError::new(format!("{at}.domains"), problem));
            }
        }
        match virtual_host(table, host, &level, &shared) {
            Ok(host) => virtual_hosts.push(host),
            Err(found) => errors.extend(found.into_iter().map(|error| error.within(&at))),
        }
    }
    hosts.pack();
    if errors.is_empty() {
        Ok(RouteTable {
            name: table.name.as_str().into(),
            hosts,
            virtual_hosts: virtual_hosts.into(),
        })
    } else {
        Err(errors)
    }
}

fn virtual_host(
    table: &config::RouteConfiguration,
    host: &config::VirtualHost,
    above: &Level,
    shared: &Shared,
) -> Result<VirtualHost, Vec<ConfigError>> {
    let level = Level::compile(
        (
            &host.request_headers_to_add,
            &host.request_headers_to_remove,
        ),
        (
            &host.response_headers_to_add,
            &host.response_headers_to_remove,
        ),
        &host.typed_per_filter_config,
    )
    .map_err(|error| vec![error])?;
    let retry = host
        .retry_policy
        .as_ref()
        .map(|policy| shared.retry(policy))
        .transpose();
    let retry = retry.map_err(|error| vec![error.within("retry_policy")])?;
    if host.matcher.is_some() {
        return Err(vec![ConfigError::new(
            "matcher",
            "is not supported; use routes",
        )]);
    }
    let context = Context {
        table,
        host,
        above,
        level: &level,
        shared,
        retry,
        name: host.name.as_str().into(),
    };
    let mut routes = Vec::with_capacity(host.routes.len());
    let mut errors = Vec::new();
    for (index, route) in host.routes.iter().enumerate() {
        match context.route(route) {
            Ok(route) => routes.push(Arc::new(route)),
            Err(error) => errors.push(error.within(&format!("routes[{index}]"))),
        }
    }
    let require_tls =
        config::virtual_host::TlsRequirementType::try_from(host.require_tls).unwrap_or_default();
    if errors.is_empty() {
        let redirect = || {
            Arc::new(Route {
                action: Action::TlsRedirect,
                ..context.blank()
            })
        };
        let tls_redirect =
            (require_tls != config::virtual_host::TlsRequirementType::None).then(redirect);
        Ok(VirtualHost {
            name: context.name.clone(),
            require_tls,
            quick: if routes.len() < MANY {
                Box::default()
            } else {
                routes.iter().map(|route| route.matches.quick()).collect()
            },
            routes: routes.into(),
            tls_redirect,
        })
    } else {
        Err(errors)
    }
}

/// What many routes of a table have in common is there once.
#[derive(Default)]
struct Shared {
    names: RefCell<HashSet<Arc<str>>>,
    metadata: Arc<Metadata>,
    retries: RefCell<Vec<(config::RetryPolicy, Arc<RetryPolicy>)>>,
}

impl Shared {
    /// So many different retry policies are looked through.
    const RETRIES: usize = 8;

    fn name(&self, name: &str) -> Arc<str> {
        let mut names = self.names.borrow_mut();
        if let Some(known) = names.get(name) {
            return known.clone();
        }
        let new: Arc<str> = name.into();
        names.insert(new.clone());
        new
    }

    fn retry(&self, policy: &config::RetryPolicy) -> Result<Arc<RetryPolicy>, ConfigError> {
        let mut retries = self.retries.borrow_mut();
        if let Some((_, known)) = retries.iter().find(|(other, _)| other == policy) {
            return Ok(known.clone());
        }
        let compiled = Arc::new(RetryPolicy::compile(policy)?);
        if retries.len() < Self::RETRIES {
            retries.push((policy.clone(), compiled.clone()));
        }
        Ok(compiled)
    }
}

/// Where a route stands.
struct Context<'a> {
    table: &'a config::RouteConfiguration,
    host: &'a config::VirtualHost,
    above: &'a Level,
    level: &'a Level,
    shared: &'a Shared,
    retry: Option<Arc<RetryPolicy>>,
    name: Arc<str>,
}

impl Context<'_> {
    /// A route that does nothing of its own.
    fn blank(&self) -> Route {
        Route {
            name: self.shared.name(""),
            virtual_host: self.name.clone(),
            timeout: Some(Duration::from_secs(15)),
            idle_timeout: None,
            retry: None,
            internal_redirect: None,
            buffer_limit: BUFFER_LIMIT,
            terminates_connect: false,
            mirrors: Box::default(),
            weighted: Box::default(),
            cluster_not_found_status: 503,
            priority: Priority::Default,
            attempt_count_in_request: self.host.include_request_attempt_count,
            attempt_count_in_response: self.host.include_attempt_count_in_response,
            metadata: self.shared.metadata.clone(),
            metadata_match: None,
            decorator: None,
            decorator_propagate: true,
            tracing: None,
            rate_limits: Box::default(),
            auto_host_rewrite: false,
            matches: Match::everything(),
            action: Action::TlsRedirect,
            request_headers: Box::default(),
            response_headers: Box::default(),
            rewrite: None,
            hash: Box::default(),
            upgrades: Box::default(),
            filters: [self.level, self.above]
                .into_iter()
                .filter_map(|level| level.filters.clone())
                .collect(),
            max_stream: None,
        }
    }

    // per_request_buffer_limit_bytes is deprecated and still what most configurations have.
    #[allow(deprecated)]
    fn route(&self, route: &config::Route) -> Result<Route, ConfigError> {
        let own = Level::compile(
            (
                &route.request_headers_to_add,
                &route.request_headers_to_remove,
            ),
            (
                &route.response_headers_to_add,
                &route.response_headers_to_remove,
            ),
            &route.typed_per_filter_config,
        )?;
        let matches = route
            .r#match
            .as_ref()
            .ok_or_else(|| ConfigError::new("match", "is missing"))?;
        let matches = Match::compile(matches, self.table.ignore_path_parameters_in_path_matching);
        // What comes last wins where headers are overwritten.
        let mut levels = [&own, self.level, self.above];
        if self.table.most_specific_header_mutations_wins {
            levels.reverse();
        }
        let mut compiled = Route {
            name: self.shared.name(&route.name),
            metadata: match &route.metadata {
                Some(given) => Arc::new(metadata(Some(given))),
                None => self.shared.metadata.clone(),
            },
            decorator: route
                .decorator
                .as_ref()
                .map(|decorator| decorator.operation.clone()),
            decorator_propagate: route
                .decorator
                .as_ref()
                .and_then(|decorator| decorator.propagate)
                .unwrap_or(true),
            tracing: route.tracing.clone().map(Arc::new),
            matches: matches.map_err(|e| e.within("match"))?,
            request_headers: levels
                .iter()
                .filter_map(|level| level.request_headers.clone())
                .collect(),
            response_headers: levels
                .iter()
                .filter_map(|level| level.response_headers.clone())
                .collect(),
            filters: [&own, self.level, self.above]
                .into_iter()
                .filter_map(|level| level.filters.clone())
                .collect(),
            ..self.blank()
        };
        compiled.buffer_limit = buffer_limit(
            route.request_body_buffer_limit,
            route.per_request_buffer_limit_bytes,
        )
        .or_else(|| {
            buffer_limit(
                self.host.request_body_buffer_limit,
                self.host.per_request_buffer_limit_bytes,
            )
        })
        .unwrap_or(BUFFER_LIMIT);
        match &route.action {
            Some(route::Action::Route(action)) => self
                .forward(action, &mut compiled)
                .map_err(|e| e.within("route"))?,
            Some(route::Action::Redirect(redirect)) => {
                compiled.action = Action::Redirect(Box::new(
                    Redirect::compile(redirect).map_err(|e| e.within("redirect"))?,
                ));
            }
            Some(route::Action::DirectResponse(direct)) => {
                compiled.action = self
                    .direct(direct)
                    .map_err(|e| e.within("direct_response"))?;
            }
            Some(route::Action::FilterAction(_) | route::Action::NonForwardingAction(_)) => {
                return Err(ConfigError::new(
                    "action",
                    "only route, redirect and direct_response are supported",
                ));
            }
            None => {
                return Err(ConfigError::new(
                    "action",
                    "is missing: give route, redirect or direct_response",
                ));
            }
        }
        Ok(compiled)
    }

    fn direct(&self, direct: &config::DirectResponseAction) -> Result<Action, ConfigError> {
        if direct.body_format.is_some() {
            return Err(ConfigError::new("body_format", "is not supported"));
        }
        let body = match direct
            .body
            .as_ref()
            .and_then(|body| body.specifier.as_ref())
        {
            None => Bytes::new(),
            Some(Specifier::InlineString(text)) => Bytes::from(text.clone()),
            Some(Specifier::InlineBytes(bytes)) => bytes.clone(),
            Some(_) => {
                return Err(ConfigError::new(
                    "body",
                    "only inline_string and inline_bytes are supported",
                ));
            }
        };
        let limit = self
            .table
            .max_direct_response_body_size_bytes
            .unwrap_or(4096) as usize;
        if body.len() > limit {
            return Err(ConfigError::new(
                "body",
                format!("has {} bytes; at most {limit} are allowed", body.len()),
            ));
        }
        let status = u16::try_from(direct.status)
            .ok()
            .filter(|status| (100..600).contains(status));
        let status = status.ok_or_else(|| {
            ConfigError::new("status", format!("{} is not an HTTP status", direct.status))
        })?;
        Ok(Action::Direct { status, body })
    }

    // internal_redirect_action and cors are deprecated; they are looked at only to be refused.
    #[allow(deprecated)]
    fn forward(&self, action: &config::RouteAction, route: &mut Route) -> Result<(), ConfigError> {
        use route_action::ClusterSpecifier as Cluster;
        route.metadata_match =
            Criteria::of(&metadata(action.metadata_match.as_ref())).map(Arc::new);
        route.action = match &action.cluster_specifier {
            Some(Cluster::Cluster(name)) => Action::Cluster(self.shared.name(name)),
            Some(Cluster::ClusterHeader(name)) => {
                Action::ClusterHeader(HeaderName::try_from(name.as_str()).map_err(|_| {
                    ConfigError::new("cluster_header", format!("{name:?} is not a header name"))
                })?)
            }
            Some(Cluster::WeightedClusters(weighted)) => {
                route.weighted = weighted
                    .clusters
                    .iter()
                    .enumerate()
                    .map(|(index, entry)| {
                        weighted_cluster(entry, route.metadata_match.as_ref())
                            .map_err(|e| e.within(&format!("clusters[{index}]")))
                    })
                    .collect::<Result<_, _>>()
                    .map_err(|e| e.within("weighted_clusters"))?;
                let total = route
                    .weighted
                    .iter()
                    .map(|entry| u64::from(entry.weight))
                    .sum();
                if total == 0 {
                    return Err(ConfigError::new(
                        "weighted_clusters",
                        "the weights add up to 0",
                    ));
                }
                use xds::envoy::config::route::v3::weighted_cluster::RandomValueSpecifier;
                let by = match &weighted.random_value_specifier {
                    Some(RandomValueSpecifier::HeaderName(name)) => {
                        DrawBy::Header(name.parse().map_err(|_| {
                            ConfigError::new(
                                "weighted_clusters.header_name",
                                "is not a header name",
                            )
                        })?)
                    }
                    Some(RandomValueSpecifier::UseHashPolicy(true)) => DrawBy::Hash,
                    _ => DrawBy::Chance,
                };
                Action::Weighted(total, by)
            }
            Some(Cluster::ClusterSpecifierPlugin(_) | Cluster::InlineClusterSpecifierPlugin(_)) => {
                return Err(ConfigError::new(
                    "cluster_specifier_plugin",
                    "is not supported",
                ));
            }
            None => return Err(ConfigError::new("cluster", "is missing")),
        };
        let (rewrite, automatic) = Rewrite::compile(action, &route.matches)?;
        let timeout = duration(action.timeout.as_ref()).unwrap_or(Duration::from_secs(15));
        route.timeout = Some(timeout).filter(|timeout| !timeout.is_zero());
        route.idle_timeout = duration(action.idle_timeout.as_ref());
        route.max_stream = StreamLimits::compile(action);
        route.retry = match &action.retry_policy {
            Some(policy) => Some(
                self.shared
                    .retry(policy)
                    .map_err(|e| e.within("retry_policy"))?,
            ),
            None => self.retry.clone(),
        };
        let mirrors = [
            &action.request_mirror_policies,
            &self.host.request_mirror_policies,
            &self.table.request_mirror_policies,
        ];
        let mirrors = mirrors.into_iter().find(|mirrors| !mirrors.is_empty());
        route.mirrors = mirrors
            .into_iter()
            .flatten()
            .map(mirror)
            .collect::<Result<_, _>>()?;
        route.cluster_not_found_status = match action.cluster_not_found_response_code {
            1 => 404,
            2 => 500,
            _ => 503,
        };
        route.priority = if action.priority == 1 {
            Priority::High
        } else {
            Priority::Default
        };
        let mut rate_limits = RateLimit::compile_all(&action.rate_limits)?;
        if action.rate_limits.is_empty() || action.include_vh_rate_limits == Some(true) {
            rate_limits.extend(RateLimit::compile_all(&self.host.rate_limits)?);
        }
        route.rate_limits = rate_limits.into();
        route.auto_host_rewrite = automatic;
        route.rewrite = rewrite;
        route.hash = action
            .hash_policy
            .iter()
            .map(hash::Policy::compile)
            .collect::<Result<_, _>>()
            .map_err(|e| e.within("hash_policy"))?;
        let upgrade = |upgrade: &route_action::UpgradeConfig| {
            (
                upgrade.upgrade_type.to_ascii_lowercase(),
                upgrade.enabled.unwrap_or(true),
            )
        };
        route.upgrades = action.upgrade_configs.iter().map(upgrade).collect();
        route.terminates_connect = action.upgrade_configs.iter().any(|upgrade| {
            upgrade.upgrade_type.eq_ignore_ascii_case("CONNECT") && upgrade.connect_config.is_some()
        });
        route.internal_redirect = action
            .internal_redirect_policy
            .as_ref()
            .map(InternalRedirect::compile)
            .transpose()
            .map_err(|e| e.within("internal_redirect_policy"))?
            .map(Box::new);
        Ok(())
    }
}

fn weighted_cluster(
    entry: &config::weighted_cluster::ClusterWeight,
    route: Option<&Arc<Criteria>>,
) -> Result<WeightedCluster, ConfigError> {
    use config::weighted_cluster::cluster_weight::HostRewriteSpecifier;
    if entry.name.is_empty() {
        return Err(ConfigError::new(
            "name",
            "is missing (cluster_header is not supported in weighted clusters)",
        ));
    }
    let request = HeaderMutations::compile(
        &entry.request_headers_to_add,
        &entry.request_headers_to_remove,
    );
    let response = HeaderMutations::compile(
        &entry.response_headers_to_add,
        &entry.response_headers_to_remove,
    );
    Ok(WeightedCluster {
        cluster: entry.name.as_str().into(),
        weight: entry.weight.unwrap_or(0),
        request_headers: request.map_err(|e| e.within("request"))?,
        response_headers: response.map_err(|e| e.within("response"))?,
        host_rewrite: entry.host_rewrite_specifier.as_ref().map(|rewrite| {
            let HostRewriteSpecifier::HostRewriteLiteral(host) = rewrite;
            host.clone()
        }),
        filters: filter_configs(&entry.typed_per_filter_config),
        metadata_match: Criteria::with(
            route.map(|route| &**route),
            &metadata(entry.metadata_match.as_ref()),
        )
        .map(Arc::new)
        .or_else(|| route.cloned()),
    })
}

fn mirror(policy: &route_action::RequestMirrorPolicy) -> Result<Mirror, ConfigError> {
    let refuse = |field: &str| {
        Err(ConfigError::new(
            format!("request_mirror_policies.{field}"),
            "is not supported",
        ))
    };
    if !policy.cluster_header.is_empty() {
        return refuse("cluster_header");
    }
    if !policy.request_headers_mutations.is_empty() {
        return refuse("request_headers_mutations");
    }
    Ok(Mirror {
        cluster: policy.cluster.as_str().into(),
        fraction: Fraction::of_runtime(policy.runtime_fraction.as_ref(), Fraction::ALL),
        shadow_suffix: !policy.disable_shadow_host_suffix_append,
        host_rewrite: policy.host_rewrite_literal.clone(),
        trace_sampled: policy.trace_sampled,
    })
}
