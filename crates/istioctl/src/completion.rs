//! `istioctl completion SHELL`, and what its scripts ask while somebody types: `istioctl __complete WORDS...`.

use std::ffi::OsString;

use anyhow::Result;
use clap::{Args, Subcommand};
use kube_client::{ListParams, NAMESPACES, PODS, Resource, SERVICES};

use crate::mesh::Mesh;
use crate::{Global, Shell, async_runtime, command};

/// What is typed.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    shell: Option<Wanted>,
}

#[derive(Subcommand, Debug)]
enum Wanted {
    /// For bash: source <(istioctl completion bash)
    Bash(Script),
    /// For fish: istioctl completion fish | source
    Fish(Script),
    /// For PowerShell: istioctl completion powershell | Out-String | Invoke-Expression
    Powershell(Script),
    /// For zsh: source <(istioctl completion zsh)
    Zsh(Script),
    #[command(external_subcommand)]
    Unknown(Vec<String>),
}

#[derive(Args, Debug)]
struct Script {
    /// Names alone
    #[arg(long)]
    no_descriptions: bool,
    #[arg(hide = true)]
    rest: Vec<String>,
}

/// What scripts ask that show names alone.
const WITHOUT_DESCRIPTIONS: &str = "__completeNoDesc";
/// What scripts ask.
const WITH_DESCRIPTIONS: &str = "__complete";

const BASH: &str = include_str!("completion/istioctl.bash");
const FISH: &str = include_str!("completion/istioctl.fish");
const POWERSHELL: &str = include_str!("completion/istioctl.ps1");
const ZSH: &str = include_str!("completion/istioctl.zsh");

/// Runs the command; the exit code.
pub(crate) fn run(arguments: &Arguments, shell: &mut Shell<'_>) -> Result<u8> {
    let (name, text, script) = match &arguments.shell {
        None | Some(Wanted::Unknown(_)) => {
            if let Some(Wanted::Unknown(words)) = &arguments.shell {
                let word = words.first().map_or("", |word| word.as_str());
                writeln!(shell.stderr, "there is no completion for {word:?}")?;
            }
            write!(shell.stdout, "{}", command::help(&["completion"]))?;
            return Ok(0);
        }
        Some(Wanted::Bash(script)) => ("bash", BASH, script),
        Some(Wanted::Fish(script)) => ("fish", FISH, script),
        Some(Wanted::Powershell(script)) => ("powershell", POWERSHELL, script),
        Some(Wanted::Zsh(script)) => ("zsh", ZSH, script),
    };
    if let Some(word) = script.rest.first() {
        return command::no_arguments(word, &format!("completion {name}"), shell);
    }
    let asks = if script.no_descriptions {
        WITHOUT_DESCRIPTIONS
    } else {
        WITH_DESCRIPTIONS
    };
    write!(shell.stdout, "{}", text.replace(WITH_DESCRIPTIONS, asks))?;
    Ok(0)
}

/// Answers a script; `None` when something else was typed. What follows are words of somebody else's command line, not of this one.
pub(crate) fn asked(args: &[OsString], shell: &mut Shell<'_>) -> Option<u8> {
    let (first, rest) = args.split_first()?;
    let descriptions = first == WITH_DESCRIPTIONS;
    if !descriptions && first != WITHOUT_DESCRIPTIONS {
        return None;
    }
    let words: Vec<String> = rest
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    Some(u8::from(answer(&words, descriptions, shell).is_err()))
}

/// What may stand for the last word.
#[derive(Debug, PartialEq, Eq)]
enum Offer {
    /// These, each with what it is.
    Words(Vec<(String, String)>),
    /// Names of objects.
    Objects(Objects),
    /// Names of files, or anything: the shell's own completion.
    Files,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Objects {
    Namespaces,
    Pods,
    Services,
}

/// Prints what may stand for the last of the words: a line each, and as the last line `:4` when the shell shall not offer files, else `:0`.
fn answer(words: &[String], descriptions: bool, shell: &mut Shell<'_>) -> Result<()> {
    let (typed, before) = match words.split_last() {
        // Some shells cannot hand over an empty word.
        Some((last, before)) if last == "\"\"" => ("", before),
        Some((last, before)) => (last.as_str(), before),
        None => ("", words),
    };
    let (offered, directive) = match offer(&command::tree(), before, typed) {
        Offer::Words(words) => (words, 4),
        Offer::Objects(objects) => {
            let names = names(objects, before, shell).unwrap_or_default();
            (
                names
                    .into_iter()
                    .map(|name| (name, String::new()))
                    .collect(),
                4,
            )
        }
        Offer::Files => (Vec::new(), 0),
    };
    for (word, about) in offered.iter().filter(|(word, _)| word.starts_with(typed)) {
        if descriptions && !about.is_empty() {
            writeln!(shell.stdout, "{word}\t{about}")?;
        } else {
            writeln!(shell.stdout, "{word}")?;
        }
    }
    writeln!(shell.stdout, ":{directive}")?;
    Ok(())
}

fn offer(root: &clap::Command, before: &[String], typed: &str) -> Offer {
    let mut command = root;
    let mut positional = 0;
    let mut words = before.iter();
    while let Some(word) = words.next() {
        if let Some(flag) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) {
            let takes_value = !word.contains('=') && takes_value(command, flag);
            if takes_value && words.next().is_none() {
                return match flag.trim_start_matches('-') {
                    "n" | "namespace" | "i" | "istioNamespace" => {
                        Offer::Objects(Objects::Namespaces)
                    }
                    _ => Offer::Files,
                };
            }
        } else if let Some(next) = command.find_subcommand(word) {
            command = next;
        } else {
            positional += 1;
        }
    }
    if typed.starts_with('-') {
        return Offer::Words(flags(command));
    }
    if command.has_subcommands() && positional == 0 {
        let all = command.get_subcommands().filter(|one| !one.is_hide_set());
        let offered = all.map(|one| {
            let about = one.get_about().map(ToString::to_string);
            (one.get_name().to_owned(), about.unwrap_or_default())
        });
        return Offer::Words(offered.collect());
    }
    let first = command
        .get_positionals()
        .next()
        .filter(|argument| !argument.is_hide_set());
    let objects = match (
        first.map(|argument| argument.get_id().as_str()),
        command.get_name(),
    ) {
        (Some("pods" | "pod"), _) | (Some("names"), "pod") => Objects::Pods,
        (Some("names"), "service") => Objects::Services,
        _ => return Offer::Files,
    };
    if positional == 0 {
        Offer::Objects(objects)
    } else {
        Offer::Words(Vec::new())
    }
}

/// The flag of a command by what is typed behind its first dash.
fn takes_value(command: &clap::Command, typed: &str) -> bool {
    let found = command
        .get_arguments()
        .find(|argument| match typed.strip_prefix('-') {
            Some(long) => argument.get_long() == Some(long),
            None => argument.get_short() == typed.chars().next_back(),
        });
    found.is_some_and(|argument| {
        argument.get_action().takes_values() && !argument.is_require_equals_set()
    })
}

fn flags(command: &clap::Command) -> Vec<(String, String)> {
    command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set())
        .filter_map(|argument| {
            let about = argument.get_help().map(ToString::to_string);
            Some((
                format!("--{}", argument.get_long()?),
                about.unwrap_or_default(),
            ))
        })
        .collect()
}

/// Names of objects of the cluster that the words so far choose.
fn names(objects: Objects, before: &[String], shell: &Shell<'_>) -> Result<Vec<String>> {
    let value = |names: [&str; 2]| {
        let mut words = before.iter();
        let mut found = None;
        while let Some(word) = words.next() {
            if names.contains(&word.as_str()) {
                found = words.next().cloned();
            } else if let Some((name, value)) = word.split_once('=')
                && names.contains(&name)
            {
                found = Some(value.to_owned());
            }
        }
        found
    };
    let global = Global {
        kubeconfig: value(["--kubeconfig", "-c"]).map(Into::into),
        context: value(["--context", ""]),
        namespace: value(["--namespace", "-n"]),
        ..Global::default()
    };
    let mesh = Mesh::connect(&global, shell)?;
    let (kind, namespace): (Resource, _) = match objects {
        Objects::Namespaces => (NAMESPACES, None),
        Objects::Pods => (PODS, Some(mesh.namespace())),
        Objects::Services => (SERVICES, Some(mesh.namespace())),
    };
    let all = ListParams::default();
    let found = async_runtime()?.block_on(mesh.client.list(&kind, namespace, &all))?;
    Ok(found
        .items
        .iter()
        .map(|object| api::meta::name(object).to_owned())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(line: &str) -> Offer {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let typed = words.pop().unwrap_or_default();
        offer(&command::tree(), &words, &typed)
    }

    fn words(line: &str) -> Vec<String> {
        match offered(line) {
            Offer::Words(words) => words.into_iter().map(|(word, _)| word).collect(),
            other => panic!("{line:?}: {other:?}"),
        }
    }

    #[test]
    fn commands_and_flags_are_offered_where_they_fit() {
        assert!(words("").contains(&"proxy-config".to_owned()));
        assert!(words("pc ").contains(&"cluster".to_owned()));
        assert!(words("--context ctx1 x ").contains(&"check-inject".to_owned()));
        let flags = words("create-remote-secret --n");
        assert!(flags.contains(&"--name".to_owned()) && flags.contains(&"--namespace".to_owned()));
    }

    #[test]
    fn values_are_names_of_objects_or_files() {
        assert_eq!(offered("pc cluster "), Offer::Objects(Objects::Pods));
        assert_eq!(offered("ps -n "), Offer::Objects(Objects::Namespaces));
        assert_eq!(offered("kube-inject -f "), Offer::Files);
        assert_eq!(
            offered("x describe service "),
            Offer::Objects(Objects::Services)
        );
        assert_eq!(offered("pc cluster a "), Offer::Words(Vec::new()));
    }
}
