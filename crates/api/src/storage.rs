//! Names that the parts of a cluster agree on about volumes.

use crate::meta;
use serde_json::Value;

/// The provisioner of the cluster's own: directories of the node.
pub const PROVISIONER: &str = "theater.io/node-directory";
/// The provisioner of classes whose volumes are made by hand.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// Annotation of a volume: who made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Annotation of a claim: the node of its first pod, which a class that waits for it needs to know.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Holds a volume of [`PROVISIONER`] until the node has removed its directory.
pub const DIRECTORY_FINALIZER: &str = "theater.io/node-directory";
/// Where the node keeps the directories of [`PROVISIONER`], in its own tree of files.
pub const DIRECTORY: &str = "/var/lib/theater/volumes";

/// The class of a claim or volume; empty when it has none.
pub fn class(object: &Value) -> &str {
    meta::annotation(object, "volume.beta.kubernetes.io/storage-class")
        .or_else(|| object["spec"]["storageClassName"].as_str())
        .unwrap_or("")
}

/// Whether a class waits for a pod before its claims are bound.
pub fn waits_for_consumer(class: &Value) -> bool {
    class["volumeBindingMode"] == "WaitForFirstConsumer"
}

/// Whether a volume is promised to, or used by, this claim.
pub fn is_for(volume: &Value, claim: &Value) -> bool {
    let reference = &volume["spec"]["claimRef"];
    let uid = reference["uid"].as_str().unwrap_or("");
    reference.is_object()
        && reference["namespace"] == meta::namespace(claim)
        && reference["name"] == meta::name(claim)
        && (uid.is_empty() || uid == meta::uid(claim))
}

/// Whether the claim and its volume have found each other.
pub fn is_bound(claim: &Value) -> bool {
    claim["status"]["phase"] == "Bound"
        && !claim["spec"]["volumeName"]
            .as_str()
            .unwrap_or("")
            .is_empty()
}
