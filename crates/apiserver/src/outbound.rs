//! Requests the server makes itself: to webhooks and to kubelets.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::http_types::BoxError;

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
    let tcp = TcpStream::connect(peer.address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(peer.name.clone())?;
    let tls = TlsConnector::from(peer.tls.clone())
        .connect(name, tcp)
        .await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
    tokio::spawn(async move {
        if let Err(e) = connection.with_upgrades().await {
            tracing::debug!(error = %e, "an outbound connection ended");
        }
    });
    Ok(sender.send_request(request).await?)
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
