//! The web page: files built into the program, each of which a file of the same name in `UI_DIR` replaces.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use service_kit::{Error, Id, Result};

use crate::Gateway;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// The files of the page with their types.
const FILES: [(&str, &str, &[u8]); 9] = [
    ("index.html", HTML, include_bytes!("../ui/index.html")),
    ("style.css", CSS, include_bytes!("../ui/style.css")),
    ("script.js", SCRIPT, include_bytes!("../ui/script.js")),
    ("traffic.js", SCRIPT, include_bytes!("../ui/traffic.js")),
    ("panel.js", SCRIPT, include_bytes!("../ui/panel.js")),
    ("seats.js", SCRIPT, include_bytes!("../ui/seats.js")),
    ("dom.js", SCRIPT, include_bytes!("../ui/dom.js")),
    ("messages.js", SCRIPT, include_bytes!("../ui/messages.js")),
    ("icon.svg", SVG, include_bytes!("../ui/icon.svg")),
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
pub async fn file(State(gateway): State<Arc<Gateway>>, Id(name): Id) -> Result<Response> {
    gateway.page.file(&name).await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn source(name: &str) -> &'static str {
        let (_, _, bytes) = FILES.iter().find(|(known, _, _)| *known == name).unwrap();
        std::str::from_utf8(bytes).unwrap()
    }

    /// The keys of one language: the lines `key: "text",` after `language: {`.
    fn keys(language: &str) -> BTreeSet<&'static str> {
        source("messages.js")
            .lines()
            .skip_while(|line| line.trim() != format!("{language}: {{"))
            .skip(1)
            .take_while(|line| line.trim() != "},")
            .map(|line| line.trim().split_once(": \"").expect("one text a line").0)
            .collect()
    }

    #[test]
    fn both_languages_say_the_same_things() {
        assert!(keys("en").len() > 40);
        assert_eq!(keys("en"), keys("ko"));
    }

    #[test]
    fn every_text_that_is_used_exists() {
        let known = keys("en");
        for (name, _, _) in FILES {
            for before in [" t(\"", "(t(\"", "data-text=\""] {
                for part in source(name).split(before).skip(1) {
                    let key = part.split('"').next().unwrap();
                    assert!(known.contains(key), "{name} uses {key:?}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_set_as_markup() {
        for (name, _, _) in FILES {
            for way in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
            ] {
                assert!(!source(name).contains(way), "{name} uses {way}");
            }
        }
    }
}
