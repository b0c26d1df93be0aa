//! Sidecar injection: what istiod adds to a pod. Pure. The reference is what the real injector makes
//! of the same pods (tests/inject).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::probes;
use super::review::Verdict;

/// What injection needs to know about the mesh.
#[derive(Debug, Clone)]
pub struct Injection {
    /// Image of the proxy.
    pub image: String,
    /// Id of this cluster; `Kubernetes` when it was never named.
    pub cluster: Option<String>,
    /// Network of this cluster, if there are several.
    pub network: Option<String>,
    /// Id of the mesh.
    pub mesh_id: String,
    /// Trust domain of identities.
    pub trust_domain: String,
    /// Revision of this control plane.
    pub revision: String,
}

/// Why a pod was left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skipped {
    /// Label or annotation `sidecar.istio.io/inject: "false"`.
    Disabled,
    /// It uses the node's network.
    HostNetwork,
    /// It has a sidecar already.
    Injected,
    /// Its namespace never gets sidecars.
    SystemNamespace,
}

const SYSTEM_NAMESPACES: [&str; 4] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "local-path-storage",
];

const PROXY: &str = "istio-proxy";
const INIT: &str = "istio-init";
const PROXY_UID: i64 = 1337;

/// The volumes that injection adds, in order.
const VOLUMES: [&str; 9] = [
    "workload-socket",
    "credential-socket",
    "workload-certs",
    "istio-envoy",
    "istio-data",
    "istio-podinfo",
    "istio-token",
    "istiod-ca-cert",
    "istio-ca-crl",
];

/// Why a pod must be left alone, if it must.
#[must_use]
pub fn skip(pod: &Value, namespace: &str) -> Option<Skipped> {
    if SYSTEM_NAMESPACES.contains(&namespace) {
        return Some(Skipped::SystemNamespace);
    }
    if pod["spec"]["hostNetwork"] == true {
        return Some(Skipped::HostNetwork);
    }
    if containers(pod).any(|container| container["name"] == PROXY) {
        return Some(Skipped::Injected);
    }
    let key = "sidecar.istio.io/inject";
    // The label wins over the annotation.
    let wish = pod["metadata"]["labels"]
        .get(key)
        .or_else(|| pod["metadata"]["annotations"].get(key));
    (wish.and_then(Value::as_str) == Some("false")).then_some(Skipped::Disabled)
}

/// What the webhook says to the request of an AdmissionReview.
#[must_use]
pub fn decide(request: &Value, injection: &Injection) -> Verdict {
    let pod = &request["object"];
    let namespace = request["namespace"]
        .as_str()
        .or_else(|| pod["metadata"]["namespace"].as_str())
        .unwrap_or("default");
    if let Some(reason) = skip(pod, namespace) {
        tracing::info!(namespace, ?reason, "pod left without a sidecar");
        return Verdict::Allow(Vec::new());
    }
    let patch = json_patch::diff(pod, &inject(pod, namespace, injection));
    match serde_json::to_value(patch) {
        Ok(patch) => Verdict::Patch(patch),
        Err(error) => Verdict::Deny(format!("injection failed: {error}")),
    }
}

/// The pod with its sidecar.
#[must_use]
pub fn inject(pod: &Value, namespace: &str, injection: &Injection) -> Value {
    let mut pod = pod.clone();
    let workload = Workload::of(&pod, namespace);
    let mut probers = Map::new();
    if annotation(&pod, "sidecar.istio.io/rewriteAppHTTPProbers") != Some("false") {
        for container in containers_mut(&mut pod) {
            probes::rewrite(container, &mut probers);
        }
    }
    let resources = resources(&pod);
    let scrape = prometheus(&mut pod);
    let proxy = proxy_container(&pod, injection, &workload, &resources, probers, scrape);
    let init = init_container(&pod, injection, &resources);
    metadata(&mut pod, injection, &workload);
    push(&mut pod["spec"], "containers", proxy);
    push(&mut pod["spec"], "initContainers", init);
    let own = pod["spec"]["volumes"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut volumes = volumes();
    volumes.extend(own);
    pod["spec"]["volumes"] = volumes.into();
    pod
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    pod["spec"]["containers"].as_array().into_iter().flatten()
}

fn containers_mut(pod: &mut Value) -> impl Iterator<Item = &mut Value> {
    pod["spec"]["containers"]
        .as_array_mut()
        .into_iter()
        .flatten()
}

fn annotation<'a>(pod: &'a Value, key: &str) -> Option<&'a str> {
    pod["metadata"]["annotations"].get(key)?.as_str()
}

fn label<'a>(pod: &'a Value, key: &str) -> Option<&'a str> {
    pod["metadata"]["labels"].get(key)?.as_str()
}

fn push(spec: &mut Value, field: &str, item: Value) {
    if !spec[field].is_array() {
        spec[field] = json!([]);
    }
    if let Some(list) = spec[field].as_array_mut() {
        list.push(item);
    }
}

/// The workload a pod belongs to, as telemetry names it.
struct Workload {
    name: String,
    owner: String,
}

impl Workload {
    fn of(pod: &Value, namespace: &str) -> Self {
        let controller = pod["metadata"]["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|owner| owner["controller"] == true);
        let Some(owner) = controller else {
            let name = pod["metadata"]["name"]
                .as_str()
                .or_else(|| pod["metadata"]["generateName"].as_str())
                .unwrap_or_default()
                .trim_end_matches('-')
                .to_owned();
            let owner = format!("kubernetes://apis/v1/namespaces/{namespace}/pods/{name}");
            return Self { name, owner };
        };
        let name = owner["name"].as_str().unwrap_or_default();
        let kind = owner["kind"].as_str().unwrap_or_default();
        let version = owner["apiVersion"].as_str().unwrap_or_default();
        // A ReplicaSet named <name>-<pod-template-hash> belongs to the Deployment <name>.
        let deployment = (kind == "ReplicaSet")
            .then(|| label(pod, "pod-template-hash"))
            .flatten()
            .and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-'));
        let (kind, name) = match deployment {
            Some(deployment) => ("Deployment", deployment),
            None => (kind, name),
        };
        let plural = format!("{}s", kind.to_ascii_lowercase());
        Self {
            name: name.to_owned(),
            owner: format!("kubernetes://apis/{version}/namespaces/{namespace}/{plural}/{name}"),
        }
    }
}

fn metadata(pod: &mut Value, injection: &Injection, workload: &Workload) {
    let canonical = label(pod, "service.istio.io/canonical-name")
        .or_else(|| label(pod, "app.kubernetes.io/name"))
        .or_else(|| label(pod, "app"))
        .unwrap_or(&workload.name);
    let canonical: String = canonical.chars().take(63).collect();
    let canonical = canonical.trim_matches(['-', '_', '.']).to_owned();
    let revision = label(pod, "service.istio.io/canonical-revision")
        .or_else(|| label(pod, "app.kubernetes.io/version"))
        .or_else(|| label(pod, "version"))
        .unwrap_or("latest")
        .to_owned();
    let mut labels = vec![
        ("security.istio.io/tlsMode", "istio".to_owned()),
        ("service.istio.io/canonical-name", canonical),
        ("service.istio.io/canonical-revision", revision),
    ];
    if let Some(network) = &injection.network {
        labels.push(("topology.istio.io/network", network.clone()));
    }
    for (key, value) in labels {
        keep_or_set(&mut pod["metadata"]["labels"], key, value);
    }
    let default = containers(pod)
        .find_map(|container| container["name"].as_str().filter(|name| *name != PROXY))
        .unwrap_or_default()
        .to_owned();
    let status = json!({
        "initContainers": [INIT],
        "containers": [PROXY],
        "volumes": VOLUMES,
        "imagePullSecrets": null,
        "revision": injection.revision,
    });
    let annotations = &mut pod["metadata"]["annotations"];
    set(annotations, "istio.io/rev", injection.revision.clone());
    for key in [
        "kubectl.kubernetes.io/default-container",
        "kubectl.kubernetes.io/default-logs-container",
    ] {
        keep_or_set(annotations, key, default.clone());
    }
    set(annotations, "sidecar.istio.io/status", status.to_string());
}

fn set(map: &mut Value, key: &str, value: String) {
    if !map.is_object() {
        *map = json!({});
    }
    map[key] = value.into();
}

fn keep_or_set(map: &mut Value, key: &str, value: String) {
    if map.get(key).is_none() {
        set(map, key, value);
    }
}

/// Points Prometheus at the agent, which merges the application's metrics into its own; returns where the
/// application's are, if it said so.
fn prometheus(pod: &mut Value) -> Option<String> {
    let off = annotation(pod, "prometheus.io/scrape") == Some("false")
        || annotation(pod, "prometheus.istio.io/merge-metrics") == Some("false");
    if off {
        return None;
    }
    let mut own = Map::new();
    for key in ["scrape", "path", "port"] {
        if let Some(value) = annotation(pod, &format!("prometheus.io/{key}")) {
            own.insert(key.into(), value.into());
        }
    }
    let annotations = &mut pod["metadata"]["annotations"];
    set(
        annotations,
        "prometheus.io/path",
        "/stats/prometheus".into(),
    );
    set(
        annotations,
        "prometheus.io/port",
        probes::STATUS_PORT.to_string(),
    );
    set(annotations, "prometheus.io/scrape", "true".into());
    (!own.is_empty()).then(|| Value::Object(own).to_string())
}

/// The proxy's resources: any of the four annotations replaces the whole default.
fn resources(pod: &Value) -> Value {
    let mut chosen: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for (key, kind, name) in [
        ("sidecar.istio.io/proxyCPU", "requests", "cpu"),
        ("sidecar.istio.io/proxyMemory", "requests", "memory"),
        ("sidecar.istio.io/proxyCPULimit", "limits", "cpu"),
        ("sidecar.istio.io/proxyMemoryLimit", "limits", "memory"),
    ] {
        if let Some(value) = annotation(pod, key) {
            chosen
                .entry(kind)
                .or_default()
                .insert(name.into(), value.into());
        }
    }
    if chosen.is_empty() {
        json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "10m", "memory": "40Mi"}})
    } else {
        json!(chosen)
    }
}

fn proxy_container(
    pod: &Value,
    injection: &Injection,
    workload: &Workload,
    resources: &Value,
    probers: Map<String, Value>,
    scrape: Option<String>,
) -> Value {
    let level = annotation(pod, "sidecar.istio.io/logLevel").unwrap_or("warning");
    let components = annotation(pod, "sidecar.istio.io/componentLogLevel").unwrap_or("misc:error");
    json!({
        "args": [
            "proxy", "sidecar", "--domain", "$(POD_NAMESPACE).svc.cluster.local",
            format!("--proxyLogLevel={level}"),
            format!("--proxyComponentLogLevel={components}"),
            agent_log_level(pod),
        ],
        "env": environment(pod, injection, workload, probers, scrape),
        "image": image(pod, injection),
        "name": PROXY,
        "ports": [{"containerPort": 15090, "name": "http-envoy-prom", "protocol": "TCP"}],
        "readinessProbe": {
            "failureThreshold": 4,
            "httpGet": {"path": "/healthz/ready", "port": 15021},
            "periodSeconds": 15,
            "timeoutSeconds": 3,
        },
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": PROXY_UID,
            "runAsNonRoot": true,
            "runAsUser": PROXY_UID,
        },
        "startupProbe": {
            "failureThreshold": 600,
            "httpGet": {"path": "/healthz/ready", "port": 15021},
            "periodSeconds": 1,
            "timeoutSeconds": 3,
        },
        "volumeMounts": [
            {"mountPath": "/var/run/secrets/workload-spiffe-uds", "name": "workload-socket"},
            {"mountPath": "/var/run/secrets/credential-uds", "name": "credential-socket"},
            {"mountPath": "/var/run/secrets/workload-spiffe-credentials", "name": "workload-certs"},
            {"mountPath": "/var/run/secrets/istio", "name": "istiod-ca-cert"},
            {"mountPath": "/var/run/secrets/istio/crl", "name": "istio-ca-crl"},
            {"mountPath": "/var/lib/istio/data", "name": "istio-data"},
            {"mountPath": "/etc/istio/proxy", "name": "istio-envoy"},
            {"mountPath": "/var/run/secrets/tokens", "name": "istio-token"},
            {"mountPath": "/etc/istio/pod", "name": "istio-podinfo"},
        ],
    })
}

fn image(pod: &Value, injection: &Injection) -> String {
    annotation(pod, "sidecar.istio.io/proxyImage")
        .unwrap_or(&injection.image)
        .to_owned()
}

fn agent_log_level(pod: &Value) -> String {
    let level = annotation(pod, "sidecar.istio.io/agentLogLevel").unwrap_or("default:info");
    format!("--log_output_level={level}")
}

fn environment(
    pod: &Value,
    injection: &Injection,
    workload: &Workload,
    probers: Map<String, Value>,
    scrape: Option<String>,
) -> Vec<Value> {
    let plain = |name: &str, value: &str| json!({"name": name, "value": value});
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let limit = |name: &str, resource: &str| json!({"name": name, "valueFrom": {"resourceFieldRef": {"divisor": "1", "resource": resource}}});
    let mut environment = vec![
        plain("PILOT_CERT_PROVIDER", "istiod"),
        plain("CA_ADDR", "istiod.istio-system.svc:15012"),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("INSTANCE_IP", "status.podIP"),
        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        field("HOST_IP", "status.hostIP"),
        limit("ISTIO_CPU_LIMIT", "limits.cpu"),
        plain("PROXY_CONFIG", &proxy_config(pod)),
        plain("ISTIO_META_POD_PORTS", &pod_ports(pod)),
        plain("ISTIO_META_APP_CONTAINERS", &app_containers(pod)),
        limit("GOMEMLIMIT", "limits.memory"),
        field("ISTIO_META_NODE_NAME", "spec.nodeName"),
        plain("ISTIO_META_INTERCEPTION_MODE", "REDIRECT"),
        plain("ISTIO_META_WORKLOAD_NAME", &workload.name),
        plain("ISTIO_META_OWNER", &workload.owner),
        plain("ISTIO_META_MESH_ID", &injection.mesh_id),
        plain("TRUST_DOMAIN", &injection.trust_domain),
    ];
    match &injection.cluster {
        Some(cluster) => environment.push(plain("ISTIO_META_CLUSTER_ID", cluster)),
        None => environment.insert(12, plain("ISTIO_META_CLUSTER_ID", "Kubernetes")),
    }
    if let Some(network) = &injection.network {
        environment.push(plain("ISTIO_META_NETWORK", network));
    }
    if let Some(scrape) = scrape {
        environment.push(plain("ISTIO_PROMETHEUS_ANNOTATIONS", &scrape));
    }
    if !probers.is_empty() {
        let sorted: BTreeMap<String, Value> = probers.into_iter().collect();
        environment.push(plain("ISTIO_KUBE_APP_PROBERS", &json!(sorted).to_string()));
    }
    environment
}

/// The pod's own proxy settings as one line of JSON.
fn proxy_config(pod: &Value) -> String {
    let settings = annotation(pod, "proxy.istio.io/config")
        .and_then(|text| yaml_serde::from_str::<Value>(text).ok())
        .filter(Value::is_object)
        .unwrap_or_else(|| json!({}));
    format!("{settings}\n")
}

/// The declared ports of all containers, as a list with one line each.
fn pod_ports(pod: &Value) -> String {
    let ports: Vec<String> = containers(pod)
        .flat_map(|container| container["ports"].as_array().into_iter().flatten())
        .map(|port| {
            let mut ordered = Map::new();
            for key in ["name", "hostPort", "containerPort", "protocol", "hostIP"] {
                if let Some(value) = port.get(key) {
                    ordered.insert(key.into(), value.clone());
                }
            }
            Value::Object(ordered).to_string()
        })
        .collect();
    if ports.is_empty() {
        "[\n]".into()
    } else {
        format!("[\n    {}\n]", ports.join("\n    ,"))
    }
}

fn app_containers(pod: &Value) -> String {
    let names: Vec<&str> = containers(pod)
        .filter_map(|container| container["name"].as_str())
        .collect();
    names.join(",")
}

fn init_container(pod: &Value, injection: &Injection, resources: &Value) -> Value {
    let traffic = |key: &str, default: &str| {
        annotation(pod, &format!("traffic.sidecar.istio.io/{key}"))
            .unwrap_or(default)
            .to_owned()
    };
    let own = traffic("excludeInboundPorts", "");
    let excluded: Vec<&str> = ["15090", "15021"]
        .into_iter()
        .chain(
            own.split(',')
                .map(str::trim)
                .filter(|port| !port.is_empty()),
        )
        .chain(["15020"])
        .collect();
    let mut args = vec![
        "istio-iptables".to_owned(),
        "-p".into(),
        "15001".into(),
        "-z".into(),
        "15006".into(),
        "-u".into(),
        PROXY_UID.to_string(),
        "-m".into(),
        "REDIRECT".into(),
        "-i".into(),
        traffic("includeOutboundIPRanges", "*"),
        "-x".into(),
        traffic("excludeOutboundIPRanges", ""),
        "-b".into(),
        traffic("includeInboundPorts", "*"),
        "-d".into(),
        excluded.join(","),
    ];
    for (flag, key) in [
        ("-q", "includeOutboundPorts"),
        ("-o", "excludeOutboundPorts"),
        ("-k", "kubevirtInterfaces"),
        ("-c", "excludeInterfaces"),
    ] {
        let value = traffic(key, "");
        if !value.is_empty() {
            args.extend([flag.to_owned(), value]);
        }
    }
    args.push(agent_log_level(pod));
    json!({
        "args": args,
        "image": image(pod, injection),
        "name": INIT,
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
            "privileged": false,
            "readOnlyRootFilesystem": false,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "runAsUser": 0,
        },
    })
}

fn volumes() -> Vec<Value> {
    let item = |path: &str, field: &str| json!({"fieldRef": {"fieldPath": field}, "path": path});
    vec![
        json!({"name": "workload-socket", "emptyDir": {}}),
        json!({"name": "credential-socket", "emptyDir": {}}),
        json!({"name": "workload-certs", "emptyDir": {}}),
        json!({"name": "istio-envoy", "emptyDir": {"medium": "Memory"}}),
        json!({"name": "istio-data", "emptyDir": {}}),
        json!({"name": "istio-podinfo", "downwardAPI": {"items": [
            item("labels", "metadata.labels"), item("annotations", "metadata.annotations")]}}),
        json!({"name": "istio-token", "projected": {"sources": [{"serviceAccountToken": {
            "audience": "istio-ca", "expirationSeconds": 43200, "path": "istio-token"}}]}}),
        json!({"name": "istiod-ca-cert", "configMap": {"name": "istio-ca-root-cert"}}),
        json!({"name": "istio-ca-crl", "configMap": {"name": "istio-ca-crl", "optional": true}}),
    ]
}
