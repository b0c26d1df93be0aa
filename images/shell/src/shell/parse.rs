//! From text to commands.

use std::cell::RefCell;
use std::rc::Rc;

use super::ast::{Chain, Command, Item, Kind, List, Pipeline, Redirection, Target, Word};

/// Why a text is no script.
#[derive(Debug, PartialEq)]
pub enum Error {
    /// More lines are needed.
    Incomplete,
    /// It will not become one.
    Syntax(String),
}

type Result<T> = std::result::Result<T, Error>;

/// Levels of commands in commands.
const DEPTH: usize = 200;

const RESERVED: [&str; 16] = [
    "if", "then", "else", "elif", "fi", "while", "until", "do", "done", "for", "in", "case",
    "esac", "{", "}", "!",
];

struct Pending {
    body: Rc<RefCell<Word>>,
    delimiter: String,
    literal: bool,
    strip_tabs: bool,
}

/// Reads commands line by line.
pub struct Parser {
    pub(super) chars: Vec<char>,
    pub(super) at: usize,
    pending: Vec<Pending>,
    depth: usize,
}

impl Parser {
    #[must_use]
    pub fn new(text: &str) -> Self {
        Parser {
            chars: text.chars().collect(),
            at: 0,
            pending: Vec::new(),
            depth: 0,
        }
    }

    /// The commands of the next lines that belong together; nothing at the end.
    pub fn next(&mut self) -> Result<Option<List>> {
        self.newlines()?;
        if self.end() {
            return Ok(None);
        }
        let list = self.list(true)?;
        match self.peek() {
            None => {}
            Some('\n') => self.newline()?,
            Some(found) => return Err(unexpected(&self.operator(found))),
        }
        if !self.pending.is_empty() {
            return Err(Error::Incomplete);
        }
        Ok(Some(list))
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    pub(super) fn peek_at(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    pub(super) fn take(&mut self, text: &str) -> bool {
        let found = text
            .chars()
            .enumerate()
            .all(|(index, c)| self.peek_at(index) == Some(c));
        if found {
            self.at += text.chars().count();
        }
        found
    }

    fn end(&self) -> bool {
        self.at >= self.chars.len()
    }

    pub(super) fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == DEPTH {
            return Err(Error::Syntax("commands are nested too deeply".into()));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn blanks(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t') => self.at += 1,
                Some('\\') if self.peek_at(1) == Some('\n') => self.at += 2,
                Some('#') => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn newline(&mut self) -> Result<()> {
        self.at += 1;
        for pending in std::mem::take(&mut self.pending) {
            self.here_document(&pending)?;
        }
        Ok(())
    }

    fn newlines(&mut self) -> Result<()> {
        loop {
            self.blanks();
            if self.peek() != Some('\n') {
                return Ok(());
            }
            self.newline()?;
        }
    }

    fn here_document(&mut self, pending: &Pending) -> Result<()> {
        let mut text = String::new();
        loop {
            if self.end() {
                return Err(Error::Incomplete);
            }
            let start = self.at;
            while self.peek().is_some_and(|c| c != '\n') {
                self.at += 1;
            }
            let line: String = self.chars[start..self.at].iter().collect();
            self.at += usize::from(!self.end());
            let line = if pending.strip_tabs {
                line.trim_start_matches('\t')
            } else {
                &line
            };
            if line == pending.delimiter {
                break;
            }
            text.push_str(line);
            text.push('\n');
        }
        *pending.body.borrow_mut() = if pending.literal {
            vec![super::word::text(text, true)]
        } else {
            Parser::new(&text).here_text()?
        };
        Ok(())
    }

    fn operator(&self, first: char) -> String {
        let mut text = String::from(first);
        if matches!(first, ';' | '&' | '|') && self.peek_at(1) == Some(first) {
            text.push(first);
        } else if first == '\n' {
            text = "newline".into();
        } else if !is_meta(first) {
            text = self.bare_word();
        }
        text
    }

    /// Commands up to something that ends them; at the top, up to the end of the line.
    fn list(&mut self, top: bool) -> Result<List> {
        let mut items = Vec::new();
        loop {
            if top {
                self.blanks()
            } else {
                self.newlines()?
            }
            if self.at_list_end() {
                return Ok(items);
            }
            if top && self.peek() == Some('\n') {
                return Ok(items);
            }
            let chain = self.deeper(Self::chain)?;
            self.blanks();
            let mut background = false;
            let mut separated = true;
            match (self.peek(), self.peek_at(1)) {
                (Some(';'), Some(';')) => separated = false,
                (Some('&'), _) => {
                    self.at += 1;
                    background = true;
                }
                (Some(';'), _) => self.at += 1,
                (Some('\n'), _) if !top => self.newline()?,
                (Some('\n'), _) => {}
                _ => separated = false,
            }
            items.push(Item { chain, background });
            if !separated {
                return Ok(items);
            }
        }
    }

    fn at_list_end(&self) -> bool {
        match self.peek() {
            None | Some(')') => true,
            Some(';') => self.peek_at(1) == Some(';'),
            Some(_) => matches!(
                self.bare_word().as_str(),
                "then" | "else" | "elif" | "fi" | "do" | "done" | "esac" | "}"
            ),
        }
    }

    /// The unquoted word here, without taking it; empty when it is quoted in part.
    fn bare_word(&self) -> String {
        let mut word = String::new();
        for c in &self.chars[self.at..] {
            match c {
                c if is_meta(*c) => break,
                '\'' | '"' | '\\' | '$' | '`' => return String::new(),
                c => word.push(*c),
            }
        }
        word
    }

    fn keyword(&mut self, word: &str) -> bool {
        let found = self.bare_word() == word;
        if found {
            self.at += word.chars().count();
        }
        found
    }

    fn expect(&mut self, word: &str) -> Result<()> {
        self.newlines()?;
        if self.keyword(word) {
            return Ok(());
        }
        match self.peek() {
            None => Err(Error::Incomplete),
            Some(found) => Err(Error::Syntax(format!(
                "unexpected \"{}\" (expecting \"{word}\")",
                self.operator(found)
            ))),
        }
    }

    fn chain(&mut self) -> Result<Chain> {
        let first = self.pipeline()?;
        let mut rest = Vec::new();
        loop {
            self.blanks();
            let and = if self.take("&&") {
                true
            } else if self.take("||") {
                false
            } else {
                return Ok(Chain { first, rest });
            };
            self.newlines()?;
            rest.push((and, self.pipeline()?));
        }
    }

    fn pipeline(&mut self) -> Result<Pipeline> {
        self.blanks();
        let mut negated = false;
        while self.keyword("!") {
            negated = !negated;
            self.blanks();
        }
        let mut commands = vec![self.command()?];
        loop {
            self.blanks();
            if self.peek() != Some('|') || self.peek_at(1) == Some('|') {
                return Ok(Pipeline { negated, commands });
            }
            self.at += 1;
            self.newlines()?;
            commands.push(self.command()?);
        }
    }

    fn command(&mut self) -> Result<Command> {
        self.blanks();
        let Some(first) = self.peek() else {
            return Err(Error::Incomplete);
        };
        let kind = if first == '(' {
            self.at += 1;
            let list = self.deeper(|parser| parser.list(false))?;
            self.close(')')?;
            Kind::Subshell(list)
        } else {
            match self.bare_word().as_str() {
                "{" => {
                    self.keyword("{");
                    let list = self.deeper(|parser| parser.list(false))?;
                    self.expect("}")?;
                    Kind::Group(list)
                }
                "if" => self.conditional()?,
                "while" | "until" => self.repeated()?,
                "for" => self.each()?,
                "case" => self.case()?,
                word if RESERVED.contains(&word) && word != "in" => return Err(unexpected(word)),
                _ => return self.simple(),
            }
        };
        let mut redirections = Vec::new();
        loop {
            self.blanks();
            match self.redirection()? {
                Some(redirection) => redirections.push(redirection),
                None => return Ok(Command { kind, redirections }),
            }
        }
    }

    fn close(&mut self, what: char) -> Result<()> {
        self.newlines()?;
        match self.peek() {
            Some(c) if c == what => {
                self.at += 1;
                Ok(())
            }
            None => Err(Error::Incomplete),
            Some(found) => Err(Error::Syntax(format!(
                "unexpected \"{}\" (expecting \"{what}\")",
                self.operator(found)
            ))),
        }
    }

    /// A list that must not be empty.
    fn body(&mut self) -> Result<List> {
        let list = self.deeper(|parser| parser.list(false))?;
        if list.is_empty() {
            return match self.peek() {
                None => Err(Error::Incomplete),
                Some(found) => Err(unexpected(&self.operator(found))),
            };
        }
        Ok(list)
    }

    fn conditional(&mut self) -> Result<Kind> {
        self.keyword("if");
        let mut branches = Vec::new();
        loop {
            let condition = self.body()?;
            self.expect("then")?;
            branches.push((condition, self.body()?));
            if self.keyword("elif") {
                continue;
            }
            let otherwise = if self.keyword("else") {
                Some(self.body()?)
            } else {
                None
            };
            self.expect("fi")?;
            return Ok(Kind::If {
                branches,
                otherwise,
            });
        }
    }

    fn repeated(&mut self) -> Result<Kind> {
        let negated = self.keyword("until");
        if !negated {
            self.keyword("while");
        }
        let condition = self.body()?;
        Ok(Kind::Loop {
            negated,
            condition,
            body: self.do_done()?,
        })
    }

    fn do_done(&mut self) -> Result<List> {
        self.expect("do")?;
        let body = self.body()?;
        self.expect("done")?;
        Ok(body)
    }

    fn each(&mut self) -> Result<Kind> {
        self.keyword("for");
        self.blanks();
        let name = self.bare_word();
        if !is_name(&name) {
            return Err(if self.end() {
                Error::Incomplete
            } else {
                Error::Syntax("bad for loop variable".into())
            });
        }
        self.at += name.chars().count();
        self.newlines()?;
        let mut words = None;
        if self.keyword("in") {
            let mut list = Vec::new();
            loop {
                self.blanks();
                match self.word()? {
                    Some(word) => list.push(word),
                    None => break,
                }
            }
            words = Some(list);
        }
        self.blanks();
        if self.peek() == Some(';') {
            self.at += 1;
        }
        Ok(Kind::For {
            name,
            words,
            body: self.do_done()?,
        })
    }

    fn case(&mut self) -> Result<Kind> {
        self.keyword("case");
        self.blanks();
        let word = self.word()?.ok_or(Error::Incomplete)?;
        self.expect("in")?;
        let mut arms = Vec::new();
        loop {
            self.newlines()?;
            if self.keyword("esac") {
                return Ok(Kind::Case { word, arms });
            }
            if self.end() {
                return Err(Error::Incomplete);
            }
            if self.peek() == Some('(') {
                self.at += 1;
            }
            let mut patterns = Vec::new();
            loop {
                self.blanks();
                let pattern = self.word()?.ok_or_else(|| self.missing_word())?;
                patterns.push(pattern);
                self.blanks();
                if self.peek() != Some('|') {
                    break;
                }
                self.at += 1;
            }
            self.close(')')?;
            let body = self.deeper(|parser| parser.list(false))?;
            arms.push((patterns, body));
            self.newlines()?;
            if !self.take(";;") {
                self.expect("esac")?;
                return Ok(Kind::Case { word, arms });
            }
        }
    }

    fn missing_word(&self) -> Error {
        self.peek()
            .map_or(Error::Incomplete, |found| unexpected(&self.operator(found)))
    }

    fn simple(&mut self) -> Result<Command> {
        let mut assignments = Vec::new();
        let mut words: Vec<Word> = Vec::new();
        let mut redirections = Vec::new();
        loop {
            self.blanks();
            if let Some(redirection) = self.redirection()? {
                redirections.push(redirection);
                continue;
            }
            let start = self.at;
            if words.is_empty()
                && let Some(name) = self.assignment_name()
            {
                let value = self.word()?.unwrap_or_default();
                assignments.push((name, value));
                continue;
            }
            let Some(word) = self.word()? else { break };
            words.push(word);
            if words.len() == 1 && assignments.is_empty() && redirections.is_empty() {
                let name: String = self.chars[start..self.at].iter().collect();
                self.blanks();
                if self.peek() == Some('(') {
                    return self.function(name);
                }
            }
        }
        if words.is_empty() && assignments.is_empty() && redirections.is_empty() {
            return Err(self.missing_word());
        }
        Ok(Command {
            kind: Kind::Simple { assignments, words },
            redirections,
        })
    }

    fn function(&mut self, name: String) -> Result<Command> {
        self.at += 1;
        self.blanks();
        if !is_name(&name.replace('-', "_")) {
            return Err(unexpected("("));
        }
        self.close(')')?;
        self.newlines()?;
        let body = Rc::new(self.deeper(Self::command)?);
        Ok(Command {
            kind: Kind::Function { name, body },
            redirections: Vec::new(),
        })
    }

    /// Takes `name=`.
    fn assignment_name(&mut self) -> Option<String> {
        let rest = &self.chars[self.at..];
        let end = rest.iter().position(|c| *c == '=')?;
        let name: String = rest[..end].iter().collect();
        is_name(&name).then(|| {
            self.at += end + 1;
            name
        })
    }

    fn redirection(&mut self) -> Result<Option<Redirection>> {
        let digits = self.chars[self.at..]
            .iter()
            .take_while(|c| c.is_ascii_digit())
            .count();
        if !matches!(self.peek_at(digits), Some('<' | '>')) || digits > 2 {
            return Ok(None);
        }
        let number: String = self.chars[self.at..self.at + digits].iter().collect();
        self.at += digits;
        let input = self.peek() == Some('<');
        let fd = number.parse().unwrap_or(i32::from(!input));
        for (operator, kind) in [
            ("<<-", 0),
            ("<<", 1),
            ("<&", 2),
            ("<>", 3),
            ("<", 4),
            (">>", 5),
            (">&", 2),
            (">|", 6),
            (">", 6),
        ] {
            if !self.take(operator) {
                continue;
            }
            self.blanks();
            if kind < 2 {
                let body = self.here_start(kind == 0)?;
                return Ok(Some(Redirection {
                    fd,
                    target: Target::Here(body),
                }));
            }
            let word = self.word()?.ok_or_else(|| self.missing_word())?;
            let target = match kind {
                2 => Target::Duplicate(word),
                3 => Target::ReadWrite(word),
                4 => Target::Read(word),
                5 => Target::Append(word),
                _ => Target::Write(word),
            };
            return Ok(Some(Redirection { fd, target }));
        }
        Ok(None)
    }

    fn here_start(&mut self, strip_tabs: bool) -> Result<Rc<RefCell<Word>>> {
        let start = self.at;
        self.word()?.ok_or_else(|| self.missing_word())?;
        let written: String = self.chars[start..self.at].iter().collect();
        let literal = written.contains(['\'', '"', '\\']);
        let body = Rc::new(RefCell::new(Vec::new()));
        self.pending.push(Pending {
            body: body.clone(),
            delimiter: written.replace(['\'', '"', '\\'], ""),
            literal,
            strip_tabs,
        });
        Ok(body)
    }

    /// The list of `$(…)`, whose opening is taken.
    pub(super) fn substituted(&mut self) -> Result<List> {
        let outer = std::mem::take(&mut self.pending);
        let list = self.deeper(|parser| parser.list(false))?;
        self.close(')')?;
        self.pending = outer;
        Ok(list)
    }
}

pub(super) fn is_meta(c: char) -> bool {
    matches!(
        c,
        ' ' | '\t' | '\n' | ';' | '&' | '|' | '<' | '>' | '(' | ')'
    )
}

/// Whether a variable may be called so.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
}

fn unexpected(what: &str) -> Error {
    Error::Syntax(format!("unexpected \"{what}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_more_lines() {
        for text in [
            "if true",
            "echo 'a",
            "echo \"a",
            "cat <<E\nx",
            "a |",
            "a &&",
            "( a",
            "case x in",
            "for x in a b\ndo",
            "f() {",
            "echo $(a",
            "echo ${a",
            "echo `a",
            "while true; do a",
        ] {
            let error = Parser::new(&format!("{text}\n")).next().unwrap_err();
            assert_eq!(error, Error::Incomplete, "{text}");
        }
    }

    #[test]
    fn what_will_never_be_a_script() {
        for text in [
            "fi",
            "a ;; b",
            ")",
            "if ; then a; fi",
            "| a",
            "a > ;",
            "for 1 in a; do b; done",
            "${a!}",
        ] {
            let result = Parser::new(&format!("{text}\n")).next();
            assert!(
                matches!(result, Err(Error::Syntax(_))),
                "{text}: {result:?}"
            );
        }
    }

    #[test]
    fn depth_is_bounded() {
        let text = "( ".repeat(100_000);
        assert!(matches!(Parser::new(&text).next(), Err(Error::Syntax(_))));
        let text = "$(".repeat(100_000);
        assert!(matches!(Parser::new(&text).next(), Err(Error::Syntax(_))));
    }
}
