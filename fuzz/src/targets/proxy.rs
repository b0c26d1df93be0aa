//! What peers and control planes send to proxies.

use bytes::BytesMut;
use proxy::body::Frame;
use proxy::h1::{decode, head};

use crate::Target;

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "http1-request-head",
        run: http1_request_head,
        also: &[],
    },
    Target {
        name: "http1-chunks",
        run: http1_chunks,
        also: &[],
    },
];

fn http1_request_head(input: &[u8]) {
    let mut buf = BytesMut::from(input);
    let rules = head::HeadRules::default();
    while let Ok(Some(_)) = head::parse_request(&mut buf, &rules) {}
}

/// What a chunked body says does not depend on how its bytes arrive.
fn http1_chunks(input: &[u8]) {
    let whole = chunks(input, input.len().max(1));
    for step in [1, 2, 7] {
        assert_eq!(chunks(input, step), whole, "in pieces of {step} bytes");
    }
}

/// The bytes of the body and whether it ended, or nothing where it is malformed.
fn chunks(input: &[u8], step: usize) -> Option<(Vec<u8>, bool)> {
    let mut decoder = decode::Decoder::new(decode::Framing::Chunked);
    let mut buf = BytesMut::new();
    let mut body = Vec::new();
    for piece in input.chunks(step) {
        buf.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buf) {
                Err(decode::Malformed) => return None,
                Ok(decode::Decoded::More) => break,
                Ok(decode::Decoded::End) => return Some((body, true)),
                Ok(decode::Decoded::Frame(frame)) => {
                    if let Frame::Data(data) = frame {
                        body.extend_from_slice(&data);
                    }
                }
            }
        }
    }
    Some((body, false))
}
