//! A cluster that was never started. What controllers, node and injector would have made is made here:
//!
//! - A Deployment, StatefulSet, DaemonSet or ReplicaSet has its pods (`spec.replicas`, else one), named `WORKLOAD-1`,
//!   `WORKLOAD-2`, ...; pods that are in the files stay as they are.
//! - Pods run and are ready; those without an address get one of 10.244.0.0/16, in order. A Node is made when there is none.
//! - Pods get a sidecar if their namespace is labelled for it, or if no Namespace object says anything, unless they opt out.
//! - Services without an address get one of 10.96.0.0/16. Their EndpointSlices are made from the pods they select, unless the
//!   files have some.
//! - Everything else of the mesh is what ConfigMap `istio-system/istio` says, if there is one.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use controllers::action::Verb;
use controllers::endpoints::{Observed, reconcile};
use istiod::webhook::inject::{Injection, inject, skip};
use serde_json::{Value, json};
use translate::{ClusterObjects, Locality, ProxyInfo, SnapshotInput};

use super::{named, split};

const POD_NETWORK: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 0);
const SERVICE_NETWORK: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 0);
const NODE: &str = "node-1";
const WORKLOADS: [&str; 4] = ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"];
const CLUSTER_WIDE: [&str; 2] = ["Namespace", "Node"];
const ISTIO_GROUPS: [&str; 4] = [
    "networking.istio.io/",
    "security.istio.io/",
    "telemetry.istio.io/",
    "extensions.istio.io/",
];

/// Everything, as if it had been running.
#[derive(Debug)]
pub(super) struct Scene {
    cluster: String,
    kubernetes: Vec<Value>,
    config: Vec<Value>,
    mesh: api::istio::MeshConfig,
    networks: api::istio::MeshNetworks,
    /// The workload each made pod belongs to, by `NAME.NAMESPACE` of the pod.
    workloads: BTreeMap<String, String>,
}

impl Scene {
    /// Completes objects from files; `namespace` is that of objects that name none.
    pub(super) fn build(objects: Vec<Value>, namespace: &str, cluster: &str) -> Result<Self> {
        let mut scene = Self {
            cluster: cluster.to_owned(),
            kubernetes: Vec::new(),
            config: Vec::new(),
            mesh: Default::default(),
            networks: Default::default(),
            workloads: BTreeMap::new(),
        };
        let (mut pods, mut workloads, mut services) = (Vec::new(), Vec::new(), Vec::new());
        for mut object in objects {
            let kind = object["kind"].as_str().unwrap_or_default().to_owned();
            if !object["metadata"].is_object() {
                bail!("an object of kind {kind:?} has no metadata with a name");
            }
            if !CLUSTER_WIDE.contains(&kind.as_str()) && api::meta::namespace(&object).is_empty() {
                object["metadata"]["namespace"] = namespace.into();
            }
            let group = object["apiVersion"].as_str().unwrap_or_default();
            if ISTIO_GROUPS.iter().any(|known| group.starts_with(known)) {
                // In the order of the files, as if applied one second after the other.
                let second = scene.config.len();
                let age = format!(
                    "2024-01-01T{:02}:{:02}:{:02}Z",
                    second / 3600 % 24,
                    second / 60 % 60,
                    second % 60
                );
                let created = &mut object["metadata"]["creationTimestamp"];
                if created.is_null() {
                    *created = age.into();
                }
                scene.config.push(object);
                continue;
            }
            match kind.as_str() {
                "Pod" => pods.push(object),
                "Service" => services.push(object),
                "Namespace" | "Node" | "EndpointSlice" => scene.kubernetes.push(object),
                "ConfigMap" if api::meta::name(&object) == "istio" => scene.read_mesh(&object)?,
                kind if WORKLOADS.contains(&kind) => workloads.push(object),
                _ => {}
            }
        }
        for workload in &workloads {
            scene.pods_of(workload, &mut pods)?;
        }
        if !scene
            .kubernetes
            .iter()
            .any(|object| object["kind"] == "Node")
        {
            scene
                .kubernetes
                .push(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}));
        }
        let mut addresses = Addresses::new(POD_NETWORK, &pods, "/status/podIP");
        for pod in &mut pods {
            *pod = scene.sidecar(pod);
            complete_pod(pod, &mut addresses);
        }
        let mut addresses = Addresses::new(SERVICE_NETWORK, &services, "/spec/clusterIP");
        for service in &mut services {
            complete_service(service, &mut addresses);
        }
        scene.endpoint_slices(&services, &pods);
        scene.kubernetes.extend(services);
        scene.kubernetes.extend(pods);
        Ok(scene)
    }

    fn read_mesh(&mut self, map: &Value) -> Result<()> {
        let text = |key: &str| {
            map["data"][key]
                .as_str()
                .filter(|text| !text.trim().is_empty())
        };
        if let Some(text) = text("mesh") {
            self.mesh =
                yaml_serde::from_str(text).with_context(|| format!("{}: mesh", named(map)))?;
        }
        if let Some(text) = text("meshNetworks") {
            self.networks = yaml_serde::from_str(text)
                .with_context(|| format!("{}: meshNetworks", named(map)))?;
        }
        Ok(())
    }

    fn pods_of(&mut self, workload: &Value, pods: &mut Vec<Value>) -> Result<()> {
        let (name, namespace) = (api::meta::name(workload), api::meta::namespace(workload));
        let template = &workload["spec"]["template"];
        if !template["spec"]["containers"].is_array() {
            bail!(
                "{}: spec.template.spec.containers is missing",
                named(workload)
            );
        }
        let count = match workload["kind"] == "DaemonSet" {
            true => 1,
            false => workload["spec"]["replicas"].as_u64().unwrap_or(1),
        };
        for number in 1..=count {
            let mut pod = template.clone();
            pod["apiVersion"] = "v1".into();
            pod["kind"] = "Pod".into();
            if !pod["metadata"].is_object() {
                pod["metadata"] = json!({});
            }
            let pod_name = format!("{name}-{number}");
            pod["metadata"]["name"] = pod_name.clone().into();
            pod["metadata"]["namespace"] = namespace.into();
            pod["metadata"]["ownerReferences"] = json!([{"apiVersion": workload["apiVersion"], "kind": workload["kind"],
                "name": name, "controller": true}]);
            self.workloads
                .insert(format!("{pod_name}.{namespace}"), name.to_owned());
            pods.push(pod);
        }
        Ok(())
    }

    /// The pod with a sidecar, if it gets one.
    fn sidecar(&self, pod: &Value) -> Value {
        let namespace = api::meta::namespace(pod);
        let object = self
            .kubernetes
            .iter()
            .find(|object| object["kind"] == "Namespace" && api::meta::name(object) == namespace);
        let wanted = object.is_none_or(|object| {
            let labels = &object["metadata"]["labels"];
            labels["istio-injection"] == "enabled" || labels["istio.io/rev"].is_string()
        });
        if !wanted || skip(pod, namespace).is_some() {
            return pod.clone();
        }
        let injection = Injection {
            image: "istio/proxyv2".to_owned(),
            cluster: Some(self.cluster.clone()),
            network: None,
            mesh_id: self.mesh.trust_domain().to_owned(),
            trust_domain: self.mesh.trust_domain().to_owned(),
            revision: "default".to_owned(),
        };
        inject(pod, namespace, &injection)
    }

    fn endpoint_slices(&mut self, services: &[Value], pods: &[Value]) {
        let pods: Vec<Arc<Value>> = pods.iter().cloned().map(Arc::new).collect();
        for service in services {
            let (name, namespace) = (api::meta::name(service), api::meta::namespace(service));
            let given = self.kubernetes.iter().any(|object| {
                object["kind"] == "EndpointSlice"
                    && api::meta::namespace(object) == namespace
                    && object["metadata"]["labels"]["kubernetes.io/service-name"] == name
            });
            if given || !service["spec"]["selector"].is_object() {
                continue;
            }
            let actions = reconcile(&Observed {
                service: Some(Arc::new(service.clone())),
                pods: pods
                    .iter()
                    .filter(|pod| api::meta::namespace(pod) == namespace)
                    .cloned()
                    .collect(),
                endpoints: None,
                slices: Vec::new(),
                zones: BTreeMap::new(),
            });
            for (number, action) in actions.into_iter().enumerate() {
                if let Verb::Create(mut slice) = action.verb
                    && slice["kind"] == "EndpointSlice"
                {
                    slice["metadata"]["name"] = format!("{name}-{number}").into();
                    slice["metadata"]["namespace"] = namespace.into();
                    self.kubernetes.push(slice);
                }
            }
        }
    }

    /// The proxy of a pod, or of the first pod of a workload, named `NAME.NAMESPACE`.
    pub(super) fn proxy(&self, text: &str) -> Result<ProxyInfo> {
        let (name, namespace) = split(text)?;
        let pods = || {
            self.kubernetes.iter().filter(|object| {
                object["kind"] == "Pod" && api::meta::namespace(object) == namespace
            })
        };
        let workload_of = |pod: &Value| {
            self.workloads
                .get(&format!("{}.{namespace}", api::meta::name(pod)))
        };
        let found = pods().find(|pod| api::meta::name(pod) == name).or_else(|| {
            pods().find(|pod| workload_of(pod).is_some_and(|workload| workload == name))
        });
        let Some(pod) = found else {
            let known: Vec<&str> = pods().map(api::meta::name).collect();
            bail!(
                "there is no pod or workload {name:?} in namespace {namespace:?}; pods there: {}",
                if known.is_empty() {
                    "none".to_owned()
                } else {
                    known.join(", ")
                }
            );
        };
        let labels = &pod["metadata"]["labels"];
        let containers = pod["spec"]["containers"].as_array();
        let proxy = containers
            .into_iter()
            .flatten()
            .chain(
                pod["spec"]["initContainers"]
                    .as_array()
                    .into_iter()
                    .flatten(),
            )
            .find(|container| container["name"] == "istio-proxy");
        let Some(proxy) = proxy else {
            bail!(
                "{} has no sidecar: its namespace is not labelled istio-injection=enabled, or the pod opts out",
                named(pod)
            );
        };
        let router = proxy["args"]
            .as_array()
            .is_some_and(|args| args.iter().any(|arg| arg == "router"));
        let ip = pod["status"]["podIP"].as_str().unwrap_or_default();
        let kind = if router { "router" } else { "sidecar" };
        let pod_name = api::meta::name(pod);
        let id = format!("{kind}~{ip}~{pod_name}.{namespace}~{namespace}.svc.cluster.local");
        let service_account = pod["spec"]["serviceAccountName"]
            .as_str()
            .unwrap_or("default");
        let metadata = json!({
            "ANNOTATIONS": pod["metadata"]["annotations"],
            "CLUSTER_ID": self.cluster,
            "INSTANCE_IPS": ip,
            "INTERCEPTION_MODE": "REDIRECT",
            "ISTIO_VERSION": istiod::ISTIO_VERSION,
            "LABELS": labels,
            "MESH_ID": self.mesh.trust_domain(),
            "NAME": pod_name,
            "NAMESPACE": namespace,
            "NODE_NAME": pod["spec"]["nodeName"],
            "PROXY_CONFIG": {},
            "SERVICE_ACCOUNT": service_account,
            "WORKLOAD_NAME": workload_of(pod).map_or(pod_name, String::as_str),
        });
        Ok(ProxyInfo::from_node(&id, &metadata, Locality::default())?)
    }

    pub(super) fn into_input(self) -> SnapshotInput {
        let shared = |objects: Vec<Value>| objects.into_iter().map(Arc::new).collect();
        SnapshotInput {
            config_cluster: self.cluster.clone(),
            clusters: vec![ClusterObjects {
                id: self.cluster,
                network: None,
                objects: shared(self.kubernetes),
            }],
            config: shared(self.config),
            mesh: self.mesh,
            networks: self.networks,
            ..SnapshotInput::default()
        }
    }
}

/// Hands out addresses of a network that no object has.
struct Addresses {
    next: Ipv4Addr,
    taken: Vec<String>,
}

impl Addresses {
    fn new(network: Ipv4Addr, objects: &[Value], field: &str) -> Self {
        let taken = objects
            .iter()
            .filter_map(|object| Some(object.pointer(field)?.as_str()?.to_owned()))
            .collect();
        Self {
            next: network,
            taken,
        }
    }

    fn next(&mut self) -> String {
        loop {
            self.next = Ipv4Addr::from_bits(self.next.to_bits() + 1);
            let address = self.next.to_string();
            if !self.taken.contains(&address) {
                return address;
            }
        }
    }
}

fn complete_pod(pod: &mut Value, addresses: &mut Addresses) {
    let address = match pod["status"]["podIP"].as_str() {
        Some(address) => address.to_owned(),
        None => addresses.next(),
    };
    let names: Vec<Value> = pod["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(
            |container| json!({"name": container["name"], "ready": true, "state": {"running": {}}}),
        )
        .collect();
    if pod["spec"]["nodeName"].is_null() {
        pod["spec"]["nodeName"] = NODE.into();
    }
    if pod["status"]["phase"].is_null() {
        pod["status"] = json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": names});
    }
}

fn complete_service(service: &mut Value, addresses: &mut Addresses) {
    if service["spec"]["type"] == "ExternalName" {
        return;
    }
    if service["spec"]["type"].is_null() {
        service["spec"]["type"] = "ClusterIP".into();
    }
    if service["spec"]["clusterIP"]
        .as_str()
        .is_none_or(str::is_empty)
    {
        service["spec"]["clusterIP"] = addresses.next().into();
    }
    if service["spec"]["clusterIPs"].is_null() {
        service["spec"]["clusterIPs"] = json!([service["spec"]["clusterIP"]]);
    }
    for port in service["spec"]["ports"]
        .as_array_mut()
        .into_iter()
        .flatten()
    {
        if port["protocol"].is_null() {
            port["protocol"] = "TCP".into();
        }
        if port["targetPort"].is_null() {
            port["targetPort"] = port["port"].clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(text: &str) -> Vec<Value> {
        text.split("\n---\n")
            .map(|text| yaml_serde::from_str(text).unwrap())
            .collect()
    }

    const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: basket, namespace: shop}
spec: {selector: {app: basket}, ports: [{name: http, port: 80, targetPort: web}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: basket, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: basket}}
  template:
    metadata: {labels: {app: basket, version: v1}}
    spec: {containers: [{name: app, image: a, ports: [{name: web, containerPort: 8080}]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: basket, namespace: shop}
spec: {host: basket, subsets: [{name: v1, labels: {version: v1}}]}
";

    #[test]
    fn deployments_become_endpoints_and_rules_reach_the_proxy() {
        let scene = Scene::build(objects(SHOP), "default", "Kubernetes").unwrap();
        let proxy = scene.proxy("basket.shop").unwrap();
        assert_eq!(
            proxy.id,
            "sidecar~10.244.0.1~basket-1.shop~shop.svc.cluster.local"
        );
        let snapshot = translate::Snapshot::from_objects(scene.into_input());
        let output = translate::build(&snapshot, &proxy);
        assert_eq!(output.problems, []);
        let endpoints = &output.endpoints["outbound|80|v1|basket.shop.svc.cluster.local"];
        let text = format!("{endpoints:?}");
        for address in ["10.244.0.1", "10.244.0.2"] {
            assert!(text.contains(address), "{address} is missing in {text}");
        }
        assert!(text.contains("8080"), "{text}");
        assert!(output.listeners.contains_key("virtualInbound"));
    }

    #[test]
    fn unknown_pods_and_pods_without_sidecar_are_told() {
        let scene = Scene::build(objects(SHOP), "default", "Kubernetes").unwrap();
        let error = scene.proxy("nobody.shop").unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no pod or workload \"nobody\" in namespace \"shop\"; pods there: basket-1, basket-2"
        );
        let plain =
            format!("{SHOP}---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n");
        let scene = Scene::build(objects(&plain), "default", "Kubernetes").unwrap();
        let error = scene.proxy("basket-1.shop").unwrap_err().to_string();
        assert!(
            error.starts_with("Pod shop/basket-1 has no sidecar"),
            "{error}"
        );
    }
}
