//! The node agent's HTTPS server, which the API server talks to: logs, exec, attach, port-forward,
//! figures.

mod channels;
mod forward;
mod forward_channels;
mod logs;
pub mod parsers;
mod spdy;
mod spdy_streams;
mod stats;
mod streaming;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pki::PeerIdentity;
use runtime::CancellationToken;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

use crate::engine::Engine;

/// Certificates of the server.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// PEM chain it presents.
    pub cert_pem: String,
    /// PEM key of the chain.
    pub key_pem: String,
    /// PEM bundle that signs its clients.
    pub client_ca_pem: String,
}

/// Whether a client may use the server: the API server's own certificate, or an administrator's.
pub(crate) fn authorized(peer: &PeerIdentity) -> bool {
    let user = peer.common_name.as_deref();
    matches!(
        user,
        Some("system:kube-apiserver" | "kube-apiserver-kubelet-client")
    ) || peer
        .organizations
        .iter()
        .any(|group| group == "system:masters")
}

fn router(engine: Arc<Engine>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/pods", get(stats::pods))
        .route("/stats/summary", get(stats::summary))
        .route(
            "/containerLogs/{namespace}/{pod}/{container}",
            get(logs::container_logs),
        )
        .route(
            "/exec/{namespace}/{pod}/{container}",
            get(streaming::exec).post(streaming::exec),
        )
        .route(
            "/attach/{namespace}/{pod}/{container}",
            get(streaming::attach).post(streaming::attach),
        )
        .route(
            "/portForward/{namespace}/{pod}",
            get(forward::port_forward).post(forward::port_forward),
        )
        .route("/run/{namespace}/{pod}/{container}", post(streaming::run))
        .layer(middleware::from_fn(authorize))
        .with_state(engine)
}

async fn authorize(request: Request, next: Next) -> Response {
    match request.extensions().get::<Arc<PeerIdentity>>() {
        Some(peer) if authorized(peer) => next.run(request).await,
        Some(peer) => {
            let user = peer.common_name.clone().unwrap_or_default();
            (
                StatusCode::FORBIDDEN,
                format!(
                    "Forbidden (user={user}, verb={}, resource=nodes)\n",
                    request.method()
                ),
            )
                .into_response()
        }
        None => (StatusCode::UNAUTHORIZED, "Unauthorized\n").into_response(),
    }
}

/// Serves on `listener` until `token` is cancelled.
///
/// # Errors
/// When the certificates are unusable.
pub async fn serve(
    listener: TcpListener,
    tls: &ServerTls,
    engine: Arc<Engine>,
    token: CancellationToken,
) -> Result<(), pki::Error> {
    let identity = pki::tls::Identity::from_pem(&tls.cert_pem, &tls.key_pem)?;
    let clients = pki::tls::ClientAuth::Required {
        roots_pem: tls.client_ca_pem.clone(),
    };
    // WebSockets need HTTP/1.1.
    let config = pki::tls::server_config(
        runtime::tls::provider(),
        identity,
        &clients,
        &[pki::tls::HTTP1],
    )?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let router = router(engine);
    loop {
        let (stream, from) = tokio::select! {
            () = token.cancelled() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(problem) => {
                    tracing::warn!(%problem, "kubelet server");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (acceptor, router, token) = (acceptor.clone(), router.clone(), token.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = connection(stream, from, acceptor, router) => {}
            }
        });
    }
}

async fn connection(
    stream: tokio::net::TcpStream,
    from: SocketAddr,
    acceptor: TlsAcceptor,
    router: Router,
) {
    let _ = stream.set_nodelay(true);
    let stream = match acceptor.accept(stream).await {
        Ok(stream) => stream,
        Err(problem) => {
            tracing::debug!(%problem, %from, "TLS handshake with the kubelet server");
            return;
        }
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let peer = certificates
        .and_then(|chain| chain.first())
        .and_then(|certificate| pki::peer_identity(certificate).ok())
        .map(Arc::new);
    let service =
        hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            if let Some(peer) = &peer {
                request.extensions_mut().insert(peer.clone());
            }
            router.clone().call(request)
        });
    let served = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await;
    if let Err(problem) = served {
        tracing::debug!(%problem, %from, "kubelet server connection");
    }
}

/// The state every handler gets.
pub(crate) type Shared = State<Arc<Engine>>;

/// All values of a query parameter, decoded.
pub(crate) fn query_values(query: &str, name: &str) -> Vec<String> {
    query
        .split('&')
        .filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key) == name).then(|| decode(value))
        })
        .collect()
}

/// Whether a boolean query parameter is set, as Go reads it.
pub(crate) fn query_flag(query: &str, name: &str) -> bool {
    query_values(query, name)
        .last()
        .is_some_and(|value| matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"))
}

fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let hex = |index: usize| {
            bytes
                .get(index)
                .and_then(|byte| char::from(*byte).to_digit(16))
        };
        match bytes[at] {
            b'+' => out.push(b' '),
            b'%' => match (hex(at + 1), hex(at + 2)) {
                (Some(high), Some(low)) => {
                    out.push((high * 16 + low) as u8);
                    at += 2;
                }
                _ => out.push(b'%'),
            },
            byte => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_parameters() {
        let query = "command=sh&command=-c&command=echo+%22a%26b%22&stdin=1&tty=false&x";
        assert_eq!(query_values(query, "command"), ["sh", "-c", "echo \"a&b\""]);
        assert!(query_flag(query, "stdin") && !query_flag(query, "tty") && !query_flag(query, "x"));
    }
}
