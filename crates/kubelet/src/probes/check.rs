//! Asking once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::Target;
use crate::cri::{Process, run_to_end};

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Healthy.
    Success,
    /// Unhealthy: what stands behind `Readiness probe failed: `.
    Failure(String),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Asks containers for their health. Connects from the node, as the real kubelet does.
#[derive(Clone)]
pub struct Checker {
    tls: Arc<rustls::ClientConfig>,
}

impl Default for Checker {
    fn default() -> Self {
        Self {
            tls: Arc::new(unverified_tls()),
        }
    }
}

impl Checker {
    /// Asks once, within `timeout`.
    pub async fn check(
        &self,
        target: &Target,
        timeout: Duration,
        container: &dyn Process,
    ) -> Outcome {
        match target {
            Target::Exec(command) => match run_to_end(container, command, timeout).await {
                Ok((0, _)) => Outcome::Success,
                Ok((_, output)) => Outcome::Failure(output),
                Err(problem) => Outcome::Failure(problem.to_string()),
            },
            Target::Tcp { host, port } => {
                let address = format!("{host}:{port}");
                match tokio::time::timeout(timeout, TcpStream::connect(&address)).await {
                    Ok(Ok(_)) => Outcome::Success,
                    Ok(Err(problem)) => Outcome::Failure(dial_error(&address, &problem)),
                    Err(_) => Outcome::Failure(format!("dial tcp {address}: i/o timeout")),
                }
            }
            Target::Http { .. } => match self.get(target, timeout).await {
                Ok(status) if (200..400).contains(&status) => Outcome::Success,
                Ok(status) => {
                    Outcome::Failure(format!("HTTP probe failed with statuscode: {status}"))
                }
                Err(message) => Outcome::Failure(message),
            },
            Target::Grpc {
                host,
                port,
                service,
            } => {
                let address = format!("{host}:{port}");
                match tokio::time::timeout(timeout, grpc_health(&address, service)).await {
                    Ok(Ok(1)) => Outcome::Success,
                    Ok(Ok(status)) => {
                        let name = match status {
                            0 => "UNKNOWN",
                            2 => "NOT_SERVING",
                            _ => "SERVICE_UNKNOWN",
                        };
                        Outcome::Failure(format!("service unhealthy (responded with {name:?})"))
                    }
                    Ok(Err(problem)) => Outcome::Failure(problem),
                    Err(_) => Outcome::Failure(format!(
                        "timeout: failed to connect service {address:?} within {}s: context deadline exceeded",
                        timeout.as_secs()
                    )),
                }
            }
        }
    }

    /// A GET; the status code, or why there is none.
    ///
    /// # Errors
    /// The sentence the kubelet prints.
    pub async fn get(&self, target: &Target, timeout: Duration) -> Result<u16, String> {
        let Target::Http {
            tls,
            host,
            port,
            path,
            headers,
        } = target
        else {
            return Err("not an HTTP target".into());
        };
        let scheme = if *tls { "https" } else { "http" };
        let url = format!("{scheme}://{host}:{port}{path}");
        let request = self.request(*tls, host, *port, path, headers);
        match tokio::time::timeout(timeout, request).await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(problem)) => Err(format!("Get {url:?}: {problem}")),
            Err(_) => Err(format!(
                "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            )),
        }
    }

    async fn request(
        &self,
        tls: bool,
        host: &str,
        port: u16,
        path: &str,
        headers: &[(String, String)],
    ) -> Result<u16, String> {
        let address = format!("{host}:{port}");
        let tcp = TcpStream::connect(&address)
            .await
            .map_err(|problem| dial_error(&address, &problem))?;
        let _ = tcp.set_nodelay(true);
        let stream: Box<dyn Stream> = if tls {
            let name =
                ServerName::try_from(host.to_owned()).map_err(|problem| problem.to_string())?;
            let connector = tokio_rustls::TlsConnector::from(self.tls.clone());
            Box::new(
                connector
                    .connect(name, tcp)
                    .await
                    .map_err(|problem| format!("tls: {problem}"))?,
            )
        } else {
            Box::new(tcp)
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|problem| problem.to_string())?;
        let connection = tokio::spawn(connection);
        let mut request = http::Request::get(path);
        let mut named: std::collections::BTreeSet<String> = std::collections::BTreeSet::new();
        for (name, value) in headers {
            named.insert(name.to_ascii_lowercase());
            request = request.header(name, value);
        }
        for (name, value) in [
            ("host", address.as_str()),
            ("user-agent", "kube-probe/1.32"),
            ("accept", "*/*"),
            ("connection", "close"),
        ] {
            if !named.contains(name) {
                request = request.header(name, value);
            }
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|problem| problem.to_string())?;
        let response = sender.send_request(request).await;
        connection.abort();
        response
            .map(|response| response.status().as_u16())
            .map_err(|problem| match problem.is_incomplete_message() {
                true => "EOF".to_owned(),
                false => problem.to_string(),
            })
    }
}

/// `dial tcp 10.10.0.5:8080: connect: connection refused`.
fn dial_error(address: &str, problem: &std::io::Error) -> String {
    use std::io::ErrorKind;
    let reason = match problem.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::HostUnreachable => "no route to host".to_owned(),
        ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        ErrorKind::TimedOut => "connection timed out".to_owned(),
        _ => problem.to_string(),
    };
    format!("dial tcp {address}: connect: {reason}")
}

/// `grpc.health.v1.Health/Check`: the serving status (1 is SERVING).
async fn grpc_health(address: &str, service: &str) -> Result<u8, String> {
    let tcp = TcpStream::connect(address)
        .await
        .map_err(|problem| dial_error(address, &problem))?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp))
            .await
            .map_err(|problem| problem.to_string())?;
    let connection = tokio::spawn(connection);
    // HealthCheckRequest { string service = 1 }
    let mut message = Vec::new();
    if !service.is_empty() {
        let length = u8::try_from(service.len())
            .ok()
            .filter(|length| *length < 128)
            .ok_or("service name too long")?;
        message.extend_from_slice(&[0x0a, length]);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0, 0, 0, 0, message.len() as u8];
    frame.extend_from_slice(&message);
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.32")
        .body(Full::new(Bytes::from(frame)))
        .map_err(|problem| problem.to_string())?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|problem| problem.to_string())?;
    let head_status = response.headers().get("grpc-status").cloned();
    let collected = response
        .into_body()
        .collect()
        .await
        .map_err(|problem| problem.to_string())?;
    connection.abort();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let status = head_status.or_else(|| trailers.get("grpc-status").cloned());
    match status.as_ref().and_then(|status| status.to_str().ok()) {
        Some("0") | None => {}
        Some("12") => {
            return Err(
                "this server does not implement the grpc health protocol (grpc.health.v1.Health)"
                    .into(),
            );
        }
        Some(code) => return Err(format!("health rpc failed: code {code}")),
    }
    let body = collected.to_bytes();
    // HealthCheckResponse { ServingStatus status = 1 }; an empty message is UNKNOWN.
    Ok(match body.get(5..) {
        Some([0x08, status, ..]) => *status,
        _ => 0,
    })
}

/// Probes do not check certificates: they ask whether the container answers, not who it is.
fn unverified_tls() -> rustls::ClientConfig {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    struct Any(Arc<rustls::crypto::CryptoProvider>);
    impl ServerCertVerifier for Any {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
    let provider = runtime::tls::provider();
    rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring offers TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any(provider)))
        .with_no_client_auth()
}
