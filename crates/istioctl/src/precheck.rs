//! `istioctl x precheck`: whether a cluster fits this Istio.

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use kube_client::{CUSTOM_RESOURCE_DEFINITIONS, Client, ListParams, Resource, SERVICES};
use serde_json::{Value, json};

use crate::mesh::Mesh;
use crate::{Global, Shell, USAGE, async_runtime, proto_json, yaml};
use analysis::Level;

/// The oldest Kubernetes 1.x that Istio runs on.
const OLDEST: u32 = 32;

/// What is typed.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Look for changes since this version, such as 1.20
    #[arg(long, short, value_name = "VERSION")]
    from_version: Option<String>,
    /// Format: log, json or yaml
    #[arg(long, short, value_name = "FORMAT", default_value = "log")]
    output: String,
    /// The level from which on messages are shown: Info, Warning or Error
    #[arg(long, value_name = "LEVEL", default_value = "Warning")]
    output_threshold: String,
    /// Do not check the cluster itself
    #[arg(long)]
    skip_controlplane: bool,
    /// Control plane revision
    #[arg(long, short, hide = true)]
    revision: Option<String>,
}

/// What was found.
#[derive(Debug, PartialEq)]
struct Finding {
    code: &'static str,
    level: Level,
    text: String,
    /// What it is about.
    origin: String,
}

/// Runs the command; the exit code.
pub(crate) fn run(global: &Global, arguments: &Arguments, shell: &mut Shell<'_>) -> Result<u8> {
    let Some(threshold) = Level::parse(&arguments.output_threshold) else {
        writeln!(
            shell.stderr,
            "Error: invalid argument {:?} for \"--output-threshold\" flag: invalid level option",
            arguments.output_threshold
        )?;
        return Ok(USAGE);
    };
    let mesh = Mesh::connect(global, shell)?;
    let found = async_runtime()?.block_on(async {
        let mut found = Vec::new();
        if !arguments.skip_controlplane {
            found.extend(version(&mesh.client).await?);
            found.extend(permissions(&mesh.client, &mesh.istio_namespace).await);
            let all = ListParams::default();
            let definitions = mesh
                .client
                .list(&CUSTOM_RESOURCE_DEFINITIONS, None, &all)
                .await?;
            found.extend(definitions.items.iter().flat_map(gateway_api));
        }
        if let Some(since) = &arguments.from_version
            && minor(since)? <= 21
        {
            found.extend(tracing(&mesh.client).await?);
        }
        anyhow::Ok(found)
    })?;
    let (mut shown, serious): (Vec<&Finding>, bool) = (
        found.iter().filter(|one| one.level <= threshold).collect(),
        found.iter().any(|one| one.level <= Level::Warning),
    );
    shown.sort_by(|a, b| {
        (a.level, a.code, &a.origin, &a.text).cmp(&(b.level, b.code, &b.origin, &b.text))
    });
    let text = written(&shown, &arguments.output)?;
    if shown.is_empty() {
        let mark = if shell.terminal {
            "\u{1b}[32m\u{2714}\u{1b}[0m"
        } else {
            "\u{2714}"
        };
        writeln!(
            shell.stderr,
            "{mark} No issues found when checking the cluster. Istio is safe to install or upgrade!\n  \
             To get started, check out https://istio.io/latest/docs/setup/getting-started/."
        )?;
    } else {
        writeln!(shell.stdout, "{text}")?;
    }
    if serious {
        bail!(
            "Issues found when checking the cluster. Istio may not be safe to install or upgrade.\n\
             See {} for more information about causes and resolutions.",
            analysis::DOCUMENTATION
        );
    }
    Ok(0)
}

fn written(found: &[&Finding], format: &str) -> Result<String> {
    let values = || -> Vec<Value> {
        let value = |one: &&Finding| {
            json!({
                "code": one.code,
                "documentationUrl": format!("{}/{}/?ref=istioctl-analyze", analysis::DOCUMENTATION, one.code.to_lowercase()),
                "level": one.level.to_string(),
                "message": one.text,
                "origin": one.origin,
            })
        };
        found.iter().map(value).collect()
    };
    Ok(match format {
        "log" => {
            let line = |one: &&Finding| {
                format!("{} [{}] ({}) {}", one.level, one.code, one.origin, one.text)
            };
            found.iter().map(line).collect::<Vec<_>>().join("\n")
        }
        "json" => proto_json::tabbed(&values().into()),
        "yaml" => yaml::to_string(&values().into()),
        other => bail!("invalid format, expected one of [log json yaml] but got {other:?}"),
    })
}

/// The minor number of a version of Istio.
fn minor(version: &str) -> Result<u32> {
    let Some((major, minor)) = version.split_once('.') else {
        bail!("invalid version {version}, expected format like '1.0'");
    };
    if major != "1" {
        bail!("expected major version 1, got {version}");
    }
    minor
        .parse()
        .map_err(|_| anyhow!("minor version is not a number: {minor}"))
}

async fn version(client: &Client) -> Result<Option<Finding>> {
    let (_, body) = client
        .raw(http::Method::GET, "/version", None, None)
        .await
        .context("failed to get the Kubernetes version")?;
    let told: Value = serde_json::from_slice(&body)?;
    Ok(old_kubernetes(
        told["gitVersion"].as_str().unwrap_or_default(),
    ))
}

/// A version of Kubernetes that is too old.
fn old_kubernetes(version: &str) -> Option<Finding> {
    let mut numbers = version.trim_start_matches('v').split('.');
    let mut next = || numbers.next().and_then(|part| part.parse::<u32>().ok());
    let fits = match (next(), next()) {
        (Some(1), Some(minor)) => minor >= OLDEST,
        (Some(major), _) => major > 1,
        _ => true,
    };
    (!fits).then(|| Finding {
        code: "IST0142",
        level: Level::Error,
        text: format!(
            "The Kubernetes Version {version:?} is lower than the minimum version: 1.{OLDEST}"
        ),
        origin: "Cluster".to_owned(),
    })
}

/// What an installation creates.
const CREATED: [(&str, &str, bool); 11] = [
    ("", "namespaces", false),
    ("rbac.authorization.k8s.io", "clusterroles", false),
    ("rbac.authorization.k8s.io", "clusterrolebindings", false),
    ("apiextensions.k8s.io", "customresourcedefinitions", false),
    ("rbac.authorization.k8s.io", "roles", true),
    ("", "serviceaccounts", true),
    ("", "services", true),
    ("apps", "deployments", true),
    ("", "configmaps", true),
    (
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
        false,
    ),
    (
        "admissionregistration.k8s.io",
        "validatingwebhookconfigurations",
        false,
    ),
];

/// What the user may not create.
async fn permissions(client: &Client, istio_namespace: &str) -> Vec<Finding> {
    const REVIEWS: Resource = Resource::fixed(
        "authorization.k8s.io",
        "v1",
        "selfsubjectaccessreviews",
        "SelfSubjectAccessReview",
    );
    let mut found = Vec::new();
    for (group, resource, in_mesh) in CREATED {
        let namespace = if in_mesh { istio_namespace } else { "" };
        let review = json!({
            "apiVersion": REVIEWS.api_version(),
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {
                "namespace": namespace, "verb": "create", "group": group, "version": "v1", "resource": resource,
            }},
        });
        let refused = match client.create(&REVIEWS, None, &review).await {
            Ok(answer) if answer["status"]["allowed"] == true => continue,
            Ok(answer) => match answer["status"]["reason"].as_str() {
                None | Some("") => "permission denied".to_owned(),
                Some(reason) => reason.to_owned(),
            },
            Err(error) => error.to_string(),
        };
        found.push(Finding {
            code: "IST0141",
            level: Level::Error,
            text: format!("Missing required permission to create resource {resource} ({refused})"),
            origin: "Cluster".to_owned(),
        });
    }
    found
}

/// Kinds of the Gateway API in versions that are too old.
fn gateway_api(definition: &Value) -> Vec<Finding> {
    let spec = &definition["spec"];
    if spec["group"] != "gateway.networking.k8s.io" {
        return Vec::new();
    }
    let mut served: Vec<&str> = spec["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|version| version["served"] == true)
        .filter_map(|version| version["name"].as_str())
        .collect();
    served.sort_unstable();
    let kind = spec["names"]["kind"].as_str().unwrap_or_default();
    let has = if served.is_empty() {
        "none".to_owned()
    } else {
        served.join(",")
    };
    let beta = ["Gateway", "GatewayClass", "HTTPRoute", "ReferenceGrant"];
    let stable = ["Gateway", "GatewayClass", "HTTPRoute", "GRPCRoute"];
    [
        ("IST0156", Level::Error, beta, "v1beta1"),
        ("IST0172", Level::Warning, stable, "v1"),
    ]
    .into_iter()
    .filter(|(_, _, kinds, version)| kinds.contains(&kind) && !served.contains(version))
    .map(|(code, level, _, version)| Finding {
        code,
        level,
        text: format!(
            "The Gateway API CRD version {has} is lower than the minimum version: {version}"
        ),
        origin: format!("CustomResourceDefinition {}", api::meta::name(definition)),
    })
    .collect()
}

/// Since 1.22 traces do not go to a Service of this name by themselves.
async fn tracing(client: &Client) -> Result<Option<Finding>> {
    match client.get(&SERVICES, Some("istio-system"), "zipkin").await {
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(Some(Finding {
            code: "IST0169",
            level: Level::Warning,
            text: "The configuration \"meshConfig.defaultConfig.tracer\" changed in release 1.21: tracing is no longer by default \
                   enabled to send to 'zipkin.istio-system.svc'; follow \
                   https://istio.io/latest/docs/tasks/observability/distributed-tracing/telemetry-api/. Or, install with \
                   `--set compatibilityVersion=1.21` to retain the old default."
                .to_owned(),
            origin: "Service istio-system/zipkin".to_owned(),
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kubernetes_is_told() {
        for (version, fits) in [
            ("v1.32.1", true),
            ("v1.33.0+k3s", true),
            ("v1.31.9", false),
            ("v2.0.0", true),
            ("", true),
        ] {
            assert_eq!(old_kubernetes(version).is_none(), fits, "{version}");
        }
        let found = old_kubernetes("v1.20.0");
        let told = written(&found.iter().collect::<Vec<_>>(), "log").unwrap();
        assert_eq!(
            told,
            "Error [IST0142] (Cluster) The Kubernetes Version \"v1.20.0\" is lower than the minimum version: 1.32"
        );
    }

    #[test]
    fn kinds_of_the_gateway_api_must_be_served_in_their_versions() {
        let definition = |kind: &str, versions: &[&str]| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|name| json!({"name": name, "served": true}))
                .collect();
            json!({"metadata": {"name": "x"}, "spec": {"group": "gateway.networking.k8s.io", "names": {"kind": kind}, "versions": versions}})
        };
        let codes = |definition: &Value| -> Vec<&str> {
            gateway_api(definition).iter().map(|one| one.code).collect()
        };
        assert_eq!(codes(&definition("Gateway", &["v1", "v1beta1"])), [""; 0]);
        assert_eq!(codes(&definition("Gateway", &["v1beta1"])), ["IST0172"]);
        assert_eq!(
            codes(&definition("HTTPRoute", &["v1alpha2"])),
            ["IST0156", "IST0172"]
        );
        assert_eq!(codes(&definition("TCPRoute", &["v1alpha2"])), [""; 0]);
    }

    #[test]
    fn versions_of_istio_are_read() {
        assert_eq!(minor("1.20").unwrap(), 20);
        for (text, error) in [
            ("1", "invalid version 1, expected format like '1.0'"),
            ("2.1", "expected major version 1, got 2.1"),
            ("1.x", "minor version is not a number: x"),
        ] {
            assert_eq!(minor(text).unwrap_err().to_string(), error);
        }
    }
}
