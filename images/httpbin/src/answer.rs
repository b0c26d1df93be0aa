//! An answer, before it becomes a message.

use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::Value;

/// An answer.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// One part has a length; several are sent one after another in chunks.
    pub parts: Vec<Bytes>,
    pub chunked: bool,
    pub delay: Duration,
}

impl Answer {
    pub fn new(status: u16) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            ..Self::default()
        }
    }

    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self::new(status)
            .kind("text/plain; charset=utf-8")
            .body(text.into())
    }

    /// Indented by two, with a newline at the end, as both programs do.
    pub fn json(value: &Value) -> Self {
        Self::new(200)
            .kind("application/json")
            .body(format!("{value:#}\n"))
    }

    pub fn kind(self, kind: &'static str) -> Self {
        self.header(CONTENT_TYPE, HeaderValue::from_static(kind))
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.parts = vec![body.into()];
        self
    }

    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub fn into_response(self) -> Response<BoxBody<Bytes, std::convert::Infallible>> {
        let body = if self.chunked {
            let frames = self.parts.into_iter().map(|part| Ok(Frame::data(part)));
            StreamBody::new(stream::iter(frames)).boxed()
        } else {
            Full::new(self.parts.into_iter().next().unwrap_or_default()).boxed()
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert("access-control-allow-origin", HeaderValue::from_static("*"));
        headers.insert(
            "access-control-allow-credentials",
            HeaderValue::from_static("true"),
        );
        for (name, value) in self.headers {
            if headers.contains_key(&name) && name == CONTENT_TYPE {
                headers.insert(name, value);
            } else {
                headers.append(name, value);
            }
        }
        response
    }
}
