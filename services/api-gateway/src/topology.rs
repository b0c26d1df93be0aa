//! What `/topology` shows: nodes, services and gateways of each cluster, and the ways requests take.

use serde_json::{Value, json};

use crate::clusters::items;
use crate::weights::WEIGHTED;

/// One cluster, from the answers to what was asked about it. What could not be read is an error.
pub fn cluster(
    name: &str,
    nodes: Result<Value, String>,
    services: Result<Value, String>,
    mesh_services: Result<Value, String>,
) -> Value {
    let mut cluster = json!({"name": name});
    for (field, answer, describe) in [
        ("nodes", nodes, node as fn(&Value) -> Option<Value>),
        ("services", services, service),
        ("gateways", mesh_services, gateway),
    ] {
        match answer {
            Ok(list) => cluster[field] = items(&list).filter_map(describe).collect(),
            Err(error) => cluster["error"] = error.into(),
        }
    }
    cluster
}

/// Where the gateway's requests may go: to each service in each cluster with a weight, and into another
/// cluster through its east-west gateway.
pub fn flows(own: &str, clusters: &[Value], weights: &Value) -> Value {
    let mut flows = Vec::new();
    for weighted in &WEIGHTED {
        for cluster in clusters {
            let Some(name) = cluster["name"].as_str() else {
                continue;
            };
            let weight = weights[weighted.name(name)].as_u64().unwrap_or(0);
            if weight == 0 {
                continue;
            }
            let mut flow = json!({
                "from": {"cluster": own, "service": "api-gateway"},
                "to": {"cluster": name, "service": weighted.service},
                "weight": weight,
            });
            if name != own {
                flow["via"] = east_west(cluster);
            }
            flows.push(flow);
        }
    }
    flows.into()
}

/// A cluster's gateway for requests from other clusters; null if there is none.
fn east_west(cluster: &Value) -> Value {
    let gateways = cluster["gateways"].as_array().into_iter().flatten();
    let mut inward = gateways.filter(|gateway| gateway["eastWest"] == true);
    inward.next().map_or(
        Value::Null,
        |gateway| json!({"gateway": gateway["name"], "address": gateway["address"]}),
    )
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
            "eastWest": object["metadata"]["labels"]["istio"] == "eastwestgateway",
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_into_the_other_cluster_goes_through_its_east_west_gateway() {
        let gateways = json!({"items": [{
            "metadata": {"name": "istio-eastwestgateway", "labels": {"istio": "eastwestgateway"}},
            "spec": {"type": "LoadBalancer"},
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.74"}]}},
        }]});
        let nothing = || Ok(json!({"items": []}));
        let clusters = [
            cluster("ctx1", nothing(), nothing(), nothing()),
            cluster("ctx2", nothing(), nothing(), Ok(gateways)),
        ];
        let weights = json!({"UserServiceCtx1Weight": 70, "UserServiceCtx2Weight": 30, "MovieServiceCtx1Weight": 0});
        let flows = flows("ctx1", &clusters, &weights);
        assert_eq!(flows.as_array().unwrap().len(), 2, "seen {flows}");
        assert!(flows[0].get("via").is_none(), "seen {flows}");
        assert_eq!(flows[1]["weight"], 30);
        assert_eq!(flows[1]["via"]["address"], "203.0.113.74");
    }

    #[test]
    fn what_cannot_be_read_is_an_error_of_its_cluster() {
        let answer = cluster(
            "ctx2",
            Err("away".into()),
            Err("away".into()),
            Ok(json!({})),
        );
        assert_eq!(answer["error"], "away");
        assert!(answer.get("nodes").is_none());
    }
}
