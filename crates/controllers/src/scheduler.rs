//! The scheduler: chooses a node for every pod that has none.

mod affinity;
mod decide;
mod filter;
mod preempt;
mod resources;
mod run;
mod score;
mod taints;
mod volumes;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

pub use decide::{Unfit, decide};
pub use filter::{Rejection, filter};
pub(crate) use run::run;
pub(crate) use taints::tolerates_one as tolerates_taint;

/// Whether a node has what the pod's node selector and required affinity ask for.
pub(crate) fn node_fits(pod: &Value, node: &Value) -> bool {
    affinity::fits_node(pod, node)
}

/// Whether a node has a taint with one of these effects that the pod does not tolerate.
pub(crate) fn untolerated(node: &Value, pod: &Value, effects: &[&str]) -> bool {
    taints::untolerated(node, pod, effects).is_some()
}

/// A node and what runs on it.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    /// The node.
    pub node: Arc<Value>,
    /// Pods on it that have not ended, those just assigned included.
    pub pods: Vec<Arc<Value>>,
}

/// The cluster at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Nodes, ordered by name.
    pub nodes: Vec<NodeInfo>,
    /// Labels of namespaces, for selectors of namespaces in pod affinity.
    pub namespaces: BTreeMap<String, Value>,
    /// Claims of the pod's namespace, all volumes, and all classes; empty while the pod has no claims.
    pub storage: Storage,
}

/// Claims, volumes and classes.
#[derive(Debug, Clone, Default)]
pub struct Storage {
    /// Claims of the pod's namespace.
    pub claims: Vec<Arc<Value>>,
    /// All volumes.
    pub volumes: Vec<Arc<Value>>,
    /// All classes.
    pub classes: Vec<Arc<Value>>,
}
