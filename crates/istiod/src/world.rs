//! One version of the mesh, from which every proxy's configuration is made; and the loop that makes
//! the next version when something changes.

use std::sync::Arc;
use std::time::Duration;

use api::istio::MeshConfig;
use tokio::sync::watch;
use translate::{Built, Change, Output, ProxyInfo, Snapshot};
use xds::prost_types::Any;

use crate::ads::session::{Changes, Generated, World};
use crate::authenticate::Authenticator;
use crate::clusters::Clusters;
use crate::credential::{CredentialName, credential};

/// Changes that come within this time of one another are one change: `kubectl apply` of a file
/// is one push.
const QUIET: Duration = Duration::from_millis(3);

/// Under constant change a new version is made this often all the same.
const LONGEST: Duration = Duration::from_millis(50);

/// One version of the mesh.
pub struct Mesh {
    version: u64,
    snapshot: Arc<Snapshot>,
    clusters: Arc<Clusters>,
}

impl Mesh {
    /// The configuration of the mesh.
    pub fn config(&self) -> &MeshConfig {
        self.snapshot.mesh()
    }
}

fn report(proxy: &ProxyInfo, output: &Output) {
    for problem in &output.problems {
        tracing::warn!(node = proxy.id, %problem, "configuration problem");
    }
}

impl World for Mesh {
    fn version(&self) -> u64 {
        self.version
    }

    type Built = Built;

    fn generate(&self, proxy: &ProxyInfo) -> (Built, Generated) {
        let (built, output) = Built::new(self.snapshot.clone(), proxy);
        report(proxy, &output);
        (built, crate::generate::by_type(&output))
    }

    fn update(&self, proxy: &ProxyInfo, built: &mut Built, generated: &mut Generated) -> Changes {
        let change = built.advance(self.snapshot.clone(), proxy);
        match &change {
            Change::Everything(output) | Change::Part { made: output, .. } => {
                report(proxy, output);
            }
        }
        crate::generate::apply(generated, &change)
    }

    fn secret(&self, proxy: &ProxyInfo, name: &str) -> Option<Any> {
        let reference = CredentialName::parse(name, &proxy.namespace)?;
        // Only gateways ask, and only for credentials beside them: a sidecar must not be able to
        // read the keys of its namespace.
        if !proxy.is_router() || reference.namespace != proxy.namespace {
            tracing::warn!(node = proxy.id, secret = name, "refused a credential");
            return None;
        }
        let object = self
            .clusters
            .secret(&reference.namespace, &reference.name)?;
        let secret = credential(name, reference.ca_only, &object);
        if secret.is_none() {
            tracing::warn!(
                secret = name,
                "Secret {}/{} has no usable tls.crt and tls.key (or ca.crt)",
                reference.namespace,
                reference.name
            );
        }
        secret.map(|secret| xds::any::pack(&secret))
    }
}

/// Makes the first version once everything is read, and a new one after every change.
pub async fn follow(
    clusters: Arc<Clusters>,
    authenticator: Arc<Authenticator>,
    domain: String,
    worlds: watch::Sender<Option<Arc<Mesh>>>,
) {
    let mut changes = clusters.changes();
    clusters.wait_synced().await;
    let mut version = 0;
    let mut latest: Option<Arc<Snapshot>> = None;
    loop {
        changes.mark_unchanged();
        clusters.follow_remotes();
        authenticator.set_clients(clusters.clients());
        version += 1;
        let started = std::time::Instant::now();
        let input = clusters.input(&domain);
        let snapshot = Arc::new(match &latest {
            Some(before) => Snapshot::next(before, input),
            None => Snapshot::from_objects(input),
        });
        latest = Some(snapshot.clone());
        for problem in snapshot.problems() {
            tracing::warn!(%problem, "configuration problem");
        }
        tracing::debug!(version, elapsed = ?started.elapsed(), "new version");
        worlds.send_replace(Some(Arc::new(Mesh {
            version,
            snapshot,
            clusters: clusters.clone(),
        })));
        if changes.changed().await.is_err() {
            return;
        }
        settle(&mut changes).await;
    }
}

/// Waits until changes pause for [`QUIET`], at most [`LONGEST`].
async fn settle(changes: &mut watch::Receiver<u64>) {
    let quiet =
        async { while let Ok(Ok(())) = tokio::time::timeout(QUIET, changes.changed()).await {} };
    let _ = tokio::time::timeout(LONGEST, quiet).await;
}
