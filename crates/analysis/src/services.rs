//! The hosts that services and ServiceEntries define.

use std::collections::BTreeMap;

use crate::context::Context;
use crate::fields::Fields;
use crate::hosts::ScopedHost;
use crate::kind::Kind;
use crate::labels::Labels;

/// Who sees something that says nothing about it.
pub const EVERYBODY: &str = "*";
/// Who sees something that is for its own namespace.
pub const OWN_NAMESPACE: &str = ".";

/// What is behind a host.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// Port numbers.
    pub ports: Vec<i64>,
    /// Labels of the workloads, where a ServiceEntry selects them.
    pub selector: Labels,
}

/// Hosts by the namespaces that see them.
#[derive(Debug, Default)]
pub struct Hosts(BTreeMap<ScopedHost, Host>);

impl Hosts {
    /// Those of all Services and ServiceEntries.
    #[must_use]
    pub fn of(context: &Context<'_>) -> Self {
        let mut hosts = BTreeMap::new();
        for entry in context.each(Kind::ServiceEntry) {
            let namespace = entry.namespace();
            let host = Host {
                ports: entry
                    .spec
                    .items("ports")
                    .iter()
                    .map(|port| port.number("number"))
                    .collect(),
                selector: entry.spec.field("workloadSelector").texts_by_key("labels"),
            };
            let export_to = entry.spec.texts("exportTo");
            for name in entry.spec.texts("hosts") {
                for scope in scopes(&export_to, namespace) {
                    hosts.insert(ScopedHost::new(&scope, namespace, name), host.clone());
                }
            }
        }
        for service in context.each(Kind::Service) {
            let namespace = service.namespace();
            let host = Host {
                ports: service
                    .spec
                    .items("ports")
                    .iter()
                    .map(|port| port.number("port"))
                    .collect(),
                selector: Labels::new(),
            };
            let annotation = service.annotation("networking.istio.io/exportTo");
            let export_to: Vec<&str> = if annotation.is_empty() {
                Vec::new()
            } else {
                annotation.split(',').map(str::trim).collect()
            };
            let export_to = if export_to.is_empty() {
                vec![EVERYBODY]
            } else {
                export_to
            };
            for scope in export_to {
                let scope = if scope == OWN_NAMESPACE {
                    namespace
                } else {
                    scope
                };
                hosts.insert(
                    ScopedHost::new(scope, namespace, service.name()),
                    host.clone(),
                );
            }
        }
        Self(hosts)
    }

    /// What is behind `host`, as somebody in `namespace` writes it whose configuration is for `export_to`.
    #[must_use]
    pub fn find(&self, namespace: &str, export_to: &[&str], host: &str) -> Option<&Host> {
        let in_scope = |scope: &str| self.0.get(&ScopedHost::new(scope, namespace, host));
        if let Some(host) = in_scope(EVERYBODY) {
            return Some(host);
        }
        let found = if export_to.is_empty() {
            in_scope(namespace)
        } else {
            export_to.iter().find_map(|scope| {
                in_scope(if *scope == OWN_NAMESPACE {
                    namespace
                } else {
                    scope
                })
            })
        };
        if found.is_some() {
            return found;
        }
        let host = host.strip_prefix('*').unwrap_or(host);
        self.0.iter().find_map(|(known, target)| {
            let wildcard = known.host.strip_prefix('*')?;
            let visible = known.scope == EVERYBODY || known.scope == namespace;
            (visible && host.ends_with(wildcard)).then_some(target)
        })
    }
}

/// The namespaces for which something in `namespace` is, whose `exportTo` is this.
#[must_use]
pub fn scopes(export_to: &[&str], namespace: &str) -> Vec<String> {
    if export_to.is_empty() || export_to.contains(&EVERYBODY) {
        return vec![EVERYBODY.to_owned()];
    }
    let mut scopes: Vec<String> = export_to
        .iter()
        .map(|scope| {
            if *scope == OWN_NAMESPACE {
                namespace.to_owned()
            } else {
                (*scope).to_owned()
            }
        })
        .collect();
    scopes.sort();
    scopes.dedup();
    scopes
}
