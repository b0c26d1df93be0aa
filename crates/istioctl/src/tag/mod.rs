//! `istioctl tag`: names for revisions of the control plane, which namespaces can be labelled with.

mod generate;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, Subcommand};
use kube_client::{
    DeleteOptions, ListParams, MUTATING_WEBHOOK_CONFIGURATIONS, NAMESPACES, PatchType, Resource,
    SERVICES, VALIDATING_WEBHOOK_CONFIGURATIONS,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::mesh::Mesh;
use crate::table::Table;
use crate::{Global, Shell, async_runtime, command, proto_json, yaml};
use generate::Wanted;

/// The label with the revision, of control planes and of what they shall inject into.
const REVISION: &str = "istio.io/rev";
/// The label of a tag's objects.
const TAG: &str = "istio.io/tag";

/// What is typed.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List the tags
    #[command(visible_alias = "show")]
    List {
        /// Format: table, json or yaml
        #[arg(long, short, value_name = "FORMAT", default_value = "table")]
        output: String,
        #[arg(hide = true)]
        rest: Vec<String>,
    },
    /// Make a tag, or let it name another revision
    Set(Set),
    /// Print the objects of a tag
    Generate(Set),
    /// Remove a tag
    #[command(visible_alias = "delete")]
    Remove {
        /// Name of the tag
        tag: Vec<String>,
        /// Do not ask
        #[arg(long, short = 'y')]
        skip_confirmation: bool,
    },
    #[command(external_subcommand)]
    Unknown(Vec<String>),
}

/// What `set` and `generate` take.
#[derive(Args, Debug)]
struct Set {
    /// Name of the tag
    tag: Vec<String>,
    /// The revision that it names
    #[arg(long, short, value_name = "NAME")]
    revision: Option<String>,
    /// Let an existing tag name another revision
    #[arg(long)]
    overwrite: bool,
    /// Do not ask
    #[arg(long, short = 'y')]
    skip_confirmation: bool,
    /// Name of the webhook configuration
    #[arg(long, value_name = "NAME", default_value = "")]
    webhook_name: String,
    /// With the tag default: inject into all namespaces
    #[arg(long)]
    auto_inject_namespaces: bool,
    /// Accepted, has no effect here: charts are built in
    #[arg(long, short = 'd', hide = true)]
    manifests: Option<String>,
}

/// A tag, as it is listed.
#[derive(Debug, Serialize, PartialEq, Eq)]
struct Described {
    tag: String,
    revision: String,
    namespaces: Vec<String>,
}

/// Runs the command; the exit code.
pub(crate) fn run(global: &Global, arguments: &Arguments, shell: &mut Shell<'_>) -> Result<u8> {
    match &arguments.command {
        None => write!(shell.stdout, "{}", command::help(&["tag"]))?,
        Some(Command::Unknown(words)) => {
            bail!(
                "unknown subcommand {:?}",
                words.first().map_or("", |word| word)
            )
        }
        Some(Command::List { rest, .. }) if !rest.is_empty() => {
            bail!("tag list command does not accept arguments")
        }
        Some(Command::List { output, .. }) => {
            let mesh = connect(global, shell)?;
            let tags = async_runtime()?.block_on(list(&mesh))?;
            write!(shell.stdout, "{}", listed(&tags, output)?)?;
        }
        Some(Command::Set(set)) => self::set(global, set, false, shell)?,
        Some(Command::Generate(set)) => self::set(global, set, true, shell)?,
        Some(Command::Remove {
            tag,
            skip_confirmation,
        }) => match tag.as_slice() {
            [] => bail!("must provide a tag for removal"),
            [tag] => remove(global, tag, *skip_confirmation, shell)?,
            _ => bail!("must provide a single tag for removal"),
        },
    }
    Ok(0)
}

fn connect(global: &Global, shell: &Shell<'_>) -> Result<Mesh> {
    Mesh::connect(global, shell)
        .map_err(|error| anyhow!("failed to create Kubernetes client: {error}"))
}

async fn labelled(mesh: &Mesh, kind: &Resource, selector: &str) -> Result<Vec<Value>> {
    let namespace = (kind.plural == SERVICES.plural).then_some(mesh.istio_namespace.as_str());
    let found = mesh
        .client
        .list(kind, namespace, &ListParams::labels(selector))
        .await?;
    Ok(found.items)
}

async fn namespaces_of(mesh: &Mesh, tag: &str) -> Result<Vec<String>> {
    let selector = format!("{REVISION}={tag}");
    let namespaces = labelled(mesh, &NAMESPACES, &selector).await?;
    Ok(namespaces
        .iter()
        .map(|namespace| api::meta::name(namespace).to_owned())
        .collect())
}

async fn list(mesh: &Mesh) -> Result<Vec<Described>> {
    let mut objects = mesh
        .webhooks(REVISION)
        .await
        // Said twice, as by the real program.
        .context("failed to retrieve revision tags: failed to retrieve revision tags")?;
    objects.extend(labelled(mesh, &SERVICES, REVISION).await?);
    let mut described = Vec::new();
    for (revision, tag) in tags_in(&objects) {
        let namespaces = namespaces_of(mesh, &tag).await?;
        described.push(Described {
            tag,
            revision,
            namespaces,
        });
    }
    Ok(described)
}

/// Revisions with their tags, in order. A revision without a tag is shown with an empty one.
fn tags_in(objects: &[Value]) -> Vec<(String, String)> {
    let mut tags: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for object in objects {
        let label = |name: &str| object["metadata"]["labels"][name].as_str().unwrap_or("");
        tags.entry(label(REVISION)).or_default().push(label(TAG));
    }
    let mut out = Vec::new();
    for (revision, mut names) in tags {
        names.sort_unstable();
        names.dedup();
        if names.len() > 1 {
            names.retain(|name| !name.is_empty());
        }
        out.extend(
            names
                .into_iter()
                .map(|tag| (revision.to_owned(), tag.to_owned())),
        );
    }
    out
}

fn listed(tags: &[Described], format: &str) -> Result<String> {
    if tags.is_empty() {
        return Ok("No Istio revision tags found.\n".to_owned());
    }
    Ok(match format {
        "json" => format!("{}\n", proto_json::tabbed(&serde_json::to_value(tags)?)),
        "yaml" => format!("{}\n", yaml::to_string(&serde_json::to_value(tags)?)),
        "table" => {
            let mut table = Table::new(&["TAG", "REVISION", "NAMESPACES"]);
            for tag in tags {
                table.row(&[&tag.tag, &tag.revision, &tag.namespaces.join(",")]);
            }
            table.render(1)
        }
        other => bail!("unknown format: {other}"),
    })
}

fn set(global: &Global, set: &Set, only_print: bool, shell: &mut Shell<'_>) -> Result<()> {
    let tag = match set.tag.as_slice() {
        [] => bail!("must provide a tag for modification"),
        [tag] => tag,
        _ => bail!("must provide a single tag for creation"),
    };
    let Some(revision) = &set.revision else {
        bail!("required flag(s) \"revision\" not set");
    };
    let mesh = connect(global, shell)?;
    let runtime = async_runtime()?;
    let made = runtime.block_on(make(&mesh, set, tag, revision, only_print))?;
    if let Some(conflicts) = made.conflicts.filter(|_| !set.skip_confirmation) {
        write!(shell.stderr, "{conflicts}")?;
        if !only_print && !confirmed("Apply anyways? [y/N]", shell)? {
            return Ok(());
        }
    }
    if only_print {
        write!(shell.stdout, "{}", generate::documents(&made.objects))?;
        return Ok(());
    }
    runtime
        .block_on(apply(&mesh, &made.objects))
        .map_err(|error| {
            anyhow!(
                "failed to apply tag webhook MutatingWebhookConfiguration to cluster: failed to apply tag manifests to cluster: {error}"
            )
        })?;
    writeln!(
        shell.stdout,
        "Revision tag {tag:?} created, referencing control plane revision {revision:?}. To enable injection using this\n\
         revision tag, use 'kubectl label namespace <NAMESPACE> istio.io/rev={tag}'"
    )?;
    Ok(())
}

/// The objects of a tag, and what speaks against them.
struct Made {
    objects: Vec<Value>,
    conflicts: Option<String>,
}

async fn make(mesh: &Mesh, set: &Set, tag: &str, revision: &str, only_print: bool) -> Result<Made> {
    let of_revision = async |name: &str| -> Result<(Vec<Value>, Vec<Value>)> {
        let own = format!("{REVISION}={name},!{TAG}");
        let services = labelled(mesh, &SERVICES, &format!("{own},app=istiod")).await?;
        let webhooks = mesh.webhooks(&own).await?;
        Ok((services, webhooks))
    };
    if !only_print && !set.overwrite && tag != generate::DEFAULT {
        let (services, webhooks) = of_revision(tag).await?;
        if !services.is_empty() || !webhooks.is_empty() {
            bail!(
                "cannot create revision tag {tag:?}: found existing control plane revision with same name"
            );
        }
    }
    let (services, webhooks) = of_revision(revision).await?;
    if services.len() > 1 {
        bail!(
            "cannot modify tag: found multiple canonical services with revision {revision:?} in namespace {:?}",
            mesh.istio_namespace
        );
    }
    let canonical = match webhooks.as_slice() {
        [one] => one,
        [] => bail!(
            "cannot modify tag: cannot find MutatingWebhookConfiguration or Service with revision {revision:?}"
        ),
        _ => bail!(
            "cannot modify tag: found multiple canonical webhooks or services with revision {revision:?}"
        ),
    };
    let of_tag = format!("{TAG}={tag}");
    if !set.overwrite
        && (!labelled(mesh, &SERVICES, &of_tag).await?.is_empty()
            || !mesh.webhooks(&of_tag).await?.is_empty())
    {
        bail!("revision tag {tag:?} already exists, and --overwrite is false");
    }
    let validators = labelled(mesh, &VALIDATING_WEBHOOK_CONFIGURATIONS, "").await?;
    let wanted = Wanted {
        tag,
        revision,
        webhook_name: &set.webhook_name,
        everywhere: set.auto_inject_namespaces,
        istio_namespace: &mesh.istio_namespace,
        canonical,
        validator: validators
            .iter()
            .find(|validator| api::meta::name(validator) == generate::VALIDATOR),
    };
    let objects = generate::objects(&wanted)?;
    if tag == generate::DEFAULT && !only_print {
        silence_default(mesh)
            .await
            .map_err(|error| anyhow!("failed deactivating existing default revision: {error}"))?;
    }
    let present = mesh.webhooks("").await?;
    let all = ListParams::default();
    let services = mesh.client.list(&SERVICES, None, &all).await?;
    let conflicts = generate::conflicts(&objects[0], &present, &services.items);
    Ok(Made { objects, conflicts })
}

/// The webhook configuration of the revision `default` shall inject nowhere: its tag does from now on. It is kept, so that one
/// can go back.
async fn silence_default(mesh: &Mesh) -> Result<()> {
    let own = format!("{REVISION}={},!{TAG}", generate::DEFAULT);
    let mut webhooks = mesh.webhooks(&own).await?;
    let configuration = match webhooks.as_mut_slice() {
        [] => return Ok(()),
        [one] => one,
        _ => bail!("expected a single webhook for default revision"),
    };
    let never = json!({"matchLabels": {"istio.io/deactivated": "never-match"}});
    for webhook in configuration["webhooks"]
        .as_array_mut()
        .into_iter()
        .flatten()
    {
        webhook["namespaceSelector"] = never.clone();
        webhook["objectSelector"] = never.clone();
    }
    mesh.client
        .update(&MUTATING_WEBHOOK_CONFIGURATIONS, None, configuration)
        .await?;
    Ok(())
}

async fn apply(mesh: &Mesh, objects: &[Value]) -> Result<()> {
    let apply = PatchType::Apply {
        manager: "istioctl".to_owned(),
        force: true,
    };
    for object in objects {
        let kind = match object["kind"].as_str() {
            Some("MutatingWebhookConfiguration") => MUTATING_WEBHOOK_CONFIGURATIONS,
            Some("ValidatingWebhookConfiguration") => VALIDATING_WEBHOOK_CONFIGURATIONS,
            _ => SERVICES,
        };
        let namespace = object["metadata"]["namespace"].as_str();
        let name = api::meta::name(object);
        mesh.client
            .patch(&kind, namespace, name, &apply, object, None)
            .await?;
    }
    Ok(())
}

fn remove(
    global: &Global,
    tag: &str,
    skip_confirmation: bool,
    shell: &mut Shell<'_>,
) -> Result<()> {
    let mesh = connect(global, shell)?;
    let runtime = async_runtime()?;
    let of_tag = format!("{TAG}={tag}");
    let kinds = [
        MUTATING_WEBHOOK_CONFIGURATIONS,
        VALIDATING_WEBHOOK_CONFIGURATIONS,
        SERVICES,
    ];
    let (found, namespaces) = runtime.block_on(async {
        let mut found = Vec::new();
        for kind in &kinds {
            for object in labelled(&mesh, kind, &of_tag).await? {
                found.push((kind.clone(), object));
            }
        }
        anyhow::Ok((found, namespaces_of(&mesh, tag).await?))
    })?;
    if !found
        .iter()
        .any(|(kind, _)| kind.plural != VALIDATING_WEBHOOK_CONFIGURATIONS.plural)
    {
        bail!(
            "cannot remove tag {tag:?}: cannot find MutatingWebhookConfiguration or Service for tag"
        );
    }
    if !namespaces.is_empty() && !skip_confirmation {
        let question = format!(
            "Caution, found {} namespace(s) still injected by tag {tag:?}: {}\nProceed with operation? [y/N]",
            namespaces.len(),
            namespaces.join(" ")
        );
        if !confirmed(&question, shell)? {
            writeln!(shell.stdout, "Aborting operation.")?;
            return Ok(());
        }
    }
    runtime.block_on(async {
        for (kind, object) in &found {
            let namespace = object["metadata"]["namespace"].as_str();
            let options = DeleteOptions::default();
            mesh.client
                .delete(kind, namespace, api::meta::name(object), &options)
                .await
                .map_err(|error| {
                    anyhow!("failed to delete Istio revision tag {}: {error}", kind.kind)
                })?;
        }
        anyhow::Ok(())
    })?;
    writeln!(shell.stdout, "Revision tag {tag} removed")?;
    Ok(())
}

/// Asks until the answer is yes or no; the end of the input is no.
fn confirmed(question: &str, shell: &mut Shell<'_>) -> Result<bool> {
    loop {
        write!(shell.stdout, "{question} ")?;
        shell.stdout.flush()?;
        let mut answer = Vec::new();
        let mut byte = [0];
        while shell.stdin.read(&mut byte)? > 0 && byte[0] != b'\n' {
            answer.push(byte[0]);
        }
        match String::from_utf8_lossy(&answer)
            .trim()
            .to_uppercase()
            .as_str()
        {
            "Y" | "YES" => return Ok(true),
            "N" | "NO" | "" => return Ok(false),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(pairs: &[(&str, &str)]) -> Value {
        let labels: BTreeMap<_, _> = pairs.iter().copied().collect();
        json!({"metadata": {"labels": labels}})
    }

    #[test]
    fn a_revision_is_listed_under_its_tags_or_alone() {
        let objects = [
            labelled(&[(REVISION, "1-8"), (TAG, "prod")]),
            labelled(&[(REVISION, "1-8")]),
            labelled(&[(REVISION, "1-8"), (TAG, "canary")]),
            labelled(&[(REVISION, "1-8"), (TAG, "prod")]),
            labelled(&[(REVISION, "1-9")]),
        ];
        let tags = tags_in(&objects);
        let tags: Vec<(&str, &str)> = tags.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(tags, [("1-8", "canary"), ("1-8", "prod"), ("1-9", "")]);
    }

    #[test]
    fn tags_are_listed_in_three_formats() {
        let tags = [
            Described {
                tag: String::new(),
                revision: "default".into(),
                namespaces: Vec::new(),
            },
            Described {
                tag: "prod".into(),
                revision: "v1".into(),
                namespaces: vec!["a".into(), "b".into()],
            },
        ];
        assert_eq!(
            listed(&tags, "table").unwrap(),
            "TAG  REVISION NAMESPACES\n     default  \nprod v1       a,b\n"
        );
        assert_eq!(
            listed(&tags[..1], "json").unwrap(),
            "[\n\t{\n\t\t\"tag\": \"\",\n\t\t\"revision\": \"default\",\n\t\t\"namespaces\": []\n\t}\n]\n"
        );
        assert_eq!(
            listed(&tags[..1], "yaml").unwrap(),
            "- namespaces: []\n  revision: default\n  tag: \"\"\n\n"
        );
        let error = listed(&tags, "wide").unwrap_err();
        assert_eq!(error.to_string(), "unknown format: wide");
        assert_eq!(
            listed(&[], "json").unwrap(),
            "No Istio revision tags found.\n"
        );
    }

    fn made(tag: &str, everywhere: bool) -> Vec<Value> {
        let canonical = json!({"metadata": {"name": "istio-sidecar-injector", "labels": {"app": "sidecar-injector", REVISION: "v1"}},
            "webhooks": [{"name": "namespace.sidecar-injector.istio.io",
                "clientConfig": {"caBundle": "Q0E=", "service": {"name": "istiod", "namespace": "istio-system", "path": "/inject", "port": 443}},
                "namespaceSelector": {"matchLabels": {"istio-injection": "enabled"}}}]});
        generate::objects(&Wanted {
            tag,
            revision: "v1",
            webhook_name: "",
            everywhere,
            istio_namespace: "istio-system",
            canonical: &canonical,
            validator: None,
        })
        .unwrap()
    }

    #[test]
    fn a_tag_is_webhooks_for_its_label_and_a_service() {
        let objects = made("prod", true);
        let names: Vec<&str> = objects.iter().map(api::meta::name).collect();
        assert_eq!(
            names,
            ["istio-revision-tag-prod", "istiod-revision-tag-prod"]
        );
        let labels = &objects[0]["metadata"]["labels"];
        assert_eq!(
            labels,
            &json!({"app": "sidecar-injector", "release": "istio", REVISION: "v1", TAG: "prod"})
        );
        assert_eq!(objects[0]["webhooks"].as_array().map(Vec::len), Some(2));
        assert_eq!(
            objects[0]["webhooks"][0]["namespaceSelector"]["matchExpressions"][0]["values"][0],
            "prod"
        );
        assert_eq!(
            objects[0]["webhooks"][1]["clientConfig"]["caBundle"],
            "Q0E="
        );
        assert_eq!(objects[1]["spec"]["selector"][REVISION], "v1");
    }

    #[test]
    fn the_default_tag_takes_over_injection_and_validation() {
        let webhooks = |everywhere| {
            let objects = made("default", everywhere);
            assert_eq!(objects[1]["kind"], "ValidatingWebhookConfiguration");
            assert_eq!(objects[1]["webhooks"][0]["failurePolicy"], "Ignore");
            objects[0]["webhooks"].as_array().map(Vec::len)
        };
        assert_eq!(webhooks(false), Some(4));
        assert_eq!(webhooks(true), Some(5));
    }

    #[test]
    fn webhooks_that_would_inject_twice_are_told() {
        let service = json!({"metadata": {"name": "istiod", "namespace": "istio-system"}});
        let default = made("default", false).remove(0);
        let mut other = default.clone();
        other["metadata"]["name"] = "other".into();
        let services = [service];
        let told = generate::conflicts(&default, std::slice::from_ref(&other), &services);
        let told = told.unwrap_or_default();
        assert!(
            told.starts_with("creating tag would conflict, pass --skip-confirmation to proceed:\nError [IST0139] (MutatingWebhookConfiguration istio-revision-tag-default"),
            "{told}"
        );
        let own = made("prod", false).remove(0);
        assert_eq!(generate::conflicts(&own, &[default], &services), None);
    }
}
