//! DNS over UDP and TCP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::Message;
use parking_lot::RwLock;
use runtime::CancellationToken;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::answer::{answer, in_zone, parse_question};
use super::table::Table;

/// The table in use; replaced as a whole.
pub type SharedTable = Arc<RwLock<Arc<Table>>>;

/// Where questions about other zones go. `None`: they have no answer (NXDOMAIN).
pub type Forward = Option<SocketAddr>;

/// Opens both sockets on the same address.
///
/// # Errors
/// When the address is taken or not ours.
pub async fn bind(address: SocketAddr) -> std::io::Result<(UdpSocket, TcpListener)> {
    let tcp = TcpListener::bind(address).await?;
    let udp = UdpSocket::bind(tcp.local_addr()?).await?;
    Ok((udp, tcp))
}

struct Server {
    table: SharedTable,
    forward: Forward,
    turn: AtomicUsize,
}

impl Server {
    /// The answer to one packet; `None` when none is due.
    async fn respond(&self, packet: &[u8], udp: bool) -> Option<Vec<u8>> {
        let question = match parse_question(packet) {
            Ok(question) => question,
            Err(refusal) => return refusal,
        };
        let table = self.table.read().clone();
        if let Some(upstream) = self.forward
            && !self.ours(&question, &table)
        {
            return forward(packet, upstream, udp).await;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        Some(answer(&table, &question, turn, udp))
    }

    fn ours(&self, question: &Message, table: &Table) -> bool {
        question
            .queries
            .first()
            .is_none_or(|query| in_zone(query, &table.zone))
    }
}

/// Serves until `token` is cancelled.
pub async fn serve(
    udp: UdpSocket,
    tcp: TcpListener,
    table: SharedTable,
    forward: Forward,
    token: CancellationToken,
) {
    let server = Arc::new(Server {
        table,
        forward,
        turn: AtomicUsize::new(0),
    });
    let udp = Arc::new(udp);
    let mut buffer = vec![0; 4096];
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            received = udp.recv_from(&mut buffer) => {
                // An unreachable client of an earlier answer shows up as an error here: go on.
                let Ok((length, from)) = received else { continue };
                let packet = buffer[..length].to_vec();
                if server.forward.is_none() {
                    if let Some(response) = server.respond(&packet, true).await {
                        let _ = udp.send_to(&response, from).await;
                    }
                    continue;
                }
                let (server, udp) = (server.clone(), udp.clone());
                tokio::spawn(async move {
                    if let Some(response) = server.respond(&packet, true).await {
                        let _ = udp.send_to(&response, from).await;
                    }
                });
            }
            accepted = tcp.accept() => {
                if let Ok((stream, _)) = accepted {
                    let server = server.clone();
                    let token = token.clone();
                    tokio::spawn(async move {
                        tokio::select! {
                            () = token.cancelled() => {}
                            _ = connection(stream, &server) => {}
                        }
                    });
                }
            }
        }
    }
}

async fn connection(mut stream: TcpStream, server: &Server) -> std::io::Result<()> {
    loop {
        let idle = Duration::from_secs(10);
        let length = tokio::time::timeout(idle, stream.read_u16()).await??;
        let mut packet = vec![0; usize::from(length)];
        tokio::time::timeout(idle, stream.read_exact(&mut packet)).await??;
        let Some(response) = server.respond(&packet, false).await else {
            return Ok(());
        };
        let length = u16::try_from(response.len()).unwrap_or(u16::MAX);
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&response[..usize::from(length)]);
        stream.write_all(&framed).await?;
    }
}

/// Passes a packet on and returns what comes back within two seconds.
async fn forward(packet: &[u8], upstream: SocketAddr, udp: bool) -> Option<Vec<u8>> {
    let exchange = async {
        if udp {
            let socket = UdpSocket::bind("0.0.0.0:0").await?;
            socket.connect(upstream).await?;
            socket.send(packet).await?;
            let mut buffer = vec![0; 4096];
            let length = socket.recv(&mut buffer).await?;
            buffer.truncate(length);
            return std::io::Result::Ok(buffer);
        }
        let mut stream = TcpStream::connect(upstream).await?;
        let length = u16::try_from(packet.len()).unwrap_or(u16::MAX);
        stream.write_all(&length.to_be_bytes()).await?;
        stream.write_all(packet).await?;
        let length = stream.read_u16().await?;
        let mut buffer = vec![0; usize::from(length)];
        stream.read_exact(&mut buffer).await?;
        Ok(buffer)
    };
    match tokio::time::timeout(Duration::from_secs(2), exchange).await {
        Ok(Ok(response)) => Some(response),
        _ => {
            let id = u16::from_be_bytes([packet[0], packet[1]]);
            use hickory_proto::op::{OpCode, ResponseCode};
            Message::error_msg(id, OpCode::Query, ResponseCode::ServFail)
                .to_vec()
                .ok()
        }
    }
}
