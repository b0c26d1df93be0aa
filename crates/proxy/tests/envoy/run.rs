//! Runs one case against one proxy.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::bootstrap::{addresses, listener_name};
use crate::case::{AnswerSpec, Case, RequestSpec, Step, Wait};
use crate::client::Client;
use crate::outcome::{Outcome, mask, within};
use crate::peer::Peer;
use crate::upstream::Upstreams;
use crate::{client, frames};

/// How long counters and logs may lag behind answers.
pub const LAG: Duration = Duration::from_millis(1000);

/// The case's own name of a stat, as the proxy calls it.
fn stat_name(name: &str, listener: &str) -> String {
    for prefix in ["http.", "tcp."] {
        if let Some(rest) = name.strip_prefix(prefix) {
            return format!("{prefix}{listener}.{rest}");
        }
    }
    name.to_owned()
}

/// Runs a case. `hint` is what is expected: counters that lag are given time to reach it, `lag` at most.
#[allow(clippy::too_many_arguments)]
pub async fn run(
    case: &Case,
    index: usize,
    peer: &Peer,
    upstreams: &Upstreams,
    certs: &Path,
    hint: Option<&Outcome>,
    lag: Duration,
) -> Outcome {
    let listener = listener_name(index);
    let target = peer.listeners[&listener];
    upstreams.reset(case.answers.iter().map(AnswerSpec::full).collect());
    let client = Client {
        target,
        certs: certs.to_owned(),
        script: upstreams.script.clone(),
    };
    let names: Vec<String> = case
        .stats
        .iter()
        .map(|name| stat_name(name, &listener))
        .collect();
    let total = format!("http.{listener}.downstream_rq_total");
    let active = format!("http.{listener}.downstream_rq_active");
    let mut watched = names.clone();
    watched.extend([total.clone(), active.clone()]);
    for step in &case.send {
        if let Step::Wait {
            wait: Wait {
                stat: Some(name), ..
            },
        } = step
        {
            watched.push(stat_name(name, &listener));
        }
    }
    let before = peer.stats(&watched).await;

    let mut outcome = Outcome::default();
    let mut unordered = false;
    for step in &case.send {
        if let Step::Wait { wait } = step {
            let name = wait.stat.as_ref().map(|name| stat_name(name, &listener));
            if let Err(problem) = wait_for(wait, name, peer, upstreams, &before).await {
                outcome.answers.push(problem);
            }
            continue;
        }
        unordered |= matches!(step, Step::Parallel { .. });
        outcome
            .answers
            .extend(answers(step, &client, upstreams).await);
    }

    // What follows the answers: logs and counters.
    let start = Instant::now();
    let lines = loop {
        let stats = peer.stats(&[total.clone(), active.clone()]).await;
        let lines: Vec<String> = std::fs::read_to_string(peer.logs.join(format!("{listener}.log")))
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect();
        let logged = match (&case.log_filter, hint) {
            _ if case.log.as_deref() == Some("") || case.network.is_some() => true,
            (None, _) => lines.len() as i64 >= stats[&total] - before[&total],
            (Some(_), Some(hint)) => lines.len() >= hint.log.len(),
            (Some(_), None) => start.elapsed() > Duration::from_millis(200),
        };
        if start.elapsed() > lag || stats[&active] == 0 && logged {
            break lines;
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    };
    let start = Instant::now();
    loop {
        let after = peer.stats(&names).await;
        outcome.stats = case
            .stats
            .iter()
            .zip(&names)
            .map(|(short, name)| (short.clone(), after[name] - before[name]))
            .collect();
        outcome.upstream = upstreams.script.lock().unwrap().seen.clone();
        let settled = match hint {
            Some(hint) => {
                outcome.stats == hint.stats && outcome.upstream.len() >= hint.upstream.len()
            }
            // Nothing to compare with: a moment for what is late.
            None => start.elapsed() > Duration::from_millis(200),
        };
        if settled || start.elapsed() > lag {
            break;
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    // A mirror names the machine's own address, which is another one everywhere.
    let said = format!("{:?}", case.send);
    let masked = |text: &String| {
        let text = mask(text, &upstreams.addresses, target);
        let lines = text
            .lines()
            .map(|line| match line.strip_prefix("x-forwarded-for: ") {
                Some(address) if !address.starts_with("127.") && !said.contains(address) => {
                    "x-forwarded-for: {this machine}"
                }
                _ => line,
            });
        lines.collect::<Vec<_>>().join("\n")
    };
    outcome.answers = outcome.answers.iter().map(masked).collect();
    outcome.upstream = outcome.upstream.iter().map(masked).collect();
    outcome.log = lines.iter().map(masked).collect();
    if unordered {
        outcome.upstream.sort();
        outcome.log.sort();
    }
    // Where shares are compared, the single requests are not.
    if case
        .send
        .iter()
        .any(|step| matches!(step, Step::Request(request) if !request.tally.is_empty()))
    {
        outcome.upstream.clear();
        outcome.log.clear();
    }
    outcome
}

async fn wait_for(
    wait: &Wait,
    name: Option<String>,
    peer: &Peer,
    upstreams: &Upstreams,
    before: &BTreeMap<String, i64>,
) -> Result<(), String> {
    if let Some(time) = wait.time {
        tokio::time::sleep(Duration::from_millis(time)).await;
    }
    let start = Instant::now();
    loop {
        let mut seen = true;
        if let Some(count) = wait.seen {
            seen &= upstreams.script.lock().unwrap().arrived >= count;
        }
        if let Some(name) = &name {
            let value = peer.stats(std::slice::from_ref(name)).await[name];
            seen &= wait.is.is_none_or(|is| value == is);
            seen &= wait.changed.is_none_or(|by| value - before[name] >= by);
        }
        if seen {
            if name.is_some() {
                // The main thread tells its counters before the workers hear of what was counted; nothing shows when they have.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            return Ok(());
        }
        if start.elapsed() > Duration::from_secs(10) {
            return Err(format!("<never happened: {wait:?}>"));
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

fn short(text: &str) -> RequestSpec {
    let (method, path) = text.split_once(' ').expect("`METHOD path`");
    RequestSpec {
        method: Some(method.to_owned()),
        path: Some(path.to_owned()),
        ..RequestSpec::default()
    }
}

async fn answers(step: &Step, client: &Client, upstreams: &Upstreams) -> Vec<String> {
    match step {
        Step::Short(text) => client.send(&short(text)).await,
        Step::Request(request) => {
            let mut request = (**request).clone();
            for header in &mut request.headers {
                *header = addresses(header, &upstreams.addresses);
            }
            let mut all = Vec::new();
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            for _ in 0..request.repeat.unwrap_or(1) {
                let answers = client.send(&request).await;
                if request.tally.is_empty() {
                    all.extend(answers);
                } else {
                    for answer in answers {
                        let body = answer.split_once("\n\n").map_or("", |(_, body)| body);
                        *counts.entry(body.to_owned()).or_default() += 1;
                    }
                }
            }
            if !request.tally.is_empty() {
                all.push(match within(&counts, &request.tally) {
                    Ok(()) => "<the expected shares>".to_owned(),
                    Err(problem) => problem,
                });
            }
            all
        }
        Step::Parallel { parallel } => {
            let tasks: Vec<_> = parallel
                .iter()
                .map(|step| {
                    let client: client::Client = client.clone();
                    let request = match step {
                        Step::Short(text) => short(text),
                        Step::Request(request) => (**request).clone(),
                        _ => panic!("only requests are parallel"),
                    };
                    tokio::spawn(async move {
                        let mut all = Vec::new();
                        for _ in 0..request.repeat.unwrap_or(1) {
                            all.extend(client.send(&request).await);
                        }
                        all
                    })
                })
                .collect();
            let mut all = Vec::new();
            for task in tasks {
                all.extend(task.await.unwrap());
            }
            all
        }
        Step::Frames { frames } => vec![frames::send(client.target, frames).await],
        Step::Wait { .. } => Vec::new(),
    }
}
