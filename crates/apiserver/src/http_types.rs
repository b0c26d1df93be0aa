//! Requests and answers as the handlers see them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Body as _, Frame, Incoming};
use parking_lot::Mutex;
use serde_json::Value;

use crate::authn::User;
use crate::error::{ApiError, ApiResult};
use crate::target::Query;

/// Largest request body: etcd's request limit times two, as the real API server has it.
pub(crate) const BODY_LIMIT: usize = 3 * 1024 * 1024;
/// How long a client may take to send a body.
const BODY_TIME: Duration = Duration::from_secs(60);

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;
pub(crate) type Answer = Response<Body>;

/// One authenticated request.
pub(crate) struct Request {
    pub method: Method,
    pub path: String,
    pub query: Query,
    /// The query as it came.
    pub raw_query: String,
    pub headers: HeaderMap,
    pub user: Arc<User>,
    /// Taken by the handler that reads it, or by the one that forwards it.
    pub body: Mutex<Option<Incoming>>,
    /// Reading the body was given up in the middle.
    pub cut: AtomicBool,
    pub upgrade: Mutex<Option<hyper::upgrade::OnUpgrade>>,
    /// Texts for `Warning` headers of the answer.
    pub warnings: Mutex<Vec<String>>,
}

impl Request {
    pub fn header(&self, name: header::HeaderName) -> &str {
        self.headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("")
    }

    /// The media type of the body, without parameters.
    pub fn content_type(&self) -> &str {
        self.header(header::CONTENT_TYPE)
            .split(';')
            .next()
            .unwrap_or("")
            .trim()
    }

    /// The whole body, bounded in size and time.
    pub async fn read_body(&self) -> ApiResult<Bytes> {
        let Some(body) = self.body.lock().take() else {
            return Ok(Bytes::new());
        };
        let limited = Limited::new(body, BODY_LIMIT).collect();
        let read = tokio::time::timeout(BODY_TIME, limited).await;
        if !matches!(read, Ok(Ok(_))) {
            self.cut.store(true, Ordering::Relaxed);
        }
        match read {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => Err(ApiError::too_large(
                format!("Request entity too large: limit is {BODY_LIMIT}"),
            )),
            Ok(Err(e)) => Err(ApiError::bad_request(format!(
                "the body could not be read: {e}"
            ))),
            Err(_) => Err(ApiError::new(
                408,
                "Timeout",
                "the body of the request did not arrive in time",
            )),
        }
    }
}

/// Reads away what nobody wanted of a request, so that the next one on its connection is found: as much as Go's server does. False: there
/// is more, and the connection cannot be used again.
pub(crate) async fn drain(mut body: Incoming) -> bool {
    /// Bytes that are read away at most.
    const LIMIT: u64 = 256 << 10;
    /// How long a client may take to send them.
    const PATIENCE: Duration = Duration::from_secs(1);
    if body.size_hint().lower() > LIMIT {
        return false;
    }
    let read = async {
        let mut seen = 0;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            seen += frame.data_ref().map_or(0, |data| data.len() as u64);
            if seen > LIMIT {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(PATIENCE, read).await.unwrap_or(false)
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

pub(crate) fn bytes_answer(
    code: StatusCode,
    content_type: &'static str,
    bytes: impl Into<Bytes>,
) -> Answer {
    let mut answer = Response::new(full(bytes));
    *answer.status_mut() = code;
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    answer.extensions_mut().insert(Whole);
    answer
}

/// Marks an answer whose body is at hand: it is the server's own, and no stream.
#[derive(Clone)]
struct Whole;

/// Does somebody look at the answer? Then JSON is indented: who asks with `pretty`, and where that is not said, browsers and curl.
pub(crate) fn for_people(query: &Query, user_agent: &str) -> bool {
    match query.text("pretty") {
        "" => ["curl", "Wget", "Mozilla/5.0"]
            .iter()
            .any(|tool| user_agent.starts_with(tool)),
        wanted => api::go::strconv::parse_bool(wanted).unwrap_or(false),
    }
}

/// The same answer, its JSON indented.
pub(crate) async fn indented(answer: Answer) -> Answer {
    let json = answer
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/json");
    if !json || answer.extensions().get::<Whole>().is_none() {
        return answer;
    }
    let (head, body) = answer.into_parts();
    let Ok(body) = body.collect().await else {
        return json_answer(StatusCode::INTERNAL_SERVER_ERROR, &Value::Null);
    };
    let bytes = body.to_bytes();
    let text = serde_json::from_slice::<Value>(&bytes)
        .and_then(|value| serde_json::to_vec_pretty(&value))
        .map_or(bytes, Bytes::from);
    Response::from_parts(head, full(text))
}

pub(crate) fn json_answer(code: StatusCode, value: &Value) -> Answer {
    let mut text = value.to_string();
    text.push('\n');
    bytes_answer(code, "application/json", text)
}

pub(crate) fn text_answer(code: StatusCode, text: impl Into<Bytes>) -> Answer {
    bytes_answer(code, "text/plain; charset=utf-8", text)
}

pub(crate) fn error_answer(e: &ApiError) -> Answer {
    let code = StatusCode::from_u16(e.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // The real server's router answers so before anything knows Status; clients then name what they asked for.
    if *e == ApiError::no_such_path() {
        return text_answer(code, "404 page not found\n");
    }
    let mut answer = json_answer(code, &e.to_value());
    if let Some(seconds) = e.details.get("retryAfterSeconds").and_then(Value::as_u64) {
        answer
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    answer
}

/// A body that is produced as it is read.
pub(crate) fn stream_body<S>(stream: S) -> Body
where
    S: futures::Stream<Item = Result<Bytes, BoxError>> + Send + 'static,
{
    use futures::StreamExt;
    StreamBody::new(stream.map(|chunk| chunk.map(Frame::data))).boxed_unsync()
}

/// The same body, which keeps something until it is sent or given up.
pub(crate) fn keeping<T: Send + 'static>(body: Body, kept: T) -> Body {
    let pass = move |frame| {
        let _ = &kept;
        frame
    };
    body.map_frame(pass).boxed_unsync()
}
