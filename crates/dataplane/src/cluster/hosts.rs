//! The endpoints of a cluster.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use xds::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, LbEndpoint, lb_endpoint::HostIdentifier,
};

use crate::address::Address;
use crate::error::ConfigError;
use crate::matching::metadata;
use crate::stream::Metadata;

/// What the control plane says about the health of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// `HEALTHY` or `UNKNOWN`.
    #[default]
    Healthy,
    /// `DEGRADED`: used when the healthy ones are not enough.
    Degraded,
    /// `UNHEALTHY`, `TIMEOUT`.
    Unhealthy,
    /// `DRAINING`: unhealthy, too.
    Draining,
}

/// Region, zone and sub-zone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// The region.
    pub region: String,
    /// The zone.
    pub zone: String,
    /// The sub-zone.
    pub sub_zone: String,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// Its address.
    pub address: Address,
    /// Its name; empty when it has none.
    pub hostname: String,
    /// Its weight, at least 1.
    pub weight: u32,
    /// What the control plane says about it.
    pub health: Health,
    /// Where it is.
    pub locality: Arc<Locality>,
    /// Its priority, 0 first.
    pub priority: u32,
    /// `metadata.filter_metadata` of the endpoint.
    pub metadata: Arc<Metadata>,
}

/// The hosts of one locality at one priority.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalityHosts {
    /// Where.
    pub locality: Arc<Locality>,
    /// `load_balancing_weight`; `None` gets no traffic when localities are weighted.
    pub weight: Option<u32>,
    /// Indexes into [`HostSet::hosts`].
    pub hosts: Vec<usize>,
}

/// All endpoints of a cluster at one time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostSet {
    /// The endpoints, in the order of the message; an address occurs once.
    pub hosts: Vec<Arc<Host>>,
    /// By priority, then by locality.
    pub priorities: Vec<Vec<LocalityHosts>>,
    /// `overprovisioning_factor` in percent, 140 by default.
    pub overprovisioning: u32,
}

impl HostSet {
    /// Compiles a `ClusterLoadAssignment`. All errors are collected.
    pub fn compile(config: &ClusterLoadAssignment) -> Result<Self, Vec<ConfigError>> {
        let factor = config
            .policy
            .as_ref()
            .and_then(|policy| policy.overprovisioning_factor);
        let mut set = Self {
            overprovisioning: factor.unwrap_or(140),
            ..Self::default()
        };
        let mut errors = Vec::new();
        let mut refuse = |given: bool, field: &str| {
            if given {
                errors.push(ConfigError::new(
                    field,
                    "is not carried out by this proxy; remove it",
                ));
            }
        };
        if let Some(policy) = &config.policy {
            refuse(!policy.drop_overloads.is_empty(), "policy.drop_overloads");
            refuse(
                policy.endpoint_stale_after.is_some(),
                "policy.endpoint_stale_after",
            );
            refuse(
                policy.weighted_priority_health,
                "policy.weighted_priority_health",
            );
        }
        for (group, endpoints) in config.endpoints.iter().enumerate() {
            let at = format!("endpoints[{group}]");
            if endpoints.lb_config.is_some() {
                errors.push(ConfigError::new(
                    &at,
                    "LEDS is not supported; give lb_endpoints",
                ));
            }
            if endpoints.priority > 128 {
                errors.push(ConfigError::new(
                    format!("{at}.priority"),
                    "is more than 128",
                ));
                continue;
            }
            let locality = endpoints
                .locality
                .as_ref()
                .map_or_else(Locality::default, |locality| Locality {
                    region: locality.region.clone(),
                    zone: locality.zone.clone(),
                    sub_zone: locality.sub_zone.clone(),
                });
            let place = set.group(
                endpoints.priority,
                locality,
                endpoints.load_balancing_weight,
            );
            for (index, endpoint) in endpoints.lb_endpoints.iter().enumerate() {
                match Host::compile(config, endpoint, endpoints.priority) {
                    Ok(host) => set.add(place, host),
                    Err(error) => errors.push(error.within(&format!("{at}.lb_endpoints[{index}]"))),
                }
            }
        }
        if errors.is_empty() {
            Ok(set)
        } else {
            Err(errors)
        }
    }

    /// The same set with every named host replaced by its addresses (`resolve` gives them; an empty answer
    /// removes the host). For DNS clusters.
    pub fn resolved(&self, resolve: &mut dyn FnMut(&str) -> Vec<IpAddr>) -> Self {
        let mut set = Self {
            overprovisioning: self.overprovisioning,
            ..Self::default()
        };
        for (priority, localities) in self.priorities.iter().enumerate() {
            for group in localities {
                let place = set.group(priority as u32, (*group.locality).clone(), group.weight);
                for host in group.hosts.iter().map(|index| &self.hosts[*index]) {
                    let Address::Name { host: name, port } = &host.address else {
                        set.add(place, (**host).clone());
                        continue;
                    };
                    for ip in resolve(name) {
                        let hostname = if host.hostname.is_empty() {
                            name.clone()
                        } else {
                            host.hostname.clone()
                        };
                        let address = Address::Socket(SocketAddr::new(ip, *port));
                        set.add(
                            place,
                            Host {
                                address,
                                hostname,
                                ..(**host).clone()
                            },
                        );
                    }
                }
            }
        }
        set
    }

    /// The names that are still to be resolved, each once.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let mut seen = HashSet::new();
        self.hosts
            .iter()
            .filter_map(move |host| match &host.address {
                Address::Name { host, .. } if seen.insert(host.as_str()) => Some(host.as_str()),
                _ => None,
            })
    }

    /// One host after the other, all alike: for clusters whose endpoints come from requests.
    pub fn of_addresses(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        let mut set = Self {
            overprovisioning: 140,
            ..Self::default()
        };
        let place = set.group(0, Locality::default(), None);
        for address in addresses {
            let locality = set.priorities[0][0].locality.clone();
            set.add(
                place,
                Host {
                    address: Address::Socket(address),
                    hostname: String::new(),
                    weight: 1,
                    health: Health::Healthy,
                    locality,
                    priority: 0,
                    metadata: Arc::default(),
                },
            );
        }
        set
    }

    fn group(&mut self, priority: u32, locality: Locality, weight: Option<u32>) -> (usize, usize) {
        let priority = priority as usize;
        while self.priorities.len() <= priority {
            self.priorities.push(Vec::new());
        }
        let level = &mut self.priorities[priority];
        let index = level
            .iter()
            .position(|group| *group.locality == locality)
            .unwrap_or_else(|| {
                level.push(LocalityHosts {
                    locality: Arc::new(locality),
                    weight,
                    hosts: Vec::new(),
                });
                level.len() - 1
            });
        (priority, index)
    }

    /// Adds a host, unless its address is there already at this priority.
    fn add(&mut self, (priority, group): (usize, usize), mut host: Host) {
        let known = self.priorities[priority]
            .iter()
            .flat_map(|group| &group.hosts);
        if known
            .into_iter()
            .any(|index| self.hosts[*index].address == host.address)
        {
            return;
        }
        let group = &mut self.priorities[priority][group];
        host.locality = group.locality.clone();
        group.hosts.push(self.hosts.len());
        self.hosts.push(Arc::new(host));
    }
}

impl Host {
    fn compile(
        set: &ClusterLoadAssignment,
        config: &LbEndpoint,
        priority: u32,
    ) -> Result<Self, ConfigError> {
        let endpoint = match &config.host_identifier {
            Some(HostIdentifier::Endpoint(endpoint)) => endpoint,
            Some(HostIdentifier::EndpointName(name)) => {
                set.named_endpoints.get(name).ok_or_else(|| {
                    ConfigError::new(
                        "endpoint_name",
                        format!("{name:?} is not among named_endpoints"),
                    )
                })?
            }
            None => return Err(ConfigError::new("endpoint", "is missing")),
        };
        let address = endpoint
            .address
            .as_ref()
            .ok_or_else(|| ConfigError::new("endpoint.address", "is missing"))?;
        if !endpoint.additional_addresses.is_empty() {
            return Err(ConfigError::new(
                "endpoint.additional_addresses",
                "are not carried out by this proxy; remove them",
            ));
        }
        Ok(Self {
            address: Address::compile(address).map_err(|e| e.within("endpoint.address"))?,
            hostname: endpoint.hostname.clone(),
            weight: config.load_balancing_weight.unwrap_or(1).max(1),
            health: match config.health_status {
                2 | 4 => Health::Unhealthy,
                3 => Health::Draining,
                5 => Health::Degraded,
                _ => Health::Healthy,
            },
            locality: Arc::default(),
            priority,
            metadata: Arc::new(metadata(config.metadata.as_ref())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn endpoint(address: &str) -> serde_json::Value {
        json!({"endpoint": {"address": {"socket_address": {"address": address, "port_value": 80}}}})
    }

    #[test]
    fn endpoints_are_grouped_by_priority_and_locality() {
        let set = HostSet::compile(
            &xds::json::from_value(
                json!({"cluster_name": "c", "endpoints": [
                    {"locality": {"region": "a"}, "lb_endpoints": [endpoint("10.0.0.1"), endpoint("10.0.0.1")]},
                    {"locality": {"region": "b"}, "priority": 1, "load_balancing_weight": 3, "lb_endpoints": [endpoint("10.0.0.1"), endpoint("svc.example")]}]}),
                true,
            )
            .expect("a valid message"),
        )
        .expect("compiles");
        assert_eq!(set.hosts.len(), 3, "an address occurs once at a priority");
        assert_eq!(set.priorities[1][0].weight, Some(3));
        assert_eq!(set.hosts[1].locality.region, "b");
        assert_eq!(set.names().collect::<Vec<_>>(), ["svc.example"]);
        let resolved =
            set.resolved(&mut |_| vec!["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()]);
        assert_eq!(resolved.hosts.len(), 4);
        assert_eq!(resolved.hosts[3].address.to_string(), "192.0.2.2:80");
        assert_eq!(resolved.hosts[3].hostname, "svc.example");
    }
}
