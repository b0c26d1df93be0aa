//! `meshnetworks.MeshNetworksAnalyzer`: networks that name a cluster nobody knows (IST0126).

use std::collections::BTreeSet;

use crate::context::Context;
use crate::fields::Fields;
use crate::kind::Kind;
use crate::messages;

/// The label of secrets that tell about another cluster.
pub const REMOTE_SECRET_LABEL: &str = "istio/multiCluster";

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    let mut known: BTreeSet<&str> = ["Mock", "Kubernetes", "External"].into();
    for secret in context.each(Kind::Secret) {
        if secret.label(REMOTE_SECRET_LABEL) == "true" {
            let data = secret.spec.field("data").as_object();
            known.extend(data.into_iter().flatten().map(|(name, _)| name.as_str()));
        }
    }
    for object in context.each(Kind::MeshNetworks) {
        let networks = object.spec.field("networks").as_object();
        for (name, network) in networks.into_iter().flatten() {
            for (index, endpoint) in network.items("endpoints").iter().enumerate() {
                if let Some(registry) = endpoint.field("fromRegistry").as_str()
                    && !known.contains(registry)
                {
                    context.report(
                        messages::unknown_mesh_networks_service_registry(object, registry, name)
                            .at(&format!("networks.{name}.endpoints[{index}]")),
                    );
                }
            }
        }
    }
}
