//! Connections to the TLS port: the handshake, and who the other side is.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::authenticate::Transport;
use crate::identity::Caller;

/// A client that does not finish its handshake in this time is dropped.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// A connection that is ready for messages, and how it came.
pub struct Connection<S> {
    stream: S,
    transport: Transport,
}

/// A connection with a finished handshake.
pub type TlsConnection = Connection<TlsStream<TcpStream>>;

/// A connection without TLS.
pub type PlainConnection = Connection<TcpStream>;

impl<S> Connected for Connection<S> {
    type ConnectInfo = Transport;

    fn connect_info(&self) -> Transport {
        self.transport.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Connections of a listener without TLS.
pub fn plain(listener: TcpListener) -> impl Stream<Item = io::Result<PlainConnection>> {
    futures::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| {
            // Small messages must not wait for one another; failing to say so costs only time.
            let _ = stream.set_nodelay(true);
            Connection {
                stream,
                transport: Transport::Plaintext,
            }
        });
        Some((accepted, listener))
    })
}

/// Connections of a listener after their handshakes, which run side by side.
pub fn tls(
    listener: TcpListener,
    config: Arc<rustls::ServerConfig>,
) -> impl Stream<Item = io::Result<TlsConnection>> {
    let acceptor = TlsAcceptor::from(config);
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            tokio::spawn(async move {
                match handshake(&acceptor, stream).await {
                    // Nobody listens any more when the server is stopping.
                    Ok(connection) => drop(sender.send(Ok(connection)).await),
                    Err(error) => refused(from, &error),
                }
            });
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

fn refused(from: SocketAddr, error: &io::Error) {
    tracing::info!(%from, %error, "TLS handshake failed");
}

async fn handshake(acceptor: &TlsAcceptor, stream: TcpStream) -> io::Result<TlsConnection> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await??;
    let caller = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .and_then(|leaf| pki::peer_identity(leaf).ok())
        .and_then(|identity| identity.spiffe_ids().next().as_ref().map(Caller::of_spiffe));
    Ok(Connection {
        stream,
        transport: Transport::Tls(caller),
    })
}
