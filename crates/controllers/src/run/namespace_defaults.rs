//! What every namespace is given: the ServiceAccount `default` and the cluster's authority.

use std::sync::Arc;

use kube_client::{CONFIG_MAPS, SERVICE_ACCOUNTS};
use serde_json::{Value, json};

use super::Context;
use crate::action::{Action, Executor};
use crate::work::{WorkQueue, Worked};

/// The ConfigMap with the authority of the API server's certificate.
pub(super) const ROOT_CA: &str = "kube-root-ca.crt";
const DEFAULT_ACCOUNT: &str = "default";

pub(super) async fn run(context: &Context, root_ca_pem: &str) {
    let queue = WorkQueue::new();
    let token = &context.token;
    queue.feed(&context.namespaces, token, |event| {
        [api::meta::name(event.object()).to_owned()]
    });
    for store in [&context.service_accounts, &context.root_cas] {
        queue.feed(store, token, |event| {
            let object = event.object();
            let ours = [DEFAULT_ACCOUNT, ROOT_CA].contains(&api::meta::name(object));
            ours.then(|| api::meta::namespace(object).to_owned())
        });
    }
    let executor = context.executor("namespace-defaults-controller");
    let root_ca: Arc<str> = root_ca_pem.into();
    let context = context.clone();
    let work = {
        let context = context.clone();
        move |ns| work(context.clone(), executor.clone(), root_ca.clone(), ns)
    };
    queue.run("namespace-defaults", &context.token, work).await;
}

async fn work(context: Context, executor: Executor, root_ca: Arc<str>, ns: String) -> Worked {
    let Some(namespace) = context.namespaces.get("", &ns) else {
        return Ok(None);
    };
    let account = context.service_accounts.get(&ns, DEFAULT_ACCOUNT);
    let map = context.root_cas.get(&ns, ROOT_CA);
    let actions = reconcile(&namespace, account.is_some(), map.as_deref(), &root_ca);
    match executor.run(actions).await {
        Err(failed) if crate::action::is_terminating_namespace(&failed.error) => Ok(None),
        other => Ok(other.map(|()| None)?),
    }
}

fn reconcile(
    namespace: &Value,
    has_account: bool,
    map: Option<&Value>,
    root_ca: &str,
) -> Vec<Action> {
    if crate::object::is_terminating(namespace) || namespace["status"]["phase"] == "Terminating" {
        return Vec::new();
    }
    let ns = api::meta::name(namespace);
    let mut actions = Vec::new();
    if !has_account {
        let account = json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": DEFAULT_ACCOUNT, "namespace": ns},
        });
        actions.push(Action::create(SERVICE_ACCOUNTS, account));
    }
    match map {
        None => actions.push(Action::create(CONFIG_MAPS, json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": ROOT_CA,
                "namespace": ns,
                "annotations": {"kubernetes.io/description":
                    "The authority to check the API server with at its address inside the cluster. It is not meant for anything else."},
            },
            "data": {"ca.crt": root_ca},
        }))),
        Some(map) if map["data"]["ca.crt"] != root_ca => {
            actions.push(Action::patch(CONFIG_MAPS, map, json!({"data": {"ca.crt": root_ca}})));
        }
        Some(_) => {}
    }
    actions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Verb;

    #[test]
    fn missing_things_are_made_and_changed_ones_restored() {
        let ns = json!({"metadata": {"name": "a"}, "status": {"phase": "Active"}});
        let actions = reconcile(&ns, false, None, "CA");
        let kinds: Vec<_> = actions
            .iter()
            .map(|action| action.target.resource.kind.as_ref())
            .collect();
        assert_eq!(kinds, ["ServiceAccount", "ConfigMap"]);
        let map =
            json!({"metadata": {"name": ROOT_CA, "namespace": "a"}, "data": {"ca.crt": "other"}});
        let actions = reconcile(&ns, true, Some(&map), "CA");
        assert_eq!(
            actions[0].verb,
            Verb::Patch(json!({"data": {"ca.crt": "CA"}}), None)
        );
        let map = json!({"data": {"ca.crt": "CA"}});
        assert!(reconcile(&ns, true, Some(&map), "CA").is_empty());
    }

    #[test]
    fn a_namespace_that_goes_gets_nothing() {
        let ns = json!({"metadata": {"name": "a", "deletionTimestamp": "2025-01-01T00:00:00Z"}});
        assert!(reconcile(&ns, false, None, "CA").is_empty());
    }
}
