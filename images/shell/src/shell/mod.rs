//! `sh`: the language of POSIX's shell, as far as scripts in containers and courses use it.
//!
//! There is no job control, no history and no editing of the typed line beyond what the
//! terminal does, no aliases and no `getopts`.

mod arithmetic;
#[allow(missing_docs)]
mod ast;
mod builtins;
mod expand;
mod parse;
pub(crate) mod pattern;
mod read;
mod redirect;
mod run;
mod signals;
#[allow(missing_docs)]
mod state;
mod word;

use std::io::Read;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;

use parse::{Error, Parser};
use state::{Flow, Run, Shell};

use crate::output;

const USAGE: &str = "Usage: sh [-efnux] [-o option]... [-c COMMANDS [NAME [ARGS]...] | -s [ARGS]... | FILE [ARGS]...]";

/// Runs the shell; `args` without its name. The exit status.
pub(crate) fn main(args: &[String]) -> i32 {
    // It is called in its messages what it was called.
    let name = std::env::args()
        .next()
        .filter(|name| name.ends_with("/sh"))
        .unwrap_or_else(|| "sh".into());
    let mut shell = Shell::new(name, Vec::new());
    let mut rest = args;
    let (mut commands, mut from_input, mut interactive) = (false, false, false);
    let mut options = Vec::new();
    while let Some((arg, after)) = rest.split_first() {
        if arg == "--help" {
            output::error_line(USAGE);
            return 0;
        }
        if arg == "-" || arg == "--" {
            rest = after;
            break;
        }
        if !arg.starts_with(['-', '+']) || arg.len() < 2 {
            break;
        }
        rest = after;
        let mut kept = String::from(&arg[..1]);
        for letter in arg[1..].chars() {
            match letter {
                'c' => commands = true,
                's' => from_input = true,
                'i' => interactive = true,
                // A login shell would read profiles; there are none.
                'l' => {}
                other => kept.push(other),
            }
        }
        if kept.len() > 1 {
            let named = kept.ends_with('o');
            options.push(kept);
            if named && let Some((name, after)) = rest.split_first() {
                options.push(name.clone());
                rest = after;
            }
        }
    }
    if let Err(error) = shell.options(&options) {
        output::error_line(&format!("sh: {error}\n{USAGE}"));
        return 2;
    }
    if commands {
        let Some((text, after)) = rest.split_first() else {
            output::error_line("sh: -c requires an argument");
            return 2;
        };
        if let Some((name, parameters)) = after.split_first() {
            shell.name.clone_from(name);
            shell.parameters = parameters.to_vec();
        }
        signals::install(false);
        let result = shell.source_text(text);
        return shell.finish(result);
    }
    if !from_input && let Some((file, parameters)) = rest.split_first() {
        let text = match std::fs::read(file) {
            Ok(text) => text,
            Err(error) => {
                output::error_line(&format!(
                    "sh: can't open '{file}': {}",
                    output::reason(&error)
                ));
                return 2;
            }
        };
        shell.name.clone_from(file);
        shell.parameters = parameters.to_vec();
        signals::install(false);
        let result = shell.source_text(&String::from_utf8_lossy(&text));
        return shell.finish(result);
    }
    shell.parameters = rest.to_vec();
    // Safety: asks about two descriptors.
    let terminal = unsafe { libc::isatty(0) == 1 && libc::isatty(2) == 1 };
    shell.interactive = interactive || terminal;
    signals::install(shell.interactive);
    let result = shell.read_and_run();
    shell.finish(result)
}

impl Shell {
    /// Runs a script that is there as a whole. What is wrong in its last line does not keep
    /// the first from running.
    pub(crate) fn source_text(&mut self, text: &str) -> Run {
        let mut parser = Parser::new(text);
        let mut status = 0;
        loop {
            match parser.next() {
                Ok(Some(list)) => status = self.list(&list)?,
                Ok(None) => return Ok(status),
                Err(Error::Incomplete) => {
                    return Err(self.fatal("syntax error: unexpected end of file"));
                }
                Err(Error::Syntax(what)) => return Err(self.fatal(format!("syntax error: {what}"))),
            }
        }
    }

    /// Reads standard input line by line and runs what is complete.
    fn read_and_run(&mut self) -> Run {
        let mut text = String::new();
        loop {
            if self.interactive {
                signals::collect(self);
                let prompt = if text.is_empty() {
                    self.prompt()
                } else {
                    "> ".to_owned()
                };
                // Without a terminal to show it on, the prompt matters to nobody.
                let _ = output::write_all(2, prompt.as_bytes());
            }
            let line = match input_line() {
                Ok(line) => line,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                    // Ctrl-C: the line is thrown away.
                    signals::run_traps(self)?;
                    if self.interactive {
                        let _ = output::write_all(2, b"\n");
                        text.clear();
                    }
                    continue;
                }
                Err(error) => return Err(self.fatal(output::reason(&error))),
            };
            let Some(line) = line else {
                if !text.is_empty() {
                    return Err(self.fatal("syntax error: unexpected end of file"));
                }
                if self.interactive {
                    let _ = output::write_all(2, b"\n");
                }
                return Ok(self.status);
            };
            text.push_str(&line);
            let parsed = lists(&text);
            let lists = match parsed {
                Err(Error::Incomplete) => continue,
                Err(Error::Syntax(what)) => {
                    text.clear();
                    let flow = self.fatal(format!("syntax error: {what}"));
                    self.status = 2;
                    if self.interactive {
                        continue;
                    }
                    return Err(flow);
                }
                Ok(lists) => lists,
            };
            text.clear();
            for list in &lists {
                match self.list(list) {
                    Ok(status) => self.status = status,
                    Err(Flow::Error(status)) if self.interactive => self.status = status,
                    Err(flow @ (Flow::Exit(_) | Flow::Error(_))) => return Err(flow),
                    Err(_) => {}
                }
            }
        }
    }

    fn prompt(&self) -> String {
        let directory = self.get("PWD").unwrap_or("?");
        let directory = match self.get("HOME") {
            Some(home) if home != "/" && directory == home => "~",
            _ => directory,
        };
        // Safety: asks a number.
        let sign = if unsafe { libc::geteuid() } == 0 {
            '#'
        } else {
            '$'
        };
        format!("{directory} {sign} ")
    }

    /// Runs a program and waits for it, whatever functions are called so.
    pub(crate) fn run_program(&mut self, args: &[String]) -> Run {
        // Safety: a shell has one thread.
        match unsafe { nix::unistd::fork() } {
            Ok(nix::unistd::ForkResult::Parent { child }) => {
                signals::wait_for(self, child.as_raw())
            }
            Ok(nix::unistd::ForkResult::Child) => std::process::exit(self.execute(args)),
            Err(error) => Err(self.fatal(format!("can't fork: {error}"))),
        }
    }
}

fn lists(text: &str) -> Result<Vec<ast::List>, Error> {
    let mut parser = Parser::new(text);
    let mut lists = Vec::new();
    while let Some(list) = parser.next()? {
        lists.push(list);
    }
    Ok(lists)
}

/// One line, byte by byte: what follows it may be the input of what it runs.
fn input_line() -> std::io::Result<Option<String>> {
    // Safety: descriptor 0 stays open; the file is never dropped.
    let mut input = ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(0) });
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        if input.read(&mut byte)? == 0 {
            if line.is_empty() {
                return Ok(None);
            }
            line.push(b'\n');
        } else {
            line.push(byte[0]);
        }
        if line.last() == Some(&b'\n') {
            return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
        }
    }
}
