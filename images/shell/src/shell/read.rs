//! `read`.

use std::io::Read;

use super::parse::is_name;
use super::state::{Run, Shell};
use crate::output;

/// Reads byte by byte: what follows the line is for others.
fn read_line(raw: bool) -> std::io::Result<Option<Vec<(u8, bool)>>> {
    let mut input = std::mem::ManuallyDrop::new(
        // Safety: descriptor 0 stays open; the file is never dropped.
        unsafe { <std::fs::File as std::os::fd::FromRawFd>::from_raw_fd(0) },
    );
    let mut line = Vec::new();
    let mut byte = [0];
    let mut escaped = false;
    loop {
        if input.read(&mut byte)? == 0 {
            return Ok(
                if line.is_empty() { None } else { Some(line) }.map(|mut line| {
                    line.push((0, false));
                    line
                }),
            );
        }
        match byte[0] {
            b'\\' if !raw && !escaped => {
                escaped = true;
                continue;
            }
            b'\n' if escaped => {}
            b'\n' => return Ok(Some(line)),
            other => line.push((other, escaped)),
        }
        escaped = false;
    }
}

pub fn read(shell: &mut Shell, args: &[String]) -> Run {
    let mut raw = false;
    let mut names: Vec<String> = Vec::new();
    let mut words = args[1..].iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-r" => raw = true,
            "-p" => {
                let prompt = words.next().cloned().unwrap_or_default();
                // The prompt is for people; that it cannot be shown changes nothing.
                let _ = output::write_all(2, prompt.as_bytes());
            }
            option if option.starts_with('-') => {
                return Err(shell.fatal(format!("read: illegal option {option}")));
            }
            name => names.push(name.to_owned()),
        }
    }
    if let Some(bad) = names.iter().find(|name| !is_name(name)) {
        return Err(shell.fatal(format!("read: {bad}: bad variable name")));
    }
    if names.is_empty() {
        names.push("REPLY".into());
    }
    let line =
        read_line(raw).map_err(|error| shell.fatal(format!("read: {}", output::reason(&error))))?;
    let ended = line.is_none()
        || line
            .as_ref()
            .is_some_and(|line| line.last() == Some(&(0, false)));
    let mut line = line.unwrap_or_default();
    if ended {
        line.pop();
    }
    let separators = shell.get("IFS").unwrap_or(" \t\n").to_owned();
    let values = split_line(&line, separators.as_bytes(), names.len());
    for (index, name) in names.iter().enumerate() {
        let value = values
            .get(index)
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        shell
            .set(name, value.unwrap_or_default())
            .map_err(|error| shell.fatal(error))?;
    }
    Ok(i32::from(ended))
}

/// At most `count` fields; the last takes what is left.
fn split_line(line: &[(u8, bool)], separators: &[u8], count: usize) -> Vec<Vec<u8>> {
    let separates = |(byte, escaped): (u8, bool)| !escaped && separators.contains(&byte);
    let blank = |mark: (u8, bool)| separates(mark) && mark.0.is_ascii_whitespace();
    let mut rest = line;
    let mut fields = Vec::new();
    loop {
        while rest.first().is_some_and(|mark| blank(*mark)) {
            rest = &rest[1..];
        }
        if rest.is_empty() {
            return fields;
        }
        if fields.len() + 1 == count {
            while rest.last().is_some_and(|mark| blank(*mark)) {
                rest = &rest[..rest.len() - 1];
            }
            fields.push(rest.iter().map(|(byte, _)| *byte).collect());
            return fields;
        }
        let end = rest
            .iter()
            .position(|mark| separates(*mark))
            .unwrap_or(rest.len());
        fields.push(rest[..end].iter().map(|(byte, _)| *byte).collect());
        rest = &rest[end..];
        while rest.first().is_some_and(|mark| blank(*mark)) {
            rest = &rest[1..];
        }
        if rest.first().is_some_and(|mark| separates(*mark)) {
            rest = &rest[1..];
        }
    }
}
