//! What happens when things end that should not.

mod support;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use support::processes::{self, Process};
use support::web::{by_cluster, count};
use support::{LONG, Steps, Theater, eventually, expect, program, stderr, stdout};

const PATCH: &str = r#"{"spec":{"http":[{"route":[{"destination":{"host":"user-service","subset":"ctx1"},"weight":20},{"destination":{"host":"user-service","subset":"ctx2"},"weight":80}]}]}}"#;

#[test]
fn bad_days() {
    if !support::possible() {
        return;
    }
    let mut theater = Theater::start();
    let mut steps = Steps::default();
    steps.run("a second up", || a_second_up_is_refused(&theater));
    steps.run("a port taken", || a_port_taken_leaves_nothing(&theater));
    steps.run("a cluster killed while starting", || {
        a_cluster_that_ends_while_starting_ends_up(&theater)
    });
    steps.run("status and logs", || status_and_logs_tell(&theater));
    steps.run("an application killed", || {
        an_application_is_started_again(&theater)
    });
    steps.run("a sidecar killed", || a_sidecar_is_started_again(&theater));
    steps.run("a cluster killed", || a_cluster_is_brought_back(&theater));
    steps.run("down and up", || down_and_up_keep_everything(&mut theater));
    steps.run("the supervisor killed", || {
        the_supervisors_end_ends_everything(&mut theater)
    });
    steps.run("reset", || reset_brings_the_first_scene_back(&theater));
    steps.finish();
}

fn a_second_up_is_refused(theater: &Theater) {
    let output = theater.command(&["up"]);
    let error = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(
        error.contains(&format!(
            "a theater is already running (process {})",
            theater.pid()
        )) && error.contains("theater down"),
        "{error}"
    );
    let output = theater.command(&["reset", "--all"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("theater down"),
        "{}",
        stderr(&output)
    );
    assert_eq!(theater.get("/users/").status, 200);
}

fn a_port_taken_leaves_nothing(theater: &Theater) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener
        .local_addr()
        .expect("its address")
        .port()
        .to_string();
    let directory = tempfile::tempdir().expect("a directory");
    for option in ["--port", "--api-port"] {
        let other = if option == "--port" {
            "--api-port"
        } else {
            "--port"
        };
        let output = program()
            .args(["up", option, &port, other, "0", "--state-dir"])
            .arg(directory.path())
            .output()
            .expect("theater");
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(
            error.contains(&format!("port {port} cannot be opened")) && error.contains(option),
            "{error}"
        );
        let status = program()
            .args(["status", "--state-dir"])
            .arg(directory.path())
            .output();
        assert_eq!(status.expect("theater").status.code(), Some(1));
    }
    drop(listener);
    assert_eq!(theater.get("/users/").status, 200);
}

/// A theater that lost a cluster before it was ready is no theater: it says which one, and leaves nothing.
fn a_cluster_that_ends_while_starting_ends_up(theater: &Theater) {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().to_str().expect("a name").to_owned();
    let mut up = program()
        .args([
            "up",
            "--port",
            "0",
            "--api-port",
            "0",
            "--state-dir",
            &state,
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("theater");
    let pid = up.id().cast_signed();
    let (all, ctx2) = eventually("a process of ctx2", LONG, || {
        let all = processes::tree(pid);
        let ctx2 = all.iter().find(|process| {
            let pairs = process.command.windows(2);
            pairs.into_iter().any(|pair| pair == ["cluster", "ctx2"])
        });
        let ctx2 = ctx2.ok_or_else(|| format!("{all:#?}"))?.pid;
        Ok((all, ctx2))
    });
    processes::signal(ctx2, libc::SIGKILL);
    let ended = eventually("up ends", LONG, || {
        let status = up.try_wait().expect("its status");
        status.ok_or_else(|| "still running".to_owned())
    });
    let mut error = String::new();
    let mut pipe = up.stderr.take().expect("a pipe");
    pipe.read_to_string(&mut error).expect("UTF-8");
    assert_eq!(ended.code(), Some(1), "{error}");
    assert!(
        error.contains("cluster ctx2 ended while starting; see ") && error.contains(&state),
        "{error}"
    );
    processes::gone(&all, LONG);
    assert_eq!(theater.get("/users/").status, 200);
}

fn status_and_logs_tell(theater: &Theater) {
    let text = stdout(&theater.command(&["status"]));
    let url = theater.url("https", "");
    assert!(
        text.contains(&url) && text.contains(&theater.pid().to_string()),
        "{text}"
    );
    for cluster in ["ctx1", "ctx2"] {
        assert!(theater.cluster_pid(cluster).is_some(), "{text}");
    }
    let logs = theater.command(&["logs", "ctx2", "--tail", "1000"]);
    assert!(
        stdout(&logs).contains("API server ready"),
        "{}",
        stdout(&logs)
    );
    let both = stdout(&theater.command(&["logs", "--tail", "1"]));
    assert_eq!(both.lines().count(), 2, "{both}");
    assert!(both.lines().all(|line| line.starts_with("[ctx")), "{both}");
}

/// The one process of a cluster whose program's name is this.
fn process(theater: &Theater, cluster: &str, wanted: impl Fn(&Process) -> bool) -> Process {
    let pid = theater.cluster_pid(cluster).expect("a running cluster");
    let all = processes::tree(pid);
    let found: Vec<&Process> = all.iter().filter(|process| wanted(process)).collect();
    assert_eq!(found.len(), 1, "in {cluster}: {all:#?}");
    found[0].clone()
}

/// Whether this is the program of that name, not the one that holds its sandbox.
fn is(process: &Process, name: &str) -> bool {
    let program = process
        .command
        .first()
        .and_then(|word| word.rsplit('/').next());
    program == Some(name)
}

/// RESTARTS and readiness of one container.
fn container(theater: &Theater, cluster: &str, app: &str, name: &str) -> (u64, bool) {
    let pods = theater.pods(cluster, &format!("app={app}"));
    let status = &pods[0]["status"];
    let all = ["containerStatuses", "initContainerStatuses"]
        .iter()
        .filter_map(|field| status[*field].as_array())
        .flatten()
        .find(|status| status["name"] == name)
        .cloned()
        .unwrap_or_default();
    (
        all["restartCount"].as_u64().unwrap_or_default(),
        all["ready"] == true,
    )
}

/// Twenty good answers in a row, from both clusters.
fn serves(theater: &Theater, path: &str) {
    eventually(&format!("{path} works from both clusters"), LONG, || {
        let answers = theater.get_many(path, 40);
        let good = count(&answers, |answer| answer.status) == [(200, 40)].into();
        if good && by_cluster(&answers).len() == 2 {
            Ok(())
        } else {
            Err(format!(
                "{:?}",
                count(&answers, |a| (a.status, a.cluster.clone(), a.body.len()))
            ))
        }
    });
}

fn an_application_is_started_again(theater: &Theater) {
    let before = theater.pod("ctx1", "user-service");
    let killed = process(theater, "ctx1", |process| is(process, "user-service"));
    processes::signal(killed.pid, libc::SIGKILL);
    eventually("RESTARTS 1", LONG, || {
        expect(
            container(theater, "ctx1", "user-service", "user-service"),
            &(1, true),
        )
    });
    assert_eq!(theater.pod("ctx1", "user-service"), before, "the pod stays");
    let row = theater.kubectl(
        "ctx1",
        &["get", "pods", "-l", "app=user-service", "--no-headers"],
    );
    let fields: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(fields[1], "2/2", "{row}");
    assert_eq!(fields[3], "1", "{row}");
    serves(theater, "/users/");
    let previous = theater.kubectl(
        "ctx1",
        &[
            "logs",
            &before,
            "-c",
            "user-service",
            "--previous",
            "--tail=5",
        ],
    );
    assert!(!previous.is_empty(), "the log of the first life is kept");
}

fn a_sidecar_is_started_again(theater: &Theater) {
    // The sidecar of movie-service: in its pod there is one proxy, told apart by its environment.
    let killed = process(theater, "ctx1", |process| {
        let environment =
            std::fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment);
        is(process, "pilot-agent")
            && environment
                .split('\0')
                .any(|one| one.starts_with("POD_NAME=movie-service-"))
    });
    processes::signal(killed.pid, libc::SIGKILL);
    eventually("the sidecar is back", LONG, || {
        let (restarts, ready) = container(theater, "ctx1", "movie-service", "istio-proxy");
        expect((restarts > 0, ready), &(true, true))
    });
    serves(theater, "/movies/");
}

/// ctx2 and with it the store are gone: what the weights send to ctx1 is answered there, from memory;
/// what they send to ctx2 fails, and nobody waits long for either.
fn still_served_by_the_other(theater: &Theater) {
    eventually("ctx1 answers from memory", LONG, || {
        let answers = theater.get_many("/users/", 10);
        let served = answers.iter().filter(|answer| answer.status == 200);
        let places: BTreeSet<&str> = served.map(|answer| answer.cluster.as_str()).collect();
        let slow = answers.iter().any(|answer| answer.seconds > 5.0);
        if places == BTreeSet::from(["ctx1"]) && !slow {
            Ok(())
        } else {
            Err(format!("{answers:#?}"))
        }
    });
}

fn a_cluster_is_brought_back(theater: &Theater) {
    // Every replica has read the list once.
    serves(theater, "/users/");
    let pid = theater.cluster_pid("ctx2").expect("ctx2");
    let all = processes::tree(pid);
    processes::signal(pid, libc::SIGKILL);
    processes::gone(&all, LONG);
    eventually("the supervisor notices", LONG, || {
        let printed = theater.printed();
        if printed.contains("Cluster ctx2 ended") {
            Ok(())
        } else {
            Err(printed)
        }
    });
    let status = stdout(&theater.command(&["status"]));
    let line = status
        .lines()
        .find(|line| line.starts_with("ctx2"))
        .expect("a line");
    assert!(line.contains("down"), "{status}");
    // The other cluster goes on.
    assert!(
        theater
            .kubectl("ctx1", &["get", "pods"])
            .contains("user-service")
    );
    assert_eq!(theater.get("/").status, 200);
    still_served_by_the_other(theater);
    let output = theater.command(&["up"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("ctx2"), "{}", stdout(&output));
    let back = Instant::now();
    serves(theater, "/users/");
    eprintln!(
        "  served from both again after {:.1} s",
        back.elapsed().as_secs_f64()
    );
    theater.wait_pods_ready("ctx2", "app=redis");
    serves(theater, "/bookings/");
}

/// What must outlive an end: a booking, changed weights and an object of one's own.
fn leave_traces(theater: &Theater, name: &str) {
    let body = format!(r#"{{"userId":"{name}","movieId":"1","seats":1}}"#);
    let booking = theater.post("/bookings/", &body);
    assert_eq!(booking.status, 201, "{booking:?}");
    theater.merge_patch("ctx1", "virtualservice", "user-service-vs", PATCH);
    theater.kubectl("ctx2", &["create", "configmap", name, "--from-literal=a=b"]);
}

/// Whether a file below this directory whose path has `part` in it has the text.
fn written_down(directory: &Path, part: &str, text: &str) -> bool {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        if path.is_dir() && !path.is_symlink() {
            return written_down(&path, part, text);
        }
        path.to_string_lossy().contains(part)
            && std::fs::read(&path)
                .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
    })
}

fn find_traces(theater: &Theater, name: &str, bookings: usize) {
    serves(theater, "/bookings/");
    let seen = theater.get("/bookings/").json();
    assert_eq!(seen.as_array().map(Vec::len), Some(bookings), "{seen}");
    eventually("the weights are told", LONG, || {
        let weights = theater.get("/traffic-weights").json();
        expect(weights["UserServiceCtx1Weight"].as_u64(), &Some(20))
    });
    assert_eq!(theater.object("ctx2", "configmap", name)["data"]["a"], "b");
    serves(theater, "/users/");
}

/// "Ready" is a promise: the page answers at once.
fn first_answer(theater: &Theater) {
    let answer = theater.get("/");
    assert_eq!(
        answer.status, 200,
        "the first request after Ready: {answer:?}"
    );
}

fn down_and_up_keep_everything(theater: &mut Theater) {
    leave_traces(theater, "kept-by-down");
    let all = processes::tree(theater.pid());
    let output = theater.command(&["down"]);
    assert!(output.status.success(), "{}", stderr(&output));
    theater.ended(&all);
    assert!(stderr(&theater.command(&["status"])).contains("no theater is running"));
    theater.up();
    first_answer(theater);
    find_traces(theater, "kept-by-down", 1);
}

fn the_supervisors_end_ends_everything(theater: &mut Theater) {
    leave_traces(theater, "kept-by-kill");
    // A real Redis may write a little later than it answers.
    eventually("the store has written the booking", LONG, || {
        let written = written_down(&theater.state().join("ctx2"), "appendonly", "kept-by-kill");
        expect(written, &true)
    });
    let bookings = theater
        .get("/bookings/")
        .json()
        .as_array()
        .map_or(0, Vec::len);
    let all = processes::tree(theater.pid());
    processes::signal(theater.pid(), libc::SIGKILL);
    theater.ended(&all);
    assert_eq!(
        theater.command(&["env"]).status.code(),
        Some(1),
        "env of a dead theater"
    );
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(
        !mounts.contains(&*theater.state().to_string_lossy()),
        "{mounts}"
    );
    theater.up();
    first_answer(theater);
    find_traces(theater, "kept-by-kill", bookings);
}

fn reset_brings_the_first_scene_back(theater: &Theater) {
    theater.merge_patch("ctx1", "virtualservice", "user-service-vs", PATCH);
    theater.kubectl(
        "ctx2",
        &["scale", "deployment", "movie-service", "--replicas=2"],
    );
    theater.kubectl(
        "ctx1",
        &[
            "create",
            "deployment",
            "visitor",
            "--image=busybox",
            "--",
            "sleep",
            "3600",
        ],
    );
    theater.kubectl(
        "ctx1",
        &["run", "passer-by", "--image=busybox", "--", "sleep", "3600"],
    );
    // Configuration of the whole mesh, and a kind that the theater does not use itself.
    let mesh_wide = theater.with_yaml(
        "ctx1",
        &["apply", "-n", "istio-system", "-f"],
        r#"
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default}
spec:
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
"#,
    );
    assert!(mesh_wide.status.success(), "{}", stderr(&mesh_wide));
    theater.apply(
        "ctx1",
        r#"
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: quiet}
spec:
  accessLogging: [{disabled: true}]
"#,
    );
    let booking = theater.post("/bookings/", r#"{"userId":"1","movieId":"1","seats":1}"#);
    assert_eq!(booking.status, 201, "{booking:?}");
    let output = theater.command(&["reset"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("The initial scene is back"),
        "{}",
        stdout(&output)
    );
    eventually("weights as at first", LONG, || {
        let weights = theater.get("/traffic-weights").json();
        expect(weights["UserServiceCtx1Weight"].as_u64(), &Some(70))
    });
    let scaled = theater.object("ctx2", "deployment", "movie-service");
    assert_eq!(scaled["spec"]["replicas"], 1);
    let deployments = theater.kubectl("ctx1", &["get", "deployments", "-o", "name"]);
    assert!(!deployments.contains("visitor"), "{deployments}");
    let left = theater.kubectl("ctx1", &["get", "sidecars,telemetries", "-A", "-o", "name"]);
    assert_eq!(left.trim(), "");
    eventually("no pod of its own", LONG, || {
        let pods = theater.kubectl("ctx1", &["get", "pods", "-o", "name"]);
        expect(pods.contains("passer-by"), &false)
    });
    eventually("no bookings", LONG, || {
        let bookings = theater.get("/bookings/");
        expect((bookings.status, bookings.body.trim()), &(200, "[]"))
    });
    serves(theater, "/users/");
    serves(theater, "/movies/");
}
