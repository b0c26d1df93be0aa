//! The server: files of a directory, which a fresh container has a page in.

use std::convert::Infallible;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::site::Site;

pub(crate) fn main(site: &'static Site, args: &[String]) -> ExitCode {
    let begin = || -> Result<()> {
        check(site, args)?;
        if let Err(error) = site.install(Path::new(site.documents)) {
            // A root that cannot be written to: there is no page then, and that is what is answered.
            eprintln!("{}: {}: {error}", site.program, site.documents);
        }
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(serve(site))
    };
    match begin() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error:#}", site.program);
            ExitCode::FAILURE
        }
    }
}

/// It always stays in the foreground, and reads no configuration: what asks for something else is refused.
fn check(site: &Site, args: &[String]) -> Result<()> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if !site.takes(&args) {
        bail!(
            "unknown arguments {}; the built-in server only stays in the foreground",
            args.join(" ")
        );
    }
    if let Some(file) = site.unread_configuration() {
        bail!(
            "{file}: the built-in server reads no configuration; it serves the files of {}",
            site.documents
        );
    }
    Ok(())
}

async fn serve(site: &'static Site) -> Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", 80))
        .await
        .context("cannot listen on port 80")?;
    eprintln!(
        "[notice] {} configured -- resuming normal operations",
        site.server
    );
    // Which of them is the image's stop signal differs; all of them end it gracefully.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut window = signal(SignalKind::window_change())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    loop {
        let (stream, from) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = terminate.recv() => return Ok(()),
            _ = window.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = quit.recv() => return Ok(()),
        };
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let documents = Path::new(site.documents);
                let response = answer(site, documents, request.method(), request.uri().path());
                println!(
                    "{}",
                    log_line(site, &from.ip().to_string(), &request, &response)
                );
                async move { Ok::<_, Infallible>(response) }
            });
            // A client that goes away in the middle is no event.
            let _ = Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// A line of the common log format, or of the combined one.
fn log_line(
    site: &Site,
    from: &str,
    request: &Request<Incoming>,
    response: &Response<Full<Bytes>>,
) -> String {
    let format =
        format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000");
    let length = response
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .unwrap_or("-");
    let more = if site.combined_log {
        let header = |name| {
            request
                .headers()
                .get(name)
                .and_then(|v| v.to_str().ok())
                .unwrap_or("-")
        };
        format!(
            " \"{}\" \"{}\"",
            header(header::REFERER),
            header(header::USER_AGENT)
        )
    } else {
        String::new()
    };
    format!(
        "{from} - - [{}] \"{} {} {:?}\" {} {length}{more}",
        OffsetDateTime::now_utc().format(format).unwrap_or_default(),
        request.method(),
        request.uri(),
        request.version(),
        response.status().as_u16(),
    )
}

fn answer(site: &Site, documents: &Path, method: &Method, path: &str) -> Response<Full<Bytes>> {
    let page = |status: StatusCode, title: &str| page(site, status, title);
    if method != Method::GET && method != Method::HEAD {
        return page(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    }
    let Some(file) = inside(documents, path) else {
        return page(StatusCode::BAD_REQUEST, "Bad Request");
    };
    let directory = file.is_dir();
    let file = if directory || path.ends_with('/') {
        file.join("index.html")
    } else {
        file
    };
    let body = match std::fs::read(&file) {
        Ok(body) => body,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return page(StatusCode::FORBIDDEN, "Forbidden");
        }
        Err(_) if directory && site.no_index == StatusCode::FORBIDDEN => {
            return page(StatusCode::FORBIDDEN, "Forbidden");
        }
        Err(_) => return page(StatusCode::NOT_FOUND, "Not Found"),
    };
    respond(site, StatusCode::OK, media_type(&file), body)
}

/// The file that `path` names, if it is below `documents`.
fn inside(documents: &Path, path: &str) -> Option<PathBuf> {
    let decoded = decode(path)?;
    let mut file = documents.to_owned();
    for part in Path::new(decoded.trim_start_matches('/')).components() {
        match part {
            Component::Normal(name) => file.push(name),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(file)
}

/// `%41` is `A`; `None` for what is not well-formed.
fn decode(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|b| *b != 0)?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).ok()
}

fn media_type(file: &Path) -> &'static str {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("html" | "htm") => "text/html",
        Some("css") => "text/css",
        Some("js") => "text/javascript",
        Some("json") => "application/json",
        Some("txt") => "text/plain",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    }
}

fn page(site: &Site, status: StatusCode, title: &str) -> Response<Full<Bytes>> {
    let kind = match site.program {
        "nginx" => "text/html",
        _ => "text/html; charset=iso-8859-1",
    };
    respond(site, status, kind, site.error_page(status, title).into())
}

fn respond(
    site: &Site,
    status: StatusCode,
    kind: &'static str,
    body: Vec<u8>,
) -> Response<Full<Bytes>> {
    let length = body.len();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static(site.server));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::site::{APACHE, NGINX};

    #[test]
    fn a_fresh_server_has_a_page_and_files_that_were_put_there_stay() {
        let dir = tempfile::tempdir().unwrap();
        for site in [&APACHE, &NGINX] {
            let documents = dir.path().join(site.program);
            site.install(&documents).unwrap();
            let get = |path: &str| answer(site, &documents, &Method::GET, path).status();
            assert_eq!(
                (get("/"), get("/index.html"), get("/nope")),
                (StatusCode::OK, StatusCode::OK, StatusCode::NOT_FOUND)
            );
            std::fs::rename(documents.join("index.html"), documents.join("other.html")).unwrap();
            site.install(&documents).unwrap();
            assert_eq!(
                (get("/"), get("/index.html"), get("/other.html")),
                (site.no_index, StatusCode::NOT_FOUND, StatusCode::OK)
            );
        }
    }

    #[test]
    fn nothing_outside_is_served() {
        let nowhere = Path::new("/nonexistent/htdocs");
        assert_eq!(answer(&NGINX, nowhere, &Method::POST, "/").status(), 405);
        for path in ["/../etc/passwd", "/%2e%2e/etc/passwd", "/a%00b", "/%zz"] {
            assert_eq!(
                answer(&APACHE, nowhere, &Method::GET, path).status(),
                400,
                "{path}"
            );
        }
    }

    #[test]
    fn arguments_that_would_change_nothing_are_refused() {
        let args = |list: &[&str]| list.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
        assert!(check(&APACHE, &args(&["-D", "FOREGROUND"])).is_ok());
        assert!(check(&APACHE, &args(&["-f", "/etc/httpd.conf"])).is_err());
        assert!(
            APACHE.takes(&[])
                && NGINX.takes(&["-g", "daemon off;"])
                && !NGINX.takes(&["-s", "reload"])
        );
    }
}
