//! Who trusts whom: one authority for each cluster's API, one root for the mesh with an intermediate
//! for each cluster, one for the HTTPS of the theater on this machine. Made once and kept in the
//! state directory, so that kubeconfigs and browsers stay valid from run to run.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use pki::{Authority, CertRequest, KeyPair, Validity};
use serde::{Deserialize, Serialize};

use crate::state::write_private;
use crate::topology::{CLUSTERS, ClusterFacts};

const ROOT_DAYS: u32 = 3650;
const LEAF: Duration = Duration::from_secs(365 * 24 * 3600);
const ORGANISATION: &str = "theater";

/// A certificate with its key; `ancestors` are the certificates up to the root, if any.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CertAndKey {
    /// The certificate, PEM.
    pub cert: String,
    /// Its key, PKCS#8 PEM.
    pub key: String,
    /// Certificates from the issuer up to the root, PEM; empty for a root.
    #[serde(default)]
    pub ancestors: String,
}

impl CertAndKey {
    fn of(authority: &Authority, ancestors: String) -> Self {
        Self {
            cert: authority.cert_pem().to_owned(),
            key: authority.key_pem().to_owned(),
            ancestors,
        }
    }

    /// The authority again.
    ///
    /// # Errors
    /// When the stored text is damaged.
    pub fn authority(&self) -> Result<Authority> {
        Authority::from_pem(&self.cert, &self.key, &self.ancestors)
            .context("the stored authority is damaged")
    }
}

/// Keys of one cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClusterKeys {
    /// Signs server and client certificates of the cluster's API.
    pub api: CertAndKey,
    /// The cluster's intermediate of the mesh root (Secret `cacerts`).
    pub mesh: CertAndKey,
    /// Signs service-account tokens, PKCS#8 PEM.
    pub service_accounts: String,
}

/// Everything [`load_or_create`] keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Authorities {
    /// Root of the mesh, which both clusters trust.
    pub mesh_root: CertAndKey,
    /// Authority for the theater's own HTTPS; its certificate is in the CA bundle for curl.
    pub host: CertAndKey,
    /// Keys by cluster name.
    pub clusters: std::collections::BTreeMap<String, ClusterKeys>,
}

/// Reads the authorities of a state directory, or makes them.
///
/// # Errors
/// When the file is damaged or cannot be written.
pub fn load_or_create(path: &Path, now: SystemTime) -> Result<Authorities> {
    match std::fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| {
            format!(
                "{} is damaged; `theater reset --all` makes new keys and a new scene",
                path.display()
            )
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let made = create(now)?;
            write_private(path, &serde_json::to_vec_pretty(&made)?)
                .with_context(|| format!("cannot write {}", path.display()))?;
            Ok(made)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn create(now: SystemTime) -> Result<Authorities> {
    // A clock that is set back a little must not make everything "not yet valid".
    let not_before = now - Duration::from_secs(3600);
    let mesh_root = Authority::new_root("Root CA", ORGANISATION, not_before, ROOT_DAYS)?;
    let host = Authority::new_root("Theater local CA", ORGANISATION, not_before, ROOT_DAYS)?;
    let mut clusters = std::collections::BTreeMap::new();
    for cluster in &CLUSTERS {
        let api = Authority::new_root(
            &format!("{} kubernetes", cluster.name),
            ORGANISATION,
            not_before,
            ROOT_DAYS,
        )?;
        let mesh = mesh_root.intermediate(
            &format!("Intermediate CA {}", cluster.name),
            ORGANISATION,
            not_before,
            ROOT_DAYS,
        )?;
        clusters.insert(
            cluster.name.to_owned(),
            ClusterKeys {
                api: CertAndKey::of(&api, String::new()),
                mesh: CertAndKey::of(&mesh, mesh_root.cert_pem().to_owned()),
                service_accounts: KeyPair::generate()?.to_pem(),
            },
        );
    }
    Ok(Authorities {
        mesh_root: CertAndKey::of(&mesh_root, String::new()),
        host: CertAndKey::of(&host, String::new()),
        clusters,
    })
}

/// A certificate for clients of one cluster's API.
///
/// # Errors
/// When signing fails.
pub fn client(
    keys: &ClusterKeys,
    user: &str,
    groups: &[&str],
    now: SystemTime,
) -> Result<pki::Issued> {
    let validity = Validity::starting(now, LEAF).backdated(Duration::from_secs(3600));
    Ok(keys
        .api
        .authority()?
        .issue(&CertRequest::client(user, groups, validity))?)
}

/// The certificate of one cluster's API server, for every name and address it is reached by.
///
/// # Errors
/// When signing fails.
pub fn api_server(
    keys: &ClusterKeys,
    cluster: &ClusterFacts,
    now: SystemTime,
) -> Result<pki::Issued> {
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let addresses: [IpAddr; 5] = [
        [127, 0, 0, 1].into(),
        std::net::Ipv6Addr::LOCALHOST.into(),
        cluster.kubernetes_ip().into(),
        cluster.node_ip().into(),
        cluster.wan_ip().into(),
    ];
    let validity = Validity::starting(now, LEAF).backdated(Duration::from_secs(3600));
    Ok(keys.api.authority()?.issue(&CertRequest::server(
        "kube-apiserver",
        &names,
        &addresses,
        validity,
    ))?)
}

/// The certificate of a node agent.
///
/// # Errors
/// When signing fails.
pub fn kubelet_server(
    keys: &ClusterKeys,
    cluster: &ClusterFacts,
    now: SystemTime,
) -> Result<pki::Issued> {
    let node = cluster.node_name();
    let validity = Validity::starting(now, LEAF).backdated(Duration::from_secs(3600));
    Ok(keys.api.authority()?.issue(&CertRequest::server(
        &format!("system:node:{node}"),
        &[&node],
        &[cluster.node_ip().into()],
        validity,
    ))?)
}

/// The certificate of the theater's HTTPS entry (Secret `theater-tls`).
///
/// # Errors
/// When signing fails.
pub fn entry(authorities: &Authorities, names: &[&str], now: SystemTime) -> Result<pki::Issued> {
    let validity = Validity::starting(now, LEAF).backdated(Duration::from_secs(3600));
    Ok(authorities.host.authority()?.issue(&CertRequest::server(
        names.first().copied().unwrap_or("theater.localhost"),
        names,
        &[],
        validity,
    ))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_made_once_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("authorities.json");
        let now = SystemTime::now();
        let first = load_or_create(&path, now).unwrap();
        let second = load_or_create(&path, now).unwrap();
        assert_eq!(first.mesh_root.cert, second.mesh_root.cert);
        assert_eq!(first.clusters.len(), CLUSTERS.len());
        for cluster in &CLUSTERS {
            let keys = &second.clusters[cluster.name];
            api_server(keys, cluster, now).unwrap();
            client(keys, "admin", &["system:masters"], now).unwrap();
            assert_eq!(keys.mesh.ancestors, second.mesh_root.cert);
        }
    }

    #[test]
    fn a_damaged_file_is_named_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("authorities.json");
        std::fs::write(&path, "{").unwrap();
        let error = format!(
            "{:#}",
            load_or_create(&path, SystemTime::now()).unwrap_err()
        );
        assert!(error.contains("theater reset --all"), "seen {error}");
    }
}
