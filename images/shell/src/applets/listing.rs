//! What files there are: `ls`, `stat`, `du`, `find`.

use std::fs::{self, Metadata};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::system::{format_time, group_name, user_name};
use super::{complain, mode};
use crate::options::{Ended, Failure, Options, about};
use crate::output::{self, Out};
use crate::shell::pattern;

struct Entry {
    name: String,
    metadata: Metadata,
    target: Option<String>,
}

impl Entry {
    fn read(name: String, path: &Path, follow: bool) -> Result<Self, Failure> {
        let metadata = if follow {
            path.metadata().or_else(|_| path.symlink_metadata())
        } else {
            path.symlink_metadata()
        };
        let metadata = metadata.map_err(|error| about(&path.to_string_lossy(), &error))?;
        let target = fs::read_link(path).ok().filter(|_| metadata.is_symlink());
        Ok(Entry {
            name,
            metadata,
            target: target.map(|path| path.to_string_lossy().into_owned()),
        })
    }
}

pub(super) fn ls(args: &[String]) -> Ended {
    let options = Options::parse(args, "1AadFhlRrSt")?;
    let here = [".".to_owned()];
    let names = if options.operands.is_empty() {
        &here[..]
    } else {
        &options.operands
    };
    let mut out = output::stdout();
    let mut status = 0;
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    for name in names {
        // Links to directories are entered, unless they are to be shown themselves.
        match Entry::read(
            name.clone(),
            Path::new(name),
            !options.has('l') && !options.has('d'),
        ) {
            Ok(entry) if entry.metadata.is_dir() && !options.has('d') => directories.push(entry),
            Ok(entry) => files.push(entry),
            Err(failure) => {
                complain("ls", &failure);
                status = 1;
            }
        }
    }
    sort(&mut files, &options);
    sort(&mut directories, &options);
    let titled = names.len() > 1 || options.has('R');
    show(&files, &options, &mut out)?;
    let mut first = files.is_empty();
    for directory in directories {
        status |= list(&directory.name, &options, titled, &mut first, &mut out)?;
    }
    out.flush()?;
    Ok(status)
}

fn list(
    directory: &str,
    options: &Options,
    titled: bool,
    first: &mut bool,
    out: &mut Out,
) -> Ended {
    if titled {
        if !*first {
            writeln!(out)?;
        }
        writeln!(out, "{directory}:")?;
    }
    *first = false;
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            complain("ls", &about(directory, &error));
            return Ok(1);
        }
    };
    let base = Path::new(directory);
    let mut list_of = Vec::new();
    let mut names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    if options.has('a') {
        names.extend([".".to_owned(), "..".to_owned()]);
    }
    for name in names {
        if name.starts_with('.') && !options.has('a') && !options.has('A') {
            continue;
        }
        // It may have gone since.
        if let Ok(entry) = Entry::read(name.clone(), &base.join(&name), false) {
            list_of.push(entry);
        }
    }
    sort(&mut list_of, options);
    if options.has('l') {
        let blocks: u64 = list_of.iter().map(|entry| entry.metadata.blocks()).sum();
        writeln!(out, "total {}", blocks / 2)?;
    }
    show(&list_of, options, out)?;
    let mut status = 0;
    if options.has('R') {
        for entry in list_of {
            if entry.metadata.is_dir() && entry.name != "." && entry.name != ".." {
                let path = format!("{}/{}", directory.trim_end_matches('/'), entry.name);
                status |= list(&path, options, true, first, out)?;
            }
        }
    }
    Ok(status)
}

fn sort(entries: &mut [Entry], options: &Options) {
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    if options.has('t') {
        let time = |entry: &Entry| (entry.metadata.mtime(), entry.metadata.mtime_nsec());
        entries.sort_by_key(|entry| std::cmp::Reverse(time(entry)));
    } else if options.has('S') {
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.metadata.len()));
    }
    if options.has('r') {
        entries.reverse();
    }
}

fn show(entries: &[Entry], options: &Options, out: &mut Out) -> Result<(), Failure> {
    if options.has('l') {
        return long(entries, options, out);
    }
    let names: Vec<String> = entries.iter().map(|entry| marked(entry, options)).collect();
    // Safety: asks about a descriptor.
    let terminal = unsafe { libc::isatty(1) == 1 };
    if options.has('1') || !terminal || names.is_empty() {
        for name in names {
            writeln!(out, "{name}")?;
        }
        return Ok(());
    }
    let width = names
        .iter()
        .map(|name| name.chars().count())
        .max()
        .unwrap_or(0)
        + 2;
    let columns = (80 / width).max(1);
    let rows = names.len().div_ceil(columns);
    for row in 0..rows {
        let line: String = names
            .iter()
            .skip(row)
            .step_by(rows)
            .map(|name| format!("{name:<width$}"))
            .collect();
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn marked(entry: &Entry, options: &Options) -> String {
    let mark = match entry.metadata.mode() & libc::S_IFMT {
        _ if !options.has('F') => "",
        libc::S_IFDIR => "/",
        libc::S_IFLNK => "@",
        libc::S_IFIFO => "|",
        libc::S_IFSOCK => "=",
        _ if entry.metadata.mode() & 0o111 != 0 => "*",
        _ => "",
    };
    format!("{}{mark}", entry.name)
}

fn long(entries: &[Entry], options: &Options, out: &mut Out) -> Result<(), Failure> {
    let rows: Vec<[String; 6]> = entries
        .iter()
        .map(|entry| {
            let metadata = &entry.metadata;
            let size = match metadata.mode() & libc::S_IFMT {
                libc::S_IFCHR | libc::S_IFBLK => {
                    let device = metadata.rdev();
                    format!("{}, {}", libc::major(device), libc::minor(device))
                }
                _ if options.has('h') => human(metadata.len()),
                _ => metadata.len().to_string(),
            };
            [
                mode::letters(metadata.mode()),
                metadata.nlink().to_string(),
                user_name(metadata.uid()),
                group_name(metadata.gid()),
                size,
                listed_time(metadata.mtime()),
            ]
        })
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (links, user, group, size) = (width(1), width(2), width(3), width(4));
    for (entry, row) in entries.iter().zip(&rows) {
        let arrow = entry
            .target
            .as_ref()
            .map(|target| format!(" -> {target}"))
            .unwrap_or_default();
        writeln!(
            out,
            "{} {:>links$} {:<user$} {:<group$} {:>size$} {} {}{arrow}",
            row[0],
            row[1],
            row[2],
            row[3],
            row[4],
            row[5],
            marked(entry, options)
        )?;
    }
    Ok(())
}

/// With the hour when it is recent, else with the year.
fn listed_time(seconds: i64) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs().cast_signed());
    let recent = (now - 182 * 86400..=now + 86400).contains(&seconds);
    format_time(
        if recent { "%b %e %H:%M" } else { "%b %e  %Y" },
        seconds,
        false,
    )
}

fn human(size: u64) -> String {
    let mut value = size as f64;
    for unit in ["", "K", "M", "G", "T"] {
        if value < 1024.0 || unit == "T" {
            return match unit {
                "" => format!("{size}"),
                _ if value < 10.0 => format!("{value:.1}{unit}"),
                _ => format!("{value:.0}{unit}"),
            };
        }
        value /= 1024.0;
    }
    size.to_string()
}

fn kind(metadata: &Metadata) -> &'static str {
    match metadata.mode() & libc::S_IFMT {
        libc::S_IFDIR => "directory",
        libc::S_IFLNK => "symbolic link",
        libc::S_IFCHR => "character special file",
        libc::S_IFBLK => "block special file",
        libc::S_IFIFO => "fifo",
        libc::S_IFSOCK => "socket",
        _ if metadata.len() == 0 => "regular empty file",
        _ => "regular file",
    }
}

pub(super) fn stat(args: &[String]) -> Ended {
    const LONG: &str = "  File: %N\n  Size: %s\tBlocks: %b\tIO Block: %o\t%F\nDevice: %d\tInode: %i\tLinks: %h\nAccess: (%04a/%A)\tUid: (%u/%U)\tGid: (%g/%G)\nAccess: %x\nModify: %y\nChange: %z";
    let options = Options::parse(args, "Lc:")?;
    options.at_least(1)?;
    let format = options.value('c').unwrap_or(LONG);
    let mut out = output::stdout();
    let mut status = 0;
    for name in &options.operands {
        match Entry::read(name.clone(), Path::new(name), options.has('L')) {
            Ok(entry) => writeln!(out, "{}", described(format, &entry)?)?,
            Err(failure) => {
                complain("stat", &failure);
                status = 1;
            }
        }
    }
    out.flush()?;
    Ok(status)
}

fn described(format: &str, entry: &Entry) -> Result<String, Failure> {
    let metadata = &entry.metadata;
    let moment = |seconds: i64, nanos: i64| {
        format!(
            "{}.{nanos:09} {}",
            format_time("%Y-%m-%d %H:%M:%S", seconds, false),
            format_time("%z", seconds, false)
        )
    };
    let mut text = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        text.push_str(before);
        let (after, four) = match after.strip_prefix("04") {
            Some(after) => (after, true),
            None => (after, false),
        };
        let letter = after
            .chars()
            .next()
            .ok_or_else(|| Failure::Usage("format ends with %".into()))?;
        rest = &after[letter.len_utf8()..];
        text.push_str(&match letter {
            '%' => "%".to_owned(),
            'n' => entry.name.clone(),
            'N' => match &entry.target {
                Some(target) => format!("'{}' -> '{target}'", entry.name),
                None => entry.name.clone(),
            },
            's' => metadata.len().to_string(),
            'a' if four => format!("{:04o}", metadata.mode() & 0o7777),
            'a' => format!("{:o}", metadata.mode() & 0o7777),
            'A' => mode::letters(metadata.mode()),
            'f' => format!("{:x}", metadata.mode()),
            'F' => kind(metadata).to_owned(),
            'u' => metadata.uid().to_string(),
            'U' => user_name(metadata.uid()),
            'g' => metadata.gid().to_string(),
            'G' => group_name(metadata.gid()),
            'b' => metadata.blocks().to_string(),
            'B' => "512".to_owned(),
            'o' => metadata.blksize().to_string(),
            'd' => metadata.dev().to_string(),
            'i' => metadata.ino().to_string(),
            'h' => metadata.nlink().to_string(),
            'X' => metadata.atime().to_string(),
            'Y' => metadata.mtime().to_string(),
            'Z' => metadata.ctime().to_string(),
            'x' => moment(metadata.atime(), metadata.atime_nsec()),
            'y' => moment(metadata.mtime(), metadata.mtime_nsec()),
            'z' => moment(metadata.ctime(), metadata.ctime_nsec()),
            other => return Err(Failure::Usage(format!("%{other}: not known"))),
        });
    }
    text.push_str(rest);
    Ok(text)
}

pub(super) fn du(args: &[String]) -> Ended {
    let options = Options::parse(args, "hs")?;
    let here = [".".to_owned()];
    let names = if options.operands.is_empty() {
        &here[..]
    } else {
        &options.operands
    };
    let mut out = output::stdout();
    let mut status = 0;
    for name in names {
        match size(Path::new(name), &options, &mut out, true) {
            Ok(_) => {}
            Err(failure) => {
                complain("du", &failure);
                status = 1;
            }
        }
    }
    out.flush()?;
    Ok(status)
}

fn size(path: &Path, options: &Options, out: &mut Out, top: bool) -> Result<u64, Failure> {
    let named = |error: std::io::Error| about(&path.to_string_lossy(), &error);
    let metadata = path.symlink_metadata().map_err(named)?;
    let mut blocks = metadata.blocks();
    if metadata.is_dir() {
        for entry in fs::read_dir(path).map_err(named)?.flatten() {
            match size(&entry.path(), options, out, false) {
                Ok(more) => blocks += more,
                Err(failure) => complain("du", &failure),
            }
        }
    }
    if top || (metadata.is_dir() && !options.has('s')) {
        let shown = if options.has('h') {
            human(blocks * 512)
        } else {
            (blocks / 2).to_string()
        };
        writeln!(out, "{shown}\t{}", path.display())?;
    }
    Ok(blocks)
}

struct Search {
    name: Option<Vec<pattern::Mark>>,
    kind: Option<char>,
    depth: usize,
}

pub(super) fn find(args: &[String]) -> Ended {
    let start = args
        .iter()
        .position(|arg| arg.starts_with('-'))
        .unwrap_or(args.len());
    let (paths, tests) = args.split_at(start);
    let mut search = Search {
        name: None,
        kind: None,
        depth: usize::MAX,
    };
    let mut tests = tests.iter();
    while let Some(test) = tests.next() {
        if test == "-print" {
            continue;
        }
        let value = tests
            .next()
            .ok_or_else(|| Failure::Usage(format!("{test} needs a value")))?;
        match test.as_str() {
            "-name" => search.name = Some(value.chars().map(|c| (c, false)).collect()),
            "-type" if ["f", "d", "l"].contains(&value.as_str()) => {
                search.kind = value.chars().next()
            }
            "-maxdepth" => {
                search.depth = value
                    .parse()
                    .map_err(|_| Failure::Usage(format!("-maxdepth: invalid number '{value}'")))?;
            }
            other => return Err(Failure::Usage(format!("unrecognized: {other} {value}"))),
        }
    }
    let here = [".".to_owned()];
    let paths = if paths.is_empty() { &here[..] } else { paths };
    let mut out = output::stdout();
    let mut status = 0;
    for path in paths {
        status |= walk(Path::new(path), &search, 0, &mut out)?;
    }
    out.flush()?;
    Ok(status)
}

fn walk(path: &Path, search: &Search, depth: usize, out: &mut Out) -> Ended {
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) => {
            complain("find", &about(&path.to_string_lossy(), &error));
            return Ok(1);
        }
    };
    let name: Vec<char> = path
        .file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .chars()
        .collect();
    let kind = match search.kind {
        Some('f') => metadata.is_file(),
        Some('d') => metadata.is_dir(),
        Some(_) => metadata.is_symlink(),
        None => true,
    };
    if kind
        && search
            .name
            .as_ref()
            .is_none_or(|marks| pattern::matches(marks, &name))
    {
        writeln!(out, "{}", path.display())?;
    }
    let mut status = 0;
    if metadata.is_dir() && depth < search.depth {
        match fs::read_dir(path) {
            Ok(entries) => {
                for entry in entries.flatten() {
                    status |= walk(&entry.path(), search, depth + 1, out)?;
                }
            }
            Err(error) => {
                complain("find", &about(&path.to_string_lossy(), &error));
                status = 1;
            }
        }
    }
    Ok(status)
}
