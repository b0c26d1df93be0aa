//! Runs one case against one proxy.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::bootstrap::{addresses, listener_name};
use crate::case::{AnswerSpec, Case, Part, RequestSpec, Step, Wait};
use crate::client::Client;
use crate::outcome::{Outcome, mask, same_time_for_all_tries, within};
use crate::peer::Peer;
use crate::upstream::Upstreams;
use crate::watch::{Watch, stat_name};
use crate::{client, frames};

/// How long counters and logs may lag behind answers.
pub const LAG: Duration = Duration::from_secs(15);

/// How long nothing has to happen where nobody knows what is still to come.
pub const MOMENT: Duration = Duration::from_millis(300);

/// All that is waited for in a case.
fn waits(case: &Case) -> Vec<&Wait> {
    fn of_steps<'a>(steps: &'a [Step], all: &mut Vec<&'a Wait>) {
        for step in steps {
            match step {
                Step::Wait { wait } => all.push(wait),
                Step::Parallel { parallel } => of_steps(parallel, all),
                Step::Request(request) => {
                    all.extend(request.parts.iter().filter_map(|part| match part {
                        Part::Wait { wait } => Some(wait),
                        _ => None,
                    }));
                }
                Step::Short(_) | Step::Frames { .. } => {}
            }
        }
    }
    let mut all = Vec::new();
    of_steps(&case.send, &mut all);
    all.extend(case.answers.iter().filter_map(|answer| match answer {
        AnswerSpec::Full(full) => full.until.as_ref(),
        AnswerSpec::Status(_) => None,
    }));
    all
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
    let names: Vec<String> = case
        .stats
        .iter()
        .map(|name| stat_name(name, &listener))
        .collect();
    let total = format!("http.{listener}.downstream_rq_total");
    let active = format!("http.{listener}.downstream_rq_active");
    let mut watched = names.clone();
    watched.extend([total.clone(), active.clone()]);
    let waited = waits(case)
        .into_iter()
        .filter_map(|wait| wait.stat.as_ref());
    watched.extend(waited.map(|name| stat_name(name, &listener)));
    // Nothing of the case before is still under way where this one counts.
    let clusters = names
        .iter()
        .filter_map(|name| name.strip_prefix("cluster."));
    let under_way = clusters.filter_map(|name| {
        let cluster = name.split('.').next()?;
        Some(format!("cluster.{cluster}.upstream_rq_active"))
    });
    let under_way: Vec<String> = under_way.collect();
    let start = Instant::now();
    while !under_way.is_empty()
        && peer.admin.stats(&under_way).await.values().any(|n| *n > 0)
        && start.elapsed() < LAG
    {
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let before = peer.admin.stats(&watched).await;
    let watch = Watch {
        admin: peer.admin,
        listener: listener.clone(),
        before: before.clone(),
    };
    upstreams.reset(
        case.answers.iter().map(AnswerSpec::full).collect(),
        Some(watch.clone()),
    );
    let client = Client {
        target,
        certs: certs.to_owned(),
        script: upstreams.script.clone(),
        watch,
    };

    let mut outcome = Outcome::default();
    let mut unordered = false;
    for step in &case.send {
        if let Step::Wait { wait } = step {
            if let Err(problem) = client.watch.until(wait, &upstreams.script).await {
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
        let stats = peer.admin.stats(&[total.clone(), active.clone()]).await;
        let lines: Vec<String> = std::fs::read_to_string(peer.logs.join(format!("{listener}.log")))
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect();
        let all = lines.len() as i64 >= stats[&total] - before[&total];
        let logged = match hint {
            _ if case.log.as_deref() == Some("") || case.network.is_some() => true,
            // One more than expected would be seen, but is not waited for.
            Some(hint) => lines.len() >= hint.log.len() && (all || start.elapsed() > MOMENT),
            None if case.log_filter.is_none() => all,
            None => start.elapsed() > MOMENT,
        };
        if start.elapsed() > lag || stats[&active] == 0 && logged {
            break lines;
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    };
    let (start, mut same_since) = (Instant::now(), Instant::now());
    loop {
        let after = peer.admin.stats(&names).await;
        let now: BTreeMap<String, i64> = case
            .stats
            .iter()
            .zip(&names)
            .map(|(short, name)| (short.clone(), after[name] - before[name]))
            .collect();
        let seen = upstreams.script.lock().unwrap().seen.clone();
        if (&now, &seen) != (&outcome.stats, &outcome.upstream) {
            same_since = Instant::now();
        }
        (outcome.stats, outcome.upstream) = (now, seen);
        let settled = match hint {
            Some(hint) => {
                outcome.stats == hint.stats && outcome.upstream.len() >= hint.upstream.len()
            }
            // Nothing to compare with: a moment in which nothing more comes.
            None => same_since.elapsed() > MOMENT,
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
    same_time_for_all_tries(&mut outcome.upstream);
    outcome.answers = outcome.answers.iter().map(masked).collect();
    outcome.upstream = outcome.upstream.iter().map(masked).collect();
    outcome.log = lines.iter().map(masked).collect();
    // Whether a connection in error had begun a request upstream is a matter of the moment.
    let frames = case
        .send
        .iter()
        .all(|step| matches!(step, Step::Frames { .. }));
    if frames && outcome.answers.iter().all(|answer| answer == "<refused>") {
        outcome.upstream.clear();
    }
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
