//! The client's side of the protocol.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::resp::encode_request;

/// Most levels of lists in lists.
const DEPTH: usize = 32;

/// What a server answers.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Status(Vec<u8>),
    Error(Vec<u8>),
    Int(i64),
    Bulk(Vec<u8>),
    Nil,
    List(Vec<Answer>),
}

pub(super) struct Connection {
    stream: BufReader<TcpStream>,
    address: String,
}

impl Connection {
    pub(super) fn open(host: &str, port: u16) -> Result<Self, String> {
        let stream = TcpStream::connect((host, port)).map_err(|error| {
            // The system's words without their number.
            let text = error.to_string();
            let text = text.split(" (os error").next().unwrap_or_default();
            format!("Could not connect to Redis at {host}:{port}: {text}")
        })?;
        Ok(Connection {
            stream: BufReader::new(stream),
            address: format!("{host}:{port}"),
        })
    }

    pub(super) fn ask(&mut self, command: &[Vec<u8>]) -> Result<Answer, String> {
        let mut request = Vec::new();
        encode_request(command, &mut request);
        self.stream
            .get_mut()
            .write_all(&request)
            .map_err(|error| format!("{}: {error}", self.address))?;
        self.read()
    }

    pub(super) fn read(&mut self) -> Result<Answer, String> {
        read(&mut self.stream, 0).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => "Error: Server closed the connection".to_owned(),
            _ => format!("{}: {error}", self.address),
        })
    }
}

fn read(stream: &mut impl BufRead, depth: usize) -> std::io::Result<Answer> {
    let bad = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line)?;
    let text = line
        .strip_suffix(b"\r\n")
        .ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let (kind, text) = text.split_first().ok_or_else(|| bad("not a Redis reply"))?;
    let number = || crate::number::parse_int(text).ok_or_else(|| bad("not a length in a reply"));
    match kind {
        b'+' => Ok(Answer::Status(text.to_vec())),
        b'-' => Ok(Answer::Error(text.to_vec())),
        b':' => Ok(Answer::Int(number()?)),
        b'$' => {
            let Ok(length) = u64::try_from(number()?) else {
                return Ok(Answer::Nil);
            };
            let mut bytes = Vec::new();
            stream.take(length).read_to_end(&mut bytes)?;
            let mut end = [0; 2];
            stream.read_exact(&mut end)?;
            Ok(Answer::Bulk(bytes))
        }
        b'*' => {
            let count = number()?;
            if count < 0 {
                return Ok(Answer::Nil);
            }
            if depth == DEPTH {
                return Err(bad("too many lists in lists"));
            }
            let items = (0..count)
                .map(|_| read(stream, depth + 1))
                .collect::<Result<_, _>>()?;
            Ok(Answer::List(items))
        }
        _ => Err(bad("not a Redis reply; is it a Redis server?")),
    }
}
