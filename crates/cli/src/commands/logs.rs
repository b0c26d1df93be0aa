//! `theater logs`: what the clusters themselves (not their pods) have to say.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::language;
use crate::state::StateDir;
use crate::topology::{CLUSTERS, ClusterFacts};

/// How often a followed file is looked at.
const FOLLOW: Duration = Duration::from_millis(200);

/// The most that is read from the end of a file to find its last lines.
const TAIL_BYTES: u64 = 4 * 1024 * 1024;

/// Prints the last `lines` lines of the clusters' logs, then, with `follow`, what comes.
///
/// # Errors
/// When a cluster is unknown or has no log.
pub fn run(state: &StateDir, cluster: Option<&str>, lines: usize, follow: bool) -> Result<()> {
    let clusters: Vec<&ClusterFacts> = match cluster {
        None => CLUSTERS.iter().collect(),
        Some(name) => match ClusterFacts::named(name) {
            Some(facts) => vec![facts],
            None => bail!(language::no_such_cluster(
                name,
                CLUSTERS.map(|facts| facts.name).join(", ")
            )),
        },
    };
    let mut files = Vec::new();
    for facts in clusters {
        let path = state.cluster(facts.name).join("cluster.log");
        files.push((facts.name, open(&path)?));
    }
    let several = files.len() > 1;
    for (name, file) in &mut files {
        let text = tail(file, lines)?;
        print_lines(name, several, &text)?;
    }
    if !follow {
        return Ok(());
    }
    loop {
        std::thread::sleep(FOLLOW);
        for (name, file) in &mut files {
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            print_lines(name, several, &text)?;
        }
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("there is no log yet at {}", path.display()))
}

/// The last `lines` lines; afterwards the file stands at its end.
fn tail(file: &mut File, lines: usize) -> Result<Vec<u8>> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let end = text.strip_suffix(b"\n").unwrap_or(&text);
    let start = end
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'\n')
        .nth(lines.saturating_sub(1))
        .map_or(0, |(at, _)| at + 1);
    Ok(if lines == 0 {
        Vec::new()
    } else {
        text[start..].to_vec()
    })
}

fn print_lines(name: &str, named: bool, text: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if named {
            write!(out, "[{name}] ")?;
        }
        out.write_all(line)?;
    }
    out.flush().context("cannot write")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_found() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"one\ntwo\nthree\n").unwrap();
        for (lines, expected) in [
            (0, ""),
            (1, "three\n"),
            (2, "two\nthree\n"),
            (9, "one\ntwo\nthree\n"),
        ] {
            let text = tail(&mut file, lines).unwrap();
            assert_eq!(String::from_utf8(text).unwrap(), expected, "{lines} lines");
        }
    }
}
