//! `theater`: two Kubernetes clusters with one service mesh and a theater on one machine.
//!
//! This crate only wires: every part lives in a crate of its own.

mod applets;
mod catalog;
mod cluster;
mod commands;
mod help;
mod language;
mod memory;
mod state;
mod supervisor;
mod topology;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::state::StateDir;
use crate::supervisor::ports::Wishes;

/// Two Kubernetes clusters, one Istio-compatible mesh and a theater, on one machine
#[derive(Parser)]
#[command(name = "theater", version, arg_required_else_help = true)]
struct Arguments {
    /// Where objects, bookings and keys are kept [default: ~/.local/state/theater]
    #[arg(long, global = true, env = state::STATE_VARIABLE, value_name = "DIR", hide_env = true)]
    state_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything and stay in the foreground; brings back a cluster that has ended
    Up {
        /// The one port of the page and the API, for http:// and https:// [default: 80 and 443, else 8080]
        #[arg(long)]
        port: Option<u16>,
        /// Port of the first cluster's API server; the second has the next one [default: 6443]
        #[arg(long)]
        api_port: Option<u16>,
        /// An Envoy for pods that ask for it: annotation sidecar.istio.io/proxyImage: proxyv2-envoy
        #[arg(long, value_name = "PROGRAM")]
        envoy: Option<PathBuf>,
    },
    /// Print what a shell needs: eval "$(theater env)"
    Env,
    /// Show the running theater
    Status,
    /// Stop the running theater; objects and bookings are kept
    Down,
    /// Return to the initial scene
    Reset {
        /// Remove everything in the state directory, keys included (of a stopped theater)
        #[arg(long)]
        all: bool,
    },
    /// Show what the clusters themselves log
    Logs {
        /// Only this cluster
        cluster: Option<String>,
        /// Lines from the end
        #[arg(long, default_value_t = 50)]
        tail: usize,
        /// Keep printing
        #[arg(long, short)]
        follow: bool,
    },
    /// Cut, slow down or mend the link between a cluster and the internet; without options it is mended
    Wan {
        /// The cluster
        cluster: String,
        /// Let nothing through
        #[arg(long)]
        cut: bool,
        /// Delay in each direction, in milliseconds (needs netem in the kernel)
        #[arg(long, default_value_t = 0)]
        latency: u32,
        /// Share of packets lost, in percent
        #[arg(long, default_value_t = 0.0)]
        loss: f64,
    },
    /// Faults on purpose, as k8s/fault-injection-demo.sh makes them: setup, delay, circuit, error, block, chaos, recover, status, test
    Fault {
        /// What happens
        scenario: commands::fault::Scenario,
        /// Only in this cluster
        #[arg(long, value_name = "CLUSTER")]
        context: Option<String>,
    },
    /// Run the proxy alone with an Envoy bootstrap file: theater proxy -c FILE
    #[command(disable_help_flag = true)]
    Proxy {
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Istio's command line: theater istioctl proxy-config, proxy-status, version, ...
    #[command(disable_help_flag = true)]
    Istioctl {
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Find mistakes in Istio configuration, of files or of the running clusters: istioctl analyze
    #[command(disable_help_flag = true)]
    Analyze {
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// What a pod's proxy would be told, from files of Kubernetes objects and Istio configuration: Envoy's config dump
    Xds(commands::xds::Arguments),
    /// One cluster; started by `up`
    #[command(hide = true)]
    Cluster {
        /// Its name
        name: String,
        /// The Envoy of the image proxyv2-envoy
        #[arg(long)]
        envoy: Option<PathBuf>,
    },
    /// A program of a built-in image
    #[command(hide = true, disable_help_flag = true)]
    Applet {
        /// Its name
        name: String,
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    // Before anything else: the code of all of theater's commands would stay in a proxy's memory.
    if let Some(code) = proxy::command::asked_for() {
        return code;
    }
    let args: Vec<OsString> = std::env::args_os().collect();
    // Sandboxes re-execute this program and need it before any thread exists.
    if args.get(1).is_some_and(|arg| arg == sandbox::INIT_COMMAND) {
        sandbox::init_main(&args[2..]);
    }
    let name = args
        .first()
        .and_then(|arg| Path::new(arg).file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    if name != "theater"
        && let Some(code) = applets::run(&name, args[1..].to_vec())
    {
        return code;
    }
    let matches = help::in_current_language(Arguments::command()).get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("theater: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    if let Command::Applet { name, args } = arguments.command {
        return applets::run(&name, args)
            .with_context(|| format!("there is no built-in program {name:?}"));
    }
    if let Command::Proxy { args } = arguments.command {
        return Ok(proxy::command::main(args));
    }
    if let Command::Istioctl { args } = arguments.command {
        return Ok(istioctl::main(args));
    }
    if let Command::Xds(arguments) = arguments.command {
        commands::xds::run(&arguments)?;
        return Ok(ExitCode::SUCCESS);
    }
    let state = StateDir::open(arguments.state_dir)?;
    if let Command::Analyze { args } = arguments.command {
        return commands::analyze::analyze(&state, args);
    }
    match arguments.command {
        Command::Up {
            port,
            api_port,
            envoy,
        } => up(
            state,
            &supervisor::Options {
                wishes: Wishes {
                    entry: port,
                    api: api_port,
                },
                envoy: envoy.map(supervisor::program).transpose()?,
            },
        )?,
        Command::Env => commands::env(&state)?,
        Command::Status => commands::status(&state)?,
        Command::Down => commands::down(&state)?,
        Command::Reset { all } => commands::reset(&state, all)?,
        Command::Logs {
            cluster,
            tail,
            follow,
        } => commands::logs::run(&state, cluster.as_deref(), tail, follow)?,
        Command::Wan {
            cluster,
            cut,
            latency,
            loss,
        } => commands::wan(&state, &cluster, cut, latency, loss)?,
        Command::Fault { scenario, context } => {
            commands::fault::run(&state, scenario, context.as_deref())?;
        }
        Command::Cluster { name, envoy } => cluster::main(&state, &name, envoy.as_deref())?,
        Command::Applet { .. }
        | Command::Proxy { .. }
        | Command::Istioctl { .. }
        | Command::Xds(_)
        | Command::Analyze { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn up(state: StateDir, options: &supervisor::Options) -> Result<()> {
    let Some(lock) = state.try_lock()? else {
        return commands::up_again(&state);
    };
    let doors = supervisor::open_and_enter(options, lock)?;
    runtime::log::init(runtime::log::Level::WARN);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start")?
        .block_on(async {
            tokio::spawn(memory::give_back());
            supervisor::run(state, doors).await
        })
}
