//! What drains, and since when.

use std::sync::OnceLock;
use std::time::Instant;

use dataplane::drain::DrainPolicy;
use runtime::CancellationToken;

/// Something that drains once it is replaced, removed or told to.
#[derive(Debug, Default)]
pub struct Drain {
    token: CancellationToken,
    began: OnceLock<Began>,
}

#[derive(Debug)]
struct Began {
    at: Instant,
    at_once: bool,
}

impl Drain {
    /// Begins, unless it has; whether it had not. `at_once`: each connection is asked to close at its next answer, whatever
    /// the policy.
    pub fn begin(&self, at_once: bool) -> bool {
        let at = Instant::now();
        let first = self.began.set(Began { at, at_once }).is_ok();
        self.token.cancel();
        first
    }

    /// Ends when it begins.
    pub async fn begun(&self) {
        self.token.cancelled().await;
    }

    /// Whether a connection is asked to close with its next answer.
    pub fn closes(&self, policy: &DrainPolicy, random: &mut dyn FnMut() -> u64) -> bool {
        self.began
            .get()
            .is_some_and(|began| began.at_once || policy.closes(began.at.elapsed(), random))
    }
}
