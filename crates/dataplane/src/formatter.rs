//! The substitution formatter: access log lines and header values with `%COMMAND%`s.

use serde_json::Value;
use xds::envoy::config::core::v3::{
    SubstitutionFormatString, data_source::Specifier,
    substitution_format_string::Format as FormatConfig,
};
use xds::envoy::extensions::access_loggers::file::v3::{
    FileAccessLog, file_access_log::AccessLogFormat,
};

use crate::error::ConfigError;
use crate::matching::struct_to_json;
use crate::stream::StreamInfo;

mod command;
mod time;
mod values;

pub use command::Command;
pub use time::{http_date, iso8601};

/// The format of an access log that does not say otherwise (Envoy's own default).
pub const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// A format, compiled once.
#[derive(Debug, Clone)]
pub struct Formatter {
    root: Node,
    omit_empty: bool,
    json: bool,
}

#[derive(Debug, Clone)]
enum Node {
    Text(Vec<Piece>),
    Object(Vec<(String, Node)>),
    Array(Vec<Node>),
    Fixed(Value),
}

#[derive(Debug, Clone)]
enum Piece {
    Text(String),
    Command(Command, Option<usize>),
}

impl Formatter {
    /// A text format; missing values become `-`. Unknown commands are an error that names them.
    pub fn text(format: &str) -> Result<Self, ConfigError> {
        Ok(Self {
            root: Node::Text(parse(format)?),
            omit_empty: false,
            json: false,
        })
    }

    /// A header value: like a text format, but missing values become empty.
    pub fn header(format: &str) -> Result<Self, ConfigError> {
        Ok(Self {
            omit_empty: true,
            ..Self::text(format)?
        })
    }

    /// A JSON format: an object of formats. Missing values become `null`; numbers stay numbers.
    pub fn json(format: &Value) -> Result<Self, ConfigError> {
        Ok(Self {
            root: Node::compile(format)?,
            omit_empty: false,
            json: true,
        })
    }

    /// Compiles a `SubstitutionFormatString`.
    // Static configurations still use the deprecated text_format.
    #[allow(deprecated)]
    pub fn compile(config: &SubstitutionFormatString) -> Result<Self, ConfigError> {
        let formatter = match &config.format {
            Some(FormatConfig::TextFormat(text)) => {
                Self::text(text).map_err(|e| e.within("text_format"))?
            }
            Some(FormatConfig::TextFormatSource(source)) => match &source.specifier {
                Some(Specifier::InlineString(text)) => {
                    Self::text(text).map_err(|e| e.within("text_format_source"))?
                }
                Some(Specifier::InlineBytes(bytes)) => Self::text(&String::from_utf8_lossy(bytes))
                    .map_err(|e| e.within("text_format_source"))?,
                _ => {
                    return Err(ConfigError::new(
                        "text_format_source",
                        "only inline_string and inline_bytes are supported",
                    ));
                }
            },
            Some(FormatConfig::JsonFormat(json)) => {
                Self::json(&Value::Object(struct_to_json(json)))
                    .map_err(|e| e.within("json_format"))?
            }
            None => return Err(ConfigError::new("format", "is missing")),
        };
        Ok(Self {
            omit_empty: config.omit_empty_values,
            ..formatter
        })
    }

    /// The format of a file (or stdout) access log.
    #[allow(deprecated)]
    pub fn of_file_log(config: &FileAccessLog) -> Result<Self, ConfigError> {
        match &config.access_log_format {
            None => Self::text(DEFAULT_FORMAT),
            Some(AccessLogFormat::Format(text)) if text.is_empty() => Self::text(DEFAULT_FORMAT),
            Some(AccessLogFormat::Format(text)) => Self::text(text).map_err(|e| e.within("format")),
            Some(AccessLogFormat::LogFormat(format)) => {
                Self::compile(format).map_err(|e| e.within("log_format"))
            }
            Some(AccessLogFormat::JsonFormat(json) | AccessLogFormat::TypedJsonFormat(json)) => {
                Self::json(&Value::Object(struct_to_json(json)))
                    .map_err(|e| e.within("json_format"))
            }
        }
    }

    /// Appends the formatted line (a JSON format ends with a newline) to `out`.
    pub fn format(&self, info: &StreamInfo<'_>, out: &mut String) {
        match &self.root {
            Node::Text(pieces) if !self.json => {
                write_pieces(pieces, info, if self.omit_empty { "" } else { "-" }, out)
            }
            root => {
                let value = root.value(info, self.omit_empty);
                out.push_str(&value.to_string());
                out.push('\n');
            }
        }
    }

    /// The formatted text.
    pub fn value(&self, info: &StreamInfo<'_>) -> String {
        let mut text = String::new();
        self.format(info, &mut text);
        text
    }

    /// The value as it stands, if there is nothing to substitute.
    pub fn constant(&self) -> Option<&str> {
        match &self.root {
            Node::Text(pieces) => match pieces.as_slice() {
                [] => Some(""),
                [Piece::Text(text)] => Some(text),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Node {
    fn compile(format: &Value) -> Result<Self, ConfigError> {
        Ok(match format {
            Value::String(text) => Self::Text(parse(text)?),
            Value::Object(fields) => {
                let each = |(key, value): (&String, &Value)| {
                    Ok((
                        key.clone(),
                        Self::compile(value).map_err(|e: ConfigError| e.within(key))?,
                    ))
                };
                Self::Object(
                    fields
                        .iter()
                        .map(each)
                        .collect::<Result<_, ConfigError>>()?,
                )
            }
            Value::Array(values) => {
                Self::Array(values.iter().map(Self::compile).collect::<Result<_, _>>()?)
            }
            other => Self::Fixed(other.clone()),
        })
    }

    fn value(&self, info: &StreamInfo<'_>, omit_empty: bool) -> Value {
        match self {
            Self::Fixed(value) => value.clone(),
            Self::Text(pieces) => match pieces.as_slice() {
                // Alone, a command keeps its type.
                [Piece::Command(command, max)] => command.typed(info, *max).unwrap_or(Value::Null),
                pieces => {
                    let mut text = String::new();
                    write_pieces(pieces, info, if omit_empty { "" } else { "-" }, &mut text);
                    Value::String(text)
                }
            },
            Self::Object(fields) => {
                let values = fields
                    .iter()
                    .map(|(key, node)| (key.clone(), node.value(info, omit_empty)));
                Value::Object(
                    values
                        .filter(|(_, value)| !(omit_empty && value.is_null()))
                        .collect(),
                )
            }
            Self::Array(nodes) => nodes
                .iter()
                .map(|node| node.value(info, omit_empty))
                .collect(),
        }
    }
}

fn write_pieces(pieces: &[Piece], info: &StreamInfo<'_>, missing: &str, out: &mut String) {
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Command(command, max) => {
                let start = out.len();
                if !command.write(info, out) {
                    out.push_str(missing);
                } else if let Some(max) = max
                    && let Some((end, _)) = out[start..].char_indices().nth(*max)
                {
                    out.truncate(start + end);
                }
            }
        }
    }
}

/// The command that a text begins with, behind its percent sign: name, argument, length, and what follows.
fn command(text: &str) -> Option<(&str, Option<&str>, Option<usize>, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))?;
    let (name, rest) = text.split_at(end);
    // What closes a command: `%` or `:LENGTH%`.
    let closed = |rest: &'_ str| -> Option<(Option<usize>, usize)> {
        if rest.starts_with('%') {
            return Some((None, 1));
        }
        let digits = rest.strip_prefix(':')?;
        let end = digits.find('%')?;
        let plain = digits[..end].bytes().all(|byte| byte.is_ascii_digit());
        let max = digits[..end].parse().ok().filter(|_| plain)?;
        Some((Some(max), end + 2))
    };
    if name.is_empty() {
        return None;
    }
    let Some(inside) = rest.strip_prefix('(') else {
        let (max, length) = closed(rest)?;
        return Some((name, None, max, &rest[length..]));
    };
    // Arguments may contain percent signs and parentheses: the first one that ends the command counts.
    inside.match_indices(')').find_map(|(at, _)| {
        let rest = &inside[at + 1..];
        let (max, length) = closed(rest)?;
        Some((name, Some(&inside[..at]), max, &rest[length..]))
    })
}

/// `text %COMMAND(argument):length% %% text`.
fn parse(format: &str) -> Result<Vec<Piece>, ConfigError> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            text.push('%');
            rest = after;
            continue;
        }
        let Some((name, argument, max, after)) = command(rest) else {
            return Err(ConfigError::new(
                "",
                format!(
                    "Incorrect configuration: {}. Couldn't find valid command at position {}",
                    format.trim_end(),
                    format.len() - rest.len() - 1
                ),
            ));
        };
        rest = after;
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        }
        pieces.push(Piece::Command(
            Command::compile(name, argument, max.is_some())?,
            max,
        ));
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests;
