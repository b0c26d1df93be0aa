//! From the head that was read to the request.

use std::time::Instant;

use http::{HeaderMap, Method, StatusCode, header};

use super::super::decode::Framing;
use super::super::head::{HeadError, RequestHead, Version, has_token};
use super::{RequestBody, Shared};
use crate::body::Body;
use crate::http::connection::Connection;
use crate::http::message::{Informational, Protocol, Request};

/// Turns what stands on the wire into a request: the forms of the target, the host, the framing.
pub(super) fn request(
    head: RequestHead,
    inner: &Shared,
    info: &Informational,
    conn: &Connection,
) -> Result<Request, HeadError> {
    let options = conn.options();
    let proxy_continue = options.proxy_100_continue;
    let RequestHead {
        method,
        target,
        version,
        mut headers,
        framing,
        bytes,
        ..
    } = head;
    let target = std::str::from_utf8(&target).map_err(|_| HeadError::InvalidUrl)?;
    if !target.is_ascii() {
        return Err(HeadError::Codec);
    }
    // Two hosts are two opinions about where this goes (RFC 9112, 3.2).
    if headers.get_all(header::HOST).iter().count() > 1 {
        return Err(HeadError::InvalidAuthority);
    }
    if !conn.admits_names(&mut headers, Protocol::Http11) {
        return Err(HeadError::Underscore);
    }
    // What names itself hop by hop is removed; what others rely on must not be.
    let guarded = headers.get_all(header::CONNECTION).iter().any(|value| {
        ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"]
            .iter()
            .any(|name| has_token(value, name))
    });
    if guarded {
        return Err(HeadError::ConnectionHeader);
    }
    let host = headers.remove(header::HOST);
    let mut authority = match &host {
        Some(host) => Some(
            host.to_str()
                .map_err(|_| HeadError::InvalidAuthority)?
                .to_owned(),
        ),
        None if version == Version::Http10 && !options.default_host.is_empty() => {
            Some(options.default_host.clone())
        }
        None => None,
    };
    let mut scheme = None;
    let path = if method == Method::CONNECT {
        // The authority form replaces the host.
        let port = target.rsplit_once(':').map_or("", |(_, port)| port);
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(HeadError::InvalidUrl);
        }
        authority = Some(target.to_owned());
        String::new()
    } else if target == "*" && method != Method::OPTIONS {
        return Err(HeadError::InvalidUrl);
    } else if target.starts_with('/') || target == "*" {
        target.to_owned()
    } else {
        if !target.contains("://") {
            return Err(match target.starts_with('*') {
                true => HeadError::InvalidUrl,
                false => HeadError::Codec,
            });
        }
        let uri: http::Uri = target.parse().map_err(|_| HeadError::InvalidUrl)?;
        let absolute = uri.authority().ok_or(HeadError::InvalidUrl)?;
        scheme = match uri.scheme_str() {
            Some("http") => Some("http"),
            Some("https") => Some("https"),
            _ => return Err(HeadError::InvalidScheme),
        };
        // A user in front of the host is nobody's business.
        let absolute = absolute.as_str();
        authority = Some(
            absolute
                .rsplit_once('@')
                .map_or(absolute, |(_, host)| host)
                .to_owned(),
        );
        uri.path_and_query()
            .map_or_else(|| "/".to_owned(), |path| path.as_str().to_owned())
    };
    if authority
        .as_deref()
        .is_some_and(|host| !host.bytes().all(authority_byte))
    {
        return Err(HeadError::InvalidAuthority);
    }
    let expect = headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if expect && !proxy_continue {
        headers.remove(header::EXPECT);
        info.push(StatusCode::CONTINUE, HeaderMap::new());
    }
    let upgrade = headers.contains_key(header::UPGRADE)
        && headers
            .get_all(header::CONNECTION)
            .iter()
            .any(|value| has_token(value, "upgrade"));
    // Nobody upgrades to HTTP/2 this way any more: the request is served as it is.
    let h2c = headers
        .get(header::UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"h2c"));
    if h2c {
        headers.remove(header::UPGRADE);
        headers.remove(header::CONNECTION);
        headers.remove("http2-settings");
    }
    let upgrade = upgrade && !h2c;
    let body = match framing {
        // After CONNECT and after an upgrade whatever follows belongs to the tunnel.
        Framing::None => Body::Empty,
        _ => Body::H1Request(RequestBody {
            inner: inner.clone(),
        }),
    };
    if let Framing::Length(length) = framing {
        // One line, however many equal ones there were.
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    Ok(Request {
        method,
        scheme,
        authority,
        path,
        headers,
        body,
        protocol: if version == Version::Http10 {
            Protocol::Http10
        } else {
            Protocol::Http11
        },
        upgrade,
        extended_connect: None,
        wire_bytes: bytes as u64,
        info: info.clone(),
        start: Instant::now(),
    })
}

/// Whether a host may contain this byte.
fn authority_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@[]".contains(&byte)
}
