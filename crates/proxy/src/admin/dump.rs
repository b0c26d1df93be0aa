//! `/config_dump` and `/certs`

use std::time::{Duration, SystemTime};

use http::StatusCode;
use regex::Regex;
use serde_json::{Map, Value, json};
use xds::Wire;
use xds::envoy::config::bootstrap::v3::Bootstrap;

use crate::config::kept::Kept;
use crate::config::manager::Refused;
use crate::server::Proxy;
use crate::tls::secrets::{Entry, SecretValue};
use crate::web::{Answer, Request};

const PREFIX: &str = "type.googleapis.com/envoy.admin.v3.";

/// One section of a dump: its type and its fields. Every field it may have is named, so that masks can be checked.
struct Section {
    kind: &'static str,
    known: &'static [&'static str],
    fields: Map<String, Value>,
}

impl Section {
    fn new(kind: &'static str, known: &'static [&'static str]) -> Self {
        Self {
            kind,
            known,
            fields: Map::new(),
        }
    }

    fn set(&mut self, name: &str, value: Value) {
        let empty = match &value {
            Value::Array(values) => values.is_empty(),
            Value::String(text) => text.is_empty(),
            Value::Null => true,
            _ => false,
        };
        if !empty {
            self.fields.insert(name.to_owned(), value);
        }
    }

    fn finish(self) -> Value {
        let mut out = Map::new();
        out.insert("@type".into(), format!("{PREFIX}{}", self.kind).into());
        out.extend(self.fields);
        Value::Object(out)
    }
}

/// A message with its type.
fn typed<M: Wire>(message: &M) -> Value {
    spelled_out(M::type_url(), &message.to_wire())
}

/// The same of one that is kept encoded.
fn kept<M: Wire + PartialEq>(message: &Kept<M>) -> Value {
    spelled_out(M::type_url(), message.bytes())
}

fn spelled_out(type_url: String, bytes: &[u8]) -> Value {
    let mut out = Map::new();
    let fields = xds::json::to_value_by_type_url(&type_url, bytes);
    out.insert("@type".into(), type_url.into());
    match fields {
        Ok(Value::Object(fields)) => out.extend(fields),
        Ok(other) => {
            out.insert("value".into(), other);
        }
        Err(error) => {
            out.insert("error".into(), error.to_string().into());
        }
    }
    Value::Object(out)
}

/// A moment as protobuf JSON has it.
fn timestamp(at: SystemTime) -> Value {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let at = time::OffsetDateTime::from_unix_timestamp(since.as_secs() as i64)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
        + Duration::from_millis(u64::from(since.subsec_millis()));
    at.format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_default()
        .into()
}

fn object(pairs: Vec<(&str, Value)>) -> Value {
    let mut out = Map::new();
    for (name, value) in pairs {
        if !value.is_null() && value != "" {
            out.insert(name.to_owned(), value);
        }
    }
    Value::Object(out)
}

fn refused(entry: &Refused) -> Value {
    object(vec![
        ("last_update_attempt", timestamp(entry.at)),
        ("details", entry.details.as_str().into()),
        ("version_info", entry.version.as_str().into()),
    ])
}

fn sections(proxy: &Proxy, names: Option<&Regex>, eds: bool) -> Vec<Section> {
    let wanted = |name: &str| names.is_none_or(|names| names.is_match(name));
    let started = proxy.shared.started_at;
    let mut bootstrap = Section::new("BootstrapConfigDump", &["bootstrap", "last_updated"]);
    bootstrap.set(
        "bootstrap",
        xds::json::to_value_by_type_url(Bootstrap::FULL_NAME, proxy.bootstrap.bytes())
            .unwrap_or_default(),
    );
    bootstrap.set("last_updated", timestamp(started));

    let mut clusters = Section::new(
        "ClustersConfigDump",
        &[
            "version_info",
            "static_clusters",
            "dynamic_active_clusters",
            "dynamic_warming_clusters",
        ],
    );
    let mut endpoints = Section::new(
        "EndpointsConfigDump",
        &["static_endpoint_configs", "dynamic_endpoint_configs"],
    );
    let mut listeners = Section::new(
        "ListenersConfigDump",
        &["version_info", "static_listeners", "dynamic_listeners"],
    );
    let mut routes = Section::new(
        "RoutesConfigDump",
        &["static_route_configs", "dynamic_route_configs"],
    );
    proxy.manager.with_state(|state| {
        let (mut fixed, mut active, mut warming) = (Vec::new(), Vec::new(), Vec::new());
        for (name, cluster) in state.clusters.iter().filter(|(name, _)| wanted(name)) {
            let entry = object(vec![
                ("version_info", cluster.version.as_str().into()),
                ("cluster", kept(&cluster.message)),
                ("last_updated", timestamp(cluster.updated)),
            ]);
            if state.static_clusters.contains(name) {
                fixed.push(entry)
            } else {
                active.push(entry)
            }
        }
        for (_, cluster) in state
            .warming_clusters
            .iter()
            .filter(|(name, _)| wanted(name))
        {
            warming.push(object(vec![
                ("version_info", cluster.version.as_str().into()),
                ("cluster", kept(&cluster.message)),
                ("last_updated", timestamp(cluster.updated)),
            ]));
        }
        for (name, entry) in state
            .refused_clusters
            .iter()
            .filter(|(name, _)| wanted(name))
        {
            warming.push(object(vec![
                (
                    "cluster",
                    json!({"@type": xds::type_url::CLUSTER, "name": name}),
                ),
                ("error_state", refused(entry)),
            ]));
        }
        let version = |url: &str| state.versions.get(url).cloned().unwrap_or_default();
        clusters.set("version_info", version(xds::type_url::CLUSTER).into());
        clusters.set("static_clusters", fixed.into());
        clusters.set("dynamic_active_clusters", active.into());
        clusters.set("dynamic_warming_clusters", warming.into());

        if eds {
            let fixed: Vec<Value> = state
                .clusters
                .iter()
                .filter(|(name, _)| wanted(name))
                .filter_map(|(_, cluster)| {
                    let assignment = cluster.message.read().load_assignment?;
                    Some(object(vec![
                        ("endpoint_config", typed(&assignment)),
                        ("last_updated", timestamp(cluster.updated)),
                    ]))
                })
                .collect();
            let dynamic: Vec<Value> = state
                .endpoints
                .iter()
                .filter(|(name, _)| wanted(name))
                .map(|(_, entry)| {
                    object(vec![
                        ("version_info", entry.version.as_str().into()),
                        ("endpoint_config", kept(&entry.message)),
                        ("last_updated", timestamp(entry.updated)),
                    ])
                })
                .collect();
            endpoints.set("static_endpoint_configs", fixed.into());
            endpoints.set("dynamic_endpoint_configs", dynamic.into());
        }

        let (mut fixed, mut dynamic) = (Vec::new(), Vec::new());
        let mut inline = Vec::new();
        for (name, listener) in state.listeners.iter().filter(|(name, _)| wanted(name)) {
            let messages = listener.inline_route_messages();
            for (message, routes) in messages.iter().zip(listener.inline_routes()) {
                inline.push(object(vec![
                    ("route_config", typed(message)),
                    ("last_updated", timestamp(routes.updated)),
                ]));
            }
            let message = kept(&listener.message);
            if listener.fixed {
                fixed.push(object(vec![
                    ("listener", message),
                    ("last_updated", timestamp(listener.updated)),
                ]));
                continue;
            }
            let active = object(vec![
                ("version_info", listener.version.as_str().into()),
                ("listener", message),
                ("last_updated", timestamp(listener.updated)),
            ]);
            dynamic.push(object(vec![
                ("name", name.as_str().into()),
                ("active_state", active),
                (
                    "error_state",
                    state
                        .refused_listeners
                        .get(name)
                        .map_or(Value::Null, refused),
                ),
            ]));
        }
        for (name, listener) in state
            .warming_listeners
            .iter()
            .filter(|(name, _)| wanted(name))
        {
            let warming = object(vec![
                ("version_info", listener.version.as_str().into()),
                ("listener", kept(&listener.message)),
                ("last_updated", timestamp(listener.updated)),
            ]);
            dynamic.push(object(vec![
                ("name", name.as_str().into()),
                ("warming_state", warming),
            ]));
        }
        for (name, entry) in &state.refused_listeners {
            if wanted(name) && !state.listeners.contains_key(name) {
                dynamic.push(object(vec![
                    ("name", name.as_str().into()),
                    ("error_state", refused(entry)),
                ]));
            }
        }
        listeners.set("version_info", version(xds::type_url::LISTENER).into());
        listeners.set("static_listeners", fixed.into());
        listeners.set("dynamic_listeners", dynamic.into());

        let dynamic: Vec<Value> = state
            .routes
            .iter()
            .filter(|(name, _)| wanted(name))
            .map(|(_, routes)| {
                object(vec![
                    ("version_info", routes.version.as_str().into()),
                    (
                        "route_config",
                        routes.message.as_ref().map_or(Value::Null, kept),
                    ),
                    ("last_updated", timestamp(routes.updated)),
                ])
            })
            .collect();
        routes.set("static_route_configs", inline.into());
        routes.set("dynamic_route_configs", dynamic.into());
    });

    let mut secrets = Section::new(
        "SecretsConfigDump",
        &[
            "static_secrets",
            "dynamic_active_secrets",
            "dynamic_warming_secrets",
        ],
    );
    let active: Vec<Value> = proxy
        .shared
        .secrets
        .all()
        .iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, entry)| {
            object(vec![
                ("name", name.as_str().into()),
                ("version_info", entry.version.as_str().into()),
                ("last_updated", timestamp(entry.updated)),
                ("secret", redacted(entry)),
            ])
        })
        .collect();
    secrets.set("dynamic_active_secrets", active.into());

    let mut all = vec![bootstrap, clusters];
    if eds {
        all.push(endpoints);
    }
    all.extend([listeners, routes, secrets]);
    all
}

/// A secret without its private key.
fn redacted(entry: &Entry) -> Value {
    let mut value = typed(&entry.message);
    if let Some(key) = value.pointer_mut("/tls_certificate/private_key") {
        // "[redacted]", as bytes are written.
        *key = json!({"inline_bytes": "W3JlZGFjdGVkXQ=="});
    }
    value
}

/// `GET /config_dump`
pub fn answer(proxy: &Proxy, request: &Request) -> Answer {
    let names = match request.param("name_regex").map(dataplane::re2::compile) {
        Some(Ok(names)) => Some(names),
        Some(Err(error)) => {
            return Answer::text(
                StatusCode::BAD_REQUEST,
                format!("Error while parsing name_regex from {error}\n"),
            );
        }
        None => None,
    };
    let eds = request
        .query
        .iter()
        .any(|(name, value)| name == "include_eds" && value != "false");
    let mask: Option<Vec<&str>> = request.param("mask").map(|mask| mask.split(',').collect());
    let mut configs = Vec::new();
    let mut found = false;
    for section in sections(proxy, names.as_ref(), eds) {
        if let Some(resource) = request.param("resource") {
            if !section.known.contains(&resource) {
                continue;
            }
            found = true;
            let kind = element(section.kind, resource);
            if let Some(Value::Array(entries)) = section.fields.get(resource) {
                for entry in entries {
                    let mut out = Map::new();
                    out.insert("@type".into(), format!("{PREFIX}{kind}").into());
                    if let Value::Object(fields) = entry {
                        for (name, value) in fields {
                            let kept = mask.as_ref().is_none_or(|mask| {
                                mask.iter().any(|path| path.split('.').next() == Some(name))
                            });
                            if kept {
                                out.insert(name.clone(), value.clone());
                            }
                        }
                    }
                    configs.push(Value::Object(out));
                }
            }
            continue;
        }
        match &mask {
            None => configs.push(section.finish()),
            Some(mask) => {
                // A mask that has nothing to do with a section leaves it out.
                let fields: Vec<&str> = mask
                    .iter()
                    .filter_map(|path| path.split('.').next())
                    .filter(|name| section.known.contains(name))
                    .collect();
                if fields.is_empty() {
                    continue;
                }
                let mut section = section;
                section
                    .fields
                    .retain(|name, _| fields.contains(&name.as_str()));
                configs.push(section.finish());
            }
        }
    }
    if let Some(resource) = request.param("resource")
        && !found
    {
        return Answer::text(
            StatusCode::NOT_FOUND,
            format!("{resource} not found in config dump"),
        );
    }
    Answer::json(&json!({ "configs": configs }))
}

/// The message type of the entries of a repeated field.
fn element(section: &str, field: &str) -> String {
    let inner = match field {
        "static_clusters" => "StaticCluster",
        "dynamic_active_clusters" | "dynamic_warming_clusters" => "DynamicCluster",
        "static_listeners" => "StaticListener",
        "dynamic_listeners" => "DynamicListener",
        "static_route_configs" => "StaticRouteConfig",
        "dynamic_route_configs" => "DynamicRouteConfig",
        "static_endpoint_configs" => "StaticEndpointConfig",
        "dynamic_endpoint_configs" => "DynamicEndpointConfig",
        "static_secrets" => "StaticSecret",
        "dynamic_active_secrets" | "dynamic_warming_secrets" => "DynamicSecret",
        other => other,
    };
    format!("{section}.{inner}")
}

/// `GET /certs`
pub fn certificates(proxy: &Proxy) -> Value {
    let now = SystemTime::now();
    let details = |pem: &str| -> Vec<Value> {
        pki::pem::certificates(pem, "certificate")
            .unwrap_or_default()
            .iter()
            .filter_map(|der| pki::peer_identity(der).ok())
            .map(|identity| {
                let mut names: Vec<Value> = identity
                    .dns
                    .iter()
                    .map(|name| json!({ "dns": name }))
                    .collect();
                names.extend(identity.uris.iter().map(|name| json!({ "uri": name })));
                names.extend(
                    identity
                        .ips
                        .iter()
                        .map(|ip| json!({"ip_address": ip.to_string()})),
                );
                let days = identity
                    .not_after
                    .duration_since(now)
                    .map_or(0, |left| left.as_secs() / 86_400);
                json!({
                    "path": "<inline>",
                    "serial_number": identity.serial,
                    "subject_alt_names": names,
                    "days_until_expiration": days.to_string(),
                    "valid_from": timestamp(identity.not_before),
                    "expiration_time": timestamp(identity.not_after),
                })
            })
            .collect()
    };
    let mut chain = Vec::new();
    let mut roots = Vec::new();
    for (_, entry) in proxy.shared.secrets.all() {
        match &entry.value {
            SecretValue::Identity(identity) => chain.extend(details(&identity.chain_pem)),
            SecretValue::Trust(trust) => roots.extend(details(&trust.pem)),
            SecretValue::Other => {}
        }
    }
    if chain.is_empty() && roots.is_empty() {
        return json!({});
    }
    json!({"certificates": [{"ca_cert": roots, "cert_chain": chain}]})
}
