//! Looks at files and makes files, and prints what it sees: how volumes are tested.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::flags::{Flag, Flags};

/// What a new file gets, and what a loop waits for.
const CONTENT: &str = "mount-tester new file\n";

/// Between two looks at a file.
const PERIOD: Duration = Duration::from_secs(2);

/// Does all that the flags say, in a fixed order: type of the file system, new files, then questions about files.
pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    let flags = Flags::parse(
        args,
        &[
            Flag::Value("fs_type", ""),
            Flag::Value("file_mode", ""),
            Flag::Value("file_perm", ""),
            Flag::Value("file_owner", ""),
            Flag::Value("new_file_0644", ""),
            Flag::Value("new_file_0666", ""),
            Flag::Value("new_file_0660", ""),
            Flag::Value("new_file_0777", ""),
            Flag::Value("file_content", ""),
            Flag::Value("file_content_in_loop", ""),
            Flag::Value("retry_time", "180"),
            Flag::Switch("break_on_expected_content", true),
        ],
    )?;
    let retry = Duration::from_secs(flags.get("retry_time")?);
    let until_expected: bool = flags.get("break_on_expected_content")?;
    // Modes are what the flags say.
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    let mut well = true;
    let mut step = |name: &str, what: &dyn Fn(&str) -> bool| {
        let path = flags.text(name);
        if !path.is_empty() {
            well &= what(path);
        }
    };
    step("fs_type", &file_system_type);
    for (flag, mode) in [
        ("new_file_0644", 0o644),
        ("new_file_0666", 0o666),
        ("new_file_0660", 0o660),
        ("new_file_0777", 0o777),
    ] {
        step(flag, &|path| new_file(path, mode));
    }
    step("file_mode", &|path| {
        about(path, "Stat", |m| {
            println!("mode of file {path:?}: {}", mode_text(m, true));
        })
    });
    step("file_perm", &|path| {
        about(path, "Stat", |m| {
            println!("perms of file {path:?}: {}", mode_text(m, false));
        })
    });
    step("file_owner", &|path| {
        about(path, "stat", |m| {
            println!("owner UID of {path:?}: {}", m.uid());
            println!("owner GID of {path:?}: {}", m.gid());
        })
    });
    step("file_content", &content);
    step("file_content_in_loop", &|path| {
        watch(path, retry, until_expected)
    });
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn file_system_type(path: &str) -> bool {
    match nix::sys::statfs::statfs(path) {
        Ok(found) if found.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC => {
            println!("mount type of {path:?}: tmpfs");
            true
        }
        Ok(found) => {
            println!("mount type of {path:?}: {}", found.filesystem_type().0);
            true
        }
        Err(error) => {
            println!("error from statfs({path:?}): {error}");
            false
        }
    }
}

fn new_file(path: &str, mode: u32) -> bool {
    let made = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(CONTENT.as_bytes()));
    match made {
        Ok(()) => content(path),
        Err(error) => {
            println!("error writing new file {path:?}: {}", reason(path, &error));
            false
        }
    }
}

fn about(path: &str, call: &str, print: impl Fn(&fs::Metadata)) -> bool {
    match fs::metadata(path) {
        Ok(found) => {
            print(&found);
            true
        }
        Err(error) => {
            println!("error from {call}({path:?}): {}", reason(path, &error));
            false
        }
    }
}

fn content(path: &str) -> bool {
    match fs::read(path) {
        Ok(bytes) => {
            println!(
                "content of file {path:?}: {}",
                String::from_utf8_lossy(&bytes)
            );
            true
        }
        Err(error) => {
            println!(
                "error reading file content for {path:?}: {}",
                reason(path, &error)
            );
            false
        }
    }
}

/// Prints the content again and again, for `retry` or until it is what new files have.
fn watch(path: &str, retry: Duration, until_expected: bool) -> bool {
    let start = Instant::now();
    let mut well = true;
    while start.elapsed() < retry {
        match fs::read(path) {
            Err(error) => {
                println!(
                    "Error reading file {path}: {}, retrying",
                    reason(path, &error)
                );
                well = false;
            }
            Ok(bytes) => {
                well = true;
                let seen = String::from_utf8_lossy(&bytes);
                println!("content of file {path:?}: {seen}");
                if until_expected {
                    if seen == CONTENT {
                        break;
                    }
                    println!("Unexpected content. Expected: {CONTENT}. Retrying");
                }
            }
        }
        std::thread::sleep(PERIOD);
    }
    well
}

/// An error as Go words it: `open /x: no such file or directory`.
fn reason(path: &str, error: &io::Error) -> String {
    let text = error.raw_os_error().map_or_else(
        || error.to_string(),
        |code| nix::errno::Errno::from_raw(code).desc().to_lowercase(),
    );
    format!("open {path}: {text}")
}

/// A mode as Go prints it: `-rw-r--r--`, `dtrwxrwxrwx`; without `kind` only the permissions, `-rwxrwxrwx`.
fn mode_text(found: &fs::Metadata, kind: bool) -> String {
    let bits = found.permissions().mode();
    let mut out = String::new();
    if kind {
        let t = found.file_type();
        for (is, letters) in [
            (t.is_dir(), "d"),
            (t.is_symlink(), "L"),
            (t.is_block_device(), "D"),
            (t.is_fifo(), "p"),
            (t.is_socket(), "S"),
            (bits & 0o4000 != 0, "u"),
            (bits & 0o2000 != 0, "g"),
            (t.is_char_device(), "Dc"),
            (bits & 0o1000 != 0, "t"),
        ] {
            if is {
                out.push_str(letters);
            }
        }
    }
    if out.is_empty() {
        out.push('-');
    }
    for (i, letter) in "rwxrwxrwx".chars().enumerate() {
        out.push(if bits & (1 << (8 - i)) != 0 {
            letter
        } else {
            '-'
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_written_as_go_does() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "x").unwrap();
        let set = |path: &std::path::Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            fs::metadata(path).unwrap()
        };
        assert_eq!(mode_text(&set(&file, 0o640), true), "-rw-r-----");
        assert_eq!(mode_text(&set(&file, 0o2440), true), "gr--r-----");
        assert_eq!(mode_text(&set(&file, 0o2440), false), "-r--r-----");
        assert_eq!(mode_text(&set(dir.path(), 0o1777), true), "dtrwxrwxrwx");
        set(dir.path(), 0o700);
    }

    #[test]
    fn a_missing_file_is_a_failure() {
        let args = vec!["--file_content=/nonexistent/file".to_owned()];
        assert_eq!(run(&args).unwrap(), ExitCode::FAILURE);
    }
}
