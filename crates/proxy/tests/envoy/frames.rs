//! HTTP/2 as frames, for what no library would send. A step's lines:
//!
//! - `headers STREAM [end] [noend_headers] name: value; name: value`, `data STREAM [end] text`, `continuation STREAM [end_headers] HEX`
//! - `frame TYPE FLAGS STREAM HEX` for any other, `bytes TEXT` for no frame at all
//! - `quiet`: no preface and no SETTINGS before (must be the first line)
//!
//! What came is one line a frame; SETTINGS, WINDOW_UPDATE and PING are left out. Reading ends with a stream's end, a
//! reset, or the connection. Errors of any kind are `<refused>`.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::upstream::dial;
use crate::wire::more;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// Literal fields without indexing.
fn block(fields: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for field in fields.split("; ").filter(|field| !field.is_empty()) {
        let at = field[1..].find(':').expect("`name: value`") + 1;
        let (name, value) = (&field[..at], field[at + 1..].trim_start());
        out.push(0);
        for text in [name, value] {
            if text.len() < 127 {
                out.push(text.len() as u8);
            } else {
                out.push(127);
                let mut left = text.len() - 127;
                while left >= 128 {
                    out.push((left % 128 + 128) as u8);
                    left /= 128;
                }
                out.push(left as u8);
            }
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn encode(line: &str) -> Vec<u8> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let mut words = rest.splitn(2, ' ');
    let mut stream = || -> (u32, String) {
        (
            words.next().unwrap().parse().unwrap(),
            words.next().unwrap_or_default().to_owned(),
        )
    };
    let flag = |text: String, name: &str| match text.strip_prefix(name) {
        Some(rest) if rest.is_empty() || rest.starts_with(' ') => {
            (true, rest.trim_start().to_owned())
        }
        _ => (false, text),
    };
    match word {
        "bytes" => rest.as_bytes().to_vec(),
        "headers" => {
            let (stream, text) = stream();
            let (end, text) = flag(text, "end");
            let (open, text) = flag(text, "noend_headers");
            frame(
                1,
                u8::from(end) | if open { 0 } else { 4 },
                stream,
                &block(&text),
            )
        }
        "data" => {
            let (stream, text) = stream();
            let (end, text) = flag(text, "end");
            frame(0, u8::from(end), stream, text.as_bytes())
        }
        "continuation" => {
            let (stream, text) = stream();
            let (end, text) = flag(text, "end_headers");
            frame(9, if end { 4 } else { 0 }, stream, &hex(&text))
        }
        "frame" => {
            let parts: Vec<&str> = rest.splitn(4, ' ').collect();
            let number = |text: &str| text.parse::<u32>().unwrap();
            frame(
                number(parts[0]) as u8,
                number(parts[1]) as u8,
                number(parts[2]),
                &hex(parts.get(3).unwrap_or(&"")),
            )
        }
        other => panic!("no frame {other:?}"),
    }
}

const ERRORS: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

fn error(code: &[u8]) -> &'static str {
    ERRORS
        .get(u32::from_be_bytes(code.try_into().unwrap()) as usize)
        .unwrap_or(&"?")
}

/// The status, when its field is one of the static table.
fn status(block: &[u8]) -> &'static str {
    // A change of the table size may come first.
    let field = block
        .iter()
        .find(|byte| **byte & 0xe0 != 0x20)
        .copied()
        .unwrap_or(0);
    match field {
        0x88 => " 200",
        0x89 => " 204",
        0x8b => " 304",
        0x8c => " 400",
        0x8d => " 404",
        0x8e => " 500",
        _ => "",
    }
}

/// Sends the frames; what came.
pub async fn send(target: SocketAddr, lines: &[String]) -> String {
    let Ok(mut stream) = dial(target).await else {
        return "<connection refused>".to_owned();
    };
    let mut out = Vec::new();
    let mut lines = lines.iter().map(String::as_str).peekable();
    if lines.peek() == Some(&"quiet") {
        lines.next();
    } else {
        out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        out.extend(frame(4, 0, 0, &[]));
    }
    for line in lines {
        out.extend(encode(line));
    }
    let _ = stream.write_all(&out).await;
    let mut got = Vec::new();
    let mut buffer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            while buffer.len() >= 9 {
                let length = usize::from(buffer[0]) << 16
                    | usize::from(buffer[1]) << 8
                    | usize::from(buffer[2]);
                if buffer.len() < 9 + length {
                    break;
                }
                let (kind, flags) = (buffer[3], buffer[4]);
                let id = u32::from_be_bytes(buffer[5..9].try_into().unwrap()) & 0x7fff_ffff;
                let payload: Vec<u8> = buffer.drain(..9 + length).skip(9).collect();
                match kind {
                    0 => {
                        if !payload.is_empty() {
                            got.push(format!("DATA {id}"));
                        }
                        if flags & 1 != 0 {
                            got.push(format!("END {id}"));
                            return;
                        }
                    }
                    1 => {
                        got.push(format!("HEADERS {id}{}", status(&payload)));
                        if flags & 1 != 0 {
                            got.push(format!("END {id}"));
                            return;
                        }
                    }
                    3 => {
                        got.push(format!("RST_STREAM {id} {}", error(&payload)));
                        return;
                    }
                    7 => got.push(format!("GOAWAY {}", error(&payload[4..8]))),
                    _ => {}
                }
            }
            if !more(&mut stream, &mut buffer).await {
                if !buffer.is_empty() {
                    got.push(String::from_utf8_lossy(&buffer).into_owned());
                }
                got.push("<closed>".to_owned());
                return;
            }
        }
    });
    if read.await.is_err() {
        got.push("<nothing more came>".to_owned());
    }
    // How a mistake is told is the implementation's choice (RFC 9113, 5.4): an error of the stream may be taken for one
    // of the connection, and either may end without a word. What counts is that it is not served.
    let refused = got.iter().all(|line| {
        line.starts_with("GOAWAY")
            || line.starts_with("RST_STREAM")
            || line.starts_with("END")
            || line == "<closed>"
            || line.ends_with(" 400")
    });
    if refused {
        "<refused>".to_owned()
    } else {
        got.join("\n")
    }
}
