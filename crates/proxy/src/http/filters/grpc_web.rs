//! `grpc_web`: browsers speak gRPC with trailers in the body.

use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode};

use crate::body::{Body, BodyError, Frame, Source};

/// How a gRPC-Web client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// In base64.
    text: bool,
    /// It says `+proto`.
    proto: bool,
}

impl Dialect {
    /// The dialect of a request; `None` when it is no gRPC-Web.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let (text, proto) = match headers.get(header::CONTENT_TYPE)?.to_str().ok()? {
            "application/grpc-web" => (false, false),
            "application/grpc-web+proto" => (false, true),
            "application/grpc-web-text" => (true, false),
            "application/grpc-web-text+proto" => (true, true),
            _ => return None,
        };
        Some(Self { text, proto })
    }

    /// Makes the head of a request that of a gRPC request. Whether the body must be decoded.
    pub fn request(self, headers: &mut HeaderMap) -> bool {
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
        headers.remove(header::CONTENT_LENGTH);
        self.text
    }

    /// Makes a gRPC answer one that the client understands.
    pub fn response(self, status: StatusCode, headers: &mut HeaderMap, body: Body) -> Body {
        let grpc = headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        if status != StatusCode::OK || !grpc {
            return body;
        }
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(match (self.text, self.proto) {
                (false, false) => "application/grpc-web",
                (false, true) => "application/grpc-web+proto",
                (true, false) => "application/grpc-web-text",
                (true, true) => "application/grpc-web-text+proto",
            }),
        );
        headers.remove(header::CONTENT_LENGTH);
        Body::Boxed(Box::new(ToWeb {
            body,
            text: self.text,
            rest: BytesMut::new(),
            ended: false,
        }))
    }
}

/// The trailers as the last message of the body.
fn trailer_frame(trailers: &HeaderMap) -> Bytes {
    let mut text = String::new();
    for (name, value) in trailers {
        text.push_str(&format!(
            "{name}:{}\r\n",
            String::from_utf8_lossy(value.as_bytes())
        ));
    }
    let mut out = BytesMut::with_capacity(5 + text.len());
    out.put_u8(0x80);
    out.put_u32(text.len() as u32);
    out.put_slice(text.as_bytes());
    out.freeze()
}

struct ToWeb {
    body: Body,
    text: bool,
    /// Bytes that do not fill a group of base64 yet.
    rest: BytesMut,
    ended: bool,
}

impl ToWeb {
    fn encode(&mut self, data: Bytes, last: bool) -> Bytes {
        if !self.text {
            return data;
        }
        self.rest.extend_from_slice(&data);
        let whole = if last {
            self.rest.len()
        } else {
            self.rest.len() / 3 * 3
        };
        let group = self.rest.split_to(whole);
        Bytes::from(STANDARD.encode(group))
    }
}

impl Source for ToWeb {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            let frame = match self.body.poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(frame))) => Some(frame),
                Poll::Ready(None) => None,
            };
            let out = match frame {
                Some(Frame::Data(data)) => self.encode(data, false),
                Some(Frame::Trailers(trailers)) => {
                    self.ended = true;
                    self.encode(trailer_frame(&trailers), true)
                }
                None => {
                    self.ended = true;
                    self.encode(Bytes::new(), true)
                }
            };
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::Data(out))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
        }
    }
}

/// A request body out of base64, in pieces of any size.
pub struct FromText {
    body: Body,
    rest: BytesMut,
    ended: bool,
}

impl FromText {
    /// Decodes this body.
    pub fn new(body: Body) -> Self {
        Self {
            body,
            rest: BytesMut::new(),
            ended: false,
        }
    }
}

impl Source for FromText {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            match self.body.poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(Frame::Data(data)))) => self.rest.extend_from_slice(&data),
                Poll::Ready(Some(other)) => return Poll::Ready(Some(other)),
                Poll::Ready(None) => {
                    self.ended = true;
                    if !self.rest.is_empty() {
                        return Poll::Ready(Some(Err(BodyError::Protocol)));
                    }
                    return Poll::Ready(None);
                }
            }
            let whole = self.rest.len() / 4 * 4;
            if whole == 0 {
                continue;
            }
            let groups = self.rest.split_to(whole);
            // Each message may be padded on its own: groups are decoded one by one where the whole is not.
            let decoded = STANDARD.decode(&groups).or_else(|_| {
                groups.chunks(4).try_fold(Vec::new(), |mut all, group| {
                    all.extend(STANDARD.decode(group)?);
                    Ok::<_, base64::DecodeError>(all)
                })
            });
            return Poll::Ready(Some(match decoded {
                Ok(bytes) => Ok(Frame::Data(bytes.into())),
                Err(_) => Err(BodyError::Protocol),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    fn read(mut body: Body) -> Vec<u8> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut all = Vec::new();
        while let Poll::Ready(Some(frame)) = body.poll_frame(&mut cx) {
            match frame.expect("no error") {
                Frame::Data(data) => all.extend_from_slice(&data),
                Frame::Trailers(_) => panic!("a browser cannot read trailers"),
            }
        }
        all
    }

    #[test]
    fn trailers_become_the_last_message() {
        let mut request = HeaderMap::new();
        request.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc-web-text+proto"),
        );
        let dialect = Dialect::of(&request).expect("gRPC-Web");
        assert!(dialect.request(&mut request), "text must be decoded");
        assert_eq!(request[header::CONTENT_TYPE], "application/grpc");
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let body = Body::Chained(
            VecDeque::from([
                Frame::Data(Bytes::from_static(b"\0\0\0\0\x01a")),
                Frame::Trailers(trailers),
            ]),
            Box::new(Body::Empty),
        );
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        let body = dialect.response(StatusCode::OK, &mut headers, body);
        assert_eq!(
            headers[header::CONTENT_TYPE],
            "application/grpc-web-text+proto"
        );
        let bytes = read(Body::Boxed(Box::new(FromText::new(Body::full(read(body))))));
        assert_eq!(bytes, b"\0\0\0\0\x01a\x80\0\0\0\x0fgrpc-status:0\r\n");
    }
}
