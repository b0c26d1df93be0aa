use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::*;

async fn write(logs: &Logs, instance: u32, text: &str) {
    let writer = logs.open("u1", "c", instance).unwrap();
    let stdout = std::io::Cursor::new(text.as_bytes().to_vec());
    writer.copy(Some(Box::new(stdout)), None, |_, _| {}).await;
}

async fn all(mut receiver: mpsc::Receiver<Bytes>) -> String {
    let mut text = Vec::new();
    while let Some(chunk) = receiver.recv().await {
        text.extend_from_slice(&chunk);
    }
    String::from_utf8(text).unwrap()
}

fn logs(max: u64) -> (tempfile::TempDir, Logs) {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::new(dir.path().join("logs"), max);
    (dir, logs)
}

#[tokio::test]
async fn what_was_written_is_read_with_tail_and_limit() {
    let (_dir, logs) = logs(1 << 20);
    write(&logs, 0, "one\ntwo\nthree").await;
    let read = |options: ReadOptions| logs.read("u1", "p", "c", options).unwrap();
    assert_eq!(all(read(ReadOptions::default())).await, "one\ntwo\nthree");
    let tail = ReadOptions {
        tail: Some(2),
        ..Default::default()
    };
    assert_eq!(all(read(tail)).await, "two\nthree");
    let limit = ReadOptions {
        limit_bytes: Some(5),
        ..Default::default()
    };
    assert_eq!(all(read(limit)).await, "one\nt");
    let none = ReadOptions {
        tail: Some(0),
        ..Default::default()
    };
    assert_eq!(all(read(none)).await, "");
    let future = ReadOptions {
        since: Some(crate::clock::now() + 100_000),
        ..Default::default()
    };
    assert_eq!(all(read(future)).await, "");
    let stamped = all(read(ReadOptions {
        timestamps: true,
        tail: Some(1),
        ..Default::default()
    }))
    .await;
    assert!(
        stamped.starts_with("20") && stamped.ends_with("Z three"),
        "{stamped}"
    );
}

#[tokio::test]
async fn the_previous_instance_is_kept_and_older_ones_are_not() {
    let (dir, logs) = logs(1 << 20);
    assert!(
        all(logs.read("u1", "p", "c", ReadOptions::default()).unwrap())
            .await
            .is_empty()
    );
    let previous = || ReadOptions {
        previous: true,
        ..Default::default()
    };
    write(&logs, 0, "zero\n").await;
    assert_eq!(
        logs.read("u1", "p", "c", previous())
            .unwrap_err()
            .to_string(),
        "previous terminated container \"c\" in pod \"p\" not found"
    );
    write(&logs, 1, "first\n").await;
    write(&logs, 2, "second\n").await;
    assert_eq!(
        all(logs.read("u1", "p", "c", previous()).unwrap()).await,
        "first\n"
    );
    assert_eq!(instances(&dir.path().join("logs/u1/c")), [1, 2]);
    logs.remove_pod("u1");
    assert!(!dir.path().join("logs/u1").exists());
}

#[tokio::test]
async fn a_follower_sees_every_line_once_across_rotation_and_ends_with_the_container() {
    let (dir, logs) = logs(2_000);
    let writer = logs.open("u1", "c", 0).unwrap();
    let (mut program, stdout) = tokio::io::duplex(64);
    let copying = tokio::spawn(writer.copy(Some(Box::new(stdout)), None, |_, _| {}));
    program.write_all(b"line 0\n").await.unwrap();
    let follow = ReadOptions {
        follow: true,
        ..Default::default()
    };
    let reading = tokio::spawn(all(logs.read("u1", "p", "c", follow).unwrap()));
    let mut expected = String::from("line 0\n");
    for number in 1..200 {
        let line = format!("line {number}\n");
        program.write_all(line.as_bytes()).await.unwrap();
        expected.push_str(&line);
        // Give the follower a turn: only the last rotated file is kept.
        tokio::task::yield_now().await;
    }
    drop(program);
    copying.await.unwrap();
    let seen = reading.await.unwrap();
    assert!(seen.ends_with("line 199\n"), "{seen}");
    assert!(dir.path().join("logs/u1/c/0.log.1").exists());
    let size = std::fs::metadata(dir.path().join("logs/u1/c/0.log"))
        .unwrap()
        .len();
    assert!(size <= 2_000, "{size}");
    let numbers: Vec<&str> = seen.lines().collect();
    let mut unique = numbers.clone();
    unique.dedup();
    assert_eq!(numbers, unique, "no line twice");
}

#[test]
fn long_lines_are_cut_and_put_together_again() {
    let mut splitter = line::Splitter::default();
    let mut pieces = Vec::new();
    let long = vec![b'x'; line::MAX_LINE + 10];
    splitter.feed(&long, |text, partial| pieces.push((text.len(), partial)));
    splitter.feed(b"y\nz", |text, partial| pieces.push((text.len(), partial)));
    splitter.finish(|text, partial| pieces.push((text.len(), partial)));
    assert_eq!(pieces, [(line::MAX_LINE, true), (11, false), (1, true)]);
    assert_eq!(
        parse_line(b"2026-01-01T00:00:00Z stdout F a b c")
            .unwrap()
            .text,
        b"a b c"
    );
    assert_eq!(parse_line(b"nonsense"), None);
}
