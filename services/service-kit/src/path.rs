//! Ids in paths.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use crate::{Error, Result};

/// The one parameter of a path like `/users/{id}`; if it is not text, the error is JSON like any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Id(
    /// The parameter, with percent-encoding undone.
    pub String,
);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let Path(id) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| Error::BadRequest("the id in the path is not UTF-8 text".into()))?;
        Ok(Self(id))
    }
}
