//! The agent as a secret discovery service, for a proxy in another process.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use xds::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use xds::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryService;
use xds::type_url;

use proxy::tls::secrets::Secrets;

/// Serves the secrets it holds, each again whenever it changes.
pub struct SecretServer {
    /// The secrets.
    pub secrets: Arc<Secrets>,
}

/// The secrets of these names, with a version that changes when one of them does; nothing while none is there.
fn answer(secrets: &Secrets, names: &[String]) -> Option<DiscoveryResponse> {
    let found: Vec<_> = names.iter().filter_map(|name| secrets.get(name)).collect();
    if found.is_empty() {
        return None;
    }
    let versions: Vec<&str> = found.iter().map(|entry| entry.version.as_str()).collect();
    let version_info = versions.join(",");
    Some(DiscoveryResponse {
        nonce: version_info.clone(),
        version_info,
        resources: found
            .iter()
            .map(|entry| xds::any::pack(&entry.message))
            .collect(),
        type_url: type_url::SECRET.to_owned(),
        ..Default::default()
    })
}

/// One stream, until the proxy ends it.
async fn serve(
    secrets: Arc<Secrets>,
    mut requests: Streaming<DiscoveryRequest>,
    answers: mpsc::Sender<Result<DiscoveryResponse, Status>>,
) {
    let mut changed = secrets.changed();
    let mut names = Vec::new();
    let mut sent = String::new();
    loop {
        tokio::select! {
            message = requests.message() => match message {
                Ok(Some(request)) => {
                    if let Some(error) = request.error_detail {
                        tracing::warn!("the proxy refuses {:?}: {}", request.resource_names, error.message);
                    }
                    if names != request.resource_names {
                        names = request.resource_names;
                        sent.clear();
                    }
                }
                Ok(None) | Err(_) => return,
            },
            change = changed.changed() => if change.is_err() {
                return;
            },
        }
        if let Some(response) = answer(&secrets, &names).filter(|new| new.version_info != sent) {
            sent.clone_from(&response.version_info);
            if answers.send(Ok(response)).await.is_err() {
                return;
            }
        }
    }
}

type Answers<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SecretDiscoveryService for SecretServer {
    type DeltaSecretsStream = Answers<DeltaDiscoveryResponse>;
    type StreamSecretsStream = Answers<DiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(serve(self.secrets.clone(), request.into_inner(), sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn delta_secrets(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(Status::unimplemented("DeltaSecrets not implemented"))
    }

    async fn fetch_secrets(
        &self,
        request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        answer(&self.secrets, &request.into_inner().resource_names)
            .map(Response::new)
            .ok_or_else(|| Status::unavailable("no certificate yet"))
    }
}
