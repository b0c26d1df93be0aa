//! The first value of a text as Go's JSON scanner reads it, and its words for what it does not read.

/// What is expected of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// One value and nothing after it, as `json.Unmarshal` reads.
    Whole,
    /// A value with anything after it, as a `json.Decoder` reads.
    First,
}

/// The first value in `text`, without what surrounds it.
///
/// # Errors
/// Go's text: `invalid character 'k' looking for beginning of value`.
pub fn value(text: &str, extent: Extent) -> Result<&str, String> {
    let mut scanner = Scanner {
        bytes: text.as_bytes(),
        at: 0,
        extent,
    };
    scanner.blanks();
    let start = scanner.at;
    if extent == Extent::First && start == text.len() {
        return Err("EOF".into());
    }
    scanner.value("looking for beginning of value")?;
    let end = scanner.at;
    if extent == Extent::Whole {
        scanner.blanks();
        if scanner.at < text.len() {
            return Err(scanner.unexpected("after top-level value"));
        }
    }
    Ok(&text[start..end])
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    extent: Extent,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// What is said about the next byte, or about the end where there is none. Go names bytes, not letters.
    fn unexpected(&self, context: &str) -> String {
        let Some(byte) = self.peek() else {
            return match self.extent {
                Extent::Whole => "unexpected end of JSON input".into(),
                Extent::First => "unexpected EOF".into(),
            };
        };
        let shown = match byte {
            b'\'' => r"'\''".to_string(),
            b'"' => "'\"'".to_string(),
            byte => {
                let quoted = crate::field::quote(&char::from(byte).to_string());
                format!("'{}'", &quoted[1..quoted.len() - 1])
            }
        };
        format!("invalid character {shown} {context}")
    }

    fn expect(&mut self, fits: impl Fn(u8) -> bool, context: &str) -> Result<(), String> {
        match self.peek() {
            Some(byte) if fits(byte) => {
                self.at += 1;
                Ok(())
            }
            _ => Err(self.unexpected(context)),
        }
    }

    fn value(&mut self, context: &str) -> Result<(), String> {
        match self.peek() {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'"') => self.text(),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.unexpected(context)),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        self.at += 1;
        for expected in word.bytes().skip(1) {
            let context = format!("in literal {word} (expecting '{}')", char::from(expected));
            self.expect(|byte| byte == expected, &context)?;
        }
        Ok(())
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn number(&mut self) -> Result<(), String> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let zero = self.peek() == Some(b'0');
        self.expect(|byte| byte.is_ascii_digit(), "in numeric literal")?;
        if !zero {
            self.digits();
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            let context = "after decimal point in numeric literal";
            self.expect(|byte| byte.is_ascii_digit(), context)?;
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            let context = "in exponent of numeric literal";
            self.expect(|byte| byte.is_ascii_digit(), context)?;
            self.digits();
        }
        Ok(())
    }

    fn text(&mut self) -> Result<(), String> {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    let unicode = self.peek() == Some(b'u');
                    let known = |byte| b"bfnrt\\/\"u".contains(&byte);
                    self.expect(known, "in string escape code")?;
                    if unicode {
                        for _ in 0..4 {
                            let context = "in \\u hexadecimal character escape";
                            self.expect(|byte| byte.is_ascii_hexdigit(), context)?;
                        }
                    }
                }
                Some(0x20..) => self.at += 1,
                _ => return Err(self.unexpected("in string literal")),
            }
        }
    }

    fn array(&mut self) -> Result<(), String> {
        self.at += 1;
        self.blanks();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.blanks();
            self.value("looking for beginning of value")?;
            self.blanks();
            let last = self.peek() == Some(b']');
            self.expect(|byte| matches!(byte, b']' | b','), "after array element")?;
            if last {
                return Ok(());
            }
        }
    }

    fn object(&mut self) -> Result<(), String> {
        self.at += 1;
        self.blanks();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.blanks();
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("looking for beginning of object key string"));
            }
            self.text()?;
            self.blanks();
            self.expect(|byte| byte == b':', "after object key")?;
            self.blanks();
            self.value("looking for beginning of value")?;
            self.blanks();
            let last = self.peek() == Some(b'}');
            let context = "after object key:value pair";
            self.expect(|byte| matches!(byte, b'}' | b','), context)?;
            if last {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_where_go_ends_it() {
        assert_eq!(
            value(
                " {\"a\": [1, -0.5e3, \"x\\u00e9\\n\", null]} ",
                Extent::Whole
            ),
            Ok("{\"a\": [1, -0.5e3, \"x\\u00e9\\n\", null]}")
        );
        assert_eq!(value("1.2.3", Extent::First), Ok("1.2"));
        assert_eq!(value("{}_", Extent::First), Ok("{}"));
    }

    #[test]
    fn mistakes_have_the_words_of_go() {
        for (text, want) in [
            ("k", "invalid character 'k' looking for beginning of value"),
            ("", "unexpected end of JSON input"),
            ("{\"a\"", "unexpected end of JSON input"),
            (
                "foo",
                "invalid character 'o' in literal false (expecting 'a')",
            ),
            ("-{", "invalid character '{' in numeric literal"),
            (
                "1.x",
                "invalid character 'x' after decimal point in numeric literal",
            ),
            ("1 2", "invalid character '2' after top-level value"),
            ("[1 2", "invalid character '2' after array element"),
            (
                "{a",
                "invalid character 'a' looking for beginning of object key string",
            ),
            ("{\"a\" 1", "invalid character '1' after object key"),
            (
                "{\"a\":1 2",
                "invalid character '2' after object key:value pair",
            ),
            ("\"\\q\"", "invalid character 'q' in string escape code"),
            ("\"\t\"", "invalid character '\\t' in string literal"),
            (
                "'a'",
                r"invalid character '\'' looking for beginning of value",
            ),
            ("é", "invalid character 'Ã' looking for beginning of value"),
        ] {
            assert_eq!(value(text, Extent::Whole), Err(want.into()), "{text}");
        }
        assert_eq!(value(" ", Extent::First), Err("EOF".into()));
        assert_eq!(value("[1", Extent::First), Err("unexpected EOF".into()));
    }
}
