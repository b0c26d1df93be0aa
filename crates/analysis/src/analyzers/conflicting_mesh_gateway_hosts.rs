//! `virtualservice.ConflictingMeshGatewayHostsAnalyzer`: several VirtualServices of the mesh for one host (IST0109).

use std::collections::{BTreeMap, BTreeSet};

use crate::context::Context;
use crate::fields::Fields;
use crate::hosts::{ScopedHost, hosts_meet};
use crate::kind::Kind;
use crate::messages;
use crate::object::Object;
use crate::services::{EVERYBODY, scopes};

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    let mut hosts: BTreeMap<ScopedHost, Vec<&Object>> = BTreeMap::new();
    for service in context.each(Kind::VirtualService) {
        let gateways = service.spec.texts("gateways");
        if !gateways.is_empty() && !gateways.contains(&"mesh") {
            continue;
        }
        for scope in scopes(&service.spec.texts("exportTo"), service.namespace()) {
            for host in service.spec.texts("hosts") {
                hosts
                    .entry(ScopedHost::new(&scope, service.namespace(), host))
                    .or_default()
                    .push(service);
            }
        }
    }
    // Each is told once, of one host.
    let mut told = BTreeSet::new();
    for (host, own) in &hosts {
        let mut services = own.clone();
        if host.scope != EVERYBODY {
            for (other, of_others) in &hosts {
                if other.scope == EVERYBODY && hosts_meet(&host.host, &other.host) {
                    services.extend(of_others);
                }
            }
        }
        if services.len() < 2 {
            continue;
        }
        let mut names: Vec<String> = services.iter().map(|service| service.full_name()).collect();
        names.sort();
        for service in services {
            if told.insert(service.full_name()) {
                context.report(
                    messages::conflicting_mesh_gateway_virtual_service_hosts(
                        service,
                        &names.join(","),
                        &host.to_string(),
                    )
                    .at("metadata.name"),
                );
            }
        }
    }
}
