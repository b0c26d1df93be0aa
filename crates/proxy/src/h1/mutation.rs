//! Good messages with a few bytes changed, by a fixed seed: whatever comes, the parsers neither panic nor loop, and what
//! they take apart can be written again.

use bytes::BytesMut;

use super::decode::{Decoded, Decoder, Framing};
use super::head::{HeadRules, MAX_HEAD, parse_request, parse_response};

const REQUESTS: [&str; 4] = [
    "GET /a?b=c HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, x\r\nX: 1\r\nx: 2\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nt: 1\r\n\r\n",
    "CONNECT a.test:443 HTTP/1.0\r\nHost: a.test:443\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
];
const ANSWERS: [&str; 3] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=1\r\n\r\nhi",
    "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
    "HTTP/1.0 200\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
];
/// Bytes that matter to a parser.
const SPECIAL: &[u8] = b"\r\n :;,\t\0\x7f\xff0aF-+\"/%";

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit.max(1)
    }

    fn mutate(&mut self, text: &str) -> Vec<u8> {
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..1 + self.below(3) {
            if bytes.is_empty() {
                break;
            }
            let at = self.below(bytes.len());
            match self.below(4) {
                0 => bytes[at] = SPECIAL[self.below(SPECIAL.len())],
                1 => bytes.insert(at, SPECIAL[self.below(SPECIAL.len())]),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        bytes
    }
}

/// Reads a body to its end; each step must take something or ask for more.
fn body(framing: Framing, buffer: &mut BytesMut) {
    let mut decoder = Decoder::new(framing);
    for _ in 0..=buffer.len() + 2 {
        match decoder.decode(buffer) {
            Ok(Decoded::Frame(_)) => {}
            Ok(Decoded::End | Decoded::More) | Err(_) => return,
        }
    }
    panic!("the decoder does not come to an end");
}

#[test]
fn broken_requests_are_taken_or_refused() {
    let mut random = Random(1);
    let (mut taken, mut refused) = (0, 0);
    for round in 0..40_000 {
        let bytes = random.mutate(REQUESTS[round % REQUESTS.len()]);
        let mut buffer = BytesMut::from(&bytes[..]);
        match parse_request(&mut buffer, &HeadRules::default()) {
            Ok(Some(head)) => {
                taken += 1;
                assert!(head.bytes <= bytes.len());
                assert!(!head.target.is_empty(), "{bytes:?}");
                for value in head.headers.values() {
                    let forbidden = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
                    assert!(!value.as_bytes().iter().any(forbidden), "{bytes:?}");
                }
                body(head.framing, &mut buffer);
            }
            Ok(None) => {}
            Err(_) => refused += 1,
        }
    }
    assert!(
        taken > 1000 && refused > 1000,
        "{taken} taken, {refused} refused"
    );
}

#[test]
fn broken_answers_are_taken_or_refused() {
    let mut random = Random(2);
    for round in 0..40_000 {
        let bytes = random.mutate(ANSWERS[round % ANSWERS.len()]);
        let mut buffer = BytesMut::from(&bytes[..]);
        if let Ok(Some(head)) = parse_response(&mut buffer, MAX_HEAD) {
            body(head.framing, &mut buffer);
        }
    }
}

#[test]
fn broken_chunks_come_to_an_end() {
    let mut random = Random(3);
    let good = "5\r\nhello\r\nA;x=\"y\"\r\n0123456789\r\n0\r\nt: 1\r\nu: 2\r\n\r\n";
    for _ in 0..40_000 {
        body(
            Framing::Chunked,
            &mut BytesMut::from(&random.mutate(good)[..]),
        );
    }
}
