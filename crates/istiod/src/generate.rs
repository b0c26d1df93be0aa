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
    let (made, gone, routes, listeners) = match change {
        translate::Change::Everything(output) => {
            *generated = by_type(output);
            return Changes::Everything;
        }
        translate::Change::Part {
            made,
            clusters_gone,
            endpoints_gone,
            routes,
            listeners,
        } => (
            made,
            [
                (type_url::CLUSTER, clusters_gone),
                (type_url::ENDPOINT, endpoints_gone),
            ],
            *routes,
            *listeners,
        ),
    };
    let mut changed = Names::new();
    for (type_url, names) in gone {
        remove(generated, type_url, &mut changed, names);
    }
    replace(generated, &made.clusters, &mut changed);
    replace(generated, &made.endpoints, &mut changed);
    if listeners {
        replace_all(generated, &made.listeners, &mut changed);
    }
    if routes {
        replace_all(generated, &made.routes, &mut changed);
    }
    Changes::Only(changed)
}

type Names = BTreeMap<&'static str, BTreeSet<String>>;

fn remove(
    generated: &mut Generated,
    type_url: &'static str,
    changed: &mut Names,
    names: &BTreeSet<String>,
) {
    let resources = generated.entry(type_url).or_default();
    for name in names {
        if resources.remove(name).is_some() {
            changed.entry(type_url).or_default().insert(name.clone());
        }
    }
}

/// `made` is all there is of its type.
fn replace_all<R: Resource>(
    generated: &mut Generated,
    made: &BTreeMap<String, R>,
    changed: &mut Names,
) {
    let before = generated
        .get(R::TYPE_URL)
        .into_iter()
        .flat_map(|all| all.keys());
    let gone = before
        .filter(|name| !made.contains_key(*name))
        .cloned()
        .collect();
    remove(generated, R::TYPE_URL, changed, &gone);
    replace(generated, made, changed);
}

fn replace<R: Resource>(
    generated: &mut Generated,
    made: &BTreeMap<String, R>,
    changed: &mut Names,
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
