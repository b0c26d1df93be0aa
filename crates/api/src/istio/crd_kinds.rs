//! What is special about each kind: names, versions, columns.

/// What a CRD says about a kind beside its schema.
#[derive(Debug, Clone, Copy)]
pub struct CrdInfo {
    /// The kind.
    pub kind: &'static str,
    /// The API group.
    pub group: &'static str,
    /// The plural, as in URLs.
    pub plural: &'static str,
    /// The singular.
    pub singular: &'static str,
    /// Short names for kubectl.
    pub short_names: &'static [&'static str],
    /// Served versions; the first is the stored one.
    pub versions: &'static [&'static str],
    /// Columns for kubectl: name, type, path.
    pub columns: &'static [(&'static str, &'static str, &'static str)],
    /// Whether an object must have a `spec`.
    pub spec_required: bool,
}

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const TELEMETRY: &str = "telemetry.istio.io";
const EXTENSIONS: &str = "extensions.istio.io";
const AGE: (&str, &str, &str) = ("Age", "date", ".metadata.creationTimestamp");

/// All kinds of Istio, by name of the CRD.
pub const KINDS: &[CrdInfo] = &[
    CrdInfo {
        kind: "AuthorizationPolicy",
        group: SECURITY,
        plural: "authorizationpolicies",
        singular: "authorizationpolicy",
        short_names: &["ap"],
        versions: &["v1", "v1beta1"],
        columns: &[("Action", "string", ".spec.action"), AGE],
        spec_required: false,
    },
    CrdInfo {
        kind: "DestinationRule",
        group: NETWORKING,
        plural: "destinationrules",
        singular: "destinationrule",
        short_names: &["dr"],
        versions: &["v1", "v1alpha3", "v1beta1"],
        columns: &[("Host", "string", ".spec.host"), AGE],
        spec_required: false,
    },
    CrdInfo {
        kind: "EnvoyFilter",
        group: NETWORKING,
        plural: "envoyfilters",
        singular: "envoyfilter",
        short_names: &[],
        versions: &["v1alpha3"],
        columns: &[],
        spec_required: false,
    },
    CrdInfo {
        kind: "Gateway",
        group: NETWORKING,
        plural: "gateways",
        singular: "gateway",
        short_names: &["gw"],
        versions: &["v1", "v1alpha3", "v1beta1"],
        columns: &[],
        spec_required: false,
    },
    CrdInfo {
        kind: "PeerAuthentication",
        group: SECURITY,
        plural: "peerauthentications",
        singular: "peerauthentication",
        short_names: &["pa"],
        versions: &["v1", "v1beta1"],
        columns: &[("Mode", "string", ".spec.mtls.mode"), AGE],
        spec_required: false,
    },
    CrdInfo {
        kind: "ProxyConfig",
        group: NETWORKING,
        plural: "proxyconfigs",
        singular: "proxyconfig",
        short_names: &[],
        versions: &["v1beta1"],
        columns: &[],
        spec_required: false,
    },
    CrdInfo {
        kind: "RequestAuthentication",
        group: SECURITY,
        plural: "requestauthentications",
        singular: "requestauthentication",
        short_names: &["ra"],
        versions: &["v1", "v1beta1"],
        columns: &[],
        spec_required: false,
    },
    CrdInfo {
        kind: "ServiceEntry",
        group: NETWORKING,
        plural: "serviceentries",
        singular: "serviceentry",
        short_names: &["se"],
        versions: &["v1", "v1alpha3", "v1beta1"],
        columns: &[
            ("Hosts", "string", ".spec.hosts"),
            ("Location", "string", ".spec.location"),
            ("Resolution", "string", ".spec.resolution"),
            AGE,
        ],
        spec_required: true,
    },
    CrdInfo {
        kind: "Sidecar",
        group: NETWORKING,
        plural: "sidecars",
        singular: "sidecar",
        short_names: &[],
        versions: &["v1", "v1alpha3", "v1beta1"],
        columns: &[],
        spec_required: false,
    },
    CrdInfo {
        kind: "Telemetry",
        group: TELEMETRY,
        plural: "telemetries",
        singular: "telemetry",
        short_names: &["telemetry"],
        versions: &["v1alpha1", "v1"],
        columns: &[AGE],
        spec_required: false,
    },
    CrdInfo {
        kind: "TrafficExtension",
        group: EXTENSIONS,
        plural: "trafficextensions",
        singular: "trafficextension",
        short_names: &[],
        versions: &["v1alpha1"],
        columns: &[AGE],
        spec_required: true,
    },
    CrdInfo {
        kind: "VirtualService",
        group: NETWORKING,
        plural: "virtualservices",
        singular: "virtualservice",
        short_names: &["vs"],
        versions: &["v1", "v1alpha3", "v1beta1"],
        columns: &[
            ("Gateways", "string", ".spec.gateways"),
            ("Hosts", "string", ".spec.hosts"),
            AGE,
        ],
        spec_required: false,
    },
    CrdInfo {
        kind: "WasmPlugin",
        group: EXTENSIONS,
        plural: "wasmplugins",
        singular: "wasmplugin",
        short_names: &[],
        versions: &["v1alpha1"],
        columns: &[AGE],
        spec_required: true,
    },
    CrdInfo {
        kind: "WorkloadEntry",
        group: NETWORKING,
        plural: "workloadentries",
        singular: "workloadentry",
        short_names: &["we"],
        versions: &["v1", "v1alpha3", "v1beta1"],
        columns: &[AGE, ("Address", "string", ".spec.address")],
        spec_required: true,
    },
    CrdInfo {
        kind: "WorkloadGroup",
        group: NETWORKING,
        plural: "workloadgroups",
        singular: "workloadgroup",
        short_names: &["wg"],
        versions: &["v1", "v1alpha3", "v1beta1"],
        columns: &[AGE],
        spec_required: true,
    },
];
