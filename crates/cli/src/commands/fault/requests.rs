//! Requests to the theater, many at once, and what became of them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response};
use tokio::net::TcpStream;

/// How many are sent at once.
pub(super) const AT_ONCE: usize = 20;
/// An answer that takes longer counts as none.
const LIMIT: Duration = Duration::from_secs(10);
/// The web's port: what a domain without one means.
const HTTP: u16 = 80;
/// How much of an error is shown.
const SHOWN: usize = 100;

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Outcome {
    /// The status; `-` without an answer.
    status: String,
    /// The cluster whose service answered, as its header says; `-` when none did.
    cluster: String,
    /// Whole seconds that the answer took.
    seconds: u64,
    /// What an error says.
    error: String,
}

/// Sends [`AT_ONCE`] requests for a path, all of them when every connection stands.
pub(super) async fn at_once(domain: &str, path: &str) -> Vec<Outcome> {
    let barrier = tokio::sync::Barrier::new(AT_ONCE);
    let all = (0..AT_ONCE).map(|_| one(domain, path, &barrier));
    futures::future::join_all(all).await
}

/// Every listener of the entry understands HTTP as well as HTTPS.
fn entry(domain: &str) -> SocketAddr {
    let port = domain
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok());
    (Ipv4Addr::LOCALHOST, port.unwrap_or(HTTP)).into()
}

async fn one(domain: &str, path: &str, barrier: &tokio::sync::Barrier) -> Outcome {
    let stream = tokio::time::timeout(LIMIT, TcpStream::connect(entry(domain))).await;
    barrier.wait().await;
    let started = Instant::now();
    let answer = match stream {
        Ok(Ok(stream)) => {
            let asked = async {
                let request = get(&format!("theater.{domain}"), path)?;
                anyhow::Ok(kube_client::exchange(stream, request).await?)
            };
            tokio::time::timeout(LIMIT, asked).await
        }
        Ok(Err(error)) => Ok(Err(error.into())),
        Err(late) => Err(late),
    };
    let seconds = started.elapsed().as_secs();
    match answer {
        Ok(Ok(answer)) => read(&answer, seconds),
        Ok(Err(error)) => unanswered(format!("{error:#}"), seconds),
        Err(_) => unanswered(String::new(), seconds),
    }
}

/// A request for a path of a host, the only one of its connection.
pub(super) fn get(host: &str, path: &str) -> Result<Request<Bytes>> {
    let request = Request::get(path)
        .header(http::header::HOST, host)
        .header(http::header::CONNECTION, "close");
    Ok(request.body(Bytes::new())?)
}

fn unanswered(error: String, seconds: u64) -> Outcome {
    Outcome {
        status: "-".to_owned(),
        cluster: "-".to_owned(),
        seconds,
        error,
    }
}

fn read(answer: &Response<Bytes>, seconds: u64) -> Outcome {
    let header = |name: &str| answer.headers().get(name)?.to_str().ok();
    let status = answer.status();
    let failed = status.is_client_error() || status.is_server_error();
    let body = String::from_utf8_lossy(answer.body());
    let said = body.lines().next().filter(|_| failed).unwrap_or_default();
    Outcome {
        status: status.as_str().to_owned(),
        cluster: header("x-service-cluster").unwrap_or("-").to_owned(),
        seconds,
        error: said.chars().take(SHOWN).collect(),
    }
}

/// How often each outcome came: number, status, cluster, seconds, and what an error says.
pub(super) fn counted(outcomes: &[Outcome]) -> String {
    let mut counts: BTreeMap<&Outcome, usize> = BTreeMap::new();
    for outcome in outcomes {
        *counts.entry(outcome).or_default() += 1;
    }
    let lines = counts.into_iter().map(|(outcome, count)| {
        let Outcome {
            status,
            cluster,
            seconds,
            error,
        } = outcome;
        let line = format!("{count:>7} {status} {cluster} {seconds}s  {error}");
        format!("{}\n", line.trim_end())
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_status_cluster_seconds_and_error() {
        let good = Response::builder()
            .header("x-service-cluster", "ctx2")
            .body(Bytes::from_static(b"[]"))
            .unwrap();
        let bad = Response::builder()
            .status(503)
            .body(Bytes::from_static(b"reset reason: overflow"))
            .unwrap();
        let outcomes = [
            read(&good, 0),
            read(&bad, 0),
            read(&good, 0),
            read(&good, 3),
            unanswered(String::new(), 10),
        ];
        assert_eq!(
            counted(&outcomes),
            "      1 - - 10s\n      2 200 ctx2 0s\n      1 200 ctx2 3s\n      1 503 - 0s  reset reason: overflow\n"
        );
    }

    #[test]
    fn the_entry_is_where_the_domain_says() {
        assert_eq!(entry("localhost"), ([127, 0, 0, 1], 80).into());
        assert_eq!(entry("localhost:18080"), ([127, 0, 0, 1], 18080).into());
    }
}
