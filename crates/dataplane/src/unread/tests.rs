//! The table is what the list says, and the walk finds what is in it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::json;
use xds::envoy::config::cluster::v3::Cluster;
use xds::prost_reflect::{Kind, MessageDescriptor};

use super::not_read::{IGNORED, NOT_READ};
use super::unread;

/// Where the walk begins; everything else is found from there or inside of an `Any`.
const ROOTS: [&str; 4] = [
    "envoy.config.cluster.v3.Cluster",
    "envoy.config.listener.v3.Listener",
    "envoy.config.route.v3.RouteConfiguration",
    "envoy.extensions.transport_sockets.tls.v3.Secret",
];

/// Number, name and what is to be done, by message.
type Table = BTreeMap<String, Vec<(u32, String, String)>>;

fn is_wrapper(name: &str) -> bool {
    name.strip_prefix("google.protobuf.")
        .is_some_and(|name| name.ends_with("Value") && name != "Value" && name != "ListValue")
}

/// What is to be done with fields, by the names of message and field.
type Lists = BTreeMap<(&'static str, &'static str), &'static str>;

fn add(message: &MessageDescriptor, lists: &Lists, table: &mut Table) {
    if table.contains_key(message.full_name()) {
        return;
    }
    table.insert(message.full_name().to_owned(), Vec::new());
    let mut fields = Vec::new();
    for field in message.fields() {
        let inner = match field.kind() {
            Kind::Message(inner) => Some(inner),
            _ => None,
        };
        let what = if let Some(what) = lists.get(&(message.full_name(), field.name())) {
            match inner {
                Some(inner) if is_wrapper(inner.full_name()) => format!("{what}?"),
                _ => (*what).to_owned(),
            }
        } else {
            match inner {
                Some(inner) if inner.full_name() == "google.protobuf.Any" => "any".to_owned(),
                Some(inner) if !inner.full_name().starts_with("google.") => {
                    add(&inner, lists, table);
                    inner.full_name().to_owned()
                }
                _ => continue,
            }
        };
        fields.push((field.number(), field.name().to_owned(), what));
    }
    fields.sort_unstable();
    table.insert(message.full_name().to_owned(), fields);
}

/// The text of `fields.txt`: only messages in which something can be found.
fn text() -> String {
    let mut lists = Lists::new();
    for (list, what) in [(NOT_READ, "refuse"), (IGNORED, "ignore")] {
        for (message, fields) in list {
            lists.extend(
                fields
                    .split_whitespace()
                    .map(|field| ((*message, field), what)),
            );
        }
    }
    let mut table = Table::new();
    for name in ROOTS.iter().chain(lists.keys().map(|(message, _)| message)) {
        let message = xds::json::descriptor(name).unwrap_or_else(|error| panic!("{error}"));
        add(&message, &lists, &mut table);
    }
    loop {
        let count = |table: &Table| table.values().map(Vec::len).sum::<usize>();
        let before = count(&table);
        let fruitful: Vec<String> = table
            .iter()
            .filter(|(_, fields)| !fields.is_empty())
            .map(|(name, _)| name.clone())
            .collect();
        for fields in table.values_mut() {
            fields.retain(|(_, _, what)| !what.contains('.') || fruitful.contains(what));
        }
        if before == count(&table) {
            break;
        }
    }
    let mut text = String::new();
    for (name, fields) in table.iter().filter(|(_, fields)| !fields.is_empty()) {
        writeln!(text, "{name}").unwrap();
        for (number, field, what) in fields {
            writeln!(text, " {number} {field} {what}").unwrap();
        }
    }
    text
}

#[test]
fn the_table_is_what_the_list_says() {
    let made = text();
    if std::env::var_os("UNREAD_WRITE").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/unread/fields.txt");
        std::fs::write(path, &made).unwrap();
    } else {
        assert!(
            made == include_str!("fields.txt"),
            "fields.txt is out of date: run this test with UNREAD_WRITE=1"
        );
    }
}

#[test]
fn every_field_of_the_list_exists() {
    for (name, fields) in NOT_READ.iter().chain(IGNORED) {
        let message = xds::json::descriptor(name).unwrap_or_else(|error| panic!("{error}"));
        for field in fields.split_whitespace() {
            assert!(
                message.get_field_by_name(field).is_some(),
                "{name} has no field {field}"
            );
        }
    }
}

#[test]
fn what_nobody_reads_is_named_also_inside_of_other_messages() {
    let cluster: Cluster = xds::json::from_value(
        json!({
            "name": "c",
            "health_checks": [{"timeout": "1s"}],
            "common_lb_config": {"close_connections_on_host_set_change": true},
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {"allow_metadata": true}}}},
            "upstream_bind_config": {"source_address": {"address": "127.0.0.1", "port_value": 0}, "freebind": false},
        }),
        true,
    )
    .expect("a valid message");
    let found: Vec<String> = unread(&cluster)
        .into_iter()
        .map(|error| error.field)
        .collect();
    assert_eq!(
        found,
        [
            "common_lb_config.close_connections_on_host_set_change",
            "health_checks",
            "typed_extension_protocol_options.value.explicit_http_config.http2_protocol_options.allow_metadata",
        ],
        "a wrapped false is not set"
    );
}
