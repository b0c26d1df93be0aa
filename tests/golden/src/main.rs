//! `cargo xtask golden DIR...`: which recorded answers of the real Istio are also ours.

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask golden [--all-paths] [--differing] DIR...

Compares Theater's answers with those recorded in the directories, or in directories below them. The last line is `N of M equal`;
the exit code is 0 when all are, 1 when some are not, 2 when a directory has nothing to compare.

  --all-paths   every path that differs, not only the first of each case
  --differing   only cases that differ";

fn main() -> ExitCode {
    let (mut all_paths, mut differing, mut directories) = (false, false, Vec::new());
    for argument in std::env::args_os().skip(1) {
        match argument.to_str() {
            Some("--all-paths") => all_paths = true,
            Some("--differing") => differing = true,
            Some("-h" | "--help") => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            Some(option) if option.starts_with('-') => {
                eprintln!("golden: no option is called `{option}`\n\n{USAGE}");
                return ExitCode::from(2);
            }
            _ => directories.push(argument),
        }
    }
    if directories.is_empty() {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    let (mut outcomes, mut unreadable) = (Vec::new(), false);
    for directory in &directories {
        match theater_golden::compare(Path::new(directory)) {
            Ok(more) => outcomes.extend(more),
            Err(error) => {
                eprintln!("golden: {error:#}");
                unreadable = true;
            }
        }
    }
    print!(
        "{}",
        theater_golden::report::render(&outcomes, all_paths, differing)
    );
    if unreadable {
        ExitCode::from(2)
    } else if outcomes
        .iter()
        .all(|outcome| outcome.differences.is_empty())
    {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
