//! The web page: files built into the program, each of which a file of the same name in `UI_DIR` replaces.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use service_kit::{Error, Result};

use crate::Gateway;

/// The files of the page with their types.
const FILES: [(&str, &str, &[u8]); 4] = [
    (
        "index.html",
        "text/html; charset=utf-8",
        include_bytes!("../ui/index.html"),
    ),
    (
        "style.css",
        "text/css; charset=utf-8",
        include_bytes!("../ui/style.css"),
    ),
    (
        "script.js",
        "text/javascript; charset=utf-8",
        include_bytes!("../ui/script.js"),
    ),
    (
        "messages.js",
        "text/javascript; charset=utf-8",
        include_bytes!("../ui/messages.js"),
    ),
];

/// Scripts and styles come from here only, and nobody may frame the page.
const POLICY: &str =
    "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

/// The page's files.
pub struct Page {
    directory: Option<PathBuf>,
}

impl Page {
    /// The built-in page, with the files of `directory` in the place of built-in ones.
    pub fn new(directory: Option<PathBuf>) -> Self {
        Self { directory }
    }

    async fn file(&self, name: &str) -> Result<Response> {
        // Only known names: what a client sends never becomes part of a path.
        let (name, kind, built_in) = FILES
            .iter()
            .find(|(known, _, _)| *known == name)
            .ok_or_else(|| Error::NotFound(format!("the page has no file {name:?}")))?;
        let replaced = match &self.directory {
            Some(directory) => tokio::fs::read(directory.join(name)).await.ok(),
            None => None,
        };
        let body = replaced.unwrap_or_else(|| built_in.to_vec());
        let mut response = body.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(POLICY),
        );
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        Ok(response)
    }
}

/// The page itself.
pub async fn index(State(gateway): State<Arc<Gateway>>) -> Result<Response> {
    gateway.page.file("index.html").await
}

/// One of its files.
pub async fn file(
    State(gateway): State<Arc<Gateway>>,
    Path(name): Path<String>,
) -> Result<Response> {
    gateway.page.file(&name).await
}
