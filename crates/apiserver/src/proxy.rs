//! `pods|services|nodes/<[scheme:]name[:port]>/proxy/<path>`: HTTP passed through to where the object listens.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::error::{ApiError, ApiResult};
use crate::http_types::{Answer, Body, BoxError, Request, bytes_answer, full};
use crate::outbound;
use crate::rest::Call;
use crate::storage::Key;

/// How long a connection may take to come about.
const PATIENCE: Duration = Duration::from_secs(30);

/// `[scheme:]name[:port]` taken apart.
#[derive(Debug, PartialEq)]
struct Target<'a> {
    tls: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> Target<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (tls, name, port) = match parts.as_slice() {
            [name] => (false, *name, ""),
            [name, port] => (false, *name, *port),
            ["http" | "", name, port] => (false, *name, *port),
            ["https", name, port] => (true, *name, *port),
            _ => return None,
        };
        (!name.is_empty()).then_some(Self { tls, name, port })
    }
}

/// Answers a request for the proxy subresource.
pub(crate) async fn handle(call: &Call<'_>) -> ApiResult<Answer> {
    let wanted = Target::parse(&call.target.name).ok_or_else(|| {
        ApiError::bad_request(format!(
            "invalid {} request {:?}",
            call.resource.singular, call.target.name
        ))
    })?;
    let (own, rest) = split(&call.request.path);
    if rest.is_empty() && matches!(call.request.method, Method::GET | Method::HEAD) {
        // Relative links of a page need the slash.
        let mut answer = bytes_answer(StatusCode::MOVED_PERMANENTLY, "text/html", "");
        let mut to = format!("{own}/");
        if !call.request.raw_query.is_empty() {
            to = format!("{to}?{}", call.request.raw_query);
        }
        if let Ok(to) = HeaderValue::from_str(&to) {
            answer.headers_mut().insert(header::LOCATION, to);
        }
        return Ok(answer);
    }
    if call.resource.plural == "nodes" {
        return to_node(call, &wanted, rest).await;
    }
    let address = match call.resource.plural.as_str() {
        "pods" => pod_address(call, &wanted)?,
        _ => service_address(call, &wanted)?,
    };
    let request = outgoing(call.request, &address.to_string(), rest)?;
    let connected = tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await;
    let failed = |why: String| {
        ApiError::new(
            503,
            "ServiceUnavailable",
            format!("error trying to reach service: dial tcp {address}: {why}"),
        )
    };
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(e)) => return Err(failed(format!("connect: {}", plain(&e)))),
        Err(_) => return Err(failed("i/o timeout".into())),
    };
    let answer = if wanted.tls {
        let name = rustls::pki_types::ServerName::IpAddress(address.ip().into());
        let stream = tokio_rustls::TlsConnector::from(unverified(None)?)
            .connect(name, stream)
            .await
            .map_err(|e| failed(e.to_string()))?;
        send(stream, request).await
    } else {
        send(stream, request).await
    };
    let answer = answer.map_err(|e| failed(outbound::explain(&e)))?;
    Ok(relay(call.request, answer, Some(own)).await)
}

/// What a system says about a connection, as Go words it.
fn plain(e: &std::io::Error) -> String {
    match e.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".into(),
        std::io::ErrorKind::HostUnreachable => "no route to host".into(),
        _ => e.to_string(),
    }
}

/// The path up to `/proxy`, and what follows it.
fn split(path: &str) -> (&str, &str) {
    // Names cannot contain a slash, so the first one after the collection's name ends at `/proxy`.
    match path.find("/proxy/") {
        Some(at) => path.split_at(at + "/proxy".len()),
        None => (path, ""),
    }
}

fn pod_address(call: &Call<'_>, wanted: &Target<'_>) -> ApiResult<SocketAddr> {
    let stored = call
        .server
        .storage
        .cache()
        .get(&call.resource.key(&call.target.namespace, wanted.name))
        .ok_or_else(|| call.resource.not_found(wanted.name))?;
    let pod = stored.value();
    let ip: IpAddr = pod["status"]["podIP"]
        .as_str()
        .and_then(|ip| ip.parse().ok())
        .filter(|ip: &IpAddr| !ip.is_loopback())
        .ok_or_else(|| ApiError::bad_request("address not allowed"))?;
    let port = if wanted.port.is_empty() {
        // The first one that a container declares.
        pod["spec"]["containers"]
            .as_array()
            .into_iter()
            .flatten()
            .find_map(|c| c["ports"][0]["containerPort"].as_u64())
            .and_then(|p| u16::try_from(p).ok())
            .unwrap_or(if wanted.tls { 443 } else { 80 })
    } else {
        wanted.port.parse().map_err(|_| {
            ApiError::bad_request(format!("invalid pod request {:?}", call.target.name))
        })?
    };
    Ok(SocketAddr::new(ip, port))
}

fn service_address(call: &Call<'_>, wanted: &Target<'_>) -> ApiResult<SocketAddr> {
    let cache = call.server.storage.cache();
    let namespace = &call.target.namespace;
    let service = cache
        .get(&call.resource.key(namespace, wanted.name))
        .ok_or_else(|| call.resource.not_found(wanted.name))?;
    let unavailable = |why: String| Err(ApiError::new(503, "ServiceUnavailable", why));
    let ports: &[Value] = service.value()["spec"]["ports"]
        .as_array()
        .map_or(&[], Vec::as_slice);
    let found = match (wanted.port, ports) {
        ("", [only]) => Some(only),
        (port, all) => all.iter().find(|p| {
            !port.is_empty()
                && (p["name"] == port || p["port"].as_u64().is_some_and(|n| n.to_string() == port))
        }),
    };
    let Some(found) = found else {
        return unavailable(format!(
            "no service port {:?} found for service {:?}",
            wanted.port, wanted.name
        ));
    };
    let port_name = found["name"].as_str().unwrap_or("");
    let endpoints = cache.get(&Key::new(&"core/endpoints".into(), namespace, wanted.name));
    let mut all = Vec::new();
    for subset in endpoints
        .iter()
        .flat_map(|e| e.value()["subsets"].as_array().into_iter().flatten())
    {
        let port = subset["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|p| p["name"].as_str().unwrap_or("") == port_name)
            .and_then(|p| u16::try_from(p["port"].as_u64()?).ok());
        let Some(port) = port else { continue };
        for address in subset["addresses"].as_array().into_iter().flatten() {
            if let Some(ip) = address["ip"].as_str().and_then(|ip| ip.parse().ok()) {
                all.push(SocketAddr::new(ip, port));
            }
        }
    }
    if all.is_empty() {
        return unavailable(format!(
            "no endpoints available for service {:?}",
            call.target.name
        ));
    }
    Ok(all[rand::random::<u32>() as usize % all.len()])
}

async fn to_node(call: &Call<'_>, wanted: &Target<'_>, rest: &str) -> ApiResult<Answer> {
    let node = call
        .server
        .storage
        .cache()
        .get(&call.resource.key("", wanted.name))
        .ok_or_else(|| call.resource.not_found(wanted.name))?;
    let mut peer = crate::streaming::peer(call.server, node.value())?;
    if let Ok(port) = wanted.port.parse() {
        peer.address.set_port(port);
    }
    let request = outgoing(call.request, &peer.address.to_string(), rest)?;
    let answer = outbound::send(&peer, request).await.map_err(|e| {
        ApiError::new(
            503,
            "ServiceUnavailable",
            format!("error trying to reach service: {}", outbound::explain(&e)),
        )
    })?;
    let (own, _) = split(&call.request.path);
    Ok(relay(call.request, answer, Some(own)).await)
}

/// Headers that belong to one connection only.
fn hop(name: &header::HeaderName) -> bool {
    matches!(
        *name,
        header::CONNECTION
            | header::TRANSFER_ENCODING
            | header::TE
            | header::TRAILER
            | header::UPGRADE
    ) || name == "keep-alive"
        || name == "proxy-connection"
}

/// The client's request as the other side gets it.
pub(crate) fn outgoing(from: &Request, host: &str, rest: &str) -> ApiResult<http::Request<Body>> {
    let query = &from.raw_query;
    let path = if rest.is_empty() { "/" } else { rest };
    let uri = if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    };
    let body: Body = match from.body.lock().take() {
        Some(body) => body.map_err(|e| -> BoxError { e.into() }).boxed_unsync(),
        None => Empty::new().map_err(|never| match never {}).boxed_unsync(),
    };
    let mut out = http::Request::builder()
        .method(from.method.clone())
        .uri(uri)
        .body(body)
        .map_err(ApiError::internal)?;
    let upgrading = !from.header(header::UPGRADE).is_empty();
    for (name, value) in &from.headers {
        let ours = *name == header::AUTHORIZATION
            || *name == header::HOST
            || name.as_str().starts_with("impersonate-");
        let kept = upgrading && matches!(*name, header::CONNECTION | header::UPGRADE);
        if !ours && (kept || !hop(name)) {
            out.headers_mut().append(name.clone(), value.clone());
        }
    }
    for (name, value) in [
        ("host", host),
        ("x-forwarded-uri", from.path.as_str()),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", from.header(header::HOST)),
    ] {
        if let Ok(value) = HeaderValue::from_str(value)
            && !value.is_empty()
        {
            out.headers_mut()
                .insert(header::HeaderName::from_static(name), value);
        }
    }
    Ok(out)
}

async fn send<S>(stream: S, request: http::Request<Body>) -> Result<Response<Incoming>, BoxError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(e) = connection.with_upgrades().await {
            tracing::debug!(error = %e, "a proxied connection ended");
        }
    });
    Ok(sender.send_request(request).await?)
}

/// Pages up to this size have their links looked at.
const PAGE: usize = 4 << 20;

/// The other side's answer; redirects and links of pages stay below the proxy's own path, when it has one.
pub(crate) async fn relay(
    request: &Request,
    answer: Response<Incoming>,
    own: Option<&str>,
) -> Answer {
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(client) = request.upgrade.lock().take()
    {
        let mut out = Response::new(full(Bytes::new()));
        *out.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *out.headers_mut() = answer.headers().clone();
        tokio::spawn(async move {
            if let Ok((client, other)) = tokio::try_join!(client, hyper::upgrade::on(answer)) {
                let (mut client, mut other) = (TokioIo::new(client), TokioIo::new(other));
                let _ = tokio::io::copy_bidirectional(&mut client, &mut other).await;
                let _ = tokio::join!(client.shutdown(), other.shutdown());
            }
        });
        return out;
    }
    let (mut parts, body) = answer.into_parts();
    let text = |name| {
        let value = parts.headers.get(name);
        value
            .and_then(|v: &HeaderValue| v.to_str().ok())
            .unwrap_or("")
    };
    let page = own.filter(|_| {
        text(header::CONTENT_TYPE).starts_with("text/html")
            && text(header::CONTENT_ENCODING).is_empty()
            && text(header::CONTENT_LENGTH)
                .parse()
                .is_ok_and(|length: usize| length <= PAGE)
    });
    let body: Body = if let Some(own) = page {
        match body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
        {
            Ok(bytes) => {
                parts.headers.remove(header::CONTENT_LENGTH);
                match std::str::from_utf8(&bytes) {
                    Ok(page) => full(crate::proxy_links::rewrite(page, own)),
                    Err(_) => full(bytes),
                }
            }
            Err(e) => {
                return crate::http_types::error_answer(&ApiError::new(
                    503,
                    "ServiceUnavailable",
                    format!("error trying to reach service: {e}"),
                ));
            }
        }
    } else {
        body.map_err(|e| -> BoxError { e.into() }).boxed_unsync()
    };
    let mut out = Response::new(body);
    *out.status_mut() = parts.status;
    for (name, value) in &parts.headers {
        if !hop(name) {
            out.headers_mut().append(name.clone(), value.clone());
        }
    }
    let location = parts
        .headers
        .get(header::LOCATION)
        .and_then(|v| v.to_str().ok())
        .filter(|to| to.starts_with('/') && !to.starts_with("//"))
        .zip(own)
        .and_then(|(to, own)| HeaderValue::from_str(&format!("{own}{to}")).ok());
    if let Some(to) = location {
        out.headers_mut().insert(header::LOCATION, to);
    }
    out
}

/// TLS towards pods and services, whose certificates nobody vouches for; the real server does the same.
pub(crate) fn unverified(
    identity: Option<pki::tls::Identity>,
) -> ApiResult<Arc<rustls::ClientConfig>> {
    let provider = runtime::tls::provider();
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(ApiError::internal)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)));
    let config = match identity {
        Some(identity) => builder
            .with_client_auth_cert(identity.chain, identity.key)
            .map_err(ApiError::internal)?,
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_a_scheme_and_a_port() {
        let of = |text| Target::parse(text).map(|t| (t.tls, t.name, t.port));
        assert_eq!(of("a"), Some((false, "a", "")));
        assert_eq!(of("a:80"), Some((false, "a", "80")));
        assert_eq!(of("https:a:web"), Some((true, "a", "web")));
        assert_eq!(of("https:a:"), Some((true, "a", "")));
        assert_eq!(of("ftp:a:1"), None);
        assert_eq!(of(":80"), None);
    }

    #[test]
    fn the_path_behind_the_proxy_is_kept_as_it_is() {
        assert_eq!(
            split("/api/v1/namespaces/n/pods/a/proxy/x%2Fy/"),
            ("/api/v1/namespaces/n/pods/a/proxy", "/x%2Fy/")
        );
        assert_eq!(
            split("/api/v1/namespaces/n/pods/a/proxy"),
            ("/api/v1/namespaces/n/pods/a/proxy", "")
        );
    }
}
