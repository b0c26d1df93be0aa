//! One line of the CRI log format.

use crate::clock::rfc3339_nano;

/// Longest piece of a line that is kept together.
pub(super) const MAX_LINE: usize = 16 * 1024;

/// A line of a log file, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// RFC 3339 with nanoseconds.
    pub time: &'a str,
    /// Written to standard error.
    pub stderr: bool,
    /// More of the same line follows.
    pub partial: bool,
    /// The text, without line end.
    pub text: &'a [u8],
}

/// Reads one line (without its line end); `None` when it is damaged.
pub fn parse_line(line: &[u8]) -> Option<Entry<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stderr = match parts.next()? {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    let partial = match parts.next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    Some(Entry {
        time,
        stderr,
        partial,
        text: parts.next()?,
    })
}

/// Appends one line in the file's format.
pub(super) fn push_line(out: &mut Vec<u8>, nanos: i128, stderr: bool, partial: bool, text: &[u8]) {
    out.extend_from_slice(rfc3339_nano(nanos).as_bytes());
    out.extend_from_slice(if stderr { b" stderr " } else { b" stdout " });
    out.extend_from_slice(if partial { b"P " } else { b"F " });
    out.extend_from_slice(text);
    out.push(b'\n');
}

/// Cuts a stream of bytes into lines.
#[derive(Default)]
pub(super) struct Splitter {
    rest: Vec<u8>,
}

impl Splitter {
    /// Hands every complete (or over-long, then partial) line of `chunk` to `line`.
    pub(super) fn feed(&mut self, chunk: &[u8], mut line: impl FnMut(&[u8], bool)) {
        let mut chunk = chunk;
        while let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
            if self.rest.is_empty() {
                Self::pieces(&chunk[..end], &mut line);
            } else {
                self.rest.extend_from_slice(&chunk[..end]);
                let whole = std::mem::take(&mut self.rest);
                Self::pieces(&whole, &mut line);
            }
            chunk = &chunk[end + 1..];
        }
        self.rest.extend_from_slice(chunk);
        while self.rest.len() >= MAX_LINE {
            let tail = self.rest.split_off(MAX_LINE);
            line(&self.rest, true);
            self.rest = tail;
        }
    }

    fn pieces(mut text: &[u8], line: &mut impl FnMut(&[u8], bool)) {
        while text.len() > MAX_LINE {
            line(&text[..MAX_LINE], true);
            text = &text[MAX_LINE..];
        }
        line(text, false);
    }

    /// What remains when the stream ends without a line end.
    pub(super) fn finish(&mut self, mut line: impl FnMut(&[u8], bool)) {
        if !self.rest.is_empty() {
            // Marked partial: the reader then adds no line end that the program did not write.
            line(&std::mem::take(&mut self.rest), true);
        }
    }
}
