//! Small servers: `liveness`, `porter`, `serve-hostname`, `test-webserver`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::UdpSocket;

use crate::flags::{Flag, Flags};
use crate::server::{self, Body, Request, handler, hostname, log, text};

/// How long `liveness` is alive.
const ALIVE: Duration = Duration::from_secs(10);

/// A server that is well for ten seconds.
pub(crate) fn liveness(args: &[String]) -> Result<()> {
    Flags::parse(args, &[])?;
    let started = Instant::now();
    let handler = handler(move |request: Request| {
        let age = started.elapsed();
        async move {
            match request.path.as_str() {
                "/started" => text(StatusCode::OK, format!("{age:?}")),
                "/healthz" if age > ALIVE => text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("error: {}", age.as_secs_f64()),
                ),
                "/healthz" => text(StatusCode::OK, "ok"),
                "/redirect" => {
                    server::redirect(StatusCode::FOUND, &server::decode(request.value("loc")))
                }
                _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
            }
        }
    });
    server::block_on(server::listen_and_serve(8080, None, handler))
}

/// What `porter` serves and how, by the name of a variable.
#[derive(Debug, PartialEq)]
enum Port {
    Plain(u16),
    Tls(u16),
}

fn port_of(variable: &str) -> Result<Option<Port>> {
    for (prefix, make) in [
        ("SERVE_TLS_PORT_", Port::Tls as fn(u16) -> Port),
        ("SERVE_PORT_", Port::Plain),
    ] {
        if let Some(number) = variable.strip_prefix(prefix) {
            let port = number
                .parse()
                .with_context(|| format!("{variable}: no port"))?;
            return Ok(Some(make(port)));
        }
    }
    if variable.starts_with("SERVE_SCTP_PORT_") {
        bail!("{variable}: this image has no SCTP");
    }
    Ok(None)
}

/// Serves the value of each variable `SERVE_PORT_<n>` and `SERVE_TLS_PORT_<n>` on its port.
pub(crate) fn porter(args: &[String]) -> Result<()> {
    let flags = Flags::parse(args, &[Flag::Switch("json-response", false)])?;
    let as_json: bool = flags.get("json-response")?;
    let mut ports = Vec::new();
    for (name, value) in std::env::vars() {
        if let Some(port) = port_of(&name)? {
            ports.push((port, value));
        }
    }
    server::block_on(async move {
        for (port, value) in ports {
            let handler = handler(move |request: Request| {
                let answer = if as_json {
                    server::json(&json!({"Method": request.method.as_str(), "Body": value}))
                } else {
                    let mut answer = text(StatusCode::OK, value.clone());
                    if value.starts_with('<') {
                        // What begins so is a page, as Go's servers see it.
                        answer.headers_mut().insert(
                            http::header::CONTENT_TYPE,
                            HeaderValue::from_static("text/html; charset=utf-8"),
                        );
                    }
                    answer
                };
                async move { answer }
            });
            let (number, tls) = match port {
                Port::Plain(number) => (number, None),
                Port::Tls(number) => (number, Some(own_or_given_tls()?)),
            };
            tokio::spawn(async move {
                if let Err(error) = server::listen_and_serve(number, tls, handler).await {
                    log(&format!("server on port {number} failed: {error:#}"));
                }
            });
        }
        std::future::pending::<()>().await;
        Ok(())
    })
}

/// The certificate of `CERT_FILE` and `KEY_FILE`, or a fresh one for localhost.
fn own_or_given_tls() -> Result<std::sync::Arc<rustls::ServerConfig>> {
    if let (Ok(certificate), Ok(key)) = (std::env::var("CERT_FILE"), std::env::var("KEY_FILE")) {
        return server::tls_from_files(&certificate, &key);
    }
    server::tls_of_localhost()
}

/// Tells its host's name over HTTP, TCP or UDP.
pub(crate) fn serve_hostname(args: &[String]) -> Result<()> {
    let flags = Flags::parse(
        args,
        &[
            Flag::Switch("tcp", false),
            Flag::Switch("udp", false),
            Flag::Switch("http", true),
            Flag::Switch("close", false),
            Flag::Value("port", "9376"),
        ],
    )?;
    let (tcp, udp, http): (bool, bool, bool) =
        (flags.get("tcp")?, flags.get("udp")?, flags.get("http")?);
    let close: bool = flags.get("close")?;
    let port: u16 = flags.get("port")?;
    if http && (tcp || udp) {
        bail!("Can't server TCP/UDP mode and HTTP mode at the same time");
    }
    server::block_on(async move {
        if tcp {
            let listener = server::bind(port).await?;
            tokio::spawn(async move {
                while let Ok((mut stream, from)) = listener.accept().await {
                    log(&format!("TCP request from {from}"));
                    let _ = stream.write_all(hostname().as_bytes()).await;
                }
            });
        }
        if udp {
            let socket = UdpSocket::bind(("0.0.0.0", port)).await?;
            tokio::spawn(async move {
                let mut buffer = [0; 16];
                loop {
                    if let Ok((_, from)) = socket.recv_from(&mut buffer).await {
                        log(&format!("UDP request from {from}"));
                        let _ = socket.send_to(hostname().as_bytes(), from).await;
                    }
                }
            });
        }
        if http {
            let listener = server::bind(port).await?;
            let handler = handler(move |request: Request| {
                log(&format!("HTTP request from {}", request.from));
                let mut answer = text(StatusCode::OK, hostname());
                if close {
                    answer
                        .headers_mut()
                        .insert(http::header::CONNECTION, HeaderValue::from_static("close"));
                }
                async move { answer }
            });
            tokio::spawn(server::serve(listener, None, handler));
        }
        log(&format!("Serving on port {port}."));
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        terminate.recv().await;
        log("Shutting down after receiving signal: terminated.");
        log("Awaiting pod deletion.");
        tokio::time::sleep(Duration::from_secs(60)).await;
        Ok(())
    })
}

/// Serves the files of this host.
pub(crate) fn test_webserver(args: &[String]) -> Result<()> {
    let flags = Flags::parse(args, &[Flag::Value("port", "80")])?;
    let port: u16 = flags.get("port")?;
    let handler = handler(|request: Request| async move { file(&request) });
    server::block_on(server::listen_and_serve(port, None, handler))
}

fn file(request: &Request) -> Response<Body> {
    let decoded = server::decode(&request.path.replace('+', "%2B"));
    let path = Path::new(&decoded);
    let climbs = path
        .components()
        .any(|part| matches!(part, std::path::Component::ParentDir));
    let mut answer = if climbs {
        text(StatusCode::BAD_REQUEST, "invalid URL path\n")
    } else if path.is_dir() {
        let mut names: Vec<String> = std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| {
                let slash = if entry.path().is_dir() { "/" } else { "" };
                format!("{}{slash}", entry.file_name().to_string_lossy())
            })
            .collect();
        names.sort();
        let mut page = String::from("<pre>\n");
        for name in names {
            page.push_str(&format!("<a href=\"{name}\">{name}</a>\n"));
        }
        page.push_str("</pre>\n");
        let mut answer = text(StatusCode::OK, page);
        answer.headers_mut().insert(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        );
        answer
    } else {
        match std::fs::read(path) {
            Ok(content) => text(StatusCode::OK, content),
            Err(_) => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    };
    for (name, value) in [
        ("cache-control", "private"),
        ("access-control-allow-origin", "*"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "GET, POST, OPTIONS"),
        (
            "access-control-allow-headers",
            "DNT,X-Mx-ReqToken,Keep-Alive,User-Agent,X-Requested-With,Cache-Control,Content-Type",
        ),
    ] {
        answer
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_name_ports() {
        assert_eq!(port_of("SERVE_PORT_80").unwrap(), Some(Port::Plain(80)));
        assert_eq!(port_of("SERVE_TLS_PORT_443").unwrap(), Some(Port::Tls(443)));
        assert_eq!(port_of("HOME").unwrap(), None);
        assert!(port_of("SERVE_SCTP_PORT_5000").is_err());
        assert!(port_of("SERVE_PORT_x").is_err());
    }
}
