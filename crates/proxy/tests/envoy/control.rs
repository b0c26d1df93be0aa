//! A management server whose clusters, listeners and settings of filters change when a test says so (ADS, state of the world).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use xds::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use xds::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use xds::prost_types::Any;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The resources by type, and the number of the version.
type World = (u64, BTreeMap<&'static str, Vec<Any>>);

/// What proxies are told.
#[derive(Clone)]
pub struct Control {
    world: Arc<watch::Sender<World>>,
    /// What they refused.
    pub refused: Arc<Mutex<Vec<String>>>,
}

fn encode(url: &'static str, resource: &Value) -> Any {
    let message = xds::json::dynamic_from_value(url, resource, true)
        .unwrap_or_else(|error| panic!("{error}: {resource}"));
    Any {
        type_url: url.into(),
        value: xds::json::encode(&message),
    }
}

impl Control {
    /// Serves on a free port, with nothing to tell yet.
    pub async fn start() -> (Self, SocketAddr) {
        let this = Self {
            world: Arc::new(watch::channel(World::default()).0),
            refused: Arc::default(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = AggregatedDiscoveryServiceServer::new(this.clone());
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)),
        );
        (this, address)
    }

    /// Tells these from now on.
    pub fn tell(&self, clusters: &[Value], listeners: &[Value], extensions: &[Value]) {
        let all = |url, resources: &[Value]| {
            let encoded = resources.iter().map(|one| encode(url, one)).collect();
            (url, encoded)
        };
        self.world.send_modify(|(version, world)| {
            *version += 1;
            *world = BTreeMap::from([
                all(xds::type_url::CLUSTER, clusters),
                all(xds::type_url::LISTENER, listeners),
                all(xds::type_url::EXTENSION_CONFIG, extensions),
            ]);
        });
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Control {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let mut requests = request.into_inner();
        let mut world = self.world.subscribe();
        let refused = self.refused.clone();
        let (send, receive) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut asked = BTreeSet::new();
            loop {
                let fresh: Vec<String> = tokio::select! {
                    request = requests.message() => {
                        let Ok(Some(request)) = request else { return };
                        if let Some(error) = request.error_detail {
                            refused.lock().unwrap().push(error.message);
                        }
                        let first = asked.insert(request.type_url.clone());
                        first.then_some(request.type_url).into_iter().collect()
                    }
                    changed = world.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        // Clusters before the listeners that name them.
                        asked.iter().cloned().collect()
                    }
                };
                for url in fresh {
                    let (version, all) = world.borrow().clone();
                    let Some(resources) = all.get(url.as_str()) else {
                        continue;
                    };
                    let answer = DiscoveryResponse {
                        version_info: version.to_string(),
                        resources: resources.clone(),
                        nonce: version.to_string(),
                        type_url: url,
                        ..Default::default()
                    };
                    if send.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }

    async fn delta_aggregated_resources(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("only the state of the world"))
    }
}
