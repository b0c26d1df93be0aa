//! Which collection of objects a request is about.

use std::borrow::Cow;

use serde_json::Value;

use crate::params::encode_into;

/// A kind of objects as the API serves it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// API version.
    pub version: Cow<'static, str>,
    /// Plural name in paths.
    pub plural: Cow<'static, str>,
    /// Kind of the objects.
    pub kind: Cow<'static, str>,
}

impl Resource {
    /// A resource known when compiling.
    pub const fn fixed(
        group: &'static str,
        version: &'static str,
        plural: &'static str,
        kind: &'static str,
    ) -> Self {
        Self {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            plural: Cow::Borrowed(plural),
            kind: Cow::Borrowed(kind),
        }
    }

    /// A resource known only when running (discovery, custom resources).
    pub fn new(group: &str, version: &str, plural: &str, kind: &str) -> Self {
        Self {
            group: group.to_owned().into(),
            version: version.to_owned().into(),
            plural: plural.to_owned().into(),
            kind: kind.to_owned().into(),
        }
    }

    /// `apiVersion` of its objects: `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Path of the collection (`name` none) or of one object; `ns` none for cluster-wide
    /// collections and cluster-scoped objects.
    pub fn path(&self, ns: Option<&str>, name: Option<&str>, subresource: Option<&str>) -> String {
        let mut path = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if let Some(ns) = ns {
            path.push_str("/namespaces/");
            encode_into(&mut path, ns);
        }
        path.push('/');
        path.push_str(&self.plural);
        for part in [name, subresource].into_iter().flatten() {
            path.push('/');
            encode_into(&mut path, part);
        }
        path
    }

    /// Adds `apiVersion` and `kind` where an object lacks them: items of a list do.
    pub fn complete(&self, mut object: Value) -> Value {
        if let Some(map) = object.as_object_mut()
            && !(map.contains_key("kind") && map.contains_key("apiVersion"))
        {
            let mut whole = serde_json::Map::with_capacity(map.len() + 2);
            whole.insert("apiVersion".to_owned(), self.api_version().into());
            whole.insert("kind".to_owned(), self.kind.as_ref().into());
            for (key, value) in std::mem::take(map) {
                whole.insert(key, value);
            }
            *map = whole;
        }
        object
    }
}

/// `pods` of the core group.
pub const PODS: Resource = Resource::fixed("", "v1", "pods", "Pod");
/// `services` of the core group.
pub const SERVICES: Resource = Resource::fixed("", "v1", "services", "Service");
/// `nodes` of the core group.
pub const NODES: Resource = Resource::fixed("", "v1", "nodes", "Node");
/// `namespaces` of the core group.
pub const NAMESPACES: Resource = Resource::fixed("", "v1", "namespaces", "Namespace");
/// `configmaps` of the core group.
pub const CONFIG_MAPS: Resource = Resource::fixed("", "v1", "configmaps", "ConfigMap");
/// `secrets` of the core group.
pub const SECRETS: Resource = Resource::fixed("", "v1", "secrets", "Secret");
/// `serviceaccounts` of the core group.
pub const SERVICE_ACCOUNTS: Resource =
    Resource::fixed("", "v1", "serviceaccounts", "ServiceAccount");
/// `endpoints` of the core group.
pub const ENDPOINTS: Resource = Resource::fixed("", "v1", "endpoints", "Endpoints");
/// `events` of the core group.
pub const EVENTS: Resource = Resource::fixed("", "v1", "events", "Event");
/// `persistentvolumeclaims` of the core group.
pub const PERSISTENT_VOLUME_CLAIMS: Resource =
    Resource::fixed("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim");
/// `endpointslices` of group `discovery.k8s.io`.
pub const ENDPOINT_SLICES: Resource =
    Resource::fixed("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice");
/// `deployments` of group `apps`.
pub const DEPLOYMENTS: Resource = Resource::fixed("apps", "v1", "deployments", "Deployment");
/// `replicasets` of group `apps`.
pub const REPLICA_SETS: Resource = Resource::fixed("apps", "v1", "replicasets", "ReplicaSet");
/// `statefulsets` of group `apps`.
pub const STATEFUL_SETS: Resource = Resource::fixed("apps", "v1", "statefulsets", "StatefulSet");
/// `daemonsets` of group `apps`.
pub const DAEMON_SETS: Resource = Resource::fixed("apps", "v1", "daemonsets", "DaemonSet");
/// `jobs` of group `batch`.
pub const JOBS: Resource = Resource::fixed("batch", "v1", "jobs", "Job");
/// `cronjobs` of group `batch`.
pub const CRON_JOBS: Resource = Resource::fixed("batch", "v1", "cronjobs", "CronJob");
/// `leases` of group `coordination.k8s.io`.
pub const LEASES: Resource = Resource::fixed("coordination.k8s.io", "v1", "leases", "Lease");
/// `roles` of group `rbac.authorization.k8s.io`.
pub const ROLES: Resource = Resource::fixed("rbac.authorization.k8s.io", "v1", "roles", "Role");
/// `rolebindings` of group `rbac.authorization.k8s.io`.
pub const ROLE_BINDINGS: Resource = Resource::fixed(
    "rbac.authorization.k8s.io",
    "v1",
    "rolebindings",
    "RoleBinding",
);
/// `clusterroles` of group `rbac.authorization.k8s.io`.
pub const CLUSTER_ROLES: Resource = Resource::fixed(
    "rbac.authorization.k8s.io",
    "v1",
    "clusterroles",
    "ClusterRole",
);
/// `clusterrolebindings` of group `rbac.authorization.k8s.io`.
pub const CLUSTER_ROLE_BINDINGS: Resource = Resource::fixed(
    "rbac.authorization.k8s.io",
    "v1",
    "clusterrolebindings",
    "ClusterRoleBinding",
);
/// `horizontalpodautoscalers` of group `autoscaling`.
pub const HORIZONTAL_POD_AUTOSCALERS: Resource = Resource::fixed(
    "autoscaling",
    "v2",
    "horizontalpodautoscalers",
    "HorizontalPodAutoscaler",
);
/// `poddisruptionbudgets` of group `policy`.
pub const POD_DISRUPTION_BUDGETS: Resource = Resource::fixed(
    "policy",
    "v1",
    "poddisruptionbudgets",
    "PodDisruptionBudget",
);
/// `ingressclasses` of group `networking.k8s.io`.
pub const INGRESS_CLASSES: Resource =
    Resource::fixed("networking.k8s.io", "v1", "ingressclasses", "IngressClass");
/// `ingresses` of group `networking.k8s.io`.
pub const INGRESSES: Resource = Resource::fixed("networking.k8s.io", "v1", "ingresses", "Ingress");
/// `customresourcedefinitions` of group `apiextensions.k8s.io`.
pub const CUSTOM_RESOURCE_DEFINITIONS: Resource = Resource::fixed(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
);
/// `mutatingwebhookconfigurations` of group `admissionregistration.k8s.io`.
pub const MUTATING_WEBHOOK_CONFIGURATIONS: Resource = Resource::fixed(
    "admissionregistration.k8s.io",
    "v1",
    "mutatingwebhookconfigurations",
    "MutatingWebhookConfiguration",
);
/// `validatingwebhookconfigurations` of group `admissionregistration.k8s.io`.
pub const VALIDATING_WEBHOOK_CONFIGURATIONS: Resource = Resource::fixed(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
);
/// `tokenreviews` of group `authentication.k8s.io`.
pub const TOKEN_REVIEWS: Resource =
    Resource::fixed("authentication.k8s.io", "v1", "tokenreviews", "TokenReview");
/// `subjectaccessreviews` of group `authorization.k8s.io`.
pub const SUBJECT_ACCESS_REVIEWS: Resource = Resource::fixed(
    "authorization.k8s.io",
    "v1",
    "subjectaccessreviews",
    "SubjectAccessReview",
);
/// `virtualservices` of group `networking.istio.io`.
pub const VIRTUAL_SERVICES: Resource = Resource::fixed(
    "networking.istio.io",
    "v1",
    "virtualservices",
    "VirtualService",
);
/// `destinationrules` of group `networking.istio.io`.
pub const DESTINATION_RULES: Resource = Resource::fixed(
    "networking.istio.io",
    "v1",
    "destinationrules",
    "DestinationRule",
);
/// `gateways` of group `networking.istio.io`.
pub const GATEWAYS: Resource = Resource::fixed("networking.istio.io", "v1", "gateways", "Gateway");
/// `serviceentries` of group `networking.istio.io`.
pub const SERVICE_ENTRIES: Resource = Resource::fixed(
    "networking.istio.io",
    "v1",
    "serviceentries",
    "ServiceEntry",
);
/// `sidecars` of group `networking.istio.io`.
pub const SIDECARS: Resource = Resource::fixed("networking.istio.io", "v1", "sidecars", "Sidecar");
/// `workloadentries` of group `networking.istio.io`.
pub const WORKLOAD_ENTRIES: Resource = Resource::fixed(
    "networking.istio.io",
    "v1",
    "workloadentries",
    "WorkloadEntry",
);
/// `workloadgroups` of group `networking.istio.io`.
pub const WORKLOAD_GROUPS: Resource = Resource::fixed(
    "networking.istio.io",
    "v1",
    "workloadgroups",
    "WorkloadGroup",
);
/// `envoyfilters` of group `networking.istio.io`.
pub const ENVOY_FILTERS: Resource = Resource::fixed(
    "networking.istio.io",
    "v1alpha3",
    "envoyfilters",
    "EnvoyFilter",
);
/// `proxyconfigs` of group `networking.istio.io`.
pub const PROXY_CONFIGS: Resource = Resource::fixed(
    "networking.istio.io",
    "v1beta1",
    "proxyconfigs",
    "ProxyConfig",
);
/// `peerauthentications` of group `security.istio.io`.
pub const PEER_AUTHENTICATIONS: Resource = Resource::fixed(
    "security.istio.io",
    "v1",
    "peerauthentications",
    "PeerAuthentication",
);
/// `requestauthentications` of group `security.istio.io`.
pub const REQUEST_AUTHENTICATIONS: Resource = Resource::fixed(
    "security.istio.io",
    "v1",
    "requestauthentications",
    "RequestAuthentication",
);
/// `authorizationpolicies` of group `security.istio.io`.
pub const AUTHORIZATION_POLICIES: Resource = Resource::fixed(
    "security.istio.io",
    "v1",
    "authorizationpolicies",
    "AuthorizationPolicy",
);
/// `telemetries` of group `telemetry.istio.io`.
pub const TELEMETRIES: Resource =
    Resource::fixed("telemetry.istio.io", "v1", "telemetries", "Telemetry");
/// `wasmplugins` of group `extensions.istio.io`.
pub const WASM_PLUGINS: Resource = Resource::fixed(
    "extensions.istio.io",
    "v1alpha1",
    "wasmplugins",
    "WasmPlugin",
);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths() {
        assert_eq!(PODS.path(None, None, None), "/api/v1/pods");
        assert_eq!(
            PODS.path(Some("a"), Some("p"), Some("binding")),
            "/api/v1/namespaces/a/pods/p/binding"
        );
        assert_eq!(
            DEPLOYMENTS.path(Some("a"), Some("d"), None),
            "/apis/apps/v1/namespaces/a/deployments/d"
        );
        assert_eq!(
            CLUSTER_ROLES.path(None, Some("system:node"), None),
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node"
        );
        assert_eq!(
            PODS.path(Some("a/b"), Some("../x"), None),
            "/api/v1/namespaces/a%2Fb/pods/..%2Fx"
        );
    }

    #[test]
    fn items_of_lists_are_completed() {
        let item = DEPLOYMENTS.complete(json!({"metadata": {"name": "d"}}));
        assert_eq!(item["apiVersion"], "apps/v1");
        assert_eq!(item["kind"], "Deployment");
        let item = PODS.complete(json!({"apiVersion": "x/v2", "kind": "Other"}));
        assert_eq!(item, json!({"apiVersion": "x/v2", "kind": "Other"}));
    }
}
