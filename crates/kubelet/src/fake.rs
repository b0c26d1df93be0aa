//! A runtime that plays containers in memory, for tests.
//!
//! A container's command says what it does: `exit N` ends with that code, `run` waits for a signal,
//! `stubborn` only ends with SIGKILL, `print TEXT…` prints and ends, `cat` copies stdin to stdout.
//! A program it does not know cannot be started.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::cri::{
    ContainerSpec, ExecSpec, ExitStatus, Process, Runtime, RuntimeError, Sandbox, SandboxSpec,
    Streams,
};

/// The runtime; remembers what it was asked for.
#[derive(Default, Clone)]
pub struct FakeRuntime {
    /// Everything that was done, in order.
    pub calls: Arc<Mutex<Vec<String>>>,
    /// Specs of the containers started.
    pub started: Arc<Mutex<Vec<ContainerSpec>>>,
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn create_sandbox(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>, RuntimeError> {
        self.calls
            .lock()
            .push(format!("sandbox {} {}", spec.name, spec.hostname));
        Ok(Arc::new(FakeSandbox {
            runtime: self.clone(),
            name: spec.name,
        }))
    }
}

struct FakeSandbox {
    runtime: FakeRuntime,
    name: String,
}

#[async_trait]
impl Sandbox for FakeSandbox {
    async fn start(
        &self,
        spec: ContainerSpec,
    ) -> Result<(Arc<dyn Process>, Streams), RuntimeError> {
        self.runtime
            .calls
            .lock()
            .push(format!("start {} {}", spec.name, spec.argv.join(" ")));
        let argv = spec.argv.clone();
        self.runtime.started.lock().push(spec);
        play(&argv)
    }
    async fn connect(&self, port: u16) -> std::io::Result<TcpStream> {
        TcpStream::connect(("127.0.0.1", port)).await
    }
    async fn destroy(&self) -> Result<(), RuntimeError> {
        self.runtime
            .calls
            .lock()
            .push(format!("destroy {}", self.name));
        Ok(())
    }
}

struct FakeProcess {
    stubborn: bool,
    exit: watch::Sender<Option<ExitStatus>>,
}

fn play(argv: &[String]) -> Result<(Arc<dyn Process>, Streams), RuntimeError> {
    let program = argv.first().map_or("", String::as_str);
    let rest = argv.get(1..).unwrap_or_default().join(" ");
    let exit = watch::Sender::new(None);
    let process = Arc::new(FakeProcess {
        stubborn: program == "stubborn",
        exit,
    });
    let (mut inside, outside): (DuplexStream, DuplexStream) = tokio::io::duplex(4096);
    let (mut stdin_inside, stdin_outside) = tokio::io::duplex(4096);
    let ended = process.clone();
    let end = move |code: i32| {
        ended.exit.send_if_modified(|state| {
            state
                .is_none()
                .then(|| {
                    *state = Some(ExitStatus {
                        code,
                        signal: None,
                        oom: false,
                    })
                })
                .is_some()
        })
    };
    match program {
        "exit" => {
            end(rest.parse().unwrap_or(0));
        }
        "run" | "stubborn" => {
            // The streams stay open as long as the program runs.
            let mut exit = process.exit.subscribe();
            tokio::spawn(async move {
                let _ = exit.wait_for(Option::is_some).await;
                drop((inside, stdin_inside));
            });
        }
        "print" => {
            tokio::spawn(async move {
                let _ = inside.write_all(format!("{rest}\n").as_bytes()).await;
                drop(inside);
                end(0);
            });
        }
        "cat" => {
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut stdin_inside, &mut inside).await;
                drop(inside);
                end(0);
            });
        }
        other => {
            return Err(RuntimeError(format!(
                "exec: \"{other}\": executable file not found in $PATH"
            )));
        }
    }
    let streams = Streams {
        stdin: Some(Box::new(stdin_outside)),
        stdout: Some(Box::new(outside)),
        stderr: None,
    };
    Ok((process, streams))
}

#[async_trait]
impl Process for FakeProcess {
    fn pid(&self) -> i32 {
        i32::MAX
    }
    async fn wait(&self) -> ExitStatus {
        let mut exit = self.exit.subscribe();
        let status = exit
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|status| *status);
        status.unwrap_or(ExitStatus {
            code: 255,
            signal: None,
            oom: false,
        })
    }
    fn kill(&self, signal: i32) {
        if self.stubborn && signal != libc::SIGKILL {
            return;
        }
        let status = ExitStatus {
            code: 128 + signal,
            signal: Some(signal),
            oom: false,
        };
        self.exit
            .send_if_modified(|state| state.is_none().then(|| *state = Some(status)).is_some());
    }
    fn resize(&self, _: u16, _: u16) {}
    async fn exec(&self, spec: ExecSpec) -> Result<(Arc<dyn Process>, Streams), RuntimeError> {
        play(&spec.argv)
    }
}
