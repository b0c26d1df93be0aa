//! `redis-cli`.

mod format;
mod wire;

use std::io::{BufRead, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use wire::{Answer, Connection};

const USAGE: &str = "Usage: redis-cli [OPTIONS] [cmd [arg [arg ...]]]
  -h <hostname>   Server hostname (default: 127.0.0.1)
  -p <port>       Server port (default: 6379)
  -n <db>         Database number
  -r <repeat>     Execute the command N times (-1: for ever)
  -i <interval>   Wait so many seconds between repetitions
  -x              Read the last argument from standard input
  -e              Exit with an error when a command fails
  --raw           Replies as they are (default when the output is not a terminal)
  --no-raw        Replies for people, whatever the output is
  --help          This text
  --version       The version
Without a command, commands are read line by line from standard input.";

#[derive(Debug, PartialEq)]
struct Options {
    host: String,
    port: u16,
    database: u32,
    repeat: i64,
    interval: Duration,
    last_from_input: bool,
    fail: bool,
    raw: Option<bool>,
    command: Vec<Vec<u8>>,
}

enum Asked {
    Run(Options),
    Help,
    Version,
}

fn parse(args: Vec<Vec<u8>>) -> Result<Asked, String> {
    let mut options = Options {
        host: "127.0.0.1".into(),
        port: 6379,
        database: 0,
        repeat: 1,
        interval: Duration::ZERO,
        last_from_input: false,
        fail: false,
        raw: None,
        command: Vec::new(),
    };
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let mut value = |name: &str| {
            args.next()
                .map(|value| String::from_utf8_lossy(&value).into_owned())
                .ok_or_else(|| format!("{name} needs a value"))
        };
        let bad = |name: &str, value: &str| format!("{name} {value}: not a number that fits");
        match arg.as_slice() {
            b"-h" => options.host = value("-h")?,
            b"-p" => {
                let text = value("-p")?;
                options.port = text.parse().map_err(|_| bad("-p", &text))?;
            }
            b"-n" => {
                let text = value("-n")?;
                options.database = text.parse().map_err(|_| bad("-n", &text))?;
            }
            b"-r" => {
                let text = value("-r")?;
                options.repeat = text.parse().map_err(|_| bad("-r", &text))?;
            }
            b"-i" => {
                let text = value("-i")?;
                options.interval = text
                    .parse()
                    .ok()
                    .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                    .ok_or_else(|| bad("-i", &text))?;
            }
            b"-x" => options.last_from_input = true,
            b"-e" => options.fail = true,
            b"--raw" => options.raw = Some(true),
            b"--no-raw" => options.raw = Some(false),
            b"--help" => return Ok(Asked::Help),
            b"--version" | b"-v" => return Ok(Asked::Version),
            [b'-', _, ..] => {
                return Err(format!(
                    "Unrecognized option or bad number of args for: '{}'",
                    String::from_utf8_lossy(&arg)
                ));
            }
            _ => {
                options.command = std::iter::once(arg).chain(args).collect();
                break;
            }
        }
    }
    Ok(Asked::Run(options))
}

/// Runs the client; `args` without the program name.
#[must_use]
pub fn main(args: Vec<Vec<u8>>) -> ExitCode {
    let mut options = match parse(args) {
        Ok(Asked::Run(options)) => options,
        Ok(Asked::Help) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Ok(Asked::Version) => {
            println!(
                "redis-cli 7.0.15 (built into theater {})",
                env!("CARGO_PKG_VERSION")
            );
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    if options.last_from_input {
        let mut input = Vec::new();
        if let Err(error) = std::io::stdin().read_to_end(&mut input) {
            eprintln!("Error reading from stdin: {error}");
            return ExitCode::FAILURE;
        }
        options.command.push(input);
    }
    let result = if options.command.is_empty() {
        lines(&options)
    } else {
        Client::new(&options).and_then(|mut client| client.repeat(&options.command.clone()))
    };
    match result {
        Ok(ok) if ok || !options.fail => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

struct Client<'a> {
    options: &'a Options,
    connection: Connection,
    raw: bool,
}

impl<'a> Client<'a> {
    fn new(options: &'a Options) -> Result<Self, String> {
        let mut connection = Connection::open(&options.host, options.port)?;
        if options.database != 0 {
            let select = [
                b"SELECT".to_vec(),
                options.database.to_string().into_bytes(),
            ];
            if let Answer::Error(error) = connection.ask(&select)? {
                eprintln!(
                    "SELECT {} failed: {}",
                    options.database,
                    String::from_utf8_lossy(&error)
                );
            }
        }
        let raw = options
            .raw
            .unwrap_or_else(|| !std::io::stdout().is_terminal());
        Ok(Client {
            options,
            connection,
            raw,
        })
    }

    /// Whether every reply was none of an error.
    fn repeat(&mut self, command: &[Vec<u8>]) -> Result<bool, String> {
        let mut ok = true;
        let mut left = self.options.repeat;
        while left != 0 {
            ok &= self.once(command)?;
            left -= i64::from(left > 0);
            if left != 0 {
                std::thread::sleep(self.options.interval);
            }
        }
        Ok(ok)
    }

    fn once(&mut self, command: &[Vec<u8>]) -> Result<bool, String> {
        let name = command[0].to_ascii_lowercase();
        let answer = match self.connection.ask(command) {
            // The server ends without a word.
            Err(_) if name == b"shutdown" => return Ok(true),
            answer => answer?,
        };
        let ok = !matches!(answer, Answer::Error(_));
        self.show(&answer)?;
        if ok && matches!(name.as_slice(), b"subscribe" | b"psubscribe") {
            loop {
                let message = self.connection.read()?;
                self.show(&message)?;
            }
        }
        Ok(ok)
    }

    fn show(&self, answer: &Answer) -> Result<(), String> {
        let text = if self.raw {
            format::raw(answer)
        } else {
            format::for_people(answer)
        };
        let result = if self.options.fail && matches!(answer, Answer::Error(_)) {
            std::io::stderr().write_all(&text)
        } else {
            let mut out = std::io::stdout().lock();
            out.write_all(&text).and_then(|()| out.flush())
        };
        result.map_err(|error| error.to_string())
    }
}

fn lines(options: &Options) -> Result<bool, String> {
    let input = std::io::stdin();
    let prompt = input.is_terminal();
    let mut client = Client::new(options)?;
    let mut ok = true;
    let mut input = input.lock();
    let mut line = Vec::new();
    loop {
        if prompt {
            print!("{}:{}> ", options.host, options.port);
            let _ = std::io::stdout().flush();
        }
        line.clear();
        if input
            .read_until(b'\n', &mut line)
            .map_err(|error| error.to_string())?
            == 0
        {
            return Ok(ok);
        }
        let Some(words) = crate::request::split_line(&line) else {
            println!("Invalid argument(s)");
            ok = false;
            continue;
        };
        match words
            .first()
            .map(|word| word.to_ascii_lowercase())
            .as_deref()
        {
            None => {}
            Some(b"quit" | b"exit") => return Ok(ok),
            Some(_) => ok &= client.repeat(&words)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<Vec<u8>> {
        line.split(' ')
            .map(|word| word.as_bytes().to_vec())
            .collect()
    }

    #[test]
    fn options_end_where_the_command_begins() {
        let Ok(Asked::Run(options)) = parse(args("-h redis -p 7000 -n 2 --raw -r 3 SET a -1"))
        else {
            panic!("refused");
        };
        assert_eq!(
            (options.host.as_str(), options.port, options.database),
            ("redis", 7000, 2)
        );
        assert_eq!((options.raw, options.repeat), (Some(true), 3));
        assert_eq!(options.command, args("SET a -1"));
    }

    #[test]
    fn options_that_are_not_known_are_refused() {
        for line in ["--cluster info", "-p x", "-n", "-z"] {
            assert!(parse(args(line)).is_err(), "{line}");
        }
    }
}
