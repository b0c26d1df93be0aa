//! From one moment to the next: when only pods and endpoints changed, only what was made from them is made again; when only routing
//! changed, the clusters of services stay, apart from those whose DestinationRule is another.
//!
//! For pods and endpoints this does not rest on a list of what depends on what: while resources are built, each question about endpoints is written down
//! ([`crate::context::Reads`]). A change that touches an answer outside of the clusters of the service itself means a new build of everything.

use crate::context::Context;
use crate::output::{Made, Wanted, build_noting, service_clusters};
use crate::registry::endpoint_index::EndpointChanges;
use crate::snapshot::RoutingChanges;
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
    /// Some clusters and load assignments were made again.
    Part {
        /// They as they are now, not all of them different; and what `routes` and `listeners` say.
        made: Output,
        /// Clusters that are no longer there.
        clusters_gone: BTreeSet<String>,
        /// Load assignments that are no longer there.
        endpoints_gone: BTreeSet<String>,
        /// Whether the routes in `made` are all there are. Else they are as they were.
        routes: bool,
        /// The same of listeners.
        listeners: bool,
    },
}

impl Change {
    /// Makes the resources before into those after it.
    pub fn apply(self, output: &mut Output) {
        match self {
            Self::Everything(all) => *output = all,
            Self::Part {
                made,
                clusters_gone,
                endpoints_gone,
                routes,
                listeners,
            } => {
                output
                    .clusters
                    .retain(|name, _| !clusters_gone.contains(name));
                output
                    .endpoints
                    .retain(|name, _| !endpoints_gone.contains(name));
                output.clusters.extend(made.clusters);
                output.endpoints.extend(made.endpoints);
                if listeners {
                    output.listeners = made.listeners;
                    output.extension_configs = made.extension_configs;
                }
                if routes {
                    output.routes = made.routes;
                    output.problems = made.problems;
                }
            }
        }
    }
}

impl Built {
    /// Builds all resources of a proxy.
    pub fn new(snapshot: Arc<Snapshot>, proxy: &ProxyInfo) -> (Self, Output) {
        let proxy = snapshot.with_labels_of_pod(proxy);
        let (output, made) = build_noting(&Context::new(&snapshot, &proxy), &Wanted::EVERYTHING);
        (Self { snapshot, made }, output)
    }

    /// Goes on to another snapshot. The proxy must be the one that this was built for.
    pub fn advance(&mut self, snapshot: Arc<Snapshot>, proxy: &ProxyInfo) -> Change {
        let labelled = snapshot.with_labels_of_pod(proxy);
        let same_labels = labelled.labels == self.snapshot.with_labels_of_pod(proxy).labels;
        let changes = snapshot
            .changes_since(&self.snapshot)
            .filter(|_| same_labels)
            .filter(|changes| !self.needs_everything(&snapshot, &changes.endpoints));
        let part = changes.and_then(|changes| {
            let hosts = changes.endpoints.hosts;
            match changes.routing {
                RoutingChanges::None => Some(self.services_anew(&snapshot, &labelled, &hosts)),
                RoutingChanges::HttpRoutes => self.route_anew(&snapshot, &labelled, hosts, false),
                RoutingChanges::Any => self.route_anew(&snapshot, &labelled, hosts, true),
            }
        });
        let Some(part) = part else {
            let (built, output) = Self::new(snapshot, proxy);
            *self = built;
            return Change::Everything(output);
        };
        self.snapshot = snapshot;
        part
    }

    /// The clusters of some hosts, in lower case.
    fn services_anew(
        &mut self,
        snapshot: &Snapshot,
        proxy: &ProxyInfo,
        hosts: &BTreeSet<String>,
    ) -> Change {
        let (mut output, mut made) = (Output::default(), Made::default());
        if hosts
            .iter()
            .any(|host| self.made.by_host.contains_key(host))
        {
            let context = Context::new(snapshot, proxy);
            let wanted = |host: &str| hosts.contains(host);
            service_clusters(&context, &mut output, false, &mut made.by_host, wanted);
            if self.made.auto_passthrough {
                service_clusters(&context, &mut output, true, &mut made.by_host, wanted);
            }
            output.problems = context.problems.into_inner();
            made.reads = context.reads.into_inner();
        }
        self.part(output, made, false, false)
    }

    /// Routes, the clusters of `hosts` (in lower case) and of those where another DestinationRule counts, and all `listeners` and
    /// what they lead to. `None` if that is not enough.
    fn route_anew(
        &mut self,
        snapshot: &Snapshot,
        proxy: &ProxyInfo,
        mut hosts: BTreeSet<String>,
        listeners: bool,
    ) -> Option<Change> {
        let context = Context::new(snapshot, proxy);
        // With a Sidecar object, VirtualServices decide which services there are; EnvoyFilters can add, remove and change clusters.
        if context.scope.sidecar.is_some() || self.made.patched {
            return None;
        }
        for service in &context.scope.services {
            let rule = |snapshot: &'_ Snapshot| {
                let rules = &snapshot.destination_rules;
                rules
                    .outbound(proxy, &service.host, &service.namespace)
                    .cloned()
            };
            if rule(snapshot) != rule(&self.snapshot) {
                hosts.insert(service.host.to_ascii_lowercase());
            }
        }
        let wanted = Wanted {
            clusters_of: &|host| hosts.contains(host),
            listeners_as_in: (!listeners).then_some(&self.made),
        };
        let (output, made) = build_noting(&context, &wanted);
        Some(self.part(output, made, true, listeners))
    }

    /// Takes over what was made again.
    fn part(&mut self, output: Output, made: Made, routes: bool, listeners: bool) -> Change {
        let (mut clusters_gone, mut endpoints_gone) = (BTreeSet::new(), BTreeSet::new());
        for (host, (clusters, endpoints)) in made.by_host {
            let before = self
                .made
                .by_host
                .insert(host, (clusters.clone(), endpoints.clone()))
                .unwrap_or_default();
            clusters_gone.extend(before.0.difference(&clusters).cloned());
            endpoints_gone.extend(before.1.difference(&endpoints).cloned());
        }
        if listeners {
            self.made.listeners = made.listeners;
            self.made.route_names = made.route_names;
        }
        self.made.reads.hosts.extend(made.reads.hosts);
        self.made.reads.addresses.extend(made.reads.addresses);
        self.made.reads.pods.extend(made.reads.pods);
        Change::Part {
            made: output,
            clusters_gone,
            endpoints_gone,
            routes,
            listeners,
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
