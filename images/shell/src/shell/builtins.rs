//! Commands that are the shell itself.

use super::parse::is_name;
use super::signals;
use super::state::{Flow, Run, Shell, Variable};
use crate::output;
use crate::{printf, test_expression};

type Builtin = fn(&mut Shell, &[String]) -> Run;

/// Those whose errors end a script, and whose assignments stay.
pub fn special(name: &str) -> Option<Builtin> {
    Some(match name {
        ":" => |_, _| Ok(0),
        "." | "source" => source,
        "break" => break_loop,
        "continue" => continue_loop,
        "eval" => eval,
        "exec" => exec,
        "exit" => exit,
        "export" => export,
        "readonly" => readonly,
        "return" => return_from,
        "set" => set,
        "shift" => shift,
        "trap" => trap,
        "unset" => unset,
        _ => return None,
    })
}

/// The others.
pub fn regular(name: &str) -> Option<Builtin> {
    Some(match name {
        "true" => |_, _| Ok(0),
        "false" => |_, _| Ok(1),
        "cd" => cd,
        "command" => command,
        "echo" => |shell, args| write(shell, "echo", &crate::applets::echo::text(&args[1..])),
        "kill" => |_, args| Ok(crate::process::kill(&args[1..])),
        "local" => local,
        "printf" => print_format,
        "pwd" => pwd,
        "read" => super::read::read,
        "test" | "[" | "[[" => test,
        "type" => type_of,
        "umask" => umask,
        "wait" => wait,
        _ => return None,
    })
}

fn write(shell: &Shell, name: &str, bytes: &[u8]) -> Run {
    Ok(match output::write_all(1, bytes) {
        Ok(()) => 0,
        Err(error) => {
            shell.complain(format_args!(
                "{name}: write error: {}",
                output::reason(&error)
            ));
            1
        }
    })
}

fn print_format(shell: &mut Shell, args: &[String]) -> Run {
    let (bytes, errors) = match printf::format(&args[1..]) {
        Ok(done) => done,
        Err(error) => {
            shell.complain(format_args!("printf: {error}"));
            return Ok(2);
        }
    };
    let status = write(shell, "printf", &bytes)?;
    for error in &errors {
        shell.complain(format_args!("printf: {error}"));
    }
    Ok(if errors.is_empty() { status } else { 1 })
}

fn test(shell: &mut Shell, args: &[String]) -> Run {
    Ok(match test_expression::main(&args[0], &args[1..]) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            shell.complain(error);
            2
        }
    })
}

fn number(shell: &Shell, args: &[String], what: &str) -> Run<Option<i32>> {
    let Some(text) = args.get(1) else {
        return Ok(None);
    };
    match text.parse::<i32>() {
        Ok(number) if number >= 0 => Ok(Some(number)),
        _ => Err(shell.fatal(format!("{what}: Illegal number: {text}"))),
    }
}

fn exit(shell: &mut Shell, args: &[String]) -> Run {
    let status = number(shell, args, "exit")?.unwrap_or(shell.status);
    Err(Flow::Exit(status & 255))
}

fn return_from(shell: &mut Shell, args: &[String]) -> Run {
    let status = number(shell, args, "return")?.unwrap_or(shell.status);
    Err(Flow::Return(status & 255))
}

fn levels(shell: &Shell, args: &[String], what: &str) -> Run<usize> {
    match number(shell, args, what)? {
        Some(0) => Err(shell.fatal(format!("{what}: Illegal number: 0"))),
        Some(levels) => Ok((levels as usize).min(shell.loops)),
        None => Ok(1),
    }
}

fn break_loop(shell: &mut Shell, args: &[String]) -> Run {
    let levels = levels(shell, args, "break")?;
    if shell.loops == 0 {
        Ok(0)
    } else {
        Err(Flow::Break(levels))
    }
}

fn continue_loop(shell: &mut Shell, args: &[String]) -> Run {
    let levels = levels(shell, args, "continue")?;
    if shell.loops == 0 {
        Ok(0)
    } else {
        Err(Flow::Continue(levels))
    }
}

fn eval(shell: &mut Shell, args: &[String]) -> Run {
    shell.source_text(&args[1..].join(" "))
}

fn source(shell: &mut Shell, args: &[String]) -> Run {
    let Some(name) = args.get(1) else {
        return Err(shell.fatal(".: filename argument required"));
    };
    let path = if name.contains('/') {
        None
    } else {
        shell.find_program(name)
    };
    let path = path.unwrap_or_else(|| name.into());
    let text = std::fs::read(&path)
        .map_err(|error| shell.fatal(format!("can't open '{name}': {}", output::reason(&error))))?;
    shell.calls += 1;
    let result = shell.source_text(&String::from_utf8_lossy(&text));
    shell.calls -= 1;
    match result {
        Err(Flow::Return(status)) => Ok(status),
        other => other,
    }
}

fn exec(shell: &mut Shell, args: &[String]) -> Run {
    if args.len() == 1 {
        return Ok(0);
    }
    let status = shell.execute(&args[1..]);
    Err(Flow::Exit(status))
}

fn mark(
    shell: &mut Shell,
    args: &[String],
    what: &str,
    change: fn(&mut Variable),
    listed: fn(&Variable) -> bool,
) -> Run {
    if args.len() == 1 || args[1] == "-p" {
        let mut lines: Vec<String> = shell
            .variables
            .iter()
            .filter(|(_, variable)| listed(variable))
            .map(|(name, variable)| match &variable.value {
                Some(value) => format!("{what} {name}={}\n", quoted(value)),
                None => format!("{what} {name}\n"),
            })
            .collect();
        lines.sort();
        return write(shell, what, lines.concat().as_bytes());
    }
    for arg in &args[1..] {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (arg.as_str(), None),
        };
        if !is_name(name) {
            return Err(shell.fatal(format!("{what}: {name}: bad variable name")));
        }
        if let Some(value) = value {
            shell
                .set(name, value)
                .map_err(|error| shell.fatal(format!("{what}: {error}")))?;
        }
        change(shell.variables.entry(name.to_owned()).or_default());
    }
    Ok(0)
}

fn export(shell: &mut Shell, args: &[String]) -> Run {
    if args.get(1).is_some_and(|arg| arg == "-n") {
        for name in &args[2..] {
            if let Some(variable) = shell.variables.get_mut(name) {
                variable.exported = false;
            }
        }
        return Ok(0);
    }
    mark(
        shell,
        args,
        "export",
        |variable| variable.exported = true,
        |variable| variable.exported,
    )
}

fn readonly(shell: &mut Shell, args: &[String]) -> Run {
    mark(
        shell,
        args,
        "readonly",
        |variable| variable.read_only = true,
        |variable| variable.read_only,
    )
}

fn local(shell: &mut Shell, args: &[String]) -> Run {
    if shell.hidden.is_empty() {
        return Err(shell.fatal("local: not in a function"));
    }
    for arg in &args[1..] {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (arg.as_str(), None),
        };
        if !is_name(name) {
            return Err(shell.fatal(format!("local: {name}: bad variable name")));
        }
        let before = shell.variables.remove(name);
        let exported = before.as_ref().is_some_and(|variable| variable.exported);
        if let Some(hidden) = shell.hidden.last_mut() {
            hidden.push((name.to_owned(), before));
        }
        let variable = Variable {
            value,
            exported,
            read_only: false,
        };
        shell.variables.insert(name.to_owned(), variable);
    }
    Ok(0)
}

fn unset(shell: &mut Shell, args: &[String]) -> Run {
    let (functions, names) = match args.get(1).map(String::as_str) {
        Some("-f") => (true, &args[2..]),
        Some("-v") => (false, &args[2..]),
        _ => (false, &args[1..]),
    };
    for name in names {
        if functions {
            shell.functions.remove(name);
        } else if shell
            .variables
            .get(name)
            .is_some_and(|variable| variable.read_only)
        {
            return Err(shell.fatal(format!("unset: {name}: is read only")));
        } else {
            shell.variables.remove(name);
        }
    }
    Ok(0)
}

fn shift(shell: &mut Shell, args: &[String]) -> Run {
    let count = number(shell, args, "shift")?.unwrap_or(1) as usize;
    if count > shell.parameters.len() {
        return Err(shell.fatal("shift: can't shift that many"));
    }
    shell.parameters.drain(..count);
    Ok(0)
}

fn set(shell: &mut Shell, args: &[String]) -> Run {
    if args.len() == 1 {
        let mut lines: Vec<String> = shell
            .variables
            .iter()
            .filter_map(|(name, variable)| {
                Some(format!("{name}={}\n", quoted(variable.value.as_ref()?)))
            })
            .collect();
        lines.sort();
        return write(shell, "set", lines.concat().as_bytes());
    }
    match shell.options(&args[1..]) {
        Ok(Some(parameters)) => shell.parameters = parameters,
        Ok(None) => {}
        Err(error) => return Err(shell.fatal(format!("set: {error}"))),
    }
    Ok(0)
}

impl Shell {
    /// Takes options as `set` does; what follows them, if anything does.
    pub fn options(&mut self, args: &[String]) -> Result<Option<Vec<String>>, String> {
        let mut rest = args;
        while let Some((arg, after)) = rest.split_first() {
            let on = match arg.chars().next() {
                Some('-') if arg.len() > 1 => true,
                Some('+') if arg.len() > 1 => false,
                _ => return Ok(Some(rest.to_vec())),
            };
            if arg == "--" {
                return Ok(Some(after.to_vec()));
            }
            rest = after;
            for letter in arg[1..].chars() {
                if letter == 'o' {
                    let (name, after) = rest.split_first().ok_or("-o: option name expected")?;
                    rest = after;
                    let letter = match name.as_str() {
                        "errexit" => 'e',
                        "nounset" => 'u',
                        "xtrace" => 'x',
                        "noglob" => 'f',
                        "noexec" => 'n',
                        other => return Err(format!("illegal option -o {other}")),
                    };
                    self.option(letter, on)?;
                } else {
                    self.option(letter, on)?;
                }
            }
        }
        Ok(None)
    }

    fn option(&mut self, letter: char, on: bool) -> Result<(), String> {
        match letter {
            'e' => self.exit_on_error = on,
            'u' => self.unset_is_error = on,
            'x' => self.trace = on,
            'f' => self.no_globbing = on,
            'n' => self.no_execution = on,
            other => return Err(format!("illegal option -{other}")),
        }
        Ok(())
    }
}

fn trap(shell: &mut Shell, args: &[String]) -> Run {
    if args.len() == 1 {
        let lines: String = shell
            .traps
            .iter()
            .map(|(signal, action)| {
                format!(
                    "trap -- {} {}\n",
                    quoted(action),
                    crate::process::signal_name(*signal)
                )
            })
            .collect();
        return write(shell, "trap", lines.as_bytes());
    }
    let args = if args[1] == "--" {
        &args[2..]
    } else {
        &args[1..]
    };
    let (action, signals) = match args {
        [single] => ("-", std::slice::from_ref(single)),
        [action, signals @ ..] => (action.as_str(), signals),
        [] => return Ok(0),
    };
    for name in signals {
        let signal = match name.as_str() {
            "EXIT" | "0" => 0,
            name => match crate::process::signal_number(name) {
                Some(signal) => signal,
                None => {
                    shell.complain(format_args!("trap: {name}: invalid signal specification"));
                    return Ok(1);
                }
            },
        };
        if action == "-" {
            shell.traps.remove(&signal);
        } else {
            shell.traps.insert(signal, action.to_owned());
        }
        match action {
            _ if signal == 0 => {}
            "-" => signals::reset(signal),
            "" => signals::ignore(signal),
            _ => signals::catch(signal),
        }
    }
    Ok(0)
}

fn cd(shell: &mut Shell, args: &[String]) -> Run {
    let back = args.get(1).is_some_and(|arg| arg == "-");
    let target = match args.get(1).map(String::as_str) {
        None => shell.get("HOME").unwrap_or("/").to_owned(),
        Some("-") => shell.get("OLDPWD").unwrap_or(".").to_owned(),
        Some(directory) => directory.to_owned(),
    };
    if let Err(error) = std::env::set_current_dir(&target) {
        shell.complain(format_args!(
            "cd: can't cd to {target}: {}",
            output::reason(&error)
        ));
        return Ok(2);
    }
    let before = shell.get("PWD").unwrap_or_default().to_owned();
    let now = std::env::current_dir().map(|path| path.to_string_lossy().into_owned());
    let now = now.unwrap_or(target);
    for (name, value) in [("OLDPWD", before), ("PWD", now.clone())] {
        shell.set(name, value).map_err(|error| shell.fatal(error))?;
    }
    if back {
        return write(shell, "cd", format!("{now}\n").as_bytes());
    }
    Ok(0)
}

fn pwd(shell: &mut Shell, _args: &[String]) -> Run {
    let directory = shell.get("PWD").unwrap_or_default().to_owned();
    write(shell, "pwd", format!("{directory}\n").as_bytes())
}

fn umask(shell: &mut Shell, args: &[String]) -> Run {
    match args.get(1) {
        None => {
            // Safety: there is no way of asking without setting.
            let mask = unsafe {
                let mask = libc::umask(0o22);
                libc::umask(mask);
                mask
            };
            write(shell, "umask", format!("{mask:04o}\n").as_bytes())
        }
        Some(text) => match u32::from_str_radix(text, 8) {
            Ok(mask) if mask <= 0o777 => {
                // Safety: a number.
                unsafe { libc::umask(mask) };
                Ok(0)
            }
            _ => Err(shell.fatal(format!("umask: Illegal number: {text}"))),
        },
    }
}

fn describe(shell: &Shell, name: &str) -> Option<(String, String)> {
    if special(name).is_some() || regular(name).is_some() {
        return Some((name.to_owned(), format!("{name} is a shell builtin")));
    }
    if shell.functions.contains_key(name) {
        return Some((name.to_owned(), format!("{name} is a function")));
    }
    let path = shell.find_program(name)?.display().to_string();
    Some((path.clone(), format!("{name} is {path}")))
}

fn type_of(shell: &mut Shell, args: &[String]) -> Run {
    let mut status = 0;
    for name in &args[1..] {
        match describe(shell, name) {
            Some((_, text)) => status |= write(shell, "type", format!("{text}\n").as_bytes())?,
            None => {
                shell.complain(format_args!("{name}: not found"));
                status = 127;
            }
        }
    }
    Ok(status)
}

fn command(shell: &mut Shell, args: &[String]) -> Run {
    match args.get(1).map(String::as_str) {
        None => Ok(0),
        Some("-v") => {
            let Some((text, _)) = args.get(2).and_then(|name| describe(shell, name)) else {
                return Ok(127);
            };
            write(shell, "command", format!("{text}\n").as_bytes())
        }
        Some("-V") => type_of(shell, &args[1..]),
        Some(name) => match special(name).or_else(|| regular(name)) {
            Some(builtin) => builtin(shell, &args[1..]),
            None => shell.run_program(&args[1..]),
        },
    }
}

fn wait(shell: &mut Shell, args: &[String]) -> Run {
    if args.len() == 1 {
        return signals::wait_interruptibly(shell, None);
    }
    let mut status = 0;
    for arg in &args[1..] {
        let Ok(pid) = arg.parse() else {
            return Err(shell.fatal(format!("wait: Illegal number: {arg}")));
        };
        status = signals::wait_interruptibly(shell, Some(pid))?;
    }
    Ok(status)
}

/// A text as it can be typed.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
