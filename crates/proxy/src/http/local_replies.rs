//! `local_reply_config`: what is changed about the answers this proxy gives itself.

use dataplane::StreamInfo;
use dataplane::formatter::Formatter;
use dataplane::headers::HeaderMutations;
use http::HeaderMap;
use xds::envoy::config::core::v3::substitution_format_string::Format;
use xds::envoy::config::core::v3::{DataSource, SubstitutionFormatString, data_source};
use xds::envoy::extensions::filters::network::http_connection_manager::v3::LocalReplyConfig;

use crate::access_log::{Filter, Moment};

/// The rules of a connection manager.
#[derive(Default)]
pub struct LocalReplies {
    mappers: Vec<Mapper>,
    format: Option<BodyFormat>,
}

struct Mapper {
    filter: Filter,
    status: Option<u16>,
    body: Option<String>,
    format: Option<BodyFormat>,
    headers: HeaderMutations,
}

struct BodyFormat {
    formatter: Formatter,
    content_type: String,
}

/// A reply while it is being changed.
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: String,
    /// What the body is.
    pub content_type: String,
}

impl BodyFormat {
    fn compile(config: &SubstitutionFormatString) -> Result<Self, String> {
        let content_type = match &config.format {
            _ if !config.content_type.is_empty() => config.content_type.clone(),
            Some(Format::JsonFormat(_)) => "application/json".to_owned(),
            _ => "text/plain".to_owned(),
        };
        Ok(Self {
            formatter: Formatter::compile(config).map_err(|error| error.to_string())?,
            content_type,
        })
    }
}

fn text(source: &DataSource) -> Result<String, String> {
    match &source.specifier {
        Some(data_source::Specifier::InlineString(text)) => Ok(text.clone()),
        Some(data_source::Specifier::InlineBytes(bytes)) => {
            String::from_utf8(bytes.to_vec()).map_err(|_| "body is not UTF-8".to_owned())
        }
        Some(data_source::Specifier::Filename(path)) => {
            std::fs::read_to_string(path).map_err(|error| format!("body: {path}: {error}"))
        }
        _ => Err("body: this kind of source is not supported".to_owned()),
    }
}

impl LocalReplies {
    /// Compiles the rules.
    ///
    /// # Errors
    /// What of them cannot be followed.
    pub fn compile(config: Option<&LocalReplyConfig>) -> Result<Self, String> {
        let Some(config) = config else {
            return Ok(Self::default());
        };
        let mut mappers = Vec::new();
        for (index, mapper) in config.mappers.iter().enumerate() {
            let at = |error: String| format!("local_reply_config.mappers[{index}]: {error}");
            let filter = mapper
                .filter
                .as_ref()
                .ok_or_else(|| at("filter is missing".to_owned()))?;
            mappers.push(Mapper {
                filter: Filter::compile(filter).map_err(at)?,
                status: mapper
                    .status_code
                    .map(|status| {
                        u16::try_from(status).map_err(|_| at(format!("status_code: {status}")))
                    })
                    .transpose()?,
                body: mapper.body.as_ref().map(text).transpose().map_err(at)?,
                format: mapper
                    .body_format_override
                    .as_ref()
                    .map(BodyFormat::compile)
                    .transpose()
                    .map_err(at)?,
                headers: HeaderMutations::compile(&mapper.headers_to_add, &[])
                    .map_err(|error| at(error.to_string()))?,
            });
        }
        Ok(Self {
            mappers,
            format: config
                .body_format
                .as_ref()
                .map(BodyFormat::compile)
                .transpose()
                .map_err(|error| format!("local_reply_config.body_format: {error}"))?,
        })
    }

    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.mappers.is_empty() && self.format.is_none()
    }

    /// Changes a reply: the first mapper whose filter lets it pass, then the body's format. `info` gives the stream with
    /// the status and the body it is called with.
    pub fn apply(
        &self,
        reply: &mut Reply,
        headers: &mut HeaderMap,
        info: impl Fn(u16, &str, &mut dyn FnMut(&StreamInfo<'_>)),
        random: &mut dyn FnMut() -> u64,
    ) {
        let mut chosen = None;
        info(reply.status, &reply.body, &mut |info| {
            chosen = self
                .mappers
                .iter()
                .find(|mapper| mapper.filter.passes(Moment::NotSet, info, random));
        });
        if let Some(mapper) = chosen {
            if let Some(status) = mapper.status {
                reply.status = status;
            }
            if let Some(body) = &mapper.body {
                reply.body.clone_from(body);
            }
            info(reply.status, &reply.body, &mut |info| {
                mapper.headers.apply_response(headers, info);
            });
        }
        if let Some(format) = chosen
            .and_then(|mapper| mapper.format.as_ref())
            .or(self.format.as_ref())
        {
            let mut body = String::new();
            info(reply.status, &reply.body, &mut |info| {
                format.formatter.format(info, &mut body)
            });
            reply.body = body;
            reply.content_type.clone_from(&format.content_type);
        }
    }
}
