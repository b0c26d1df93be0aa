//! Clients that ask as fast as they are answered, and an upstream that answers at once.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::program::{Side, pin};

/// What a load is made of.
#[derive(Debug, Clone)]
pub struct Load {
    pub at: SocketAddr,
    /// `host` of every request.
    pub host: String,
    pub path: String,
    pub connections: usize,
    /// Streams at a time of each connection over HTTP/2; 0 is HTTP/1.1.
    pub streams: usize,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Served {
    pub requests: usize,
    /// Answers other than 200, and connections that broke.
    pub failed: usize,
    /// Microseconds, sorted.
    latencies: Vec<u32>,
}

impl Served {
    /// A percentile of the latency, in microseconds.
    pub fn percentile(&self, percent: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let at = (last as f64 * percent / 100.0).round() as usize;
        self.latencies.get(at).copied().unwrap_or_default().into()
    }

    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.latencies.extend(other.latencies);
    }
}

/// Runs a load for a while, on a thread of its own.
pub fn run(load: &Load, time: Duration) -> Served {
    let load = load.clone();
    let thread = std::thread::spawn(move || {
        pin(Side::Load);
        runtime().block_on(async move {
            let end = Instant::now() + time;
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..load.connections {
                let load = load.clone();
                if load.streams == 0 {
                    tasks.spawn(http1(load, end));
                } else {
                    tasks.spawn(http2(load, end));
                }
            }
            let mut all = Served::default();
            while let Some(done) = tasks.join_next().await {
                all.add(done.unwrap());
            }
            all.latencies.sort_unstable();
            all
        })
    });
    thread.join().unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

async fn http1(load: Load, end: Instant) -> Served {
    let mut served = Served::default();
    let request = format!(
        "GET {} HTTP/1.1\r\nhost: {}\r\nuser-agent: bench/1.0\r\naccept: application/json\r\ncookie: session=0123456789abcdef\r\n\r\n",
        load.path, load.host
    );
    'connection: while Instant::now() < end {
        let Ok(mut stream) = TcpStream::connect(load.at).await else {
            served.failed += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let mut buffer = Vec::with_capacity(4096);
        while Instant::now() < end {
            let start = Instant::now();
            if stream.write_all(request.as_bytes()).await.is_err() {
                served.failed += 1;
                continue 'connection;
            }
            buffer.clear();
            loop {
                match stream.read_buf(&mut buffer).await {
                    Ok(n) if n > 0 => {}
                    _ => {
                        served.failed += 1;
                        continue 'connection;
                    }
                }
                if let Some(length) = whole(&buffer)
                    && buffer.len() >= length
                {
                    break;
                }
            }
            served.requests += 1;
            served.failed += usize::from(!buffer.starts_with(b"HTTP/1.1 200"));
            served.latencies.push(start.elapsed().as_micros() as u32);
        }
    }
    served
}

/// The length of the answer that begins a buffer, once its head is there. Answers here have a length and no chunks.
fn whole(buffer: &[u8]) -> Option<usize> {
    let end = buffer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&buffer[..end]).ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    Some(end + length.unwrap_or(0))
}

async fn http2(load: Load, end: Instant) -> Served {
    let stream = TcpStream::connect(load.at).await.unwrap();
    let _ = stream.set_nodelay(true);
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..load.streams {
        let (client, load) = (client.clone(), load.clone());
        tasks.spawn(async move {
            let mut served = Served::default();
            while Instant::now() < end {
                let start = Instant::now();
                let ok = ask(&client, &load).await.unwrap_or(false);
                served.requests += 1;
                served.failed += usize::from(!ok);
                served.latencies.push(start.elapsed().as_micros() as u32);
            }
            served
        });
    }
    let mut all = Served::default();
    while let Some(done) = tasks.join_next().await {
        all.add(done.unwrap());
    }
    driver.abort();
    all
}

async fn ask(client: &h2::client::SendRequest<Bytes>, load: &Load) -> Result<bool, h2::Error> {
    let mut client = client.clone().ready().await?;
    let request = http::Request::get(format!("http://{}{}", load.host, load.path))
        .header("user-agent", "bench/1.0")
        .header("accept", "application/json")
        .body(())
        .unwrap();
    let (answer, _) = client.send_request(request, true)?;
    let answer = answer.await?;
    let ok = answer.status() == 200;
    let mut body = answer.into_body();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    Ok(ok)
}

const BODY: &str = r#"{"users":[{"id":"user-1","name":"Kim","email":"kim@example.com"},{"id":"user-2","name":"Lee","email":"lee@example.com"},{"id":"user-3","name":"Park","email":"park@example.com"}]}"#;

/// Starts an upstream, for as long as the program runs; gives its address.
pub fn upstream(http2: bool) -> SocketAddr {
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        pin(Side::Load);
        runtime().block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            send.send(listener.local_addr().unwrap()).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                if http2 {
                    tokio::spawn(answer_http2(stream));
                } else {
                    tokio::spawn(answer_http1(stream));
                }
            }
        });
    });
    receive.recv().unwrap()
}

async fn answer_http1(mut stream: TcpStream) {
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-service-cluster: ctx1\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    let mut buffer = Vec::with_capacity(4096);
    while matches!(stream.read_buf(&mut buffer).await, Ok(n) if n > 0) {
        if buffer.ends_with(b"\r\n\r\n") {
            buffer.clear();
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

async fn answer_http2(stream: TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let answer = http::Response::builder()
            .header("content-type", "application/json")
            .header("x-service-cluster", "ctx1")
            .body(())
            .unwrap();
        if let Ok(mut body) = respond.send_response(answer, false) {
            let _ = body.send_data(Bytes::from_static(BODY.as_bytes()), true);
        }
    }
}
