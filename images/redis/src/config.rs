//! Settings: command line, configuration file, `CONFIG GET` and `CONFIG SET`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

/// When changes are forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before the answer.
    Always,
    /// Every second, in the background.
    EverySecond,
    /// When the kernel likes.
    No,
}

/// The settings of a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Addresses to listen on.
    pub bind: Vec<IpAddr>,
    /// Port to listen on; 0: any.
    pub port: u16,
    /// Where the data is.
    pub dir: PathBuf,
    /// Whether changes are kept on disk.
    pub append_only: bool,
    /// When they are forced to it.
    pub fsync: Fsync,
    /// The first part of the names of its files.
    pub append_file: String,
    /// Its directory within `dir`.
    pub append_dir: String,
    /// `--save`; snapshots are not written, the text is only given back.
    pub save: String,
    /// How many databases there are.
    pub databases: usize,
    /// Most bytes of one argument.
    pub bulk_limit: usize,
    /// Most bytes of one request.
    pub request_limit: usize,
    /// Most connections.
    pub max_clients: usize,
    /// Growth in percent that makes a rewrite due.
    pub rewrite_percentage: u64,
    /// Least bytes for it.
    pub rewrite_min: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            bind: vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
            port: 6379,
            dir: ".".into(),
            append_only: false,
            fsync: Fsync::EverySecond,
            append_file: "appendonly.aof".into(),
            append_dir: "appendonlydir".into(),
            save: String::new(),
            databases: 16,
            bulk_limit: 512 << 20,
            request_limit: 1 << 30,
            max_clients: 10_000,
            rewrite_percentage: 100,
            rewrite_min: 64 << 20,
        }
    }
}

/// Why a setting was refused.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum Error {
    /// No such setting here.
    #[error("Bad directive '{0}': not a setting of this server")]
    Unknown(String),
    /// It does not take this value.
    #[error("'{name} {value}': {reason}")]
    Value {
        /// The setting.
        name: String,
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file cannot be read.
    #[error("can't open config file '{0}': {1}")]
    File(String, String),
}

impl Config {
    /// Settings from a command line without the program's name: an optional configuration
    /// file first, then `--name value…`.
    ///
    /// # Errors
    /// The first setting that is not understood.
    pub fn from_args(args: &[String]) -> Result<Self, Error> {
        let mut config = Config::default();
        let mut rest = args;
        if let Some((file, after)) = rest.split_first()
            && !file.starts_with("--")
        {
            let text = std::fs::read_to_string(file)
                .map_err(|error| Error::File(file.clone(), error.to_string()))?;
            config.apply_file(&text)?;
            rest = after;
        }
        while let Some((flag, after)) = rest.split_first() {
            let Some(name) = flag.strip_prefix("--") else {
                return Err(Error::Unknown(flag.clone()));
            };
            let count = after
                .iter()
                .position(|word| word.starts_with("--"))
                .unwrap_or(after.len());
            config.set(name, &after[..count].join(" "))?;
            rest = &after[count..];
        }
        Ok(config)
    }

    /// Settings from the text of a configuration file.
    ///
    /// # Errors
    /// The first setting that is not understood.
    pub fn apply_file(&mut self, text: &str) -> Result<(), Error> {
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let words: Vec<String> = crate::request::split_line(line.as_bytes())
                .ok_or_else(|| Error::Unknown(line.to_owned()))?
                .into_iter()
                .map(|word| String::from_utf8_lossy(&word).into_owned())
                .collect();
            let (name, values) = words
                .split_first()
                .ok_or_else(|| Error::Unknown(line.into()))?;
            self.set(name, &values.join(" "))?;
        }
        Ok(())
    }

    /// Changes one setting.
    ///
    /// # Errors
    /// It does not exist, or does not take this value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let refused = |reason: &str| Error::Value {
            name: name.to_owned(),
            value: value.to_owned(),
            reason: reason.to_owned(),
        };
        let number = |least: u64, most: u64| {
            value
                .parse::<u64>()
                .ok()
                .filter(|number| (least..=most).contains(number))
                .ok_or_else(|| refused(&format!("argument must be between {least} and {most}")))
        };
        let memory =
            || parse_memory(value).ok_or_else(|| refused("argument must be a memory value"));
        let yes = || match value.to_ascii_lowercase().as_str() {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => Err(refused("argument must be 'yes' or 'no'")),
        };
        // What is on by nature or cannot be had at all: only that value is taken.
        let only = |accepted: &[&str]| {
            if accepted.contains(&value.to_ascii_lowercase().as_str()) {
                Ok(())
            } else {
                Err(refused(&format!(
                    "this server only knows {}",
                    accepted.join(", ")
                )))
            }
        };
        match name.to_ascii_lowercase().as_str() {
            "port" => self.port = number(0, 65535)? as u16,
            "bind" => {
                self.bind = parse_bind(value).ok_or_else(|| refused("IP addresses expected"))?
            }
            "dir" => self.dir = PathBuf::from(value),
            "appendonly" => self.append_only = yes()?,
            "appendfsync" => {
                self.fsync = match value.to_ascii_lowercase().as_str() {
                    "always" => Fsync::Always,
                    "everysec" => Fsync::EverySecond,
                    "no" => Fsync::No,
                    _ => {
                        return Err(refused(
                            "argument(s) must be one of the following: everysec, always, no",
                        ));
                    }
                }
            }
            "appendfilename" => {
                self.append_file =
                    plain_name(value).ok_or_else(|| refused("a file name, not a path"))?
            }
            "appenddirname" => {
                self.append_dir = plain_name(value).ok_or_else(|| refused("a name, not a path"))?
            }
            "save" => {
                self.save = parse_save(value).ok_or_else(|| refused("Invalid save parameters"))?
            }
            "databases" => self.databases = number(1, 1024)? as usize,
            "proto-max-bulk-len" => {
                self.bulk_limit = usize::try_from(memory()?)
                    .unwrap_or(usize::MAX)
                    .clamp(1, 512 << 20);
            }
            "client-query-buffer-limit" => {
                self.request_limit = usize::try_from(memory()?)
                    .unwrap_or(usize::MAX)
                    .max(1 << 20);
            }
            "maxclients" => self.max_clients = number(1, 1_000_000)? as usize,
            "auto-aof-rewrite-percentage" => {
                self.rewrite_percentage = number(0, u64::from(u32::MAX))?
            }
            "auto-aof-rewrite-min-size" => self.rewrite_min = memory()?,
            "daemonize"
            | "cluster-enabled"
            | "aof-use-rdb-preamble"
            | "protected-mode"
            | "always-show-logo" => only(&["no"])?,
            "tcp-keepalive" | "timeout" | "maxmemory" => only(&["0"])?,
            "loglevel" => only(&["notice"])?,
            "logfile" | "requirepass" => only(&[""])?,
            "maxmemory-policy" => only(&["noeviction"])?,
            "supervised" => only(&["no", "auto"])?,
            "aof-load-truncated" => only(&["yes"])?,
            _ => return Err(Error::Unknown(name.to_owned())),
        }
        Ok(())
    }

    /// Every setting with its value as text, in alphabetical order.
    #[must_use]
    pub fn list(&self) -> Vec<(&'static str, String)> {
        let yes = |flag: bool| if flag { "yes" } else { "no" }.to_owned();
        let bind: Vec<String> = self.bind.iter().map(ToString::to_string).collect();
        vec![
            ("appenddirname", self.append_dir.clone()),
            ("appendfilename", self.append_file.clone()),
            (
                "appendfsync",
                match self.fsync {
                    Fsync::Always => "always",
                    Fsync::EverySecond => "everysec",
                    Fsync::No => "no",
                }
                .to_owned(),
            ),
            ("appendonly", yes(self.append_only)),
            ("auto-aof-rewrite-min-size", self.rewrite_min.to_string()),
            (
                "auto-aof-rewrite-percentage",
                self.rewrite_percentage.to_string(),
            ),
            ("bind", bind.join(" ")),
            ("client-query-buffer-limit", self.request_limit.to_string()),
            ("databases", self.databases.to_string()),
            ("dir", absolute(&self.dir)),
            ("maxclients", self.max_clients.to_string()),
            ("maxmemory", "0".to_owned()),
            ("maxmemory-policy", "noeviction".to_owned()),
            ("port", self.port.to_string()),
            ("proto-max-bulk-len", self.bulk_limit.to_string()),
            ("requirepass", String::new()),
            ("save", self.save.clone()),
            ("timeout", "0".to_owned()),
        ]
    }
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path)
        .unwrap_or_else(|_| path.to_owned())
        .display()
        .to_string()
}

fn plain_name(value: &str) -> Option<String> {
    (!value.is_empty() && !value.contains('/') && value != "." && value != "..")
        .then(|| value.to_owned())
}

/// `*` is every address; a leading `-` lets an address be absent.
fn parse_bind(value: &str) -> Option<Vec<IpAddr>> {
    value
        .split_whitespace()
        .map(|word| match word.strip_prefix('-').unwrap_or(word) {
            "*" => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            "::*" => Some(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)),
            "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            address => address.parse().ok(),
        })
        .collect::<Option<Vec<_>>>()
        .filter(|addresses| !addresses.is_empty())
}

fn parse_save(value: &str) -> Option<String> {
    let words: Vec<&str> = value
        .split_whitespace()
        .filter(|word| *word != "\"\"")
        .collect();
    (words.len().is_multiple_of(2) && words.iter().all(|word| word.parse::<u32>().is_ok()))
        .then(|| words.join(" "))
}

fn parse_memory(value: &str) -> Option<u64> {
    let lower = value.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str]) -> Result<Config, Error> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        Config::from_args(&args)
    }

    #[test]
    fn flags_as_the_real_server_takes_them() {
        let config = config(&[
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--dir",
            "/data",
            "--port",
            "7000",
            "--bind",
            "127.0.0.1",
            "::1",
            "--save",
            "900",
            "1",
            "--auto-aof-rewrite-min-size",
            "1mb",
        ])
        .unwrap();
        assert!(config.append_only);
        assert_eq!(config.fsync, Fsync::Always);
        assert_eq!(config.port, 7000);
        assert_eq!(config.bind.len(), 2);
        assert_eq!(config.save, "900 1");
        assert_eq!(config.rewrite_min, 1 << 20);
    }

    #[test]
    fn a_file_and_then_flags() {
        let mut config = Config::default();
        config
            .apply_file("# comment\nport 7001\nsave \"\"\n\nappendfilename \"a.aof\"\n")
            .unwrap();
        assert_eq!((config.port, config.append_file.as_str()), (7001, "a.aof"));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for args in [
            &["--port", "70000"][..],
            &["--appendonly", "maybe"],
            &["--replicaof", "a", "1"],
            &["--requirepass", "secret"],
            &["--protected-mode", "yes"],
            &["--timeout", "300"],
            &["--appendfilename", "../x"],
            &["--save", "1"],
            &["/no/such/redis.conf"],
        ] {
            assert!(config(args).is_err(), "{args:?}");
        }
    }
}
