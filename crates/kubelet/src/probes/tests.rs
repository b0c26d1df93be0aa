use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::clock::Millis;
use crate::cri::{ExecSpec, ExitStatus, Process, RuntimeError, Streams};

fn probe(spec: Value) -> Probe {
    serde_json::from_value(spec).unwrap()
}

fn container() -> Container {
    serde_json::from_value(json!({"name": "c", "image": "i",
        "ports": [{"name": "http", "containerPort": 8080}]}))
    .unwrap()
}

#[test]
fn targets_with_named_ports_and_defaults() {
    let ip = "10.10.0.5".parse().unwrap();
    let http = probe(
        json!({"httpGet": {"path": "healthz", "port": "http", "httpHeaders": [{"name": "X", "value": "y"}]}}),
    );
    assert_eq!(
        target(&http, &container(), ip).unwrap(),
        Target::Http {
            tls: false,
            host: "10.10.0.5".into(),
            port: 8080,
            path: "/healthz".into(),
            headers: vec![("X".into(), "y".into())]
        }
    );
    let tcp = probe(json!({"tcpSocket": {"port": 6379, "host": "127.0.0.1"}}));
    assert_eq!(
        target(&tcp, &container(), ip).unwrap(),
        Target::Tcp {
            host: "127.0.0.1".into(),
            port: 6379
        }
    );
    let unknown = probe(json!({"tcpSocket": {"port": "nope"}}));
    assert_eq!(
        target(&unknown, &container(), ip).unwrap_err(),
        "container c has no port named \"nope\""
    );
}

#[test]
fn readiness_is_eager_before_the_first_success_and_periodic_afterwards() {
    let spec = probe(json!({"initialDelaySeconds": 2, "periodSeconds": 10}));
    let mut schedule = Schedule::new(&spec, ProbeKind::Readiness, 1_000);
    assert_eq!(schedule.first(), 3_000);
    let next = schedule.record(false, 3_001);
    assert_eq!(
        next,
        Next {
            verdict: None,
            counted_failure: false,
            at: 3_051
        }
    );
    let next = schedule.record(true, 3_052);
    assert_eq!(
        next,
        Next {
            verdict: Some(Verdict::Healthy),
            counted_failure: false,
            at: 13_052
        }
    );
    for (at, verdict) in [
        (13_052, None),
        (23_052, None),
        (33_052, Some(Verdict::Unhealthy)),
        (43_052, None),
    ] {
        let next = schedule.record(false, at);
        assert_eq!(
            next,
            Next {
                verdict,
                counted_failure: true,
                at: at + 10_000
            }
        );
    }
    assert_eq!(
        schedule.record(true, 53_052).verdict,
        Some(Verdict::Healthy)
    );
}

#[test]
fn a_startup_probe_gives_up_after_as_many_periods_as_its_threshold() {
    let spec = probe(json!({"periodSeconds": 2, "failureThreshold": 4}));
    let mut schedule = Schedule::new(&spec, ProbeKind::Startup, 0);
    let (mut now, mut attempts, mut counted) = (schedule.first(), 0, 0);
    loop {
        attempts += 1;
        let next = schedule.record(false, now);
        counted += u32::from(next.counted_failure);
        if next.verdict == Some(Verdict::Unhealthy) {
            break;
        }
        assert!(now < 20_000);
        now = next.at;
    }
    assert_eq!(counted, 4);
    assert!((8_000..9_500).contains(&now), "{now}");
    assert!(
        (20..120).contains(&attempts),
        "eager but ever slower: {attempts}"
    );
}

#[test]
fn liveness_counts_every_period_from_the_first() {
    let spec = probe(json!({"periodSeconds": 5, "failureThreshold": 2}));
    let mut schedule = Schedule::new(&spec, ProbeKind::Liveness, 0);
    let first: Millis = schedule.first();
    assert_eq!(
        schedule.record(false, first),
        Next {
            verdict: None,
            counted_failure: true,
            at: 5_000
        }
    );
    assert_eq!(
        schedule.record(false, 5_000).verdict,
        Some(Verdict::Unhealthy)
    );
}

/// A container in which every command prints its arguments and fails, except `true`.
struct Shell;

#[async_trait]
impl Process for Shell {
    fn pid(&self) -> i32 {
        0
    }
    async fn wait(&self) -> ExitStatus {
        ExitStatus {
            code: 1,
            signal: None,
            oom: false,
        }
    }
    fn kill(&self, _: i32) {}
    fn resize(&self, _: u16, _: u16) {}
    async fn exec(
        &self,
        spec: ExecSpec,
    ) -> Result<(std::sync::Arc<dyn Process>, Streams), RuntimeError> {
        let stdout = std::io::Cursor::new(spec.argv.join(" ").into_bytes());
        Ok((
            std::sync::Arc::new(Self),
            Streams {
                stdout: Some(Box::new(stdout)),
                ..Streams::default()
            },
        ))
    }
}

async fn server(answer: &'static str) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            if answer.is_empty() {
                std::future::pending::<()>().await;
            }
        }
    });
    port
}

#[tokio::test]
async fn failures_are_told_in_the_kubelets_words() {
    let checker = Checker::default();
    let ok = server("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n").await;
    let bad = server("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    let silent = server("").await;
    // A port that is nobody else's, and on which nobody listens.
    let kept = tokio::net::TcpSocket::new_v4().unwrap();
    kept.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let closed = kept.local_addr().unwrap().port();
    let http = |port| Target::Http {
        tls: false,
        host: "127.0.0.1".into(),
        port,
        path: "/h".into(),
        headers: Vec::new(),
    };
    let tcp = |port| Target::Tcp {
        host: "127.0.0.1".into(),
        port,
    };
    let failure = |text: String| Outcome::Failure(text);
    let timeout = failure(format!(
        "Get \"http://127.0.0.1:{silent}/h\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    ));
    for (target, expected) in [
        (http(ok), Outcome::Success),
        (
            http(bad),
            failure("HTTP probe failed with statuscode: 503".into()),
        ),
        (
            http(closed),
            failure(format!(
                "Get \"http://127.0.0.1:{closed}/h\": dial tcp 127.0.0.1:{closed}: connect: connection refused"
            )),
        ),
        (http(silent), timeout.clone()),
        (tcp(ok), Outcome::Success),
        (
            tcp(closed),
            failure(format!(
                "dial tcp 127.0.0.1:{closed}: connect: connection refused"
            )),
        ),
        (
            Target::Exec(vec!["cat".into(), "/x".into()]),
            failure("cat /x".into()),
        ),
    ] {
        // Only the silent one is not waited for.
        let silent = expected == timeout;
        let patience = Duration::from_millis(if silent { 300 } else { 60_000 });
        let seen = checker.check(&target, patience, &Shell).await;
        assert_eq!(seen, expected, "{target:?}");
    }
}
