//! SPDY/3.1 framing, as far as port-forwarding needs it: streams, data, pings.
//!
//! Header blocks are one zlib stream per direction, with the preset dictionary of the SPDY/3
//! specification. Ours is sent as stored blocks: replies have no headers worth compressing.

use std::sync::OnceLock;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// The last frame of a stream in one direction.
pub(super) const FIN: u8 = 1;
const WINDOW: usize = 32 * 1024;
const LONGEST_HEADERS: usize = 64 * 1024;

/// A frame we act on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    SynStream {
        id: u32,
        fin: bool,
        headers: Vec<(String, String)>,
    },
    Data {
        id: u32,
        fin: bool,
        bytes: Bytes,
    },
    Reset {
        id: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    /// Settings, window updates and the like.
    Other,
}

/// Takes the client's bytes apart.
pub(super) struct Decoder {
    buffer: BytesMut,
    headers: HeaderInflater,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            headers: HeaderInflater::new(),
        }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// When the bytes are not SPDY/3.1.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, String> {
        let Some(head) = self.buffer.first_chunk::<8>().copied() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        if self.buffer.len() < 8 + length {
            return Ok(None);
        }
        self.buffer.advance(8);
        let mut payload = self.buffer.split_to(length).freeze();
        let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let fin = head[4] & FIN != 0;
        if first >> 31 == 0 {
            return Ok(Some(Frame::Data {
                id: first,
                fin,
                bytes: payload,
            }));
        }
        let version = (first >> 16) & 0x7fff;
        if version != 3 {
            return Err(format!("SPDY version {version} instead of 3"));
        }
        let short = || "SPDY frame too short".to_owned();
        let mut number = || {
            payload
                .try_get_u32()
                .map(|number| number & 0x7fff_ffff)
                .map_err(|_| short())
        };
        Ok(Some(match first & 0xffff {
            1 => {
                let id = number()?;
                if payload.remaining() < 6 {
                    return Err(short());
                }
                // Associated stream, priority, credential slot.
                payload.advance(6);
                Frame::SynStream {
                    id,
                    fin,
                    headers: self.headers.block(&payload)?,
                }
            }
            3 => Frame::Reset { id: number()? },
            6 => Frame::Ping {
                id: payload.try_get_u32().map_err(|_| short())?,
            },
            7 => Frame::GoAway,
            8 => {
                number()?;
                // The compression state is shared by all header blocks.
                self.headers.block(&payload)?;
                Frame::Other
            }
            _ => Frame::Other,
        }))
    }
}

/// Makes frames for the client.
#[derive(Default)]
pub(super) struct Encoder {
    begun: bool,
}

impl Encoder {
    /// Accepts a stream, without headers.
    pub(super) fn reply(&mut self, id: u32) -> Bytes {
        // Number of headers: none.
        let plain = [0_u8; 4];
        let mut block = BytesMut::new();
        if !self.begun {
            self.begun = true;
            // zlib: deflate with a 32 KiB window, no dictionary.
            block.put_slice(&[0x78, 0x01]);
        }
        // A stored block that is not the last one: the stream goes on with the next reply.
        block.put_u8(0);
        block.put_u16_le(plain.len() as u16);
        block.put_u16_le(!(plain.len() as u16));
        block.put_slice(&plain);
        // An empty stored block marks a flush: readers hand out what they have so far.
        block.put_slice(&[0, 0, 0, 0xff, 0xff]);
        let mut payload = BytesMut::new();
        payload.put_u32(id);
        payload.put_slice(&block);
        control(2, 0, &payload)
    }
}

fn control(kind: u16, flags: u8, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + payload.len());
    frame.put_u16(0x8003);
    frame.put_u16(kind);
    frame.put_u8(flags);
    frame.put_uint(payload.len() as u64, 3);
    frame.put_slice(payload);
    frame.freeze()
}

/// Bytes of a stream; `fin`: the last ones.
pub(super) fn data(id: u32, bytes: &[u8], fin: bool) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + bytes.len());
    frame.put_u32(id & 0x7fff_ffff);
    frame.put_u8(if fin { FIN } else { 0 });
    frame.put_uint(bytes.len() as u64, 3);
    frame.put_slice(bytes);
    frame.freeze()
}

/// The answer to a ping.
pub(super) fn ping(id: u32) -> Bytes {
    control(6, 0, &id.to_be_bytes())
}

/// Ends a stream: CANCEL.
pub(super) fn reset(id: u32) -> Bytes {
    let mut payload = id.to_be_bytes().to_vec();
    payload.extend_from_slice(&5_u32.to_be_bytes());
    control(3, 0, &payload)
}

/// Decompresses the header blocks of a connection. The window is seeded with the dictionary, which is
/// what a preset dictionary is to deflate.
struct HeaderInflater {
    state: Box<DecompressorOxide>,
    window: Box<[u8]>,
    at: usize,
    begun: bool,
}

impl HeaderInflater {
    fn new() -> Self {
        let mut window = vec![0; WINDOW].into_boxed_slice();
        let words = dictionary();
        window[..words.len()].copy_from_slice(words);
        Self {
            state: Box::default(),
            window,
            at: words.len(),
            begun: false,
        }
    }

    fn block(&mut self, bytes: &[u8]) -> Result<Vec<(String, String)>, String> {
        let mut input = bytes;
        if !self.begun {
            // zlib header, then the Adler-32 of the dictionary.
            let (head, rest) = input.split_at_checked(6).ok_or("SPDY headers too short")?;
            if head[0] & 0x0f != 8
                || head[1] & 0x20 == 0
                || head[2..6] != adler32(dictionary()).to_be_bytes()
            {
                return Err("SPDY headers are not compressed with the SPDY/3 dictionary".into());
            }
            input = rest;
            self.begun = true;
        }
        let mut plain = Vec::new();
        while !input.is_empty() {
            let (status, read, written) = decompress(
                &mut self.state,
                input,
                &mut self.window,
                self.at,
                TINFL_FLAG_HAS_MORE_INPUT,
            );
            plain.extend_from_slice(&self.window[self.at..self.at + written]);
            self.at = (self.at + written) % WINDOW;
            input = &input[read..];
            match status {
                TINFLStatus::HasMoreOutput if plain.len() < LONGEST_HEADERS => {}
                TINFLStatus::NeedsMoreInput => break,
                other => return Err(format!("SPDY headers cannot be decompressed: {other:?}")),
            }
        }
        parse_headers(&plain)
    }
}

fn parse_headers(mut plain: &[u8]) -> Result<Vec<(String, String)>, String> {
    let short = || "SPDY header block too short".to_owned();
    let text = |plain: &mut &[u8]| -> Result<String, String> {
        let length = plain.try_get_u32().map_err(|_| short())? as usize;
        let (text, rest) = plain.split_at_checked(length).ok_or_else(short)?;
        *plain = rest;
        Ok(String::from_utf8_lossy(text).into_owned())
    };
    let count = plain.try_get_u32().map_err(|_| short())?;
    let mut headers = Vec::new();
    for _ in 0..count {
        let name = text(&mut plain)?;
        headers.push((name, text(&mut plain)?));
    }
    Ok(headers)
}

fn adler32(bytes: &[u8]) -> u32 {
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in bytes {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    b << 16 | a
}

/// The dictionary of the SPDY/3 specification, section 2.6.10.1: words with a length before each, then
/// frequent values in a row.
fn dictionary() -> &'static [u8] {
    static WORDS: OnceLock<Vec<u8>> = OnceLock::new();
    WORDS.get_or_init(|| {
        let words = "options head post put delete trace accept accept-charset accept-encoding accept-language \
            accept-ranges age allow authorization cache-control connection content-base content-encoding \
            content-language content-length content-location content-md5 content-range content-type date etag expect \
            expires from host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified \
            location max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after server te \
            trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get status 200_OK \
            version HTTP/1.1 url public set-cookie keep-alive origin";
        let tail = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
            203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized\
            403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
            Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
            chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,\
            text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
        let mut out = Vec::with_capacity(1423);
        for word in words.split_whitespace() {
            let word = word.replace('_', " ");
            out.extend_from_slice(&(word.len() as u32).to_be_bytes());
            out.extend_from_slice(word.as_bytes());
        }
        out.extend_from_slice(tail.as_bytes());
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_one_every_peer_has() {
        assert_eq!(dictionary().len(), 1423);
        assert_eq!(adler32(dictionary()), 0xe3c6_a7c2);
    }

    #[test]
    fn frames_arrive_in_any_pieces() {
        let mut plain = Vec::new();
        plain.put_u32(1);
        for text in ["streamtype", "data"] {
            plain.put_u32(text.len() as u32);
            plain.put_slice(text.as_bytes());
        }
        let mut block = vec![0x78, 0xbb];
        block.put_u32(0xe3c6_a7c2);
        block.put_u8(0);
        block.put_u16_le(plain.len() as u16);
        block.put_u16_le(!(plain.len() as u16));
        block.put_slice(&plain);
        let mut payload = Vec::new();
        payload.put_u32(1);
        payload.put_slice(&[0; 6]);
        payload.put_slice(&block);
        let mut wire = control(1, 0, &payload).to_vec();
        wire.extend_from_slice(&data(1, b"hello", true));
        wire.extend_from_slice(&ping(7));
        wire.extend_from_slice(&control(4, 0, &[0; 4]));
        let expected = [
            Frame::SynStream {
                id: 1,
                fin: false,
                headers: vec![("streamtype".into(), "data".into())],
            },
            Frame::Data {
                id: 1,
                fin: true,
                bytes: Bytes::from_static(b"hello"),
            },
            Frame::Ping { id: 7 },
            Frame::Other,
        ];
        for size in [1, 7, wire.len()] {
            let mut decoder = Decoder::new();
            let mut seen = Vec::new();
            for piece in wire.chunks(size) {
                decoder.feed(piece);
                while let Some(frame) = decoder.next().unwrap() {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, expected, "pieces of {size}");
        }
        let mut decoder = Decoder::new();
        decoder.feed(b"GET / HTTP/1.1\r\n");
        decoder.feed(&[0x80, 2, 0, 1, 0, 0, 0, 0]);
        assert!(matches!(decoder.next(), Ok(None) | Err(_)));
    }
}
