//! The process: sockets, signals, the clock and the disk around [`Store`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};

use crate::aof::Log;
use crate::config::{Config, Fsync};
use crate::log;
use crate::request::Reader;
use crate::resp::{Protocol, Reply};
use crate::session::Session;
use crate::store::{Order, Peer, Store};

const USAGE: &str =
    "Usage: redis-server [/path/to/redis.conf] [--port PORT] [--bind ADDRESS...] [--dir DIRECTORY]
                    [--appendonly yes|no] [--appendfsync always|everysec|no] [--SETTING VALUE...]
       redis-server --version";

/// Bytes of replies gathered before they are sent, and requests executed in one go: other
/// connections have their turn in between.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_REQUESTS: usize = 256;
/// Messages a subscriber may be behind before it is disconnected.
const BEHIND: usize = 10_000;

/// Runs the server; `args` without the program name.
#[must_use]
pub fn main(args: &[String]) -> ExitCode {
    match args.first().map(String::as_str) {
        Some("--version" | "-v") => {
            println!(
                "Redis server v=7.0.15 (built into theater {})",
                env!("CARGO_PKG_VERSION")
            );
            return ExitCode::SUCCESS;
        }
        Some("--help" | "-h") => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let config = match Config::from_args(args) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("redis-server: {error}\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| tokio::task::LocalSet::new().block_on(&runtime, run(config)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("redis-server: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Shared {
    store: Store,
    log: Option<Log>,
    mailboxes: HashMap<u64, mpsc::Sender<Reply>>,
    stop: Rc<Notify>,
}

type Server = Rc<RefCell<Shared>>;

async fn run(config: Config) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut terminated = signal(SignalKind::terminate()).map_err(text)?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(text)?;
    let mut listeners = Vec::new();
    for address in &config.bind {
        let address = SocketAddr::new(*address, config.port);
        let listener = TcpListener::bind(address).await.map_err(|error| {
            format!("Could not create server TCP listening socket {address}: {error}; choose another --port or --bind")
        })?;
        listeners.push(listener);
    }
    let append_only = config.append_only;
    let mut store = Store::new(config, rand::random());
    store.figures.started_ms = now_ms();
    store.figures.saved_s = now_ms() / 1000;
    let log = if append_only {
        Some(Log::open(&mut store, now_ms()).map_err(|error| error.to_string())?)
    } else {
        None
    };
    let stop = Rc::new(Notify::new());
    let server = Rc::new(RefCell::new(Shared {
        store,
        log,
        mailboxes: HashMap::new(),
        stop: stop.clone(),
    }));
    for listener in listeners {
        if let Ok(address) = listener.local_addr() {
            log::line(format!("Ready to accept connections on {address}"));
        }
        tokio::task::spawn_local(accept(listener, server.clone()));
    }
    tokio::task::spawn_local(every_100_ms(server.clone()));
    tokio::task::spawn_local(every_second(server.clone()));
    tokio::select! {
        _ = terminated.recv() => log::line("Received SIGTERM scheduling shutdown..."),
        _ = interrupted.recv() => log::line("Received SIGINT scheduling shutdown..."),
        () = stop.notified() => log::line("User requested shutdown..."),
    }
    let mut shared = server.borrow_mut();
    shared.commit();
    shared
        .sync()
        .map_err(|error| format!("the append only file could not be written: {error}"))?;
    if let Some(reason) = &shared.store.write_refusal {
        return Err(format!("the last changes could not be written: {reason}"));
    }
    log::line("bye bye...");
    Ok(())
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}

impl Shared {
    /// Writes down what has changed, delivers messages, obeys orders. Replies are sent only
    /// afterwards: what a client has been told is with the kernel, or with `always` on disk.
    fn commit(&mut self) {
        let effects = std::mem::take(&mut self.store.effects);
        if let Some(log) = &mut self.log {
            log.append(&effects);
            let mut result = log.write();
            if result.is_ok() && self.store.config.fsync == Fsync::Always && !effects.is_empty() {
                result = self.sync();
            }
            let refusal = result.err().map(|error| error.to_string());
            if refusal != self.store.write_refusal {
                match &refusal {
                    Some(reason) => log::line(format!(
                        "append only file: {reason}; writes are refused until it works again"
                    )),
                    None => log::line("append only file: works again"),
                }
                self.store.write_refusal = refusal;
            }
        }
        for (id, message) in std::mem::take(&mut self.store.messages) {
            let full = self
                .mailboxes
                .get(&id)
                .is_some_and(|mailbox| mailbox.try_send(message).is_err());
            if full {
                // Without a mailbox the connection ends.
                self.mailboxes.remove(&id);
            }
        }
        for order in std::mem::take(&mut self.store.orders) {
            let result = match order {
                Order::Sync => self.sync().map_err(|error| error.to_string()),
                Order::Rewrite => self.rewrite().map_err(|error| error.to_string()),
                Order::Shutdown => {
                    self.stop.notify_one();
                    Ok(())
                }
            };
            if let Err(error) = result {
                log::line(format!("append only file: {error}"));
            }
        }
    }

    fn sync(&mut self) -> std::io::Result<()> {
        if let Some(sync) = self.log.as_ref().and_then(Log::syncer) {
            sync()?;
        }
        self.store.figures.saved_s = now_ms() / 1000;
        self.store.figures.unsaved = 0;
        Ok(())
    }

    fn rewrite(&mut self) -> Result<(), crate::aof::Error> {
        match &mut self.log {
            Some(log) => log.rewrite(&self.store),
            None => Ok(()),
        }
    }
}

async fn every_100_ms(server: Server) {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    loop {
        ticks.tick().await;
        let mut shared = server.borrow_mut();
        shared.store.expire(now_ms());
        if !shared.store.effects.is_empty() || shared.store.write_refusal.is_some() {
            shared.commit();
        }
    }
}

async fn every_second(server: Server) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        let syncer = {
            let mut shared = server.borrow_mut();
            shared.store.figures.resident = resident().unwrap_or(0);
            let due = shared
                .log
                .as_ref()
                .is_some_and(|log| log.rewrite_due(&shared.store.config));
            if due && let Err(error) = shared.rewrite() {
                log::line(format!("append only file: {error}"));
            }
            let log = shared
                .log
                .as_ref()
                .filter(|_| shared.store.config.fsync == Fsync::EverySecond);
            log.and_then(Log::syncer)
        };
        // Not on this thread: a slow disk must not keep clients waiting.
        if let Some(sync) = syncer {
            match tokio::task::spawn_blocking(sync).await {
                Ok(Ok(())) => {
                    let figures = &mut server.borrow_mut().store.figures;
                    figures.saved_s = now_ms() / 1000;
                    figures.unsaved = 0;
                }
                Ok(Err(error)) => log::line(format!("append only file: {error}")),
                Err(_) => {}
            }
        }
    }
}

/// Memory of this process in bytes.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace()
        .next()?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

async fn accept(listener: TcpListener, server: Server) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                tokio::task::spawn_local(serve(stream, address, server.clone()));
            }
            Err(error) => {
                // No more file descriptors, most likely: others must go first.
                log::line(format!("Accepting client connection: {error}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(mut stream: TcpStream, address: SocketAddr, server: Server) {
    // Without it, small replies wait for acknowledgements; failing that, they are only slower.
    let _ = stream.set_nodelay(true);
    let (sender, mut mailbox) = mpsc::channel(BEHIND);
    let admitted = {
        let mut shared = server.borrow_mut();
        let full = shared.mailboxes.len() >= shared.store.config.max_clients;
        shared.store.figures.connections += 1;
        let id = shared.store.figures.connections;
        // CONFIG RESETSTAT sets that number back; identities are never given twice.
        let id = shared
            .store
            .peers
            .last_key_value()
            .map_or(id, |(last, _)| id.max(last + 1));
        let session = Session::new(id, address.to_string(), now_ms());
        let peer = Peer {
            address: session.address.clone(),
            since_ms: session.since_ms,
            last_ms: session.since_ms,
            protocol: 2,
            ..Peer::default()
        };
        if !full {
            shared.mailboxes.insert(id, sender);
            shared.store.peers.insert(id, peer);
        }
        (!full).then_some(session)
    };
    let Some(mut session) = admitted else {
        let _ = stream
            .write_all(b"-ERR max number of clients reached\r\n")
            .await;
        return;
    };
    // An error here is the client's end of the connection.
    let _ = converse(&mut stream, &mut session, &mut mailbox, &server).await;
    let mut shared = server.borrow_mut();
    shared.mailboxes.remove(&session.id);
    shared.store.disconnect(&session);
}

async fn converse(
    stream: &mut TcpStream,
    session: &mut Session,
    mailbox: &mut mpsc::Receiver<Reply>,
    server: &Server,
) -> std::io::Result<()> {
    let (bulk_limit, request_limit) = {
        let config = &server.borrow().store.config;
        (config.bulk_limit, config.request_limit)
    };
    let mut reader = Reader::new(bulk_limit, request_limit);
    let mut buffer = BytesMut::with_capacity(4096);
    let mut out = Vec::new();
    loop {
        let more = batch(session, &mut reader, &mut buffer, &mut out, server);
        if !out.is_empty() {
            stream.write_all(&out).await?;
            out.clear();
            out.shrink_to(BATCH_BYTES);
        }
        if session.closing {
            return stream.shutdown().await;
        }
        if more {
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            count = stream.read_buf(&mut buffer) => if count? == 0 {
                return Ok(());
            },
            message = mailbox.recv() => match message {
                Some(message) => message.encode(session.protocol, &mut out),
                None => return Ok(()),
            },
        }
    }
}

/// Executes requests that have arrived; whether there may be more.
fn batch(
    session: &mut Session,
    reader: &mut Reader,
    buffer: &mut BytesMut,
    out: &mut Vec<u8>,
    server: &Server,
) -> bool {
    let mut shared = server.borrow_mut();
    let now = now_ms();
    let mut more = true;
    for _ in 0..BATCH_REQUESTS {
        if session.closing || out.len() > BATCH_BYTES {
            break;
        }
        match reader.next(buffer) {
            Ok(Some(args)) => {
                if args[0].eq_ignore_ascii_case(b"post") || args[0].eq_ignore_ascii_case(b"host:") {
                    log::line(format!(
                        "Possible SECURITY ATTACK detected: {} speaks HTTP. Connection aborted.",
                        session.address
                    ));
                    session.closing = true;
                    break;
                }
                let reply = shared.store.execute(session, now, &args);
                reply.encode(session.protocol, out);
            }
            Ok(None) => {
                more = false;
                break;
            }
            Err(problem) => {
                Reply::Error(format!("ERR Protocol error: {problem}").into())
                    .encode(Protocol::Resp2, out);
                session.closing = true;
            }
        }
    }
    shared.commit();
    more
}
