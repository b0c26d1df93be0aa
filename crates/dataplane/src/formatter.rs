//! The substitution formatter: access log lines and header values with `%COMMAND%`s.

use serde_json::Value;
use xds::envoy::config::core::v3::SubstitutionFormatString;
use xds::envoy::extensions::access_loggers::file::v3::FileAccessLog;

use crate::error::ConfigError;
use crate::stream::StreamInfo;

/// A format, compiled once.
#[derive(Debug, Clone)]
pub struct Formatter {}

impl Formatter {
    /// A text format. Unknown commands are an error that names them.
    pub fn text(format: &str) -> Result<Self, ConfigError> {
        unimplemented!("{format}")
    }

    /// A JSON format: an object of formats. Missing values become `null`; numbers stay numbers.
    pub fn json(format: &Value) -> Result<Self, ConfigError> {
        unimplemented!("{format}")
    }

    /// Compiles a `SubstitutionFormatString`.
    pub fn compile(config: &SubstitutionFormatString) -> Result<Self, ConfigError> {
        unimplemented!("{config:?}")
    }

    /// The format of a file (or stdout) access log.
    pub fn of_file_log(config: &FileAccessLog) -> Result<Self, ConfigError> {
        unimplemented!("{config:?}")
    }

    /// Appends the formatted line (a JSON format ends with a newline) to `out`.
    pub fn format(&self, info: &StreamInfo<'_>, out: &mut String) {
        unimplemented!("{info:?} {out}")
    }
}
