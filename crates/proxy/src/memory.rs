//! Gives back the memory that taking a configuration needed: messages that were read and compiled are gone by then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Changes come together: who waits so long has seen them all.
const SOON: Duration = Duration::from_millis(5);
/// Not more often than this.
const PAUSE: Duration = Duration::from_secs(1);

/// Gives memory back to the system after changes.
#[derive(Clone, Default)]
pub struct Trimmer(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    waiting: bool,
    last: Option<Instant>,
}

impl Trimmer {
    /// The configuration has changed.
    pub fn changed(&self, runtime: &tokio::runtime::Handle) {
        let mut state = self.0.lock();
        if std::mem::replace(&mut state.waiting, true) {
            return;
        }
        let since = state.last.map_or(PAUSE, |last| last.elapsed());
        let wait = PAUSE.saturating_sub(since).max(SOON);
        let this = self.clone();
        runtime.spawn(async move {
            tokio::time::sleep(wait).await;
            {
                let mut state = this.0.lock();
                state.waiting = false;
                state.last = Some(Instant::now());
            }
            trim();
        });
    }
}

/// Blocks of this size and more are taken from the system one by one and given back at once. glibc would raise the limit with the
/// first that is freed, and then keep all that the largest message of the management server ever took.
pub fn settle() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt takes the allocator's own lock and changes a number.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
    }
}

fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim takes the allocator's own locks and touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}
