//! `istioctl x injector list`: which namespaces are injected by which webhook, and what their pods have.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail};
use api::selector::LabelSelector;
use clap::{Args, Subcommand};
use kube_client::{CONFIG_MAPS, ListParams, NAMESPACES, PODS};
use serde_json::Value;

use crate::mesh::Mesh;
use crate::table::Table;
use crate::{Global, Shell, async_runtime, command};

const REVISION: &str = "istio.io/rev";
const INJECTION: &str = "istio-injection";
/// Namespaces that are never injected.
const IGNORED: [&str; 4] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "local-path-storage",
];

/// What is typed.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List injectors and the sidecars of pods
    List,
    #[command(external_subcommand)]
    Unknown(Vec<String>),
}

/// Runs the command; the exit code.
pub(crate) fn run(global: &Global, arguments: &Arguments, shell: &mut Shell<'_>) -> Result<u8> {
    match &arguments.command {
        None => write!(
            shell.stdout,
            "{}",
            command::help(&["experimental", "injector"])
        )?,
        Some(Command::Unknown(words)) => {
            bail!(
                "unknown subcommand {:?}",
                words.first().map_or("", |word| word)
            )
        }
        Some(Command::List) => {
            let mesh = Mesh::connect(global, shell)
                .map_err(|error| anyhow!("failed to create k8s client: {error}"))?;
            let seen = async_runtime()?.block_on(look(&mesh))?;
            write!(
                shell.stdout,
                "{}\n{}",
                seen.of_namespaces(),
                seen.of_hooks()
            )?;
        }
    }
    Ok(0)
}

/// What a cluster has.
struct Seen {
    namespaces: Vec<Value>,
    hooks: Vec<Value>,
    pods: Vec<Value>,
    /// The sidecar's image of each revision, where a ConfigMap tells it.
    images: BTreeMap<String, String>,
}

async fn look(mesh: &Mesh) -> Result<Seen> {
    let client = &mesh.client;
    let all = ListParams::default();
    let mut namespaces = client.list(&NAMESPACES, None, &all).await?.items;
    namespaces.retain(|namespace| {
        let name = api::meta::name(namespace);
        !IGNORED.contains(&name)
            && name != mesh.istio_namespace
            && label(namespace, "istio.io/dataplane-mode") != "ambient"
    });
    if let Some(one) = namespaces
        .iter()
        .find(|namespace| Some(api::meta::name(namespace)) == mesh.namespace.as_deref())
    {
        namespaces = vec![one.clone()];
    }
    let hooks = mesh.webhooks("app=sidecar-injector").await?;
    let pods = client.list(&PODS, None, &all).await?.items;
    let of_revisions = client
        .list(&CONFIG_MAPS, None, &ListParams::labels(REVISION))
        .await?;
    let images = of_revisions
        .items
        .iter()
        .filter_map(|map| Some((label(map, REVISION).to_owned(), image(map)?)))
        .collect();
    Ok(Seen {
        namespaces,
        hooks,
        pods,
        images,
    })
}

/// The sidecar's image that a ConfigMap of injection values tells.
fn image(map: &Value) -> Option<String> {
    let values: Value = serde_json::from_str(map["data"]["values"].as_str()?).ok()?;
    let global = &values["global"];
    let image = global["proxy"]["image"]
        .as_str()
        .filter(|name| !name.is_empty())?;
    if image.contains('/') {
        return Some(image.to_owned());
    }
    let text = |field: &str| global[field].as_str().unwrap_or_default();
    Some(format!("{}/{image}:{}", text("hub"), text("tag")))
}

fn label<'a>(object: &'a Value, name: &str) -> &'a str {
    object["metadata"]["labels"][name]
        .as_str()
        .unwrap_or_default()
}

fn takes(webhook: &Value, namespace: &Value) -> bool {
    LabelSelector::from_value(&webhook["namespaceSelector"]).matches(namespace)
}

fn webhooks(hook: &Value) -> impl Iterator<Item = &Value> {
    hook["webhooks"].as_array().into_iter().flatten()
}

/// Pods of one revision in a namespace.
#[derive(Default)]
struct Count {
    pods: usize,
    disabled: usize,
    outdated: usize,
}

impl Count {
    fn render(&self, revision: &str) -> String {
        if self.pods == 0 {
            return "<no pods>".to_owned();
        }
        let mut text = format!("{revision}: {}", self.pods);
        if self.disabled > 0 {
            text.push_str(&format!(" (injection disabled: {})", self.disabled));
        }
        if self.outdated > 0 {
            text.push_str(&format!(" NEEDS RESTART: {}", self.outdated));
        }
        text
    }
}

impl Seen {
    /// The revision that new pods of a namespace get; empty: none.
    fn revision_of(&self, namespace: &Value) -> String {
        if let Some(hook) = self
            .hooks
            .iter()
            .find(|hook| webhooks(hook).any(|webhook| takes(webhook, namespace)))
        {
            return label(hook, REVISION).to_owned();
        }
        let wanted = label(namespace, REVISION);
        let injection = namespace["metadata"]["labels"][INJECTION].as_str();
        match (wanted, injection) {
            ("", None | Some("disabled")) => String::new(),
            ("", Some(_)) => format!("MISSING/{INJECTION}"),
            (wanted, _) => format!("MISSING/{wanted}"),
        }
    }

    fn counts(&self, namespace: &str, expected: &str) -> BTreeMap<String, Count> {
        let mut counts: BTreeMap<String, Count> = BTreeMap::new();
        for pod in &self.pods {
            if api::meta::namespace(pod) != namespace {
                continue;
            }
            let revision = revision_of_pod(pod);
            let shown = match revision.as_str() {
                "" => "<non-Istio>",
                revision => revision,
            };
            let count = counts.entry(shown.to_owned()).or_default();
            count.pods += 1;
            if is_disabled(pod) {
                count.disabled += 1;
            } else if revision != expected {
                count.outdated += 1;
            }
        }
        if counts.is_empty() && !expected.is_empty() {
            counts.insert(expected.to_owned(), Count::default());
        }
        counts
    }

    fn of_namespaces(&self) -> String {
        let mut table = Table::new(&["NAMESPACE", "ISTIO-REVISION", "POD-REVISIONS"]);
        let mut any = false;
        for namespace in &self.namespaces {
            let name = api::meta::name(namespace);
            let revision = self.revision_of(namespace);
            for (of_pods, count) in self.counts(name, &revision) {
                any = true;
                table.row(&[name, &revision, &count.render(&of_pods)]);
            }
        }
        if any {
            table.render(1)
        } else {
            "No Istio injected namespaces present.\n".to_owned()
        }
    }

    fn of_hooks(&self) -> String {
        if self.hooks.is_empty() {
            return "No Istio injection hooks present.\n".to_owned();
        }
        let mut hooks: Vec<&Value> = self.hooks.iter().collect();
        hooks.sort_by_key(|hook| api::meta::name(hook));
        let header = [
            "NAMESPACES",
            "INJECTOR-HOOK",
            "ISTIO-REVISION",
            "SIDECAR-IMAGE",
        ];
        let mut table = Table::new(&header);
        for hook in hooks {
            let revision = label(hook, REVISION);
            let image = self.images.get(revision).map_or("", String::as_str);
            let mut names: Vec<&str> = Vec::new();
            for webhook in webhooks(hook) {
                let of_namespaces = matches!(
                    webhook["name"].as_str(),
                    Some(
                        "rev.namespace.sidecar-injector.istio.io"
                            | "namespace.sidecar-injector.istio.io"
                    )
                );
                for namespace in self.namespaces.iter().filter(|_| of_namespaces) {
                    let name = api::meta::name(namespace);
                    if takes(webhook, namespace) && !names.contains(&name) {
                        names.push(name);
                    }
                }
            }
            if names.is_empty() {
                names.push("DOES NOT AUTOINJECT");
            }
            for name in names {
                table.row(&[name, api::meta::name(hook), revision, image]);
            }
        }
        table.render(1)
    }
}

/// The revision whose sidecar a pod has.
fn revision_of_pod(pod: &Value) -> String {
    let annotation = |name: &str| api::meta::annotation(pod, name);
    if let Some(revision) = annotation(REVISION) {
        return revision.to_owned();
    }
    let status = annotation("sidecar.istio.io/status").unwrap_or_default();
    let status: Value = serde_json::from_str(status).unwrap_or_default();
    status["revision"].as_str().unwrap_or_default().to_owned()
}

fn is_disabled(pod: &Value) -> bool {
    const INJECT: &str = "sidecar.istio.io/inject";
    let wish = pod["metadata"]["labels"][INJECT]
        .as_str()
        .or_else(|| api::meta::annotation(pod, INJECT));
    wish.is_some_and(|wish| wish.eq_ignore_ascii_case("false"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn seen() -> Seen {
        let pod = |namespace: &str, revision: &str, inject: &str| {
            json!({"metadata": {"namespace": namespace, "labels": {"sidecar.istio.io/inject": inject},
                "annotations": {"sidecar.istio.io/status": json!({"revision": revision}).to_string()}}})
        };
        let enabled = json!({"matchExpressions": [{"key": INJECTION, "operator": "In", "values": ["enabled"]}]});
        let tagged =
            json!({"matchExpressions": [{"key": REVISION, "operator": "In", "values": ["prod"]}]});
        Seen {
            namespaces: vec![
                json!({"metadata": {"name": "default"}}),
                json!({"metadata": {"name": "old", "labels": {REVISION: "gone"}}}),
                json!({"metadata": {"name": "shop", "labels": {INJECTION: "enabled"}}}),
            ],
            hooks: vec![
                json!({"metadata": {"name": "istio-sidecar-injector", "labels": {REVISION: "default"}},
                    "webhooks": [{"name": "namespace.sidecar-injector.istio.io", "namespaceSelector": enabled}]}),
                json!({"metadata": {"name": "istio-revision-tag-prod", "labels": {REVISION: "default"}},
                    "webhooks": [{"name": "rev.namespace.sidecar-injector.istio.io", "namespaceSelector": tagged}]}),
            ],
            pods: vec![
                pod("shop", "default", "true"),
                pod("shop", "1-8", "true"),
                pod("shop", "", "false"),
            ],
            images: BTreeMap::new(),
        }
    }

    #[test]
    fn namespaces_are_told_with_the_revisions_of_their_pods() {
        assert_eq!(
            seen().of_namespaces(),
            "NAMESPACE ISTIO-REVISION POD-REVISIONS\n\
             old       MISSING/gone   <no pods>\n\
             shop      default        1-8: 1 NEEDS RESTART: 1\n\
             shop      default        <non-Istio>: 1 (injection disabled: 1)\n\
             shop      default        default: 1\n"
        );
    }

    #[test]
    fn hooks_are_told_with_the_namespaces_they_take() {
        assert_eq!(
            seen().of_hooks(),
            "NAMESPACES          INJECTOR-HOOK           ISTIO-REVISION SIDECAR-IMAGE\n\
             DOES NOT AUTOINJECT istio-revision-tag-prod default        \n\
             shop                istio-sidecar-injector  default        \n"
        );
    }
}
