//! The parsers of streams, for those who give them anything (fuzz targets): what each makes of it, in plain text.

use bytes::Bytes;

use super::{channels, forward_channels, spdy};

/// The SPDY frames of bytes that arrive in pieces of `step` bytes.
///
/// # Errors
/// Why the bytes are not SPDY/3.1; the frames before it are lost with the connection.
pub fn spdy(bytes: &[u8], step: usize) -> Result<Vec<String>, String> {
    let mut decoder = spdy::Decoder::new();
    let mut frames = Vec::new();
    for piece in bytes.chunks(step.max(1)) {
        decoder.feed(piece);
        while let Some(frame) = decoder.next()? {
            frames.push(format!("{frame:?}"));
        }
    }
    Ok(frames)
}

/// A message of exec or attach over WebSocket.
pub fn channel(message: &[u8]) -> String {
    format!(
        "{:?}",
        channels::decode(&Bytes::copy_from_slice(message), true)
    )
}

/// The ports that are to be forwarded.
///
/// # Errors
/// The sentence for the client.
pub fn ports(values: &[String]) -> Result<Vec<u16>, String> {
    forward_channels::ports(values)
}
