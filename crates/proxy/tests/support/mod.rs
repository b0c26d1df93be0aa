//! A proxy in this process, raw clients and small backends on loopback.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use proxy::server::{Options, Proxy};

/// How long anything here may take.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A proxy from a bootstrap, ended when dropped.
pub struct Running {
    pub proxy: Arc<Proxy>,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts a proxy from YAML.
    pub fn start(yaml: &str) -> Self {
        Self::try_start(yaml).unwrap_or_else(|error| panic!("the proxy does not start: {error}"))
    }

    /// Starts a proxy from YAML, or says why not.
    pub fn try_start(yaml: &str) -> Result<Self, String> {
        Self::try_start_with(yaml, Options::default())
    }

    /// The same, with options.
    pub fn try_start_with(yaml: &str, options: Options) -> Result<Self, String> {
        let bootstrap = proxy::bootstrap::parse(yaml)?;
        let (ready, wait) = mpsc::channel();
        let (end, ended) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                match Proxy::start(bootstrap, &options, None) {
                    Ok(proxy) => {
                        ready.send(Ok(proxy.clone())).unwrap();
                        let _ = ended.await;
                        proxy.shutdown();
                    }
                    Err(error) => ready.send(Err(error)).unwrap(),
                }
            });
        });
        let proxy = wait.recv().unwrap()?;
        Ok(Self {
            proxy,
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// Where a listener is.
    pub fn address(&self, listener: &str) -> SocketAddr {
        self.proxy
            .manager
            .listening(listener)
            .expect("the listener is open")
    }

    /// Where the admin interface is.
    pub fn admin(&self) -> SocketAddr {
        self.proxy.admin.expect("there is an admin interface")
    }

    /// The text of an admin page.
    pub fn page(&self, path: &str) -> String {
        get(self.admin(), path, "").body
    }

    /// Waits until the statistics say all of this: an answer may be read before all of it is counted.
    pub fn counts(&self, lines: &[&str]) {
        let start = Instant::now();
        loop {
            let stats = self.page("/stats");
            let missing = lines
                .iter()
                .find(|line| !stats.lines().any(|is| is == **line));
            let Some(line) = missing else { return };
            assert!(start.elapsed() < DEADLINE, "{line} is not in\n{stats}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An answer, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Sends bytes and reads one answer.
pub fn exchange(address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = connect(address);
    stream.write_all(request).unwrap();
    read_answer(&mut stream).expect("an answer")
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// `GET path` with further header lines (each ending in CRLF).
pub fn get(address: SocketAddr, path: &str, headers: &str) -> Answer {
    exchange(
        address,
        format!("GET {path} HTTP/1.1\r\nHost: test.local\r\n{headers}\r\n").as_bytes(),
    )
}

/// Reads one answer; `None` when the connection ends first.
pub fn read_answer(stream: &mut TcpStream) -> Option<Answer> {
    read_answer_to(stream, false)
}

/// The same for an answer to HEAD, which has no body whatever its head says.
pub fn read_answer_to(stream: &mut TcpStream, is_head: bool) -> Option<Answer> {
    let mut data = Vec::new();
    let mut chunk = [0u8; 4096];
    let end = loop {
        if let Some(at) = find(&data, b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut chunk) {
            Ok(n) if n > 0 => data.extend_from_slice(&chunk[..n]),
            _ => return None,
        }
    };
    let head = String::from_utf8_lossy(&data[..end]).into_owned();
    let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
    let mut body = data[end..].to_vec();
    let lower = head.to_ascii_lowercase();
    if is_head || status / 100 == 1 {
        body.clear();
    } else if lower.contains("transfer-encoding: chunked") {
        while find(&body, b"0\r\n\r\n").is_none() {
            match stream.read(&mut chunk) {
                Ok(n) if n > 0 => body.extend_from_slice(&chunk[..n]),
                _ => break,
            }
        }
        body = dechunk(&body);
    } else if let Some(length) = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok())
    {
        let length: usize = length;
        while body.len() < length {
            match stream.read(&mut chunk) {
                Ok(n) if n > 0 => body.extend_from_slice(&chunk[..n]),
                _ => break,
            }
        }
    }
    Some(Answer {
        status,
        head,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

fn dechunk(mut data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(at) = find(data, b"\r\n") {
        let size =
            usize::from_str_radix(std::str::from_utf8(&data[..at]).unwrap_or("0"), 16).unwrap_or(0);
        if size == 0 || data.len() < at + 2 + size {
            break;
        }
        out.extend_from_slice(&data[at + 2..at + 2 + size]);
        data = &data[at + 2 + size + 2..];
    }
    out
}

pub fn find(data: &[u8], what: &[u8]) -> Option<usize> {
    data.windows(what.len()).position(|window| window == what)
}

/// A request as a backend sees it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub head: String,
    pub body: Vec<u8>,
}

/// An HTTP/1 backend. The handler gives raw bytes; an empty answer closes the connection.
pub struct Backend {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    pub connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Backend {
    pub fn start(handler: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let connections: Arc<AtomicUsize> = Arc::default();
        let stop: Arc<AtomicBool> = Arc::default();
        let handler = Arc::new(handler);
        let (all, counter, ending) = (seen.clone(), connections.clone(), stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ending.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { return };
                counter.fetch_add(1, Ordering::Relaxed);
                let (handler, all) = (handler.clone(), all.clone());
                std::thread::spawn(move || serve(stream, &*handler, &all));
            }
        });
        Self {
            address,
            seen,
            connections,
            stop,
        }
    }

    /// Answers when the other end of the channel is dropped.
    pub fn held(body: &'static str) -> (Self, mpsc::Sender<()>) {
        let (release, held) = mpsc::channel();
        let held = Mutex::new(held);
        let backend = Self::start(move |_| {
            let _ = held.lock().unwrap().recv();
            ok(body)
        });
        (backend, release)
    }

    /// Answers everything with 200 and this body.
    pub fn saying(body: &'static str) -> Self {
        Self::start(move |_| ok(body))
    }

    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut stream: TcpStream, handler: &dyn Fn(&Seen) -> Vec<u8>, all: &Mutex<Vec<Seen>>) {
    let _ = stream.set_read_timeout(Some(DEADLINE));
    let _ = stream.set_nodelay(true);
    let mut data = Vec::new();
    let mut chunk = [0u8; 16 * 1024];
    loop {
        let end = loop {
            if let Some(at) = find(&data, b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut chunk) {
                Ok(n) if n > 0 => data.extend_from_slice(&chunk[..n]),
                _ => return,
            }
        };
        let head = String::from_utf8_lossy(&data[..end]).into_owned();
        data.drain(..end);
        let lower = head.to_ascii_lowercase();
        let mut body = Vec::new();
        if lower.contains("transfer-encoding: chunked") {
            while find(&data, b"0\r\n\r\n").is_none() {
                match stream.read(&mut chunk) {
                    Ok(n) if n > 0 => data.extend_from_slice(&chunk[..n]),
                    _ => return,
                }
            }
            body = dechunk(&data);
            data.clear();
        } else if let Some(length) = lower.lines().find_map(|line| {
            line.strip_prefix("content-length: ")?
                .trim()
                .parse::<usize>()
                .ok()
        }) {
            while data.len() < length {
                match stream.read(&mut chunk) {
                    Ok(n) if n > 0 => data.extend_from_slice(&chunk[..n]),
                    _ => return,
                }
            }
            body = data.drain(..length).collect();
        }
        let seen = Seen { head, body };
        all.lock().unwrap().push(seen.clone());
        let answer = handler(&seen);
        if answer.is_empty() {
            return;
        }
        if stream.write_all(&answer).is_err() {
            return;
        }
        if answer.starts_with(b"HTTP/1.1 101") {
            // An upgraded connection echoes.
            while let Ok(n) = stream.read(&mut chunk) {
                if n == 0 || stream.write_all(&chunk[..n]).is_err() {
                    break;
                }
            }
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}

/// A 200 with this body.
pub fn ok(body: &str) -> Vec<u8> {
    answer("200 OK", body)
}

/// An answer with this status and body.
pub fn answer(status: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Waits until something is so.
pub fn until(what: &str, is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < DEADLINE, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A static cluster in YAML (flow style) with these endpoints and further fields.
pub fn cluster(name: &str, endpoints: &[SocketAddr], more: &str) -> String {
    let endpoints: Vec<String> = endpoints
        .iter()
        .map(|address| {
            format!(
                "{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}",
                address.ip(),
                address.port()
            )
        })
        .collect();
    let more = if more.is_empty() {
        String::new()
    } else {
        format!(", {more}")
    };
    format!(
        "  - {{name: {name}, type: STATIC, load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{}]}}]}}{more}}}\n",
        endpoints.join(", ")
    )
}

/// A bootstrap with one HTTP listener `main` on a free port, an admin interface, these routes (YAML flow items) and
/// clusters. `more` are further fields of the connection manager, indented by 10.
pub fn http(routes: &[&str], clusters: &str, more: &str) -> String {
    http_at(0, 0, routes, clusters, more)
}

/// The same on given ports.
pub fn http_at(port: u16, admin: u16, routes: &[&str], clusters: &str, more: &str) -> String {
    let routes: String = routes
        .iter()
        .map(|route| format!("              - {route}\n"))
        .collect();
    format!(
        r#"
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}
static_resources:
  listeners:
  - name: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: main
          normalize_path: true
          upgrade_configs: [{{upgrade_type: websocket}}]
{more}          route_config:
            name: local
            validate_clusters: false
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
{routes}          http_filters:
          - name: envoy.filters.http.fault
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault}}
          - name: envoy.filters.http.cors
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
{clusters}"#
    )
}
