//! Header mutations: adding, replacing and removing headers, with `%COMMAND%`s in the values.

use http::HeaderMap;
use xds::envoy::config::core::v3::HeaderValueOption;

use crate::error::ConfigError;
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
pub struct HeaderMutations {}

impl HeaderMutations {
    /// Compiles `*_headers_to_add` and `*_headers_to_remove`.
    pub fn compile(add: &[HeaderValueOption], remove: &[String]) -> Result<Self, ConfigError> {
        unimplemented!("{add:?} {remove:?}")
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        true
    }

    /// Changes the head of a request. The values are formatted before the first change.
    pub fn apply_request(&self, head: &mut RequestHeadMut<'_>, info: &StreamInfo<'_>) {
        unimplemented!("{head:?} {info:?}")
    }

    /// Changes response headers.
    pub fn apply_response(&self, headers: &mut HeaderMap, info: &StreamInfo<'_>) {
        unimplemented!("{headers:?} {info:?}")
    }
}
