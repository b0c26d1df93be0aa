//! The endpoints of services at one moment: what changes most often, kept apart from everything else.
//!
//! Only [`crate::context::Context`] asks questions here, and writes down which: a proxy is built anew where an answer has changed.

use super::{Endpoint, Registry, Resolution, ServiceKey};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

/// Index of the service in the registry, name of its port, port of the endpoint, cluster.
pub(crate) type AddressUse = (usize, String, u32, String);

/// Endpoints and identities by service.
#[derive(Debug, Default)]
pub(crate) struct EndpointIndex {
    /// In the order of EDS: by registry and cluster.
    endpoints: HashMap<ServiceKey, Arc<Vec<Endpoint>>>,
    accounts: HashMap<ServiceKey, Arc<BTreeSet<String>>>,
    by_address: OnceLock<HashMap<String, Vec<AddressUse>>>,
}

/// What differs between two indexes.
#[derive(Debug, Default)]
pub(crate) struct EndpointChanges {
    /// Hosts in lower case whose endpoints or identities differ.
    pub(crate) hosts: BTreeSet<String>,
    /// Addresses of endpoints of these hosts, before and after.
    pub(crate) addresses: BTreeSet<String>,
}

impl EndpointIndex {
    /// Groups `endpoints` and computes the identities of services. What is as it was in `before` is shared with it.
    pub(crate) fn new(
        registry: &Registry,
        endpoints: Vec<(ServiceKey, Endpoint)>,
        trust_domain: &str,
        aliases: &[String],
        before: Option<&Self>,
    ) -> Self {
        let mut grouped: HashMap<ServiceKey, Vec<Endpoint>> = HashMap::new();
        for (key, endpoint) in endpoints {
            grouped.entry(key).or_default().push(endpoint);
        }
        let mut accounts: HashMap<ServiceKey, BTreeSet<String>> = HashMap::new();
        for service in &registry.services {
            let key = service.key();
            // Istio knows none of hosts whose names are resolved one by one.
            let mut own = match service.resolution {
                Resolution::DynamicDns => BTreeSet::new(),
                _ => service.accounts.clone(),
            };
            for endpoint in grouped.get(&key).into_iter().flatten() {
                if endpoint.service_account.is_empty() {
                    continue;
                }
                let path = format!("/ns/{}/sa/{}", endpoint.namespace, endpoint.service_account);
                own.insert(format!("spiffe://{trust_domain}{path}"));
            }
            expand(&mut own, trust_domain, aliases);
            accounts.entry(key).or_default().extend(own);
        }
        Self {
            endpoints: shared(grouped, before.map(|before| &before.endpoints)),
            accounts: shared(accounts, before.map(|before| &before.accounts)),
            by_address: OnceLock::new(),
        }
    }

    /// The endpoints of a service.
    pub(crate) fn of(&self, key: &ServiceKey) -> &[Endpoint] {
        self.endpoints.get(key).map_or(&[], |list| list.as_slice())
    }

    /// The identities of a service.
    pub(crate) fn accounts(&self, key: &ServiceKey) -> Option<&BTreeSet<String>> {
        self.accounts.get(key).map(AsRef::as_ref)
    }

    /// Service ports whose endpoints have this address.
    pub(crate) fn by_address(&self, registry: &Registry, address: &str) -> &[AddressUse] {
        let index = self.by_address.get_or_init(|| {
            let mut out: HashMap<String, Vec<AddressUse>> = HashMap::new();
            for (index, service) in registry.services.iter().enumerate() {
                // A service of Kubernetes and one of a ServiceEntry may have the same key: each has its own.
                let all = self.of(&service.key()).iter();
                for endpoint in all.filter(|endpoint| endpoint.of_entry != service.kubernetes) {
                    let entry = (
                        index,
                        endpoint.port_name.clone(),
                        endpoint.port,
                        endpoint.cluster.clone(),
                    );
                    out.entry(endpoint.address.clone()).or_default().push(entry);
                }
            }
            out
        });
        index.get(address).map_or(&[], Vec::as_slice)
    }

    /// What differs from an earlier index.
    pub(crate) fn changes_since(&self, before: &Self) -> EndpointChanges {
        let mut out = EndpointChanges::default();
        let mut keys = differing(&self.endpoints, &before.endpoints);
        for key in &keys {
            let endpoints = self.of(key).iter().chain(before.of(key));
            out.addresses
                .extend(endpoints.map(|endpoint| endpoint.address.clone()));
        }
        keys.extend(differing(&self.accounts, &before.accounts));
        out.hosts = keys
            .into_iter()
            .map(|(host, _)| host.to_ascii_lowercase())
            .collect();
        out
    }
}

/// Keys whose values are not the same shared ones in both.
fn differing<'a, T>(
    now: &'a HashMap<ServiceKey, Arc<T>>,
    before: &'a HashMap<ServiceKey, Arc<T>>,
) -> BTreeSet<&'a ServiceKey> {
    let changed = now.iter().filter(|(key, value)| {
        before
            .get(*key)
            .is_none_or(|other| !Arc::ptr_eq(value, other))
    });
    let gone = before.keys().filter(|key| !now.contains_key(*key));
    changed.map(|(key, _)| key).chain(gone).collect()
}

fn shared<T: PartialEq>(
    now: HashMap<ServiceKey, T>,
    before: Option<&HashMap<ServiceKey, Arc<T>>>,
) -> HashMap<ServiceKey, Arc<T>> {
    now.into_iter()
        .map(|(key, value)| {
            let known = before
                .and_then(|before| before.get(&key))
                .filter(|known| ***known == value);
            let value = known.cloned().unwrap_or_else(|| Arc::new(value));
            (key, value)
        })
        .collect()
}

/// Adds the same identities in the aliases of their trust domain.
fn expand(accounts: &mut BTreeSet<String>, trust_domain: &str, aliases: &[String]) {
    if aliases.is_empty() {
        return;
    }
    for account in accounts.clone() {
        let Some((domain, path)) = account
            .strip_prefix("spiffe://")
            .and_then(|rest| rest.split_once('/'))
        else {
            continue;
        };
        if domain == trust_domain || aliases.iter().any(|alias| alias == domain) {
            for domain in aliases.iter().map(String::as_str).chain([trust_domain]) {
                accounts.insert(format!("spiffe://{domain}/{path}"));
            }
        }
    }
}
