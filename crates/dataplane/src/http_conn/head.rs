//! What a connection manager does to the heads of requests and responses.

use std::net::{IpAddr, SocketAddr};

use http::header::{CONNECTION, DATE, HOST, SERVER, TE, TRANSFER_ENCODING, UPGRADE, VIA};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{CertificateDetail, ForwardClientCert, HttpConn, Ingress, ServerHeader};
use crate::local_reply::{LocalReply, MISSING_HOST};
use crate::request::{RequestHeadMut, any_begins, joined};
use crate::stream::{Certificate, Connection};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Only requests from inside may say these.
const FOR_INTERNAL: [&str; 14] = [
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-max-retries",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-force-trace",
    "x-envoy-ip-tags",
    "x-envoy-original-url",
    "x-envoy-hedge-on-per-try-timeout",
];

/// At the edge of the mesh nobody may say these.
const NOT_AT_EDGE: [&str; 4] = [
    "x-envoy-original-path",
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
];

impl HttpConn {
    /// Prepares the head of a request: hop-by-hop headers, x-forwarded-for, -proto, -client-cert,
    /// x-request-id, x-envoy-* of strangers, via. `new_request_id` is a fresh UUID, used when one is needed.
    /// `Err`: answer this.
    pub fn request(
        &self,
        head: &mut RequestHeadMut<'_>,
        connection: &Connection,
        new_request_id: &dyn Fn() -> String,
    ) -> Result<Ingress, LocalReply> {
        if head.authority.is_empty() {
            return Err(MISSING_HOST);
        }
        self.normalize_host(head.authority, connection.local.port());
        let headers = &mut *head.headers;
        headers.remove(HOST);
        if !is_upgrade(headers) {
            remove_hop_by_hop(headers);
        }
        let told = any_begins(headers, &["x-envoy-"]);
        if told {
            headers.remove(&INTERNAL);
        }
        headers.remove(&KEEP_ALIVE);
        headers.remove(&PROXY_CONNECTION);
        headers.remove(TRANSFER_ENCODING);

        let tls = connection.tls.is_some();
        let default_scheme = if tls { "https" } else { "http" };
        let (remote, single) = self.remote_address(headers, connection.remote);
        if self.use_remote_address {
            if !self.skip_xff_append {
                // A neighbour on the loopback says nothing to others: the node's own address stands for it.
                let peer = connection.remote.ip().to_canonical();
                let peer = if peer.is_loopback() {
                    self.node_address.unwrap_or(peer)
                } else {
                    peer
                };
                append(headers, FORWARDED_FOR, &peer.to_string());
            }
            // What a stranger says about the protocol is not to be believed.
            if self.trusted_hops == 0 {
                headers.remove(&FORWARDED_PROTO);
            }
        }
        if self.append_forwarded_port
            && (self.trusted_hops == 0 || !headers.contains_key("x-forwarded-port"))
        {
            headers.insert("x-forwarded-port", connection.local.port().into());
        }
        if !headers.contains_key(&FORWARDED_PROTO) {
            headers.insert(FORWARDED_PROTO, HeaderValue::from_static(default_scheme));
        }
        let scheme = match (head.scheme, headers[&FORWARDED_PROTO].as_bytes()) {
            (scheme, _) if scheme.eq_ignore_ascii_case("https") => "https",
            (scheme, _) if scheme.eq_ignore_ascii_case("http") => "http",
            (_, b"https") => "https",
            (_, b"http") => "http",
            _ => default_scheme,
        };

        let internal = single
            && self
                .internal
                .iter()
                .any(|range| range.contains(remote.ip()));
        let edge = !internal && self.use_remote_address;
        if internal {
            headers.insert(INTERNAL, HeaderValue::from_static("true"));
        } else if told {
            for name in FOR_INTERNAL {
                headers.remove(name);
            }
        }
        if edge {
            if told {
                for name in NOT_AT_EDGE {
                    headers.remove(name);
                }
            }
            set(
                headers,
                EXTERNAL_ADDRESS,
                &remote.ip().to_canonical().to_string(),
            );
        }
        if !self.via.is_empty() {
            append_with(headers, VIA, &self.via, ", ");
        }
        let foreign_id = edge && !self.preserve_external_request_id;
        if self.generate_request_id && (foreign_id || !headers.contains_key(&REQUEST_ID)) {
            set(headers, REQUEST_ID, &new_request_id());
        }
        self.forward_certificate(headers, connection);
        Ok(Ingress {
            remote,
            internal,
            scheme,
        })
    }

    /// Prepares response headers: hop-by-hop headers, server, date (if missing), via, request id.
    /// `date` is the IMF-fixdate of now; `upgrade` for an answer that switches protocols.
    pub fn response(
        &self,
        headers: &mut HeaderMap,
        date: &str,
        request_id: Option<&str>,
        upgrade: bool,
    ) {
        if !upgrade {
            headers.remove(CONNECTION);
            headers.remove(UPGRADE);
        }
        headers.remove(TRANSFER_ENCODING);
        headers.remove(&KEEP_ALIVE);
        headers.remove(&PROXY_CONNECTION);
        if let Some(id) = request_id.filter(|_| self.request_id_in_response) {
            set(headers, REQUEST_ID, id);
        }
        if !self.via.is_empty() {
            append_with(headers, VIA, &self.via, ", ");
        }
        if !headers.contains_key(DATE) {
            set(headers, DATE, date);
        }
        match self.server_header {
            ServerHeader::Overwrite => set(headers, SERVER, &self.server_name),
            ServerHeader::AppendIfAbsent if !headers.contains_key(SERVER) => {
                set(headers, SERVER, &self.server_name)
            }
            ServerHeader::AppendIfAbsent | ServerHeader::PassThrough => {}
        }
    }

    /// Whether an upgrade to this protocol is allowed, given what the route says (`None`: nothing).
    pub fn upgrade_allowed(&self, protocol: &str, route: Option<bool>) -> bool {
        route.unwrap_or_else(|| {
            self.upgrades
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(protocol))
        })
    }

    fn normalize_host(&self, authority: &mut String, listener_port: u16) {
        if (self.strip_any_port || self.strip_matching_port)
            && let Some(colon) = authority
                .rfind(':')
                .filter(|colon| authority.rfind(']').is_none_or(|end| end < *colon))
            && let Ok(port) = authority[colon + 1..].parse::<u16>()
            && (self.strip_any_port || port == listener_port)
        {
            authority.truncate(colon);
        }
        if self.strip_trailing_dot {
            let end = authority
                .rfind(':')
                .filter(|colon| !authority[*colon..].contains(']'))
                .unwrap_or(authority.len());
            if authority[..end].ends_with('.') {
                authority.remove(end - 1);
            }
        }
    }

    /// The client, and whether nobody stands between it and us who could have made that up.
    fn remote_address(&self, headers: &HeaderMap, peer: SocketAddr) -> (SocketAddr, bool) {
        let list = joined(headers, &FORWARDED_FOR);
        let hops = self.trusted_hops as usize;
        let from_list = |skip: usize| -> Option<(SocketAddr, bool)> {
            let list = list.as_deref()?;
            let mut addresses = list.rsplit(',');
            let address: IpAddr = addresses.nth(skip)?.trim().parse().ok()?;
            Some((
                SocketAddr::new(address, 0),
                skip == 0 && addresses.next().is_none(),
            ))
        };
        if self.use_remote_address {
            let trusted = if hops > 0 {
                from_list(hops - 1).map(|(address, _)| address)
            } else {
                None
            };
            (trusted.unwrap_or(peer), list.is_none())
        } else {
            from_list(hops).unwrap_or((peer, list.is_none()))
        }
    }

    fn forward_certificate(&self, headers: &mut HeaderMap, connection: &Connection) {
        let policy = self.forward_client_cert;
        if policy == ForwardClientCert::AlwaysForwardOnly {
            return;
        }
        let peer = connection
            .peer_certificate()
            .filter(|_| policy != ForwardClientCert::Sanitize);
        let Some(peer) = peer else {
            headers.remove(&CLIENT_CERT);
            return;
        };
        match policy {
            ForwardClientCert::AppendForward => {
                append(headers, CLIENT_CERT, &self.element(peer, connection));
            }
            ForwardClientCert::SanitizeSet => {
                set(headers, CLIENT_CERT, &self.element(peer, connection))
            }
            _ => {}
        }
    }

    /// Our element: `By=...;Hash=...;Subject="...";URI=...`.
    fn element(&self, peer: &Certificate, connection: &Connection) -> String {
        let mut parts = Vec::new();
        let local = connection.tls.as_ref().and_then(|tls| tls.local.as_deref());
        parts.extend(
            local
                .iter()
                .flat_map(|local| &local.uris)
                .map(|uri| format!("By={uri}")),
        );
        if !peer.sha256.is_empty() {
            parts.push(format!("Hash={}", peer.sha256));
        }
        for detail in &self.certificate_details {
            match detail {
                CertificateDetail::Cert if peer.url_encoded_pem.is_empty() => {}
                CertificateDetail::Cert => parts.push(format!("Cert=\"{}\"", peer.url_encoded_pem)),
                CertificateDetail::Subject => parts.push(format!("Subject=\"{}\"", peer.subject)),
                CertificateDetail::Uri if peer.uris.is_empty() => parts.push("URI=".to_owned()),
                CertificateDetail::Uri => {
                    parts.extend(peer.uris.iter().map(|uri| format!("URI={uri}")))
                }
                CertificateDetail::Dns => {
                    parts.extend(peer.dns.iter().map(|dns| format!("DNS={dns}")))
                }
                CertificateDetail::Issuer => parts.push(format!("Issuer=\"{}\"", peer.issuer)),
            }
        }
        parts.join(";")
    }
}

/// Whether these headers ask for (or confirm) another protocol on the connection.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && joined(headers, CONNECTION).is_some_and(|value| {
            value
                .split(',')
                .any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
        })
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let te = joined(headers, TE).is_some_and(|te| {
        te.split(',')
            .any(|token| token.trim().eq_ignore_ascii_case("trailers"))
    });
    if let Some(named) = joined(headers, CONNECTION).map(|value| value.into_owned()) {
        let standard = ["close", "keep-alive", "upgrade", "te"];
        for name in named
            .split(',')
            .map(str::trim)
            .filter(|name| !standard.iter().any(|own| own.eq_ignore_ascii_case(name)))
        {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    headers.remove(UPGRADE);
    if te {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    } else {
        headers.remove(TE);
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn append(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    append_with(headers, name, value, ",");
}

/// Appends to the one value of a list header, as Envoy writes it.
fn append_with(headers: &mut HeaderMap, name: HeaderName, value: &str, separator: &str) {
    let old = joined(headers, &name).filter(|old| !old.is_empty());
    let new = old.map(|old| format!("{old}{separator}{value}"));
    set(headers, name, new.as_deref().unwrap_or(value));
}

#[cfg(test)]
mod tests;
