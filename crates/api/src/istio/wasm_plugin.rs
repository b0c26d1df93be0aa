//! WasmPlugin and TrafficExtension: stored and served, but nothing here runs them.

use super::{LabelSelector, PolicyTargetReference};
use serde_json::Value;

message! {
    /// A WebAssembly filter.
    pub struct WasmPlugin {
        /// The workloads.
        pub selector: Option<LabelSelector>,
        /// An object the plugin is attached to.
        pub target_ref: Option<PolicyTargetReference>,
        /// Objects the plugin is attached to.
        pub target_refs: Vec<PolicyTargetReference>,
        /// Where the module is.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub url: String,
        /// Its checksum.
        pub sha256: String,
        /// When to pull it.
        pub image_pull_policy: WasmPullPolicy,
        /// Secret for pulling.
        pub image_pull_secret: String,
        /// Key of its signature.
        pub verification_key: String,
        /// Its configuration.
        pub plugin_config: Option<Value>,
        /// Its name.
        pub plugin_name: String,
        /// Where in the filter chain.
        pub phase: PluginPhase,
        /// Order within the phase.
        pub priority: Option<i32>,
        /// What happens when it cannot be loaded.
        pub fail_strategy: FailStrategy,
        /// Its virtual machine.
        pub vm_config: Option<Value>,
        /// Which traffic.
        #[serde(rename = "match")]
        pub selectors: Vec<TrafficSelector>,
        /// What kind of filter.
        #[serde(rename = "type")]
        pub plugin_type: PluginType,
    }

    /// Which traffic.
    pub struct TrafficSelector {
        /// Client, server or both.
        pub mode: WorkloadModeSelector,
        /// Which ports.
        pub ports: Vec<super::PortSelector>,
    }

    /// An extension of the filter chain.
    pub struct TrafficExtension {
        /// The workloads.
        pub selector: Option<LabelSelector>,
        /// Objects the extension is attached to.
        pub target_refs: Vec<PolicyTargetReference>,
        /// Where in the filter chain.
        pub phase: PluginPhase,
        /// Order within the phase.
        pub priority: Option<i32>,
        /// Which traffic.
        #[serde(rename = "match")]
        pub selectors: Vec<TrafficSelector>,
        /// A WebAssembly module.
        pub wasm: Option<Value>,
        /// A Lua script.
        pub lua: Option<Value>,
    }
}

proto_enum! {
    /// When to pull a module.
    pub enum WasmPullPolicy {
        /// As the tag says.
        UnspecifiedPolicy,
        /// If it is not there.
        IfNotPresent,
        /// Always.
        Always,
    }

    /// Where in the filter chain.
    pub enum PluginPhase {
        /// Near the router.
        UnspecifiedPhase,
        /// Before authentication.
        Authn,
        /// Before authorization.
        Authz,
        /// Before statistics.
        Stats,
    }

    /// What happens when a module cannot be loaded.
    pub enum FailStrategy {
        /// Traffic fails.
        FailClose,
        /// Traffic passes.
        FailOpen,
        /// It is loaded again.
        FailReload,
    }

    /// What kind of filter.
    pub enum PluginType {
        /// HTTP.
        UnspecifiedPluginType,
        /// HTTP.
        Http,
        /// Network.
        Network,
    }

    /// Client, server or both.
    pub enum WorkloadModeSelector {
        /// Not said.
        Undefined,
        /// Outbound.
        Client,
        /// Inbound.
        Server,
        /// Both.
        ClientAndServer,
    }
}
