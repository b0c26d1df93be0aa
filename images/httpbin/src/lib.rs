//! The images `kennethreitz/httpbin` (also as `kong/httpbin`) and `mccutchen/go-httpbin`: a server that answers with what it was asked.
//! Both have the same endpoints here and differ in shape: values of headers and arguments are texts in the first and lists in the
//! second, and so are the ports they listen on, 80 and 8080.

mod answer;
mod arguments;
mod endpoints;
mod query;

use std::convert::Infallible;
use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result};
use http::Request;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use answer::Answer;
use arguments::Arguments;
use endpoints::Asked;

/// The largest body that is read.
const LARGEST: usize = 1 << 20;

/// Which of the two programs this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// kennethreitz/httpbin: values are texts.
    Python,
    /// mccutchen/go-httpbin: values are lists.
    Go,
}

/// Runs `gunicorn ARGS…`, which serves kennethreitz/httpbin; `args` are without the program's name.
pub fn gunicorn_main(args: Vec<OsString>) -> ExitCode {
    run(Arguments::gunicorn(&text(args)), Shape::Python)
}

/// Runs `go-httpbin ARGS…`; `args` are without the program's name.
pub fn go_main(args: Vec<OsString>) -> ExitCode {
    run(Arguments::go(&text(args)), Shape::Go)
}

fn text(args: Vec<OsString>) -> Vec<String> {
    args.into_iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect()
}

fn run(arguments: Result<Arguments>, shape: Shape) -> ExitCode {
    let served = arguments.and_then(|arguments| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(serve(arguments, shape))
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("httpbin: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: Arguments, shape: Shape) -> Result<()> {
    let listener = TcpListener::bind(&arguments.address)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.address))?;
    println!("httpbin listening on http://{}", listener.local_addr()?);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        let (stream, from) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| async move {
                let (parts, body) = request.into_parts();
                let line = format!("{} {}", parts.method, parts.uri);
                let answer = match Limited::new(body, LARGEST).collect().await {
                    Ok(body) => endpoints::answer(&Asked {
                        shape,
                        from: from.ip().to_string(),
                        parts,
                        body: body.to_bytes(),
                        draw: rand::random_range(0.0..1.0),
                    }),
                    Err(_) => Answer::text(413, "the body is larger than 1 MiB\n"),
                };
                println!("{} {line} {}", from.ip(), answer.status.as_u16());
                tokio::time::sleep(answer.delay).await;
                Ok::<_, Infallible>(answer.into_response())
            });
            // A client that goes away in the middle is no event.
            let _ = Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
