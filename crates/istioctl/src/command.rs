//! The command line: what may be typed, and what is said to what may not.

use std::ffi::OsString;

use anyhow::Result;
use clap::error::{ContextKind, ErrorKind};
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::{Shell, USAGE, analyze};

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
    /// Level of the Kubernetes client's log; accepted, this client has no levels
    #[arg(long, global = true, hide = true, value_name = "LEVEL")]
    pub vklog: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Analyze Istio configuration and print validation messages
    Analyze(analyze::Arguments),
}

/// Runs what is typed; the exit code.
pub(crate) fn run(args: Vec<OsString>, shell: &mut Shell<'_>) -> u8 {
    let name = std::iter::once(OsString::from("istioctl"));
    let arguments = match Arguments::try_parse_from(name.chain(args)) {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error, shell),
    };
    match dispatch(arguments, shell) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(shell.stderr, "Error: {error:#}");
            1
        }
    }
}

fn dispatch(arguments: Arguments, shell: &mut Shell<'_>) -> Result<u8> {
    match arguments.command {
        Command::Analyze(command) => analyze::run(&arguments.global, &command, shell),
    }
}

/// Says why a command line is not understood, in the words of the program people know.
fn refuse(error: &clap::Error, shell: &mut Shell<'_>) -> u8 {
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
        ErrorKind::UnknownArgument => {
            let _ = writeln!(
                shell.stderr,
                "Error: unknown flag: {}",
                text(ContextKind::InvalidArg)
            );
        }
        ErrorKind::InvalidSubcommand => {
            let (unknown, known) = (
                text(ContextKind::InvalidSubcommand),
                text(ContextKind::SuggestedSubcommand),
            );
            let _ = writeln!(
                shell.stderr,
                "Error: unknown command {unknown:?} for \"istioctl\""
            );
            if !known.is_empty() {
                let _ = writeln!(shell.stderr, "\nDid you mean this?\n\t{known}\n");
            }
            let _ = writeln!(shell.stderr, "Run 'istioctl --help' for usage.");
        }
        _ => {
            let _ = write!(shell.stderr, "{}", error.render());
        }
    }
    USAGE
}
