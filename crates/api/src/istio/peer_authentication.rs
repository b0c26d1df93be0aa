//! PeerAuthentication: whether a workload demands mutual TLS.

use super::LabelSelector;
use std::collections::BTreeMap;

message! {
    /// Mutual TLS of workloads.
    pub struct PeerAuthentication {
        /// The workloads; none means the whole namespace.
        pub selector: Option<LabelSelector>,
        /// The setting.
        pub mtls: Option<MutualTls>,
        /// Settings of single ports of the workload.
        pub port_level_mtls: BTreeMap<String, MutualTls>,
    }

    /// Mutual TLS.
    pub struct MutualTls {
        /// The setting.
        pub mode: MutualTlsMode,
    }
}

proto_enum! {
    /// Whether mutual TLS is demanded.
    pub enum MutualTlsMode {
        /// As the wider scope says.
        Unset,
        /// Plaintext only.
        Disable,
        /// Both.
        Permissive,
        /// Mutual TLS only.
        Strict,
    }
}
