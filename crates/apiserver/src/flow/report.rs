//! What flow control shows of itself: metrics, and the tables of `/debug/api_priority_and_fairness/`.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use super::requests::row;
use super::{Counts, Flow, REASONS, WAITS};
use crate::target::Query;

/// The metrics, under the names of the real server.
pub(crate) fn metrics(flow: &Flow, out: &mut String) {
    let snapshot = flow.snapshot();
    let head = |out: &mut String, name: &str, kind: &str, help: &str| {
        let _ = writeln!(
            out,
            "# HELP apiserver_flowcontrol_{name} {help}\n# TYPE apiserver_flowcontrol_{name} {kind}"
        );
    };
    let label = |e: &super::Entry| {
        format!(
            "flow_schema=\"{}\",priority_level=\"{}\"",
            e.schema.name, e.level.name
        )
    };
    type Number = (&'static str, &'static str, &'static str, fn(&Counts) -> i64);
    let numbers: [Number; 4] = [
        (
            "current_executing_requests",
            "gauge",
            "Number of requests that are executing.",
            |c| c.executing.load(Ordering::Relaxed),
        ),
        (
            "current_executing_seats",
            "gauge",
            "Number of seats that executing requests occupy.",
            |c| c.seats.load(Ordering::Relaxed),
        ),
        (
            "current_inqueue_requests",
            "gauge",
            "Number of requests that wait in queues.",
            |c| c.queued.load(Ordering::Relaxed),
        ),
        (
            "dispatched_requests_total",
            "counter",
            "Number of requests that were let through.",
            |c| c.dispatched.load(Ordering::Relaxed),
        ),
    ];
    for (name, kind, help, get) in numbers {
        head(out, name, kind, help);
        for e in &snapshot.entries {
            let n = get(&e.counts);
            let _ = writeln!(out, "apiserver_flowcontrol_{name}{{{}}} {n}", label(e));
        }
    }
    let name = "rejected_requests_total";
    head(
        out,
        name,
        "counter",
        "Number of requests that were sent away.",
    );
    for e in &snapshot.entries {
        for (reason, n) in REASONS.iter().zip(&e.counts.rejected) {
            let n = n.load(Ordering::Relaxed);
            if n > 0 {
                let _ = writeln!(
                    out,
                    "apiserver_flowcontrol_{name}{{{},reason=\"{reason}\"}} {n}",
                    label(e)
                );
            }
        }
    }
    let name = "request_wait_duration_seconds";
    head(
        out,
        name,
        "histogram",
        "Length of time a request spent waiting in its queue.",
    );
    for e in snapshot.entries.iter().filter(|e| !e.level.exempt) {
        let mut sum = 0;
        let labels = label(e);
        for (bound, n) in WAITS.iter().zip(&e.counts.waits) {
            sum += n.load(Ordering::Relaxed);
            let _ = writeln!(
                out,
                "apiserver_flowcontrol_{name}_bucket{{{labels},le=\"{bound}\"}} {sum}"
            );
        }
        #[allow(clippy::cast_precision_loss)] // microseconds
        let seconds = e.counts.waited_micros.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(
            out,
            "apiserver_flowcontrol_{name}_bucket{{{labels},le=\"+Inf\"}} {sum}\napiserver_flowcontrol_{name}_sum{{{labels}}} {seconds}\napiserver_flowcontrol_{name}_count{{{labels}}} {sum}"
        );
    }
    let seats = [
        (
            "nominal_limit_seats",
            "Seats that a level has by its shares.",
        ),
        (
            "lower_limit_seats",
            "Seats that a level keeps when it lends all it may.",
        ),
        (
            "upper_limit_seats",
            "Seats that a level has when it borrows all it may.",
        ),
        ("current_limit_seats", "Seats that a level has now."),
    ];
    for (i, (name, help)) in seats.into_iter().enumerate() {
        head(out, name, "gauge", help);
        for level in &snapshot.levels {
            let state = level.state.lock();
            let l = state.limits;
            let n = [l.nominal, l.lower, l.upper, state.set.limit()][i];
            let _ = writeln!(
                out,
                "apiserver_flowcontrol_{name}{{priority_level=\"{}\"}} {n}",
                level.name
            );
        }
    }
}

/// Columns that are as wide as their widest cell, as Go's tabwriter sets them.
fn table(rows: &[Vec<String>]) -> String {
    let last = rows.first().map_or(0, |r| r.len() - 1);
    let width = |column: usize| {
        rows.iter()
            .map(|r| r[column].len() + 2)
            .max()
            .unwrap_or(0)
            .max(8)
    };
    let widths: Vec<usize> = (0..last).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            let cell = format!("{cell},");
            let _ = write!(out, "{cell:<width$}");
        }
        out.push_str(&row[last]);
        out.push('\n');
    }
    out
}

/// The answer to `/debug/api_priority_and_fairness/WHAT`; `None` for what there is not.
pub(crate) fn dump(flow: &Flow, what: &str, query: &Query) -> Option<String> {
    let head = |names: &str| -> Vec<String> { names.split(' ').map(str::to_owned).collect() };
    let snapshot = flow.snapshot();
    let mut rows;
    match what {
        "dump_priority_levels" => {
            rows = vec![head(
                "PriorityLevelName ActiveQueues IsIdle IsQuiescing WaitingRequests ExecutingRequests DispatchedRequests RejectedRequests TimedoutRequests CancelledRequests",
            )];
            for level in &snapshot.levels {
                let state = level.state.lock();
                let active = state.set.dump().filter(|q| !q.waiting.is_empty()).count();
                let idle = state.set.waiting == 0 && state.set.executing == 0;
                rows.push(vec![
                    level.name.clone(),
                    active.to_string(),
                    idle.to_string(),
                    "false".into(),
                    state.set.waiting.to_string(),
                    state.set.executing.to_string(),
                    state.dispatched.to_string(),
                    state.rejected.to_string(),
                    state.timed_out.to_string(),
                    state.cancelled.to_string(),
                ]);
            }
        }
        "dump_queues" => {
            rows = vec![head(
                "PriorityLevelName Index PendingRequests ExecutingRequests SeatsInUse NextDispatchR InitialSeatsSum MaxSeatsSum TotalWorkSum",
            )];
            for level in &snapshot.levels {
                for (i, q) in level.state.lock().set.dump().enumerate() {
                    rows.push(vec![
                        level.name.clone(),
                        i.to_string(),
                        q.waiting.len().to_string(),
                        q.executing.to_string(),
                        q.seats.to_string(),
                        format!("{:.8}ss", q.next),
                        q.initial_seats.to_string(),
                        q.waiting_seats.to_string(),
                        format!("{:.8}ss", q.work),
                    ]);
                }
            }
        }
        "dump_requests" => {
            let details = !query.text("includeRequestDetails").is_empty();
            rows = vec![head(
                "PriorityLevelName FlowSchemaName QueueIndex RequestIndexInQueue FlowDistingsher ArriveTime InitialSeats FinalSeats AdditionalLatency StartTime",
            )];
            if details {
                rows[0].extend(head(
                    "UserName Verb APIPath Namespace Name APIVersion Resource SubResource",
                ));
            }
            for level in &snapshot.levels {
                let state = level.state.lock();
                let clock = |seconds| flow.wall_clock(seconds);
                let queues: Vec<Vec<u64>> = state.set.dump().map(|q| q.waiting).collect();
                for (queue, waiting) in queues.iter().enumerate() {
                    for (place, request) in waiting
                        .iter()
                        .filter_map(|ticket| state.requests.get(ticket))
                        .enumerate()
                    {
                        rows.push(row(request, Some(queue), Some(place), details, clock));
                    }
                    for request in state.requests.values() {
                        if request.runs.is_some_and(|seats| seats.queue == Some(queue)) {
                            rows.push(row(request, Some(queue), None, details, clock));
                        }
                    }
                }
                for request in state.requests.values() {
                    if request.runs.is_some_and(|seats| seats.queue.is_none()) {
                        rows.push(row(request, None, None, details, clock));
                    }
                }
            }
        }
        _ => return None,
    }
    Some(table(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_set_as_the_real_server_sets_them() {
        let row = |cells: &[&str]| cells.iter().map(|c| (*c).to_owned()).collect();
        let rows = [
            row(&["PriorityLevelName", "Index", "Pending"]),
            row(&["node-high", "0", "0"]),
        ];
        assert_eq!(
            table(&rows),
            "PriorityLevelName, Index,  Pending\nnode-high,         0,      0\n"
        );
    }
}
