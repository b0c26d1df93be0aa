//! Descriptors of rate limits: what a request is counted by, made from the `rate_limits` of its route.

use std::net::IpAddr;

use serde_json::Value;
use xds::envoy::config::route::v3::{
    RateLimit as Config,
    rate_limit::action::{ActionSpecifier, meta_data::Source},
};
use xds::envoy::r#type::metadata::v3::MetadataKey;

use crate::error::ConfigError;
use crate::matching::{HeaderKey, HeaderMatch, QueryMatch};
use crate::request::RequestHead;
use crate::stream::Metadata;

/// The entries of a descriptor: keys and values.
pub type Descriptor = Vec<(String, String)>;

/// One `rate_limits` entry, compiled: it makes at most one descriptor of a request.
#[derive(Debug, Clone)]
pub struct RateLimit {
    /// `stage`: filters ask only for the limits of their own stage.
    pub stage: u32,
    actions: Vec<Action>,
}

/// What descriptors are made of, beside the head.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The client.
    pub remote: IpAddr,
    /// The cluster the route chose.
    pub cluster: &'a str,
    /// The cluster this proxy belongs to (`--service-cluster`).
    pub source_cluster: &'a str,
    /// What filters left.
    pub metadata: &'a Metadata,
    /// The metadata of the route.
    pub route_metadata: &'a Metadata,
}

/// One action that makes an entry of a descriptor.
#[derive(Debug, Clone)]
enum Action {
    SourceCluster,
    DestinationCluster,
    Header {
        name: HeaderKey,
        key: String,
        skip: bool,
    },
    Query {
        name: String,
        key: String,
        skip: bool,
    },
    RemoteAddress,
    MaskedRemoteAddress {
        v4: u32,
        v6: u32,
    },
    Generic {
        key: String,
        value: String,
    },
    HeaderMatch {
        key: String,
        value: String,
        headers: Vec<HeaderMatch>,
        expect: bool,
    },
    QueryMatch {
        key: String,
        value: String,
        parameters: Vec<QueryMatch>,
        expect: bool,
    },
    Metadata {
        key: String,
        path: Vec<String>,
        default: String,
        of_route: bool,
        skip: bool,
    },
}

impl RateLimit {
    /// Compiles all entries of a list.
    ///
    /// # Errors
    /// The field that cannot be carried out.
    pub fn compile_all(configs: &[Config]) -> Result<Vec<Self>, ConfigError> {
        configs
            .iter()
            .enumerate()
            .map(|(index, config)| {
                Self::compile(config)
                    .map_err(|error| error.within(&format!("rate_limits[{index}]")))
            })
            .collect()
    }

    /// Compiles one entry.
    ///
    /// # Errors
    /// The field that cannot be carried out.
    pub fn compile(config: &Config) -> Result<Self, ConfigError> {
        if config.limit.is_some() {
            return Err(ConfigError::new("limit", "is not supported"));
        }
        if config.hits_addend.is_some() {
            return Err(ConfigError::new("hits_addend", "is not supported"));
        }
        if config.apply_on_stream_done {
            return Err(ConfigError::new("apply_on_stream_done", "is not supported"));
        }
        if config.actions.is_empty() {
            return Err(ConfigError::new("actions", "must not be empty"));
        }
        let actions = config.actions.iter().enumerate().map(|(index, action)| {
            Action::compile(action.action_specifier.as_ref())
                .map_err(|error| error.within(&format!("actions[{index}]")))
        });
        Ok(Self {
            stage: config.stage.unwrap_or(0),
            actions: actions.collect::<Result<_, _>>()?,
        })
    }

    /// The descriptor of a request; `None` when one of the actions has nothing to say.
    pub fn descriptor(&self, head: &RequestHead<'_>, facts: &Facts<'_>) -> Option<Descriptor> {
        let mut entries = Vec::with_capacity(self.actions.len());
        for action in &self.actions {
            entries.extend(action.entry(head, facts)?);
        }
        Some(entries)
    }
}

fn or(text: &str, default: &str) -> String {
    if text.is_empty() { default } else { text }.to_owned()
}

impl Action {
    fn compile(config: Option<&ActionSpecifier>) -> Result<Self, ConfigError> {
        let path = |key: Option<&MetadataKey>| -> Vec<String> {
            use xds::envoy::r#type::metadata::v3::metadata_key::path_segment::Segment;
            key.map_or_else(Vec::new, |key| {
                let segments = key.path.iter().filter_map(|part| match &part.segment {
                    Some(Segment::Key(key)) => Some(key.clone()),
                    _ => None,
                });
                std::iter::once(key.key.clone()).chain(segments).collect()
            })
        };
        Ok(match config {
            Some(ActionSpecifier::SourceCluster(_)) => Self::SourceCluster,
            Some(ActionSpecifier::DestinationCluster(_)) => Self::DestinationCluster,
            Some(ActionSpecifier::RequestHeaders(header)) => Self::Header {
                name: HeaderKey::compile(&header.header_name)
                    .map_err(|error| error.within("request_headers.header_name"))?,
                key: header.descriptor_key.clone(),
                skip: header.skip_if_absent,
            },
            Some(ActionSpecifier::QueryParameters(query)) => Self::Query {
                name: query.query_parameter_name.clone(),
                key: query.descriptor_key.clone(),
                skip: query.skip_if_absent,
            },
            Some(ActionSpecifier::RemoteAddress(_)) => Self::RemoteAddress,
            Some(ActionSpecifier::MaskedRemoteAddress(masked)) => Self::MaskedRemoteAddress {
                v4: masked.v4_prefix_mask_len.unwrap_or(32).min(32),
                v6: masked.v6_prefix_mask_len.unwrap_or(128).min(128),
            },
            Some(ActionSpecifier::GenericKey(generic)) => Self::Generic {
                key: or(&generic.descriptor_key, "generic_key"),
                value: generic.descriptor_value.clone(),
            },
            Some(ActionSpecifier::HeaderValueMatch(matches)) => Self::HeaderMatch {
                key: or(&matches.descriptor_key, "header_match"),
                value: matches.descriptor_value.clone(),
                headers: matches
                    .headers
                    .iter()
                    .map(HeaderMatch::compile)
                    .collect::<Result<_, _>>()?,
                expect: matches.expect_match.unwrap_or(true),
            },
            Some(ActionSpecifier::QueryParameterValueMatch(matches)) => Self::QueryMatch {
                key: or(&matches.descriptor_key, "query_match"),
                value: matches.descriptor_value.clone(),
                parameters: matches
                    .query_parameters
                    .iter()
                    .map(QueryMatch::compile)
                    .collect::<Result<_, _>>()?,
                expect: matches.expect_match.unwrap_or(true),
            },
            #[allow(deprecated)]
            Some(ActionSpecifier::DynamicMetadata(metadata)) => Self::Metadata {
                key: metadata.descriptor_key.clone(),
                path: path(metadata.metadata_key.as_ref()),
                default: metadata.default_value.clone(),
                of_route: false,
                skip: false,
            },
            Some(ActionSpecifier::Metadata(metadata)) => Self::Metadata {
                key: metadata.descriptor_key.clone(),
                path: path(metadata.metadata_key.as_ref()),
                default: metadata.default_value.clone(),
                of_route: match Source::try_from(metadata.source) {
                    Ok(Source::Dynamic) => false,
                    Ok(Source::RouteEntry) => true,
                    _ => return Err(ConfigError::new("metadata.source", "is not supported")),
                },
                skip: metadata.skip_if_absent,
            },
            Some(_) => {
                return Err(ConfigError::new(
                    "action_specifier",
                    "has a kind that is not supported",
                ));
            }
            None => return Err(ConfigError::new("action_specifier", "is missing")),
        })
    }

    /// `None`: there is no descriptor; an empty list: no entry, but the others count.
    fn entry(&self, head: &RequestHead<'_>, facts: &Facts<'_>) -> Option<Descriptor> {
        let one = |key: &str, value: String| Some(vec![(key.to_owned(), value)]);
        let absent = |skip: bool| skip.then(Vec::new);
        match self {
            Self::SourceCluster => one("source_cluster", facts.source_cluster.to_owned()),
            Self::DestinationCluster => one("destination_cluster", facts.cluster.to_owned()),
            Self::Header { name, key, skip } => match name.value(head) {
                Some(value) => one(key, value.into_owned()),
                None => absent(*skip),
            },
            Self::Query { name, key, skip } => match head.query_param(name) {
                Some(value) => one(key, value.to_owned()),
                None => absent(*skip),
            },
            Self::RemoteAddress => one("remote_address", facts.remote.to_canonical().to_string()),
            Self::MaskedRemoteAddress { v4, v6 } => one(
                "masked_remote_address",
                match facts.remote.to_canonical() {
                    IpAddr::V4(ip) => {
                        let mask = u32::MAX.checked_shl(32 - v4).unwrap_or(0);
                        format!("{}/{v4}", std::net::Ipv4Addr::from(u32::from(ip) & mask))
                    }
                    IpAddr::V6(ip) => {
                        let mask = u128::MAX.checked_shl(128 - v6).unwrap_or(0);
                        format!("{}/{v6}", std::net::Ipv6Addr::from(u128::from(ip) & mask))
                    }
                },
            ),
            Self::Generic { key, value } => one(key, value.clone()),
            Self::HeaderMatch {
                key,
                value,
                headers,
                expect,
            } => (headers.iter().all(|header| header.matches(head)) == *expect)
                .then(|| vec![(key.clone(), value.clone())]),
            Self::QueryMatch {
                key,
                value,
                parameters,
                expect,
            } => (parameters.iter().all(|parameter| parameter.matches(head)) == *expect)
                .then(|| vec![(key.clone(), value.clone())]),
            Self::Metadata {
                key,
                path,
                default,
                of_route,
                skip,
            } => {
                let root = if *of_route {
                    facts.route_metadata
                } else {
                    facts.metadata
                };
                let mut parts = path.iter();
                let mut found = parts.next().and_then(|first| root.get(first));
                for part in parts {
                    found = found.and_then(|value| value.get(part));
                }
                match found {
                    Some(Value::String(text)) if !text.is_empty() => one(key, text.clone()),
                    _ if !default.is_empty() => one(key, default.clone()),
                    _ => absent(*skip),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderName, HeaderValue, Method};
    use serde_json::json;

    fn describe(actions: Value, headers: &HeaderMap) -> Option<Descriptor> {
        let config = xds::json::from_value(json!({ "actions": actions }), true).expect("a message");
        let limit = RateLimit::compile(&config).expect("compiles");
        let metadata = json!({"ns": {"user": {"id": "7"}}});
        let head = RequestHead {
            method: &Method::GET,
            scheme: "http",
            authority: "a",
            path: "/p?q=1",
            headers,
        };
        let facts = Facts {
            remote: "192.0.2.129".parse().unwrap(),
            cluster: "up",
            source_cluster: "me",
            metadata: metadata.as_object().unwrap(),
            route_metadata: &Metadata::new(),
        };
        limit.descriptor(&head, &facts)
    }

    #[test]
    fn every_action_has_its_key_and_value() {
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("x-user"),
            HeaderValue::from_static("bob"),
        )]);
        for (action, key, value) in [
            (json!({"source_cluster": {}}), "source_cluster", "me"),
            (
                json!({"destination_cluster": {}}),
                "destination_cluster",
                "up",
            ),
            (
                json!({"request_headers": {"header_name": "x-user", "descriptor_key": "u"}}),
                "u",
                "bob",
            ),
            (
                json!({"request_headers": {"header_name": ":path", "descriptor_key": "p"}}),
                "p",
                "/p?q=1",
            ),
            (
                json!({"query_parameters": {"query_parameter_name": "q", "descriptor_key": "k"}}),
                "k",
                "1",
            ),
            (
                json!({"remote_address": {}}),
                "remote_address",
                "192.0.2.129",
            ),
            (
                json!({"masked_remote_address": {"v4_prefix_mask_len": 25}}),
                "masked_remote_address",
                "192.0.2.128/25",
            ),
            (
                json!({"generic_key": {"descriptor_value": "v"}}),
                "generic_key",
                "v",
            ),
            (
                json!({"header_value_match": {"descriptor_value": "m", "headers": [{"name": "x-user", "present_match": true}]}}),
                "header_match",
                "m",
            ),
            (
                json!({"metadata": {"descriptor_key": "id", "metadata_key": {"key": "ns", "path": [{"key": "user"}, {"key": "id"}]}}}),
                "id",
                "7",
            ),
        ] {
            assert_eq!(
                describe(json!([action]), &headers),
                Some(vec![(key.to_owned(), value.to_owned())]),
                "{action}"
            );
        }
    }

    #[test]
    fn an_absent_header_spoils_the_descriptor_unless_it_may_be_skipped() {
        let missing = json!({"request_headers": {"header_name": "x-user", "descriptor_key": "u"}});
        let generic = json!({"generic_key": {"descriptor_value": "v"}});
        assert_eq!(describe(json!([missing, generic]), &HeaderMap::new()), None);
        let skipped = json!({"request_headers": {"header_name": "x-user", "descriptor_key": "u", "skip_if_absent": true}});
        assert_eq!(
            describe(json!([skipped, generic]), &HeaderMap::new()),
            Some(vec![("generic_key".to_owned(), "v".to_owned())])
        );
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_with_its_path() {
        let config = xds::json::from_value(
            json!({"actions": [{"remote_address_match": {"descriptor_value": "x"}}]}),
            true,
        )
        .expect("a message");
        let error = RateLimit::compile_all(&[config])
            .expect_err("refused")
            .to_string();
        assert!(error.starts_with("rate_limits[0].actions[0]"), "{error}");
    }
}
