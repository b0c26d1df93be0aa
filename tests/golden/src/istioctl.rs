//! Tables and texts of `istioctl`: `<state>/<proxy>.<what>.txt` begins with a command line whose `-f` names a recorded
//! answer beside it; `texts/<case>.txt` has the command, standard output, standard error and exit code.
//!
//! The program runs in this process, with the directory of the case as its working directory.

use std::path::Path;

use ::istioctl::Shell;
use anyhow::{Context as _, Result};

use crate::{Outcome, entries, run};

/// Commands of which texts are compared; those of other commands have comparisons of their own.
const COMMANDS: [&str; 7] = [
    "pc",
    "proxy-config",
    "version",
    "validate",
    "v",
    "foo",
    "analize",
];

/// Whether a directory holds such cases.
pub fn recognise(dir: &Path) -> bool {
    !tables(dir).is_empty() || !texts(dir).is_empty()
}

/// Compares everything in such a directory.
///
/// # Errors
/// Never; whatever goes wrong is the case's.
pub fn compare(dir: &Path) -> Result<Vec<Outcome>> {
    let mut cases = tables(dir);
    cases.extend(texts(dir));
    Ok(run(cases, |case| {
        let text = std::fs::read_to_string(dir.join(format!("{case}.txt")))?;
        match text.starts_with("$ ") {
            true => text_case(dir, case, &text),
            false => table_case(dir, case, &text),
        }
    }))
}

/// Files of the directories below whose first line is a command, by name without the ending.
fn cases(dir: &Path, first: impl Fn(&str) -> bool) -> Vec<String> {
    let mut out = Vec::new();
    for state in entries(dir).into_iter().filter(|path| path.is_dir()) {
        for file in entries(&state) {
            let Some(name) = file
                .file_name()
                .and_then(|name| name.to_str()?.strip_suffix(".txt"))
            else {
                continue;
            };
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            if first(text.lines().next().unwrap_or_default()) {
                let state = state.file_name().unwrap_or_default().to_string_lossy();
                out.push(format!("{state}/{name}"));
            }
        }
    }
    out
}

fn tables(dir: &Path) -> Vec<(String, String)> {
    cases(dir, |line| line.starts_with("istioctl proxy-config "))
        .into_iter()
        .map(|case| ("istioctl tables".to_owned(), case))
        .collect()
}

fn texts(dir: &Path) -> Vec<(String, String)> {
    let compared = |line: &str| {
        // A remark after the command tells of preparations.
        if line.contains("   (") {
            return false;
        }
        let line = match line.split_once(" | ") {
            Some((source, command)) if source.starts_with("$ cat ") => format!("$ {command}"),
            _ => line.to_owned(),
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "istioctl", command, ..] = words[..] else {
            return false;
        };
        // What needs an API server, and help, whose words are our own.
        let alone =
            command != "pc" || words.contains(&"-f") || words.contains(&"http") || words.len() == 4;
        let help = line.contains("--help")
            || ["foo", "vhost"]
                .iter()
                .any(|name| words.get(3) == Some(name));
        let served = line == "$ istioctl version"
            || line == "$ istioctl proxy-config"
            || line.contains("vhost");
        line.starts_with("$ ") && COMMANDS.contains(&command) && alone && !help && !served
    };
    cases(dir, compared)
        .into_iter()
        .map(|case| ("istioctl texts".to_owned(), case))
        .collect()
}

struct Ran {
    stdout: String,
    stderr: String,
    code: u8,
}

fn istioctl(directory: &Path, words: &[String], input: &[u8]) -> Ran {
    let (mut stdin, mut stdout, mut stderr) = (input, Vec::new(), Vec::new());
    let code = ::istioctl::run(
        words.iter().map(Into::into).collect(),
        &mut Shell {
            directory: directory.to_owned(),
            kubeconfig: None,
            home: None,
            settings: std::collections::BTreeMap::new(),
            terminal: false,
            stdin: &mut stdin,
            stdout: &mut stdout,
            stderr: &mut stderr,
        },
    );
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran {
        stdout: text(stdout),
        stderr: text(stderr),
        code,
    }
}

/// The words of a command line after the program's name; quotes keep blanks together.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut begun) = (String::new(), None, false);
    for c in line.chars() {
        match (c, quote) {
            ('"' | '\'', None) => (quote, begun) = (Some(c), true),
            (c, Some(open)) if c == open => quote = None,
            (' ', None) => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            (c, _) => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
        .into_iter()
        .skip_while(|word| word == "$" || word == "istioctl")
        .collect()
}

fn table_case(dir: &Path, case: &str, text: &str) -> Result<Vec<String>> {
    let (command, recorded) = text.split_once('\n').context("no output is recorded")?;
    let state = dir.join(case.split('/').next().unwrap_or_default());
    let (command, code) = match command.rsplit_once("# exit ") {
        Some((command, code)) => (command, code.trim().parse().context("exit code")?),
        None => (command, 0),
    };
    let ran = istioctl(&state, &words(command), &[]);
    let seen = format!("{}{}", ran.stdout, ran.stderr);
    let mut differences = lines("output", &comparable(recorded), &comparable(&seen));
    if ran.code != code {
        differences.push(format!("exit code: recorded {code}, here {}", ran.code));
    }
    Ok(differences)
}

fn text_case(dir: &Path, case: &str, text: &str) -> Result<Vec<String>> {
    let (command, rest) = text.split_once('\n').context("no output is recorded")?;
    let (_, rest) = rest
        .split_once("--- stdout\n")
        .context("no standard output")?;
    let (stdout, rest) = rest
        .split_once("--- stderr\n")
        .context("no standard error")?;
    let (stderr, code) = rest.rsplit_once("--- exit code ").context("no exit code")?;
    let code: u8 = code.trim().parse().context("exit code")?;
    let inputs = dir
        .join(case.split('/').next().unwrap_or_default())
        .join("in");
    let (input, command) = match command.split_once(" | ") {
        Some((source, command)) => {
            let name = source.trim_start_matches("$ cat ");
            (std::fs::read(inputs.join(name))?, command)
        }
        None => (Vec::new(), command),
    };
    let ran = istioctl(&inputs, &words(command), &input);
    let mut differences = lines("standard output", &masked(stdout), &masked(&ran.stdout));
    differences.extend(lines(
        "standard error",
        &comparable(stderr),
        &comparable(&ran.stderr),
    ));
    if ran.code != code {
        differences.push(format!("exit code: recorded {code}, here {}", ran.code));
    }
    Ok(differences)
}

/// Without usage texts, which are our own, and without the choice between two kinds of blank that the protobuf library of
/// the real program makes at random.
fn comparable(text: &str) -> String {
    let text = text.replace('\u{a0}', " ");
    match (text.contains("Usage:"), text.rfind("Error: ")) {
        (true, Some(at)) => text[at..].to_owned(),
        _ => text,
    }
}

/// Without the versions of the program that ran.
fn masked(text: &str) -> String {
    let lines = text.lines().map(|line| {
        for field in [
            "version",
            "revision",
            "golang_version",
            "status",
            "tag",
            "client version",
        ] {
            for name in [format!("{field}: "), format!("\"{field}\": ")] {
                if let Some(indent) = line.find(&name)
                    && line[..indent].trim().is_empty()
                {
                    let comma = if line.ends_with(',') { "," } else { "" };
                    return format!("{}{name}...{comma}", &line[..indent]);
                }
            }
        }
        line.to_owned()
    });
    lines.map(|line| line + "\n").collect()
}

/// Where lines differ.
fn lines(what: &str, recorded: &str, seen: &str) -> Vec<String> {
    let (recorded, seen): (Vec<&str>, Vec<&str>) =
        (recorded.split('\n').collect(), seen.split('\n').collect());
    let mut differences: Vec<String> = recorded
        .iter()
        .zip(&seen)
        .enumerate()
        .filter(|(_, (recorded, seen))| recorded != seen)
        .map(|(number, (recorded, seen))| {
            format!(
                "{what}, line {}: recorded {recorded:?}, here {seen:?}",
                number + 1
            )
        })
        .collect();
    if recorded.len() != seen.len() {
        differences.push(format!(
            "{what}: recorded {} lines, here {}",
            recorded.len(),
            seen.len()
        ));
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_split_as_a_shell_does() {
        assert_eq!(
            words("istioctl pc c --fqdn \"a b\" ''"),
            ["pc", "c", "--fqdn", "a b", ""]
        );
        assert_eq!(words("$ istioctl foo"), ["foo"]);
    }
}
