//! The machine, its users, the time, and names of files.

use std::ffi::{CStr, CString};
use std::time::{SystemTime, UNIX_EPOCH};

use super::say;
use crate::options::{Ended, Failure, Options};
use crate::output;

/// Seconds since 1970 as text, by the rules of `strftime`.
pub(super) fn format_time(format: &str, seconds: i64, utc: bool) -> String {
    let Ok(format) = CString::new(format) else {
        return String::new();
    };
    if format.is_empty() {
        return String::new();
    }
    let mut buffer = vec![0_u8; 1024 + format.as_bytes().len() * 64];
    // Safety: the structures are filled before they are read, the buffer is as long as said.
    let length = unsafe {
        let mut parts: libc::tm = std::mem::zeroed();
        if utc {
            libc::gmtime_r(&seconds, &mut parts);
        } else {
            libc::localtime_r(&seconds, &mut parts);
        }
        libc::strftime(
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            format.as_ptr(),
            &parts,
        )
    };
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

pub(super) fn date(args: &[String]) -> Ended {
    let options = Options::parse(args, "uId:")?;
    options.at_most(1)?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let (mut seconds, mut nanos) = (now.as_secs().cast_signed(), now.subsec_nanos());
    if let Some(text) = options.value('d') {
        let number = text
            .strip_prefix('@')
            .and_then(|digits| digits.parse().ok());
        seconds = number.ok_or_else(|| {
            Failure::Usage(format!(
                "invalid date '{text}': only @SECONDS is understood"
            ))
        })?;
        nanos = 0;
    }
    let format = match options.operands.first() {
        Some(text) => text.strip_prefix('+').ok_or_else(|| {
            Failure::Usage(format!("invalid date '{text}': the clock cannot be set"))
        })?,
        None if options.has('I') => "%Y-%m-%d",
        None => "%a %b %e %H:%M:%S %Z %Y",
    };
    // Nanoseconds are not known to strftime; `%%N` stays what it is.
    let format = format
        .split("%%")
        .map(|part| {
            part.replace("%3N", &format!("{:03}", nanos / 1_000_000))
                .replace("%N", &format!("{nanos:09}"))
        })
        .collect::<Vec<_>>()
        .join("%%");
    let text = format_time(&format, seconds, options.has('u'));
    let text = if options.has('u') {
        text.replace("GMT", "UTC")
    } else {
        text
    };
    say(&format!("{text}\n"))
}

/// The line of a number in a file like `/etc/passwd`.
fn entry_name(file: &str, id: u32) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse::<u32>().ok()? == id).then(|| name.to_owned())
    })
}

pub(super) fn user_name(id: u32) -> String {
    entry_name("/etc/passwd", id).unwrap_or_else(|| id.to_string())
}

pub(super) fn group_name(id: u32) -> String {
    entry_name("/etc/group", id).unwrap_or_else(|| id.to_string())
}

fn groups() -> Vec<u32> {
    let mut groups = vec![0; 1024];
    // Safety: the vector is as long as said.
    let count = unsafe { libc::getgroups(1024, groups.as_mut_ptr()) };
    groups.truncate(usize::try_from(count).unwrap_or(0));
    groups
}

pub(super) fn id(args: &[String]) -> Ended {
    let options = Options::parse(args, "ugGn")?;
    options.at_most(0)?;
    // Safety: these ask for numbers.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    let mut all = groups();
    if !all.contains(&group) {
        all.insert(0, group);
    }
    let text = match (
        options.has('u'),
        options.has('g'),
        options.has('G'),
        options.has('n'),
    ) {
        (true, false, false, true) => user_name(user),
        (true, false, false, false) => user.to_string(),
        (false, true, false, true) => group_name(group),
        (false, true, false, false) => group.to_string(),
        (false, false, true, named) => {
            let shown: Vec<String> = all
                .iter()
                .map(|id| {
                    if named {
                        group_name(*id)
                    } else {
                        id.to_string()
                    }
                })
                .collect();
            shown.join(" ")
        }
        (false, false, false, false) => {
            let shown = |file: &str, id: u32| match entry_name(file, id) {
                Some(name) => format!("{id}({name})"),
                None => id.to_string(),
            };
            let all: Vec<String> = all.iter().map(|id| shown("/etc/group", *id)).collect();
            format!(
                "uid={} gid={} groups={}",
                shown("/etc/passwd", user),
                shown("/etc/group", group),
                all.join(",")
            )
        }
        _ => return Err(Failure::Usage("one of -u, -g and -G expected".into())),
    };
    say(&format!("{text}\n"))
}

pub(super) fn whoami(args: &[String]) -> Ended {
    Options::parse(args, "")?.at_most(0)?;
    // Safety: asks for a number.
    let user = unsafe { libc::geteuid() };
    match entry_name("/etc/passwd", user) {
        Some(name) => say(&format!("{name}\n")),
        None => Err(Failure::Message(format!("unknown uid {user}"))),
    }
}

fn machine() -> [String; 5] {
    // Safety: the structure is filled by the call; its texts end with NUL.
    unsafe {
        let mut names: libc::utsname = std::mem::zeroed();
        libc::uname(&mut names);
        let text = |field: &[libc::c_char]| {
            CStr::from_ptr(field.as_ptr())
                .to_string_lossy()
                .into_owned()
        };
        [
            text(&names.sysname),
            text(&names.nodename),
            text(&names.release),
            text(&names.version),
            text(&names.machine),
        ]
    }
}

pub(super) fn uname(args: &[String]) -> Ended {
    let options = Options::parse(args, "asnrvm")?;
    options.at_most(0)?;
    let any = "asnrvm".chars().any(|letter| options.has(letter));
    let names = machine();
    let chosen: Vec<&str> = "snrvm"
        .chars()
        .zip(&names)
        .filter(|(letter, _)| options.has('a') || options.has(*letter) || (!any && *letter == 's'))
        .map(|(_, name)| name.as_str())
        .collect();
    let end = if options.has('a') { " GNU/Linux" } else { "" };
    say(&format!("{}{end}\n", chosen.join(" ")))
}

pub(super) fn hostname(args: &[String]) -> Ended {
    let options = Options::parse(args, "fi")?;
    if let Some(name) = options.operands.first() {
        return Err(Failure::Message(format!(
            "cannot set the name to '{name}': it belongs to the pod"
        )));
    }
    let name = machine()[1].clone();
    if options.has('i') || options.has('f') {
        let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        let line = hosts.lines().map(|line| {
            line.split('#')
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .collect::<Vec<_>>()
        });
        let found = line
            .into_iter()
            .find(|words| words.iter().skip(1).any(|word| *word == name));
        return match found {
            Some(words) if options.has('i') => say(&format!("{}\n", words[0])),
            Some(words) => say(&format!("{}\n", words[1])),
            None if options.has('f') => say(&format!("{name}\n")),
            None => Err(Failure::Message(format!("{name}: not in /etc/hosts"))),
        };
    }
    say(&format!("{name}\n"))
}

pub(super) fn uptime(args: &[String]) -> Ended {
    Options::parse(args, "")?.at_most(0)?;
    let seconds = std::fs::read_to_string("/proc/uptime")?;
    let seconds: f64 = seconds
        .split('.')
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0.0);
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load: Vec<&str> = load.split_whitespace().take(3).collect();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
        .cast_signed();
    let minutes = (seconds / 60.0) as u64;
    let (days, hours) = (minutes / 1440, minutes / 60 % 24);
    let days = if days > 0 {
        format!("{days} days, ")
    } else {
        String::new()
    };
    say(&format!(
        " {} up {days}{hours:2}:{:02},  load average: {}\n",
        format_time("%H:%M:%S", now, false),
        minutes % 60,
        load.join(", ")
    ))
}

pub(super) fn nproc(args: &[String]) -> Ended {
    Options::parse(args, "")?.at_most(0)?;
    say(&format!("{}\n", std::thread::available_parallelism()?))
}

pub(super) fn tty(args: &[String]) -> Ended {
    let options = Options::parse(args, "s")?;
    options.at_most(0)?;
    // Safety: asks about a descriptor.
    let terminal = unsafe { libc::isatty(0) == 1 };
    if !options.has('s') {
        let path = std::fs::read_link("/proc/self/fd/0")
            .ok()
            .filter(|_| terminal);
        say(&path.map_or("not a tty\n".to_owned(), |path| {
            format!("{}\n", path.display())
        }))?;
    }
    Ok(i32::from(!terminal))
}

pub(super) fn clear(args: &[String]) -> Ended {
    Options::parse(args, "")?.at_most(0)?;
    say("\x1b[H\x1b[2J\x1b[3J")
}

pub(super) fn pwd(args: &[String]) -> Ended {
    let options = Options::parse(args, "LP")?;
    options.at_most(0)?;
    let real = std::env::current_dir()?;
    let named = std::env::var("PWD").ok().filter(|path| {
        options.last_of('L', 'P')
            && path.starts_with('/')
            && std::fs::canonicalize(path).is_ok_and(|path| path == real)
    });
    say(&format!(
        "{}\n",
        named.unwrap_or_else(|| real.display().to_string())
    ))
}

pub(super) fn basename(args: &[String]) -> Ended {
    let options = Options::parse(args, "+")?;
    options.at_least(1)?;
    options.at_most(2)?;
    let path = options.operands[0].trim_end_matches('/');
    let mut name = path.rsplit('/').next().unwrap_or_default();
    if path.is_empty() && !options.operands[0].is_empty() {
        name = "/";
    }
    if let Some(suffix) = options.operands.get(1)
        && let Some(shorter) = name.strip_suffix(suffix.as_str())
        && !shorter.is_empty()
    {
        name = shorter;
    }
    say(&format!("{name}\n"))
}

pub(super) fn dirname(args: &[String]) -> Ended {
    let options = Options::parse(args, "+")?;
    let [path] = options.exactly::<1>()?;
    let shortened = path.trim_end_matches('/');
    let directory = match shortened.rsplit_once('/') {
        _ if shortened.is_empty() && path.starts_with('/') => "/",
        None => ".",
        Some((directory, _)) => match directory.trim_end_matches('/') {
            "" => "/",
            directory => directory,
        },
    };
    say(&format!("{directory}\n"))
}

pub(super) fn test(name: &str, args: &[String]) -> Ended {
    match crate::test_expression::main(name, args) {
        Ok(held) => Ok(i32::from(!held)),
        Err(error) => {
            output::error_line(&error);
            Ok(2)
        }
    }
}

pub(super) fn printf(args: &[String]) -> Ended {
    let (bytes, errors) = crate::printf::format(args)?;
    output::write_all(1, &bytes)?;
    for error in &errors {
        output::error_line(&format!("printf: {error}"));
    }
    Ok(i32::from(!errors.is_empty()))
}

pub(super) fn ping(args: &[String]) -> Ended {
    let host = args
        .iter()
        .rev()
        .find(|arg| !arg.starts_with('-'))
        .map_or("HOST", String::as_str);
    Err(Failure::Message(format!(
        "not available: containers have no raw sockets here, and service addresses answer TCP only; try `nc -zv {host} PORT` or `nslookup {host}`"
    )))
}

/// `sysctl NAME...`: kernel parameters as they are.
pub(super) fn sysctl(args: &[String]) -> Ended {
    let options = Options::parse(args, "n")?;
    options.at_least(1)?;
    let mut status = 0;
    for name in &options.operands {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        match std::fs::read_to_string(&path) {
            Ok(value) if options.has('n') => {
                say(&format!("{}\n", value.trim_end()))?;
            }
            Ok(value) => {
                say(&format!("{name} = {}\n", value.trim_end()))?;
            }
            Err(error) => {
                output::error_line(&format!(
                    "sysctl: error reading key '{name}': {}",
                    output::reason(&error)
                ));
                status = 1;
            }
        }
    }
    Ok(status)
}
