//! Sidecar: what a sidecar accepts and can reach.

use super::{ConnectionPoolSettings, Destination, IstioIngressListener, Port, WorkloadSelector};

message! {
    /// Scope of the sidecars of a namespace, or of some of its pods.
    pub struct Sidecar {
        /// The pods; none means the whole namespace.
        pub workload_selector: Option<WorkloadSelector>,
        /// Inbound listeners.
        pub ingress: Vec<IstioIngressListener>,
        /// Outbound listeners and the hosts that can be reached.
        pub egress: Vec<IstioEgressListener>,
        /// Limits of connections to the application.
        pub inbound_connection_pool: Option<ConnectionPoolSettings>,
        /// What happens to unknown destinations.
        pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    }

    /// Hosts that can be reached, on one port or on all others.
    pub struct IstioEgressListener {
        /// The port; none means all others.
        pub port: Option<Port>,
        /// The address to bind.
        pub bind: String,
        /// How traffic gets here.
        pub capture_mode: CaptureMode,
        /// `namespace/host`.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub hosts: Vec<String>,
    }

    /// What happens to unknown destinations.
    pub struct OutboundTrafficPolicy {
        /// Whether they can be reached.
        pub mode: OutboundTrafficPolicyMode,
        /// Where to send such traffic instead.
        pub egress_proxy: Option<Destination>,
    }
}

proto_enum! {
    /// How traffic gets to a listener.
    pub enum CaptureMode {
        /// As the pod is set up.
        Default,
        /// By redirection.
        Iptables,
        /// The application has to send it there.
        None,
    }

    /// Whether unknown destinations can be reached.
    pub enum OutboundTrafficPolicyMode {
        /// No.
        RegistryOnly,
        /// Yes, by their address.
        AllowAny,
        /// Yes, by their name.
        AllowAnyDynamicDns,
    }
}
