//! Puts the mesh's root into the configurations of the validating webhook, and lets them insist on an answer as soon as one
//! comes: until a wrong object is refused by way of the API server, nobody waits for this webhook.

use std::time::Duration;

use http::Method;
use kube_client::{Client, PatchType, Resource, SERVICES};
use runtime::CancellationToken;
use serde_json::{Value, json};
use tokio::net::TcpStream;

const CONFIGURATIONS: Resource = Resource::fixed(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
);

/// The configuration of a revision and the one for everything without a revision.
const NAMES: [&str; 2] = ["istio-validator-istio-system", "istiod-default-validator"];

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// Marks an object that the webhook always refuses.
const ALWAYS_REJECT: &str = "internal.istio.io/webhook-always-reject";

/// Registers until it has worked or `token` is cancelled.
pub async fn register(
    client: Client,
    namespace: String,
    root_pem: String,
    token: CancellationToken,
) {
    let bundle = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(root_pem)
    };
    let work = async {
        // Who is asked at an address that nobody answers yet waits for a time limit.
        while !answers(&client, &namespace).await {
            tokio::time::sleep(PAUSE).await;
        }
        set(&client, &bundle, "Ignore").await;
        while !refuses(&client, &namespace).await {
            tokio::time::sleep(PAUSE).await;
        }
        set(&client, &bundle, "Fail").await;
        tracing::info!("the validating webhook is asked about every Istio object");
    };
    tokio::select! {
        () = work => {}
        () = token.cancelled() => {}
    }
}

/// Can the webhook be reached where the API server reaches it?
async fn answers(client: &Client, namespace: &str) -> bool {
    let Ok(service) = client.get(&SERVICES, Some(namespace), "istiod").await else {
        return false;
    };
    let Some(ip) = service["spec"]["clusterIP"].as_str() else {
        return false;
    };
    let port = service["spec"]["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|port| port["name"] == "https-webhook")
        .and_then(|port| port["port"].as_u64())
        .unwrap_or(443);
    let connected = TcpStream::connect(format!("{ip}:{port}"));
    matches!(
        tokio::time::timeout(Duration::from_secs(1), connected).await,
        Ok(Ok(_))
    )
}

/// Is a wrong object refused by this webhook, and not by something else?
async fn refuses(client: &Client, namespace: &str) -> bool {
    let path = format!(
        "/apis/networking.istio.io/v1/namespaces/{namespace}/gateways?dryRun=All&fieldValidation=Ignore"
    );
    let body = probe(namespace).to_string();
    let answer = client
        .raw(Method::POST, &path, Some(body.into()), None)
        .await;
    answer.is_ok_and(|(status, body)| {
        !status.is_success() && String::from_utf8_lossy(&body).contains("denied the request")
    })
}

/// The wrong object; it asks both configurations.
fn probe(namespace: &str) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {
            "name": "invalid-gateway",
            "namespace": namespace,
            "labels": {"istio.io/rev": "default"},
            "annotations": {ALWAYS_REJECT: "true"},
        },
        "spec": {},
    })
}

/// Writes bundle and policy into the configurations that are there.
async fn set(client: &Client, bundle: &str, policy: &str) {
    for name in NAMES {
        while let Err(error) = set_one(client, name, bundle, policy).await {
            if error.is_not_found() {
                break;
            }
            tracing::warn!(name, %error, "cannot register the validating webhook, trying again");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn set_one(
    client: &Client,
    name: &str,
    bundle: &str,
    policy: &str,
) -> kube_client::Result<()> {
    let configuration = client.get(&CONFIGURATIONS, None, name).await?;
    let Some(patch) = changes(&configuration, bundle, policy) else {
        return Ok(());
    };
    client
        .patch_only(&CONFIGURATIONS, None, name, &PatchType::Json, &patch, None)
        .await
}

/// The patch that brings a configuration there; none when it is there. A configuration that insists already keeps insisting.
fn changes(configuration: &Value, bundle: &str, policy: &str) -> Option<Value> {
    let mut operations = Vec::new();
    let webhooks = configuration["webhooks"].as_array()?;
    for (i, webhook) in webhooks.iter().enumerate() {
        if webhook["clientConfig"]["caBundle"] != bundle {
            operations.push(json!({"op": "add", "path": format!("/webhooks/{i}/clientConfig/caBundle"), "value": bundle}));
        }
        if policy == "Fail" && webhook["failurePolicy"] != policy {
            operations.push(json!({"op": "add", "path": format!("/webhooks/{i}/failurePolicy"), "value": policy}));
        }
    }
    (!operations.is_empty()).then(|| operations.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_changes_what_differs_only() {
        let fresh =
            json!({"webhooks": [{"clientConfig": {"service": {}}, "failurePolicy": "Ignore"}]});
        assert_eq!(
            changes(&fresh, "B", "Ignore").unwrap(),
            json!([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": "B"}])
        );
        let done =
            json!({"webhooks": [{"clientConfig": {"caBundle": "B"}, "failurePolicy": "Fail"}]});
        assert_eq!(changes(&done, "B", "Fail"), None);
        assert_eq!(
            changes(&done, "B", "Ignore"),
            None,
            "what insists keeps insisting"
        );
    }

    #[test]
    fn the_probe_is_refused_by_the_webhook_itself() {
        let review = json!({"operation": "CREATE", "object": probe("istio-system")});
        assert!(matches!(
            super::super::validate::decide(&review, None),
            super::super::review::Verdict::Deny(_)
        ));
    }
}
