//! Services and the store as processes.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::until;

/// Starts a command in a process group of its own that ends with the thread of its test, even
/// when the test is killed.
pub fn spawn(command: &mut Command) -> Child {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(std::io::Error::from)
        });
    }
    let shown = format!("{command:?}");
    command
        .process_group(0)
        .stdin(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{shown} does not start: {error}"))
}

/// Ends a process group that [`spawn`] started.
pub fn end(child: &mut Child) {
    let _ = killpg(pid(child), Signal::SIGKILL);
    let _ = child.wait();
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a pid"))
}

/// A running service.
pub struct Process {
    child: Child,
    pub port: u16,
    log: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    /// Starts a service on a free port and waits until it listens. Without `CLUSTER_NAME` and
    /// `HOSTNAME` of its own it is pod `<name>-test` in `ctx1`.
    pub fn service(name: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_theater-service-tests"));
        command
            .arg(name)
            .env_clear()
            .env("PORT", "0")
            .env("CLUSTER_NAME", "ctx1")
            .env("HOSTNAME", format!("{name}-test"))
            .envs(environment.iter().copied())
            .stdout(Stdio::piped());
        let mut child = spawn(&mut command);
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let (sender, receiver) = mpsc::channel();
        let lines = log.clone();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let entry: Value = serde_json::from_str(&line).unwrap_or_default();
                if entry["message"] == "listening" {
                    let _ = sender.send(entry["port"].as_u64().expect("a port"));
                }
                lines.lock().unwrap().push_back(line);
            }
        });
        let port = receiver
            .recv_timeout(Duration::from_secs(30))
            .unwrap_or_else(|_| panic!("{name} does not listen"));
        Self {
            child,
            port: u16::try_from(port).expect("a port"),
            log,
        }
    }

    /// The address of a path of the service.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the service logged up to now, as JSON.
    pub fn log(&self) -> Vec<Value> {
        let lines = self.log.lock().unwrap();
        let parse = |line: &String| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("log line {line:?}: {error}"))
        };
        lines.iter().map(parse).collect()
    }

    /// Waits for a line in the log; it may come a moment after the answer it is about.
    pub async fn logged(&self, what: &str, is_it: impl Fn(&Value) -> bool) {
        until(what, async || self.log().iter().any(&is_it).then_some(())).await;
    }

    /// Asks the process to end.
    pub fn terminate(&self) {
        kill(pid(&self.child), Signal::SIGTERM).expect("the process is there");
    }

    /// The exit status, once the process has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        until("the process ends", async || {
            self.child.try_wait().expect("a child")
        })
        .await
    }

    /// Ends the process at once.
    pub fn kill(&mut self) {
        end(&mut self.child);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A real redis-server that can be stopped and started again with its data.
pub struct Redis {
    child: Child,
    pub port: u16,
    directory: TempDir,
}

impl Redis {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut attempts = 0;
        loop {
            // Another process may take the port in between: then try another one.
            let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
            let port = listener.local_addr().expect("an address").port();
            drop(listener);
            let mut child = Self::spawn(port, &directory);
            attempts += 1;
            if Self::ready(&mut child, port).await {
                return Self {
                    child,
                    port,
                    directory,
                };
            }
            assert!(attempts < 10, "redis-server does not start");
        }
    }

    fn spawn(port: u16, directory: &TempDir) -> Child {
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args([
                "--save",
                "",
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
            ])
            .args(["--dir", directory.path().to_str().expect("UTF-8")])
            .stdout(Stdio::null());
        spawn(&mut command)
    }

    /// Whether it answers; false when it ended instead.
    async fn ready(child: &mut Child, port: u16) -> bool {
        until("redis-server answers", async || {
            if child.try_wait().expect("a child").is_some() {
                return Some(false);
            }
            let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .ok()?;
            stream.write_all(b"PING\r\n").await.ok()?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await.ok()?;
            (&answer == b"+PONG").then_some(true)
        })
        .await
    }

    /// The address, as `REDIS_URL` takes it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn stop(&mut self) {
        end(&mut self.child);
    }

    /// Starts it again on the same port with the data it had.
    pub async fn start_again(&mut self) {
        self.child = Self::spawn(self.port, &self.directory);
        assert!(Self::ready(&mut self.child, self.port).await, "it ended");
    }

    /// Sends one command and returns the answer as Redis writes it.
    pub async fn command(&self, command: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port))
            .await
            .expect("connected");
        let text = format!("{command}\r\nQUIT\r\n");
        stream.write_all(text.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
