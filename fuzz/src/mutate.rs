//! Changes of inputs, always the same for the same seed: what `cargo test` does without coverage.

/// A small generator (xorshift64*), so that a failure can be repeated.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Numbers that depend on the seed only.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`; 0 when `end` is.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 {
            return 0;
        }
        (self.draw() % end as u64) as usize
    }
}

/// Bytes and texts at which parsers of all kinds decide something.
const TOKENS: &[&[u8]] = &[
    b"\0",
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b"\"",
    b"'",
    b"\\",
    b"%",
    b"%00",
    b"%2f",
    b"../",
    b"//",
    b"/",
    b"?",
    b"#",
    b":",
    b"::",
    b";",
    b",",
    b".",
    b"-",
    b"-1",
    b"0",
    b"1e999",
    b"0x",
    b"9223372036854775807",
    b"18446744073709551616",
    b"{",
    b"}",
    b"{}",
    b"[",
    b"]",
    b"[]",
    b"null",
    b"true",
    b"NaN",
    b"<<: *a",
    b"&a ",
    b"*a",
    b"!!",
    b"---\n",
    b"(",
    b")",
    b"(?",
    b"*",
    b"$(",
    b"${",
    b"\xff",
    b"\xc3\xa9",
    b"\xf0\x9f\x8e\xad",
    b"\xed\xa0\x80",
    b"\x80",
    b"\x7f",
];

/// The longest text that mutations grow to, in bytes.
const LONGEST: usize = 1 << 16;

/// A changed copy of `input`; parts of `other` may come into it.
pub fn mutate(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut out = input.to_vec();
    for _ in 0..=random.below(4) {
        change(&mut out, other, random);
    }
    out
}

fn range(length: usize, random: &mut Random) -> std::ops::Range<usize> {
    let start = random.below(length + 1);
    // Short pieces mostly: that is what texts are made of.
    let most = if random.below(4) == 0 { length } else { 16 };
    let end = (start + random.below(most + 1)).min(length);
    start..end
}

fn change(out: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(out.len() + 1);
    match random.below(9) {
        0 if !out.is_empty() => {
            let at = at % out.len();
            out[at] ^= 1 << random.below(8);
        }
        1 if !out.is_empty() => {
            let at = at % out.len();
            out[at] = random.draw() as u8;
        }
        2 => {
            out.drain(range(out.len(), random));
        }
        3 => {
            let piece = out[range(out.len(), random)].to_vec();
            out.splice(at..at, piece);
        }
        4 => {
            let piece = other[range(other.len(), random)].to_vec();
            out.splice(at..at, piece);
        }
        5 => {
            let piece = other[range(other.len(), random)].to_vec();
            out.splice(range(out.len(), random), piece);
        }
        6 => out.truncate(at),
        // The same piece many times: nesting, long lists, long words.
        7 => {
            let piece = &out[range(out.len(), random)];
            let times = 1 << random.below(12);
            let many = piece.repeat(times.min(LONGEST / piece.len().max(1)));
            if out.len() + many.len() <= LONGEST {
                out.splice(at..at, many);
            }
        }
        _ => {
            let token = TOKENS[random.below(TOKENS.len())];
            out.splice(at..at, token.iter().copied());
        }
    }
}
