//! API priority and fairness: every request falls under a FlowSchema, takes seats of its PriorityLevelConfiguration, waits in one
//! of its queues, or is sent away with 429.
//!
//! [`classify`], [`shares`] and [`queues`] decide; this module holds the locks. None is held while a request waits or runs, and
//! what a request is compared with was taken apart when the objects last changed.

mod classify;
mod maintain;
mod queues;
mod report;
mod requests;
mod shares;
mod work;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use http::HeaderValue;
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tokio::sync::oneshot;

pub(crate) use classify::{About, Digest};
pub(crate) use maintain::{defaults, run};
use queues::{Arrival, QueueSet, Response, Seats};
pub(crate) use report::{dump, metrics};
use requests::{Asked, Known};
pub(crate) use work::Watched;
use work::{Size, Watches};

use crate::authn::User;
use crate::http_types::{Answer, text_answer};
use crate::state::Server;
use crate::target::{self, Query, Route, Target};

const GROUP: &str = api::flowcontrol::GROUP;
pub(crate) const SCHEMAS: &str = "flowcontrol.apiserver.k8s.io/flowschemas";
pub(crate) const LEVELS: &str = "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations";
/// How long a request may wait for a seat: a quarter of the time it may take altogether.
const PATIENCE: Duration = Duration::from_secs(15);
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
    /// Who waits or runs, by ticket.
    requests: BTreeMap<u64, Known>,
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
    watches: Arc<Watches>,
    start: Instant,
    started_at: SystemTime,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            snapshot: RwLock::default(),
            watches: Arc::default(),
            start: Instant::now(),
            started_at: SystemTime::now(),
        }
    }
}

/// Hands seats to those whose turn has come.
fn hand_out(state: &mut State, turns: Vec<(u64, Seats)>) {
    for (ticket, seats) in turns {
        let Some(request) = state.requests.get_mut(&ticket) else {
            continue;
        };
        request.runs = Some(seats);
        // Whoever waits keeps its receiver until it has taken itself off the list, under the same lock.
        if let Some(turn) = request.turn.take() {
            let _ = turn.send(seats);
        }
    }
}

/// Seats held by a request; given back when dropped.
pub(crate) struct Pass {
    flow: Arc<Flow>,
    entry: Arc<Entry>,
    ticket: u64,
    seats: Seats,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let counts = &self.entry.counts;
        counts.executing.fetch_sub(1, Ordering::Relaxed);
        let lingering = Lingering {
            flow: self.flow.clone(),
            entry: self.entry.clone(),
            seats: self.seats,
        };
        let linger = self.seats.work.linger;
        {
            let now = self.flow.now();
            let mut state = self.entry.level.state.lock();
            state.requests.remove(&self.ticket);
            let turns = state.set.finish(self.seats, now);
            hand_out(&mut state, turns);
        }
        if linger.is_zero() {
            lingering.left();
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // The client does not wait for that.
            runtime.spawn(async move {
                tokio::time::sleep(linger).await;
                lingering.release();
            });
        } else {
            lingering.release();
        }
    }
}

/// Seats of an answered request whose outcome is still being told to those who watch.
struct Lingering {
    flow: Arc<Flow>,
    entry: Arc<Entry>,
    seats: Seats,
}

impl Lingering {
    fn left(&self) {
        let seats = i64::from(self.seats.work.seats());
        self.entry.counts.seats.fetch_sub(seats, Ordering::Relaxed);
    }

    fn release(&self) {
        self.left();
        let now = self.flow.now();
        let mut state = self.entry.level.state.lock();
        let turns = state.set.release(self.seats, now);
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
        state.requests.remove(&self.ticket);
        if state.set.give_up(self.queue, self.ticket, now) {
            state.cancelled += 1;
        } else if let Ok(seats) = self.turn.try_recv() {
            // Its turn came while it was going: it has written nothing.
            let mut turns = state.set.finish(seats, now);
            if !seats.work.linger.is_zero() {
                turns.extend(state.set.release(seats, now));
            }
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
        request: Asked,
        size: Size,
    ) -> Option<Admitted> {
        let snapshot = self.snapshot();
        let entry = snapshot.entries.iter().find(|e| e.schema.matches(asked))?;
        let level = &entry.level;
        let class = Class {
            schema: entry.uid.clone(),
            level: level.uid.clone(),
        };
        let work = size.work(level.most);
        let hash = entry.schema.flow(asked);
        let arrived = self.now();
        let (ticket, arrival, place) = {
            let mut state = level.state.lock();
            state.tickets += 1;
            let ticket = state.tickets;
            let arrival = state.set.arrive(hash, work, ticket, arrived);
            let mut known = Known {
                asked: request,
                entry: entry.clone(),
                work,
                arrived,
                runs: None,
                turn: None,
            };
            let place = match arrival {
                Arrival::Wait(queue) => {
                    let (sender, turn) = oneshot::channel();
                    known.turn = Some(sender);
                    state.requests.insert(ticket, known);
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
                Arrival::Run(seats) => {
                    known.runs = Some(seats);
                    state.requests.insert(ticket, known);
                    state.dispatched += 1;
                    None
                }
                Arrival::Refused(_) => None,
            };
            (ticket, arrival, place)
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
                    .fetch_add(i64::from(seats.work.seats()), Ordering::Relaxed);
                counts.dispatched.fetch_add(1, Ordering::Relaxed);
                Ok(Pass {
                    flow: self.clone(),
                    entry: entry.clone(),
                    ticket,
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
            let mut all: Vec<Arc<Value>> = stored.into_iter().map(|(_, s)| s.shared()).collect();
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
            level.most = work::most_seats(limits.nominal, level.response);
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
            requests: BTreeMap::new(),
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

/// Lets a request in, or sends it away. `None`: it is not under flow control, because it lasts as long as its client wishes.
pub(crate) async fn admit(
    server: &Arc<Server>,
    user: &Arc<User>,
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
    let request = || Asked {
        user: user.clone(),
        method: method.clone(),
        path: path.to_owned(),
        watch: query.flag("watch"),
    };
    let Some(Route::Resource(target)) = route else {
        let verb = method.as_str().to_ascii_lowercase();
        let digest = asked(&verb, None);
        return server.flow.admit(&digest, request(), Size::Seats(1)).await;
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
    let size = match verb {
        "list" => Size::Seats(work::list_seats(stored(server, target), query)),
        "watch" if query.flag("sendInitialEvents") => {
            Size::Seats(work::list_seats(stored(server, target), query))
        }
        // A token is no object: nobody sees it.
        "create" if target.plural == "serviceaccounts" && target.subresource == "token" => {
            Size::Seats(1)
        }
        "create" | "update" | "patch" | "delete" => Size::Watched(server.flow.watches.of(target)),
        _ => Size::Seats(1),
    };
    let digest = asked(verb, Some(about));
    server.flow.admit(&digest, request(), size).await
}

impl Flow {
    /// Counts a watch, for the seats of those who write what it watches.
    pub fn watching(&self, target: &Target, query: &Query) -> Watched {
        self.watches.add(target, query)
    }
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
