//! `metrics.k8s.io`: how much CPU and memory nodes and pods use, as their node agents measure it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http_body_util::{BodyExt, Empty, Limited};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult};
use crate::http_types::{Answer, Request, json_answer};
use crate::machinery;
use crate::state::Server;
use crate::storage::Stored;
use crate::target::Target;
use crate::{outbound, streaming};

pub(crate) const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";
/// How long a node agent may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Rates are taken over at least this long, so that they mean something.
const WINDOW: f64 = 10.0;

/// `GET /apis/metrics.k8s.io`.
fn group() -> Value {
    let version = json!({"groupVersion": format!("{GROUP}/{VERSION}"), "version": VERSION});
    json!({"kind": "APIGroup", "apiVersion": "v1", "name": GROUP, "versions": [version], "preferredVersion": version})
}

/// `GET /apis/metrics.k8s.io/v1beta1`.
pub(crate) fn resources() -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{VERSION}"), "resources": [
        {"name": "nodes", "singularName": "", "namespaced": false, "kind": "NodeMetrics", "verbs": ["get", "list"]},
        {"name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics", "verbs": ["get", "list"]},
    ]})
}

/// Adds the group to `/apis`.
pub(crate) fn extend_groups(mut list: Value) -> Value {
    let mut group = group();
    if let Some(map) = group.as_object_mut() {
        map.shift_remove("kind");
        map.shift_remove("apiVersion");
    }
    if let Some(groups) = list["groups"].as_array_mut() {
        groups.push(group);
    }
    list
}

/// Adds the group to aggregated discovery.
pub(crate) fn extend_aggregated(mut list: Value, core: bool) -> Value {
    if core {
        return list;
    }
    let resource = |name: &str, kind: &str, scope: &str| {
        json!({"resource": name, "responseKind": {"group": GROUP, "version": VERSION, "kind": kind},
            "scope": scope, "singularResource": "", "verbs": ["get", "list"]})
    };
    if let Some(items) = list["items"].as_array_mut() {
        items.push(json!({
            "metadata": {"name": GROUP, "creationTimestamp": null},
            "versions": [{"version": VERSION, "freshness": "Current", "resources": [
                resource("nodes", "NodeMetrics", "Cluster"), resource("pods", "PodMetrics", "Namespaced"),
            ]}],
        }));
    }
    list
}

/// A reading of a processor clock: when (seconds), and how much had been used (nanoseconds).
#[derive(Debug, Clone, Copy, PartialEq)]
struct Reading {
    at: f64,
    used: f64,
}

/// The last readings, by node, pod and container.
#[derive(Default)]
pub(crate) struct Readings(Mutex<HashMap<String, Reading>>);

impl Readings {
    /// Nanocores used since the last reading that is old enough, or since `born`; and over how
    /// many seconds.
    fn rate(&self, key: &str, now: Reading, born: f64) -> (f64, f64) {
        let mut all = self.0.lock();
        let before = all
            .get(key)
            .copied()
            .filter(|b| b.used <= now.used && b.at < now.at);
        let from = before.unwrap_or(Reading {
            at: born,
            used: 0.0,
        });
        let seconds = (now.at - from.at).max(0.001);
        if before.is_none() || seconds >= WINDOW {
            all.insert(key.to_owned(), now);
        }
        if seconds < 1.0 && before.is_some() {
            // Asked again at once: the average of its life says more than a moment.
            let life = (now.at - born).max(0.001);
            return (now.used / life, life);
        }
        ((now.used - from.used) / seconds, seconds)
    }

    fn forget_older(&self, limit: f64) {
        self.0.lock().retain(|_, r| r.at > limit);
    }
}

fn seconds(text: &Value) -> Option<f64> {
    let t = api::time::parse(text.as_str()?)?;
    #[allow(clippy::cast_precision_loss)] // milliseconds are enough
    Some(t.unix_timestamp_nanos() as f64 / 1e9)
}

/// Usage as metrics-server writes it: nanocores and kibibytes.
fn usage(nanocores: f64, bytes: u64) -> Value {
    json!({"cpu": format!("{}n", nanocores.max(0.0).round()), "memory": format!("{}Ki", bytes / 1024)})
}

fn window(length: f64) -> String {
    format!("{}s", length.round().max(1.0))
}

/// Asks a node's agent.
async fn summary(server: &Server, node: &Value) -> ApiResult<Value> {
    let peer = streaming::peer(server, node)?;
    let run = async {
        let request = http::Request::get("/stats/summary")
            .header(http::header::HOST, peer.address.to_string())
            .body(Empty::new())
            .map_err(ApiError::internal)?;
        let answer = outbound::send(&peer, request)
            .await
            .map_err(|e| ApiError::unavailable(outbound::explain(&e)))?;
        let body = Limited::new(answer.into_body(), 8 << 20)
            .collect()
            .await
            .map_err(|e| ApiError::unavailable(outbound::explain(&e)))?
            .to_bytes();
        serde_json::from_slice(&body).map_err(ApiError::internal)
    };
    tokio::time::timeout(PATIENCE, run)
        .await
        .map_err(|_| ApiError::unavailable("the node agent did not answer in time"))?
}

fn node_metrics(readings: &Readings, node: &Value, summary: &Value, now: f64) -> Value {
    let name = api::meta::name(node);
    let born = seconds(&node["metadata"]["creationTimestamp"]).unwrap_or(now - 1.0);
    let figures = &summary["node"];
    let used = figures["cpu"]["usageCoreNanoSeconds"]
        .as_f64()
        .unwrap_or(0.0);
    let at = seconds(&figures["cpu"]["time"]).unwrap_or(now);
    let (rate, length) = readings.rate(&format!("node/{name}"), Reading { at, used }, born);
    json!({
        "kind": "NodeMetrics", "apiVersion": format!("{GROUP}/{VERSION}"),
        "metadata": {"name": name, "creationTimestamp": crate::state::now(), "labels": node["metadata"]["labels"]},
        "timestamp": figures["cpu"]["time"], "window": window(length),
        "usage": usage(rate, figures["memory"]["workingSetBytes"].as_u64().unwrap_or(0)),
    })
}

fn pod_metrics(readings: &Readings, pod: &Value, figures: &Value, now: f64) -> Value {
    let mut length = 0.0_f64;
    let mut containers = Vec::new();
    for c in figures["containers"].as_array().into_iter().flatten() {
        let name = c["name"].as_str().unwrap_or("");
        let at = seconds(&c["cpu"]["time"]).unwrap_or(now);
        let born = seconds(&c["startTime"]).unwrap_or(at - 1.0);
        let used = c["cpu"]["usageCoreNanoSeconds"].as_f64().unwrap_or(0.0);
        let key = format!("pod/{}/{name}/{born}", api::meta::uid(pod));
        let (rate, over) = readings.rate(&key, Reading { at, used }, born);
        length = length.max(over);
        containers.push(json!({
            "name": name,
            "usage": usage(rate, c["memory"]["workingSetBytes"].as_u64().unwrap_or(0)),
        }));
    }
    json!({
        "kind": "PodMetrics", "apiVersion": format!("{GROUP}/{VERSION}"),
        "metadata": {"name": api::meta::name(pod), "namespace": api::meta::namespace(pod),
            "creationTimestamp": crate::state::now(), "labels": pod["metadata"]["labels"]},
        "timestamp": figures["containers"][0]["cpu"]["time"], "window": window(length),
        "containers": containers,
    })
}

/// Answers a request for metrics.
pub(crate) async fn handle(
    server: &Arc<Server>,
    request: &Request,
    target: &Target,
) -> ApiResult<Answer> {
    if !crate::rest::reads(&request.method) {
        return Err(ApiError::method_not_allowed(
            GROUP,
            &target.plural,
            "create",
        ));
    }
    let verb = if target.name.is_empty() {
        "list"
    } else {
        "get"
    };
    let question = crate::rest::action(target, verb, &request.query);
    server.rights().require(&request.user, &question)?;
    if target.version != VERSION || !target.subresource.is_empty() {
        return Err(ApiError::no_such_path());
    }
    // Metrics have the names and labels of what they measure.
    let (kind, list_kind) = match target.plural.as_str() {
        "nodes" => ("NodeMetrics", "NodeMetricsList"),
        "pods" => ("PodMetrics", "PodMetricsList"),
        _ => return Err(ApiError::no_such_path()),
    };
    let registry = server.registry();
    let resource = registry
        .find("", "v1", &target.plural)
        .ok_or_else(ApiError::no_such_path)?;
    let filter = machinery::Filter::from_query(&request.query, resource)?;
    let cache = server.storage.cache();
    let prefix = if target.namespace.is_empty() {
        String::new()
    } else {
        format!("{}/", target.namespace)
    };
    let wanted: Vec<Arc<Stored>> = cache
        .list(&resource.table, &prefix)
        .0
        .into_iter()
        .map(|(_, o)| o)
        .filter(|o| {
            filter.matches(o.value())
                && (target.name.is_empty() || api::meta::name(o.value()) == target.name)
        })
        .collect();
    let (nodes, _) = cache.list("core/nodes", "");
    let answers =
        futures::future::join_all(nodes.iter().map(|(_, n)| summary(server, n.value()))).await;
    #[allow(clippy::cast_precision_loss)] // seconds of this century
    let now = crate::state::unix_now() as f64;
    let mut items = Vec::new();
    for ((_, node), answer) in nodes.iter().zip(&answers) {
        let Ok(summary) = answer else {
            continue;
        };
        for object in &wanted {
            let o = object.value();
            if target.plural == "nodes" {
                if api::meta::name(o) == api::meta::name(node.value()) {
                    items.push(node_metrics(&server.readings, o, summary, now));
                }
                continue;
            }
            let figures = summary["pods"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|p| p["podRef"]["uid"] == api::meta::uid(o));
            if let Some(figures) = figures {
                items.push(pod_metrics(&server.readings, o, figures, now));
            }
        }
    }
    server.readings.forget_older(now - 600.0);
    if target.name.is_empty() {
        for item in &mut items {
            if let Some(map) = item.as_object_mut() {
                map.shift_remove("kind");
                map.shift_remove("apiVersion");
            }
        }
        return Ok(json_answer(
            StatusCode::OK,
            &json!({"kind": list_kind, "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": {}, "items": items}),
        ));
    }
    items
        .into_iter()
        .find(|i| i["kind"] == kind)
        .map(|i| json_answer(StatusCode::OK, &i))
        .ok_or_else(|| ApiError::not_found(GROUP, &target.plural, &target.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_time_between_readings() {
        let r = Readings::default();
        let at = |at: f64, used: f64| Reading { at, used };
        let close =
            |a: (f64, f64), b: (f64, f64)| (a.0 - b.0).abs() < 1e-6 && (a.1 - b.1).abs() < 1e-6;
        assert!(
            close(r.rate("a", at(110.0, 1e9), 100.0), (1e8, 10.0)),
            "since its birth"
        );
        assert!(
            close(r.rate("a", at(130.0, 21e9), 100.0), (1e9, 20.0)),
            "since the last reading"
        );
        assert!(
            close(r.rate("a", at(130.5, 21e9), 100.0), (21e9 / 30.5, 30.5)),
            "asked again at once"
        );
        r.forget_older(200.0);
        assert!(r.0.lock().is_empty());
    }

    #[test]
    fn usage_is_written_as_metrics_server_writes_it() {
        assert_eq!(
            usage(1234.6, 2048),
            json!({"cpu": "1235n", "memory": "2Ki"})
        );
    }
}
