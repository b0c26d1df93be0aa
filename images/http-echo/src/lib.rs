//! The image `hashicorp/http-echo`: a server that answers every request with the same text.
//! Flags and answers follow the original's documentation.

use std::convert::Infallible;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Parser;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Answers every HTTP request with the same text
#[derive(Parser, Debug, Clone)]
#[command(name = "http-echo", version)]
struct Flags {
    /// Address and port to listen on
    #[arg(long, default_value = ":5678")]
    listen: String,
    /// Text to put on the page
    #[arg(long, env = "ECHO_TEXT")]
    text: String,
    /// Status of every answer
    #[arg(long, default_value_t = 200)]
    status_code: u16,
}

/// Runs `http-echo ARGS…`; `args` are without the program's name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let flags = match Flags::try_parse_from(long_flags(args)) {
        Ok(flags) => flags,
        Err(error) => {
            // Help and version are no failures; clap tells them apart.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 127 } else { 0 });
        }
    };
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(serve(flags)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("http-echo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The original is a Go program: `-text=x` and `--text=x` mean the same.
fn long_flags(args: Vec<OsString>) -> impl Iterator<Item = OsString> {
    std::iter::once(OsString::from("http-echo")).chain(args.into_iter().map(
        |arg| match arg.to_str() {
            Some(text) if text.starts_with('-') && !text.starts_with("--") && text.len() > 2 => {
                OsString::from(format!("-{text}"))
            }
            _ => arg,
        },
    ))
}

async fn serve(flags: Flags) -> Result<()> {
    let status = StatusCode::from_u16(flags.status_code)
        .with_context(|| format!("-status-code {} is no HTTP status", flags.status_code))?;
    let address = match flags.listen.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}"),
        None => flags.listen.clone(),
    };
    let listener = TcpListener::bind(&address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    println!("Server is listening on {}", flags.listen);
    let body = Bytes::from(format!("{}\n", flags.text));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        let (stream, from) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        let body = body.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let response = answer(status, body.clone());
                let started = Instant::now();
                println!(
                    "{from} {} \"{} {} {:?}\" {} {} {:?}",
                    request
                        .headers()
                        .get("host")
                        .and_then(|h| h.to_str().ok())
                        .unwrap_or("-"),
                    request.method(),
                    request.uri().path(),
                    request.version(),
                    status.as_u16(),
                    body.len(),
                    started.elapsed(),
                );
                async move { Ok::<_, Infallible>(response) }
            });
            // A client that goes away in the middle is no event.
            let _ = Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

fn answer(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert("x-app-name", HeaderValue::from_static("http-echo"));
    headers.insert("x-app-version", HeaderValue::from_static("1.0.0"));
    headers.insert(
        "content-type",
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_style_flags_are_understood() {
        let flags = Flags::try_parse_from(long_flags(vec![
            "-text=User Service v1 Response".into(),
            "-listen=:8080".into(),
        ]))
        .unwrap();
        assert_eq!(flags.text, "User Service v1 Response");
        assert_eq!(flags.listen, ":8080");
        assert!(Flags::try_parse_from(long_flags(Vec::new())).is_err());
    }
}
