//! What a request is thought to take: seats while it runs, and seats that the watchers of what it wrote keep busy after it.
//!
//! The figures are those of kube-apiserver (`flowcontrol/request` and its watch tracker).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::queues::Response;
use crate::target::{Query, Target};

/// Most seats that one request takes, and objects that are looked at for one.
const MOST_SEATS: usize = 10;
const OBJECTS_PER_SEAT: usize = 100;
/// Watchers that keep one seat busy with one event, and for how long.
const WATCHES_PER_SEAT: usize = 10;
const EVENT: Duration = Duration::from_millis(5);

/// What a request takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Work {
    /// Seats until it is answered.
    pub initial: u32,
    /// Seats for `linger` after that.
    pub last: u32,
    pub linger: Duration,
}

impl Work {
    /// Seats until the answer, and nothing after it.
    pub const fn of(initial: u32) -> Self {
        Self {
            initial,
            last: 0,
            linger: Duration::ZERO,
        }
    }

    /// Seats that are kept for it all the time.
    pub fn seats(&self) -> u32 {
        self.initial.max(self.last)
    }

    /// Seats times seconds, when it takes `estimate` seconds until the answer.
    pub fn total(&self, estimate: f64) -> f64 {
        f64::from(self.initial) * estimate + f64::from(self.last) * self.linger.as_secs_f64()
    }
}

/// What makes a request large.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Size {
    /// So many seats, by what is looked at.
    Seats(usize),
    /// So many watchers see what it writes.
    Watched(usize),
}

impl Size {
    /// What it takes where one request has `most` seats at most.
    pub fn work(self, most: u32) -> Work {
        match self {
            Self::Seats(n) => Work::of(u32::try_from(n).unwrap_or(1).clamp(1, most)),
            Self::Watched(n) if n < WATCHES_PER_SEAT => Work::of(1),
            Self::Watched(n) => {
                let wanted = u32::try_from(n.div_ceil(WATCHES_PER_SEAT)).unwrap_or(u32::MAX);
                let last = wanted.min(most);
                Work {
                    initial: 1,
                    last,
                    // The same work on fewer seats takes longer.
                    linger: EVENT * wanted / last,
                }
            }
        }
    }
}

/// How many seats one request of a level takes at most, so that a few large ones do not fill it.
pub(crate) fn most_seats(nominal: u32, response: Response) -> u32 {
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
pub(crate) fn list_seats(objects: usize, query: &Query) -> usize {
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

/// What a watch watches: group, plural, namespace, name; the last two empty where it does not say.
type Scope = (String, String, String, String);

/// How many watches there are of what.
#[derive(Debug, Default)]
pub(crate) struct Watches(Mutex<HashMap<Scope, usize>>);

/// Counts a watch for as long as it lives.
pub(crate) struct Watched(Option<(Arc<Watches>, Scope)>);

impl Watches {
    pub fn add(self: &Arc<Self>, target: &Target, query: &Query) -> Watched {
        // Those of one node's pods are found by an index: an event goes to one of them at most.
        let indexed = target.plural == "pods"
            && query
                .exact_field("spec.nodeName")
                .is_some_and(|n| !n.is_empty());
        if indexed {
            return Watched(None);
        }
        let scope = (
            target.group.clone(),
            target.plural.clone(),
            target.namespace.clone(),
            query.exact_field("metadata.name").unwrap_or("").to_owned(),
        );
        *self.0.lock().entry(scope.clone()).or_default() += 1;
        Watched(Some((self.clone(), scope)))
    }

    /// How many may see what a request writes.
    pub fn of(&self, target: &Target) -> usize {
        let watches = self.0.lock();
        if watches.is_empty() {
            return 0;
        }
        let count = |namespace: &str, name: &str| {
            let scope = (
                target.group.clone(),
                target.plural.clone(),
                namespace.to_owned(),
                name.to_owned(),
            );
            watches.get(&scope).copied().unwrap_or(0)
        };
        let mut sum = count("", "");
        if !target.namespace.is_empty() {
            sum += count(&target.namespace, "");
        }
        if !target.name.is_empty() {
            sum += count(&target.namespace, &target.name);
        }
        sum
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let Some((watches, scope)) = self.0.take() else {
            return;
        };
        let mut all = watches.0.lock();
        if let Some(n) = all.get_mut(&scope) {
            *n -= 1;
            if *n == 0 {
                all.remove(&scope);
            }
        }
    }
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
    fn a_write_keeps_seats_for_those_who_watch_it() {
        let work = |watches, most| {
            let work = Size::Watched(watches).work(most);
            (work.initial, work.last, work.linger.as_micros())
        };
        assert_eq!(work(0, 10), (1, 0, 0));
        assert_eq!(work(9, 10), (1, 0, 0), "few are not counted");
        assert_eq!(work(10, 10), (1, 1, 5000));
        assert_eq!(work(95, 10), (1, 10, 5000));
        assert_eq!(work(1000, 10), (1, 10, 50_000), "longer, not wider");
        assert_eq!(work(30, 1), (1, 1, 15_000));
    }

    #[test]
    fn watches_are_counted_where_they_see_a_write() {
        let all = Arc::new(Watches::default());
        let target = |plural: &str, namespace: &str, name: &str| Target {
            plural: plural.into(),
            namespace: namespace.into(),
            name: name.into(),
            ..Target::default()
        };
        let watch = |plural, namespace, query: &str| {
            all.add(&target(plural, namespace, ""), &Query::parse(query))
        };
        let everywhere = watch("pods", "", "");
        let _here = watch("pods", "d", "labelSelector=a");
        let _one = watch("pods", "d", "fieldSelector=metadata.name%3Dp");
        let _node = watch("pods", "", "fieldSelector=spec.nodeName%3Dn");
        let _other = watch("services", "d", "");
        let seen = |namespace, name| all.of(&target("pods", namespace, name));
        assert_eq!(seen("d", "p"), 3);
        assert_eq!(seen("d", "q"), 2);
        assert_eq!(seen("d", ""), 2, "the name of a new object is in its body");
        assert_eq!(seen("e", "p"), 1);
        drop(everywhere);
        assert_eq!(seen("e", "p"), 0);
    }
}
