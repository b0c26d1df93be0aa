//! What must come of a command, and whether it did. Pure.

use anyhow::{Context, Result};
use regex::Regex;
use serde::Deserialize;

/// What must come of a command.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Expectation {
    /// Its exit status; 0 unless said otherwise.
    #[serde(default)]
    pub exit: i32,
    /// Another exit status that is as good, where it depends on how fast things go.
    #[serde(default)]
    pub or_exit: Option<i32>,
    /// Expressions that standard output must match; `^` and `$` are ends of lines.
    #[serde(default)]
    pub out: Vec<String>,
    /// Expressions that standard error must match.
    #[serde(default)]
    pub err: Vec<String>,
    /// Expressions that neither may match.
    #[serde(default)]
    pub not: Vec<String>,
    /// How many lines of standard output are not empty.
    #[serde(default)]
    pub lines: Option<usize>,
    /// How many of the answers are of one kind.
    #[serde(default)]
    pub share: Option<Share>,
}

/// A part of many answers that chance decides.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The answers that count: lines that match.
    pub of: String,
    /// How many there are in all.
    pub total: u64,
    /// The probability of one of them; 0 and 1 are exact.
    pub p: f64,
}

/// What a command left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Exit status; `None` when it did not end in time.
    pub exit: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// How many standard deviations a share may be off: one false alarm in some three million runs.
const SIGMAS: f64 = 5.0;

impl Expectation {
    /// Whether all its expressions can be read.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn check(&self) -> Result<()> {
        for text in self.out.iter().chain(&self.err).chain(&self.not) {
            expression(text)?;
        }
        if let Some(share) = &self.share {
            expression(&share.of)?;
        }
        Ok(())
    }

    /// Everything that is not as expected, in sentences; nothing when all is well.
    #[must_use]
    pub fn problems(&self, outcome: &Outcome) -> Vec<String> {
        let mut problems = Vec::new();
        match outcome.exit {
            Some(exit) if exit == self.exit || Some(exit) == self.or_exit => {}
            Some(exit) => problems.push(format!("exit status {exit}, expected {}", self.exit)),
            None => problems.push("it did not end in time".to_owned()),
        }
        problems.extend(self.text_problems(outcome));
        problems
    }

    /// Like [`Expectation::problems`], whatever the exit status: for a command that still runs.
    #[must_use]
    pub fn text_problems(&self, outcome: &Outcome) -> Vec<String> {
        let mut problems = Vec::new();
        let matches = |pattern: &str, text: &str| {
            expression(pattern).is_ok_and(|expression| expression.is_match(text))
        };
        for pattern in &self.out {
            if !matches(pattern, &outcome.out) {
                problems.push(format!("standard output does not match /{pattern}/"));
            }
        }
        for pattern in &self.err {
            if !matches(pattern, &outcome.err) {
                problems.push(format!("standard error does not match /{pattern}/"));
            }
        }
        for pattern in &self.not {
            if matches(pattern, &outcome.out) || matches(pattern, &outcome.err) {
                problems.push(format!("/{pattern}/ must not be there"));
            }
        }
        if let Some(expected) = self.lines {
            let seen = outcome
                .out
                .lines()
                .filter(|line| !line.trim().is_empty())
                .count();
            if seen != expected {
                problems.push(format!("{seen} lines, expected {expected}"));
            }
        }
        if let Some(share) = &self.share {
            problems.extend(share.problem(&outcome.out));
        }
        problems
    }
}

impl Share {
    fn problem(&self, text: &str) -> Option<String> {
        let expression = expression(&self.of).ok()?;
        let seen: u64 = text
            .lines()
            .filter(|line| expression.is_match(line))
            .map(count)
            .sum();
        #[expect(clippy::cast_precision_loss, reason = "counts of a few hundred")]
        let (seen_f, total) = (seen as f64, self.total as f64);
        let mean = total * self.p;
        let off = SIGMAS * (mean * (1.0 - self.p)).sqrt();
        ((seen_f - mean).abs() > off).then(|| {
            format!(
                "{seen} of {} answers match /{}/, expected {mean:.0} give or take {off:.0}",
                self.total, self.of
            )
        })
    }
}

/// How many answers a line stands for: `uniq -c` writes the number before it.
fn count(line: &str) -> u64 {
    let counted = line.starts_with(' ').then(|| line.trim_start());
    counted
        .and_then(|line| line.split_once(' '))
        .and_then(|(number, _)| number.parse().ok())
        .unwrap_or(1)
}

fn expression(text: &str) -> Result<Regex> {
    Regex::new(&format!("(?m){text}")).with_context(|| format!("expression /{text}/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expectation(text: &str) -> Expectation {
        yaml_serde::from_str(text).unwrap()
    }

    fn outcome(exit: i32, out: &str) -> Outcome {
        Outcome {
            exit: Some(exit),
            out: out.to_owned(),
            err: String::new(),
        }
    }

    #[test]
    fn every_part_that_differs_is_told() {
        let expectation = expectation("{exit: 1, out: ['^b$'], err: [no], not: [a], lines: 1}");
        assert_eq!(
            expectation.problems(&outcome(0, "a\nc\n")).len(),
            5,
            "{:?}",
            expectation.problems(&outcome(0, "a\nc\n"))
        );
        let good = Outcome {
            exit: Some(1),
            out: "b\n".into(),
            err: "no\n".into(),
        };
        assert_eq!(expectation.problems(&good), Vec::<String>::new());
    }

    #[test]
    fn shares_are_counted_by_lines_and_by_uniq() {
        let expectation = expectation("share: {of: v2, total: 100, p: 0.1}");
        assert!(
            expectation
                .problems(&outcome(0, "     91 v1\n      9 v2\n"))
                .is_empty()
        );
        assert!(
            !expectation
                .problems(&outcome(0, "     50 v1\n     50 v2\n"))
                .is_empty()
        );
        let all = self::expectation("share: {of: v2, total: 3, p: 1}");
        assert!(all.problems(&outcome(0, "v2\nv2\nv2\n")).is_empty());
        assert!(!all.problems(&outcome(0, "v2\nv2\nv1\n")).is_empty());
    }

    #[test]
    fn a_command_that_hangs_has_failed() {
        assert!(
            !Expectation::default()
                .problems(&Outcome::default())
                .is_empty()
        );
    }
}
