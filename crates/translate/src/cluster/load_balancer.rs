//! Load balancing of a cluster.

use crate::context::Context;
use crate::locality_lb;
use crate::proto::{duration, percent};
use crate::registry::{Service, TargetPort};
use crate::traffic_policy::Policy;
use api::istio::{ConsistentHashLb, Duration, LoadBalancerSettings, SimpleLb};
use xds::envoy::config::cluster::v3::cluster::{
    CommonLbConfig, DiscoveryType, LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig,
    OriginalDstLbConfig, RingHashLbConfig, RoundRobinLbConfig, SlowStartConfig,
    common_lb_config as common,
};
use xds::envoy::config::cluster::v3::{Cluster, cluster::ClusterDiscoveryType};
use xds::envoy::config::core::v3::RuntimeDouble;

/// Sets policy, hash ring, slow start and locality settings.
pub(crate) fn apply(
    context: &Context<'_>,
    cluster: &mut Cluster,
    service: &Service,
    target: &TargetPort,
    policy: &Policy<'_>,
) {
    let mut shared = CommonLbConfig {
        healthy_panic_threshold: Some(percent(0.0)),
        ..Default::default()
    };
    let settings = policy.load_balancer;
    shared.locality_config_specifier = locality(context, service, policy);
    cluster.common_lb_config = Some(shared);
    if cluster.cluster_discovery_type
        == Some(ClusterDiscoveryType::Type(
            DiscoveryType::OriginalDst as i32,
        ))
    {
        cluster.lb_policy = LbPolicy::ClusterProvided as i32;
        if !service.kubernetes
            && let TargetPort::Number(port) = target
        {
            cluster.lb_config = Some(LbConfig::OriginalDstLbConfig(OriginalDstLbConfig {
                upstream_port_override: Some(*port),
                ..OriginalDstLbConfig::default()
            }));
        }
        return;
    }
    if let Some(hash) = settings.and_then(|settings| settings.consistent_hash.as_ref()) {
        consistent_hash(cluster, hash);
        return;
    }
    let simple = settings
        .and_then(|settings| settings.simple)
        .unwrap_or_default();
    let slow_start = settings.and_then(slow_start);
    match simple {
        SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest => {
            cluster.lb_policy = LbPolicy::LeastRequest as i32;
            if slow_start.is_some() {
                cluster.lb_config = Some(LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                    slow_start_config: slow_start,
                    ..Default::default()
                }));
            }
        }
        SimpleLb::RoundRobin => {
            cluster.lb_policy = LbPolicy::RoundRobin as i32;
            if slow_start.is_some() {
                cluster.lb_config = Some(LbConfig::RoundRobinLbConfig(RoundRobinLbConfig {
                    slow_start_config: slow_start,
                }));
            }
        }
        SimpleLb::Random => cluster.lb_policy = LbPolicy::Random as i32,
        SimpleLb::Passthrough => {
            cluster.lb_policy = LbPolicy::ClusterProvided as i32;
            cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(
                DiscoveryType::OriginalDst as i32,
            ));
            cluster.eds_cluster_config = None;
            cluster.load_assignment = None;
        }
    }
}

fn locality(
    context: &Context<'_>,
    service: &Service,
    policy: &Policy<'_>,
) -> Option<common::LocalityConfigSpecifier> {
    if let Some(zone) = locality_lb::zone_aware(context, service, policy) {
        let routing_enabled = (zone.enabled == Some(false)).then(|| percent(0.0));
        return Some(common::LocalityConfigSpecifier::ZoneAwareLbConfig(
            common::ZoneAwareLbConfig {
                routing_enabled,
                min_cluster_size: zone.min_cluster_size.map(u64::from),
                ..Default::default()
            },
        ));
    }
    locality_lb::weighted(context, service, policy).then_some(
        common::LocalityConfigSpecifier::LocalityWeightedLbConfig(
            common::LocalityWeightedLbConfig {},
        ),
    )
}

fn consistent_hash(cluster: &mut Cluster, hash: &ConsistentHashLb) {
    if let Some(maglev) = &hash.maglev {
        cluster.lb_policy = LbPolicy::Maglev as i32;
        if maglev.table_size != 0 {
            cluster.lb_config = Some(LbConfig::MaglevLbConfig(MaglevLbConfig {
                table_size: Some(maglev.table_size),
            }));
        }
        return;
    }
    cluster.lb_policy = LbPolicy::RingHash as i32;
    let size = match &hash.ring_hash {
        Some(ring) => ring.minimum_ring_size,
        None if hash.minimum_ring_size != 0 => hash.minimum_ring_size,
        None => 1024,
    };
    if size != 0 {
        cluster.lb_config = Some(LbConfig::RingHashLbConfig(RingHashLbConfig {
            minimum_ring_size: Some(size),
            ..Default::default()
        }));
    }
}

fn slow_start(settings: &LoadBalancerSettings) -> Option<SlowStartConfig> {
    let window = |value: Option<Duration>| value.map(duration);
    if let Some(warmup) = &settings.warmup {
        return Some(SlowStartConfig {
            slow_start_window: window(warmup.duration),
            aggression: Some(RuntimeDouble {
                default_value: warmup.aggression.unwrap_or(1.0),
                // istiod's own literal; Envoy only demands that there is a key.
                runtime_key: "(".to_owned(),
            }),
            min_weight_percent: Some(percent(warmup.minimum_percent.unwrap_or(10.0))),
        });
    }
    let window = window(settings.warmup_duration_secs)?;
    Some(SlowStartConfig {
        slow_start_window: Some(window),
        ..Default::default()
    })
}
