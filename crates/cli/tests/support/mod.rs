//! A running theater for the end-to-end tests: the real binary, driven with the real kubectl and curl.
//!
//! Needs Linux namespaces, kubectl and curl. Where one is missing a test says so and is skipped; with
//! `CI=true` it fails.

// Every test file uses its own part of this module.
#![allow(dead_code)]

pub mod processes;
pub mod web;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_theater");

/// Generous: the tests may share a small machine with a build.
pub const LONG: Duration = Duration::from_secs(90);

/// The namespace of the theater.
pub const NAMESPACE: &str = "theater-msa";

/// How often something that cannot be watched is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Whether this machine can run a theater at all; prints what is missing.
///
/// # Panics
/// In CI, when something is missing.
pub fn possible() -> bool {
    let mut missing = Vec::new();
    for (program, argument, how) in [
        (
            "kubectl",
            "version",
            "https://kubernetes.io/docs/tasks/tools/",
        ),
        ("curl", "--version", "the package curl of your distribution"),
    ] {
        let arguments: &[&str] = if program == "kubectl" {
            &[argument, "--client"]
        } else {
            &[argument]
        };
        let found = Command::new(program)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !found.is_ok_and(|status| status.success()) {
            missing.push(format!("{program} is not on the PATH; get it from {how}"));
        }
    }
    if !namespaces() {
        missing.push("this machine allows no namespaces; `theater up` says what to do".into());
    }
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!ci || missing.is_empty(), "{}", missing.join("\n"));
    for line in &missing {
        eprintln!("skipped: {line}");
    }
    missing.is_empty()
}

/// Whether processes may have namespaces of their own here.
fn namespaces() -> bool {
    // SAFETY: no memory involved.
    let root = unsafe { libc::geteuid() } == 0;
    let user: &[&str] = if root {
        &[]
    } else {
        &["--user", "--map-root-user"]
    };
    Command::new("unshare")
        .args(user)
        .args(["--net", "--mount", "true"])
        .stderr(Stdio::null())
        .status()
        // Without the tool the theater itself will tell.
        .map_or(true, |status| status.success())
}

/// Polls until `look` gives `Ok`.
///
/// # Panics
/// After `limit`, with what was seen last.
pub fn eventually<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(value) => return value,
            Err(seen) if Instant::now() > deadline => {
                panic!("expected within {limit:?}: {what}\nseen last: {seen}")
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// `Ok` when `seen` is as expected; for [`eventually`].
pub fn expect<T: PartialEq + std::fmt::Debug>(seen: T, expected: &T) -> Result<(), String> {
    if seen == *expected {
        Ok(())
    } else {
        Err(format!("{seen:?}, expected {expected:?}"))
    }
}

/// The parts of a long test that share one theater. One that fails does not hide the others.
#[derive(Default)]
pub struct Steps {
    failed: Vec<String>,
}

impl Steps {
    /// Runs a part and tells how long it took.
    pub fn run(&mut self, name: &str, check: impl FnOnce()) {
        eprintln!("- {name}");
        let started = Instant::now();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        eprintln!("  {word}, {:.1} s", started.elapsed().as_secs_f64());
        if result.is_err() {
            self.failed.push(name.to_owned());
        }
    }

    /// # Panics
    /// When a part failed; its own message is above.
    pub fn finish(self) {
        assert!(self.failed.is_empty(), "failed: {}", self.failed.join(", "));
    }
}

/// Standard output as text.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard error as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A command of the program under test, in English whatever the machine speaks.
pub fn program() -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .env_remove("THEATER_HOME")
        .env("THEATER_LANG", "en")
        .stdin(Stdio::null());
    command
}

/// One running theater with a state directory of its own.
pub struct Theater {
    directory: tempfile::TempDir,
    supervisor: Option<Child>,
    env: BTreeMap<String, String>,
    starts: usize,
    options: Vec<String>,
}

impl Theater {
    /// Starts a new one and waits until it says that it is ready.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further options of `theater up`.
    pub fn start_with(options: &[&str]) -> Self {
        let mut theater = Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
            supervisor: None,
            env: BTreeMap::new(),
            starts: 0,
            options: options.iter().map(|&option| option.to_owned()).collect(),
        };
        theater.up();
        theater
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// What the supervisor has printed since its last start.
    pub fn printed(&self) -> String {
        let name = format!("up-{}.log", self.starts);
        std::fs::read_to_string(self.directory.path().join(name)).unwrap_or_default()
    }

    /// `theater up` in the same state directory, until it is ready.
    pub fn up(&mut self) {
        assert!(self.supervisor.is_none(), "it runs already");
        self.starts += 1;
        let path = self
            .directory
            .path()
            .join(format!("up-{}.log", self.starts));
        let log = File::create(&path).expect("a log");
        let child = program()
            .args(["up", "--port", "0", "--api-port", "0", "--state-dir"])
            .arg(self.state())
            .args(&self.options)
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("theater up");
        self.supervisor = Some(child);
        let started = Instant::now();
        eventually("theater up says Ready", LONG, || {
            let text = self.printed();
            let status = self.supervisor.as_mut().and_then(|c| c.try_wait().ok()?);
            assert!(status.is_none(), "theater up ended: {status:?}\n{text}");
            if text.contains("Ready in ") {
                Ok(())
            } else {
                Err(text)
            }
        });
        eprintln!("  up: {:.1} s", started.elapsed().as_secs_f64());
        let env = self.command(&["env"]);
        assert!(env.status.success(), "theater env: {}", stderr(&env));
        self.env = stdout(&env)
            .lines()
            .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned()))
            .collect();
        // The rest is the caller's own.
        self.env.remove("PATH");
    }

    /// The supervisor's process.
    pub fn pid(&self) -> i32 {
        let child = self.supervisor.as_ref().expect("a running theater");
        i32::try_from(child.id()).expect("a process id")
    }

    /// Runs another command of `theater` on the same state directory.
    pub fn command(&self, arguments: &[&str]) -> Output {
        program()
            .args(arguments)
            .arg("--state-dir")
            .arg(self.state())
            .output()
            .expect("theater")
    }

    /// A variable that `theater env` printed.
    pub fn variable(&self, name: &str) -> &str {
        self.env
            .get(name)
            .unwrap_or_else(|| panic!("theater env prints no {name}: {:?}", self.env))
    }

    /// Any program with the environment that `theater env` prints.
    pub fn shell(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.envs(&self.env).stdin(Stdio::null());
        command
    }

    /// kubectl with this theater's kubeconfig, as a command that can still be changed.
    pub fn kubectl_command(&self, context: &str, arguments: &[&str]) -> Command {
        let mut command = self.shell("kubectl");
        command
            // Discovery is cached by address, and another theater may have had the same one.
            .arg("--cache-dir")
            .arg(self.directory.path().join("kubectl"))
            .args(["--context", context]);
        // Manifests of several namespaces are refused together with -n.
        if !arguments.contains(&"-k") {
            command.args(["-n", NAMESPACE]);
        }
        command.args(arguments);
        command
    }

    /// kubectl in the namespace of the theater.
    pub fn kubectl_output(&self, context: &str, arguments: &[&str]) -> Output {
        self.kubectl_command(context, arguments)
            .output()
            .expect("kubectl")
    }

    /// kubectl that must succeed; what it printed.
    pub fn kubectl(&self, context: &str, arguments: &[&str]) -> String {
        let output = self.kubectl_output(context, arguments);
        assert!(
            output.status.success(),
            "kubectl {arguments:?} ({context}): {}{}",
            stdout(&output),
            stderr(&output)
        );
        stdout(&output)
    }

    /// `kubectl patch KIND NAME --type=merge -p PATCH`.
    pub fn merge_patch(&self, context: &str, kind: &str, name: &str, patch: &str) -> String {
        self.kubectl(context, &["patch", kind, name, "--type=merge", "-p", patch])
    }

    /// kubectl that must fail with exit code 1; what it printed on standard error.
    pub fn kubectl_fails(&self, context: &str, arguments: &[&str]) -> String {
        let output = self.kubectl_output(context, arguments);
        assert_eq!(
            output.status.code(),
            Some(1),
            "kubectl {arguments:?} ({context}): {}{}",
            stdout(&output),
            stderr(&output)
        );
        stderr(&output)
    }

    /// An object as JSON.
    pub fn object(&self, context: &str, kind: &str, name: &str) -> Value {
        let text = self.kubectl(context, &["get", kind, name, "-o", "json"]);
        serde_json::from_str(&text).expect("JSON of kubectl")
    }

    /// Applies YAML; whether it worked is in the output.
    pub fn apply_output(&self, context: &str, yaml: &str) -> Output {
        self.with_yaml(context, &["apply", "-f"], yaml)
    }

    /// Runs kubectl with the path of a file that holds `yaml` as its last argument.
    pub fn with_yaml(&self, context: &str, arguments: &[&str], yaml: &str) -> Output {
        let file = tempfile::NamedTempFile::with_suffix(".yaml").expect("a file");
        std::fs::write(file.path(), yaml).expect("written");
        let path = file.path().to_string_lossy().into_owned();
        let mut all = arguments.to_vec();
        all.push(&path);
        self.kubectl_output(context, &all)
    }

    /// Applies YAML, which must succeed.
    pub fn apply(&self, context: &str, yaml: &str) -> String {
        let output = self.apply_output(context, yaml);
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    }

    /// A merge patch, in both clusters: in one mesh each istiod reads the configuration of its own.
    pub fn patch(&self, kind: &str, name: &str, patch: &str) {
        for context in ["ctx1", "ctx2"] {
            self.kubectl(context, &["patch", kind, name, "--type=merge", "-p", patch]);
        }
    }

    /// Waits until all pods that match the label are ready.
    pub fn wait_pods_ready(&self, context: &str, selector: &str) {
        eventually(&format!("pods {selector} ready in {context}"), LONG, || {
            let pods = self.pods(context, selector);
            let ready = pods.iter().all(|pod| {
                pod["status"]["conditions"].as_array().is_some_and(|all| {
                    all.iter()
                        .any(|one| one["type"] == "Ready" && one["status"] == "True")
                })
            });
            if ready && !pods.is_empty() {
                Ok(())
            } else {
                Err(self.kubectl(context, &["get", "pods", "-l", selector]))
            }
        });
    }

    /// Pods that match the label.
    pub fn pods(&self, context: &str, selector: &str) -> Vec<Value> {
        let text = self.kubectl(context, &["get", "pods", "-l", selector, "-o", "json"]);
        let list: Value = serde_json::from_str(&text).expect("JSON of kubectl");
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// The name of the one pod of an application.
    pub fn pod(&self, context: &str, app: &str) -> String {
        let pods = self.pods(context, &format!("app={app}"));
        assert_eq!(pods.len(), 1, "pods of {app} in {context}: {pods:?}");
        pods[0]["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Ends the supervisor as Ctrl-C does; everything it started must be gone then.
    pub fn stop(&mut self) {
        let Some(mut child) = self.supervisor.take() else {
            return;
        };
        let mut all = Vec::new();
        // It may have ended by itself, and its number may be another's.
        if child.try_wait().is_ok_and(|status| status.is_none()) {
            let pid = i32::try_from(child.id()).expect("a process id");
            all = processes::tree(pid);
            processes::signal(pid, libc::SIGINT);
        }
        let deadline = Instant::now() + LONG;
        let mut status = child.try_wait().expect("its status");
        while status.is_none() && Instant::now() < deadline {
            std::thread::sleep(POLL);
            status = child.try_wait().expect("its status");
        }
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            return;
        }
        assert!(
            status.is_some_and(|status| status.success()),
            "theater up must end by Ctrl-C with success, seen {status:?}\n{}",
            self.printed()
        );
        processes::gone(&all, LONG);
    }

    /// The supervisor has ended by other means; nothing of it may remain.
    pub fn ended(&mut self, processes: &[processes::Process]) {
        if let Some(mut child) = self.supervisor.take() {
            eventually("the supervisor ends", LONG, || match child.try_wait() {
                Ok(Some(_)) => Ok(()),
                other => Err(format!("{other:?}")),
            });
        }
        processes::gone(processes, LONG);
    }

    /// Process of a cluster, as `theater status` says.
    pub fn cluster_pid(&self, cluster: &str) -> Option<i32> {
        let status = self.command(&["status"]);
        let text = stdout(&status);
        let line = text.lines().find(|line| line.starts_with(cluster))?;
        line.split_whitespace().find_map(|word| word.parse().ok())
    }

    /// Where the tree's manifests are.
    pub fn manifests(path: &str) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .join(path);
        root.to_string_lossy().into_owned()
    }
}

impl Drop for Theater {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("theater up printed:\n{}", self.printed());
            for cluster in ["ctx1", "ctx2"] {
                let output = self.kubectl_output(cluster, &["get", "pods", "-A"]);
                eprintln!("{cluster}:\n{}{}", stdout(&output), stderr(&output));
            }
        }
        self.stop();
    }
}
