//! What one connection wants of one resource type, and what it has been sent. Pure: requests and
//! generated resources in, responses out. Rules: xDS protocol ("State of the world", "Incremental").

use std::collections::{BTreeMap, BTreeSet};

use xds::prost_types::Any;

/// Generated resources of one type, by name.
pub type Resources = BTreeMap<String, Any>;

/// A request, in the terms both variants of the protocol share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ask {
    /// Names asked for in addition (incremental), or all names (state of the world).
    pub names: Vec<String>,
    /// Names no longer wanted (incremental only).
    pub unsubscribe: Vec<String>,
    /// What the client has from an earlier connection, by name (incremental only).
    pub initial: Vec<String>,
    /// The nonce of the response this is an answer to; empty for none.
    pub nonce: String,
    /// Why the last response was refused, if it was.
    pub error: Option<String>,
}

/// What a request leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reaction {
    /// Nothing to send: an acknowledgement, or an answer to an outdated response.
    Nothing,
    /// The client refused the last response; it is not sent again.
    Refused(String),
    /// Send what is new for the client, even if that is an empty response.
    Respond,
}

/// The subscription of one connection to one resource type.
#[derive(Debug, Default)]
pub struct Subscription {
    known: bool,
    wildcard: bool,
    names: BTreeSet<String>,
    /// Digest of each resource as the client has it.
    sent: BTreeMap<String, u64>,
    /// Resources the client reported from an earlier connection: removed if they no longer exist.
    inherited: BTreeSet<String>,
    nonce: String,
    /// Nonce of the last acknowledged response.
    acked: String,
    /// What must be sent again although the client has it.
    forced: BTreeSet<String>,
    /// State of the world: the first response must be complete, whatever was sent.
    complete: bool,
}

/// What to send.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Update {
    /// New or changed resources.
    pub resources: Vec<(String, Any)>,
    /// Names that are gone (incremental only).
    pub removed: Vec<String>,
}

impl Update {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.removed.is_empty()
    }
}

impl Subscription {
    /// Whether the client asked for this type at all.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.known
    }

    /// Whether every resource of the type is wanted.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// The names wanted, apart from a wildcard.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The nonce last sent and the nonce last acknowledged.
    #[must_use]
    pub fn nonces(&self) -> (&str, &str) {
        (&self.nonce, &self.acked)
    }

    /// Takes an incremental request. `wildcard_type`: an empty first request means everything.
    pub fn on_delta(&mut self, ask: &Ask, wildcard_type: bool) -> Reaction {
        let first = !self.known;
        self.known = true;
        if first {
            self.inherited = ask.initial.iter().cloned().collect();
            self.wildcard =
                wildcard_type && (ask.names.is_empty() || ask.names.iter().any(|name| name == "*"));
            // Names a client brings along from an earlier connection count as asked for.
            if !self.wildcard {
                self.names.extend(ask.initial.iter().cloned());
            }
        }
        let mut added = false;
        for name in ask.names.iter().filter(|name| *name != "*") {
            // Asked for again: the client no longer has it.
            added = true;
            self.sent.remove(name);
            self.names.insert(name.clone());
        }
        for name in &ask.unsubscribe {
            self.names.remove(name);
            self.sent.remove(name);
            if name == "*" {
                self.wildcard = false;
            }
        }
        if let Some(error) = &ask.error {
            return Reaction::Refused(error.clone());
        }
        if !ask.nonce.is_empty() && ask.nonce == self.nonce {
            self.acked.clone_from(&ask.nonce);
        }
        if first || added {
            Reaction::Respond
        } else {
            Reaction::Nothing
        }
    }

    /// Takes a state-of-the-world request.
    pub fn on_sotw(&mut self, ask: &Ask, wildcard_type: bool) -> Reaction {
        if let Some(error) = &ask.error {
            return Reaction::Refused(error.clone());
        }
        let names: BTreeSet<String> = ask.names.iter().cloned().collect();
        if !wildcard_type && names.is_empty() && self.known {
            *self = Self {
                known: true,
                ..Self::default()
            };
            return Reaction::Nothing;
        }
        let reconnect = !self.known || ask.nonce.is_empty();
        if reconnect {
            self.known = true;
            self.wildcard = wildcard_type && names.is_empty();
            self.names = names;
            self.sent.clear();
            self.complete = true;
            return Reaction::Respond;
        }
        if ask.nonce != self.nonce {
            return Reaction::Nothing;
        }
        self.acked.clone_from(&ask.nonce);
        let added = names.iter().any(|name| !self.names.contains(name));
        self.sent
            .retain(|name, _| self.wildcard || names.contains(name));
        self.names = names;
        if added {
            Reaction::Respond
        } else {
            Reaction::Nothing
        }
    }

    /// Marks resources that the client needs again although they have not changed: endpoints of a
    /// cluster that is being warmed.
    pub fn force(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names {
            if self.wildcard || self.names.contains(&name) {
                self.forced.insert(name);
            }
        }
    }

    /// Whether something must be sent again although it has not changed.
    #[must_use]
    pub fn is_forced(&self) -> bool {
        !self.forced.is_empty()
    }

    /// What the client lacks of `current`, of which nothing but `only` can have changed. `missing` makes the resource for a name that was
    /// asked for and does not exist, where the protocol wants an empty one instead of silence.
    pub fn update(
        &mut self,
        current: &Resources,
        only: Option<&BTreeSet<String>>,
        missing: impl Fn(&str) -> Option<Any>,
    ) -> Update {
        let mut update = Update::default();
        let wanted: Vec<String> = match only {
            Some(only) => only
                .iter()
                .filter(|name| self.wildcard || self.names.contains(*name))
                .chain(&self.forced)
                .cloned()
                .collect(),
            None if self.wildcard => current.keys().chain(&self.names).cloned().collect(),
            None => self.names.iter().cloned().collect(),
        };
        for name in wanted {
            let made;
            let resource = match current.get(&name) {
                Some(resource) => resource,
                None => match missing(&name).filter(|_| self.names.contains(&name)) {
                    Some(resource) => {
                        made = resource;
                        &made
                    }
                    None => continue,
                },
            };
            let digest = digest(&resource.value);
            if self.forced.remove(&name) || self.sent.get(&name) != Some(&digest) {
                self.sent.insert(name.clone(), digest);
                update.resources.push((name, resource.clone()));
            }
        }
        self.forced.clear();
        let can_be_gone = |name: &&String| only.is_none_or(|only| only.contains(*name));
        let gone: Vec<String> = self
            .sent
            .keys()
            .filter(can_be_gone)
            .chain(&self.inherited)
            .filter(|name| !current.contains_key(*name) && missing(name).is_none())
            .cloned()
            .collect();
        for name in gone {
            self.sent.remove(&name);
            if !update.removed.contains(&name) {
                update.removed.push(name);
            }
        }
        self.inherited.clear();
        update
    }

    /// For the state of the world: everything the client is to have of a wildcard type, or `None`
    /// when it has it already. Types asked for by name are sent by [`Self::update`], which names only
    /// what is new.
    pub fn everything(&mut self, current: &Resources) -> Option<Vec<(String, Any)>> {
        let digests: BTreeMap<String, u64> = current
            .iter()
            .map(|(name, resource)| (name.clone(), digest(&resource.value)))
            .collect();
        if !self.complete && digests == self.sent {
            return None;
        }
        self.complete = false;
        self.sent = digests;
        Some(
            current
                .iter()
                .map(|(name, resource)| (name.clone(), resource.clone()))
                .collect(),
        )
    }

    /// Remembers the nonce of the response that is being sent.
    pub fn sending(&mut self, nonce: &str) {
        nonce.clone_into(&mut self.nonce);
    }
}

/// A digest of encoded bytes, for telling whether a resource changed (FNV-1a, 64 bits).
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(pairs: &[(&str, &str)]) -> Resources {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    (*name).to_owned(),
                    Any {
                        type_url: "t".into(),
                        value: value.as_bytes().to_vec(),
                    },
                )
            })
            .collect()
    }

    fn names(update: &Update) -> Vec<&str> {
        update
            .resources
            .iter()
            .map(|(name, _)| name.as_str())
            .collect()
    }

    fn none(_: &str) -> Option<Any> {
        None
    }

    fn ask(names: &[&str]) -> Ask {
        Ask {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Ask::default()
        }
    }

    #[test]
    fn wildcard_sends_changes_and_removals_only() {
        let mut subscription = Subscription::default();
        assert_eq!(subscription.on_delta(&ask(&[]), true), Reaction::Respond);
        let first = subscription.update(&resources(&[("a", "1"), ("b", "1")]), None, none);
        assert_eq!(names(&first), ["a", "b"]);
        let second = subscription.update(&resources(&[("a", "1"), ("c", "1")]), None, none);
        assert_eq!(names(&second), ["c"]);
        assert_eq!(second.removed, ["b"]);
        assert!(
            subscription
                .update(&resources(&[("a", "1"), ("c", "1")]), None, none)
                .is_empty()
        );
    }

    #[test]
    fn named_resources_are_sent_when_asked_for_even_if_empty() {
        let mut subscription = Subscription::default();
        subscription.on_delta(&ask(&["x"]), false);
        let empty = |_: &str| {
            Some(Any {
                type_url: "t".into(),
                value: Vec::new(),
            })
        };
        assert_eq!(
            names(&subscription.update(&Resources::new(), None, empty)),
            ["x"]
        );
        assert!(
            subscription
                .update(&Resources::new(), None, empty)
                .is_empty()
        );
        // Asked for again, it is sent again.
        assert_eq!(
            subscription.on_delta(&ask(&["x"]), false),
            Reaction::Respond
        );
        assert_eq!(
            names(&subscription.update(&Resources::new(), None, empty)),
            ["x"]
        );
    }

    #[test]
    fn after_a_reconnect_what_no_longer_exists_is_removed() {
        let mut subscription = Subscription::default();
        let request = Ask {
            initial: vec!["old".into(), "a".into()],
            ..Ask::default()
        };
        subscription.on_delta(&request, true);
        let update = subscription.update(&resources(&[("a", "1")]), None, none);
        assert_eq!(names(&update), ["a"]);
        assert_eq!(update.removed, ["old"]);
    }

    #[test]
    fn a_refused_response_is_not_repeated() {
        let mut subscription = Subscription::default();
        subscription.on_delta(&ask(&[]), true);
        subscription.update(&resources(&[("a", "bad")]), None, none);
        subscription.sending("n1");
        let refusal = Ask {
            nonce: "n1".into(),
            error: Some("no".into()),
            ..Ask::default()
        };
        assert_eq!(
            subscription.on_delta(&refusal, true),
            Reaction::Refused("no".into())
        );
        assert!(
            subscription
                .update(&resources(&[("a", "bad")]), None, none)
                .is_empty()
        );
        assert_eq!(subscription.nonces(), ("n1", ""));
    }

    #[test]
    fn endpoints_of_a_changed_cluster_are_forced() {
        let mut subscription = Subscription::default();
        subscription.on_delta(&ask(&["a", "b"]), false);
        let current = resources(&[("a", "1"), ("b", "1")]);
        subscription.update(&current, None, none);
        subscription.force(["a".to_owned(), "other".to_owned()]);
        assert_eq!(names(&subscription.update(&current, None, none)), ["a"]);
    }

    #[test]
    fn state_of_the_world_answers_added_names_and_ignores_old_nonces() {
        let mut subscription = Subscription::default();
        assert_eq!(subscription.on_sotw(&ask(&["a"]), false), Reaction::Respond);
        let current = resources(&[("a", "1"), ("b", "1")]);
        assert_eq!(names(&subscription.update(&current, None, none)), ["a"]);
        subscription.sending("n1");
        let more = Ask {
            nonce: "n1".into(),
            ..ask(&["a", "b"])
        };
        assert_eq!(subscription.on_sotw(&more, false), Reaction::Respond);
        assert_eq!(names(&subscription.update(&current, None, none)), ["b"]);
        let stale = Ask {
            nonce: "n0".into(),
            ..ask(&["a"])
        };
        assert_eq!(subscription.on_sotw(&stale, false), Reaction::Nothing);
    }

    #[test]
    fn state_of_the_world_sends_all_of_a_wildcard_type_once() {
        let mut subscription = Subscription::default();
        assert_eq!(subscription.on_sotw(&ask(&[]), true), Reaction::Respond);
        let current = resources(&[("a", "1"), ("b", "1")]);
        assert_eq!(subscription.everything(&current).unwrap().len(), 2);
        assert!(subscription.everything(&current).is_none());
        let changed = resources(&[("a", "1")]);
        assert_eq!(subscription.everything(&changed).unwrap().len(), 1);
    }
}
