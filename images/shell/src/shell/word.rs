//! Words: quotes, parameters, substitutions.

use std::rc::Rc;

use super::ast::{Operation, Part, PartKind, Word};
use super::parse::{Error, Parser, is_meta};

type Result<T> = std::result::Result<T, Error>;

pub(super) fn text(text: impl Into<String>, quoted: bool) -> Part {
    Part {
        kind: PartKind::Text(text.into()),
        quoted,
    }
}

/// Adds a character to the last piece of text, or begins one.
fn push(word: &mut Word, c: char, quoted: bool) {
    if let Some(Part {
        kind: PartKind::Text(last),
        quoted: same,
    }) = word.last_mut()
        && *same == quoted
    {
        last.push(c);
        return;
    }
    word.push(text(c, quoted));
}

impl Parser {
    /// The word here; nothing when an operator or the end is.
    pub(super) fn word(&mut self) -> Result<Option<Word>> {
        let mut word = Vec::new();
        let start = self.at;
        while let Some(c) = self.peek() {
            if is_meta(c) {
                break;
            }
            self.piece(c, &mut word, false)?;
        }
        Ok((self.at > start).then_some(word))
    }

    /// One piece outside of double quotes. In the word of `${a:-…}` within double quotes,
    /// what is not quoted again counts as quoted.
    fn piece(&mut self, c: char, word: &mut Word, quoted: bool) -> Result<()> {
        match c {
            '\'' if !quoted => {
                self.at += 1;
                word.push(text("", true));
                loop {
                    let c = self.peek().ok_or(Error::Incomplete)?;
                    self.at += 1;
                    if c == '\'' {
                        return Ok(());
                    }
                    push(word, c, true);
                }
            }
            '"' => {
                self.at += 1;
                self.double_quoted(word)
            }
            '\\' => {
                self.at += 1;
                match self.peek() {
                    None => push(word, '\\', true),
                    Some('\n') => self.at += 1,
                    Some(c) => {
                        self.at += 1;
                        push(word, c, true);
                    }
                }
                Ok(())
            }
            '$' => self.dollar(word, quoted),
            '`' => self.backquoted(word, quoted),
            c => {
                self.at += 1;
                push(word, c, quoted);
                Ok(())
            }
        }
    }

    fn double_quoted(&mut self, word: &mut Word) -> Result<()> {
        word.push(text("", true));
        loop {
            match self.peek().ok_or(Error::Incomplete)? {
                '"' => {
                    self.at += 1;
                    return Ok(());
                }
                c => self.quoted_piece(c, word, "$`\"\\")?,
            }
        }
    }

    fn quoted_piece(&mut self, c: char, word: &mut Word, escapable: &str) -> Result<()> {
        match c {
            '\\' => {
                self.at += 1;
                match self.peek() {
                    Some('\n') => self.at += 1,
                    Some(c) if escapable.contains(c) => {
                        self.at += 1;
                        push(word, c, true);
                    }
                    _ => push(word, '\\', true),
                }
                Ok(())
            }
            '$' => self.dollar(word, true),
            '`' => self.backquoted(word, true),
            c => {
                self.at += 1;
                push(word, c, true);
                Ok(())
            }
        }
    }

    /// The whole text as that of a here-document.
    pub(super) fn here_text(&mut self) -> Result<Word> {
        let mut word = Vec::new();
        while let Some(c) = self.peek() {
            self.quoted_piece(c, &mut word, "$`\\")?;
        }
        Ok(word)
    }

    fn dollar(&mut self, word: &mut Word, quoted: bool) -> Result<()> {
        self.at += 1;
        let kind = match self.peek() {
            Some('(') if self.peek_at(1) == Some('(') => {
                self.at += 2;
                PartKind::Arithmetic(self.deeper(Self::arithmetic)?)
            }
            Some('(') => {
                self.at += 1;
                PartKind::Substitution(Rc::new(self.substituted()?))
            }
            Some('{') => {
                self.at += 1;
                self.deeper(|parser| parser.braced(quoted))?
            }
            Some(c) if c == '_' || c.is_ascii_alphabetic() => PartKind::Parameter {
                name: self.name(),
                operation: Operation::Value,
            },
            Some(c) if c.is_ascii_digit() || "@*#?-$!".contains(c) => {
                self.at += 1;
                PartKind::Parameter {
                    name: c.into(),
                    operation: Operation::Value,
                }
            }
            _ => {
                push(word, '$', quoted);
                return Ok(());
            }
        };
        word.push(Part { kind, quoted });
        Ok(())
    }

    fn name(&mut self) -> String {
        let start = self.at;
        while self
            .peek()
            .is_some_and(|c| c == '_' || c.is_ascii_alphanumeric())
        {
            self.at += 1;
        }
        self.chars[start..self.at].iter().collect()
    }

    fn braced(&mut self, quoted: bool) -> Result<PartKind> {
        if self.peek() == Some('#') && self.peek_at(1) != Some('}') {
            self.at += 1;
            let name = self.parameter_name()?;
            self.end_brace()?;
            return Ok(PartKind::Parameter {
                name,
                operation: Operation::Length,
            });
        }
        let name = self.parameter_name()?;
        let colon = self.take(":");
        let operator = self.peek().ok_or(Error::Incomplete)?;
        if operator == '}' && !colon {
            self.at += 1;
            return Ok(PartKind::Parameter {
                name,
                operation: Operation::Value,
            });
        }
        self.at += 1;
        let longest = matches!(operator, '#' | '%') && self.peek() == Some(operator);
        self.at += usize::from(longest);
        let pattern = matches!(operator, '#' | '%');
        let mut word = Vec::new();
        loop {
            match self.peek().ok_or(Error::Incomplete)? {
                '}' => break,
                c => self.piece(c, &mut word, quoted && !pattern)?,
            }
        }
        self.at += 1;
        let operation = match operator {
            '-' => Operation::Default { colon, word },
            '=' => Operation::Assign { colon, word },
            '?' => Operation::Require { colon, word },
            '+' => Operation::Alternative { colon, word },
            '#' if !colon => Operation::RemovePrefix {
                longest,
                pattern: word,
            },
            '%' if !colon => Operation::RemoveSuffix {
                longest,
                pattern: word,
            },
            _ => return Err(Error::Syntax("bad substitution".into())),
        };
        Ok(PartKind::Parameter { name, operation })
    }

    fn parameter_name(&mut self) -> Result<String> {
        let c = self.peek().ok_or(Error::Incomplete)?;
        if c.is_ascii_digit() {
            let digits = self.chars[self.at..]
                .iter()
                .take_while(|c| c.is_ascii_digit())
                .count();
            let name = self.chars[self.at..self.at + digits].iter().collect();
            self.at += digits;
            return Ok(name);
        }
        if "@*#?-$!".contains(c) {
            self.at += 1;
            return Ok(c.into());
        }
        let name = self.name();
        if name.is_empty() {
            return Err(Error::Syntax("bad substitution".into()));
        }
        Ok(name)
    }

    fn end_brace(&mut self) -> Result<()> {
        match self.peek() {
            Some('}') => {
                self.at += 1;
                Ok(())
            }
            None => Err(Error::Incomplete),
            Some(_) => Err(Error::Syntax("bad substitution".into())),
        }
    }

    /// The text of `$((…))`, whose opening is taken.
    fn arithmetic(&mut self) -> Result<Word> {
        let mut word = Vec::new();
        let mut open = 0;
        loop {
            match self.peek().ok_or(Error::Incomplete)? {
                ')' if open == 0 => {
                    self.at += 1;
                    if self.peek().is_none() {
                        return Err(Error::Incomplete);
                    }
                    if !self.take(")") {
                        return Err(Error::Syntax("missing '))'".into()));
                    }
                    return Ok(word);
                }
                c => {
                    open += i32::from(c == '(') - i32::from(c == ')');
                    self.quoted_piece(c, &mut word, "$`\\")?;
                }
            }
        }
    }

    fn backquoted(&mut self, word: &mut Word, quoted: bool) -> Result<()> {
        self.at += 1;
        let mut inner = String::new();
        loop {
            let c = self.peek().ok_or(Error::Incomplete)?;
            self.at += 1;
            match (c, self.peek()) {
                ('`', _) => break,
                ('\\', Some(next))
                    if matches!(next, '`' | '\\' | '$') || (quoted && next == '"') =>
                {
                    self.at += 1;
                    inner.push(next);
                }
                (c, _) => inner.push(c),
            }
        }
        let mut parser = Parser::new(&inner);
        let mut list = Vec::new();
        let whole = self.deeper(|_| {
            while let Some(items) = parser.next()? {
                list.extend(items);
            }
            Ok(())
        });
        match whole {
            Err(Error::Incomplete) => {
                return Err(Error::Syntax("EOF in backquote substitution".into()));
            }
            other => other?,
        }
        word.push(Part {
            kind: PartKind::Substitution(Rc::new(list)),
            quoted,
        });
        Ok(())
    }
}
