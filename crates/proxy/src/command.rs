//! `theater proxy -c FILE`: the proxy from an Envoy bootstrap, without an agent.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use xds::Wire as _;
use xds::envoy::config::bootstrap::v3::Bootstrap;

use crate::bootstrap;
use crate::server::{Options, Proxy};

const USAGE: &str = "usage: proxy -c FILE [--concurrency N] [--drain-time-s N] [--drain-strategy gradual|immediate] [--mode serve|validate]";

/// Runs `main`, if this process was started as `theater proxy ...`; else `None`. Whoever asks first spares a proxy
/// the pages of whatever else reads command lines in this program.
#[must_use]
pub fn asked_for() -> Option<ExitCode> {
    let mut args = std::env::args_os();
    let program = args.next()?;
    let named = Path::new(&program)
        .file_name()?
        .to_str()?
        .starts_with("theater");
    (named && args.next()? == "proxy").then(|| main(args.collect()))
}

/// Runs until SIGTERM or SIGINT, or until `/quitquitquit`.
pub fn main(args: Vec<OsString>) -> ExitCode {
    runtime::log::init(runtime::log::Level::INFO);
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Vec<OsString>) -> Result<(), String> {
    let mut file: Option<PathBuf> = None;
    let mut options = Options {
        concurrency: 0,
        ..Options::default()
    };
    let (mut validate, mut encode) = (false, false);
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let arg = arg.to_string_lossy().into_owned();
        let (name, inline) = match arg.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (arg, None),
        };
        let mut value = || {
            inline
                .clone()
                .or_else(|| {
                    args.next()
                        .map(|value| value.to_string_lossy().into_owned())
                })
                .ok_or_else(|| format!("{name} needs a value\n{USAGE}"))
        };
        match name.as_str() {
            "-c" | "--config-path" => file = Some(value()?.into()),
            "--concurrency" => options.concurrency = number(&value()?)? as usize,
            "--drain-time-s" => {
                options.drain.time = Duration::from_secs(number(&value()?)?);
            }
            "--drain-strategy" => {
                options.drain.gradual = match value()?.as_str() {
                    "gradual" => true,
                    "immediate" => false,
                    other => {
                        return Err(format!(
                            "--drain-strategy: {other:?} is neither gradual nor immediate"
                        ));
                    }
                }
            }
            "--mode" => {
                (validate, encode) = match value()?.as_str() {
                    "validate" => (true, false),
                    "serve" => (false, false),
                    // For this program itself: see `read_apart`.
                    "encode" => (false, true),
                    other => {
                        return Err(format!("--mode: {other:?} is neither serve nor validate"));
                    }
                }
            }
            "-h" | "--help" => {
                println!("{USAGE}");
                return Ok(());
            }
            // Envoy's other options do not change what happens to a request.
            "-l"
            | "--log-level"
            | "--base-id"
            | "--service-cluster"
            | "--service-node"
            | "--file-flush-interval-msec"
            | "--local-address-ip-version"
            | "--component-log-level"
            | "--log-format" => {
                value()?;
            }
            "--disable-hot-restart"
            | "--allow-unknown-static-fields"
            | "--skip-deprecated-logs" => {}
            other => return Err(format!("unknown option {other}\n{USAGE}")),
        }
    }
    let file = file.ok_or(USAGE)?;
    if encode {
        let bytes = bootstrap::read(&file)?.to_wire();
        return std::io::stdout()
            .write_all(&bytes)
            .map_err(|error| error.to_string());
    }
    let bootstrap = read_apart(&file)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(async {
        let signal = runtime::shutdown::on_signal().map_err(|error| error.to_string())?;
        bootstrap::check(&bootstrap).map_err(|error| format!("{}: {error}", file.display()))?;
        if validate {
            // Another proxy may run with the same file: nothing is opened.
            options.bind = false;
            options.admin = false;
        }
        let proxy = Proxy::start(bootstrap, &options, None)
            .map_err(|error| format!("{}: {error}", file.display()))?;
        if validate {
            println!("configuration '{}' OK", file.display());
            return Ok(());
        }
        tokio::select! {
            () = signal.cancelled() => {}
            () = proxy.stop.cancelled() => {}
        }
        proxy.shutdown();
        Ok(())
    })
}

/// Reads a bootstrap in a process of its own: reading JSON takes the descriptors of all of Envoy's messages, tens of megabytes that a
/// proxy need not hold for the rest of its life. Where that does not work, and to say what is wrong, it is read here.
fn read_apart(file: &Path) -> Result<Bootstrap, String> {
    let child = Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .args(["--mode", "encode"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    if let Ok(output) = child
        && output.status.success()
        && let Ok(bootstrap) = Bootstrap::from_wire(&output.stdout)
        && !output.stdout.is_empty()
    {
        return Ok(bootstrap);
    }
    bootstrap::read(file)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a number"))
}
