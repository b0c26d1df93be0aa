//! Volumes, claims and drivers.

use super::{list_mut, set, set_text, some_mut, struct_mut};
use serde_json::{Value, json};

/// A PersistentVolume.
pub(super) fn volume(obj: &mut Value) {
    set_text(struct_mut(obj, "status"), "phase", "Pending");
    let spec = struct_mut(obj, "spec");
    set_text(spec, "persistentVolumeReclaimPolicy", "Retain");
    set(spec, "volumeMode", "Filesystem");
    if let Some(path) = some_mut(spec, "hostPath") {
        set(path, "type", "");
    }
}

/// A PersistentVolumeClaim, also in a template.
pub(super) fn claim(obj: &mut Value) {
    set_text(struct_mut(obj, "status"), "phase", "Pending");
    set(struct_mut(obj, "spec"), "volumeMode", "Filesystem");
}

/// A CSIDriver.
pub(super) fn driver(obj: &mut Value) {
    let spec = struct_mut(obj, "spec");
    set(spec, "attachRequired", true);
    for off in [
        "podInfoOnMount",
        "storageCapacity",
        "requiresRepublish",
        "seLinuxMount",
    ] {
        set(spec, off, false);
    }
    set(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if list_mut(spec, "volumeLifecycleModes").next().is_none() {
        spec["volumeLifecycleModes"] = json!(["Persistent"]);
    }
}
