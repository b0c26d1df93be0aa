//! The commands that talk to a running theater or show what it left.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::language;
use crate::state::StateDir;
use crate::supervisor::RunFile;
use crate::supervisor::control::{self, Answer, Request};
use crate::topology::CLUSTERS;

pub mod analyze;
pub mod fault;
pub mod logs;
pub mod xds;

/// How long a stopping theater may take to give its directory free.
const STOP_LIMIT: Duration = Duration::from_secs(15);

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")
}

/// Asks the running theater; an error that names the remedy when there is none.
fn ask(state: &StateDir, request: &Request) -> Result<Answer> {
    let answer = runtime()?.block_on(control::ask(&state.control_socket(), request))?;
    match answer {
        Some(Answer::Failed { message }) => bail!(message),
        Some(answer) => Ok(answer),
        None => bail!(language::not_running(state.root().display())),
    }
}

/// `theater env`: what to type to use the running theater from a shell.
///
/// # Errors
/// When none is running.
pub fn env(state: &StateDir) -> Result<()> {
    // The file alone proves nothing: a supervisor that was killed leaves it behind.
    ask(state, &Request::Status)?;
    let run = run_file(state)?;
    for (name, value) in variables(state, &run) {
        println!("export {name}={}", quoted(&value));
    }
    // The part after the colon is the caller's own.
    println!("export PATH={}:\"$PATH\"", quoted(&path_text(&state.bin())));
    Ok(())
}

fn run_file(state: &StateDir) -> Result<RunFile> {
    let text = std::fs::read_to_string(state.run_file())
        .map_err(|_| anyhow::anyhow!(language::not_running(state.root().display())))?;
    serde_json::from_str(&text).context("the running theater is of another version")
}

fn variables(state: &StateDir, run: &RunFile) -> Vec<(&'static str, String)> {
    vec![
        ("KUBECONFIG", path_text(&state.kubeconfig())),
        ("DOMAIN", run.domain.clone()),
        ("CURL_CA_BUNDLE", path_text(&state.ca_bundle())),
        ("SSL_CERT_FILE", path_text(&state.ca_bundle())),
        ("THEATER_HOME", path_text(state.root())),
    ]
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A word for a POSIX shell that means exactly `text`.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// `theater status`.
///
/// # Errors
/// When none is running.
pub fn status(state: &StateDir) -> Result<()> {
    let Answer::Status { pid, url, clusters } = ask(state, &Request::Status)? else {
        bail!("the running theater is of another version");
    };
    println!("theater  {url}  pid {pid}");
    println!("{:<8} {:<12} {:<10} API", "CLUSTER", "PROVIDER", "PROCESS");
    for cluster in clusters {
        let provider = CLUSTERS
            .iter()
            .find(|facts| facts.name == cluster.name)
            .map_or("", |facts| facts.provider);
        let process = cluster
            .pid
            .map_or_else(|| "down".to_owned(), |pid| pid.to_string());
        println!(
            "{:<8} {provider:<12} {process:<10} {}",
            cluster.name, cluster.api
        );
    }
    Ok(())
}

/// `theater down`: ends the running theater and waits until it has.
///
/// # Errors
/// When none is running or it does not end.
pub fn down(state: &StateDir) -> Result<()> {
    ask(state, &Request::Stop)?;
    let deadline = Instant::now() + STOP_LIMIT;
    while state.try_lock()?.is_none() {
        if Instant::now() > deadline {
            bail!(
                "the theater has not ended within {} s",
                STOP_LIMIT.as_secs()
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("{}", language::stopped());
    Ok(())
}

/// `theater reset`: the initial scene again. With `all`, or when no theater is running, everything in the
/// state directory is removed, keys included.
///
/// # Errors
/// When a theater is running and `all` is asked for, or the running one cannot reset itself.
pub fn reset(state: &StateDir, all: bool) -> Result<()> {
    let started = Instant::now();
    match state.try_lock()? {
        Some(_lock) => {
            for cluster in &CLUSTERS {
                let directory = state.cluster(cluster.name);
                // Where a killed one has left control groups is written down there.
                sandbox::cgroup::remove(&crate::cluster::node_dir(&directory));
                remove(&directory)?;
            }
            remove(&state.scene_marker())?;
            if all {
                remove(&state.authorities())?;
            }
        }
        None if all => {
            bail!("a theater is running; `theater down` first, then `theater reset --all`")
        }
        None => {
            ask(state, &Request::Reset)?;
        }
    }
    let seconds = format!("{:.2}", started.elapsed().as_secs_f64());
    println!("{}", language::reset_done(seconds));
    Ok(())
}

/// `theater wan`: changes the link of a cluster.
///
/// # Errors
/// When the cluster is unknown, the loss is no share, or the kernel cannot do it.
pub fn wan(state: &StateDir, cluster: &str, cut: bool, latency: u32, loss: f64) -> Result<()> {
    if !(0.0..=100.0).contains(&loss) {
        bail!("--loss {loss} is not between 0 and 100");
    }
    ask(
        state,
        &Request::Wan {
            cluster: cluster.to_owned(),
            up: !cut,
            latency_ms: latency,
            loss_percent: loss,
        },
    )?;
    println!("{}", language::wan_set(cluster, cut, latency, loss));
    Ok(())
}

fn remove(path: &PathBuf) -> Result<()> {
    let result = if path.is_dir() {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    };
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A second `theater up`: brings clusters back that have ended; an error when there is nothing to do.
///
/// # Errors
/// When the running theater is whole.
pub fn up_again(state: &StateDir) -> Result<()> {
    let Answer::Revived { clusters } = ask(state, &Request::Revive)? else {
        bail!("the running theater is of another version");
    };
    if clusters.is_empty() {
        let run = run_file(state)?;
        bail!(language::already_running(run.pid, run.url()));
    }
    for cluster in clusters {
        println!("{}", language::cluster_restarted(cluster));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_words_mean_what_they_say() {
        assert_eq!(quoted("/home/a/kubeconfig"), "/home/a/kubeconfig");
        assert_eq!(quoted("localhost:8080"), "localhost:8080");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(quoted(""), "''");
    }
}
