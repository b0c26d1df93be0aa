//! Operations that change a list of filters or routes.

use super::Patch;
use api::istio::PatchOperation;

/// Applies an operation to a list. With `named`, the patch says which item it means, and `is` finds it; where there is none,
/// nothing happens. Without, things are inserted at the ends.
pub(super) fn edit<M: xds::Wire>(
    list: &mut Vec<M>,
    patch: &Patch,
    named: bool,
    is: impl Fn(&M) -> bool,
) {
    if patch.operation == PatchOperation::Remove {
        if named {
            list.retain(|item| !is(item));
        }
        return;
    }
    let found = list.iter().position(&is).filter(|_| named);
    let place = match (patch.operation, found) {
        (PatchOperation::Add, _) => list.len(),
        (PatchOperation::InsertFirst, _) => 0,
        (PatchOperation::InsertAfter, Some(index)) => index + 1,
        (PatchOperation::InsertAfter, None) if !named => list.len(),
        (PatchOperation::InsertBefore, Some(index)) => index,
        (PatchOperation::InsertBefore, None) if !named => 0,
        (PatchOperation::Replace, Some(index)) => {
            if let Some(item) = patch.message() {
                list[index] = item;
            }
            return;
        }
        _ => return,
    };
    if let Some(item) = patch.message() {
        list.insert(place, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::istio::{ApplyTo, PatchContext};
    use xds::envoy::config::listener::v3::ListenerFilter;

    /// What becomes of the filters `a` and `b` when `new` is brought in at `at`.
    fn edited(operation: PatchOperation, at: Option<&str>) -> String {
        let value = serde_json::json!({"name": "new"});
        let name = "envoy.config.listener.v3.ListenerFilter";
        let patch = Patch {
            object: String::new(),
            field: String::new(),
            apply_to: ApplyTo::ListenerFilter,
            operation,
            context: PatchContext::Any,
            proxy_version: None,
            proxy_metadata: Default::default(),
            listener: None,
            routes: None,
            cluster: None,
            value: Some(xds::json::dynamic_from_value(name, &value, true).unwrap()),
        };
        let mut list: Vec<ListenerFilter> = ["a", "b"]
            .map(|name| ListenerFilter {
                name: name.to_owned(),
                ..Default::default()
            })
            .into();
        edit(&mut list, &patch, at.is_some(), |filter| {
            Some(filter.name.as_str()) == at
        });
        list.iter()
            .map(|filter| format!("{} ", filter.name))
            .collect()
    }

    #[test]
    fn operations_change_lists_as_istiod_does() {
        use PatchOperation::{Add, InsertAfter, InsertBefore, InsertFirst, Remove, Replace};
        for (operation, at, expected) in [
            (Add, None, "a b new "),
            (InsertFirst, Some("b"), "new a b "),
            (InsertAfter, None, "a b new "),
            (InsertAfter, Some("a"), "a new b "),
            (InsertAfter, Some("c"), "a b "),
            (InsertBefore, None, "new a b "),
            (InsertBefore, Some("b"), "a new b "),
            (InsertBefore, Some("c"), "a b "),
            (Replace, Some("a"), "new b "),
            (Replace, None, "a b "),
            (Remove, Some("a"), "b "),
            (Remove, None, "a b "),
        ] {
            assert_eq!(edited(operation, at), expected, "{operation:?} {at:?}");
        }
    }
}
