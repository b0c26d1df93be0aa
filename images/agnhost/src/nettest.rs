//! `nettest`: keeps account of who has written to it. (It does not look for peers to write to: `--service` is refused.)

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};
use http::StatusCode;
use serde_json::{Value, json};

use crate::flags::{Flag, Flags};
use crate::server::{self, Request, handler, text};

/// Answers a request, and takes note of it.
fn answer(received: &mut BTreeMap<String, u64>, path: &str, body: &[u8]) -> (StatusCode, String) {
    match path {
        "/read" => {
            let state = json!({"Received": received, "Sent": {}, "Errors": [], "Log": [], "StillContactingPeers": false});
            (StatusCode::OK, state.to_string())
        }
        "/write" => match serde_json::from_slice::<Value>(body) {
            Ok(value) => {
                let source = value["Source"].as_str().unwrap_or_default();
                *received.entry(source.to_owned()).or_default() += 1;
                (
                    StatusCode::OK,
                    json!({"Hostname": server::hostname()}).to_string(),
                )
            }
            Err(error) => (
                StatusCode::BAD_REQUEST,
                format!("Received invalid write: {error}\n"),
            ),
        },
        "/status" => (StatusCode::OK, "pass".into()),
        "/quit" => std::process::exit(0),
        _ => (StatusCode::NOT_FOUND, "404 page not found\n".into()),
    }
}

pub(crate) fn run(args: &[String]) -> Result<()> {
    let flags = Flags::parse(
        args,
        &[
            Flag::Value("port", "8080"),
            Flag::Value("service", ""),
            Flag::Value("namespace", "default"),
            Flag::Value("peers", "8"),
            Flag::Value("delay-shutdown", "0"),
        ],
    )?;
    if !flags.text("service").is_empty() {
        bail!("--service is not available: peers are not written to");
    }
    let port: u16 = flags.get("port")?;
    let received = Arc::new(Mutex::new(BTreeMap::new()));
    let handler = handler(move |request: Request| {
        let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
        let (code, body) = answer(&mut received, &request.path, &request.body);
        async move { text(code, body) }
    });
    server::block_on(server::listen_and_serve(port, None, handler))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_written_can_be_read() {
        let mut received = BTreeMap::new();
        for _ in 0..2 {
            let (code, _) = answer(&mut received, "/write", br#"{"Source": "prestop"}"#);
            assert_eq!(code, StatusCode::OK);
        }
        assert_eq!(
            answer(&mut received, "/write", b"no").0,
            StatusCode::BAD_REQUEST
        );
        let (_, body) = answer(&mut received, "/read", b"");
        let state: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(state["Received"], json!({"prestop": 2}));
    }
}
