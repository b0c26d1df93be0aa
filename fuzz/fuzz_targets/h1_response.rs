//! Answer heads and the bodies behind them.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use proxy::h1::decode::{Decoded, Decoder};
use proxy::h1::head::{MAX_HEAD, parse_response};

fuzz_target!(|data: &[u8]| {
    let mut buffer = BytesMut::from(data);
    if let Ok(Some(head)) = parse_response(&mut buffer, MAX_HEAD) {
        let mut decoder = Decoder::new(head.framing);
        while let Ok(Decoded::Frame(_)) = decoder.decode(&mut buffer) {}
    }
});
