//! What a service does while the store is away: it stops making everybody wait for it, and answers
//! reads with what it read last, saying how old that is.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::Json;

/// How long after a first failure commands are refused at once, before one of them may try the store again: not long, for a
/// store that is only starting.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Each failure after it doubles the pause, up to this. It is also how long the others leave a command alone that tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Whether the store is worth asking: a circuit breaker that lets one command at a time try a store
/// that has failed. Decides only; the time is an argument.
#[derive(Debug, Default)]
pub struct Breaker {
    failed: Option<Failure>,
}

#[derive(Debug)]
struct Failure {
    reason: String,
    pause: Duration,
    /// When the next command may try.
    until: Instant,
}

impl Breaker {
    /// Whether a command may go to the store at `now`; otherwise why the last one failed.
    ///
    /// # Errors
    /// The reason of the last failure, while nobody should wait for the store.
    pub fn admit(&mut self, now: Instant) -> Result<(), String> {
        match &mut self.failed {
            Some(failure) if now < failure.until => Err(failure.reason.clone()),
            Some(failure) => {
                // This one tries; the others go on without waiting until it has come back.
                failure.until = now + LONGEST_PAUSE;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A command was answered.
    pub fn succeeded(&mut self) {
        self.failed = None;
    }

    /// A command was not answered, for this reason.
    pub fn failed(&mut self, now: Instant, reason: String) {
        let pause = match &self.failed {
            // Of several commands that were under way together, only the first says something new.
            Some(failure) if now < failure.until && failure.until - now <= failure.pause => return,
            Some(failure) => (failure.pause * 2).min(LONGEST_PAUSE),
            None => FIRST_PAUSE,
        };
        self.failed = Some(Failure {
            reason,
            pause,
            until: now + pause,
        });
    }
}

/// What was read, and how long ago when the store could not be asked this time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read<T> {
    /// The value.
    pub value: T,
    /// `None`: read just now. Otherwise the age of what is shown instead.
    pub age: Option<Duration>,
}

impl<T> Read<Option<T>> {
    /// The value if there is one.
    pub fn found(self) -> Option<Read<T>> {
        let age = self.age;
        self.value.map(|value| Read { value, age })
    }
}

impl<T: Serialize> IntoResponse for Read<T> {
    /// JSON; from memory, with the header `age` (RFC 9111, in seconds) and `x-store: unavailable`.
    fn into_response(self) -> Response {
        let mut response = Json(self.value).into_response();
        if let Some(age) = self.age {
            let headers = response.headers_mut();
            headers.insert(header::AGE, HeaderValue::from(age.as_secs()));
            headers.insert(
                HeaderName::from_static("x-store"),
                HeaderValue::from_static("unavailable"),
            );
        }
        response
    }
}

/// The documents of each kind as they were read last.
#[derive(Debug, Default)]
pub struct Memory {
    kinds: HashMap<String, Remembered>,
}

#[derive(Debug)]
struct Remembered {
    at: Instant,
    documents: Vec<(String, String)>,
}

impl Memory {
    /// Keeps all documents of a kind, by key, as they were at `now`.
    pub fn keep(&mut self, kind: &str, documents: Vec<(String, String)>, now: Instant) {
        self.kinds
            .insert(kind.to_owned(), Remembered { at: now, documents });
    }

    /// All documents of a kind and their age; `None` when they were never read.
    pub fn list(&self, kind: &str, now: Instant) -> Option<Read<Vec<(String, String)>>> {
        let remembered = self.kinds.get(kind)?;
        Some(Read {
            value: remembered.documents.clone(),
            age: Some(now.saturating_duration_since(remembered.at)),
        })
    }

    /// One document by its key, `<kind>:<name>`, and its age; `None` when nothing is known of it.
    pub fn get(&self, key: &str, now: Instant) -> Option<Read<String>> {
        let remembered = self.kinds.get(key.split(':').next()?)?;
        let (_, text) = remembered
            .documents
            .iter()
            .find(|(known, _)| known == key)?;
        Some(Read {
            value: text.clone(),
            age: Some(now.saturating_duration_since(remembered.at)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_away_is_tried_by_one_command_at_a_time_and_less_and_less_often() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let refused = || Err("refused".to_owned());
        let mut breaker = Breaker::default();
        assert_eq!(breaker.admit(at(0)), Ok(()));
        assert_eq!(breaker.admit(at(0)), Ok(()), "a healthy store takes all");
        breaker.failed(at(10), "refused".into());
        breaker.failed(at(11), "another under way".into());
        assert_eq!(breaker.admit(at(59)), refused());
        let mut now = 60;
        for pause in [100, 200, 400, 800, 1000, 1000] {
            assert_eq!(breaker.admit(at(now)), Ok(()), "one tries");
            assert_eq!(breaker.admit(at(now + 1)), refused(), "only one");
            breaker.failed(at(now), "refused".into());
            assert_eq!(breaker.admit(at(now + pause - 1)), refused(), "{pause}");
            now += pause;
        }
        assert_eq!(breaker.admit(at(now)), Ok(()), "one tries");
        assert_eq!(breaker.admit(at(now + 999)), refused(), "and takes long");
        breaker.succeeded();
        assert_eq!(breaker.admit(at(now + 999)), Ok(()));
    }

    #[test]
    fn what_was_read_last_is_told_with_its_age() {
        let start = Instant::now();
        let later = start + Duration::from_secs(12);
        let mut memory = Memory::default();
        assert_eq!(memory.list("user", start), None, "never read");
        memory.keep("user", vec![("user:1".into(), "{}".into())], start);
        let age = Some(Duration::from_secs(12));
        let list = memory.list("user", later).unwrap();
        assert_eq!((list.value.len(), list.age), (1, age));
        assert_eq!(memory.get("user:1", later).unwrap().age, age);
        assert_eq!(memory.get("user:2", later), None);
        assert_eq!(memory.get("movie:1", later), None);
    }

    #[test]
    fn an_answer_from_memory_says_so() {
        let fresh = Read {
            value: 1,
            age: None,
        }
        .into_response();
        assert!(fresh.headers().get("age").is_none() && fresh.headers().get("x-store").is_none());
        let age = Some(Duration::from_millis(12_900));
        let old = Read { value: 1, age }.into_response();
        assert_eq!(old.headers()["age"], "12");
        assert_eq!(old.headers()["x-store"], "unavailable");
    }
}
