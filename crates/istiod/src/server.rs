//! The running control plane: its listeners and what answers behind them.

use std::future::IntoFuture;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::StreamExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use kube_client::Client;
use pki::tls::{ClientAuth, HTTP1, HTTP2, Identity};
use runtime::CancellationToken;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::server::Router as GrpcRouter;
use xds::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use xds::istio::v1::auth::istio_certificate_service_server::IstioCertificateServiceServer;

use crate::ads::stream::{Ads, Connections};
use crate::authenticate::Authenticator;
use crate::ca::CertificateAuthority;
use crate::ca_service::CaService;
use crate::clusters::Clusters;
use crate::debug::{self, Debug};
use crate::webhook::inject::{self, Injection};
use crate::webhook::review::{self, Verdict};
use crate::webhook::{registration, validate};
use crate::world::{self, Mesh};
use crate::{ingress_status, jwks, root_cert, tls_stream};

/// Ports of the control plane; 0 means any free one.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// xDS without TLS and without authentication.
    pub plaintext: u16,
    /// xDS and CA over TLS.
    pub tls: u16,
    /// Webhooks over TLS.
    pub webhooks: u16,
    /// `/metrics`, `/version`, `/debug/*`.
    pub monitoring: u16,
    /// `/ready`, `/debug/*`.
    pub http: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            plaintext: 15010,
            tls: 15012,
            webhooks: 15017,
            monitoring: 15014,
            http: 8080,
        }
    }
}

/// What a control plane needs to know.
pub struct Config {
    /// The API server of its cluster.
    pub client: Client,
    /// Its namespace.
    pub namespace: String,
    /// The cluster's id in the mesh, if it has one.
    pub cluster: Option<String>,
    /// The cluster's network, if there are several.
    pub network: Option<String>,
    /// Id of the mesh.
    pub mesh_id: String,
    /// Trust domain of identities.
    pub trust_domain: String,
    /// Domain of Kubernetes services.
    pub domain: String,
    /// Its revision.
    pub revision: String,
    /// Image given to sidecars.
    pub proxy_image: String,
    /// Where the Secret `cacerts` is mounted.
    pub cacerts: PathBuf,
    /// Ports.
    pub ports: Ports,
    /// Address to listen on.
    pub address: IpAddr,
}

impl Config {
    /// A configuration with the field's defaults.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            namespace: "istio-system".into(),
            cluster: None,
            network: None,
            mesh_id: "cluster.local".into(),
            trust_domain: "cluster.local".into(),
            domain: "cluster.local".into(),
            revision: "default".into(),
            proxy_image: "docker.io/istio/proxyv2:1.31.0".into(),
            cacerts: "/etc/cacerts".into(),
            ports: Ports::default(),
            address: Ipv4Addr::UNSPECIFIED.into(),
        }
    }
}

/// Runs the control plane until `token` is cancelled.
///
/// # Errors
/// When a port cannot be opened or the authority cannot be used.
pub async fn run(config: Config, token: CancellationToken) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let authority = Arc::new(CertificateAuthority::load(
        &config.cacerts,
        &config.trust_domain,
        now,
    )?);
    let own = authority.own(&config.namespace, now)?;
    let identity = Identity::from_pem(&own.chain_pem, &own.key_pem)?;
    let root = authority.root_pem().to_owned();
    let provider = runtime::tls::provider();
    let xds_tls = pki::tls::server_config(
        provider.clone(),
        identity.clone(),
        &ClientAuth::Optional {
            roots_pem: root.clone(),
        },
        &[HTTP2],
    )?;
    let webhook_tls =
        pki::tls::server_config(provider, identity, &ClientAuth::None, &[HTTP2, HTTP1])?;

    let id = config.cluster.as_deref().unwrap_or("Kubernetes");
    let clusters = Clusters::start(config.client.clone(), id, &config.namespace, &token);
    let authenticator = Arc::new(Authenticator::new(vec![config.client.clone()]));
    let (worlds_out, worlds) = watch::channel(None::<Arc<Mesh>>);
    let connections = Arc::new(Connections::default());
    let ads = Ads::new(worlds.clone(), authenticator.clone(), connections.clone());
    let ca = CaService::new(authority.clone(), authenticator.clone());

    let bind = |port: u16| async move {
        TcpListener::bind((config.address, port))
            .await
            .with_context(|| format!("cannot listen on port {port}"))
    };
    let plaintext = bind(config.ports.plaintext).await?;
    let tls = bind(config.ports.tls).await?;
    let webhooks = bind(config.ports.webhooks).await?;
    let monitoring = bind(config.ports.monitoring).await?;
    let http = bind(config.ports.http).await?;

    let injection = Arc::new(Injection {
        image: config.proxy_image.clone(),
        cluster: config.cluster.clone(),
        network: config.network.clone(),
        mesh_id: config.mesh_id.clone(),
        trust_domain: config.trust_domain.clone(),
        revision: config.revision.clone(),
    });
    let debug = debug::routes(Debug {
        worlds: worlds.clone(),
        connections,
        clusters: clusters.clone(),
    });

    tokio::spawn(registration::register(
        config.client.clone(),
        config.namespace.clone(),
        root.clone(),
        token.clone(),
    ));
    tokio::spawn(root_cert::follow(
        config.client.clone(),
        clusters.clone(),
        root,
        token.clone(),
    ));
    tokio::spawn({
        let (clusters, token) = (clusters.clone(), token.clone());
        async move { token.run_until_cancelled(jwks::follow(clusters)).await }
    });
    tokio::spawn({
        let (client, clusters, token) = (config.client.clone(), clusters.clone(), token.clone());
        let follow = ingress_status::follow(client, clusters);
        async move { token.run_until_cancelled(follow).await }
    });
    let grpc = |with_ca: bool| -> GrpcRouter {
        let router = tonic::transport::Server::builder()
            .add_service(AggregatedDiscoveryServiceServer::new(ads.clone()));
        if with_ca {
            router.add_service(IstioCertificateServiceServer::new(ca.clone()))
        } else {
            router
        }
    };
    tracing::info!(cluster = id, "istiod listening");
    tokio::select! {
        () = token.cancelled() => Ok(()),
        result = grpc(false).serve_with_incoming(tls_stream::plain(plaintext)) => Ok(result?),
        result = grpc(true).serve_with_incoming(tls_stream::tls(tls, Arc::new(xds_tls))) => Ok(result?),
        result = serve_https(webhooks, Arc::new(webhook_tls), webhook_routes(injection, worlds)) => Ok(result?),
        result = axum::serve(monitoring, debug.clone()).into_future() => Ok(result?),
        result = axum::serve(http, debug).into_future() => Ok(result?),
        () = world::follow(clusters, authenticator, config.domain, worlds_out) => Ok(()),
    }
}

async fn serve_https(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    routes: Router,
) -> std::io::Result<()> {
    let mut connections = std::pin::pin!(tls_stream::tls(listener, tls));
    while let Some(connection) = connections.next().await {
        let service = TowerToHyperService::new(routes.clone());
        let connection = TokioIo::new(connection?);
        tokio::spawn(async move {
            let served = Builder::new(TokioExecutor::new())
                .serve_connection(connection, service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "webhook connection ended");
            }
        });
    }
    Ok(())
}

/// The current version of the mesh, once there is one.
type Worlds = watch::Receiver<Option<Arc<Mesh>>>;

fn webhook_routes(injection: Arc<Injection>, worlds: Worlds) -> Router {
    let validation = Router::new()
        .route("/validate", post(validated))
        .with_state(worlds);
    Router::new()
        .route("/inject", post(injected))
        .route("/inject/{*parameters}", post(injected))
        .route("/ready", get(|| async { "" }))
        .with_state(injection)
        .merge(validation)
}

async fn injected(
    State(injection): State<Arc<Injection>>,
    Json(review): Json<Value>,
) -> Result<Json<Value>, (StatusCode, String)> {
    review::answer(&review, |request| inject::decide(request, &injection))
        .map(Json)
        .map_err(|message| (StatusCode::BAD_REQUEST, message))
}

async fn validated(
    State(worlds): State<Worlds>,
    Json(review): Json<Value>,
) -> Result<Json<Value>, (StatusCode, String)> {
    let mesh = worlds.borrow().clone();
    review::answer(&review, |request| {
        let verdict = validate::decide(request, mesh.as_deref().map(Mesh::config));
        if let Verdict::Deny(why) = &verdict {
            let object = &request["object"];
            let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
            tracing::info!(%kind, %name, why, "object refused");
        }
        verdict
    })
    .map(Json)
    .map_err(|message| (StatusCode::BAD_REQUEST, message))
}
