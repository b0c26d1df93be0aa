//! What tools ask a control plane about its proxies over xDS (`istioctl proxy-status`): how far each is, and what one
//! of them should have. Pure.

use std::time::SystemTime;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use xds::prost_types::Any;
use xds::type_url;

use crate::ads::session::{Generated, TypeStatus, World};
use crate::ads::stream::ConnectionStatus;

const PREFIX: &str = "istio.io/debug/";
const SYNCZ: &str = "istio.io/debug/syncz";
const CONFIG_DUMP: &str = "istio.io/debug/config_dump";
/// Callers of this namespace see all proxies, others those of their own.
const ROOT_NAMESPACE: &str = "istio-system";
const ADMIN: &str = "type.googleapis.com/envoy.admin.v3.";

/// Whether a type is such a question.
pub fn is_status(type_url: &str) -> bool {
    type_url.starts_with(PREFIX)
}

/// The answer for a caller of the namespace `reader`; nothing where there is nothing or it is not the caller's.
pub fn answer<W: World>(
    type_url: &str,
    names: &[String],
    reader: &str,
    connections: &[ConnectionStatus],
    world: &W,
) -> Vec<(String, Any)> {
    let mut visible = connections
        .iter()
        .filter(|connection| reader == ROOT_NAMESPACE || connection.proxy.namespace == reader);
    match (type_url, names) {
        (SYNCZ, _) => visible
            .filter_map(|connection| {
                let any = xds::json::any_from_value(&client_config(connection), true);
                Some((short_id(connection).to_owned(), any.ok()?))
            })
            .collect(),
        (CONFIG_DUMP, [proxy]) => {
            let Some(connection) = visible.find(|connection| short_id(connection) == proxy) else {
                return Vec::new();
            };
            let (_, generated) = world.generate(&connection.proxy);
            sections(&generated, &world.version().to_string())
                .into_iter()
                .filter_map(|section| {
                    Some((
                        String::new(),
                        xds::json::any_from_value(&section, true).ok()?,
                    ))
                })
                .collect()
        }
        _ => Vec::new(),
    }
}

/// `POD.NAMESPACE`, as the node id has it.
fn short_id(connection: &ConnectionStatus) -> &str {
    connection.node.split('~').nth(2).unwrap_or_default()
}

fn client_config(connection: &ConnectionStatus) -> Value {
    let mut types: Vec<&TypeStatus> = connection.types.iter().collect();
    types.sort_by(|a, b| a.type_url.cmp(&b.type_url));
    let configs: Vec<Value> = types
        .into_iter()
        .map(|of| {
            let at = timestamp(connection.sent_at.get(&of.type_url).copied());
            let mut config = json!({
                "type_url": of.type_url,
                "config_status": config_status(of),
                "last_updated": at,
            });
            if let Some(reason) = &of.refused {
                config["error_state"] = json!({"last_update_attempt": at, "details": reason});
            }
            config
        })
        .collect();
    json!({
        "@type": "type.googleapis.com/envoy.service.status.v3.ClientConfig",
        "node": {
            "id": short_id(connection),
            "metadata": {
                "CLUSTER_ID": connection.cluster,
                "NAMESPACE": connection.proxy.namespace,
                "ISTIO_VERSION": connection.version,
            },
        },
        "generic_xds_configs": configs,
    })
}

fn config_status(of: &TypeStatus) -> &'static str {
    if of.refused.is_some() {
        "ERROR"
    } else if of.sent.is_empty() {
        "NOT_SENT"
    } else if of.acked == of.sent {
        "SYNCED"
    } else {
        "STALE"
    }
}

fn timestamp(at: Option<SystemTime>) -> String {
    let at = OffsetDateTime::from(at.unwrap_or(SystemTime::UNIX_EPOCH));
    at.format(&Rfc3339).unwrap_or_default()
}

/// A proxy's configuration as the sections of Envoy's `/config_dump`, as far as the control plane knows them.
pub fn sections(generated: &Generated, version: &str) -> Vec<Value> {
    let entries = |url: &str, field: &str| -> Vec<Value> {
        let resources = generated.get(url).into_iter().flatten();
        resources
            .map(|(_, any)| {
                let mut entry = Map::new();
                if !version.is_empty() {
                    entry.insert("version_info".to_owned(), version.into());
                }
                entry.insert(
                    field.to_owned(),
                    xds::json::any_to_value(any).unwrap_or_default(),
                );
                Value::Object(entry)
            })
            .collect()
    };
    let section = |kind: &str, field: &str, entries: Vec<Value>| json!({"@type": format!("{ADMIN}{kind}ConfigDump"), field: entries});
    let listeners = entries(type_url::LISTENER, "listener")
        .into_iter()
        .map(|state| json!({"name": state["listener"]["name"], "active_state": state}))
        .collect();
    vec![
        section(
            "Clusters",
            "dynamic_active_clusters",
            entries(type_url::CLUSTER, "cluster"),
        ),
        section(
            "Endpoints",
            "dynamic_endpoint_configs",
            entries(type_url::ENDPOINT, "endpoint_config"),
        ),
        section("Listeners", "dynamic_listeners", listeners),
        section(
            "Routes",
            "dynamic_route_configs",
            entries(type_url::ROUTE, "route_config"),
        ),
        section(
            "Ecds",
            "ecds_filters",
            entries(type_url::EXTENSION_CONFIG, "ecds_filter"),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ads::session::Changes;
    use crate::ads::subscription::Resources;
    use std::collections::BTreeMap;
    use translate::{Locality, ProxyInfo};
    use xds::envoy::config::cluster::v3::Cluster;

    struct One;

    impl World for One {
        fn version(&self) -> u64 {
            7
        }
        type Built = ();
        fn update(&self, _: &ProxyInfo, (): &mut (), _: &mut Generated) -> Changes {
            Changes::Only(BTreeMap::new())
        }
        fn generate(&self, _: &ProxyInfo) -> ((), Generated) {
            let cluster = Cluster {
                name: "c".into(),
                ..Cluster::default()
            };
            let resources = Resources::from([("c".to_owned(), xds::any::pack(&cluster))]);
            ((), Generated::from([(type_url::CLUSTER, resources)]))
        }
        fn secret(&self, _: &ProxyInfo, _: &str) -> Option<Any> {
            None
        }
    }

    fn connection(namespace: &str) -> ConnectionStatus {
        let node = format!("sidecar~10.0.0.1~a.{namespace}~{namespace}.svc.cluster.local");
        let of = |type_url: &str, acked: &str, refused: Option<&str>| TypeStatus {
            type_url: type_url.into(),
            sent: "1".into(),
            acked: acked.into(),
            refused: refused.map(Into::into),
        };
        ConnectionStatus {
            proxy: ProxyInfo::from_node(&node, &json!({}), Locality::default())
                .unwrap()
                .into(),
            node,
            cluster: "ctx1".into(),
            version: "1.31.0".into(),
            types: vec![
                of(type_url::CLUSTER, "1", None),
                of(type_url::ROUTE, "0", None),
                of(type_url::LISTENER, "0", Some("bad port")),
            ],
            sent_at: BTreeMap::new(),
        }
    }

    fn statuses(resource: &Any) -> Vec<(String, String)> {
        let value = xds::json::any_to_value(resource).unwrap();
        value["generic_xds_configs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|config| {
                let text = |key: &str| config[key].as_str().unwrap_or_default().to_owned();
                (
                    type_url::short_name(&text("type_url")).to_owned(),
                    text("config_status"),
                )
            })
            .collect()
    }

    #[test]
    fn proxies_are_synced_stale_or_in_error() {
        let connections = [connection("shop")];
        let seen = answer(SYNCZ, &[], ROOT_NAMESPACE, &connections, &One);
        assert_eq!(seen[0].0, "a.shop");
        let of = |kind: &str, status: &str| (kind.to_owned(), status.to_owned());
        assert_eq!(
            statuses(&seen[0].1),
            [of("cds", "SYNCED"), of("lds", "ERROR"), of("rds", "STALE")]
        );
    }

    #[test]
    fn other_namespaces_see_their_own_proxies_only() {
        let connections = [connection("shop"), connection("bank")];
        let seen = |reader: &str| answer(SYNCZ, &[], reader, &connections, &One).len();
        assert_eq!(
            (seen(ROOT_NAMESPACE), seen("shop"), seen("other")),
            (2, 1, 0)
        );
        let dump = |reader: &str| {
            answer(
                CONFIG_DUMP,
                &["a.shop".to_owned()],
                reader,
                &connections,
                &One,
            )
            .len()
        };
        assert_eq!((dump("shop"), dump("bank")), (5, 0));
    }
}
