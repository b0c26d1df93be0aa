//! Short forms for protobuf messages that are needed everywhere.

use prost_types::{ListValue, Struct, Value, value::Kind};
use xds::envoy::config::core::v3 as core;
use xds::envoy::r#type::v3 as ty;
use xds::prost_types::{Any, Duration};

pub(crate) fn duration(value: api::istio::Duration) -> Duration {
    Duration {
        seconds: value.seconds(),
        nanos: value.subsec_nanos(),
    }
}

pub(crate) const fn seconds(seconds: i64) -> Duration {
    Duration { seconds, nanos: 0 }
}

/// An address and port; without a port for `unix://`.
pub(crate) fn address(host: &str, port: u32) -> core::Address {
    let address = match host.strip_prefix("unix://") {
        Some(path) => core::address::Address::Pipe(core::Pipe {
            path: path.to_owned(),
            mode: 0,
        }),
        None => core::address::Address::SocketAddress(socket(host, port)),
    };
    core::Address {
        address: Some(address),
    }
}

pub(crate) fn socket(host: &str, port: u32) -> core::SocketAddress {
    core::SocketAddress {
        address: host.to_owned(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port)),
        ..Default::default()
    }
}

pub(crate) fn text(value: impl Into<String>) -> Value {
    Value {
        kind: Some(Kind::StringValue(value.into())),
    }
}

pub(crate) fn boolean(value: bool) -> Value {
    Value {
        kind: Some(Kind::BoolValue(value)),
    }
}

pub(crate) fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value {
        kind: Some(Kind::StructValue(fields_of(fields))),
    }
}

pub(crate) fn list(values: Vec<Value>) -> Value {
    Value {
        kind: Some(Kind::ListValue(ListValue { values })),
    }
}

pub(crate) fn fields_of<const N: usize>(fields: [(&str, Value); N]) -> Struct {
    Struct {
        fields: fields
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
    }
}

/// JSON as a protobuf Struct.
pub(crate) fn json_struct(map: &serde_json::Map<String, serde_json::Value>) -> Struct {
    Struct {
        fields: map
            .iter()
            .map(|(key, value)| (key.clone(), json_value(value)))
            .collect(),
    }
}

fn json_value(value: &serde_json::Value) -> Value {
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(flag) => Kind::BoolValue(*flag),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        serde_json::Value::String(text) => Kind::StringValue(text.clone()),
        serde_json::Value::Array(items) => Kind::ListValue(ListValue {
            values: items.iter().map(json_value).collect(),
        }),
        serde_json::Value::Object(map) => Kind::StructValue(json_struct(map)),
    };
    Value { kind: Some(kind) }
}

/// Filter metadata with one entry.
pub(crate) fn metadata(filter: &str, fields: Struct) -> core::Metadata {
    core::Metadata {
        filter_metadata: [(filter.to_owned(), fields)].into(),
        ..Default::default()
    }
}

/// Metadata that names the object a resource was made from.
pub(crate) fn config_metadata(path: String) -> core::Metadata {
    metadata("istio", fields_of([("config", text(path))]))
}

/// A `TypedStruct`: a message by name, as JSON, for filters that only Istio's proxy has.
pub(crate) fn typed_struct(type_url: &str, value: Struct) -> Any {
    xds::any::pack(&xds::udpa::r#type::v1::TypedStruct {
        type_url: type_url.to_owned(),
        value: Some(value),
    })
}

pub(crate) fn percent(value: f64) -> ty::Percent {
    ty::Percent { value }
}

/// Percent as parts of a million, cut and not rounded.
pub(crate) fn millionths(percent: f64) -> ty::FractionalPercent {
    ty::FractionalPercent {
        numerator: (percent * 10_000.0) as u32,
        denominator: ty::fractional_percent::DenominatorType::Million as i32,
    }
}

/// Resources that come over the stream that this proxy already has.
pub(crate) fn ads() -> core::ConfigSource {
    core::ConfigSource {
        initial_fetch_timeout: Some(seconds(0)),
        resource_api_version: core::ApiVersion::V3 as i32,
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource {},
        )),
        ..Default::default()
    }
}

/// Secrets from the agent beside the proxy.
pub(crate) fn agent_sds() -> core::ConfigSource {
    let grpc = core::grpc_service::EnvoyGrpc {
        cluster_name: "sds-grpc".to_owned(),
        ..Default::default()
    };
    let source = core::ApiConfigSource {
        api_type: core::api_config_source::ApiType::Grpc as i32,
        transport_api_version: core::ApiVersion::V3 as i32,
        grpc_services: vec![core::GrpcService {
            target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(grpc)),
            ..Default::default()
        }],
        set_node_on_first_message_only: true,
        ..Default::default()
    };
    core::ConfigSource {
        initial_fetch_timeout: Some(seconds(0)),
        resource_api_version: core::ApiVersion::V3 as i32,
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::ApiConfigSource(
            source,
        )),
        ..Default::default()
    }
}

/// Secrets from istiod.
pub(crate) fn istiod_sds() -> core::ConfigSource {
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3 as i32,
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource {},
        )),
        ..Default::default()
    }
}

pub(crate) fn transport_socket(name: &str, config: Any) -> core::TransportSocket {
    core::TransportSocket {
        name: name.to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(config)),
    }
}
