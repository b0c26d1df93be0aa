//! Reading of EnvoyFilters: values become messages, and what can never have an effect becomes a problem.

use super::{EnvoyFilterPatches, Patch, durations};
use crate::Problem;
use crate::objects::Config;
use api::istio::{
    ApplyTo, EnvoyConfigObjectMatch, EnvoyConfigObjectPatch, EnvoyFilter, PatchOperation,
};
use prost_reflect::DynamicMessage;
use regex::Regex;
use serde_json::Value;
use xds::Wire as _;
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::core::v3::TypedExtensionConfig;
use xds::envoy::config::listener::v3::{Filter, FilterChain, Listener, ListenerFilter};
use xds::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

/// Reads EnvoyFilters, oldest first.
pub(crate) fn prepare(
    filters: Vec<Config<EnvoyFilter>>,
    problems: &mut Vec<Problem>,
) -> Vec<EnvoyFilterPatches> {
    let mut out = Vec::new();
    for filter in filters {
        let object = format!("EnvoyFilter/{}/{}", filter.namespace, filter.name);
        if !filter.spec.target_refs.is_empty() {
            problems.push(Problem::new(
                object,
                "spec.targetRefs",
                "only gateways of the Gateway API and waypoints can be meant, and there are none; use spec.workloadSelector",
            ));
            continue;
        }
        let mut patches = Vec::new();
        for (index, patch) in filter.spec.config_patches.into_iter().enumerate() {
            let field = format!("spec.configPatches[{index}]");
            match read(&object, &field, patch, problems) {
                Ok(patch) => patches.push(patch),
                Err((part, message)) => problems.push(Problem::new(
                    &object,
                    format!("{field}{part}"),
                    format!("{message}; the patch is ignored"),
                )),
            }
        }
        out.push(EnvoyFilterPatches {
            namespace: filter.namespace,
            selector: filter
                .spec
                .workload_selector
                .map(|selector| selector.labels),
            priority: filter.spec.priority,
            patches,
        });
    }
    out
}

/// The field and what is wrong with it.
type Refusal = (&'static str, String);

fn read(
    object: &str,
    field: &str,
    patch: EnvoyConfigObjectPatch,
    problems: &mut Vec<Problem>,
) -> Result<Patch, Refusal> {
    let apply_to = patch.apply_to;
    let selector = patch.selector.unwrap_or_default();
    let Some(change) = patch.patch else {
        return Err((".patch", "is missing".to_owned()));
    };
    let operation = effective(apply_to, change.operation)?;
    check_match(apply_to, operation, &selector)?;
    let proxy = selector.proxy.unwrap_or_default();
    let proxy_version = match proxy.proxy_version.as_str() {
        "" => None,
        text => Some(Regex::new(text).map_err(|error| {
            let message = format!("is not a regular expression: {error}");
            (".match.proxy.proxyVersion", message)
        })?),
    };
    let value = match (operation, change.value) {
        (PatchOperation::Remove, _) => None,
        (_, None) => return Err((".patch.value", "is missing".to_owned())),
        (_, Some(value)) => Some(message(
            apply_to,
            &value,
            object,
            &format!("{field}.patch.value"),
            problems,
        )?),
    };
    Ok(Patch {
        object: object.to_owned(),
        field: field.to_owned(),
        apply_to,
        operation,
        context: selector.context,
        proxy_version,
        proxy_metadata: proxy.metadata,
        listener: selector.listener,
        routes: selector.route_configuration,
        cluster: selector.cluster,
        value,
    })
}

/// The operation, if the kind of object has it. Where nothing can be inserted in order, it is added.
fn effective(apply_to: ApplyTo, operation: PatchOperation) -> Result<PatchOperation, Refusal> {
    use ApplyTo as To;
    use PatchOperation as Op;
    match apply_to {
        To::Invalid => return Err((".applyTo", "is missing".to_owned())),
        To::Bootstrap => {
            return Err((
                ".applyTo",
                "BOOTSTRAP patches are not supported; change the bootstrap of the proxy itself"
                    .to_owned(),
            ));
        }
        _ => {}
    }
    let insert = matches!(
        operation,
        Op::InsertBefore | Op::InsertAfter | Op::InsertFirst
    );
    let ordered = matches!(
        apply_to,
        To::ListenerFilter | To::NetworkFilter | To::HttpFilter | To::HttpRoute
    );
    let operation = if insert && !ordered {
        Op::Add
    } else {
        operation
    };
    let merge = matches!(operation, Op::Merge | Op::MergeAndReplaceList);
    let possible = match apply_to {
        To::Listener | To::FilterChain | To::Cluster => {
            merge || matches!(operation, Op::Add | Op::Remove)
        }
        To::ListenerFilter | To::NetworkFilter | To::HttpFilter => {
            insert || matches!(operation, Op::Merge | Op::Add | Op::Remove | Op::Replace)
        }
        To::RouteConfiguration => merge,
        To::VirtualHost => merge || matches!(operation, Op::Add | Op::Remove | Op::Replace),
        To::HttpRoute => insert || merge || matches!(operation, Op::Add | Op::Remove),
        To::ExtensionConfig => operation == Op::Add,
        To::Invalid | To::Bootstrap => false,
    };
    match (operation, possible) {
        (Op::Invalid, _) => Err((".patch.operation", "is missing".to_owned())),
        (_, true) => Ok(operation),
        (_, false) => Err((
            ".patch.operation",
            format!("{} has no effect on {}", name(&operation), name(&apply_to)),
        )),
    }
}

/// An enum value as people write it.
fn name(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(text)) => text,
        _ => String::new(),
    }
}

/// Whether the match is of the right kind, and says what to remove or to replace.
fn check_match(
    apply_to: ApplyTo,
    operation: PatchOperation,
    selector: &EnvoyConfigObjectMatch,
) -> Result<(), Refusal> {
    use ApplyTo as To;
    let (listener, routes, cluster) = match apply_to {
        To::Cluster => (false, false, true),
        To::RouteConfiguration | To::VirtualHost | To::HttpRoute => (false, true, false),
        To::ExtensionConfig => (true, true, true),
        _ => (true, false, false),
    };
    let wrong = [
        (".match.listener", selector.listener.is_some() && !listener),
        (
            ".match.routeConfiguration",
            selector.route_configuration.is_some() && !routes,
        ),
        (".match.cluster", selector.cluster.is_some() && !cluster),
    ];
    if let Some((field, _)) = wrong.into_iter().find(|(_, wrong)| *wrong) {
        return Err((field, format!("does not go with {}", name(&apply_to))));
    }
    let filter = selector
        .listener
        .as_ref()
        .and_then(|listener| listener.filter_chain.as_ref())
        .and_then(|chain| chain.filter.as_ref());
    let (field, named) = match apply_to {
        To::ListenerFilter => (
            ".match.listener.listenerFilter",
            selector
                .listener
                .as_ref()
                .is_some_and(|listener| !listener.listener_filter.is_empty()),
        ),
        To::NetworkFilter => (".match.listener.filterChain.filter", filter.is_some()),
        To::HttpFilter => (
            ".match.listener.filterChain.filter.subFilter",
            filter.is_some_and(|filter| filter.sub_filter.is_some()),
        ),
        _ => return Ok(()),
    };
    let needed = matches!(operation, PatchOperation::Remove | PatchOperation::Replace);
    if needed && !named {
        return Err((
            field,
            format!("is missing, and {} needs it", name(&operation)),
        ));
    }
    Ok(())
}

/// The value as a message. Fields that it does not have are left out, as at istiod, and reported.
fn message(
    apply_to: ApplyTo,
    value: &Value,
    object: &str,
    field: &str,
    problems: &mut Vec<Problem>,
) -> Result<DynamicMessage, Refusal> {
    let message_name = match apply_to {
        ApplyTo::Listener => Listener::FULL_NAME,
        ApplyTo::FilterChain => FilterChain::FULL_NAME,
        ApplyTo::NetworkFilter => Filter::FULL_NAME,
        ApplyTo::HttpFilter => HttpFilter::FULL_NAME,
        ApplyTo::RouteConfiguration => RouteConfiguration::FULL_NAME,
        ApplyTo::VirtualHost => VirtualHost::FULL_NAME,
        ApplyTo::HttpRoute => Route::FULL_NAME,
        ApplyTo::Cluster => Cluster::FULL_NAME,
        ApplyTo::ExtensionConfig => TypedExtensionConfig::FULL_NAME,
        ApplyTo::ListenerFilter => ListenerFilter::FULL_NAME,
        ApplyTo::Invalid | ApplyTo::Bootstrap => "",
    };
    let mut value = value.clone();
    if let Ok(descriptor) = xds::json::descriptor(message_name) {
        durations::in_seconds(&mut value, &descriptor);
    }
    let strict = match xds::json::dynamic_from_value(message_name, &value, true) {
        Ok(message) => return Ok(message),
        Err(error) => error,
    };
    let Ok(message) = xds::json::dynamic_from_value(message_name, &value, false) else {
        return Err((
            ".patch.value",
            format!("does not fit {message_name}: {strict}"),
        ));
    };
    problems.push(Problem::new(
        object,
        field,
        format!("{strict}; the rest of the patch applies"),
    ));
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::typed;
    use serde_json::json;

    /// Number of patches that are left, and the problems as text.
    fn read_patch(patch: Value) -> (usize, Vec<String>) {
        let object = json!({
            "kind": "EnvoyFilter",
            "metadata": {"name": "a", "namespace": "b"},
            "spec": {"configPatches": [patch]},
        });
        let mut problems = Vec::new();
        let filters = typed::<EnvoyFilter>(&object, &mut problems)
            .into_iter()
            .collect();
        let patches = prepare(filters, &mut problems);
        (
            patches.iter().map(|filter| filter.patches.len()).sum(),
            problems.iter().map(ToString::to_string).collect(),
        )
    }

    fn refusal(patch: Value) -> String {
        let (patches, problems) = read_patch(patch);
        assert_eq!((patches, problems.len()), (0, 1), "{problems:?}");
        problems.into_iter().next().unwrap()
    }

    #[test]
    fn what_never_has_an_effect_is_named() {
        let text =
            refusal(json!({"applyTo": "CLUSTER", "patch": {"operation": "REPLACE", "value": {}}}));
        assert_eq!(
            text,
            "EnvoyFilter/b/a: spec.configPatches[0].patch.operation: REPLACE has no effect on CLUSTER; the patch is ignored"
        );
        let text = refusal(json!({"applyTo": "CLUSTER", "patch": {"operation": "MERGE"}}));
        assert!(text.contains("patch.value: is missing"), "{text}");
        let text = refusal(json!({"applyTo": "HTTP_FILTER", "patch": {"operation": "REMOVE"}}));
        assert!(text.contains("filter.subFilter: is missing"), "{text}");
        let text = refusal(json!({
            "applyTo": "CLUSTER",
            "match": {"listener": {"portNumber": 80}},
            "patch": {"operation": "REMOVE"},
        }));
        assert!(
            text.contains("match.listener: does not go with CLUSTER"),
            "{text}"
        );
        let text =
            refusal(json!({"applyTo": "BOOTSTRAP", "patch": {"operation": "MERGE", "value": {}}}));
        assert!(text.contains("applyTo: BOOTSTRAP"), "{text}");
        let text = refusal(json!({
            "applyTo": "CLUSTER",
            "match": {"proxy": {"proxyVersion": "1.(" }},
            "patch": {"operation": "REMOVE"},
        }));
        assert!(
            text.contains("match.proxy.proxyVersion: is not a regular"),
            "{text}"
        );
    }

    #[test]
    fn values_are_messages() {
        let cluster = |value: Value| json!({"applyTo": "CLUSTER", "patch": {"operation": "MERGE", "value": value}});
        assert_eq!(
            read_patch(cluster(json!({"connect_timeout": "1m"}))),
            (1, Vec::new())
        );
        let text = refusal(cluster(json!({"connect_timeout": "soon"})));
        assert!(
            text.contains("does not fit envoy.config.cluster.v3.Cluster"),
            "{text}"
        );
        let (patches, problems) = read_patch(cluster(
            json!({"connect_timeout": "1s", "no_such_field": 3}),
        ));
        assert_eq!(patches, 1);
        assert!(problems[0].contains("no_such_field"), "{problems:?}");
        let text = refusal(
            json!({"applyTo": "HTTP_FILTER", "patch": {"operation": "INSERT_FIRST",
            "value": {"name": "x", "typed_config": {"@type": "type.googleapis.com/no.such.Type", "a": 1}}}}),
        );
        assert!(text.contains("no.such.Type"), "{text}");
    }
}
