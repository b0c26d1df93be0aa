//! What is special about each kind: names, versions, columns and the rules that the API server checks.

use super::crd::schema_of;
use super::*;
use serde_json::Value;

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
    pub(super) schema: fn() -> Value,
    pub(super) rules: &'static [Rule],
}

/// A CEL rule: where in the spec (`[]` items, `{}` values), what, and the message.
pub(super) type Rule = (&'static str, &'static str, &'static str);

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const TELEMETRY: &str = "telemetry.istio.io";
const EXTENSIONS: &str = "extensions.istio.io";
const AGE: (&str, &str, &str) = ("Age", "date", ".metadata.creationTimestamp");

const ONE_TARGET: Rule = (
    "",
    "(has(self.selector) ? 1 : 0) + (has(self.targetRef) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1",
    "only one of targetRefs or selector can be set",
);
const NO_CROSS_NAMESPACE: Rule = (
    "targetRef.namespace",
    "self.size() == 0",
    "cross namespace referencing is not currently supported",
);
const NO_CROSS_NAMESPACES: Rule = (
    "targetRefs[].namespace",
    "self.size() == 0",
    "cross namespace referencing is not currently supported",
);
const NO_WILDCARD_KEY: Rule = (
    "selector.matchLabels",
    "self.all(key, !key.contains(\"*\"))",
    "wildcard not allowed in label key match",
);
const NO_EMPTY_KEY: Rule = (
    "selector.matchLabels",
    "self.all(key, key.size() != 0)",
    "key must not be empty",
);
const NO_WILDCARD_VALUE: Rule = (
    "selector.matchLabels{}",
    "!self.contains(\"*\")",
    "wildcard not allowed in label value match",
);
const NO_WILDCARD_LABEL: Rule = (
    "workloadSelector.labels{}",
    "!self.contains(\"*\")",
    "wildcard is not supported in selector",
);

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
        schema: schema_of::<AuthorizationPolicy>,
        rules: &[
            ONE_TARGET,
            (
                "rules[].from[].source",
                "(has(self.serviceAccounts) || has(self.notServiceAccounts)) ? (!has(self.principals) && \
                 !has(self.notPrincipals) && !has(self.namespaces) && !has(self.notNamespaces)) : true",
                "Cannot set serviceAccounts with namespaces or principals",
            ),
            NO_WILDCARD_KEY,
            NO_EMPTY_KEY,
            NO_WILDCARD_VALUE,
            NO_CROSS_NAMESPACE,
            NO_CROSS_NAMESPACES,
        ],
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
        schema: schema_of::<DestinationRule>,
        rules: &[
            (
                "workloadSelector.matchLabels",
                "self.all(key, !key.contains(\"*\"))",
                "wildcard not allowed in label key match",
            ),
            (
                "workloadSelector.matchLabels",
                "self.all(key, key.size() != 0)",
                "key must not be empty",
            ),
            (
                "workloadSelector.matchLabels{}",
                "!self.contains(\"*\")",
                "wildcard not allowed in label value match",
            ),
        ],
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
        schema: schema_of::<EnvoyFilter>,
        rules: &[
            (
                "",
                "(has(self.workloadSelector) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1",
                "only one of targetRefs or workloadSelector can be set",
            ),
            NO_CROSS_NAMESPACES,
            NO_WILDCARD_LABEL,
        ],
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
        schema: schema_of::<Gateway>,
        rules: &[
            (
                "servers[].tls",
                "(has(self.tlsCertificates) ? 1 : 0) + (has(self.credentialNames) ? 1 : 0) <= 1",
                "only one of credentialNames or tlsCertificates can be set",
            ),
            (
                "servers[].tls",
                "(has(self.credentialName) ? 1 : 0) + (has(self.credentialNames) ? 1 : 0) <= 1",
                "only one of credentialName or credentialNames can be set",
            ),
        ],
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
        schema: schema_of::<PeerAuthentication>,
        rules: &[
            (
                "",
                "has(self.portLevelMtls) ? (((has(self.selector) && has(self.selector.matchLabels)) ? \
                 self.selector.matchLabels : {}).size() > 0) : true",
                "portLevelMtls requires selector",
            ),
            (
                "portLevelMtls",
                "self.all(key, 0 < int(key) && int(key) <= 65535)",
                "port must be between 1-65535",
            ),
            NO_WILDCARD_KEY,
            NO_EMPTY_KEY,
            NO_WILDCARD_VALUE,
        ],
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
        schema: schema_of::<ProxyConfig>,
        rules: &[NO_WILDCARD_KEY, NO_EMPTY_KEY, NO_WILDCARD_VALUE],
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
        schema: schema_of::<RequestAuthentication>,
        rules: &[
            ONE_TARGET,
            (
                "jwtRules[]",
                "(has(self.jwksUri) ? 1 : 0) + (has(self.jwks_uri) ? 1 : 0) + (has(self.jwks) ? 1 : 0) <= 1",
                "only one of jwks or jwksUri can be set",
            ),
            (
                "jwtRules[].jwksUri",
                "url(self).getScheme() in [\"http\", \"https\"]",
                "url must have scheme http:// or https://",
            ),
            NO_WILDCARD_KEY,
            NO_EMPTY_KEY,
            NO_WILDCARD_VALUE,
            NO_CROSS_NAMESPACE,
            NO_CROSS_NAMESPACES,
        ],
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
        schema: schema_of::<ServiceEntry>,
        rules: &[
            (
                "",
                "(has(self.workloadSelector) ? 1 : 0) + (has(self.endpoints) ? 1 : 0) <= 1",
                "only one of WorkloadSelector or Endpoints can be set",
            ),
            (
                "",
                "!((has(self.addresses) ? self.addresses : []).exists(k, k.contains(\"/\")) && !((has(self.resolution) ? \
                 self.resolution : \"NONE\") in [\"STATIC\", \"NONE\"]))",
                "CIDR addresses are allowed only for NONE/STATIC resolution types",
            ),
            (
                "",
                "((has(self.resolution) ? self.resolution : \"NONE\") == \"NONE\") ? !has(self.endpoints) : true",
                "NONE mode cannot set endpoints",
            ),
            (
                "",
                "((has(self.resolution) ? self.resolution : \"\") == \"DNS_ROUND_ROBIN\") ? ((has(self.endpoints) ? \
                 self.endpoints : []).size() <= 1) : true",
                "DNS_ROUND_ROBIN mode cannot have multiple endpoints",
            ),
            (
                "endpoints[]",
                "has(self.address) || has(self.network)",
                "Address is required",
            ),
            (
                "endpoints[]",
                "(has(self.address) ? self.address : \"\").startsWith(\"unix://\") ? !has(self.ports) : true",
                "UDS may not include ports",
            ),
            ("hosts[]", "self != \"*\"", "hostname cannot be wildcard"),
            (
                "ports[].number",
                "0 < self && self <= 65535",
                "port must be between 1-65535",
            ),
            (
                "ports",
                "self.all(l1, self.exists_one(l2, l1.number == l2.number))",
                "port number cannot be duplicated",
            ),
            NO_WILDCARD_LABEL,
        ],
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
        schema: schema_of::<Sidecar>,
        rules: &[NO_WILDCARD_LABEL],
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
        schema: schema_of::<Telemetry>,
        rules: &[
            ONE_TARGET,
            (
                "metrics[].overrides[].tagOverrides{}",
                "((has(self.operation) ? self.operation : \"\") == \"UPSERT\") ? (self.value != \"\") : true",
                "value must be set when operation is UPSERT",
            ),
            (
                "metrics[].overrides[].tagOverrides{}",
                "((has(self.operation) ? self.operation : \"\") == \"REMOVE\") ? !has(self.value) : true",
                "value must not be set when operation is REMOVE",
            ),
            NO_WILDCARD_KEY,
            NO_EMPTY_KEY,
            NO_WILDCARD_VALUE,
            NO_CROSS_NAMESPACE,
            NO_CROSS_NAMESPACES,
        ],
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
        schema: schema_of::<TrafficExtension>,
        rules: &[(
            "",
            "has(self.wasm) != has(self.lua)",
            "exactly one of wasm or lua must be set",
        )],
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
        schema: schema_of::<VirtualService>,
        rules: &[],
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
        schema: schema_of::<WasmPlugin>,
        rules: &[ONE_TARGET],
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
        schema: schema_of::<WorkloadEntry>,
        rules: &[
            (
                "",
                "has(self.address) || has(self.network)",
                "Address is required",
            ),
            (
                "",
                "(has(self.address) ? self.address : \"\").startsWith(\"unix://\") ? !has(self.ports) : true",
                "UDS may not include ports",
            ),
            (
                "ports{}",
                "0 < self && self <= 65535",
                "port must be between 1-65535",
            ),
        ],
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
        schema: schema_of::<WorkloadGroup>,
        rules: &[],
    },
];
