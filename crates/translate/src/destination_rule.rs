//! DestinationRules: merging of those for one host, and which one counts for a client and a service.

use crate::ProxyInfo;
use crate::host;
use crate::objects::{Config, selects};
use api::istio::DestinationRule;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Rules of one host in one namespace, merged.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MergedRule {
    /// Of the first rule.
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) spec: DestinationRule,
    export_to: BTreeSet<String>,
}

type Rules = HashMap<String, Vec<Arc<MergedRule>>>;

/// Rules by host; a namespace has one for itself and one for others.
#[derive(Debug, Default, Clone)]
struct Consolidated {
    exact: Rules,
    wildcard: Rules,
}

/// All DestinationRules, indexed.
#[derive(Debug, Default)]
pub(crate) struct DestinationRules {
    local: HashMap<String, Consolidated>,
    exported: HashMap<String, Consolidated>,
    root_local: Consolidated,
    root: String,
    default_private: bool,
}

impl DestinationRules {
    /// The input is sorted by age.
    pub(crate) fn new(
        mut configs: Vec<Config<DestinationRule>>,
        domain: &str,
        root: &str,
        default_export_to: &[String],
    ) -> Self {
        let default_private = default_export_to.iter().any(|entry| entry == ".");
        let mut out = Self {
            root: root.to_owned(),
            default_private,
            ..Self::default()
        };
        configs.sort_by_key(|config| config.spec.workload_selector.is_none());
        for mut config in configs {
            config.spec.host = host::resolve_short(&config.spec.host, &config.namespace, domain);
            let export_to: BTreeSet<String> = match config.spec.workload_selector {
                Some(_) => BTreeSet::from([".".to_owned()]),
                None => config.spec.export_to.iter().cloned().collect(),
            };
            let own = ["*", ".", config.namespace.as_str()]
                .iter()
                .any(|entry| export_to.contains(*entry));
            let rule = MergedRule {
                name: config.name,
                namespace: config.namespace,
                spec: config.spec,
                export_to,
            };
            if rule.export_to.is_empty() || own {
                out.local
                    .entry(rule.namespace.clone())
                    .or_default()
                    .add(&rule);
            }
            let private = rule.export_to.is_empty() && default_private
                || rule.export_to.len() == 1
                    && (rule.export_to.contains(".") || rule.export_to.contains(&rule.namespace));
            if !private {
                out.exported
                    .entry(rule.namespace.clone())
                    .or_default()
                    .add(&rule);
            } else if rule.namespace == root {
                out.root_local.add(&rule);
            }
        }
        out
    }

    /// The rule that counts for a proxy's traffic to a service.
    pub(crate) fn outbound(
        &self,
        proxy: &ProxyInfo,
        service_host: &str,
        service_namespace: &str,
    ) -> Option<&Arc<MergedRule>> {
        let candidates = self.lookup(&proxy.namespace, service_host, service_namespace);
        let selected = candidates.iter().find(|rule| {
            rule.namespace == proxy.namespace
                && rule
                    .spec
                    .workload_selector
                    .as_ref()
                    .is_some_and(|selector| selects(&selector.match_labels, &proxy.labels))
        });
        selected
            .or_else(|| {
                candidates
                    .iter()
                    .rfind(|rule| rule.spec.workload_selector.is_none())
            })
            .copied()
    }

    /// The rule whose connection pool counts for a proxy's own traffic to its application.
    pub(crate) fn inbound(
        &self,
        namespace: &str,
        service_host: &str,
        service_namespace: &str,
    ) -> Option<&Arc<MergedRule>> {
        let candidates = self.lookup(namespace, service_host, service_namespace);
        candidates
            .into_iter()
            .rfind(|rule| rule.spec.workload_selector.is_none())
    }

    /// The first level that knows the host wins: the client's namespace, the service's, the root namespace.
    fn lookup(
        &self,
        client: &str,
        service_host: &str,
        service_namespace: &str,
    ) -> Vec<&Arc<MergedRule>> {
        if client != self.root {
            if let Some(rules) = self
                .local
                .get(client)
                .and_then(|rules| rules.best(service_host))
            {
                return rules.iter().collect();
            }
        } else if let Some(rules) = self.root_local.best(service_host) {
            return rules.iter().collect();
        }
        for owner in [service_namespace, self.root.as_str()] {
            let found = self.exported_from(owner, service_host, client);
            if !found.is_empty() {
                return found;
            }
        }
        Vec::new()
    }

    fn exported_from(
        &self,
        owner: &str,
        service_host: &str,
        client: &str,
    ) -> Vec<&Arc<MergedRule>> {
        let Some(rules) = self
            .exported
            .get(owner)
            .and_then(|rules| rules.best(service_host))
        else {
            return Vec::new();
        };
        rules
            .iter()
            .filter(|rule| {
                if rule.export_to.is_empty() {
                    return !self.default_private || owner == client;
                }
                rule.export_to.contains("*")
                    || rule.export_to.contains(client)
                    || rule.export_to.contains(".") && owner == client
            })
            .collect()
    }
}

impl Consolidated {
    fn add(&mut self, rule: &MergedRule) {
        let map = if host::is_wildcard(&rule.spec.host) {
            &mut self.wildcard
        } else {
            &mut self.exact
        };
        let list = map.entry(rule.spec.host.clone()).or_default();
        let mut separate = true;
        for existing in list.iter_mut() {
            separate = rule.export_to != existing.export_to;
            let wider =
                !existing.export_to.is_empty() && rule.export_to.is_superset(&existing.export_to);
            if separate && !wider {
                continue;
            }
            match (
                &rule.spec.workload_selector,
                &existing.spec.workload_selector,
            ) {
                (Some(new), Some(old)) if new.match_labels != old.match_labels => {
                    separate = true;
                    continue;
                }
                (Some(_), Some(_)) | (None, None) => separate = false,
                // A rule without selector fills up one with a selector.
                _ => {}
            }
            merge_into(Arc::make_mut(existing), rule);
        }
        if separate {
            list.push(Arc::new(rule.clone()));
        }
    }

    /// Rules of the host itself, else of the most specific wildcard.
    fn best(&self, service_host: &str) -> Option<&Vec<Arc<MergedRule>>> {
        if let Some(rules) = self.exact.get(service_host) {
            return Some(rules);
        }
        self.wildcard
            .iter()
            .filter(|(rule, _)| host::subset_of(service_host, rule))
            .min_by(|(a, _), (b, _)| host::by_specificity(a, b))
            .map(|(_, rules)| rules)
    }
}

fn merge_into(existing: &mut MergedRule, rule: &MergedRule) {
    for subset in &rule.spec.subsets {
        if !existing
            .spec
            .subsets
            .iter()
            .any(|other| other.name == subset.name)
        {
            existing.spec.subsets.push(subset.clone());
        }
    }
    if existing.spec.traffic_policy.is_none() {
        existing.spec.traffic_policy = rule.spec.traffic_policy.clone();
    }
}
