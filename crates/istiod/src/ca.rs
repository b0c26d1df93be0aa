//! The mesh's certificate authority: workloads send a signing request and get a certificate for the
//! identity they proved, whatever the request says.

use std::path::Path;
use std::time::{Duration, SystemTime};

use pki::{Authority, CertRequest, Issued, Validity, spiffe};

use crate::identity::Caller;

/// How long a workload certificate lasts unless the request asks for less.
pub const WORKLOAD_TTL: Duration = Duration::from_secs(24 * 3600);

/// The longest a workload certificate may last.
const LONGEST_TTL: Duration = Duration::from_secs(90 * 24 * 3600);

/// Clocks of two clusters differ a little.
const CLOCK_SKEW: Duration = Duration::from_secs(2 * 60);

/// The authority with the trust domain it signs for.
pub struct CertificateAuthority {
    authority: Authority,
    trust_domain: String,
}

/// Where the authority's key comes from.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the `cacerts` Secret is missing or damaged.
    #[error(
        "{file}: {reason}; the Secret cacerts needs ca-cert.pem, ca-key.pem, root-cert.pem and cert-chain.pem"
    )]
    File {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificates cannot be made.
    #[error(transparent)]
    Pki(#[from] pki::Error),
}

impl CertificateAuthority {
    /// Reads the authority from the mounted Secret `cacerts`; without one, makes a root of its own,
    /// which only this istiod knows.
    ///
    /// # Errors
    /// When the Secret is there and cannot be used.
    pub fn load(directory: &Path, trust_domain: &str, now: SystemTime) -> Result<Self, Error> {
        let authority = if directory.join("ca-cert.pem").exists() {
            let read = |name: &str| {
                let path = directory.join(name);
                std::fs::read_to_string(&path).map_err(|error| Error::File {
                    file: path.display().to_string(),
                    reason: error.to_string(),
                })
            };
            let (cert, key) = (read("ca-cert.pem")?, read("ca-key.pem")?);
            let (chain, root) = (read("cert-chain.pem")?, read("root-cert.pem")?);
            let ancestors = ancestors(&cert, &chain, &root);
            Authority::from_pem(&cert, &key, &ancestors)?
        } else {
            tracing::warn!(
                "no Secret cacerts: making a root of our own, which no other cluster trusts"
            );
            Authority::new_root("Root CA", trust_domain, now - CLOCK_SKEW, 3650)?
        };
        Ok(Self {
            authority,
            trust_domain: trust_domain.to_owned(),
        })
    }

    /// The root every workload trusts, PEM.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        self.authority.root_pem()
    }

    /// Signs a request for a caller. The answer is the chain, leaf first, root last, one PEM text each.
    ///
    /// # Errors
    /// When the request is damaged.
    pub fn sign(
        &self,
        csr_pem: &str,
        caller: &Caller,
        asked: Option<Duration>,
        now: SystemTime,
    ) -> Result<Vec<String>, Error> {
        let ttl = asked
            .filter(|ttl| !ttl.is_zero())
            .unwrap_or(WORKLOAD_TTL)
            .min(LONGEST_TTL);
        let id = spiffe::id(
            &self.trust_domain,
            &caller.namespace,
            &caller.service_account,
        );
        let validity = Validity::starting(now, ttl).backdated(CLOCK_SKEW);
        let chain = self.authority.sign_csr(csr_pem, &[id], validity)?;
        let mut parts = split_pem(&chain);
        parts.push(self.root_pem().to_owned());
        Ok(parts)
    }

    /// istiod's own certificate, for the names it is called by and as a workload of the mesh.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn own(&self, namespace: &str, now: SystemTime) -> Result<Issued, Error> {
        let names = [
            format!("istiod.{namespace}.svc"),
            format!("istiod.{namespace}.svc.cluster.local"),
            format!("istiod.{namespace}"),
            "istiod".to_owned(),
            "localhost".to_owned(),
        ];
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let validity = Validity::starting(now, Duration::from_secs(365 * 24 * 3600));
        let mut request =
            CertRequest::server("istiod", &names, &[], validity.backdated(CLOCK_SKEW));
        request
            .uris
            .push(spiffe::id(&self.trust_domain, namespace, "istiod"));
        Ok(self.authority.issue(&request)?)
    }
}

/// The certificates above an authority, from the chain file (which usually begins with the authority
/// itself) and the root file.
fn ancestors(cert: &str, chain: &str, root: &str) -> String {
    let own = cert.trim();
    let mut all: Vec<String> = split_pem(chain)
        .into_iter()
        .filter(|part| part.trim() != own && part.trim() != root.trim())
        .collect();
    // A self-signed authority has nobody above it.
    if root.trim() != own {
        all.push(root.to_owned());
    }
    all.concat()
}

/// The blocks of a PEM text, one each.
fn split_pem(text: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    text.split_inclusive(END)
        .map(|part| format!("{}\n", part.trim()))
        .filter(|part| part.contains(END))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pki::{KeyPair, csr};

    fn caller() -> Caller {
        Caller {
            namespace: "theater-msa".into(),
            service_account: "default".into(),
        }
    }

    #[test]
    fn the_certificate_carries_the_proved_identity_not_the_requested_one() {
        let now = SystemTime::now();
        let dir = tempfile::tempdir().unwrap();
        let ca = CertificateAuthority::load(dir.path(), "cluster.local", now).unwrap();
        let key = KeyPair::generate().unwrap();
        let lie = csr::create(
            &key,
            &["spiffe://cluster.local/ns/kube-system/sa/admin".into()],
        );
        let chain = ca.sign(&lie.unwrap(), &caller(), None, now).unwrap();
        assert_eq!(chain.len(), 2, "leaf and root");
        let leaf =
            pki::peer_identity(&pki::pem::certificates(&chain[0], "leaf").unwrap()[0]).unwrap();
        assert_eq!(
            leaf.uris,
            ["spiffe://cluster.local/ns/theater-msa/sa/default"]
        );
    }

    #[test]
    fn two_clusters_with_intermediates_of_one_root_trust_each_other() {
        let now = SystemTime::now();
        let root = Authority::new_root("Root CA", "test", now - CLOCK_SKEW, 10).unwrap();
        let mut roots = Vec::new();
        for name in ["one", "two"] {
            let authority = root
                .intermediate(name, "test", now - CLOCK_SKEW, 10)
                .unwrap();
            let dir = tempfile::tempdir().unwrap();
            let write =
                |file: &str, text: &str| std::fs::write(dir.path().join(file), text).unwrap();
            write("ca-cert.pem", authority.cert_pem());
            write("ca-key.pem", authority.key_pem());
            write("root-cert.pem", root.cert_pem());
            write(
                "cert-chain.pem",
                &format!("{}{}", authority.cert_pem(), root.cert_pem()),
            );
            let ca = CertificateAuthority::load(dir.path(), "cluster.local", now).unwrap();
            let key = KeyPair::generate().unwrap();
            let csr = csr::create(&key, &[]).unwrap();
            let chain = ca.sign(&csr, &caller(), None, now).unwrap();
            assert_eq!(chain.len(), 3, "leaf, intermediate, root");
            assert_eq!(chain[2].trim(), root.cert_pem().trim());
            roots.push(ca.root_pem().to_owned());
        }
        assert_eq!(roots[0], roots[1]);
    }
}
