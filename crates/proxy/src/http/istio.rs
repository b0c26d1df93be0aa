//! Istio's own filters: the exchange of peer metadata and the standard metrics.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use parking_lot::RwLock;
use xds::Wire as _;
use xds::envoy::config::core::v3::Node;
use xds::prost_types::value::Kind;
use xds::prost_types::{Any, Struct, Value};

use crate::stats::{Counter, Histogram, Registry, labelled};

/// The header with the metadata of the peer.
pub const PEER_METADATA: &str = "x-envoy-peer-metadata";
/// The header with the node id of the peer.
pub const PEER_METADATA_ID: &str = "x-envoy-peer-metadata-id";

/// A workload as metrics know it. Unknown parts are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workload {
    /// Distinguishes workloads in caches.
    pub key: u64,
    /// `WORKLOAD_NAME`
    pub name: String,
    /// `NAMESPACE`
    pub namespace: String,
    /// Label `app`.
    pub app: String,
    /// Label `version`.
    pub version: String,
    /// Label `service.istio.io/canonical-name`.
    pub canonical_name: String,
    /// Label `service.istio.io/canonical-revision`.
    pub canonical_revision: String,
    /// `CLUSTER_ID`
    pub cluster: String,
}

static NEXT_KEY: AtomicU64 = AtomicU64::new(1);

impl Workload {
    fn from_struct(metadata: &Struct) -> Self {
        let text = |fields: &Struct, name: &str| match fields
            .fields
            .get(name)
            .and_then(|value| value.kind.as_ref())
        {
            Some(Kind::StringValue(text)) => text.clone(),
            _ => String::new(),
        };
        let empty = Struct::default();
        let labels = match metadata
            .fields
            .get("LABELS")
            .and_then(|value| value.kind.as_ref())
        {
            Some(Kind::StructValue(labels)) => labels,
            _ => &empty,
        };
        let first = |names: &[&str]| {
            names
                .iter()
                .map(|name| text(labels, name))
                .find(|value| !value.is_empty())
                .unwrap_or_default()
        };
        Self {
            key: NEXT_KEY.fetch_add(1, Ordering::Relaxed),
            name: text(metadata, "WORKLOAD_NAME"),
            namespace: text(metadata, "NAMESPACE"),
            app: first(&["app"]),
            version: first(&["version"]),
            canonical_name: first(&[
                "service.istio.io/canonical-name",
                "app.kubernetes.io/name",
                "app",
            ]),
            canonical_revision: first(&[
                "service.istio.io/canonical-revision",
                "app.kubernetes.io/version",
                "version",
            ]),
            cluster: text(metadata, "CLUSTER_ID"),
        }
    }

    /// From endpoint metadata `istio.workload`: `workload;ns;canonicalName;canonicalRevision;cluster`.
    pub fn from_endpoint(text: &str) -> Self {
        let mut parts = text.split(';').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Self {
            key: NEXT_KEY.fetch_add(1, Ordering::Relaxed),
            name: next(),
            namespace: next(),
            canonical_name: next(),
            canonical_revision: next(),
            cluster: next(),
            ..Self::default()
        }
    }
}

/// What this proxy tells about itself, and the peers it has met.
pub struct Identity {
    /// This workload.
    pub own: Arc<Workload>,
    /// The value of [`PEER_METADATA`].
    pub header: http::HeaderValue,
    /// The value of [`PEER_METADATA_ID`].
    pub id: http::HeaderValue,
    metadata: Vec<u8>,
    node_id: String,
    peers: RwLock<HashMap<String, Arc<Workload>>>,
    endpoints: RwLock<HashMap<String, Arc<Workload>>>,
}

/// The metadata that peers are told.
const SHARED: [&str; 11] = [
    "NAME",
    "NAMESPACE",
    "OWNER",
    "WORKLOAD_NAME",
    "PLATFORM_METADATA",
    "APP_CONTAINERS",
    "INSTANCE_IPS",
    "CLUSTER_ID",
    "MESH_ID",
    "SERVICE_ACCOUNT",
    "LABELS",
];
const SHARED_LABELS: [&str; 8] = [
    "app",
    "version",
    "app.kubernetes.io/name",
    "app.kubernetes.io/version",
    "service.istio.io/canonical-name",
    "service.istio.io/canonical-revision",
    "security.istio.io/tlsMode",
    "topology.istio.io/network",
];
/// How many peers are remembered.
const MAX_PEERS: usize = 1000;

impl Identity {
    /// From the node of the bootstrap.
    pub fn new(node: &Node) -> Self {
        let all = node.metadata.clone().unwrap_or_default();
        let mut shared = Struct::default();
        for name in SHARED {
            if let Some(value) = all.fields.get(name) {
                let value = match (&value.kind, name) {
                    (Some(Kind::StructValue(labels)), "LABELS") => {
                        let mut kept = labels.clone();
                        kept.fields
                            .retain(|label, _| SHARED_LABELS.contains(&label.as_str()));
                        Value {
                            kind: Some(Kind::StructValue(kept)),
                        }
                    }
                    _ => value.clone(),
                };
                shared.fields.insert(name.to_owned(), value);
            }
        }
        let metadata = shared.to_wire();
        let header = http::HeaderValue::from_str(&BASE64.encode(&metadata));
        Self {
            own: Arc::new(Workload::from_struct(&all)),
            header: header.unwrap_or(http::HeaderValue::from_static("")),
            id: http::HeaderValue::from_str(&node.id).unwrap_or(http::HeaderValue::from_static("")),
            metadata,
            node_id: node.id.clone(),
            peers: RwLock::default(),
            endpoints: RwLock::default(),
        }
    }

    /// The peer that sent these header values.
    pub fn peer(&self, id: &str, metadata: &[u8]) -> Option<Arc<Workload>> {
        if !id.is_empty()
            && let Some(known) = self.peers.read().get(id)
        {
            return Some(known.clone());
        }
        let bytes = BASE64.decode(metadata).ok()?;
        self.remember(id, &Struct::from_wire(&bytes).ok()?)
    }

    fn remember(&self, id: &str, metadata: &Struct) -> Option<Arc<Workload>> {
        let workload = Arc::new(Workload::from_struct(metadata));
        if !id.is_empty() {
            let mut peers = self.peers.write();
            if peers.len() >= MAX_PEERS {
                peers.clear();
            }
            peers.insert(id.to_owned(), workload.clone());
        }
        Some(workload)
    }

    /// The workload behind an endpoint, from its metadata.
    pub fn endpoint(&self, text: &str) -> Arc<Workload> {
        if let Some(known) = self.endpoints.read().get(text) {
            return known.clone();
        }
        let workload = Arc::new(Workload::from_endpoint(text));
        let mut endpoints = self.endpoints.write();
        if endpoints.len() >= MAX_PEERS {
            endpoints.clear();
        }
        endpoints.insert(text.to_owned(), workload.clone());
        workload
    }

    /// The preamble of the TCP exchange: magic, length, an `Any` of a struct with id and metadata.
    pub fn tcp_preamble(&self) -> Vec<u8> {
        let mut value = Struct::default();
        let own = Struct::from_wire(&self.metadata).unwrap_or_default();
        value.fields.insert(
            PEER_METADATA.into(),
            Value {
                kind: Some(Kind::StructValue(own)),
            },
        );
        value.fields.insert(
            PEER_METADATA_ID.into(),
            Value {
                kind: Some(Kind::StringValue(self.node_id.clone())),
            },
        );
        let any = Any {
            type_url: "type.googleapis.com/google.protobuf.Struct".into(),
            value: value.to_wire(),
        };
        let body = any.to_wire();
        let mut out = Vec::with_capacity(8 + body.len());
        out.extend_from_slice(&TCP_MAGIC.to_be_bytes());
        out.extend_from_slice(&(body.len() as u32).to_be_bytes());
        out.extend_from_slice(&body);
        out
    }

    /// Reads the body of a preamble.
    pub fn tcp_peer(&self, body: &[u8]) -> Option<Arc<Workload>> {
        let any = Any::from_wire(body).ok()?;
        let value = Struct::from_wire(&any.value).ok()?;
        let id = match value.fields.get(PEER_METADATA_ID)?.kind.as_ref()? {
            Kind::StringValue(id) => id.clone(),
            _ => String::new(),
        };
        match value.fields.get(PEER_METADATA)?.kind.as_ref()? {
            Kind::StructValue(metadata) => self.remember(&id, metadata),
            _ => None,
        }
    }
}

/// What the preamble of the TCP exchange begins with.
pub const TCP_MAGIC: u32 = 0x3D23_0467;

/// The settings of `istio.stats`.
#[derive(Debug, Clone)]
pub struct StatsConfig {
    /// Unknown destinations are named by the host header.
    pub host_fallback: bool,
    /// Reports as the source of requests, else as their destination.
    pub source: bool,
}

impl StatsConfig {
    /// Compiles the message.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn compile(any: &Any, direction: i32) -> Result<Self, String> {
        let config =
            xds::stats::PluginConfig::from_wire(&any.value).map_err(|error| error.to_string())?;
        if !config.metrics.is_empty() || !config.definitions.is_empty() {
            tracing::warn!(
                "istio.stats: metrics and definitions are not supported; the standard metrics are reported"
            );
        }
        Ok(Self {
            host_fallback: !config.disable_host_header_fallback,
            source: direction != 1,
        })
    }
}

/// What decides about the labels of a request.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// Reporter `source`.
    pub source: bool,
    /// This workload.
    pub own: &'a Workload,
    /// The other side, if known.
    pub peer: Option<&'a Workload>,
    /// The principal of this side's certificate.
    pub own_principal: &'a str,
    /// The principal of the peer's certificate.
    pub peer_principal: &'a str,
    /// The service: host, name, namespace.
    pub service: (&'a str, &'a str, &'a str),
    /// `http`, `grpc` or `tcp`.
    pub protocol: &'a str,
    /// The status; `None` for TCP.
    pub code: Option<u16>,
    /// The gRPC status.
    pub grpc_status: &'a str,
    /// The flags.
    pub flags: &'a str,
    /// The connection is mutual TLS.
    pub mutual_tls: bool,
}

fn known(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}

fn revision(text: &str) -> &str {
    if text.is_empty() { "latest" } else { text }
}

/// The labels of a series, in Istio's order.
pub fn labels(facts: &Facts<'_>) -> String {
    let unknown = Workload::default();
    let peer = facts.peer.unwrap_or(&unknown);
    let (source, destination) = if facts.source {
        (facts.own, peer)
    } else {
        (peer, facts.own)
    };
    let (source_principal, destination_principal) = if facts.source {
        (facts.own_principal, facts.peer_principal)
    } else {
        (facts.peer_principal, facts.own_principal)
    };
    // Of an unknown peer nothing is known, not even that its revision is the latest.
    let peer_revision = |workload: &'_ Workload, is_peer: bool| -> String {
        if is_peer && facts.peer.is_none() {
            "unknown".to_owned()
        } else {
            revision(&workload.canonical_revision).to_owned()
        }
    };
    let source_revision = peer_revision(source, !facts.source);
    let destination_revision = peer_revision(destination, facts.source);
    let code = facts.code.map(|code| code.to_string()).unwrap_or_default();
    let mut pairs = vec![
        (
            "reporter",
            if facts.source {
                "source"
            } else {
                "destination"
            },
        ),
        ("source_workload", known(&source.name)),
        ("source_canonical_service", known(&source.canonical_name)),
        ("source_canonical_revision", source_revision.as_str()),
        ("source_workload_namespace", known(&source.namespace)),
        ("source_principal", known(source_principal)),
        ("source_app", known(&source.app)),
        ("source_version", known(&source.version)),
        ("source_cluster", known(&source.cluster)),
        ("destination_workload", known(&destination.name)),
        (
            "destination_workload_namespace",
            known(&destination.namespace),
        ),
        ("destination_principal", known(destination_principal)),
        ("destination_app", known(&destination.app)),
        ("destination_version", known(&destination.version)),
        ("destination_service", known(facts.service.0)),
        (
            "destination_canonical_service",
            known(&destination.canonical_name),
        ),
        (
            "destination_canonical_revision",
            destination_revision.as_str(),
        ),
        ("destination_service_name", known(facts.service.1)),
        ("destination_service_namespace", known(facts.service.2)),
        ("destination_cluster", known(&destination.cluster)),
        ("request_protocol", facts.protocol),
    ];
    if facts.code.is_some() {
        pairs.push(("response_code", &code));
        pairs.push(("grpc_response_status", facts.grpc_status));
    }
    pairs.push(("response_flags", facts.flags));
    pairs.push((
        "connection_security_policy",
        match (facts.source, facts.mutual_tls) {
            (true, _) => "unknown",
            (false, true) => "mutual_tls",
            (false, false) => "none",
        },
    ));
    labelled::labels(pairs)
}

/// The series of one kind of request.
pub struct HttpSeries {
    /// `istio_requests_total`
    pub requests: Arc<Counter>,
    /// `istio_request_duration_milliseconds`
    pub duration: Arc<Histogram>,
    /// `istio_request_bytes`
    pub request_bytes: Arc<Histogram>,
    /// `istio_response_bytes`
    pub response_bytes: Arc<Histogram>,
}

impl HttpSeries {
    /// Looks the series up.
    pub fn new(stats: &Registry, labels: &str) -> Self {
        Self {
            requests: stats.labelled.counter("istio_requests_total", labels),
            duration: stats
                .labelled
                .histogram("istio_request_duration_milliseconds", labels),
            request_bytes: stats.labelled.histogram("istio_request_bytes", labels),
            response_bytes: stats.labelled.histogram("istio_response_bytes", labels),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        let json = serde_json::json!({
            "id": "sidecar~10.0.0.1~a.b~b.svc.cluster.local",
            "metadata": {"WORKLOAD_NAME": "user", "NAMESPACE": "shop", "CLUSTER_ID": "ctx1",
                "LABELS": {"app": "user", "version": "v1", "secret": "x"}}
        });
        xds::json::from_value(json, true).unwrap()
    }

    #[test]
    fn a_peer_is_what_it_says() {
        let identity = Identity::new(&node());
        let peer = identity.peer("other", identity.header.as_bytes()).unwrap();
        assert_eq!(
            (peer.name.as_str(), peer.app.as_str(), peer.version.as_str()),
            ("user", "user", "v1")
        );
        let preamble = identity.tcp_preamble();
        assert_eq!(preamble[..4], TCP_MAGIC.to_be_bytes());
        assert_eq!(identity.tcp_peer(&preamble[8..]).unwrap().name, "user");
    }

    #[test]
    fn only_known_labels_are_told() {
        let identity = Identity::new(&node());
        let told = Struct::from_wire(&identity.metadata).unwrap();
        let Some(Kind::StructValue(labels)) = &told.fields["LABELS"].kind else {
            panic!("labels")
        };
        assert!(!labels.fields.contains_key("secret"));
    }
}
