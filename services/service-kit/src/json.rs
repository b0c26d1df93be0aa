//! JSON in and out, with limits and messages of our own.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// The most bytes of a body that are read.
pub const BODY_LIMIT: usize = 64 * 1024;

/// A JSON body: read with a limit, written on one line in UTF-8 as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(
    /// The value.
    pub T,
);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _state: &S) -> Result<Self> {
        let declared = request
            .headers()
            .get(header::CONTENT_TYPE)
            .map(|value| value.to_str().unwrap_or_default().to_ascii_lowercase());
        // curl -d without -H sends a form type; a body that is JSON is taken all the same.
        let refused = declared.as_deref().is_some_and(|value| {
            !value.contains("json")
                && !value.starts_with("text/plain")
                && !value.starts_with("application/x-www-form-urlencoded")
        });
        if refused {
            return Err(Error::UnsupportedMediaType);
        }
        let body = read_body(request).await?;
        parse(&body).map(Self)
    }
}

/// Reads a document; what is wrong with it is said together with the field it is wrong in.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    let invalid = |why: String| Error::BadRequest(format!("the body is not valid: {why}"));
    let mut reader = serde_json::Deserializer::from_slice(body);
    let document = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = error.path().to_string();
        match field.as_str() {
            "." => invalid(error.into_inner().to_string()),
            field => invalid(format!("{field}: {}", error.inner())),
        }
    })?;
    reader.end().map_err(|error| invalid(error.to_string()))?;
    Ok(document)
}

async fn read_body(request: Request) -> Result<Bytes> {
    match Limited::new(request.into_body(), BODY_LIMIT)
        .collect()
        .await
    {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Error::TooLarge { limit: BODY_LIMIT }),
        Err(error) => Err(Error::BadRequest(format!(
            "the body could not be read: {error}"
        ))),
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_string(&self.0) {
            Ok(mut text) => {
                text.push('\n');
                let content_type = HeaderValue::from_static("application/json; charset=utf-8");
                (StatusCode::OK, [(header::CONTENT_TYPE, content_type)], text).into_response()
            }
            Err(error) => Error::Internal(error.to_string()).into_response(),
        }
    }
}

/// A text a person typed: trimmed, not empty, at most `longest` characters, without control characters.
///
/// # Errors
/// [`Error::BadRequest`] that names the field.
pub fn text_field(field: &str, value: &str, longest: usize) -> Result<String> {
    let text = value.trim();
    if text.is_empty() {
        return Err(Error::BadRequest(format!("{field} must not be empty")));
    }
    if text.chars().count() > longest {
        return Err(Error::BadRequest(format!(
            "{field} must have at most {longest} characters"
        )));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::BadRequest(format!(
            "{field} must not contain control characters"
        )));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    async fn read(content_type: Option<&str>, body: &str) -> Result<Json<serde_json::Value>> {
        let mut builder = Request::builder().method("POST");
        if let Some(value) = content_type {
            builder = builder.header(header::CONTENT_TYPE, value);
        }
        let request = builder.body(Body::from(body.to_owned())).unwrap();
        Json::from_request(request, &()).await
    }

    #[tokio::test]
    async fn bodies_are_json_within_the_limit() {
        assert!(read(Some("application/json"), "{}").await.is_ok());
        assert!(
            read(Some("application/x-www-form-urlencoded"), "{}")
                .await
                .is_ok()
        );
        assert!(matches!(
            read(Some("image/png"), "{}").await,
            Err(Error::UnsupportedMediaType)
        ));
        assert!(matches!(read(None, "{").await, Err(Error::BadRequest(_))));
        let large = format!("\"{}\"", "x".repeat(BODY_LIMIT));
        assert!(matches!(
            read(None, &large).await,
            Err(Error::TooLarge { limit: BODY_LIMIT })
        ));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_field() {
        #[derive(Debug, serde::Deserialize)]
        #[allow(dead_code)]
        struct Movie {
            title: String,
            year: u16,
        }
        for (body, told) in [
            (r#"{"title": "x"}"#, "missing field `year`"),
            (r#"{"title": "x", "year": "y"}"#, "year: invalid type"),
            (r#"{"title": "x", "year": 1}{}"#, "trailing characters"),
            ("", "EOF"),
        ] {
            let error = parse::<Movie>(body.as_bytes()).unwrap_err().to_string();
            assert!(
                error.contains(told),
                "{body}: expected {told:?}, seen {error:?}"
            );
        }
    }

    #[test]
    fn texts_are_trimmed_and_bounded_by_characters_not_bytes() {
        assert_eq!(text_field("name", " 홍길동 ", 3).unwrap(), "홍길동");
        assert!(text_field("name", "홍길동이", 3).is_err());
        assert!(text_field("name", " \t ", 3).is_err());
        assert!(text_field("name", "a\nb", 9).is_err());
    }
}
