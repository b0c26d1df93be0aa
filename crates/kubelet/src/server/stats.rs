//! `/pods` and `/stats/summary`.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Shared;
use crate::clock::{now, rfc3339};

/// The pods of this node as a `v1/PodList`.
pub(super) async fn pods(State(engine): Shared) -> Json<Value> {
    let handles: Vec<_> = engine.pods.read().values().cloned().collect();
    let items: Vec<Value> = handles
        .iter()
        .map(|handle| {
            let mut pod = serde_json::to_value(&**handle.pod.read()).unwrap_or_default();
            pod["status"] = handle.status.read().clone();
            pod
        })
        .collect();
    Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// CPU time and memory of a set of processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    cpu_nanos: u64,
    rss_bytes: u64,
}

/// One process as `/proc/<pid>/stat` describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: i32,
    /// Own and waited-for children's time, in clock ticks.
    ticks: u64,
    rss_pages: u64,
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The program's name may hold anything: count from its closing parenthesis.
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<i64>().ok();
    let ticks: i64 = (11..=14).filter_map(number).sum();
    Some(Stat {
        parent: i32::try_from(number(1)?).ok()?,
        ticks: u64::try_from(ticks).unwrap_or(0),
        rss_pages: u64::try_from(number(21)?).unwrap_or(0),
    })
}

/// Every process of this machine that we can see.
fn processes() -> HashMap<i32, Stat> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| {
            Some((
                pid,
                parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?,
            ))
        })
        .collect()
}

/// The use of `root` and everything below it.
fn usage(all: &HashMap<i32, Stat>, root: i32, ticks_per_second: u64, page: u64) -> Usage {
    let below = |pid: i32| {
        let mut at = pid;
        for _ in 0..64 {
            if at == root {
                return true;
            }
            match all.get(&at) {
                Some(stat) if stat.parent > 0 => at = stat.parent,
                _ => return false,
            }
        }
        false
    };
    let mut usage = Usage::default();
    for (pid, stat) in all {
        if below(*pid) {
            usage.cpu_nanos += stat.ticks * (1_000_000_000 / ticks_per_second.max(1));
            usage.rss_bytes += stat.rss_pages * page;
        }
    }
    usage
}

/// CPU and memory of each container.
pub(super) async fn summary(State(engine): Shared) -> Json<Value> {
    let all = tokio::task::spawn_blocking(processes)
        .await
        .unwrap_or_default();
    let setting = |name| {
        nix::unistd::sysconf(name)
            .ok()
            .flatten()
            .and_then(|value| u64::try_from(value).ok())
    };
    let ticks = setting(nix::unistd::SysconfVar::CLK_TCK).unwrap_or(100);
    let page = setting(nix::unistd::SysconfVar::PAGE_SIZE).unwrap_or(4096);
    let time = rfc3339(now());
    let figures = |usage: Usage| {
        json!([
            {"time": time, "usageCoreNanoSeconds": usage.cpu_nanos},
            {"time": time, "usageBytes": usage.rss_bytes, "workingSetBytes": usage.rss_bytes, "rssBytes": usage.rss_bytes},
        ])
    };
    let handles: Vec<_> = engine.pods.read().values().cloned().collect();
    let mut node = Usage::default();
    let mut pods = Vec::new();
    for handle in handles {
        let mut total = Usage::default();
        let mut containers = Vec::new();
        for (name, live) in handle.containers.read().iter() {
            let usage = usage(&all, live.process.pid(), ticks, page);
            total.cpu_nanos += usage.cpu_nanos;
            total.rss_bytes += usage.rss_bytes;
            let both = figures(usage);
            containers.push(json!({"name": name, "startTime": rfc3339(live.started_at), "cpu": both[0], "memory": both[1]}));
        }
        node.cpu_nanos += total.cpu_nanos;
        node.rss_bytes += total.rss_bytes;
        let both = figures(total);
        pods.push(json!({
            "podRef": {"name": handle.name, "namespace": handle.namespace, "uid": handle.uid},
            "containers": containers, "cpu": both[0], "memory": both[1],
        }));
    }
    let both = figures(node);
    Json(
        json!({"node": {"nodeName": engine.config.node_name, "cpu": both[0], "memory": both[1]}, "pods": pods}),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_containers_use_includes_its_children() {
        let line = "42 (a b) c) S 7 1 1 0 -1 0 0 0 0 0 10 20 3 4 20 0 1 0 100 4096 55 0";
        assert_eq!(
            parse_stat(line),
            Some(Stat {
                parent: 7,
                ticks: 37,
                rss_pages: 55
            })
        );
        let stat = |parent| Stat {
            parent,
            ticks: 100,
            rss_pages: 2,
        };
        let all = HashMap::from([
            (1, stat(0)),
            (10, stat(1)),
            (11, stat(10)),
            (12, stat(11)),
            (20, stat(1)),
        ]);
        assert_eq!(
            usage(&all, 10, 100, 4096),
            Usage {
                cpu_nanos: 3_000_000_000,
                rss_bytes: 6 * 4096
            }
        );
    }
}
