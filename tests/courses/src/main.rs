//! `theater-courses`: types the courses against a theater of their own and tells which rows do what they promise.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use theater_courses::course::{self, Course};
use theater_courses::table::{self, State};
use theater_courses::{run, terminal, world};

/// Types the commands of the courses, verbatim, against a fresh theater for each course
#[derive(Parser)]
#[command(name = "theater-courses")]
struct Arguments {
    /// The program under test
    #[arg(long, default_value = "target/debug/theater")]
    theater: PathBuf,
    /// Only this course, by the name of its directory; may be given several times
    #[arg(long = "course")]
    courses: Vec<String>,
    /// Where the courses are
    #[arg(long, default_value = "tests/courses")]
    data: PathBuf,
    /// Show the output of every row, not only of those that fail
    #[arg(long)]
    verbose: bool,
    /// Write the table of all rows to this file and run nothing
    #[arg(long)]
    write: Option<PathBuf>,
    #[command(subcommand)]
    inner: Option<Inner>,
}

/// What this program does when it calls itself.
#[derive(Subcommand)]
enum Inner {
    /// Runs one course in the namespaces it has been started in
    #[command(hide = true)]
    Inside { course: String },
    /// Runs a script in a terminal
    #[command(hide = true)]
    Terminal { script: PathBuf, typed: PathBuf },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match go(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("theater-courses: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn go(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.inner {
        Some(Inner::Terminal { script, typed }) => return in_terminal(script, typed),
        Some(Inner::Inside { course }) => return inside(arguments, course),
        None => {}
    }
    let courses = course::all(&arguments.data)?;
    if let Some(file) = &arguments.write {
        std::fs::write(file, table::page(&courses)).with_context(|| file.display().to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    if !arguments.theater.is_file() {
        bail!(
            "{} is not there; build it (cargo build) or name another one with --theater",
            arguments.theater.display()
        );
    }
    for name in &arguments.courses {
        if !courses.iter().any(|course| course.name() == *name) {
            bail!("there is no course {name}");
        }
    }
    let mut good = true;
    for course in &courses {
        let name = course.name();
        if !arguments.courses.is_empty() && !arguments.courses.contains(&name) {
            continue;
        }
        println!("== {name}: {}", course.title);
        let mut inner = vec![
            "--theater".to_owned(),
            absolute(&arguments.theater)?,
            "--data".to_owned(),
            absolute(&arguments.data)?,
        ];
        if arguments.verbose {
            inner.push("--verbose".to_owned());
        }
        inner.extend(["inside".to_owned(), name]);
        let status = world::command(&inner)
            .status()
            .context("cannot start unshare (package util-linux)")?;
        good &= status.success();
    }
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn absolute(path: &Path) -> Result<String> {
    let path = path
        .canonicalize()
        .with_context(|| path.display().to_string())?;
    Ok(path.to_string_lossy().into_owned())
}

fn in_terminal(script: &Path, typed: &Path) -> Result<ExitCode> {
    let typed: Vec<terminal::Typed> = yaml_serde::from_str(&std::fs::read_to_string(typed)?)?;
    let code = terminal::run(script, &typed, Duration::from_secs(90))?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Types one course; fails when a row that passes according to the data does not.
fn inside(arguments: &Arguments, name: &str) -> Result<ExitCode> {
    let course = Course::read(&arguments.data.join(name))?;
    world::enter(&arguments.theater, &course)?;
    let (mut passed, mut waiting, mut failed) = (0, 0, 0);
    run::course(&course, |row, judged, took| {
        let good = judged.problems.is_empty();
        let word = match (good, table::state(row)) {
            (true, State::Waits) => {
                waiting += 1;
                "waits, but passes now: take `missing` away"
            }
            (true, _) => {
                passed += 1;
                "ok"
            }
            (false, State::Waits) => {
                waiting += 1;
                "waits"
            }
            (false, _) => {
                failed += 1;
                "FAILED"
            }
        };
        println!("{} {word} ({:.1} s)", row.id, took.as_secs_f64());
        if word == "FAILED" || arguments.verbose {
            println!("    $ {}", course.typed(row).replace('\n', "\n    > "));
            for problem in &judged.problems {
                println!("    ! {problem}");
            }
            show("|", &judged.outcome.out);
            show("2", &judged.outcome.err);
        }
    })?;
    println!("{name}: {passed} passed, {waiting} waiting, {failed} failed");
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn show(mark: &str, text: &str) {
    let lines: Vec<&str> = text.lines().collect();
    for line in lines.iter().take(30) {
        println!("    {mark} {line}");
    }
    if lines.len() > 30 {
        println!("    {mark} … {} lines more", lines.len() - 30);
    }
}
