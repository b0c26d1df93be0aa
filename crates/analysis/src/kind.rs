//! The kinds of objects that analyzers look at.

/// A kind, in Istio's storage version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    AuthorizationPolicy,
    ConfigMap,
    CustomResourceDefinition,
    Deployment,
    DestinationRule,
    EnvoyFilter,
    Gateway,
    GrpcRoute,
    HttpRoute,
    KubernetesGateway,
    MeshConfig,
    MeshNetworks,
    MutatingWebhookConfiguration,
    Namespace,
    Node,
    PeerAuthentication,
    Pod,
    ProxyConfig,
    RequestAuthentication,
    Secret,
    Service,
    ServiceEntry,
    Sidecar,
    Telemetry,
    TrafficExtension,
    ValidatingWebhookConfiguration,
    VirtualService,
    WasmPlugin,
    WorkloadEntry,
    WorkloadGroup,
}

/// How a kind is called by the Kubernetes API.
#[derive(Debug, Clone, Copy)]
pub struct KindInfo {
    /// Which.
    pub kind: Kind,
    /// API group.
    pub group: &'static str,
    /// Versions that mean the same; the first is the one to ask for.
    pub versions: &'static [&'static str],
    /// Name of the kind.
    pub name: &'static str,
    /// Name in paths.
    pub plural: &'static str,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
}

const fn info(
    kind: Kind,
    group: &'static str,
    versions: &'static [&'static str],
    name: &'static str,
    plural: &'static str,
    namespaced: bool,
) -> KindInfo {
    KindInfo {
        kind,
        group,
        versions,
        name,
        plural,
        namespaced,
    }
}

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const GATEWAY_API: &str = "gateway.networking.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";
const V1: &[&str] = &["v1"];
const NETWORKING_VERSIONS: &[&str] = &["v1", "v1alpha3", "v1beta1"];
const SECURITY_VERSIONS: &[&str] = &["v1", "v1beta1"];
const ALPHA: &[&str] = &["v1alpha1"];

/// All kinds; the versions are those of Istio's `pkg/config/schema/metadata.yaml`.
pub const KINDS: &[KindInfo] = &[
    info(
        Kind::AuthorizationPolicy,
        SECURITY,
        SECURITY_VERSIONS,
        "AuthorizationPolicy",
        "authorizationpolicies",
        true,
    ),
    info(Kind::ConfigMap, "", V1, "ConfigMap", "configmaps", true),
    info(
        Kind::CustomResourceDefinition,
        "apiextensions.k8s.io",
        V1,
        "CustomResourceDefinition",
        "customresourcedefinitions",
        false,
    ),
    info(
        Kind::Deployment,
        "apps",
        V1,
        "Deployment",
        "deployments",
        true,
    ),
    info(
        Kind::DestinationRule,
        NETWORKING,
        NETWORKING_VERSIONS,
        "DestinationRule",
        "destinationrules",
        true,
    ),
    info(
        Kind::EnvoyFilter,
        NETWORKING,
        &["v1alpha3"],
        "EnvoyFilter",
        "envoyfilters",
        true,
    ),
    info(
        Kind::Gateway,
        NETWORKING,
        NETWORKING_VERSIONS,
        "Gateway",
        "gateways",
        true,
    ),
    info(
        Kind::GrpcRoute,
        GATEWAY_API,
        &["v1", "v1alpha2"],
        "GRPCRoute",
        "grpcroutes",
        true,
    ),
    info(
        Kind::HttpRoute,
        GATEWAY_API,
        &["v1", "v1alpha2", "v1beta1"],
        "HTTPRoute",
        "httproutes",
        true,
    ),
    info(
        Kind::KubernetesGateway,
        GATEWAY_API,
        &["v1", "v1alpha2", "v1beta1"],
        "Gateway",
        "gateways",
        true,
    ),
    info(
        Kind::MeshConfig,
        "",
        ALPHA,
        "MeshConfig",
        "meshconfigs",
        true,
    ),
    info(
        Kind::MeshNetworks,
        "",
        ALPHA,
        "MeshNetworks",
        "meshnetworks",
        true,
    ),
    info(
        Kind::MutatingWebhookConfiguration,
        ADMISSION,
        V1,
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        false,
    ),
    info(Kind::Namespace, "", V1, "Namespace", "namespaces", false),
    info(Kind::Node, "", V1, "Node", "nodes", false),
    info(
        Kind::PeerAuthentication,
        SECURITY,
        SECURITY_VERSIONS,
        "PeerAuthentication",
        "peerauthentications",
        true,
    ),
    info(Kind::Pod, "", V1, "Pod", "pods", true),
    info(
        Kind::ProxyConfig,
        NETWORKING,
        &["v1beta1"],
        "ProxyConfig",
        "proxyconfigs",
        true,
    ),
    info(
        Kind::RequestAuthentication,
        SECURITY,
        SECURITY_VERSIONS,
        "RequestAuthentication",
        "requestauthentications",
        true,
    ),
    info(Kind::Secret, "", V1, "Secret", "secrets", true),
    info(Kind::Service, "", V1, "Service", "services", true),
    info(
        Kind::ServiceEntry,
        NETWORKING,
        NETWORKING_VERSIONS,
        "ServiceEntry",
        "serviceentries",
        true,
    ),
    info(
        Kind::Sidecar,
        NETWORKING,
        NETWORKING_VERSIONS,
        "Sidecar",
        "sidecars",
        true,
    ),
    info(
        Kind::Telemetry,
        "telemetry.istio.io",
        &["v1", "v1alpha1"],
        "Telemetry",
        "telemetries",
        true,
    ),
    info(
        Kind::TrafficExtension,
        "extensions.istio.io",
        ALPHA,
        "TrafficExtension",
        "trafficextensions",
        true,
    ),
    info(
        Kind::ValidatingWebhookConfiguration,
        ADMISSION,
        V1,
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        false,
    ),
    info(
        Kind::VirtualService,
        NETWORKING,
        NETWORKING_VERSIONS,
        "VirtualService",
        "virtualservices",
        true,
    ),
    info(
        Kind::WasmPlugin,
        "extensions.istio.io",
        ALPHA,
        "WasmPlugin",
        "wasmplugins",
        true,
    ),
    info(
        Kind::WorkloadEntry,
        NETWORKING,
        NETWORKING_VERSIONS,
        "WorkloadEntry",
        "workloadentries",
        true,
    ),
    info(
        Kind::WorkloadGroup,
        NETWORKING,
        NETWORKING_VERSIONS,
        "WorkloadGroup",
        "workloadgroups",
        true,
    ),
];

impl Kind {
    /// How the API calls it.
    ///
    /// # Panics
    /// Never: every kind is in [`KINDS`].
    #[must_use]
    pub fn info(self) -> &'static KindInfo {
        KINDS
            .iter()
            .find(|info| info.kind == self)
            .expect("every kind is in the table")
    }

    /// The kind with this group, version and name.
    #[must_use]
    pub fn find(group: &str, version: &str, name: &str) -> Option<Kind> {
        KINDS
            .iter()
            .find(|info| {
                info.group == group && info.name == name && info.versions.contains(&version)
            })
            .map(|info| info.kind)
    }

    /// Whether its objects are read from running clusters only, never from files: what a file says about workloads is not
    /// what runs.
    #[must_use]
    pub fn only_live(self) -> bool {
        matches!(
            self,
            Kind::Service | Kind::Namespace | Kind::Node | Kind::Pod | Kind::Secret
        )
    }

    /// Whether its objects are read from files. Istio knows the kinds of the Gateway API, but not how to read them from files.
    #[must_use]
    pub fn in_files(self) -> bool {
        !self.only_live() && !self.synthetic() && self.info().group != GATEWAY_API
    }

    /// Whether it is read from remote clusters: injection and workload templates are analyzed in the own cluster only.
    #[must_use]
    pub fn in_remote_clusters(self) -> bool {
        !matches!(
            self,
            Kind::Deployment
                | Kind::ConfigMap
                | Kind::ValidatingWebhookConfiguration
                | Kind::MutatingWebhookConfiguration
        ) && !self.synthetic()
    }

    /// Whether no API serves it: it is made from the ConfigMap `istio`.
    #[must_use]
    pub fn synthetic(self) -> bool {
        matches!(self, Kind::MeshConfig | Kind::MeshNetworks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_of_a_kind_finds_it_and_no_other_does() {
        assert_eq!(
            Kind::find("networking.istio.io", "v1beta1", "VirtualService"),
            Some(Kind::VirtualService)
        );
        assert_eq!(
            Kind::find("networking.istio.io", "v2", "VirtualService"),
            None
        );
        assert_eq!(Kind::find("networking.istio.io", "v1", "EnvoyFilter"), None);
        assert_eq!(
            Kind::find("gateway.networking.k8s.io", "v1", "Gateway"),
            Some(Kind::KubernetesGateway)
        );
    }
}
