//! From the translator's answer to resources on the wire.

use std::collections::BTreeMap;

use translate::Output;
use xds::Resource;
use xds::prost_types::Any;

use crate::ads::session::{Generated, PUSH_ORDER};
use crate::ads::subscription::Resources;

/// The resources of a proxy by type and name.
pub fn by_type(output: &Output) -> Generated {
    let mut generated = Generated::from(PUSH_ORDER.map(|type_url| (type_url, Resources::new())));
    insert(&mut generated, &output.clusters);
    insert(&mut generated, &output.endpoints);
    insert(&mut generated, &output.listeners);
    insert(&mut generated, &output.routes);
    insert(&mut generated, &output.extension_configs);
    generated
}

fn insert<R: Resource + prost::Name>(generated: &mut Generated, resources: &BTreeMap<String, R>) {
    let entries: Vec<(String, Any)> = resources
        .iter()
        .map(|(name, resource)| (name.clone(), xds::any::pack(resource)))
        .collect();
    generated.entry(R::TYPE_URL).or_default().extend(entries);
}
