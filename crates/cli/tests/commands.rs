//! What `theater` says without a running theater.

use std::path::Path;
use std::process::{Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_theater");

fn theater(language: &str, state: &Path, arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(arguments)
        .arg("--state-dir")
        .arg(state)
        .env_remove("THEATER_HOME")
        .env("THEATER_LANG", language)
        .stdin(Stdio::null())
        .output()
        .expect("theater")
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn help_names_every_command_for_people_and_none_of_the_others() {
    let output = Command::new(PROGRAM)
        .arg("--help")
        .output()
        .expect("theater");
    let (out, _) = texts(&output);
    assert!(output.status.success());
    for command in ["up", "env", "status", "down", "reset", "logs"] {
        let listed = out
            .lines()
            .any(|line| line.split_whitespace().next() == Some(command));
        assert!(listed, "{command} is missing in\n{out}");
    }
    assert!(!out.contains("applet"), "seen\n{out}");
}

#[test]
fn help_is_korean_where_the_language_is() {
    for command in [
        &["--help"][..],
        &["wan", "--help"],
        &["wan", "-h"],
        &["help", "wan"],
    ] {
        let output = Command::new(PROGRAM)
            .args(command)
            .env("THEATER_LANG", "ko")
            .output()
            .expect("theater");
        let (out, _) = texts(&output);
        assert!(output.status.success(), "{command:?}");
        let korean = out.contains("사용법: theater") && out.contains("옵션:");
        assert!(korean && !out.contains("Usage"), "{command:?}: seen\n{out}");
    }
}

#[test]
fn an_unknown_command_is_refused_with_usage() {
    let output = Command::new(PROGRAM).arg("upp").output().expect("theater");
    let (out, error) = texts(&output);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(out.is_empty(), "seen {out}");
    assert!(
        error.contains("unrecognized subcommand 'upp'") && error.contains("Usage"),
        "seen {error}"
    );
}

#[test]
fn commands_that_need_a_theater_say_that_none_is_running() {
    let state = tempfile::tempdir().expect("a directory");
    for command in [&["env"][..], &["status"], &["down"]] {
        let output = theater("en", state.path(), command);
        let (out, error) = texts(&output);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {error}");
        assert!(out.is_empty(), "{command:?}: a shell would evaluate {out}");
        assert_eq!(error.lines().count(), 1, "{command:?}: {error}");
        let directory = state.path().canonicalize().expect("the directory");
        assert!(
            error.contains("no theater is running")
                && error.contains("theater up")
                && error.contains(&*directory.to_string_lossy()),
            "{command:?}: {error}"
        );
    }
}

#[test]
fn messages_come_in_korean_too() {
    let state = tempfile::tempdir().expect("a directory");
    let output = theater("ko", state.path(), &["status"]);
    let (_, error) = texts(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("실행 중인 극장이 없습니다"), "seen {error}");
}

#[test]
fn a_file_left_by_a_dead_supervisor_fools_nobody() {
    let state = tempfile::tempdir().expect("a directory");
    let run = r#"{"pid":1,"domain":"localhost:1","apis":{}}"#;
    std::fs::write(state.path().join("run.json"), run).expect("written");
    drop(std::os::unix::net::UnixListener::bind(
        state.path().join("control.sock"),
    ));
    for command in [&["env"][..], &["status"], &["down"]] {
        let output = theater("en", state.path(), command);
        let (out, error) = texts(&output);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {out}{error}");
        assert!(
            error.contains("no theater is running"),
            "{command:?}: {error}"
        );
    }
}

#[test]
fn logs_name_the_clusters_there_are() {
    let state = tempfile::tempdir().expect("a directory");
    let output = theater("en", state.path(), &["logs", "ctx3"]);
    let (_, error) = texts(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error.contains("ctx1") && error.contains("ctx2"),
        "seen {error}"
    );
    let output = theater("en", state.path(), &["logs"]);
    let (_, error) = texts(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("no log"), "seen {error}");
}

#[test]
fn a_state_directory_that_cannot_be_made_is_named() {
    let state = tempfile::NamedTempFile::new().expect("a file");
    let output = theater("en", &state.path().join("below"), &["status"]);
    let (_, error) = texts(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error.contains("cannot make the state directory") && error.contains("below"),
        "seen {error}"
    );
}

#[test]
fn reset_without_a_theater_empties_the_state_directory() {
    let state = tempfile::tempdir().expect("a directory");
    std::fs::create_dir_all(state.path().join("ctx1/objects")).expect("made");
    std::fs::write(state.path().join("scene-applied"), "").expect("written");
    std::fs::write(state.path().join("authorities.json"), "{}").expect("written");
    let output = theater("en", state.path(), &["reset"]);
    assert!(output.status.success(), "{}", texts(&output).1);
    assert!(!state.path().join("ctx1").exists());
    assert!(!state.path().join("scene-applied").exists());
    assert!(state.path().join("authorities.json").exists());
    let output = theater("en", state.path(), &["reset", "--all"]);
    assert!(output.status.success(), "{}", texts(&output).1);
    assert!(!state.path().join("authorities.json").exists());
}
