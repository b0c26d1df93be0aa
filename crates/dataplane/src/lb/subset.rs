//! Subsets of a cluster's endpoints, told apart by their metadata.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::criteria::{self, Criteria};
use super::{Balancer, Build, Choice, HostLoad, PickContext};
use crate::cluster::{Fallback, HostSet, LocalityHosts, Selector, SelectorFallback, Subsets};

/// How the endpoints of a request were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubsetUse {
    /// They are the subset that was asked for.
    Selected,
    /// They are those of the cluster's fallback policy.
    Fallback,
    /// They are any, because the fallback policy had nobody (`panic_mode_any`).
    Panic,
}

/// All subsets of one host set.
#[derive(Debug)]
pub(super) struct SubsetBalancer {
    fallback: Fallback,
    panic_mode_any: bool,
    fallback_list: bool,
    default: Balancer,
    /// Keys in order, then values: the way to a subset.
    subsets: Branch,
    selectors: Vec<Selector>,
    count: usize,
}

type Branch = HashMap<String, HashMap<Value, Node>>;

#[derive(Debug, Default)]
struct Node {
    balancer: Option<Balancer>,
    below: Branch,
}

impl SubsetBalancer {
    pub(super) fn new(config: &Subsets, build: &Build<'_>) -> Self {
        let hosts = build.hosts;
        let balancer = |keep: &dyn Fn(usize) -> bool| {
            build.balancer(
                &priorities(config, hosts, keep),
                config.locality_weight_aware,
            )
        };
        let default = balancer(&|index| {
            let own = criteria::labels(&hosts.hosts[index].metadata);
            config
                .default
                .iter()
                .all(|(key, wanted)| match own.and_then(|own| own.get(key)) {
                    Some(Value::Array(list)) if config.list_as_any => list.contains(wanted),
                    value => value == Some(wanted),
                })
        });
        let mut this = Self {
            fallback: config.fallback,
            panic_mode_any: config.panic_mode_any,
            fallback_list: config.fallback_list,
            default,
            subsets: Branch::new(),
            selectors: config.selectors.clone(),
            count: 0,
        };
        for selector in &config.selectors {
            let mut members: HashMap<Vec<&Value>, Vec<usize>> = HashMap::new();
            for (index, host) in hosts.hosts.iter().enumerate() {
                let Some(labels) = criteria::labels(&host.metadata) else {
                    continue;
                };
                for values in values(selector, labels, config.list_as_any) {
                    let members = members.entry(values).or_default();
                    if !selector.single_host || members.is_empty() {
                        members.push(index);
                    }
                }
            }
            for (values, members) in members {
                this.count += 1;
                let node = this.node(selector, &values);
                node.balancer = Some(balancer(&|index| members.binary_search(&index).is_ok()));
            }
        }
        this
    }

    fn node(&mut self, selector: &Selector, values: &[&Value]) -> &mut Node {
        let mut keys = selector.keys.iter().zip(values);
        let (key, value) = keys.next().expect("a selector with values has keys");
        let mut node = step(&mut self.subsets, key, value);
        for (key, value) in keys {
            node = step(&mut node.below, key, value);
        }
        node
    }

    /// How many subsets there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn choose(
        &self,
        any: &Balancer,
        context: &PickContext<'_>,
        load: &dyn HostLoad,
        random: &mut dyn FnMut() -> u64,
    ) -> Choice {
        let alternatives = context
            .criteria
            .filter(|_| self.fallback_list)
            .and_then(Criteria::alternatives);
        let Some(alternatives) = alternatives else {
            return self.by_criteria(any, context.criteria, context, load, random);
        };
        let mut last = Choice::default();
        for wish in &alternatives {
            last = self.by_criteria(any, Some(wish), context, load, random);
            if last.host.is_some() {
                break;
            }
        }
        last
    }

    fn by_criteria(
        &self,
        any: &Balancer,
        criteria: Option<&Criteria>,
        context: &PickContext<'_>,
        load: &dyn HostLoad,
        random: &mut dyn FnMut() -> u64,
    ) -> Choice {
        if let Some(criteria) = criteria {
            if let Some(subset) = self.find(criteria) {
                return Choice {
                    subset: Some(SubsetUse::Selected),
                    ..subset.choose(context, load, random)
                };
            }
            match self
                .selector(criteria)
                .and_then(|own| own.fallback.as_ref())
            {
                None => {}
                Some(SelectorFallback::Policy(Fallback::Nobody)) => return Choice::default(),
                Some(SelectorFallback::Policy(Fallback::Any)) => {
                    return any.choose(context, load, random);
                }
                Some(SelectorFallback::Policy(Fallback::Default)) => {
                    return self.default.choose(context, load, random);
                }
                Some(SelectorFallback::Keys(keys)) => {
                    // Fewer keys every time: this ends.
                    let fewer = criteria.only(keys);
                    return self.by_criteria(any, Some(&fewer), context, load, random);
                }
            }
        }
        let fallback = match self.fallback {
            Fallback::Nobody => return Choice::default(),
            Fallback::Any => any,
            Fallback::Default => &self.default,
        };
        let mut choice = fallback.choose(context, load, random);
        choice.subset = Some(SubsetUse::Fallback);
        if choice.host.is_none() && self.panic_mode_any {
            choice = any.choose(context, load, random);
            choice.subset = Some(SubsetUse::Panic);
        }
        if choice.host.is_none() {
            choice.subset = None;
        }
        choice
    }

    fn find(&self, criteria: &Criteria) -> Option<&Balancer> {
        let mut branch = &self.subsets;
        let mut node = None;
        for (key, value) in criteria.pairs() {
            let found = branch.get(key)?.get(value)?;
            branch = &found.below;
            node = Some(found);
        }
        node?.balancer.as_ref()
    }

    /// The selector whose keys are those of the request.
    fn selector(&self, criteria: &Criteria) -> Option<&Selector> {
        let wanted = criteria.pairs();
        self.selectors.iter().find(|selector| {
            selector.keys.len() == wanted.len()
                && selector
                    .keys
                    .iter()
                    .zip(wanted)
                    .all(|(own, (key, _))| own == key)
        })
    }
}

fn step<'a>(branch: &'a mut Branch, key: &str, value: &Value) -> &'a mut Node {
    branch
        .entry(key.to_owned())
        .or_default()
        .entry(value.clone())
        .or_default()
}

/// The values that a host has for the keys of a selector: one list, several with `list_as_any`, or none.
fn values<'a>(
    selector: &Selector,
    labels: &'a Map<String, Value>,
    list_as_any: bool,
) -> Vec<Vec<&'a Value>> {
    let mut all = vec![Vec::with_capacity(selector.keys.len())];
    for key in &selector.keys {
        match labels.get(key) {
            None => return Vec::new(),
            Some(Value::Array(list)) if list_as_any => {
                all = all
                    .iter()
                    .flat_map(|values: &Vec<&Value>| {
                        list.iter().map(move |value| {
                            let mut longer = values.clone();
                            longer.push(value);
                            longer
                        })
                    })
                    .collect();
            }
            Some(value) => all.iter_mut().for_each(|values| values.push(value)),
        }
    }
    all
}

/// The priorities and localities of a host set, with some of the hosts only.
fn priorities(
    config: &Subsets,
    set: &HostSet,
    keep: &dyn Fn(usize) -> bool,
) -> Vec<Vec<LocalityHosts>> {
    let group = |group: &LocalityHosts| {
        let hosts: Vec<usize> = group
            .hosts
            .iter()
            .copied()
            .filter(|host| keep(*host))
            .collect();
        let weight = group.weight.map(|weight| {
            if !config.scale_locality_weight || hosts.is_empty() {
                return weight;
            }
            // Part of a locality is worth that part of its weight, but never nothing.
            let part = hosts.len() as f64 / group.hosts.len() as f64;
            ((f64::from(weight) * part).round() as u32).max(1)
        });
        LocalityHosts {
            locality: group.locality.clone(),
            weight,
            hosts,
        }
    };
    set.priorities
        .iter()
        .map(|localities| localities.iter().map(group).collect())
        .collect()
}
