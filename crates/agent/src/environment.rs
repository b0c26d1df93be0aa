//! The environment of an injected container: variables and files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use dataplane::matching::json_to_struct;
use serde_json::{Map, Value, json};
use xds::envoy::config::core::v3::{Locality, Node};

use crate::ISTIO_VERSION;

/// What an agent knows about its pod.
#[derive(Debug, Clone)]
pub struct Environment {
    /// `sidecar` or `router`.
    pub role: String,
    /// The pod.
    pub pod: String,
    /// Its namespace.
    pub namespace: String,
    /// Its address.
    pub ip: String,
    /// Its service account.
    pub service_account: String,
    /// The trust domain.
    pub trust_domain: String,
    /// The DNS domain of its namespace.
    pub domain: String,
    /// Where certificates are signed.
    pub ca_address: String,
    /// The effective proxy configuration.
    pub proxy_config: Map<String, Value>,
    /// Labels of the pod.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pod.
    pub annotations: BTreeMap<String, String>,
    /// All variables.
    pub variables: BTreeMap<String, String>,
    /// The token for istiod.
    pub token_file: PathBuf,
    /// The root certificate of istiod.
    pub root_file: PathBuf,
}

impl Environment {
    /// Reads the process's own environment. `domain` is the `--domain` option.
    pub fn read(role: &str, domain: Option<&str>) -> Self {
        let variables = std::env::vars_os()
            .map(|(name, value)| {
                (
                    name.to_string_lossy().into_owned(),
                    value.to_string_lossy().into_owned(),
                )
            })
            .collect();
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self::new(
            role,
            domain,
            variables,
            &file("/etc/istio/pod/labels"),
            &file("/etc/istio/pod/annotations"),
        )
    }

    /// From given variables and the texts of the downward API files.
    pub fn new(
        role: &str,
        domain: Option<&str>,
        variables: BTreeMap<String, String>,
        labels: &str,
        annotations: &str,
    ) -> Self {
        let get = |name: &str, default: &str| {
            variables
                .get(name)
                .filter(|value| !value.is_empty())
                .cloned()
                .unwrap_or_else(|| default.to_owned())
        };
        let namespace = get("POD_NAMESPACE", "default");
        let annotations = downward(annotations);
        let proxy_config = proxy_config(&variables, &annotations);
        let discovery = proxy_config
            .get("discoveryAddress")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        Self {
            role: role.to_owned(),
            pod: get("POD_NAME", "unknown"),
            domain: domain.map_or_else(|| format!("{namespace}.svc.cluster.local"), str::to_owned),
            ip: get("INSTANCE_IP", "127.0.0.1"),
            service_account: get("SERVICE_ACCOUNT", "default"),
            trust_domain: get("TRUST_DOMAIN", "cluster.local"),
            ca_address: get("CA_ADDR", &discovery),
            namespace,
            proxy_config,
            labels: downward(labels),
            annotations,
            token_file: "/var/run/secrets/tokens/istio-token".into(),
            root_file: "/var/run/secrets/istio/root-cert.pem".into(),
            variables,
        }
    }

    /// The identity of the workload.
    pub fn spiffe_id(&self) -> String {
        format!(
            "spiffe://{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }

    /// A text of the proxy configuration.
    pub fn config(&self, name: &str) -> &str {
        self.proxy_config
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// A number of the proxy configuration.
    pub fn config_number(&self, name: &str) -> u64 {
        self.proxy_config
            .get(name)
            .and_then(Value::as_u64)
            .unwrap_or_default()
    }

    /// A port of the proxy configuration; 0 where it is none.
    pub fn port(&self, name: &str) -> u32 {
        u32::try_from(self.config_number(name)).unwrap_or_default()
    }

    /// A duration of the proxy configuration (`5s`, `1m30s`, `100ms`).
    pub fn config_duration(&self, name: &str, default: Duration) -> Duration {
        parse_duration(self.config(name)).unwrap_or(default)
    }

    /// Whether a variable says yes.
    pub fn flag(&self, name: &str) -> bool {
        self.variables
            .get(name)
            .is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1")
    }

    /// The node of the bootstrap.
    pub fn node(&self) -> Node {
        let app = self.labels.get("app").filter(|app| !app.is_empty());
        let workload = self
            .variables
            .get("ISTIO_META_WORKLOAD_NAME")
            .filter(|name| !name.is_empty());
        let cluster = app.or(workload).map_or("istio-proxy", String::as_str);
        Node {
            id: format!(
                "{}~{}~{}.{}~{}",
                self.role, self.ip, self.pod, self.namespace, self.domain
            ),
            cluster: format!("{cluster}.{}", self.namespace),
            locality: Some(self.locality()),
            metadata: Some(json_to_struct(&self.metadata())),
            ..Default::default()
        }
    }

    fn locality(&self) -> Locality {
        let label = self.labels.get("istio-locality").map_or("", String::as_str);
        // Labels cannot hold slashes.
        let mut parts = label.split(if label.contains('/') { '/' } else { '.' });
        let mut next = || parts.next().unwrap_or_default().to_owned();
        Locality {
            region: next(),
            zone: next(),
            sub_zone: next(),
        }
    }

    fn metadata(&self) -> Map<String, Value> {
        let mut all: BTreeMap<String, Value> = BTreeMap::new();
        for (name, value) in &self.variables {
            if let Some(key) = name.strip_prefix("ISTIO_META_") {
                all.insert(key.to_owned(), value.as_str().into());
            } else if let Some(key) = name.strip_prefix("ISTIO_METAJSON_")
                && let Ok(value) = serde_json::from_str(value)
            {
                all.insert(key.to_owned(), value);
            }
        }
        if let Some(ports) = self.variables.get("ISTIO_META_POD_PORTS") {
            all.insert("POD_PORTS".into(), pod_ports(ports).into());
        }
        if self.flag("EXIT_ON_ZERO_ACTIVE_CONNECTIONS") {
            all.insert("EXIT_ON_ZERO_ACTIVE_CONNECTIONS".into(), "true".into());
        }
        if super::envoy::program(self).is_some() {
            // It has no filters of Istio's own; somebody who built one with them says so (proxyMetadata).
            all.entry("THEATER_PLAIN_ENVOY".into())
                .or_insert_with(|| "true".into());
        }
        let mut labels = self.labels.clone();
        labels.remove("pod-template-hash");
        let discovery = self.config("discoveryAddress").to_owned();
        let san = discovery
            .rsplit_once(':')
            .map_or(discovery.as_str(), |(host, _)| host);
        for (key, value) in [
            ("ANNOTATIONS", json!(self.annotations)),
            ("ENVOY_PROMETHEUS_PORT", 15090.into()),
            ("ENVOY_SKIP_DEPRECATED_LOGS", "true".into()),
            ("ENVOY_STATUS_PORT", 15021.into()),
            ("INSTANCE_IPS", self.ip.as_str().into()),
            ("ISTIO_VERSION", ISTIO_VERSION.into()),
            ("LABELS", json!(labels)),
            ("METADATA_DISCOVERY", "false".into()),
            ("NAME", self.pod.as_str().into()),
            ("NAMESPACE", self.namespace.as_str().into()),
            ("PILOT_SAN", json!([san])),
            ("PROXY_CONFIG", Value::Object(self.proxy_config.clone())),
            ("SERVICE_ACCOUNT", self.service_account.as_str().into()),
            ("WORKLOAD_IDENTITY_SOCKET_FILE", "socket".into()),
        ] {
            all.insert(key.to_owned(), value);
        }
        all.into_iter().collect()
    }
}

/// `key="escaped value"` lines of the downward API.
fn downward(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            let value: String =
                serde_json::from_str(value).unwrap_or_else(|_| value.trim_matches('"').to_owned());
            Some((key.to_owned(), value))
        })
        .collect()
}

/// The effective configuration: defaults, then the variable, then the pod's annotation.
fn proxy_config(
    variables: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Map<String, Value> {
    let concurrency = variables
        .get("ISTIO_CPU_LIMIT")
        .and_then(|limit| limit.parse::<u64>().ok())
        .unwrap_or(2);
    let mut config = match json!({
        "binaryPath": "/usr/local/bin/envoy",
        "concurrency": concurrency,
        "configPath": "./etc/istio/proxy",
        "controlPlaneAuthPolicy": "MUTUAL_TLS",
        "discoveryAddress": "istiod.istio-system.svc:15012",
        "drainDuration": "45s",
        "proxyAdminPort": 15000,
        "serviceCluster": "istio-proxy",
        "statNameLength": 189,
        "statusPort": 15020,
        "terminationDrainDuration": "5s",
    }) {
        Value::Object(config) => config,
        _ => Map::new(),
    };
    let texts = [
        variables.get("PROXY_CONFIG"),
        annotations.get("proxy.istio.io/config"),
    ];
    for text in texts
        .into_iter()
        .flatten()
        .filter(|text| !text.trim().is_empty())
    {
        match yaml_serde::from_str::<Value>(text) {
            Ok(Value::Object(given)) => config.extend(given),
            Ok(_) => {}
            Err(error) => tracing::warn!("PROXY_CONFIG is ignored: {error}"),
        }
    }
    // Keys in order, as a Go program writes them.
    let sorted: BTreeMap<String, Value> = config.into_iter().collect();
    sorted.into_iter().collect()
}

/// The ports as istiod reads them: a JSON list in a string, each with a protocol.
fn pod_ports(text: &str) -> String {
    let Ok(Value::Array(ports)) = serde_json::from_str(text) else {
        return text.to_owned();
    };
    let ports: Vec<Value> = ports
        .into_iter()
        .map(|port| {
            let mut out = Map::new();
            if let Some(name) = port.get("name").filter(|name| *name != "") {
                out.insert("name".into(), name.clone());
            }
            out.insert(
                "containerPort".into(),
                port.get("containerPort").cloned().unwrap_or(0.into()),
            );
            out.insert(
                "protocol".into(),
                port.get("protocol").cloned().unwrap_or("".into()),
            );
            Value::Object(out)
        })
        .collect();
    Value::Array(ports).to_string()
}

/// A duration as Go and Kubernetes write it.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(rest.len(), |end| digits + end);
        let seconds = match &rest[digits..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            "us" => 0.000_001,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(number * seconds).ok()?;
        rest = &rest[unit_end..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Environment {
        let variables: BTreeMap<String, String> = [
            ("POD_NAME", "movie-service-7d9f5c6b4-x2x4z"),
            ("POD_NAMESPACE", "theater-msa"),
            ("INSTANCE_IP", "10.10.0.3"),
            ("SERVICE_ACCOUNT", "default"),
            ("ISTIO_META_CLUSTER_ID", "ctx1"),
            ("ISTIO_META_POD_PORTS", "[\n    {\"containerPort\":8082}\n]"),
            ("PROXY_CONFIG", "{}\n"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        let labels = "app=\"movie-service\"\npod-template-hash=\"7d9f5c6b4\"\nversion=\"v1\"";
        Environment::new("sidecar", None, variables, labels, "note=\"a\\nb\"")
    }

    #[test]
    fn the_node_is_what_istiod_expects() {
        let node = sample().node();
        assert_eq!(
            node.id,
            "sidecar~10.10.0.3~movie-service-7d9f5c6b4-x2x4z.theater-msa~theater-msa.svc.cluster.local"
        );
        assert_eq!(node.cluster, "movie-service.theater-msa");
        let metadata = sample().metadata();
        assert_eq!(
            metadata["POD_PORTS"],
            "[{\"containerPort\":8082,\"protocol\":\"\"}]"
        );
        assert_eq!(
            metadata["LABELS"],
            json!({"app": "movie-service", "version": "v1"})
        );
        assert_eq!(metadata["ANNOTATIONS"]["note"], "a\nb");
        assert_eq!(metadata["CLUSTER_ID"], "ctx1");
        assert_eq!(metadata["PILOT_SAN"], json!(["istiod.istio-system.svc"]));
        assert_eq!(metadata["PROXY_CONFIG"]["terminationDrainDuration"], "5s");
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(parse_duration("x"), None);
    }
}
