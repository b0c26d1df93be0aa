//! Requests the server makes itself: to webhooks and to kubelets.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::http_types::{self, BoxError};

/// Where a request goes and how the other side proves itself.
pub(crate) struct Peer {
    pub address: SocketAddr,
    pub tls: Arc<rustls::ClientConfig>,
    /// The name its certificate must have.
    pub name: String,
}

/// Sends one HTTP/1.1 request over a connection of its own. The connection lives as long as
/// the answer's body (or the upgraded stream) does.
pub(crate) async fn send<B>(
    peer: &Peer,
    request: http::Request<B>,
) -> Result<Response<Incoming>, BoxError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Ok(connect(peer).await?.send_request(request).await?)
}

async fn connect<B>(peer: &Peer) -> Result<SendRequest<B>, BoxError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let tcp = TcpStream::connect(peer.address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(peer.name.clone())?;
    let tls = TlsConnector::from(peer.tls.clone())
        .connect(name, tcp)
        .await?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
    tokio::spawn(async move {
        if let Err(e) = connection.with_upgrades().await {
            tracing::debug!(error = %e, "an outbound connection ended");
        }
    });
    Ok(sender)
}

/// How long an idle connection is kept, and how many of them to one place: as the HTTP client of the real server has it.
const IDLE: Duration = Duration::from_secs(90);
const IDLE_CONNECTIONS: usize = 25;

/// A place that is asked again and again: its address, the name its certificate must have, the authority of that certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub address: SocketAddr,
    pub name: String,
    pub roots_pem: String,
}

/// Connections that are kept open between requests: a handshake for each would take longer than most webhooks do.
#[derive(Default)]
pub(crate) struct Pool(Mutex<HashMap<Place, Kept>>);

struct Kept {
    tls: Arc<rustls::ClientConfig>,
    idle: Vec<(SendRequest<http_types::Body>, Instant)>,
    used: Instant,
}

impl Pool {
    /// Sends the request that `request` makes and reads the answer, of at most `limit` bytes. A kept connection that turns out to be closed
    /// is no failure: the request is made again for a new one.
    pub async fn exchange(
        &self,
        place: &Place,
        limit: usize,
        request: impl Fn() -> Result<http::Request<http_types::Body>, http::Error>,
    ) -> Result<(StatusCode, Bytes), BoxError> {
        if let Some(mut sender) = self.idle(place).await
            && let Ok(answer) = sender.send_request(request()?).await
        {
            return self.read(place, sender, answer, limit).await;
        }
        let peer = Peer {
            address: place.address,
            tls: self.tls(place)?,
            name: place.name.clone(),
        };
        let mut sender = connect(&peer).await?;
        let answer = sender.send_request(request()?).await?;
        self.read(place, sender, answer, limit).await
    }

    async fn read(
        &self,
        place: &Place,
        sender: SendRequest<http_types::Body>,
        answer: Response<Incoming>,
        limit: usize,
    ) -> Result<(StatusCode, Bytes), BoxError> {
        let code = answer.status();
        let body = Limited::new(answer.into_body(), limit).collect().await?;
        let mut places = self.0.lock();
        let now = Instant::now();
        if let Some(kept) = places.get_mut(place) {
            kept.used = now;
            if kept.idle.len() < IDLE_CONNECTIONS {
                kept.idle.push((sender, now));
            }
        }
        // What nobody has used for so long goes, here where something is used.
        places.retain(|_, kept| {
            kept.idle
                .retain(|(sender, since)| !sender.is_closed() && now - *since < IDLE);
            now - kept.used < IDLE
        });
        Ok((code, body.to_bytes()))
    }

    /// The connection used last, if one is open.
    async fn idle(&self, place: &Place) -> Option<SendRequest<http_types::Body>> {
        loop {
            let (mut sender, since) = self.0.lock().get_mut(place)?.idle.pop()?;
            if since.elapsed() < IDLE && sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    fn tls(&self, place: &Place) -> Result<Arc<rustls::ClientConfig>, BoxError> {
        if let Some(kept) = self.0.lock().get(place) {
            return Ok(kept.tls.clone());
        }
        let trust = pki::tls::ServerTrust::Name {
            roots_pem: place.roots_pem.clone(),
        };
        let tls = pki::tls::client_config(runtime::tls::provider(), &trust, None, &[b"http/1.1"])?;
        let tls = Arc::new(tls);
        let kept = Kept {
            tls: tls.clone(),
            idle: Vec::new(),
            used: Instant::now(),
        };
        self.0.lock().insert(place.clone(), kept);
        Ok(tls)
    }
}

/// Why a request failed, with the causes that `Display` leaves out.
pub(crate) fn explain(e: &BoxError) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(inner) = source {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = inner.source();
    }
    text
}
