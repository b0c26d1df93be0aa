//! Whether a regular expression is one of RE2's (Go's `regexp`), and what Go says if not.
//!
//! Only the syntax is read. The crate `regex` differs in corners (`\Q..\E`, lone braces, sets inside classes) and in its words.

const TOO_OFTEN: u64 = 1000;

/// Checks an expression.
///
/// # Errors
/// Go's text: ``error parsing regexp: missing closing ): `(a` ``.
pub fn check(expression: &str) -> Result<(), String> {
    Parser {
        whole: expression,
        rest: expression,
        groups: Vec::new(),
        operand: None,
        alternatives: 0,
    }
    .parse()
    .map_err(|(what, text)| format!("error parsing regexp: {what}: `{text}`"))
}

type Problem = (&'static str, String);

const BAD_ESCAPE: &str = "invalid escape sequence";
const BAD_RANGE: &str = "invalid character class range";
const BAD_REPEAT: &str = "invalid repeat count";
const BAD_NAME: &str = "invalid named capture";

struct Parser<'a> {
    whole: &'a str,
    rest: &'a str,
    /// Of each open group: the operand before it and the highest repetition inside so far.
    groups: Vec<(Option<u64>, u64)>,
    /// What a repetition would apply to: how often it repeats its own parts already. None at the start of a group or
    /// alternative.
    operand: Option<u64>,
    /// The highest repetition in the current group.
    alternatives: u64,
}

impl<'a> Parser<'a> {
    fn parse(mut self) -> Result<(), Problem> {
        let mut last_repeat: Option<&'a str> = None;
        while let Some(c) = self.rest.chars().next() {
            let here = self.rest;
            let mut repeat = None;
            match c {
                '(' if here.starts_with("(?") => self.perl_group()?,
                '(' => {
                    self.open();
                    self.rest = &here[1..];
                }
                '|' => {
                    self.operand = None;
                    self.rest = &here[1..];
                }
                ')' => {
                    let Some((_, outer)) = self.groups.pop() else {
                        return Err(("unexpected )", self.whole.into()));
                    };
                    let inner = self.alternatives;
                    self.alternatives = outer.max(inner);
                    self.operand = Some(inner);
                    self.rest = &here[1..];
                }
                '[' => {
                    self.rest = class(here)?;
                    self.operand = Some(1);
                }
                '*' | '+' | '?' => {
                    self.rest = &here[1..];
                    self.repeat(here, last_repeat, 1)?;
                    repeat = Some(here);
                }
                '{' => match counts(here) {
                    Some((least, most, after)) => {
                        let count = most.unwrap_or(least);
                        if least > TOO_OFTEN || count > TOO_OFTEN || most.is_some_and(|m| m < least)
                        {
                            return Err((BAD_REPEAT, consumed(here, after)));
                        }
                        self.rest = after;
                        self.repeat(here, last_repeat, if count >= 2 { count } else { 1 })?;
                        repeat = Some(here);
                    }
                    None => self.literal(1),
                },
                '\\' => self.escape()?,
                c => self.literal(c.len_utf8()),
            }
            last_repeat = repeat;
        }
        if self.groups.is_empty() {
            Ok(())
        } else {
            Err(("missing closing )", self.whole.into()))
        }
    }

    fn literal(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
        self.operand = Some(1);
    }

    fn open(&mut self) {
        self.groups.push((self.operand, self.alternatives));
        self.operand = None;
        self.alternatives = 1;
    }

    /// A repetition that begins at `before`; `self.rest` is behind it.
    fn repeat(
        &mut self,
        before: &'a str,
        last_repeat: Option<&'a str>,
        count: u64,
    ) -> Result<(), Problem> {
        if let Some(after) = self.rest.strip_prefix('?') {
            self.rest = after;
        }
        if let Some(first) = last_repeat {
            return Err((
                "invalid nested repetition operator",
                consumed(first, self.rest),
            ));
        }
        let Some(inner) = self.operand else {
            return Err((
                "missing argument to repetition operator",
                consumed(before, self.rest),
            ));
        };
        let product = inner.saturating_mul(count);
        if count >= 2 && product > TOO_OFTEN {
            return Err((BAD_REPEAT, consumed(before, self.rest)));
        }
        self.operand = Some(product);
        self.alternatives = self.alternatives.max(product);
        Ok(())
    }

    /// `(?:`, `(?i)`, `(?P<name>`.
    fn perl_group(&mut self) -> Result<(), Problem> {
        let here = self.rest;
        let named = [("(?P<", 4), ("(?<", 3)]
            .into_iter()
            .find(|(prefix, _)| here.len() > prefix.len() && here.starts_with(prefix));
        if let Some((_, start)) = named {
            let Some(end) = here.find('>') else {
                return Err((BAD_NAME, here.into()));
            };
            let name = &here[start.min(end)..end];
            let word = |c: char| c == '_' || c.is_ascii_alphanumeric();
            if name.is_empty() || !name.chars().all(word) {
                return Err((BAD_NAME, here[..=end].into()));
            }
            self.open();
            self.rest = &here[end + 1..];
            return Ok(());
        }
        let mut rest = &here[2..];
        let (mut negated, mut saw_flag) = (false, false);
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            match c {
                'i' | 'm' | 's' | 'U' => saw_flag = true,
                '-' if !negated => (negated, saw_flag) = (true, false),
                ':' | ')' if !negated || saw_flag => {
                    if c == ':' {
                        self.open();
                    }
                    self.rest = rest;
                    return Ok(());
                }
                _ => break,
            }
        }
        Err(("invalid or unsupported Perl syntax", consumed(here, rest)))
    }

    fn escape(&mut self) -> Result<(), Problem> {
        let here = self.rest;
        match here.as_bytes().get(1) {
            Some(b'A' | b'b' | b'B' | b'z' | b'd' | b'D' | b's' | b'S' | b'w' | b'W') => {
                self.literal(2);
            }
            Some(b'Q') => {
                let quoted = &here[2..];
                let (text, after) = quoted.split_once("\\E").unwrap_or((quoted, ""));
                if !text.is_empty() {
                    self.operand = Some(1);
                }
                self.rest = after;
            }
            Some(b'p' | b'P') => {
                self.rest = unicode_class(here)?;
                self.operand = Some(1);
            }
            _ => {
                let (_, after) = escaped(here)?;
                self.rest = after;
                self.operand = Some(1);
            }
        }
        Ok(())
    }
}

/// What of `from` was read when `rest` is left.
fn consumed(from: &str, rest: &str) -> String {
    from[..from.len() - rest.len()].to_string()
}

/// `{2}`, `{2,}`, `{2,5}`: least, most (None: no limit), what follows. None when it is no repetition.
fn counts(text: &str) -> Option<(u64, Option<u64>, &str)> {
    let end = text.find('}')?;
    let number = |s: &str| -> Option<u64> {
        let plain = !s.is_empty()
            && s.bytes().all(|b| b.is_ascii_digit())
            && (s.len() == 1 || !s.starts_with('0'));
        plain.then(|| s.parse().unwrap_or(u64::MAX))
    };
    let after = &text[end + 1..];
    match text[1..end].split_once(',') {
        None => {
            let n = number(&text[1..end])?;
            Some((n, Some(n), after))
        }
        Some((least, "")) => Some((number(least)?, None, after)),
        Some((least, most)) => Some((number(least)?, Some(number(most)?), after)),
    }
}

/// One escaped character; the character and what follows.
fn escaped(text: &str) -> Result<(char, &str), Problem> {
    let mut rest = &text[1..];
    let Some(c) = rest.chars().next() else {
        return Err(("trailing backslash at end of expression", String::new()));
    };
    rest = &rest[c.len_utf8()..];
    let octal = |s: &str| {
        s.as_bytes()
            .first()
            .is_some_and(|b| (b'0'..=b'7').contains(b))
    };
    match c {
        '0' | '1'..='7' if c == '0' || octal(rest) => {
            let mut value = c as u32 - '0' as u32;
            for _ in 0..2 {
                if octal(rest) {
                    value = value * 8 + u32::from(rest.as_bytes()[0] - b'0');
                    rest = &rest[1..];
                }
            }
            return Ok((char::from_u32(value).unwrap_or_default(), rest));
        }
        'x' => {
            let digits;
            (digits, rest) = match rest.strip_prefix('{') {
                Some(inner) => match inner.split_once('}') {
                    Some((digits, after)) => (digits, after),
                    None => return Err((BAD_ESCAPE, text.into())),
                },
                None => {
                    let count = rest
                        .bytes()
                        .take(2)
                        .take_while(u8::is_ascii_hexdigit)
                        .count();
                    if count < 2 {
                        let shown: String = text.chars().take(2 + count + 1).collect();
                        return Err((BAD_ESCAPE, shown));
                    }
                    rest.split_at(2)
                }
            };
            let value = u32::from_str_radix(digits, 16)
                .ok()
                .filter(|v| *v <= 0x10_ffff);
            return match value {
                Some(value) => Ok((char::from_u32(value).unwrap_or('\u{fffd}'), rest)),
                None => Err((BAD_ESCAPE, consumed(text, rest))),
            };
        }
        'a' => return Ok(('\u{7}', rest)),
        'f' => return Ok(('\u{c}', rest)),
        'n' => return Ok(('\n', rest)),
        'r' => return Ok(('\r', rest)),
        't' => return Ok(('\t', rest)),
        'v' => return Ok(('\u{b}', rest)),
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => return Ok((c, rest)),
        _ => {}
    }
    Err((BAD_ESCAPE, consumed(text, rest)))
}

/// `\pL`, `\p{Greek}`; what follows.
fn unicode_class(text: &str) -> Result<&str, Problem> {
    let Some(c) = text[2..].chars().next() else {
        return Err((BAD_ESCAPE, text.into()));
    };
    let (name, after) = if c == '{' {
        match text[3..].split_once('}') {
            Some(parts) => parts,
            None => return Err((BAD_RANGE, text.into())),
        }
    } else {
        text[2..].split_at(c.len_utf8())
    };
    let plain = name.strip_prefix('^').unwrap_or(name);
    let known = plain == "Any"
        || !plain.contains(['=', ':']) && regex::Regex::new(&format!("\\p{{{plain}}}")).is_ok();
    if known {
        Ok(after)
    } else {
        Err((BAD_RANGE, consumed(text, after)))
    }
}

const POSIX: &[&str] = &[
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

/// A bracket expression; what follows.
fn class(whole: &str) -> Result<&str, Problem> {
    let mut rest = &whole[1..];
    rest = rest.strip_prefix('^').unwrap_or(rest);
    let mut first = true;
    while first || !rest.starts_with(']') {
        first = false;
        if rest.len() > 2
            && rest.starts_with("[:")
            && let Some(end) = rest[2..].find(":]")
        {
            let name = rest[2..2 + end].trim_start_matches('^');
            if !POSIX.contains(&name) {
                return Err((BAD_RANGE, rest[..end + 4].into()));
            }
            rest = &rest[end + 4..];
            continue;
        }
        match rest.as_bytes() {
            [b'\\', b'p' | b'P', ..] => {
                rest = unicode_class(rest)?;
                continue;
            }
            [b'\\', b'd' | b'D' | b's' | b'S' | b'w' | b'W', ..] => {
                rest = &rest[2..];
                continue;
            }
            _ => {}
        }
        let range = rest;
        let low;
        (low, rest) = class_char(rest, whole)?;
        if rest.len() >= 2 && rest.starts_with('-') && !rest[1..].starts_with(']') {
            let high;
            (high, rest) = class_char(&rest[1..], whole)?;
            if high < low {
                return Err((BAD_RANGE, consumed(range, rest)));
            }
        }
    }
    Ok(&rest[1..])
}

fn class_char<'a>(text: &'a str, whole: &str) -> Result<(char, &'a str), Problem> {
    match text.chars().next() {
        None => Err(("missing closing ]", whole.into())),
        Some('\\') => escaped(text),
        Some(c) => Ok((c, &text[c.len_utf8()..])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_accepts() {
        for text in [
            "",
            "a{2}",
            "a{,2}",
            "{",
            "a{2,1",
            r"\Qa+b\E*",
            "(?i)x",
            "(?P<n>a)",
            "(?<n>a)",
            "[]a]",
            "[^]a]",
            "[a-]",
            r"[\d-z]",
            r"\pL\p{Greek}",
            "[[:alpha:]]",
            "^*",
            "()*",
            "a|b",
            r"\x{41}",
            "(?i:a)*?",
            "a+?",
            "(?-s).",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_go_refuses_in_its_words() {
        for (text, what, shown) in [
            ("/items/([0-9]+", "missing closing )", "/items/([0-9]+"),
            ("(?!a)", "invalid or unsupported Perl syntax", "(?!"),
            ("*", "missing argument to repetition operator", "*"),
            ("a|*", "missing argument to repetition operator", "*"),
            ("(+?)", "missing argument to repetition operator", "+?"),
            ("a**", "invalid nested repetition operator", "**"),
            ("a)", "unexpected )", "a)"),
            ("[a", "missing closing ]", "[a"),
            ("[z-a]", "invalid character class range", "z-a"),
            ("[[:foo:]]", "invalid character class range", "[:foo:]"),
            (r"\p{Nope}", "invalid character class range", r"\p{Nope}"),
            (r"\8", "invalid escape sequence", r"\8"),
            (r"\1", "invalid escape sequence", r"\1"),
            ("a{1001}", "invalid repeat count", "{1001}"),
            ("a{3,2}", "invalid repeat count", "{3,2}"),
            ("((a{100}){100}){100}", "invalid repeat count", "{100}"),
            ("(?<=a)b", "invalid named capture", "(?<=a)b"),
            ("(?P<a-b>c)", "invalid named capture", "(?P<a-b>"),
            ("a\\", "trailing backslash at end of expression", ""),
        ] {
            assert_eq!(
                check(text).unwrap_err(),
                format!("error parsing regexp: {what}: `{shown}`"),
                "{text}"
            );
        }
    }
}
