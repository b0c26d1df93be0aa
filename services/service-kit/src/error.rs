//! Errors as clients see them: a status and a JSON body with a message, always.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// What went wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The client sent something that cannot be used (400).
    #[error("{0}")]
    BadRequest(String),
    /// There is nothing with that id (404).
    #[error("{0}")]
    NotFound(String),
    /// The path exists, the verb does not (405).
    #[error("{method} is not supported here")]
    MethodNotAllowed {
        /// The verb that was used.
        method: String,
    },
    /// Somebody else was first (409).
    #[error("{0}")]
    Conflict(String),
    /// The body is larger than a service reads (413).
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// The most bytes that are read.
        limit: usize,
    },
    /// The body is not JSON (415).
    #[error("the body must be JSON: send the header content-type: application/json")]
    UnsupportedMediaType,
    /// Another service did not answer (502).
    #[error("{0}")]
    BadGateway(String),
    /// The store did not answer (503).
    #[error("the store is not available: {0}")]
    StoreUnavailable(String),
    /// The service is at fault (500).
    #[error("{0}")]
    Internal(String),
}

/// A result whose error is an answer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BadGateway(_) => StatusCode::BAD_GATEWAY,
            Self::StoreUnavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = self.status();
        let body = json!({"error": {"code": status.as_u16(), "message": self.to_string()}});
        let mut response = (status, body.to_string()).into_response();
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json; charset=utf-8"),
        );
        response
    }
}
