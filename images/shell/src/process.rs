//! Processes and signals, for the shell and for programs.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::output;

/// Names of signals without `SIG`, by number.
const SIGNALS: [(i32, &str); 22] = [
    (libc::SIGHUP, "HUP"),
    (libc::SIGINT, "INT"),
    (libc::SIGQUIT, "QUIT"),
    (libc::SIGILL, "ILL"),
    (libc::SIGTRAP, "TRAP"),
    (libc::SIGABRT, "ABRT"),
    (libc::SIGBUS, "BUS"),
    (libc::SIGFPE, "FPE"),
    (libc::SIGKILL, "KILL"),
    (libc::SIGUSR1, "USR1"),
    (libc::SIGSEGV, "SEGV"),
    (libc::SIGUSR2, "USR2"),
    (libc::SIGPIPE, "PIPE"),
    (libc::SIGALRM, "ALRM"),
    (libc::SIGTERM, "TERM"),
    (libc::SIGCHLD, "CHLD"),
    (libc::SIGCONT, "CONT"),
    (libc::SIGSTOP, "STOP"),
    (libc::SIGTSTP, "TSTP"),
    (libc::SIGTTIN, "TTIN"),
    (libc::SIGTTOU, "TTOU"),
    (libc::SIGWINCH, "WINCH"),
];

/// A signal's number from its name, with `SIG` or without, or from its number.
pub(crate) fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (0..65).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    SIGNALS
        .iter()
        .find(|(_, known)| *known == name)
        .map(|(number, _)| *number)
}

/// A signal's name without `SIG`.
pub(crate) fn signal_name(number: i32) -> String {
    match SIGNALS.iter().find(|(known, _)| *known == number) {
        Some((_, name)) => (*name).to_owned(),
        None if number == 0 => "EXIT".to_owned(),
        None => number.to_string(),
    }
}

/// Rust ignores SIGPIPE; programs in pipelines must end by it.
pub(crate) fn plain_signals() {
    // Safety: a default action.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

extern "C" fn end(signal: i32) {
    // Safety: one of the few functions a handler may call.
    unsafe { libc::_exit(128 + signal) };
}

/// The kernel gives the first process of a container no default actions: without a handler
/// it could not be ended politely.
pub(crate) fn end_on_signals_as_first() {
    if std::process::id() != 1 {
        return;
    }
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        // Safety: the handler only ends the process.
        unsafe { libc::signal(signal, end as *const () as libc::sighandler_t) };
    }
}

/// `kill`: the status.
pub(crate) fn kill(args: &[String]) -> i32 {
    let mut signal = libc::SIGTERM;
    let mut pids = args;
    let usage = |text: &str| {
        output::error_line(&format!(
            "kill: {text}\nUsage: kill [-l] [-SIGNAL | -s SIGNAL] PID..."
        ));
        1
    };
    match args {
        [list] if list == "-l" => {
            let names: String = SIGNALS
                .iter()
                .map(|(number, name)| format!("{number:2}) {name}\n"))
                .collect();
            return i32::from(output::write_all(1, names.as_bytes()).is_err());
        }
        [list, number] if list == "-l" => {
            let Some(number) = signal_number(number) else {
                return usage(&format!("bad signal name '{number}'"));
            };
            // The status of something that was ended by a signal is 128 more.
            let text = format!("{}\n", signal_name(number));
            return i32::from(output::write_all(1, text.as_bytes()).is_err());
        }
        [flag, name, rest @ ..] if flag == "-s" => match signal_number(name) {
            Some(number) => {
                signal = number;
                pids = rest;
            }
            None => return usage(&format!("bad signal name '{name}'")),
        },
        [flag, rest @ ..] if flag.starts_with('-') && flag != "--" => {
            match signal_number(&flag[1..]) {
                Some(number) => {
                    signal = number;
                    pids = rest;
                }
                None => return usage(&format!("bad signal name '{}'", &flag[1..])),
            }
        }
        _ => {}
    }
    if pids.first().is_some_and(|word| word == "--") {
        pids = &pids[1..];
    }
    if pids.is_empty() {
        return usage("you need to specify whom to kill");
    }
    let mut status = 0;
    for text in pids {
        let Ok(pid) = text.parse::<i32>() else {
            status = usage(&format!("invalid number '{text}'"));
            continue;
        };
        // Safety: numbers.
        if unsafe { libc::kill(pid, signal) } < 0 {
            let error = std::io::Error::last_os_error();
            output::error_line(&format!(
                "kill: can't kill pid {pid}: {}",
                output::reason(&error)
            ));
            status = 1;
        }
    }
    status
}

/// The first executable file of a name in a list of directories.
pub(crate) fn in_path(name: &str, directories: &str) -> Option<PathBuf> {
    directories
        .split(':')
        .map(|directory| Path::new(if directory.is_empty() { "." } else { directory }).join(name))
        .find(|path| is_program(path))
}

/// Whether a file may be run.
pub(crate) fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Runs a program of the `PATH` to its end: its status as shells see it, 127 when there is
/// none of that name, 126 when it cannot be run.
pub(crate) fn run(program: &str, args: &[String]) -> Result<i32, (i32, String)> {
    use std::os::unix::process::ExitStatusExt;
    match std::process::Command::new(program).args(args).status() {
        Ok(status) => Ok(status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))),
        Err(error) => {
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            Err((
                if missing { 127 } else { 126 },
                format!("{program}: {}", output::reason(&error)),
            ))
        }
    }
}
