//! `decompressor`: bodies that come compressed with gzip go on as they were.

use std::io::Write;
use std::sync::Arc;
use std::task::{Context, Poll};

use flate2::write::MultiGzDecoder;
use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};
use xds::envoy::extensions::compression::gzip::decompressor::v3::Gzip;
use xds::envoy::extensions::filters::http::decompressor::v3 as config;

use super::FilterContext;
use crate::body::{Body, BodyError, Frame, Source};
use crate::stats::groups::DecompressorStats;

/// The filter, compiled.
pub struct Decompressor {
    advertise: bool,
    request: Direction,
    response: Direction,
}

struct Direction {
    enabled: bool,
    ignore_no_transform: bool,
    /// The names of the trailers that tell sizes.
    trailers: [HeaderName; 2],
    stats: Arc<DecompressorStats>,
}

impl Decompressor {
    /// Compiles the filter.
    ///
    /// # Errors
    /// The field that cannot be carried out.
    pub fn compile(
        config: &config::Decompressor,
        context: &FilterContext<'_>,
    ) -> Result<Self, String> {
        let library = config.decompressor_library.as_ref();
        let library = library.ok_or("decompressor_library: is missing")?;
        let settings = library.typed_config.as_ref();
        let settings = settings.ok_or("decompressor_library.typed_config: is missing")?;
        xds::any::unpack::<Gzip>(settings)
            .map_err(|error| format!("decompressor_library.typed_config: {error}"))?
            .ok_or_else(|| {
                let name = xds::any::message_name(settings);
                format!("decompressor_library: {name} is not supported, only gzip")
            })?;
        let direction =
            |name: &str, common: Option<&config::decompressor::CommonDirectionConfig>| {
                let trailer = |what: &str| {
                    let text = format!("x-envoy-decompressor-{}-{what}", library.name);
                    HeaderName::try_from(text)
                        .map_err(|_| format!("decompressor_library.name: {:?}", library.name))
                };
                let flag = common.and_then(|common| common.enabled.as_ref());
                Ok::<_, String>(Direction {
                    enabled: flag.and_then(|flag| flag.default_value).unwrap_or(true),
                    ignore_no_transform: common
                        .is_some_and(|common| common.ignore_no_transform_header),
                    trailers: [trailer("compressed-bytes")?, trailer("uncompressed-bytes")?],
                    stats: context.shared.stats.group(&format!(
                        "http.{}.decompressor.{}.gzip.{name}",
                        context.stat_prefix, library.name
                    )),
                })
            };
        let request = config.request_direction_config.as_ref();
        let response = config.response_direction_config.as_ref();
        Ok(Self {
            advertise: request
                .and_then(|request| request.advertise_accept_encoding)
                .unwrap_or(true),
            request: direction(
                "request",
                request.and_then(|request| request.common_config.as_ref()),
            )?,
            response: direction(
                "response",
                response.and_then(|response| response.common_config.as_ref()),
            )?,
        })
    }

    /// Asks the upstream for compressed answers.
    pub fn advertise(&self, headers: &mut HeaderMap) {
        if self.response.enabled && self.advertise {
            let said = headers.get(header::ACCEPT_ENCODING);
            let said = said.and_then(|said| said.to_str().ok()).unwrap_or_default();
            if !said
                .split(',')
                .any(|coding| coding.trim().starts_with("gzip"))
            {
                let all = match said {
                    "" => "gzip".to_owned(),
                    said => format!("{said},gzip"),
                };
                if let Ok(value) = HeaderValue::try_from(all) {
                    headers.insert(header::ACCEPT_ENCODING, value);
                }
            }
        }
    }

    /// Looks at a request with a body; `Some` when that is to be wrapped.
    pub fn request(&self, headers: &mut HeaderMap) -> Option<impl FnOnce(Body) -> Body + use<>> {
        self.request.begin(headers)
    }

    /// Changes an answer.
    pub fn response(&self, headers: &mut HeaderMap, body: Body) -> Body {
        if matches!(body, Body::Empty | Body::Tunnel(_)) {
            return body;
        }
        match self.response.begin(headers) {
            Some(wrap) => wrap(body),
            None => body,
        }
    }
}

impl Direction {
    fn begin(&self, headers: &mut HeaderMap) -> Option<impl FnOnce(Body) -> Body + use<>> {
        let text = |name: HeaderName| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let codings = text(header::CONTENT_ENCODING);
        // What was encoded last stands first here, as Envoy reads it.
        let (first, rest) = match codings.split_once(',') {
            Some((first, rest)) => (first, Some(rest.trim().to_owned())),
            None => (codings.as_str(), None),
        };
        let transform = self.ignore_no_transform
            || !text(header::CACHE_CONTROL)
                .to_ascii_lowercase()
                .contains("no-transform");
        if !self.enabled || !transform || !first.trim().eq_ignore_ascii_case("gzip") {
            self.stats.not_decompressed.inc();
            return None;
        }
        self.stats.decompressed.inc();
        headers.remove(header::CONTENT_LENGTH);
        match rest.and_then(|rest| HeaderValue::try_from(rest).ok()) {
            Some(rest) => drop(headers.insert(header::CONTENT_ENCODING, rest)),
            None => drop(headers.remove(header::CONTENT_ENCODING)),
        }
        let (stats, names) = (self.stats.clone(), self.trailers.clone());
        Some(move |body| {
            Body::Boxed(Box::new(Unzipped {
                body,
                decoder: Some(MultiGzDecoder::new(Vec::new())),
                read: 0,
                written: 0,
                names,
                stats,
            }))
        })
    }
}

struct Unzipped {
    body: Body,
    decoder: Option<MultiGzDecoder<Vec<u8>>>,
    read: u64,
    written: u64,
    names: [HeaderName; 2],
    stats: Arc<DecompressorStats>,
}

/// A body may grow this much; what grows more is made to fill memory.
const MAX_INFLATE: u64 = 100;
/// Up to this size it may grow as it likes.
const ALWAYS_FINE: u64 = 1024 * 1024;

impl Source for Unzipped {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        loop {
            let Some(decoder) = &mut self.decoder else {
                return Poll::Ready(None);
            };
            match self.body.poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(Frame::Data(data)))) => {
                    self.read += data.len() as u64;
                    self.stats.total_compressed_bytes.add(data.len() as u64);
                    if decoder
                        .write_all(&data)
                        .and_then(|()| decoder.flush())
                        .is_err()
                    {
                        return Poll::Ready(Some(Err(BodyError::Protocol)));
                    }
                    let out = std::mem::take(decoder.get_mut());
                    self.written += out.len() as u64;
                    self.stats.total_uncompressed_bytes.add(out.len() as u64);
                    if self.written > ALWAYS_FINE && self.written / MAX_INFLATE > self.read {
                        return Poll::Ready(Some(Err(BodyError::Protocol)));
                    }
                    if !out.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::Data(out.into()))));
                    }
                }
                Poll::Ready(end) => {
                    let mut trailers = match end {
                        Some(Ok(Frame::Trailers(trailers))) => trailers,
                        _ => HeaderMap::new(),
                    };
                    let [read, written] = self.names.clone();
                    trailers.insert(read, self.read.into());
                    trailers.insert(written, self.written.into());
                    self.decoder = None;
                    return Poll::Ready(Some(Ok(Frame::Trailers(trailers))));
                }
            }
        }
    }
}
