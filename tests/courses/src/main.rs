//! `theater-courses`: types the courses against a theater of their own and tells which rows do what they promise.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use theater_courses::course::{self, Course};
use theater_courses::parity::{self, Commands};
use theater_courses::session::Session;
use theater_courses::table::{self, State};
use theater_courses::{run, terminal, world};

/// What a real control plane answered, among the data.
const RECORDED: &str = "parity/recorded.yaml";

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
    /// Write the tables of all rows and commands to this directory and run nothing
    #[arg(long)]
    write: Option<PathBuf>,
    #[command(subcommand)]
    inner: Option<Inner>,
}

/// What this program does when it calls itself.
#[derive(Subcommand)]
enum Inner {
    /// Types the commands of parity/commands.yaml and compares the answers with those recorded from a real control plane
    Parity {
        /// Ask the cluster of this kubeconfig instead, and record its answers
        #[arg(long)]
        record: Option<PathBuf>,
    },
    /// Compares in the namespaces it has been started in
    #[command(hide = true)]
    InsideParity,
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
        Some(Inner::Parity {
            record: Some(config),
        }) => return record(arguments, config),
        Some(Inner::Parity { record: None }) => {
            let good = again(arguments, vec!["inside-parity".to_owned()])?;
            return Ok(if good {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        Some(Inner::InsideParity) => return compare(arguments),
        None => {}
    }
    let courses = course::all(&arguments.data)?;
    if let Some(directory) = &arguments.write {
        let mut pages = vec![("courses.md", table::page(&courses))];
        // Without recorded answers there is nothing to tell.
        if arguments.data.join(RECORDED).is_file() {
            pages.push(("kubectl-parity.md", parity::page(&commands(arguments)?)));
        }
        for (name, page) in pages {
            let file = directory.join(name);
            std::fs::write(&file, page).with_context(|| file.display().to_string())?;
        }
        return Ok(ExitCode::SUCCESS);
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
        good &= again(arguments, vec!["inside".to_owned(), name])?;
    }
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// This program again in a world of its own; whether all was well there.
fn again(arguments: &Arguments, what: Vec<String>) -> Result<bool> {
    if !arguments.theater.is_file() {
        bail!(
            "{} is not there; build it (cargo build) or name another one with --theater",
            arguments.theater.display()
        );
    }
    let mut inner = vec![
        "--theater".to_owned(),
        absolute(&arguments.theater)?,
        "--data".to_owned(),
        absolute(&arguments.data)?,
    ];
    if arguments.verbose {
        inner.push("--verbose".to_owned());
    }
    inner.extend(what);
    let status = world::command(&inner)
        .status()
        .context("cannot start unshare (package util-linux)")?;
    Ok(status.success())
}

fn commands(arguments: &Arguments) -> Result<Commands> {
    Commands::read(&arguments.data.join("parity/commands.yaml"))
}

/// Asks the cluster of a kubeconfig; the file itself stays as it is.
fn record(arguments: &Arguments, config: &Path) -> Result<ExitCode> {
    let directory = tempfile::tempdir()?;
    let own = directory.path().join("config");
    std::fs::copy(config, &own).with_context(|| config.display().to_string())?;
    let mut shell = Session::start(directory.path(), &directory.path().join("said"))?;
    shell.run(
        &format!("export KUBECONFIG={} LC_ALL=C.UTF-8", own.display()),
        Duration::from_secs(10),
    )?;
    let answers = parity::ask(&commands(arguments)?, &mut shell)?;
    let file = arguments.data.join(RECORDED);
    let text = format!(
        "# What a real Kubernetes 1.32 control plane (with kwok for the nodes) answered, masked. Recorded by\n\
         # tests/courses/run parity --record KUBECONFIG; never written by hand.\n{}",
        yaml_serde::to_string(&answers)?
    );
    std::fs::write(&file, text).with_context(|| file.display().to_string())?;
    println!("{} answers in {}", answers.len(), file.display());
    Ok(ExitCode::SUCCESS)
}

/// Asks a fresh theater and compares; fails for a difference that has no reason in the data.
fn compare(arguments: &Arguments) -> Result<ExitCode> {
    let commands = commands(arguments)?;
    let recorded = std::fs::read_to_string(arguments.data.join(RECORDED))?;
    let recorded: Vec<parity::Answer> = yaml_serde::from_str(&recorded)?;
    world::enter(&arguments.theater, &[])?;
    let _theater = world::Theater::start(&[])?;
    let mut shell = Session::start(
        &Path::new(world::ROOT).join("course"),
        &Path::new(world::ROOT).join("said"),
    )?;
    shell.run(run::ENVIRONMENT, Duration::from_secs(30))?;
    let answers = parity::ask(&commands, &mut shell)?;
    let different = parity::compare(&recorded, &answers);
    let mut unknown = 0;
    for (run, difference) in &different {
        let reason = commands.differences.get(run);
        if reason.is_none() {
            unknown += 1;
        }
        if reason.is_none() || arguments.verbose {
            println!("$ {run}\n{difference}");
            if let Some(reason) = reason {
                println!("  known: {reason}");
            }
        }
    }
    for run in commands.differences.keys() {
        if !different.iter().any(|(other, _)| other == run) {
            println!("$ {run}\nis equal now: take it off the list of differences");
        }
    }
    println!(
        "kubectl on two servers: {} of {} answers equal, {unknown} different without a reason",
        answers.len() - different.len(),
        answers.len()
    );
    Ok(if unknown == 0 {
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
    world::enter(&arguments.theater, &course.sources())?;
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
