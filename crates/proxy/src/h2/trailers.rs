//! What the `h2` crate does not tell: whether a request's trailers have pseudo header fields, which makes them
//! malformed (RFC 9113, 8.1). The frames of a client are followed as they come; only the names in header blocks are
//! looked at, as far as it takes to know which of them begin with a colon (RFC 7541).

/// The length of the preface that a client begins with.
const PREFACE: usize = 24;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;
/// No header block is longer; `h2` gives up long before.
const MAX_BLOCK: usize = 4 * 1024 * 1024;

/// Follows the frames of a client.
#[derive(Debug)]
pub struct Watch {
    /// Bytes of the preface, or of a frame nobody looks at, that are still to come.
    skip: usize,
    head: [u8; 9],
    head_len: usize,
    /// Bytes of the frame of a header block that are still to come.
    left: usize,
    /// The header block so far, and what its first frame said.
    block: Vec<u8>,
    flags: u8,
    trailers: bool,
    last_stream: u32,
    /// Which fields of the dynamic table are pseudo header fields, the youngest at bit 0. It holds 4096 bytes, and an entry
    /// takes 32 at least.
    table: u128,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            skip: PREFACE,
            head: [0; 9],
            head_len: 0,
            left: 0,
            block: Vec::new(),
            flags: 0,
            trailers: false,
            last_stream: 0,
            table: 0,
        }
    }
}

impl Watch {
    /// Takes what came next; whether it ends trailers with a pseudo header field.
    pub fn finds_malformed(&mut self, data: &[u8]) -> bool {
        let mut at = 0;
        while at < data.len() {
            let rest = &data[at..];
            if self.skip > 0 {
                let n = self.skip.min(rest.len());
                self.skip -= n;
                at += n;
            } else if self.left > 0 {
                let n = self.left.min(rest.len());
                self.block.extend_from_slice(&rest[..n]);
                self.left -= n;
                at += n;
            } else {
                let n = (9 - self.head_len).min(rest.len());
                self.head[self.head_len..self.head_len + n].copy_from_slice(&rest[..n]);
                self.head_len += n;
                at += n;
                if self.head_len < 9 {
                    break;
                }
                self.frame();
            }
            let whole = self.head_len == 9 && self.skip == 0 && self.left == 0;
            if whole {
                self.head_len = 0;
                if matches!(self.head[3], HEADERS | CONTINUATION)
                    && (self.block.len() > MAX_BLOCK || self.end_of_block())
                {
                    return true;
                }
            }
        }
        false
    }

    /// The head of a frame is complete.
    fn frame(&mut self) {
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        match kind {
            HEADERS => {
                self.block.clear();
                self.left = length;
                self.flags = flags;
                self.trailers = stream <= self.last_stream;
                self.last_stream = self.last_stream.max(stream);
            }
            CONTINUATION => self.left = length,
            _ => self.skip = length,
        }
    }

    /// A frame with a part of a header block is complete; whether the block is whole now, and bad.
    fn end_of_block(&mut self) -> bool {
        if self.head[3] == HEADERS {
            // Padding and priority stand in the first frame only.
            let padding = match self.flags & PADDED {
                0 => 0,
                _ => self.block.first().map_or(0, |n| usize::from(*n)),
            };
            let front = usize::from(self.flags & PADDED != 0)
                + if self.flags & PRIORITY != 0 { 5 } else { 0 };
            let end = self.block.len().saturating_sub(padding);
            self.block.truncate(end);
            self.block.drain(..front.min(end));
        }
        if self.head[4] & END_HEADERS == 0 {
            return false;
        }
        let block = std::mem::take(&mut self.block);
        let pseudo = self.fields(&block).unwrap_or(false);
        self.block = block;
        pseudo && self.trailers
    }

    /// Whether a block has a pseudo header field; `None`: it cannot be read, which `h2` will find out, too.
    fn fields(&mut self, mut block: &[u8]) -> Option<bool> {
        let mut any = false;
        while let Some(first) = block.first() {
            let bits = match first {
                0x80.. => 7,
                0x40.. => 6,
                0x20.. => 5,
                _ => 4,
            };
            let index = integer(&mut block, bits)?;
            if bits == 5 {
                continue;
            }
            let pseudo = match index {
                0 if bits == 7 => return None,
                0 => {
                    let (huffman, name) = string(&mut block)?;
                    // The code of the colon has seven bits.
                    name.first().is_some_and(|byte| {
                        if huffman {
                            byte >> 1 == 0x5c
                        } else {
                            *byte == b':'
                        }
                    })
                }
                1..=14 => true,
                15..=61 => false,
                index => index < 62 + 128 && self.table >> (index - 62) & 1 == 1,
            };
            any |= pseudo;
            if bits < 7 {
                string(&mut block)?;
            }
            if bits == 6 {
                self.table = self.table << 1 | u128::from(pseudo);
            }
        }
        Some(any)
    }
}

/// An integer whose first byte has so many bits for it (RFC 7541, 5.1).
fn integer(data: &mut &[u8], bits: u32) -> Option<usize> {
    let mask = (1 << bits) - 1;
    let (first, rest) = data.split_first()?;
    *data = rest;
    let mut value = usize::from(*first) & mask;
    if value < mask {
        return Some(value);
    }
    for shift in (0..28).step_by(7) {
        let (byte, rest) = data.split_first()?;
        *data = rest;
        value += (usize::from(*byte) & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A string, as it stands there, and whether it is in Huffman's code (RFC 7541, 5.2).
fn string<'a>(data: &mut &'a [u8]) -> Option<(bool, &'a [u8])> {
    let huffman = data.first()? & 0x80 != 0;
    let length = integer(data, 7)?;
    let (text, rest) = data.split_at_checked(length)?;
    *data = rest;
    Some((huffman, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        out.extend([kind, flags]);
        out.extend(stream.to_be_bytes());
        out.extend_from_slice(payload);
        out
    }

    /// Whether trailers of these are malformed, however the bytes are cut.
    fn found(frames: &[Vec<u8>]) -> bool {
        let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        all.extend(frames.concat());
        let whole = Watch::default().finds_malformed(&all);
        let mut watch = Watch::default();
        let bytewise = all.iter().any(|byte| watch.finds_malformed(&[*byte]));
        assert_eq!(whole, bytewise, "cut into bytes");
        whole
    }

    /// `:path: /x` by literal name, by the static table, by the dynamic table, and in Huffman's code.
    #[test]
    fn pseudo_fields_in_trailers_are_found_in_every_representation() {
        let request = frame(HEADERS, END_HEADERS, 1, &[0x82, 0x44, 2, b'/', b'a', 0x86]);
        let huffman = [0x00, 0x84, 0xb9, 0x58, 0xd3, 0x3f, 0x01, b'/'];
        let literal = [&[0x00, 5][..], b":path", &[1, b'/']].concat();
        for block in [&literal[..], &[0x04, 1, b'/'], &[0xbe], &[0x84], &huffman] {
            let bad = frame(HEADERS, END_HEADERS | 1, 1, block);
            assert!(found(&[request.clone(), bad]), "{block:?}");
        }
        let data = frame(0, 0, 1, b"abc");
        let split = [
            frame(HEADERS, 1 | PADDED, 1, &[2, 0x00, 5, b':', 9, 9]),
            frame(CONTINUATION, END_HEADERS, 1, b"path\x01/"),
        ];
        let frames = [request, data, split[0].clone(), split[1].clone()];
        assert!(found(&frames));
    }

    #[test]
    fn requests_and_good_trailers_pass() {
        let request = frame(
            HEADERS,
            END_HEADERS,
            1,
            &[0x82, 0x84, 0x86, 0x40, 1, b'x', 1, b'1'],
        );
        let trailers = frame(HEADERS, END_HEADERS | 1, 1, &[0xbe, 0x00, 1, b'y', 1, b':']);
        let next = frame(HEADERS, END_HEADERS | 1, 3, &[0x82, 0x84, 0x86]);
        assert!(!found(&[request, trailers, next]));
    }
}
