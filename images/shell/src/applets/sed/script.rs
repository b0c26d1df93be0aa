//! From the text of a script to its steps.

use regex::bytes::Regex;

use crate::applets::regular_expression::compile;
use crate::options::Failure;

pub(super) enum Address {
    Line(usize),
    Last,
    Match(Option<Regex>),
    /// Every so many lines from one on.
    Step(usize, usize),
    /// So many lines more.
    Plus(usize),
}

#[derive(Default)]
pub(super) struct Range {
    pub(super) first: Option<Address>,
    pub(super) second: Option<Address>,
    pub(super) negated: bool,
    /// Within the range: where it ends, when that is known.
    pub(super) inside: Option<Option<usize>>,
}

pub(super) enum Piece {
    Text(Vec<u8>),
    Group(usize),
}

pub(super) struct Substitution {
    /// Nothing: the expression that was used last.
    pub(super) expression: Option<Regex>,
    pub(super) replacement: Vec<Piece>,
    pub(super) global: bool,
    pub(super) number: usize,
    pub(super) print: bool,
}

pub(super) enum Action {
    Block(usize),
    End,
    Substitute(Substitution),
    Translate(Vec<(char, char)>),
    Print,
    PrintFirst,
    Delete,
    DeleteFirst,
    Quit { print: bool, status: i32 },
    Next,
    Append,
    After(Vec<u8>),
    Before(Vec<u8>),
    Change(Vec<u8>),
    Number,
    Hold,
    HoldMore,
    Get,
    GetMore,
    Exchange,
    Label,
    Jump(String),
    JumpIfReplaced(String),
}

pub(super) struct Step {
    pub(super) range: Range,
    pub(super) action: Action,
    pub(super) label: String,
}

struct Parser<'a> {
    chars: Vec<char>,
    at: usize,
    extended: bool,
    steps: Vec<Step>,
    blocks: Vec<usize>,
    source: &'a str,
}

impl Parser<'_> {
    fn error(&self, text: &str) -> Failure {
        Failure::Message(format!("{text} in '{}'", self.source.trim()))
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += usize::from(c.is_some());
        c
    }

    fn blanks(&mut self, also: &str) {
        while self
            .peek()
            .is_some_and(|c| c == ' ' || c == '\t' || also.contains(c))
        {
            self.at += 1;
        }
    }

    fn number(&mut self) -> Option<usize> {
        let mut number = None;
        while let Some(digit) = self.peek().and_then(|c| c.to_digit(10)) {
            self.at += 1;
            number = Some(
                number
                    .unwrap_or(0_usize)
                    .saturating_mul(10)
                    .saturating_add(digit as usize),
            );
        }
        number
    }

    /// Text up to an unescaped delimiter. The delimiter itself, escaped, loses its backslash.
    fn delimited(&mut self, delimiter: char, expression: bool) -> Result<String, Failure> {
        let mut text = String::new();
        let mut bracket = false;
        loop {
            let c = self
                .take()
                .ok_or_else(|| self.error(&format!("unterminated {delimiter}")))?;
            match c {
                '\\' => {
                    let next = self
                        .take()
                        .ok_or_else(|| self.error("trailing backslash"))?;
                    if next != delimiter || bracket {
                        text.push('\\');
                    }
                    text.push(next);
                }
                '[' if expression && !bracket => {
                    bracket = true;
                    text.push('[');
                    for special in ['^', ']'] {
                        if self.peek() == Some(special) {
                            self.at += 1;
                            text.push(special);
                        }
                    }
                }
                ']' if bracket => {
                    bracket = false;
                    text.push(']');
                }
                c if c == delimiter && !bracket => return Ok(text),
                c => text.push(c),
            }
        }
    }

    fn expression(&self, text: &str, ignore_case: bool) -> Result<Option<Regex>, Failure> {
        if text.is_empty() {
            return Ok(None);
        }
        compile(text, self.extended, ignore_case)
            .map(Some)
            .map_err(Failure::Message)
    }

    fn address(&mut self, second: bool) -> Result<Option<Address>, Failure> {
        if second && self.peek() == Some('+') {
            self.at += 1;
            let count = self.number().ok_or_else(|| self.error("number expected"))?;
            return Ok(Some(Address::Plus(count)));
        }
        if let Some(line) = self.number() {
            if self.peek() == Some('~') {
                self.at += 1;
                let step = self.number().ok_or_else(|| self.error("number expected"))?;
                return Ok(Some(Address::Step(line, step)));
            }
            return Ok(Some(Address::Line(line)));
        }
        match self.peek() {
            Some('$') => {
                self.at += 1;
                Ok(Some(Address::Last))
            }
            Some('/') | Some('\\') => {
                let mut delimiter = self.take();
                if delimiter == Some('\\') {
                    delimiter = self.take();
                }
                let delimiter = delimiter.ok_or_else(|| self.error("expression expected"))?;
                let text = self.delimited(delimiter, true)?;
                let ignore_case = self.peek() == Some('I');
                self.at += usize::from(ignore_case);
                Ok(Some(Address::Match(self.expression(&text, ignore_case)?)))
            }
            _ => Ok(None),
        }
    }

    fn parse(&mut self) -> Result<(), Failure> {
        loop {
            self.blanks(";\n");
            let Some(c) = self.peek() else {
                return match self.blocks.is_empty() {
                    true => Ok(()),
                    false => Err(self.error("unmatched {")),
                };
            };
            if c == '#' {
                while self.peek().is_some_and(|c| c != '\n') {
                    self.at += 1;
                }
                continue;
            }
            let mut range = Range {
                first: self.address(false)?,
                ..Range::default()
            };
            self.blanks("");
            if range.first.is_some() && self.peek() == Some(',') {
                self.at += 1;
                self.blanks("");
                range.second = Some(
                    self.address(true)?
                        .ok_or_else(|| self.error("address expected"))?,
                );
            }
            self.blanks("");
            while self.peek() == Some('!') {
                self.at += 1;
                range.negated = true;
                self.blanks("");
            }
            self.command(range)?;
        }
    }

    fn rest_of_line(&mut self, also_ends: &str) -> String {
        let start = self.at;
        while self
            .peek()
            .is_some_and(|c| c != '\n' && !also_ends.contains(c))
        {
            self.at += 1;
        }
        self.chars[start..self.at]
            .iter()
            .collect::<String>()
            .trim()
            .to_owned()
    }

    fn command(&mut self, range: Range) -> Result<(), Failure> {
        let c = self.take().ok_or_else(|| self.error("command expected"))?;
        let mut label = String::new();
        let action = match c {
            '{' => {
                self.blocks.push(self.steps.len());
                Action::Block(0)
            }
            '}' => {
                let open = self
                    .blocks
                    .pop()
                    .ok_or_else(|| self.error("unexpected }"))?;
                let end = self.steps.len();
                self.steps[open].action = Action::Block(end);
                Action::End
            }
            's' => self.substitution()?,
            'y' => self.translation()?,
            'p' => Action::Print,
            'P' => Action::PrintFirst,
            'd' => Action::Delete,
            'D' => Action::DeleteFirst,
            'q' | 'Q' => {
                self.blanks("");
                let status = self.number().unwrap_or(0);
                Action::Quit {
                    print: c == 'q',
                    status: i32::try_from(status).unwrap_or(1),
                }
            }
            'n' => Action::Next,
            'N' => Action::Append,
            '=' => Action::Number,
            'h' => Action::Hold,
            'H' => Action::HoldMore,
            'g' => Action::Get,
            'G' => Action::GetMore,
            'x' => Action::Exchange,
            'a' | 'i' | 'c' => {
                let text = self.inserted()?;
                match c {
                    'a' => Action::After(text),
                    'i' => Action::Before(text),
                    _ => Action::Change(text),
                }
            }
            ':' => {
                label = self.rest_of_line(";}");
                Action::Label
            }
            'b' => Action::Jump(self.rest_of_line(";}")),
            't' => Action::JumpIfReplaced(self.rest_of_line(";}")),
            other => return Err(self.error(&format!("unsupported command {other}"))),
        };
        if !matches!(c, '{' | 'a' | 'i' | 'c') {
            self.blanks("");
            if self.peek().is_some_and(|c| !";\n}#".contains(c)) {
                return Err(self.error(&format!("extra characters after {c}")));
            }
        }
        self.steps.push(Step {
            range,
            action,
            label,
        });
        Ok(())
    }

    /// The text of `a`, `i` and `c`: after the letter, or after a backslash on lines of its own.
    fn inserted(&mut self) -> Result<Vec<u8>, Failure> {
        self.blanks("");
        if self.peek() == Some('\\') {
            self.at += 1;
            self.blanks("");
            if self.peek() == Some('\n') {
                self.at += 1;
            }
        }
        let mut text = String::new();
        while let Some(c) = self.take() {
            match c {
                '\n' => break,
                '\\' => text.extend(self.take()),
                c => text.push(c),
            }
        }
        if text.is_empty() {
            return Err(self.error("text expected"));
        }
        text.push('\n');
        Ok(text.into_bytes())
    }

    fn substitution(&mut self) -> Result<Action, Failure> {
        let delimiter = self
            .take()
            .filter(|c| *c != '\n' && *c != '\\')
            .ok_or_else(|| self.error("delimiter expected"))?;
        let pattern = self.delimited(delimiter, true)?;
        let replacement = self.delimited(delimiter, false)?;
        let (mut global, mut number, mut print, mut ignore_case) = (false, 1, false, false);
        loop {
            match self.peek() {
                Some('g') => global = true,
                Some('p') => print = true,
                Some('i' | 'I') => ignore_case = true,
                Some(c) if c.is_ascii_digit() => {
                    number = self
                        .number()
                        .filter(|number| *number > 0)
                        .ok_or_else(|| self.error("bad number"))?;
                    continue;
                }
                Some('w' | 'e' | 'm' | 'M') => return Err(self.error("unsupported flag of s")),
                _ => break,
            }
            self.at += 1;
        }
        let expression = self.expression(&pattern, ignore_case)?;
        let replacement = pieces(&replacement);
        let groups = expression
            .as_ref()
            .map_or(usize::MAX, |regex| regex.captures_len() - 1);
        for piece in &replacement {
            if let Piece::Group(number) = piece
                && *number > groups
            {
                return Err(self.error(&format!("invalid reference \\{number}")));
            }
        }
        Ok(Action::Substitute(Substitution {
            expression,
            replacement,
            global,
            number,
            print,
        }))
    }

    fn translation(&mut self) -> Result<Action, Failure> {
        let delimiter = self
            .take()
            .ok_or_else(|| self.error("delimiter expected"))?;
        let plain = |text: String| text.replace("\\n", "\n").replace("\\\\", "\\");
        let from = plain(self.delimited(delimiter, false)?);
        let to = plain(self.delimited(delimiter, false)?);
        if from.chars().count() != to.chars().count() {
            return Err(self.error("the strings of y differ in length"));
        }
        Ok(Action::Translate(from.chars().zip(to.chars()).collect()))
    }
}

fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = vec![];
    let mut literal = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let group = match c {
            '&' => Some(0),
            '\\' => match chars.next() {
                Some('n') => {
                    literal.push(b'\n');
                    None
                }
                Some('t') => {
                    literal.push(b'\t');
                    None
                }
                Some(digit) if digit.is_ascii_digit() => {
                    digit.to_digit(10).map(|digit| digit as usize)
                }
                Some(other) => {
                    literal.extend(other.encode_utf8(&mut [0; 4]).as_bytes());
                    None
                }
                None => None,
            },
            c => {
                literal.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
                None
            }
        };
        if let Some(group) = group {
            pieces.push(Piece::Text(std::mem::take(&mut literal)));
            pieces.push(Piece::Group(group));
        }
    }
    pieces.push(Piece::Text(literal));
    pieces
}

pub(super) fn parsed(source: &str, extended: bool) -> Result<Vec<Step>, Failure> {
    let mut parser = Parser {
        chars: source.chars().collect(),
        at: 0,
        extended,
        steps: Vec::new(),
        blocks: Vec::new(),
        source,
    };
    parser.parse()?;
    Ok(parser.steps)
}
