//! `istioctl create-remote-secret`: a Secret with which the control plane of another cluster can read this one.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{ArgAction, Args};
use kube_client::{CONFIG_MAPS, ListParams, NAMESPACES, SECRETS, SERVICE_ACCOUNTS};
use serde_json::{Value, json};

use crate::mesh::Mesh;
use crate::reader_account;
use crate::{Global, Shell, async_runtime, command, yaml};

/// The label by which istiod finds remote secrets.
const LABEL: &str = "istio/multiCluster";
/// The annotation with the name of the cluster.
const CLUSTER: &str = "networking.istio.io/cluster";
/// The type of a Secret that the cluster fills with a token.
const TOKEN_SECRET: &str = "kubernetes.io/service-account-token";
/// The annotation of such a Secret that names its account.
const ACCOUNT: &str = "kubernetes.io/service-account.name";
/// How long the cluster may take to fill one.
const TOKEN_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// What is typed.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Name of the cluster whose credentials the Secret holds; without one, the UID of its namespace kube-system
    #[arg(long, value_name = "NAME", default_value = "")]
    name: String,
    /// What the Secret is for: remote (istiod of another cluster) or config (a control plane outside)
    #[arg(long = "type", value_name = "TYPE", default_value = "remote")]
    kind: String,
    /// Whose credentials; istio-reader-service-account for type remote, istiod for config
    #[arg(long, value_name = "NAME", default_value = "")]
    service_account: String,
    /// Create the service account, with the right to read, when it does not exist
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_missing_value = "true")]
    create_service_account: bool,
    /// The Secret with the account's token, of several
    #[arg(long, value_name = "NAME", default_value = "")]
    secret_name: String,
    /// Address of the API server as the other cluster reaches it
    #[arg(long, value_name = "URL", default_value = "")]
    server: String,
    /// The name in the API server's certificate, where it is not that of its address
    #[arg(long, value_name = "NAME", default_value = "")]
    tls_server_name: String,
    /// How the other cluster authenticates itself: bearer-token or plugin
    #[arg(long, value_name = "TYPE", default_value = "bearer-token")]
    auth_type: String,
    /// Name of the authentication plugin, with --auth-type=plugin
    #[arg(long, value_name = "NAME", default_value = "")]
    auth_plugin_name: String,
    /// Settings of the authentication plugin, with --auth-type=plugin
    #[arg(long, value_name = "NAME=VALUE", value_delimiter = ',', value_parser = pair)]
    auth_plugin_config: Vec<(String, String)>,
    /// Accepted, has no effect here: charts are built in
    #[arg(long, short = 'd', hide = true)]
    manifests: Option<String>,
    #[arg(hide = true)]
    rest: Vec<String>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text} must be formatted as key=value"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Runs the command; the exit code.
pub(crate) fn run(global: &Global, arguments: &Arguments, shell: &mut Shell<'_>) -> Result<u8> {
    if let Some(word) = arguments.rest.first() {
        return command::no_arguments(word, "create-remote-secret", shell);
    }
    if !arguments.name.is_empty() && !is_label(&arguments.name) {
        bail!("{} is not a valid DNS 1123 label", arguments.name);
    }
    let mesh = Mesh::connect(global, shell)?;
    match async_runtime()?.block_on(create(&mesh, arguments)) {
        Ok((secret, warning)) => {
            if let Some(warning) = warning {
                writeln!(shell.stderr, "warn: {warning}")?;
            }
            write!(shell.stdout, "{}", document(&secret))?;
            Ok(0)
        }
        Err(error) => {
            // Here, and once more as every error.
            writeln!(shell.stderr, "error: {error}")?;
            Err(error)
        }
    }
}

/// A label of DNS as Istio understands it: capital letters too.
fn is_label(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// The Secret, and what is to be said about it.
async fn create(mesh: &Mesh, arguments: &Arguments) -> Result<(Value, Option<String>)> {
    let namespace = mesh.namespace.as_deref().unwrap_or(&mesh.istio_namespace);
    let cluster = if arguments.name.is_empty() {
        let system = mesh.client.get(&NAMESPACES, None, "kube-system").await?;
        api::meta::uid(&system).to_owned()
    } else {
        arguments.name.clone()
    };
    let (secret_name, key, account) = match arguments.kind.as_str() {
        "remote" => (
            format!("istio-remote-secret-{cluster}"),
            cluster.as_str(),
            reader_account::NAME,
        ),
        "config" => ("istio-kubeconfig".to_owned(), "config", "istiod"),
        other => bail!("unsupported type: {other}"),
    };
    let account = match arguments.service_account.as_str() {
        "" => account,
        named => named,
    };
    let token = token_secret(mesh, namespace, account, arguments)
        .await
        .map_err(|error| {
            anyhow!(
                "could not get access token to read resources from local kube-apiserver: {error}"
            )
        })?;
    let (server, warning) = if arguments.server.is_empty() {
        server(mesh.client.server(), &advertised(mesh).await)
    } else {
        (arguments.server.clone(), None)
    };
    let user = match arguments.auth_type.as_str() {
        "bearer-token" => None,
        "plugin" => {
            let settings: BTreeMap<_, _> = arguments.auth_plugin_config.iter().cloned().collect();
            Some(json!({
                "auth-provider": {"config": settings, "name": arguments.auth_plugin_name},
            }))
        }
        other => bail!("unsupported authentication type: {other}"),
    };
    let token = match user {
        // A plugin needs no token, only the authority.
        Some(_) => token,
        None => filled(mesh, namespace, token).await?,
    };
    let entry = |name: &str| -> Result<&str> {
        token["data"][name]
            .as_str()
            .ok_or_else(|| anyhow!("no {name:?} data found"))
    };
    let user = match user {
        Some(user) => user,
        None => {
            let bytes = STANDARD.decode(entry("token")?)?;
            json!({"token": String::from_utf8(bytes)?})
        }
    };
    let reach = Reach {
        server: &server,
        tls_server_name: &arguments.tls_server_name,
        authority: entry("ca.crt")?,
    };
    let kubeconfig = kubeconfig(&cluster, &reach, &user);
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "annotations": {CLUSTER: cluster},
            "labels": {LABEL: "true"},
            "name": secret_name,
            "namespace": namespace,
        },
        "stringData": {key: yaml::to_string(&kubeconfig)},
    });
    Ok((secret, warning))
}

/// How an API server is reached.
struct Reach<'a> {
    server: &'a str,
    /// Empty: the host of the server.
    tls_server_name: &'a str,
    /// Base64 of PEM.
    authority: &'a str,
}

fn kubeconfig(cluster: &str, reach: &Reach<'_>, user: &Value) -> Value {
    let mut place = json!({"certificate-authority-data": reach.authority, "server": reach.server});
    if !reach.tls_server_name.is_empty() {
        place["tls-server-name"] = reach.tls_server_name.into();
    }
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"cluster": place, "name": cluster}],
        "contexts": [{"context": {"cluster": cluster, "user": cluster}, "name": cluster}],
        "current-context": cluster,
        "users": [{"name": cluster, "user": user}],
    })
}

/// What is printed: to be piped into `kubectl apply -f -`.
fn document(secret: &Value) -> String {
    format!(
        "# This file is autogenerated, do not edit.\n{}---\n",
        yaml::to_string(secret)
    )
}

fn is_loopback(server: &str) -> bool {
    server.contains("127.0.0.1") || server.contains("localhost")
}

/// The address for the Secret and a warning. `advertised` is the one the cluster tells others, where it does.
fn server(own: &str, advertised: &Option<String>) -> (String, Option<String>) {
    if !is_loopback(own) {
        return (own.to_owned(), None);
    }
    match advertised {
        Some(address) if !is_loopback(address) => {
            let told = format!(
                "server in Kubeconfig is {own}, which other clusters cannot reach. The secret names {address}, \
                 from the cluster's ConfigMap kube-public/cluster-info; pass --server for another"
            );
            (address.clone(), Some(told))
        }
        _ => {
            let told = format!(
                "server in Kubeconfig is {own}. This is likely not reachable from inside the cluster, if you're using \
                 Kubernetes in Docker, pass --server with the container IP for the API Server"
            );
            (own.to_owned(), Some(told))
        }
    }
}

/// The address of the API server that the cluster tells those who join it.
async fn advertised(mesh: &Mesh) -> Option<String> {
    // Not every cluster has it, nor may everybody read it; both leave the kubeconfig's address.
    let told = mesh
        .client
        .get(&CONFIG_MAPS, Some("kube-public"), "cluster-info")
        .await
        .ok()?;
    let text = told["data"]["kubeconfig"].as_str()?;
    let config: Value = yaml_serde::from_str(text).ok()?;
    let server = config["clusters"][0]["cluster"]["server"].as_str()?;
    Some(server.to_owned())
}

/// The Secret with the account's token: the one that is named, one that is there, or a new one.
async fn token_secret(
    mesh: &Mesh,
    namespace: &str,
    account: &str,
    arguments: &Arguments,
) -> Result<Value> {
    let client = &mesh.client;
    ensure_account(mesh, namespace, account, arguments.create_service_account).await?;
    if !arguments.secret_name.is_empty() {
        let name = &arguments.secret_name;
        let secret = client
            .get(&SECRETS, Some(namespace), name)
            .await
            .map_err(|error| {
                anyhow!("could not get specified secret {namespace}/{name}: {error}")
            })?;
        if !is_token_of(&secret, account) {
            bail!("secret {namespace}/{name} does not reference ServiceAccount {account}");
        }
        return Ok(secret);
    }
    let secrets = client
        .list(&SECRETS, Some(namespace), &ListParams::default())
        .await
        .map_err(|error| anyhow!("failed listing secrets in {namespace}: {error}"))?;
    let mut present = secrets.items.into_iter();
    if let Some(secret) = present.find(|secret| is_token_of(secret, account)) {
        return Ok(secret);
    }
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": format!("{account}-istio-remote-secret-token"),
            "annotations": {ACCOUNT: account},
        },
        "type": TOKEN_SECRET,
    });
    Ok(client.create(&SECRETS, Some(namespace), &secret).await?)
}

fn is_token_of(secret: &Value, account: &str) -> bool {
    secret["type"] == TOKEN_SECRET && api::meta::annotation(secret, ACCOUNT) == Some(account)
}

/// Makes sure that there is the account; `create`: makes Istio's reader where there is none.
async fn ensure_account(mesh: &Mesh, namespace: &str, account: &str, create: bool) -> Result<()> {
    let get = async || {
        mesh.client
            .get(&SERVICE_ACCOUNTS, Some(namespace), account)
            .await
    };
    let Err(missing) = get().await else {
        return Ok(());
    };
    if !create {
        bail!(
            "failed retrieving service account {account}.{namespace} required for creating the remote secret \
             (hint: try installing a minimal Istio profile on the cluster first, or run with \
             '--create-service-account=true'): {missing}"
        );
    }
    reader_account::create(&mesh.client, namespace).await?;
    get().await.map(drop).map_err(|error| {
        anyhow!(
            "failed retrieving service account {account}.{namespace} after creating it: {error}"
        )
    })
}

/// The Secret as the cluster has filled it.
async fn filled(mesh: &Mesh, namespace: &str, mut secret: Value) -> Result<Value> {
    let name = api::meta::name(&secret).to_owned();
    let deadline = tokio::time::Instant::now() + TOKEN_LIMIT;
    while lacking(&secret).is_some() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(POLL).await;
        secret = mesh.client.get(&SECRETS, Some(namespace), &name).await?;
    }
    match lacking(&secret) {
        None => Ok(secret),
        Some(key) => bail!("no {key:?} data found"),
    }
}

/// What a token Secret still lacks.
fn lacking(secret: &Value) -> Option<&'static str> {
    ["ca.crt", "token"]
        .into_iter()
        .find(|key| secret["data"][*key].is_null())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_clusters_are_labels_of_dns() {
        for good in ["ctx2", "A-1", "a"] {
            assert!(is_label(good), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "UP_X", "-a", "a-", "a.b", long.as_str()] {
            assert!(!is_label(bad), "{bad}");
        }
    }

    #[test]
    fn an_address_that_only_this_machine_reaches_gives_way_to_the_one_the_cluster_tells() {
        let told = Some("https://203.0.113.65:6443".to_owned());
        let (address, warning) = server("https://127.0.0.1:6444", &told);
        assert_eq!(address, "https://203.0.113.65:6443");
        let warning = warning.unwrap_or_default();
        assert!(
            warning.contains("127.0.0.1:6444") && warning.contains("cluster-info"),
            "{warning}"
        );
        assert_eq!(
            server("https://10.0.0.1:6443", &told),
            ("https://10.0.0.1:6443".to_owned(), None)
        );
        for nothing in [None, Some("https://localhost:1".to_owned())] {
            let (address, warning) = server("https://127.0.0.1:6444", &nothing);
            assert_eq!(address, "https://127.0.0.1:6444");
            assert!(warning.unwrap_or_default().contains("pass --server"));
        }
    }

    #[test]
    fn the_kubeconfig_is_written_as_the_real_one() {
        let reach = Reach {
            server: "https://203.0.113.65:6443",
            tls_server_name: "kubernetes",
            authority: "Q0E=",
        };
        let config = kubeconfig("ctx2", &reach, &json!({"token": "T"}));
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
            "stringData": {"ctx2": yaml::to_string(&config)}});
        let expected = "# This file is autogenerated, do not edit.\n\
            apiVersion: v1\n\
            kind: Secret\n\
            metadata:\n  name: s\n\
            stringData:\n  ctx2: |\n    apiVersion: v1\n    clusters:\n    - cluster:\n        \
            certificate-authority-data: Q0E=\n        server: https://203.0.113.65:6443\n        \
            tls-server-name: kubernetes\n      name: ctx2\n    contexts:\n    - context:\n        cluster: ctx2\n        \
            user: ctx2\n      name: ctx2\n    current-context: ctx2\n    kind: Config\n    users:\n    - name: ctx2\n      \
            user:\n        token: T\n---\n";
        assert_eq!(document(&secret), expected);
    }

    #[test]
    fn only_a_token_secret_of_the_account_is_taken() {
        let secret = |kind: &str, account: &str| json!({"type": kind, "metadata": {"annotations": {ACCOUNT: account}}});
        assert!(is_token_of(&secret(TOKEN_SECRET, "a"), "a"));
        assert!(!is_token_of(&secret(TOKEN_SECRET, "b"), "a"));
        assert!(!is_token_of(&secret("Opaque", "a"), "a"));
        assert_eq!(lacking(&json!({"data": {"ca.crt": "Q0E="}})), Some("token"));
        assert_eq!(
            lacking(&json!({"data": {"ca.crt": "Q0E=", "token": "VA=="}})),
            None
        );
    }
}
