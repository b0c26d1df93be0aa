//! Waiting for what a proxy and the upstreams behind it say, in all places where a case may wait.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::case::Wait;
use crate::peer::Admin;
use crate::support::DEADLINE;
use crate::upstream::Script;

/// The stats of one proxy during one case.
#[derive(Debug, Clone)]
pub struct Watch {
    pub admin: Admin,
    /// The case's listener.
    pub listener: String,
    /// The stats when the case began.
    pub before: BTreeMap<String, i64>,
}

/// The case's own name of a stat, as the proxy calls it.
pub fn stat_name(name: &str, listener: &str) -> String {
    for prefix in ["http.", "tcp."] {
        if let Some(rest) = name.strip_prefix(prefix) {
            return format!("{prefix}{listener}.{rest}");
        }
    }
    name.to_owned()
}

impl Watch {
    /// Waits until it is so; a text for the outcome where it never is.
    pub async fn until(&self, wait: &Wait, script: &Mutex<Script>) -> Result<(), String> {
        if let Some(time) = wait.time {
            tokio::time::sleep(Duration::from_millis(time)).await;
        }
        let name = wait.stat.as_ref();
        let name = name.map(|name| stat_name(name, &self.listener));
        let start = Instant::now();
        loop {
            let mut so = {
                let script = script.lock().unwrap();
                wait.seen.is_none_or(|count| script.arrived >= count)
                    && wait.told.is_none_or(|count| script.seen.len() >= count)
            };
            if let Some(name) = &name {
                let value = self.admin.stats(std::slice::from_ref(name)).await[name];
                so &= wait.is.is_none_or(|is| value == is);
                so &= wait
                    .changed
                    .is_none_or(|by| value - self.before[name] >= by);
            }
            if so {
                if name.is_some() {
                    self.admin.settle().await;
                }
                return Ok(());
            }
            if start.elapsed() > DEADLINE {
                return Err(format!("<never happened: {wait:?}>"));
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
}
