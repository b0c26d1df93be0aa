//! A server in a directory of its own, and clients that speak real HTTPS to it.
#![allow(dead_code, missing_docs)] // each test file uses its part

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use runtime::CancellationToken;
use serde_json::Value;
use theater_apiserver::{Config, Handle, KubeletAccess};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Longest wait for anything in a test: far more than a busy machine takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Certificates that outlive one server process.
pub struct Credentials {
    pub ca: pki::Authority,
    pub sa_key: String,
}

impl Credentials {
    pub fn new() -> Self {
        Self {
            ca: pki::Authority::new_root("test", "test", SystemTime::now(), 10).unwrap(),
            sa_key: pki::KeyPair::generate().unwrap().to_pem(),
        }
    }

    pub fn issue(&self, user: &str, groups: &[&str]) -> pki::Issued {
        let validity =
            pki::Validity::starting(SystemTime::now(), YEAR).backdated(Duration::from_secs(60));
        self.ca
            .issue(&pki::CertRequest::client(user, groups, validity))
            .unwrap()
    }

    fn serving(&self) -> pki::Issued {
        let validity =
            pki::Validity::starting(SystemTime::now(), YEAR).backdated(Duration::from_secs(60));
        let local = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
        self.ca
            .issue(&pki::CertRequest::server(
                "kube-apiserver",
                &["localhost"],
                &local,
                validity,
            ))
            .unwrap()
    }

    /// Starts a server over `dir`.
    pub async fn start(&self, dir: &Path, token: CancellationToken) -> Handle {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let serving = self.serving();
        let kubelet = self.issue("kubelet-client", &["system:masters"]);
        let config = Config {
            cluster: "test".into(),
            data_dir: dir.to_owned(),
            advertise: listener.local_addr().unwrap(),
            listener,
            serving_cert_pem: serving.chain_pem,
            serving_key_pem: serving.key_pem,
            client_ca_pem: self.ca.root_pem().to_owned(),
            service_account_key_pem: self.sa_key.clone(),
            issuer: theater_apiserver::DEFAULT_ISSUER.into(),
            service_cidr: "10.97.0.0/16".into(),
            load_balancer_pool: "203.0.113.10".parse().unwrap()..="203.0.113.12".parse().unwrap(),
            node_ports: 30000..=32767,
            kubelet: Some(KubeletAccess {
                cert_pem: kubelet.chain_pem,
                key_pem: kubelet.key_pem,
                ca_pem: self.ca.root_pem().to_owned(),
                port: 1,
            }),
        };
        theater_apiserver::run(config, token).await.unwrap()
    }

    pub fn client(&self, address: SocketAddr, user: &str, groups: &[&str]) -> Client {
        let issued = self.issue(user, groups);
        let identity = pki::tls::Identity::from_pem(&issued.chain_pem, &issued.key_pem).unwrap();
        Client::new(address, self.ca.root_pem(), Some(identity))
    }

    /// A TLS acceptor for something the server calls.
    pub fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        let s = self.serving();
        let identity = pki::tls::Identity::from_pem(&s.chain_pem, &s.key_pem).unwrap();
        let config = pki::tls::server_config(
            runtime::tls::provider(),
            identity,
            &pki::tls::ClientAuth::None,
            &[pki::tls::HTTP1],
        )
        .unwrap();
        Arc::new(config).into()
    }
}

/// A running server with its directory.
pub struct World {
    pub credentials: Credentials,
    pub dir: tempfile::TempDir,
    pub address: SocketAddr,
    pub token: CancellationToken,
    pub handle: Option<Handle>,
}

impl World {
    pub async fn new() -> Self {
        let credentials = Credentials::new();
        let dir = tempfile::tempdir().unwrap();
        let token = CancellationToken::new();
        let handle = credentials.start(dir.path(), token.clone()).await;
        Self {
            address: handle.address(),
            credentials,
            dir,
            token,
            handle: Some(handle),
        }
    }

    pub fn admin(&self) -> Client {
        self.credentials
            .client(self.address, "admin", &["system:masters"])
    }

    pub fn user(&self, name: &str) -> Client {
        self.credentials.client(self.address, name, &[])
    }

    /// Stops the server and starts it again over the same directory.
    pub async fn restart(&mut self) {
        self.token.cancel();
        self.handle.take().unwrap().stopped().await;
        self.token = CancellationToken::new();
        let handle = self
            .credentials
            .start(self.dir.path(), self.token.clone())
            .await;
        self.address = handle.address();
        self.handle = Some(handle);
    }

    pub fn kubeconfig(&self) -> PathBuf {
        use base64::Engine as _;
        let b64 = |t: &str| base64::engine::general_purpose::STANDARD.encode(t);
        let issued = self.credentials.issue("admin", &["system:masters"]);
        let path = self.dir.path().join("kubeconfig");
        let text = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "t",
            "clusters": [{"name": "t", "cluster": {"server": format!("https://{}", self.address),
                "certificate-authority-data": b64(self.credentials.ca.root_pem())}}],
            "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
            "users": [{"name": "t", "user": {"client-certificate-data": b64(&issued.chain_pem), "client-key-data": b64(&issued.key_pem)}}],
        });
        std::fs::write(&path, text.to_string()).unwrap();
        path
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    pub token: Option<String>,
}

impl Client {
    pub fn new(address: SocketAddr, ca: &str, identity: Option<pki::tls::Identity>) -> Self {
        let trust = pki::tls::ServerTrust::Name {
            roots_pem: ca.to_owned(),
        };
        let tls = pki::tls::client_config(
            runtime::tls::provider(),
            &trust,
            identity,
            &[pki::tls::HTTP1],
        )
        .unwrap();
        Self {
            address,
            tls: Arc::new(tls),
            token: None,
        }
    }

    /// A connection of its own, to write to and read from as one likes.
    pub async fn raw(&self) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
        let tcp = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let name = rustls::pki_types::ServerName::from(self.address.ip());
        tokio_rustls::TlsConnector::from(self.tls.clone())
            .connect(name, tcp)
            .await
            .unwrap()
    }

    pub async fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> http::Response<Incoming> {
        let tls = TokioIo::new(self.raw().await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(tls).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string());
        for (k, v) in headers {
            request = request.header(*k, *v);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        sender
            .send_request(
                request
                    .body(Full::<bytes::Bytes>::new(body.into()))
                    .unwrap(),
            )
            .await
            .unwrap()
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> (u16, Value) {
        let answer = self
            .open(
                method,
                path,
                &[("content-type", content_type)],
                body.to_vec(),
            )
            .await;
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let value = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into());
        (code, value)
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", path, "", b"").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send(
            "POST",
            path,
            "application/json",
            body.to_string().as_bytes(),
        )
        .await
    }

    pub async fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send("PUT", path, "application/json", body.to_string().as_bytes())
            .await
    }

    pub async fn merge(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send(
            "PATCH",
            path,
            "application/merge-patch+json",
            body.to_string().as_bytes(),
        )
        .await
    }

    pub async fn delete(&self, path: &str) -> (u16, Value) {
        self.send("DELETE", path, "", b"").await
    }

    pub async fn watch(&self, path: &str) -> Lines {
        let answer = self.open("GET", path, &[], Vec::new()).await;
        assert_eq!(answer.status(), 200, "{path}");
        Lines {
            body: answer.into_body(),
            buffer: Vec::new(),
        }
    }
}

/// The events of a watch.
pub struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    /// The next event; `None` when the stream ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame())
                .await
                .expect("an event within a minute")?;
            if let Ok(data) = frame.ok()?.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }

    /// Type and name of the next event.
    pub async fn named(&mut self) -> (String, String) {
        let e = self.next().await.expect("an event");
        let name = e["object"]["metadata"]["name"]
            .as_str()
            .unwrap_or("")
            .to_owned();
        (e["type"].as_str().unwrap().to_owned(), name)
    }
}

/// Asks until the answer is yes, for a minute.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !ask().await {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub type Answer = http::Response<Full<Bytes>>;

/// Serves HTTPS on a free port of the loopback interface, until the world ends.
pub async fn serve<F, R, B>(
    w: &World,
    acceptor: tokio_rustls::TlsAcceptor,
    handler: F,
) -> SocketAddr
where
    F: Fn(http::Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = http::Response<B>> + Send,
    B: hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let handler = Arc::new(handler);
    let token = w.token.clone();
    tokio::spawn(async move {
        loop {
            let stream = tokio::select! {
                s = listener.accept() => s.unwrap().0,
                () = token.cancelled() => return,
            };
            let (acceptor, handler) = (acceptor.clone(), handler.clone());
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(stream).await else {
                    return;
                };
                let service = hyper::service::service_fn(move |r| {
                    let handler = handler.clone();
                    async move { Ok::<_, Infallible>(handler(r).await) }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(tls), service)
                    .with_upgrades()
                    .await;
            });
        }
    });
    address
}
