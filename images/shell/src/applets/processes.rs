//! Processes: `ps`, `sleep`, `time`, `timeout`, `env`, `xargs`, `which`.

use std::io::{BufRead, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{say, system};
use crate::options::{Ended, Failure, Options};
use crate::{output, process};

pub(super) fn ps(args: &[String]) -> Ended {
    // Whatever is asked for, it is all processes of this namespace.
    let args: Vec<String> = args
        .iter()
        .filter(|arg| *arg != "aux" && *arg != "ax")
        .cloned()
        .collect();
    Options::parse(&args, "aefAlw")?.at_most(0)?;
    let mut rows = Vec::new();
    let entries =
        std::fs::read_dir("/proc").map_err(|error| crate::options::about("/proc", &error))?;
    for entry in entries.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // It may have ended since.
        if let Some(row) = described(pid, &entry.path()) {
            rows.push(row);
        }
    }
    rows.sort_by_key(|row| row.0);
    let mut out = output::stdout();
    writeln!(out, "PID   USER     TIME  COMMAND")?;
    for (pid, user, seconds, command) in rows {
        writeln!(
            out,
            "{pid:>5} {user:<8} {:>2}:{:02} {command}",
            seconds / 60,
            seconds % 60
        )?;
    }
    out.flush()?;
    Ok(0)
}

fn described(pid: u32, path: &Path) -> Option<(u32, String, u64, String)> {
    let user = system::user_name(path.metadata().ok()?.uid());
    let stat = std::fs::read_to_string(path.join("stat")).ok()?;
    // The name is in parentheses and may have any characters in it.
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // Safety: asks for a number.
    let per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) })
        .unwrap_or(100)
        .max(1);
    let words = std::fs::read(path.join("cmdline")).ok()?;
    let command = String::from_utf8_lossy(&words)
        .replace('\0', " ")
        .trim_end()
        .to_owned();
    let command = if command.is_empty() {
        format!("[{name}]")
    } else {
        command
    };
    Some((pid, user, ticks / per_second, command))
}

/// Seconds, or with `m`, `h`, `d` behind.
fn duration(text: &str) -> Result<Duration, Failure> {
    let invalid = || Failure::Usage(format!("invalid number '{text}'"));
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1.0),
        Some((at, 'm')) => (&text[..at], 60.0),
        Some((at, 'h')) => (&text[..at], 3600.0),
        Some((at, 'd')) => (&text[..at], 86400.0),
        _ => (text, 1.0),
    };
    if digits.eq_ignore_ascii_case("inf") || digits.eq_ignore_ascii_case("infinity") {
        return Ok(Duration::MAX);
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Err(invalid());
    }
    let seconds: f64 = digits.parse().map_err(|_| invalid())?;
    Duration::try_from_secs_f64(seconds * unit).map_err(|_| invalid())
}

pub(super) fn sleep(args: &[String]) -> Ended {
    let options = Options::parse(args, "")?;
    options.at_least(1)?;
    let mut total = Duration::ZERO;
    for text in &options.operands {
        total = total.saturating_add(duration(text)?);
    }
    std::thread::sleep(total);
    Ok(0)
}

pub(super) fn usleep(args: &[String]) -> Ended {
    let options = Options::parse(args, "")?;
    let [text] = options.exactly::<1>()?;
    let count = text
        .parse()
        .map_err(|_| Failure::Usage(format!("invalid number '{text}'")))?;
    std::thread::sleep(Duration::from_micros(count));
    Ok(0)
}

fn program(name: &str, args: &[String]) -> Ended {
    Ok(process::run(name, args).unwrap_or_else(|(status, text)| {
        output::error_line(&text);
        status
    }))
}

pub(super) fn time(args: &[String]) -> Ended {
    let options = Options::parse(args, "+p")?;
    options.at_least(1)?;
    let start = Instant::now();
    let status = program(&options.operands[0], &options.operands[1..])?;
    let real = start.elapsed().as_secs_f64();
    // Safety: the structure is filled by the call.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    for (name, seconds) in [
        ("real", real),
        ("user", seconds(usage.ru_utime)),
        ("sys", seconds(usage.ru_stime)),
    ] {
        if options.has('p') {
            output::error_line(&format!("{name} {seconds:.2}"));
        } else {
            output::error_line(&format!(
                "{name}\t{}m {:.2}s",
                (seconds / 60.0) as u64,
                seconds % 60.0
            ));
        }
    }
    Ok(status)
}

pub(super) fn timeout(args: &[String]) -> Ended {
    let options = Options::parse(args, "+s:")?;
    options.at_least(2)?;
    let limit = duration(&options.operands[0])?;
    let signal = options.value('s').unwrap_or("TERM");
    let signal = process::signal_number(signal)
        .ok_or_else(|| Failure::Usage(format!("bad signal name '{signal}'")))?;
    let name = &options.operands[1];
    let mut child = match Command::new(name).args(&options.operands[2..]).spawn() {
        Ok(child) => child,
        Err(error) => {
            output::error_line(&format!("timeout: {name}: {}", output::reason(&error)));
            return Ok(127);
        }
    };
    let deadline = Instant::now().checked_add(limit);
    loop {
        if let Some(status) = child.try_wait()? {
            use std::os::unix::process::ExitStatusExt;
            return Ok(status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            // Safety: numbers; the child has not been waited for, so its number is its own.
            unsafe { libc::kill(child.id().cast_signed(), signal) };
            child.wait()?;
            return Ok(if signal == libc::SIGKILL { 137 } else { 124 });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(super) fn env(args: &[String]) -> Ended {
    let options = Options::parse(args, "+iu:")?;
    let mut rest = options.operands.as_slice();
    let mut variables: Vec<(String, String)> = if options.has('i') {
        Vec::new()
    } else {
        std::env::vars_os()
            .map(|(name, value)| {
                (
                    name.to_string_lossy().into_owned(),
                    value.to_string_lossy().into_owned(),
                )
            })
            .collect()
    };
    for name in options.values('u') {
        variables.retain(|(other, _)| other != name);
    }
    while let Some((name, value)) = rest.first().and_then(|word| word.split_once('=')) {
        variables.retain(|(other, _)| other != name);
        variables.push((name.to_owned(), value.to_owned()));
        rest = &rest[1..];
    }
    let Some((name, args)) = rest.split_first() else {
        let lines: String = variables
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect();
        return say(&lines);
    };
    let path = variables
        .iter()
        .find(|(name, _)| name == "PATH")
        .map(|(_, path)| path.clone());
    let found = if name.contains('/') {
        None
    } else {
        process::in_path(name, &path.unwrap_or_default())
    };
    let error = Command::new(found.as_deref().unwrap_or(Path::new(name)))
        .arg0(name)
        .args(args)
        .env_clear()
        .envs(variables)
        .exec();
    output::error_line(&format!(
        "env: can't execute '{name}': {}",
        output::reason(&error)
    ));
    Ok(if error.kind() == std::io::ErrorKind::NotFound {
        127
    } else {
        126
    })
}

pub(super) fn printenv(args: &[String]) -> Ended {
    let options = Options::parse(args, "")?;
    if options.operands.is_empty() {
        return env(&[]);
    }
    let mut status = 0;
    let mut lines = String::new();
    for name in &options.operands {
        match std::env::var_os(name) {
            Some(value) => lines.push_str(&format!("{}\n", value.to_string_lossy())),
            None => status = 1,
        }
    }
    say(&lines)?;
    Ok(status)
}

pub(super) fn which(args: &[String]) -> Ended {
    let options = Options::parse(args, "")?;
    options.at_least(1)?;
    let path = std::env::var("PATH").unwrap_or_default();
    let mut status = 0;
    let mut lines = String::new();
    for name in &options.operands {
        let found = if name.contains('/') {
            Some(Path::new(name).to_owned()).filter(|path| process::is_program(path))
        } else {
            process::in_path(name, &path)
        };
        match found {
            Some(path) => lines.push_str(&format!("{}\n", path.display())),
            None => status = 1,
        }
    }
    say(&lines)?;
    Ok(status)
}

/// Words of standard input: separated by blanks, with quotes; or by NUL.
fn items(input: &mut dyn BufRead, nul: bool, lines: bool) -> Result<Vec<String>, Failure> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if nul {
        return Ok(text.split_terminator('\0').map(str::to_owned).collect());
    }
    let mut items = Vec::new();
    let mut current: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                let word = current.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some(end) if end == c => break,
                        Some(inside) if inside != '\n' => word.push(inside),
                        _ => return Err(Failure::Message(format!("unmatched {c}"))),
                    }
                }
            }
            '\\' => current.get_or_insert_default().extend(chars.next()),
            c if c == '\n' || (!lines && c.is_whitespace()) => items.extend(current.take()),
            c if lines && current.is_none() && c.is_whitespace() => {}
            c => current.get_or_insert_default().push(c),
        }
    }
    items.extend(current);
    Ok(items)
}

pub(super) fn xargs(args: &[String]) -> Ended {
    /// Well below what the kernel takes.
    const MOST_BYTES: usize = 100_000;
    let options = Options::parse(args, "+0rtn:I:")?;
    let echo = ["echo".to_owned()];
    let command = if options.operands.is_empty() {
        &echo[..]
    } else {
        &options.operands
    };
    let replaced = options.value('I');
    let items = items(
        &mut std::io::stdin().lock(),
        options.has('0'),
        replaced.is_some(),
    )?;
    let most: usize = options.number('n')?.unwrap_or(usize::MAX);
    if most == 0 {
        return Err(Failure::Usage("-n: invalid number '0'".into()));
    }
    let mut calls: Vec<Vec<String>> = Vec::new();
    if let Some(mark) = replaced {
        for item in &items {
            calls.push(
                command
                    .iter()
                    .map(|word| word.replace(mark, item))
                    .collect(),
            );
        }
    } else {
        let mut size = 0;
        for item in &items {
            let full = calls.last().is_none_or(|call| {
                call.len() - command.len() >= most || size + item.len() > MOST_BYTES
            });
            if full {
                calls.push(command.to_vec());
                size = 0;
            }
            if let Some(call) = calls.last_mut() {
                call.push(item.clone());
                size += item.len() + 1;
            }
        }
        if calls.is_empty() && !options.has('r') {
            calls.push(command.to_vec());
        }
    }
    let mut status = 0;
    for call in calls {
        if options.has('t') {
            output::error_line(&call.join(" "));
        }
        match process::run(&call[0], &call[1..]) {
            Ok(0) => {}
            Ok(255) => return Ok(124),
            Ok(ended) if ended > 128 => return Ok(125),
            Ok(_) => status = 123,
            Err((status, text)) => {
                output::error_line(&format!("xargs: {text}"));
                return Ok(status);
            }
        }
    }
    Ok(status)
}
