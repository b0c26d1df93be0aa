//! What a request asks of its endpoint: the `envoy.lb` part of `metadata_match`.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::stream::Metadata;

/// The namespace of metadata that load balancing looks at.
const NAMESPACE: &str = "envoy.lb";
/// Several wishes, the first one that can be granted counts.
const FALLBACK_LIST: &str = "fallback_list";

/// Keys and the values that an endpoint's metadata must have, in the order of the keys.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Criteria(Vec<(String, Value)>);

impl Criteria {
    /// From `metadata_match`; `None` where it says nothing about load balancing.
    pub fn of(metadata: &Metadata) -> Option<Self> {
        let fields = metadata.get(NAMESPACE)?.as_object()?;
        Some(Self::default().merged(fields))
    }

    /// With the `envoy.lb` values of `more` on top, which win over those that are there.
    pub fn with(base: Option<&Self>, more: &Metadata) -> Option<Self> {
        let fields = more.get(NAMESPACE).and_then(Value::as_object)?;
        Some(base.cloned().unwrap_or_default().merged(fields))
    }

    pub(super) fn merged(mut self, fields: &Map<String, Value>) -> Self {
        self.0.retain(|(key, _)| !fields.contains_key(key));
        self.0.extend(
            fields
                .iter()
                .map(|(key, value)| (key.clone(), value.clone())),
        );
        self.0.sort_by(|one, other| one.0.cmp(&other.0));
        self
    }

    /// Only these keys.
    pub(super) fn only(&self, keys: &BTreeSet<String>) -> Self {
        let kept = self.0.iter().filter(|(key, _)| keys.contains(key));
        Self(kept.cloned().collect())
    }

    /// The wishes in their order, each of them on top of what all have in common; `None` where there is no list.
    pub(super) fn alternatives(&self) -> Option<Vec<Self>> {
        let list = self.0.iter().find(|(key, _)| key == FALLBACK_LIST)?;
        let list = list.1.as_array()?;
        let rest = self.0.iter().filter(|(key, _)| key != FALLBACK_LIST);
        let rest = Self(rest.cloned().collect());
        if list.is_empty() {
            return Some(vec![rest]);
        }
        let wishes = list.iter().filter_map(Value::as_object);
        Some(wishes.map(|wish| rest.clone().merged(wish)).collect())
    }

    pub(super) fn pairs(&self) -> &[(String, Value)] {
        &self.0
    }
}

/// What an endpoint's metadata says about load balancing.
pub(super) fn labels(metadata: &Metadata) -> Option<&Map<String, Value>> {
    metadata.get(NAMESPACE)?.as_object()
}
