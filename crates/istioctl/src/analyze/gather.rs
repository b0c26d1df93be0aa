//! The files that are analyzed.

use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use analysis::files::File;
use anyhow::{Result, anyhow};

use crate::Shell;

/// Names that are read in directories, and taken when named.
const EXTENSIONS: [&str; 3] = ["json", "yaml", "yml"];

/// The files with these names; of directories, all below them.
///
/// # Errors
/// A file does not exist or cannot be read.
pub fn files(names: &[PathBuf], shell: &mut Shell<'_>) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for name in names {
        if name.as_os_str() == "-" {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut shell.stdin, &mut bytes)?;
            files.push(File {
                name: "-".to_owned(),
                text: String::from_utf8_lossy(&bytes).into_owned(),
            });
            continue;
        }
        let path = shell.path(name);
        let metadata = std::fs::metadata(&path).map_err(|error| failed("stat", name, &error))?;
        if metadata.is_dir() {
            below(name, &mut files, shell)?;
        } else {
            file(name, &mut files, shell)?;
        }
    }
    Ok(files)
}

fn below(directory: &Path, files: &mut Vec<File>, shell: &mut Shell<'_>) -> Result<()> {
    let entries = std::fs::read_dir(shell.path(directory))
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .map_err(|error| failed("open", directory, &error))?;
    let mut names: Vec<_> = entries
        .into_iter()
        .map(|entry| (entry.file_name(), entry.file_type()))
        .collect();
    names.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, file_type) in names {
        let path = cleaned(&directory.join(name));
        // Links to directories are not followed.
        if file_type.is_ok_and(|file_type| file_type.is_dir()) {
            below(&path, files, shell)?;
        } else {
            file(&path, files, shell)?;
        }
    }
    Ok(())
}

/// The shortest name of the same file: without `.`, and without `..` after a name.
fn cleaned(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(result.components().next_back(), Some(Component::Normal(_))) =>
            {
                result.pop();
            }
            component => result.push(component),
        }
    }
    result
}

fn file(name: &Path, files: &mut Vec<File>, shell: &mut Shell<'_>) -> Result<()> {
    let known = name
        .extension()
        .is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known));
    if !known {
        writeln!(
            shell.stderr,
            "Skipping file {}, recognized file extensions are: [.json .yaml .yml]",
            name.display()
        )?;
        return Ok(());
    }
    let bytes = std::fs::read(shell.path(name)).map_err(|error| failed("open", name, &error))?;
    files.push(File {
        name: name.display().to_string(),
        text: String::from_utf8_lossy(&bytes).into_owned(),
    });
    Ok(())
}

/// An error of the system in the words of Go.
fn failed(operation: &str, name: &Path, error: &io::Error) -> anyhow::Error {
    let reason = match error.kind() {
        ErrorKind::NotFound => "no such file or directory".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        ErrorKind::IsADirectory => "is a directory".to_owned(),
        _ => error.to_string(),
    };
    anyhow!("{operation} {}: {reason}", name.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_short_as_go_makes_them() {
        for (path, expected) in [
            ("./d/a.yaml", "d/a.yaml"),
            ("d//x/../a.yaml", "d/a.yaml"),
            ("../a.yaml", "../a.yaml"),
        ] {
            assert_eq!(cleaned(Path::new(path)), Path::new(expected));
        }
    }
}
