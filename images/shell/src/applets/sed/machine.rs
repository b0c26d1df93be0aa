//! Carrying the steps out, line by line.

use std::collections::VecDeque;
use std::io::{BufRead, Write};

use regex::bytes::{Captures, Regex};

use super::script::{Action, Address, Piece, Range, Step, Substitution};
use crate::applets::read_line;
use crate::options::{Ended, Failure};

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

pub(super) fn run(
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
