//! `compressor`: answers are compressed with gzip for clients that accept it.

use std::io::Write;
use std::sync::Arc;
use std::task::{Context, Poll};

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode};
use xds::envoy::extensions::compression::gzip::compressor::v3::Gzip;
use xds::envoy::extensions::filters::http::compressor::v3 as config;

use super::FilterContext;
use crate::body::{Body, BodyError, Frame, Source};
use crate::stats::groups::CompressorStats;

/// What is compressed when the configuration does not say.
const TYPES: [&str; 9] = [
    "application/javascript",
    "application/json",
    "application/xhtml+xml",
    "image/svg+xml",
    "text/css",
    "text/html",
    "text/plain",
    "text/xml",
    "application/xml",
];

/// The libraries whose encodings are not offered.
const NOT_OFFERED: [&str; 2] = [
    "envoy.extensions.compression.brotli.compressor.v3.Brotli",
    "envoy.extensions.compression.zstd.compressor.v3.Zstd",
];

/// The filter, compiled.
pub struct Compressor {
    enabled: bool,
    min: u64,
    types: Vec<String>,
    not_with_etag: bool,
    remove_accept_encoding: bool,
    level: Compression,
    stats: Arc<CompressorStats>,
}

impl Compressor {
    /// Compiles the filter; `None` for the encodings `br` and `zstd`, which are not there: clients agree with a
    /// server on an encoding (RFC 9110, 12.5.3), so those who asked for one of them get the same content as it is.
    ///
    /// # Errors
    /// The field that cannot be carried out.
    #[allow(deprecated)]
    pub fn compile(
        config: &config::Compressor,
        context: &FilterContext<'_>,
    ) -> Result<Option<Self>, String> {
        let library = config
            .compressor_library
            .as_ref()
            .ok_or("compressor_library: is missing")?;
        let settings = library
            .typed_config
            .as_ref()
            .ok_or("compressor_library.typed_config: is missing")?;
        if NOT_OFFERED.contains(&xds::any::message_name(settings)) {
            return Ok(None);
        }
        let gzip = xds::any::unpack::<Gzip>(settings)
            .map_err(|error| format!("compressor_library.typed_config: {error}"))?
            .ok_or("compressor_library: only gzip, brotli and zstd are known")?;
        if config
            .request_direction_config
            .as_ref()
            .and_then(|request| request.common_config.as_ref())
            .is_some_and(|common| common.enabled.is_some())
        {
            return Err("request_direction_config: is not supported".into());
        }
        let response = config.response_direction_config.clone().unwrap_or_default();
        for (field, set) in [
            ("weaken_etag_on_compress", response.weaken_etag_on_compress),
            ("status_header_enabled", response.status_header_enabled),
            (
                "uncompressible_response_codes",
                !response.uncompressible_response_codes.is_empty(),
            ),
            (
                "common_config.content_type_matcher",
                response
                    .common_config
                    .as_ref()
                    .is_some_and(|common| !common.content_type_matcher.is_empty()),
            ),
        ] {
            if set {
                return Err(format!(
                    "response_direction_config.{field}: is not supported"
                ));
            }
        }
        let common = response.common_config.unwrap_or_default();
        let first = |a: Vec<String>, b: &[String]| if a.is_empty() { b.to_vec() } else { a };
        let mut types = first(common.content_type, &config.content_type);
        if types.is_empty() {
            types = TYPES.map(str::to_owned).to_vec();
        }
        Ok(Some(Self {
            enabled: common
                .enabled
                .as_ref()
                .and_then(|flag| flag.default_value)
                .unwrap_or(true),
            min: common
                .min_content_length
                .or(config.content_length)
                .map_or(30, u64::from),
            types,
            not_with_etag: response.disable_on_etag_header || config.disable_on_etag_header,
            remove_accept_encoding: response.remove_accept_encoding_header
                || config.remove_accept_encoding_header,
            // The enumeration names the levels by their numbers; 0 is the default.
            level: match gzip.compression_level {
                level @ 1..=9 => Compression::new(level as u32),
                _ => Compression::default(),
            },
            stats: context.shared.stats.group(&format!(
                "http.{}.compressor.{}.gzip",
                context.stat_prefix, library.name
            )),
        }))
    }

    /// Looks at a request: whether its answer may be compressed.
    pub fn request(&self, headers: &mut HeaderMap) -> bool {
        let accepts = self.enabled
            && headers
                .get_all(header::ACCEPT_ENCODING)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .any(accepts_gzip);
        if self.enabled {
            if accepts {
                self.stats.header_compressor_used.inc();
            } else {
                self.stats.no_accept_header.inc();
            }
        }
        if self.remove_accept_encoding && self.enabled {
            headers.remove(header::ACCEPT_ENCODING);
        }
        accepts
    }

    /// Compresses an answer, if it is of a kind that is compressed.
    pub fn response(&self, status: StatusCode, headers: &mut HeaderMap, body: Body) -> Body {
        if !self.fits(status, headers) || matches!(body, Body::Empty | Body::Tunnel(_)) {
            self.stats.not_compressed.inc();
            return body;
        }
        self.stats.compressed.inc();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.remove(header::CONTENT_LENGTH);
        // What is compressed is no longer the same, byte by byte.
        if let Some(etag) = headers.get(header::ETAG)
            && !etag.as_bytes().starts_with(b"W/")
        {
            headers.remove(header::ETAG);
        }
        let varies = headers
            .get_all(header::VARY)
            .iter()
            .any(|value| value.as_bytes().eq_ignore_ascii_case(b"accept-encoding"));
        if !varies {
            headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        Body::Boxed(Box::new(Gzipped {
            body,
            encoder: Some(GzEncoder::new(Vec::new(), self.level)),
            trailers: None,
        }))
    }

    fn fits(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let text = |name| {
            headers
                .get(name)
                .and_then(|value: &HeaderValue| value.to_str().ok())
        };
        let kind = text(header::CONTENT_TYPE)
            .and_then(|value| value.split(';').next())
            .map(|kind| kind.trim().to_ascii_lowercase());
        let long = match text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok())
        {
            Some(length) => length >= self.min,
            None => true,
        };
        long && status != StatusCode::PARTIAL_CONTENT
            && !headers.contains_key(header::CONTENT_ENCODING)
            && !text(header::CACHE_CONTROL).is_some_and(|value| value.contains("no-transform"))
            && kind.is_none_or(|kind| self.types.contains(&kind))
            && !(self.not_with_etag && headers.contains_key(header::ETAG))
    }
}

/// Whether an `accept-encoding` lets gzip in.
fn accepts_gzip(value: &str) -> bool {
    let weight = |part: &str| {
        part.split(';')
            .skip(1)
            .find_map(|parameter| parameter.trim().strip_prefix("q=")?.parse::<f32>().ok())
            .unwrap_or(1.0)
    };
    let named = |name: &str| {
        value.split(',').find(|part| {
            let coding = part.split(';').next().unwrap_or_default().trim();
            coding.eq_ignore_ascii_case(name)
        })
    };
    named("gzip")
        .or_else(|| named("*"))
        .is_some_and(|part| weight(part) > 0.0)
}

struct Gzipped {
    body: Body,
    encoder: Option<GzEncoder<Vec<u8>>>,
    trailers: Option<HeaderMap>,
}

impl Source for Gzipped {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::Trailers(trailers))));
        }
        loop {
            let Some(encoder) = &mut self.encoder else {
                return Poll::Ready(None);
            };
            match self.body.poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(Frame::Data(data)))) => {
                    // Writing into memory does not fail; what came so far must reach the client now.
                    if encoder
                        .write_all(&data)
                        .and_then(|()| encoder.flush())
                        .is_err()
                    {
                        return Poll::Ready(Some(Err(BodyError::Protocol)));
                    }
                    let out = std::mem::take(encoder.get_mut());
                    if !out.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::Data(out.into()))));
                    }
                }
                Poll::Ready(end) => {
                    if let Some(Ok(Frame::Trailers(trailers))) = end {
                        self.trailers = Some(trailers);
                    }
                    let rest = self.encoder.take().map(GzEncoder::finish);
                    return Poll::Ready(match rest {
                        Some(Ok(rest)) => Some(Ok(Frame::Data(rest.into()))),
                        _ => Some(Err(BodyError::Protocol)),
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_must_be_accepted() {
        for (value, accepted) in [
            ("gzip", true),
            ("deflate, gzip;q=0.5", true),
            ("gzip;q=0", false),
            ("br", false),
            ("*", true),
            ("", false),
        ] {
            assert_eq!(accepts_gzip(value), accepted, "{value:?}");
        }
    }
}
