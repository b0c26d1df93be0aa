//! What the page shows about the clusters. Everything is read when it is asked for; what cannot be read is
//! said, never guessed.

use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use crate::kube::Source;

const NAMESPACE: &str = "theater-msa";
const MESH_NAMESPACE: &str = "istio-system";

/// The services with weights, and how `/traffic-weights` begins their names.
const WEIGHTED: [(&str, &str); 3] = [
    ("user-service", "UserService"),
    ("movie-service", "MovieService"),
    ("booking-service", "BookingService"),
];

/// The clusters the page shows.
pub struct Clusters {
    sources: Vec<(String, Source)>,
}

impl Clusters {
    /// The own cluster and, if there is a kubeconfig, the other one.
    pub fn new(own: &str, remote: Option<PathBuf>) -> Self {
        let mut sources = vec![(own.to_owned(), Source::Own)];
        if let Some(path) = remote {
            let other = if own == "ctx2" { "ctx1" } else { "ctx2" };
            sources.push((other.to_owned(), Source::Kubeconfig(path)));
        }
        Self { sources }
    }

    fn own(&self) -> &Source {
        &self.sources[0].1
    }

    /// Configured weights: those of the rule without a match in each service's VirtualService.
    pub async fn weights(&self) -> Value {
        let path = format!("/apis/networking.istio.io/v1/namespaces/{NAMESPACE}/virtualservices");
        match self.own().get(&path).await {
            Ok(list) => weights(&list),
            Err(error) => json!({"error": error}),
        }
    }

    /// Pods of all clusters.
    pub async fn deployments(&self, now: SystemTime) -> Value {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
        let checked = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let clusters =
            futures::future::join_all(self.sources.iter().map(async |(name, source)| {
                let mut cluster = json!({"name": name, "lastChecked": checked});
                match source.get(&path).await {
                    Ok(list) => cluster["pods"] = items(&list).map(pod).collect(),
                    Err(error) => cluster["error"] = error.into(),
                }
                cluster
            }))
            .await;
        json!({"clusters": clusters})
    }

    /// Nodes, services and gateways of all clusters.
    pub async fn topology(&self) -> Value {
        let clusters = futures::future::join_all(
            self.sources
                .iter()
                .map(async |(name, source)| cluster_topology(name, source).await),
        )
        .await;
        json!({"clusters": clusters})
    }
}

async fn cluster_topology(name: &str, source: &Source) -> Value {
    let services = format!("/api/v1/namespaces/{NAMESPACE}/services");
    let gateways = format!("/api/v1/namespaces/{MESH_NAMESPACE}/services");
    let (nodes, services, gateways) = futures::join!(
        source.get("/api/v1/nodes"),
        source.get(&services),
        source.get(&gateways),
    );
    let mut cluster = json!({"name": name});
    for (field, answer, describe) in [
        ("nodes", nodes, node as fn(&Value) -> Option<Value>),
        ("services", services, service),
        ("gateways", gateways, gateway),
    ] {
        match answer {
            Ok(list) => cluster[field] = items(&list).filter_map(describe).collect(),
            Err(error) => cluster["error"] = error.into(),
        }
    }
    cluster
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

/// The weights of a list of VirtualServices, as `UserServiceCtx1Weight` and so on.
fn weights(list: &Value) -> Value {
    let mut weights = Map::new();
    for (service, prefix) in WEIGHTED {
        let rule = items(list)
            .filter(|object| routes_to(object, service))
            .find_map(|object| {
                object["spec"]["http"]
                    .as_array()?
                    .iter()
                    .find(|rule| rule["match"].as_array().is_none_or(Vec::is_empty))
            });
        let Some(destinations) = rule.and_then(|rule| rule["route"].as_array()) else {
            continue;
        };
        for subset in ["ctx1", "ctx2"] {
            let weight: u64 = destinations
                .iter()
                .filter(|destination| destination["destination"]["subset"] == subset)
                .map(|destination| match destination["weight"].as_u64() {
                    // A single destination without a weight gets everything.
                    None if destinations.len() == 1 => 100,
                    weight => weight.unwrap_or(0),
                })
                .sum();
            let (first, rest) = subset.split_at(1);
            let name = format!("{prefix}{}{rest}Weight", first.to_ascii_uppercase());
            weights.insert(name, weight.into());
        }
    }
    Value::Object(weights)
}

/// Whether a VirtualService is about a service, by its short or full name.
fn routes_to(object: &Value, service: &str) -> bool {
    object["spec"]["hosts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .any(|host| host == service || host == format!("{service}.{NAMESPACE}.svc.cluster.local"))
}

fn pod(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let statuses = object["status"]["containerStatuses"].as_array();
    let ready = |statuses: &Vec<Value>| statuses.iter().filter(|s| s["ready"] == true).count();
    let restarts = |statuses: &Vec<Value>| {
        statuses
            .iter()
            .filter_map(|status| status["restartCount"].as_u64())
            .sum::<u64>()
    };
    json!({
        "service": metadata["labels"]["app"],
        "podName": metadata["name"],
        "nodeName": object["spec"]["nodeName"],
        "status": status(object),
        "ready": statuses.map_or(0, ready),
        "containers": object["spec"]["containers"].as_array().map_or(0, Vec::len),
        "restarts": statuses.map_or(0, restarts),
        "port": object["spec"]["containers"][0]["ports"][0]["containerPort"],
    })
}

/// What kubectl would show as a pod's status, in short.
fn status(object: &Value) -> String {
    if object["metadata"]["deletionTimestamp"].is_string() {
        return "Terminating".into();
    }
    let waiting = object["status"]["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten()
        .find_map(|status| status["state"]["waiting"]["reason"].as_str());
    waiting
        .or(object["status"]["phase"].as_str())
        .unwrap_or("Unknown")
        .to_owned()
}

fn node(object: &Value) -> Option<Value> {
    let labels = &object["metadata"]["labels"];
    Some(json!({
        "name": object["metadata"]["name"],
        "provider": labels["cloud-provider"],
        "region": labels["topology.kubernetes.io/region"],
        "zone": labels["topology.kubernetes.io/zone"],
    }))
}

fn service(object: &Value) -> Option<Value> {
    Some(json!({
        "name": object["metadata"]["name"],
        "address": object["spec"]["clusterIP"],
        "port": object["spec"]["ports"][0]["port"],
    }))
}

/// A gateway is a Service that the outside reaches.
fn gateway(object: &Value) -> Option<Value> {
    (object["spec"]["type"] == "LoadBalancer").then(|| {
        json!({
            "name": object["metadata"]["name"],
            "address": object["status"]["loadBalancer"]["ingress"][0]["ip"],
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn virtual_service(http: Value) -> Value {
        json!({"items": [{"spec": {"hosts": ["user-service"], "http": http}}]})
    }

    #[test]
    fn weights_come_from_the_rule_without_a_match() {
        let route = |subset: &str, weight: u64| json!({"destination": {"subset": subset}, "weight": weight});
        let list = virtual_service(json!([
            {"match": [{"headers": {}}], "route": [route("ctx2", 100)]},
            {"route": [route("ctx1", 90), route("ctx2", 10)]},
        ]));
        assert_eq!(
            weights(&list),
            json!({"UserServiceCtx1Weight": 90, "UserServiceCtx2Weight": 10})
        );
    }

    #[test]
    fn a_single_destination_gets_everything_and_nothing_is_invented() {
        let list = virtual_service(json!([{"route": [{"destination": {"subset": "ctx1"}}]}]));
        assert_eq!(
            weights(&list),
            json!({"UserServiceCtx1Weight": 100, "UserServiceCtx2Weight": 0})
        );
        assert_eq!(weights(&json!({"items": []})), json!({}));
    }
}
