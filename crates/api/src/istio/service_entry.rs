//! ServiceEntry: services that are not Kubernetes services.

use super::{WorkloadEntry, WorkloadSelector};

message! {
    /// Hosts, ports and endpoints added to the service registry.
    pub struct ServiceEntry {
        /// Names of the service.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub hosts: Vec<String>,
        /// Virtual addresses.
        pub addresses: Vec<String>,
        /// Ports.
        pub ports: Vec<ServicePort>,
        /// Inside or outside of the mesh.
        pub location: Location,
        /// How endpoints are found.
        pub resolution: Resolution,
        /// Endpoints.
        pub endpoints: Vec<WorkloadEntry>,
        /// Selects WorkloadEntries and pods as endpoints.
        pub workload_selector: Option<WorkloadSelector>,
        /// Namespaces that see this service: `.`, `*` or names.
        pub export_to: Vec<String>,
        /// Names that the servers have to have.
        pub subject_alt_names: Vec<String>,
    }

    /// A port of a service.
    pub struct ServicePort {
        /// The number.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub number: u32,
        /// The protocol.
        pub protocol: String,
        /// A name.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub name: String,
        /// The port of the endpoints, where it differs.
        pub target_port: u32,
    }
}

proto_enum! {
    /// Inside or outside of the mesh.
    pub enum Location {
        /// Outside.
        MeshExternal,
        /// Inside.
        MeshInternal,
    }

    /// How endpoints are found.
    pub enum Resolution {
        /// The address the client asked for.
        None,
        /// Listed.
        Static,
        /// By DNS, all answers.
        Dns,
        /// By DNS, one answer at a time.
        DnsRoundRobin,
        /// By DNS for the host of each request.
        DynamicDns,
    }
}
