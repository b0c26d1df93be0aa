//! The xDS client against a management server: order of subscriptions, acknowledgement, refusal, reconnection.

mod support;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use support::*;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use xds::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use xds::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Sender = mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>;

/// A management server that answers from a script and remembers what it was asked.
#[derive(Clone, Default)]
struct Server {
    asked: Arc<Mutex<Vec<DeltaDiscoveryRequest>>>,
    stream: Arc<Mutex<Option<Sender>>>,
    backend: Arc<Mutex<Option<SocketAddr>>>,
}

fn resource(url: &str, name: &str, version: &str, json: serde_json::Value) -> Resource {
    let message = xds::json::dynamic_from_value(url, &json, true).unwrap();
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

fn answer(url: &str, resources: Vec<Resource>, nonce: &str) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        system_version_info: "v".into(),
        resources,
        type_url: url.into(),
        nonce: nonce.into(),
        ..Default::default()
    }
}

impl Server {
    fn script(&self, request: &DeltaDiscoveryRequest) -> Option<DeltaDiscoveryResponse> {
        if !request.response_nonce.is_empty() {
            return None;
        }
        let url = request.type_url.as_str();
        let backend = self.backend.lock().unwrap().unwrap();
        let resource = match url {
            xds::type_url::CLUSTER => resource(
                url,
                "app",
                "1",
                serde_json::json!({"name": "app", "type": "EDS",
                    "eds_cluster_config": {"service_name": "app-eds", "eds_config": {"ads": {}}}}),
            ),
            xds::type_url::ENDPOINT => resource(
                url,
                "app-eds",
                "1",
                serde_json::json!({"cluster_name": "app-eds", "endpoints": [{"lb_endpoints": [{"endpoint": {"address":
                    {"socket_address": {"address": backend.ip().to_string(), "port_value": backend.port()}}}}]}]}),
            ),
            xds::type_url::LISTENER => resource(
                url,
                "dynamic",
                "1",
                serde_json::json!({"name": "dynamic",
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
                    "filter_chains": [{"filters": [{"name": "hcm", "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                        "stat_prefix": "dynamic",
                        "rds": {"route_config_name": "table", "config_source": {"ads": {}}},
                        "http_filters": [{"name": "router", "typed_config":
                            {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]}]}),
            ),
            xds::type_url::ROUTE => resource(
                url,
                "table",
                "1",
                serde_json::json!({"name": "table", "virtual_hosts": [{"name": "v", "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}]}),
            ),
            _ => return None,
        };
        Some(answer(
            url,
            vec![resource],
            &format!("nonce-{}", xds::type_url::short_name(url)),
        ))
    }

    fn requests(&self) -> Vec<DeltaDiscoveryRequest> {
        self.asked.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Server {
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
        *self.stream.lock().unwrap() = Some(send.clone());
        let this = self.clone();
        let weak = send.downgrade();
        drop(send);
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                this.asked.lock().unwrap().push(request.clone());
                if let (Some(answer), Some(send)) = (this.script(&request), weak.upgrade()) {
                    let _ = send.send(Ok(answer)).await;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }
}

fn serve(server: Server) -> SocketAddr {
    let (ready, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            ready.send(listener.local_addr().unwrap()).unwrap();
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            let service = AggregatedDiscoveryServiceServer::new(server);
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
    });
    wait.recv().unwrap()
}

#[test]
fn a_management_server_drives_the_proxy() {
    let backend = Backend::saying("from the backend");
    let server = Server::default();
    *server.backend.lock().unwrap() = Some(backend.address);
    let address = serve(server.clone());
    let running = Running::start(&format!(
        r#"
node: {{id: test-node, cluster: test}}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
dynamic_resources:
  lds_config: {{ads: {{}}}}
  cds_config: {{ads: {{}}}}
  ads_config:
    api_type: DELTA_GRPC
    grpc_services: [{{envoy_grpc: {{cluster_name: control}}}}]
static_resources:
  clusters:
{}"#,
        cluster("control", &[address], "")
    ));
    until("the proxy is live", || running.page("/ready") == "LIVE\n");
    let main = running.address("dynamic");
    assert_eq!(get(main, "/", "").body, "from the backend");

    let asked = server.requests();
    let order: Vec<&str> = asked
        .iter()
        .filter(|request| request.response_nonce.is_empty())
        .map(|request| xds::type_url::short_name(&request.type_url))
        .collect();
    assert_eq!(order, ["cds", "eds", "lds", "rds"]);
    assert_eq!(asked[0].node.as_ref().unwrap().id, "test-node");
    let subscribed = |short: &str| {
        asked
            .iter()
            .find(|request| {
                request.response_nonce.is_empty()
                    && xds::type_url::short_name(&request.type_url) == short
            })
            .map(|request| request.resource_names_subscribe.clone())
    };
    assert_eq!(subscribed("eds"), Some(vec!["app-eds".to_owned()]));
    assert_eq!(subscribed("rds"), Some(vec!["table".to_owned()]));
    until("everything is acknowledged", || {
        let nonces: Vec<String> = server
            .requests()
            .iter()
            .map(|request| request.response_nonce.clone())
            .collect();
        ["nonce-cds", "nonce-eds", "nonce-lds", "nonce-rds"]
            .iter()
            .all(|nonce| nonces.iter().any(|n| n == nonce))
    });

    // What cannot be used is refused with its reason; what was there before goes on.
    let bad = resource(
        xds::type_url::CLUSTER,
        "bad",
        "2",
        serde_json::json!({"name": "bad", "type": "STATIC", "transport_socket": {"name": "x", "typed_config":
            {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}}),
    );
    let sender = server.stream.lock().unwrap().clone().unwrap();
    sender
        .blocking_send(Ok(answer(xds::type_url::CLUSTER, vec![bad], "nonce-bad")))
        .unwrap();
    drop(sender);
    until("the bad cluster is refused", || {
        server.requests().iter().any(|request| {
            request.response_nonce == "nonce-bad"
                && request
                    .error_detail
                    .as_ref()
                    .is_some_and(|error| error.message.contains("cluster(s) bad: "))
        })
    });
    assert_eq!(get(main, "/", "").status, 200);

    // The stream ends: traffic goes on, and the client comes back with what it has.
    let before = server.requests().len();
    server.stream.lock().unwrap().take();
    until("the client is back", || {
        server.requests().len() > before + 3
    });
    let again = server.requests()[before..].to_vec();
    assert_eq!(again[0].type_url, xds::type_url::CLUSTER);
    assert_eq!(
        again[0]
            .initial_resource_versions
            .get("app")
            .map(String::as_str),
        Some("1")
    );
    assert!(again[0].node.is_some());
    assert_eq!(get(main, "/", "").status, 200);
}
