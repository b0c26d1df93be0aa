//! The command line: what may be typed, and what is said to what may not.

use std::ffi::OsString;

use anyhow::Result;
use clap::error::{ContextKind, ErrorKind};
use clap::parser::ValueSource;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::{
    Shell, USAGE, analyze, authz, builtin, check_inject, completion, create_remote_secret,
    dashboard, describe, envoy_stats, injector, internal_debug, kube_inject, metrics, precheck,
    proxy_config, proxy_status, remote_clusters, settings, tag, validate, version, workload,
};

/// Look at the mesh: what proxies were told, whether they have it, what is wrong with a configuration
#[derive(Parser)]
#[command(name = "istioctl", subcommand_required = true)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// Kubernetes configuration file
    #[arg(long, short = 'c', global = true, value_name = "FILE")]
    pub kubeconfig: Option<std::path::PathBuf>,
    /// Kubernetes configuration context
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Kubernetes namespace
    #[arg(long, short, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Namespace of the control plane
    #[arg(
        long = "istioNamespace",
        short = 'i',
        global = true,
        value_name = "NAME",
        default_value = "istio-system"
    )]
    pub istio_namespace: String,
    /// User as whom the cluster is asked, or `system:serviceaccount:NAMESPACE:NAME`
    #[arg(
        long = "as",
        global = true,
        value_name = "USER",
        default_value = "",
        hide_default_value = true
    )]
    pub as_user: String,
    /// Group as whose member the cluster is asked; can be repeated
    #[arg(long = "as-group", global = true, value_name = "GROUP", action = clap::ArgAction::Append)]
    pub as_group: Vec<String>,
    /// UID as whom the cluster is asked
    #[arg(
        long = "as-uid",
        global = true,
        value_name = "UID",
        default_value = "",
        hide_default_value = true
    )]
    pub as_uid: String,
    /// Longest wait for an answer of the API server, such as 15s; 0 is without end
    #[arg(
        long = "kubeclient-timeout",
        global = true,
        value_name = "DURATION",
        default_value = "15s"
    )]
    pub kubeclient_timeout: String,
    /// Level of the Kubernetes client's log; accepted, this client has no levels
    #[arg(long, global = true, hide = true, value_name = "LEVEL")]
    pub vklog: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Analyze Istio configuration and print validation messages
    Analyze(analyze::Arguments),
    /// Print the script for the completion of a shell
    Completion(completion::Arguments),
    /// Create a Secret with which another cluster's control plane can read this one
    #[command(name = "create-remote-secret")]
    CreateRemoteSecret(create_remote_secret::Arguments),
    /// Put sidecars into the workloads of a file
    #[command(name = "kube-inject")]
    KubeInject(kube_inject::Arguments),
    /// Show what a proxy was told
    #[command(name = "proxy-config", visible_alias = "pc")]
    ProxyConfig(proxy_config::Arguments),
    /// Show whether proxies have what the control plane sent
    #[command(name = "proxy-status", visible_alias = "ps")]
    ProxyStatus(proxy_status::Arguments),
    /// Show the versions of this program, the control plane and the proxies
    Version(version::Arguments),
    /// Open a web interface of the cluster on a local port
    #[command(visible_aliases = ["dash", "d"])]
    Dashboard(dashboard::Arguments),
    /// Nothing to install: says what runs
    Install(builtin::Install),
    /// Nothing to upgrade: says what runs
    Upgrade(builtin::Install),
    /// Nothing to remove: says what can be
    Uninstall(builtin::Uninstall),
    /// Commands that may change
    #[command(visible_aliases = ["x", "exp"])]
    Experimental {
        #[command(subcommand)]
        command: Option<Experimental>,
    },
    /// List the remote clusters that each control plane watches
    #[command(name = "remote-clusters")]
    RemoteClusters(remote_clusters::Arguments),
    /// Names for revisions of the control plane
    Tag(tag::Arguments),
    /// Validate Istio configuration in files
    #[command(visible_alias = "v")]
    Validate(validate::Arguments),
    /// Check the components of the mesh
    #[command(name = "verify-install")]
    VerifyInstall,
}

#[derive(Subcommand)]
enum Experimental {
    /// Inspect AuthorizationPolicies
    Authz(authz::Arguments),
    /// Show whether a pod is injected, and why
    #[command(name = "check-inject")]
    CheckInject(check_inject::Arguments),
    /// Show the defaults of this program
    Config(settings::Arguments),
    /// Show what of Istio's configuration concerns a pod or a service
    #[command(visible_alias = "des")]
    Describe(describe::Arguments),
    /// Show what a proxy counts
    #[command(name = "envoy-stats", visible_alias = "es")]
    EnvoyStats(envoy_stats::Arguments),
    /// List sidecar injectors and the sidecars of pods
    Injector(injector::Arguments),
    /// Show what a control plane knows about itself and its proxies
    #[command(name = "internal-debug")]
    InternalDebug(internal_debug::Arguments),
    /// Show rates and latencies of workloads, which a Prometheus in the cluster measures
    #[command(visible_alias = "m")]
    Metrics(metrics::Arguments),
    /// Check whether the cluster fits Istio
    Precheck(precheck::Arguments),
    /// As proxy-status
    #[command(name = "proxy-status", visible_alias = "ps")]
    ProxyStatus(proxy_status::Arguments),
    /// As version
    Version(version::Arguments),
    /// Workloads outside of the cluster
    Workload(workload::Arguments),
    #[command(external_subcommand)]
    Unknown(Vec<String>),
}

/// Commands of the real program that are not here, with what to use instead.
const ABSENT: [(&str, &str); 5] = [
    (
        "admin",
        "the built-in istiod has no ControlZ, whose log levels it would change",
    ),
    (
        "bug-report",
        "the logs are in `theater logs` and `kubectl logs`; `istioctl analyze -A`, `istioctl proxy-config all` and \
      `kubectl cluster-info dump` show the rest",
    ),
    (
        "manifest",
        "the mesh is part of theater and has no charts; `kubectl get -n istio-system` shows its objects",
    ),
    ("waypoint", "there is no ambient mode"),
    ("ztunnel-config", "there is no ambient mode"),
];

/// Runs what is typed; the exit code.
pub(crate) fn run(args: Vec<OsString>, shell: &mut Shell<'_>) -> u8 {
    if let Some(code) = completion::asked(&args, shell) {
        return code;
    }
    let last = args.last().map(|word| word.to_string_lossy().into_owned());
    let name = std::iter::once(OsString::from("istioctl"));
    let arguments = match parse(name.chain(args), shell) {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error, &last.unwrap_or_default(), shell),
    };
    match dispatch(arguments, shell) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(shell.stderr, "Error: {error:#}");
            1
        }
    }
}

/// What is typed. Variables of the environment stand for flags that are not.
fn parse(
    words: impl Iterator<Item = OsString>,
    shell: &Shell<'_>,
) -> Result<Arguments, clap::Error> {
    let matches = Arguments::command().try_get_matches_from(words)?;
    let mut arguments = Arguments::from_arg_matches(&matches)?;
    let typed = matches.value_source("istio_namespace") == Some(ValueSource::CommandLine);
    if let Some(namespace) = shell.settings.get("ISTIOCTL_ISTIONAMESPACE")
        && !typed
    {
        arguments.global.istio_namespace.clone_from(namespace);
    }
    Ok(arguments)
}

fn dispatch(arguments: Arguments, shell: &mut Shell<'_>) -> Result<u8> {
    let global = &arguments.global;
    match arguments.command {
        Command::Analyze(command) => analyze::run(global, &command, shell),
        Command::Completion(command) => completion::run(&command, shell),
        Command::KubeInject(command) => kube_inject::run(global, &command, shell),
        Command::Tag(command) => tag::run(global, &command, shell),
        Command::CreateRemoteSecret(command) => create_remote_secret::run(global, &command, shell),
        Command::ProxyConfig(command) => proxy_config::run(global, &command, shell),
        Command::ProxyStatus(command) => proxy_status::run(global, &command, shell),
        Command::Version(command) => version::run(global, &command, shell),
        Command::Dashboard(command) => dashboard::run(global, &command, shell),
        Command::Install(command) | Command::Upgrade(command) => {
            builtin::install(global, &command, shell)
        }
        Command::Uninstall(command) => builtin::uninstall(&command, shell),
        Command::Experimental { command } => match command {
            None => {
                write!(shell.stdout, "{}", help(&["experimental"]))?;
                Ok(0)
            }
            Some(Experimental::Unknown(words)) => {
                let word = words.first().map_or("", |word| word.as_str());
                writeln!(
                    shell.stderr,
                    "istioctl experimental has no command {word:?} here"
                )?;
                write!(shell.stdout, "{}", help(&["experimental"]))?;
                Ok(0)
            }
            Some(Experimental::Authz(command)) => authz::run(global, &command, shell),
            Some(Experimental::EnvoyStats(command)) => envoy_stats::run(global, &command, shell),
            Some(Experimental::CheckInject(command)) => check_inject::run(global, &command, shell),
            Some(Experimental::Injector(command)) => injector::run(global, &command, shell),
            Some(Experimental::Precheck(command)) => precheck::run(global, &command, shell),
            Some(Experimental::Describe(command)) => describe::run(global, &command, shell),
            Some(Experimental::ProxyStatus(command)) => proxy_status::run(global, &command, shell),
            Some(Experimental::Version(command)) => version::run(global, &command, shell),
            Some(Experimental::Config(command)) => settings::run(global, &command, shell),
            Some(Experimental::InternalDebug(command)) => {
                internal_debug::run(global, &command, shell)
            }
            Some(Experimental::Metrics(command)) => metrics::run(global, &command, shell),
            Some(Experimental::Workload(command)) => workload::run(global, &command, shell),
        },
        Command::RemoteClusters(command) => remote_clusters::run(global, &command, shell),
        Command::Validate(command) => validate::run(global, &command, shell),
        Command::VerifyInstall => builtin::verify(global, shell),
    }
}

/// All commands with their flags.
pub(crate) fn tree() -> clap::Command {
    let mut command = Arguments::command().bin_name("istioctl");
    command.build();
    command
}

/// The help of a subcommand.
pub(crate) fn help(path: &[&str]) -> String {
    let mut command = tree();
    for name in path {
        let Some(next) = command.find_subcommand(name) else {
            break;
        };
        command = next.clone();
    }
    command.render_help().to_string()
}

/// Refuses a word behind a command that takes none.
pub(crate) fn no_arguments(word: &str, command: &str, shell: &mut Shell<'_>) -> Result<u8> {
    writeln!(
        shell.stderr,
        "Error: unknown command {word:?} for \"istioctl {command}\""
    )?;
    Ok(USAGE)
}

/// Says why a command line is not understood, in the words of the program people know; `last` is its last word.
fn refuse(error: &clap::Error, last: &str, shell: &mut Shell<'_>) -> u8 {
    let text = |kind| match error.get(kind) {
        Some(clap::error::ContextValue::String(text)) => text.clone(),
        Some(clap::error::ContextValue::Strings(texts)) => texts.join("\n\t"),
        _ => String::new(),
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = write!(shell.stdout, "{}", error.render());
            return 0;
        }
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = write!(shell.stdout, "{}", Arguments::command().render_help());
            return 0;
        }
        ErrorKind::InvalidValue if text(ContextKind::InvalidValue).is_empty() => {
            let flag = match last.strip_prefix('-').filter(|rest| !rest.starts_with('-')) {
                Some(letters) => {
                    let letter = letters.chars().next_back().unwrap_or_default();
                    format!("{letter:?} in {last}")
                }
                None => last.to_owned(),
            };
            let _ = writeln!(shell.stderr, "Error: flag needs an argument: {flag}");
        }
        ErrorKind::ValueValidation => {
            let flag = text(ContextKind::InvalidArg);
            let flag = flag.split([' ', '=']).next().unwrap_or_default();
            let value = text(ContextKind::InvalidValue);
            let _ = writeln!(
                shell.stderr,
                "Error: invalid argument {value:?} for \"{flag}\" flag: strconv.ParseInt: parsing {value:?}: invalid syntax"
            );
        }
        ErrorKind::UnknownArgument => {
            let flag = text(ContextKind::InvalidArg);
            let letter = flag.chars().nth(1).filter(|letter| *letter != '-');
            let _ = match letter {
                Some(letter) => writeln!(
                    shell.stderr,
                    "Error: unknown shorthand flag: {letter:?} in {flag}"
                ),
                None => writeln!(shell.stderr, "Error: unknown flag: {flag}"),
            };
        }
        ErrorKind::InvalidSubcommand => {
            let unknown = text(ContextKind::InvalidSubcommand);
            if let Some((name, instead)) = ABSENT.iter().find(|(name, _)| *name == unknown) {
                let _ = writeln!(
                    shell.stderr,
                    "Error: \"istioctl {name}\" is not part of this istioctl: {instead}"
                );
                return USAGE;
            }
            let _ = writeln!(
                shell.stderr,
                "Error: unknown command {unknown:?} for \"istioctl\""
            );
            let meant = suggestions(&unknown);
            if !meant.is_empty() {
                let meant = meant.join("\n\t");
                let _ = writeln!(shell.stderr, "\nDid you mean this?\n\t{meant}\n");
            }
            let _ = writeln!(shell.stderr, "Run 'istioctl --help' for usage.");
        }
        _ => {
            let _ = write!(shell.stderr, "{}", error.render());
        }
    }
    USAGE
}

/// Commands whose name begins with what was typed, or differs from it in two letters at most.
fn suggestions(typed: &str) -> Vec<String> {
    let typed = typed.to_lowercase();
    let mut names: Vec<String> = Arguments::command()
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(|command| command.get_name().to_owned())
        .filter(|name| name.starts_with(&typed) || letters_apart(&typed, name) <= 2)
        .collect();
    names.sort_unstable();
    names
}

/// How many letters have to be put in, taken out or replaced to make one word the other (Levenshtein's distance).
fn letters_apart(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, opposite) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *opposite);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_suggested_that_is_nearly_the_same() {
        assert_eq!(suggestions("analize"), ["analyze"]);
        assert_eq!(suggestions("proxy"), ["proxy-config", "proxy-status"]);
        assert!(suggestions("foo").is_empty());
        assert_eq!(letters_apart("kitten", "sitting"), 3);
    }
}
