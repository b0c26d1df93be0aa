//! Reading a Kubernetes API: GET and JSON, nothing more. Credentials are read anew for each request, since
//! tokens are replaced while the pod runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Request, header};
use base64::Engine;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(3);

/// The most bytes of an answer that are read.
const ANSWER_LIMIT: usize = 16 * 1024 * 1024;

/// Where a pod finds its own cluster.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Where an API and the right to read it are found.
#[derive(Debug, Clone)]
pub enum Source {
    /// The cluster the pod runs in, by its service account.
    ServiceAccount,
    /// The cluster of a kubeconfig's current context.
    Kubeconfig(PathBuf),
}

struct Access {
    host: String,
    port: u16,
    ca: Vec<u8>,
    token: String,
}

impl Source {
    /// GETs a path.
    ///
    /// # Errors
    /// Why there is no answer, in one line.
    pub async fn get(&self, path: &str) -> Result<Value, String> {
        let access = match self {
            Self::ServiceAccount => service_account()?,
            Self::Kubeconfig(path) => from_kubeconfig(path)?,
        };
        tokio::time::timeout(LIMIT, get(&access, path))
            .await
            .unwrap_or_else(|_| {
                Err(format!(
                    "the API server at {}:{} did not answer within {LIMIT:?}",
                    access.host, access.port
                ))
            })
    }
}

fn service_account() -> Result<Access, String> {
    let variable = |name: &str| {
        std::env::var(name).map_err(|_| format!("not running in a cluster: {name} is not set"))
    };
    let file = |name: &str| {
        let path = Path::new(ACCOUNT).join(name);
        std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    Ok(Access {
        host: variable("KUBERNETES_SERVICE_HOST")?,
        port: variable("KUBERNETES_SERVICE_PORT")?
            .parse()
            .map_err(|_| "KUBERNETES_SERVICE_PORT is not a port".to_owned())?,
        ca: file("ca.crt")?,
        token: String::from_utf8_lossy(&file("token")?).trim().to_owned(),
    })
}

fn from_kubeconfig(path: &Path) -> Result<Access, String> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        format!(
            "the cluster's kubeconfig cannot be read: {}: {error}",
            path.display()
        )
    })?;
    parse_kubeconfig(&text).ok_or_else(|| {
        format!(
            "{}: the kubeconfig needs a current context with server, certificate-authority-data and token",
            path.display()
        )
    })
}

fn parse_kubeconfig(text: &str) -> Option<Access> {
    let config: Value = yaml_serde::from_str(text).ok()?;
    let named = |list: &str, name: &Value, what: &str| {
        config[list]
            .as_array()?
            .iter()
            .find(|entry| entry["name"] == *name)
            .map(|entry| entry[what].clone())
    };
    let context = named("contexts", &config["current-context"], "context")?;
    let cluster = named("clusters", &context["cluster"], "cluster")?;
    let user = named("users", &context["user"], "user")?;
    let server: axum::http::Uri = cluster["server"].as_str()?.parse().ok()?;
    Some(Access {
        host: server.host()?.to_owned(),
        port: server.port_u16().unwrap_or(443),
        ca: base64::engine::general_purpose::STANDARD
            .decode(cluster["certificate-authority-data"].as_str()?)
            .ok()?,
        token: user["token"].as_str()?.to_owned(),
    })
}

async fn get(access: &Access, path: &str) -> Result<Value, String> {
    let place = format!("{}:{}", access.host, access.port);
    let failed = |error: &dyn std::fmt::Display| format!("the API server at {place}: {error}");
    let name = ServerName::try_from(access.host.clone()).map_err(|error| failed(&error))?;
    let stream = TcpStream::connect((access.host.as_str(), access.port))
        .await
        .map_err(|error| failed(&error))?;
    let connector = TlsConnector::from(Arc::new(tls(&access.ca)?));
    let stream = connector
        .connect(name, stream)
        .await
        .map_err(|error| failed(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    let driver = tokio::spawn(connection);
    let request = Request::get(path)
        .header(header::HOST, &place)
        .header(header::ACCEPT, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {}", access.token))
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(&error))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| failed(&error))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_LIMIT)
        .collect()
        .await
        .map_err(|error| failed(&error))?
        .to_bytes();
    driver.abort();
    let value: Value = serde_json::from_slice(&body).map_err(|error| failed(&error))?;
    if status.is_success() {
        Ok(value)
    } else {
        Err(failed(
            &value["message"].as_str().unwrap_or(status.as_str()),
        ))
    }
}

fn tls(ca: &[u8]) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        let certificate = certificate.map_err(|error| format!("the cluster's CA: {error}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("the cluster's CA: {error}"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_is_read_by_its_current_context() {
        let text = r#"{"current-context": "b",
            "contexts": [{"name": "a", "context": {}}, {"name": "b", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": "https://203.0.113.65:6443", "certificate-authority-data": "Q0E="}}],
            "users": [{"name": "u", "user": {"token": "t"}}]}"#;
        let access = parse_kubeconfig(text).unwrap();
        assert_eq!((access.host.as_str(), access.port), ("203.0.113.65", 6443));
        assert_eq!(
            (access.ca.as_slice(), access.token.as_str()),
            (b"CA".as_slice(), "t")
        );
        assert!(parse_kubeconfig("{}").is_none());
    }
}
