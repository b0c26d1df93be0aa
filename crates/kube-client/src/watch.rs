//! Watches: JSON documents separated by line ends in an endless answer.

use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;

use crate::client::causes;
use crate::{Error, Result, lean};

/// A change of a collection. Objects come without `metadata.managedFields`.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An object came into the collection.
    Added(Value),
    /// An object changed.
    Modified(Value),
    /// An object left the collection; its last state.
    Deleted(Value),
    /// Nothing changed up to the version of this otherwise empty object.
    Bookmark(Value),
}

/// An open watch.
#[derive(Debug)]
pub struct WatchConnection {
    body: Incoming,
    server: String,
    lines: Lines,
}

impl WatchConnection {
    pub(crate) fn new(body: Incoming, server: String) -> Self {
        Self {
            body,
            server,
            lines: Lines::default(),
        }
    }

    /// The next event; `None` when the server has ended the watch. After an error the watch is
    /// over. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Event>> {
        loop {
            if let Some(line) = self.lines.next() {
                return Some(self.parse(&line));
            }
            match self.body.frame().await {
                None => {
                    // What is left is a document cut off in the middle.
                    return self.lines.rest().then(|| {
                        Err(self.protocol("the watch ended in the middle of an event".to_owned()))
                    });
                }
                Some(Err(error)) => {
                    return Some(Err(Error::Transport {
                        server: self.server.clone(),
                        reason: causes(&error),
                    }));
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.lines.push(&data);
                    }
                }
            }
        }
    }

    /// The error of a watch that ended before it had told the present state.
    pub(crate) fn cut_short(&self) -> Error {
        self.protocol("the watch ended before the present state was told".to_owned())
    }

    fn parse(&self, line: &[u8]) -> Result<Event> {
        let (kind, object) = document(line).map_err(|reason| self.protocol(reason))?;
        match kind.as_str() {
            "ADDED" => Ok(Event::Added(object)),
            "MODIFIED" => Ok(Event::Modified(object)),
            "DELETED" => Ok(Event::Deleted(object)),
            "BOOKMARK" => Ok(Event::Bookmark(object)),
            "ERROR" => Err(Error::from_status(&object, 500)),
            other => Err(self.protocol(format!("unknown event type {other:?}"))),
        }
    }

    fn protocol(&self, reason: String) -> Error {
        Error::Protocol {
            server: self.server.clone(),
            reason,
        }
    }
}

/// A line of a watch: the type of the event and the object, without its `managedFields`.
///
/// # Errors
/// Why the line is no event.
pub fn document(line: &[u8]) -> std::result::Result<(String, Value), String> {
    let mut event = lean::event(line).map_err(|error| format!("an event is not JSON: {error}"))?;
    let kind = event["type"]
        .as_str()
        .ok_or("an event has no type")?
        .to_owned();
    let object = event.get_mut("object").map(Value::take).unwrap_or_default();
    Ok((kind, object))
}

/// Cuts a byte stream into lines, looking at every byte once.
#[derive(Debug, Default)]
struct Lines {
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end.
    searched: usize,
}

impl Lines {
    fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    fn next(&mut self) -> Option<BytesMut> {
        loop {
            let Some(at) = self.buffer[self.searched..]
                .iter()
                .position(|&byte| byte == b'\n')
            else {
                self.searched = self.buffer.len();
                return None;
            };
            let line = self.buffer.split_to(self.searched + at);
            self.buffer.advance(1);
            self.searched = 0;
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Some(line);
            }
        }
    }

    /// Whether something other than white space is left.
    fn rest(&self) -> bool {
        !self.buffer.iter().all(u8::is_ascii_whitespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_wherever_the_chunks_are_cut() {
        let text = b"{\"a\":1}\n\n{\"b\":2}\r\n{\"c\":3}\n";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for chunk in text.chunks(size) {
                lines.push(chunk);
                while let Some(line) = lines.next() {
                    found.push(String::from_utf8(line.to_vec()).unwrap().trim().to_owned());
                }
            }
            assert_eq!(
                found,
                ["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"],
                "chunks of {size}"
            );
            assert!(!lines.rest());
        }
    }

    #[test]
    fn a_cut_document_is_noticed() {
        let mut lines = Lines::default();
        lines.push(b"{\"a\":1}\n{\"b\"");
        assert!(lines.next().is_some());
        assert!(lines.next().is_none());
        assert!(lines.rest());
    }
}
