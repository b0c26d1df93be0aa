//! `lb_subset_config`, compiled: which endpoints form subsets, and who answers where there is none.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use xds::envoy::config::cluster::v3::cluster::LbSubsetConfig;
use xds::envoy::config::cluster::v3::cluster::lb_subset_config::{
    LbSubsetSelector, lb_subset_selector::LbSubsetSelectorFallbackPolicy as SelectorPolicy,
};

use crate::error::ConfigError;
use crate::matching::struct_to_json;

/// `lb_subset_config` with at least one selector; without one Envoy has no subsets either.
#[derive(Debug, Clone, PartialEq)]
pub struct Subsets {
    /// Who answers when no selector says otherwise.
    pub fallback: Fallback,
    /// `default_subset`.
    pub default: Map<String, Value>,
    /// `subset_selectors`; of several with the same keys the first one counts.
    pub selectors: Vec<Selector>,
    /// The localities of a subset keep their weights.
    pub locality_weight_aware: bool,
    /// A locality's weight shrinks with the share of its hosts that are in the subset.
    pub scale_locality_weight: bool,
    /// Anybody is better than nobody.
    pub panic_mode_any: bool,
    /// A host whose metadata has a list is in the subsets of all of its values.
    pub list_as_any: bool,
    /// `FALLBACK_LIST`: the request may carry several wishes, the first that finds somebody counts.
    pub fallback_list: bool,
}

/// Who answers when the subset that is asked for does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// Nobody.
    Nobody,
    /// Any endpoint.
    Any,
    /// Those with the metadata of `default_subset`.
    Default,
}

/// One of `subset_selectors`.
#[derive(Debug, Clone, PartialEq)]
pub struct Selector {
    /// The keys whose values tell subsets apart.
    pub keys: BTreeSet<String>,
    /// What happens when there is no subset with the values; `None`: what the cluster says.
    pub fallback: Option<SelectorFallback>,
    /// Every subset is its first host alone.
    pub single_host: bool,
}

/// The fallback of a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectorFallback {
    /// As for a whole cluster.
    Policy(Fallback),
    /// Asked again with these keys only.
    Keys(BTreeSet<String>),
}

impl Subsets {
    /// Compiles it; `None` without selectors.
    ///
    /// # Errors
    /// What Envoy refuses as well: keys to fall back to that are not fewer than the selector's own.
    pub fn compile(config: &LbSubsetConfig) -> Result<Option<Self>, ConfigError> {
        if config.subset_selectors.is_empty() {
            return Ok(None);
        }
        let mut selectors: Vec<Selector> = Vec::with_capacity(config.subset_selectors.len());
        for (index, selector) in config.subset_selectors.iter().enumerate() {
            let selector = Selector::compile(selector)
                .map_err(|error| error.within(&format!("subset_selectors[{index}]")))?;
            if !selectors.iter().any(|known| known.keys == selector.keys) {
                selectors.push(selector);
            }
        }
        Ok(Some(Self {
            fallback: match config.fallback_policy {
                0 => Fallback::Nobody,
                1 => Fallback::Any,
                2 => Fallback::Default,
                other => {
                    return Err(ConfigError::new(
                        "fallback_policy",
                        format!("{other} is not a known policy"),
                    ));
                }
            },
            default: config
                .default_subset
                .as_ref()
                .map(struct_to_json)
                .unwrap_or_default(),
            selectors,
            locality_weight_aware: config.locality_weight_aware,
            scale_locality_weight: config.scale_locality_weight,
            panic_mode_any: config.panic_mode_any,
            list_as_any: config.list_as_any,
            fallback_list: config.metadata_fallback_policy == 1,
        }))
    }
}

impl Selector {
    fn compile(config: &LbSubsetSelector) -> Result<Self, ConfigError> {
        let keys: BTreeSet<String> = config.keys.iter().cloned().collect();
        if config.single_host_per_subset && keys.len() > 1 {
            return Err(ConfigError::new(
                "single_host_per_subset",
                "needs exactly one key",
            ));
        }
        let fallback = match SelectorPolicy::try_from(config.fallback_policy) {
            Ok(SelectorPolicy::NotDefined) => None,
            Ok(SelectorPolicy::NoFallback) => Some(SelectorFallback::Policy(Fallback::Nobody)),
            Ok(SelectorPolicy::AnyEndpoint) => Some(SelectorFallback::Policy(Fallback::Any)),
            Ok(SelectorPolicy::DefaultSubset) => Some(SelectorFallback::Policy(Fallback::Default)),
            Ok(SelectorPolicy::KeysSubset) => {
                let fewer: BTreeSet<String> = config.fallback_keys_subset.iter().cloned().collect();
                let wrong = |problem| Err(ConfigError::new("fallback_keys_subset", problem));
                if fewer.is_empty() {
                    return wrong("is empty, though fallback_policy is KEYS_SUBSET");
                }
                if !fewer.is_subset(&keys) {
                    return wrong("has keys that the selector does not have");
                }
                if fewer == keys {
                    return wrong(
                        "has all keys of the selector, so there is nothing to fall back to",
                    );
                }
                Some(SelectorFallback::Keys(fewer))
            }
            Err(_) => {
                return Err(ConfigError::new(
                    "fallback_policy",
                    format!("{} is not a known policy", config.fallback_policy),
                ));
            }
        };
        Ok(Self {
            keys,
            fallback,
            single_host: config.single_host_per_subset,
        })
    }
}
