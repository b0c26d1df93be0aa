//! kubeconfig files.

use std::path::Path;

use base64::Engine as _;
use serde::Deserialize;

use crate::config::read;
use crate::{Auth, Config, Error, Result};

/// A kubeconfig that was read but not yet narrowed to a context.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Kubeconfig {
    current_context: String,
    clusters: Vec<Named<Cluster>>,
    users: Vec<Named<User>>,
    contexts: Vec<Named<Context>>,
}

/// An entry of one of the lists; the value's key is the list's singular.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named<T> {
    name: String,
    #[serde(alias = "cluster", alias = "user", alias = "context")]
    value: T,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<String>,
    username: Option<String>,
    exec: Option<serde_json::Value>,
    auth_provider: Option<serde_json::Value>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("User")
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
    namespace: Option<String>,
}

impl Kubeconfig {
    /// Reads YAML (or JSON).
    ///
    /// # Errors
    /// When the text is not a kubeconfig.
    pub fn parse(yaml: &str) -> Result<Self> {
        yaml_serde::from_str(yaml)
            .map_err(|error| Error::Config(format!("kubeconfig: not readable: {error}")))
    }

    /// Adds what another file has; what is here already stays, as kubectl reads `$KUBECONFIG`.
    pub fn merge(&mut self, other: Self) {
        if self.current_context.is_empty() {
            self.current_context = other.current_context;
        }
        self.clusters.extend(other.clusters);
        self.users.extend(other.users);
        self.contexts.extend(other.contexts);
    }

    /// Names of the contexts, in order.
    pub fn contexts(&self) -> impl Iterator<Item = &str> {
        self.contexts.iter().map(|context| context.name.as_str())
    }

    /// The namespace a context chooses.
    pub fn namespace(&self, context: Option<&str>) -> Option<&str> {
        find(
            &self.contexts,
            context.unwrap_or(&self.current_context),
            "context",
        )
        .ok()?
        .namespace
        .as_deref()
    }

    /// The cluster of a context (`None`: the current one), if there is such a context.
    #[must_use]
    pub fn cluster(&self, context: Option<&str>) -> Option<&str> {
        let name = context.unwrap_or(&self.current_context);
        let context = find(&self.contexts, name, "context").ok()?;
        Some(&context.cluster)
    }

    /// The configuration of a context (`None`: the current one). File references are relative
    /// to `directory`.
    ///
    /// # Errors
    /// When an entry is missing, a file cannot be read, or it asks for something this client
    /// does not do.
    pub fn config(&self, context: Option<&str>, directory: &Path) -> Result<Config> {
        let name = context.unwrap_or(&self.current_context);
        if name.is_empty() {
            return Err(Error::Config(
                "kubeconfig: no context was named and current-context is not set".to_owned(),
            ));
        }
        let context = find(&self.contexts, name, "context")?;
        let cluster = find(&self.clusters, &context.cluster, "cluster")?;
        let user = find(&self.users, &context.user, "user")?;
        let unsupported = |what: &str| {
            Err(Error::Config(format!(
                "kubeconfig: context {name:?}: {what} is not supported"
            )))
        };
        if cluster.proxy_url.is_some() {
            return unsupported("proxy-url");
        }
        if cluster.insecure_skip_tls_verify {
            return unsupported(
                "insecure-skip-tls-verify; give the authority in certificate-authority-data",
            );
        }
        if user.exec.is_some() || user.auth_provider.is_some() {
            return unsupported("a credential plugin (exec or auth-provider)");
        }
        if user.username.is_some() {
            return unsupported("a user name with password");
        }
        let data = |inline: &Option<String>, file: &Option<String>, field: &str| {
            material(inline.as_deref(), file.as_deref(), directory, field)
        };
        let ca_pem = data(
            &cluster.certificate_authority_data,
            &cluster.certificate_authority,
            "certificate-authority",
        )?;
        // As client-go: an address alone is https where there is an authority, else http.
        let server = match (cluster.server.contains("://"), &ca_pem) {
            (true, _) => cluster.server.clone(),
            (false, Some(_)) => format!("https://{}", cluster.server),
            (false, None) => format!("http://{}", cluster.server),
        };
        if ca_pem.is_none() && server.starts_with("https://") {
            return Err(Error::Config(format!(
                "kubeconfig: cluster {:?}: certificate-authority-data is missing",
                context.cluster
            )));
        }
        let cert = data(
            &user.client_certificate_data,
            &user.client_certificate,
            "client-certificate",
        )?;
        let key = data(&user.client_key_data, &user.client_key, "client-key")?;
        let auth = match (cert, key, &user.token, &user.token_file) {
            (Some(cert_pem), Some(key_pem), _, _) => Auth::ClientCert { cert_pem, key_pem },
            (None, None, Some(token), _) => Auth::Token(token.clone()),
            (None, None, None, Some(file)) => Auth::TokenFile(directory.join(file)),
            (None, None, None, None) => Auth::None,
            _ => {
                return Err(Error::Config(format!(
                    "kubeconfig: user {:?}: client-certificate and client-key belong together, one is missing",
                    context.user
                )));
            }
        };
        let mut config = Config::new(server, ca_pem.unwrap_or_default(), auth);
        config.tls_server_name.clone_from(&cluster.tls_server_name);
        Ok(config)
    }
}

fn find<'a, T>(list: &'a [Named<T>], name: &str, what: &str) -> Result<&'a T> {
    list.iter()
        .find(|entry| entry.name == name)
        .map(|entry| &entry.value)
        .ok_or_else(|| {
            let known: Vec<&str> = list.iter().map(|entry| entry.name.as_str()).collect();
            Error::Config(format!(
                "kubeconfig: there is no {what} {name:?}, only {}",
                if known.is_empty() {
                    "none".to_owned()
                } else {
                    known.join(", ")
                }
            ))
        })
}

fn material(
    inline: Option<&str>,
    file: Option<&str>,
    directory: &Path,
    field: &str,
) -> Result<Option<String>> {
    if let Some(inline) = inline {
        let wrong = |reason: String| Error::Config(format!("kubeconfig: {field}-data: {reason}"));
        let compact: String = inline.split_whitespace().collect();
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(compact)
            .map_err(|error| wrong(format!("not base64: {error}")))?;
        return String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| wrong("does not hold PEM text".to_owned()));
    }
    file.map(|file| read(&directory.join(file))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r"
apiVersion: v1
kind: Config
current-context: ctx1
clusters:
- name: c1
  cluster: {server: 'https://127.0.0.1:6443', certificate-authority-data: Q0E=}
- name: c2
  cluster: {server: 'example:6443', certificate-authority: ca.pem, tls-server-name: kubernetes}
users:
- name: u1
  user: {client-certificate-data: Q0VSVA==, client-key-data: S0VZ}
- name: u2
  user: {token: abc}
- name: u3
  user: {exec: {command: aws}}
- name: u4
  user: {client-key-data: S0VZ}
contexts:
- name: ctx1
  context: {cluster: c1, user: u1, namespace: theater-msa}
- name: ctx2
  context: {cluster: c2, user: u2}
- name: ctx3
  context: {cluster: c1, user: u3}
- name: ctx4
  context: {cluster: c1, user: u4}
- name: ctx5
  context: {cluster: nowhere, user: u2}
";

    #[test]
    fn contexts_choose_cluster_and_user() {
        let file = Kubeconfig::parse(TEXT).unwrap();
        assert_eq!(
            file.contexts().collect::<Vec<_>>(),
            ["ctx1", "ctx2", "ctx3", "ctx4", "ctx5"]
        );
        assert_eq!(file.namespace(None), Some("theater-msa"));
        assert_eq!(file.cluster(None), Some("c1"));
        let config = file.config(None, Path::new(".")).unwrap();
        assert_eq!(config.server, "https://127.0.0.1:6443");
        assert_eq!(config.ca_pem, "CA");
        assert!(
            matches!(&config.auth, Auth::ClientCert { cert_pem, key_pem } if cert_pem == "CERT" && key_pem == "KEY")
        );
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), "FROM FILE").unwrap();
        let config = file.config(Some("ctx2"), directory.path()).unwrap();
        assert_eq!(config.ca_pem, "FROM FILE");
        // An address alone is https, since there is an authority.
        assert_eq!(config.server, "https://example:6443");
        assert_eq!(config.tls_server_name.as_deref(), Some("kubernetes"));
        assert!(matches!(&config.auth, Auth::Token(token) if token == "abc"));
    }

    #[test]
    fn errors_name_what_is_missing_or_unsupported() {
        let file = Kubeconfig::parse(TEXT).unwrap();
        let error = |context| {
            file.config(Some(context), Path::new("."))
                .unwrap_err()
                .to_string()
        };
        assert!(
            error("ctx3").contains("credential plugin"),
            "{}",
            error("ctx3")
        );
        assert!(
            error("ctx4").contains("belong together"),
            "{}",
            error("ctx4")
        );
        assert!(
            error("ctx5").contains("no cluster \"nowhere\", only c1, c2"),
            "{}",
            error("ctx5")
        );
        assert!(
            error("nope").contains("no context \"nope\""),
            "{}",
            error("nope")
        );
        let none = Kubeconfig::parse("{}").unwrap();
        assert!(
            none.config(None, Path::new("."))
                .unwrap_err()
                .to_string()
                .contains("current-context")
        );
    }
}
