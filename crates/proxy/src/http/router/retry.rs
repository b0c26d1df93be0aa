//! Whether a request is tried again, and when.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use dataplane::circuit::{Priority, Resource};
use dataplane::retry::{Attempt, Decision, RetryState};
use dataplane::{ResponseFlags, local_reply};

use super::super::connection::{Answer, Connection};
use super::super::record::Record;
use crate::upstream::Cluster;

/// What lies between two tries.
pub(super) struct Pause {
    time: Duration,
    /// The upstream has asked for it.
    asked: bool,
}

/// Pauses before a further try, which does not come, and is not counted, where the time of the whole request is up before.
pub(super) async fn back_off(
    pause: Pause,
    deadline: Option<Instant>,
    cluster: &Cluster,
) -> Option<Answer> {
    let ends = Instant::now().checked_add(pause.time);
    if let Some(deadline) = deadline
        && ends.is_none_or(|ends| ends >= deadline)
    {
        tokio::time::sleep_until(deadline.into()).await;
        return Some(Answer::Local(local_reply::REQUEST_TIMEOUT));
    }
    tokio::time::sleep(pause.time).await;
    let stats = &cluster.stats;
    stats.upstream_rq_retry.inc();
    match pause.asked {
        true => stats.upstream_rq_retry_backoff_ratelimited.inc(),
        false => stats.upstream_rq_retry_backoff_exponential.inc(),
    }
    None
}

/// Whether to try again, and after which pause.
pub(super) fn again(
    conn: &Rc<Connection>,
    record: &mut Record,
    cluster: &Arc<Cluster>,
    priority: Priority,
    retry: &mut Option<RetryState>,
    outcome: &Attempt<'_>,
    permit: &mut Option<dataplane::circuit::Permit>,
) -> Option<Pause> {
    let retry = retry.as_mut()?;
    if record
        .replay
        .as_ref()
        .is_some_and(|replay| !replay.borrow().replayable())
    {
        return None;
    }
    // The retry that just ended gives its place back first.
    permit.take();
    let mut taken = None;
    let decision = retry.should_retry(
        outcome,
        || {
            taken = cluster.breakers.try_acquire(priority, Resource::Retries);
            taken.is_some()
        },
        &mut || conn.worker.random(),
    );
    match decision {
        Decision::Retry { after } => {
            *permit = taken;
            record.active = None;
            let asked = match outcome {
                Attempt::Response { headers, .. } => {
                    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                    retry.asked_pause(headers, now.unwrap_or_default(), &mut || {
                        conn.worker.random()
                    })
                }
                _ => None,
            };
            Some(Pause {
                time: asked.unwrap_or(after),
                asked: asked.is_some(),
            })
        }
        Decision::No => None,
        Decision::LimitExceeded => {
            cluster.stats.upstream_rq_retry_limit_exceeded.inc();
            record
                .flags
                .set(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
            None
        }
        Decision::Overflow => {
            cluster.stats.upstream_rq_retry_overflow.inc();
            record.flags.set(ResponseFlags::UPSTREAM_OVERFLOW);
            None
        }
    }
}
