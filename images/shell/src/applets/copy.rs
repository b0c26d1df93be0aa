//! `cp` and `mv`.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use super::complain;
use crate::options::{Ended, Failure, Options, about};

fn named(path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    let name = path.display().to_string();
    move |error| about(&name, &error)
}

/// Pairs of what goes where.
fn places(operands: &[String]) -> Result<Vec<(PathBuf, PathBuf)>, Failure> {
    let Some((target, sources)) = operands
        .split_last()
        .filter(|(_, sources)| !sources.is_empty())
    else {
        return Err(Failure::Usage("too few arguments".into()));
    };
    let target = Path::new(target);
    if !target.is_dir() {
        if sources.len() > 1 || target.to_string_lossy().ends_with('/') {
            return Err(Failure::Message(format!(
                "{}: Not a directory",
                target.display()
            )));
        }
        return Ok(vec![(PathBuf::from(&sources[0]), target.to_owned())]);
    }
    sources
        .iter()
        .map(|source| {
            let path = Path::new(source);
            // The name of `.` or `..` is not one to give.
            let place = match path.file_name() {
                Some(name) => target.join(name),
                None => target.to_owned(),
            };
            Ok((path.to_owned(), place))
        })
        .collect()
}

#[derive(Clone, Copy)]
struct How {
    recursive: bool,
    force: bool,
    times: bool,
    links: bool,
}

pub(super) fn cp(args: &[String]) -> Ended {
    let options = Options::parse(args, "apfrR")?;
    let archive = options.has('a');
    let how = How {
        recursive: archive || options.has('r') || options.has('R'),
        force: options.has('f'),
        times: archive || options.has('p'),
        links: archive,
    };
    let mut status = 0;
    for (from, to) in places(&options.operands)? {
        if let Err(failure) = check(&from, &to).and_then(|()| copy(&from, &to, how, true)) {
            complain("cp", &failure);
            status = 1;
        }
    }
    Ok(status)
}

fn check(from: &Path, to: &Path) -> Result<(), Failure> {
    let (Ok(a), Ok(b)) = (from.metadata(), to.metadata()) else {
        if let (Ok(from), Some(parent)) = (fs::canonicalize(from), to.parent())
            && from.is_dir()
            && fs::canonicalize(if parent == Path::new("") {
                Path::new(".")
            } else {
                parent
            })
            .is_ok_and(|parent| parent.starts_with(&from))
        {
            return Err(Failure::Message(format!(
                "can't copy '{}' into itself",
                from.display()
            )));
        }
        return Ok(());
    };
    if (a.dev(), a.ino()) == (b.dev(), b.ino()) {
        return Err(Failure::Message(format!(
            "'{}' and '{}' are the same file",
            from.display(),
            to.display()
        )));
    }
    Ok(())
}

fn copy(from: &Path, to: &Path, how: How, top: bool) -> Result<(), Failure> {
    // Links within a tree are copied as links, those that are named are followed.
    let follow = top && !how.links;
    let metadata = if follow {
        from.metadata()
    } else {
        from.symlink_metadata()
    }
    .map_err(named(from))?;
    if metadata.is_symlink() {
        let target = fs::read_link(from).map_err(named(from))?;
        let _ = fs::remove_file(to);
        return symlink(target, to).map_err(named(to));
    }
    if metadata.is_dir() {
        if !how.recursive {
            return Err(Failure::Message(format!(
                "omitting directory '{}'",
                from.display()
            )));
        }
        if !to.is_dir() {
            fs::create_dir(to).map_err(named(to))?;
        }
        for entry in fs::read_dir(from).map_err(named(from))? {
            let entry = entry.map_err(named(from))?;
            copy(&entry.path(), &to.join(entry.file_name()), how, false)?;
        }
        fs::set_permissions(to, metadata.permissions()).map_err(named(to))?;
    } else {
        let mut result = fs::copy(from, to);
        if how.force && result.is_err() && to.symlink_metadata().is_ok() {
            fs::remove_file(to).map_err(named(to))?;
            result = fs::copy(from, to);
        }
        result.map_err(|error| {
            let name = if from.is_file() && fs::File::open(from).is_ok() {
                to
            } else {
                from
            };
            named(name)(error)
        })?;
    }
    if how.times {
        preserve(to, &metadata).map_err(named(to))?;
    }
    Ok(())
}

fn preserve(to: &Path, metadata: &fs::Metadata) -> std::io::Result<()> {
    // Only root may give files away; others keep what they can.
    let _ = std::os::unix::fs::chown(to, Some(metadata.uid()), Some(metadata.gid()));
    fs::set_permissions(to, metadata.permissions())?;
    let times = fs::FileTimes::new()
        .set_accessed(metadata.accessed()?)
        .set_modified(metadata.modified()?);
    fs::File::open(to)?.set_times(times)
}

pub(super) fn mv(args: &[String]) -> Ended {
    let options = Options::parse(args, "fv")?;
    let mut status = 0;
    for (from, to) in places(&options.operands)? {
        match check(&from, &to).and_then(|()| rename(&from, &to)) {
            Ok(()) if options.has('v') => {
                let line = format!("'{}' -> '{}'\n", from.display(), to.display());
                // Who reads it may have gone; the file has moved all the same.
                let _ = crate::output::write_all(1, line.as_bytes());
            }
            Ok(()) => {}
            Err(failure) => {
                complain("mv", &failure);
                status = 1;
            }
        }
    }
    Ok(status)
}

fn rename(from: &Path, to: &Path) -> Result<(), Failure> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => {
            let how = How {
                recursive: true,
                force: true,
                times: true,
                links: true,
            };
            copy(from, to, how, true)?;
            if from
                .symlink_metadata()
                .is_ok_and(|metadata| metadata.is_dir())
            {
                fs::remove_dir_all(from)
            } else {
                fs::remove_file(from)
            }
            .map_err(named(from))
        }
        Err(error) => Err(named(if from.symlink_metadata().is_ok() {
            to
        } else {
            from
        })(error)),
        Ok(()) => Ok(()),
    }
}
