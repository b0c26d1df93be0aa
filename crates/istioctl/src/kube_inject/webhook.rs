//! The injection webhook of a cluster, asked as the API server asks it.

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube_client::SERVICES;
use serde_json::{Value, json};

use crate::mesh::{self, Mesh};

/// The port of a Service that does not say which.
const HTTPS: u16 = 443;
/// Where istiod's pods serve webhooks, when the Service has no such port.
const ISTIOD: u16 = 15017;

/// Where the webhook is and whom to trust.
#[derive(Debug)]
pub(super) struct Webhook {
    service: String,
    namespace: String,
    port: u16,
    path: String,
    authority: String,
}

impl Webhook {
    /// From the `clientConfig` of a webhook.
    pub(super) fn of(config: &Value) -> Result<Self> {
        let service = &config["service"];
        let text = |field: &str| service[field].as_str().unwrap_or_default().to_owned();
        if service.is_null() {
            bail!(
                "the injection webhook is at {}, and this istioctl asks only those behind a Service",
                config["url"]
            );
        }
        let authority = config["caBundle"].as_str().unwrap_or_default();
        Ok(Self {
            service: text("name"),
            namespace: text("namespace"),
            port: port(&service["port"]).unwrap_or(HTTPS),
            path: text("path"),
            authority: String::from_utf8(STANDARD.decode(authority)?)?,
        })
    }

    /// The JSON patch for a pod; `None` when it is to be left as it is.
    pub(super) async fn patch(
        &self,
        mesh: &Mesh,
        pod: &Value,
        namespace: &str,
    ) -> Result<Option<Value>> {
        let service = mesh
            .client
            .get(&SERVICES, Some(&self.namespace), &self.service)
            .await?;
        let selector = mesh::selector_of(&service).map_err(|reason| anyhow!(reason))?;
        let mut pods = mesh.running(Some(&self.namespace), &selector).await?;
        pods.sort_by_key(mesh::by_logging);
        let Some(server) = pods.first() else {
            bail!(
                "no pods matching selector {selector:?} found in namespace {:?}",
                self.namespace
            );
        };
        let stream = mesh
            .connect_to(
                &self.namespace,
                api::meta::name(server),
                pod_port(&service, self.port),
            )
            .await?;
        let trust = pki::tls::ServerTrust::Name {
            roots_pem: self.authority.clone(),
        };
        let tls =
            pki::tls::client_config(runtime::tls::provider(), &trust, None, &[pki::tls::HTTP1])?;
        let host = format!("{}.{}.svc", self.service, self.namespace);
        let name = rustls_pki_types::ServerName::try_from(host.clone())?;
        let stream = tokio_rustls::TlsConnector::from(Arc::new(tls))
            .connect(name, stream)
            .await?;
        let request = http::Request::post(&self.path)
            .header(http::header::HOST, host)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(serde_json::to_vec(&review(pod, namespace))?.into())?;
        let (status, body) =
            tokio::time::timeout(mesh::ANSWER_TIMEOUT, mesh::exchange(stream, request))
                .await
                .context("the injection webhook gave no answer")??;
        let answer: Value = serde_json::from_slice(&body)
            .with_context(|| format!("the injection webhook answered {status}"))?;
        patch_in(&answer)
    }
}

fn port(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|port| port.try_into().ok())
}

/// The port of the pods behind a port of a Service.
fn pod_port(service: &Value, wanted: u16) -> u16 {
    service["spec"]["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|one| port(&one["port"]) == Some(wanted))
        .and_then(|one| port(&one["targetPort"]))
        .unwrap_or(ISTIOD)
}

/// The question about a pod.
fn review(pod: &Value, namespace: &str) -> Value {
    let mut review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "",
            "kind": {"group": "admission.k8s.io", "version": "v1", "kind": "AdmissionRequest"},
            "resource": {"group": "", "version": "", "resource": ""},
            "name": api::meta::name(pod),
            "operation": "",
            "userInfo": {},
            "object": pod,
        },
    });
    // One that is not known is not told: the webhook has its own idea then.
    if !namespace.is_empty() {
        review["request"]["namespace"] = namespace.into();
    }
    review
}

/// The patch of an answer.
fn patch_in(answer: &Value) -> Result<Option<Value>> {
    let response = &answer["response"];
    if response["allowed"] == false {
        let reason = response["status"]["message"].as_str();
        bail!(
            "the injection webhook refuses the pod: {}",
            reason.unwrap_or_default()
        );
    }
    match response["patch"].as_str() {
        None => Ok(None),
        Some(patch) => Ok(Some(serde_json::from_slice(&STANDARD.decode(patch)?)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pods_port_is_that_of_the_services_port() {
        let service = json!({"spec": {"ports": [{"port": 443, "targetPort": 9443}, {"port": 80}]}});
        assert_eq!(pod_port(&service, 443), 9443);
        assert_eq!(pod_port(&service, 8443), ISTIOD);
    }

    #[test]
    fn an_answer_has_a_patch_or_none_or_a_refusal() {
        let patch = STANDARD.encode("[]");
        let answer = json!({"response": {"allowed": true, "patch": patch}});
        assert_eq!(patch_in(&answer).unwrap(), Some(json!([])));
        let answer = json!({"response": {"allowed": true}});
        assert_eq!(patch_in(&answer).unwrap(), None);
        let answer = json!({"response": {"allowed": false, "status": {"message": "no"}}});
        let error = patch_in(&answer).unwrap_err().to_string();
        assert!(error.ends_with("refuses the pod: no"), "{error}");
    }

    #[test]
    fn a_webhook_at_a_url_is_told() {
        let error = Webhook::of(&json!({"url": "https://a/inject"})).unwrap_err();
        assert!(error.to_string().contains("https://a/inject"), "{error}");
    }
}
