//! Kubeconfigs: the user's, with a context for each cluster, and those that clusters keep in Secrets to
//! reach each other.

use base64::Engine;
use serde_json::{Value, json};

/// Who a kubeconfig lets somebody be.
#[derive(Debug, Clone)]
pub enum User {
    /// A client certificate.
    Certificate {
        /// The chain, PEM.
        cert: String,
        /// The key, PEM.
        key: String,
    },
    /// A bearer token.
    Token(String),
}

/// One cluster of a kubeconfig; its context and user have the same name.
#[derive(Debug, Clone)]
pub struct Context {
    /// Name of the context.
    pub name: String,
    /// `https://host:port`.
    pub server: String,
    /// The cluster's authority, PEM.
    pub ca: String,
    /// Who the user is.
    pub user: User,
}

fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// A kubeconfig with these contexts; the first is the current one. JSON is YAML.
#[must_use]
pub fn render(contexts: &[Context]) -> Value {
    let user = |user: &User| match user {
        User::Certificate { cert, key } => json!({
            "client-certificate-data": base64(cert),
            "client-key-data": base64(key),
        }),
        User::Token(token) => json!({"token": token}),
    };
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "current-context": contexts.first().map(|context| &context.name),
        "clusters": contexts.iter().map(|context| json!({
            "name": context.name,
            "cluster": {
                "server": context.server,
                "certificate-authority-data": base64(&context.ca),
            },
        })).collect::<Vec<_>>(),
        "users": contexts.iter().map(|context| json!({
            "name": context.name,
            "user": user(&context.user),
        })).collect::<Vec<_>>(),
        "contexts": contexts.iter().map(|context| json!({
            "name": context.name,
            "context": {"cluster": context.name, "user": context.name},
        })).collect::<Vec<_>>(),
    })
}

/// The ConfigMap in which a cluster tells those who join it, or add it to a mesh, where its API server is and whom to trust;
/// kubeadm leaves the same.
///
/// # Errors
/// None in practice: the object always has a text form.
pub fn cluster_info(server: &str, ca: &str) -> anyhow::Result<Value> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "",
            "cluster": {"server": server, "certificate-authority-data": base64(ca)},
        }],
        "contexts": null,
        "current-context": "",
        "preferences": {},
        "users": null,
    });
    Ok(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "cluster-info", "namespace": "kube-public"},
        "data": {"kubeconfig": yaml_serde::to_string(&config)?},
    }))
}
