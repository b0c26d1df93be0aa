//! `sort`.

use std::cmp::Ordering;
use std::io::Write;

use super::{each_input, read_line, trimmed};
use crate::options::{Ended, Failure, Options, about};
use crate::output;

#[derive(Clone, Copy, Default)]
struct How {
    numeric: bool,
    reverse: bool,
    fold: bool,
    blanks: bool,
}

impl How {
    fn add(&mut self, letter: char) -> bool {
        match letter {
            'n' => self.numeric = true,
            'r' => self.reverse = true,
            'f' => self.fold = true,
            'b' => self.blanks = true,
            _ => return false,
        }
        true
    }

    fn any(self) -> bool {
        self.numeric || self.reverse || self.fold || self.blanks
    }
}

/// A part of a line: fields and characters, counted from one; the last character 0 means
/// the end of the field.
struct Key {
    first: (usize, usize),
    last: Option<(usize, usize)>,
    how: How,
}

fn key(text: &str, global: How) -> Result<Key, Failure> {
    let invalid = || Failure::Usage(format!("invalid key '{text}'"));
    let mut how = How::default();
    let mut place = |text: &str, character: usize| -> Result<(usize, usize), Failure> {
        let end = text
            .find(|c: char| c.is_ascii_alphabetic())
            .unwrap_or(text.len());
        if !text[end..].chars().all(|letter| how.add(letter)) {
            return Err(invalid());
        }
        let number = |text: &str| text.parse::<usize>().map_err(|_| invalid());
        let (field, character) = match text[..end].split_once('.') {
            Some((field, character)) => (number(field)?, number(character)?),
            None => (number(&text[..end])?, character),
        };
        if field == 0 {
            Err(invalid())
        } else {
            Ok((field, character))
        }
    };
    let (first, last) = match text.split_once(',') {
        Some((first, last)) => (place(first, 1)?, Some(place(last, 0)?)),
        None => (place(text, 1)?, None),
    };
    if first.1 == 0 {
        return Err(invalid());
    }
    if !how.any() {
        how = global;
    }
    Ok(Key { first, last, how })
}

/// Where a field begins and ends.
fn field(line: &[u8], number: usize, separator: Option<u8>) -> (usize, usize) {
    let mut start = 0;
    for current in 1.. {
        let end = match separator {
            Some(byte) => line[start..]
                .iter()
                .position(|other| *other == byte)
                .map(|at| start + at),
            // Without one, a field begins with the blanks before it.
            None => {
                let text = line[start..]
                    .iter()
                    .position(|byte| !byte.is_ascii_whitespace())
                    .map(|at| start + at);
                text.and_then(|text| {
                    line[text..]
                        .iter()
                        .position(u8::is_ascii_whitespace)
                        .map(|at| text + at)
                })
            }
        };
        let Some(end) = end else {
            return if current == number {
                (start, line.len())
            } else {
                (line.len(), line.len())
            };
        };
        if current == number {
            return (start, end);
        }
        start = end + usize::from(separator.is_some());
    }
    (line.len(), line.len())
}

fn part<'a>(line: &'a [u8], key: &Key, separator: Option<u8>) -> &'a [u8] {
    let skip = |start: usize, end: usize| {
        let blanks = line[start..end]
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace())
            .count();
        if key.how.blanks {
            start + blanks
        } else {
            start
        }
    };
    let (start, end) = field(line, key.first.0, separator);
    let start = (skip(start, end) + key.first.1 - 1).min(line.len());
    let end = match key.last {
        None => line.len(),
        Some((number, 0)) => field(line, number, separator).1,
        Some((number, character)) => {
            let (start, end) = field(line, number, separator);
            (skip(start, end) + character).min(end)
        }
    };
    &line[start..end.max(start)]
}

/// The number at the beginning: blanks, a sign, digits, a point, digits.
fn number(text: &[u8]) -> f64 {
    let text = String::from_utf8_lossy(text);
    let text = text.trim_start();
    let sign = usize::from(text.starts_with('-'));
    let mut point = false;
    let length = text[sign..]
        .bytes()
        .take_while(|byte| {
            byte.is_ascii_digit() || (*byte == b'.' && !std::mem::replace(&mut point, true))
        })
        .count();
    text[..sign + length].parse().unwrap_or(0.0)
}

fn compare(a: &[u8], b: &[u8], how: How) -> Ordering {
    let order = if how.numeric {
        number(a).total_cmp(&number(b))
    } else if how.fold {
        a.to_ascii_uppercase().cmp(&b.to_ascii_uppercase())
    } else {
        a.cmp(b)
    };
    if how.reverse { order.reverse() } else { order }
}

pub(super) fn sort(args: &[String]) -> Ended {
    let options = Options::parse(args, "bfnruk:t:o:")?;
    let mut global = How::default();
    for letter in "bfnr".chars().filter(|letter| options.has(*letter)) {
        global.add(letter);
    }
    let separator = match options.value('t').map(str::as_bytes) {
        None => None,
        Some([single]) => Some(*single),
        Some(b"\\t") => Some(b'\t'),
        Some(_) => return Err(Failure::Usage("the separator must be one character".into())),
    };
    let keys = options
        .values('k')
        .map(|text| key(text, global))
        .collect::<Result<Vec<_>, _>>()?;
    let mut lines = Vec::new();
    let status = each_input("sort", &options.operands, |_, mut reader| {
        while let Some(line) = read_line(&mut *reader)? {
            lines.push(trimmed(&line).to_vec());
        }
        Ok(())
    })?;
    if status != 0 {
        return Ok(2);
    }
    let by_keys = |a: &[u8], b: &[u8]| {
        if keys.is_empty() {
            return compare(a, b, global);
        }
        keys.iter()
            .map(|key| compare(part(a, key, separator), part(b, key, separator), key.how))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    };
    // Equal ones are put in order by the whole line.
    let last = |a: &[u8], b: &[u8]| if global.reverse { b.cmp(a) } else { a.cmp(b) };
    if options.has('u') {
        lines.sort_by(|a, b| by_keys(a, b));
        lines.dedup_by(|a, b| by_keys(a, b).is_eq());
    } else {
        lines.sort_by(|a, b| by_keys(a, b).then_with(|| last(a, b)));
    }
    let mut out: Box<dyn Write> = match options.value('o') {
        Some(name) => Box::new(std::fs::File::create(name).map_err(|error| about(name, &error))?),
        None => Box::new(output::stdout()),
    };
    for mut line in lines {
        line.push(b'\n');
        out.write_all(&line)?;
    }
    out.flush()?;
    Ok(0)
}
