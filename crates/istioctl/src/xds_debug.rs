//! What a control plane tells about the proxies connected to it: requests of `istio.io/debug/*` on its
//! xDS port, over mutual trust in the mesh's authority and a service-account token.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use futures::{StreamExt as _, stream};
use hyper_util::rt::TokioIo;
use kube_client::{CONFIG_MAPS, SERVICE_ACCOUNTS};
use serde_json::{Value, json};
use tonic::transport::Endpoint;
use xds::envoy::config::core::v3::Node;
use xds::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use xds::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};

use crate::mesh::Mesh;

/// A page about a control plane, by its name.
pub const PAGES: &str = "istio.io/debug";
/// Synchronisation of all proxies.
pub const SYNCZ: &str = "istio.io/debug/syncz";
/// What one proxy should have.
pub const CONFIG_DUMP: &str = "istio.io/debug/config_dump";

const PORT: u16 = 15012;
const AUDIENCE: &str = "istio-ca";
const TIMEOUT: Duration = Duration::from_secs(30);

/// The answer of one control plane.
#[derive(Debug)]
pub struct Answer {
    /// Who answered, as JSON: `Component`, `ID`, `Info`.
    pub identifier: Value,
    /// The response.
    pub response: DiscoveryResponse,
}

impl Answer {
    /// The name of the instance.
    pub fn id(&self) -> &str {
        self.identifier["ID"].as_str().unwrap_or("MISSING")
    }
}

/// Asks every running control plane.
///
/// # Errors
/// When there is none or one cannot be asked.
pub async fn ask_all(mesh: &Mesh, type_url: &str, names: &[String]) -> Result<Vec<Answer>> {
    let namespace = &mesh.istio_namespace;
    let pods = mesh.control_planes().await?;
    if pods.is_empty() {
        bail!("no running Istio pods in {namespace:?}");
    }
    let roots = mesh
        .client
        .get(&CONFIG_MAPS, Some(namespace), "istio-ca-root-cert")
        .await?;
    let roots = roots["data"]["root-cert.pem"]
        .as_str()
        .context("no root-cert.pem")?
        .to_owned();
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": [AUDIENCE], "expirationSeconds": 3600},
    });
    let token = mesh
        .client
        .create_sub(
            &SERVICE_ACCOUNTS,
            Some(namespace),
            "default",
            "token",
            &request,
        )
        .await
        .map_err(|error| {
            anyhow!("failed to create RPC credentials for \"default.{namespace}\": {error}")
        })?;
    let token = token["status"]["token"]
        .as_str()
        .context("no token")?
        .to_owned();
    let mut answers = Vec::new();
    for pod in pods {
        let name = api::meta::name(&pod);
        let asked = ask(mesh, name, &roots, &token, type_url, names);
        let answer = match tokio::time::timeout(TIMEOUT, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(anyhow!("no answer within {} s", TIMEOUT.as_secs())),
        };
        answers.push(answer.map_err(|error| {
            anyhow!("could not get XDS from discovery pod {name:?}: {error:#}")
        })?);
    }
    Ok(answers)
}

async fn ask(
    mesh: &Mesh,
    pod: &str,
    roots: &str,
    token: &str,
    type_url: &str,
    names: &[String],
) -> Result<Answer> {
    let namespace = &mesh.istio_namespace;
    let trust = pki::tls::ServerTrust::Name {
        roots_pem: roots.to_owned(),
    };
    let tls = pki::tls::client_config(runtime::tls::provider(), &trust, None, &[pki::tls::HTTP2])?;
    let name = rustls_pki_types::ServerName::try_from(format!("istiod.{namespace}.svc"))?;
    let stream = mesh.connect_to(namespace, pod, PORT).await?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(tls))
        .connect(name, stream)
        .await?;
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = stream.take();
        async move { stream.ok_or_else(|| std::io::Error::other("the connection is over")) }
    });
    let channel = Endpoint::from_static("https://istiod")
        .connect_with_connector(connector)
        .await?;
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(usize::MAX);
    let node: Node = xds::json::from_value(
        json!({
            "id": format!("sidecar~0.0.0.0~istioctl.{namespace}~{namespace}.svc.cluster.local"),
            "metadata": {"GENERATOR": "event", "NAMESPACE": namespace, "SERVICE_ACCOUNT": "default"},
        }),
        true,
    )?;
    let first = DiscoveryRequest {
        node: Some(node),
        resource_names: names.to_vec(),
        type_url: type_url.to_owned(),
        ..DiscoveryRequest::default()
    };
    // The stream must stay open until the answer is there.
    let mut request = tonic::Request::new(stream::iter([first]).chain(stream::pending()));
    request
        .metadata_mut()
        .insert("authorization", format!("Bearer {token}").parse()?);
    let mut answers = client
        .stream_aggregated_resources(request)
        .await?
        .into_inner();
    let response = answers
        .message()
        .await?
        .context("the stream ended without an answer")?;
    let identifier = response
        .control_plane
        .as_ref()
        .map_or("", |instance| &instance.identifier);
    Ok(Answer {
        identifier: serde_json::from_str(identifier).unwrap_or_default(),
        response,
    })
}
