//! `sed`: addresses, blocks, `s`, `y`, `p`, `d`, `q`, `n`, `N`, `a`, `i`, `c`, `=`, `h`, `g`, `x`,
//! labels and jumps.

use std::collections::VecDeque;
use std::io::{BufRead, Write};
use std::path::Path;

use regex::bytes::{Captures, Regex};

use super::regular_expression::compile;
use super::{complain, open, read_line};
use crate::options::{Ended, Failure, Options, about};
use crate::output;

enum Address {
    Line(usize),
    Last,
    Match(Option<Regex>),
    /// Every so many lines from one on.
    Step(usize, usize),
    /// So many lines more.
    Plus(usize),
}

#[derive(Default)]
struct Range {
    first: Option<Address>,
    second: Option<Address>,
    negated: bool,
    /// Within the range: where it ends, when that is known.
    inside: Option<Option<usize>>,
}

enum Piece {
    Text(Vec<u8>),
    Group(usize),
}

struct Substitution {
    /// Nothing: the expression that was used last.
    expression: Option<Regex>,
    replacement: Vec<Piece>,
    global: bool,
    number: usize,
    print: bool,
}

enum Action {
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

struct Step {
    range: Range,
    action: Action,
    label: String,
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

/// Lines of all files one after the other; knows which is the last.
struct Input {
    readers: VecDeque<Box<dyn BufRead>>,
    next: Option<Vec<u8>>,
    number: usize,
}

impl Input {
    fn new(readers: VecDeque<Box<dyn BufRead>>) -> Result<Self, Failure> {
        let mut input = Input {
            readers,
            next: None,
            number: 0,
        };
        input.fill()?;
        Ok(input)
    }

    fn fill(&mut self) -> Result<(), Failure> {
        while let Some(reader) = self.readers.front_mut() {
            self.next = read_line(&mut **reader)?;
            if self.next.is_some() {
                return Ok(());
            }
            self.readers.pop_front();
        }
        self.next = None;
        Ok(())
    }

    fn take(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let line = self.next.take();
        self.number += usize::from(line.is_some());
        self.fill()?;
        Ok(line)
    }
}

struct Machine<'a> {
    steps: Vec<Step>,
    quiet: bool,
    out: &'a mut dyn Write,
    pattern: Vec<u8>,
    line_end: bool,
    hold: Vec<u8>,
    after: Vec<Vec<u8>>,
    last_expression: Option<Regex>,
}

enum Cycle {
    Done,
    Quit(i32),
}

impl Machine<'_> {
    fn line(&mut self, text: &[u8]) -> Result<(), Failure> {
        self.out.write_all(text)?;
        if self.line_end {
            self.out.write_all(b"\n")?;
        }
        Ok(())
    }

    fn load(&mut self, line: Vec<u8>) {
        self.line_end = line.ends_with(b"\n");
        self.pattern = line;
        if self.line_end {
            self.pattern.pop();
        }
    }

    fn end_cycle(&mut self, print: bool) -> Result<(), Failure> {
        if print && !self.quiet {
            let text = self.pattern.clone();
            self.line(&text)?;
        }
        for text in std::mem::take(&mut self.after) {
            self.out.write_all(&text)?;
        }
        Ok(())
    }

    fn holds(&mut self, address: &Address, input: &Input) -> Result<bool, Failure> {
        Ok(match address {
            Address::Line(line) => input.number == *line,
            Address::Last => input.next.is_none(),
            Address::Step(first, 0) => input.number == *first,
            Address::Step(first, step) => {
                input.number >= *first && (input.number - first).is_multiple_of(*step)
            }
            Address::Plus(_) => false,
            Address::Match(expression) => {
                if let Some(expression) = expression {
                    self.last_expression = Some(expression.clone());
                }
                match &self.last_expression {
                    Some(expression) => expression.is_match(&self.pattern),
                    None => return Err(Failure::Message("no previous regular expression".into())),
                }
            }
        })
    }

    /// Whether a step is for this line.
    fn chosen(&mut self, range: &mut Range, input: &Input) -> Result<bool, Failure> {
        let Some(first) = &range.first else {
            return Ok(!range.negated);
        };
        let Some(second) = &range.second else {
            return Ok(self.holds(first, input)? != range.negated);
        };
        let inside = match range.inside {
            Some(end) => {
                let over = match end {
                    Some(line) => input.number >= line,
                    None => self.holds(second, input)?,
                };
                if over {
                    range.inside = None;
                }
                // A line behind a numbered end is outside already.
                end.is_none_or(|line| input.number <= line)
            }
            None if self.holds(first, input)? => {
                range.inside = match second {
                    Address::Line(line) if *line <= input.number => None,
                    Address::Line(line) => Some(Some(*line)),
                    Address::Plus(0) => None,
                    Address::Plus(count) => Some(Some(input.number + count)),
                    Address::Last if input.next.is_none() => None,
                    _ => Some(None),
                };
                true
            }
            None => false,
        };
        Ok(inside != range.negated)
    }

    fn find(&self, label: &str) -> Result<usize, Failure> {
        if label.is_empty() {
            return Ok(self.steps.len());
        }
        let found = self
            .steps
            .iter()
            .position(|step| matches!(step.action, Action::Label) && step.label == label);
        found.ok_or_else(|| Failure::Message(format!("can't find label '{label}'")))
    }

    fn cycle(&mut self, input: &mut Input) -> Result<Cycle, Failure> {
        let mut at = 0;
        let mut replaced = false;
        while at < self.steps.len() {
            let mut range = std::mem::take(&mut self.steps[at].range);
            let chosen = self.chosen(&mut range, input);
            self.steps[at].range = range;
            if !chosen? {
                at = match self.steps[at].action {
                    Action::Block(end) => end,
                    _ => at + 1,
                };
                continue;
            }
            let action = std::mem::replace(&mut self.steps[at].action, Action::End);
            let result = self.act(&action, at, input, &mut replaced);
            self.steps[at].action = action;
            match result? {
                Then::Go(next) => at = next,
                Then::Stop(cycle) => return Ok(cycle),
            }
        }
        self.end_cycle(true)?;
        Ok(Cycle::Done)
    }

    fn act(
        &mut self,
        action: &Action,
        at: usize,
        input: &mut Input,
        replaced: &mut bool,
    ) -> Result<Then, Failure> {
        match action {
            Action::Block(_) | Action::End | Action::Label => {}
            Action::Substitute(substitution) => *replaced |= self.substitute(substitution)?,
            Action::Translate(pairs) => {
                let text = String::from_utf8_lossy(&self.pattern);
                let map = |c| {
                    pairs
                        .iter()
                        .find(|(from, _)| *from == c)
                        .map_or(c, |(_, to)| *to)
                };
                self.pattern = text.chars().map(map).collect::<String>().into_bytes();
            }
            Action::Print => {
                let text = self.pattern.clone();
                self.line_end = true;
                self.line(&text)?;
            }
            Action::PrintFirst => {
                let first = self
                    .pattern
                    .split(|byte| *byte == b'\n')
                    .next()
                    .unwrap_or_default()
                    .to_vec();
                self.line(&first)?;
            }
            Action::Delete => {
                self.end_cycle(false)?;
                return Ok(Then::Stop(Cycle::Done));
            }
            Action::DeleteFirst => {
                let Some(end) = self.pattern.iter().position(|byte| *byte == b'\n') else {
                    self.end_cycle(false)?;
                    return Ok(Then::Stop(Cycle::Done));
                };
                self.pattern.drain(..=end);
                self.end_cycle(false)?;
                return Ok(Then::Go(0));
            }
            Action::Quit { print, status } => {
                self.end_cycle(*print)?;
                return Ok(Then::Stop(Cycle::Quit(*status)));
            }
            Action::Next => {
                if input.next.is_none() {
                    self.end_cycle(true)?;
                    return Ok(Then::Stop(Cycle::Quit(0)));
                }
                self.end_cycle(true)?;
                let line = input.take()?.unwrap_or_default();
                self.load(line);
            }
            Action::Append => {
                let Some(line) = input.take()? else {
                    self.end_cycle(true)?;
                    return Ok(Then::Stop(Cycle::Quit(0)));
                };
                self.line_end = line.ends_with(b"\n");
                self.pattern.push(b'\n');
                self.pattern
                    .extend_from_slice(line.strip_suffix(b"\n").unwrap_or(&line));
            }
            Action::After(text) => self.after.push(text.clone()),
            Action::Before(text) => self.out.write_all(text)?,
            Action::Change(text) => {
                // Once for a range: at its end.
                if self.steps[at].range.inside.is_none() || self.steps[at].range.negated {
                    self.out.write_all(text)?;
                }
                self.end_cycle(false)?;
                return Ok(Then::Stop(Cycle::Done));
            }
            Action::Number => writeln!(self.out, "{}", input.number)?,
            Action::Hold => self.hold.clone_from(&self.pattern),
            Action::HoldMore => {
                self.hold.push(b'\n');
                self.hold.extend_from_slice(&self.pattern);
            }
            Action::Get => self.pattern.clone_from(&self.hold),
            Action::GetMore => {
                self.pattern.push(b'\n');
                self.pattern.extend_from_slice(&self.hold);
            }
            Action::Exchange => std::mem::swap(&mut self.pattern, &mut self.hold),
            Action::Jump(label) => return Ok(Then::Go(self.find(label)?)),
            Action::JumpIfReplaced(label) => {
                if std::mem::take(replaced) {
                    return Ok(Then::Go(self.find(label)?));
                }
            }
        }
        Ok(Then::Go(at + 1))
    }

    fn substitute(&mut self, substitution: &Substitution) -> Result<bool, Failure> {
        if let Some(expression) = &substitution.expression {
            self.last_expression = Some(expression.clone());
        }
        let Some(expression) = &self.last_expression else {
            return Err(Failure::Message("no previous regular expression".into()));
        };
        let mut out = Vec::new();
        let mut done = 0;
        let mut replaced = false;
        for (index, captures) in expression.captures_iter(&self.pattern).enumerate() {
            let Some(whole) = captures.get(0) else {
                continue;
            };
            if index + 1 < substitution.number {
                continue;
            }
            out.extend_from_slice(&self.pattern[done..whole.start()]);
            put(&substitution.replacement, &captures, &mut out);
            done = whole.end();
            replaced = true;
            if !substitution.global {
                break;
            }
        }
        if !replaced {
            return Ok(false);
        }
        out.extend_from_slice(&self.pattern[done..]);
        self.pattern = out;
        if substitution.print {
            let text = self.pattern.clone();
            self.line(&text)?;
        }
        Ok(true)
    }
}

enum Then {
    Go(usize),
    Stop(Cycle),
}

fn put(replacement: &[Piece], captures: &Captures, out: &mut Vec<u8>) {
    for piece in replacement {
        match piece {
            Piece::Text(text) => out.extend_from_slice(text),
            Piece::Group(number) => {
                if let Some(group) = captures.get(*number) {
                    out.extend_from_slice(group.as_bytes());
                }
            }
        }
    }
}

fn parsed(source: &str, extended: bool) -> Result<Vec<Step>, Failure> {
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

fn run(
    steps: Vec<Step>,
    quiet: bool,
    readers: VecDeque<Box<dyn BufRead>>,
    out: &mut dyn Write,
) -> Ended {
    let mut input = Input::new(readers)?;
    let mut machine = Machine {
        steps,
        quiet,
        out,
        pattern: Vec::new(),
        line_end: true,
        hold: Vec::new(),
        after: Vec::new(),
        last_expression: None,
    };
    while let Some(line) = input.take()? {
        machine.load(line);
        if let Cycle::Quit(status) = machine.cycle(&mut input)? {
            machine.out.flush()?;
            return Ok(status);
        }
        machine.out.flush()?;
    }
    Ok(0)
}

pub(super) fn sed(args: &[String]) -> Ended {
    let options = Options::parse(args, "nEre:f:i")?;
    let mut names = options.operands.clone();
    let mut scripts: Vec<String> = options.values('e').map(str::to_owned).collect();
    for name in options.values('f') {
        scripts.push(std::fs::read_to_string(name).map_err(|error| about(name, &error))?);
    }
    if scripts.is_empty() {
        if names.is_empty() {
            return Err(Failure::Usage("a script is expected".into()));
        }
        scripts.push(names.remove(0));
    }
    let source = scripts.join("\n");
    let extended = options.has('E') || options.has('r');
    let quiet = options.has('n');
    parsed(&source, extended)?;
    let mut status = 0;
    if options.has('i') {
        for name in &names {
            let mut text = Vec::new();
            let reader = match open(name) {
                Ok(reader) => reader,
                Err(failure) => {
                    complain("sed", &failure);
                    status = 1;
                    continue;
                }
            };
            run(
                parsed(&source, extended)?,
                quiet,
                VecDeque::from([reader]),
                &mut text,
            )?;
            replace(Path::new(name), &text).map_err(|error| about(name, &error))?;
        }
        return Ok(status);
    }
    if names.is_empty() {
        names.push("-".into());
    }
    let mut readers = VecDeque::new();
    for name in &names {
        match open(name) {
            Ok(reader) => readers.push_back(reader),
            Err(failure) => {
                complain("sed", &failure);
                status = 1;
            }
        }
    }
    let mut out = output::stdout();
    let ended = run(parsed(&source, extended)?, quiet, readers, &mut out)?;
    out.flush()?;
    Ok(if ended == 0 { status } else { ended })
}

/// The file is the old one or the new one, never half of it.
fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".sed{}", std::process::id()));
    let temporary = path.with_file_name(name);
    std::fs::write(&temporary, text)?;
    std::fs::set_permissions(&temporary, path.metadata()?.permissions())?;
    std::fs::rename(&temporary, path)
}
