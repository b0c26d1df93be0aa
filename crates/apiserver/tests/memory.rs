//! What clients may cost in memory. Server and clients are one process here, so that nothing else runs beside a test.

mod support;

use serde_json::json;
use support::World;
use tokio::sync::Mutex;

const CMS: &str = "/api/v1/namespaces/default/configmaps";

/// Held by the test that measures.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

#[tokio::test]
async fn a_body_of_a_hundred_megabytes_is_not_read() {
    let _alone = ALONE.lock().await;
    let w = World::new().await;
    let c = w.admin();
    let before = resident();
    // Only announced: the server must not wait for it, nor make room.
    let answer = c
        .open(
            "POST",
            CMS,
            &[("content-type", "application/json")],
            vec![b' '; 100 << 20],
        )
        .await;
    assert_eq!(answer.status(), 413);
    // The body itself is in this process too.
    let grown = resident().saturating_sub(before);
    assert!(grown < 260 << 20, "{} MiB more than before", grown >> 20);
    let (code, _) = c.post(CMS, &json!({"metadata": {"name": "small"}})).await;
    assert_eq!(code, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_cost_little_and_delay_nobody() {
    let _alone = ALONE.lock().await;
    let w = World::new().await;
    let c = w.admin();
    let from = c.get(CMS).await.1["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("{CMS}?watch=true&resourceVersion={from}");
    let mut deaf = Vec::new();
    for _ in 0..100 {
        deaf.push(c.watch(&path).await);
    }
    let mut live = c.watch(&path).await;
    let before = resident();
    let filling = "x".repeat(4000);
    const WRITES: usize = 300;
    let reading = tokio::spawn(async move {
        let mut names = Vec::new();
        while names.len() < WRITES {
            names.push(live.named().await.1);
        }
        names
    });
    for i in 0..WRITES {
        let object = json!({"metadata": {"name": format!("w{i:04}")}, "data": {"a": filling}});
        assert_eq!(c.post(CMS, &object).await.0, 201);
    }
    let names = reading.await.unwrap();
    let expected: Vec<String> = (0..WRITES).map(|i| format!("w{i:04}")).collect();
    assert_eq!(names, expected);
    // A hundred times everything would be 120 MB; each may hold what is on its way to it.
    let grown = resident().saturating_sub(before);
    assert!(grown < 90 << 20, "{} MiB more than before", grown >> 20);
    drop(deaf);
}
