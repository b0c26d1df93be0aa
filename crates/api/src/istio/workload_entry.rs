//! WorkloadEntry and WorkloadGroup: workloads outside of Kubernetes.

use std::collections::BTreeMap;

message! {
    /// One workload.
    pub struct WorkloadEntry {
        /// Its address or name; may be empty if a network is given.
        pub address: String,
        /// Ports by name of the service port.
        pub ports: BTreeMap<String, u32>,
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// The network it is in.
        pub network: String,
        /// `region/zone/subzone`.
        pub locality: String,
        /// Share of the traffic.
        pub weight: u32,
        /// Its service account.
        pub service_account: String,
    }

    /// A template of workloads.
    pub struct WorkloadGroup {
        /// Labels and annotations of its entries.
        pub metadata: Option<WorkloadGroupMetadata>,
        /// What its entries look like.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub template: Option<WorkloadEntry>,
        /// How their readiness is found.
        pub probe: Option<ReadinessProbe>,
    }

    /// Labels and annotations.
    pub struct WorkloadGroupMetadata {
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// Annotations.
        pub annotations: BTreeMap<String, String>,
    }

    /// How readiness is found.
    pub struct ReadinessProbe {
        /// Time before the first probe, in seconds.
        pub initial_delay_seconds: i32,
        /// Time limit, in seconds.
        pub timeout_seconds: i32,
        /// Time between probes, in seconds.
        pub period_seconds: i32,
        /// Successes in a row that count as ready.
        pub success_threshold: i32,
        /// Failures in a row that count as not ready.
        pub failure_threshold: i32,
        /// Ask by HTTP.
        pub http_get: Option<HttpHealthCheck>,
        /// Connect.
        pub tcp_socket: Option<TcpHealthCheck>,
        /// Run a command.
        pub exec: Option<ExecHealthCheck>,
        /// Ask by gRPC.
        pub grpc: Option<GrpcHealthCheck>,
    }

    /// A probe by HTTP.
    pub struct HttpHealthCheck {
        /// The path.
        pub path: String,
        /// The port.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub port: u32,
        /// The host.
        pub host: String,
        /// HTTP or HTTPS.
        pub scheme: String,
        /// Headers to send.
        pub http_headers: Vec<HttpProbeHeader>,
    }

    /// A header of a probe.
    pub struct HttpProbeHeader {
        /// Its name.
        pub name: String,
        /// Its value.
        pub value: String,
    }

    /// A probe by connecting.
    pub struct TcpHealthCheck {
        /// The host.
        pub host: String,
        /// The port.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub port: u32,
    }

    /// A probe by command.
    pub struct ExecHealthCheck {
        /// The command and its arguments.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub command: Vec<String>,
    }

    /// A probe by gRPC.
    pub struct GrpcHealthCheck {
        /// The service to ask for.
        pub service: String,
        /// The port.
        pub port: u32,
    }
}
