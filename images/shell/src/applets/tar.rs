//! `tar`, with which `kubectl cp` carries files.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, Builder, Entry, HeaderMode};

use super::complain;
use crate::options::{Ended, Failure, Options, about};
use crate::output;

pub(super) fn tar(args: &[String]) -> Ended {
    let (mut permissions, mut owner) = (true, true);
    let mut plain = Vec::new();
    for (i, arg) in args.iter().enumerate() {
        match arg.as_str() {
            "--no-same-permissions" => permissions = false,
            "--no-same-owner" => owner = false,
            // The first letters need no dash.
            letters if i == 0 && !letters.starts_with('-') => plain.push(format!("-{letters}")),
            _ => plain.push(arg.clone()),
        }
    }
    let options = Options::parse(&plain, "cxtf:C:vmopO")?;
    let file = options.value('f').unwrap_or("-");
    let verbose = options.has('v');
    let directory = Path::new(options.value('C').unwrap_or("."));
    let input = || -> Result<Box<dyn Read>, Failure> {
        Ok(match file {
            "-" => Box::new(io::stdin().lock()),
            name => Box::new(File::open(name).map_err(|e| about(name, &e))?),
        })
    };
    match ['c', 'x', 't'].map(|mode| options.has(mode)) {
        [true, false, false] => {
            options.at_least(1)?;
            let out: Box<dyn Write> = match file {
                "-" => Box::new(output::stdout()),
                name => Box::new(File::create(name).map_err(|e| about(name, &e))?),
            };
            create(out, directory, &options.operands, verbose)
        }
        [false, true, false] => {
            let root = nix::unistd::geteuid().is_root();
            let mut archive = Archive::new(input()?);
            let keep = permissions && (root || options.has('p'));
            archive.set_preserve_permissions(keep);
            if !keep {
                archive.set_mask(mask());
            }
            archive.set_preserve_ownerships(owner && root && !options.has('o'));
            archive.set_preserve_mtime(!options.has('m'));
            let how = Extract {
                into: directory.to_owned(),
                only: options.operands.clone(),
                verbose,
                show: options.has('O'),
            };
            how.run(archive)
        }
        [false, false, true] if !verbose => list(Archive::new(input()?), &options.operands),
        _ => Err(Failure::Usage(
            "one of -c, -x and -t is needed (and -t has no -v)".into(),
        )),
    }
}

/// Writes an archive of files.
fn create(out: Box<dyn Write>, from: &Path, names: &[String], verbose: bool) -> Ended {
    let mut archive = Builder::new(out);
    archive.mode(HeaderMode::Complete);
    archive.follow_symlinks(false);
    let mut status = 0;
    let mut told = false;
    for name in names {
        if name.starts_with('/') && !told {
            output::error_line("tar: removing leading '/' from member names");
            told = true;
        }
        if let Err(failure) = add(&mut archive, from, Path::new(name), verbose) {
            complain("tar", &failure);
            status = 1;
        }
    }
    archive.into_inner()?.flush()?;
    Ok(status)
}

fn add(
    archive: &mut Builder<Box<dyn Write>>,
    from: &Path,
    name: &Path,
    verbose: bool,
) -> Result<(), Failure> {
    let shown = name.display().to_string();
    let told = |error: io::Error| about(&shown, &error);
    let path = from.join(name);
    // Members begin below the root and below directories that are above.
    let mut member: PathBuf = name
        .components()
        .skip_while(|part| matches!(part, Component::RootDir | Component::ParentDir))
        .collect();
    if member.as_os_str().is_empty() {
        member.push(".");
    }
    let directory = path.symlink_metadata().map_err(told)?.is_dir();
    if directory {
        // A name that ends with a slash.
        member.push("");
    }
    if verbose {
        output::error_line(&member.display().to_string());
    }
    archive
        .append_path_with_name(&path, &member)
        .map_err(told)?;
    if directory {
        let mut inside: Vec<_> = fs::read_dir(&path)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .map_err(told)?;
        inside.sort_by_key(fs::DirEntry::file_name);
        for one in inside {
            add(archive, from, &name.join(one.file_name()), verbose)?;
        }
    }
    Ok(())
}

/// Whether a member is among those that are asked for, or below one.
fn wanted(only: &[String], path: &Path) -> bool {
    only.is_empty() || only.iter().any(|name| path.starts_with(name))
}

fn broken(_: io::Error) -> Failure {
    Failure::Message("this does not look like a tar archive".into())
}

fn list(mut archive: Archive<Box<dyn Read>>, only: &[String]) -> Ended {
    let mut out = output::stdout();
    for entry in archive.entries()? {
        let entry = entry.map_err(broken)?;
        if wanted(only, &entry.path()?) {
            out.write_all(&entry.path_bytes())?;
            out.write_all(b"\n")?;
        }
    }
    out.flush()?;
    Ok(0)
}

/// How an archive is unpacked.
struct Extract {
    into: PathBuf,
    only: Vec<String>,
    verbose: bool,
    /// To standard output.
    show: bool,
}

impl Extract {
    fn run(&self, mut archive: Archive<Box<dyn Read>>) -> Ended {
        // What directories allow comes last, so that nothing is kept out.
        let mut directories = Vec::new();
        let mut status = 0;
        for entry in archive.entries()? {
            let entry = entry.map_err(broken)?;
            if !wanted(&self.only, &entry.path()?) {
                continue;
            }
            if entry.header().entry_type().is_dir() {
                directories.push(entry);
            } else {
                self.unpack(entry, &mut status)?;
            }
        }
        directories.sort_by(|a, b| b.path_bytes().cmp(&a.path_bytes()));
        for entry in directories {
            self.unpack(entry, &mut status)?;
        }
        // Whoever writes is let write to its end.
        io::copy(&mut archive.into_inner(), &mut io::sink())?;
        Ok(status)
    }

    fn unpack(&self, mut entry: Entry<'_, Box<dyn Read>>, status: &mut i32) -> Result<(), Failure> {
        let name = entry.path()?.display().to_string();
        if self.verbose {
            output::error_line(&name);
        }
        if self.show {
            let mut out = output::stdout();
            io::copy(&mut entry, &mut out)?;
            out.flush()?;
            return Ok(());
        }
        match entry.unpack_in(&self.into) {
            Ok(true) => {}
            Ok(false) => {
                output::error_line(&format!("tar: name with '..' skipped: '{name}'"));
                *status = 1;
            }
            Err(error) => {
                complain("tar", &about(&name, &error));
                *status = 1;
            }
        }
        Ok(())
    }
}

/// The process's mask of permissions.
fn mask() -> u32 {
    use nix::sys::stat::{Mode, umask};
    let mask = umask(Mode::empty());
    umask(mask);
    mask.bits()
}
