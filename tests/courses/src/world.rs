//! A world for one course: its own network, processes, mounts and `/tmp`, so that every port and path the
//! course names is free, whatever else runs on the machine, and nothing is left afterwards.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};

/// Where everything of the course is once [`enter`] has been called.
pub const ROOT: &str = "/tmp";

/// How long a theater may take to start on a busy machine.
const START: Duration = Duration::from_secs(240);

/// This program again, in new namespaces; `arguments` tell it what to do there.
#[must_use]
pub fn command(arguments: &[String]) -> Command {
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args([
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
    ]);
    // Its path, for /proc/self is unshare's by then.
    command.arg(std::env::current_exe().unwrap_or_else(|_| PathBuf::from("theater-courses")));
    command.args(arguments);
    command
}

/// The first thing in the new namespaces: an empty `/tmp` with the programs and `files` (name in the learner's
/// directory, source), and a loopback interface that is up.
///
/// # Errors
/// When the machine does not allow it.
pub fn enter(theater: &Path, files: &[(String, PathBuf)]) -> Result<()> {
    loopback_up().context("cannot bring up the loopback interface")?;
    let base = tempfile::tempdir().context("a temporary directory")?;
    let at = base.path();
    mount(
        Some("tmpfs"),
        at,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=1777"),
    )
    .context("cannot mount a directory in memory")?;
    for directory in ["bin", "home", "course"] {
        std::fs::create_dir(at.join(directory))?;
    }
    for (program, name) in [
        (theater.to_owned(), "theater"),
        (std::env::current_exe()?, "theater-courses"),
    ] {
        let target = at.join("bin").join(name);
        File::create(&target)?;
        mount(
            Some(&program),
            &target,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .with_context(|| format!("cannot show {}", program.display()))?;
    }
    for (name, source) in files {
        copy(source, &at.join("course").join(name))?;
    }
    mount(Some(at), ROOT, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .context("cannot replace /tmp")?;
    // Its directory is out of sight from here on and was empty.
    let _ = base.keep();
    std::env::set_current_dir(Path::new(ROOT).join("course"))?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let about = || format!("{} -> {}", from.display(), to.display());
    if !from.is_dir() {
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::copy(from, to).with_context(about)?;
        return Ok(());
    }
    std::fs::create_dir_all(to).with_context(about)?;
    for entry in std::fs::read_dir(from).with_context(about)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

fn loopback_up() -> Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: an all-zero ifreq is valid; the name fits.
    let mut request: nix::libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = (*from).cast_signed();
    }
    request.ifr_ifru.ifru_flags = (nix::libc::IFF_UP | nix::libc::IFF_RUNNING) as i16;
    // SAFETY: the request lives until the call returns.
    let answer =
        unsafe { nix::libc::ioctl(socket.as_raw_fd(), nix::libc::SIOCSIFFLAGS as _, &request) };
    if answer != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(())
}

/// A running theater.
pub struct Theater {
    supervisor: Child,
}

impl Theater {
    /// Starts a fresh one, with further `arguments` of `theater up`, and waits until it says that it is ready.
    ///
    /// # Errors
    /// When it is not ready in time, with what it said.
    pub fn start(arguments: &[String]) -> Result<Self> {
        let log = Path::new(ROOT).join("up.log");
        let output = File::create(&log)?;
        let mut supervisor = Command::new(Path::new(ROOT).join("bin/theater"))
            .args(["up", "--state-dir", "/tmp/state"])
            .args(arguments)
            .env("HOME", "/tmp/home")
            .env("THEATER_LANG", "en")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("cannot start theater")?;
        let deadline = Instant::now() + START;
        loop {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            if said.lines().any(|line| line.starts_with("Ready in ")) {
                return Ok(Self { supervisor });
            }
            if supervisor.try_wait()?.is_some() || Instant::now() > deadline {
                // What still runs ends with the namespace.
                bail!("theater up did not become ready; it said:\n{said}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Theater {
    fn drop(&mut self) {
        // The whole world ends with this process; waiting for an orderly end would only take time.
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
    }
}
