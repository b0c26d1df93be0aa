//! The `header_mutation` filter: headers changed in the order the configuration names them.

use http::{HeaderMap, HeaderName};
use xds::envoy::config::common::mutation_rules::v3::{
    HeaderMutation as ActionConfig, header_mutation::Action as Specifier,
};
use xds::envoy::extensions::filters::http::header_mutation::v3::Mutations as Config;

use crate::error::ConfigError;
use crate::headers::HeaderMutations;
use crate::matching::StringMatch;
use crate::request::RequestHeadMut;
use crate::stream::StreamInfo;

/// The changes of the filter or of a route, compiled.
#[derive(Debug, Clone, Default)]
pub struct Mutations {
    request: Vec<Action>,
    response: Vec<Action>,
}

#[derive(Debug, Clone)]
enum Action {
    Remove(HeaderName),
    RemoveMatching(StringMatch),
    Add(HeaderMutations),
}

impl Mutations {
    /// Compiles the changes; none at all change nothing.
    ///
    /// # Errors
    /// The field that cannot be carried out.
    pub fn compile(config: Option<&Config>) -> Result<Self, ConfigError> {
        let Some(config) = config else {
            return Ok(Self::default());
        };
        for (field, used) in [
            (
                "query_parameter_mutations",
                !config.query_parameter_mutations.is_empty(),
            ),
            (
                "response_trailers_mutations",
                !config.response_trailers_mutations.is_empty(),
            ),
            (
                "request_trailers_mutations",
                !config.request_trailers_mutations.is_empty(),
            ),
        ] {
            if used {
                return Err(ConfigError::new(field, "are not supported"));
            }
        }
        let all = |field: &str, actions: &[ActionConfig]| {
            let one = |(index, action)| {
                Action::compile(action)
                    .map_err(|error: ConfigError| error.within(&format!("{field}[{index}]")))
            };
            actions
                .iter()
                .enumerate()
                .map(one)
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            request: all("request_mutations", &config.request_mutations)?,
            response: all("response_mutations", &config.response_mutations)?,
        })
    }

    /// Changes the head of a request.
    pub fn request(&self, head: &mut RequestHeadMut<'_>, info: &StreamInfo<'_>) {
        for action in &self.request {
            match action {
                Action::Add(add) => add.apply_request(head, info),
                other => other.remove(head.headers),
            }
        }
    }

    /// Changes the headers of a response.
    pub fn response(&self, headers: &mut HeaderMap, info: &StreamInfo<'_>) {
        for action in &self.response {
            match action {
                Action::Add(add) => add.apply_response(headers, info),
                other => other.remove(headers),
            }
        }
    }

    /// Whether responses are left as they are.
    pub fn keeps_response(&self) -> bool {
        self.response.is_empty()
    }
}

impl Action {
    fn compile(config: &ActionConfig) -> Result<Self, ConfigError> {
        match &config.action {
            Some(Specifier::Remove(name)) => HeaderName::try_from(name.as_str())
                .map(Self::Remove)
                .map_err(|_| ConfigError::new("remove", format!("{name:?} is not a header name"))),
            Some(Specifier::Append(option)) => {
                HeaderMutations::compile(std::slice::from_ref(option), &[]).map(Self::Add)
            }
            Some(Specifier::RemoveOnMatch(on)) => {
                let matcher = on
                    .key_matcher
                    .as_ref()
                    .ok_or_else(|| ConfigError::new("remove_on_match.key_matcher", "is missing"))?;
                StringMatch::compile(matcher).map(Self::RemoveMatching)
            }
            None => Err(ConfigError::new("action", "is missing")),
        }
    }

    fn remove(&self, headers: &mut HeaderMap) {
        match self {
            Self::Remove(name) => {
                headers.remove(name);
            }
            Self::RemoveMatching(matcher) => {
                let gone: Vec<HeaderName> = headers
                    .keys()
                    .filter(|name| matcher.matches(name.as_str()))
                    .cloned()
                    .collect();
                for name in gone {
                    headers.remove(name);
                }
            }
            Self::Add(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{Connection, Metadata};
    use http::HeaderValue;
    use serde_json::json;
    use std::time::UNIX_EPOCH;

    #[test]
    fn changes_are_made_in_their_order() {
        let config: Config = xds::json::from_value(
            json!({"response_mutations": [
                {"append": {"header": {"key": "a", "value": "1"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}},
                {"remove": "a"},
                {"append": {"header": {"key": "b", "value": "2"}}},
                {"remove_on_match": {"key_matcher": {"prefix": "x-"}}},
            ]}),
            true,
        )
        .expect("a message");
        let mutations = Mutations::compile(Some(&config)).expect("compiles");
        let connection = Connection {
            id: 1,
            remote: "192.0.2.1:1".parse().unwrap(),
            local: "192.0.2.2:2".parse().unwrap(),
            tls: None,
            server_name: None,
            start: UNIX_EPOCH,
        };
        let metadata = Metadata::new();
        let mut headers = HeaderMap::new();
        headers.insert("x-internal", HeaderValue::from_static("secret"));
        headers.insert("a", HeaderValue::from_static("0"));
        mutations.response(
            &mut headers,
            &StreamInfo::new(&connection, &metadata, UNIX_EPOCH),
        );
        let names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["b"]);
    }
}
