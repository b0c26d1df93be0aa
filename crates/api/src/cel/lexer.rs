//! Tokens.

use super::Mistake;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Name(String),
    Sign(&'static str),
    End,
}

#[derive(Debug, Clone)]
pub(super) struct Lexeme {
    pub at: usize,
    pub token: Token,
    /// As written.
    pub text: String,
}

const SIGNS: [&str; 24] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "(", ")", "[", "]", "{", "}", ".", ",", "-", "+",
    "*", "/", "%", "!", "?", ":",
];

/// The tokens of an expression and what could not be read.
pub(super) fn lex(source: &str) -> (Vec<Lexeme>, Vec<Mistake>) {
    let chars: Vec<char> = source.chars().collect();
    let (mut out, mut mistakes) = (Vec::new(), Vec::new());
    let mut i = 0;
    while i < chars.len() {
        let c = chars[i];
        if c.is_ascii_whitespace() {
            i += 1;
            continue;
        }
        if c == '/' && chars.get(i + 1) == Some(&'/') {
            while i < chars.len() && chars[i] != '\n' {
                i += 1;
            }
            continue;
        }
        match token(&chars, i) {
            Ok((token, end)) => {
                out.push(Lexeme {
                    at: i,
                    token,
                    text: chars[i..end].iter().collect(),
                });
                i = end;
            }
            Err(end) => {
                let text: String = chars[i..end].iter().collect();
                mistakes.push(Mistake {
                    at: i,
                    what: format!("Syntax error: token recognition error at: '{text}'"),
                });
                i = end;
            }
        }
    }
    out.push(Lexeme {
        at: chars.len(),
        token: Token::End,
        text: "<EOF>".into(),
    });
    (out, mistakes)
}

/// The token at a place and its end; the error is where the unreadable text ends.
fn token(chars: &[char], i: usize) -> Result<(Token, usize), usize> {
    let c = chars[i];
    let is = |at: usize, c: char| chars.get(at) == Some(&c);
    if c.is_ascii_digit() || c == '.' && chars.get(i + 1).is_some_and(char::is_ascii_digit) {
        return number(chars, i);
    }
    // Prefixes of texts: r, b, and both.
    let mut p = i;
    let (mut raw, mut bytes) = (false, false);
    while p < i + 2 && p < chars.len() {
        match chars[p] {
            'r' | 'R' if !raw => raw = true,
            'b' | 'B' if !bytes => bytes = true,
            _ => break,
        }
        p += 1;
    }
    if p < chars.len() && matches!(chars[p], '"' | '\'') {
        return text(chars, p, raw, bytes);
    }
    if c.is_ascii_alphabetic() || c == '_' {
        let mut end = i;
        while end < chars.len() && (chars[end].is_ascii_alphanumeric() || chars[end] == '_') {
            end += 1;
        }
        return Ok((Token::Name(chars[i..end].iter().collect()), end));
    }
    for sign in SIGNS {
        if sign.chars().enumerate().all(|(n, s)| is(i + n, s)) {
            return Ok((Token::Sign(sign), i + sign.len()));
        }
    }
    // The first characters of == && || alone take the next one with them.
    Err(if matches!(c, '=' | '&' | '|') {
        (i + 2).min(chars.len())
    } else {
        i + 1
    })
}

fn number(chars: &[char], i: usize) -> Result<(Token, usize), usize> {
    let digit = |at: usize| chars.get(at).is_some_and(char::is_ascii_digit);
    let mut end = i;
    if chars[i] == '0' && matches!(chars.get(i + 1), Some('x' | 'X')) {
        end += 2;
        while chars.get(end).is_some_and(char::is_ascii_hexdigit) {
            end += 1;
        }
        let digits: String = chars[i + 2..end].iter().collect();
        if matches!(chars.get(end), Some('u' | 'U')) {
            let value = u64::from_str_radix(&digits, 16).map_err(|_| end)?;
            return Ok((Token::Uint(value), end + 1));
        }
        let value = u64::from_str_radix(&digits, 16).map_err(|_| end)?;
        return Ok((Token::Int(value as i64), end));
    }
    while digit(end) {
        end += 1;
    }
    let mut float = false;
    if chars.get(end) == Some(&'.') && digit(end + 1) {
        float = true;
        end += 1;
        while digit(end) {
            end += 1;
        }
    }
    if matches!(chars.get(end), Some('e' | 'E')) {
        let sign = usize::from(matches!(chars.get(end + 1), Some('+' | '-')));
        if digit(end + 1 + sign) {
            float = true;
            end += 1 + sign;
            while digit(end) {
                end += 1;
            }
        }
    }
    let digits: String = chars[i..end].iter().collect();
    if float {
        return Ok((Token::Float(digits.parse().map_err(|_| end)?), end));
    }
    if matches!(chars.get(end), Some('u' | 'U')) {
        return Ok((Token::Uint(digits.parse().map_err(|_| end)?), end + 1));
    }
    // The magnitude of the lowest number is one more than that of the highest; the parser sees the sign.
    let value: u64 = digits.parse().map_err(|_| end)?;
    if value > 1 << 63 {
        return Err(end);
    }
    Ok((Token::Int(value as i64), end))
}

fn text(chars: &[char], i: usize, raw: bool, bytes: bool) -> Result<(Token, usize), usize> {
    let quote = chars[i];
    let triple = chars.get(i + 1) == Some(&quote) && chars.get(i + 2) == Some(&quote);
    let closes = |at: usize| {
        chars.get(at) == Some(&quote)
            && (!triple || chars.get(at + 1) == Some(&quote) && chars.get(at + 2) == Some(&quote))
    };
    let width = if triple { 3 } else { 1 };
    let mut at = i + width;
    let mut out = String::new();
    let mut raw_bytes = Vec::new();
    let mut push = |c: char, octet: bool| {
        if bytes && octet {
            raw_bytes.push(c as u32 as u8);
        } else if bytes {
            let mut buffer = [0; 4];
            raw_bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
        } else {
            out.push(c);
        }
    };
    loop {
        if at >= chars.len() || !triple && chars[at] == '\n' {
            return Err(chars.len());
        }
        if closes(at) {
            break;
        }
        if chars[at] != '\\' || raw {
            push(chars[at], false);
            at += 1;
            continue;
        }
        let c = *chars.get(at + 1).ok_or(chars.len())?;
        let code = |from: usize, count: usize, radix: u32| -> Result<u32, usize> {
            let digits: String = chars.iter().skip(from).take(count).collect();
            let fine = digits.len() == count && digits.chars().all(|d| d.is_digit(radix));
            fine.then(|| u32::from_str_radix(&digits, radix).ok())
                .flatten()
                .ok_or(chars.len())
        };
        let (value, length, octet) = match c {
            'a' => (7, 2, false),
            'b' => (8, 2, false),
            'f' => (12, 2, false),
            'n' => (10, 2, false),
            'r' => (13, 2, false),
            't' => (9, 2, false),
            'v' => (11, 2, false),
            '\\' | '\'' | '"' | '`' | '?' => (c as u32, 2, false),
            'x' | 'X' => (code(at + 2, 2, 16)?, 4, true),
            'u' if !bytes => (code(at + 2, 4, 16)?, 6, false),
            'U' if !bytes => (code(at + 2, 8, 16)?, 10, false),
            '0'..='3' => (code(at + 1, 3, 8)?, 4, true),
            _ => return Err(chars.len()),
        };
        push(char::from_u32(value).ok_or(chars.len())?, octet);
        at += length;
    }
    let end = at + width;
    Ok(if bytes {
        (Token::Bytes(raw_bytes), end)
    } else {
        (Token::Text(out), end)
    })
}
