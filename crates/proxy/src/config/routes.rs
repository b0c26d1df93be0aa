//! A route table with what this proxy adds: compiled per-route filter settings.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use dataplane::route::{Route, RouteTable};
use parking_lot::RwLock;
use xds::envoy::config::route::v3::RouteConfiguration;

use super::kept::Kept;
use crate::http::filters::PerRoute;
use crate::upstream::cluster::join;

/// A compiled route configuration.
pub struct Routes {
    /// The decisions.
    pub table: RouteTable,
    /// Its name.
    pub name: String,
    /// The message, for dumps; none where it stands in a listener, whose message is kept.
    pub message: Option<Kept<RouteConfiguration>>,
    /// It may only name clusters that exist (`validate_clusters`), where it stands in a listener.
    pub validate_clusters: bool,
    /// The version the server gave it.
    pub version: String,
    /// When it came.
    pub updated: SystemTime,
    /// Per-route filter settings by the address of their message, which the table keeps alive.
    filters: RwLock<HashMap<usize, Option<Arc<PerRoute>>>>,
}

impl Routes {
    /// Compiles a route configuration.
    ///
    /// # Errors
    /// Everything of it this proxy cannot use.
    pub fn compile(
        message: &RouteConfiguration,
        kept: Option<Kept<RouteConfiguration>>,
        version: &str,
    ) -> Result<Arc<Self>, String> {
        let table = RouteTable::compile(message).map_err(|errors| join(&errors))?;
        for (name, any) in configs(message) {
            PerRoute::compile(name, any)
                .map_err(|error| format!("typed_per_filter_config[{name}]: {error}"))?;
        }
        Ok(Arc::new(Self {
            table,
            name: message.name.clone(),
            message: kept,
            validate_clusters: message.validate_clusters != Some(false),
            version: version.to_owned(),
            updated: SystemTime::now(),
            filters: RwLock::default(),
        }))
    }

    /// What the route says to a filter.
    pub fn filter(
        &self,
        route: &Route,
        filter: &str,
        weighted: Option<usize>,
    ) -> Option<Arc<PerRoute>> {
        let any = route.filter_config(filter, weighted)?;
        let key = Arc::as_ptr(any) as usize;
        if let Some(found) = self.filters.read().get(&key) {
            return found.clone();
        }
        let compiled = PerRoute::compile(filter, any).ok().flatten().map(Arc::new);
        self.filters.write().insert(key, compiled.clone());
        compiled
    }
}

/// Every per-route setting: of the table, of virtual hosts, of routes and of the entries of weighted clusters.
fn configs(message: &RouteConfiguration) -> Vec<(&str, &xds::prost_types::Any)> {
    use xds::envoy::config::route::v3::route::Action;
    use xds::envoy::config::route::v3::route_action::ClusterSpecifier;
    let hosts = message.virtual_hosts.iter();
    let routes = hosts.clone().flat_map(|host| &host.routes);
    let weighted = routes.clone().flat_map(|route| match &route.action {
        Some(Action::Route(action)) => match &action.cluster_specifier {
            Some(ClusterSpecifier::WeightedClusters(weighted)) => &weighted.clusters[..],
            _ => &[],
        },
        _ => &[],
    });
    std::iter::once(&message.typed_per_filter_config)
        .chain(hosts.map(|host| &host.typed_per_filter_config))
        .chain(routes.map(|route| &route.typed_per_filter_config))
        .chain(weighted.map(|entry| &entry.typed_per_filter_config))
        .flatten()
        .map(|(name, any)| (name.as_str(), any))
        .collect()
}
