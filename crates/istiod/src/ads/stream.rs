//! The gRPC shell around [`Session`]: authentication, and both variants of the protocol on the wire.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response as GrpcResponse, Status, Streaming};
use translate::{Locality, ProxyInfo};
use xds::envoy::config::core::v3::{ControlPlane, Node};
use xds::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryService;
use xds::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use xds::prost_types::value::Kind;
use xds::prost_types::{Any, Value as ProtoValue};

use super::session::{Response, Session, TypeStatus, Variant, World};
use super::subscription::{Ask, Update};
use crate::authenticate::Authenticator;
use crate::{ISTIO_VERSION, status};

/// The nonce of answers to tools.
const STATUS_NONCE: &str = "status";

/// Responses that wait for a slow proxy before its stream is held up.
const QUEUE: usize = 16;

/// The connected proxies, for the debug endpoints.
#[derive(Debug, Default)]
pub struct Connections {
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, ConnectionStatus>>,
}

/// One connected proxy.
#[derive(Debug, Clone)]
pub struct ConnectionStatus {
    /// The node id it gave.
    pub node: String,
    /// Its cluster.
    pub cluster: String,
    /// Its version.
    pub version: String,
    /// How far it is with each type.
    pub types: Vec<TypeStatus>,
    /// When something of a type was last sent.
    pub sent_at: BTreeMap<String, SystemTime>,
    /// The proxy as it introduced itself.
    pub proxy: Arc<ProxyInfo>,
}

impl Connections {
    /// All connected proxies, in the order in which they came.
    pub fn list(&self) -> Vec<ConnectionStatus> {
        self.open.lock().values().cloned().collect()
    }

    fn enter(self: &Arc<Self>) -> Entry {
        Entry {
            connections: self.clone(),
            id: self.next.fetch_add(1, Ordering::Relaxed),
        }
    }
}

/// A connection's place in the list, given up when the stream ends.
struct Entry {
    connections: Arc<Connections>,
    id: u64,
}

impl Entry {
    fn update<W: World>(&self, session: &Session<W>) {
        let (proxy, types) = (session.proxy(), session.status());
        let mut open = self.connections.open.lock();
        let before = open.get(&self.id);
        let now = SystemTime::now();
        let sent_at = types
            .iter()
            .map(|of| {
                let same = before.filter(|before| {
                    before
                        .types
                        .iter()
                        .any(|old| old.type_url == of.type_url && old.sent == of.sent)
                });
                let at = same
                    .and_then(|before| before.sent_at.get(&of.type_url))
                    .copied();
                (of.type_url.clone(), at.unwrap_or(now))
            })
            .collect();
        let status = ConnectionStatus {
            node: proxy.id.clone(),
            cluster: proxy.cluster.clone(),
            version: proxy.version.clone(),
            types,
            sent_at,
            proxy: proxy.clone(),
        };
        open.insert(self.id, status);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.connections.open.lock().remove(&self.id);
    }
}

/// The service.
pub struct Ads<W> {
    worlds: watch::Receiver<Option<Arc<W>>>,
    authenticator: Arc<Authenticator>,
    connections: Arc<Connections>,
}

impl<W> Clone for Ads<W> {
    fn clone(&self) -> Self {
        Self {
            worlds: self.worlds.clone(),
            authenticator: self.authenticator.clone(),
            connections: self.connections.clone(),
        }
    }
}

type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl<W: World> Ads<W> {
    /// A service that sends what `worlds` holds; proxies wait until there is a first one.
    pub fn new(
        worlds: watch::Receiver<Option<Arc<W>>>,
        authenticator: Arc<Authenticator>,
        connections: Arc<Connections>,
    ) -> Self {
        Self {
            worlds,
            authenticator,
            connections,
        }
    }

    async fn serve<I, O>(&self, request: Request<Streaming<I>>) -> Result<Outgoing<O>, Status>
    where
        I: Incoming,
        O: From<Response> + Send + 'static,
    {
        let caller = self.authenticator.authenticate(&request).await?;
        let mut incoming = request.into_inner();
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut worlds = self.worlds.clone();
        let entry = self.connections.enter();
        let reader = caller.as_ref().map(|caller| caller.namespace.clone());
        tokio::spawn(async move {
            let result = converse::<W, I, O>(
                &mut incoming,
                &mut worlds,
                &sender,
                &entry,
                reader.as_deref(),
                |proxy| match &caller {
                    Some(caller) if caller.namespace != proxy.namespace => {
                        Err(Status::permission_denied(format!(
                            "proxy {} says namespace {}, its identity says {}",
                            proxy.id, proxy.namespace, caller.namespace
                        )))
                    }
                    _ => Ok(()),
                },
            )
            .await;
            if let Err(status) = result {
                tracing::info!(%status, "xDS stream ended");
                // The client may be gone already.
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(ReceiverStream::new(receiver).boxed())
    }
}

async fn converse<W, I, O>(
    incoming: &mut Streaming<I>,
    worlds: &mut watch::Receiver<Option<Arc<W>>>,
    sender: &mpsc::Sender<Result<O, Status>>,
    entry: &Entry,
    reader: Option<&str>,
    allowed: impl Fn(&ProxyInfo) -> Result<(), Status>,
) -> Result<(), Status>
where
    W: World,
    I: Incoming,
    O: From<Response>,
{
    let Some(mut message) = incoming.message().await? else {
        return Ok(());
    };
    let proxy = match message.node() {
        Some(node) if !node.id.is_empty() => proxy_info(node)?,
        _ => {
            return Err(Status::invalid_argument(
                "the first request must carry the node with its id",
            ));
        }
    };
    allowed(&proxy)?;
    let world = worlds
        .wait_for(Option::is_some)
        .await
        .map_err(|_| Status::unavailable("istiod is stopping"))?
        .clone()
        .ok_or_else(|| Status::internal("no configuration"))?;
    tracing::info!(node = proxy.id, "proxy connected");
    let mut session = Session::new(I::VARIANT, proxy, world);
    loop {
        let (type_url, ask) = message.ask();
        if let Some(error) = &ask.error {
            tracing::warn!(node = session.proxy().id, type_url, %error, "configuration refused by the proxy");
        }
        if status::is_status(&type_url) {
            // Tools ask once, with any nonce; an acknowledgement of the answer is not a question.
            if ask.nonce != STATUS_NONCE {
                let reader =
                    reader.ok_or_else(|| Status::unauthenticated("authentication required"))?;
                let resources = status::answer(
                    &type_url,
                    &ask.names,
                    reader,
                    &entry.connections.list(),
                    session.world(),
                );
                send(sender, vec![status_response(&type_url, resources)]).await?;
            }
        } else {
            send(sender, session.on_request(&type_url, &ask)).await?;
            entry.update(&session);
        }
        message = loop {
            tokio::select! {
                next = incoming.message() => match next? {
                    Some(message) => break message,
                    None => return Ok(()),
                },
                changed = worlds.changed() => {
                    changed.map_err(|_| Status::unavailable("istiod is stopping"))?;
                    let world = worlds.borrow_and_update().clone();
                    if let Some(world) = world {
                        send(sender, session.on_world(world)).await?;
                        entry.update(&session);
                    }
                }
            }
        };
    }
}

fn status_response(type_url: &str, resources: Vec<(String, Any)>) -> Response {
    Response {
        type_url: type_url.to_owned(),
        version: String::new(),
        nonce: STATUS_NONCE.to_owned(),
        update: Update {
            resources,
            removed: Vec::new(),
        },
    }
}

/// Who answers, as tools read it.
fn control_plane() -> Option<ControlPlane> {
    static IDENTIFIER: LazyLock<String> = LazyLock::new(|| {
        let instance = std::env::var("POD_NAME").unwrap_or_else(|_| "istiod".to_owned());
        json!({"Component": "istiod", "ID": instance, "Info": {"version": ISTIO_VERSION, "revision": "theater",
            "golang_version": "", "status": "Clean", "tag": ISTIO_VERSION}})
        .to_string()
    });
    Some(ControlPlane {
        identifier: IDENTIFIER.clone(),
    })
}

async fn send<O: From<Response>>(
    sender: &mpsc::Sender<Result<O, Status>>,
    responses: Vec<Response>,
) -> Result<(), Status> {
    for response in responses {
        sender
            .send(Ok(O::from(response)))
            .await
            .map_err(|_| Status::cancelled("the proxy is gone"))?;
    }
    Ok(())
}

fn proxy_info(node: &Node) -> Result<ProxyInfo, Status> {
    let metadata = node.metadata.as_ref().map_or_else(
        || Value::Object(Map::new()),
        |metadata| object(&metadata.fields),
    );
    let locality = node
        .locality
        .as_ref()
        .map(|locality| Locality {
            region: locality.region.clone(),
            zone: locality.zone.clone(),
            subzone: locality.sub_zone.clone(),
        })
        .unwrap_or_default();
    ProxyInfo::from_node(&node.id, &metadata, locality)
        .map_err(|error| Status::invalid_argument(error.to_string()))
}

/// The JSON behind a protobuf Struct.
fn object<'a>(fields: impl IntoIterator<Item = (&'a String, &'a ProtoValue)>) -> Value {
    fields
        .into_iter()
        .map(|(key, value)| (key.clone(), plain(value)))
        .collect::<Map<_, _>>()
        .into()
}

fn plain(value: &ProtoValue) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(flag)) => (*flag).into(),
        Some(Kind::NumberValue(number)) => (*number).into(),
        Some(Kind::StringValue(text)) => text.clone().into(),
        Some(Kind::ListValue(list)) => list.values.iter().map(plain).collect(),
        Some(Kind::StructValue(fields)) => object(&fields.fields),
    }
}

/// A request of either variant.
trait Incoming: Send + 'static {
    const VARIANT: Variant;
    fn node(&self) -> Option<&Node>;
    fn ask(&self) -> (String, Ask);
}

impl Incoming for DiscoveryRequest {
    const VARIANT: Variant = Variant::StateOfTheWorld;

    fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    fn ask(&self) -> (String, Ask) {
        let ask = Ask {
            names: self.resource_names.clone(),
            nonce: self.response_nonce.clone(),
            error: self
                .error_detail
                .as_ref()
                .map(|error| error.message.clone()),
            ..Ask::default()
        };
        (self.type_url.clone(), ask)
    }
}

impl Incoming for DeltaDiscoveryRequest {
    const VARIANT: Variant = Variant::Delta;

    fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    fn ask(&self) -> (String, Ask) {
        let ask = Ask {
            names: self.resource_names_subscribe.clone(),
            unsubscribe: self.resource_names_unsubscribe.clone(),
            initial: self.initial_resource_versions.keys().cloned().collect(),
            nonce: self.response_nonce.clone(),
            error: self
                .error_detail
                .as_ref()
                .map(|error| error.message.clone()),
        };
        (self.type_url.clone(), ask)
    }
}

impl From<Response> for DiscoveryResponse {
    fn from(response: Response) -> Self {
        Self {
            version_info: response.version,
            control_plane: control_plane(),
            type_url: response.type_url,
            nonce: response.nonce,
            resources: response
                .update
                .resources
                .into_iter()
                .map(|(_, resource)| resource)
                .collect(),
            ..Self::default()
        }
    }
}

impl From<Response> for DeltaDiscoveryResponse {
    fn from(response: Response) -> Self {
        let version = response.version;
        Self {
            system_version_info: version.clone(),
            control_plane: control_plane(),
            type_url: response.type_url,
            nonce: response.nonce,
            resources: response
                .update
                .resources
                .into_iter()
                .map(|(name, resource)| Resource {
                    name,
                    version: version.clone(),
                    resource: Some(resource),
                    ..Resource::default()
                })
                .collect(),
            removed_resources: response.update.removed,
            ..Self::default()
        }
    }
}

#[tonic::async_trait]
impl<W: World> AggregatedDiscoveryService for Ads<W> {
    type StreamAggregatedResourcesStream = Outgoing<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Outgoing<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<GrpcResponse<Self::StreamAggregatedResourcesStream>, Status> {
        self.serve(request).await.map(GrpcResponse::new)
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<GrpcResponse<Self::DeltaAggregatedResourcesStream>, Status> {
        self.serve(request).await.map(GrpcResponse::new)
    }
}
