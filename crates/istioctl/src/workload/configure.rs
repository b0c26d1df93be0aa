//! `istioctl x workload entry configure`: the files with which a machine outside of the cluster joins the mesh, as one of a WorkloadGroup.
//!
//! What is in them is a pure function of what was typed and of [`Told`], which is read from the cluster.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{ArgAction, Args};
use kube_client::{CONFIG_MAPS, Resource, SERVICE_ACCOUNTS, SERVICES};
use serde_json::{Map, Value, json};

use crate::mesh::Mesh;
use crate::{Global, Shell, analyze, async_runtime, files, yaml};

/// For whom the machine's token is: istiod, which signs its certificate.
const AUDIENCE: &str = "istio-ca";
const PROXY_CONFIG: &str = "proxy.istio.io/config";
/// The ConfigMap with the mesh's root certificate.
const ROOTS: &str = "istio-ca-root-cert";

/// What is typed.
#[derive(Args, Debug, Default)]
pub(crate) struct Arguments {
    /// File with a WorkloadGroup; without one, --name and --namespace name one of the cluster
    #[arg(long, short = 'f', value_name = "FILE", default_value = "")]
    file: String,
    /// Name of the WorkloadGroup
    #[arg(long, value_name = "NAME", default_value = "")]
    name: String,
    /// Directory for the files
    #[arg(long, short = 'o', value_name = "DIRECTORY", default_value = "")]
    output: String,
    /// Name of the cluster; without one, that of its control plane
    #[arg(long = "clusterID", value_name = "NAME")]
    cluster_id: Option<String>,
    /// How long the token is good for, in seconds
    #[arg(
        long = "tokenDuration",
        value_name = "SECONDS",
        default_value_t = 3600,
        allow_negative_numbers = true
    )]
    token_duration: i64,
    /// The Service by which the machine reaches istiod: NAME, or NAME.NAMESPACE
    #[arg(
        long = "ingressService",
        value_name = "SERVICE",
        default_value = "istio-eastwestgateway"
    )]
    ingress_service: String,
    /// The address by which the machine reaches istiod
    #[arg(long = "ingressIP", value_name = "ADDRESS", default_value = "")]
    ingress_ip: String,
    /// Whether the machine is to be registered as a WorkloadEntry when it connects
    #[arg(long = "autoregister", value_name = "BOOL", default_value_t = false, action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_missing_value = "true")]
    auto_register: bool,
    /// Whether the machine asks its agent for names
    #[arg(long = "capture-dns", value_name = "BOOL", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_missing_value = "true")]
    capture_dns: bool,
    /// Address of the machine inside of its network
    #[arg(long = "internalIP", value_name = "ADDRESS", default_value = "")]
    internal_ip: String,
    /// Address of the machine outside of its network
    #[arg(long = "externalIP", value_name = "ADDRESS", default_value = "")]
    external_ip: String,
    /// Revision of the control plane
    #[arg(long, short = 'r', value_name = "REVISION", default_value = "")]
    revision: String,
}

/// Runs the command; the exit code.
///
/// # Errors
/// Something is missing, in the cluster or on the command line, or a file cannot be written.
pub(crate) fn run(global: &Global, arguments: &Arguments, shell: &mut Shell<'_>) -> Result<u8> {
    let namespace = global.namespace.as_deref().unwrap_or_default();
    if arguments.file.is_empty() && (arguments.name.is_empty() || namespace.is_empty()) {
        bail!(
            "expecting a WorkloadGroup artifact file or the name and namespace of an existing WorkloadGroup"
        );
    }
    if arguments.output.is_empty() {
        bail!("expecting an output directory");
    }
    if !arguments.internal_ip.is_empty() && !arguments.external_ip.is_empty() {
        bail!("the flags --internalIP and --externalIP are mutually exclusive");
    }
    let mesh = Mesh::connect(global, shell)?;
    let mut file = None;
    if !arguments.file.is_empty() {
        let bytes = files::read(Path::new(&arguments.file), shell)?;
        file = Some(yaml_serde::from_slice::<Value>(&bytes)?);
    }
    let directory = shell.path(Path::new(&arguments.output));
    let runtime = async_runtime()?;
    runtime.block_on(configure(&mesh, arguments, file, &directory, shell))?;
    writeln!(
        shell.stdout,
        "Configuration generation into directory {} was successful",
        arguments.output
    )?;
    Ok(0)
}

/// Asks in the order of the real program, and writes each file as soon as all that is in it is known.
async fn configure(
    mesh: &Mesh,
    arguments: &Arguments,
    file: Option<Value>,
    directory: &Path,
    shell: &mut Shell<'_>,
) -> Result<()> {
    let client = &mesh.client;
    let group = match file {
        Some(group) => Group::of(group),
        None => {
            let groups = Resource::new(
                "networking.istio.io",
                "v1",
                "workloadgroups",
                "WorkloadGroup",
            );
            let (name, namespace) = (&arguments.name, mesh.namespace());
            let found = client.get(&groups, Some(namespace), name).await;
            Group::of(found.map_err(|error| {
                anyhow!("workloadgroup {name} not found in namespace {namespace}: {error}")
            })?)
        }
    };
    let plane = ControlPlane {
        namespace: mesh.istio_namespace.clone(),
        revision: match arguments.revision.as_str() {
            "default" => String::new(),
            other => other.to_owned(),
        },
    };
    let cluster_id = match &arguments.cluster_id {
        Some(typed) => typed.clone(),
        None => cluster_id(mesh, &plane).await.map_err(|error| {
            anyhow!("failed to automatically determine the --clusterID: {error}")
        })?,
    };
    std::fs::create_dir_all(directory)
        .map_err(|error| anyhow!("mkdir {}: {}", arguments.output, files::reason(&error)))?;
    let write = |name: &str, text: &str, mode: u32| write(&directory.join(name), text, mode);

    let mesh_map = plane.named("istio");
    let map = client
        .get(&CONFIG_MAPS, Some(&plane.namespace), &mesh_map)
        .await
        .map_err(|error| {
            anyhow!(
                "configmap {mesh_map} was not found in namespace {}: {error}",
                plane.namespace
            )
        })?;
    let config: Value = yaml_serde::from_str(map["data"]["mesh"].as_str().unwrap_or_default())
        .context("the mesh configuration")?;
    if !group.template_labels.is_empty() {
        writeln!(
            shell.stdout,
            "Labels should be set in the metadata. The following WorkloadEntry labels will override metadata labels: {}",
            go_map(&group.template_labels)
        )?;
    }
    let config = proxy_config(&group, &plane, &config, &cluster_id, arguments)?;
    let document = json!({"defaultConfig": config});
    write("mesh.yaml", &yaml::to_string(&document), 0o644)?;
    let environment = environment(&group, &plane, &config, arguments);
    write("cluster.env", &environment, 0o644)?;

    let roots = client
        .get(&CONFIG_MAPS, Some(&group.namespace), ROOTS)
        .await
        .map_err(|error| {
            anyhow!(
                "configmap {ROOTS} was not found in namespace {}: {error}",
                group.namespace
            )
        })?;
    let root = roots["data"]["root-cert.pem"].as_str().unwrap_or_default();
    write("root-cert.pem", root, 0o644)?;
    let token = token(mesh, &group, arguments.token_duration).await?;
    // Whoever has the token is the machine.
    write("istio-token", &token, 0o600)?;
    let shown = PathBuf::from(&arguments.output).join("istio-token");
    writeln!(
        shell.stderr,
        "Warning: a security token for namespace {:?} and service account {:?} has been generated and stored at {:?}",
        group.namespace,
        group.service_account,
        shown.display().to_string()
    )?;

    let (host, address) = (plane.host(), ingress(mesh, &plane, arguments).await);
    match address {
        Some(address) => write("hosts", &format!("{address} {host}\n"), 0o644)?,
        None => {
            let told = format!(
                "Could not auto-detect IP for {host}/{}. Use --ingressIP to manually specify the Gateway address to reach istiod from the VM.",
                plane.namespace
            );
            analyze::log_warning(shell, None, &told)?;
            write("hosts", "", 0o644)?;
        }
    }
    Ok(())
}

/// Which control plane the machine is for.
struct ControlPlane {
    namespace: String,
    /// Empty: the one without a revision.
    revision: String,
}

impl ControlPlane {
    fn named(&self, name: &str) -> String {
        match self.revision.as_str() {
            "" => name.to_owned(),
            revision => format!("{name}-{revision}"),
        }
    }

    fn host(&self) -> String {
        format!("{}.{}.svc", self.named("istiod"), self.namespace)
    }

    fn address(&self) -> String {
        format!("{}:15012", self.host())
    }
}

/// The cluster's name as the values of the injector tell it; where the cluster has no such values, as istiod's pods were given it.
async fn cluster_id(mesh: &Mesh, plane: &ControlPlane) -> Result<String> {
    let name = plane.named("istio-sidecar-injector");
    let missing = match mesh
        .client
        .get(&CONFIG_MAPS, Some(&plane.namespace), &name)
        .await
    {
        Ok(map) => {
            let values: Value =
                serde_json::from_str(map["data"]["values"].as_str().unwrap_or_default())?;
            let told = values["global"]["multiCluster"]["clusterName"].as_str();
            return Ok(told.unwrap_or_default().to_owned());
        }
        Err(error) => error,
    };
    let pods = mesh.control_planes().await.unwrap_or_default();
    let variables = pods
        .iter()
        .flat_map(|pod| pod["spec"]["containers"].as_array().into_iter().flatten())
        .flat_map(|container| container["env"].as_array().into_iter().flatten());
    variables
        .filter(|variable| variable["name"] == "CLUSTER_ID")
        .find_map(|variable| variable["value"].as_str())
        .map(str::to_owned)
        .ok_or_else(|| anyhow!("fetch injection template: {missing}"))
}

async fn token(mesh: &Mesh, group: &Group, seconds: i64) -> Result<String> {
    let (account, namespace) = (&group.service_account, &group.namespace);
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": [AUDIENCE], "expirationSeconds": seconds},
    });
    let answer = mesh
        .client
        .create_sub(&SERVICE_ACCOUNTS, Some(namespace), account, "token", &request)
        .await
        .map_err(|error| {
            anyhow!("could not create a token under service account {account} in namespace {namespace}: {error}")
        })?;
    let token = answer["status"]["token"].as_str().context("no token")?;
    Ok(token.to_owned())
}

/// The address of the gateway to istiod: the typed one, or that of its Service.
async fn ingress(mesh: &Mesh, plane: &ControlPlane, arguments: &Arguments) -> Option<IpAddr> {
    if let Ok(address) = arguments.ingress_ip.parse() {
        return Some(address);
    }
    let named: Vec<&str> = arguments.ingress_service.split('.').collect();
    let (name, namespace) = match named[..] {
        [name, namespace] => (name, namespace),
        _ => (arguments.ingress_service.as_str(), &*plane.namespace),
    };
    let service = mesh.client.get(&SERVICES, Some(namespace), name).await;
    address_of(&service.ok()?)?.parse().ok()
}

fn address_of(service: &Value) -> Option<&str> {
    let balancers = service["status"]["loadBalancer"]["ingress"].as_array();
    match balancers.and_then(|all| all.first()) {
        Some(balancer) => balancer["ip"].as_str(),
        None => service["spec"]["externalIPs"][0].as_str(),
    }
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| anyhow!("open {}: {}", path.display(), files::reason(&error)))
}

/// What of a WorkloadGroup gets into the files.
#[derive(Debug, Default)]
struct Group {
    name: String,
    namespace: String,
    /// Those of the object, then those of its workloads.
    annotations: [Map<String, Value>; 2],
    labels: Map<String, Value>,
    template_labels: Map<String, Value>,
    ports: BTreeMap<String, u64>,
    service_account: String,
    network: String,
    probe: Option<Value>,
}

impl Group {
    fn of(object: Value) -> Self {
        let (of, spec) = (&object["metadata"], &object["spec"]);
        let template = &spec["template"];
        let map = |value: &Value| value.as_object().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let account = text(&template["serviceAccount"]);
        Self {
            name: text(&of["name"]),
            namespace: text(&of["namespace"]),
            annotations: [
                map(&of["annotations"]),
                map(&spec["metadata"]["annotations"]),
            ],
            labels: map(&spec["metadata"]["labels"]),
            template_labels: map(&template["labels"]),
            ports: map(&template["ports"])
                .into_iter()
                .filter_map(|(name, port)| Some((name, port.as_u64()?)))
                .collect(),
            service_account: match account.as_str() {
                "" => "default".to_owned(),
                _ => account,
            },
            network: text(&template["network"]),
            probe: spec.get("probe").filter(|probe| !probe.is_null()).cloned(),
        }
    }

    /// The labels of its workloads, and the name and revision of the service that they are.
    fn identity(&self) -> (Map<String, Value>, String, String) {
        let mut labels = self.labels.clone();
        labels.extend(self.template_labels.clone());
        let first = |keys: [&str; 3], otherwise: &str| -> String {
            let found = keys
                .iter()
                .filter_map(|key| labels.get(*key))
                .find_map(Value::as_str)
                .filter(|text| !text.is_empty());
            found.unwrap_or(otherwise).to_owned()
        };
        let service = first(
            [
                "service.istio.io/canonical-name",
                "app.kubernetes.io/name",
                "app",
            ],
            &self.name,
        );
        let revision = first(
            [
                "service.istio.io/canonical-revision",
                "app.kubernetes.io/version",
                "version",
            ],
            "latest",
        );
        labels.insert(
            "service.istio.io/canonical-name".into(),
            service.clone().into(),
        );
        labels.insert(
            "service.istio.io/canonical-revision".into(),
            revision.clone().into(),
        );
        (labels, service, revision)
    }
}

/// The configuration of the machine's proxy: that of the mesh, what annotations change of it, and who it is.
fn proxy_config(
    group: &Group,
    plane: &ControlPlane,
    mesh: &Value,
    cluster_id: &str,
    arguments: &Arguments,
) -> Result<Value> {
    let mut config = mesh["defaultConfig"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let mut metadata = metadata_of(&config);
    if !plane.revision.is_empty() && config.get("discoveryAddress").is_none_or(|a| a == "") {
        config.insert("discoveryAddress".into(), plane.address().into());
    }
    for annotations in &group.annotations {
        if let Some(text) = annotations.get(PROXY_CONFIG).and_then(Value::as_str) {
            let said: Value = yaml_serde::from_str(text)
                .with_context(|| format!("the annotation {PROXY_CONFIG}"))?;
            for (field, value) in said.as_object().into_iter().flatten() {
                merge(config.entry(field.clone()).or_insert(Value::Null), value);
            }
            metadata.extend(metadata_of(&config));
        }
    }
    if let Some(probe) = &group.probe {
        config.insert("readinessProbe".into(), probe.clone());
    } else {
        config.remove("readinessProbe");
    }
    let (mut labels, service, revision) = group.identity();
    labels.sort_keys();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut set = |name: &str, value: String| metadata.insert(name.to_owned(), value.into());
    set("CANONICAL_SERVICE", service);
    set("CANONICAL_REVISION", revision);
    set("POD_NAMESPACE", group.namespace.clone());
    set("SERVICE_ACCOUNT", group.service_account.clone());
    set("TRUST_DOMAIN", text(&mesh["trustDomain"]));
    set("ISTIO_META_CLUSTER_ID", cluster_id.to_owned());
    set(
        "ISTIO_META_MESH_ID",
        text(config.get("meshId").unwrap_or(&Value::Null)),
    );
    set("ISTIO_META_NETWORK", group.network.clone());
    if !group.ports.is_empty() {
        let port = |(name, port): (&String, &u64)| {
            // Go leaves out what is 0 or empty, but for the protocol, which is not known.
            let mut fields = Map::new();
            if !name.is_empty() {
                fields.insert("name".into(), name.clone().into());
            }
            if *port != 0 {
                fields.insert("containerPort".into(), (*port).into());
            }
            fields.insert("protocol".into(), "".into());
            Value::Object(fields)
        };
        let ports: Vec<Value> = group.ports.iter().map(port).collect();
        set("ISTIO_META_POD_PORTS", Value::from(ports).to_string());
    }
    set("ISTIO_META_WORKLOAD_NAME", group.name.clone());
    set("ISTIO_METAJSON_LABELS", Value::Object(labels).to_string());
    if arguments.capture_dns {
        set("ISTIO_META_DNS_CAPTURE", "true".to_owned());
    }
    if arguments.auto_register {
        set("ISTIO_META_AUTO_REGISTER_GROUP", group.name.clone());
    }
    config.insert("proxyMetadata".into(), Value::Object(metadata));
    // As protobuf prints messages: without fields that have their zero value; that of `concurrency` is to be absent.
    config.retain(|name, value| {
        name == "concurrency" || *value != json!("") && *value != json!(0) && *value != json!(false)
    });
    Ok(Value::Object(config))
}

fn metadata_of(config: &Map<String, Value>) -> Map<String, Value> {
    let metadata = config.get("proxyMetadata").and_then(Value::as_object);
    metadata.cloned().unwrap_or_default()
}

/// As messages of protobuf are merged: fields below fields; everything else is replaced.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (field, value) in from {
                merge(into.entry(field.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => from.clone_into(into),
    }
}

/// The text of `cluster.env`, for a shell.
fn environment(
    group: &Group,
    plane: &ControlPlane,
    config: &Value,
    arguments: &Arguments,
) -> String {
    let mut out = BTreeMap::new();
    for (name, value) in config["proxyMetadata"].as_object().into_iter().flatten() {
        out.insert(
            name.clone(),
            value.as_str().map_or(value.to_string(), str::to_owned),
        );
    }
    let ports: Vec<String> = group.ports.values().map(u64::to_string).collect();
    let inbound = if ports.is_empty() {
        "*".to_owned()
    } else {
        ports.join(",")
    };
    // The doors that stay open whatever happens: ssh, metrics, health, and the agent's own port.
    let mut excluded = "22,15090,15021".to_owned();
    match config["statusPort"].as_u64().unwrap_or(0) {
        15090 | 15021 => {}
        0 => excluded.push_str(",15020"),
        port => excluded.push_str(&format!(",{port}")),
    }
    let mut set = |name: &str, value: String| out.insert(name.to_owned(), value);
    set("ISTIO_INBOUND_PORTS", inbound);
    set("ISTIO_NAMESPACE", group.namespace.clone());
    set(
        "ISTIO_SERVICE",
        format!("{}.{}", group.name, group.namespace),
    );
    set("ISTIO_SERVICE_CIDR", "*".to_owned());
    set("ISTIO_LOCAL_EXCLUDE_PORTS", excluded);
    set("SERVICE_ACCOUNT", group.service_account.clone());
    if !plane.revision.is_empty() {
        set("CA_ADDR", plane.address());
    }
    if !arguments.internal_ip.is_empty() {
        set("ISTIO_SVC_IP", arguments.internal_ip.clone());
    } else if !arguments.external_ip.is_empty() {
        set("ISTIO_SVC_IP", arguments.external_ip.clone());
        set(
            "REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION",
            "true".to_owned(),
        );
    }
    let mut lines: Vec<String> = out
        .iter()
        .map(|(name, value)| format!("{name}={}\n", quoted(value)))
        .collect();
    lines.sort_unstable();
    lines.concat()
}

/// One word of a shell.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "'\"'\"'"))
}

/// A map as Go prints one.
fn go_map(map: &Map<String, Value>) -> String {
    let mut entries: Vec<String> = map
        .iter()
        .map(|(key, value)| format!("{key}:{}", value.as_str().unwrap_or_default()))
        .collect();
    entries.sort_unstable();
    format!("map[{}]", entries.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane() -> ControlPlane {
        ControlPlane {
            namespace: "istio-system".into(),
            revision: String::new(),
        }
    }

    fn group() -> Group {
        Group::of(json!({
            "metadata": {"name": "vm", "namespace": "shop", "annotations": {PROXY_CONFIG: "proxyMetadata: {A: one two}\nconcurrency: 0"}},
            "spec": {
                "metadata": {"labels": {"app": "legacy", "version": "v2"}},
                "template": {"ports": {"http": 8080, "grpc": 9090}, "serviceAccount": "vm", "network": "n2"},
                "probe": {"httpGet": {"port": 8080}},
            },
        }))
    }

    // Values as the real program wrote them for the same group.
    #[test]
    fn the_machine_is_told_who_it_is() {
        let arguments = Arguments {
            capture_dns: true,
            auto_register: true,
            ..Arguments::default()
        };
        let mesh = json!({
            "trustDomain": "cluster.local",
            "defaultConfig": {"discoveryAddress": "istiod.istio-system.svc:15012", "statusPort": 0},
        });
        let config = proxy_config(&group(), &plane(), &mesh, "ctx1", &arguments).unwrap();
        assert_eq!(
            config,
            json!({
                "concurrency": 0,
                "discoveryAddress": "istiod.istio-system.svc:15012",
                "proxyMetadata": {
                    "A": "one two",
                    "CANONICAL_REVISION": "v2",
                    "CANONICAL_SERVICE": "legacy",
                    "ISTIO_METAJSON_LABELS": r#"{"app":"legacy","service.istio.io/canonical-name":"legacy","service.istio.io/canonical-revision":"v2","version":"v2"}"#,
                    "ISTIO_META_AUTO_REGISTER_GROUP": "vm",
                    "ISTIO_META_CLUSTER_ID": "ctx1",
                    "ISTIO_META_DNS_CAPTURE": "true",
                    "ISTIO_META_MESH_ID": "",
                    "ISTIO_META_NETWORK": "n2",
                    "ISTIO_META_POD_PORTS": r#"[{"name":"grpc","containerPort":9090,"protocol":""},{"name":"http","containerPort":8080,"protocol":""}]"#,
                    "ISTIO_META_WORKLOAD_NAME": "vm",
                    "POD_NAMESPACE": "shop",
                    "SERVICE_ACCOUNT": "vm",
                    "TRUST_DOMAIN": "cluster.local",
                },
                "readinessProbe": {"httpGet": {"port": 8080}},
            })
        );
    }

    #[test]
    fn the_environment_is_fit_for_a_shell() {
        let config = json!({"proxyMetadata": {"A": "one two", "B": "it's", "C": ""}});
        let arguments = Arguments {
            external_ip: "1.2.3.4".into(),
            ..Arguments::default()
        };
        let plane = ControlPlane {
            revision: "canary".into(),
            ..plane()
        };
        assert_eq!(
            environment(&group(), &plane, &config, &arguments),
            "A='one two'\nB='it'\"'\"'s'\nC=''\nCA_ADDR='istiod-canary.istio-system.svc:15012'\nISTIO_INBOUND_PORTS='9090,8080'\n\
             ISTIO_LOCAL_EXCLUDE_PORTS='22,15090,15021,15020'\nISTIO_NAMESPACE='shop'\nISTIO_SERVICE='vm.shop'\nISTIO_SERVICE_CIDR='*'\n\
             ISTIO_SVC_IP='1.2.3.4'\nREWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION='true'\nSERVICE_ACCOUNT='vm'\n"
        );
    }

    #[test]
    fn a_gateway_has_the_address_of_its_balancer_or_an_external_one() {
        let balancer = json!({"status": {"loadBalancer": {"ingress": [{"ip": "1.1.1.1"}]}}, "spec": {"externalIPs": ["2.2.2.2"]}});
        let external = json!({"spec": {"externalIPs": ["2.2.2.2"]}});
        assert_eq!(address_of(&balancer), Some("1.1.1.1"));
        assert_eq!(address_of(&external), Some("2.2.2.2"));
        assert_eq!(address_of(&json!({"spec": {}})), None);
    }
}
