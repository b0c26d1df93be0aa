//! kill -9 loses no acknowledged write.
#![allow(missing_docs)]

mod support;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use runtime::CancellationToken;
use serde_json::json;
use support::Credentials;

const DIRECTORY: &str = "THEATER_TEST_STORE";
const CMS: &str = "/api/v1/namespaces/default/configmaps";
/// How often it is killed, unless `THEATER_KILLS` says otherwise.
const ROUNDS: usize = 12;

/// Not a test: the process that is killed. It serves, writes as fast as it can through HTTPS
/// and prints the name of each object once its creation is acknowledged.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by the test below"]
async fn victim() {
    use std::io::Write as _;
    let Some(dir) = std::env::var_os(DIRECTORY).map(PathBuf::from) else {
        return;
    };
    let credentials = Credentials::new();
    let handle = credentials.start(&dir, CancellationToken::new()).await;
    let c = credentials.client(handle.address(), "admin", &["system:masters"]);
    loop {
        let made = c
            .post(CMS, &json!({"metadata": {"generateName": "k-"}}))
            .await
            .1;
        let name = made["metadata"]["name"].as_str().unwrap();
        println!("\nacknowledged {name}");
        std::io::stdout().flush().unwrap();
    }
}

#[test]
fn acknowledged_writes_survive_kill_9() {
    use std::io::{BufRead, BufReader};
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<String> = Vec::new();
    let rounds = std::env::var("THEATER_KILLS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(ROUNDS);
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["victim", "--exact", "--ignored", "--nocapture"])
            .env(DIRECTORY, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Another moment of the life of a transaction each time.
        for _ in 0..=(round * 3) % 40 {
            let name = lines
                .by_ref()
                .map_while(Result::ok)
                .find_map(|l| l.strip_prefix("acknowledged ").map(str::to_owned));
            acknowledged.push(name.expect("the victim writes"));
        }
        child.kill().unwrap();
        // What it had said before it died was acknowledged as well.
        acknowledged.extend(
            lines
                .map_while(Result::ok)
                .filter_map(|l| l.strip_prefix("acknowledged ").map(str::to_owned)),
        );
        child.wait().unwrap();
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let credentials = Credentials::new();
        let token = CancellationToken::new();
        let handle = credentials.start(dir.path(), token.clone()).await;
        let c = credentials.client(handle.address(), "admin", &["system:masters"]);
        let list = c.get(CMS).await.1;
        let stored: std::collections::HashSet<&str> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| o["metadata"]["name"].as_str().unwrap())
            .collect();
        let lost: Vec<&String> = acknowledged
            .iter()
            .filter(|n| !stored.contains(n.as_str()))
            .collect();
        assert!(
            lost.is_empty(),
            "{} of {} acknowledged writes are lost: {lost:?}",
            lost.len(),
            acknowledged.len()
        );
        token.cancel();
        handle.stopped().await;
    });
}
