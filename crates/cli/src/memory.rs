//! What a long-lived process keeps of the memory it needed at its start.

use std::time::Duration;

/// When the start is over, and how often it is looked again after a busy time.
const FIRST: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_secs(60);

/// Gives freed memory back to the system, now and then, for as long as it is polled. The allocator of glibc keeps it otherwise:
/// a cluster's process would stay as big as it was while everything started.
pub async fn give_back() {
    tokio::time::sleep(FIRST).await;
    loop {
        trim();
        tokio::time::sleep(AGAIN).await;
    }
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: malloc_trim takes the allocator's own locks and touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}
