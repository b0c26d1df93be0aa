//! `grep`.

use std::collections::VecDeque;
use std::io::{BufRead, Write};
use std::path::Path;

use regex::bytes::Regex;

use super::regular_expression::{compile, literal};
use super::{complain, open, read_line, trimmed};
use crate::options::{Ended, Failure, Options, about};
use crate::output::{self, Out};

struct Search {
    expression: Regex,
    invert: bool,
    count: bool,
    names_only: bool,
    quiet: bool,
    numbers: bool,
    parts: bool,
    titled: bool,
    before: usize,
    after: usize,
    most: u64,
}

fn expression(options: &Options, patterns: &[String]) -> Result<Regex, Failure> {
    let extended = options.has('E');
    let mut alternatives = Vec::new();
    for pattern in patterns.iter().flat_map(|pattern| pattern.split('\n')) {
        let text = if options.has('F') {
            literal(pattern)
        } else {
            super::regular_expression::translate(pattern, extended)
                .map_err(|error| Failure::Message(format!("bad regex '{pattern}': {error}")))?
        };
        alternatives.push(format!("(?:{text})"));
    }
    let mut text = alternatives.join("|");
    if options.has('x') {
        text = format!("^(?:{text})$");
    } else if options.has('w') {
        text = format!(r"(?:\b{{start-half}})(?:{text})(?:\b{{end-half}})");
    }
    regex::bytes::RegexBuilder::new(&text)
        .case_insensitive(options.has('i'))
        .build()
        .map_err(|_| Failure::Message(format!("bad regex '{}'", patterns.join("', '"))))
}

pub(super) fn grep(args: &[String]) -> Ended {
    let options = Options::parse(args, "EFGHchilnoqrRsvwxe:A:B:C:m:")?;
    let mut patterns: Vec<String> = options.values('e').map(str::to_owned).collect();
    let mut names = options.operands.clone();
    if patterns.is_empty() {
        if names.is_empty() {
            return Err(Failure::Usage("a pattern is expected".into()));
        }
        patterns.push(names.remove(0));
    }
    // Told apart early: the message names the pattern as it was written.
    if !options.has('F') {
        for pattern in &patterns {
            compile(pattern, options.has('E'), false).map_err(Failure::Message)?;
        }
    }
    let recursive = options.has('r') || options.has('R');
    if names.is_empty() {
        names.push(if recursive { "." } else { "-" }.to_owned());
    }
    let around: usize = options.number('C')?.unwrap_or(0);
    let search = Search {
        expression: expression(&options, &patterns)?,
        invert: options.has('v'),
        count: options.has('c'),
        names_only: options.has('l'),
        quiet: options.has('q'),
        numbers: options.has('n'),
        parts: options.has('o'),
        titled: options.has('H') || (!options.has('h') && (names.len() > 1 || recursive)),
        before: options.number('B')?.unwrap_or(around),
        after: options.number('A')?.unwrap_or(around),
        most: options.number('m')?.unwrap_or(u64::MAX),
    };
    let mut out = output::stdout();
    let (mut found, mut trouble) = (false, false);
    for name in &names {
        let mut files = Vec::new();
        if recursive && name != "-" {
            collect(Path::new(name), &mut files);
        } else {
            files.push(name.clone());
        }
        for file in files {
            match open(&file).and_then(|reader| search.file(&file, reader, &mut out)) {
                Ok(true) if search.quiet => return Ok(0),
                Ok(matched) => found |= matched,
                Err(failure) => {
                    trouble = true;
                    if !options.has('s') {
                        complain("grep", &failure);
                    }
                }
            }
        }
    }
    out.flush()?;
    Ok(if trouble { 2 } else { i32::from(!found) })
}

fn collect(path: &Path, files: &mut Vec<String>) {
    if !path.is_dir() {
        files.push(path.to_string_lossy().into_owned());
        return;
    }
    match std::fs::read_dir(path) {
        Ok(entries) => {
            let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
            paths.sort();
            for path in paths {
                // Links lead elsewhere, or in circles.
                if !path.is_symlink() {
                    collect(&path, files);
                }
            }
        }
        Err(error) => complain("grep", &about(&path.to_string_lossy(), &error)),
    }
}

impl Search {
    fn file(
        &self,
        name: &str,
        mut reader: Box<dyn BufRead>,
        out: &mut Out,
    ) -> Result<bool, Failure> {
        let shown = if name == "-" {
            "(standard input)"
        } else {
            name
        };
        let mut count = 0;
        let mut number = 0_u64;
        let mut earlier: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
        let mut following = 0;
        let mut last_printed = 0;
        while count < self.most || following > 0 {
            let Some(line) = read_line(&mut *reader)? else {
                break;
            };
            let line = trimmed(&line);
            number += 1;
            let matched = count < self.most && self.expression.is_match(line) != self.invert;
            if !matched {
                if following > 0 {
                    following -= 1;
                    self.print(out, shown, number, line, '-')?;
                    last_printed = number;
                } else if self.before > 0 {
                    earlier.push_back((number, line.to_vec()));
                    if earlier.len() > self.before {
                        earlier.pop_front();
                    }
                }
                continue;
            }
            count += 1;
            if self.quiet {
                return Ok(true);
            }
            if self.names_only {
                writeln!(out, "{shown}")?;
                return Ok(true);
            }
            if self.count {
                continue;
            }
            if self.parts {
                if !self.invert {
                    for part in self
                        .expression
                        .find_iter(line)
                        .filter(|part| !part.is_empty())
                    {
                        self.print(out, shown, number, part.as_bytes(), ':')?;
                    }
                }
                continue;
            }
            let first = earlier.front().map_or(number, |(number, _)| *number);
            if (self.before > 0 || self.after > 0) && last_printed > 0 && first > last_printed + 1 {
                writeln!(out, "--")?;
            }
            for (number, line) in earlier.drain(..) {
                self.print(out, shown, number, &line, '-')?;
            }
            self.print(out, shown, number, line, ':')?;
            last_printed = number;
            following = self.after;
        }
        if self.count {
            let title = if self.titled {
                format!("{shown}:")
            } else {
                String::new()
            };
            writeln!(out, "{title}{count}")?;
        }
        Ok(count > 0)
    }

    fn print(
        &self,
        out: &mut Out,
        name: &str,
        number: u64,
        text: &[u8],
        mark: char,
    ) -> Result<(), Failure> {
        if self.titled {
            write!(out, "{name}{mark}")?;
        }
        if self.numbers {
            write!(out, "{number}{mark}")?;
        }
        out.write_all(text)?;
        out.write_all(b"\n")?;
        // Someone may be waiting for it, as in `tail -f | grep`.
        Ok(out.flush()?)
    }
}
