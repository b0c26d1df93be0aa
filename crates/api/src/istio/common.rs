//! Parts that several kinds share.

use std::collections::BTreeMap;

/// The names of gRPC's statuses; the place of a name is its number (gRPC: status codes).
pub const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The cipher suites that a server or the mesh may ask for; others are left out (Istio: `cipherSuites`).
pub const CIPHER_SUITES: [&str; 15] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
];

message! {
    /// How a text has to look. Nothing set means: it has to be there.
    pub struct StringMatch {
        /// Equal to this.
        pub exact: Option<String>,
        /// Beginning with this.
        pub prefix: Option<String>,
        /// Matching this RE2 expression as a whole.
        pub regex: Option<String>,
    }

    /// A port of a service.
    pub struct PortSelector {
        /// The number of the service port.
        pub number: u32,
    }

    /// A service, or a named part of it.
    pub struct Destination {
        /// The host in the service registry; a short name is completed with the namespace of the configuration.
        pub host: String,
        /// The name of a subset in the DestinationRule of the host.
        pub subset: String,
        /// The port of the service.
        pub port: Option<PortSelector>,
    }

    /// Selects pods by label (networking kinds).
    pub struct WorkloadSelector {
        /// All of these labels have to be there.
        pub labels: BTreeMap<String, String>,
    }

    /// Selects pods by label (security and telemetry kinds, DestinationRule).
    pub struct LabelSelector {
        /// All of these labels have to be there.
        pub match_labels: BTreeMap<String, String>,
    }

    /// An object a policy is attached to.
    pub struct PolicyTargetReference {
        /// API group of the target; empty for core.
        pub group: String,
        /// Kind of the target.
        pub kind: String,
        /// Name of the target.
        pub name: String,
        /// Namespace of the target; has to be empty.
        pub namespace: String,
    }

    /// A share between 0 and 100.
    pub struct Percent {
        /// The share in percent.
        pub value: f64,
    }

    /// A listening port of a Gateway, ServiceEntry or Sidecar.
    pub struct Port {
        /// The port number.
        pub number: u32,
        /// The protocol, such as HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP or TLS.
        pub protocol: String,
        /// A name, unique within the object.
        pub name: String,
        /// The port of the endpoints, where it differs.
        pub target_port: u32,
    }
}

/// What a [`StringMatch`] demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchKind<'a> {
    /// Equal to this.
    Exact(&'a str),
    /// Beginning with this.
    Prefix(&'a str),
    /// Matching this expression as a whole.
    Regex(&'a str),
    /// Just present.
    Present,
}

impl StringMatch {
    /// The one thing that this match demands.
    pub fn kind(&self) -> MatchKind<'_> {
        match (&self.exact, &self.prefix, &self.regex) {
            (Some(exact), _, _) => MatchKind::Exact(exact),
            (None, Some(prefix), _) => MatchKind::Prefix(prefix),
            (None, None, Some(regex)) => MatchKind::Regex(regex),
            (None, None, None) => MatchKind::Present,
        }
    }
}
