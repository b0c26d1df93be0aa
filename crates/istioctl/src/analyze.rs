//! `istioctl analyze`: what is wrong with a configuration, before or after it is applied.
//!
//! What is found is decided by the crate `analysis`; here are the command line, the reading of files ([`gather`]) and of clusters ([`live`]).

mod gather;
mod live;

use std::time::{SystemTime, UNIX_EPOCH};

use analysis::analyzers::{self, Analyzer};
use analysis::{CODES, Format, Level, Store, Suppression, mesh};
use anyhow::{Result, bail};
use clap::{ArgAction, Args};

pub use live::{Cluster, Live, too_old};

use crate::{Global, Shell, USAGE};

/// Exit code for files that cannot be read as objects.
const DATA_ERROR: u8 = 65;
/// Exit code for messages of the level of `--failure-threshold`.
const FOUND_ISSUES: u8 = 79;

/// Flags of `analyze`.
#[derive(Args, Clone, Debug, Default)]
pub struct Arguments {
    /// Files and directories; `-` is standard input
    pub files: Vec<std::path::PathBuf>,
    /// Analyze all namespaces
    #[arg(long, short = 'A', num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = ArgAction::Set, value_parser = boolean)]
    pub all_namespaces: bool,
    /// Run only these analyzers; can be repeated
    #[arg(long = "analyzer", value_name = "NAME")]
    pub analyzers: Vec<String>,
    /// Whether levels are coloured; without it, on terminals
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", value_parser = boolean)]
    pub color: Option<bool>,
    /// Level that makes the exit code non-zero: Info, Warning, Error
    #[arg(long, default_value = "Error", value_name = "LEVEL")]
    pub failure_threshold: String,
    /// Accept files that cannot be read as objects
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = ArgAction::Set, value_parser = boolean)]
    pub ignore_unknown: bool,
    /// List the analyzers
    #[arg(long, short = 'L', num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = ArgAction::Set, value_parser = boolean)]
    pub list_analyzers: bool,
    /// File with the mesh configuration to assume
    #[arg(long = "meshConfigFile", value_name = "FILE")]
    pub mesh_config_file: Option<std::path::PathBuf>,
    /// Output format: log, json, yaml
    #[arg(long, short, default_value = "log", value_name = "FORMAT")]
    pub output: String,
    /// Lowest level that is shown: Info, Warning, Error
    #[arg(long, default_value = "Info", value_name = "LEVEL")]
    pub output_threshold: String,
    /// Removed: directories are always read with all below them
    #[arg(long, short = 'R', num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = ArgAction::Set, value_parser = boolean)]
    pub recursive: bool,
    /// Contexts of the other clusters; without it, those of the remote secrets
    #[arg(long, value_name = "NAME")]
    pub remote_contexts: Vec<String>,
    /// Analyze what a revision of the control plane reads
    #[arg(long, short, default_value = "default", value_name = "NAME")]
    pub revision: String,
    /// Do not report a code on a resource: `IST0102=DestinationRule shop/basket`; `*` stands for anything
    #[arg(long = "suppress", short = 'S', value_name = "CODE=RESOURCE")]
    pub suppressions: Vec<String>,
    /// Seconds to wait for clusters
    #[arg(long, default_value = "30s", value_name = "DURATION")]
    pub timeout: String,
    /// Use the live cluster; `--use-kube=false` analyzes files only
    #[arg(long, short = 'k', num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", action = ArgAction::Set, value_parser = boolean)]
    pub use_kube: bool,
    /// Say which analyzers ran
    #[arg(long, short, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", action = ArgAction::Set, value_parser = boolean)]
    pub verbose: bool,
}

/// Runs the command; the exit code.
///
/// # Errors
/// When files or clusters cannot be read.
pub fn run(global: &Global, arguments: &Arguments, shell: &mut Shell<'_>) -> Result<u8> {
    run_with(global, arguments, shell, live::read)
}

/// The same with another way to read clusters.
///
/// # Errors
/// When files or clusters cannot be read.
pub fn run_with(
    global: &Global,
    arguments: &Arguments,
    shell: &mut Shell<'_>,
    read: impl FnOnce(&Global, &Arguments, &[Analyzer], &Shell<'_>) -> Result<Live>,
) -> Result<u8> {
    let (Some(failure), Some(shown)) = (
        level(&arguments.failure_threshold, "--failure-threshold", shell),
        level(&arguments.output_threshold, "--output-threshold", shell),
    ) else {
        return Ok(USAGE);
    };
    let Some(format) = Format::parse(&arguments.output) else {
        writeln!(
            shell.stderr,
            "Error: {} not a valid option for format. See istioctl analyze --help",
            arguments.output.to_lowercase()
        )?;
        return Ok(USAGE);
    };
    if arguments.list_analyzers {
        write!(shell.stdout, "{}", list_of_analyzers())?;
        return Ok(0);
    }
    if arguments.recursive {
        writeln!(
            shell.stdout,
            "The recursive flag has been removed and is hardcoded to true without explicitly specifying it."
        )?;
        return Ok(0);
    }
    let files = gather::files(&arguments.files, shell)?;
    let analyzers = analyzers::named(&arguments.analyzers);
    // The cluster is asked for the namespace before anything else is looked at.
    let live = if arguments.use_kube {
        Some(read(global, arguments, &analyzers, shell)?)
    } else {
        None
    };
    if let Some(Live::NoNamespace(name)) = &live {
        writeln!(shell.stderr, "namespace {name:?} not found")?;
        return Ok(0);
    }
    let suppressions = suppressions(&arguments.suppressions, shell)?;
    let namespace = selected_namespace(global, arguments, live.as_ref());

    let mut store = Store::default();
    let kinds = analysis::kinds(&analyzers);
    // Without a cluster, the gateway that an installation has is assumed; as a Pod and a Service it is passed over like those of
    // files. It makes the kinds of files known even when there is no file.
    let read = analysis::offer_files(&mut store, &files, &kinds, &namespace);
    for warning in &read.warnings {
        log_warning(shell, Some("file"), warning)?;
    }
    let mut mesh_config = mesh::default_config();
    let mut networks = serde_json::json!({});
    let mut with_cluster = false;
    if let Some(Live::Clusters(clusters)) = live {
        with_cluster = clusters.len() > 1;
        for cluster in clusters {
            for warning in &cluster.warnings {
                log_warning(shell, None, warning)?;
            }
            if let Some((config, of_networks)) = cluster.mesh() {
                mesh_config = config;
                networks = of_networks.unwrap_or(networks);
            }
            cluster.add_to(&mut store);
        }
    }
    if let Some(file) = &arguments.mesh_config_file
        && let Ok(text) = std::fs::read_to_string(shell.path(file))
        && let Ok(config) = mesh::config(&text)
    {
        mesh_config = config;
    }
    for object in [
        mesh::config_object(mesh_config, &global.istio_namespace),
        mesh::networks_object(networks, &global.istio_namespace),
    ] {
        store.offer(object.origin.kind);
        store.add(object);
    }

    let unreadable = read.error();
    if let Some(error) = &unreadable {
        write!(shell.stderr, "Error(s) adding files: {error}")?;
    }
    let options = analysis::Options {
        namespace: namespace.clone(),
        suppressions,
        now: now(),
    };
    let report = analysis::analyze(&analyzers, &store, &options);
    let target = if arguments.all_namespaces {
        "all namespaces".to_owned()
    } else {
        format!("namespace: {namespace}")
    };
    if arguments.verbose {
        writeln!(shell.stderr, "Analyzed resources in {target}")?;
        names(shell, "Skipped analyzers:", &report.skipped)?;
        names(shell, "Executed analyzers:", &report.executed)?;
        writeln!(shell.stderr)?;
    }
    let mut told = report.messages.clone();
    told.retain(|message| message.level <= shown);
    for message in &mut told {
        message.with_cluster = with_cluster;
    }
    let color = arguments.color.unwrap_or(shell.terminal);
    writeln!(shell.stdout, "{}", analysis::print(&told, format, color))?;
    if told.is_empty() {
        nothing_found(shell, &files, &target, unreadable.is_some())?;
    }
    // Other formats are for programs, which count themselves.
    if format != Format::Log {
        return Ok(0);
    }
    if report
        .messages
        .iter()
        .any(|message| message.level <= failure)
    {
        writeln!(
            shell.stderr,
            "Error: Analyzers found issues when analyzing {target}.\nSee {} for more information about causes and resolutions.",
            analysis::DOCUMENTATION
        )?;
        return Ok(FOUND_ISSUES);
    }
    if unreadable.is_some() && !arguments.ignore_unknown {
        writeln!(shell.stderr, "Error: Some files couldn't be parsed.")?;
        return Ok(DATA_ERROR);
    }
    Ok(0)
}

/// A boolean as Go's flags have it.
fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!(
            "strconv.ParseBool: parsing {text:?}: invalid syntax"
        )),
    }
}

fn level(text: &str, flag: &str, shell: &mut Shell<'_>) -> Option<Level> {
    let level = Level::parse(text);
    if level.is_none() {
        let _ = writeln!(
            shell.stderr,
            "Error: invalid argument {text:?} for {flag:?} flag: invalid level option"
        );
    }
    level
}

/// The namespace whose messages are told, which objects of files without namespace are in too; empty for all.
fn selected_namespace(global: &Global, arguments: &Arguments, live: Option<&Live>) -> String {
    if arguments.all_namespaces {
        return String::new();
    }
    let named = global.namespace.clone().filter(|name| !name.is_empty());
    let of_context = match live {
        Some(Live::Clusters(clusters)) => clusters
            .first()
            .map(|cluster| cluster.default_namespace.clone()),
        _ => None,
    };
    named
        .or(of_context.filter(|name| !name.is_empty()))
        .unwrap_or_else(|| "default".to_owned())
}

fn suppressions(texts: &[String], shell: &mut Shell<'_>) -> Result<Vec<Suppression>> {
    let mut suppressions = Vec::new();
    for text in texts {
        let parts: Vec<&str> = text.split('=').collect();
        let [code, resource] = parts[..] else {
            bail!("{text} is not a valid suppression value. See istioctl analyze --help");
        };
        if !CODES.contains(&code) {
            writeln!(
                shell.stderr,
                "Warning: Supplied message code '{code}' is an unknown message code and will not have any effect."
            )?;
        }
        suppressions.push(Suppression {
            code: code.to_owned(),
            resource: resource.to_owned(),
        });
    }
    Ok(suppressions)
}

fn list_of_analyzers() -> String {
    let mut analyzers = analyzers::all();
    analyzers.sort_by(|a, b| a.name.cmp(&b.name));
    analyzers
        .iter()
        .map(|analyzer| format!("* {}:\n    {}\n", analyzer.name, analyzer.description))
        .collect()
}

fn names(shell: &mut Shell<'_>, title: &str, names: &[String]) -> Result<()> {
    if !names.is_empty() {
        writeln!(shell.stderr, "{title}")?;
    }
    for name in names {
        writeln!(shell.stderr, "\t {name}")?;
    }
    Ok(())
}

fn nothing_found(
    shell: &mut Shell<'_>,
    files: &[analysis::files::File],
    target: &str,
    unreadable: bool,
) -> Result<()> {
    if unreadable {
        writeln!(
            shell.stderr,
            "No validation issues found when analyzing {target} (but 1 file could not be parsed)."
        )?;
        return Ok(());
    }
    let what = match files {
        [] => format!(" {target}."),
        [one] => format!(" {}.", one.name),
        several => several
            .iter()
            .map(|file| format!("\n  - {}", file.name))
            .fold(":".to_owned(), |text, line| text + &line),
    };
    writeln!(
        shell.stderr,
        "\u{2714} No validation issues found when analyzing{what}"
    )?;
    Ok(())
}

/// A line of the log, which the real program writes among its results.
pub(crate) fn log_warning(shell: &mut Shell<'_>, scope: Option<&str>, text: &str) -> Result<()> {
    let scope = scope.map(|scope| format!("{scope}\t")).unwrap_or_default();
    writeln!(shell.stdout, "{}\twarn\t{scope}{text}", timestamp())?;
    Ok(())
}

fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() as i64)
}

/// The time as the log has it: `2026-01-02T15:04:05.000000Z`.
fn timestamp() -> String {
    let format = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z"
    );
    time::OffsetDateTime::now_utc()
        .format(&format)
        .unwrap_or_default()
}
