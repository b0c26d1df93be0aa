//! `istioctl remote-clusters`: which clusters each control plane watches.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

use crate::mesh::Mesh;
use crate::table::Table;
use crate::{Global, Shell, async_runtime};

/// What is typed.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Revision of the control plane; all are asked
    #[arg(long, short, value_name = "NAME")]
    revision: Option<String>,
}

/// The port of istiod's monitoring and debug endpoints.
const PORT: u16 = 15014;

/// Runs the command; the exit code.
pub(crate) fn run(global: &Global, _: &Arguments, shell: &mut Shell<'_>) -> Result<u8> {
    let mesh = Mesh::connect(global, shell)?;
    let told = async_runtime()?.block_on(ask(&mesh))?;
    write!(shell.stdout, "{}", table(&told))?;
    Ok(0)
}

/// What a control plane tells: its revision, and its clusters.
struct Told {
    revision: String,
    clusters: Vec<Value>,
}

async fn ask(mesh: &Mesh) -> Result<BTreeMap<String, Told>> {
    let pods = mesh.control_planes().await?;
    if pods.is_empty() {
        bail!("unable to find any Istiod instances");
    }
    let mut told = BTreeMap::new();
    for pod in &pods {
        let name = api::meta::name(pod);
        let place = (name, mesh.istio_namespace.as_str());
        let answer = mesh.ask(place, "GET", "/debug/clusterz", PORT).await?;
        let revision = &pod["metadata"]["labels"]["istio.io/rev"];
        told.insert(
            name.to_owned(),
            Told {
                revision: revision.as_str().unwrap_or_default().to_owned(),
                clusters: serde_json::from_slice(&answer)?,
            },
        );
    }
    Ok(told)
}

fn table(told: &BTreeMap<String, Told>) -> String {
    let mut table = Table::new(&["NAME", "SECRET", "STATUS", "ISTIOD", "REVISION"]);
    for (istiod, Told { revision, clusters }) in told {
        for cluster in clusters {
            let text = |field: &str| cluster[field].as_str().unwrap_or_default();
            table.row(&[
                text("id"),
                text("secretName"),
                text("syncStatus"),
                istiod,
                revision,
            ]);
        }
    }
    table.render(5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_row_for_each_cluster_of_each_control_plane() {
        let clusters = vec![
            json!({"id": "ctx1", "secretName": "", "syncStatus": "synced"}),
            json!({"id": "ctx2", "secretName": "istio-system/istio-remote-secret-ctx2", "syncStatus": "synced"}),
        ];
        let told = Told {
            revision: "default".into(),
            clusters,
        };
        assert_eq!(
            table(&BTreeMap::from([("istiod-1".to_owned(), told)])),
            "NAME     SECRET                                    STATUS     ISTIOD       REVISION\n\
             ctx1                                               synced     istiod-1     default\n\
             ctx2     istio-system/istio-remote-secret-ctx2     synced     istiod-1     default\n"
        );
    }
}
