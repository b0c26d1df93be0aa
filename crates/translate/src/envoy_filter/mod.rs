//! EnvoyFilters: changes that people write in Envoy's own words, applied to what was generated.
//!
//! [`prepare`] reads every patch once for all proxies: its value becomes a protobuf message, and what can never have an effect
//! becomes a [`Problem`]. [`Patches`] are those of one proxy in their order. A patch that does not fit is left out alone: istiod
//! gives up all patches of the direction there, which of them depends on chance.

mod cluster;
mod durations;
mod http_filter;
mod list;
mod listener;
mod merge;
mod prepare;
mod route;

use crate::context::ListenerClass;
use crate::objects::{Labels, selects};
use crate::{Problem, ProxyInfo, Snapshot};
use api::istio::{
    ApplyTo, ClusterMatch, ListenerMatch, PatchContext, PatchOperation, RouteConfigurationMatch,
};
use prost_reflect::DynamicMessage;
use regex::Regex;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use xds::envoy::config::core::v3::TypedExtensionConfig;

pub(crate) use listener::{discovered_names, route_names};
pub(crate) use prepare::prepare;

/// An EnvoyFilter that was read.
#[derive(Debug)]
pub(crate) struct EnvoyFilterPatches {
    namespace: String,
    selector: Option<Labels>,
    priority: i32,
    patches: Vec<Patch>,
}

/// A patch that was read.
#[derive(Debug)]
pub(crate) struct Patch {
    /// `EnvoyFilter/namespace/name`.
    object: String,
    /// `spec.configPatches[i]`.
    field: String,
    apply_to: ApplyTo,
    operation: PatchOperation,
    context: PatchContext,
    proxy_version: Option<Regex>,
    proxy_metadata: BTreeMap<String, String>,
    listener: Option<ListenerMatch>,
    routes: Option<RouteConfigurationMatch>,
    cluster: Option<ClusterMatch>,
    value: Option<DynamicMessage>,
}

impl Patch {
    fn problem(&self, field: &str, message: impl Into<String>) -> Problem {
        Problem::new(&self.object, format!("{}{field}", self.field), message)
    }

    fn is_merge(&self) -> bool {
        matches!(
            self.operation,
            PatchOperation::Merge | PatchOperation::MergeAndReplaceList
        )
    }

    fn in_context(&self, class: ListenerClass) -> bool {
        matches!(
            (self.context, class),
            (PatchContext::Any, _)
                | (PatchContext::SidecarInbound, ListenerClass::SidecarInbound)
                | (
                    PatchContext::SidecarOutbound,
                    ListenerClass::SidecarOutbound
                )
                | (PatchContext::Gateway, ListenerClass::Gateway)
        )
    }

    /// Whether a whole listener or cluster is added: without a context to one direction of a sidecar only.
    fn adds_to(&self, class: ListenerClass) -> bool {
        self.operation == PatchOperation::Add
            && self.in_context(class)
            && (self.context != PatchContext::Any || class != ListenerClass::SidecarInbound)
    }

    fn matches_proxy(&self, proxy: &ProxyInfo) -> bool {
        let version = self
            .proxy_version
            .as_ref()
            .is_none_or(|regex| !proxy.version.is_empty() && regex.is_match(&proxy.version));
        version
            && self.proxy_metadata.iter().all(|(key, value)| {
                proxy.metadata.get(key).and_then(|value| value.as_str()) == Some(value)
            })
    }

    /// The value as a message.
    fn message<M: xds::Wire>(&self) -> Option<M> {
        let bytes = xds::json::encode(self.value.as_ref()?);
        M::from_wire(&bytes).ok()
    }
}

/// The patches of one proxy in the order in which they apply.
pub(crate) struct Patches<'a> {
    patches: Vec<&'a Patch>,
    problems: &'a RefCell<Vec<Problem>>,
}

impl<'a> Patches<'a> {
    /// Lowest priority first; of one priority, those of the root namespace first; then the oldest.
    pub(crate) fn new(
        snapshot: &'a Snapshot,
        proxy: &ProxyInfo,
        problems: &'a RefCell<Vec<Problem>>,
    ) -> Self {
        let root = snapshot.mesh.root_namespace();
        let mut filters: Vec<&EnvoyFilterPatches> = snapshot
            .envoy_filters
            .iter()
            .filter(|filter| filter.namespace == root || filter.namespace == proxy.namespace)
            .filter(|filter| {
                filter
                    .selector
                    .as_ref()
                    .is_none_or(|selector| selects(selector, &proxy.labels))
            })
            .collect();
        filters.sort_by_key(|filter| (filter.priority, filter.namespace != root));
        Self {
            patches: filters
                .into_iter()
                .flat_map(|filter| &filter.patches)
                .filter(|patch| patch.matches_proxy(proxy))
                .collect(),
            problems,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.patches.is_empty()
    }

    /// Those for a kind of object in one direction.
    fn of(&self, apply_to: ApplyTo, class: ListenerClass) -> Vec<&'a Patch> {
        self.patches
            .iter()
            .copied()
            .filter(|patch| patch.apply_to == apply_to && patch.in_context(class))
            .collect()
    }

    fn report(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// Extension configurations that filters refer to by name; whatever the context, the first of a name counts.
    pub(crate) fn extension_configs(&self) -> BTreeMap<String, TypedExtensionConfig> {
        let mut out = BTreeMap::new();
        for patch in &self.patches {
            if patch.apply_to == ApplyTo::ExtensionConfig
                && let Some(config) = patch.message::<TypedExtensionConfig>()
            {
                out.entry(config.name.clone()).or_insert(config);
            }
        }
        out
    }
}

/// Service ports that lead to a port a gateway listens on.
pub(crate) type GatewayPorts = BTreeMap<u32, BTreeSet<u32>>;
