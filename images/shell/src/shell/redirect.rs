//! Redirections, on descriptors that are not ours to close.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::ast::{Redirection, Target};
use super::state::{Run, Shell};

/// Where saved descriptors begin: scripts use the lower ones.
const SAVED_FROM: RawFd = 10;

/// Descriptors as they were.
#[derive(Default)]
pub struct Saved(Vec<(RawFd, Option<RawFd>)>);

impl Saved {
    /// Puts everything back.
    pub fn restore(mut self) {
        for (fd, saved) in self.0.drain(..).rev() {
            // Safety: plain numbers; the saved ones belong to this value alone.
            unsafe {
                match saved {
                    Some(saved) => {
                        libc::dup2(saved, fd);
                        libc::close(saved);
                    }
                    None => {
                        libc::close(fd);
                    }
                }
            }
        }
    }

    /// Leaves everything as it is now.
    pub fn keep(mut self) {
        for (_, saved) in self.0.drain(..) {
            if let Some(saved) = saved {
                // Safety: see `restore`.
                unsafe { libc::close(saved) };
            }
        }
    }

    fn save(&mut self, fd: RawFd) {
        // Safety: a copy of a descriptor, or an error when there is none.
        let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, SAVED_FROM) };
        self.0.push((fd, (copy >= 0).then_some(copy)));
    }
}

/// Carries redirections out; the inner error says which one cannot be.
pub fn apply(shell: &mut Shell, redirections: &[Redirection]) -> Run<Result<Saved, String>> {
    let mut saved = Saved::default();
    for redirection in redirections {
        let result = one(shell, redirection, &mut saved)?;
        if let Err(error) = result {
            saved.restore();
            return Ok(Err(error));
        }
    }
    Ok(Ok(saved))
}

fn one(shell: &mut Shell, redirection: &Redirection, saved: &mut Saved) -> Run<Result<(), String>> {
    let fd = redirection.fd;
    let (word, options) = match &redirection.target {
        Target::Read(word) => (word, OpenOptions::new().read(true).clone()),
        Target::Write(word) => (
            word,
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .clone(),
        ),
        Target::Append(word) => (word, OpenOptions::new().append(true).create(true).clone()),
        Target::ReadWrite(word) => (
            word,
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .clone(),
        ),
        Target::Here(body) => {
            let text = shell.text_of(&body.borrow())?;
            return Ok(here(&text).map(|file| {
                saved.save(fd);
                become_fd(&file, fd);
            }));
        }
        Target::Duplicate(word) => {
            let text = shell.text_of(word)?;
            saved.save(fd);
            if text == "-" {
                // Safety: closing what the script asks to be closed.
                unsafe { libc::close(fd) };
                return Ok(Ok(()));
            }
            let Ok(from) = text.parse::<RawFd>() else {
                return Ok(Err(format!("{text}: bad file descriptor")));
            };
            // Safety: plain numbers.
            let done = unsafe { libc::dup2(from, fd) };
            return Ok(if done < 0 {
                Err(format!("{from}: Bad file descriptor"))
            } else {
                Ok(())
            });
        }
    };
    let path = shell.text_of(word)?;
    Ok(match options.open(&path).and_then(out_of_the_way) {
        Ok(file) => {
            saved.save(fd);
            become_fd(&file, fd);
            Ok(())
        }
        Err(error) => {
            let what = if matches!(redirection.target, Target::Read(_)) {
                "open"
            } else {
                "create"
            };
            Err(format!(
                "can't {what} {path}: {}",
                crate::output::reason(&error)
            ))
        }
    })
}

/// A file whose number is none that scripts use: it must not be the one it is to be put at.
fn out_of_the_way(file: File) -> std::io::Result<File> {
    if file.as_raw_fd() >= SAVED_FROM {
        return Ok(file);
    }
    // Safety: a fresh descriptor, owned by the file at once.
    unsafe {
        let fd = libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, SAVED_FROM);
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(<File as std::os::fd::FromRawFd>::from_raw_fd(fd))
    }
}

/// A file with the text, ready to be read; a pipe would block when the text is long.
fn here(text: &str) -> Result<File, String> {
    let name = c"here-document";
    // Safety: a fresh descriptor, owned by the file at once.
    let file = unsafe {
        let fd = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC);
        if fd < 0 {
            return Err(format!(
                "here-document: {}",
                std::io::Error::last_os_error()
            ));
        }
        <File as std::os::fd::FromRawFd>::from_raw_fd(fd)
    };
    let mut file = out_of_the_way(file).map_err(|error| format!("here-document: {error}"))?;
    file.write_all(text.as_bytes())
        .and_then(|()| std::io::Seek::rewind(&mut file))
        .map_err(|error| format!("here-document: {error}"))?;
    Ok(file)
}

/// A pipe whose ends do not reach programs.
pub fn pipe() -> Result<(OwnedFd, OwnedFd), String> {
    let raised = |end: OwnedFd| out_of_the_way(File::from(end)).map(OwnedFd::from);
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
        .map_err(std::io::Error::from)
        .and_then(|(read, write)| Ok((raised(read)?, raised(write)?)))
        .map_err(|error| format!("can't make a pipe: {error}"))
}

/// Puts a copy at `fd`, which programs inherit.
pub fn become_fd(file: &impl AsRawFd, fd: RawFd) {
    // Safety: plain numbers.
    unsafe {
        if file.as_raw_fd() == fd {
            libc::fcntl(fd, libc::F_SETFD, 0);
        } else {
            libc::dup2(file.as_raw_fd(), fd);
        }
    }
}

/// Closes a descriptor in a process that will not close it otherwise.
pub fn close(file: &impl AsRawFd) {
    if file.as_raw_fd() > 2 {
        // Safety: only called in children, which end without dropping the owner.
        unsafe { libc::close(file.as_raw_fd()) };
    }
}

/// Standard input from `/dev/null`.
pub fn input_from_nowhere() {
    if let Ok(file) = File::open("/dev/null") {
        become_fd(&file, 0);
    }
}

/// Everything from a pipe.
pub fn read_after_fork(read: OwnedFd, output: &mut Vec<u8>) -> Result<(), String> {
    File::from(read)
        .read_to_end(output)
        .map(|_| ())
        .map_err(|error| error.to_string())
}
