//! `awk`, as far as scripts use it to pick columns: `[/TEXT/] { print EXPRESSION, ... }` with `$N`, `$NF`, `NF`, `NR` and texts.

use std::io::Read as _;

use super::each_input;
use crate::options::{Ended, Failure, Options};
use crate::output;

#[derive(Debug, PartialEq)]
enum Part {
    Field(usize),
    LastField,
    Fields,
    Record,
    Text(String),
}

#[derive(Debug, Default, PartialEq)]
struct Program {
    /// Only lines that contain this.
    containing: String,
    /// What is printed, separated by spaces; each of parts side by side. Nothing: the whole line.
    columns: Vec<Vec<Part>>,
}

fn refuse(program: &str) -> Failure {
    Failure::Message(format!(
        "'{program}' is more than this awk can: it prints fields, as in '/TEXT/ {{ print $1, $NF }}'"
    ))
}

fn parse(program: &str) -> Result<Program, Failure> {
    let refuse = || refuse(program);
    let mut out = Program::default();
    let mut rest = program.trim();
    if let Some(after) = rest.strip_prefix('/') {
        let (text, after) = after.split_once('/').ok_or_else(refuse)?;
        if text.contains(|c: char| "\\[](){}*+?|^$.".contains(c)) {
            return Err(refuse());
        }
        (out.containing, rest) = (text.to_owned(), after.trim());
    }
    if rest.is_empty() && !out.containing.is_empty() {
        return Ok(out);
    }
    let action = rest
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .ok_or_else(refuse)?
        .trim()
        .trim_end_matches(';');
    let list = action.trim().strip_prefix("print").ok_or_else(refuse)?;
    let mut column = Vec::new();
    let mut chars = list.trim().chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' => {}
            ',' => out.columns.push(std::mem::take(&mut column)),
            '"' => {
                let text: String = chars.by_ref().take_while(|c| *c != '"').collect();
                column.push(Part::Text(text));
            }
            '$' | 'N' => {
                let mut word = String::new();
                while let Some(c) = chars.next_if(char::is_ascii_alphanumeric) {
                    word.push(c);
                }
                column.push(match (c, word.as_str()) {
                    ('$', "NF") => Part::LastField,
                    ('N', "F") => Part::Fields,
                    ('N', "R") => Part::Record,
                    ('$', number) => Part::Field(number.parse().map_err(|_| refuse())?),
                    _ => return Err(refuse()),
                });
            }
            _ => return Err(refuse()),
        }
    }
    if !column.is_empty() {
        out.columns.push(column);
    }
    Ok(out)
}

impl Program {
    fn line(&self, line: &str, number: usize, separator: Option<&str>) -> Option<String> {
        if !line.contains(&self.containing) {
            return None;
        }
        let fields: Vec<&str> = match separator {
            Some(separator) => line.split(separator).collect(),
            None => line.split_whitespace().collect(),
        };
        if self.columns.is_empty() {
            return Some(format!("{line}\n"));
        }
        let part = |part: &Part| match part {
            Part::Field(0) => line.to_owned(),
            Part::Field(n) => fields.get(n - 1).copied().unwrap_or_default().to_owned(),
            Part::LastField => fields.last().copied().unwrap_or_default().to_owned(),
            Part::Fields => fields.len().to_string(),
            Part::Record => number.to_string(),
            Part::Text(text) => text.clone(),
        };
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|parts| parts.iter().map(part).collect())
            .collect();
        Some(format!("{}\n", columns.join(" ")))
    }
}

pub(super) fn awk(args: &[String]) -> Ended {
    let options = Options::parse(args, "+F:")?;
    let Some((program, files)) = options.operands.split_first() else {
        return Err(Failure::Usage("a program is expected".into()));
    };
    let program = parse(program)?;
    let separator = options.value('F').filter(|s| *s != " ");
    let mut number = 0;
    each_input("awk", files, |_, mut reader| {
        let mut text = String::new();
        reader.read_to_string(&mut text)?;
        for line in text.lines() {
            number += 1;
            if let Some(out) = program.line(line, number, separator) {
                output::write_all(1, out.as_bytes())?;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(program: &str, line: &str) -> Option<String> {
        parse(program).unwrap().line(line, 7, None)
    }

    #[test]
    fn columns_are_picked() {
        assert_eq!(run("{print $1}", " 3 /f").as_deref(), Some("3\n"));
        assert_eq!(
            run("/b/ { print $2, $NF \"!\" NF, NR; }", "a b c").as_deref(),
            Some("b c!3 7\n")
        );
        assert_eq!(run("/x/ {print}", "a b c"), None);
        assert_eq!(run("{print}", "a b").as_deref(), Some("a b\n"));
    }

    #[test]
    fn programs_it_cannot_run_are_refused() {
        for program in [
            "BEGIN { x = 1 }",
            "{ x += $1 } END { print x }",
            "/a.b/",
            "",
        ] {
            assert!(parse(program).is_err(), "{program}");
        }
    }
}
