//! Filters that write dynamic metadata: `header_to_metadata` and `set_metadata`.

use http::{HeaderMap, HeaderName};
use serde_json::{Map, Value};
use xds::envoy::extensions::filters::http::header_to_metadata::v3::Config as HeaderConfig;
use xds::envoy::extensions::filters::http::header_to_metadata::v3::config::{
    KeyValuePair, Rule as RuleConfig, ValueEncode, ValueType,
};
use xds::envoy::extensions::filters::http::set_metadata::v3::Config as SetConfig;

use crate::error::ConfigError;
use crate::matching::{Substitution, struct_to_json};
use crate::request::RequestHeadMut;
use crate::stream::Metadata;

/// `header_to_metadata`, compiled.
#[derive(Debug, Clone, Default)]
pub struct HeaderToMetadata {
    request: Vec<Rule>,
    response: Vec<Rule>,
}

#[derive(Debug, Clone)]
enum Source {
    Header(HeaderName),
    Cookie(String),
}

#[derive(Debug, Clone)]
struct Rule {
    source: Source,
    present: Option<Target>,
    missing: Option<Target>,
    remove: bool,
}

#[derive(Debug, Clone)]
struct Target {
    namespace: String,
    key: String,
    value: String,
    rewrite: Option<Substitution>,
    number: bool,
}

const NAMESPACE: &str = "envoy.filters.http.header_to_metadata";
/// Longer values are not taken over, as in Envoy.
const MAX_VALUE: usize = 8 * 1024;

impl HeaderToMetadata {
    /// Compiles the filter or what a route says instead of it.
    ///
    /// # Errors
    /// The field that cannot be carried out.
    pub fn compile(config: &HeaderConfig) -> Result<Self, ConfigError> {
        let all = |field: &str, rules: &[RuleConfig]| {
            let one = |(index, rule)| {
                Rule::compile(rule)
                    .map_err(|error: ConfigError| error.within(&format!("{field}[{index}]")))
            };
            rules
                .iter()
                .enumerate()
                .map(one)
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            request: all("request_rules", &config.request_rules)?,
            response: all("response_rules", &config.response_rules)?,
        })
    }

    /// Reads the head of a request.
    pub fn request(&self, head: &mut RequestHeadMut<'_>, metadata: &mut Metadata) {
        for rule in &self.request {
            let value = match &rule.source {
                Source::Header(name) => head.view().header(name.as_str()).map(|v| v.into_owned()),
                Source::Cookie(name) => head.view().cookie(name).map(str::to_owned),
            };
            rule.apply(value, metadata);
            if let (true, Source::Header(name)) = (rule.remove, &rule.source) {
                head.headers.remove(name);
            }
        }
    }

    /// Reads the headers of a response.
    pub fn response(&self, headers: &mut HeaderMap, metadata: &mut Metadata) {
        for rule in &self.response {
            let Source::Header(name) = &rule.source else {
                continue;
            };
            let value = crate::request::joined(headers, name).map(|value| value.into_owned());
            rule.apply(value, metadata);
            if rule.remove {
                headers.remove(name);
            }
        }
    }

    /// Whether it looks at responses.
    pub fn reads_response(&self) -> bool {
        !self.response.is_empty()
    }
}

impl Rule {
    fn compile(config: &RuleConfig) -> Result<Self, ConfigError> {
        let source = match (config.header.as_str(), config.cookie.as_str()) {
            ("", "") => return Err(ConfigError::new("header", "or cookie is needed")),
            (header, "") => Source::Header(HeaderName::try_from(header).map_err(|_| {
                ConfigError::new("header", format!("{header:?} is not a header name"))
            })?),
            ("", cookie) => Source::Cookie(cookie.to_owned()),
            _ => {
                return Err(ConfigError::new("header", "and cookie exclude each other"));
            }
        };
        let target = |field: &str, config: &Option<KeyValuePair>| {
            config
                .as_ref()
                .map(Target::compile)
                .transpose()
                .map_err(|error| error.within(field))
        };
        let rule = Self {
            source,
            present: target("on_header_present", &config.on_header_present)?,
            missing: target("on_header_missing", &config.on_header_missing)?,
            remove: config.remove,
        };
        if rule.present.is_none() && rule.missing.is_none() {
            return Err(ConfigError::new(
                "on_header_present",
                "or on_header_missing is needed",
            ));
        }
        if rule
            .missing
            .as_ref()
            .is_some_and(|target| target.value.is_empty())
        {
            return Err(ConfigError::new("on_header_missing.value", "is missing"));
        }
        Ok(rule)
    }

    fn apply(&self, value: Option<String>, metadata: &mut Metadata) {
        let (target, value) = match (value, &self.present, &self.missing) {
            (Some(value), Some(target), _) => {
                let value = if !target.value.is_empty() {
                    target.value.clone()
                } else {
                    match &target.rewrite {
                        Some(rewrite) => rewrite.apply(&value).into_owned(),
                        None => value,
                    }
                };
                (target, value)
            }
            (None, _, Some(target)) => (target, target.value.clone()),
            _ => return,
        };
        if value.is_empty() || value.len() > MAX_VALUE {
            return;
        }
        let value = if target.number {
            match value.parse::<f64>() {
                Ok(number) => Value::from(number),
                Err(_) => return,
            }
        } else {
            Value::from(value)
        };
        let space = metadata
            .entry(target.namespace.clone())
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(space) = space {
            space.insert(target.key.clone(), value);
        }
    }
}

impl Target {
    fn compile(config: &KeyValuePair) -> Result<Self, ConfigError> {
        if config.encode != ValueEncode::None as i32 {
            return Err(ConfigError::new("encode", "is not supported"));
        }
        let number = match ValueType::try_from(config.r#type) {
            Ok(ValueType::String) => false,
            Ok(ValueType::Number) => true,
            _ => return Err(ConfigError::new("type", "PROTOBUF_VALUE is not supported")),
        };
        Ok(Self {
            namespace: if config.metadata_namespace.is_empty() {
                NAMESPACE.to_owned()
            } else {
                config.metadata_namespace.clone()
            },
            key: config.key.clone(),
            value: config.value.clone(),
            rewrite: config
                .regex_value_rewrite
                .as_ref()
                .map(Substitution::compile)
                .transpose()
                .map_err(|error| error.within("regex_value_rewrite"))?,
            number,
        })
    }
}

/// `set_metadata`, compiled.
#[derive(Debug, Clone, Default)]
pub struct SetMetadata {
    values: Vec<(String, Map<String, Value>, bool)>,
}

impl SetMetadata {
    /// Compiles the filter.
    ///
    /// # Errors
    /// The field that cannot be carried out.
    #[allow(deprecated)]
    pub fn compile(config: &SetConfig) -> Result<Self, ConfigError> {
        let mut values = Vec::new();
        if let Some(value) = &config.value {
            values.push((
                config.metadata_namespace.clone(),
                struct_to_json(value),
                true,
            ));
        }
        for (index, entry) in config.metadata.iter().enumerate() {
            if entry.typed_value.is_some() {
                return Err(ConfigError::new(
                    format!("metadata[{index}].typed_value"),
                    "is not supported",
                ));
            }
            if let Some(value) = &entry.value {
                values.push((
                    entry.metadata_namespace.clone(),
                    struct_to_json(value),
                    entry.allow_overwrite,
                ));
            }
        }
        Ok(Self { values })
    }

    /// Writes the values. What is there stays unless it may be overwritten; then both are merged, key by key.
    pub fn apply(&self, metadata: &mut Metadata) {
        for (namespace, value, overwrite) in &self.values {
            match metadata.get_mut(namespace) {
                Some(Value::Object(have)) if *overwrite => {
                    have.extend(
                        value
                            .iter()
                            .map(|(key, value)| (key.clone(), value.clone())),
                    );
                }
                Some(_) if !*overwrite => {}
                _ => {
                    metadata.insert(namespace.clone(), Value::Object(value.clone()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, Method};
    use serde_json::json;

    #[test]
    fn headers_become_metadata() {
        let config = xds::json::from_value(
            json!({"request_rules": [
                {"header": "x-version", "on_header_present": {"metadata_namespace": "envoy.lb", "key": "version"},
                 "on_header_missing": {"metadata_namespace": "envoy.lb", "key": "default", "value": "yes"}, "remove": true},
                {"header": "x-count", "on_header_present": {"key": "n", "type": "NUMBER"}},
                {"cookie": "user", "on_header_present": {"key": "user"}},
            ]}),
            true,
        )
        .expect("a message");
        let rules = HeaderToMetadata::compile(&config).expect("compiles");
        let mut headers = HeaderMap::new();
        headers.insert("x-version", HeaderValue::from_static("v2"));
        headers.insert("x-count", HeaderValue::from_static("3"));
        headers.insert("cookie", HeaderValue::from_static("user=bob"));
        let (mut authority, mut path) = ("a".to_owned(), "/".to_owned());
        let mut head = RequestHeadMut {
            method: &Method::GET,
            scheme: "http",
            authority: &mut authority,
            path: &mut path,
            headers: &mut headers,
        };
        let mut metadata = Metadata::new();
        rules.request(&mut head, &mut metadata);
        assert_eq!(
            Value::Object(metadata),
            json!({"envoy.lb": {"version": "v2"}, NAMESPACE: {"n": 3.0, "user": "bob"}})
        );
        assert!(!headers.contains_key("x-version"), "it is removed");
    }

    #[test]
    fn set_metadata_keeps_what_it_may_not_overwrite() {
        let config = xds::json::from_value(
            json!({"metadata": [{"metadata_namespace": "a", "value": {"k": "new"}},
                {"metadata_namespace": "b", "value": {"k": "new"}, "allow_overwrite": true}]}),
            true,
        )
        .expect("a message");
        let mut metadata = json!({"a": {"k": "old"}, "b": {"k": "old", "l": "old"}})
            .as_object()
            .cloned()
            .unwrap();
        SetMetadata::compile(&config)
            .expect("compiles")
            .apply(&mut metadata);
        assert_eq!(
            Value::Object(metadata),
            json!({"a": {"k": "old"}, "b": {"k": "new", "l": "old"}})
        );
    }
}
