//! The plain, streaming proxy: the request goes on as it came, the answer comes back as it is.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::uri::{Authority, PathAndQuery, Scheme};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use service_kit::{Error, Forwarded, Result};

use crate::Gateway;

/// What is passed on, in the order of the addresses given to [`Proxy::new`].
pub const PREFIXES: [&str; 3] = ["users", "movies", "bookings"];

/// Headers that belong to one connection and are never passed on (RFC 9110 section 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The services behind the gateway.
pub struct Proxy {
    client: Client<HttpConnector, Body>,
    upstreams: [Authority; PREFIXES.len()],
}

impl Proxy {
    /// A proxy to the services at these addresses (`http://host:port`).
    ///
    /// # Errors
    /// When one of them is no such address.
    pub fn new(addresses: [String; PREFIXES.len()]) -> anyhow::Result<Self> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let authority = |address: &String| {
            address
                .parse::<Uri>()
                .ok()
                .filter(|uri| uri.scheme_str() == Some("http"))
                .and_then(|uri| uri.authority().cloned())
                .ok_or_else(|| {
                    anyhow::anyhow!("{address:?} is not an address like http://host:port")
                })
        };
        let [users, movies, bookings] = &addresses;
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            upstreams: [authority(users)?, authority(movies)?, authority(bookings)?],
        })
    }

    /// The service a path belongs to.
    fn upstream(&self, path: &str) -> Option<(&'static str, &Authority)> {
        let first = path.trim_start_matches('/').split('/').next()?;
        let index = PREFIXES.iter().position(|prefix| *prefix == first)?;
        Some((PREFIXES[index], &self.upstreams[index]))
    }
}

/// Passes a request on.
pub async fn forward(
    State(gateway): State<Arc<Gateway>>,
    mut request: Request,
) -> Result<Response> {
    let started = Instant::now();
    let (service, upstream) = gateway
        .proxy
        .upstream(request.uri().path())
        .ok_or_else(|| Error::NotFound(format!("there is nothing at {}", request.uri().path())))?;
    *request.uri_mut() = target(upstream, request.uri().path_and_query())?;
    without_hop_by_hop(request.headers_mut());
    let host = HeaderValue::from_str(upstream.as_str())
        .map_err(|error| Error::Internal(error.to_string()))?;
    request.headers_mut().insert(header::HOST, host);
    let response = match gateway.proxy.client.request(request).await {
        Ok(response) => {
            let mut response = response.map(Body::new);
            without_hop_by_hop(response.headers_mut());
            response.extensions_mut().insert(Forwarded);
            response
        }
        Err(error) => {
            let why = cause(&error);
            Error::BadGateway(format!("the {service} service did not answer: {why}"))
                .into_response()
        }
    };
    gateway
        .history
        .record(service, &response, started.elapsed());
    Ok(response)
}

/// The innermost reason of an error: "connection refused", not "client error".
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn target(upstream: &Authority, path: Option<&PathAndQuery>) -> Result<Uri> {
    Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(upstream.clone())
        .path_and_query(path.cloned().unwrap_or(PathAndQuery::from_static("/")))
        .build()
        .map_err(|error| Error::BadRequest(format!("not a path: {error}")))
}

/// Removes what belongs to one connection: the known headers and those that `Connection` names.
fn without_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_their_service() {
        let proxy = Proxy::new(["http://u:1", "http://m:2", "http://b:3"].map(Into::into)).unwrap();
        assert_eq!(proxy.upstream("/users/").unwrap().0, "users");
        assert_eq!(proxy.upstream("/bookings/user/1").unwrap().1, "b:3");
        assert!(proxy.upstream("/usersx").is_none());
        assert!(Proxy::new(["x", "http://m:2", "http://b:3"].map(Into::into)).is_err());
    }

    #[test]
    fn headers_of_one_connection_stay_on_it() {
        let mut headers = HeaderMap::new();
        headers.insert("connection", "x-mine, close".parse().unwrap());
        headers.insert("x-mine", "1".parse().unwrap());
        headers.insert("keep-alive", "5".parse().unwrap());
        headers.insert("x-canary", "true".parse().unwrap());
        without_hop_by_hop(&mut headers);
        assert_eq!(headers.len(), 1, "seen {headers:?}");
    }
}
