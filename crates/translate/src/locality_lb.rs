//! Priorities and weights by locality: distribute, failover, failoverPriority, traffic distribution.

use crate::Locality;
use crate::context::Context;
use crate::endpoints::Group;
use crate::registry::{Service, TrafficDistribution};
use crate::traffic_policy::Policy;
use api::istio::{LocalityDistribute, LocalityFailover, LocalityLbSetting, ZoneAwareLbSetting};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// The label of the network, which comes first where it is compared at all.
const NETWORK: &str = "topology.istio.io/network";

/// The setting that counts, and whether failover works without outlier detection.
pub(crate) fn effective<'a>(
    context: &'a Context<'_>,
    service: &Service,
    policy: &Policy<'a>,
) -> Option<(Cow<'a, LocalityLbSetting>, bool)> {
    if let Some(own) = policy
        .load_balancer
        .and_then(|lb| lb.locality_lb_setting.as_ref())
    {
        return (own.enabled != Some(false)).then_some((Cow::Borrowed(own), false));
    }
    let labels: &[&str] = match service.traffic_distribution {
        TrafficDistribution::Any => &[],
        TrafficDistribution::PreferClose => &[
            "topology.istio.io/network",
            "topology.kubernetes.io/region",
            "topology.kubernetes.io/zone",
        ],
        TrafficDistribution::PreferSameNode => &[
            "topology.istio.io/network",
            "topology.kubernetes.io/region",
            "topology.kubernetes.io/zone",
            "topology.istio.io/subzone",
            "kubernetes.io/hostname",
        ],
    };
    if !labels.is_empty() {
        let priority = labels.iter().map(|label| (*label).to_owned()).collect();
        return Some((
            Cow::Owned(LocalityLbSetting {
                failover_priority: priority,
                ..LocalityLbSetting::default()
            }),
            true,
        ));
    }
    match &context.snapshot.mesh.locality_lb_setting {
        Some(mesh) => (mesh.enabled != Some(false)).then_some((Cow::Borrowed(mesh), false)),
        None => Some((Cow::Owned(LocalityLbSetting::default()), false)),
    }
}

/// Whether the cluster balances by the weights of localities.
pub(crate) fn weighted(context: &Context<'_>, service: &Service, policy: &Policy<'_>) -> bool {
    let defaults = context.snapshot.mesh.default_traffic_policy.as_ref();
    let detection = policy
        .outlier
        .or_else(|| defaults.and_then(|defaults| defaults.outlier_detection.as_ref()));
    let Some((setting, forced)) = effective(context, service, policy) else {
        return false;
    };
    let explicit = !setting.failover.is_empty() || !setting.failover_priority.is_empty();
    !setting.distribute.is_empty() || explicit && (forced || detection.is_some())
}

/// The zone-aware setting that replaces everything else: that of the rule, or that of the mesh where nothing comes before it.
pub(crate) fn zone_aware<'a>(
    context: &'a Context<'_>,
    service: &Service,
    policy: &Policy<'a>,
) -> Option<&'a ZoneAwareLbSetting> {
    let own = policy.load_balancer;
    if let Some(setting) = own.and_then(|own| own.zone_aware_lb_setting.as_ref()) {
        return Some(setting);
    }
    let covered = own.is_some_and(|own| own.locality_lb_setting.is_some())
        || service.traffic_distribution != TrafficDistribution::Any;
    let mesh = context.snapshot.mesh.zone_aware_lb_setting.as_ref();
    mesh.filter(|_| !covered)
}

/// Sets weights and priorities of the groups.
pub(crate) fn apply(
    context: &Context<'_>,
    service: &Service,
    policy: &Policy<'_>,
    groups: &mut Vec<Group<'_>>,
) {
    let locality = &context.proxy.locality;
    if let Some(zone) = zone_aware(context, service, policy) {
        if zone.enabled != Some(false) {
            if !zone.failover_priority.is_empty() {
                failover_priority(context, groups, &zone.failover_priority);
            }
            let next = zone.failover.iter().find(|own| own.from == locality.region);
            for group in groups.iter_mut() {
                let region = &group.locality.region;
                let rank = match next {
                    _ if *region == locality.region => 0,
                    Some(next) if *region == next.to => 1,
                    _ => 2,
                };
                group.priority = group.priority * 3 + rank;
            }
            compact(groups);
        }
        return;
    }
    let Some((setting, forced)) = effective(context, service, policy) else {
        return;
    };
    if !setting.distribute.is_empty() {
        distribute(locality, groups, &setting.distribute);
        return;
    }
    if !forced && policy.outlier.is_none() {
        return;
    }
    if setting.failover_priority.is_empty() {
        failover(locality, groups, &setting.failover);
        return;
    }
    failover_priority(context, groups, &setting.failover_priority);
    if !setting.failover.is_empty() {
        failover(locality, groups, &setting.failover);
    }
}

/// Priorities without gaps.
fn compact(groups: &mut [Group<'_>]) {
    let used: BTreeSet<u32> = groups.iter().map(|group| group.priority).collect();
    let order: BTreeMap<u32, u32> = used
        .into_iter()
        .enumerate()
        .map(|(index, priority)| (priority, index as u32))
        .collect();
    for group in groups {
        group.priority = order[&group.priority];
    }
}

/// 0 all equal, 1 region and zone, 2 region, 3 other.
fn distance(client: &Locality, endpoint: &Locality) -> u32 {
    match (
        client.region == endpoint.region,
        client.zone == endpoint.zone,
        client.subzone == endpoint.subzone,
    ) {
        (true, true, true) => 0,
        (true, true, false) => 1,
        (true, false, _) => 2,
        (false, ..) => 3,
    }
}

fn failover(client: &Locality, groups: &mut [Group<'_>], settings: &[LocalityFailover]) {
    for group in groups.iter_mut() {
        let mut priority = distance(client, &group.locality);
        if priority == 3
            && let Some(setting) = settings
                .iter()
                .find(|setting| setting.from == client.region)
            && group.locality.region != setting.to
        {
            priority = 4;
        }
        group.priority = group.priority * 5 + priority;
    }
    compact(groups);
}

/// The first label that differs decides: the earlier it stands, the lower the priority. One locality may be split.
fn failover_priority(context: &Context<'_>, groups: &mut Vec<Group<'_>>, labels: &[String]) {
    // The last value that is written for a label counts wherever the label stands.
    let wanted: BTreeMap<&str, &str> = labels
        .iter()
        .filter_map(|label| label.split_once('='))
        .filter(|(_, value)| !value.contains('='))
        .collect();
    let mut out = Vec::new();
    for group in groups.drain(..) {
        let mut by_priority: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for member in group.members {
            let differs = |label: &String| {
                let key = label.split('=').next().unwrap_or_default();
                let wanted = wanted
                    .get(key)
                    .copied()
                    .unwrap_or_else(|| context.proxy.label(key));
                member.labels.get(key) != wanted
            };
            // Another network comes after everything in this one, and is ordered by the other labels, too.
            let network = labels.first().is_some_and(|label| label == NETWORK);
            let elsewhere = network && differs(&labels[0]);
            let rest = labels.iter().enumerate().skip(usize::from(network));
            let mismatch = rest
                .filter(|(_, label)| differs(label))
                .map(|(index, _)| labels.len() - index)
                .next()
                .unwrap_or_default();
            let priority = (mismatch + if elsewhere { labels.len() } else { 0 }) as u32;
            by_priority.entry(priority).or_default().push(member);
        }
        for (priority, members) in by_priority {
            let mut part = Group {
                locality: group.locality.clone(),
                members,
                weight: None,
                priority,
            };
            part.weight = Some(part.sum());
            out.push(part);
        }
    }
    *groups = out;
    compact(groups);
}

fn distribute(client: &Locality, groups: &mut [Group<'_>], rules: &[LocalityDistribute]) {
    let Some(rule) = rules.iter().find(|rule| client.covered_by(&rule.from)) else {
        return;
    };
    let mut left: BTreeSet<usize> = (0..groups.len()).collect();
    for (target, share) in &rule.to {
        let hit: Vec<usize> = left
            .iter()
            .copied()
            .filter(|index| groups[*index].locality.covered_by(target))
            .collect();
        let total: u32 = hit
            .iter()
            .map(|index| groups[*index].weight.unwrap_or(1))
            .sum();
        for index in hit {
            left.remove(&index);
            let weight = f64::from(groups[index].weight.unwrap_or(1) * share) / f64::from(total);
            if weight > 0.0 {
                groups[index].weight = Some(weight.ceil() as u32);
            }
        }
    }
    for index in left {
        groups[index].members.clear();
    }
}
