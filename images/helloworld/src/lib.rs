//! The images `istio/examples-helloworld-v1` and `-v2` of Istio's samples: `GET /hello` tells the version and the pod.
//! The environment decides: `SERVICE_VERSION` (what the image's name says unless set), `HOSTNAME`.

use std::convert::Infallible;
use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// The port of the sample.
const PORT: u16 = 5000;

/// Runs `helloworld`, which takes no arguments.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let served = check(&args).and_then(|()| {
        let variable = |name: &str, default: &str| {
            std::env::var(name)
                .ok()
                .filter(|value| !value.is_empty())
                .unwrap_or_else(|| default.to_owned())
        };
        let greeting = greeting(
            &variable("SERVICE_VERSION", "v1"),
            &variable("HOSTNAME", "localhost"),
        );
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(serve(greeting))
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("helloworld: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(args: &[OsString]) -> Result<()> {
    match args.first() {
        None => Ok(()),
        Some(arg) => bail!("unknown argument {}", arg.to_string_lossy()),
    }
}

fn greeting(version: &str, instance: &str) -> String {
    format!("Hello version: {version}, instance: {instance}\n")
}

async fn serve(greeting: String) -> Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", PORT))
        .await
        .with_context(|| format!("cannot listen on port {PORT}"))?;
    let greeting = Bytes::from(greeting);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        let greeting = greeting.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let response = answer(request.method(), request.uri().path(), &greeting);
                println!(
                    "{} {} {}",
                    request.method(),
                    request.uri().path(),
                    response.status().as_u16()
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

fn answer(method: &Method, path: &str, greeting: &Bytes) -> Response<Full<Bytes>> {
    let (status, body) = match (path, method.as_str()) {
        ("/hello", "GET" | "HEAD") => (StatusCode::OK, greeting.clone()),
        ("/health", "GET" | "HEAD") => {
            (StatusCode::OK, Bytes::from_static(b"Helloworld is healthy"))
        }
        ("/hello" | "/health", _) => (StatusCode::METHOD_NOT_ALLOWED, Bytes::new()),
        _ => (StatusCode::NOT_FOUND, Bytes::from_static(b"Not Found\n")),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        "content-type",
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hello_tells_version_and_instance() {
        let greeting = Bytes::from(greeting("v2", "helloworld-v2-abc"));
        assert_eq!(greeting, "Hello version: v2, instance: helloworld-v2-abc\n");
        assert_eq!(answer(&Method::GET, "/hello", &greeting).status(), 200);
        assert_eq!(answer(&Method::GET, "/health", &greeting).status(), 200);
        assert_eq!(answer(&Method::POST, "/hello", &greeting).status(), 405);
        assert_eq!(answer(&Method::GET, "/", &greeting).status(), 404);
    }

    #[test]
    fn arguments_are_refused() {
        assert!(check(&["--port".into()]).is_err());
    }
}
