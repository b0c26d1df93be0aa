//! A small Kubernetes API over TLS: it gives whatever a test puts there to whoever has the token.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::http::{Request, Response};
use base64::Engine;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const TOKEN: &str = "test-token";

type Objects = Arc<Mutex<HashMap<String, Value>>>;

pub struct KubeApi {
    objects: Objects,
    port: u16,
    certificate: String,
    directory: TempDir,
}

impl KubeApi {
    pub async fn start() -> Self {
        let certified =
            rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![certified.cert.der().clone()],
                PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("a key"),
            )
            .expect("a configuration");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let objects = Objects::default();
        tokio::spawn(accept(
            listener,
            TlsAcceptor::from(Arc::new(config)),
            objects.clone(),
        ));
        Self {
            objects,
            port,
            certificate: certified.cert.pem(),
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    /// Puts the items of a list at a path.
    pub fn put(&self, path: &str, items: Value) {
        let list = json!({"kind": "List", "items": items});
        self.objects.lock().unwrap().insert(path.into(), list);
    }

    /// A kubeconfig that leads here, with this token or the right one.
    pub fn kubeconfig(&self, token: Option<&str>) -> PathBuf {
        let encoded = base64::engine::general_purpose::STANDARD.encode(&self.certificate);
        let token = token.unwrap_or(TOKEN);
        let config = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             contexts:\n- name: test\n  context: {{cluster: here, user: me}}\n\
             clusters:\n- name: here\n  cluster:\n    server: https://127.0.0.1:{}\n    certificate-authority-data: {encoded}\n\
             users:\n- name: me\n  user: {{token: {token}}}\n",
            self.port
        );
        let path = self.directory.path().join(format!("kubeconfig-{token}"));
        std::fs::write(&path, config).expect("written");
        path
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, objects: Objects) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, objects) = (acceptor.clone(), objects.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let service = service_fn(move |request| answer(objects.clone(), request));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    objects: Objects,
    request: Request<Incoming>,
) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let authorization = request.headers().get("authorization");
    let allowed = authorization.is_some_and(|value| value == &format!("Bearer {TOKEN}"));
    let path = request.uri().path();
    let (status, body) = match objects.lock().unwrap().get(path) {
        _ if !allowed => (
            403,
            json!({"kind": "Status", "message": "forbidden: no such user"}),
        ),
        Some(list) => (200, list.clone()),
        None => (
            404,
            json!({"kind": "Status", "message": format!("nothing at {path}")}),
        ),
    };
    let response = Response::builder().status(status);
    Ok(response
        .body(Full::from(body.to_string()))
        .expect("a response"))
}

/// A VirtualService of one of the theater's services with these weights.
pub fn virtual_service(service: &str, ctx1: u64, ctx2: u64) -> Value {
    let route = |subset: &str, weight: u64| json!({"destination": {"host": service, "subset": subset}, "weight": weight});
    json!({
        "metadata": {"name": format!("{service}-vs")},
        "spec": {"hosts": [service], "http": [
            {"match": [{"headers": {"x-canary": {"exact": "true"}}}], "route": [route("ctx1", 100)]},
            {"route": [route("ctx1", ctx1), route("ctx2", ctx2)]},
        ]},
    })
}

/// A running pod of one of the theater's services.
pub fn pod(service: &str, node: &str, ready: bool) -> Value {
    json!({
        "metadata": {"name": format!("{service}-{node}-x"), "labels": {"app": service}},
        "spec": {"nodeName": node, "containers": [
            {"name": service, "ports": [{"containerPort": 8081}]}, {"name": "istio-proxy"}]},
        "status": {"phase": "Running", "containerStatuses": [
            {"ready": ready, "restartCount": 2, "state": {}}, {"ready": true, "restartCount": 0, "state": {}}]},
    })
}

pub const VIRTUAL_SERVICES: &str =
    "/apis/networking.istio.io/v1/namespaces/theater-msa/virtualservices";
pub const PODS: &str = "/api/v1/namespaces/theater-msa/pods";
