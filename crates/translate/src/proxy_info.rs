//! A proxy as it introduces itself: node id, metadata and locality of its discovery requests.

use crate::registry::kubernetes::Pod;
use crate::{Locality, objects::Labels};
use api::istio::MeshProxyConfig;
use serde_json::Value;
use std::borrow::Cow;
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
        let mut labels = label_map(metadata, "LABELS");
        let locality = match labels.get("istio-locality").filter(|text| !text.is_empty()) {
            Some(text) => Locality::parse(&text.replace('.', "/")),
            None => locality,
        };
        let view = text("REQUESTED_NETWORK_VIEW");
        let (cluster, network, node_name) =
            (text("CLUSTER_ID"), text("NETWORK"), text("NODE_NAME"));
        let place = Place {
            locality: &locality,
            cluster: &cluster,
            network: &network,
            node_name: &node_name,
        };
        place.add_to(&mut labels);
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
            dns_capture: switch(metadata, "DNS_CAPTURE"),
            unprivileged: switch(metadata, "UNPRIVILEGED_POD"),
            http10: text("HTTP10") == "1",
            idle_timeout: text("IDLE_TIMEOUT").parse().ok(),
            proxy_config: metadata
                .get("PROXY_CONFIG")
                .and_then(|config| serde_json::from_value(config.clone()).ok()),
            version: text("ISTIO_VERSION"),
            plain_envoy: switch(metadata, "THEATER_PLAIN_ENVOY"),
            metadata: metadata.clone(),
        })
    }

    /// The same proxy with the labels that its pod has by now: rules choose by those, not by the labels of its start. Labels that only the
    /// proxy has (`STATIC_LABELS`) stay.
    pub(crate) fn with_labels_of(&self, pod: Option<&Pod>) -> Cow<'_, Self> {
        let Some(pod) = pod.filter(|pod| pod.namespace == self.namespace) else {
            return Cow::Borrowed(self);
        };
        let mut labels = label_map(&self.metadata, "STATIC_LABELS");
        labels.extend(pod.labels.iter().map(|(k, v)| (k.clone(), v.clone())));
        let place = Place {
            locality: &self.locality,
            cluster: &self.cluster,
            network: &self.network,
            node_name: &self.node_name,
        };
        place.add_to(&mut labels);
        if labels == self.labels {
            return Cow::Borrowed(self);
        }
        Cow::Owned(Self {
            labels,
            ..self.clone()
        })
    }

    /// A switch of the metadata.
    pub(crate) fn switch(&self, key: &str) -> bool {
        switch(&self.metadata, key)
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

    /// Whether one of its addresses is of the kind (IPv4 or IPv6) of this one, which may be a range.
    pub(crate) fn speaks(&self, address: &str) -> bool {
        let six = |address: &str| address.contains(':');
        self.addresses.iter().any(|own| six(own) == six(address))
    }

    /// Labels that locality load balancing compares with those of endpoints.
    pub(crate) fn label(&self, key: &str) -> &str {
        self.labels.get(key).map(String::as_str).unwrap_or_default()
    }
}

/// Where a proxy is. That counts like labels of its pod, also where rules choose by labels.
struct Place<'a> {
    locality: &'a Locality,
    cluster: &'a str,
    network: &'a str,
    node_name: &'a str,
}

impl Place<'_> {
    fn add_to(&self, labels: &mut Labels) {
        for (key, value) in [
            (
                "topology.kubernetes.io/region",
                self.locality.region.as_str(),
            ),
            ("topology.kubernetes.io/zone", &self.locality.zone),
            ("topology.istio.io/subzone", &self.locality.subzone),
            ("topology.istio.io/cluster", self.cluster),
            ("kubernetes.io/hostname", self.node_name),
        ] {
            if !value.is_empty() {
                labels.insert(key.to_owned(), value.to_owned());
            }
        }
        if !self.network.is_empty() {
            let own = labels.entry("topology.istio.io/network".to_owned());
            let own = own.or_default();
            if own.is_empty() {
                self.network.clone_into(own);
            }
        }
    }
}

fn label_map(metadata: &Value, key: &str) -> Labels {
    let labels = metadata.get(key).and_then(Value::as_object);
    labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn switch(metadata: &Value, key: &str) -> bool {
    match metadata.get(key) {
        Some(Value::Bool(on)) => *on,
        Some(Value::String(text)) => matches!(text.as_str(), "true" | "1" | "TRUE" | "True"),
        _ => false,
    }
}
