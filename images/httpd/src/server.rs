//! The server: files below `/usr/local/apache2/htdocs`, and the page of a fresh installation.

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

const DOCUMENTS: &str = "/usr/local/apache2/htdocs";
const FRESH: &str = "<html><body><h1>It works!</h1></body></html>\n";
const SERVER: &str = "Apache/2.4 (Unix)";

pub(crate) fn main(args: &[String]) -> ExitCode {
    match check(args).and_then(|()| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(serve())
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("httpd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// It always stays in the foreground, which is what `-D FOREGROUND` asks for.
fn check(args: &[String]) -> Result<()> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        [] | ["-D" | "-DFOREGROUND", "FOREGROUND"] | ["-DFOREGROUND"] => Ok(()),
        _ => bail!(
            "unknown arguments {}; the built-in server takes -D FOREGROUND only",
            args.join(" ")
        ),
    }
}

async fn serve() -> Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", 80))
        .await
        .context("cannot listen on port 80")?;
    eprintln!("[mpm_event:notice] {SERVER} configured -- resuming normal operations");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut window = signal(SignalKind::window_change())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        let (stream, from) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = terminate.recv() => return Ok(()),
            // The image's stop signal: end gracefully.
            _ = window.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let response = answer(Path::new(DOCUMENTS), request.method(), request.uri().path());
                println!("{}", log_line(&from.ip().to_string(), &request, &response));
                async move { Ok::<_, Infallible>(response) }
            });
            // A client that goes away in the middle is no event.
            let _ = Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// A line of the common log format.
fn log_line(from: &str, request: &Request<Incoming>, response: &Response<Full<Bytes>>) -> String {
    let format =
        format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000");
    let length = response
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .unwrap_or("-");
    format!(
        "{from} - - [{}] \"{} {} {:?}\" {} {length}",
        OffsetDateTime::now_utc().format(format).unwrap_or_default(),
        request.method(),
        request.uri(),
        request.version(),
        response.status().as_u16(),
    )
}

fn answer(documents: &Path, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return page(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    }
    let Some(file) = inside(documents, path) else {
        return page(StatusCode::BAD_REQUEST, "Bad Request");
    };
    let file = if file.is_dir() || path.ends_with('/') {
        file.join("index.html")
    } else {
        file
    };
    let body = match std::fs::read(&file) {
        Ok(body) => body,
        Err(_) if path == "/" || path == "/index.html" => FRESH.into(),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return page(StatusCode::FORBIDDEN, "Forbidden");
        }
        Err(_) => return page(StatusCode::NOT_FOUND, "Not Found"),
    };
    respond(StatusCode::OK, media_type(&file), body)
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

fn page(status: StatusCode, title: &str) -> Response<Full<Bytes>> {
    let body = format!(
        "<html><head>\n<title>{} {title}</title>\n</head><body>\n<h1>{title}</h1>\n</body></html>\n",
        status.as_u16()
    );
    respond(status, "text/html; charset=iso-8859-1", body.into())
}

fn respond(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let length = body.len();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static(SERVER));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_server_says_that_it_works_and_nothing_outside_is_served() {
        let nowhere = Path::new("/nonexistent/htdocs");
        assert_eq!(answer(nowhere, &Method::GET, "/").status(), 200);
        assert_eq!(answer(nowhere, &Method::GET, "/nope").status(), 404);
        assert_eq!(answer(nowhere, &Method::POST, "/").status(), 405);
        for path in ["/../etc/passwd", "/%2e%2e/etc/passwd", "/a%00b", "/%zz"] {
            assert_eq!(answer(nowhere, &Method::GET, path).status(), 400, "{path}");
        }
    }

    #[test]
    fn arguments_that_would_change_nothing_are_refused() {
        let args = |list: &[&str]| list.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
        assert!(check(&args(&["-D", "FOREGROUND"])).is_ok());
        assert!(check(&args(&["-f", "/etc/httpd.conf"])).is_err());
    }
}
