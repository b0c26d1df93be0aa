//! The objects of an analysis, and what analyzers say about them.

use std::collections::{BTreeMap, BTreeSet};

use crate::kind::Kind;
use crate::message::Message;
use crate::object::{OWN_CLUSTER, Object};

/// The objects to analyze, by cluster and kind.
#[derive(Debug, Default)]
pub struct Store {
    kinds: BTreeSet<Kind>,
    own: BTreeMap<Kind, Vec<Object>>,
    remote: BTreeMap<String, BTreeMap<Kind, Vec<Object>>>,
}

impl Store {
    /// Says that objects of `kind` were looked for, even if there are none. Analyzers that need others are skipped.
    pub fn offer(&mut self, kind: Kind) {
        self.kinds.insert(kind);
    }

    /// The kinds that were looked for.
    #[must_use]
    pub fn kinds(&self) -> &BTreeSet<Kind> {
        &self.kinds
    }

    /// Adds an object to the cluster it comes from, unless one with that name is there: sources that come first have precedence.
    pub fn add(&mut self, object: Object) {
        let kind = object.origin.kind;
        let kinds = if object.origin.cluster == OWN_CLUSTER {
            &mut self.own
        } else {
            self.remote
                .entry(object.origin.cluster.clone())
                .or_default()
        };
        let objects = kinds.entry(kind).or_default();
        let known = objects.iter().any(|other| {
            other.origin.name == object.origin.name
                && other.origin.namespace == object.origin.namespace
        });
        if !known {
            objects.push(object);
        }
    }

    /// All objects of `kind`, those of the own cluster first.
    pub fn each(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        std::iter::once(&self.own)
            .chain(self.remote.values())
            .filter_map(move |kinds| kinds.get(&kind))
            .flatten()
    }

    /// An object by name, from the own cluster if it is there.
    #[must_use]
    pub fn find(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Object> {
        self.each(kind)
            .find(|object| object.namespace() == namespace && object.name() == name)
    }
}

/// What an analyzer is given.
#[derive(Debug)]
pub struct Context<'a> {
    /// The objects.
    pub store: &'a Store,
    /// The time, in seconds since 1970.
    pub now: i64,
    messages: Vec<Message>,
}

impl<'a> Context<'a> {
    /// For objects that are analyzed at the time `now`, in seconds since 1970.
    #[must_use]
    pub fn new(store: &'a Store, now: i64) -> Self {
        Self {
            store,
            now,
            messages: Vec::new(),
        }
    }

    /// All objects of `kind`.
    pub fn each(&self, kind: Kind) -> impl Iterator<Item = &'a Object> + use<'a> {
        self.store.each(kind)
    }

    /// Says something.
    pub fn report(&mut self, message: Message) {
        self.messages.push(message);
    }

    /// What was said.
    #[must_use]
    pub fn into_messages(self) -> Vec<Message> {
        self.messages
    }

    /// The mesh configuration.
    #[must_use]
    pub fn mesh(&self) -> &'a serde_json::Value {
        static NONE: serde_json::Value = serde_json::Value::Null;
        self.store
            .each(Kind::MeshConfig)
            .next()
            .map_or(&NONE, |object| &object.spec)
    }
}
