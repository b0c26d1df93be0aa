//! Host-facing sockets: each accepted connection is carried, byte for byte, to an address of the
//! small internet between the clusters. TLS ends behind it, never here.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use runtime::CancellationToken;
use tokio::net::TcpStream;

/// The first byte of a TLS connection: the content type "handshake" (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// How long a client may take to say its first byte on a port that speaks two protocols.
const FIRST_BYTE_LIMIT: Duration = Duration::from_secs(30);

/// How long one connection attempt into a cluster may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Where connections of one host-facing port go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Always the same address.
    Fixed(SocketAddr),
    /// TLS goes to one address, everything else to the other: told apart by the first byte, so
    /// that `http://` and `https://` both work on one port.
    ByFirstByte {
        /// For connections that begin with a TLS handshake.
        tls: SocketAddr,
        /// For all others.
        plain: SocketAddr,
    },
}

impl Target {
    /// The address for a connection that began with `first` (`None`: the client sent nothing).
    #[must_use]
    pub fn address(&self, first: Option<u8>) -> SocketAddr {
        match *self {
            Self::Fixed(address) => address,
            Self::ByFirstByte { tls, .. } if first == Some(TLS_HANDSHAKE) => tls,
            Self::ByFirstByte { plain, .. } => plain,
        }
    }
}

/// Binds `port` on the loopback addresses of the host: IPv4 and, where the host has it, IPv6, since
/// `*.localhost` names resolve to both. Port 0 means any free port, the same for both.
///
/// # Errors
/// When the IPv4 address cannot be bound.
pub fn bind_loopback(port: u16) -> io::Result<Vec<TcpListener>> {
    let v4 = TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), port))?;
    let port = v4.local_addr()?.port();
    let mut listeners = vec![v4];
    if let Ok(v6) = TcpListener::bind((IpAddr::V6(Ipv6Addr::LOCALHOST), port)) {
        listeners.push(v6);
    }
    for listener in &listeners {
        listener.set_nonblocking(true)?;
    }
    Ok(listeners)
}

/// Serves one listener until `token` is cancelled.
///
/// # Errors
/// When the listener cannot be used by the runtime.
pub async fn serve(
    listener: TcpListener,
    target: Target,
    token: CancellationToken,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let target = Arc::new(target);
    loop {
        let accepted = tokio::select! {
            () = token.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((client, _)) => {
                let target = target.clone();
                let token = token.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = token.cancelled() => {}
                        result = carry(client, &target) => {
                            if let Err(error) = result {
                                tracing::debug!(%error, "relayed connection ended");
                            }
                        }
                    }
                });
            }
            // Out of descriptors: the next connection may fare better than a tight loop.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn carry(mut client: TcpStream, target: &Target) -> io::Result<()> {
    client.set_nodelay(true)?;
    let first = match target {
        Target::Fixed(_) => None,
        Target::ByFirstByte { .. } => {
            let mut byte = [0];
            let read = tokio::time::timeout(FIRST_BYTE_LIMIT, client.peek(&mut byte)).await??;
            (read == 1).then_some(byte[0])
        }
    };
    let address = target.address(first);
    let mut upstream = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(address)).await??;
    upstream.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn answering(text: &'static str) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut byte = [0];
                let _ = stream.read_exact(&mut byte).await;
                let _ = stream.write_all(text.as_bytes()).await;
            }
        });
        address
    }

    async fn ask(address: SocketAddr, first: u8) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&[first]).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn one_port_tells_tls_from_plain_text_by_the_first_byte() {
        let target = Target::ByFirstByte {
            tls: answering("tls").await,
            plain: answering("plain").await,
        };
        let listener = bind_loopback(0).unwrap().remove(0);
        let address = listener.local_addr().unwrap();
        let token = CancellationToken::new();
        let server = tokio::spawn(serve(listener, target, token.clone()));
        assert_eq!(ask(address, TLS_HANDSHAKE).await, "tls");
        assert_eq!(ask(address, b'G').await, "plain");
        token.cancel();
        server.await.unwrap().unwrap();
    }
}
