//! `discoverySelectors`: which namespaces a control plane reads.

use crate::objects::text;
use crate::snapshot::ClusterObjects;
use api::selector::LabelSelector;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Arc;

/// Leaves out the objects of namespaces that no selector meets. Objects without a namespace stay. Istio's configuration is that of the
/// `config_cluster`, and so are the namespaces that count for it.
pub(crate) fn select(
    selectors: &[Value],
    config_cluster: &str,
    clusters: &mut [ClusterObjects],
    config: &mut Vec<Arc<Value>>,
) {
    if selectors.is_empty() {
        return;
    }
    let selectors: Vec<LabelSelector> = selectors.iter().map(LabelSelector::from_value).collect();
    for cluster in clusters {
        let read: HashSet<String> = cluster
            .objects
            .iter()
            .filter(|object| text(object, &["kind"]) == "Namespace")
            .filter(|object| selectors.iter().any(|selector| selector.matches(object)))
            .map(|object| text(object, &["metadata", "name"]).to_owned())
            .collect();
        let stays = |object: &Arc<Value>| {
            let namespace = text(object, &["metadata", "namespace"]);
            namespace.is_empty() || read.contains(namespace)
        };
        cluster.objects.retain(stays);
        if cluster.id == config_cluster {
            config.retain(stays);
        }
    }
}
