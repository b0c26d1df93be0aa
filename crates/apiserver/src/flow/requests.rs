//! The requests that wait or run, as `dump_requests` shows them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Method;
use tokio::sync::oneshot;

use super::queues::Seats;
use super::work::Work;
use super::{Entry, Flow};
use crate::authn::User;
use crate::target::{self, Route, Target};

/// What was asked: as little as tells the rest, because every request is written down.
#[derive(Debug)]
pub(crate) struct Asked {
    pub user: Arc<User>,
    pub method: Method,
    pub path: String,
    /// It says that it is a watch.
    pub watch: bool,
}

/// A request that waits or runs.
#[derive(Debug)]
pub(crate) struct Known {
    pub asked: Asked,
    pub entry: Arc<Entry>,
    pub work: Work,
    /// Seconds since the start.
    pub arrived: f64,
    /// The seats on which it runs.
    pub runs: Option<Seats>,
    /// Tells a waiting one that its turn has come.
    pub turn: Option<oneshot::Sender<Seats>>,
}

impl Flow {
    /// The time of day as Go's `RFC3339Nano`, from seconds since the start.
    pub(super) fn wall_clock(&self, seconds: f64) -> String {
        let at = self.started_at + Duration::from_secs_f64(seconds.max(0.0));
        nanoseconds(at)
    }
}

fn nanoseconds(at: SystemTime) -> String {
    let time = api::time::Time::from(at);
    let mut text = api::time::rfc3339(time);
    if time.nanosecond() > 0 {
        text.pop();
        let fraction = format!(".{:09}", time.nanosecond());
        text.push_str(fraction.trim_end_matches('0'));
        text.push('Z');
    }
    text
}

/// A length as Go writes it, of which a request's are: none, or milliseconds and more.
fn linger(length: Duration) -> String {
    let (number, unit) = match length.as_secs_f64() {
        0.0 => return "0s".to_owned(),
        seconds if seconds < 1.0 => (seconds * 1000.0, "ms"),
        seconds => (seconds, "s"),
    };
    let digits = format!("{number:.6}");
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    format!("{digits}{unit}")
}

/// A line of `dump_requests`: in which queue, and in which place of it while it waits.
pub(super) fn row(
    request: &Known,
    queue: Option<usize>,
    place: Option<usize>,
    details: bool,
    clock: impl Fn(f64) -> String,
) -> Vec<String> {
    let number = |n: Option<usize>| n.map_or("-1".to_owned(), |n| n.to_string());
    let Asked {
        user,
        method,
        path,
        watch,
    } = &request.asked;
    let target = match target::route(path) {
        Some(Route::Resource(target)) => target,
        _ => Target::default(),
    };
    let schema = &request.entry.schema;
    let never = || "0001-01-01T00:00:00Z".to_owned();
    let mut out = vec![
        request.entry.level.name.clone(),
        schema.name.clone(),
        number(queue),
        number(place),
        schema
            .distinguisher(&user.name, &target.namespace)
            .to_owned(),
        clock(request.arrived),
        request.work.initial.to_string(),
        request.work.last.to_string(),
        linger(request.work.linger),
        request.runs.map_or_else(never, |seats| clock(seats.since)),
    ];
    if details {
        let verb = if target.plural.is_empty() {
            method.as_str().to_ascii_lowercase()
        } else {
            target::verb(method, &target, *watch)
                .unwrap_or("")
                .to_owned()
        };
        let version = match target.group.as_str() {
            "" => target.version,
            group => format!("{group}/{}", target.version),
        };
        out.extend([
            user.name.clone(),
            verb,
            path.clone(),
            target.namespace,
            target.name,
            version,
            target.plural,
            target.subresource,
        ]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_as_many_digits_as_they_need() {
        let at = |nanos| nanoseconds(SystemTime::UNIX_EPOCH + Duration::new(0, nanos));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(500_000_000), "1970-01-01T00:00:00.5Z");
        assert_eq!(at(1), "1970-01-01T00:00:00.000000001Z");
    }

    #[test]
    fn lengths_are_written_as_go_does() {
        let text = |micros| linger(Duration::from_micros(micros));
        assert_eq!(text(0), "0s");
        assert_eq!(text(5_000), "5ms");
        assert_eq!(text(52_500), "52.5ms");
        assert_eq!(text(1_500_000), "1.5s");
    }
}
