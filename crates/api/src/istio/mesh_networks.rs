//! MeshNetworks: which addresses belong to which network, and how networks are reached.

use std::collections::BTreeMap;

message! {
    /// The networks of the mesh.
    pub struct MeshNetworks {
        /// By name.
        pub networks: BTreeMap<String, Network>,
    }

    /// One network.
    pub struct Network {
        /// What belongs to it.
        pub endpoints: Vec<NetworkEndpoints>,
        /// How it is reached from others.
        pub gateways: Vec<NetworkGateway>,
    }

    /// What belongs to a network.
    pub struct NetworkEndpoints {
        /// A range of addresses.
        pub from_cidr: Option<String>,
        /// Everything of a cluster.
        pub from_registry: Option<String>,
    }

    /// How a network is reached.
    pub struct NetworkGateway {
        /// The host of a gateway service.
        pub registry_service_name: Option<String>,
        /// An address.
        pub address: Option<String>,
        /// The port.
        pub port: u32,
        /// Not used.
        pub locality: String,
    }
}
