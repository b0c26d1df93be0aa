//! Objects a fresh cluster has: namespaces, the `kubernetes` Service, roles.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::error::ApiResult;
use crate::rest::write::{WriteOptions, Writer};
use crate::state::Server;
use crate::{authn, policy};

const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// Creates what is missing and brings the addresses of the server up to date.
pub(crate) async fn run(server: &Arc<Server>) -> ApiResult<()> {
    let warnings = parking_lot::Mutex::new(Vec::new());
    let writer = Writer {
        server,
        user: authn::itself(),
        options: WriteOptions {
            manager: "theater-apiserver".into(),
            ..WriteOptions::default()
        },
        warnings: &warnings,
    };
    // Namespaces first: what lives in them needs them; the rest goes in together.
    ensure_all(&writer, NAMESPACES.iter().map(|n| namespace(n)).collect()).await?;
    let mut objects = policy::objects();
    objects.push(kubernetes_service(server));
    objects.push(authentication_config(server));
    objects.push(token_tracking());
    objects.extend(priority_classes());
    objects.push(standard_class());
    objects.extend(crate::flow::defaults());
    ensure_all(&writer, objects).await?;
    // This server shows itself to extension servers with another certificate than at the last start.
    replace(&writer, authentication_config(server)).await?;
    for object in [endpoints(server), endpoint_slice(server)] {
        if let Err(e) = replace(&writer, object).await {
            // A loopback address, for instance, is none that pods could use.
            tracing::warn!(error = %e, "the address of this server is not announced in the cluster");
        }
    }
    Ok(())
}

fn namespace(name: &str) -> Value {
    json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}})
}

fn kubernetes_service(server: &Server) -> Value {
    json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "clusterIP": server.allocator.pools.cluster.nth(1).to_string(),
            "type": "ClusterIP", "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": server.advertise.port()}],
        },
    })
}

fn endpoints(server: &Server) -> Value {
    json!({
        "kind": "Endpoints", "apiVersion": "v1",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{
            "addresses": [{"ip": server.advertise.ip().to_string()}],
            "ports": [{"name": "https", "port": server.advertise.port(), "protocol": "TCP"}],
        }],
    })
}

fn endpoint_slice(server: &Server) -> Value {
    json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [server.advertise.ip().to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": server.advertise.port(), "protocol": "TCP"}],
    })
}

/// The class of claims that name none: directories of the node, made when the first pod that needs one has a node.
fn standard_class() -> Value {
    json!({
        "kind": "StorageClass", "apiVersion": "storage.k8s.io/v1",
        "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": api::storage::PROVISIONER,
        "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": true,
    })
}

/// The classes of what a cluster cannot live without.
fn priority_classes() -> impl Iterator<Item = Value> {
    let about = |name: &str| match name {
        "system-node-critical" => {
            "Used for system critical pods that must not be moved from their current node."
        }
        _ => {
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."
        }
    };
    api::validate::policy::SYSTEM_PRIORITIES
        .into_iter()
        .map(move |(name, value)| {
            json!({
                "kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1", "metadata": {"name": name},
                "value": value, "description": about(name),
            })
        })
}

/// Where extension API servers look for how users and this server are recognised.
fn authentication_config(server: &Server) -> Value {
    json!({
        "kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": server.aggregator.authentication(&server.client_ca_pem),
    })
}

/// Since when uses of tokens in Secrets are noted: from the beginning. The controllers that clean them up ask for it.
fn token_tracking() -> Value {
    let now = crate::state::now();
    json!({
        "kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": "kube-apiserver-legacy-service-account-token-tracking", "namespace": "kube-system"},
        "data": {"since": now.get(..10).unwrap_or(&now)},
    })
}

async fn ensure_all(writer: &Writer<'_>, objects: Vec<Value>) -> ApiResult<()> {
    futures::future::try_join_all(objects.into_iter().map(|o| ensure(writer, o))).await?;
    Ok(())
}

async fn ensure(writer: &Writer<'_>, object: Value) -> ApiResult<()> {
    let (group, version) = api::meta::group_version(api::meta::api_version(&object));
    let kind = api::meta::kind(&object);
    let registry = writer.server.registry();
    let Some(resource) = registry
        .all()
        .iter()
        .find(|r| r.group == group && r.version == version && r.kind == kind)
    else {
        tracing::warn!(
            kind,
            group,
            "a bootstrap object is of a kind that is not served"
        );
        return Ok(());
    };
    let namespace = api::meta::namespace(&object).to_owned();
    let key = resource.key(&namespace, api::meta::name(&object));
    if let Some(stored) = writer.server.storage.cache().get(&key) {
        let Some(rules) = completed_rules(stored.value(), &object) else {
            return Ok(());
        };
        let edit = |old: &Value| {
            let mut new = old.clone();
            new["rules"] = rules.clone();
            Ok(new)
        };
        let name = api::meta::name(&object);
        writer.update(resource, "", name, "", &edit).await?;
        return Ok(());
    }
    match writer.create(resource, &namespace, object).await {
        Err(e) if e.reason != "AlreadyExists" => Err(e),
        _ => Ok(()),
    }
}

/// The rules of a role of an earlier start with those that have come since; `None` when it has them all, or when its owner
/// wants it left alone.
fn completed_rules(stored: &Value, wanted: &Value) -> Option<Value> {
    let autoupdate = api::meta::annotation(stored, "rbac.authorization.kubernetes.io/autoupdate");
    if api::meta::kind(stored) != "ClusterRole" || autoupdate != Some("true") {
        return None;
    }
    let mut rules = stored["rules"].as_array().cloned().unwrap_or_default();
    let before = rules.len();
    for rule in wanted["rules"].as_array().into_iter().flatten() {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    (rules.len() > before).then(|| rules.into())
}

/// Creates or overwrites: the address may be another one than at the last start.
async fn replace(writer: &Writer<'_>, object: Value) -> ApiResult<()> {
    ensure(writer, object.clone()).await?;
    let (group, version) = api::meta::group_version(api::meta::api_version(&object));
    let registry = writer.server.registry();
    let kind = api::meta::kind(&object);
    let mut served = registry.all().iter();
    let Some(resource) =
        served.find(|r| r.group == group && r.version == version && r.kind == kind)
    else {
        return Ok(());
    };
    let edit = |old: &Value| {
        let mut new = old.clone();
        for field in ["subsets", "endpoints", "ports", "data"] {
            if let Some(v) = object.get(field) {
                new[field] = v.clone();
            }
        }
        Ok(new)
    };
    let (namespace, name) = (api::meta::namespace(&object), api::meta::name(&object));
    writer.update(resource, namespace, name, "", &edit).await?;
    Ok(())
}

/// Gives up what is older than one to two intervals: lists in pages do not live longer.
pub(crate) async fn compact(server: Arc<Server>) {
    /// As often as kube-apiserver asks etcd to.
    const EVERY: std::time::Duration = std::time::Duration::from_secs(300);
    let mut last = server.storage.cache().revision();
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = server.shutdown.cancelled() => return,
        }
        server.storage.cache().compact(last);
        last = server.storage.cache().revision();
    }
}

/// Lets go of what was taken apart and is not looked at any more.
pub(crate) async fn cool(server: Arc<Server>) {
    const EVERY: std::time::Duration = std::time::Duration::from_secs(15);
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = server.shutdown.cancelled() => return,
        }
        server.storage.cache().cool();
    }
}

/// Removes events older than an hour, as the real server's leases do.
pub(crate) async fn expire_events(server: Arc<Server>) {
    use crate::storage::{Change, Expect, Key};
    const LIFE: i64 = 3600;
    let table: Arc<str> = "core/events".into();
    loop {
        tokio::select! {
            () = tokio::time::sleep(std::time::Duration::from_secs(60)) => {}
            () = server.shutdown.cancelled() => return,
        }
        let oldest = crate::state::unix_now() - LIFE;
        let (events, _) = server.storage.cache().list(&table, "");
        for (path, event) in events {
            let object = event.glance();
            let last = object["lastTimestamp"]
                .as_str()
                .or_else(|| object["eventTime"].as_str())
                .or_else(|| api::meta::creation_timestamp(&object))
                .and_then(api::time::parse);
            if last.is_some_and(|t| t.unix_timestamp() < oldest) {
                let key = Key {
                    table: table.clone(),
                    path,
                };
                // Written again in between: it is not old any more.
                let _ = server
                    .storage
                    .write(key, Expect::Revision(event.revision), Change::Delete(None))
                    .await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_of_an_earlier_start_get_the_rules_that_have_come_since() {
        let role = |rules: Value, autoupdate: &str| {
            json!({"kind": "ClusterRole", "rules": rules,
                "metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": autoupdate}}})
        };
        let (a, b, own) = (
            json!({"verbs": ["a"]}),
            json!({"verbs": ["b"]}),
            json!({"verbs": ["own"]}),
        );
        let wanted = role(json!([a, b]), "true");
        assert_eq!(
            completed_rules(&role(json!([a, own]), "true"), &wanted),
            Some(json!([a, own, b]))
        );
        assert_eq!(completed_rules(&wanted, &wanted), None);
        assert_eq!(completed_rules(&role(json!([a]), "false"), &wanted), None);
    }
}
