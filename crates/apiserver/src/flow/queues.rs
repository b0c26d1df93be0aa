//! The seats and queues of one priority level: who runs, who waits, who is sent away. A value that is told the time.
//!
//! Fairness is that of kube-apiserver: flows are dealt a few queues each, take the shortest of them, and the queue whose next
//! request would have finished first, had all queues been served a little at a time, is served next.

use std::collections::VecDeque;

use super::work::Work;

/// What a request is thought to take, until it has ended (seconds).
const ESTIMATE: f64 = 0.003;
/// Most cards of a hand.
const HAND: usize = 15;

/// What becomes of a request that finds no seat.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Response {
    /// All have a seat.
    Exempt,
    Reject,
    Queue {
        queues: usize,
        hand: usize,
        length: usize,
    },
}

/// Seats that are taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Seats {
    pub queue: Option<usize>,
    pub work: Work,
    pub since: f64,
}

/// What an arriving request gets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Arrival {
    Run(Seats),
    /// It waits in this queue.
    Wait(usize),
    /// Sent away, and why, as the metrics name it.
    Refused(&'static str),
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    executing: u32,
    seats: u32,
    /// Virtual time at which its next request begins.
    next: f64,
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    work: Work,
    arrived: f64,
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.executing == 0
    }

    fn waiting_seats(&self) -> u32 {
        self.waiting.iter().map(|w| w.work.seats()).sum()
    }

    /// A queue that was empty has saved up nothing.
    fn bound(&mut self) {
        if let Some(first) = self.waiting.front() {
            self.next = self.next.max(first.arrived);
        }
    }
}

/// One queue, as `dump_queues` shows it.
pub(crate) struct QueueDump {
    /// Tickets of those who wait, the next one first.
    pub waiting: Vec<u64>,
    pub executing: u32,
    pub seats: u32,
    pub next: f64,
    /// Of those who wait: seats until their answers, seats kept for them, seats times seconds.
    pub initial_seats: u32,
    pub waiting_seats: u32,
    pub work: f64,
}

/// The seats and queues of one level.
#[derive(Debug)]
pub(crate) struct QueueSet {
    response: Response,
    limit: u32,
    queues: Vec<Queue>,
    robin: usize,
    enqueues: usize,
    pub executing: u32,
    pub in_use: u32,
    pub waiting: u32,
    waiting_seats: u32,
    /// Queues that are not idle.
    active: u32,
    virtual_time: f64,
    at: f64,
    sum: f64,
    squares: f64,
    high: u32,
    since: f64,
}

/// Deals a hand of different cards out of a deck, from the entropy of a hash.
pub(crate) fn deal(mut hash: u64, deck: usize, hand: usize) -> ([usize; HAND], usize) {
    let mut cards = [0; HAND];
    let hand = hand.clamp(1, HAND).min(deck.max(1));
    for i in 0..hand {
        let left = (deck - i) as u64;
        let mut card = usize::try_from(hash % left).unwrap_or(0);
        hash /= left;
        // The card is one of those that remain: count on over those already dealt, in order.
        let mut dealt = cards;
        dealt[..i].sort_unstable();
        for before in &dealt[..i] {
            if card >= *before {
                card += 1;
            }
        }
        cards[i] = card;
    }
    (cards, hand)
}

impl QueueSet {
    pub fn new(response: Response, limit: u32, now: f64) -> Self {
        let mut out = Self {
            response,
            limit,
            queues: Vec::new(),
            robin: 0,
            enqueues: 0,
            executing: 0,
            in_use: 0,
            waiting: 0,
            waiting_seats: 0,
            active: 0,
            virtual_time: 0.0,
            at: now,
            sum: 0.0,
            squares: 0.0,
            high: 0,
            since: now,
        };
        out.configure(response, limit, now);
        out
    }

    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Other settings. Who waits goes on waiting where it is; returned are those who need not any more.
    pub fn configure(&mut self, response: Response, limit: u32, now: f64) -> Vec<(u64, Seats)> {
        self.pass(now);
        (self.response, self.limit) = (response, limit);
        if let Response::Queue { queues, .. } = response {
            while self.queues.len() < queues {
                self.queues.push(Queue::default());
            }
        }
        self.trim();
        self.dispatch(now)
    }

    /// Queues that nobody uses any more go away.
    fn trim(&mut self) {
        let wanted = match self.response {
            Response::Queue { queues, .. } => queues,
            _ => 0,
        };
        let unused = |queue: &Queue| queue.is_idle() && queue.seats == 0;
        while self.queues.len() > wanted && self.queues.last().is_some_and(unused) {
            self.queues.pop();
        }
    }

    /// Lets time pass: the virtual one goes as fast as each busy queue is served.
    fn pass(&mut self, now: f64) {
        let elapsed = (now - self.at).max(0.0);
        self.at = self.at.max(now);
        let wanted = self.in_use + self.waiting_seats;
        if self.active > 0 {
            let served = f64::from(wanted.min(self.limit));
            self.virtual_time += elapsed * served / f64::from(self.active);
        }
        self.sum += elapsed * f64::from(wanted);
        self.squares += elapsed * f64::from(wanted) * f64::from(wanted);
    }

    fn note_demand(&mut self) {
        self.high = self.high.max(self.in_use + self.waiting_seats);
    }

    /// Peak, average and deviation of the seats wanted since this was asked last.
    pub fn take_demand(&mut self, now: f64) -> (u32, f64, f64) {
        self.pass(now);
        let time = (now - self.since).max(1e-9);
        let average = self.sum / time;
        let deviation = (self.squares / time - average * average).max(0.0).sqrt();
        let high = self.high;
        (self.sum, self.squares, self.since) = (0.0, 0.0, now);
        self.high = 0;
        self.note_demand();
        (high, average, deviation)
    }

    fn has_room(&self, seats: u32) -> bool {
        match self.response {
            Response::Exempt => true,
            // One that is too large for the level runs alone.
            _ if seats > self.limit => self.executing == 0,
            _ => self.in_use + seats <= self.limit,
        }
    }

    /// A request of the flow `hash` that takes `work`. `ticket` names it if it has to wait.
    pub fn arrive(&mut self, hash: u64, work: Work, ticket: u64, now: f64) -> Arrival {
        self.pass(now);
        let seats = work.seats();
        let Response::Queue {
            queues,
            hand,
            length,
        } = self.response
        else {
            if !self.has_room(seats) {
                return Arrival::Refused("concurrency-limit");
            }
            return Arrival::Run(self.run(None, work, now));
        };
        let at = self.shortest(hash, queues, hand);
        if self.in_use >= self.limit && self.queues[at].waiting.len() >= length {
            return Arrival::Refused("queue-full");
        }
        let time = self.virtual_time;
        let queue = &mut self.queues[at];
        if queue.is_idle() {
            queue.next = time;
            self.active += 1;
        }
        if self.waiting == 0 && self.in_use < self.limit && self.has_room(seats) {
            self.queues[at].next += work.total(ESTIMATE);
            return Arrival::Run(self.run(Some(at), work, now));
        }
        let queue = &mut self.queues[at];
        queue.waiting.push_back(Waiting {
            ticket,
            work,
            arrived: time,
        });
        queue.bound();
        self.waiting += 1;
        self.waiting_seats += seats;
        self.note_demand();
        Arrival::Wait(at)
    }

    /// That of a flow's queues in which the least is waiting.
    fn shortest(&mut self, hash: u64, queues: usize, hand: usize) -> usize {
        let (cards, hand) = deal(hash, queues, hand);
        let offset = self.enqueues % hand;
        self.enqueues = self.enqueues.wrapping_add(1);
        let hand = (0..hand).map(|i| cards[(offset + i) % hand]);
        hand.min_by_key(|at| self.queues[*at].waiting_seats())
            .unwrap_or(0)
    }

    fn run(&mut self, queue: Option<usize>, work: Work, now: f64) -> Seats {
        let seats = work.seats();
        self.executing += 1;
        self.in_use += seats;
        if let Some(queue) = queue.map(|at| &mut self.queues[at]) {
            queue.executing += 1;
            queue.seats += seats;
        }
        self.note_demand();
        Seats {
            queue,
            work,
            since: now,
        }
    }

    /// A request has been answered; returned are those whose turn it is now. Seats that linger stay taken until they are
    /// [released](Self::release).
    pub fn finish(&mut self, taken: Seats, now: f64) -> Vec<(u64, Seats)> {
        self.pass(now);
        self.executing -= 1;
        if let Some(at) = taken.queue {
            let queue = &mut self.queues[at];
            queue.executing -= 1;
            // It took more or less than was thought.
            let took = (now - taken.since).max(0.0);
            queue.next -= f64::from(taken.work.initial) * (ESTIMATE - took);
            queue.bound();
            if queue.is_idle() {
                self.active -= 1;
            }
        }
        if taken.work.linger.is_zero() {
            self.release(taken, now)
        } else {
            Vec::new()
        }
    }

    /// Seats are free again; returned are those whose turn it is now.
    pub fn release(&mut self, taken: Seats, now: f64) -> Vec<(u64, Seats)> {
        self.pass(now);
        let seats = taken.work.seats();
        self.in_use -= seats;
        if let Some(at) = taken.queue {
            self.queues[at].seats -= seats;
            self.trim();
        }
        self.dispatch(now)
    }

    /// A waiting request does not wait any longer. False: its turn had come before.
    pub fn give_up(&mut self, queue: usize, ticket: u64, now: f64) -> bool {
        self.pass(now);
        let Some(q) = self.queues.get_mut(queue) else {
            return false;
        };
        let Some(at) = q.waiting.iter().position(|w| w.ticket == ticket) else {
            return false;
        };
        let gone = q.waiting.remove(at);
        q.bound();
        self.waiting -= 1;
        let idle = q.is_idle();
        self.waiting_seats -= gone.map_or(0, |w| w.work.seats());
        if idle {
            self.active -= 1;
            self.trim();
        }
        true
    }

    fn dispatch(&mut self, now: f64) -> Vec<(u64, Seats)> {
        let mut out = Vec::new();
        while self.waiting > 0 && (self.in_use < self.limit || self.response == Response::Exempt) {
            let count = self.queues.len();
            let mut best: Option<(f64, usize)> = None;
            for i in 1..=count {
                let at = (self.robin + i) % count;
                let queue = &self.queues[at];
                if let Some(first) = queue.waiting.front() {
                    let end = queue.next + first.work.total(ESTIMATE);
                    if best.is_none_or(|(sooner, _)| end < sooner) {
                        best = Some((end, at));
                    }
                }
            }
            let Some((_, at)) = best else { break };
            let seats = self.queues[at].waiting.front().map(|w| w.work.seats());
            if !self.has_room(seats.unwrap_or(1)) {
                break;
            }
            let Some(first) = self.queues[at].waiting.pop_front() else {
                break;
            };
            self.robin = at;
            self.waiting -= 1;
            self.waiting_seats -= first.work.seats();
            let queue = &mut self.queues[at];
            queue.next += first.work.total(ESTIMATE);
            queue.bound();
            out.push((first.ticket, self.run(Some(at), first.work, now)));
        }
        out
    }

    /// Every queue, for people.
    pub fn dump(&self) -> impl Iterator<Item = QueueDump> {
        self.queues.iter().map(|q| QueueDump {
            waiting: q.waiting.iter().map(|w| w.ticket).collect(),
            executing: q.executing,
            seats: q.seats,
            next: q.next,
            initial_seats: q.waiting.iter().map(|w| w.work.initial).sum(),
            waiting_seats: q.waiting_seats(),
            work: q.waiting.iter().map(|w| w.work.total(ESTIMATE)).sum(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: Response = Response::Queue {
        queues: 16,
        hand: 4,
        length: 10,
    };

    fn run(arrival: Arrival) -> Seats {
        match arrival {
            Arrival::Run(seats) => seats,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_hand_has_different_cards_and_depends_on_the_hash_only() {
        for hash in [0, 1, 12_345, 0xdead_beef_cafe, u64::MAX] {
            let (cards, n) = deal(hash, 16, 6);
            let mut hand = cards[..n].to_vec();
            assert_eq!(deal(hash, 16, 6).0, cards);
            hand.sort_unstable();
            hand.dedup();
            assert_eq!(hand.len(), 6, "{hash}: {cards:?}");
            assert!(hand.iter().all(|c| *c < 16), "{hash}: {cards:?}");
        }
        assert_eq!(deal(7, 1, 1), ([0; HAND], 1));
    }

    #[test]
    fn without_queues_one_too_many_is_refused_and_room_is_room_again() {
        let mut set = QueueSet::new(Response::Reject, 2, 0.0);
        let first = run(set.arrive(1, Work::of(1), 0, 0.0));
        run(set.arrive(1, Work::of(1), 0, 0.0));
        assert_eq!(
            set.arrive(2, Work::of(1), 0, 0.0),
            Arrival::Refused("concurrency-limit")
        );
        assert!(set.finish(first, 1.0).is_empty());
        run(set.arrive(2, Work::of(1), 0, 1.0));
    }

    #[test]
    fn a_request_larger_than_the_level_runs_alone() {
        let mut set = QueueSet::new(Response::Reject, 2, 0.0);
        let large = run(set.arrive(1, Work::of(5), 0, 0.0));
        assert_eq!(
            set.arrive(1, Work::of(1), 0, 0.0),
            Arrival::Refused("concurrency-limit")
        );
        set.finish(large, 1.0);
        run(set.arrive(1, Work::of(1), 0, 1.0));
        assert_eq!(
            set.arrive(1, Work::of(5), 0, 1.0),
            Arrival::Refused("concurrency-limit")
        );
    }

    #[test]
    fn nobody_is_refused_an_exempt_seat() {
        let mut set = QueueSet::new(Response::Exempt, 0, 0.0);
        let all: Vec<Seats> = (0..1000)
            .map(|i| run(set.arrive(i, Work::of(1), i, 0.0)))
            .collect();
        assert_eq!(set.in_use, 1000);
        for seats in all {
            set.finish(seats, 1.0);
        }
        assert_eq!((set.in_use, set.executing), (0, 0));
    }

    #[test]
    fn full_queues_refuse_and_the_hand_is_filled_evenly() {
        let mut set = QueueSet::new(QUEUE, 1, 0.0);
        run(set.arrive(9, Work::of(1), 0, 0.0));
        let mut waiting = 0;
        while let Arrival::Wait(_) = set.arrive(9, Work::of(1), 100 + waiting, 0.0) {
            waiting += 1;
        }
        assert_eq!(waiting, 40, "four queues of ten");
        let lengths: Vec<usize> = set
            .dump()
            .map(|q| q.waiting.len())
            .filter(|n| *n > 0)
            .collect();
        assert_eq!(lengths, [10; 4]);
    }

    /// One flow floods the level, another asks now and then: it need not wait for the whole flood.
    #[test]
    fn a_flood_does_not_hold_up_who_asks_seldom() {
        let mut set = QueueSet::new(
            Response::Queue {
                queues: 128,
                hand: 6,
                length: 50,
            },
            1,
            0.0,
        );
        let mut running = run(set.arrive(1, Work::of(1), 0, 0.0));
        for ticket in 1..200 {
            assert!(matches!(
                set.arrive(1, Work::of(1), ticket, 0.0),
                Arrival::Wait(_)
            ));
        }
        let (mut now, mut asked_at) = (0.0, None);
        for turn in 0.. {
            now += 0.01;
            let next = set.finish(running, now);
            assert_eq!(next.len(), 1, "one seat, one at a time");
            running = next[0].1;
            if next[0].0 == 999 {
                break;
            }
            if turn == 50 {
                assert!(matches!(
                    set.arrive(0xabcdef, Work::of(1), 999, now),
                    Arrival::Wait(_)
                ));
                asked_at = Some(turn);
            }
            // Once for each of the six queues of the flood, and its own turn.
            let waited = asked_at.map_or(0, |at| turn - at);
            assert!(waited < 10, "still waiting after {waited} others");
        }
    }

    #[test]
    fn who_gives_up_waiting_leaves_no_trace() {
        let mut set = QueueSet::new(QUEUE, 1, 0.0);
        let running = run(set.arrive(1, Work::of(1), 0, 0.0));
        let Arrival::Wait(queue) = set.arrive(2, Work::of(3), 1, 0.0) else {
            panic!("the only seat is taken");
        };
        assert!(set.give_up(queue, 1, 1.0));
        assert!(!set.give_up(queue, 1, 1.0));
        assert!(set.finish(running, 2.0).is_empty());
        assert_eq!(
            (set.waiting, set.waiting_seats, set.active, set.in_use),
            (0, 0, 0, 0)
        );
    }

    #[test]
    fn more_seats_let_those_in_who_wait() {
        let mut set = QueueSet::new(QUEUE, 1, 0.0);
        run(set.arrive(1, Work::of(1), 0, 0.0));
        for ticket in 1..4 {
            assert!(matches!(
                set.arrive(2, Work::of(1), ticket, 0.0),
                Arrival::Wait(_)
            ));
        }
        assert_eq!(set.configure(QUEUE, 3, 1.0).len(), 2);
        // Those who wait are served even when nobody may queue any more.
        assert_eq!(set.configure(Response::Reject, 4, 1.0).len(), 1);
        assert_eq!(set.waiting, 0);
    }

    #[test]
    fn demand_counts_who_waits_as_well() {
        let mut set = QueueSet::new(QUEUE, 1, 0.0);
        run(set.arrive(1, Work::of(1), 0, 0.0));
        set.arrive(1, Work::of(1), 1, 0.0);
        let (high, average, deviation) = set.take_demand(10.0);
        assert_eq!(high, 2);
        assert!(
            (average - 2.0).abs() < 1e-6 && deviation < 1e-3,
            "{average} {deviation}"
        );
    }

    #[test]
    fn seats_that_linger_are_free_only_when_they_are_released() {
        for response in [QUEUE, Response::Reject] {
            let mut set = QueueSet::new(response, 3, 0.0);
            let work = Work {
                initial: 1,
                last: 3,
                linger: std::time::Duration::from_millis(5),
            };
            let write = run(set.arrive(1, work, 0, 0.0));
            assert_eq!(set.in_use, 3);
            assert!(set.finish(write, 1.0).is_empty());
            assert_eq!((set.executing, set.in_use), (0, 3));
            let next = set.arrive(1, Work::of(1), 1, 1.0);
            let waited = match response {
                QUEUE => matches!(next, Arrival::Wait(_)),
                _ => next == Arrival::Refused("concurrency-limit"),
            };
            assert!(waited, "{next:?}");
            let turns = set.release(write, 1.005);
            assert_eq!(turns.len(), usize::from(response == QUEUE));
            for (_, seats) in turns {
                set.finish(seats, 1.01);
            }
            assert_eq!((set.executing, set.in_use, set.active), (0, 0, 0));
        }
    }
}
