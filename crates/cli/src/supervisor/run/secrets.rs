//! The Secrets a cluster begins with: keys of the mesh and of the entry, and how it reads the other clusters.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use base64::Engine;
use serde_json::{Value, json};

use super::{API_LIMIT, POLL, Running, Supervisor, api_url};
use crate::supervisor::authorities::{self, Authorities};
use crate::supervisor::kubeconfig::{self, User};

impl Supervisor {
    /// The Secrets that hold the cluster's part of the mesh's authority and the entry's certificate.
    pub(super) fn key_secrets(&self, cluster: &Running) -> Result<Vec<Value>> {
        let mesh = &self.authorities.clusters[cluster.facts.name].mesh;
        let entry = authorities::entry(
            &self.authorities,
            &["theater.localhost", "*.localhost", "localhost"],
            SystemTime::now(),
        )?;
        Ok(vec![
            secret(
                "istio-system",
                "cacerts",
                "Opaque",
                &[
                    ("ca-cert.pem", &mesh.cert),
                    ("ca-key.pem", &mesh.key),
                    (
                        "cert-chain.pem",
                        &format!("{}{}", mesh.cert, mesh.ancestors),
                    ),
                    ("root-cert.pem", &self.authorities.mesh_root.cert),
                ],
            ),
            secret(
                "istio-system",
                "theater-tls",
                "kubernetes.io/tls",
                &[("tls.crt", &entry.chain_pem), ("tls.key", &entry.key_pem)],
            ),
        ])
    }

    /// How this cluster reads the others: for istiod the reader's account, for the theater's page one
    /// that may read what the page shows.
    pub(super) async fn remote_secrets(&self, cluster: &Running) -> Result<Vec<Value>> {
        let mut secrets = Vec::new();
        for other in &self.clusters {
            if other.facts.name == cluster.facts.name {
                continue;
            }
            let name = other.facts.name;
            let reader = token_kubeconfig(
                &self.authorities,
                other,
                "istio-system",
                "istio-reader-service-account",
            )
            .await?;
            let mut remote = secret(
                "istio-system",
                &format!("istio-remote-secret-{name}"),
                "Opaque",
                &[(name, &reader)],
            );
            remote["metadata"]["labels"] = json!({"istio/multiCluster": "true"});
            remote["metadata"]["annotations"] = json!({"networking.istio.io/cluster": name});
            secrets.push(remote);
            let page =
                token_kubeconfig(&self.authorities, other, "theater-msa", "api-gateway").await?;
            secrets.push(secret(
                "theater-msa",
                "remote-cluster-kubeconfig",
                "Opaque",
                &[("kubeconfig", &page)],
            ));
        }
        Ok(secrets)
    }
}

fn secret(namespace: &str, name: &str, kind: &str, data: &[(&str, &str)]) -> Value {
    let engine = &base64::engine::general_purpose::STANDARD;
    let data: BTreeMap<&str, String> = data
        .iter()
        .map(|(key, value)| (*key, engine.encode(value)))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"namespace": namespace, "name": name},
        "type": kind,
        "data": data,
    })
}

/// A kubeconfig with a token of a service account of `cluster`, for its address on the WAN.
async fn token_kubeconfig(
    authorities: &Authorities,
    cluster: &Running,
    namespace: &str,
    account: &str,
) -> Result<String> {
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 365 * 24 * 3600},
    });
    let token = request_token(cluster, namespace, account, &request).await?;
    Ok(kubeconfig::render(&[kubeconfig::Context {
        name: cluster.facts.name.to_owned(),
        server: api_url(cluster.facts),
        ca: authorities.clusters[cluster.facts.name].api.cert.clone(),
        user: User::Token(token),
    }])
    .to_string())
}

/// Asks for a token; the account may be a moment away, as both clusters are set up side by side.
async fn request_token(
    cluster: &Running,
    namespace: &str,
    account: &str,
    request: &Value,
) -> Result<String> {
    let deadline = Instant::now() + API_LIMIT;
    loop {
        let answer = cluster
            .client
            .create_sub(
                &kube_client::SERVICE_ACCOUNTS,
                Some(namespace),
                account,
                "token",
                request,
            )
            .await;
        match answer {
            Ok(answer) => {
                return answer["status"]["token"]
                    .as_str()
                    .map(ToOwned::to_owned)
                    .context("the API server gave no token");
            }
            Err(error) if error.is_not_found() && Instant::now() < deadline => {
                tokio::time::sleep(POLL).await;
            }
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("token of {namespace}/{account} in {}", cluster.facts.name)
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_base64() {
        let secret = secret("n", "s", "Opaque", &[("a", "hello")]);
        assert_eq!(secret["data"]["a"], "aGVsbG8=");
        assert_eq!(secret["kind"], "Secret");
    }
}
