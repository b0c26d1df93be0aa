//! Header mutations: adding, replacing and removing headers, with `%COMMAND%`s in the values.

use http::{HeaderMap, HeaderName, HeaderValue};
use xds::envoy::config::core::v3::{HeaderValueOption, header_value_option::HeaderAppendAction};

use crate::error::ConfigError;
use crate::formatter::Formatter;
use crate::lists::{self, Direction};
use crate::matching::HeaderKey;
use crate::request::RequestHeadMut;
use crate::stream::StreamInfo;

/// What happens to a header that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendAction {
    /// Another value is added (`APPEND_IF_EXISTS_OR_ADD`).
    Append,
    /// Nothing, if the header is there (`ADD_IF_ABSENT`).
    AddIfAbsent,
    /// All values are replaced (`OVERWRITE_IF_EXISTS_OR_ADD`).
    Overwrite,
    /// All values are replaced, but only if the header is there (`OVERWRITE_IF_EXISTS`).
    OverwriteIfExists,
}

/// Removals and additions of one level (route, virtual host, ...). Removals come first.
#[derive(Debug, Clone, Default)]
pub struct HeaderMutations {
    remove: Vec<HeaderName>,
    add: Vec<Addition>,
}

#[derive(Debug, Clone)]
struct Addition {
    name: HeaderName,
    value: Value,
    action: AppendAction,
    keep_empty: bool,
}

#[derive(Debug, Clone)]
enum Value {
    Constant(HeaderValue),
    Format(Formatter),
}

impl HeaderMutations {
    /// Compiles `*_headers_to_add` and `*_headers_to_remove`. As in Envoy, the host and what begins with a
    /// colon cannot be changed this way.
    // `append` is deprecated, but it is what many configurations still say.
    #[allow(deprecated)]
    pub fn compile(add: &[HeaderValueOption], remove: &[String]) -> Result<Self, ConfigError> {
        let key = |name: &str| match HeaderKey::compile(name) {
            Ok(HeaderKey::Name(name)) => Ok(name),
            Ok(_) => Err(ConfigError::new(
                "key",
                ":-prefixed or host headers may not be modified",
            )),
            Err(error) => Err(error),
        };
        let mut mutations = Self::default();
        for name in remove {
            mutations
                .remove
                .push(key(name).map_err(|e| e.within("headers_to_remove"))?);
        }
        for option in add {
            let Some(header) = &option.header else {
                return Err(ConfigError::new(
                    "headers_to_add",
                    "has an entry without a header",
                ));
            };
            let at =
                |error: ConfigError| error.within(&format!("headers_to_add[{:?}]", header.key));
            let value = if header.raw_value.is_empty() {
                let formatter = Formatter::header(&header.value).map_err(at)?;
                match formatter.constant().map(HeaderValue::from_str) {
                    Some(Ok(value)) => Value::Constant(value),
                    Some(Err(_)) => {
                        return Err(at(ConfigError::new(
                            "value",
                            "has characters that headers must not have",
                        )));
                    }
                    None => Value::Format(formatter),
                }
            } else {
                let raw = HeaderValue::from_bytes(&header.raw_value);
                Value::Constant(
                    raw.map_err(|_| at(ConfigError::new("raw_value", "is not a header value")))?,
                )
            };
            let action = match (
                option.append,
                HeaderAppendAction::try_from(option.append_action),
            ) {
                (Some(true), _) => AppendAction::Append,
                (Some(false), _) => AppendAction::Overwrite,
                (None, Ok(HeaderAppendAction::AddIfAbsent)) => AppendAction::AddIfAbsent,
                (None, Ok(HeaderAppendAction::OverwriteIfExistsOrAdd)) => AppendAction::Overwrite,
                (None, Ok(HeaderAppendAction::OverwriteIfExists)) => {
                    AppendAction::OverwriteIfExists
                }
                (None, _) => AppendAction::Append,
            };
            let name = key(&header.key).map_err(at)?;
            mutations.add.push(Addition {
                name,
                value,
                action,
                keep_empty: option.keep_empty_value,
            });
        }
        Ok(mutations)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }

    /// Changes the head of a request.
    ///
    /// `info` describes the stream; values are formatted with the head as it is once the removals are done.
    pub fn apply_request(&self, head: &mut RequestHeadMut<'_>, info: &StreamInfo<'_>) {
        for name in &self.remove {
            head.headers.remove(name);
        }
        let values = self.values(head.headers, |formatter| {
            let mut info = info.clone();
            info.request = Some(head.view());
            formatter.value(&info)
        });
        write(values, head.headers, Direction::Request);
    }

    /// Changes response headers.
    pub fn apply_response(&self, headers: &mut HeaderMap, info: &StreamInfo<'_>) {
        for name in &self.remove {
            headers.remove(name);
        }
        let values = self.values(headers, |formatter| {
            let mut info = info.clone();
            info.response_headers = Some(headers);
            formatter.value(&info)
        });
        write(values, headers, Direction::Response);
    }

    /// All values, before anything changes.
    fn values(
        &self,
        headers: &HeaderMap,
        format: impl Fn(&Formatter) -> String,
    ) -> Vec<(&Addition, HeaderValue)> {
        let wanted = |addition: &&Addition| match addition.action {
            AppendAction::AddIfAbsent => !headers.contains_key(&addition.name),
            AppendAction::OverwriteIfExists => headers.contains_key(&addition.name),
            AppendAction::Append | AppendAction::Overwrite => true,
        };
        let mut values = Vec::with_capacity(self.add.len());
        for addition in self.add.iter().filter(wanted) {
            let value = match &addition.value {
                Value::Constant(value) => value.clone(),
                Value::Format(formatter) => match HeaderValue::try_from(format(formatter)) {
                    Ok(value) => value,
                    Err(_) => continue,
                },
            };
            if addition.keep_empty || !value.is_empty() {
                values.push((addition, value));
            }
        }
        values
    }
}

/// First everything that overwrites, then everything that adds.
fn write(values: Vec<(&Addition, HeaderValue)>, headers: &mut HeaderMap, direction: Direction) {
    let overwrites = |addition: &Addition| {
        matches!(
            addition.action,
            AppendAction::Overwrite | AppendAction::OverwriteIfExists
        )
    };
    for (addition, value) in values.iter().filter(|(addition, _)| overwrites(addition)) {
        headers.insert(&addition.name, value.clone());
    }
    for (addition, value) in values
        .into_iter()
        .filter(|(addition, _)| !overwrites(addition))
    {
        lists::append(direction, headers, &addition.name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{Connection, Metadata};
    use serde_json::json;
    use std::time::UNIX_EPOCH;

    #[test]
    fn removals_first_then_overwrites_then_additions() {
        let add: Vec<HeaderValueOption> = [
            json!({"header": {"key": "a", "value": "added"}}),
            json!({"header": {"key": "b", "value": "was %RESP(b)%"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}),
            json!({"header": {"key": "c", "value": "no"}, "append_action": "ADD_IF_ABSENT"}),
            json!({"header": {"key": "d", "value": "no"}, "append_action": "OVERWRITE_IF_EXISTS"}),
            json!({"header": {"key": "e", "value": "%RESP(nothing)%"}}),
            json!({"header": {"key": "f", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}, "append": false}),
        ]
        .into_iter()
        .map(|json| xds::json::from_value(json, true).expect("a valid message"))
        .collect();
        let mutations = HeaderMutations::compile(&add, &["a".into()]).expect("compiles");
        let connection = Connection {
            id: 1,
            remote: "192.0.2.1:1".parse().unwrap(),
            local: "192.0.2.2:2".parse().unwrap(),
            tls: None,
            server_name: None,
            start: UNIX_EPOCH,
        };
        let metadata = Metadata::new();
        let info = StreamInfo::new(&connection, &metadata, UNIX_EPOCH);
        let mut headers = HeaderMap::new();
        for name in ["a", "b", "c"] {
            headers.insert(name, HeaderValue::from_static("old"));
        }
        mutations.apply_response(&mut headers, &info);
        let get = |name: &str| {
            headers
                .get_all(name)
                .iter()
                .map(|v| v.to_str().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(get("a"), ["added"], "removed before it is added");
        assert_eq!(get("b"), ["was old"], "formatted before it is overwritten");
        assert_eq!(get("c"), ["old"]);
        assert!(get("d").is_empty() && get("e").is_empty());
        assert_eq!(get("f"), ["192.0.2.1"]);
        assert!(HeaderMutations::compile(&[], &[":path".into()]).is_err());
    }
}
