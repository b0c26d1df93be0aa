//! Making and removing files.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{complain, say};
use crate::options::{Ended, Failure, Options, about};

/// Does something with every operand and goes on after errors; 1 when there was one.
fn each(
    program: &str,
    names: &[String],
    mut with: impl FnMut(&str) -> Result<(), Failure>,
) -> Ended {
    let mut status = 0;
    for name in names {
        if let Err(failure) = with(name) {
            complain(program, &failure);
            status = 1;
        }
    }
    Ok(status)
}

pub(super) fn mkdir(args: &[String]) -> Ended {
    let options = Options::parse(args, "pm:")?;
    options.at_least(1)?;
    let mode = match options.value('m') {
        Some(text) => Some(super::mode::apply(text, 0o777, true)?),
        None => None,
    };
    each("mkdir", &options.operands, |name| {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(options.has('p'));
        builder.mode(0o777).create(name).map_err(|error| {
            Failure::Message(format!(
                "can't create directory '{name}': {}",
                crate::output::reason(&error)
            ))
        })?;
        if let Some(mode) = mode {
            super::mode::set(Path::new(name), mode).map_err(|error| about(name, &error))?;
        }
        Ok(())
    })
}

pub(super) fn rmdir(args: &[String]) -> Ended {
    let options = Options::parse(args, "p")?;
    options.at_least(1)?;
    each("rmdir", &options.operands, |name| {
        fs::remove_dir(name).map_err(|error| about(name, &error))?;
        if options.has('p') {
            for parent in Path::new(name)
                .ancestors()
                .skip(1)
                .filter(|path| *path != Path::new(""))
            {
                fs::remove_dir(parent).map_err(|error| about(&parent.to_string_lossy(), &error))?;
            }
        }
        Ok(())
    })
}

pub(super) fn rm(args: &[String]) -> Ended {
    let options = Options::parse(args, "frR")?;
    let (force, recursive) = (options.has('f'), options.has('r') || options.has('R'));
    if !force {
        options.at_least(1)?;
    }
    each("rm", &options.operands, |name| {
        let path = Path::new(name);
        let metadata = match path.symlink_metadata() {
            Err(error) if force && error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|error| about(name, &error))?,
        };
        if !metadata.is_dir() {
            return fs::remove_file(path).map_err(|error| about(name, &error));
        }
        if !recursive {
            return Err(Failure::Message(format!("'{name}' is a directory")));
        }
        if path.file_name().is_none() {
            return Err(Failure::Message(format!("'{name}' may not be removed")));
        }
        fs::remove_dir_all(path).map_err(|error| about(name, &error))
    })
}

pub(super) fn touch(args: &[String]) -> Ended {
    let options = Options::parse(args, "c")?;
    options.at_least(1)?;
    each("touch", &options.operands, |name| {
        let path = Path::new(name);
        if options.has('c') && !path.exists() {
            return Ok(());
        }
        let open = || {
            if path.is_dir() {
                fs::File::open(path)
            } else {
                fs::OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(path)
            }
        };
        let now = SystemTime::now();
        open()
            .and_then(|file| {
                file.set_times(fs::FileTimes::new().set_accessed(now).set_modified(now))
            })
            .map_err(|error| about(name, &error))
    })
}

pub(super) fn ln(args: &[String]) -> Ended {
    let options = Options::parse(args, "sfn")?;
    options.at_least(1)?;
    let here = ".".to_owned();
    let (targets, last) = match options.operands.as_slice() {
        [single] => (std::slice::from_ref(single), &here),
        [targets @ .., last] => (targets, last),
        [] => return Err(Failure::Usage("too few arguments".into())),
    };
    let link = Path::new(last);
    let into = link.is_dir() && !(options.has('n') && link.is_symlink());
    if targets.len() > 1 && !into {
        return Err(Failure::Message(format!("{last}: Not a directory")));
    }
    each("ln", targets, |target| {
        let place = if into {
            link.join(Path::new(target).file_name().unwrap_or_default())
        } else {
            link.to_owned()
        };
        if options.has('f')
            && place
                .symlink_metadata()
                .is_ok_and(|metadata| !metadata.is_dir())
        {
            fs::remove_file(&place).map_err(|error| about(&place.to_string_lossy(), &error))?;
        }
        let made = if options.has('s') {
            symlink(target, &place)
        } else {
            fs::hard_link(target, &place)
        };
        made.map_err(|error| about(&place.to_string_lossy(), &error))
    })
}

pub(super) fn readlink(args: &[String]) -> Ended {
    let options = Options::parse(args, "f")?;
    let [name] = options.exactly::<1>()?;
    let found: Option<PathBuf> = if options.has('f') {
        // The last part need not exist.
        fs::canonicalize(name).ok().or_else(|| {
            let path = Path::new(name);
            let parent = path
                .parent()
                .filter(|parent| *parent != Path::new(""))
                .unwrap_or(Path::new("."));
            Some(fs::canonicalize(parent).ok()?.join(path.file_name()?))
        })
    } else {
        fs::read_link(name).ok()
    };
    match found {
        Some(path) => say(&format!("{}\n", path.display())),
        None => Ok(1),
    }
}

pub(super) fn sync(args: &[String]) -> Ended {
    Options::parse(args, "")?.at_most(0)?;
    // Safety: has no arguments and cannot fail.
    unsafe { libc::sync() };
    Ok(0)
}
