//! What a starting theater shows: how many pods of each cluster are ready, on one line each that is
//! rewritten on a terminal and printed on change elsewhere.

use std::borrow::Borrow;
use std::io::{IsTerminal, Write};

use serde_json::Value;

use crate::language;

/// Ready and wanted pods of a cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pods {
    /// Pods that are ready.
    pub ready: usize,
    /// Pods the Deployments ask for.
    pub wanted: usize,
}

impl Pods {
    /// Counts over the Deployments of a cluster.
    #[must_use]
    pub fn of(deployments: &[impl Borrow<Value>]) -> Self {
        let number = |value: &Value| usize::try_from(value.as_u64().unwrap_or(0)).unwrap_or(0);
        deployments.iter().fold(Self::default(), |sum, deployment| {
            let deployment = deployment.borrow();
            let wanted = number(&deployment["spec"]["replicas"]);
            let ready = number(&deployment["status"]["readyReplicas"]);
            Self {
                ready: sum.ready + ready.min(wanted),
                wanted: sum.wanted + wanted,
            }
        })
    }

    /// Whether there is nothing to wait for.
    #[must_use]
    pub fn all_ready(self) -> bool {
        self.wanted > 0 && self.ready == self.wanted
    }
}

/// The lines of a starting theater.
pub struct Progress {
    terminal: bool,
    shown: Vec<(String, Pods)>,
    lines: usize,
}

impl Progress {
    /// Nothing shown yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            terminal: std::io::stdout().is_terminal(),
            shown: Vec::new(),
            lines: 0,
        }
    }

    /// Shows the state of all clusters, if it changed.
    pub fn show(&mut self, clusters: &[(String, Pods)]) {
        if self.shown == clusters {
            return;
        }
        let mut out = std::io::stdout().lock();
        if self.terminal && self.lines > 0 {
            // Back over the lines written last, which are then cleared one by one.
            let _ = write!(out, "\x1b[{}A", self.lines);
        }
        let mut lines = 0;
        for (index, (name, pods)) in clusters.iter().enumerate() {
            let unchanged = self.shown.get(index) == clusters.get(index);
            if !self.terminal && unchanged {
                continue;
            }
            let line = language::pods_ready(name, pods.ready, pods.wanted);
            let clear = if self.terminal { "\x1b[2K" } else { "" };
            let _ = writeln!(out, "{clear}{line}");
            lines += 1;
        }
        let _ = out.flush();
        self.lines = lines;
        self.shown = clusters.to_vec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_are_counted_over_deployments() {
        let pods = Pods::of(&[
            json!({"spec": {"replicas": 2}, "status": {"readyReplicas": 1}}),
            json!({"spec": {"replicas": 1}, "status": {}}),
            json!({"spec": {"replicas": 0}}),
        ]);
        assert_eq!(
            pods,
            Pods {
                ready: 1,
                wanted: 3
            }
        );
        assert!(!pods.all_ready());
        assert!(!Pods::default().all_ready());
    }
}
