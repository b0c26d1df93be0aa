//! `pilot-agent`: the subcommands.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::drain::DrainPolicy;
use http::Method;

use crate::envoy::{self, Envoy};
use crate::fetch::Fetch;
use crate::{Environment, ISTIO_VERSION, ca, status};
use proxy::server::{Options, Proxy};
use proxy::tls::secrets::Secrets;
use proxy::upstream::connect::MARK;
use proxy::xds_client::TargetSource;

const USAGE: &str = "\
usage: pilot-agent proxy sidecar|router [--domain DOMAIN] [--concurrency N] ...
       pilot-agent request [--debug-port PORT] METHOD PATH
       pilot-agent wait [--url URL] [--timeoutSeconds N] [--periodMillis N]
       pilot-agent version";

/// Runs a subcommand; `args` without the program's name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let args: Vec<String> = args
        .into_iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let outcome = match args.first().map(String::as_str) {
        Some("proxy") => {
            runtime::log::init(level(&args));
            proxy(&args[1..])
        }
        Some("request") => request(&args[1..]),
        Some("wait") => wait(&args[1..]),
        Some("version") => {
            println!("version.BuildInfo{{Version:\"{ISTIO_VERSION}\"}}");
            Ok(())
        }
        Some(other) => Err(format!(
            "unknown command {other:?} for \"pilot-agent\"\n{USAGE}"
        )),
        None => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `--log_output_level=default:info`
fn level(args: &[String]) -> runtime::log::Level {
    let text = option(args, "--log_output_level").unwrap_or_default();
    match text.rsplit(':').next() {
        Some("debug") => runtime::log::Level::DEBUG,
        Some("error") => runtime::log::Level::ERROR,
        Some("warn" | "warning") => runtime::log::Level::WARN,
        Some("none") => runtime::log::Level::OFF,
        _ => runtime::log::Level::INFO,
    }
}

/// The value of `--name=value` or `--name value`.
fn option(args: &[String], name: &str) -> Option<String> {
    args.iter()
        .enumerate()
        .find_map(|(at, arg)| match arg.split_once('=') {
            Some((key, value)) if key == name => Some(value.to_owned()),
            None if arg == name => args.get(at + 1).cloned(),
            _ => None,
        })
}

fn proxy(args: &[String]) -> Result<(), String> {
    let role = match args.first().map(String::as_str) {
        Some(role @ ("sidecar" | "router")) => role,
        Some(role) if !role.starts_with('-') => {
            return Err(format!(
                "invalid proxy type {role:?}: it must be sidecar or router"
            ));
        }
        _ => "sidecar",
    };
    let domain = option(args, "--domain");
    let environment = Arc::new(Environment::read(role, domain.as_deref()));
    let concurrency = match option(args, "--concurrency") {
        Some(text) => text
            .parse()
            .map_err(|_| format!("--concurrency: {text:?} is not a number"))?,
        None => environment.config_number("concurrency") as usize,
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let concurrency = concurrency.min(cores);
    runtime.block_on(async {
        match envoy::program(&environment) {
            Some(program) => {
                let level = option(args, "--proxyLogLevel");
                run_envoy(environment, &program, concurrency, level.as_deref()).await
            }
            None => run(environment, concurrency).await,
        }
    })
}

/// Runs an Envoy beside this agent.
async fn run_envoy(
    environment: Arc<Environment>,
    program: &std::path::Path,
    concurrency: usize,
    level: Option<&str>,
) -> Result<(), String> {
    let signal = runtime::shutdown::on_signal().map_err(|error| error.to_string())?;
    let secrets = Arc::new(Secrets::default());
    let started = Envoy::start(
        program,
        &environment,
        &secrets,
        concurrency,
        level.unwrap_or("warning"),
        Some(MARK),
    )?;
    let (envoy, mut process) = started;
    status::serve(
        status::Subject::Envoy(envoy.clone()),
        environment.clone(),
        Some(MARK),
    )?;
    let take = {
        let secrets = secrets.clone();
        move |secret, version: &str| {
            secrets
                .set(secret, version)
                .map_err(|error| error.to_string())
        }
    };
    let certificates = tokio::spawn(ca::keep(
        environment.clone(),
        secrets,
        Box::new(take),
        Some(MARK),
    ));
    let ended = tokio::select! {
        status = process.wait() => Some(status),
        () = signal.cancelled() => {
            envoy.drain().await;
            let active = async || envoy.active_connections().await.unwrap_or(0);
            linger(&environment, &envoy.stop, active).await;
            None
        }
        () = envoy.stop.cancelled() => None,
    };
    certificates.abort();
    match ended {
        Some(status) => Err(format!(
            "{} ended: {}",
            program.display(),
            status.map_or_else(|error| error.to_string(), |status| status.to_string())
        )),
        None => {
            // What it has logged is written when it is told to end.
            if let Some(pid) = process.id() {
                // SAFETY: a signal to a child that has not been waited for; no memory is involved.
                unsafe { libc::kill(pid as libc::pid_t, libc::SIGTERM) };
            }
            let _ = process.wait().await;
            Ok(())
        }
    }
}

async fn run(environment: Arc<Environment>, concurrency: usize) -> Result<(), String> {
    let signal = runtime::shutdown::on_signal().map_err(|error| error.to_string())?;
    let options = Options {
        concurrency,
        mark: Some(MARK),
        // As pilot-agent starts Envoy.
        drain: DrainPolicy {
            time: environment.config_duration("drainDuration", Duration::from_secs(45)),
            gradual: false,
        },
        admin: true,
        bind: true,
    };
    let bootstrap = super::bootstrap(&environment);
    // The target needs the certificates of the proxy that is only being made.
    let secrets: Arc<std::sync::OnceLock<Arc<Secrets>>> = Arc::default();
    let control: TargetSource = {
        let (environment, secrets) = (environment.clone(), secrets.clone());
        Arc::new(move || {
            let secrets = secrets.get().ok_or("starting")?;
            ca::istiod(
                &environment,
                environment.config("discoveryAddress"),
                secrets,
                Some(MARK),
            )
        })
    };
    let proxy = Proxy::start(bootstrap, &options, Some(control))?;
    let _ = secrets.set(proxy.shared.secrets.clone());
    for name in ["default", "ROOTCA"] {
        proxy.manager.expect_local_secret(name);
    }
    status::serve(
        status::Subject::Here(proxy.clone()),
        environment.clone(),
        Some(MARK),
    )?;
    let manager = proxy.manager.clone();
    let certificates = tokio::spawn(ca::keep(
        environment.clone(),
        proxy.shared.secrets.clone(),
        Box::new(move |secret, version| manager.set_local_secret(secret, version)),
        Some(MARK),
    ));
    tokio::select! {
        () = signal.cancelled() => {
            proxy.terminate(environment.role != "router");
            linger(&environment, &proxy.stop, async || proxy.active_connections()).await;
        }
        () = proxy.stop.cancelled() => {}
    }
    certificates.abort();
    proxy.shutdown();
    Ok(())
}

/// Lets requests under way end, once the proxy drains. `active` counts connections; `stop` cuts it short.
async fn linger(
    environment: &Environment,
    stop: &runtime::CancellationToken,
    active: impl AsyncFn() -> u64,
) {
    if environment.flag("EXIT_ON_ZERO_ACTIVE_CONNECTIONS") {
        let least = environment
            .variables
            .get("MINIMUM_DRAIN_DURATION")
            .and_then(|text| super::environment::parse_duration(text))
            .unwrap_or(Duration::from_secs(5));
        tokio::time::sleep(least).await;
        while active().await > 0 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        return;
    }
    let drain = environment.config_duration("terminationDrainDuration", Duration::from_secs(5));
    tracing::info!("graceful termination, draining for {drain:?}");
    tokio::select! {
        () = tokio::time::sleep(drain) => {}
        () = stop.cancelled() => {}
    }
}

/// Runs a future to its end on a runtime of its own.
fn block_on<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?
        .block_on(work)
}

fn get(method: Method, address: SocketAddr, path: &str) -> Fetch<'_> {
    Fetch::local(method, address, path, Duration::from_secs(60))
}

fn request(args: &[String]) -> Result<(), String> {
    let mut port = 15000u16;
    let mut rest = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let value = if let Some(value) = arg.strip_prefix("--debug-port=") {
            value.to_owned()
        } else if arg == "--debug-port" {
            args.next().cloned().unwrap_or_default()
        } else {
            rest.push(arg.as_str());
            continue;
        };
        port = value
            .parse()
            .map_err(|_| format!("--debug-port: {value:?} is not a port"))?;
    }
    let [method, path] = rest[..] else {
        return Err(format!(
            "accepts 2 arg(s), received {}\n{USAGE}",
            rest.len()
        ));
    };
    let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes())
        .map_err(|_| format!("{method:?} is not an HTTP method"))?;
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let (status, body) = block_on(get(method, address, &path).send())
        .map_err(|error| format!("failed to request http://localhost:{port}{path}: {error}"))?;
    print!("{}", String::from_utf8_lossy(&body));
    if status.is_success() {
        Ok(())
    } else {
        Err(format!(
            "received unsuccessful status code {}",
            status.as_u16()
        ))
    }
}

fn wait(args: &[String]) -> Result<(), String> {
    let number = |name: &str, default: u64| match option(args, name) {
        Some(text) => text
            .parse()
            .map_err(|_| format!("{name}: {text:?} is not a number")),
        None => Ok(default),
    };
    let timeout = Duration::from_secs(number("--timeoutSeconds", 60)?);
    let period = Duration::from_millis(number("--periodMillis", 500)?);
    let url =
        option(args, "--url").unwrap_or_else(|| "http://localhost:15021/healthz/ready".to_owned());
    let uri: http::Uri = url
        .parse()
        .map_err(|_| format!("--url: {url:?} is not a URL"))?;
    let address = SocketAddr::from(([127, 0, 0, 1], uri.port_u16().unwrap_or(80)));
    let started = Instant::now();
    block_on(async {
        let mut last = String::new();
        while started.elapsed() < timeout {
            let mut fetch = get(Method::GET, address, uri.path());
            fetch.timeout = Duration::from_secs(1);
            match fetch.send().await {
                Ok((status, _)) if status.is_success() => return Ok(()),
                Ok((status, _)) => last = format!("HTTP status code {}", status.as_u16()),
                Err(error) => last = error,
            }
            tokio::time::sleep(period).await;
        }
        Err(format!(
            "timeout waiting for Envoy proxy to become ready. Last error: {last}"
        ))
    })
}
