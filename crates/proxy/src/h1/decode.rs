//! Bodies on the wire: lengths and chunks.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use crate::body::Frame;

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Everything until the connection is closed.
    UntilClose,
}

/// The state of a body being read.
#[derive(Debug)]
pub enum Decoder {
    /// Bytes that are still to come.
    Length(u64),
    /// Before a chunk: its size line.
    ChunkSize,
    /// In a chunk, with the bytes still to come.
    Chunk(u64),
    /// After a chunk: the line end.
    ChunkEnd,
    /// After the last chunk: trailers.
    Trailers(HeaderMap),
    /// Until the connection ends.
    UntilClose,
    /// Complete.
    Done,
}

/// What a decoder makes of the bytes at hand.
#[derive(Debug)]
pub enum Decoded {
    /// A frame.
    Frame(Frame),
    /// The end of the body.
    End,
    /// More bytes are needed.
    More,
}

/// The bytes do not follow the chunk syntax.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// The longest chunk size line and trailer section.
const MAX_LINE: usize = 4096;
const MAX_TRAILERS: usize = 60 * 1024;

impl Decoder {
    /// A decoder for a body that is delimited so.
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::ChunkSize,
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Whether the body was read to its end.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Takes the next frame out of `buf`.
    ///
    /// # Errors
    /// When the bytes are not a body.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Decoded, Malformed> {
        loop {
            match self {
                Self::Done => return Ok(Decoded::End),
                Self::UntilClose => {
                    return Ok(if buf.is_empty() {
                        Decoded::More
                    } else {
                        Decoded::Frame(data(buf.split().freeze()))
                    });
                }
                Self::Length(left) => {
                    if buf.is_empty() {
                        return Ok(Decoded::More);
                    }
                    let n = (*left).min(buf.len() as u64);
                    *left -= n;
                    if *left == 0 {
                        *self = Self::Done;
                    }
                    return Ok(Decoded::Frame(data(buf.split_to(n as usize).freeze())));
                }
                Self::ChunkSize => {
                    let Some(line) = take_line(buf, MAX_LINE)? else {
                        return Ok(Decoded::More);
                    };
                    let size = chunk_size(&line)?;
                    *self = if size == 0 {
                        Self::Trailers(HeaderMap::new())
                    } else {
                        Self::Chunk(size)
                    };
                }
                Self::Chunk(left) => {
                    if buf.is_empty() {
                        return Ok(Decoded::More);
                    }
                    let n = (*left).min(buf.len() as u64);
                    *left -= n;
                    if *left == 0 {
                        *self = Self::ChunkEnd;
                    }
                    return Ok(Decoded::Frame(data(buf.split_to(n as usize).freeze())));
                }
                Self::ChunkEnd => {
                    if buf.len() < 2 {
                        return Ok(Decoded::More);
                    }
                    if &buf[..2] != b"\r\n" {
                        return Err(Malformed);
                    }
                    buf.advance(2);
                    *self = Self::ChunkSize;
                }
                Self::Trailers(trailers) => {
                    let Some(line) = take_line(buf, MAX_TRAILERS)? else {
                        return Ok(Decoded::More);
                    };
                    if line.is_empty() {
                        let trailers = std::mem::take(trailers);
                        *self = Self::Done;
                        return Ok(if trailers.is_empty() {
                            Decoded::End
                        } else {
                            Decoded::Frame(Frame::Trailers(trailers))
                        });
                    }
                    let colon = line.iter().position(|&b| b == b':').ok_or(Malformed)?;
                    let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| Malformed)?;
                    let value = HeaderValue::from_bytes(trimmed(&line[colon + 1..]))
                        .map_err(|_| Malformed)?;
                    if trailers.len() >= super::head::MAX_HEADERS {
                        return Err(Malformed);
                    }
                    trailers.append(name, value);
                }
            }
        }
    }

    /// What the end of the connection means for this body: `true` is a regular end.
    pub fn end_of_connection(&mut self) -> bool {
        match self {
            Self::UntilClose | Self::Done => {
                *self = Self::Done;
                true
            }
            _ => false,
        }
    }
}

fn data(bytes: Bytes) -> Frame {
    Frame::Data(bytes)
}

fn take_line(buf: &mut BytesMut, limit: usize) -> Result<Option<BytesMut>, Malformed> {
    match buf.iter().take(limit).position(|&b| b == b'\n') {
        Some(0) => Err(Malformed),
        Some(at) if buf[at - 1] == b'\r' => {
            let mut line = buf.split_to(at + 1);
            line.truncate(at - 1);
            Ok(Some(line))
        }
        // A bare line feed is where parsers disagree, so it is refused.
        Some(_) => Err(Malformed),
        None if buf.len() >= limit => Err(Malformed),
        None => Ok(None),
    }
}

/// Without blanks around it; carriage returns and other white space are none here.
fn trimmed(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    if digits == 0 || digits > 15 {
        return Err(Malformed);
    }
    let rest = trimmed(&line[digits..]);
    let control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    if !rest.is_empty() && rest[0] != b';' || rest.iter().any(control) {
        return Err(Malformed);
    }
    let text = std::str::from_utf8(&line[..digits]).map_err(|_| Malformed)?;
    u64::from_str_radix(text, 16).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(framing: Framing, text: &str) -> Result<(String, bool, usize), Malformed> {
        let mut decoder = Decoder::new(framing);
        let mut buf = BytesMut::from(text.as_bytes());
        let (mut out, mut trailers) = (String::new(), 0);
        loop {
            match decoder.decode(&mut buf)? {
                Decoded::Frame(Frame::Data(bytes)) => {
                    out.push_str(std::str::from_utf8(&bytes).unwrap())
                }
                Decoded::Frame(Frame::Trailers(map)) => trailers = map.len(),
                Decoded::End => return Ok((out, true, trailers)),
                Decoded::More => return Ok((out, false, trailers)),
            }
        }
    }

    #[test]
    fn chunks_extensions_and_trailers() {
        let read = all(
            Framing::Chunked,
            "3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nA: b\r\n\r\n",
        )
        .unwrap();
        assert_eq!(read, ("abcdefg".into(), true, 1));
        assert_eq!(
            all(Framing::Chunked, "3\r\nab").unwrap(),
            ("ab".into(), false, 0)
        );
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for text in [
            "x\r\n",
            "3\nabc",
            "3\r\nabcde",
            "-1\r\n",
            "3 4\r\n",
            "3\r\r\n",
            "3;a\rb\r\n",
            "0\r\nT: v\r\r\n\r\n",
            "ffffffffffffffffff\r\n",
        ] {
            assert_eq!(
                all(Framing::Chunked, text).unwrap_err(),
                Malformed,
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_length_ends_by_itself() {
        assert_eq!(
            all(Framing::Length(3), "abcdef").unwrap(),
            ("abc".into(), true, 0)
        );
        assert_eq!(
            all(Framing::Length(9), "abc").unwrap(),
            ("abc".into(), false, 0)
        );
    }
}
