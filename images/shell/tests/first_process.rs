//! As the first process of a container, where the kernel has no default actions for signals.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_shell-image");

/// The status of a script whose shell is process 1; nothing where namespaces are not allowed.
fn as_first(script: &str) -> Option<i32> {
    let namespace = [
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--kill-child",
    ];
    let allowed = Command::new("unshare")
        .args(namespace)
        .arg("true")
        .stderr(Stdio::null())
        .status();
    if !allowed.is_ok_and(|status| status.success()) {
        eprintln!("no namespaces here");
        return None;
    }
    let mut child = Command::new("unshare")
        .args(namespace)
        .args([PROGRAM, "sh", "-c", script])
        .env("PROGRAM", PROGRAM)
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("did not end: {script}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn sigterm_ends_it() {
    for (script, expected) in [
        // The shell, waiting for a child and between children.
        ("(sleep 0.2; kill -TERM 1) & sleep 100", 143),
        (
            "(sleep 0.2; kill -TERM 1) & while :; do sleep 0.01; done",
            143,
        ),
        ("(sleep 0.2; kill -TERM 1) & wait", 143),
        // A program in the shell's place.
        ("(sleep 0.2; kill -TERM 1) & exec $PROGRAM sleep 100", 143),
        (
            "(sleep 0.2; kill -INT 1) & exec $PROGRAM tail -f /dev/null",
            130,
        ),
        // A trap decides.
        (
            "trap 'exit 7' TERM; (sleep 0.2; kill -TERM 1) & while :; do sleep 0.01; done",
            7,
        ),
        (
            "trap 'echo got it; exit 0' TERM; (sleep 0.2; kill -TERM 1) & sleep 100 & wait",
            0,
        ),
    ] {
        if let Some(status) = as_first(script) {
            assert_eq!(status, expected, "{script}");
        }
    }
}
