//! Who owns whom: the graph behind garbage collection. No input or output here.

use std::collections::{HashMap, HashSet};

use kube_client::{Propagation, Resource};
use serde_json::Value;

use crate::object::{is_terminating, text};

/// Finalizer of an owner that goes after its dependents.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an owner whose dependents stay.
pub const ORPHAN: &str = "orphan";

/// An owner as a dependent names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its uid.
    pub uid: String,
    /// Its `apiVersion`.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Whether it waits for the dependent when it is deleted in the foreground.
    blocks: bool,
}

/// What the graph knows of an object.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its kind.
    pub resource: Resource,
    /// Its namespace; empty for cluster-scoped ones.
    pub ns: String,
    /// Its name.
    pub name: String,
    /// Its owners.
    pub owners: Vec<Owner>,
    terminating: bool,
    finalizers: Vec<String>,
}

impl Node {
    fn waits_for_dependents(&self) -> bool {
        self.terminating && self.has(FOREGROUND)
    }

    fn has(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|known| known == finalizer)
    }
}

/// What is to be done about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing.
    Keep,
    /// Find out whether these owners exist, then ask again.
    LookUp(Vec<Owner>),
    /// None of its owners exists any more.
    Delete(Propagation),
    /// It waits for objects that wait for it: it shall no longer hold up its owners.
    Unblock,
    /// Some of its owners exist no more: remove the references to them.
    Forget(Vec<String>),
    /// It is an owner that waited and may go: remove this finalizer.
    Release(&'static str),
    /// It is an owner whose dependents shall stay: remove the references to it from these.
    Orphan(Vec<String>),
}

/// The graph.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: HashMap<String, Node>,
    dependents: HashMap<String, HashSet<String>>,
    /// Owners that were looked up and do not exist.
    absent: HashSet<String>,
}

impl Graph {
    /// Takes note of an object as it is now. Returns the uids to judge.
    pub fn observe(&mut self, resource: &Resource, object: &Value) -> Vec<String> {
        let uid = api::meta::uid(object).to_owned();
        let node = Node {
            resource: resource.clone(),
            ns: api::meta::namespace(object).to_owned(),
            name: api::meta::name(object).to_owned(),
            owners: api::meta::owner_references(object)
                .iter()
                .map(|owner| Owner {
                    uid: text(&owner["uid"]).to_owned(),
                    api_version: text(&owner["apiVersion"]).to_owned(),
                    kind: text(&owner["kind"]).to_owned(),
                    name: text(&owner["name"]).to_owned(),
                    blocks: owner["blockOwnerDeletion"] == true,
                })
                .collect(),
            terminating: is_terminating(object),
            finalizers: api::meta::finalizers(object).map(str::to_owned).collect(),
        };
        self.absent.remove(&uid);
        let known = self.nodes.get(&uid);
        let owners_changed =
            known.map_or(!node.owners.is_empty(), |known| known.owners != node.owners);
        let waits = node.waits_for_dependents();
        let leaves = node.terminating && (waits || node.has(ORPHAN));
        // Owners that wait for this one may have been waiting for this change.
        let mut work: Vec<String> = Vec::new();
        if let Some(known) = known {
            for owner in known.owners.clone() {
                if !node.owners.contains(&owner) {
                    self.unlink(&uid, &owner.uid);
                    work.push(owner.uid);
                }
            }
        }
        for owner in &node.owners {
            self.dependents
                .entry(owner.uid.clone())
                .or_default()
                .insert(uid.clone());
        }
        if owners_changed || leaves {
            work.push(uid.clone());
        }
        if waits {
            work.extend(self.dependents_of(&uid));
        }
        self.nodes.insert(uid, node);
        work
    }

    /// Takes note of an object's end. Returns the uids to judge.
    pub fn remove(&mut self, uid: &str) -> Vec<String> {
        let mut work = self.dependents_of(uid);
        if let Some(node) = self.nodes.remove(uid) {
            for owner in node.owners {
                self.unlink(uid, &owner.uid);
                work.push(owner.uid);
            }
        }
        work
    }

    /// Forgets all objects of a kind that is no longer served.
    pub fn remove_kind(&mut self, resource: &Resource) -> Vec<String> {
        let gone: Vec<String> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.resource == *resource)
            .map(|(uid, _)| uid.clone())
            .collect();
        gone.iter().flat_map(|uid| self.remove(uid)).collect()
    }

    /// Takes note that an owner was looked up and does not exist.
    pub fn is_absent(&mut self, uid: &str) {
        if !self.nodes.contains_key(uid) {
            self.absent.insert(uid.to_owned());
        }
    }

    /// What the graph knows of an object.
    pub fn node(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// Judges one object.
    pub fn judge(&self, uid: &str) -> Judgement {
        let Some(node) = self.nodes.get(uid) else {
            return Judgement::Keep;
        };
        if node.terminating {
            if node.has(ORPHAN) {
                let dependents = self.dependents_of(uid);
                return if dependents.is_empty() {
                    Judgement::Release(ORPHAN)
                } else {
                    Judgement::Orphan(dependents)
                };
            }
            if node.has(FOREGROUND) && !self.is_blocked(uid) {
                return Judgement::Release(FOREGROUND);
            }
            return Judgement::Keep;
        }
        self.judge_owners(uid, node)
    }

    fn judge_owners(&self, uid: &str, node: &Node) -> Judgement {
        if node.owners.is_empty() {
            return Judgement::Keep;
        }
        let (mut solid, mut gone, mut waiting, mut unknown) =
            (0, Vec::new(), Vec::new(), Vec::new());
        for owner in &node.owners {
            match self.nodes.get(&owner.uid) {
                // An owner in another namespace is no owner.
                Some(known) if !known.ns.is_empty() && known.ns != node.ns => {
                    gone.push(owner.uid.clone())
                }
                Some(known) if known.waits_for_dependents() => waiting.push(owner.uid.clone()),
                Some(_) => solid += 1,
                None if self.absent.contains(&owner.uid) => gone.push(owner.uid.clone()),
                None => unknown.push(owner.clone()),
            }
        }
        if !unknown.is_empty() {
            return Judgement::LookUp(unknown);
        }
        if solid > 0 {
            gone.extend(waiting);
            return if gone.is_empty() {
                Judgement::Keep
            } else {
                Judgement::Forget(gone)
            };
        }
        let holds = node.owners.iter().any(|owner| owner.blocks);
        if !waiting.is_empty() && holds && self.is_circular(uid) {
            return Judgement::Unblock;
        }
        let policy = if !waiting.is_empty() && self.is_blocked(uid) || node.has(FOREGROUND) {
            Propagation::Foreground
        } else if node.has(ORPHAN) {
            Propagation::Orphan
        } else {
            Propagation::Background
        };
        Judgement::Delete(policy)
    }

    /// Whether a dependent waits for its own dependents, of which this may be one. (It may also be none: then it merely stops waiting.)
    fn is_circular(&self, uid: &str) -> bool {
        self.dependents
            .get(uid)
            .into_iter()
            .flatten()
            .filter_map(|dependent| self.nodes.get(dependent))
            .any(Node::waits_for_dependents)
    }

    /// Whether a dependent has to go first.
    fn is_blocked(&self, uid: &str) -> bool {
        self.dependents
            .get(uid)
            .into_iter()
            .flatten()
            .any(|dependent| {
                self.nodes.get(dependent).is_some_and(|node| {
                    node.owners
                        .iter()
                        .any(|owner| owner.uid == uid && owner.blocks)
                })
            })
    }

    fn dependents_of(&self, uid: &str) -> Vec<String> {
        let mut found: Vec<String> = self
            .dependents
            .get(uid)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        found.sort();
        found
    }

    fn unlink(&mut self, uid: &str, owner: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(uid);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube_client::{DEPLOYMENTS, PODS, REPLICA_SETS};
    use serde_json::json;

    fn object(uid: &str, ns: &str, owners: &[&str]) -> Value {
        let owners: Vec<Value> = owners
            .iter()
            .map(|uid| json!({"uid": uid, "apiVersion": "v1", "kind": "K", "name": uid, "blockOwnerDeletion": true}))
            .collect();
        json!({"metadata": {"uid": uid, "name": uid, "namespace": ns, "ownerReferences": owners}})
    }

    fn leaving(mut object: Value, finalizer: &str) -> Value {
        object["metadata"]["deletionTimestamp"] = json!("2025-01-01T00:00:00Z");
        object["metadata"]["finalizers"] = json!([finalizer]);
        object
    }

    fn chain() -> Graph {
        let mut graph = Graph::default();
        assert!(
            graph
                .observe(&DEPLOYMENTS, &object("d", "a", &[]))
                .is_empty()
        );
        assert_eq!(
            graph.observe(&REPLICA_SETS, &object("r", "a", &["d"])),
            ["r"]
        );
        assert_eq!(graph.observe(&PODS, &object("p", "a", &["r"])), ["p"]);
        graph
    }

    #[test]
    fn dependents_follow_their_owner() {
        let mut graph = chain();
        assert_eq!(graph.judge("r"), Judgement::Keep);
        assert_eq!(graph.remove("d"), ["r"]);
        assert!(matches!(graph.judge("r"), Judgement::LookUp(owners) if owners[0].uid == "d"));
        graph.is_absent("d");
        assert_eq!(graph.judge("r"), Judgement::Delete(Propagation::Background));
        assert_eq!(graph.remove("r"), ["p", "d"]);
    }

    #[test]
    fn one_living_owner_is_enough() {
        let mut graph = chain();
        graph.observe(&PODS, &object("p", "a", &["r", "x"]));
        graph.is_absent("x");
        assert_eq!(graph.judge("p"), Judgement::Forget(vec!["x".to_owned()]));
        assert_eq!(graph.observe(&PODS, &object("p", "a", &["r"])), ["x", "p"]);
        assert_eq!(graph.judge("p"), Judgement::Keep);
    }

    #[test]
    fn owners_do_not_reach_across_namespaces() {
        let mut graph = chain();
        graph.observe(&PODS, &object("q", "b", &["r"]));
        assert_eq!(graph.judge("q"), Judgement::Delete(Propagation::Background));
    }

    #[test]
    fn foreground_deletion_goes_from_the_leaves_to_the_root() {
        let mut graph = chain();
        let work = graph.observe(&DEPLOYMENTS, &leaving(object("d", "a", &[]), FOREGROUND));
        assert_eq!(work, ["d", "r"]);
        assert_eq!(graph.judge("d"), Judgement::Keep);
        assert_eq!(graph.judge("r"), Judgement::Delete(Propagation::Foreground));
        let work = graph.observe(
            &REPLICA_SETS,
            &leaving(object("r", "a", &["d"]), FOREGROUND),
        );
        assert_eq!(work, ["r", "p"]);
        assert_eq!(graph.judge("p"), Judgement::Delete(Propagation::Background));
        assert_eq!(graph.remove("p"), ["r"]);
        assert_eq!(graph.judge("r"), Judgement::Release(FOREGROUND));
        assert_eq!(graph.remove("r"), ["d"]);
        assert_eq!(graph.judge("d"), Judgement::Release(FOREGROUND));
    }

    #[test]
    fn a_circle_of_objects_that_wait_for_each_other_is_opened() {
        let mut graph = Graph::default();
        for (uid, owner) in [("a", "c"), ("b", "a"), ("c", "b")] {
            graph.observe(&PODS, &object(uid, "n", &[owner]));
        }
        for (uid, owner) in [("a", "c"), ("b", "a")] {
            assert_ne!(graph.judge("c"), Judgement::Unblock, "before {uid} waits");
            graph.observe(&PODS, &leaving(object(uid, "n", &[owner]), FOREGROUND));
        }
        assert_eq!(graph.judge("c"), Judgement::Unblock);
        let mut opened = object("c", "n", &["b"]);
        opened["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] = json!(false);
        assert_eq!(graph.observe(&PODS, &opened), ["b", "c"]);
        assert_eq!(graph.judge("b"), Judgement::Release(FOREGROUND));
        assert_eq!(graph.judge("c"), Judgement::Delete(Propagation::Foreground));
    }

    #[test]
    fn orphans_are_let_go_before_their_owner_ends() {
        let mut graph = chain();
        let work = graph.observe(&DEPLOYMENTS, &leaving(object("d", "a", &[]), ORPHAN));
        assert_eq!(work, ["d"]);
        assert_eq!(graph.judge("d"), Judgement::Orphan(vec!["r".to_owned()]));
        assert_eq!(
            graph.observe(&REPLICA_SETS, &object("r", "a", &[])),
            ["d", "r"]
        );
        assert_eq!(graph.judge("d"), Judgement::Release(ORPHAN));
        assert_eq!(graph.judge("r"), Judgement::Keep);
    }

    #[test]
    fn a_kind_that_is_no_longer_served_takes_its_objects_along() {
        let mut graph = chain();
        assert_eq!(graph.remove_kind(&REPLICA_SETS), ["p", "d"]);
        assert!(graph.node("r").is_none());
    }
}
