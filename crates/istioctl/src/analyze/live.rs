//! The objects of running clusters.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use analysis::analyzers::{self, Analyzer};
use analysis::files::IGNORED_NAMESPACES;
use analysis::{Kind, OWN_CLUSTER, Object, Store, mesh};
use anyhow::{Context as _, Result, anyhow};
use kube_client::{Client, Kubeconfig, ListParams, Resource};
use serde_json::Value;

use super::Arguments;
use crate::kubeconfig::{self, Found};
use crate::{Global, Shell};

/// What is known of running clusters.
#[derive(Debug)]
pub enum Live {
    /// The namespace that was asked for does not exist.
    NoNamespace(String),
    /// The cluster that is asked, then the others.
    Clusters(Vec<Cluster>),
}

/// The objects of one cluster.
#[derive(Debug, Default)]
pub struct Cluster {
    /// Its name, if it is not the one that is asked.
    pub remote: Option<String>,
    /// The namespace for whoever names none.
    pub default_namespace: String,
    /// Kinds that were looked for, each with its objects.
    pub objects: BTreeMap<Kind, Vec<Value>>,
    /// The ConfigMap of the mesh configuration.
    pub mesh_config_map: Option<Value>,
    /// What to tell about kinds that are not read.
    pub warnings: Vec<String>,
}

impl Cluster {
    /// Mesh configuration and networks; nothing where the configuration cannot be read.
    #[must_use]
    pub fn mesh(&self) -> Option<(Value, Option<Value>)> {
        let data = &self.mesh_config_map.as_ref()?["data"];
        let config = mesh::config(data["mesh"].as_str()?).ok()?;
        let networks = data["meshNetworks"]
            .as_str()
            .and_then(|text| mesh::networks(text).ok());
        Some((config, networks))
    }

    /// Adds the objects. Configuration of all clusters is one; workloads and services belong to their cluster.
    pub fn add_to(self, store: &mut Store) {
        for (kind, objects) in self.objects {
            store.offer(kind);
            let cluster = match &self.remote {
                Some(name) if kind.only_live() => name,
                _ => OWN_CLUSTER,
            };
            for object in objects {
                if is_wanted(kind, &object) {
                    store.add(Object::new(kind, object, cluster, None));
                }
            }
        }
    }

    /// Leaves out what other revisions of the control plane read.
    pub fn only_revision(&mut self, revision: &str) {
        for (kind, objects) in &mut self.objects {
            if kind.only_live() || *kind == Kind::KubernetesGateway || revision.is_empty() {
                continue;
            }
            objects.retain(|object| {
                object["metadata"]["labels"]["istio.io/rev"]
                    .as_str()
                    .is_none_or(|of_object| of_object == revision)
            });
        }
    }
}

/// Whether an object is looked at: nothing of Kubernetes itself, no token and no ConfigMap of others.
fn is_wanted(kind: Kind, object: &Value) -> bool {
    let metadata = &object["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (name, namespace) = (text(&metadata["name"]), text(&metadata["namespace"]));
    match kind {
        Kind::Namespace => !IGNORED_NAMESPACES.contains(&name.as_str()),
        Kind::Service | Kind::Pod => !IGNORED_NAMESPACES.contains(&namespace.as_str()),
        Kind::Secret => !matches!(
            object["type"].as_str(),
            Some("helm.sh/release.v1" | "kubernetes.io/service-account-token")
        ),
        Kind::ConfigMap => {
            name.starts_with("istio")
                && metadata["annotations"]["control-plane.alpha.kubernetes.io/leader"].is_null()
        }
        _ => true,
    }
}

/// Reads the cluster that the kubeconfig names and those that its remote secrets name.
///
/// # Errors
/// A cluster cannot be reached or does not allow reading.
pub fn read(
    global: &Global,
    arguments: &Arguments,
    analyzers: &[Analyzer],
    shell: &Shell<'_>,
) -> Result<Live> {
    let kubeconfig = kubeconfig::find(global, shell)?.ok_or_else(no_kubeconfig)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let timeout = duration(&arguments.timeout)?;
        tokio::time::timeout(timeout, clusters(&kubeconfig, global, arguments, analyzers))
            .await
            .map_err(|_| anyhow!("the clusters did not answer within {}", arguments.timeout))?
    })
}

/// Without a kubeconfig, the real program asks a server on this machine in the clear. This client does not, but says the same.
fn no_kubeconfig() -> anyhow::Error {
    anyhow!(
        "Get \"http://localhost:8080/api/v1/namespaces/default?timeout=15s\": dial tcp 127.0.0.1:8080: connect: connection refused"
    )
}

async fn clusters(
    kubeconfig: &Found,
    global: &Global,
    arguments: &Arguments,
    analyzers: &[Analyzer],
) -> Result<Live> {
    let context = global.context.as_deref();
    let client = kubeconfig.client(context)?;
    let default_namespace = kubeconfig
        .config
        .namespace(context)
        .unwrap_or("default")
        .to_owned();
    let namespace = global
        .namespace
        .clone()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| default_namespace.clone());
    match client
        .get(&resource(Kind::Namespace), None, &namespace)
        .await
    {
        Ok(_) => {}
        Err(error) if error.is_not_found() => {
            return Ok(Live::NoNamespace(
                global.namespace.clone().unwrap_or_default(),
            ));
        }
        Err(error) => return Err(error.into()),
    }
    let kinds = analysis::kinds(analyzers);
    let mut own = objects(&client, None, &kinds, arguments, global).await?;
    own.default_namespace = default_namespace;
    let mut clusters = vec![own];
    for (name, client) in remote_clients(&client, kubeconfig, global, arguments).await? {
        clusters.push(objects(&client, Some(name), &kinds, arguments, global).await?);
    }
    Ok(Live::Clusters(clusters))
}

fn resource(kind: Kind) -> Resource {
    let info = kind.info();
    Resource::new(info.group, info.versions[0], info.plural, info.name)
}

/// Everything of `kinds` in one cluster. Kinds that its server does not have are there without objects.
async fn objects(
    client: &Client,
    remote: Option<String>,
    kinds: &BTreeSet<Kind>,
    arguments: &Arguments,
    global: &Global,
) -> Result<Cluster> {
    let mut cluster = Cluster::default();
    let wanted = kinds
        .iter()
        .filter(|kind| !kind.synthetic() && (remote.is_none() || kind.in_remote_clusters()));
    let definitions = list(client, Kind::CustomResourceDefinition, None).await?;
    let old = too_old(&definitions, &mut cluster.warnings);
    for kind in wanted {
        let info = kind.info();
        let namespace = (*kind == Kind::ConfigMap).then_some(global.istio_namespace.as_str());
        let objects = if *kind == Kind::CustomResourceDefinition {
            definitions.clone()
        } else if old.contains(&format!("{}.{}", info.plural, info.group)) {
            Vec::new()
        } else {
            list(client, *kind, namespace).await?
        };
        cluster.objects.insert(*kind, objects);
    }
    let config = client
        .get(
            &resource(Kind::ConfigMap),
            Some(&global.istio_namespace),
            "istio",
        )
        .await;
    cluster.mesh_config_map = config.ok();
    cluster.remote = remote;
    cluster.only_revision(&arguments.revision);
    Ok(cluster)
}

async fn list(client: &Client, kind: Kind, namespace: Option<&str>) -> Result<Vec<Value>> {
    let resource = resource(kind);
    let mut objects = Vec::new();
    let mut params = ListParams::default();
    loop {
        let page = match client.list(&resource, namespace, &params).await {
            Ok(page) => page,
            Err(error) if error.is_not_found() => return Ok(objects),
            Err(error) => {
                return Err(error).with_context(|| format!("reading {}", kind.info().plural));
            }
        };
        objects.extend(page.items);
        match page.continue_ {
            Some(next) => params.continue_ = Some(next),
            None => return Ok(objects),
        }
    }
}

/// Kinds of the Gateway API that are too old to be read, with a warning each.
pub fn too_old(definitions: &[Value], warnings: &mut Vec<String>) -> BTreeSet<String> {
    let mut old = BTreeSet::new();
    for definition in definitions {
        let metadata = &definition["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default();
        let version = metadata["annotations"]["gateway.networking.k8s.io/bundle-version"]
            .as_str()
            .unwrap_or_default();
        if let Some((installed, minimum)) = analyzers::too_old(name, version) {
            warnings.push(format!(
                "CRD {name} version {installed} is below minimum version {minimum} required by this Istio version; resources of this \
                 kind will not be processed. Upgrade the Gateway API CRDs to satisfy the minimum version."
            ));
            old.insert(name.to_owned());
        }
    }
    old
}

/// The other clusters: those of `--remote-contexts`, else those of the remote secrets.
async fn remote_clients(
    client: &Client,
    kubeconfig: &Found,
    global: &Global,
    arguments: &Arguments,
) -> Result<Vec<(String, Client)>> {
    if !arguments.remote_contexts.is_empty() {
        return arguments
            .remote_contexts
            .iter()
            .map(|name| {
                if !kubeconfig.config.contexts().any(|known| known == name) {
                    return Err(anyhow!("context {name:?} not found"));
                }
                Ok((name.clone(), kubeconfig.client(Some(name))?))
            })
            .collect();
    }
    let selector = format!("{}=true", analyzers::REMOTE_SECRET_LABEL);
    let secrets = client
        .list(
            &resource(Kind::Secret),
            Some(&global.istio_namespace),
            &ListParams::labels(selector),
        )
        .await?;
    let mut clients = Vec::new();
    for secret in &secrets.items {
        for text in secret["data"].as_object().into_iter().flatten() {
            let Some((name, of_secret)) = remote_kubeconfig(text.1, kubeconfig.timeout)? else {
                continue;
            };
            clients.push((name.clone(), reachable(&name, of_secret, kubeconfig).await?));
        }
    }
    Ok(clients)
}

/// Cluster name and kubeconfig of a remote secret; `None` if it chooses no context.
fn remote_kubeconfig(
    data: &Value,
    timeout: std::time::Duration,
) -> Result<Option<(String, Found)>> {
    use base64::Engine as _;
    let bytes =
        base64::engine::general_purpose::STANDARD.decode(data.as_str().unwrap_or_default())?;
    let config = Kubeconfig::parse(&String::from_utf8_lossy(&bytes))?;
    let Some(name) = config.cluster(None).map(str::to_owned) else {
        return Ok(None);
    };
    Ok(Some((
        name,
        Found {
            config,
            directory: PathBuf::new(),
            impersonate: kube_client::Impersonate::default(),
            timeout,
        },
    )))
}

/// How long the server of a remote secret may take to answer.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// The client of a remote secret. The server it names is one that istiod reaches; where this machine does not, the context of the
/// own kubeconfig with the same cluster is taken.
async fn reachable(name: &str, of_secret: Found, kubeconfig: &Found) -> Result<Client> {
    let client = of_secret.client(None)?;
    let same = kubeconfig
        .config
        .contexts()
        .find(|context| kubeconfig.config.cluster(Some(context)) == Some(name));
    let Some(same) = same else {
        return Ok(client);
    };
    let namespaces = resource(Kind::Namespace);
    let answer = client.get(&namespaces, None, "default");
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(_)) => Ok(client),
        _ => kubeconfig.client(Some(same)),
    }
}

/// A duration as flags have it: `30s`, `1m30s`, `500ms`.
fn duration(text: &str) -> Result<std::time::Duration> {
    let wrong = || {
        anyhow!("invalid argument {text:?} for \"--timeout\" flag: time: invalid duration {text:?}")
    };
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest
            .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
            .ok_or_else(wrong)?;
        let (number, after) = rest.split_at(end);
        let unit_end = after
            .find(|letter: char| letter.is_ascii_digit() || letter == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let factor = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return Err(wrong()),
        };
        total += number.parse::<f64>().map_err(|_| wrong())? * factor;
        rest = after;
    }
    Ok(std::time::Duration::from_secs_f64(total))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_are_those_of_go() {
        assert_eq!(duration("1m30s").unwrap().as_secs(), 90);
        assert_eq!(duration("500ms").unwrap().as_millis(), 500);
        assert!(duration("30").is_err());
    }

    #[test]
    fn workloads_stay_in_their_cluster_and_configuration_does_not() {
        let cluster = Cluster {
            remote: Some("ctx2".into()),
            objects: [
                (
                    Kind::Service,
                    vec![json!({"metadata": {"name": "a", "namespace": "shop"}})],
                ),
                (
                    Kind::Gateway,
                    vec![json!({"metadata": {"name": "a", "namespace": "shop"}, "spec": {}})],
                ),
                (
                    Kind::Pod,
                    vec![json!({"metadata": {"name": "a", "namespace": "kube-system"}})],
                ),
            ]
            .into(),
            ..Cluster::default()
        };
        let mut store = Store::default();
        cluster.add_to(&mut store);
        let cluster_of = |kind| {
            store
                .each(kind)
                .next()
                .map(|object| object.origin.cluster.clone())
        };
        assert_eq!(cluster_of(Kind::Service).as_deref(), Some("ctx2"));
        assert_eq!(cluster_of(Kind::Gateway).as_deref(), Some(OWN_CLUSTER));
        assert_eq!(cluster_of(Kind::Pod), None);
    }

    #[test]
    fn objects_of_other_revisions_are_left_out() {
        let gateway = |revision: &str| json!({"metadata": {"name": revision, "labels": {"istio.io/rev": revision}}});
        let mut cluster = Cluster {
            objects: [(
                Kind::Gateway,
                vec![
                    gateway("default"),
                    gateway("canary"),
                    json!({"metadata": {"name": "any"}}),
                ],
            )]
            .into(),
            ..Cluster::default()
        };
        cluster.only_revision("default");
        let names: Vec<_> = cluster.objects[&Kind::Gateway]
            .iter()
            .map(|object| object["metadata"]["name"].clone())
            .collect();
        assert_eq!(names, ["default", "any"]);
    }
}
