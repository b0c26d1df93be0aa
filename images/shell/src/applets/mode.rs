//! Permissions of files.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::complain;
use crate::options::{Ended, Failure, about};

/// The permissions that `text` (`755`, `u+x,go=r`) makes of `mode`.
pub(super) fn apply(text: &str, mode: u32, directory: bool) -> Result<u32, Failure> {
    let invalid = || Failure::Usage(format!("invalid mode '{text}'"));
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777)
            .ok_or_else(invalid);
    }
    let mut mode = mode;
    for clause in text.split(',') {
        let start = clause.find(['+', '-', '=']).ok_or_else(invalid)?;
        let mut who = 0;
        for class in clause[..start].chars() {
            who |= match class {
                'u' => 0o4700,
                'g' => 0o2070,
                'o' => 0o1007,
                'a' => 0o7777,
                _ => return Err(invalid()),
            };
        }
        if who == 0 {
            // Safety: there is no way of asking without setting.
            let mask = unsafe {
                let mask = libc::umask(0);
                libc::umask(mask);
                mask
            };
            who = 0o7777 & !mask;
        }
        let mut operator = '+';
        let mut bits = 0;
        let mut actions = Vec::new();
        for c in clause[start..].chars() {
            match c {
                '+' | '-' | '=' => {
                    if !actions.is_empty() || bits != 0 || operator != '+' {
                        actions.push((operator, bits));
                    }
                    operator = c;
                    bits = 0;
                }
                'r' => bits |= 0o444,
                'w' => bits |= 0o222,
                'x' => bits |= 0o111,
                'X' if directory || mode & 0o111 != 0 => bits |= 0o111,
                'X' => {}
                's' => bits |= 0o6000,
                't' => bits |= 0o1000,
                'u' => bits |= (mode >> 6 & 7) * 0o111,
                'g' => bits |= (mode >> 3 & 7) * 0o111,
                'o' => bits |= (mode & 7) * 0o111,
                _ => return Err(invalid()),
            }
        }
        actions.push((operator, bits));
        for (operator, bits) in actions {
            match operator {
                '+' => mode |= bits & who,
                '-' => mode &= !(bits & who),
                _ => mode = mode & !(who & 0o777) | bits & who,
            }
        }
    }
    Ok(mode)
}

pub(super) fn set(path: &Path, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// As `ls -l` shows them, the kind of file first.
pub(super) fn letters(mode: u32) -> String {
    let kind = match mode & libc::S_IFMT {
        libc::S_IFDIR => 'd',
        libc::S_IFLNK => 'l',
        libc::S_IFCHR => 'c',
        libc::S_IFBLK => 'b',
        libc::S_IFIFO => 'p',
        libc::S_IFSOCK => 's',
        _ => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift & 7;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

pub(super) fn chmod(args: &[String]) -> Ended {
    // `-x` is a mode, not an option.
    let recursive = args.first().is_some_and(|arg| arg == "-R");
    let args = if recursive { &args[1..] } else { args };
    let args = if args.first().is_some_and(|arg| arg == "--") {
        &args[1..]
    } else {
        args
    };
    let Some((text, names)) = args.split_first().filter(|(_, names)| !names.is_empty()) else {
        return Err(Failure::Usage("too few arguments".into()));
    };
    apply(text, 0, false)?;
    let mut status = 0;
    for name in names {
        if let Err(failure) = change(Path::new(name), text, recursive) {
            complain("chmod", &failure);
            status = 1;
        }
    }
    Ok(status)
}

fn change(path: &Path, text: &str, recursive: bool) -> Result<(), Failure> {
    let name = path.display().to_string();
    let metadata = path.metadata().map_err(|error| about(&name, &error))?;
    let mode = apply(text, metadata.mode() & 0o7777, metadata.is_dir())?;
    set(path, mode).map_err(|error| about(&name, &error))?;
    if recursive && metadata.is_dir() {
        for entry in fs::read_dir(path).map_err(|error| about(&name, &error))? {
            let entry = entry?;
            // A link's own permissions mean nothing, and its target is not in this tree.
            if !entry.file_type()?.is_symlink() {
                change(&entry.path(), text, true)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for (text, before, after) in [
            ("755", 0, 0o755),
            ("u+x", 0o644, 0o744),
            ("a-w", 0o666, 0o444),
            ("go=r", 0o777, 0o744),
            ("u=rwx,go=rx", 0, 0o755),
            ("a+X", 0o644, 0o644),
            ("u+s", 0o755, 0o4755),
            ("g=u", 0o700, 0o770),
        ] {
            assert_eq!(apply(text, before, false).unwrap(), after, "{text}");
        }
        for text in ["", "u", "8", "z+x", "u+q", "77777"] {
            assert!(apply(text, 0, false).is_err(), "{text}");
        }
        assert_eq!(letters(0o104755), "-rwsr-xr-x");
        assert_eq!(letters(0o041777), "drwxrwxrwt");
    }
}
