//! One transfer.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue, LOCATION};
use http::{Method, Request, Response, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::options::Options;
use crate::output::{Facts, write_out};
use crate::{Failure, exit};

/// How many redirects are followed.
const REDIRECTS: usize = 50;

/// Without `--connect-timeout`.
const CONNECT_LIMIT: Duration = Duration::from_secs(300);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Fetches one URL and prints what the options ask for.
pub async fn transfer(options: &Options, url: &str) -> Result<(), Failure> {
    let mut facts = Facts::default();
    let started = Instant::now();
    let follow = follow(options, url, &mut facts, started);
    let result = match options.max_time {
        None => follow.await,
        Some(limit) => tokio::time::timeout(limit, follow)
            .await
            .unwrap_or_else(|_| {
                Err(Failure::new(
                    exit::TIMEOUT,
                    format!(
                        "Operation timed out after {} milliseconds",
                        limit.as_millis()
                    ),
                ))
            }),
    };
    facts.total = started.elapsed();
    facts.code = result.as_ref().err().map_or(0, |failure| failure.code);
    if let Some(format) = &options.write_out {
        print!("{}", write_out(format, &facts));
        let _ = io::stdout().flush();
    }
    result
}

async fn follow(
    options: &Options,
    url: &str,
    facts: &mut Facts,
    started: Instant,
) -> Result<(), Failure> {
    let mut target = parse(options, url)?;
    let mut method = method(options)?;
    loop {
        facts.url = target.to_string();
        facts.method = method.to_string();
        let response = request(options, &target, &method, facts, started).await?;
        facts.status = response.status().as_u16();
        facts.first_byte = started.elapsed();
        let redirect = options.location && response.status().is_redirection();
        let location = response.headers().get(LOCATION).filter(|_| redirect);
        if let Some(location) = location {
            if facts.redirects == REDIRECTS {
                let message = format!("Maximum ({REDIRECTS}) redirects followed");
                return Err(Failure::new(exit::REDIRECTS, message));
            }
            facts.redirects += 1;
            target = resolve(&target, location.to_str().unwrap_or_default())?;
            // As browsers and curl do: only 307 and 308 keep the method.
            if matches!(response.status().as_u16(), 301..=303) && method == Method::POST {
                method = Method::GET;
            }
            continue;
        }
        return print(options, response, &method, facts).await;
    }
}

fn parse(options: &Options, url: &str) -> Result<Uri, Failure> {
    let with_scheme = if url.contains("://") {
        url.to_owned()
    } else {
        format!("http://{url}")
    };
    let with_data = match &options.data {
        Some(data) if options.data_in_url => {
            let mark = if with_scheme.contains('?') { '&' } else { '?' };
            format!("{with_scheme}{mark}{}", String::from_utf8_lossy(data))
        }
        _ => with_scheme,
    };
    let uri: Uri = with_data
        .parse()
        .map_err(|_| Failure::new(exit::URL, "URL using bad/illegal format or missing URL"))?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some() => Ok(uri),
        Some("http" | "https") => Err(Failure::new(exit::URL, "URL has no host")),
        other => Err(Failure::new(
            1,
            format!("Protocol \"{}\" not supported", other.unwrap_or_default()),
        )),
    }
}

fn resolve(base: &Uri, location: &str) -> Result<Uri, Failure> {
    let absolute = if location.contains("://") {
        location.to_owned()
    } else {
        let authority = base.authority().map_or("", |authority| authority.as_str());
        let scheme = base.scheme_str().unwrap_or("http");
        let slash = if location.starts_with('/') { "" } else { "/" };
        format!("{scheme}://{authority}{slash}{location}")
    };
    absolute
        .parse()
        .map_err(|_| Failure::new(exit::URL, format!("bad redirect to {location:?}")))
}

fn method(options: &Options) -> Result<Method, Failure> {
    match &options.method {
        Some(name) => Method::from_bytes(name.as_bytes())
            .map_err(|_| Failure::new(exit::USAGE, format!("{name:?} is no method"))),
        None if options.head => Ok(Method::HEAD),
        None if options.data.is_some() && !options.data_in_url => Ok(Method::POST),
        None => Ok(Method::GET),
    }
}

async fn request(
    options: &Options,
    target: &Uri,
    method: &Method,
    facts: &mut Facts,
    started: Instant,
) -> Result<Response<Incoming>, Failure> {
    let stream = connect(options, target, facts, started).await?;
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .preserve_header_case(true)
        .title_case_headers(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Failure::new(exit::RECEIVE, error.to_string()))?;
    tokio::spawn(connection);
    let request = build(options, target, method)?;
    if options.verbose {
        eprintln!("> {} {} HTTP/1.1", request.method(), request.uri());
        for (name, value) in request.headers() {
            eprintln!("> {name}: {}", value.to_str().unwrap_or_default());
        }
        eprintln!(">");
    }
    let response = sender.send_request(request).await.map_err(|error| {
        if error.is_incomplete_message() || error.is_closed() {
            Failure::new(exit::EMPTY, "Empty reply from server")
        } else if error.is_parse() {
            Failure::new(1, "Received HTTP/0.9 when not allowed")
        } else {
            Failure::new(exit::RECEIVE, format!("Recv failure: {}", root(&error)))
        }
    })?;
    if options.verbose {
        for line in head(&response).lines() {
            eprintln!("< {line}");
        }
    }
    Ok(response)
}

fn build(
    options: &Options,
    target: &Uri,
    method: &Method,
) -> Result<Request<Full<Bytes>>, Failure> {
    let path = target.path_and_query().map_or("/", |path| path.as_str());
    let body = match &options.data {
        Some(data) if !options.data_in_url => Bytes::from(data.clone()),
        _ => Bytes::new(),
    };
    let has_body = !body.is_empty();
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method.clone();
    *request.uri_mut() = path
        .parse()
        .map_err(|_| Failure::new(exit::URL, "URL using bad/illegal format or missing URL"))?;
    let headers = request.headers_mut();
    let own_host = options
        .headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"));
    if !own_host && let Some(authority) = target.authority() {
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        let value = HeaderValue::from_str(host)
            .map_err(|error| Failure::new(exit::URL, error.to_string()))?;
        headers.insert(HOST, value);
    }
    let typed = options
        .headers
        .iter()
        .map(|(name, _)| name.to_ascii_lowercase())
        .chain(options.removed_headers.iter().cloned())
        .any(|name| name == "content-type");
    if has_body && !typed {
        headers.insert(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
    }
    for (name, value) in &options.headers {
        let bad = || Failure::new(exit::USAGE, format!("header {name:?} cannot be sent"));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| bad())?;
        headers.append(name, value);
    }
    Ok(request)
}

/// Connects to the first address that answers, from `own` where that is given.
async fn dial(
    addresses: &[std::net::SocketAddr],
    own: Option<std::net::IpAddr>,
) -> io::Result<TcpStream> {
    let Some(own) = own else {
        return TcpStream::connect(addresses).await;
    };
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses.iter().filter(|a| a.is_ipv4() == own.is_ipv4()) {
        let socket = if own.is_ipv4() {
            tokio::net::TcpSocket::new_v4()?
        } else {
            tokio::net::TcpSocket::new_v6()?
        };
        socket.bind((own, 0).into())?;
        match socket.connect(*address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect(
    options: &Options,
    target: &Uri,
    facts: &mut Facts,
    started: Instant,
) -> Result<Box<dyn Stream>, Failure> {
    let secure = target.scheme_str() == Some("https");
    let host = target
        .host()
        .unwrap_or_default()
        .trim_matches(['[', ']'])
        .to_owned();
    let port = target.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let addresses: Vec<_> = tokio::net::lookup_host((host.as_str(), port))
        .await
        .map_err(|_| Failure::new(exit::RESOLVE, format!("Could not resolve host: {host}")))?
        .collect();
    facts.resolved = started.elapsed();
    let limit = options.connect_timeout.unwrap_or(CONNECT_LIMIT);
    let tcp = tokio::time::timeout(limit, dial(&addresses, options.interface))
        .await
        .map_err(|_| {
            let ms = limit.as_millis();
            Failure::new(
                exit::TIMEOUT,
                format!("Connection timed out after {ms} milliseconds"),
            )
        })?
        .map_err(|error| {
            let ms = started.elapsed().as_millis();
            let why = match error.kind() {
                io::ErrorKind::ConnectionRefused => "Couldn't connect to server".to_owned(),
                _ => error.to_string(),
            };
            let message = format!("Failed to connect to {host} port {port} after {ms} ms: {why}");
            Failure::new(exit::CONNECT, message)
        })?;
    // Waiting to fill packets would only slow a request down.
    let _ = tcp.set_nodelay(true);
    facts.connected = started.elapsed();
    facts.remote = tcp
        .peer_addr()
        .map(|address| address.to_string())
        .unwrap_or_default();
    if !secure {
        return Ok(Box::new(tcp));
    }
    let name = ServerName::try_from(host)
        .map_err(|_| Failure::new(exit::URL, "the host cannot be a TLS server name"))?;
    let stream = TlsConnector::from(Arc::new(tls(options)?))
        .connect(name, tcp)
        .await
        .map_err(|error| tls_failure(&error))?;
    facts.secured = started.elapsed();
    Ok(Box::new(stream))
}

fn tls_failure(error: &io::Error) -> Failure {
    let certificate = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_)));
    if certificate {
        Failure::new(
            exit::CERTIFICATE,
            format!("SSL certificate problem: {error}"),
        )
    } else {
        Failure::new(exit::TLS, format!("TLS connect error: {error}"))
    }
}

fn tls(options: &Options) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::new(exit::TLS, error.to_string()))?;
    if options.insecure {
        return Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(insecure::AnyCertificate(provider)))
            .with_no_client_auth());
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let file = options
        .ca_file
        .clone()
        .or_else(|| variable("CURL_CA_BUNDLE"))
        .or_else(|| variable("SSL_CERT_FILE"))
        .unwrap_or_else(|| "/etc/ssl/certs/ca-certificates.crt".into());
    let bad = || {
        let message = format!("error setting certificate verify locations: CAfile: {file}");
        Failure::new(exit::CA_FILE, message)
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&file).map_err(|_| bad())? {
        roots
            .add(certificate.map_err(|_| bad())?)
            .map_err(|_| bad())?;
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// `-k`: any certificate will do. Signatures are still checked.
mod insecure {
    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    pub struct AnyCertificate(pub Arc<CryptoProvider>);

    impl ServerCertVerifier for AnyCertificate {
        fn verify_server_cert(
            &self,
            _end_entity: &CertificateDer<'_>,
            _intermediates: &[CertificateDer<'_>],
            _server_name: &ServerName<'_>,
            _ocsp_response: &[u8],
            _now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.0.signature_verification_algorithms;
            verify_tls12_signature(message, certificate, signature, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.0.signature_verification_algorithms;
            verify_tls13_signature(message, certificate, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}

fn head(response: &Response<Incoming>) -> String {
    let version = match response.version() {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    };
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let mut text = format!("{version} {} {reason}\r\n", status.as_u16());
    for (name, value) in response.headers() {
        text.push_str(&format!(
            "{name}: {}\r\n",
            String::from_utf8_lossy(value.as_bytes())
        ));
    }
    text.push_str("\r\n");
    text
}

async fn print(
    options: &Options,
    response: Response<Incoming>,
    method: &Method,
    facts: &mut Facts,
) -> Result<(), Failure> {
    let status = response.status();
    let head = head(&response);
    facts.headers_size = head.len();
    facts.content_type = response
        .headers()
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    if let Some(file) = &options.dump_header {
        write_all(file, head.as_bytes(), true)?;
    }
    if options.fail && status.as_u16() >= 400 {
        let message = format!("The requested URL returned error: {}", status.as_u16());
        return Err(Failure::new(exit::HTTP, message));
    }
    let file = options.output.as_deref().unwrap_or("-");
    let mut first = true;
    if options.include || (options.head && options.method.is_none()) {
        write_all(file, head.as_bytes(), first)?;
        first = false;
    }
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Failure::new(exit::RECEIVE, format!("Recv failure: {}", root(&error)))
        })?;
        if let Some(data) = frame.data_ref().filter(|_| method != Method::HEAD) {
            facts.size += data.len();
            write_all(file, data, first)?;
            first = false;
        }
    }
    Ok(())
}

/// Writes to a file, which the first write makes anew, or to standard output (`-`).
fn write_all(file: &str, bytes: &[u8], first: bool) -> Result<(), Failure> {
    let result = if file == "-" {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush())
    } else {
        std::fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(first)
            .append(!first)
            .open(file)
            .and_then(|mut out| out.write_all(bytes))
    };
    result.map_err(|error| {
        Failure::new(
            exit::WRITE,
            format!("Failure writing output to {file}: {error}"),
        )
    })
}

/// The innermost cause of an error.
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
