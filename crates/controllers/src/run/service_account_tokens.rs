//! Tokens in Secrets of type `kubernetes.io/service-account-token`: filled when the Secret names an account, gone with the account.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube_client::{Client, SECRETS, SERVICE_ACCOUNTS, StoreEvent};
use serde_json::{Value, json};

use super::{Context, Key, key_of};
use crate::action::{Action, Executor};
use crate::object::{items, text};
use crate::work::{WorkQueue, Worked};

/// The type of the Secrets.
pub(super) const TYPE: &str = "kubernetes.io/service-account-token";
/// The annotation with the name of the account.
const ACCOUNT: &str = "kubernetes.io/service-account.name";
/// The annotation with its uid.
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

pub(super) async fn run(context: &Context, root_ca_pem: &str, key_pem: Option<&str>) {
    let Some(key_pem) = key_pem else {
        tracing::info!(
            "tokens of service accounts in Secrets are not filled in: there is no key to sign them"
        );
        return;
    };
    let signer = match pki::KeyPair::from_pem(key_pem).and_then(|key| pki::jwt::Signer::new(&key)) {
        Ok(signer) => signer,
        Err(error) => {
            tracing::error!(%error, "tokens of service accounts cannot be signed");
            return;
        }
    };
    let queue = WorkQueue::new();
    queue.feed(&context.token_secrets, &context.token, |event| {
        [key_of(event.object())]
    });
    let secrets = context.token_secrets.clone();
    queue.feed(&context.service_accounts, &context.token, move |event| {
        // An account that comes or changes alters nothing about its Secrets; one that goes takes them along.
        let StoreEvent::Deleted(account) = event else {
            return Vec::new();
        };
        secrets
            .list_namespace(api::meta::namespace(account))
            .iter()
            .filter(|secret| named(secret) == api::meta::name(account))
            .map(|secret| key_of(secret))
            .collect()
    });
    let work = {
        let tools = Arc::new(Tools {
            context: context.clone(),
            executor: context.executor("service-account-token-controller"),
            signer,
            root_ca: STANDARD.encode(root_ca_pem),
        });
        move |key| work(tools.clone(), key)
    };
    queue
        .run("service-account-tokens", &context.token, work)
        .await;
}

struct Tools {
    context: Context,
    executor: Executor,
    signer: pki::jwt::Signer,
    /// Base64 of the authority.
    root_ca: String,
}

async fn work(tools: Arc<Tools>, (ns, name): Key) -> Worked {
    let context = &tools.context;
    let accounts = &context.service_accounts;
    let actions = match context.token_secrets.get(&ns, &name) {
        None => accounts
            .list_namespace(&ns)
            .iter()
            .filter_map(|account| forget(account, &name))
            .collect(),
        Some(secret) => {
            let account = match account_of(&secret, accounts.get(&ns, named(&secret))) {
                // The local copy may be behind, and a Secret deleted in error is lost.
                None => account_of(&secret, ask(&context.client, &ns, named(&secret)).await?),
                found => found,
            };
            match account {
                None => vec![Action::delete(SECRETS, &secret)],
                Some(account) => fill(&secret, &account, &tools.root_ca, |claims| {
                    tools.signer.sign(claims)
                })
                .unwrap_or_else(|error| {
                    tracing::error!(%error, ns, name, "a token could not be signed");
                    None
                })
                .into_iter()
                .collect(),
            }
        }
    };
    Ok(tools.executor.run(actions).await.map(|()| None)?)
}

/// The name of the account a Secret is for.
fn named(secret: &Value) -> &str {
    api::meta::annotation(secret, ACCOUNT).unwrap_or_default()
}

async fn ask(client: &Client, ns: &str, name: &str) -> kube_client::Result<Option<Arc<Value>>> {
    match client.get(&SERVICE_ACCOUNTS, Some(ns), name).await {
        Ok(account) => Ok(Some(Arc::new(account))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The account, when it is the one the Secret means and not a later one of the same name.
fn account_of(secret: &Value, account: Option<Arc<Value>>) -> Option<Arc<Value>> {
    let uid = api::meta::annotation(secret, ACCOUNT_UID).unwrap_or_default();
    account.filter(|account| uid.is_empty() || uid == api::meta::uid(account))
}

/// What the Secret still lacks: the authority, the namespace, the token, the uid of the account.
fn fill<E>(
    secret: &Value,
    account: &Value,
    root_ca: &str,
    sign: impl FnOnce(&pki::jwt::SecretClaims) -> Result<String, E>,
) -> Result<Option<Action>, E> {
    let (ns, name) = (api::meta::namespace(secret), api::meta::name(account));
    let has = &secret["data"];
    let mut data = json!({});
    if has["ca.crt"] != root_ca {
        data["ca.crt"] = root_ca.into();
    }
    if text(&has["namespace"]).is_empty() {
        data["namespace"] = STANDARD.encode(ns).into();
    }
    if text(&has["token"]).is_empty() {
        let token = sign(&pki::jwt::SecretClaims {
            iss: pki::jwt::SECRET_ISSUER.to_owned(),
            namespace: ns.to_owned(),
            secret: api::meta::name(secret).to_owned(),
            account: name.to_owned(),
            account_uid: api::meta::uid(account).to_owned(),
            sub: format!("system:serviceaccount:{ns}:{name}"),
        })?;
        data["token"] = STANDARD.encode(token).into();
    }
    if data == json!({}) {
        return Ok(None);
    }
    // Of the Secret as it was seen: nobody else's token is overwritten.
    let patch = json!({
        "metadata": {
            "resourceVersion": api::meta::resource_version(secret),
            "annotations": {ACCOUNT: name, ACCOUNT_UID: api::meta::uid(account)},
        },
        "data": data,
    });
    Ok(Some(Action::patch(SECRETS, secret, patch)))
}

/// Takes a Secret that is gone off the list of its account.
fn forget(account: &Value, secret: &str) -> Option<Action> {
    let listed = items(&account["secrets"]);
    let left: Vec<&Value> = listed.iter().filter(|s| s["name"] != secret).collect();
    (left.len() < listed.len()).then(|| {
        let patch = json!({
            "metadata": {"resourceVersion": api::meta::resource_version(account)},
            "secrets": left,
        });
        Action::patch(SERVICE_ACCOUNTS, account, patch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Verb;

    fn secret(data: &Value) -> Value {
        json!({"metadata": {"name": "t", "namespace": "a", "resourceVersion": "7", "annotations": {ACCOUNT: "web"}}, "data": data})
    }

    fn patch(action: Option<Action>) -> Value {
        match action.map(|a| a.verb) {
            Some(Verb::Patch(patch, None)) => patch,
            None => Value::Null,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_secret_is_given_what_it_lacks_and_no_more() {
        let account = json!({"metadata": {"name": "web", "namespace": "a", "uid": "u"}});
        let sign = |claims: &pki::jwt::SecretClaims| -> Result<String, ()> {
            assert_eq!(claims.sub, "system:serviceaccount:a:web");
            assert_eq!(
                (claims.secret.as_str(), claims.account_uid.as_str()),
                ("t", "u")
            );
            Ok("TOKEN".into())
        };
        let all = patch(fill(&secret(&Value::Null), &account, "Q0E=", sign).unwrap());
        assert_eq!(
            all,
            json!({"metadata": {"resourceVersion": "7", "annotations": {ACCOUNT: "web", ACCOUNT_UID: "u"}},
                "data": {"ca.crt": "Q0E=", "namespace": "YQ==", "token": "VE9LRU4="}})
        );
        let some = secret(&json!({"ca.crt": "b2xk", "namespace": "YQ==", "token": "VE9LRU4="}));
        let never = |_: &pki::jwt::SecretClaims| -> Result<String, ()> { panic!("it has a token") };
        assert_eq!(
            patch(fill(&some, &account, "Q0E=", never).unwrap())["data"],
            json!({"ca.crt": "Q0E="})
        );
        assert_eq!(
            fill(&secret(&all["data"]), &account, "Q0E=", never),
            Ok(None)
        );
    }

    #[test]
    fn a_later_account_of_the_same_name_is_another_one() {
        let account = || Some(Arc::new(json!({"metadata": {"uid": "new"}})));
        let mut token = secret(&Value::Null);
        assert!(account_of(&token, account()).is_some());
        token["metadata"]["annotations"][ACCOUNT_UID] = "old".into();
        assert!(account_of(&token, account()).is_none());
    }

    #[test]
    fn an_account_forgets_a_secret_that_is_gone() {
        let account = json!({"metadata": {"name": "web", "namespace": "a", "resourceVersion": "3"}, "secrets": [{"name": "t"}, {"name": "other"}]});
        assert_eq!(
            patch(forget(&account, "t"))["secrets"],
            json!([{"name": "other"}])
        );
        assert!(forget(&account, "unknown").is_none());
    }
}
