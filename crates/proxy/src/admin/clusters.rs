//! `/clusters`

use std::fmt::Write as _;
use std::sync::Arc;

use dataplane::circuit::Priority;
use dataplane::cluster::Health;
use serde_json::{Map, Value, json};

use crate::server::Proxy;
use crate::upstream::host::Address;
use crate::upstream::{Cluster, Host};

fn all(proxy: &Proxy) -> Vec<(Arc<Cluster>, bool)> {
    proxy.manager.with_state(|state| {
        state
            .clusters
            .values()
            .map(|cluster| {
                (
                    cluster.clone(),
                    !state.static_clusters.contains(cluster.name()),
                )
            })
            .collect()
    })
}

fn flags(host: &Host) -> String {
    let mut flags = String::new();
    if host.is_ejected() {
        flags.push_str("/failed_outlier_check");
    }
    match host.info.load().health {
        Health::Healthy => {}
        Health::Degraded => flags.push_str("/degraded_eds_health"),
        Health::Unhealthy | Health::Draining => flags.push_str("/failed_eds_health"),
    }
    if flags.is_empty() {
        "healthy".into()
    } else {
        flags
    }
}

/// `cluster::key::value` lines.
pub fn text(proxy: &Proxy) -> String {
    let mut out = String::new();
    for (cluster, dynamic) in all(proxy) {
        let name = cluster.name();
        let _ = writeln!(
            out,
            "{name}::observability_name::{}",
            cluster.config.stat_name
        );
        if cluster.config.outlier.is_some() {
            for key in [
                "success_rate_average",
                "success_rate_ejection_threshold",
                "local_origin_success_rate_average",
                "local_origin_success_rate_ejection_threshold",
            ] {
                let _ = writeln!(out, "{name}::outlier::{key}::-1");
            }
        }
        for (label, priority) in [
            ("default_priority", Priority::Default),
            ("high_priority", Priority::High),
        ] {
            let limits = cluster.breakers.thresholds(priority);
            let _ = writeln!(
                out,
                "{name}::{label}::max_connections::{}",
                limits.connections
            );
            let _ = writeln!(
                out,
                "{name}::{label}::max_pending_requests::{}",
                limits.pending
            );
            let _ = writeln!(out, "{name}::{label}::max_requests::{}", limits.requests);
            let _ = writeln!(out, "{name}::{label}::max_retries::{}", limits.retries);
        }
        let _ = writeln!(out, "{name}::added_via_api::{dynamic}");
        for host in cluster.hosts() {
            let stats = &host.stats;
            let info = host.info.load();
            let address = &host.address;
            let mut line = |key: &str, value: &dyn std::fmt::Display| {
                let _ = writeln!(out, "{name}::{address}::{key}::{value}");
            };
            line("cx_active", &stats.cx_active.get());
            line("cx_connect_fail", &stats.cx_connect_fail.get());
            line("cx_total", &stats.cx_total.get());
            line("rq_active", &stats.rq_active.get());
            line("rq_error", &stats.rq_error.get());
            line("rq_success", &stats.rq_success.get());
            line("rq_timeout", &stats.rq_timeout.get());
            line("rq_total", &stats.rq_total.get());
            line("hostname", &info.hostname);
            line("health_flags", &flags(&host));
            line("weight", &info.weight);
            line("region", &info.locality.region);
            line("zone", &info.locality.zone);
            line("sub_zone", &info.locality.sub_zone);
            line("canary", &false);
            line("priority", &info.priority);
            line("success_rate", &-1);
            line("local_origin_success_rate", &-1);
        }
    }
    out
}

fn host_json(host: &Host) -> Value {
    let info = host.info.load();
    let address = match &host.address {
        Address::Socket(address) => {
            json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
        }
        Address::Pipe(path) => json!({"pipe": {"path": path.to_string_lossy()}}),
    };
    let stats = &host.stats;
    let counter = |name: &str, value: u64| {
        if value == 0 {
            json!({"name": name})
        } else {
            json!({"name": name, "value": value.to_string()})
        }
    };
    let gauge = |name: &str, value: u64| {
        let mut entry = Map::new();
        entry.insert("type".into(), "GAUGE".into());
        if value != 0 {
            entry.insert("value".into(), value.to_string().into());
        }
        entry.insert("name".into(), name.into());
        Value::Object(entry)
    };
    let mut health = Map::new();
    if host.is_ejected() {
        health.insert("failed_outlier_check".into(), true.into());
    }
    let eds = match info.health {
        Health::Healthy => "HEALTHY",
        Health::Degraded => "DEGRADED",
        Health::Unhealthy => "UNHEALTHY",
        Health::Draining => "DRAINING",
    };
    health.insert("eds_health_status".into(), eds.into());
    let mut locality = Map::new();
    for (key, value) in [
        ("region", &info.locality.region),
        ("zone", &info.locality.zone),
        ("sub_zone", &info.locality.sub_zone),
    ] {
        if !value.is_empty() {
            locality.insert(key.into(), value.as_str().into());
        }
    }
    let mut out = Map::new();
    out.insert("address".into(), address);
    out.insert(
        "stats".into(),
        json!([
            counter("cx_connect_fail", stats.cx_connect_fail.get()),
            counter("cx_total", stats.cx_total.get()),
            counter("rq_error", stats.rq_error.get()),
            counter("rq_success", stats.rq_success.get()),
            counter("rq_timeout", stats.rq_timeout.get()),
            counter("rq_total", stats.rq_total.get()),
            gauge("cx_active", stats.cx_active.get()),
            gauge("rq_active", stats.rq_active.get()),
        ]),
    );
    out.insert("health_status".into(), Value::Object(health));
    out.insert("weight".into(), info.weight.into());
    if !info.hostname.is_empty() {
        out.insert("hostname".into(), info.hostname.as_str().into());
    }
    if info.priority > 0 {
        out.insert("priority".into(), info.priority.into());
    }
    out.insert("locality".into(), Value::Object(locality));
    Value::Object(out)
}

/// `{"cluster_statuses":[...]}`
pub fn json(proxy: &Proxy) -> Value {
    let statuses: Vec<Value> = all(proxy)
        .into_iter()
        .map(|(cluster, dynamic)| {
            let mut out = Map::new();
            out.insert("name".into(), cluster.name().into());
            if dynamic {
                out.insert("added_via_api".into(), true.into());
            }
            let hosts: Vec<Value> = cluster.hosts().iter().map(|host| host_json(host)).collect();
            if !hosts.is_empty() {
                out.insert("host_statuses".into(), hosts.into());
            }
            let thresholds: Vec<Value> = [Priority::Default, Priority::High]
                .into_iter()
                .map(|priority| {
                    let limits = cluster.breakers.thresholds(priority);
                    let mut entry = Map::new();
                    if priority == Priority::High {
                        entry.insert("priority".into(), "HIGH".into());
                    }
                    entry.insert("max_connections".into(), limits.connections.into());
                    entry.insert("max_pending_requests".into(), limits.pending.into());
                    entry.insert("max_requests".into(), limits.requests.into());
                    entry.insert("max_retries".into(), limits.retries.into());
                    Value::Object(entry)
                })
                .collect();
            out.insert(
                "circuit_breakers".into(),
                json!({ "thresholds": thresholds }),
            );
            out.insert(
                "observability_name".into(),
                cluster.config.stat_name.as_ref().into(),
            );
            if let dataplane::cluster::Discovery::Eds(service) = &cluster.config.discovery {
                out.insert("eds_service_name".into(), service.as_str().into());
            }
            Value::Object(out)
        })
        .collect();
    json!({ "cluster_statuses": statuses })
}
