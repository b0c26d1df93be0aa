//! One aggregated discovery stream, kept up for as long as the proxy lives.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use runtime::CancellationToken;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use xds::envoy::config::core::v3::Node;
use xds::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use xds::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use xds::google::rpc::Status;
use xds::prost_types::Any;
use xds::type_url;

use super::channel::Target;

/// Incremental or state of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `DELTA_GRPC`
    Delta,
    /// `GRPC`
    StateOfTheWorld,
}

/// A resource as it came.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The message.
    pub body: Any,
}

/// Which resources are wanted now, by type, apart from those that come unasked.
pub type Interests = HashMap<&'static str, BTreeSet<String>>;

/// Who uses the resources.
pub trait Sink: Send + Sync {
    /// Takes a response in use. What cannot be used is left out and named in the error; the rest counts.
    ///
    /// # Errors
    /// The reason for the NACK.
    fn apply(
        &self,
        type_url: &str,
        version: &str,
        updated: Vec<Received>,
        removed: Vec<String>,
    ) -> Result<(), String>;
    /// What to ask for.
    fn interests(&self) -> Interests;
    /// The versions held, for reconnection.
    fn versions(&self, type_url: &str) -> BTreeMap<String, String>;
    /// The stream is up or down.
    fn connected(&self, up: bool);
    /// Wakes when interests may have changed without a response.
    fn interests_changed(&self) -> Arc<tokio::sync::Notify>;
}

/// The types that are asked for as a whole.
const WILDCARD: [&str; 2] = [type_url::CLUSTER, type_url::LISTENER];

#[derive(Default)]
struct TypeState {
    subscribed: BTreeSet<String>,
    /// Everything of the type is wanted and was asked for.
    started: bool,
    nonce: String,
    version: String,
}

/// Where the management server is now; an error while something is missing.
pub type TargetSource = Arc<dyn Fn() -> Result<Target, String> + Send + Sync>;

/// Keeps a stream to the management server until the token is cancelled.
/// `target` is asked anew before every connection, so that certificates and files may change.
pub async fn run(
    target: TargetSource,
    node: Node,
    mode: Mode,
    sink: Arc<dyn Sink>,
    stop: CancellationToken,
) {
    let mut delay = Duration::from_millis(25);
    let mut reported = String::new();
    while !stop.is_cancelled() {
        let attempt = stop
            .run_until_cancelled(async {
                let target = target().map_err(Ended::early)?;
                stream(&target, &node, mode, &*sink).await
            })
            .await;
        let Some(result) = attempt else { return };
        sink.connected(false);
        match result {
            // A stream that worked and then ended: the server restarts or balances; come back soon.
            Ok(()) => delay = Duration::from_millis(25),
            Err(Ended { error, worked }) => {
                if worked {
                    delay = Duration::from_millis(25);
                }
                if reported != error {
                    tracing::info!("xDS: {error}; trying again");
                    reported = error;
                }
            }
        }
        let jitter = rand::rng().random_range(0.75..1.25);
        let _ = stop
            .run_until_cancelled(tokio::time::sleep(delay.mul_f64(jitter)))
            .await;
        delay = (delay * 2).min(Duration::from_secs(1));
    }
}

struct Ended {
    error: String,
    worked: bool,
}

impl Ended {
    fn early(error: String) -> Self {
        Self {
            error,
            worked: false,
        }
    }
}

async fn stream(target: &Target, node: &Node, mode: Mode, sink: &dyn Sink) -> Result<(), Ended> {
    let channel = target
        .connect()
        .await
        .map_err(|error| Ended::early(format!("{:?}: {error}", target.address)))?;
    let client =
        AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(256 << 20);
    match mode {
        Mode::Delta => delta(client, target, node, sink).await,
        Mode::StateOfTheWorld => state_of_the_world(client, target, node, sink).await,
    }
}

type Client = AggregatedDiscoveryServiceClient<tonic::transport::Channel>;

fn with_token<T>(message: T, target: &Target) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if let Some(token) = target.token() {
        request.metadata_mut().insert("authorization", token);
    }
    request
}

async fn delta(
    mut client: Client,
    target: &Target,
    node: &Node,
    sink: &dyn Sink,
) -> Result<(), Ended> {
    let (send, receive) = mpsc::channel::<DeltaDiscoveryRequest>(64);
    let mut states: HashMap<&'static str, TypeState> = HashMap::new();
    // Clusters first: everything else refers to them.
    let first = DeltaDiscoveryRequest {
        node: Some(node.clone()),
        type_url: type_url::CLUSTER.to_owned(),
        resource_names_subscribe: Vec::new(),
        initial_resource_versions: sink.versions(type_url::CLUSTER),
        ..Default::default()
    };
    states.entry(type_url::CLUSTER).or_default().started = true;
    send.send(first)
        .await
        .map_err(|error| Ended::early(error.to_string()))?;
    let mut responses = client
        .delta_aggregated_resources(with_token(ReceiverStream::new(receive), target))
        .await
        .map_err(|status| Ended::early(format!("{}: {}", status.code(), status.message())))?
        .into_inner();
    sink.connected(true);
    let changed = sink.interests_changed();
    let mut worked = false;
    loop {
        let message = tokio::select! {
            message = responses.message() => message,
            () = changed.notified() => {
                subscribe_delta(&send, &mut states, sink).await;
                continue;
            }
        };
        let response = match message {
            Ok(Some(response)) => response,
            Ok(None) => return Ok(()),
            Err(status) => {
                return Err(Ended {
                    error: format!("{}: {}", status.code(), status.message()),
                    worked,
                });
            }
        };
        worked = true;
        let url = response.type_url;
        let updated = response
            .resources
            .into_iter()
            .filter_map(|resource| {
                Some(Received {
                    name: resource.name,
                    version: resource.version,
                    body: resource.resource?,
                })
            })
            .collect();
        let outcome = sink.apply(
            &url,
            &response.system_version_info,
            updated,
            response.removed_resources,
        );
        let error_detail = outcome.err().map(|message| {
            tracing::warn!("refused {url}: {message}");
            Status {
                code: 13,
                message,
                details: Vec::new(),
            }
        });
        let ack = DeltaDiscoveryRequest {
            type_url: url.clone(),
            response_nonce: response.nonce,
            error_detail,
            ..Default::default()
        };
        if send.send(ack).await.is_err() {
            return Ok(());
        }
        // Endpoints name nothing that had to be asked for.
        if url != type_url::ENDPOINT {
            subscribe_delta(&send, &mut states, sink).await;
        }
        if !states
            .get(type_url::LISTENER)
            .is_some_and(|state| state.started)
        {
            // Endpoints were asked for just now, so they come before the listeners that need them.
            states.entry(type_url::LISTENER).or_default().started = true;
            let request = DeltaDiscoveryRequest {
                type_url: type_url::LISTENER.to_owned(),
                initial_resource_versions: sink.versions(type_url::LISTENER),
                ..Default::default()
            };
            let _ = send.send(request).await;
        }
    }
}

async fn subscribe_delta(
    send: &mpsc::Sender<DeltaDiscoveryRequest>,
    states: &mut HashMap<&'static str, TypeState>,
    sink: &dyn Sink,
) {
    let mut interests = sink.interests();
    for (url, names) in ordered(&mut interests) {
        let state = states.entry(url).or_default();
        let added: Vec<String> = names.difference(&state.subscribed).cloned().collect();
        let gone: Vec<String> = state.subscribed.difference(&names).cloned().collect();
        if added.is_empty() && gone.is_empty() {
            continue;
        }
        let versions = if state.started {
            BTreeMap::new()
        } else {
            sink.versions(url)
                .into_iter()
                .filter(|(name, _)| names.contains(name))
                .collect()
        };
        state.started = true;
        state.subscribed = names;
        let request = DeltaDiscoveryRequest {
            type_url: url.to_owned(),
            resource_names_subscribe: added,
            resource_names_unsubscribe: gone,
            initial_resource_versions: versions,
            ..Default::default()
        };
        if send.send(request).await.is_err() {
            return;
        }
    }
}

/// Endpoints before routes before secrets: the order in which they are needed.
fn ordered(interests: &mut Interests) -> Vec<(&'static str, BTreeSet<String>)> {
    let order = [
        type_url::ENDPOINT,
        type_url::ROUTE,
        type_url::SECRET,
        type_url::EXTENSION_CONFIG,
    ];
    order
        .into_iter()
        .filter_map(|url| interests.remove(url).map(|names| (url, names)))
        .collect()
}

async fn state_of_the_world(
    mut client: Client,
    target: &Target,
    node: &Node,
    sink: &dyn Sink,
) -> Result<(), Ended> {
    let (send, receive) = mpsc::channel::<DiscoveryRequest>(64);
    let mut states: HashMap<&'static str, TypeState> = HashMap::new();
    states.entry(type_url::CLUSTER).or_default().started = true;
    let first = DiscoveryRequest {
        node: Some(node.clone()),
        type_url: type_url::CLUSTER.to_owned(),
        ..Default::default()
    };
    send.send(first)
        .await
        .map_err(|error| Ended::early(error.to_string()))?;
    let mut responses = client
        .stream_aggregated_resources(with_token(ReceiverStream::new(receive), target))
        .await
        .map_err(|status| Ended::early(format!("{}: {}", status.code(), status.message())))?
        .into_inner();
    sink.connected(true);
    let changed = sink.interests_changed();
    let mut worked = false;
    loop {
        let message = tokio::select! {
            message = responses.message() => message,
            () = changed.notified() => {
                subscribe_all(&send, &mut states, sink, node).await;
                continue;
            }
        };
        let response = match message {
            Ok(Some(response)) => response,
            Ok(None) => return Ok(()),
            Err(status) => {
                return Err(Ended {
                    error: format!("{}: {}", status.code(), status.message()),
                    worked,
                });
            }
        };
        worked = true;
        let Some(url) = known(&response.type_url) else {
            continue;
        };
        let updated: Vec<Received> = response
            .resources
            .into_iter()
            .map(|body| Received {
                name: xds::name_inside(&body),
                version: response.version_info.clone(),
                body,
            })
            .collect();
        let removed = if WILDCARD.contains(&url) {
            let present: BTreeSet<&str> = updated
                .iter()
                .map(|resource| resource.name.as_str())
                .collect();
            sink.versions(url)
                .into_keys()
                .filter(|name| !present.contains(name.as_str()))
                .collect()
        } else {
            Vec::new()
        };
        let outcome = sink.apply(url, &response.version_info, updated, removed);
        let state = states.entry(url).or_default();
        state.nonce.clone_from(&response.nonce);
        let error_detail = match outcome {
            Ok(()) => {
                state.version = response.version_info;
                None
            }
            Err(message) => {
                tracing::warn!("refused {url}: {message}");
                Some(Status {
                    code: 13,
                    message,
                    details: Vec::new(),
                })
            }
        };
        let ack = DiscoveryRequest {
            version_info: state.version.clone(),
            type_url: url.to_owned(),
            response_nonce: response.nonce,
            resource_names: state.subscribed.iter().cloned().collect(),
            error_detail,
            ..Default::default()
        };
        if send.send(ack).await.is_err() {
            return Ok(());
        }
        // Endpoints name nothing that had to be asked for.
        if url != type_url::ENDPOINT {
            subscribe_all(&send, &mut states, sink, node).await;
        }
        if !states
            .get(type_url::LISTENER)
            .is_some_and(|state| state.started)
        {
            states.entry(type_url::LISTENER).or_default().started = true;
            let request = DiscoveryRequest {
                type_url: type_url::LISTENER.to_owned(),
                ..Default::default()
            };
            let _ = send.send(request).await;
        }
    }
}

async fn subscribe_all(
    send: &mpsc::Sender<DiscoveryRequest>,
    states: &mut HashMap<&'static str, TypeState>,
    sink: &dyn Sink,
    _node: &Node,
) {
    let mut interests = sink.interests();
    for (url, names) in ordered(&mut interests) {
        let state = states.entry(url).or_default();
        if state.subscribed == names {
            continue;
        }
        state.subscribed = names;
        let request = DiscoveryRequest {
            version_info: state.version.clone(),
            type_url: url.to_owned(),
            response_nonce: state.nonce.clone(),
            resource_names: state.subscribed.iter().cloned().collect(),
            ..Default::default()
        };
        if send.send(request).await.is_err() {
            return;
        }
    }
}

fn known(url: &str) -> Option<&'static str> {
    [
        type_url::CLUSTER,
        type_url::ENDPOINT,
        type_url::LISTENER,
        type_url::ROUTE,
        type_url::SECRET,
        type_url::EXTENSION_CONFIG,
    ]
    .into_iter()
    .find(|known| *known == url)
}
