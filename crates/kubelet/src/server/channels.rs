//! The channel protocol of exec and attach over WebSocket: `v4.channel.k8s.io`, `v5.channel.k8s.io` and, for oldest clients, `channel.k8s.io`.
//!
//! Each binary message starts with a channel number: 0 stdin, 1 stdout, 2 stderr, 3 the final status
//! (a `v1/Status`), 4 terminal size. Version 5 adds 255: the next byte names a channel that is closed.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};

/// The protocols offered, newest first.
pub(super) const PROTOCOLS: [&str; 3] = ["v5.channel.k8s.io", "v4.channel.k8s.io", FIRST];

/// The first version: success is not said, and failure is a sentence.
pub(super) const FIRST: &str = "channel.k8s.io";

pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const STATUS: u8 = 3;

/// A message of the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FromClient {
    /// Bytes for stdin.
    Stdin(Bytes),
    /// stdin ends.
    StdinEnd,
    /// New terminal size: rows, columns.
    Resize(u16, u16),
    /// Something to ignore.
    Nothing,
}

/// Takes a client's message apart. `closes`: version 5, where stdin can be closed.
pub(super) fn decode(message: &Bytes, closes: bool) -> FromClient {
    match message.first() {
        Some(0) => FromClient::Stdin(message.slice(1..)),
        Some(4) => {
            let size: Value = serde_json::from_slice(&message[1..]).unwrap_or_default();
            let part = |name: &str| u16::try_from(size[name].as_u64()?).ok();
            match (part("Height"), part("Width")) {
                (Some(rows), Some(columns)) => FromClient::Resize(rows, columns),
                _ => FromClient::Nothing,
            }
        }
        Some(255) if closes && message.get(1) == Some(&0) => FromClient::StdinEnd,
        _ => FromClient::Nothing,
    }
}

/// A message for the client.
pub(super) fn encode(channel: u8, bytes: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(bytes.len() + 1);
    message.put_u8(channel);
    message.extend_from_slice(bytes);
    message.freeze()
}

/// The final status of a program that ended with `code`.
pub(super) fn exit_status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// The final status when the program could not run.
pub(super) fn failure(message: &str) -> Value {
    json!({"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError",
        "details": {"causes": [{"message": message}]}, "code": 500})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let decode = |bytes: &'static [u8], closes| decode(&Bytes::from_static(bytes), closes);
        assert_eq!(
            decode(b"\0abc", true),
            FromClient::Stdin(Bytes::from_static(b"abc"))
        );
        assert_eq!(
            decode(b"\x04{\"Width\":80,\"Height\":24}", true),
            FromClient::Resize(24, 80)
        );
        assert_eq!(decode(b"\x04junk", true), FromClient::Nothing);
        assert_eq!(decode(&[255, 0], true), FromClient::StdinEnd);
        assert_eq!(decode(&[255, 0], false), FromClient::Nothing);
        assert_eq!(decode(b"", true), FromClient::Nothing);
        assert_eq!(encode(STDERR, b"x").as_ref(), b"\x02x");
        assert_eq!(exit_status(3)["details"]["causes"][0]["message"], "3");
        assert_eq!(exit_status(0)["status"], "Success");
    }
}
