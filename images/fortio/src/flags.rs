//! Flags as Go programs have them: `-c 8`, `-c=8`, `--c 8`; switches take a value only after `=`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Parsed flags and what came after them.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    values: BTreeMap<String, Vec<String>>,
    /// Arguments that are no flags.
    pub rest: Vec<String>,
}

impl Flags {
    /// `valued` take a value, `switches` none.
    ///
    /// # Errors
    /// For a flag that is in neither list, or has no value.
    pub fn parse(args: &[String], valued: &[&str], switches: &[&str]) -> Result<Self> {
        let mut flags = Flags::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let Some(name) = arg.strip_prefix('-').filter(|name| !name.is_empty()) else {
                // Go's flags end at the first argument that is none.
                flags.rest.push(arg.clone());
                flags.rest.extend(args.cloned());
                break;
            };
            let name = name.strip_prefix('-').unwrap_or(name);
            if name.is_empty() {
                flags.rest.extend(args.cloned());
                break;
            }
            let (name, attached) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            let value = if switches.contains(&name) {
                let value = attached.unwrap_or_else(|| "true".into());
                if !["true", "false"].contains(&value.as_str()) {
                    bail!("invalid boolean value {value:?} for -{name}");
                }
                value
            } else if valued.contains(&name) {
                attached
                    .or_else(|| args.next().cloned())
                    .with_context(|| format!("flag needs an argument: -{name}"))?
            } else {
                bail!("flag provided but not defined: -{name}");
            };
            flags.values.entry(name.to_owned()).or_default().push(value);
        }
        Ok(flags)
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.last().map(String::as_str)
    }

    pub fn all(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    pub fn is_on(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    pub fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> Result<T> {
        match self.text(name) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .ok()
                .with_context(|| format!("invalid value {text:?} for flag -{name}: parse error")),
        }
    }

    pub fn duration(&self, name: &str, default: Duration) -> Result<Duration> {
        match self.text(name) {
            None => Ok(default),
            Some(text) => duration(text)
                .with_context(|| format!("invalid value {text:?} for flag -{name}: parse error")),
        }
    }
}

/// Go's durations: `1m30s`, `250ms`, `0`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        sum += number
            * match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty()).then(|| Duration::from_secs_f64(sum))
}

/// As Go prints durations: `1m0s`, `1.5s`, `12.3ms`.
pub(crate) fn shown(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let trim = |value: f64, digits: usize| {
        let text = format!("{value:.digits$}");
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text
        }
    };
    let seconds = duration.as_secs_f64();
    match nanos {
        0 => "0s".into(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", trim(seconds * 1e6, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", trim(seconds * 1e3, 6)),
        _ => {
            let whole = duration.as_secs();
            let (hours, minutes) = (whole / 3600, whole / 60 % 60);
            let rest = trim(seconds - as_f64(whole - whole % 60), 9);
            match (hours, minutes) {
                (0, 0) => format!("{rest}s"),
                (0, minutes) => format!("{minutes}m{rest}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{rest}s"),
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds of a run")]
fn as_f64(seconds: u64) -> f64 {
    seconds as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_gos_flags() {
        let args: Vec<String> = "-c 8 --qps=100 -quiet -H a:b -H c:d http://web/ -x"
            .split(' ')
            .map(str::to_owned)
            .collect();
        let flags = Flags::parse(&args, &["c", "qps", "H"], &["quiet"]).unwrap();
        assert_eq!(flags.number("c", 4).unwrap(), 8);
        assert!(flags.is_on("quiet"));
        assert_eq!(flags.all("H"), ["a:b", "c:d"]);
        assert_eq!(flags.rest, ["http://web/", "-x"]);
        let unknown = Flags::parse(&["-nope".into()], &[], &[]).unwrap_err();
        assert_eq!(unknown.to_string(), "flag provided but not defined: -nope");
    }

    #[test]
    fn durations_are_read_and_shown_as_in_go() {
        for (text, shown_as) in [
            ("60s", "1m0s"),
            ("1m30s", "1m30s"),
            ("250ms", "250ms"),
            ("1.5s", "1.5s"),
            ("0", "0s"),
            ("2h", "2h0m0s"),
        ] {
            assert_eq!(shown(duration(text).unwrap()), shown_as);
        }
        assert_eq!(duration("5"), None);
        assert_eq!(duration(""), None);
    }
}
