//! Request heads and the bodies behind them.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use proxy::h1::decode::{Decoded, Decoder};
use proxy::h1::head::{HeadRules, parse_request};

fuzz_target!(|data: &[u8]| {
    let mut buffer = BytesMut::from(data);
    while let Ok(Some(head)) = parse_request(&mut buffer, &HeadRules::default()) {
        let mut decoder = Decoder::new(head.framing);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Decoded::Frame(_)) => {}
                Ok(Decoded::End) => break,
                Ok(Decoded::More) | Err(_) => return,
            }
        }
    }
});
