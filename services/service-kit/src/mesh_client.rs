//! Calls to other services, by name and in plain HTTP: the sidecar does the rest.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, Request, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::{Error, Result, TraceContext};

/// The most bytes of an answer that are read.
const ANSWER_LIMIT: usize = 1024 * 1024;

/// A client with a connection pool; clones share it.
#[derive(Debug, Clone)]
pub struct MeshClient {
    client: Client<HttpConnector, Empty<Bytes>>,
    limit: Duration,
}

impl MeshClient {
    /// A client whose calls, from connection to last byte, take at most `limit`.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(limit));
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            limit,
        }
    }

    /// GETs a JSON document.
    ///
    /// # Errors
    /// [`Error::BadGateway`] when there is no answer in time, its status is not 2xx, or it is not JSON.
    pub async fn get(&self, url: &str, trace: &TraceContext) -> Result<Value> {
        let failed = |why: String| Error::BadGateway(format!("GET {url}: {why}"));
        let uri: Uri = url
            .parse()
            .map_err(|error| failed(format!("not a URL: {error}")))?;
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(uri)
            .header(header::ACCEPT, "application/json")
            .body(Empty::new())
            .map_err(|error| failed(error.to_string()))?;
        trace.apply(request.headers_mut());
        let call = async {
            let response = self
                .client
                .request(request)
                .await
                .map_err(|error| failed(error.to_string()))?;
            let status = response.status();
            if !status.is_success() {
                return Err(failed(format!("status {status}")));
            }
            let body = Limited::new(response.into_body(), ANSWER_LIMIT)
                .collect()
                .await
                .map_err(|error| failed(error.to_string()))?
                .to_bytes();
            serde_json::from_slice(&body).map_err(|error| failed(format!("not JSON: {error}")))
        };
        tokio::time::timeout(self.limit, call)
            .await
            .unwrap_or_else(|_| Err(failed(format!("no answer within {:?}", self.limit))))
    }
}
