//! Certificates for a run: `ca.pem`, and for each name `NAME.pem` with `NAME.key`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pki::tls::{ClientAuth, Identity, ServerTrust};
use pki::{Authority, CertRequest, Validity};

/// Writes the certificates of all cases: servers `server` (test.local), `other` (other.local), clients `client` and
/// `stranger` (of another authority).
pub fn write(directory: &Path) {
    let now = SystemTime::now() - Duration::from_secs(3600);
    let authority = Authority::new_root("test root", "test", now, 10).unwrap();
    let another = Authority::new_root("another root", "test", now, 10).unwrap();
    let validity = Validity::starting(now, Duration::from_secs(5 * 3600));
    std::fs::write(directory.join("ca.pem"), authority.root_pem()).unwrap();
    let issue = |authority: &Authority, name: &str, dns: &[&str], uri: &str| {
        let mut request = CertRequest::server(name, dns, &[], validity);
        request.client = true;
        if !uri.is_empty() {
            request.uris = vec![uri.to_owned()];
        }
        let issued = authority.issue(&request).unwrap();
        std::fs::write(directory.join(format!("{name}.pem")), issued.chain_pem).unwrap();
        std::fs::write(directory.join(format!("{name}.key")), issued.key_pem).unwrap();
    };
    issue(
        &authority,
        "server",
        &["test.local", "*.test.local"],
        "spiffe://test/server",
    );
    issue(&authority, "other", &["other.local"], "spiffe://test/other");
    issue(
        &authority,
        "client",
        &["client.local"],
        "spiffe://test/client",
    );
    issue(
        &another,
        "stranger",
        &["stranger.local"],
        "spiffe://test/stranger",
    );
}

fn identity(directory: &Path, name: &str) -> Identity {
    let read =
        |end: &str| std::fs::read_to_string(directory.join(format!("{name}.{end}"))).unwrap();
    Identity::from_pem(&read("pem"), &read("key")).unwrap()
}

fn root(directory: &Path) -> String {
    std::fs::read_to_string(directory.join("ca.pem")).unwrap()
}

/// The TLS of a test's server.
pub fn server(
    directory: &Path,
    name: &str,
    client: bool,
    alpn: &[&[u8]],
) -> Arc<rustls::ServerConfig> {
    let auth = if client {
        ClientAuth::Required {
            roots_pem: root(directory),
        }
    } else {
        ClientAuth::None
    };
    let config = pki::tls::server_config(
        runtime::tls::provider(),
        identity(directory, name),
        &auth,
        alpn,
    );
    Arc::new(config.unwrap())
}

/// The TLS of a test's client.
pub fn client(
    directory: &Path,
    certificate: Option<&str>,
    alpn: &[Vec<u8>],
) -> Arc<rustls::ClientConfig> {
    let alpn: Vec<&[u8]> = alpn.iter().map(Vec::as_slice).collect();
    let trust = ServerTrust::Chain {
        roots_pem: root(directory),
    };
    let identity = certificate.map(|name| identity(directory, name));
    Arc::new(pki::tls::client_config(runtime::tls::provider(), &trust, identity, &alpn).unwrap())
}
