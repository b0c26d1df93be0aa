//! A terminal for commands that want one, with somebody who types.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use regex::Regex;
use serde::{Deserialize, Serialize};

/// Something that is typed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Typed {
    /// Waits until what has been shown since the last input matches.
    pub after: String,
    /// The line that is typed then; a newline is added.
    #[serde(rename = "type")]
    pub text: String,
}

/// Runs a bash script in a terminal and copies what it shows to standard output.
/// Answers with its exit status.
///
/// # Errors
/// When there is no terminal, or something that was waited for was not shown within `limit`.
pub fn run(script: &Path, typed: &[Typed], limit: Duration) -> Result<i32> {
    let size = Winsize {
        ws_row: 50,
        ws_col: 200,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pair = openpty(&size, None).context("cannot open a terminal")?;
    let mut command = Command::new("bash");
    command.arg(script);
    command
        .stdin(pair.slave.try_clone()?)
        .stdout(pair.slave.try_clone()?)
        .stderr(pair.slave.try_clone()?);
    // SAFETY: only system calls that are allowed between fork and exec.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            // SAFETY: standard input is the terminal.
            if nix::libc::ioctl(0, nix::libc::TIOCSCTTY as _, 0) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let mut child = command.spawn().context("cannot start bash")?;
    drop(command);
    drop(pair.slave);

    let deadline = Instant::now() + limit;
    let mut master = std::fs::File::from(pair.master);
    let mut screen = String::new();
    let mut shown = 0;
    let mut waiting = typed.iter();
    let mut next = waiting.next();
    loop {
        if let Some(input) = next {
            let expression = Regex::new(&format!("(?m){}", input.after))?;
            if expression.is_match(&screen[shown..]) {
                shown = screen.len();
                master.write_all(format!("{}\n", input.text).as_bytes())?;
                next = waiting.next();
                continue;
            }
        }
        if Instant::now() > deadline {
            // The group of the terminal; it may be gone already.
            let _ = nix::sys::signal::killpg(
                nix::unistd::Pid::from_raw(child.id().cast_signed()),
                nix::sys::signal::Signal::SIGKILL,
            );
            child.wait()?;
            bail!(
                "the terminal was closed after {limit:?}{}",
                next.map_or_else(String::new, |input| format!(
                    ", waiting for /{}/",
                    input.after
                ))
            );
        }
        let mut ready = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::from(100_u16))?;
        if ready[0].any() != Some(true) {
            continue;
        }
        let mut buffer = [0; 4096];
        // EIO is how a terminal says that nobody is at the other end any more.
        let Ok(count @ 1..) = master.read(&mut buffer) else {
            break;
        };
        let text = String::from_utf8_lossy(&buffer[..count]).replace('\r', "");
        print!("{text}");
        screen.push_str(&text);
    }
    std::io::stdout().flush()?;
    Ok(child.wait()?.code().unwrap_or(128))
}
