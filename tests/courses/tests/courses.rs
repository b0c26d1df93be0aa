//! The rows that pass go on to pass, and the table says what the data says.

use std::path::{Path, PathBuf};
use std::process::Command;

use theater_courses::{course, parity, table};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_table_is_that_of_the_data() {
    let courses = course::all(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    let commands = Path::new(env!("CARGO_MANIFEST_DIR")).join("parity/commands.yaml");
    let commands = parity::Commands::read(&commands).unwrap();
    for (name, page) in [
        ("docs/courses.md", table::page(&courses)),
        ("docs/kubectl-parity.md", parity::page(&commands)),
    ] {
        let written = std::fs::read_to_string(root().join(name)).unwrap();
        assert!(
            written == page,
            "{name} is old; write it again: tests/courses/run --write docs"
        );
    }
}

/// The course that is typed with every run of the tests; `THEATER_COURSES=all` types all of them, which takes
/// several minutes, `parity` the commands that a real control plane was given too, and any other value the course of that name.
const TYPED: &str = "theater-first-edition";

#[test]
fn a_course_does_what_it_promises() {
    let chosen = std::env::var("THEATER_COURSES").unwrap_or_else(|_| TYPED.to_owned());
    let harness = Path::new(env!("CARGO_BIN_EXE_theater-courses"));
    let theater = harness.with_file_name("theater");
    let mut missing = Vec::new();
    if !theater.is_file() {
        missing.push(format!(
            "{} is not built; cargo build -p theater",
            theater.display()
        ));
    }
    let as_user = [
        "--user",
        "--map-root-user",
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "true",
    ];
    // Root needs no namespace of users.
    let root_needs = if nix::unistd::geteuid().is_root() {
        2
    } else {
        0
    };
    let namespaces = &as_user[root_needs..];
    for (program, arguments, what) in [
        ("kubectl", &["version", "--client"][..], "kubectl"),
        ("curl", &["--version"], "curl"),
        ("unshare", namespaces, "namespaces"),
    ] {
        let works = Command::new(program)
            .args(arguments)
            .output()
            .is_ok_and(|output| output.status.success());
        if !works {
            missing.push(format!("{what} cannot be used here ({program})"));
        }
    }
    if !missing.is_empty() {
        let ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!ci, "{}", missing.join("\n"));
        for line in &missing {
            eprintln!("skipped: {line}");
        }
        return;
    }
    let arguments: &[&[&str]] = match chosen.as_str() {
        "all" => &[&[], &["parity"]],
        "parity" => &[&["parity"]],
        course => &[&["--course", course]],
    };
    for arguments in arguments {
        let output = Command::new(harness)
            .current_dir(root())
            .arg("--theater")
            .arg(&theater)
            .args(*arguments)
            .output()
            .expect("the harness starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "rows that passed do not pass any more:\n{said}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        eprintln!("{said}");
    }
}
