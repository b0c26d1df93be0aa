//! Reading and writing messages, beside prost-reflect, which does the same from the descriptors.

use serde_json::{Value, json};
use xds::Wire;
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::core::v3::{Metadata, Node};
use xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds::envoy::config::listener::v3::Listener;
use xds::envoy::config::route::v3::RouteConfiguration;
use xds::envoy::extensions::filters::http::fault::v3::HttpFault;
use xds::envoy::r#type::v3::{Int64Range, Percent};
use xds::prost_reflect::{DynamicMessage, ReflectMessage as _, Value as Field};
use xds::prost_types::value::Kind;
use xds::prost_types::{Any, Struct};

/// What the descriptors make of these bytes: the fields that are known, in the order of their numbers and keys.
fn by_descriptor<M: Wire>(bytes: &[u8]) -> Option<Vec<u8>> {
    let descriptor = xds::json::descriptor(M::FULL_NAME).expect("a descriptor");
    let message = DynamicMessage::decode(descriptor, bytes).ok()?;
    Some(xds::json::encode(&known(message)))
}

fn known(mut message: DynamicMessage) -> DynamicMessage {
    let mut out = DynamicMessage::new(message.descriptor());
    for (field, value) in message.take_fields() {
        out.set_field(&field, known_value(value));
    }
    out
}

fn known_value(value: Field) -> Field {
    match value {
        Field::Message(inner) => Field::Message(known(inner)),
        Field::List(list) => Field::List(list.into_iter().map(known_value).collect()),
        Field::Map(map) => {
            let entries = map.into_iter();
            Field::Map(
                entries
                    .map(|(key, value)| (key, known_value(value)))
                    .collect(),
            )
        }
        plain => plain,
    }
}

/// Reads and writes again, and compares with the descriptors' reading of both.
fn same<M: Wire + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> bool {
    let expected = by_descriptor::<M>(bytes);
    let seen = M::from_wire(bytes);
    assert_eq!(
        seen.is_ok(),
        expected.is_some(),
        "{}: {bytes:?} is read as {seen:?}",
        M::FULL_NAME
    );
    let Ok(message) = seen else { return false };
    let written = message.to_wire();
    assert_eq!(
        by_descriptor::<M>(&written),
        expected,
        "{}: {bytes:?} is written as {written:?}",
        M::FULL_NAME
    );
    assert_eq!(M::from_wire(&written).as_ref(), Ok(&message), "{bytes:?}");
    true
}

/// A message of this JSON, as prost-reflect encodes it.
fn encoded<M: Wire>(value: &Value) -> Vec<u8> {
    let message = xds::json::dynamic_from_value(M::FULL_NAME, value, true).expect("good JSON");
    xds::json::encode(&message)
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// The recorded resource, whole and with bytes changed, removed, doubled and cut off.
fn recorded<M: Wire + PartialEq + std::fmt::Debug>(text: &str) {
    let value: Value = serde_json::from_str(text).expect("JSON");
    let good = encoded::<M>(&value);
    assert!(same::<M>(&good));
    let (mut random, mut read) = (Random(0x5eed), 0);
    for _ in 0..3000 {
        let mut bytes = good.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] = random.below(256) as u8,
                1 if bytes.len() > 1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, bytes[at]),
                3 => bytes.truncate(at.max(1)),
                _ => bytes[at] ^= 1 << random.below(8),
            }
        }
        read += usize::from(same::<M>(&bytes));
    }
    assert!(
        read > 100,
        "only {read} of the changed messages were messages"
    );
}

#[test]
fn clusters_are_read_and_written_as_by_their_descriptor() {
    recorded::<Cluster>(include_str!("resources/cluster.json"));
}

#[test]
fn endpoints_are_read_and_written_as_by_their_descriptor() {
    recorded::<ClusterLoadAssignment>(include_str!("resources/endpoint.json"));
}

#[test]
fn listeners_are_read_and_written_as_by_their_descriptor() {
    recorded::<Listener>(include_str!("resources/listener.json"));
}

#[test]
fn routes_are_read_and_written_as_by_their_descriptor() {
    recorded::<RouteConfiguration>(include_str!("resources/route.json"));
}

#[test]
fn numbers_keep_their_sign_and_fractions() {
    let range = Int64Range {
        start: -1,
        end: i64::MAX,
    };
    assert!(same::<Int64Range>(&range.to_wire()));
    assert_eq!(Int64Range::from_wire(&range.to_wire()), Ok(range));
    let percent = Percent { value: 0.1 };
    assert_eq!(Percent::from_wire(&percent.to_wire()), Ok(percent));
    assert!(Percent::default().to_wire().is_empty());
}

#[test]
fn messages_of_every_length_have_their_length() {
    for length in [
        0, 1, 126, 127, 128, 129, 16_382, 16_383, 16_384, 70_000, 2_097_160,
    ] {
        let node = Node {
            id: "n".repeat(length),
            user_agent_name: "proxy".into(),
            ..Node::default()
        };
        let assigned = xds::envoy::service::discovery::v3::DiscoveryRequest {
            node: Some(node),
            version_info: "1".into(),
            ..Default::default()
        };
        let bytes = assigned.to_wire();
        assert_eq!(
            xds::envoy::service::discovery::v3::DiscoveryRequest::from_wire(&bytes),
            Ok(assigned),
            "{length}"
        );
    }
}

#[test]
fn maps_and_structs_are_whole() {
    let value = json!({"filter_metadata": {
        "a": {"text": "t", "no": null, "yes": true, "number": -0.5, "list": [1, "x", {"deep": []}], "empty": {}},
        "empty": {},
    }});
    let bytes = encoded::<Metadata>(&value);
    assert!(same::<Metadata>(&bytes));
    let metadata = Metadata::from_wire(&bytes).expect("metadata");
    assert_eq!(metadata.filter_metadata.len(), 2);
    let text = &metadata.filter_metadata["a"].fields["text"];
    assert_eq!(text.kind, Some(Kind::StringValue("t".into())));
    // Of a key that comes twice, the last value counts.
    let twice = [Struct::default().to_wire(), bytes.clone(), bytes].concat();
    assert!(same::<Metadata>(&twice));
}

#[test]
fn of_a_oneof_the_last_field_counts_and_messages_are_merged() {
    let fixed = encoded::<HttpFault>(&json!({"delay": {"fixed_delay": "1s"}}));
    let header = encoded::<HttpFault>(&json!({"delay": {"header_delay": {}}}));
    let percent = encoded::<HttpFault>(&json!({"delay": {"percentage": {"numerator": 5}}}));
    for order in [[&fixed, &header, &percent], [&header, &percent, &fixed]] {
        let bytes = order.into_iter().flatten().copied().collect::<Vec<u8>>();
        assert!(same::<HttpFault>(&bytes));
    }
}

#[test]
fn what_is_no_message_is_refused_with_its_place() {
    let wrong = |bytes: &[u8]| Cluster::from_wire(bytes).expect_err("refused").to_string();
    let of = "failed to decode Protobuf message: envoy.config.cluster.v3.Cluster: ";
    assert_eq!(
        wrong(&[0x0a, 1, 0xff]),
        format!("{of}field 1: invalid string value: data is not UTF-8 encoded")
    );
    assert_eq!(
        wrong(&[0x0a, 5, b'a']),
        format!("{of}field 1: buffer underflow")
    );
    assert_eq!(
        wrong(&[0x08, 1]),
        format!("{of}field 1: invalid wire type: 0 (expected 2)")
    );
    assert_eq!(wrong(&[0x00]), format!("{of}invalid tag value: 0"));
    assert_eq!(wrong(&[0xff; 11]), format!("{of}invalid varint"));
    // A group of an unknown field is passed over, unless it does not end.
    assert!(same::<Cluster>(&[0xa3, 0x3e, 0x08, 1, 0xa4, 0x3e]));
    assert!(!same::<Cluster>(&[0xa3, 0x3e, 0x08, 1]));
}

#[test]
fn messages_may_be_so_deep_and_no_deeper() {
    let nested = |depth: usize| {
        let mut value = xds::prost_types::Value {
            kind: Some(Kind::BoolValue(true)),
        };
        for _ in 0..depth {
            value = xds::prost_types::Value {
                kind: Some(Kind::ListValue(xds::prost_types::ListValue {
                    values: vec![value],
                })),
            };
        }
        value.to_wire()
    };
    assert!(xds::prost_types::Value::from_wire(&nested(40)).is_ok());
    let error = xds::prost_types::Value::from_wire(&nested(60)).expect_err("too deep");
    assert!(
        error.to_string().ends_with("recursion limit reached"),
        "{error}"
    );
}

#[test]
fn the_any_of_a_message_is_recognised_by_its_name() {
    let any = xds::any::pack(&Percent { value: 5.0 });
    assert_eq!(any.type_url, "type.googleapis.com/envoy.type.v3.Percent");
    assert!(same::<Any>(&any.to_wire()));
    assert_eq!(
        xds::any::unpack::<Percent>(&any),
        Ok(Some(Percent { value: 5.0 }))
    );
    assert_eq!(xds::any::unpack::<Cluster>(&any), Ok(None));
}

#[test]
fn a_message_inside_of_another_has_both_names() {
    use xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::Tracing;
    assert!(Tracing::FULL_NAME.ends_with(".v3.HttpConnectionManager.Tracing"));
    assert!(xds::json::descriptor(Tracing::FULL_NAME).is_ok());
}
