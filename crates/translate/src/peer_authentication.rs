//! PeerAuthentication: which mTLS mode a workload demands on a port.

use crate::objects::{Config, Labels, selects};
use api::istio::{MutualTlsMode, PeerAuthentication};
use std::collections::{BTreeMap, HashMap};

/// All policies by scope. Only the oldest of a scope counts.
#[derive(Debug, Default)]
pub(crate) struct PeerPolicies {
    mesh: Option<Config<PeerAuthentication>>,
    namespaces: HashMap<String, Config<PeerAuthentication>>,
    workloads: HashMap<String, Vec<Config<PeerAuthentication>>>,
}

/// The modes of one workload.
#[derive(Debug, Clone)]
pub(crate) struct WorkloadModes {
    pub(crate) mode: MutualTlsMode,
    /// By target port.
    pub(crate) ports: BTreeMap<u32, MutualTlsMode>,
}

impl WorkloadModes {
    pub(crate) fn of_port(&self, port: u32) -> MutualTlsMode {
        self.ports.get(&port).copied().unwrap_or(self.mode)
    }
}

impl PeerPolicies {
    /// The input is sorted by age.
    pub(crate) fn new(configs: Vec<Config<PeerAuthentication>>, root: &str) -> Self {
        let mut out = Self::default();
        for config in configs {
            let selective = config
                .spec
                .selector
                .as_ref()
                .is_some_and(|selector| !selector.match_labels.is_empty());
            if selective {
                if config.namespace != root {
                    out.workloads
                        .entry(config.namespace.clone())
                        .or_default()
                        .push(config);
                }
            } else if config.namespace == root {
                out.mesh.get_or_insert(config);
            } else {
                out.namespaces
                    .entry(config.namespace.clone())
                    .or_insert(config);
            }
        }
        out
    }

    fn mode_of(config: Option<&Config<PeerAuthentication>>) -> Option<MutualTlsMode> {
        let mode = config?.spec.mtls.as_ref()?.mode;
        (mode != MutualTlsMode::Unset).then_some(mode)
    }

    /// The mode of a namespace, whatever single workloads demand. Nothing known means permissive.
    pub(crate) fn of_namespace(&self, namespace: &str) -> MutualTlsMode {
        Self::mode_of(self.namespaces.get(namespace))
            .or(Self::mode_of(self.mesh.as_ref()))
            .unwrap_or(MutualTlsMode::Permissive)
    }

    /// The modes of a workload.
    pub(crate) fn of_workload(&self, namespace: &str, labels: &Labels) -> WorkloadModes {
        let inherited = self.of_namespace(namespace);
        let own = self
            .workloads
            .get(namespace)
            .into_iter()
            .flatten()
            .find(|config| {
                config
                    .spec
                    .selector
                    .as_ref()
                    .is_some_and(|selector| selects(&selector.match_labels, labels))
            });
        let Some(own) = own else {
            return WorkloadModes {
                mode: inherited,
                ports: BTreeMap::new(),
            };
        };
        let mode = Self::mode_of(Some(own)).unwrap_or(inherited);
        let ports = own
            .spec
            .port_level_mtls
            .iter()
            .filter_map(|(port, settings)| {
                let port = port.parse().ok()?;
                Some((
                    port,
                    if settings.mode == MutualTlsMode::Unset {
                        mode
                    } else {
                        settings.mode
                    },
                ))
            })
            .collect();
        WorkloadModes { mode, ports }
    }

    /// Whether there is any policy with a selector.
    pub(crate) fn has_workload_policies(&self, namespace: &str) -> bool {
        self.workloads.contains_key(namespace)
    }
}
