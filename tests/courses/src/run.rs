//! Types a course row by row and judges what comes of it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::course::{Check, Course, Row};
use crate::expectation::Outcome;
use crate::session::Session;
use crate::world::{ROOT, Theater};

/// How long one command may take.
const LIMIT: Duration = Duration::from_secs(300);

/// How often a command that looks is repeated.
const AGAIN: Duration = Duration::from_millis(300);

/// What a row asks for in patience is enough where nothing else runs; a busy machine needs more.
const BUSY: u32 = 4;

/// For how long a command with this patience, in seconds, is repeated.
fn patience(seconds: u64) -> Duration {
    Duration::from_secs(seconds) * BUSY
}

/// What a learner's shell begins with.
pub const ENVIRONMENT: &str = "export HOME=/tmp/home THEATER_LANG=en LC_ALL=C.UTF-8; \
     eval \"$(/tmp/bin/theater env --state-dir /tmp/state)\"";

/// What came of a row.
pub struct Judged {
    /// Its name.
    pub id: String,
    /// What was not as expected; nothing when it passed.
    pub problems: Vec<String>,
    /// What it showed last.
    pub outcome: Outcome,
}

/// The two shells of a course: the learner's, and one beside it in which effects are looked at.
struct Shells {
    learner: Session,
    beside: Session,
}

/// Starts a theater in the world this process is in, types `course` and hands each result to `tell`.
///
/// # Errors
/// When the theater does not start, or what the course takes for granted cannot be prepared.
pub fn course(course: &Course, mut tell: impl FnMut(&Row, &Judged, Duration)) -> Result<()> {
    let _theater = Theater::start(&course.up)?;
    let home = Path::new(ROOT).join("course");
    let mut shells = Shells {
        learner: Session::start(&home, &Path::new(ROOT).join("said/learner"))?,
        beside: Session::start(&home, &Path::new(ROOT).join("said/beside"))?,
    };
    for shell in [&mut shells.learner, &mut shells.beside] {
        prepare(shell, ENVIRONMENT)?;
    }
    for command in &course.before {
        prepare(&mut shells.learner, command)?;
    }
    let mut results: Vec<Judged> = Vec::new();
    for row in &course.rows {
        let started = Instant::now();
        let result = match &row.part_of {
            Some(other) => Judged {
                id: row.id.clone(),
                problems: results
                    .iter()
                    .find(|result| result.id == *other)
                    .map_or_else(Vec::new, |result| result.problems.clone()),
                outcome: Outcome::default(),
            },
            None => shells.row(course, row)?,
        };
        tell(row, &result, started.elapsed());
        results.push(result);
    }
    Ok(())
}

fn prepare(shell: &mut Session, command: &str) -> Result<()> {
    let outcome = shell.run(command, LIMIT)?;
    if outcome.exit != Some(0) {
        bail!(
            "the course cannot begin, for this fails: {command}\n{}{}",
            outcome.out,
            outcome.err
        );
    }
    Ok(())
}

impl Shells {
    fn row(&mut self, course: &Course, row: &Row) -> Result<Judged> {
        for command in &row.before {
            prepare(&mut self.beside, command)?;
        }
        let typed = course.typed(row);
        let (mut problems, outcome) = if row.interrupt {
            self.until_interrupted(row, &typed)?
        } else {
            self.once_or_until(row, &typed)?
        };
        if problems.is_empty() && !row.interrupt {
            for check in &row.then {
                problems.extend(self.look(check)?);
            }
        }
        Ok(Judged {
            id: row.id.clone(),
            problems,
            outcome,
        })
    }

    fn once_or_until(&mut self, row: &Row, typed: &str) -> Result<(Vec<String>, Outcome)> {
        let deadline = Instant::now() + patience(row.patience);
        loop {
            let outcome = match &row.terminal {
                Some(input) => self.in_terminal(typed, input)?,
                None => self.learner.run(typed, LIMIT)?,
            };
            let problems = row.expectation.problems(&outcome);
            if problems.is_empty() || Instant::now() >= deadline {
                return Ok((problems, outcome));
            }
            std::thread::sleep(AGAIN);
        }
    }

    fn in_terminal(&mut self, typed: &str, input: &[crate::terminal::Typed]) -> Result<Outcome> {
        let script = Path::new(ROOT).join("terminal.sh");
        let keys = Path::new(ROOT).join("terminal.yaml");
        std::fs::write(&script, typed)?;
        std::fs::write(&keys, yaml_serde::to_string(input).context("input")?)?;
        let command = format!(
            "/tmp/bin/theater-courses terminal {} {}",
            script.display(),
            keys.display()
        );
        self.learner.run(&command, LIMIT)
    }

    fn until_interrupted(&mut self, row: &Row, typed: &str) -> Result<(Vec<String>, Outcome)> {
        let running = self.learner.begin(typed)?;
        let deadline = Instant::now() + LIMIT.min(patience(row.patience.max(20)));
        let mut problems = loop {
            let seen = running.seen();
            let problems = row.expectation.text_problems(&seen);
            if problems.is_empty() || seen.exit.is_some() || Instant::now() > deadline {
                break problems;
            }
            std::thread::sleep(AGAIN);
        };
        if problems.is_empty() {
            for check in &row.then {
                problems.extend(self.look(check)?);
            }
        }
        if running.exit().is_some() {
            problems.push("it ended by itself".to_owned());
        } else {
            self.learner.stop(&running)?;
        }
        Ok((problems, running.seen()))
    }

    fn look(&mut self, check: &Check) -> Result<Vec<String>> {
        let deadline = Instant::now() + patience(check.patience);
        loop {
            let outcome = self.beside.run(&check.run, LIMIT)?;
            let problems = check.expectation.problems(&outcome);
            if problems.is_empty() {
                return Ok(Vec::new());
            }
            if Instant::now() >= deadline {
                return Ok(problems
                    .into_iter()
                    .map(|problem| {
                        format!(
                            "afterwards, `{}`: {problem}; seen: {}{}",
                            check.run, outcome.out, outcome.err
                        )
                    })
                    .collect());
            }
            std::thread::sleep(AGAIN);
        }
    }
}
