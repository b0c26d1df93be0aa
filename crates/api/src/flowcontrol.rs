//! Flow control (`flowcontrol.apiserver.k8s.io`): the objects that every cluster has.

use serde_json::Value;
use std::sync::LazyLock;

/// The group of FlowSchema and PriorityLevelConfiguration.
pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// Objects with this annotation at `true` are brought back to what they should be.
pub const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
/// Levels and schemas of these names cannot be given another spec and come back when they are deleted.
pub const MANDATORY: [&str; 2] = ["exempt", "catch-all"];

/// The mandatory and the suggested objects, levels first, as a real 1.32 has them (`data/flowcontrol.json`, made by
/// `data/measure.py`): kind, name and spec.
pub fn defaults() -> &'static [Value] {
    static ALL: LazyLock<Vec<Value>> = LazyLock::new(|| {
        serde_json::from_str(include_str!("../data/flowcontrol.json"))
            .expect("data/flowcontrol.json is well formed")
    });
    &ALL
}

/// The spec that an object of a mandatory name must have.
pub fn mandatory(kind: &str, name: &str) -> Option<&'static Value> {
    MANDATORY.contains(&name).then_some(())?;
    defaults()
        .iter()
        .find(|o| o["kind"] == kind && crate::meta::name(o) == name)
        .map(|o| &o["spec"])
}
