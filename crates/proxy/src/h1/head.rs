//! Request and response heads: parsing with Envoy's limits and verdicts, and writing.

use std::mem::MaybeUninit;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::decode::Framing;

/// The most headers of a message (Envoy's default `max_headers_count`).
pub const MAX_HEADERS: usize = 100;
/// The most bytes of a head (Envoy's default `max_request_headers_kb`).
pub const MAX_HEAD: usize = 60 * 1024;

/// What a request head may be.
#[derive(Debug, Clone, Copy)]
pub struct HeadRules {
    /// The most bytes.
    pub max_head: usize,
    /// The most headers.
    pub max_headers: usize,
    /// Methods that are in no list are welcome.
    pub custom_methods: bool,
}

impl Default for HeadRules {
    fn default() -> Self {
        Self {
            max_head: MAX_HEAD,
            max_headers: MAX_HEADERS,
            custom_methods: false,
        }
    }
}

/// The version in the start line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// A request head as it stands on the wire.
#[derive(Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The target, whatever its form.
    pub target: Bytes,
    /// The version.
    pub version: Version,
    /// The headers, names in lower case.
    pub headers: HeaderMap,
    /// How long the body is.
    pub framing: Framing,
    /// Whether the client wants to keep the connection.
    pub keep_alive: bool,
    /// The bytes of the head.
    pub bytes: usize,
}

/// A response head as it stands on the wire.
#[derive(Debug)]
pub struct ResponseHead {
    /// The status code.
    pub status: StatusCode,
    /// The version.
    pub version: Version,
    /// The headers, names in lower case.
    pub headers: HeaderMap,
    /// How long the body is; not yet corrected for HEAD, 1xx, 204 and 304.
    pub framing: Framing,
    /// Whether the server keeps the connection.
    pub keep_alive: bool,
    /// The bytes of the head.
    pub bytes: usize,
}

/// Why a head was refused: what Envoy answers and what it writes as response code details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// Not HTTP.
    Codec,
    /// More than [`MAX_HEAD`] bytes.
    TooLarge,
    /// More than [`MAX_HEADERS`] headers.
    TooMany,
    /// Both a length and chunks.
    LengthAndChunked,
    /// A transfer encoding other than `chunked`.
    TransferEncoding,
    /// A header name with an underscore or a byte that is none, or a value with a forbidden byte.
    InvalidHeader,
    /// A target that cannot be.
    InvalidUrl,
    /// An absolute target of another scheme than HTTP's.
    InvalidScheme,
    /// A host with bytes that no host has.
    InvalidAuthority,
    /// A header name with an underscore where that is forbidden.
    Underscore,
    /// `connection` names a header that must not be taken away.
    ConnectionHeader,
    /// A version that is none of HTTP/1.
    Version,
    /// A request that waits for an upgrade and has a body framing that cannot be.
    BodyDisallowed,
}

impl HeadError {
    /// The status, the body and the response code details of Envoy's answer.
    pub fn answer(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Codec => (StatusCode::BAD_REQUEST, "Bad Request", "http1.codec_error"),
            Self::TooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "Request Header Fields Too Large",
                "http1.headers_too_large",
            ),
            Self::TooMany => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "Request Header Fields Too Large",
                "http1.too_many_headers",
            ),
            Self::LengthAndChunked => (
                StatusCode::BAD_REQUEST,
                "Bad Request",
                "http1.content_length_and_chunked_not_allowed",
            ),
            Self::TransferEncoding => (
                StatusCode::NOT_IMPLEMENTED,
                "Not Implemented",
                "http1.invalid_transfer_encoding",
            ),
            Self::InvalidHeader => (
                StatusCode::BAD_REQUEST,
                "Bad Request",
                "http1.invalid_characters",
            ),
            Self::InvalidUrl => (StatusCode::BAD_REQUEST, "Bad Request", "http1.invalid_url"),
            Self::InvalidScheme => (
                StatusCode::BAD_REQUEST,
                "Bad Request",
                "http1.invalid_scheme",
            ),
            Self::InvalidAuthority => (
                StatusCode::BAD_REQUEST,
                "Bad Request",
                "http.invalid_authority",
            ),
            Self::Underscore => (
                StatusCode::BAD_REQUEST,
                "Bad Request",
                "http1.unexpected_underscore",
            ),
            Self::ConnectionHeader => (
                StatusCode::BAD_REQUEST,
                "Bad Request",
                "http1.connection_header_rejected",
            ),
            Self::Version => (
                StatusCode::UPGRADE_REQUIRED,
                "Upgrade Required",
                "low_version",
            ),
            Self::BodyDisallowed => (
                StatusCode::BAD_REQUEST,
                "Bad Request",
                "http1.body_disallowed",
            ),
        }
    }
}

type Span = (usize, usize, usize, usize);

/// Collects header positions so that the head can be split off the buffer without a copy.
fn spans(headers: &[httparse::Header<'_>], base: *const u8, out: &mut [Span]) {
    for (header, slot) in headers.iter().zip(out.iter_mut()) {
        let name = header.name.as_ptr() as usize - base as usize;
        // An empty value may point anywhere.
        let value = if header.value.is_empty() {
            0
        } else {
            header.value.as_ptr() as usize - base as usize
        };
        *slot = (
            name,
            name + header.name.len(),
            value,
            value + header.value.len(),
        );
    }
}

/// Parses a request head at the start of `buf` and takes it off; `Ok(None)` when it is not complete yet.
///
/// # Errors
/// Why Envoy would refuse it; the connection is of no use afterwards.
pub fn parse_request(
    buf: &mut BytesMut,
    rules: &HeadRules,
) -> Result<Option<RequestHead>, HeadError> {
    let max_head = rules.max_head;
    // Clients may send an empty line before the request line (RFC 9112, 2.2).
    while buf.starts_with(b"\r\n") {
        let _ = buf.split_to(2);
    }
    // The usual number fits the stack.
    let mut few = [MaybeUninit::<httparse::Header<'_>>::uninit(); MAX_HEADERS];
    let mut few_positions: [Span; MAX_HEADERS] = [(0, 0, 0, 0); MAX_HEADERS];
    let (mut many, mut many_positions);
    let (storage, positions) = if rules.max_headers <= MAX_HEADERS {
        (&mut few[..rules.max_headers], &mut few_positions[..])
    } else {
        many = vec![MaybeUninit::<httparse::Header<'_>>::uninit(); rules.max_headers];
        many_positions = vec![(0, 0, 0, 0); rules.max_headers];
        (&mut many[..], &mut many_positions[..])
    };
    let mut request = httparse::Request::new(&mut []);
    let base = buf.as_ptr();
    let (size, method, target, version, count) = match request
        .parse_with_uninit_headers(buf, storage)
    {
        Ok(httparse::Status::Complete(size)) => {
            spans(request.headers, base, positions);
            let name = request.method.unwrap_or_default();
            let custom = rules.custom_methods && name.bytes().all(|b| b.is_ascii_uppercase());
            if !METHODS.contains(&name) && !custom {
                return Err(HeadError::Codec);
            }
            let method = Method::from_bytes(name.as_bytes()).map_err(|_| HeadError::Codec)?;
            let path = request.path.unwrap_or_default();
            let start = path.as_ptr() as usize - base as usize;
            let version = if request.version == Some(0) {
                Version::Http10
            } else {
                Version::Http11
            };
            (
                size,
                method,
                (start, start + path.len()),
                version,
                request.headers.len(),
            )
        }
        Ok(httparse::Status::Partial) => {
            return if buf.len() > max_head {
                Err(HeadError::TooLarge)
            } else {
                Ok(None)
            };
        }
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooMany),
        Err(httparse::Error::Version) if lacks_version(buf) => return Err(HeadError::Version),
        Err(httparse::Error::Version) => return Err(version_error(buf)),
        Err(httparse::Error::HeaderValue) => return Err(HeadError::InvalidHeader),
        Err(httparse::Error::HeaderName) => {
            return Err(if buf.contains(&0) {
                HeadError::InvalidHeader
            } else {
                HeadError::Codec
            });
        }
        Err(_) if lacks_version(buf) => return Err(HeadError::Version),
        Err(httparse::Error::Token) if has_control(buf) => return Err(HeadError::InvalidHeader),
        Err(_) => return Err(HeadError::Codec),
    };
    if size > max_head {
        return Err(HeadError::TooLarge);
    }
    let head = buf.split_to(size).freeze();
    let headers = collect(&head, &positions[..count])?;
    let framing = request_framing(&headers, version)?;
    let keep_alive = keep_alive(&headers, version);
    Ok(Some(RequestHead {
        method,
        target: head.slice(target.0..target.1),
        version,
        headers,
        framing,
        keep_alive,
        bytes: size,
    }))
}

/// Parses a response head at the start of `buf` and takes it off; `Ok(None)` when it is not complete yet.
///
/// # Errors
/// When it is not a response a proxy may forward.
pub fn parse_response(
    buf: &mut BytesMut,
    max_head: usize,
) -> Result<Option<ResponseHead>, HeadError> {
    let mut storage = [MaybeUninit::<httparse::Header<'_>>::uninit(); MAX_HEADERS];
    let mut positions: [Span; MAX_HEADERS] = [(0, 0, 0, 0); MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let base = buf.as_ptr();
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        buf,
        &mut storage,
    );
    let (size, status, version, count) = match parsed {
        Ok(httparse::Status::Complete(size)) => {
            spans(response.headers, base, &mut positions);
            let status = StatusCode::from_u16(response.code.unwrap_or_default())
                .map_err(|_| HeadError::Codec)?;
            let version = if response.version == Some(0) {
                Version::Http10
            } else {
                Version::Http11
            };
            (size, status, version, response.headers.len())
        }
        Ok(httparse::Status::Partial) => {
            return if buf.len() > max_head {
                Err(HeadError::TooLarge)
            } else {
                Ok(None)
            };
        }
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooMany),
        Err(_) => return Err(HeadError::Codec),
    };
    if size > max_head {
        return Err(HeadError::TooLarge);
    }
    let head = buf.split_to(size).freeze();
    let headers = collect(&head, &positions[..count])?;
    let chunked = transfer_encoding(&headers)?;
    let bodiless = status.is_informational() || status == StatusCode::NO_CONTENT;
    if chunked && bodiless {
        return Err(HeadError::TransferEncoding);
    }
    let framing = match (chunked, content_length(&headers)?) {
        (false, Some(1..)) if bodiless => return Err(HeadError::Codec),
        (true, Some(_)) => return Err(HeadError::LengthAndChunked),
        (true, None) => Framing::Chunked,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::UntilClose,
    };
    let keep_alive = keep_alive(&headers, version);
    Ok(Some(ResponseHead {
        status,
        version,
        headers,
        framing,
        keep_alive,
        bytes: size,
    }))
}

fn collect(head: &Bytes, positions: &[Span]) -> Result<HeaderMap, HeadError> {
    let mut headers = HeaderMap::with_capacity(positions.len() + 8);
    for &(name, name_end, value, value_end) in positions {
        let name =
            HeaderName::from_bytes(&head[name..name_end]).map_err(|_| HeadError::InvalidHeader)?;
        let value = HeaderValue::from_maybe_shared(head.slice(value..value_end))
            .map_err(|_| HeadError::InvalidHeader)?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// The methods Envoy's codec knows.
const METHODS: [&str; 35] = [
    "ACL",
    "BIND",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MOVE",
    "MSEARCH",
    "NOTIFY",
    "OPTIONS",
    "PATCH",
    "POST",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "PUT",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SOURCE",
    "SUBSCRIBE",
    "TRACE",
    "UNBIND",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
];

/// `HTTP/3.0` asks for another protocol, anything else is none.
fn version_error(buf: &[u8]) -> HeadError {
    let line = buf.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let words: Vec<&[u8]> = line.trim_ascii_end().split(|&byte| byte == b' ').collect();
    let &[method, _, version] = &words[..] else {
        return HeadError::Codec;
    };
    if !METHODS.iter().any(|known| known.as_bytes() == method) {
        return HeadError::Codec;
    }
    match version.strip_prefix(b"HTTP/") {
        Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit() => {
            HeadError::Version
        }
        _ => HeadError::Codec,
    }
}

/// Whether the start line is one of HTTP/0.9: a method that is known, a target, and no version.
fn lacks_version(buf: &[u8]) -> bool {
    let line = buf.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line.split(|&byte| byte == b' ');
    let method = words.next().unwrap_or_default();
    METHODS.iter().any(|known| known.as_bytes() == method)
        && words.next().is_some_and(|target| target.starts_with(b"/"))
        && words.all(<[u8]>::is_empty)
}

/// Whether the start line contains a control character.
fn has_control(buf: &[u8]) -> bool {
    // A handshake, or anything else that does not begin like a method.
    if buf.first().is_some_and(|byte| !byte.is_ascii_graphic()) {
        return false;
    }
    let line = buf.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.iter()
        .any(|byte| matches!(byte, 0..=8 | 10..=31 | 127))
}

fn request_framing(headers: &HeaderMap, version: Version) -> Result<Framing, HeadError> {
    let chunked = transfer_encoding(headers)?;
    let length = content_length(headers)?;
    match (chunked, length) {
        (true, Some(_)) => Err(HeadError::LengthAndChunked),
        // HTTP/1.0 has no chunks: what looks like some is an attempt to smuggle.
        (true, None) if version == Version::Http10 => Err(HeadError::TransferEncoding),
        (true, None) => Ok(Framing::Chunked),
        (false, Some(0) | None) => Ok(Framing::None),
        (false, Some(length)) => Ok(Framing::Length(length)),
    }
}

fn transfer_encoding(headers: &HeaderMap) -> Result<bool, HeadError> {
    let mut values = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(false),
        (Some(value), None) if value.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err(HeadError::TransferEncoding),
    }
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, HeadError> {
    let mut length = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        let text = value.as_bytes();
        if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
            return Err(HeadError::Codec);
        }
        let value: u64 = std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or(HeadError::Codec)?;
        // Even equal ones: who sends two does not know what it sends.
        if length.is_some() {
            return Err(HeadError::Codec);
        }
        length = Some(value);
    }
    Ok(length)
}

fn keep_alive(headers: &HeaderMap, version: Version) -> bool {
    let has = |token: &str| {
        headers
            .get_all(header::CONNECTION)
            .iter()
            .chain(headers.get_all("proxy-connection"))
            .any(|value| has_token(value, token))
    };
    match version {
        Version::Http11 => !has("close"),
        Version::Http10 => has("keep-alive"),
    }
}

/// Whether a comma-separated header value contains this token, in any case.
pub fn has_token(value: &HeaderValue, token: &str) -> bool {
    value
        .as_bytes()
        .split(|&b| b == b',')
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Writes one header line. With `case`, the name in the form of [`HeaderCase`].
#[inline]
pub fn write_header(out: &mut BytesMut, name: &HeaderName, value: &HeaderValue, case: HeaderCase) {
    let name = name.as_str().as_bytes();
    out.reserve(name.len() + value.len() + 4);
    match case {
        HeaderCase::Lower => out.put_slice(name),
        HeaderCase::ProperCase => {
            let mut upper = true;
            for &byte in name {
                out.put_u8(if upper {
                    byte.to_ascii_uppercase()
                } else {
                    byte
                });
                upper = !byte.is_ascii_alphanumeric();
            }
        }
    }
    out.put_slice(b": ");
    out.put_slice(value.as_bytes());
    out.put_slice(b"\r\n");
}

/// How header names are written over HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum HeaderCase {
    /// As Envoy does by default.
    #[default]
    Lower,
    /// Words begin with a capital (`proper_case_words`).
    ProperCase,
}

/// The reason phrase Envoy writes: its own table, `Unknown` outside of it.
pub fn reason(status: StatusCode) -> &'static str {
    match status.as_u16() {
        // Assigned later than Envoy's table or not at all.
        418 | 451 => "Unknown",
        599 => "Last Unassigned Server Error Code",
        // Envoy says these differently from the registry.
        203 => "Non-Authoritative Information",
        208 => "Already Reported",
        413 => "Payload Too Large",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        422 => "Unprocessable Entity",
        _ => status.canonical_reason().unwrap_or("Unknown"),
    }
}

/// Writes a status line.
pub fn write_status_line(out: &mut BytesMut, version: Version, status: StatusCode) {
    out.put_slice(match version {
        Version::Http10 => b"HTTP/1.0 ",
        Version::Http11 => b"HTTP/1.1 ",
    });
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(reason(status).as_bytes());
    out.put_slice(b"\r\n");
}

/// Writes `content-length: N`.
pub fn write_length(out: &mut BytesMut, length: u64) {
    out.put_slice(b"content-length: ");
    write_decimal(out, length);
    out.put_slice(b"\r\n");
}

/// Writes a decimal number.
pub fn write_decimal(out: &mut BytesMut, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<RequestHead>, HeadError> {
        parse_request(&mut BytesMut::from(text.as_bytes()), &HeadRules::default())
    }

    #[test]
    fn a_plain_request_is_read() {
        let head = parse(
            "GET /a?b=c HTTP/1.1\r\nHost: Example.com:80\r\nX-Two: 1\r\nx-two: 2\r\nEmpty:\r\n\r\n",
        )
        .unwrap()
        .unwrap();
        assert_eq!(&head.target[..], b"/a?b=c");
        assert_eq!(head.headers["host"], "Example.com:80");
        assert_eq!(head.headers.get_all("x-two").iter().count(), 2);
        assert_eq!(head.headers["empty"], "");
        assert_eq!(head.framing, Framing::None);
        assert!(head.keep_alive);
    }

    #[test]
    fn an_incomplete_head_waits() {
        assert!(parse("GET / HTTP/1.1\r\nHost: a\r\n").unwrap().is_none());
    }

    #[test]
    fn smuggling_attempts_are_refused() {
        let refused =
            |rest: &str| parse(&format!("POST / HTTP/1.1\r\nHost: a\r\n{rest}\r\n")).unwrap_err();
        assert_eq!(
            refused("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
            HeadError::LengthAndChunked
        );
        assert_eq!(
            refused("Content-Length: 3\r\nContent-Length: 4\r\n"),
            HeadError::Codec
        );
        assert_eq!(refused("Content-Length: +3\r\n"), HeadError::Codec);
        assert_eq!(refused("Content-Length: 3, 3\r\n"), HeadError::Codec);
        assert_eq!(
            refused("Transfer-Encoding: gzip\r\n"),
            HeadError::TransferEncoding
        );
        assert_eq!(
            refused("Transfer-Encoding: chunked, chunked\r\n"),
            HeadError::TransferEncoding
        );
        assert_eq!(refused("X: a\r\n folded\r\n"), HeadError::Codec);
        assert_eq!(refused("X : a\r\n"), HeadError::Codec);
    }

    #[test]
    fn limits_hold() {
        let many: String = (0..101).map(|i| format!("x{i}: 1\r\n")).collect();
        assert_eq!(
            parse(&format!("GET / HTTP/1.1\r\n{many}\r\n")).unwrap_err(),
            HeadError::TooMany
        );
        let large = "a".repeat(MAX_HEAD);
        assert_eq!(
            parse(&format!("GET / HTTP/1.1\r\nx: {large}\r\n\r\n")).unwrap_err(),
            HeadError::TooLarge
        );
        assert_eq!(
            parse(&format!("GET / HTTP/1.1\r\nx: {large}")).unwrap_err(),
            HeadError::TooLarge
        );
    }

    #[test]
    fn old_clients_keep_the_connection_only_on_request() {
        assert!(!parse("GET / HTTP/1.0\r\n\r\n").unwrap().unwrap().keep_alive);
        assert!(
            parse("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                .unwrap()
                .unwrap()
                .keep_alive
        );
        assert!(
            !parse("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n")
                .unwrap()
                .unwrap()
                .keep_alive
        );
    }

    #[test]
    fn responses_are_read() {
        let mut buf = BytesMut::from("HTTP/1.1 204 No Content\r\nA: b\r\n\r\nrest");
        let head = parse_response(&mut buf, MAX_HEAD).unwrap().unwrap();
        assert_eq!(head.status, 204);
        assert_eq!(head.framing, Framing::UntilClose);
        assert_eq!(&buf[..], b"rest");
    }
}
