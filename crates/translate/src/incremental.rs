//! From one moment to the next: when only pods and endpoints changed, only what was made from them is made again.
//!
//! This does not rest on a list of what depends on what: while resources are built, each question about endpoints is written down
//! ([`crate::context::Reads`]). A change that touches an answer outside of the clusters of the service itself means a new build of everything.

use crate::context::Context;
use crate::output::{Made, build_noting, service_clusters};
use crate::registry::endpoint_index::EndpointChanges;
use crate::{Output, ProxyInfo, Snapshot};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The state of one proxy's resources: how they were made, and from which snapshot.
#[derive(Debug)]
pub struct Built {
    snapshot: Arc<Snapshot>,
    made: Made,
}

/// How a proxy's resources differ from those before.
#[derive(Debug)]
pub enum Change {
    /// These are all resources; any of them can be new.
    Everything(Output),
    /// Only clusters and load assignments of some services were made again.
    Services {
        /// The clusters and load assignments as they are now. Not all of them are different.
        made: Output,
        /// Clusters that are no longer there.
        clusters_gone: BTreeSet<String>,
        /// Load assignments that are no longer there.
        endpoints_gone: BTreeSet<String>,
    },
}

impl Built {
    /// Builds all resources of a proxy.
    pub fn new(snapshot: Arc<Snapshot>, proxy: &ProxyInfo) -> (Self, Output) {
        let (output, made) = build_noting(&snapshot, proxy);
        (Self { snapshot, made }, output)
    }

    /// Goes on to another snapshot. The proxy must be the one that this was built for.
    pub fn advance(&mut self, snapshot: Arc<Snapshot>, proxy: &ProxyInfo) -> Change {
        let changes = snapshot
            .endpoint_changes_since(&self.snapshot)
            .filter(|changes| !self.needs_everything(&snapshot, changes));
        let Some(changes) = changes else {
            let (built, output) = Self::new(snapshot, proxy);
            *self = built;
            return Change::Everything(output);
        };
        let mut made = Output::default();
        let (mut clusters_gone, mut endpoints_gone) = (BTreeSet::new(), BTreeSet::new());
        if changes
            .hosts
            .iter()
            .any(|host| self.made.by_host.contains_key(host))
        {
            let context = Context::new(&snapshot, proxy);
            let wanted = |host: &str| changes.hosts.contains(host);
            let mut by_host = crate::output::ByHost::new();
            service_clusters(&context, &mut made, false, &mut by_host, wanted);
            if self.made.auto_passthrough {
                service_clusters(&context, &mut made, true, &mut by_host, wanted);
            }
            for (host, (clusters, endpoints)) in by_host {
                let before = self
                    .made
                    .by_host
                    .insert(host, (clusters.clone(), endpoints.clone()))
                    .unwrap_or_default();
                clusters_gone.extend(before.0.difference(&clusters).cloned());
                endpoints_gone.extend(before.1.difference(&endpoints).cloned());
            }
            made.problems = context.problems.into_inner();
            let reads = context.reads.into_inner();
            self.made.reads.hosts.extend(reads.hosts);
            self.made.reads.addresses.extend(reads.addresses);
            self.made.reads.pods.extend(reads.pods);
        }
        self.snapshot = snapshot;
        Change::Services {
            made,
            clusters_gone,
            endpoints_gone,
        }
    }

    fn needs_everything(&self, now: &Snapshot, changes: &EndpointChanges) -> bool {
        let reads = &self.made.reads;
        let pod = |snapshot: &Snapshot, cluster: &str, address: &str| {
            snapshot
                .cluster(cluster)
                .and_then(|cluster| cluster.pod_by_ip(address))
                .cloned()
        };
        let touched = || {
            changes
                .hosts
                .iter()
                .any(|host| self.made.by_host.contains_key(host))
        };
        !reads.hosts.is_disjoint(&changes.hosts)
            || !reads.addresses.is_disjoint(&changes.addresses)
            || reads.pods.iter().any(|(cluster, address)| {
                pod(now, cluster, address) != pod(&self.snapshot, cluster, address)
            })
            // EnvoyFilters can add, remove and change clusters by what they find.
            || self.made.patched && touched()
    }
}
