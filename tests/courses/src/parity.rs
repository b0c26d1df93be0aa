//! The same commands on two servers: what a real control plane answered is recorded, masked, and compared with what ours answers.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::mask::mask;
use crate::session::Session;

/// How long one command may take.
const LIMIT: Duration = Duration::from_secs(120);

/// The commands, in order, and which of them answer differently.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commands {
    /// Shell commands that come first and are not compared.
    pub before: Vec<String>,
    /// Chapters with their commands.
    pub chapters: BTreeMap<String, Vec<String>>,
    /// Commands whose answers differ, and why.
    #[serde(default)]
    pub differences: BTreeMap<String, String>,
}

/// A masked answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The command.
    pub run: String,
    /// Exit status; -1 when it did not end.
    pub exit: i32,
    /// Standard output.
    #[serde(default)]
    pub out: String,
    /// Standard error.
    #[serde(default)]
    pub err: String,
}

impl Commands {
    /// Reads the commands.
    ///
    /// # Errors
    /// When the file is not well-formed, repeats a command, or gives a reason for a command that is not there.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let commands: Commands =
            yaml_serde::from_str(&text).with_context(|| path.display().to_string())?;
        let all: Vec<&String> = commands.chapters.values().flatten().collect();
        for difference in commands.differences.keys() {
            ensure!(
                all.contains(&difference),
                "{}: no command is {difference:?}",
                path.display()
            );
        }
        Ok(commands)
    }
}

/// Types every command and masks what is answered.
///
/// # Errors
/// When a command of the preparation fails.
pub fn ask(commands: &Commands, shell: &mut Session) -> Result<Vec<Answer>> {
    for command in &commands.before {
        let outcome = shell.run(command, LIMIT)?;
        ensure!(
            outcome.exit == Some(0),
            "this must work first: {command}\n{}{}",
            outcome.out,
            outcome.err
        );
    }
    let mut answers = Vec::new();
    for run in commands.chapters.values().flatten() {
        let outcome = shell.run(run, LIMIT)?;
        answers.push(Answer {
            run: run.clone(),
            exit: outcome.exit.unwrap_or(-1),
            out: mask(&outcome.out),
            err: mask(&outcome.err),
        });
    }
    Ok(answers)
}

/// The answers that differ: command, and both in a form to read. A recorded answer that is missing differs.
#[must_use]
pub fn compare(recorded: &[Answer], ours: &[Answer]) -> Vec<(String, String)> {
    // The same command may be typed again: its answers are told apart by their order.
    let mut real: BTreeMap<&str, VecDeque<&Answer>> = BTreeMap::new();
    for answer in recorded {
        real.entry(&answer.run).or_default().push_back(answer);
    }
    ours.iter()
        .filter_map(
            |own| match real.get_mut(own.run.as_str()).and_then(VecDeque::pop_front) {
                Some(real) if real == own => None,
                Some(real) => Some((own.run.clone(), lines(real, own))),
                None => Some((own.run.clone(), "there is no recorded answer".to_owned())),
            },
        )
        .collect()
}

/// The lines that only one of the two has.
fn lines(real: &Answer, own: &Answer) -> String {
    let mut text = String::new();
    if real.exit != own.exit {
        let _ = writeln!(text, "exit: real {}, ours {}", real.exit, own.exit);
    }
    for (name, real, own) in [("out", &real.out, &own.out), ("err", &real.err, &own.err)] {
        if real == own {
            continue;
        }
        let only = |a: &str, b: &str| -> Vec<String> {
            let b: Vec<&str> = b.lines().collect();
            a.lines()
                .filter(|line| !b.contains(line))
                .map(str::to_owned)
                .collect()
        };
        let (missing, added) = (only(real, own), only(own, real));
        if missing.is_empty() && added.is_empty() {
            let _ = writeln!(text, "{name}: the same lines in another order or number");
        }
        for line in missing.iter().take(12) {
            let _ = writeln!(text, "{name}: real only: {line}");
        }
        for line in added.iter().take(12) {
            let _ = writeln!(text, "{name}: ours only: {line}");
        }
    }
    text
}

/// `docs/kubectl-parity.md`.
#[must_use]
pub fn page(commands: &Commands) -> String {
    let all: usize = commands.chapters.values().map(Vec::len).sum();
    let different = commands.differences.len();
    let mut page = format!(
        "# kubectl on two servers\n\n\
         {all} commands were typed against a real Kubernetes 1.32 control plane, and their answers recorded with names, ages, identities,\n\
         addresses and versions masked (`tests/courses/parity`). `tests/courses/run parity` types the same commands here and compares exit status, standard\n\
         output and standard error: {} answers are equal, {different} differ for the reasons below. A difference that is not listed fails it.\n\n\
         | commands | equal | different |\n|---|---|---|\n",
        all - different
    );
    for (chapter, list) in &commands.chapters {
        let known = list
            .iter()
            .filter(|run| commands.differences.contains_key(*run))
            .count();
        let _ = writeln!(page, "| {chapter} | {} | {known} |", list.len() - known);
    }
    page.push_str("\n| command | why it differs |\n|---|---|\n");
    for (run, why) in &commands.differences {
        let first = run.lines().next().unwrap_or_default().replace('|', "\\|");
        let _ = writeln!(page, "| `{first}` | {} |", why.replace('|', "\\|"));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_differ_are_shown_line_by_line() {
        let answer = |out: &str| Answer {
            run: "kubectl get a".into(),
            exit: 0,
            out: out.into(),
            err: String::new(),
        };
        assert!(compare(&[answer("a\nb\n")], &[answer("a\nb\n")]).is_empty());
        let differences = compare(&[answer("a\nb\n")], &[answer("a\nc\n")]);
        assert_eq!(differences[0].1, "out: real only: b\nout: ours only: c\n");
        assert_eq!(compare(&[], &[answer("")]).len(), 1);
    }
}
