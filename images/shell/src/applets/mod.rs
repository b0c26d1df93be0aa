//! The programs beside the shell, by subject.

mod awk;
mod copy;
mod dig;
pub(crate) mod echo;
mod files;
mod grep;
mod hexdump;
mod ip;
mod listing;
mod lookup;
mod mode;
mod netcat;
mod processes;
mod regular_expression;
mod sed;
mod sort;
mod system;
mod tar;
mod text;
mod translate;

use std::io::{BufRead, BufReader, Write};

use crate::options::{Ended, Failure};
use crate::output;

struct Applet {
    name: &'static str,
    usage: &'static str,
    /// The status of an error.
    trouble: i32,
    run: fn(&[String]) -> Ended,
}

const fn applet(name: &'static str, usage: &'static str, run: fn(&[String]) -> Ended) -> Applet {
    Applet {
        name,
        usage,
        trouble: 1,
        run,
    }
}

/// Programs whose status 1 means something else than an error.
const fn with_trouble_2(applet: Applet) -> Applet {
    Applet {
        trouble: 2,
        ..applet
    }
}

#[rustfmt::skip]
const TABLE: [Applet; 68] = [
    with_trouble_2(applet("[", "EXPRESSION ]", |args| system::test("[", args))),
    with_trouble_2(applet("[[", "EXPRESSION ]]", |args| system::test("[[", args))),
    applet("awk", "[-F SEPARATOR] '[/TEXT/] { print $N, ... }' [FILE]...", awk::awk),
    applet("basename", "PATH [SUFFIX]", system::basename),
    applet("cat", "[-n] [FILE]...", text::cat),
    applet("chmod", "[-R] MODE FILE...", mode::chmod),
    applet("clear", "", system::clear),
    applet("cp", "[-apfrR] SOURCE... TARGET", copy::cp),
    applet("cut", "-b|-c LIST | -f LIST [-d CHAR] [-s] [FILE]...", text::cut),
    applet("date", "[-u] [-d @SECONDS] [-I] [+FORMAT]", system::date),
    applet("dig", "[@SERVER] [+tcp] [+search] [+short] [+noall] [+answer] NAME [TYPE] | -x ADDRESS", dig::dig),
    applet("dirname", "PATH", system::dirname),
    applet("echo", "[-neE] [TEXT]...", echo::echo),
    applet("env", "[-i] [-u NAME] [NAME=VALUE]... [PROGRAM [ARGS]...]", processes::env),
    applet("false", "", |_| Ok(1)),
    with_trouble_2(applet("grep", "[-EFHchilnoqrsvwx] [-A N] [-B N] [-C N] [-m N] [-e] PATTERN [FILE]...", grep::grep)),
    applet("getent", "hosts NAME...", lookup::getent),
    applet("head", "[-n LINES] [-c BYTES] [-q] [FILE]...", text::head),
    applet("hexdump", "-C [FILE]...", hexdump::hexdump),
    applet("hostname", "[-fi]", system::hostname),
    applet("id", "[-u | -g | -G] [-n]", system::id),
    applet("ip", "link add NAME type dummy", ip::ip),
    applet("kill", "[-l] [-SIGNAL] PID...", |args| Ok(crate::process::kill(args))),
    applet("ln", "[-sfn] TARGET... LINK|DIRECTORY", files::ln),
    applet("ls", "[-1AadFhlRrSt] [FILE]...", listing::ls),
    applet("mkdir", "[-p] [-m MODE] DIRECTORY...", files::mkdir),
    applet("mv", "[-fv] SOURCE... TARGET", copy::mv),
    applet("nc", "[-nvztu] [-w SECONDS] [-p PORT] HOST PORT | -l [-u] [-p] PORT", netcat::nc),
    applet("nslookup", "NAME [SERVER]", lookup::nslookup),
    applet("ping", "HOST", system::ping),
    applet("printenv", "[NAME]...", processes::printenv),
    applet("printf", "FORMAT [ARG]...", system::printf),
    applet("ps", "[-aef] [aux]", processes::ps),
    applet("pwd", "[-LP]", system::pwd),
    applet("readlink", "[-f] FILE", files::readlink),
    applet("rm", "[-frR] FILE...", files::rm),
    applet("rmdir", "[-p] DIRECTORY...", files::rmdir),
    applet("sed", "[-nEr] [-i] [-e SCRIPT]... [-f FILE] [SCRIPT] [FILE]...", sed::sed),
    applet("seq", "[-s TEXT] [-w] [FIRST [STEP]] LAST", text::seq),
    // The shell has its own way in.
    applet("sh", "", |_| Ok(0)),
    applet("sleep", "SECONDS[smhd]...", processes::sleep),
    with_trouble_2(applet("sort", "[-bfnru] [-k KEY] [-t CHAR] [-o FILE] [FILE]...", sort::sort)),
    applet("stat", "[-L] [-c FORMAT] FILE...", listing::stat),
    applet("sync", "", files::sync),
    applet("sysctl", "[-n] NAME...", system::sysctl),
    applet("tail", "[-f] [-n [+]LINES] [-c [+]BYTES] [-q] [FILE]...", text::tail),
    applet("tar", "c|x|t [-f FILE] [-C DIRECTORY] [-mopvO] [FILE]...", tar::tar),
    applet("tee", "[-ai] [FILE]...", text::tee),
    with_trouble_2(applet("test", "EXPRESSION", |args| system::test("test", args))),
    applet("time", "[-p] PROGRAM [ARGS]...", processes::time),
    applet("timeout", "[-s SIGNAL] SECONDS PROGRAM [ARGS]...", processes::timeout),
    applet("touch", "[-c] FILE...", files::touch),
    applet("tr", "[-cds] SET1 [SET2]", translate::tr),
    applet("true", "", |_| Ok(0)),
    applet("tty", "[-s]", system::tty),
    applet("uname", "[-amnrsv]", system::uname),
    applet("uniq", "[-cdiu] [INPUT [OUTPUT]]", text::uniq),
    applet("uptime", "", system::uptime),
    applet("usleep", "MICROSECONDS", processes::usleep),
    applet("wc", "[-clmw] [FILE]...", text::wc),
    applet("which", "NAME...", processes::which),
    applet("whoami", "", system::whoami),
    applet("xargs", "[-0rt] [-n N] [-I TEXT] [PROGRAM [ARGS]...]", processes::xargs),
    applet("yes", "[TEXT]...", text::yes),
    applet("base64", "[-d] [-w COLUMNS] [FILE]", text::base64),
    applet("du", "[-hs] [FILE]...", listing::du),
    applet("find", "[PATH]... [-name PATTERN] [-type f|d|l] [-maxdepth N]", listing::find),
    applet("nproc", "", system::nproc),
];

/// The names of all programs, the shell's included.
pub(crate) const NAMES: [&str; TABLE.len()] = {
    let mut names = [""; TABLE.len()];
    let mut index = 0;
    while index < TABLE.len() {
        names[index] = TABLE[index].name;
        index += 1;
    }
    names
};

/// Runs a program; its status.
pub(crate) fn run(name: &str, args: &[String]) -> i32 {
    let Some(applet) = TABLE.iter().find(|applet| applet.name == name) else {
        output::error_line(&format!("{name}: not found"));
        return 127;
    };
    let usage = format!("Usage: {name} {}", applet.usage);
    let plain = ["echo", "true", "false", "[", "[[", "test", "printf"].contains(&name);
    if !plain && args.first().is_some_and(|arg| arg == "--help") {
        return i32::from(output::write_all(1, format!("{usage}\n").as_bytes()).is_err());
    }
    match (applet.run)(args) {
        Ok(status) => status,
        Err(Failure::Usage(text)) => {
            output::error_line(&format!("{name}: {text}\n{usage}"));
            applet.trouble
        }
        Err(Failure::Message(text)) => {
            output::error_line(&format!("{name}: {text}"));
            applet.trouble
        }
    }
}

/// Says what is wrong with one of several files, and goes on.
fn complain(name: &str, failure: &Failure) {
    let (Failure::Usage(text) | Failure::Message(text)) = failure;
    output::error_line(&format!("{name}: {text}"));
}

/// A file, or standard input for `-`.
fn open(name: &str) -> Result<Box<dyn BufRead>, Failure> {
    if name == "-" {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let file = std::fs::File::open(name).map_err(|error| crate::options::about(name, &error))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Failure::Message(format!("{name}: Is a directory")));
    }
    Ok(Box::new(BufReader::with_capacity(64 * 1024, file)))
}

/// Does something with every file, or with standard input when there is none: 1 when one of
/// them could not be read.
fn each_input(
    program: &str,
    names: &[String],
    mut with: impl FnMut(&str, Box<dyn BufRead>) -> Result<(), Failure>,
) -> Ended {
    let input = ["-".to_owned()];
    let names = if names.is_empty() { &input[..] } else { names };
    let mut status = 0;
    for name in names {
        match open(name).and_then(|reader| with(name, reader)) {
            Ok(()) => {}
            Err(failure) => {
                complain(program, &failure);
                status = 1;
            }
        }
    }
    Ok(status)
}

/// The next line with its end; nothing after the last.
fn read_line(reader: &mut dyn BufRead) -> Result<Option<Vec<u8>>, Failure> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    Ok(if line.is_empty() { None } else { Some(line) })
}

/// A line without its end.
fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

/// Writes a whole answer.
fn say(text: &str) -> Ended {
    let mut out = output::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(0)
}
