//! Patches of clusters.

use super::{Patch, Patches, merge};
use crate::context::ListenerClass;
use crate::names;
use api::istio::{ApplyTo, PatchOperation};
use std::collections::BTreeMap;
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::core::v3::{TransportSocket, transport_socket::ConfigType};

impl Patches<'_> {
    /// Patches all clusters of a proxy. `hosts_behind` gives the services behind an inbound port.
    pub(crate) fn clusters(
        &self,
        clusters: &mut BTreeMap<String, Cluster>,
        is_router: bool,
        hosts_behind: impl Fn(u32) -> Vec<String>,
    ) {
        let classes: &[ListenerClass] = if is_router {
            &[ListenerClass::Gateway]
        } else {
            &[
                ListenerClass::SidecarOutbound,
                ListenerClass::SidecarInbound,
            ]
        };
        for class in classes {
            let patches = self.of(ApplyTo::Cluster, *class);
            if patches.is_empty() {
                continue;
            }
            clusters.retain(|name, cluster| {
                let inbound = name.starts_with("inbound|") || name == names::INBOUND_PASSTHROUGH;
                let own = is_router || inbound == (*class == ListenerClass::SidecarInbound);
                !own || self.cluster(cluster, &patches, &hosts_behind)
            });
        }
        for class in classes {
            for patch in self.of(ApplyTo::Cluster, *class) {
                if !patch.adds_to(*class) {
                    continue;
                }
                let Some(cluster) = patch.message::<Cluster>() else {
                    continue;
                };
                if clusters.contains_key(&cluster.name) {
                    self.report(patch.problem(
                        ".patch.value.name",
                        format!(
                            "there is a cluster {:?} already; MERGE changes it",
                            cluster.name
                        ),
                    ));
                    continue;
                }
                clusters.insert(cluster.name.clone(), cluster);
            }
        }
    }

    /// Whether the cluster stays.
    fn cluster(
        &self,
        cluster: &mut Cluster,
        patches: &[&Patch],
        hosts_behind: &impl Fn(u32) -> Vec<String>,
    ) -> bool {
        for patch in patches {
            if !matches(patch, &cluster.name, hosts_behind) {
                continue;
            }
            if patch.operation == PatchOperation::Remove {
                return false;
            }
            if !patch.is_merge() {
                continue;
            }
            let result = match patch
                .message::<Cluster>()
                .and_then(|it| it.transport_socket)
            {
                Some(socket) => merge_transport_socket(cluster, socket, patch),
                None => merge::message(cluster, patch),
            };
            if let Err(problem) = result {
                self.report(problem);
            }
        }
        true
    }
}

/// A patch with a transport socket changes only that, as at istiod; the rest of the patch has no effect.
fn merge_transport_socket(
    cluster: &mut Cluster,
    value: TransportSocket,
    patch: &Patch,
) -> Result<(), crate::Problem> {
    let own = if cluster.transport_socket_matches.is_empty() {
        cluster.transport_socket.as_mut()
    } else {
        let found = cluster
            .transport_socket_matches
            .iter_mut()
            .filter_map(|entry| entry.transport_socket.as_mut())
            .find(|socket| socket.name == value.name);
        // A cluster may have only one of both.
        if found.is_none() {
            return Err(patch.problem(
                ".patch.value.transport_socket.name",
                format!(
                    "the cluster has transport_socket_matches, and none is a {:?}",
                    value.name
                ),
            ));
        }
        found
    };
    match own.filter(|own| own.name == value.name) {
        None => cluster.transport_socket = Some(value),
        Some(own) => {
            if let (Some(ConfigType::TypedConfig(own)), Some(ConfigType::TypedConfig(value))) =
                (&mut own.config_type, &value.config_type)
            {
                merge::any(own, value, patch)?;
            }
        }
    }
    Ok(())
}

fn matches(patch: &Patch, name: &str, hosts_behind: &impl Fn(u32) -> Vec<String>) -> bool {
    let Some(wanted) = &patch.cluster else {
        return true;
    };
    if !wanted.name.is_empty() {
        return wanted.name == name;
    }
    let (port, subset, host) = parts(name);
    let hosts = match port {
        Some(port) if name.starts_with("inbound|") => hosts_behind(port),
        _ => Vec::new(),
    };
    let is_host = if hosts.is_empty() {
        wanted.service == host
    } else {
        hosts.contains(&wanted.service)
    };
    (wanted.subset.is_empty() || wanted.subset == subset)
        && (wanted.service.is_empty() || is_host)
        && (wanted.port_number == 0 || Some(wanted.port_number) == port)
}

/// Port, subset and host of a cluster's name, also of those that east-west gateways have.
fn parts(name: &str) -> (Option<u32>, &str, &str) {
    if let Some((port, subset, host)) = names::split(name) {
        return (Some(port), subset, host);
    }
    let mut parts = name.splitn(4, "_.");
    if parts.next() != Some("outbound") {
        return (None, "", "");
    }
    let port = parts.next().and_then(|port| port.parse().ok());
    (
        port,
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_forms_have_parts() {
        assert_eq!(parts("outbound|80|v1|a.b"), (Some(80), "v1", "a.b"));
        assert_eq!(parts("outbound_.80_.v1_.a.b"), (Some(80), "v1", "a.b"));
        assert_eq!(parts("inbound|80||"), (Some(80), "", ""));
        assert_eq!(parts("PassthroughCluster"), (None, "", ""));
    }
}
