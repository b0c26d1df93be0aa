//! Requests: lists of bulk strings, or one line as typed into a terminal.

use bytes::{Buf, Bytes, BytesMut};

/// Longest line before a request's length is known.
const LINE_LIMIT: usize = 64 * 1024;
/// Most arguments of one request.
const ARGUMENT_LIMIT: i64 = 1024 * 1024;

/// Reads requests out of a growing buffer; remembers the unfinished one.
#[derive(Debug)]
pub struct Reader {
    bulk_limit: usize,
    request_limit: usize,
    missing: usize,
    bulk: Option<usize>,
    args: Vec<Bytes>,
    size: usize,
    /// Bytes of an unfinished line that are known to have no end in them.
    searched: usize,
}

impl Reader {
    /// `bulk_limit`: most bytes of one argument (`proto-max-bulk-len`); `request_limit`: of
    /// all of them (`client-query-buffer-limit`).
    #[must_use]
    pub fn new(bulk_limit: usize, request_limit: usize) -> Self {
        Reader {
            bulk_limit,
            request_limit,
            missing: 0,
            bulk: None,
            args: Vec::new(),
            size: 0,
            searched: 0,
        }
    }

    /// The next whole request in `buffer`, nothing when more bytes are needed. A request
    /// without arguments is skipped.
    ///
    /// # Errors
    /// The text after `-ERR Protocol error: `; the connection cannot go on.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Vec<Bytes>>, String> {
        loop {
            if self.missing == 0 {
                let Some(&first) = buffer.first() else {
                    return Ok(None);
                };
                if first != b'*' {
                    let Some(line) = self.take_line(buffer, "too big inline request")? else {
                        return Ok(None);
                    };
                    let args = split_line(&line).ok_or("unbalanced quotes in request")?;
                    if args.is_empty() {
                        continue;
                    }
                    return Ok(Some(args.into_iter().map(Bytes::from).collect()));
                }
                let Some(line) = self.take_line(buffer, "too big mbulk count string")? else {
                    return Ok(None);
                };
                let count = crate::number::parse_int(&line[1..])
                    .filter(|count| *count <= ARGUMENT_LIMIT)
                    .ok_or("invalid multibulk length")?;
                self.missing = usize::try_from(count).unwrap_or(0);
                self.size = 0;
                continue;
            }
            let length = match self.bulk {
                Some(length) => length,
                None => {
                    let Some(line) = self.take_line(buffer, "too big bulk count string")? else {
                        return Ok(None);
                    };
                    if line.first() != Some(&b'$') {
                        let got = line.first().map_or(' ', |byte| char::from(*byte));
                        return Err(format!("expected '$', got '{got}'"));
                    }
                    let length = crate::number::parse_int(&line[1..])
                        .and_then(|length| usize::try_from(length).ok())
                        .filter(|length| *length <= self.bulk_limit)
                        .ok_or("invalid bulk length")?;
                    self.size = self.size.saturating_add(length);
                    if self.size > self.request_limit {
                        return Err("request exceeds client-query-buffer-limit".into());
                    }
                    self.bulk = Some(length);
                    length
                }
            };
            if buffer.len() < length + 2 {
                return Ok(None);
            }
            // A copy: a slice would keep the whole read buffer alive as long as the value.
            self.args.push(Bytes::copy_from_slice(&buffer[..length]));
            buffer.advance(length + 2);
            self.bulk = None;
            self.missing -= 1;
            if self.missing == 0 {
                return Ok(Some(std::mem::take(&mut self.args)));
            }
        }
    }
}

impl Reader {
    fn take_line(
        &mut self,
        buffer: &mut BytesMut,
        too_long: &str,
    ) -> Result<Option<BytesMut>, String> {
        let window = buffer.len().min(LINE_LIMIT);
        let start = self.searched.min(window);
        let found = buffer[start..window].iter().position(|byte| *byte == b'\n');
        let Some(end) = found.map(|at| start + at) else {
            self.searched = window;
            return if window == LINE_LIMIT {
                Err(too_long.into())
            } else {
                Ok(None)
            };
        };
        self.searched = 0;
        let mut line = buffer.split_to(end + 1);
        line.truncate(end);
        if line.last() == Some(&b'\r') {
            line.truncate(end - 1);
        }
        Ok(Some(line))
    }
}

/// The words of a typed line: `"…"` with escapes, `'…'` without; nothing when a quote is
/// left open or a closing one is followed by more.
#[must_use]
pub fn split_line(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        while rest
            .first()
            .is_some_and(|byte| byte.is_ascii_whitespace() || *byte == 0)
        {
            rest = &rest[1..];
        }
        if rest.is_empty() {
            return Some(words);
        }
        let mut word = Vec::new();
        loop {
            match rest {
                [] => break,
                [byte, ..] if byte.is_ascii_whitespace() || *byte == 0 => break,
                [b'"', inside @ ..] => {
                    rest = double_quoted(inside, &mut word)?;
                    closed(rest)?;
                }
                [b'\'', inside @ ..] => {
                    rest = single_quoted(inside, &mut word)?;
                    closed(rest)?;
                }
                [byte, after @ ..] => {
                    word.push(*byte);
                    rest = after;
                }
            }
        }
        words.push(word);
    }
}

fn closed(rest: &[u8]) -> Option<()> {
    rest.first()
        .is_none_or(u8::is_ascii_whitespace)
        .then_some(())
}

fn double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return None,
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
                word.push(digit(*high) << 4 | digit(*low));
                rest = after;
            }
            [b'\\', escaped, after @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = after;
            }
            [byte, after @ ..] => {
                word.push(*byte);
                rest = after;
            }
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return None,
            [b'\\', b'\'', after @ ..] => {
                word.push(b'\'');
                rest = after;
            }
            [b'\'', after @ ..] => return Some(after),
            [byte, after @ ..] => {
                word.push(*byte);
                rest = after;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8]) -> Result<Vec<Vec<Bytes>>, String> {
        let mut reader = Reader::new(100, 1000);
        let mut buffer = BytesMut::new();
        let mut requests = Vec::new();
        // Byte by byte: no cut may matter.
        for byte in input {
            buffer.extend_from_slice(&[*byte]);
            while let Some(request) = reader.next(&mut buffer)? {
                requests.push(request);
            }
        }
        Ok(requests)
    }

    #[test]
    fn requests_in_pieces() {
        let requests =
            read(b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n*0\r\n\r\nPING \"a b\"\r\n").unwrap();
        assert_eq!(requests, [vec!["GET", "a\r\nb"], vec!["PING", "a b"]]);
    }

    #[test]
    fn what_is_not_a_request() {
        for (input, error) in [
            ("*1\r\n:1\r\n", "expected '$', got ':'"),
            ("*x\r\n", "invalid multibulk length"),
            ("*2000000\r\n", "invalid multibulk length"),
            ("*1\r\n$101\r\n", "invalid bulk length"),
            ("*1\r\n$-1\r\n", "invalid bulk length"),
            ("GET \"a\r\n", "unbalanced quotes in request"),
            ("GET \"a\"b\r\n", "unbalanced quotes in request"),
        ] {
            assert_eq!(read(input.as_bytes()).unwrap_err(), error, "{input:?}");
        }
        let long = "a".repeat(LINE_LIMIT + 1);
        assert_eq!(read(long.as_bytes()).unwrap_err(), "too big inline request");
    }

    #[test]
    fn quotes() {
        assert_eq!(
            split_line(br#"set "a\x41\n" 'it\'s' plain"#).unwrap(),
            [
                b"set".to_vec(),
                b"aA\n".to_vec(),
                b"it's".to_vec(),
                b"plain".to_vec()
            ]
        );
    }
}
