//! Replies and their two encodings, RESP2 and RESP3.

use std::borrow::Cow;

use bytes::Bytes;

use crate::number::format_double;

/// The protocol version of a connection (`HELLO`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// What a connection starts with.
    #[default]
    Resp2,
    /// With maps, sets, doubles and pushed messages.
    Resp3,
}

/// What a command answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A short text without line ends, `+OK`.
    Status(Cow<'static, str>),
    /// An error, its code first, `-ERR syntax error`.
    Error(Cow<'static, str>),
    /// A whole number.
    Int(i64),
    /// Bytes of any kind.
    Bulk(Bytes),
    /// Nothing where a value was asked for.
    Null,
    /// Nothing where a list was asked for (distinct in RESP2 only).
    NullArray,
    /// A list.
    Array(Vec<Reply>),
    /// Pairs; a flat list in RESP2.
    Map(Vec<(Reply, Reply)>),
    /// Members without an order; a list in RESP2.
    Set(Vec<Reply>),
    /// A fraction; text in RESP2.
    Double(f64),
    /// Text for people; plain bytes in RESP2.
    Verbatim(String),
    /// A message nobody asked for; a list in RESP2.
    Push(Vec<Reply>),
    /// Several replies one after the other (`SUBSCRIBE` of several channels).
    Many(Vec<Reply>),
}

impl Reply {
    /// `+OK`.
    #[must_use]
    pub const fn ok() -> Self {
        Reply::Status(Cow::Borrowed("OK"))
    }

    /// Bytes copied from `bytes`.
    #[must_use]
    pub fn bulk(bytes: impl AsRef<[u8]>) -> Self {
        Reply::Bulk(Bytes::copy_from_slice(bytes.as_ref()))
    }

    /// The bytes, or nothing.
    #[must_use]
    pub fn bulk_or_null(bytes: Option<impl AsRef<[u8]>>) -> Self {
        bytes.map_or(Reply::Null, Reply::bulk)
    }

    /// 1 or 0.
    #[must_use]
    pub fn flag(yes: bool) -> Self {
        Reply::Int(i64::from(yes))
    }

    /// A count.
    #[must_use]
    pub fn count(count: usize) -> Self {
        Reply::Int(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// Appends this reply as `protocol` writes it.
    pub fn encode(&self, protocol: Protocol, out: &mut Vec<u8>) {
        let three = protocol == Protocol::Resp3;
        match self {
            Reply::Status(text) => line(out, b'+', text.as_bytes()),
            Reply::Error(text) => line(out, b'-', one_line(text).as_bytes()),
            Reply::Int(number) => line(out, b':', number.to_string().as_bytes()),
            Reply::Bulk(bytes) => bulk(out, bytes),
            Reply::Null if three => out.extend_from_slice(b"_\r\n"),
            Reply::Null => out.extend_from_slice(b"$-1\r\n"),
            Reply::NullArray if three => out.extend_from_slice(b"_\r\n"),
            Reply::NullArray => out.extend_from_slice(b"*-1\r\n"),
            Reply::Array(items) => list(out, b'*', items, protocol),
            Reply::Set(items) => list(out, if three { b'~' } else { b'*' }, items, protocol),
            Reply::Push(items) => list(out, if three { b'>' } else { b'*' }, items, protocol),
            Reply::Map(pairs) => {
                let (kind, count) = if three {
                    (b'%', pairs.len())
                } else {
                    (b'*', pairs.len() * 2)
                };
                line(out, kind, count.to_string().as_bytes());
                for (key, value) in pairs {
                    key.encode(protocol, out);
                    value.encode(protocol, out);
                }
            }
            Reply::Double(number) if three => line(out, b',', format_double(*number).as_bytes()),
            Reply::Double(number) => bulk(out, format_double(*number).as_bytes()),
            Reply::Verbatim(text) if three => {
                line(out, b'=', (text.len() + 4).to_string().as_bytes());
                out.extend_from_slice(b"txt:");
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Reply::Verbatim(text) => bulk(out, text.as_bytes()),
            Reply::Many(replies) => {
                for reply in replies {
                    reply.encode(protocol, out);
                }
            }
        }
    }
}

/// A request as clients and the append-only file write it.
pub fn encode_request<T: AsRef<[u8]>>(args: &[T], out: &mut Vec<u8>) {
    line(out, b'*', args.len().to_string().as_bytes());
    for arg in args {
        bulk(out, arg.as_ref());
    }
}

fn line(out: &mut Vec<u8>, kind: u8, text: &[u8]) {
    out.push(kind);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    line(out, b'$', bytes.len().to_string().as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn list(out: &mut Vec<u8>, kind: u8, items: &[Reply], protocol: Protocol) {
    line(out, kind, items.len().to_string().as_bytes());
    for item in items {
        item.encode(protocol, out);
    }
}

/// A client's bytes may be part of an error; a line end in it would end the reply.
fn one_line(text: &str) -> Cow<'_, str> {
    if text.contains(['\r', '\n']) {
        Cow::Owned(text.replace(['\r', '\n'], " "))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(reply: &Reply) -> (String, String) {
        let encoded = |protocol| {
            let mut out = Vec::new();
            reply.encode(protocol, &mut out);
            String::from_utf8(out).unwrap()
        };
        (encoded(Protocol::Resp2), encoded(Protocol::Resp3))
    }

    #[test]
    fn kinds_that_differ_between_the_versions() {
        for (reply, two, three) in [
            (Reply::Null, "$-1\r\n", "_\r\n"),
            (Reply::NullArray, "*-1\r\n", "_\r\n"),
            (Reply::Double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n"),
            (
                Reply::Verbatim("a".into()),
                "$1\r\na\r\n",
                "=5\r\ntxt:a\r\n",
            ),
            (
                Reply::Map(vec![(Reply::bulk("k"), Reply::Int(1))]),
                "*2\r\n$1\r\nk\r\n:1\r\n",
                "%1\r\n$1\r\nk\r\n:1\r\n",
            ),
            (
                Reply::Push(vec![Reply::Int(1)]),
                "*1\r\n:1\r\n",
                ">1\r\n:1\r\n",
            ),
        ] {
            assert_eq!(both(&reply), (two.to_owned(), three.to_owned()));
        }
    }

    #[test]
    fn an_error_stays_one_line() {
        let (two, _) = both(&Reply::Error("ERR a\r\n+OK".into()));
        assert_eq!(two, "-ERR a  +OK\r\n");
    }
}
