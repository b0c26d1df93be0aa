//! HTTP/2 as a client meets it that speaks frames: h2spec's cases, and how a connection ends that is in error.

mod support;

use std::io::{Read, Write};
use std::process::Command;

use support::*;

fn http2(backend: &Backend) -> Running {
    Running::start(&http(
        &["{match: {prefix: /}, route: {cluster: up}}"],
        &cluster("up", &[backend.address], ""),
        // Time enough for who is slow to say all that is not listened to.
        "          codec_type: HTTP2\n          delayed_close_timeout: 60s\n",
    ))
}

#[test]
fn h2spec_finds_nothing() {
    let Some(h2spec) = std::env::var_os("H2SPEC") else {
        println!("skipped: H2SPEC names no h2spec (github.com/summerwind/h2spec)");
        return;
    };
    let backend = Backend::saying("more than one byte, for what h2spec does with windows");
    let running = http2(&backend);
    let address = running.address("main");
    let output = Command::new(h2spec)
        .args(["--host", "127.0.0.1", "--timeout", "5", "--port"])
        .arg(address.port().to_string())
        .output()
        .expect("h2spec runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let failures = text.find("Failures:").map_or("", |at| &text[at..]);
    assert!(
        output.status.success() && text.contains(" passed"),
        "{failures}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A socket with unread bytes is reset when it is closed, and a reset may overtake what was said before.
#[test]
fn a_connection_in_error_ends_and_is_not_reset() {
    let backend = Backend::saying("");
    let running = http2(&backend);
    for beginning in [
        &b"INVALID CONNECTION PREFACE\r\n\r\n"[..],
        // Settings, then data on stream 0.
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x01\0\0\0\0\0\0x",
    ] {
        let mut stream = connect(running.address("main"));
        let mut bytes = beginning.to_vec();
        // More than is read at once.
        bytes.resize(bytes.len() + (1 << 18), 0);
        stream.write_all(&bytes).expect("sent");
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        assert!(end.is_ok(), "{end:?} after {answer:?}, {beginning:?}");
    }
}
