//! `theater analyze`: `istioctl analyze` with the kubeconfig and both clusters of the running theater.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Result, bail};

use super::ask;
use crate::language;
use crate::state::StateDir;
use crate::supervisor::control::Request;
use crate::topology::CLUSTERS;

/// Runs the command.
///
/// # Errors
/// When no theater is running and no file is named.
pub fn analyze(state: &StateDir, args: Vec<OsString>) -> Result<ExitCode> {
    let words: Vec<String> = args
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let added = if chooses_cluster(&words) {
        Vec::new()
    } else if ask(state, &Request::Status).is_ok() {
        of_theater(&words, &state.kubeconfig().to_string_lossy())
    } else if words.iter().any(|word| !word.starts_with('-')) {
        eprintln!("{}", language::analyzing_files_only());
        vec!["--use-kube=false".to_owned()]
    } else {
        bail!(language::not_running(state.root().display()));
    };
    let line = std::iter::once("analyze".to_owned())
        .chain(added)
        .map(OsString::from)
        .chain(args)
        .collect();
    Ok(istioctl::main(line))
}

/// Whether the words already say which cluster is asked, if any, or ask for nothing but text.
fn chooses_cluster(words: &[String]) -> bool {
    const FLAGS: [&str; 10] = [
        "--kubeconfig",
        "-c",
        "--use-kube",
        "-k",
        "--list-analyzers",
        "-L",
        "--help",
        "-h",
        "--recursive",
        "-R",
    ];
    words
        .iter()
        .any(|word| FLAGS.contains(&word.split('=').next().unwrap_or_default()))
}

/// What to add to ask both clusters of the theater about all namespaces.
fn of_theater(words: &[String], kubeconfig: &str) -> Vec<String> {
    let has = |names: &[&str]| {
        words
            .iter()
            .any(|word| names.contains(&word.split('=').next().unwrap_or_default()))
    };
    let mut added = vec![format!("--kubeconfig={kubeconfig}")];
    if !has(&["--remote-contexts"]) {
        let own = value_of(words, "--context").unwrap_or(CLUSTERS[0].name);
        added.extend(
            CLUSTERS
                .iter()
                .filter(|cluster| cluster.name != own)
                .map(|cluster| format!("--remote-contexts={}", cluster.name)),
        );
    }
    if !has(&["-n", "--namespace", "-A", "--all-namespaces"]) {
        added.push("-A".to_owned());
    }
    added
}

/// The value of a flag, behind `=` or as the next word.
fn value_of<'a>(words: &'a [String], flag: &str) -> Option<&'a str> {
    words.iter().enumerate().find_map(|(index, word)| {
        if word == flag {
            return words.get(index + 1).map(String::as_str);
        }
        word.strip_prefix(flag)?.strip_prefix('=')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn both_clusters_are_asked_about_everything() {
        assert_eq!(
            of_theater(&words(""), "/s/kubeconfig"),
            ["--kubeconfig=/s/kubeconfig", "--remote-contexts=ctx2", "-A"]
        );
        assert_eq!(
            of_theater(&words("--context ctx2 -n theater-msa a.yaml"), "/s/k"),
            ["--kubeconfig=/s/k", "--remote-contexts=ctx1"]
        );
    }

    #[test]
    fn who_chooses_a_cluster_or_none_is_left_alone() {
        for line in [
            "--use-kube=false a.yaml",
            "-k=false a.yaml",
            "-L",
            "--kubeconfig x",
        ] {
            assert!(chooses_cluster(&words(line)), "{line}");
        }
        assert!(!chooses_cluster(&words("-A -o json a.yaml")));
    }
}
