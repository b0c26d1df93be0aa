//! A small HTTP client that shows answers as they came.

use axum::body::Body;
use axum::http::{HeaderMap, Request};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The message of a JSON error, once it is known to be one with this status.
    pub fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "seen {self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/json; charset=utf-8"),
            "seen {self:?}"
        );
        let document = self.json();
        assert_eq!(document["error"]["code"], status, "seen {document}");
        document["error"]["message"]
            .as_str()
            .expect("a message")
            .to_owned()
    }
}

/// Sends a request; `Err` when there was no answer.
pub async fn try_send(request: Request<Body>) -> Result<Answer, String> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let response = client.request(request).await.map_err(|e| e.to_string())?;
    let (parts, body) = response.into_parts();
    Ok(Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: body.collect().await.map_err(|e| e.to_string())?.to_bytes(),
    })
}

pub async fn send(request: Request<Body>) -> Answer {
    let shown = format!("{} {}", request.method(), request.uri());
    try_send(request)
        .await
        .unwrap_or_else(|error| panic!("{shown}: {error}"))
}

pub async fn get(url: &str) -> Answer {
    send(Request::get(url).body(Body::empty()).unwrap()).await
}

/// POSTs a text as JSON.
pub async fn post(url: &str, body: impl Into<String>) -> Answer {
    let request = Request::post(url)
        .header("content-type", "application/json")
        .body(Body::from(body.into()));
    send(request.unwrap()).await
}
