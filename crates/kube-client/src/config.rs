//! How to reach an API server, and as whom.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::{Error, Result};

/// Who the client is.
#[derive(Clone, Default)]
pub enum Auth {
    /// Nobody.
    #[default]
    None,
    /// The holder of a client certificate.
    ClientCert {
        /// Chain, leaf first, PEM.
        cert_pem: String,
        /// Private key, PEM.
        key_pem: String,
    },
    /// The bearer of a token.
    Token(String),
    /// The bearer of a token in a file that may change at any time.
    TokenFile(PathBuf),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets stay out of logs.
        f.write_str(match self {
            Self::None => "None",
            Self::ClientCert { .. } => "ClientCert",
            Self::Token(_) => "Token",
            Self::TokenFile(_) => "TokenFile",
        })
    }
}

/// How to reach an API server.
#[derive(Debug, Clone)]
pub struct Config {
    /// `https://host:port`, optionally with a path prefix. `http://` is for tests.
    pub server: String,
    /// PEM bundle of the authorities the server's certificate may come from.
    pub ca_pem: String,
    /// Who the client is.
    pub auth: Auth,
    /// Name the server's certificate must carry, when it is not the host of `server`.
    pub tls_server_name: Option<String>,
    /// `User-Agent`; the part before the slash becomes the field manager of writes.
    pub user_agent: String,
    /// Longest wait for an answer (watches excepted).
    pub timeout: Duration,
    /// As whom the client acts, if it may.
    pub impersonate: Impersonate,
}

/// Another user as whom a client acts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Impersonate {
    /// The user; without one the client acts as itself, whatever else is said.
    pub user: String,
    /// The user's groups.
    pub groups: Vec<String>,
    /// The user's uid.
    pub uid: String,
}

impl Impersonate {
    /// The headers of a request.
    pub(crate) fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>> {
        let one = |name: &'static str, value: &String| {
            let value = HeaderValue::from_str(value)
                .map_err(|_| Error::Config(format!("{name}: {value:?} fits in no header")))?;
            Ok((HeaderName::from_static(name), value))
        };
        if self.user.is_empty() {
            return Ok(Vec::new());
        }
        let mut out = vec![one("impersonate-user", &self.user)?];
        if !self.uid.is_empty() {
            out.push(one("impersonate-uid", &self.uid)?);
        }
        for group in &self.groups {
            out.push(one("impersonate-group", group)?);
        }
        Ok(out)
    }
}

impl Config {
    /// A configuration with the usual timeout.
    pub fn new(server: impl Into<String>, ca_pem: impl Into<String>, auth: Auth) -> Self {
        Self {
            server: server.into(),
            ca_pem: ca_pem.into(),
            auth,
            tls_server_name: None,
            user_agent: "theater/0.1".to_owned(),
            timeout: Duration::from_secs(30),
            impersonate: Impersonate::default(),
        }
    }

    /// The same with another `User-Agent`.
    #[must_use]
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// The configuration every pod is given: environment variables and mounted token.
    ///
    /// # Errors
    /// When this process does not run in a pod, or its service account is not mounted.
    pub fn in_cluster() -> Result<Self> {
        let variable = |name: &str| {
            std::env::var(name).map_err(|_| {
                Error::Config(format!(
                    "this process does not run in a pod: {name} is not set"
                ))
            })
        };
        Self::in_cluster_at(
            Path::new("/var/run/secrets/kubernetes.io/serviceaccount"),
            &variable("KUBERNETES_SERVICE_HOST")?,
            &variable("KUBERNETES_SERVICE_PORT")?,
        )
    }

    /// [`Config::in_cluster`] with the directory of the service account and the address given.
    ///
    /// # Errors
    /// When `ca.crt` or `token` cannot be read.
    pub fn in_cluster_at(directory: &Path, host: &str, port: &str) -> Result<Self> {
        let ca = directory.join("ca.crt");
        let ca_pem = read(&ca)?;
        let token = directory.join("token");
        read(&token)?;
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        Ok(Self::new(
            format!("https://{host}:{port}"),
            ca_pem,
            Auth::TokenFile(token),
        ))
    }
}

pub(crate) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|error| Error::Config(format!("cannot read {}: {error}", path.display())))
}
