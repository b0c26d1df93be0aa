//! A guest book of a front end, a primary and replicas, all of them this program.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::UdpSocket;

use crate::flags::{Flag, Flags};
use crate::server::{self, Body, Request, handler, log, text};

/// How long a replica tries to register.
const REGISTRATION: Duration = Duration::from_secs(15);
/// How long another node may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Book {
    entries: BTreeMap<String, Value>,
    replicas: Vec<String>,
}

type Shared = Arc<Mutex<Book>>;

/// Serves the book; with `--replicaof` after registering there.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let flags = Flags::parse(
        args,
        &[
            Flag::Value("http-port", "80"),
            Flag::Value("backend-port", "6379"),
            Flag::Value("replicaof", ""),
        ],
    )?;
    let port: u16 = flags.get("http-port")?;
    let backend: u16 = flags.get("backend-port")?;
    let primary = flags.text("replicaof").to_owned();
    server::block_on(async move {
        let book = Shared::default();
        if !primary.is_empty() {
            let book = book.clone();
            tokio::spawn(async move {
                if let Err(error) = register(&book, &primary, backend).await {
                    log(&format!("{error:#}"));
                    std::process::exit(1);
                }
            });
        }
        let handler = handler(move |request: Request| {
            let book = book.clone();
            async move { answer(&book, backend, &request).await }
        });
        server::listen_and_serve(port, None, handler).await
    })
}

async fn register(book: &Shared, primary: &str, backend: u16) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < REGISTRATION {
        match try_register(primary, backend).await {
            Ok(entries) => {
                lock(book).entries = entries;
                log(&format!("Registered to node: {primary}"));
                return Ok(());
            }
            Err(error) => log(&format!(
                "encountered error while registering to primary: {error:#}. Retrying in 1s."
            )),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    bail!("Timed out while registering to primary.")
}

async fn try_register(primary: &str, backend: u16) -> Result<BTreeMap<String, Value>> {
    // The address by which the primary sees this host.
    let socket = UdpSocket::bind("0.0.0.0:0").await?;
    socket.connect((primary, backend)).await?;
    let own = socket.local_addr()?.ip();
    let path = format!("/register?host={own}");
    let (_, body) = server::get(primary, backend, &path, PATIENCE).await?;
    let answer: Value = serde_json::from_slice(&body)?;
    let data = answer["data"]
        .as_object()
        .context("no \"data\" in the answer")?;
    Ok(data.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
}

fn lock(book: &Shared) -> std::sync::MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(book: &Shared, backend: u16, request: &Request) -> Response<Body> {
    let data = |v: Value| text(StatusCode::OK, json!({ "data": v }).to_string());
    let bad = |why: &str| text(StatusCode::BAD_REQUEST, format!("{why}\n"));
    let (key, value) = (request.value("key"), request.value("value"));
    match request.path.as_str() {
        "/register" => {
            let mut book = lock(book);
            book.replicas.push(request.value("host").to_owned());
            data(json!(book.entries))
        }
        "/get" if key.is_empty() => data(json!(lock(book).entries)),
        "/get" => data(
            lock(book)
                .entries
                .get(key)
                .cloned()
                .unwrap_or_else(|| "".into()),
        ),
        "/set" if key.is_empty() => bad("cannot set with empty key."),
        "/set" => {
            let replicas = {
                let mut book = lock(book);
                book.entries.insert(key.to_owned(), value.into());
                book.replicas.clone()
            };
            for replica in replicas {
                let path = format!("/set?key={}&value={}", encode(key), encode(value));
                if let Err(error) = server::get(&replica, backend, &path, PATIENCE).await {
                    return text(
                        StatusCode::EXPECTATION_FAILED,
                        format!(
                            "encountered error while propagating to replica '{replica}': {error:#}\n"
                        ),
                    );
                }
            }
            text(StatusCode::OK, json!({"message": "Updated"}).to_string())
        }
        "/guestbook" => {
            let command = request.value("cmd").to_lowercase();
            let host = match command.as_str() {
                "get" => "agnhost-replica",
                "set" if key.is_empty() => return bad("cannot set with empty key."),
                "set" => "agnhost-primary",
                other => return bad(&format!("unsupported cmd: '{other}'")),
            };
            let path = format!("/{command}?key={}&value={}", encode(key), encode(value));
            match server::get(host, backend, &path, PATIENCE).await {
                Ok((_, body)) => text(StatusCode::OK, body),
                Err(error) => text(
                    StatusCode::EXPECTATION_FAILED,
                    format!("encountered error: {error:#}\n"),
                ),
            }
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(b).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_a_query() {
        assert_eq!(server::decode(&encode("a b&ü")), "a b&ü");
    }
}
