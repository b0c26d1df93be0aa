//! From the translator's answer to resources on the wire.

use std::collections::{BTreeMap, BTreeSet};

use translate::Output;
use xds::Resource;
use xds::prost_types::Any;
use xds::type_url;

use crate::ads::session::{Changes, Generated, PUSH_ORDER};
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

fn insert<R: Resource>(generated: &mut Generated, resources: &BTreeMap<String, R>) {
    let entries: Vec<(String, Any)> = resources
        .iter()
        .map(|(name, resource)| (name.clone(), xds::any::pack(resource)))
        .collect();
    generated.entry(R::TYPE_URL).or_default().extend(entries);
}

/// Brings resources up to a change: encodes what was made again, and tells what of it is different.
pub fn apply(generated: &mut Generated, change: &translate::Change) -> Changes {
    let (made, gone) = match change {
        translate::Change::Everything(output) => {
            *generated = by_type(output);
            return Changes::Everything;
        }
        translate::Change::Services {
            made,
            clusters_gone,
            endpoints_gone,
        } => (
            made,
            [
                (type_url::CLUSTER, clusters_gone),
                (type_url::ENDPOINT, endpoints_gone),
            ],
        ),
    };
    let mut changed: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
    for (type_url, names) in gone {
        let resources = generated.entry(type_url).or_default();
        for name in names {
            if resources.remove(name).is_some() {
                changed.entry(type_url).or_default().insert(name.clone());
            }
        }
    }
    replace(generated, &made.clusters, &mut changed);
    replace(generated, &made.endpoints, &mut changed);
    Changes::Only(changed)
}

fn replace<R: Resource>(
    generated: &mut Generated,
    made: &BTreeMap<String, R>,
    changed: &mut BTreeMap<&'static str, BTreeSet<String>>,
) {
    let resources = generated.entry(R::TYPE_URL).or_default();
    for (name, resource) in made {
        let packed = xds::any::pack(resource);
        if resources.get(name) != Some(&packed) {
            resources.insert(name.clone(), packed);
            changed.entry(R::TYPE_URL).or_default().insert(name.clone());
        }
    }
}
