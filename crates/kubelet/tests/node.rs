//! The node agent with real sandboxes, driven by kubectl through a real API server.
//!
//! Needs root (network and mount namespaces), kubectl, curl and the example programs `apiserver` and
//! `node`, which `cargo test --workspace` builds; otherwise it says what is missing and does nothing.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest wait for anything: far more than a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Scene {
    dir: tempfile::TempDir,
    api: Child,
    node: Child,
}

impl Drop for Scene {
    fn drop(&mut self) {
        for child in [&mut self.node, &mut self.api] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn example(name: &str) -> Option<PathBuf> {
    let deps = std::env::current_exe().ok()?;
    let path = deps.parent()?.parent()?.join("examples").join(name);
    path.exists().then_some(path)
}

/// Brings the loopback interface of a fresh network namespace up. Only system calls: it runs between
/// fork and exec.
fn loopback_up() -> std::io::Result<()> {
    // SAFETY: a socket of our own and a zeroed request with a valid interface name.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        let failed = libc::ioctl(socket, libc::SIOCSIFFLAGS, &request) != 0;
        let error = std::io::Error::last_os_error();
        libc::close(socket);
        if failed { Err(error) } else { Ok(()) }
    }
}

impl Scene {
    fn start() -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("it needs root".into());
        }
        for program in ["kubectl", "curl"] {
            Command::new(program)
                .arg("--help")
                .output()
                .map_err(|_| format!("{program} is not on the PATH"))?;
        }
        let api = example("apiserver").ok_or(
            "examples/apiserver is not built (cargo build -p theater-apiserver --examples)",
        )?;
        let dir = tempfile::tempdir().map_err(|problem| problem.to_string())?;
        let mut command = Command::new(api);
        command
            .arg("--dir")
            .arg(dir.path())
            .args(["--port", "6443"]);
        let log = std::fs::File::create(dir.path().join("api.log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        // SAFETY: only system calls between fork and exec.
        unsafe {
            command.pre_exec(|| {
                use nix::sched::{CloneFlags, unshare};
                unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
                loopback_up()
            });
        }
        let api = command
            .spawn()
            .map_err(|problem| format!("no network namespaces here: {problem}"))?;
        let deadline = Instant::now() + PATIENCE;
        while !(dir.path().join("node-1.kubeconfig").exists() && dir.path().join("ca.key").exists())
        {
            assert!(Instant::now() < deadline, "the API server did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        let node = Self::start_node(&dir, &api);
        Ok(Self { dir, api, node })
    }

    fn inside(api: &Child, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let namespace =
            |kind: &str| std::fs::File::open(format!("/proc/{}/ns/{kind}", api.id())).unwrap();
        let (net, mount) = (namespace("net"), namespace("mnt"));
        let directory = std::env::current_dir().unwrap();
        let mut command = Command::new(program);
        // SAFETY: only system calls between fork and exec.
        unsafe {
            command.pre_exec(move || {
                use nix::sched::{CloneFlags, setns};
                setns(&net, CloneFlags::CLONE_NEWNET)?;
                setns(&mount, CloneFlags::CLONE_NEWNS)?;
                nix::unistd::chdir(directory.as_path())?;
                Ok(())
            });
        }
        command
    }

    fn start_node(dir: &tempfile::TempDir, api: &Child) -> Child {
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(dir.path().join("node.log"))
            .unwrap();
        let mut command = Self::inside(
            api,
            example("node").expect("examples/node is built with this test"),
        );
        command
            .arg("--dir")
            .arg(dir.path())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command.spawn().unwrap()
    }

    /// kill -9, then a new node agent on the same directories. Its network namespace goes on.
    fn restart_node(&mut self) {
        self.node.kill().unwrap();
        self.node.wait().unwrap();
        self.node = Self::start_node(&self.dir, &self.api);
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Self::inside(&self.api, program);
        command.env("KUBECONFIG", self.path().join("admin.kubeconfig"));
        command
    }

    fn kubectl(&self, line: &str) -> Output {
        self.command("kubectl")
            .args(line.split_whitespace())
            .output()
            .unwrap()
    }

    fn ok(&self, line: &str) -> String {
        let output = self.kubectl(line);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let log = || std::fs::read_to_string(self.path().join("node.log")).unwrap_or_default();
        assert!(
            output.status.success(),
            "kubectl {line}: {}\n{}",
            String::from_utf8_lossy(&output.stderr),
            log()
        );
        text
    }

    fn sh(&self, pod: &str, script: &str) -> Output {
        self.command("kubectl")
            .args(["exec", pod, "-c", "web", "--", "sh", "-c", script])
            .output()
            .unwrap()
    }

    fn apply(&self, yaml: &str) {
        let mut child = self
            .command("kubectl")
            .args(["apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(yaml.as_bytes())
            .unwrap();
        assert!(child.wait().unwrap().success(), "apply\n{yaml}");
    }

    fn json(&self, what: &str) -> Value {
        let output = self.kubectl(&format!("get {what} -o json"));
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    fn until(&self, what: &str, mut condition: impl FnMut(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.json(what);
            if condition(&value) {
                return value;
            }
            let log = || std::fs::read_to_string(self.path().join("node.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "{what} is {value:#}\n{}", log());
            std::thread::sleep(Duration::from_millis(30));
        }
    }
}

impl Scene {
    /// Waits until a log begins so: its lines are written down a moment after they were said.
    fn until_log(&self, line: &str, beginning: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.ok(line);
            if seen.starts_with(beginning) {
                return;
            }
            assert!(Instant::now() < deadline, "kubectl {line}: {seen}");
            std::thread::sleep(Duration::from_millis(30));
        }
    }
}

fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: a}}
spec:
  nodeName: node-1
  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: first, image: busybox, command: [sh, -c, "echo prepared"]}
  containers:
  - name: web
    image: registry.example/any/busybox:v9
    command: [sh, -c, "echo start >> /data/starts; echo listening; exec python3 -m http.server 8080"]
    ports: [{name: http, containerPort: 8080}]
    envFrom: [{configMapRef: {name: cfg}}]
    readinessProbe: {httpGet: {port: http, path: /}}
    volumeMounts: [{name: cfg, mountPath: /cfg}, {name: data, mountPath: /data}]
  volumes: [{name: cfg, configMap: {name: cfg}}, {name: data, emptyDir: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.97.0.77, ports: [{name: http, port: 80, targetPort: 8080}]}
"#;

#[test]
fn a_pod_lives_through_everything_kubectl_does_to_it() {
    let mut scene = match Scene::start() {
        Ok(scene) => scene,
        Err(reason) => {
            println!("skipped: {reason}");
            return;
        }
    };
    // The node registers itself.
    let node = scene.until("node node-1", |node| {
        node["status"]["conditions"].is_array()
    });
    assert_eq!(node["metadata"]["labels"]["cluster-name"], "example");
    assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], "v1.32.4");

    // What the controllers would have made.
    for line in [
        "create serviceaccount default",
        "create configmap kube-root-ca.crt --from-literal=ca.crt=x",
        "create configmap cfg --from-literal=color=red",
    ] {
        let _ = scene.kubectl(line);
    }
    let begin = Instant::now();
    scene.apply(POD);
    let pod = scene.until("pod a", ready);
    println!("apply to ready as kubectl sees it: {:?}", begin.elapsed());
    assert_eq!(pod["status"]["phase"], "Running");
    let ip = pod["status"]["podIP"].as_str().unwrap().to_owned();

    // Logs and exec.
    scene.until_log("logs a -c first", "prepared\n");
    scene.until_log("logs a -c web", "listening");
    let output = scene.sh("a", "echo $color; cat /cfg/color; echo oops >&2; exit 7");
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "red\nred");
    assert!(String::from_utf8_lossy(&output.stderr).contains("oops"));

    // Name, cluster IP and endpoint.
    scene.apply(&format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web-1, labels: {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\nports: [{{name: http, port: 8080, protocol: TCP}}]\nendpoints: [{{addresses: [{ip}], conditions: {{ready: true}}}}]\n"
    ));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = scene.sh(
            "a",
            "curl -s -o /dev/null -w %{http_code} http://web.default/",
        );
        if output.stdout == b"200" {
            break;
        }
        assert!(Instant::now() < deadline, "{output:?}");
    }
    let output = scene.sh("a", "getent hosts web; getent hosts nobody");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("10.97.0.77"),
        "{output:?}"
    );
    assert!(!output.status.success(), "an unknown name does not exist");

    // A changed configmap reaches the volume.
    scene.ok(r#"patch configmap cfg --type=merge -p {"data":{"color":"blue"}}"#);
    let deadline = Instant::now() + PATIENCE;
    while scene.sh("a", "cat /cfg/color").stdout != b"blue" {
        assert!(Instant::now() < deadline, "the volume did not change");
    }

    // Port-forward.
    let mut forward = scene
        .command("kubectl")
        .args(["port-forward", "pod/a", "18080:8080"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    // Kept open: kubectl ends when it cannot write its next line.
    let mut said = std::io::BufReader::new(forward.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    let output = scene
        .command("curl")
        .args([
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "http://127.0.0.1:18080/",
        ])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "200", "{line}");
    forward.kill().unwrap();
    forward.wait().unwrap();

    // A killed container comes back, visible in its restart count, with the log of before.
    scene.sh("a", "kill -9 -1; kill -TERM 1; kill -INT 1");
    let restarted = scene.until("pod a", |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"] == 1 && ready(pod)
    });
    assert!(restarted["status"]["containerStatuses"][0]["lastState"]["terminated"].is_object());
    scene.until_log("logs a -c web --previous", "listening");

    // The node agent dies and comes back: same pod, new containers, data kept.
    scene.restart_node();
    let pod = scene.until("pod a", |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"] == 2 && ready(pod)
    });
    assert_ne!(
        pod["status"]["podIP"].as_str(),
        Some(ip.as_str()),
        "no address is given again at once"
    );
    assert_eq!(
        pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"],
        255
    );
    assert_eq!(
        scene.sh("a", "cat /data/starts").stdout,
        b"start\nstart\nstart\n"
    );

    // Deletion leaves nothing.
    let output = scene.kubectl("delete pod a --timeout=60s");
    assert!(output.status.success(), "{output:?}");
    let deadline = Instant::now() + PATIENCE;
    let leftovers = || {
        ["node/logs", "node/volumes", "node-volumes"]
            .iter()
            .map(|dir| std::fs::read_dir(scene.path().join(dir)).map_or(0, Iterator::count))
            .sum::<usize>()
    };
    while leftovers() > 0 {
        assert!(
            Instant::now() < deadline,
            "{} directories are left",
            leftovers()
        );
        std::thread::sleep(Duration::from_millis(20));
    }

    // An image that is not built in says what is.
    scene.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: {nodeName: node-1, containers: [{name: c, image: nginx}]}\n");
    scene.until("pod bad", |pod| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ImagePullBackOff"
    });
    scene.until("events", |events| {
        events
            .to_string()
            .contains("built-in images: busybox, redis")
    });
}
