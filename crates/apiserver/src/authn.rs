//! Who is asking: client certificates, service-account tokens, impersonation.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult};
use crate::rest::write::{WriteOptions, Writer};
use crate::state::Server;
use crate::storage::{Key, Storage};
use crate::target::percent_decode;

/// An authenticated user.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

pub(crate) const AUTHENTICATED: &str = "system:authenticated";

impl User {
    /// The `userInfo` of reviews and admission requests.
    pub fn to_value(&self) -> Value {
        let mut out = json!({"username": self.name});
        if !self.uid.is_empty() {
            out["uid"] = self.uid.clone().into();
        }
        out["groups"] = self.groups.clone().into();
        if !self.extra.is_empty() {
            out["extra"] = json!(self.extra);
        }
        out
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// Reads a verified client certificate: the common name is the user, organizations are groups.
pub(crate) fn certificate_user(der: &[u8]) -> Option<User> {
    let identity = pki::peer_identity(der).ok()?;
    let name = identity.common_name.filter(|n| !n.is_empty())?;
    let mut groups = identity.organizations;
    groups.push(AUTHENTICATED.into());
    Some(User {
        name,
        uid: String::new(),
        groups,
        extra: BTreeMap::from([(
            "authentication.kubernetes.io/credential-id".to_owned(),
            vec![format!("X509SHA256={}", pki::fingerprint(der))],
        )]),
    })
}

/// Service-account tokens: who signs them and what they are good for.
pub(crate) struct Tokens {
    pub signer: pki::jwt::Signer,
    pub verifier: pki::jwt::Verifier,
    pub issuer: String,
}

impl Tokens {
    /// Checks a token against `audiences` (empty: this server's own) and against the objects
    /// it is bound to: a token dies with its account, pod or Secret.
    pub fn verify(
        &self,
        storage: &Storage,
        token: &str,
        audiences: &[String],
        now: i64,
    ) -> Result<Verified, String> {
        let own = [self.issuer.clone()];
        let wanted: Vec<&str> = if audiences.is_empty() {
            &own
        } else {
            audiences
        }
        .iter()
        .map(String::as_str)
        .collect();
        if pki::jwt::unverified_issuer(token).as_deref() == Some(pki::jwt::SECRET_ISSUER) {
            return self.verify_of_secret(storage, token, &wanted);
        }
        let claims = self
            .verifier
            .verify(
                token,
                &pki::jwt::Expect {
                    issuer: &self.issuer,
                    audiences: &wanted,
                    now,
                },
            )
            .map_err(|e| e.to_string())?;
        let bound = claims
            .kubernetes
            .as_ref()
            .ok_or("the token names no service account")?;
        let ns = &bound.namespace;
        still_there(storage, "serviceaccounts", ns, &bound.serviceaccount)?;
        let mut extra = BTreeMap::new();
        if let Some(jti) = &claims.jti {
            extra.insert(
                "authentication.kubernetes.io/credential-id".to_owned(),
                vec![format!("JTI={jti}")],
            );
        }
        if let Some(pod) = &bound.pod {
            still_there(storage, "pods", ns, pod)?;
            extra.insert(
                "authentication.kubernetes.io/pod-name".to_owned(),
                vec![pod.name.clone()],
            );
            extra.insert(
                "authentication.kubernetes.io/pod-uid".to_owned(),
                vec![pod.uid.clone()],
            );
        }
        if let Some(secret) = &bound.secret {
            still_there(storage, "secrets", ns, secret)?;
        }
        if let Some(node) = &bound.node {
            if bound.pod.is_none() {
                still_there(storage, "nodes", "", node)?;
            }
            extra.insert(
                "authentication.kubernetes.io/node-name".to_owned(),
                vec![node.name.clone()],
            );
            if !node.uid.is_empty() {
                extra.insert(
                    "authentication.kubernetes.io/node-uid".to_owned(),
                    vec![node.uid.clone()],
                );
            }
        }
        let user = User {
            name: claims.sub.clone(),
            uid: bound.serviceaccount.uid.clone(),
            groups: service_account_groups(ns),
            extra,
        };
        let audiences = claims
            .aud
            .into_iter()
            .filter(|a| wanted.contains(&a.as_str()))
            .collect();
        Ok(Verified {
            user,
            audiences,
            secret: None,
        })
    }

    /// Checks a token that lives in a Secret: it is good for this server's own audience, for as long as the Secret holds it.
    fn verify_of_secret(
        &self,
        storage: &Storage,
        token: &str,
        wanted: &[&str],
    ) -> Result<Verified, String> {
        let claims = self
            .verifier
            .verify_of_secret(token)
            .map_err(|e| e.to_string())?;
        if !wanted.contains(&self.issuer.as_str()) {
            return Err(format!(
                "token audiences [{:?}] is invalid for the target audiences {wanted:?}",
                self.issuer
            ));
        }
        let ns = &claims.namespace;
        let key = Key::new(&"core/secrets".into(), ns, &claims.secret);
        let held = storage
            .cache()
            .get(&key)
            .filter(|secret| api::meta::deletion_timestamp(secret.value()).is_none())
            .ok_or("service account token has been invalidated")?;
        let held = STANDARD
            .decode(held.value()["data"]["token"].as_str().unwrap_or_default())
            .unwrap_or_default();
        if held != token.as_bytes() {
            return Err("token does not match server's copy".to_owned());
        }
        let account = pki::jwt::ObjectId {
            name: claims.account,
            uid: claims.account_uid,
        };
        still_there(storage, "serviceaccounts", ns, &account)?;
        let user = User {
            name: claims.sub,
            uid: account.uid,
            groups: service_account_groups(ns),
            extra: BTreeMap::new(),
        };
        Ok(Verified {
            user,
            audiences: vec![self.issuer.clone()],
            secret: Some(key),
        })
    }
}

/// Whose token it is.
pub(crate) struct Verified {
    pub user: User,
    /// Those of the audiences asked for that it is good for.
    pub audiences: Vec<String>,
    /// The Secret it lives in, when it lives in one.
    pub secret: Option<Key>,
}

/// Does what a token is bound to exist, and is it the same as then?
fn still_there(
    storage: &Storage,
    plural: &str,
    ns: &str,
    id: &pki::jwt::ObjectId,
) -> Result<(), String> {
    let key = Key::new(&format!("core/{plural}").into(), ns, &id.name);
    let found = storage
        .cache()
        .get(&key)
        .ok_or_else(|| format!("{plural} {}/{} has been deleted", ns, id.name))?;
    if !id.uid.is_empty() && api::meta::uid(found.value()) != id.uid {
        return Err(format!("{plural} {}/{} has been replaced", ns, id.name));
    }
    Ok(())
}

/// The label of a Secret that says on which day its token was last used.
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";

/// Notes on a Secret that its token is in use, once a day.
pub(crate) fn note_use(server: &Arc<Server>, secret: &Key) {
    let now = crate::state::now();
    let today = now.get(..10).unwrap_or(&now).to_owned();
    let current = server.storage.cache().get(secret);
    let Some(current) =
        current.filter(|s| api::meta::label(s.value(), LAST_USED) != Some(today.as_str()))
    else {
        return;
    };
    let server = server.clone();
    tokio::spawn(async move {
        let registry = server.registry();
        let Some(resource) = registry.find("", "v1", "secrets") else {
            return;
        };
        let warnings = parking_lot::Mutex::default();
        let writer = Writer {
            server: &server,
            user: itself(),
            options: WriteOptions {
                manager: "kube-apiserver".into(),
                ..WriteOptions::default()
            },
            warnings: &warnings,
        };
        let label = |old: &Value| {
            let mut new = old.clone();
            api::meta::map_mut(&mut new["metadata"], "labels")
                .insert(LAST_USED.to_owned(), today.clone().into());
            Ok(new)
        };
        let (ns, name) = (
            api::meta::namespace(current.value()),
            api::meta::name(current.value()),
        );
        if let Err(e) = writer.update(resource, ns, name, "", &label).await {
            tracing::debug!(error = %e, ns, name, "the use of a token could not be noted");
        }
    });
}

/// The groups every service account of a namespace is in.
pub(crate) fn service_account_groups(namespace: &str) -> Vec<String> {
    vec![
        "system:serviceaccounts".into(),
        format!("system:serviceaccounts:{namespace}"),
        AUTHENTICATED.into(),
    ]
}

/// The bearer token of a request: the header, or the WebSocket protocol browsers use.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty())
        .then(|| token.trim().to_owned())
}

/// What somebody asks to act as (`kubectl --as`), and each identity they need permission for.
pub(crate) struct Impersonation {
    pub user: User,
    /// (resource, namespace, name) of each `impersonate` check.
    pub checks: Vec<(&'static str, String, String)>,
}

/// Reads the `Impersonate-*` headers; `None` when there are none.
pub(crate) fn impersonation(headers: &HeaderMap) -> ApiResult<Option<Impersonation>> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let mut groups: Vec<String> = headers
        .get_all("impersonate-group")
        .iter()
        .filter_map(|v| v.to_str().ok().map(str::to_owned))
        .collect();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let (Some(key), Ok(value)) = (
            name.as_str().strip_prefix("impersonate-extra-"),
            value.to_str(),
        ) {
            let key = percent_decode(key, false).unwrap_or_else(|| key.to_owned());
            extra.entry(key).or_default().push(value.to_owned());
        }
    }
    let Some(name) = text("impersonate-user").filter(|n| !n.is_empty()) else {
        if groups.is_empty() && extra.is_empty() && text("impersonate-uid").is_none() {
            return Ok(None);
        }
        return Err(ApiError::internal(
            "requested groups, uid or extra to impersonate without impersonating a user",
        ));
    };
    let mut checks = Vec::new();
    match name
        .strip_prefix("system:serviceaccount:")
        .and_then(|r| r.split_once(':'))
    {
        Some((ns, account)) => {
            checks.push(("serviceaccounts", ns.to_owned(), account.to_owned()));
            if groups.is_empty() {
                groups = service_account_groups(ns);
            }
        }
        None => checks.push(("users", String::new(), name.to_owned())),
    }
    for group in headers.get_all("impersonate-group") {
        if let Ok(group) = group.to_str() {
            checks.push(("groups", String::new(), group.to_owned()));
        }
    }
    for (key, values) in &extra {
        for value in values {
            checks.push(("userextras", key.clone(), value.clone()));
        }
    }
    if name != "system:anonymous" && !groups.iter().any(|g| g == AUTHENTICATED) {
        groups.push(AUTHENTICATED.into());
    }
    Ok(Some(Impersonation {
        user: User {
            name: name.to_owned(),
            uid: text("impersonate-uid").unwrap_or("").to_owned(),
            groups,
            extra,
        },
        checks,
    }))
}

/// A user from the `spec` of an access review.
pub(crate) fn review_user(spec: &Value) -> User {
    let texts = |v: &Value| -> Vec<String> {
        v.as_array()
            .map(|a| {
                a.iter()
                    .filter_map(|g| g.as_str().map(str::to_owned))
                    .collect()
            })
            .unwrap_or_default()
    };
    User {
        name: spec["user"].as_str().unwrap_or("").to_owned(),
        uid: spec["uid"].as_str().unwrap_or("").to_owned(),
        groups: texts(&spec["groups"]),
        extra: spec["extra"]
            .as_object()
            .map(|m| m.iter().map(|(k, v)| (k.clone(), texts(v))).collect())
            .unwrap_or_default(),
    }
}

/// Somebody who has not said who they are.
pub(crate) fn anonymous() -> User {
    User {
        name: "system:anonymous".into(),
        uid: String::new(),
        groups: vec!["system:unauthenticated".into()],
        extra: BTreeMap::new(),
    }
}

/// The user of the server itself, for what it does on its own behalf.
pub(crate) fn itself() -> Arc<User> {
    Arc::new(User {
        name: "system:apiserver".into(),
        uid: String::new(),
        groups: vec!["system:masters".into(), AUTHENTICATED.into()],
        extra: BTreeMap::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn impersonating_a_service_account_brings_its_groups() {
        let mut headers = HeaderMap::new();
        assert!(impersonation(&headers).unwrap().is_none());
        headers.insert(
            "impersonate-user",
            HeaderValue::from_static("system:serviceaccount:d:web"),
        );
        let asked = impersonation(&headers).unwrap().unwrap();
        assert!(asked.user.is_in("system:serviceaccounts:d"));
        assert_eq!(
            asked.checks,
            [("serviceaccounts", "d".to_owned(), "web".to_owned())]
        );
    }

    #[test]
    fn a_group_without_a_user_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert("impersonate-group", HeaderValue::from_static("g"));
        assert!(impersonation(&headers).is_err());
    }
}
