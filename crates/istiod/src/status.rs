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

/// Pages for people, by name.
const PAGES: &str = "istio.io/debug";
const PREFIX: &str = "istio.io/debug/";
const SYNCZ: &str = "istio.io/debug/syncz";
const CONFIG_DUMP: &str = "istio.io/debug/config_dump";
/// Callers of this namespace see all proxies, others those of their own.
const ROOT_NAMESPACE: &str = "istio-system";
const ADMIN: &str = "type.googleapis.com/envoy.admin.v3.";

/// Whether a type is such a question.
pub fn is_status(type_url: &str) -> bool {
    type_url == PAGES || type_url.starts_with(PREFIX)
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
        (PAGES, [page]) => {
            let visible: Vec<&ConnectionStatus> = visible.collect();
            let value = self::page(page, reader, &visible, world).into_bytes();
            let type_url = PAGES.to_owned();
            vec![(page.clone(), Any { type_url, value })]
        }
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

/// A page about this control plane, by what stands behind `/debug/` in its address.
fn page<W: World>(page: &str, reader: &str, visible: &[&ConnectionStatus], world: &W) -> String {
    let (name, query) = page.split_once('?').unwrap_or((page, ""));
    if reader != ROOT_NAMESPACE && name != "config_dump" {
        return "the debug info is not available for current identity\n".to_owned();
    }
    match name {
        "list" => json!(["config_dump", "connections", "syncz"]).to_string(),
        "connections" => connections(visible).to_string(),
        "syncz" => {
            Value::from_iter(visible.iter().map(|connection| sync_status(connection))).to_string()
        }
        "config_dump" => {
            let asked = query
                .split('&')
                .find_map(|pair| pair.strip_prefix("proxyID="));
            let Some(asked) = asked.filter(|asked| !asked.is_empty()) else {
                return "You must provide a proxyID in the query string\n".to_owned();
            };
            let mut all = visible.iter();
            let Some(connection) = all.find(|connection| short_id(connection) == asked) else {
                return "Proxy not connected to this Pilot instance. It may be connected to another instance.\n"
                    .to_owned();
            };
            let (_, generated) = world.generate(&connection.proxy);
            let configs = sections(&generated, &world.version().to_string());
            json!({"configs": configs}).to_string()
        }
        _ => "404 page not found\n".to_owned(),
    }
}

/// The proxies that are connected.
pub fn connections(connections: &[&ConnectionStatus]) -> Value {
    let clients: Vec<Value> = connections
        .iter()
        .map(|connection| json!({"connectionId": connection.node}))
        .collect();
    json!({"totalClients": clients.len(), "clients": clients})
}

/// How far a proxy is, as older tools read it.
pub fn sync_status(connection: &ConnectionStatus) -> Value {
    let mut status = json!({
        "cluster_id": connection.cluster,
        "proxy": short_id(connection),
        "proxy_type": if connection.proxy.is_router() { "router" } else { "sidecar" },
        "istio_version": connection.version,
    });
    for of_type in &connection.types {
        let name = match of_type.type_url.as_str() {
            type_url::CLUSTER => "cluster",
            type_url::ENDPOINT => "endpoint",
            type_url::LISTENER => "listener",
            type_url::ROUTE => "route",
            _ => continue,
        };
        status[format!("{name}_sent")] = of_type.sent.clone().into();
        status[format!("{name}_acked")] = of_type.acked.clone().into();
    }
    status
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

    #[test]
    fn pages_are_asked_for_by_name() {
        let connections = [connection("shop")];
        let page = |name: &str, reader: &str| {
            let seen = answer(PAGES, &[name.to_owned()], reader, &connections, &One);
            String::from_utf8(seen[0].1.value.clone()).unwrap()
        };
        let json =
            |name: &str| -> Value { serde_json::from_str(&page(name, ROOT_NAMESPACE)).unwrap() };
        assert_eq!(json("syncz")[0]["proxy"], "a.shop");
        assert_eq!(json("connections")["totalClients"], 1);
        let dump = json("config_dump?proxyID=a.shop");
        assert_eq!(dump["configs"].as_array().unwrap().len(), 5);
        for (name, reader, want) in [
            (
                "config_dump",
                ROOT_NAMESPACE,
                "You must provide a proxyID in the query string\n",
            ),
            (
                "config_dump?proxyID=a.bank",
                "shop",
                "Proxy not connected to this Pilot instance.",
            ),
            ("nothing", ROOT_NAMESPACE, "404 page not found\n"),
            ("syncz", "shop", "the debug info is not available"),
        ] {
            let got = page(name, reader);
            assert!(got.starts_with(want), "{name}: {got}");
        }
    }
}
