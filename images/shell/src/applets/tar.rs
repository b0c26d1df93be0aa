//! `tar`, with which `kubectl cp` carries files: POSIX archives, with the long names of GNU and pax.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::complain;
use crate::options::{Ended, Failure, Options, about};
use crate::output;

const BLOCK: usize = 512;
/// Longest name and link that a header has room for.
const NAME: usize = 100;
/// Largest number of eleven octal digits.
const LARGEST: u64 = 0o777_7777_7777;

/// What a header says.
#[derive(Debug, Clone, Default, PartialEq)]
struct Entry {
    name: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    size: u64,
    /// Seconds since 1970.
    modified: u64,
    kind: u8,
    link: Vec<u8>,
}

impl Entry {
    fn path(&self) -> PathBuf {
        std::ffi::OsString::from_vec(self.name.clone()).into()
    }

    /// The header's block.
    fn block(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name[..self.name.len().min(NAME)]);
        put(100, format!("{:07o}", self.mode & 0o7777).as_bytes());
        put(108, format!("{:07o}", self.owner.0 & 0o777_7777).as_bytes());
        put(116, format!("{:07o}", self.owner.1 & 0o777_7777).as_bytes());
        put(124, format!("{:011o}", self.size.min(LARGEST)).as_bytes());
        put(
            136,
            format!("{:011o}", self.modified.min(LARGEST)).as_bytes(),
        );
        put(148, b"        ");
        put(156, &[self.kind]);
        put(157, &self.link[..self.link.len().min(NAME)]);
        put(257, b"ustar\x0000");
        let sum = format!("{:06o}\0 ", sum(&block));
        block[148..156].copy_from_slice(sum.as_bytes());
        block
    }

    /// Reads a header; `None` where it is none.
    fn read(block: &[u8; BLOCK]) -> Option<Self> {
        let text = |at: usize, length: usize| {
            let field = &block[at..at + length];
            let end = field.iter().position(|b| *b == 0).unwrap_or(length);
            field[..end].to_vec()
        };
        let number = |at: usize, length: usize| number(&block[at..at + length]);
        let mut bare = *block;
        bare[148..156].fill(b' ');
        if number(148, 8)? != u64::from(sum(&bare)) {
            return None;
        }
        let mut name = text(0, NAME);
        let prefix = text(345, 155);
        if &block[257..263] == b"ustar\0" && !prefix.is_empty() {
            name = [prefix, name].join(&b'/');
        }
        let small = |n: Option<u64>| n.and_then(|n| u32::try_from(n).ok());
        Some(Self {
            name,
            mode: small(number(100, 8))?,
            owner: (small(number(108, 8))?, small(number(116, 8))?),
            size: number(124, 12)?,
            modified: number(136, 12)?,
            kind: block[156],
            link: text(157, NAME),
        })
    }
}

fn sum(block: &[u8; BLOCK]) -> u32 {
    block.iter().map(|b| u32::from(*b)).sum()
}

/// Octal digits, or, where the first bit is set, the number itself.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let bytes = field.iter().skip(1);
        return bytes.fold(Some(u64::from(field[0] & 0x7f)), |n, b| {
            Some(n?.checked_mul(256)? + u64::from(*b))
        });
    }
    let text = std::str::from_utf8(field).ok()?;
    match text.trim_matches([' ', '\0']) {
        "" => Some(0),
        digits => u64::from_str_radix(digits, 8).ok(),
    }
}

/// The records of a pax header: `LENGTH KEY=VALUE` lines.
fn records(mut text: &[u8]) -> HashMap<String, Vec<u8>> {
    let mut out = HashMap::new();
    while let Some(space) = text.iter().position(|b| *b == b' ') {
        let length = std::str::from_utf8(&text[..space]).ok();
        let Some(length) = length.and_then(|l| l.parse::<usize>().ok()) else {
            break;
        };
        let Some(record) = text.get(space + 1..length.saturating_sub(1)) else {
            break;
        };
        if let Some(equal) = record.iter().position(|b| *b == b'=') {
            let key = String::from_utf8_lossy(&record[..equal]).into_owned();
            out.insert(key, record[equal + 1..].to_vec());
        }
        text = &text[length.min(text.len())..];
    }
    out
}

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
            let how = Extract {
                into: directory.to_owned(),
                only: options.operands.clone(),
                verbose,
                times: !options.has('m'),
                permissions: permissions && (root || options.has('p')),
                owner: owner && root && !options.has('o'),
                show: options.has('O'),
            };
            how.run(input()?)
        }
        [false, false, true] if !verbose => list(input()?, &options.operands),
        _ => Err(Failure::Usage(
            "one of -c, -x and -t is needed (and -t has no -v)".into(),
        )),
    }
}

/// Writes an archive of files.
fn create(mut out: Box<dyn Write>, from: &Path, names: &[String], verbose: bool) -> Ended {
    let mut status = 0;
    let mut told = false;
    for name in names {
        if name.starts_with('/') && !told {
            output::error_line("tar: removing leading '/' from member names");
            told = true;
        }
        if let Err(failure) = add(&mut out, from, Path::new(name), verbose) {
            complain("tar", &failure);
            status = 1;
        }
    }
    // Two empty blocks are the end.
    out.write_all(&[0; 2 * BLOCK])?;
    out.flush()?;
    Ok(status)
}

fn add(out: &mut dyn Write, from: &Path, name: &Path, verbose: bool) -> Result<(), Failure> {
    let shown = name.display().to_string();
    let told = |error: io::Error| about(&shown, &error);
    let path = from.join(name);
    let metadata = path.symlink_metadata().map_err(told)?;
    let relative = name.strip_prefix("/").unwrap_or(name);
    let mut entry = Entry {
        name: relative.as_os_str().as_bytes().to_vec(),
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        modified: u64::try_from(metadata.mtime()).unwrap_or(0),
        ..Entry::default()
    };
    if entry.name.is_empty() {
        entry.name = b".".to_vec();
    }
    let mut content = None;
    if metadata.is_symlink() {
        entry.kind = b'2';
        entry.link = fs::read_link(&path)
            .map_err(told)?
            .into_os_string()
            .into_vec();
    } else if metadata.is_dir() {
        entry.kind = b'5';
        if !entry.name.ends_with(b"/") {
            entry.name.push(b'/');
        }
    } else if metadata.is_file() {
        entry.kind = b'0';
        entry.size = metadata.len();
        if entry.size > LARGEST {
            return Err(Failure::Message(format!("{shown}: larger than 8 GiB")));
        }
        content = Some(File::open(&path).map_err(told)?);
    } else {
        return Err(Failure::Message(format!("{shown}: unknown file type")));
    }
    if verbose {
        output::error_line(&String::from_utf8_lossy(&entry.name));
    }
    for (kind, long) in [(b'K', &entry.link), (b'L', &entry.name)] {
        if long.len() > NAME {
            let text = [long.as_slice(), b"\0"].concat();
            let head = Entry {
                name: b"././@LongLink".to_vec(),
                size: text.len() as u64,
                kind,
                ..Entry::default()
            };
            out.write_all(&head.block())?;
            put(out, &mut text.as_slice(), head.size)?;
        }
    }
    out.write_all(&entry.block())?;
    if let Some(mut content) = content {
        put(out, &mut content, entry.size).map_err(told)?;
    }
    if metadata.is_dir() {
        let mut inside: Vec<_> = fs::read_dir(&path)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .map_err(told)?;
        inside.sort_by_key(fs::DirEntry::file_name);
        for one in inside {
            add(out, from, &name.join(one.file_name()), verbose)?;
        }
    }
    Ok(())
}

/// Writes so many bytes, and fills the last block. A file that has become shorter is filled too: its header is written already.
fn put(out: &mut dyn Write, content: &mut dyn Read, size: u64) -> io::Result<()> {
    let written = io::copy(&mut content.take(size), out)?;
    let whole = size.next_multiple_of(BLOCK as u64);
    io::copy(&mut io::repeat(0).take(whole - written), out)?;
    Ok(())
}

/// The next entry, with long names in place; `None` at the end.
fn next(input: &mut dyn Read) -> Result<Option<Entry>, Failure> {
    let broken = || Failure::Message("this does not look like a tar archive".into());
    let (mut name, mut link, mut pax) = (None, None, HashMap::new());
    loop {
        let mut block = [0; BLOCK];
        let mut start = Vec::new();
        (&mut *input).take(BLOCK as u64).read_to_end(&mut start)?;
        match start.len() {
            0 => return Ok(None),
            BLOCK => block.copy_from_slice(&start),
            _ => return Err(broken()),
        }
        if block == [0; BLOCK] {
            // Whoever writes is let write to its end.
            io::copy(input, &mut io::sink())?;
            return Ok(None);
        }
        let mut entry = Entry::read(&block).ok_or_else(broken)?;
        if matches!(entry.kind, b'L' | b'K' | b'x' | b'g') {
            if entry.size > 1 << 20 {
                return Err(broken());
            }
            let mut text = Vec::new();
            take(input, entry.size, &mut text)?;
            let long = text.split(|b| *b == 0).next().unwrap_or_default().to_vec();
            match entry.kind {
                b'L' => name = Some(long),
                b'K' => link = Some(long),
                b'x' => pax = records(&text),
                _ => {}
            }
            continue;
        }
        let decimal = |key: &str| {
            let text = String::from_utf8_lossy(pax.get(key)?).into_owned();
            text.split('.').next()?.parse::<u64>().ok()
        };
        entry.size = decimal("size").unwrap_or(entry.size);
        entry.modified = decimal("mtime").unwrap_or(entry.modified);
        entry.name = pax.remove("path").or(name).unwrap_or(entry.name);
        entry.link = pax.remove("linkpath").or(link).unwrap_or(entry.link);
        return Ok(Some(entry));
    }
}

/// Reads so many bytes, and the rest of the last block.
fn take(input: &mut dyn Read, size: u64, out: &mut dyn Write) -> io::Result<()> {
    if io::copy(&mut input.take(size), out)? < size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let rest = size.next_multiple_of(BLOCK as u64) - size;
    io::copy(&mut input.take(rest), &mut io::sink())?;
    Ok(())
}

/// Whether a member is among those that are asked for, or below one.
fn wanted(only: &[String], path: &Path) -> bool {
    only.is_empty() || only.iter().any(|name| path.starts_with(name))
}

fn list(mut input: Box<dyn Read>, only: &[String]) -> Ended {
    let mut out = output::stdout();
    while let Some(entry) = next(&mut input)? {
        if wanted(only, &entry.path()) {
            out.write_all(&entry.name)?;
            out.write_all(b"\n")?;
        }
        take(&mut input, entry.size, &mut io::sink())?;
    }
    out.flush()?;
    Ok(0)
}

/// How an archive is unpacked.
struct Extract {
    into: PathBuf,
    only: Vec<String>,
    verbose: bool,
    times: bool,
    permissions: bool,
    owner: bool,
    /// To standard output.
    show: bool,
}

impl Extract {
    fn run(&self, mut input: Box<dyn Read>) -> Ended {
        // Links and the marks of directories come last: nothing is written through the ones, and nothing is kept out by the others.
        let mut later = Vec::new();
        let mut status = 0;
        while let Some(entry) = next(&mut input)? {
            let path = entry.path();
            let inside: PathBuf = path
                .components()
                .filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir))
                .collect();
            let climbs = inside.components().any(|c| c == Component::ParentDir);
            if climbs || !wanted(&self.only, &path) {
                if climbs {
                    let name = path.display();
                    output::error_line(&format!("tar: name with '..' skipped: '{name}'"));
                    status = 1;
                }
                take(&mut input, entry.size, &mut io::sink())?;
                continue;
            }
            if self.verbose {
                output::error_line(&path.display().to_string());
            }
            let place = self.into.join(inside);
            match self.unpack(&mut input, &entry, &place) {
                Ok(true) => later.push((entry, place)),
                Ok(false) => {}
                Err(error) => {
                    complain("tar", &about(&path.display().to_string(), &error));
                    status = 1;
                    if entry.kind == 0 || entry.kind == b'0' {
                        // Where the next header begins is not known any more.
                        return Ok(status);
                    }
                }
            }
        }
        for (entry, place) in later.into_iter().rev() {
            if let Err(error) = self.finish(&entry, &place) {
                complain("tar", &about(&place.display().to_string(), &error));
                status = 1;
            }
        }
        Ok(status)
    }

    /// Makes a file or directory; true: there is something left to do for it.
    fn unpack(&self, input: &mut dyn Read, entry: &Entry, place: &Path) -> io::Result<bool> {
        if self.show {
            let mut out = output::stdout();
            take(input, entry.size, &mut out)?;
            out.flush()?;
            return Ok(false);
        }
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        match entry.kind {
            b'5' => {
                fs::create_dir_all(place)?;
                Ok(true)
            }
            b'1' | b'2' => Ok(true),
            0 | b'0' | b'7' => {
                if place.symlink_metadata().is_ok_and(|m| !m.is_dir()) {
                    fs::remove_file(place)?;
                }
                let mut file = File::create(place)?;
                take(input, entry.size, &mut file)?;
                drop(file);
                self.mark(entry, place)?;
                Ok(false)
            }
            _ => {
                take(input, entry.size, &mut io::sink())?;
                Err(io::Error::other("unknown file type"))
            }
        }
    }

    fn finish(&self, entry: &Entry, place: &Path) -> io::Result<()> {
        if entry.kind == b'5' {
            return self.mark(entry, place);
        }
        if place.symlink_metadata().is_ok_and(|m| !m.is_dir()) {
            fs::remove_file(place)?;
        }
        let target: PathBuf = std::ffi::OsString::from_vec(entry.link.clone()).into();
        if entry.kind == b'2' {
            return symlink(target, place);
        }
        fs::hard_link(
            self.into.join(target.strip_prefix("/").unwrap_or(&target)),
            place,
        )
    }

    /// Owner, permissions and time.
    fn mark(&self, entry: &Entry, place: &Path) -> io::Result<()> {
        if self.owner {
            chown(place, Some(entry.owner.0), Some(entry.owner.1))?;
        }
        let mode = match self.permissions {
            true => entry.mode & 0o7777,
            false => entry.mode & 0o777 & !mask(),
        };
        fs::set_permissions(place, fs::Permissions::from_mode(mode))?;
        if self.times {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(entry.modified);
            File::open(place)?.set_modified(at)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_what_was_written() {
        let entry = Entry {
            name: b"dir/file".to_vec(),
            mode: 0o644,
            owner: (1000, 100),
            size: 1234,
            modified: 1_700_000_000,
            kind: b'0',
            link: Vec::new(),
        };
        let mut block = entry.block();
        assert_eq!(Entry::read(&block), Some(entry));
        block[0] = b'D';
        assert_eq!(Entry::read(&block), None, "the sum is another one");
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(
            number(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]),
            Some(1 << 33)
        );
        assert_eq!(number(b"what"), None);
    }

    #[test]
    fn pax_records_count_themselves() {
        let all = records(b"12 path=abc\n22 linkpath=x y = zzz\n7 size\n");
        assert_eq!(all["path"], b"abc");
        assert_eq!(all["linkpath"], b"x y = zzz");
        assert_eq!(all.len(), 2);
        assert!(records(b"999999 path=abc\n").is_empty());
        assert!(records(b"0 \n").is_empty());
    }
}
