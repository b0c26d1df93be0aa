//! Requests to the theater, many at once, and what became of them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
        Ok(Ok(stream)) => tokio::time::timeout(LIMIT, exchange(stream, domain, path)).await,
        Ok(Err(error)) => Ok(Err(error)),
        Err(late) => Err(late),
    };
    let seconds = started.elapsed().as_secs();
    match answer {
        Ok(Ok(answer)) => read(&answer, seconds),
        Ok(Err(error)) => unanswered(error.to_string(), seconds),
        Err(_) => unanswered(String::new(), seconds),
    }
}

async fn exchange(mut stream: TcpStream, domain: &str, path: &str) -> std::io::Result<Vec<u8>> {
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: theater.{domain}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

fn unanswered(error: String, seconds: u64) -> Outcome {
    Outcome {
        status: "-".to_owned(),
        cluster: "-".to_owned(),
        seconds,
        error,
    }
}

fn read(answer: &[u8], seconds: u64) -> Outcome {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap_or("-");
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let failed = status.starts_with(['4', '5']);
    let said = body.lines().next().filter(|_| failed).unwrap_or_default();
    Outcome {
        status: status.to_owned(),
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
        let good = b"HTTP/1.1 200 OK\r\nX-Service-Cluster: ctx2\r\n\r\n[]";
        let bad = b"HTTP/1.1 503 Service Unavailable\r\nserver: istio-envoy\r\n\r\nreset reason: overflow";
        let outcomes = [
            read(good, 0),
            read(bad, 0),
            read(good, 0),
            read(good, 3),
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
