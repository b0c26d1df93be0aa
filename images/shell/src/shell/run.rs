//! Running commands.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::unistd::{ForkResult, fork};

use super::ast::{Chain, Command, Item, Kind, List, Pipeline, Word};
use super::pattern;
use super::redirect::{self, Saved};
use super::state::{Flow, Run, Shell};
use super::{builtins, signals};

/// Functions in functions.
const CALLS: usize = 500;

impl Shell {
    /// Runs commands one after the other; the status of the last.
    pub fn list(&mut self, list: &List) -> Run {
        let mut status = 0;
        for Item { chain, background } in list {
            if self.no_execution {
                return Ok(0);
            }
            status = if *background {
                self.background(chain)?
            } else {
                self.chain(chain)?
            };
            self.status = status;
            signals::run_traps(self)?;
        }
        Ok(status)
    }

    fn chain(&mut self, chain: &Chain) -> Run {
        let last = chain.rest.len();
        let mut status = self.tested_if(last > 0, |shell| shell.pipeline(&chain.first))?;
        self.status = status;
        for (index, (and, pipeline)) in chain.rest.iter().enumerate() {
            if (status == 0) == *and {
                status = self.tested_if(index + 1 < last, |shell| shell.pipeline(pipeline))?;
                self.status = status;
            }
        }
        Ok(status)
    }

    fn tested_if<T>(&mut self, tested: bool, inner: impl FnOnce(&mut Self) -> T) -> T {
        self.tested += usize::from(tested);
        let result = inner(self);
        self.tested -= usize::from(tested);
        result
    }

    fn background(&mut self, chain: &Chain) -> Run {
        let pid = self.fork_child(|shell| {
            // Nobody's keyboard: neither its interrupts nor its input are for this one.
            if !shell.interactive {
                signals::ignore(libc::SIGINT);
                signals::ignore(libc::SIGQUIT);
                redirect::input_from_nowhere();
            }
            shell.chain(chain)
        })?;
        self.last_background = Some(pid);
        Ok(0)
    }

    fn pipeline(&mut self, pipeline: &Pipeline) -> Run {
        let status = match pipeline.commands.as_slice() {
            [single] => self.tested_if(pipeline.negated, |shell| shell.command(single))?,
            commands => self.connected(commands)?,
        };
        if pipeline.negated {
            return Ok(i32::from(status == 0));
        }
        // A compound command's failure came from within, where it was judged.
        let judged = match pipeline.commands.as_slice() {
            [single] => matches!(single.kind, Kind::Simple { .. } | Kind::Subshell(_)),
            _ => true,
        };
        if status != 0 && judged && self.exit_on_error && self.tested == 0 {
            return Err(Flow::Exit(status));
        }
        Ok(status)
    }

    fn connected(&mut self, commands: &[Command]) -> Run {
        let mut input = None;
        let mut pids = Vec::new();
        for (index, command) in commands.iter().enumerate() {
            let last = index + 1 == commands.len();
            let pipe = if last {
                None
            } else {
                Some(redirect::pipe().map_err(|error| self.fatal(error))?)
            };
            let pid = self.fork_child(|shell| {
                // No copies may stay open, or nobody would ever see the pipe's end.
                if let Some(fd) = &input {
                    redirect::become_fd(fd, 0);
                    redirect::close(fd);
                }
                if let Some((read, write)) = &pipe {
                    redirect::become_fd(write, 1);
                    redirect::close(write);
                    redirect::close(read);
                }
                shell.command(command)
            })?;
            pids.push(pid);
            input = pipe.map(|(read, _)| read);
        }
        drop(input);
        let mut status = 0;
        for pid in pids {
            status = signals::wait_for(self, pid)?;
        }
        Ok(status)
    }

    /// Runs `inner` in a child process.
    fn fork_child(&mut self, inner: impl FnOnce(&mut Self) -> Run) -> Run<i32> {
        // Safety: a shell has one thread, so the child may do whatever the parent may.
        match unsafe { fork() } {
            Ok(ForkResult::Parent { child }) => Ok(child.as_raw()),
            Ok(ForkResult::Child) => {
                self.is_subshell = true;
                self.interactive = false;
                self.traps.clear();
                self.ended.clear();
                signals::default_for_children();
                let result = inner(self);
                let status = self.finish(result);
                std::process::exit(status)
            }
            Err(error) => Err(self.fatal(format!("can't fork: {error}"))),
        }
    }

    /// What a whole script's end means, after the trap for it.
    pub fn finish(&mut self, result: Run) -> i32 {
        let mut status = match result {
            Ok(status) | Err(Flow::Exit(status) | Flow::Error(status) | Flow::Return(status)) => {
                status
            }
            Err(Flow::Break(_) | Flow::Continue(_)) => 0,
        };
        if let Some(action) = self.traps.remove(&0) {
            self.status = status;
            if let Err(Flow::Exit(other) | Flow::Error(other)) = self.source_text(&action) {
                status = other;
            }
        }
        status
    }

    /// The output of a command, without the line ends at its end.
    pub fn substitute(&mut self, list: &Rc<List>) -> Run<String> {
        let (read, write) = redirect::pipe().map_err(|error| self.fatal(error))?;
        let pid = self.fork_child(|shell| {
            redirect::become_fd(&write, 1);
            drop(write);
            redirect::close(&read);
            shell.list(list)
        })?;
        // Our writing end went with the closure: the child's is the only one.
        let mut output = Vec::new();
        let result = redirect::read_after_fork(read, &mut output);
        let status = signals::wait_for(self, pid)?;
        result.map_err(|error| self.fatal(error))?;
        self.substitution_status = Some(status);
        let mut text = String::from_utf8_lossy(&output).into_owned();
        text.truncate(text.trim_end_matches('\n').len());
        Ok(text)
    }

    fn command(&mut self, command: &Command) -> Run {
        if let Kind::Simple { assignments, words } = &command.kind {
            return self.simple(command, assignments, words);
        }
        let saved = match redirect::apply(self, &command.redirections)? {
            Ok(saved) => saved,
            Err(error) => {
                self.complain(error);
                return Ok(1);
            }
        };
        let result = self.compound(&command.kind);
        saved.restore();
        result
    }

    fn compound(&mut self, kind: &Kind) -> Run {
        match kind {
            Kind::Simple { .. } => Ok(0),
            Kind::Group(list) => self.list(list),
            Kind::Subshell(list) => {
                let pid = self.fork_child(|shell| shell.list(list))?;
                signals::wait_for(self, pid)
            }
            Kind::Function { name, body } => {
                self.functions.insert(name.clone(), body.clone());
                Ok(0)
            }
            Kind::If {
                branches,
                otherwise,
            } => {
                for (condition, body) in branches {
                    if self.tested_if(true, |shell| shell.list(condition))? == 0 {
                        return self.list(body);
                    }
                }
                otherwise.as_ref().map_or(Ok(0), |body| self.list(body))
            }
            Kind::Loop {
                negated,
                condition,
                body,
            } => {
                self.loops += 1;
                let result = self.repeat(*negated, condition, body);
                self.loops -= 1;
                result
            }
            Kind::For { name, words, body } => {
                let values = match words {
                    Some(words) => self.arguments(words)?,
                    None => self.parameters.clone(),
                };
                self.loops += 1;
                let result = self.each(name, values, body);
                self.loops -= 1;
                result
            }
            Kind::Case { word, arms } => {
                let text: Vec<char> = self.text_of(word)?.chars().collect();
                for (patterns, body) in arms {
                    for pattern in patterns {
                        let marks = self.marks_of(pattern)?;
                        if pattern::matches(&marks, &text) {
                            return self.list(body);
                        }
                    }
                }
                Ok(0)
            }
        }
    }

    fn repeat(&mut self, negated: bool, condition: &List, body: &List) -> Run {
        let mut status = 0;
        loop {
            let holds = match self.tested_if(true, |shell| shell.list(condition)) {
                Ok(status) => (status == 0) != negated,
                other => match turn(other)? {
                    Some(_) => return Ok(status),
                    None => continue,
                },
            };
            if !holds {
                return Ok(status);
            }
            let result = self.list(body);
            match result {
                Ok(ended) => status = ended,
                other => {
                    if let Some(ended) = turn(other)? {
                        return Ok(ended);
                    }
                }
            }
        }
    }

    fn each(&mut self, name: &str, values: Vec<String>, body: &List) -> Run {
        let mut status = 0;
        for value in values {
            self.set(name, value).map_err(|error| self.fatal(error))?;
            match self.list(body) {
                Ok(ended) => status = ended,
                other => {
                    if let Some(ended) = turn(other)? {
                        return Ok(ended);
                    }
                }
            }
        }
        Ok(status)
    }

    fn simple(&mut self, command: &Command, assignments: &[(String, Word)], words: &[Word]) -> Run {
        self.substitution_status = None;
        let arguments = self.arguments(words)?;
        let mut values = Vec::new();
        for (name, word) in assignments {
            values.push((name.clone(), self.text_of(word)?));
            if arguments.is_empty() {
                // Later ones may use earlier ones.
                let (name, value) = values.pop().unwrap_or_default();
                self.assign(&name, value)?;
            }
        }
        if self.trace {
            let shown: Vec<String> = values
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .chain(arguments.iter().cloned())
                .collect();
            crate::output::error_line(&format!("+ {}", shown.join(" ")));
        }
        let Some(name) = arguments.first().cloned() else {
            return match redirect::apply(self, &command.redirections)? {
                Ok(saved) => {
                    saved.restore();
                    Ok(self.substitution_status.unwrap_or(0))
                }
                Err(error) => {
                    self.complain(error);
                    Ok(1)
                }
            };
        };
        if let Some(builtin) = builtins::special(&name) {
            for (name, value) in values {
                self.assign(&name, value)?;
            }
            return match redirect::apply(self, &command.redirections)? {
                Ok(saved) => {
                    let result = builtin(self, &arguments);
                    // `exec` without a program: the redirections are what it is for.
                    if name == "exec" && arguments.len() == 1 {
                        saved.keep()
                    } else {
                        saved.restore()
                    }
                    result
                }
                Err(error) => Err(self.fatal(error)),
            };
        }
        if let Some(body) = self.functions.get(&name).cloned() {
            return self.within(command, values, |shell| shell.call(&body, arguments));
        }
        if let Some(builtin) = builtins::regular(&name) {
            return self.within(command, values, |shell| builtin(shell, &arguments));
        }
        let pid = self.fork_child(|shell| {
            for (name, value) in values {
                shell.assign(&name, value)?;
                shell.variables.entry(name).or_default().exported = true;
            }
            match redirect::apply(shell, &command.redirections)? {
                Ok(saved) => saved.keep(),
                Err(error) => {
                    shell.complain(error);
                    return Ok(1);
                }
            }
            Ok(shell.execute(&arguments))
        })?;
        signals::wait_for(self, pid)
    }

    fn assign(&mut self, name: &str, value: String) -> Run<()> {
        self.set(name, value).map_err(|error| self.fatal(error))
    }

    /// With redirections and variables that hold for one command.
    fn within(
        &mut self,
        command: &Command,
        values: Vec<(String, String)>,
        inner: impl FnOnce(&mut Self) -> Run,
    ) -> Run {
        let saved: Saved = match redirect::apply(self, &command.redirections)? {
            Ok(saved) => saved,
            Err(error) => {
                self.complain(error);
                return Ok(1);
            }
        };
        let mut before = Vec::new();
        for (name, value) in values {
            before.push((name.clone(), self.variables.get(&name).cloned()));
            self.assign(&name, value)?;
            self.variables.entry(name).or_default().exported = true;
        }
        let result = inner(self);
        for (name, variable) in before.into_iter().rev() {
            match variable {
                Some(variable) => self.variables.insert(name, variable),
                None => self.variables.remove(&name),
            };
        }
        saved.restore();
        result
    }

    fn call(&mut self, body: &Rc<Command>, arguments: Vec<String>) -> Run {
        if self.calls >= CALLS {
            return Err(self.fatal(format!("{}: functions are nested too deeply", arguments[0])));
        }
        let parameters = std::mem::replace(&mut self.parameters, arguments[1..].to_vec());
        let loops = std::mem::take(&mut self.loops);
        self.calls += 1;
        self.hidden.push(Vec::new());
        let result = self.command(body);
        for (name, variable) in self.hidden.pop().unwrap_or_default().into_iter().rev() {
            match variable {
                Some(variable) => self.variables.insert(name, variable),
                None => self.variables.remove(&name),
            };
        }
        self.calls -= 1;
        self.loops = loops;
        self.parameters = parameters;
        match result {
            Err(Flow::Return(status)) => Ok(status),
            other => other,
        }
    }

    /// Becomes another program; returns only when it cannot, with the status that says so.
    pub fn execute(&mut self, arguments: &[String]) -> i32 {
        let name = &arguments[0];
        let Some(path) = self.find_program(name) else {
            self.complain(format_args!("{name}: not found"));
            return 127;
        };
        let c = |text: &str| CString::new(text).ok();
        let argv: Vec<CString> = arguments.iter().filter_map(|text| c(text)).collect();
        let environment: Vec<CString> = self
            .environment()
            .iter()
            .filter_map(|text| c(text))
            .collect();
        let Some(program) = c(&path.to_string_lossy()) else {
            return 127;
        };
        signals::default_for_children();
        let Err(error) = nix::unistd::execve(&program, &argv, &environment);
        if error == nix::Error::ENOEXEC {
            return self.run_script(&path, arguments);
        }
        let text = if path.is_dir() {
            "Is a directory"
        } else {
            error.desc()
        };
        self.complain(format_args!("{name}: {text}"));
        if error == nix::Error::ENOENT {
            127
        } else {
            126
        }
    }

    /// A script without `#!` is for this shell.
    fn run_script(&mut self, path: &Path, arguments: &[String]) -> i32 {
        match std::fs::read(path) {
            Ok(text) => {
                self.name.clone_from(&arguments[0]);
                self.parameters = arguments[1..].to_vec();
                let result = self.source_text(&String::from_utf8_lossy(&text));
                self.finish(result)
            }
            Err(error) => {
                self.complain(format_args!("{}: {error}", path.display()));
                126
            }
        }
    }

    /// Where a program is.
    pub fn find_program(&self, name: &str) -> Option<PathBuf> {
        if name.contains('/') {
            let path = PathBuf::from(name);
            return path.exists().then_some(path);
        }
        let directories = self.get("PATH").unwrap_or_default();
        crate::process::in_path(name, directories)
    }
}

/// What a loop does with a way out of its body: ends with a status, goes on, or passes on
/// what is for an outer one.
fn turn(result: Run) -> Run<Option<i32>> {
    match result {
        Ok(_) | Err(Flow::Continue(0 | 1)) => Ok(None),
        Err(Flow::Break(0 | 1)) => Ok(Some(0)),
        Err(Flow::Break(levels)) => Err(Flow::Break(levels - 1)),
        Err(Flow::Continue(levels)) => Err(Flow::Continue(levels - 1)),
        Err(other) => Err(other),
    }
}
