//! API priority and fairness: every request falls under a FlowSchema, takes seats of its PriorityLevelConfiguration, waits in one
//! of its queues, or is sent away with 429.
//!
//! [`classify`], [`shares`] and [`queues`] decide; this module holds the locks. None is held while a request waits or runs, and
//! what a request is compared with was taken apart when the objects last changed.

mod classify;
mod maintain;
mod queues;
mod report;
mod shares;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tokio::sync::oneshot;

pub(crate) use classify::{About, Digest};
pub(crate) use maintain::{defaults, run};
use queues::{Arrival, QueueSet, Response, Seats};
pub(crate) use report::{dump, metrics};

use crate::authn::User;
use crate::http_types::{Answer, text_answer};
use crate::state::Server;
use crate::target::{self, Query, Route, Target};

const GROUP: &str = api::flowcontrol::GROUP;
pub(crate) const SCHEMAS: &str = "flowcontrol.apiserver.k8s.io/flowschemas";
pub(crate) const LEVELS: &str = "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations";
/// How long a request may wait for a seat: a quarter of the time it may take altogether.
const PATIENCE: Duration = Duration::from_secs(15);
/// Most seats that one request takes, and objects that are looked at for one.
const MOST_SEATS: usize = 10;
const OBJECTS_PER_SEAT: usize = 100;
/// Upper bounds of the histogram of waiting (seconds).
const WAITS: [f64; 13] = [
    0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0,
];
/// Why requests are sent away, as the metrics name it.
const REASONS: [&str; 3] = ["concurrency-limit", "queue-full", "time-out"];

/// What a schema's requests did; outlives changes of the objects.
#[derive(Debug, Default)]
struct Counts {
    executing: AtomicI64,
    seats: AtomicI64,
    queued: AtomicI64,
    dispatched: AtomicI64,
    rejected: [AtomicU64; 3],
    waits: [AtomicU64; 13],
    waited_micros: AtomicU64,
}

/// A priority level at work.
#[derive(Debug)]
struct Level {
    name: String,
    uid: HeaderValue,
    exempt: bool,
    wish: shares::Wish,
    response: Response,
    /// Seats that one request takes at most.
    most: u32,
    state: Arc<Mutex<State>>,
}

/// What changes with each request; outlives changes of the object.
#[derive(Debug)]
struct State {
    set: QueueSet,
    waiters: HashMap<u64, oneshot::Sender<Seats>>,
    tickets: u64,
    limits: shares::Limits,
    demand: shares::Demand,
    drops: Drops,
    dispatched: u64,
    rejected: u64,
    timed_out: u64,
    cancelled: u64,
}

/// How often requests were sent away lately, which says when they are to come again.
#[derive(Debug)]
struct Drops {
    /// (second, how many) of the last seconds in which there were any.
    seconds: Vec<(u64, u64)>,
    retry_after: u64,
    raised_at: u64,
}

impl Default for Drops {
    fn default() -> Self {
        Self {
            seconds: Vec::new(),
            retry_after: 1,
            raised_at: 0,
        }
    }
}

impl Drops {
    /// Notes one more at this second; the seconds to wait before trying again. They double while many are sent away, and
    /// shrink one by one.
    fn note(&mut self, second: u64) -> u64 {
        const LONGEST: u64 = 32;
        match self.seconds.last_mut() {
            Some((last, n)) if *last == second => *n += 1,
            _ => {
                let lately = second.saturating_sub(self.retry_after);
                let dropped: u64 = self
                    .seconds
                    .iter()
                    .filter(|(at, _)| *at >= lately)
                    .map(|(_, n)| n)
                    .sum();
                if second - self.raised_at >= self.retry_after && dropped >= 3 * self.retry_after {
                    self.retry_after = (2 * self.retry_after).min(LONGEST);
                    self.raised_at = second;
                } else if dropped < self.retry_after && self.retry_after > 1 {
                    self.retry_after -= 1;
                }
                self.seconds.retain(|(at, _)| at + LONGEST >= second);
                self.seconds.push((second, 1));
            }
        }
        self.retry_after
    }
}

/// A FlowSchema at work.
#[derive(Debug)]
struct Entry {
    schema: classify::Schema,
    uid: HeaderValue,
    level: Arc<Level>,
    counts: Arc<Counts>,
}

/// All that is compared with requests; replaced as a whole when the objects change.
#[derive(Debug, Default)]
struct Snapshot {
    /// In the order in which they are tried. Those whose level does not exist are left out.
    entries: Vec<Arc<Entry>>,
    levels: Vec<Arc<Level>>,
}

/// The flow control of a server.
pub(crate) struct Flow {
    snapshot: RwLock<Arc<Snapshot>>,
    start: Instant,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            snapshot: RwLock::default(),
            start: Instant::now(),
        }
    }
}

/// Hands seats to those whose turn has come.
fn hand_out(state: &mut State, turns: Vec<(u64, Seats)>) {
    for (ticket, seats) in turns {
        // Whoever waits keeps its receiver until it has taken itself off the list, under the same lock.
        if let Some(waiter) = state.waiters.remove(&ticket) {
            let _ = waiter.send(seats);
        }
    }
}

/// Seats held by a request; given back when dropped.
pub(crate) struct Pass {
    flow: Arc<Flow>,
    entry: Arc<Entry>,
    seats: Seats,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let counts = &self.entry.counts;
        counts.executing.fetch_sub(1, Ordering::Relaxed);
        counts
            .seats
            .fetch_sub(i64::from(self.seats.seats), Ordering::Relaxed);
        let now = self.flow.now();
        let mut state = self.entry.level.state.lock();
        let turns = state.set.finish(self.seats, now);
        hand_out(&mut state, turns);
    }
}

/// A place in a queue; given up when dropped.
struct Place {
    flow: Arc<Flow>,
    entry: Arc<Entry>,
    queue: usize,
    ticket: u64,
    turn: oneshot::Receiver<Seats>,
    done: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.entry.counts.queued.fetch_sub(1, Ordering::Relaxed);
        if self.done {
            return;
        }
        let now = self.flow.now();
        let mut state = self.entry.level.state.lock();
        state.waiters.remove(&self.ticket);
        if state.set.give_up(self.queue, self.ticket, now) {
            state.cancelled += 1;
        } else if let Ok(seats) = self.turn.try_recv() {
            // Its turn came while it was going.
            let turns = state.set.finish(seats, now);
            hand_out(&mut state, turns);
        }
    }
}

/// How a request was classified, for the headers of its answer.
pub(crate) struct Class {
    schema: HeaderValue,
    level: HeaderValue,
}

impl Class {
    pub fn write(&self, answer: &mut Answer) {
        let headers = answer.headers_mut();
        headers.insert("x-kubernetes-pf-flowschema-uid", self.schema.clone());
        headers.insert("x-kubernetes-pf-prioritylevel-uid", self.level.clone());
    }
}

/// What a request gets: its class, and seats or the answer that sends it away.
pub(crate) struct Admitted {
    pub class: Class,
    pub pass: Result<Pass, Answer>,
}

impl Flow {
    /// Seconds since the start.
    fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.read().clone()
    }

    /// Waits until a request may run. `None`: there is nothing to classify it by.
    pub async fn admit(
        self: &Arc<Self>,
        asked: &Digest<'_>,
        seats: impl FnOnce() -> usize,
    ) -> Option<Admitted> {
        let snapshot = self.snapshot();
        let entry = snapshot.entries.iter().find(|e| e.schema.matches(asked))?;
        let level = &entry.level;
        let class = Class {
            schema: entry.uid.clone(),
            level: level.uid.clone(),
        };
        let seats = if level.exempt {
            1
        } else {
            u32::try_from(seats()).unwrap_or(1).clamp(1, level.most)
        };
        let hash = entry.schema.flow(asked);
        let arrived = self.now();
        let (arrival, place) = {
            let mut state = level.state.lock();
            state.tickets += 1;
            let ticket = state.tickets;
            let arrival = state.set.arrive(hash, seats, ticket, arrived);
            let place = match arrival {
                Arrival::Wait(queue) => {
                    let (sender, turn) = oneshot::channel();
                    state.waiters.insert(ticket, sender);
                    entry.counts.queued.fetch_add(1, Ordering::Relaxed);
                    Some(Place {
                        flow: self.clone(),
                        entry: entry.clone(),
                        queue,
                        ticket,
                        turn,
                        done: false,
                    })
                }
                Arrival::Run(_) => {
                    state.dispatched += 1;
                    None
                }
                Arrival::Refused(_) => None,
            };
            (arrival, place)
        };
        let outcome = match (arrival, place) {
            (Arrival::Run(seats), _) => Ok(seats),
            (Arrival::Refused(why), _) => Err(why),
            (Arrival::Wait(_), None) => Err("time-out"),
            (Arrival::Wait(_), Some(mut place)) => {
                match tokio::time::timeout(PATIENCE, &mut place.turn).await {
                    Ok(Ok(seats)) => {
                        place.done = true;
                        level.state.lock().dispatched += 1;
                        Ok(seats)
                    }
                    _ => Err("time-out"),
                }
            }
        };
        if !level.exempt {
            entry.counts.waited(self.now() - arrived);
        }
        let pass = match outcome {
            Ok(seats) => {
                let counts = &entry.counts;
                counts.executing.fetch_add(1, Ordering::Relaxed);
                counts
                    .seats
                    .fetch_add(i64::from(seats.seats), Ordering::Relaxed);
                counts.dispatched.fetch_add(1, Ordering::Relaxed);
                Ok(Pass {
                    flow: self.clone(),
                    entry: entry.clone(),
                    seats,
                })
            }
            Err(why) => Err(self.refuse(entry, why)),
        };
        Some(Admitted { class, pass })
    }

    fn refuse(&self, entry: &Entry, why: &str) -> Answer {
        let mut state = entry.level.state.lock();
        state.rejected += 1;
        if why == "time-out" {
            state.timed_out += 1;
        }
        let retry = state.drops.note(self.start.elapsed().as_secs());
        drop(state);
        if let Some(at) = REASONS.iter().position(|r| *r == why) {
            entry.counts.rejected[at].fetch_add(1, Ordering::Relaxed);
        }
        let mut answer = text_answer(
            http::StatusCode::TOO_MANY_REQUESTS,
            "Too many requests, please try again later.\n",
        );
        let headers = answer.headers_mut();
        headers.insert(http::header::RETRY_AFTER, retry.into());
        let nosniff = HeaderValue::from_static("nosniff");
        headers.insert(http::header::X_CONTENT_TYPE_OPTIONS, nosniff);
        answer
    }

    /// Takes the objects apart again.
    pub fn rebuild(&self, server: &Server) {
        // One at a time, so that a slower one cannot put an older picture over a newer.
        let mut current = self.snapshot.write();
        *current = Arc::new(self.next(server, &current));
        self.adjust(&current.levels);
    }

    fn next(&self, server: &Server, before: &Snapshot) -> Snapshot {
        let objects = |table: &str, kind: &str| -> Vec<Arc<Value>> {
            let (stored, _) = server.storage.cache().list(table, "");
            let mut all: Vec<Arc<Value>> =
                stored.into_iter().map(|(_, s)| s.value.clone()).collect();
            // The mandatory ones are in force even while they are away.
            for name in api::flowcontrol::MANDATORY {
                if !all.iter().any(|o| api::meta::name(o) == name) {
                    all.extend(
                        defaults()
                            .find(|o| o["kind"] == kind && api::meta::name(o) == name)
                            .map(Arc::new),
                    );
                }
            }
            all
        };
        let header = |o: &Value| {
            HeaderValue::from_str(api::meta::uid(o)).unwrap_or(HeaderValue::from_static(""))
        };
        let mut levels: Vec<Level> = objects(LEVELS, "PriorityLevelConfiguration")
            .iter()
            .map(|o| {
                let known = before.levels.iter().find(|l| l.name == api::meta::name(o));
                let response = response(&o["spec"]);
                let state = known.map_or_else(|| self.fresh(response), |l| l.state.clone());
                let wish = shares::Wish::of(&o["spec"]);
                Level {
                    name: api::meta::name(o).to_owned(),
                    uid: header(o),
                    exempt: wish.exempt,
                    wish,
                    response,
                    most: 1,
                    state,
                }
            })
            .collect();
        let wishes: Vec<shares::Wish> = levels.iter().map(|l| l.wish).collect();
        for (level, limits) in levels
            .iter_mut()
            .zip(shares::limits(shares::SEATS, &wishes))
        {
            level.state.lock().limits = limits;
            level.most = most_seats(limits.nominal, level.response);
        }
        let levels: Vec<Arc<Level>> = levels.into_iter().map(Arc::new).collect();
        let mut entries: Vec<Arc<Entry>> = objects(SCHEMAS, "FlowSchema")
            .iter()
            .filter_map(|o| {
                let schema = classify::Schema::of(o);
                let level = levels.iter().find(|l| l.name == schema.level)?.clone();
                let known = before
                    .entries
                    .iter()
                    .find(|e| e.schema.name == schema.name && e.level.name == level.name);
                Some(Arc::new(Entry {
                    counts: known.map_or_else(Arc::default, |e| e.counts.clone()),
                    uid: header(o),
                    schema,
                    level,
                }))
            })
            .collect();
        entries.sort_by(|a, b| {
            (a.schema.precedence, &a.schema.name).cmp(&(b.schema.precedence, &b.schema.name))
        });
        Snapshot { entries, levels }
    }

    fn fresh(&self, response: Response) -> Arc<Mutex<State>> {
        Arc::new(Mutex::new(State {
            set: QueueSet::new(response, 0, self.now()),
            waiters: HashMap::new(),
            tickets: 0,
            limits: shares::Limits::default(),
            demand: shares::Demand::default(),
            drops: Drops::default(),
            dispatched: 0,
            rejected: 0,
            timed_out: 0,
            cancelled: 0,
        }))
    }

    /// Lends seats of levels that do not use them to those that do.
    fn adjust(&self, levels: &[Arc<Level>]) {
        let now = self.now();
        let state: Vec<(bool, shares::Limits, shares::Demand)> = levels
            .iter()
            .map(|l| {
                let state = l.state.lock();
                (l.exempt, state.limits, state.demand)
            })
            .collect();
        for (level, seats) in levels.iter().zip(shares::lend(&state)) {
            let mut state = level.state.lock();
            let turns = state.set.configure(level.response, seats, now);
            hand_out(&mut state, turns);
        }
    }

    /// Looks at what the levels wanted since the last time, and lends accordingly.
    fn measure(&self) {
        let levels = self.snapshot().levels.clone();
        for level in &levels {
            let mut state = level.state.lock();
            let (high, average, deviation) = state.set.take_demand(self.now());
            state.demand = shares::demand(&state.demand, high, average, deviation);
        }
        self.adjust(&levels);
    }
}

impl Counts {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // at most half a minute
    fn waited(&self, seconds: f64) {
        // Less than a tenth of a millisecond is no waiting.
        let seconds = if seconds < 1e-4 { 0.0 } else { seconds };
        if let Some(at) = WAITS.iter().position(|bound| seconds <= *bound) {
            self.waits[at].fetch_add(1, Ordering::Relaxed);
        }
        self.waited_micros
            .fetch_add((seconds * 1e6) as u64, Ordering::Relaxed);
    }
}

fn response(spec: &Value) -> Response {
    let queuing = &spec["limited"]["limitResponse"]["queuing"];
    let number = |field: &str| {
        let n = queuing[field]
            .as_u64()
            .and_then(|n| usize::try_from(n).ok());
        n.unwrap_or(1).max(1)
    };
    match spec["limited"]["limitResponse"]["type"].as_str() {
        _ if spec["type"] == "Exempt" => Response::Exempt,
        Some("Queue") => Response::Queue {
            queues: number("queues"),
            hand: number("handSize"),
            length: number("queueLengthLimit"),
        },
        _ => Response::Reject,
    }
}

/// How many seats one request of a level takes at most, so that a few large ones do not fill it.
fn most_seats(nominal: u32, response: Response) -> u32 {
    let Response::Queue { hand, .. } = response else {
        return 10;
    };
    let hand = u32::try_from(hand).unwrap_or(1).max(1);
    (nominal * 15)
        .div_ceil(100)
        .min(nominal / hand)
        .clamp(1, 10)
}

/// How many seats a list takes by the number of objects that are looked at for it.
fn list_seats(objects: usize, query: &Query) -> usize {
    let limit = query.text("limit").parse().unwrap_or(0);
    let page = if limit > 0 {
        objects.min(limit)
    } else {
        objects
    };
    let (version, how) = (
        query.text("resourceVersion"),
        query.text("resourceVersionMatch"),
    );
    let exact = how == "Exact" || limit > 0 && how.is_empty() && !matches!(version, "" | "0");
    let selects =
        !query.text("labelSelector").is_empty() || !query.text("fieldSelector").is_empty();
    let looked_at = if query.text("continue").is_empty() && !exact {
        objects
    } else if selects {
        objects + page
    } else {
        2 * page
    };
    looked_at.div_ceil(OBJECTS_PER_SEAT).clamp(1, MOST_SEATS)
}

/// Lets a request in, or sends it away. `None`: it is not under flow control, because it lasts as long as its client wishes.
pub(crate) async fn admit(
    server: &Arc<Server>,
    user: &User,
    method: &http::Method,
    path: &str,
    query: &Query,
    route: Option<&Route>,
) -> Option<Admitted> {
    let asked = |verb, resource| Digest {
        user: &user.name,
        groups: &user.groups,
        verb,
        path,
        resource,
    };
    let Some(Route::Resource(target)) = route else {
        let verb = method.as_str().to_ascii_lowercase();
        return server.flow.admit(&asked(&verb, None), || 1).await;
    };
    if matches!(
        target.subresource.as_str(),
        "attach" | "exec" | "proxy" | "log" | "portforward"
    ) {
        return None;
    }
    let verb = target::verb(method, target, query.flag("watch")).unwrap_or("");
    let about = About {
        group: &target.group,
        plural: &target.plural,
        subresource: &target.subresource,
        namespace: &target.namespace,
    };
    let listing = verb == "list" || verb == "watch" && query.flag("sendInitialEvents");
    let seats = || {
        if listing {
            list_seats(stored(server, target), query)
        } else {
            1
        }
    };
    server.flow.admit(&asked(verb, Some(about)), seats).await
}

/// How many objects of a resource there are.
fn stored(server: &Server, target: &Target) -> usize {
    let registry = server.registry();
    let found = registry.find(&target.group, &target.version, &target.plural);
    found.map_or(0, |r| server.storage.cache().count(&r.table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_cost_seats_by_what_is_looked_at() {
        let seats = |objects, query: &str| list_seats(objects, &Query::parse(query));
        assert_eq!(seats(0, ""), 1);
        assert_eq!(seats(250, ""), 3);
        assert_eq!(
            seats(250, "limit=10"),
            3,
            "from the cache, all are looked at"
        );
        assert_eq!(seats(250, "limit=10&continue=x"), 1);
        assert_eq!(seats(250, "limit=10&continue=x&labelSelector=a"), 3);
        assert_eq!(
            seats(250, "resourceVersion=5&resourceVersionMatch=Exact"),
            5
        );
        assert_eq!(seats(100_000, ""), 10);
    }

    #[test]
    fn a_level_is_not_filled_by_a_few_large_requests() {
        let queue = |hand| Response::Queue {
            queues: 64,
            hand,
            length: 50,
        };
        assert_eq!(most_seats(245, queue(6)), 10);
        assert_eq!(most_seats(25, queue(4)), 4);
        assert_eq!(most_seats(13, queue(8)), 1);
        assert_eq!(most_seats(13, Response::Reject), 10);
    }

    #[test]
    fn the_more_are_sent_away_the_later_they_are_to_come_again() {
        let mut drops = Drops::default();
        assert_eq!(drops.note(100), 1);
        for _ in 0..5 {
            drops.note(100);
        }
        assert_eq!(drops.note(101), 2);
        for _ in 0..9 {
            drops.note(102);
        }
        assert_eq!(drops.note(103), 4);
        assert_eq!(
            drops.note(200),
            3,
            "after a quiet time they may come sooner"
        );
        assert_eq!(drops.note(300), 2);
    }
}
