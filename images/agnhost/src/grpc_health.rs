//! `grpc.health.v1.Health/Check`, well for as long as the flags say.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use anyhow::Result;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Full};

use crate::flags::{Flag, Flags};
use crate::server::{self, Body, Request, handler, log, text};

/// Nobody has said anything; made to serve; made not to serve.
const BY_ITSELF: u8 = 0;
const SERVING: u8 = 1;
const NOT_SERVING: u8 = 2;

/// gRPC codes.
const NOT_FOUND: u8 = 5;
const UNIMPLEMENTED: u8 = 12;

/// Serves gRPC on `--port` and the switches on `--http-port`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let flags = Flags::parse(
        args,
        &[
            Flag::Value("port", "5000"),
            Flag::Value("http-port", "8080"),
            Flag::Value("delay-unhealthy-sec", "-1"),
            Flag::Value("service", ""),
            Flag::Value("tls-cert-file", ""),
            Flag::Value("tls-private-key-file", ""),
        ],
    )?;
    let (port, http_port): (u16, u16) = (flags.get("port")?, flags.get("http-port")?);
    let delay: i64 = flags.get("delay-unhealthy-sec")?;
    let service = flags.text("service").to_owned();
    let tls = match (
        flags.text("tls-cert-file"),
        flags.text("tls-private-key-file"),
    ) {
        ("", "") => None,
        ("", _) | (_, "") => {
            anyhow::bail!("Both --tls-cert-file and --tls-private-key-file must be set")
        }
        (certificate, key) => Some(server::tls_from_files(certificate, key)?),
    };
    let started = Instant::now();
    server::block_on(async move {
        let forced = Arc::new(AtomicU8::new(BY_ITSELF));
        let switches = {
            let forced = forced.clone();
            handler(move |request: Request| {
                let to = match request.path.as_str() {
                    "/make-serving" => SERVING,
                    "/make-not-serving" => NOT_SERVING,
                    _ => BY_ITSELF,
                };
                let answer = if to == BY_ITSELF {
                    text(StatusCode::NOT_FOUND, "404 page not found\n")
                } else {
                    forced.store(to, Ordering::Relaxed);
                    text(StatusCode::OK, format!("{:?}", started.elapsed()))
                };
                async move { answer }
            })
        };
        log(&format!("Http server starting to listen on :{http_port}"));
        let switches = server::listen_and_serve(http_port, None, switches);
        let checks = handler(move |request: Request| {
            let well = healthy(
                forced.load(Ordering::Relaxed),
                delay,
                started.elapsed().as_secs_f64(),
            );
            let answer = check(&request, &service, well);
            async move { answer }
        });
        log(&format!("gRPC server starting to listen on :{port}"));
        let checks = server::listen_and_serve(port, tls, checks);
        tokio::try_join!(switches, checks)?;
        Ok(())
    })
}

fn healthy(forced: u8, delay: i64, age: f64) -> bool {
    match forced {
        NOT_SERVING => false,
        _ => delay < 0 || age < delay as f64,
    }
}

fn check(request: &Request, service: &str, well: bool) -> Response<Body> {
    if request.path != "/grpc.health.v1.Health/Check" {
        return answer(None, UNIMPLEMENTED);
    }
    if asked_service(&request.body).as_deref() != Some(service) {
        return answer(None, NOT_FOUND);
    }
    answer(Some(if well { SERVING } else { NOT_SERVING }), 0)
}

/// Field 1 of `HealthCheckRequest` behind the five bytes of a gRPC frame.
fn asked_service(body: &[u8]) -> Option<String> {
    let message = body.get(5..)?;
    match message {
        [] => Some(String::new()),
        [0x0a, length, rest @ ..] => {
            let text = rest.get(..usize::from(*length))?;
            String::from_utf8(text.to_vec()).ok()
        }
        _ => None,
    }
}

fn answer(status: Option<u8>, code: u8) -> Response<Body> {
    let mut frame = BytesMut::new();
    if let Some(status) = status {
        frame.put_slice(&[0, 0, 0, 0, 2, 0x08, status]);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(u16::from(code)));
    let body = Full::new(Bytes::from(frame))
        .with_trailers(async move { Some(Ok(trailers)) })
        .boxed();
    let mut response = Response::new(body);
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_well_until_told_or_until_its_time() {
        assert!(healthy(BY_ITSELF, -1, 1e9));
        assert!(healthy(BY_ITSELF, 5, 4.9));
        assert!(!healthy(BY_ITSELF, 5, 5.0));
        assert!(!healthy(NOT_SERVING, -1, 0.0));
    }

    #[test]
    fn the_service_asked_for_is_read() {
        assert_eq!(asked_service(&[0, 0, 0, 0, 0]).as_deref(), Some(""));
        assert_eq!(
            asked_service(&[0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']).as_deref(),
            Some("ab")
        );
        assert_eq!(asked_service(&[0]), None);
    }
}
