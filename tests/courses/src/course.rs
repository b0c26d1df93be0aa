//! The data of a course: what is typed, in which order, and what must come of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::expectation::Expectation;
use crate::terminal::Typed;

/// A course, as in `course.yaml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Course {
    /// What it teaches, for the table.
    pub title: String,
    /// Directories and files of the learner's working directory, by their path there; the values are
    /// relative to the course's directory.
    #[serde(default)]
    pub files: BTreeMap<String, PathBuf>,
    /// Texts that stand for something of the reader's own, and what is typed here instead.
    #[serde(default)]
    pub substitute: BTreeMap<String, String>,
    /// Further arguments of `theater up`.
    #[serde(default)]
    pub up: Vec<String>,
    /// Shell commands that prepare what the course takes for granted.
    #[serde(default)]
    pub before: Vec<String>,
    /// The rows in the order in which they are typed.
    pub rows: Vec<Row>,
    /// Where `course.yaml` is.
    #[serde(skip)]
    pub directory: PathBuf,
}

/// One command of a course.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Its name, the same for ever.
    pub id: String,
    /// The program it is about.
    #[serde(default = "kubectl")]
    pub tool: String,
    /// What is typed, verbatim.
    pub run: String,
    /// An earlier row with the same command, perhaps of another course; such rows are not counted twice.
    #[serde(default)]
    pub same_as: Option<String>,
    /// Substitutions of this row only; they go before those of the course.
    #[serde(default)]
    pub with: BTreeMap<String, String>,
    /// Shell commands that bring about what the course takes for granted here: an alternative to earlier rows, or
    /// a new chapter.
    #[serde(default)]
    pub before: Vec<String>,
    /// What must come of it.
    #[serde(flatten)]
    pub expectation: Expectation,
    /// The row is typed in a terminal: what is typed there, and when.
    #[serde(default)]
    pub terminal: Option<Vec<Typed>>,
    /// How long, in seconds, a command that only looks is repeated until it shows what is expected.
    #[serde(default)]
    pub patience: u64,
    /// The command runs until it is interrupted, which happens as soon as it and `then` are as expected.
    #[serde(default)]
    pub interrupt: bool,
    /// Further commands that show that the row did what it says.
    #[serde(default)]
    pub then: Vec<Check>,
    /// The row is input of another row and judged there.
    #[serde(default)]
    pub part_of: Option<String>,
    /// Why the row cannot do what the course says on any Kubernetes; its expectation is what a real one answers.
    #[serde(default)]
    pub never: Option<String>,
    /// The feature that the row still waits for.
    #[serde(default)]
    pub missing: Option<String>,
}

/// A command that looks at the effect of a row.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The command.
    pub run: String,
    /// What it must show.
    #[serde(flatten)]
    pub expectation: Expectation,
    /// Seconds until it must.
    #[serde(default = "check_patience")]
    pub patience: u64,
}

fn kubectl() -> String {
    "kubectl".into()
}

fn check_patience() -> u64 {
    20
}

impl Course {
    /// Reads and checks `DIRECTORY/course.yaml`.
    ///
    /// # Errors
    /// When it cannot be read, names a row twice, or says two things of one row.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join("course.yaml");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut course: Course =
            yaml_serde::from_str(&text).with_context(|| path.display().to_string())?;
        course.directory = directory.to_owned();
        let mut seen = BTreeSet::new();
        for row in &course.rows {
            ensure!(
                seen.insert(row.id.as_str()),
                "{}: row {} is there twice",
                path.display(),
                row.id
            );
            ensure!(
                row.part_of
                    .as_ref()
                    .is_none_or(|other| seen.contains(other.as_str())),
                "{}: row {} is part of a row that is not before it",
                path.display(),
                row.id
            );
            ensure!(
                row.never.is_none() || row.missing.is_none(),
                "{}: row {} both waits for a feature and never works",
                path.display(),
                row.id
            );
            row.expectation
                .check()
                .with_context(|| format!("{}: row {}", path.display(), row.id))?;
        }
        Ok(course)
    }

    /// Its short name: that of its directory.
    #[must_use]
    pub fn name(&self) -> String {
        self.directory
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    /// The files of the learner's directory with their sources.
    #[must_use]
    pub fn sources(&self) -> Vec<(String, PathBuf)> {
        self.files
            .iter()
            .map(|(name, source)| (name.clone(), self.directory.join(source)))
            .collect()
    }

    /// What is really typed for `row`.
    #[must_use]
    pub fn typed(&self, row: &Row) -> String {
        let mut text = row.run.clone();
        for (placeholder, value) in row.with.iter().chain(&self.substitute) {
            text = text.replace(placeholder, value);
        }
        text
    }
}

/// The courses beside this crate, in the order of their names.
///
/// # Errors
/// When one of them is not well-formed.
pub fn all(root: &Path) -> Result<Vec<Course>> {
    let mut directories: Vec<PathBuf> = std::fs::read_dir(root)
        .with_context(|| root.display().to_string())?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.join("course.yaml").is_file())
        .collect();
    directories.sort();
    directories.iter().map(|path| Course::read(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(text: &str) -> Result<Course> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("course.yaml"), text).unwrap();
        Course::read(directory.path())
    }

    #[test]
    fn the_readers_own_names_are_filled_in() {
        let course = course(
            "title: t\nsubstitute: {'<node-name>': node-a}\nrows:\n\
             - {id: A, run: 'kubectl label nodes <node-name> a=b'}\n\
             - {id: B, run: 'kubectl label nodes <node-name> a=b', with: {'<node-name>': node-b}}\n",
        )
        .unwrap();
        assert_eq!(
            course.typed(&course.rows[0]),
            "kubectl label nodes node-a a=b"
        );
        assert_eq!(
            course.typed(&course.rows[1]),
            "kubectl label nodes node-b a=b"
        );
    }

    #[test]
    fn a_row_that_is_there_twice_or_says_two_things_is_refused() {
        assert!(course("title: t\nrows: [{id: A, run: a}, {id: A, run: b}]").is_err());
        assert!(course("title: t\nrows: [{id: A, run: a, never: x, missing: y}]").is_err());
        assert!(course("title: t\nrows: [{id: A, run: a, out: ['(']}]").is_err());
        assert!(course("title: t\nrows: [{id: A, run: a, outt: [x]}]").is_err());
    }
}
