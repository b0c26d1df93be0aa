//! Options as POSIX has them, and how programs end that were asked wrongly.

use std::io;

/// Why a program could not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was asked wrongly.
    Usage(String),
    /// It could not.
    Message(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Message(crate::output::reason(&error))
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Failure::Message(text)
    }
}

/// The end of a program: its status, or why there is none.
pub(crate) type Ended = Result<i32, Failure>;

/// An error about a file.
pub(crate) fn about(name: &str, error: &io::Error) -> Failure {
    Failure::Message(format!("{name}: {}", crate::output::reason(error)))
}

/// Parsed arguments.
#[derive(Debug, Default)]
pub(crate) struct Options {
    given: Vec<(char, String)>,
    pub operands: Vec<String>,
}

impl Options {
    /// `known`: letters, each followed by `:` when it takes a value. Options may stand
    /// between operands, unless `known` begins with `+`.
    pub(crate) fn parse(args: &[String], known: &str) -> Result<Self, Failure> {
        let (known, early) = match known.strip_prefix('+') {
            Some(known) => (known, true),
            None => (known, false),
        };
        let mut options = Options::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if arg == "--" {
                break;
            }
            let Some(letters) = arg.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
                options.operands.push(arg.clone());
                if early {
                    break;
                }
                continue;
            };
            if letters.starts_with('-') {
                return Err(Failure::Usage(format!("unrecognized option '{arg}'")));
            }
            for (index, letter) in letters.char_indices() {
                let at = known.find(letter).filter(|_| letter != ':');
                let Some(at) = at else {
                    return Err(Failure::Usage(format!("unrecognized option '-{letter}'")));
                };
                if known[at + 1..].starts_with(':') {
                    let attached = &arg[1 + index + letter.len_utf8()..];
                    let value = if attached.is_empty() {
                        args.next().cloned()
                    } else {
                        Some(attached.to_owned())
                    };
                    let value = value.ok_or_else(|| {
                        Failure::Usage(format!("option '-{letter}' needs a value"))
                    })?;
                    options.given.push((letter, value));
                    break;
                }
                options.given.push((letter, String::new()));
            }
        }
        options.operands.extend(args.cloned());
        Ok(options)
    }

    pub(crate) fn has(&self, letter: char) -> bool {
        self.given.iter().any(|(given, _)| *given == letter)
    }

    /// Whether the later of the two is `letter`.
    pub(crate) fn last_of(&self, letter: char, other: char) -> bool {
        let last = self
            .given
            .iter()
            .rev()
            .find(|(given, _)| *given == letter || *given == other);
        last.is_some_and(|(given, _)| *given == letter)
    }

    pub(crate) fn value(&self, letter: char) -> Option<&str> {
        self.given
            .iter()
            .rev()
            .find(|(given, _)| *given == letter)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn values(&self, letter: char) -> impl Iterator<Item = &str> {
        self.given
            .iter()
            .filter(move |(given, _)| *given == letter)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, letter: char) -> Result<Option<T>, Failure> {
        let Some(text) = self.value(letter) else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|_| Failure::Usage(format!("-{letter}: invalid number '{text}'")))
    }

    /// Exactly so many operands.
    pub(crate) fn exactly<const N: usize>(&self) -> Result<&[String; N], Failure> {
        self.operands
            .as_slice()
            .try_into()
            .map_err(|_| Failure::Usage(format!("{N} arguments expected")))
    }

    /// At least so many operands.
    pub(crate) fn at_least(&self, count: usize) -> Result<(), Failure> {
        if self.operands.len() < count {
            return Err(Failure::Usage("too few arguments".into()));
        }
        Ok(())
    }

    /// At most so many operands.
    pub(crate) fn at_most(&self, count: usize) -> Result<(), Failure> {
        match self.operands.get(count) {
            Some(extra) => Err(Failure::Usage(format!("extra argument '{extra}'"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str, known: &str) -> Result<Options, Failure> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Options::parse(&args, known)
    }

    #[test]
    fn forms() {
        let options = parse("-ab x -n5 -n 6 -- -y", "abn:").unwrap();
        assert!(options.has('a') && options.has('b'));
        assert_eq!(options.number::<u32>('n').unwrap(), Some(6));
        assert_eq!(options.operands, ["x", "-y"]);
        assert_eq!(parse("a -b", "+b").unwrap().operands, ["a", "-b"]);
        for (line, known) in [("-x", "a"), ("--all", "a"), ("-n", "n:"), ("-:", "n:")] {
            assert!(parse(line, known).is_err(), "{line}");
        }
    }
}
