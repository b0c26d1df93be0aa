//! EnvoyFilter: changes of the generated Envoy configuration.

use super::{PolicyTargetReference, WorkloadSelector};
use serde_json::Value;

message! {
    /// Patches for the proxies that are selected.
    pub struct EnvoyFilter {
        /// The workloads; none means the whole namespace.
        pub workload_selector: Option<WorkloadSelector>,
        /// Objects the patches are attached to.
        pub target_refs: Vec<PolicyTargetReference>,
        /// The patches, in order.
        pub config_patches: Vec<EnvoyConfigObjectPatch>,
        /// Order among EnvoyFilters, lowest first.
        pub priority: i32,
    }

    /// One patch.
    pub struct EnvoyConfigObjectPatch {
        /// What kind of object is patched.
        pub apply_to: ApplyTo,
        /// Which objects.
        #[serde(rename = "match")]
        pub selector: Option<EnvoyConfigObjectMatch>,
        /// The change.
        pub patch: Option<Patch>,
    }

    /// Which objects.
    pub struct EnvoyConfigObjectMatch {
        /// Which traffic.
        pub context: PatchContext,
        /// Which proxies.
        pub proxy: Option<ProxyMatch>,
        /// Which listeners.
        pub listener: Option<ListenerMatch>,
        /// Which routes.
        pub route_configuration: Option<RouteConfigurationMatch>,
        /// Which clusters.
        pub cluster: Option<ClusterMatch>,
        /// Which waypoint listeners.
        #[cfg_attr(feature = "schemas", schemars(with = "Option<std::collections::BTreeMap<String, String>>"))]
        pub waypoint: Option<Value>,
    }

    /// Which proxies.
    pub struct ProxyMatch {
        /// A regular expression for the version.
        pub proxy_version: String,
        /// Node metadata that has to be equal.
        pub metadata: std::collections::BTreeMap<String, String>,
    }

    /// Which listeners.
    pub struct ListenerMatch {
        /// The port it is bound to.
        pub port_number: u32,
        /// Not used.
        pub port_name: String,
        /// Which filter chain.
        pub filter_chain: Option<FilterChainMatch>,
        /// Which listener filter.
        pub listener_filter: String,
        /// The name.
        pub name: String,
    }

    /// Which filter chain.
    pub struct FilterChainMatch {
        /// The name.
        pub name: String,
        /// A server name it matches.
        pub sni: String,
        /// A transport protocol it matches.
        pub transport_protocol: String,
        /// Application protocols it matches, joined by commas.
        pub application_protocols: String,
        /// Which filter.
        pub filter: Option<FilterMatch>,
        /// The destination port it matches.
        pub destination_port: u32,
    }

    /// Which filter.
    pub struct FilterMatch {
        /// The name.
        pub name: String,
        /// Which filter inside.
        pub sub_filter: Option<SubFilterMatch>,
    }

    /// Which filter inside.
    pub struct SubFilterMatch {
        /// The name.
        pub name: String,
    }

    /// Which routes.
    pub struct RouteConfigurationMatch {
        /// The port.
        pub port_number: u32,
        /// The port name of a Gateway.
        pub port_name: String,
        /// `namespace/name` of a Gateway.
        pub gateway: String,
        /// Which virtual host.
        pub vhost: Option<VirtualHostMatch>,
        /// The name.
        pub name: String,
    }

    /// Which virtual host.
    pub struct VirtualHostMatch {
        /// The name.
        pub name: String,
        /// Which route.
        pub route: Option<RouteMatch>,
        /// A domain.
        pub domain_name: String,
    }

    /// Which route.
    pub struct RouteMatch {
        /// The name.
        pub name: String,
        /// What it does.
        pub action: RouteMatchAction,
    }

    /// Which clusters.
    pub struct ClusterMatch {
        /// The service port.
        pub port_number: u32,
        /// The service.
        pub service: String,
        /// The subset.
        pub subset: String,
        /// The name.
        pub name: String,
    }

    /// The change.
    pub struct Patch {
        /// What to do.
        pub operation: PatchOperation,
        /// With what, as Envoy's JSON.
        pub value: Option<Value>,
        /// What kind of filter is added.
        pub filter_class: FilterClass,
    }
}

proto_enum! {
    /// Kinds of objects that can be patched.
    pub enum ApplyTo {
        /// None (refused).
        Invalid,
        /// Listeners.
        Listener,
        /// Filter chains.
        FilterChain,
        /// Network filters.
        NetworkFilter,
        /// HTTP filters.
        HttpFilter,
        /// Route configurations.
        RouteConfiguration,
        /// Virtual hosts.
        VirtualHost,
        /// Routes.
        HttpRoute,
        /// Clusters.
        Cluster,
        /// Extension configurations.
        ExtensionConfig,
        /// The bootstrap.
        Bootstrap,
        /// Listener filters.
        ListenerFilter,
    }

    /// Which traffic.
    pub enum PatchContext {
        /// All.
        Any,
        /// Into a workload.
        SidecarInbound,
        /// Out of a workload.
        SidecarOutbound,
        /// Through a gateway.
        Gateway,
        /// Through a waypoint.
        Waypoint,
    }

    /// What a route does.
    pub enum RouteMatchAction {
        /// Anything.
        Any,
        /// It forwards.
        Route,
        /// It redirects.
        Redirect,
        /// It answers.
        DirectResponse,
    }

    /// What to do.
    pub enum PatchOperation {
        /// Nothing (refused).
        Invalid,
        /// Merge into the object.
        Merge,
        /// Add an object.
        Add,
        /// Remove the object.
        Remove,
        /// Insert before the object.
        InsertBefore,
        /// Insert after the object.
        InsertAfter,
        /// Insert before all.
        InsertFirst,
        /// Replace the object.
        Replace,
        /// Merge, but replace lists.
        MergeAndReplaceList,
    }

    /// What kind of filter is added.
    pub enum FilterClass {
        /// Any.
        Unspecified,
        /// Authentication.
        Authn,
        /// Authorization.
        Authz,
        /// Statistics.
        Stats,
    }
}
