//! A management server for one proxy at a time: delta ADS, told what to send. It uses nothing of this crate, for the benchmark has it too.
#![allow(dead_code)]

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};
use xds::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use xds::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Sender = mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>;

/// Longer than anything here should take.
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct State {
    /// By type and name.
    resources: HashMap<&'static str, BTreeMap<String, Resource>>,
    stream: Option<Sender>,
    asked: Vec<DeltaDiscoveryRequest>,
    sent: u64,
    /// Nonce to what the proxy said of it; `None` is an acknowledgement.
    answered: HashMap<String, Option<String>>,
}

/// The server, and what it has.
#[derive(Clone, Default)]
pub struct Management {
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Management {
    /// Starts it on a thread of its own, which does `first` before all else; gives its address.
    pub fn start(first: impl FnOnce() + Send + 'static) -> (Self, SocketAddr) {
        let this = Self::default();
        let service = AggregatedDiscoveryServiceServer::new(this.clone());
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            first();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                send.send(listener.local_addr().unwrap()).unwrap();
                tonic::transport::Server::builder()
                    .add_service(service)
                    .serve_with_incoming(TcpListenerStream::new(listener))
                    .await
                    .unwrap();
            });
        });
        let address = receive.recv().unwrap();
        (this, address)
    }

    /// Says what there is, before a proxy asks.
    pub fn has(&self, url: &'static str, resources: Vec<(String, Value)>) {
        let mut state = self.state.0.lock().unwrap();
        for (name, value) in resources {
            let resource = encode(url, &name, "0", &value);
            state
                .resources
                .entry(url)
                .or_default()
                .insert(name, resource);
        }
    }

    /// All that was asked so far, in order.
    pub fn requests(&self) -> Vec<DeltaDiscoveryRequest> {
        self.state.0.lock().unwrap().asked.clone()
    }

    /// Ends the stream; the proxy may come again.
    pub fn disconnect(&self) {
        self.state.0.lock().unwrap().stream = None;
    }

    /// Sends these and waits until they are acknowledged, or says why they are refused.
    pub fn send(&self, url: &'static str, resources: &[(String, Value)]) -> Result<(), String> {
        let (lock, changed) = &*self.state;
        let mut state = lock.lock().unwrap();
        state.sent += 1;
        let nonce = format!("pushed-{}", state.sent);
        let encoded: Vec<Resource> = resources
            .iter()
            .map(|(name, value)| encode(url, name, &nonce, value))
            .collect();
        let answer = DeltaDiscoveryResponse {
            type_url: url.into(),
            resources: encoded,
            nonce: nonce.clone(),
            ..Default::default()
        };
        let stream = state.stream.clone().expect("a proxy is connected");
        drop(state);
        stream.blocking_send(Ok(answer)).unwrap();
        let start = Instant::now();
        state = lock.lock().unwrap();
        loop {
            match state.answered.remove(&nonce) {
                Some(None) => return Ok(()),
                Some(Some(error)) => return Err(error),
                None => assert!(start.elapsed() < DEADLINE, "{nonce} is never answered"),
            }
            state = changed.wait_timeout(state, DEADLINE).unwrap().0;
        }
    }

    /// What a request is answered with; acknowledgements are noted.
    fn answer(&self, request: &DeltaDiscoveryRequest) -> Option<DeltaDiscoveryResponse> {
        let (lock, changed) = &*self.state;
        let mut state = lock.lock().unwrap();
        state.asked.push(request.clone());
        if !request.response_nonce.is_empty() {
            let error = request.error_detail.as_ref().map(|e| e.message.clone());
            state.answered.insert(request.response_nonce.clone(), error);
            changed.notify_all();
        }
        let all = state.resources.get(request.type_url.as_str())?;
        let names = &request.resource_names_subscribe;
        let is_first = request.response_nonce.is_empty();
        let wildcard = (is_first && names.is_empty()) || names.iter().any(|name| name == "*");
        let resources: Vec<Resource> = if wildcard {
            all.values().cloned().collect()
        } else {
            names
                .iter()
                .filter_map(|name| all.get(name).cloned())
                .collect()
        };
        if resources.is_empty() {
            return None;
        }
        state.sent += 1;
        Some(DeltaDiscoveryResponse {
            type_url: request.type_url.clone(),
            resources,
            nonce: format!("asked-{}", state.sent),
            ..Default::default()
        })
    }
}

fn encode(url: &str, name: &str, version: &str, value: &Value) -> Resource {
    let message = xds::json::dynamic_from_value(url, value, true).unwrap();
    Resource {
        name: name.into(),
        version: version.into(),
        resource: Some(xds::prost_types::Any {
            type_url: url.into(),
            value: xds::json::encode(&message),
        }),
        ..Default::default()
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Management {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("only delta"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let mut requests = request.into_inner();
        let (send, receive) = mpsc::channel(16);
        self.state.0.lock().unwrap().stream = Some(send.clone());
        let this = self.clone();
        // The stream ends with the sender in the state.
        let send = send.downgrade();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                if let (Some(answer), Some(send)) = (this.answer(&request), send.upgrade()) {
                    let _ = send.send(Ok(answer)).await;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }
}
