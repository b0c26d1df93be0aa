//! Who is calling: a workload known by its certificate or by its service-account token.

use kube_client::{Client, TOKEN_REVIEWS};
use pki::spiffe::SpiffeId;
use serde_json::{Value, json};

/// The audience of tokens that are meant for istiod.
pub const AUDIENCE: &str = "istio-ca";

/// A caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller {
    /// Namespace of its service account.
    pub namespace: String,
    /// Name of its service account.
    pub service_account: String,
}

impl Caller {
    /// From the identity in a certificate of the mesh.
    #[must_use]
    pub fn of_spiffe(id: &SpiffeId) -> Self {
        Self {
            namespace: id.namespace.clone(),
            service_account: id.service_account.clone(),
        }
    }

    /// From `system:serviceaccount:<namespace>:<name>`.
    #[must_use]
    pub fn of_user(user: &str) -> Option<Self> {
        let (namespace, service_account) = user
            .strip_prefix("system:serviceaccount:")?
            .split_once(':')?;
        Some(Self {
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
        })
    }
}

/// Asks clusters whether a token is good: the workload may be of any cluster of the mesh.
///
/// # Errors
/// Why nobody vouches for the token, in one line.
pub async fn review(clients: &[Client], token: &str) -> Result<Caller, String> {
    let mut reasons = Vec::new();
    for client in clients {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [AUDIENCE]},
        });
        match client.create(&TOKEN_REVIEWS, None, &review).await {
            Ok(answer) => match verdict(&answer) {
                Ok(caller) => return Ok(caller),
                Err(reason) => reasons.push(reason),
            },
            Err(error) => reasons.push(format!("token review failed: {error}")),
        }
    }
    Err(reasons.join("; "))
}

/// Reads the answer of a TokenReview.
fn verdict(answer: &Value) -> Result<Caller, String> {
    let status = &answer["status"];
    if status["authenticated"] != true {
        let reason = status["error"].as_str().unwrap_or("no reason given");
        return Err(format!("the token was not accepted: {reason}"));
    }
    let for_us = status["audiences"]
        .as_array()
        .is_some_and(|audiences| audiences.iter().any(|audience| audience == AUDIENCE));
    if !for_us {
        return Err(format!("the token is not for the audience {AUDIENCE}"));
    }
    let user = status["user"]["username"].as_str().unwrap_or_default();
    Caller::of_user(user).ok_or_else(|| format!("{user:?} is not a service account"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_accepted_service_accounts_for_our_audience_pass() {
        let answer = |authenticated: bool, audience: &str, user: &str| {
            verdict(
                &json!({"status": {"authenticated": authenticated, "audiences": [audience],
                "user": {"username": user}}}),
            )
        };
        let good = "system:serviceaccount:theater-msa:default";
        let caller = answer(true, AUDIENCE, good).unwrap();
        assert_eq!(caller.namespace, "theater-msa");
        assert_eq!(caller.service_account, "default");
        assert!(answer(false, AUDIENCE, good).is_err());
        assert!(answer(true, "api", good).is_err());
        assert!(answer(true, AUDIENCE, "alice").is_err());
    }
}
