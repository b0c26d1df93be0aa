//! `ext_authz`: an authorization service decides, over HTTP or gRPC.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dataplane::ResponseFlags;
use dataplane::lists::{self, Direction};
use dataplane::local_reply::LocalReply;
use dataplane::matching::{Fraction, MetadataMatch, StringMatch, json_to_struct, struct_to_json};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use xds::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use xds::envoy::config::core::v3::{
    Address, HeaderValueOption, SocketAddress, address, socket_address,
};
use xds::envoy::extensions::filters::http::ext_authz::v3 as config;
use xds::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request, TlsSession};
use xds::envoy::service::auth::v3::check_response::HttpResponse;
use xds::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use xds::envoy::r#type::matcher::v3::ListStringMatcher;

use super::super::callout::{self, CallError, GrpcTarget};
use super::super::connection::{Answer, Connection, Flow};
use super::super::mirror;
use super::super::record::{Head, Record};
use super::super::router::SERVICE_TIME;
use super::FilterContext;
use crate::config::listener::duration;
use crate::stats::groups::ExtAuthzStats;

/// The method that decides.
pub(crate) const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// What Envoy waits for when the configuration does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(200);

/// The filter, compiled.
pub struct ExtAuthz {
    service: Service,
    failure_mode_allow: bool,
    failure_mode_allow_header: bool,
    body: Option<BodySettings>,
    clear_route_cache: bool,
    status_on_error: u16,
    metadata_namespaces: Vec<String>,
    enabled: Fraction,
    enabled_metadata: Option<MetadataMatch>,
    deny_at_disable: bool,
    peer_certificate: bool,
    tls_session: bool,
    allowed: Option<Vec<StringMatch>>,
    disallowed: Vec<StringMatch>,
    stats: Arc<ExtAuthzStats>,
}

#[derive(Clone, Copy)]
struct BodySettings {
    max: usize,
    partial: bool,
    raw: bool,
}

enum Service {
    Grpc(GrpcTarget),
    Http(Box<HttpService>),
}

struct HttpService {
    cluster: String,
    timeout: Duration,
    prefix: String,
    path_override: String,
    add: Vec<(HeaderName, HeaderValue)>,
    upstream: Vec<StringMatch>,
    upstream_append: Vec<StringMatch>,
    client: Option<Vec<StringMatch>>,
    client_on_success: Vec<StringMatch>,
    metadata: Vec<StringMatch>,
}

/// What a route says.
pub struct PerRoute {
    disabled: bool,
    context: BTreeMap<String, String>,
    no_body: bool,
    body: Option<BodySettings>,
}

/// What the service decided.
#[derive(Default)]
struct Decision {
    allowed: bool,
    status: Option<u16>,
    body: Bytes,
    /// For the request.
    request: Vec<(HeaderName, HeaderValue, HeaderAppendAction)>,
    remove: Vec<HeaderName>,
    /// For the answer to the client.
    response: Vec<(HeaderName, HeaderValue, HeaderAppendAction)>,
    set_parameters: Vec<(String, String)>,
    remove_parameters: Vec<String>,
    metadata: Option<serde_json::Map<String, serde_json::Value>>,
}

fn list(config: Option<&ListStringMatcher>, field: &str) -> Result<Vec<StringMatch>, String> {
    config
        .iter()
        .flat_map(|list| &list.patterns)
        .map(|pattern| StringMatch::compile(pattern).map_err(|error| format!("{field}: {error}")))
        .collect()
}

fn matches(list: &[StringMatch], name: &str) -> bool {
    list.iter().any(|matcher| matcher.matches(name))
}

fn body_settings(config: Option<&config::BufferSettings>) -> Option<BodySettings> {
    config.map(|body| BodySettings {
        max: body.max_request_bytes as usize,
        partial: body.allow_partial_message,
        raw: body.pack_as_bytes,
    })
}

impl ExtAuthz {
    /// Compiles the filter.
    ///
    /// # Errors
    /// The field that cannot be carried out.
    pub fn compile(config: &config::ExtAuthz, context: &FilterContext<'_>) -> Result<Self, String> {
        for (field, set) in [
            (
                "decoder_header_mutation_rules",
                config.decoder_header_mutation_rules.is_some(),
            ),
            ("shadow_mode", config.shadow_mode),
            ("filter_metadata", config.filter_metadata.is_some()),
            ("encode_raw_headers", config.encode_raw_headers),
            (
                "typed_metadata_context_namespaces",
                !config.typed_metadata_context_namespaces.is_empty(),
            ),
            (
                "route_metadata_context_namespaces",
                !config.route_metadata_context_namespaces.is_empty(),
            ),
            (
                "bootstrap_metadata_labels_key",
                !config.bootstrap_metadata_labels_key.is_empty(),
            ),
        ] {
            if set {
                return Err(format!("{field}: is not supported"));
            }
        }
        let mut allowed = config
            .allowed_headers
            .as_ref()
            .map(|allowed| list(Some(allowed), "allowed_headers"))
            .transpose()?;
        let service = match &config.services {
            Some(config::ext_authz::Services::GrpcService(grpc)) => {
                Service::Grpc(GrpcTarget::compile(Some(grpc), DEFAULT_TIMEOUT)?)
            }
            Some(config::ext_authz::Services::HttpService(http)) => {
                let service =
                    HttpService::compile(http).map_err(|error| format!("http_service.{error}"))?;
                #[allow(deprecated)]
                let own = http
                    .authorization_request
                    .as_ref()
                    .and_then(|request| request.allowed_headers.as_ref());
                if let (None, Some(own)) = (&allowed, own) {
                    allowed = Some(list(
                        Some(own),
                        "http_service.authorization_request.allowed_headers",
                    )?);
                }
                // An HTTP service gets no header but those it was promised.
                allowed.get_or_insert_default();
                Service::Http(Box::new(service))
            }
            None => return Err("services: http_service or grpc_service is missing".into()),
        };
        let prefix = if config.stat_prefix.is_empty() {
            format!("http.{}.ext_authz", context.stat_prefix)
        } else {
            format!(
                "http.{}.ext_authz.{}",
                context.stat_prefix, config.stat_prefix
            )
        };
        Ok(Self {
            service,
            failure_mode_allow: config.failure_mode_allow,
            failure_mode_allow_header: config.failure_mode_allow_header_add,
            body: body_settings(config.with_request_body.as_ref()),
            clear_route_cache: config.clear_route_cache,
            status_on_error: config
                .status_on_error
                .as_ref()
                .and_then(|status| u16::try_from(status.code).ok())
                .filter(|status| *status > 0)
                .unwrap_or(403),
            metadata_namespaces: config.metadata_context_namespaces.clone(),
            enabled: Fraction::of_runtime(
                config.filter_enabled.as_ref(),
                Fraction::compile(Some(&xds::envoy::r#type::v3::FractionalPercent {
                    numerator: 100,
                    denominator: 0,
                })),
            ),
            enabled_metadata: config
                .filter_enabled_metadata
                .as_ref()
                .map(MetadataMatch::compile)
                .transpose()
                .map_err(|error| format!("filter_enabled_metadata: {error}"))?,
            deny_at_disable: config
                .deny_at_disable
                .as_ref()
                .and_then(|flag| flag.default_value)
                .unwrap_or(false),
            peer_certificate: config.include_peer_certificate,
            tls_session: config.include_tls_session,
            allowed,
            disallowed: list(config.disallowed_headers.as_ref(), "disallowed_headers")?,
            stats: context.shared.stats.group(&prefix),
        })
    }

    /// The clusters it asks.
    pub fn cluster(&self) -> &str {
        match &self.service {
            Service::Grpc(grpc) => &grpc.cluster,
            Service::Http(http) => &http.cluster,
        }
    }

    /// Asks the service about a request.
    pub async fn run(
        &self,
        conn: &Rc<Connection>,
        record: &mut Record,
        flow: &mut Flow,
        route: Option<&PerRoute>,
    ) -> Option<Answer> {
        if route.is_some_and(|route| route.disabled) {
            return None;
        }
        let on = self.enabled.draw(&mut || conn.worker.random())
            && self
                .enabled_metadata
                .as_ref()
                .is_none_or(|wanted| wanted.matches(&record.metadata));
        if !on {
            self.stats.disabled.inc();
            if self.deny_at_disable {
                return Some(Answer::Local(refusal(
                    self.status_on_error,
                    Bytes::new(),
                    "ext_authz_denied",
                )));
            }
            return None;
        }
        let settings = match route {
            Some(route) if route.no_body => None,
            Some(PerRoute {
                body: Some(body), ..
            }) => Some(*body),
            _ => self.body,
        };
        let mut body = None;
        if let (Some(settings), Some(replay)) = (settings, record.replay.clone()) {
            match crate::body::Replay::buffer(&replay, settings.max).await {
                Ok(read) if read.complete || settings.partial => body = Some((read, settings)),
                Ok(_) => {
                    return Some(Answer::Local(dataplane::local_reply::REQUEST_TOO_LARGE));
                }
                // The client went away.
                Err(_) => return None,
            }
        }
        let decision = match &self.service {
            Service::Grpc(grpc) => {
                let request = self.check_request(conn, record, route, body.as_ref());
                grpc.unary::<CheckResponse>(&conn.worker, &conn.shared, CHECK, &request)
                    .await
                    .and_then(grpc_decision)
            }
            Service::Http(http) => {
                let (head, bytes) = self.http_request(http, record, body.as_ref());
                let asked = Instant::now();
                callout::http(
                    &conn.worker,
                    &conn.shared,
                    &http.cluster,
                    &head,
                    bytes,
                    http.timeout,
                )
                .await
                .and_then(|mut reply| {
                    let took = asked.elapsed().as_millis() as u64;
                    reply.headers.insert(SERVICE_TIME, took.into());
                    http.decision(reply)
                })
            }
        };
        let cluster_stats = record.cluster.as_ref().map(|cluster| {
            conn.shared
                .stats
                .group::<ExtAuthzStats>(&format!("cluster.{}.ext_authz", cluster.config.stat_name))
        });
        let count = |of: fn(&ExtAuthzStats) -> &crate::stats::Counter| {
            of(&self.stats).inc();
            if let Some(stats) = &cluster_stats {
                of(stats).inc();
            }
        };
        match decision {
            Ok(decision) if decision.allowed => {
                count(|stats| &stats.ok);
                self.allow(record, flow, decision);
                None
            }
            Ok(decision) => {
                count(|stats| &stats.denied);
                if let Some(metadata) = decision.metadata {
                    record.metadata.insert(FILTER.to_owned(), metadata.into());
                }
                let mut headers = HeaderMap::new();
                for (name, value, action) in decision.response {
                    mutate(&mut headers, name, value, action, Direction::Response);
                }
                let reply = refusal(
                    decision.status.unwrap_or(403),
                    decision.body,
                    "ext_authz_denied",
                );
                Some(Answer::Refused(reply, headers))
            }
            Err(error) => {
                tracing::debug!("ext_authz: {}: {error}", self.cluster());
                count(|stats| &stats.error);
                if error == CallError::Timeout {
                    self.stats.timeout.inc();
                }
                if self.failure_mode_allow {
                    count(|stats| &stats.failure_mode_allowed);
                    if self.failure_mode_allow_header {
                        record.head.headers.insert(
                            "x-envoy-auth-failure-mode-allowed",
                            HeaderValue::from_static("true"),
                        );
                    }
                    return None;
                }
                Some(Answer::Local(refusal(
                    self.status_on_error,
                    Bytes::new(),
                    "ext_authz_error",
                )))
            }
        }
    }

    fn allow(&self, record: &mut Record, flow: &mut Flow, decision: Decision) {
        let headers = &mut record.head.headers;
        let changes = !decision.request.is_empty() || !decision.remove.is_empty();
        for (name, value, action) in decision.request {
            mutate(headers, name, value, action, Direction::Request);
        }
        for name in &decision.remove {
            headers.remove(name);
        }
        if !decision.set_parameters.is_empty() || !decision.remove_parameters.is_empty() {
            record.head.path = with_parameters(
                &record.head.path,
                &decision.set_parameters,
                &decision.remove_parameters,
            );
        }
        if let Some(metadata) = decision.metadata {
            record.metadata.insert(FILTER.to_owned(), metadata.into());
        }
        if !decision.response.is_empty() {
            flow.response
                .push(super::ResponseStep::Headers(decision.response));
        }
        if self.clear_route_cache && changes {
            flow.reroute = true;
        }
    }

    fn sent(&self, name: &str) -> bool {
        !matches(&self.disallowed, name)
            && self
                .allowed
                .as_ref()
                .is_none_or(|allowed| matches(allowed, name))
    }

    fn check_request(
        &self,
        conn: &Connection,
        record: &Record,
        route: Option<&PerRoute>,
        body: Option<&(crate::body::Buffered, BodySettings)>,
    ) -> CheckRequest {
        let info = record.info();
        let head = record.head.view();
        let tls = conn.info.tls.as_deref();
        let mut headers = BTreeMap::new();
        for (name, value) in [
            (":method", head.method.as_str()),
            (":path", head.path),
            (":authority", head.authority),
            (":scheme", head.scheme),
        ] {
            if self.sent(name) {
                headers.insert(name.to_owned(), value.to_owned());
            }
        }
        for name in head.headers.keys().filter(|name| self.sent(name.as_str())) {
            if let Some(value) = head.header(name.as_str()) {
                headers.insert(name.as_str().to_owned(), value.into_owned());
            }
        }
        let mut request = HttpRequest {
            id: conn.info.id.to_string(),
            method: head.method.as_str().to_owned(),
            path: head.path.to_owned(),
            host: head.authority.to_owned(),
            scheme: head.scheme.to_owned(),
            size: head
                .headers
                .get(header::CONTENT_LENGTH)
                .and_then(|value| value.to_str().ok()?.parse().ok())
                .unwrap_or(-1),
            protocol: record.protocol.as_str().to_owned(),
            ..HttpRequest::default()
        };
        if let Some((read, settings)) = body {
            headers.insert(
                "x-envoy-auth-partial-body".to_owned(),
                (!read.complete).to_string(),
            );
            if settings.raw {
                request.raw_body = read.bytes.clone();
            } else {
                request.body = String::from_utf8_lossy(&read.bytes).into_owned();
            }
            request.size = read.bytes.len() as i64;
        }
        request.headers = headers;
        let peer = tls.and_then(|tls| tls.peer.as_deref());
        let mut namespaces = BTreeMap::new();
        for name in &self.metadata_namespaces {
            if let Some(serde_json::Value::Object(fields)) = record.metadata.get(name) {
                namespaces.insert(name.clone(), json_to_struct(fields));
            }
        }
        CheckRequest {
            attributes: Some(AttributeContext {
                source: Some(Peer {
                    address: Some(address_of(conn.info.remote)),
                    principal: principal(peer),
                    service: head
                        .header("x-envoy-downstream-service-cluster")
                        .map_or_else(String::new, |value| value.into_owned()),
                    certificate: match peer {
                        Some(peer) if self.peer_certificate => peer.url_encoded_pem.clone(),
                        _ => String::new(),
                    },
                    ..Peer::default()
                }),
                destination: Some(Peer {
                    address: Some(address_of(conn.info.local)),
                    principal: principal(tls.and_then(|tls| tls.local.as_deref())),
                    ..Peer::default()
                }),
                request: Some(Request {
                    time: Some(info.start.into()),
                    http: Some(request),
                }),
                context_extensions: route.map_or_else(BTreeMap::new, |route| route.context.clone()),
                metadata_context: Some(xds::envoy::config::core::v3::Metadata {
                    filter_metadata: namespaces,
                    ..Default::default()
                }),
                tls_session: conn
                    .info
                    .server_name
                    .as_ref()
                    .filter(|_| self.tls_session)
                    .map(|sni| TlsSession {
                        sni: sni.to_string(),
                    }),
                ..AttributeContext::default()
            }),
        }
    }

    fn http_request(
        &self,
        http: &HttpService,
        record: &Record,
        body: Option<&(crate::body::Buffered, BodySettings)>,
    ) -> (Head, Bytes) {
        let mut headers = HeaderMap::new();
        let always = |name: &HeaderName| *name == header::AUTHORIZATION;
        for (name, value) in &record.head.headers {
            if (always(name) || self.sent(name.as_str()))
                && *name != header::CONTENT_LENGTH
                && *name != header::HOST
            {
                headers.append(name, value.clone());
            }
        }
        let mut bytes = Bytes::new();
        if let Some((read, _)) = body {
            headers.insert(
                "x-envoy-auth-partial-body",
                HeaderValue::from_static(if read.complete { "false" } else { "true" }),
            );
            bytes = read.bytes.clone();
        }
        headers.insert(header::CONTENT_LENGTH, bytes.len().into());
        for (name, value) in &http.add {
            headers.insert(name, value.clone());
        }
        mirror::of_our_own(&mut headers, Some(http.timeout));
        let path = if http.path_override.is_empty() {
            format!("{}{}", http.prefix, record.head.path)
        } else {
            http.path_override.clone()
        };
        let head = Head {
            method: record.head.method.clone(),
            scheme: record.head.scheme,
            authority: record.head.authority.clone(),
            path,
            headers,
        };
        (head, bytes)
    }
}

/// The filter's name, under which its metadata stands.
const FILTER: &str = "envoy.filters.http.ext_authz";

fn refusal(status: u16, body: Bytes, details: &'static str) -> LocalReply {
    LocalReply {
        status,
        body: String::from_utf8_lossy(&body).into_owned().into(),
        flags: ResponseFlags::UNAUTHORIZED_EXTERNAL_SERVICE,
        details: details.into(),
        headers: &[],
        grpc_status: None,
    }
}

/// Who a certificate says somebody is: first URI, else first DNS name, else the subject; empty without one.
pub(crate) fn principal(certificate: Option<&dataplane::stream::Certificate>) -> String {
    certificate.map_or_else(String::new, |certificate| {
        let first = certificate.uris.first().or(certificate.dns.first());
        first.unwrap_or(&certificate.subject).clone()
    })
}

/// An address as the service reads it.
pub(crate) fn address_of(socket: SocketAddr) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: socket.ip().to_canonical().to_string(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(
                socket.port().into(),
            )),
            ..SocketAddress::default()
        })),
    }
}

/// Changes one header as its action says.
pub(in crate::http) fn mutate(
    headers: &mut HeaderMap,
    name: HeaderName,
    value: HeaderValue,
    action: HeaderAppendAction,
    direction: Direction,
) {
    let there = headers.contains_key(&name);
    match action {
        HeaderAppendAction::AppendIfExistsOrAdd => {
            lists::append(direction, headers, &name, value);
        }
        HeaderAppendAction::AddIfAbsent if there => {}
        HeaderAppendAction::OverwriteIfExists if !there => {}
        _ => {
            headers.insert(name, value);
        }
    }
}

/// The path with parameters of the query set and removed.
fn with_parameters(path: &str, set: &[(String, String)], remove: &[String]) -> String {
    let (plain, query) = path.split_once('?').unwrap_or((path, ""));
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key.to_owned(), value.to_owned())
        })
        .filter(|(key, _)| !remove.contains(key))
        .collect();
    for (key, value) in set {
        pairs.retain(|(other, _)| other != key);
        pairs.push((key.clone(), value.clone()));
    }
    let query: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if query.is_empty() {
        plain.to_owned()
    } else {
        format!("{plain}?{}", query.join("&"))
    }
}

#[allow(deprecated)]
pub(super) fn options(
    options: &[HeaderValueOption],
) -> Vec<(HeaderName, HeaderValue, HeaderAppendAction)> {
    options
        .iter()
        .filter_map(|option| {
            let header = option.header.as_ref()?;
            let action = match option.append {
                Some(true) => HeaderAppendAction::AppendIfExistsOrAdd,
                Some(false) => HeaderAppendAction::OverwriteIfExistsOrAdd,
                None => HeaderAppendAction::try_from(option.append_action).ok()?,
            };
            let value = if header.raw_value.is_empty() {
                HeaderValue::try_from(header.value.as_str()).ok()?
            } else {
                HeaderValue::from_bytes(&header.raw_value).ok()?
            };
            Some((
                HeaderName::try_from(header.key.as_str()).ok()?,
                value,
                action,
            ))
        })
        .collect()
}

fn grpc_decision(response: CheckResponse) -> Result<Decision, CallError> {
    let code = response.status.as_ref().map_or(0, |status| status.code);
    let mut decision = Decision {
        allowed: code == 0,
        metadata: response.dynamic_metadata.as_ref().map(struct_to_json),
        ..Decision::default()
    };
    let status = |status: Option<&xds::envoy::r#type::v3::HttpStatus>| {
        status
            .and_then(|status| u16::try_from(status.code).ok())
            .filter(|status| *status > 0)
    };
    match response.http_response {
        Some(HttpResponse::OkResponse(ok)) => {
            #[allow(deprecated)]
            if let Some(metadata) = &ok.dynamic_metadata {
                decision.metadata = Some(struct_to_json(metadata));
            }
            if decision.allowed {
                decision.request = options(&ok.headers);
                decision.response = options(&ok.response_headers_to_add);
                decision.remove = ok
                    .headers_to_remove
                    .iter()
                    .filter_map(|name| HeaderName::try_from(name.as_str()).ok())
                    // The host and what steers the request cannot be taken away.
                    .filter(|name| *name != header::HOST)
                    .collect();
                decision.set_parameters = ok
                    .query_parameters_to_set
                    .into_iter()
                    .map(|parameter| (parameter.key, parameter.value))
                    .collect();
                decision.remove_parameters = ok.query_parameters_to_remove;
            }
        }
        Some(HttpResponse::ErrorResponse(_)) if !decision.allowed => {
            return Err(CallError::Failed("the service answers an error".to_owned()));
        }
        Some(HttpResponse::DeniedResponse(denied)) if !decision.allowed => {
            decision.status = status(denied.status.as_ref());
            decision.response = options(&denied.headers);
            decision.body = denied.body.into();
        }
        _ => {}
    }
    Ok(decision)
}

impl HttpService {
    fn compile(config: &config::HttpService) -> Result<Self, String> {
        use xds::envoy::config::core::v3::http_uri::HttpUpstreamType;
        if config.retry_policy.is_some() {
            return Err("retry_policy: is not supported".into());
        }
        let uri = config.server_uri.as_ref().ok_or("server_uri: is missing")?;
        let Some(HttpUpstreamType::Cluster(cluster)) = &uri.http_upstream_type else {
            return Err("server_uri.cluster: is missing".into());
        };
        let mut add = Vec::new();
        for header in config
            .authorization_request
            .iter()
            .flat_map(|request| &request.headers_to_add)
        {
            let name = HeaderName::try_from(header.key.as_str());
            let value = HeaderValue::try_from(header.value.as_str());
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(format!(
                    "authorization_request.headers_to_add: {:?} is not a header",
                    header.key
                ));
            };
            add.push((name, value));
        }
        let response = config.authorization_response.clone().unwrap_or_default();
        let at = |field: &str| format!("authorization_response.{field}");
        Ok(Self {
            cluster: cluster.clone(),
            timeout: duration(uri.timeout.as_ref())
                .filter(|timeout| !timeout.is_zero())
                .unwrap_or(DEFAULT_TIMEOUT),
            prefix: config.path_prefix.clone(),
            path_override: config.path_override.clone(),
            add,
            upstream: list(
                response.allowed_upstream_headers.as_ref(),
                &at("allowed_upstream_headers"),
            )?,
            upstream_append: list(
                response.allowed_upstream_headers_to_append.as_ref(),
                &at("allowed_upstream_headers_to_append"),
            )?,
            client: response
                .allowed_client_headers
                .as_ref()
                .map(|allowed| list(Some(allowed), &at("allowed_client_headers")))
                .transpose()?,
            client_on_success: list(
                response.allowed_client_headers_on_success.as_ref(),
                &at("allowed_client_headers_on_success"),
            )?,
            metadata: list(
                response.dynamic_metadata_from_headers.as_ref(),
                &at("dynamic_metadata_from_headers"),
            )?,
        })
    }

    /// A 200 allows, a 5xx is an error, everything else is the answer to the client.
    fn decision(&self, reply: callout::Reply) -> Result<Decision, CallError> {
        use HeaderAppendAction::{AppendIfExistsOrAdd, OverwriteIfExistsOrAdd};
        if reply.status.is_server_error() {
            return Err(CallError::Failed(format!("HTTP status {}", reply.status)));
        }
        let mut decision = Decision {
            allowed: reply.status == StatusCode::OK,
            status: Some(reply.status.as_u16()),
            body: reply.body,
            ..Decision::default()
        };
        for (name, value) in &reply.headers {
            let text = name.as_str();
            let hop = [
                header::TRANSFER_ENCODING,
                header::CONNECTION,
                header::CONTENT_LENGTH,
            ]
            .contains(name);
            if decision.allowed {
                if matches(&self.upstream, text) {
                    decision
                        .request
                        .push((name.clone(), value.clone(), OverwriteIfExistsOrAdd));
                }
                if matches(&self.upstream_append, text) {
                    decision
                        .request
                        .push((name.clone(), value.clone(), AppendIfExistsOrAdd));
                }
                if matches(&self.client_on_success, text) {
                    decision
                        .response
                        .push((name.clone(), value.clone(), OverwriteIfExistsOrAdd));
                }
                if matches(&self.metadata, text) {
                    decision.metadata.get_or_insert_default().insert(
                        text.to_owned(),
                        String::from_utf8_lossy(value.as_bytes()).into(),
                    );
                }
                if text == "x-envoy-auth-headers-to-remove" {
                    decision.remove.extend(
                        value
                            .to_str()
                            .unwrap_or_default()
                            .split(',')
                            .filter_map(|name| HeaderName::try_from(name.trim()).ok()),
                    );
                }
            } else {
                let default = [header::WWW_AUTHENTICATE, header::LOCATION];
                let passes = match &self.client {
                    None => true,
                    Some(allowed) => default.contains(name) || matches(allowed, text),
                };
                if passes && !hop {
                    decision
                        .response
                        .push((name.clone(), value.clone(), OverwriteIfExistsOrAdd));
                }
            }
        }
        if decision.allowed {
            decision.body = Bytes::new();
        }
        Ok(decision)
    }
}

impl PerRoute {
    /// Compiles what a route says.
    ///
    /// # Errors
    /// The field that cannot be carried out.
    pub fn compile(config: &config::ExtAuthzPerRoute) -> Result<Self, String> {
        use config::ext_authz_per_route::Override;
        let mut route = Self {
            disabled: false,
            context: BTreeMap::new(),
            no_body: false,
            body: None,
        };
        match &config.r#override {
            Some(Override::Disabled(disabled)) => route.disabled = *disabled,
            Some(Override::CheckSettings(settings)) => {
                if settings.service_override.is_some() {
                    return Err("check_settings.service_override: is not supported".into());
                }
                route.context.clone_from(&settings.context_extensions);
                route.no_body = settings.disable_request_body_buffering;
                route.body = body_settings(settings.with_request_body.as_ref());
            }
            None => return Err("override: disabled or check_settings is missing".into()),
        }
        Ok(route)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_the_query_are_set_and_removed() {
        assert_eq!(
            with_parameters("/p?a=1&b=2", &[("c".into(), "3".into())], &["a".into()]),
            "/p?b=2&c=3"
        );
        assert_eq!(with_parameters("/p?a=1", &[], &["a".into()]), "/p");
    }

    #[test]
    fn a_denial_of_the_service_is_the_answer() {
        use xds::envoy::service::auth::v3::DeniedHttpResponse;
        let response = CheckResponse {
            status: Some(xds::google::rpc::Status {
                code: 7,
                ..Default::default()
            }),
            http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
                status: Some(xds::envoy::r#type::v3::HttpStatus { code: 401 }),
                body: "who are you?".into(),
                ..Default::default()
            })),
            ..Default::default()
        };
        let decision = grpc_decision(response).expect("a decision");
        assert_eq!(
            (decision.allowed, decision.status, &decision.body[..]),
            (false, Some(401), &b"who are you?"[..])
        );
    }
}
