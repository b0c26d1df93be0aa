//! Flags as Go programs with POSIX flags take them: `--name=value`, `--name value`, `--switch`.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};

/// What a flag is: name, one-letter name, default.
pub(crate) enum Flag {
    /// Takes a value.
    Value(&'static str, &'static str),
    /// Takes a value; has a short name as well.
    Short(&'static str, char, &'static str),
    /// True or false; alone means true.
    Switch(&'static str, bool),
}

impl Flag {
    fn name(&self) -> &'static str {
        match self {
            Self::Value(name, _) | Self::Short(name, _, _) | Self::Switch(name, _) => name,
        }
    }
}

/// The values of a command line.
#[derive(Debug)]
pub(crate) struct Flags(BTreeMap<&'static str, String>);

impl Flags {
    /// Reads `args`; anything that `known` does not list is an error.
    pub fn parse(args: &[String], known: &[Flag]) -> Result<Self> {
        let mut values: BTreeMap<&'static str, String> = known
            .iter()
            .map(|flag| {
                let default = match flag {
                    Flag::Value(_, default) | Flag::Short(_, _, default) => (*default).to_owned(),
                    Flag::Switch(_, default) => default.to_string(),
                };
                (flag.name(), default)
            })
            .collect();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            // How much is logged is no matter here, but every command takes it.
            if let Some(rest) = arg.strip_prefix("-v").or_else(|| arg.strip_prefix("--v"))
                && let Ok(_) = rest.trim_start_matches('=').parse::<u32>()
            {
                continue;
            }
            let (flag, given) = if let Some(long) = arg.strip_prefix("--") {
                let (name, given) = match long.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (long, None),
                };
                let flag = known
                    .iter()
                    .find(|flag| flag.name() == name)
                    .ok_or_else(|| anyhow!("unknown flag: --{name}"))?;
                (flag, given)
            } else if let Some(short) = arg.strip_prefix('-').filter(|s| !s.is_empty()) {
                let mut letters = short.chars();
                let letter = letters.next().unwrap_or_default();
                let flag = known
                    .iter()
                    .find(|flag| matches!(flag, Flag::Short(_, l, _) if *l == letter))
                    .ok_or_else(|| anyhow!("unknown shorthand flag: {letter:?} in {arg}"))?;
                let rest = letters.as_str();
                let rest = rest.strip_prefix('=').unwrap_or(rest);
                (flag, (!rest.is_empty()).then(|| rest.to_owned()))
            } else {
                bail!("unexpected argument {arg:?}");
            };
            let value = match (flag, given) {
                (_, Some(value)) => value,
                (Flag::Switch(..), None) => "true".to_owned(),
                (_, None) => args
                    .next()
                    .cloned()
                    .ok_or_else(|| anyhow!("flag needs an argument: {arg}"))?,
            };
            values.insert(flag.name(), value);
        }
        Ok(Self(values))
    }

    /// The value as text.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// The value as what is wanted.
    pub fn get<T: FromStr>(&self, name: &str) -> Result<T> {
        let text = self.text(name);
        text.parse()
            .map_err(|_| anyhow!("invalid argument {text:?} for \"--{name}\" flag"))
    }

    /// A duration as Go writes it.
    pub fn duration(&self, name: &str) -> Result<Duration> {
        let text = self.text(name);
        duration(text).ok_or_else(|| anyhow!("invalid argument {text:?} for \"--{name}\" flag"))
    }
}

/// `1h2m3.5s`, `250ms`, `0`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..]
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .map_or(rest.len(), |at| at + end);
        total += number
            * match &rest[end..unit_end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then(|| Duration::from_secs_f64(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Flags> {
        let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        Flags::parse(
            &args,
            &[
                Flag::Value("port", "80"),
                Flag::Switch("tcp", false),
                Flag::Short("run-duration", 'd', "0"),
            ],
        )
    }

    #[test]
    fn flags_are_written_in_three_ways() {
        let flags = parse(&["--port=81", "--tcp", "-d", "1m30s"]).unwrap();
        assert_eq!(flags.get::<u16>("port").unwrap(), 81);
        assert!(flags.get::<bool>("tcp").unwrap());
        assert_eq!(
            flags.duration("run-duration").unwrap(),
            Duration::from_secs(90)
        );
        assert!(
            !parse(&["--port", "1", "--tcp=false"])
                .unwrap()
                .get::<bool>("tcp")
                .unwrap()
        );
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(
            parse(&["--ports=1"])
                .unwrap_err()
                .to_string()
                .contains("unknown flag: --ports")
        );
        assert!(parse(&["-x"]).is_err());
        assert!(parse(&["word"]).is_err());
        assert!(parse(&["--port"]).is_err());
    }
}
