//! The learner's shell: one bash for a whole course, so that `cd`, variables and jobs last.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::expectation::Outcome;

/// How often files that another process writes are looked at.
const POLL: Duration = Duration::from_millis(20);

/// How long an interrupted program may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// One bash.
pub struct Session {
    bash: Child,
    stdin: ChildStdin,
    directory: PathBuf,
    commands: usize,
}

/// A command that was typed and perhaps still runs.
pub struct Running {
    out: PathBuf,
    err: PathBuf,
    exit: PathBuf,
}

impl Session {
    /// Starts it in `home`; what it says is kept in `directory`.
    ///
    /// # Errors
    /// When bash does not start.
    pub fn start(home: &Path, directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let mut bash = Command::new("bash")
            .args(["--noprofile", "--norc"])
            .current_dir(home)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start bash")?;
        let stdin = bash.stdin.take().context("bash has no standard input")?;
        let mut session = Self {
            bash,
            stdin,
            directory: directory.to_owned(),
            commands: 0,
        };
        // A program that dies of Ctrl-C does not take the shell with it. Jobs as in a shell that somebody types in. Waiting is what a reader of the course does between
        // two commands; a tenth of it is enough here.
        writeln!(
            session.stdin,
            "set -m; trap : INT\nsleep() {{ command sleep \"$(awk \"BEGIN {{print ${{1:-1}} / 10}}\")\"; }}"
        )?;
        Ok(session)
    }

    /// Types `command`.
    ///
    /// # Errors
    /// When bash is gone.
    pub fn begin(&mut self, command: &str) -> Result<Running> {
        self.commands += 1;
        let file = |kind: &str| self.directory.join(format!("{}.{kind}", self.commands));
        let running = Running {
            out: file("out"),
            err: file("err"),
            exit: file("exit"),
        };
        let typed = file("sh");
        std::fs::write(&typed, command)?;
        let exit = running.exit.display();
        // Two lines: an interrupt ends the line it comes in.
        writeln!(
            self.stdin,
            "eval \"$(cat {})\" >{} 2>{} </dev/null\necho $? >{exit}.new; mv {exit}.new {exit}",
            typed.display(),
            running.out.display(),
            running.err.display(),
        )
        .context("bash has ended")?;
        Ok(running)
    }

    /// Types `command` and waits for its end, at most `limit`; then it is interrupted.
    ///
    /// # Errors
    /// When bash is gone.
    pub fn run(&mut self, command: &str, limit: Duration) -> Result<Outcome> {
        let running = self.begin(command)?;
        let deadline = Instant::now() + limit;
        while running.exit().is_none() {
            if Instant::now() > deadline {
                let mut outcome = running.seen();
                self.stop(&running)?;
                outcome.exit = None;
                return Ok(outcome);
            }
            std::thread::sleep(POLL);
        }
        Ok(running.seen())
    }

    /// Interrupts what runs in the foreground, as Ctrl-C does, and waits for its end.
    ///
    /// # Errors
    /// When it does not end even when it is killed.
    pub fn stop(&mut self, running: &Running) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE * 6 {
            // Again and again: the first signal may come before the program has begun to listen.
            let signal = if started.elapsed() < PATIENCE {
                Signal::SIGINT
            } else {
                Signal::SIGKILL
            };
            for group in self.foreground() {
                // It may have ended by itself.
                let _ = kill(Pid::from_raw(-group), signal);
            }
            let again = Instant::now() + Duration::from_secs(1);
            while Instant::now() < again {
                if running.exit().is_some() {
                    return Ok(());
                }
                std::thread::sleep(POLL);
            }
        }
        bail!("the command does not end")
    }

    /// Process groups of the children that are not in the background: bash gives a job a group of its own and
    /// the newest one is what it waits for.
    fn foreground(&self) -> Vec<i32> {
        let pid = self.bash.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        children
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|child| child.parse().ok())
            .max()
            .into_iter()
            .collect()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Everything it has started ends with the namespace of the processes.
        let _ = self.bash.kill();
        let _ = self.bash.wait();
    }
}

impl Running {
    /// Its exit status, once it has ended.
    #[must_use]
    pub fn exit(&self) -> Option<i32> {
        std::fs::read_to_string(&self.exit)
            .ok()
            .and_then(|text| text.trim().parse().ok())
    }

    /// What it has written so far.
    #[must_use]
    pub fn seen(&self) -> Outcome {
        let read = |path: &Path| {
            let bytes = std::fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Outcome {
            exit: self.exit(),
            out: read(&self.out),
            err: read(&self.err),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn directories_variables_and_jobs_last_from_one_command_to_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let mut session = Session::start(directory.path(), &directory.path().join("said")).unwrap();
        session.run("cd /; export A=b", LIMIT).unwrap();
        let outcome = session.run("echo $PWD $A; false", LIMIT).unwrap();
        assert_eq!((outcome.exit, outcome.out.as_str()), (Some(1), "/ b\n"));
        session.run("command sleep 100 &", LIMIT).unwrap();
        session.run("OWN=$!", LIMIT).unwrap();
        assert_eq!(session.run("kill $OWN", LIMIT).unwrap().exit, Some(0));
        let documents = session.run("cat <<EOF\nx $A\nEOF", LIMIT).unwrap();
        assert_eq!(documents.out, "x b\n");
    }

    #[test]
    fn a_command_that_does_not_end_is_interrupted_and_the_shell_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let mut session = Session::start(directory.path(), &directory.path().join("said")).unwrap();
        let hung = session.run("command sleep 1000", Duration::ZERO).unwrap();
        assert_eq!(hung.exit, None);
        assert_eq!(session.run("echo on", LIMIT).unwrap().out, "on\n");
    }
}
