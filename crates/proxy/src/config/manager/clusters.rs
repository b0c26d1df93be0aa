//! Clusters and their endpoints come, warm, change and go.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dataplane::address::Address;
use dataplane::cluster::{Discovery, HostSet};
use xds::envoy::config::cluster::v3::Cluster as ClusterMessage;
use xds::envoy::config::endpoint::v3::ClusterLoadAssignment;

use super::super::kept::Kept;
use super::{Endpoints, Manager, Refused, State, decode};
use crate::upstream::Cluster;
use crate::upstream::cluster::join;
use crate::xds_client::ads::Received;

impl Manager {
    pub(super) fn add_cluster(
        &self,
        state: &mut State,
        message: &ClusterMessage,
        kept: Kept<ClusterMessage>,
        version: &str,
    ) -> Result<(), String> {
        let name = message.name.clone();
        let current = state
            .warming_clusters
            .get(&name)
            .or_else(|| state.clusters.get(&name));
        if current.is_some_and(|current| current.message.is(&kept, message)) {
            return Ok(());
        }
        let counter = match current {
            Some(_) => &self.clusters.cluster_modified,
            None => &self.clusters.cluster_added,
        };
        let shared = &self.shared;
        let cluster = Cluster::new(
            message,
            kept,
            version,
            &shared.stats,
            &shared.secrets,
            shared.mark,
        )?;
        counter.inc();
        let ready = match &cluster.config.discovery {
            Discovery::Eds(service) => match state.endpoints.get(service) {
                Some(endpoints) => {
                    cluster.set_members(endpoints.set.clone());
                    true
                }
                None => false,
            },
            Discovery::StrictDns | Discovery::LogicalDns => {
                self.resolve(&cluster);
                false
            }
            _ => true,
        };
        self.look_after(&cluster, message);
        if ready {
            activate(state, cluster);
        } else {
            state.warming_clusters.insert(name, cluster);
        }
        Ok(())
    }

    pub(super) fn remove_cluster(&self, state: &mut State, name: &str) {
        if state.static_clusters.contains(name) {
            return;
        }
        state.refused_clusters.remove(name);
        let gone = [
            state.warming_clusters.remove(name),
            state.clusters.remove(name),
        ];
        for cluster in gone.into_iter().flatten() {
            cluster.remove();
            self.clusters.cluster_removed.inc();
            let prefix = format!("cluster.{}", cluster.config.stat_name);
            self.shared.stats.remove(&prefix);
        }
    }

    /// The timers of a cluster.
    fn look_after(&self, cluster: &Arc<Cluster>, message: &ClusterMessage) {
        if let Some(outlier) = &cluster.config.outlier {
            let interval = outlier.interval.max(Duration::from_millis(1));
            let cluster = Arc::downgrade(cluster);
            self.runtime.spawn(async move {
                loop {
                    tokio::time::sleep(interval).await;
                    let Some(cluster) = cluster.upgrade().filter(|cluster| !cluster.is_removed())
                    else {
                        return;
                    };
                    cluster.sweep_outliers();
                }
            });
        }
        if matches!(
            cluster.config.discovery,
            Discovery::OriginalDst { .. } | Discovery::DynamicForwardProxy
        ) {
            let age = dataplane::cluster::duration(message.cleanup_interval.as_ref())
                .unwrap_or(Duration::from_secs(5))
                .max(Duration::from_secs(1));
            if age > Duration::from_secs(86_400 * 365) {
                return;
            }
            let cluster = Arc::downgrade(cluster);
            self.runtime.spawn(async move {
                loop {
                    tokio::time::sleep(age).await;
                    let Some(cluster) = cluster.upgrade().filter(|cluster| !cluster.is_removed())
                    else {
                        return;
                    };
                    cluster.forget_original(age);
                }
            });
        }
    }

    /// Keeps resolving the names of a cluster.
    fn resolve(&self, cluster: &Arc<Cluster>) {
        let weak = Arc::downgrade(cluster);
        let manager = self.this.clone();
        self.runtime.spawn(async move {
            let mut first = true;
            loop {
                let (refresh, set, logical) = {
                    let Some(cluster) = weak.upgrade().filter(|cluster| !cluster.is_removed())
                    else {
                        return;
                    };
                    let Some(set) = cluster.config.assignment.clone() else {
                        return;
                    };
                    (
                        cluster.config.dns.refresh,
                        set,
                        cluster.config.discovery == Discovery::LogicalDns,
                    )
                };
                let mut answers: HashMap<String, Vec<IpAddr>> = HashMap::new();
                let mut failed = false;
                for host in &set.hosts {
                    let Address::Name { host, port } = &host.address else {
                        continue;
                    };
                    match tokio::net::lookup_host((host.as_str(), *port)).await {
                        Ok(found) => {
                            let mut found: Vec<IpAddr> =
                                found.map(|address| address.ip()).collect();
                            found.dedup();
                            if found.iter().any(IpAddr::is_ipv4) {
                                found.retain(IpAddr::is_ipv4);
                            }
                            if logical {
                                found.truncate(1);
                            }
                            answers.insert(host.clone(), found);
                        }
                        Err(_) => failed = true,
                    }
                }
                let Some(cluster) = weak.upgrade() else {
                    return;
                };
                cluster.stats.config.update_attempt.inc();
                if failed && !first {
                    // Better the old addresses than none.
                    cluster.stats.config.update_failure.inc();
                } else {
                    cluster.stats.config.update_success.inc();
                    let resolved =
                        set.resolved(&mut |name| answers.get(name).cloned().unwrap_or_default());
                    let same = {
                        let members = cluster.members.load();
                        **members.balancer.hosts() == resolved && !first
                    };
                    if !same {
                        cluster.set_members(Arc::new(resolved));
                    }
                }
                if first {
                    first = false;
                    let Some(manager) = manager.upgrade() else {
                        return;
                    };
                    let mut state = manager.state.lock();
                    let waiting = state
                        .warming_clusters
                        .get(cluster.name())
                        .is_some_and(|other| other.id == cluster.id);
                    if waiting && let Some(cluster) = state.warming_clusters.remove(cluster.name())
                    {
                        activate(&mut state, cluster);
                        manager.publish(&state);
                    }
                }
                drop(cluster);
                tokio::time::sleep(refresh.max(Duration::from_millis(500))).await;
            }
        });
    }

    pub(super) fn apply_clusters(
        &self,
        state: &mut State,
        updated: Vec<Received>,
        removed: Vec<String>,
    ) -> Result<(), String> {
        let mut refused = Vec::new();
        self.clusters.cds_update_attempt.inc();
        for resource in updated {
            let outcome = decode(resource.body).and_then(|(message, kept)| {
                self.add_cluster(state, &message, kept, &resource.version)
            });
            match outcome {
                Ok(()) => {
                    state.refused_clusters.remove(&resource.name);
                }
                Err(error) => {
                    refused.push(format!("{}: {error}", resource.name));
                    let entry = Refused::now(error, resource.version);
                    state.refused_clusters.insert(resource.name, entry);
                }
            }
        }
        for name in removed {
            self.remove_cluster(state, &name);
        }
        if refused.is_empty() {
            self.clusters.cds_update_success.inc();
            Ok(())
        } else {
            self.clusters.cds_update_rejected.inc();
            Err(format!(
                "Error adding/updating cluster(s) {}",
                refused.join(", ")
            ))
        }
    }

    pub(super) fn apply_endpoints(
        &self,
        state: &mut State,
        updated: Vec<Received>,
        removed: &[String],
    ) -> Result<(), String> {
        let mut refused = Vec::new();
        for resource in updated {
            let compiled =
                decode(resource.body).and_then(|(message, kept): (ClusterLoadAssignment, _)| {
                    HostSet::compile(&message)
                        .map(|set| (message.cluster_name, kept, set))
                        .map_err(|errors| join(&errors))
                });
            match compiled {
                Ok((name, message, set)) => {
                    let set = Arc::new(set);
                    let endpoints = Endpoints {
                        message,
                        version: resource.version,
                        updated: SystemTime::now(),
                        set: set.clone(),
                    };
                    state.endpoints.insert(name.clone(), endpoints);
                    set_endpoints(state, &name, &set);
                }
                Err(error) => refused.push(format!("{}: {error}", resource.name)),
            }
        }
        for name in removed {
            state.endpoints.remove(name);
            set_endpoints(state, name, &Arc::default());
        }
        if refused.is_empty() {
            Ok(())
        } else {
            Err(refused.join(", "))
        }
    }
}

fn activate(state: &mut State, cluster: Arc<Cluster>) {
    let name = cluster.name().to_owned();
    if let Some(old) = state.clusters.insert(name, cluster) {
        // Its idle connections close; requests that use it end regularly.
        old.remove();
    }
}

fn set_endpoints(state: &mut State, service: &str, set: &Arc<HostSet>) {
    let is = |cluster: &Arc<Cluster>| matches!(&cluster.config.discovery, Discovery::Eds(name) if name == service);
    for cluster in state.clusters.values().filter(|cluster| is(cluster)) {
        cluster.set_members(set.clone());
        cluster.stats.config.update_success.inc();
    }
    let warm: Vec<String> = state
        .warming_clusters
        .iter()
        .filter(|(_, cluster)| is(cluster))
        .map(|(name, _)| name.clone())
        .collect();
    for name in warm {
        if let Some(cluster) = state.warming_clusters.remove(&name) {
            cluster.set_members(set.clone());
            cluster.stats.config.update_success.inc();
            activate(state, cluster);
        }
    }
}
