//! A proxy as it introduces itself: node id, metadata and locality of its discovery requests.

use crate::{Locality, objects::Labels};
use api::istio::MeshProxyConfig;
use serde_json::Value;
use std::collections::BTreeSet;

/// What kind of proxy this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyType {
    /// Beside an application.
    Sidecar,
    /// A gateway.
    Router,
}

/// How traffic gets to a sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Interception {
    /// By redirection of connections.
    #[default]
    Redirect,
    /// Transparently.
    Tproxy,
    /// Not at all; the application has to send it there.
    None,
}

/// A proxy as it introduces itself.
#[derive(Debug, Clone)]
pub struct ProxyInfo {
    /// The whole node id.
    pub id: String,
    /// What kind of proxy it is.
    pub kind: ProxyType,
    /// Its addresses, the first is the main one.
    pub addresses: Vec<String>,
    /// Name of the pod.
    pub name: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Domain of its service names, such as `shop.svc.cluster.local`.
    pub dns_domain: String,
    /// Cluster it runs in.
    pub cluster: String,
    /// Network it is in.
    pub network: String,
    /// Networks whose endpoints it wants; empty means all.
    pub network_view: BTreeSet<String>,
    /// Labels of the pod.
    pub labels: Labels,
    /// Mesh id for traces.
    pub mesh_id: String,
    /// Name of the node it runs on.
    pub node_name: String,
    /// Service account.
    pub service_account: String,
    /// Name of the workload.
    pub workload: String,
    /// Where it runs.
    pub locality: Locality,
    /// How traffic gets to it.
    pub interception: Interception,
    /// Whether it resolves names for the application.
    pub dns_capture: bool,
    /// Whether it may not bind ports below 1024.
    pub unprivileged: bool,
    /// Whether it takes HTTP/1.0 requests.
    pub http10: bool,
    /// Idle timeout of outbound connections, from its environment.
    pub idle_timeout: Option<api::istio::Duration>,
    /// Settings of its own, instead of those of the mesh.
    pub proxy_config: Option<MeshProxyConfig>,
    /// Version of the proxy.
    pub version: String,
    /// Whether filters that only Istio's build has have to be left out (metadata `THEATER_PLAIN_ENVOY`).
    pub plain_envoy: bool,
    /// The whole metadata.
    pub metadata: Value,
}

/// Why a node is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// The id has another form.
    #[error("node id {0:?} is not type~address~pod.namespace~domain")]
    Id(String),
    /// The type is unknown.
    #[error("node type {0:?} is neither sidecar nor router")]
    Type(String),
    /// There is no address.
    #[error("node {0:?} has no valid IP address")]
    Address(String),
}

impl ProxyInfo {
    /// From the node of a discovery request. `metadata` is the JSON object of `node.metadata`.
    pub fn from_node(id: &str, metadata: &Value, locality: Locality) -> Result<Self, NodeError> {
        let parts: Vec<&str> = id.split('~').collect();
        let [kind, address, pod, domain] = parts[..] else {
            return Err(NodeError::Id(id.to_owned()));
        };
        let kind = match kind {
            "sidecar" => ProxyType::Sidecar,
            "router" => ProxyType::Router,
            other => return Err(NodeError::Type(other.to_owned())),
        };
        let text = |key: &str| {
            metadata
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let flag = |key: &str| match metadata.get(key) {
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(text)) => matches!(text.as_str(), "true" | "1" | "TRUE" | "True"),
            _ => false,
        };
        let list = text("INSTANCE_IPS");
        let mut addresses: Vec<String> = list
            .split(',')
            .filter(|ip| crate::host::is_ip(ip))
            .map(str::to_owned)
            .collect();
        if crate::host::is_ip(address) && !addresses.iter().any(|ip| ip == address) {
            addresses.insert(0, address.to_owned());
        }
        if addresses.is_empty() {
            return Err(NodeError::Address(id.to_owned()));
        }
        let mut namespace = text("NAMESPACE");
        if namespace.is_empty() {
            namespace = pod
                .split_once('.')
                .map(|(_, namespace)| namespace.to_owned())
                .unwrap_or_default();
        }
        let mut name = text("NAME");
        if name.is_empty() {
            name = pod.split('.').next().unwrap_or_default().to_owned();
        }
        let labels: Labels = metadata
            .get("LABELS")
            .and_then(Value::as_object)
            .map(|map| {
                map.iter()
                    .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                    .collect()
            })
            .unwrap_or_default();
        let locality = match labels.get("istio-locality").filter(|text| !text.is_empty()) {
            Some(text) => Locality::parse(&text.replace('.', "/")),
            None => locality,
        };
        let view = text("REQUESTED_NETWORK_VIEW");
        let (cluster, network, node_name) =
            (text("CLUSTER_ID"), text("NETWORK"), text("NODE_NAME"));
        // What the topology says counts like labels of the pod, also where rules choose by labels.
        let mut labels = labels;
        for (key, value) in [
            ("topology.kubernetes.io/region", &locality.region),
            ("topology.kubernetes.io/zone", &locality.zone),
            ("topology.istio.io/subzone", &locality.subzone),
            ("topology.istio.io/cluster", &cluster),
            ("kubernetes.io/hostname", &node_name),
        ] {
            if !value.is_empty() {
                labels.insert(key.to_owned(), value.clone());
            }
        }
        if !network.is_empty() {
            let own = labels.entry("topology.istio.io/network".to_owned());
            let own = own.or_default();
            if own.is_empty() {
                own.clone_from(&network);
            }
        }
        Ok(Self {
            id: id.to_owned(),
            kind,
            addresses,
            name,
            namespace,
            dns_domain: domain.to_owned(),
            cluster,
            network,
            network_view: view
                .split(',')
                .filter(|network| !network.is_empty())
                .map(str::to_owned)
                .collect(),
            labels,
            mesh_id: text("MESH_ID"),
            node_name,
            service_account: text("SERVICE_ACCOUNT"),
            workload: text("WORKLOAD_NAME"),
            locality,
            interception: match text("INTERCEPTION_MODE").as_str() {
                "TPROXY" => Interception::Tproxy,
                "NONE" => Interception::None,
                _ => Interception::Redirect,
            },
            dns_capture: flag("DNS_CAPTURE"),
            unprivileged: flag("UNPRIVILEGED_POD"),
            http10: text("HTTP10") == "1",
            idle_timeout: text("IDLE_TIMEOUT").parse().ok(),
            proxy_config: metadata
                .get("PROXY_CONFIG")
                .and_then(|config| serde_json::from_value(config.clone()).ok()),
            version: text("ISTIO_VERSION"),
            plain_envoy: flag("THEATER_PLAIN_ENVOY"),
            metadata: metadata.clone(),
        })
    }

    /// A text of the metadata.
    pub(crate) fn metadata_text(&self, key: &str) -> &str {
        let value = self.metadata.get(key).and_then(Value::as_str);
        value.unwrap_or_default()
    }

    /// Whether this is a gateway.
    pub fn is_router(&self) -> bool {
        self.kind == ProxyType::Router
    }

    /// The first address.
    pub fn ip(&self) -> &str {
        &self.addresses[0]
    }

    /// Labels that locality load balancing compares with those of endpoints.
    pub(crate) fn label(&self, key: &str) -> &str {
        self.labels.get(key).map(String::as_str).unwrap_or_default()
    }
}
