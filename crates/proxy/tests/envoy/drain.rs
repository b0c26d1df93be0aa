//! Draining beside a real Envoy: what becomes of connections when listeners and clusters change or leave, and when the
//! admin interface is told to drain. Scenes are files under `drain`, with Envoy's transcript beside each.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::bootstrap;
use crate::case::Scene;
use crate::control::Control;
use crate::peer::Peer;
use crate::upstream::{Upstreams, dial};
use crate::wire::{more, read_message};

/// A scene: configurations by name, and what is done with them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainScene {
    /// Seconds, and `gradual` or `immediate`.
    drain: (u64, String),
    /// Each with `clusters` and `cases`, which are listeners, in the short form of the cases (`routes`, `network`, `listener`, `http`), and
    /// `extensions`, settings of filters that come on their own.
    worlds: BTreeMap<String, Value>,
    /// - `tell WORLD`: this is the configuration now, in use as soon as the next step
    /// - `open C LISTENER`, `open2 C LISTENER`: a connection for HTTP/1 or HTTP/2; `tcp C LISTENER TEXT`: one for TCP, and what comes back
    /// - `asks C PATH STATUS`: the same request again and again on it, until it is answered so
    /// - `get C PATH`: a request on it; `begin C PATH` and `end C`: its two halves
    /// - `say C TEXT`: bytes on a TCP connection, and what comes back
    /// - `closed C`: it is closed within seconds; `open? C`: it is not closed
    /// - `connect LISTENER`: whether new connections are taken; `refuses LISTENER`: they are not, within seconds
    /// - `admin METHOD PATH`: the answer of the admin interface
    /// - `load LISTENER WORLD WORLD`: requests without a pause on connections that are kept, while the configuration changes to one and
    ///   back, many times
    /// - `time MILLISECONDS`, `stat NAME`, `until NAME VALUE`
    steps: Vec<String>,
}

enum Client {
    Plain(TcpStream, Vec<u8>),
    H2(
        h2::client::SendRequest<bytes::Bytes>,
        tokio::task::JoinHandle<()>,
    ),
}

type Begun = tokio::task::JoinHandle<Result<String, String>>;

struct Run<'a> {
    scene: &'a DrainScene,
    peer: &'a Peer,
    control: Control,
    upstreams: &'a Upstreams,
    directory: PathBuf,
    /// Where its listeners are.
    address: Ipv4Addr,
    clients: BTreeMap<String, Client>,
    begun: BTreeMap<String, Begun>,
    /// Where listeners are, or were last.
    places: BTreeMap<String, SocketAddr>,
}

const SOON: Duration = Duration::from_secs(60);

async fn request2(
    mut send: h2::client::SendRequest<bytes::Bytes>,
    path: String,
) -> Result<String, String> {
    std::future::poll_fn(|cx| send.poll_ready(cx))
        .await
        .map_err(|_| "takes no requests".to_owned())?;
    let request = http::Request::get(format!("http://test.local{path}"));
    let (answer, _) = send
        .send_request(request.body(()).unwrap(), true)
        .map_err(|_| "takes no requests".to_owned())?;
    let answer = answer.await.map_err(|_| "broken off".to_owned())?;
    let status = answer.status().as_u16();
    let mut body = answer.into_body();
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        text.extend_from_slice(&data.map_err(|_| "broken off".to_owned())?);
    }
    Ok(format!("{status} {}", String::from_utf8_lossy(&text)))
}

/// Whether a new connection stays open.
async fn takes(target: SocketAddr) -> bool {
    let Ok(mut stream) = dial(target).await else {
        return false;
    };
    let moment = Duration::from_millis(150);
    tokio::time::timeout(moment, more(&mut stream, &mut Vec::new()))
        .await
        .is_err()
}

/// An address of this machine that no other scene uses: a port that was given back is not taken by somebody else.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(2);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high | 0x80, low, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Asks until it is told to stop; says what did not go well.
async fn hammer(target: SocketAddr, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut failures = Vec::new();
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) && failures.len() < 5 {
        let (stream, buffer) = match &mut connection {
            Some(open) => open,
            None => match dial(target).await {
                Ok(stream) => connection.insert((stream, Vec::new())),
                Err(error) => {
                    failures.push(error.to_string());
                    continue;
                }
            },
        };
        let asked = b"GET / HTTP/1.1\r\nHost: test.local\r\n\r\n";
        let answer = match stream.write_all(asked).await {
            Ok(()) => read_message(stream, buffer, false, false).await,
            Err(_) => None,
        };
        let closes = match answer {
            Some((message, true)) if message.head.starts_with("HTTP/1.1 200") => message.closes(),
            other => {
                failures.push(format!("{other:?}"));
                true
            }
        };
        if closes {
            connection = None;
        }
    }
    failures
}

impl Run<'_> {
    async fn tell(&mut self, name: &str) {
        let mut world = self.scene.worlds[name].clone();
        let extensions = world.as_object_mut().unwrap().remove("extensions");
        let extensions = extensions.map_or(Vec::new(), |list| list.as_array().unwrap().clone());
        let scene: Scene =
            serde_json::from_value(world).unwrap_or_else(|error| panic!("{name}: {error}"));
        let built = bootstrap::build(
            &scene,
            &self.upstreams.addresses,
            &self.directory,
            &self.directory,
        );
        let of = |kind: &str| built["static_resources"][kind].as_array().unwrap().clone();
        // Listeners go by the names of their cases, so that one can leave and another stay.
        let mut listeners = of("listeners");
        for (listener, case) in listeners.iter_mut().zip(&scene.cases) {
            listener["name"] = json!(case.name);
            listener["address"]["socket_address"]["address"] = json!(self.address);
        }
        let before = self
            .peer
            .admin
            .page("/config_dump?resource=dynamic_listeners")
            .await;
        self.control.tell(&of("clusters"), &listeners, &extensions);
        let began = Instant::now();
        let wanted: Vec<&str> = scene.cases.iter().map(|case| case.name.as_str()).collect();
        loop {
            let page =
                "/stats?filter=listener_manager.(lds.update_success|total_listeners_warming)";
            let settled = self.peer.admin.page(page).await.contains("warming: 0");
            let places = self.peer.admin.listening().await;
            let there = places.len() == wanted.len()
                && wanted.iter().all(|name| places.contains_key(*name));
            let now = self
                .peer
                .admin
                .page("/config_dump?resource=dynamic_listeners")
                .await;
            let same = scene.cases.is_empty() || name.starts_with("same");
            if settled && there && (now != before || same) {
                self.places.extend(places);
                break;
            }
            assert!(
                began.elapsed() < SOON,
                "{name} is not taken in use: {places:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if std::env::var_os("ENVOY_TIMES").is_some() {
            println!("{name}: in use after {:?}", began.elapsed());
        }
        let refused = self.control.refused.lock().unwrap().clone();
        assert!(refused.is_empty(), "{name}: {refused:?}");
        self.peer.admin.settle().await;
    }

    /// A request on a connection.
    async fn get(&mut self, client: &str, path: &str) -> String {
        match self.clients.get_mut(client).unwrap() {
            Client::H2(send, _) => match request2(send.clone(), path.into()).await {
                Ok(text) | Err(text) => text,
            },
            Client::Plain(stream, buffer) => {
                let text = format!("GET {path} HTTP/1.1\r\nHost: test.local\r\n\r\n");
                match stream.write_all(text.as_bytes()).await {
                    Err(_) => "closed".into(),
                    Ok(()) => match read_message(stream, buffer, false, false).await {
                        None => "closed".into(),
                        Some((message, whole)) => format!(
                            "{} {}{}{}",
                            message.head.split(' ').nth(1).unwrap_or_default(),
                            String::from_utf8_lossy(&message.body),
                            if message.closes() {
                                ", connection: close"
                            } else {
                                ""
                            },
                            if whole { "" } else { ", broken off" },
                        ),
                    },
                }
            }
        }
    }

    async fn step(&mut self, step: &str) -> Option<String> {
        let words: Vec<&str> = step.splitn(4, ' ').collect();
        let said = match words[..] {
            ["tell", world] => {
                self.tell(world).await;
                return None;
            }
            ["time", time] => {
                tokio::time::sleep(Duration::from_millis(time.parse().unwrap())).await;
                return None;
            }
            ["open", client, listener] => {
                // One that is reset at once is closed when it is looked at.
                if let Ok(stream) = dial(self.places[listener]).await {
                    let client = client.to_owned();
                    self.clients
                        .insert(client, Client::Plain(stream, Vec::new()));
                }
                return None;
            }
            ["open2", client, listener] => {
                let stream = dial(self.places[listener]).await.unwrap();
                let (send, connection) = h2::client::handshake(stream).await.unwrap();
                let task = tokio::spawn(async move {
                    let _ = connection.await;
                });
                self.clients
                    .insert(client.to_owned(), Client::H2(send, task));
                return None;
            }
            ["begin", client, path] => {
                let path = path.to_owned();
                let task = match &mut self.clients.get_mut(client).unwrap() {
                    Client::Plain(..) => panic!("`begin` is for HTTP/2"),
                    Client::H2(send, _) => tokio::spawn(request2(send.clone(), path)),
                };
                self.begun.insert(client.to_owned(), task);
                let began = Instant::now();
                while self.upstreams.script.lock().unwrap().arrived == 0 {
                    assert!(began.elapsed() < SOON, "nothing reached the upstreams");
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
                return None;
            }
            ["end", client] => {
                let task = self.begun.remove(client).unwrap();
                match task.await.unwrap() {
                    Ok(text) | Err(text) => text,
                }
            }
            ["asks", client, path, status] => {
                let began = Instant::now();
                loop {
                    let got = self.get(client, path).await;
                    if got.starts_with(status) || began.elapsed() > SOON {
                        break got;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            ["get", client, path] => self.get(client, path).await,
            ["say", client, text] => {
                let Some(Client::Plain(stream, _)) = self.clients.get_mut(client) else {
                    panic!("{client} is no TCP connection");
                };
                let mut got = Vec::new();
                let _ = stream.write_all(text.as_bytes()).await;
                while got.len() < text.len() && more(stream, &mut got).await {}
                String::from_utf8_lossy(&got).into_owned()
            }
            ["closed", client] => {
                let closed = async {
                    match self.clients.get_mut(client) {
                        None => {}
                        Some(Client::Plain(stream, buffer)) => while more(stream, buffer).await {},
                        Some(Client::H2(_, task)) => {
                            while !task.is_finished() {
                                tokio::time::sleep(Duration::from_millis(3)).await;
                            }
                        }
                    }
                };
                match tokio::time::timeout(SOON, closed).await {
                    Ok(()) => "closed".into(),
                    Err(_) => "is still open".into(),
                }
            }
            ["open?", client] => {
                let moment = Duration::from_millis(150);
                let open = match self.clients.get_mut(client).unwrap() {
                    Client::Plain(stream, buffer) => {
                        tokio::time::timeout(moment, more(stream, buffer))
                            .await
                            .is_err()
                    }
                    Client::H2(_, task) => {
                        tokio::time::sleep(moment).await;
                        !task.is_finished()
                    }
                };
                if open { "open" } else { "closed" }.into()
            }
            ["connect", listener] => match takes(self.places[listener]).await {
                true => "taken".into(),
                false => "refused".into(),
            },
            ["refuses", listener] => {
                let began = Instant::now();
                loop {
                    if !takes(self.places[listener]).await {
                        break "refused".into();
                    }
                    if began.elapsed() > SOON {
                        break "still taken".into();
                    }
                }
            }
            ["load", listener, one, other] => {
                let (target, stop) = (self.places[listener], Arc::new(AtomicBool::new(false)));
                let clients: Vec<_> = (0..4)
                    .map(|_| tokio::spawn(hammer(target, stop.clone())))
                    .collect();
                for _ in 0..10 {
                    self.tell(one).await;
                    self.tell(other).await;
                }
                stop.store(true, Ordering::Relaxed);
                let mut failures = Vec::new();
                for client in clients {
                    failures.extend(client.await.unwrap());
                }
                match failures.is_empty() {
                    true => "no request fails".into(),
                    false => format!("{failures:?}"),
                }
            }
            ["admin", method, path] => {
                let (status, body) = self.peer.admin.ask(method, path).await;
                format!("{status} {}", body.trim())
            }
            ["stat", name] => self.peer.admin.stats(&[name.to_owned()]).await[name].to_string(),
            ["until", name, value] => {
                let (value, began) = (value.parse::<i64>().unwrap(), Instant::now());
                loop {
                    let is = self.peer.admin.stats(&[name.to_owned()]).await[name];
                    if is == value {
                        self.peer.admin.settle().await;
                        return None;
                    }
                    if began.elapsed() > SOON {
                        break format!("is {is}");
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            _ => panic!("{step:?} is no step"),
        };
        Some(format!("{step}: {said}"))
    }
}

/// What is seen of a scene.
pub async fn transcript(
    scene: &DrainScene,
    envoy: Option<&Path>,
    directory: &Path,
) -> Result<Vec<String>, String> {
    let upstreams = {
        let own = yaml_serde::from_str("echo: {echo: true}").unwrap();
        Upstreams::start(&own, directory).await
    };
    upstreams.reset(Vec::new(), None);
    let (control, address) = Control::start().await;
    let source = json!({"ads": {}, "resource_api_version": "V3"});
    let grpc = json!({"envoy_grpc": {"cluster_name": "control"}});
    let at = json!({"socket_address": {"address": "127.0.0.1", "port_value": address.port()}});
    let config = json!({
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "node": {"id": "test", "cluster": "test"},
        "dynamic_resources": {"lds_config": source, "cds_config": source, "ads_config":
            {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [grpc]}},
        "static_resources": {"listeners": [], "clusters": [{"name": "control", "type": "STATIC", "connect_timeout": "2s",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}}}},
            "load_assignment": {"cluster_name": "control", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at}}]}]}}]},
    });
    control.tell(&[], &[], &[]);
    let (time, strategy) = (scene.drain.0.to_string(), scene.drain.1.as_str());
    let peer = match envoy {
        Some(binary) => {
            let options = ["--drain-time-s", &time, "--drain-strategy", strategy];
            Peer::envoy_with(binary, &config, directory, &options).await?
        }
        None => {
            let mut options = proxy::server::Options::default();
            options.drain.time = Duration::from_secs(scene.drain.0);
            options.drain.gradual = strategy == "gradual";
            Peer::ours_with(&config, directory, options)?
        }
    };
    let mut run = Run {
        scene,
        peer: &peer,
        control,
        upstreams: &upstreams,
        directory: directory.to_owned(),
        address: own_address(),
        clients: BTreeMap::new(),
        begun: BTreeMap::new(),
        places: BTreeMap::new(),
    };
    let mut lines = Vec::new();
    for step in &scene.steps {
        lines.extend(run.step(step).await);
    }
    Ok(lines)
}
