//! From the answer of a filter or of the router to the response that the codec writes.

use std::rc::Rc;

use dataplane::StreamInfo;
use dataplane::lists::Direction;
use dataplane::local_reply;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};

use super::connection::{Answer, Connection, Flow, Guard, OPERATION};
use super::filters::ext_authz::mutate;
use super::filters::throttle::throttled;
use super::filters::{HttpFilter, PerRoute, ResponseStep};
use super::istio::{PEER_METADATA, PEER_METADATA_ID};
use super::limits::Limited;
use super::local_replies::Reply;
use super::message::{Protocol, Response, Stream};
use super::record::Record;
use crate::body::Body;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A response in the making.
pub struct Making {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
}

impl Connection {
    /// Makes the response of an answer: our own replies get their form, filters and route their say.
    pub(super) fn respond(
        self: &Rc<Self>,
        mut record: Box<Record>,
        mut flow: Flow,
        answer: Answer,
    ) -> Response {
        let mut making = self.begin_response(&mut record, &mut flow, answer);
        for step in std::mem::take(&mut flow.response).into_iter().rev() {
            self.step(&mut record, &mut making, step);
        }
        self.end_response(record, flow, making)
    }

    /// The same where scripts have a say, who may wait for something. The record stays where it is until the end.
    pub(super) async fn respond_with_scripts(
        self: &Rc<Self>,
        guard: &mut Guard,
        mut flow: Flow,
        answer: Answer,
    ) -> Response {
        let record = guard.record();
        let mut making = self.begin_response(record, &mut flow, answer);
        for step in std::mem::take(&mut flow.response).into_iter().rev() {
            match step {
                ResponseStep::Script(index, route) => {
                    let named = &self.manager.filters[index];
                    let mut held = None;
                    let filter = named.filter.of(index, &flow.discovered, &mut held);
                    if let Some(HttpFilter::Lua(lua)) = filter {
                        let route = match route.as_deref().map(PerRoute::config) {
                            Some(Some(PerRoute::Lua(route))) => Some(&**route),
                            _ => None,
                        };
                        let (flow, making) = (&mut flow, &mut making);
                        lua.response(self, record, flow, making, &named.name, route)
                            .await;
                    }
                }
                step => self.step(record, &mut making, step),
            }
        }
        self.end_response(guard.take(), flow, making)
    }

    fn begin_response(
        self: &Rc<Self>,
        record: &mut Record,
        flow: &mut Flow,
        answer: Answer,
    ) -> Making {
        let (answer, further) = match answer {
            Answer::Refused(reply, headers) => (Answer::Local(reply), headers),
            other => (other, HeaderMap::new()),
        };
        let own = matches!(answer, Answer::Local(_) | Answer::Refused(..));
        let (status, mut headers, body) = match answer {
            Answer::Ready(status, headers, body, _) => {
                let stats = self.manager.stats.clone();
                let body = Limited::wrap(body, flow.limits.clone(), flow.deadline.take(), stats);
                (status, headers, body)
            }
            Answer::Redirected(_) => unreachable!("followed where it came from the router"),
            Answer::Local(reply) | Answer::Refused(reply, _) => {
                let grpc = record.grpc;
                record.details = reply.details.clone();
                if !reply.flags.is_empty() {
                    record.flags.set(reply.flags);
                }
                // A bad request ends the connection: nobody knows what else it would bring.
                flow.close |= reply.status == 400 && record.protocol != Protocol::Http2;
                let mut headers = HeaderMap::new();
                if let Some(location) = flow.location.take() {
                    headers.insert(header::LOCATION, location);
                }
                let mut said = Reply {
                    status: reply.status,
                    body: reply.body.into_owned(),
                    content_type: "text/plain".to_owned(),
                };
                let replies = &self.manager.local_replies;
                if !replies.is_empty() {
                    let info = |status, body: &str, with: &mut dyn FnMut(&StreamInfo<'_>)| {
                        let mut info = record.info();
                        info.response_code = Some(status);
                        info.local_reply_body = Some(body);
                        with(&info);
                    };
                    let mut random = || self.worker.random();
                    replies.apply(&mut said, &mut headers, info, &mut random);
                }
                let grpc_status = reply
                    .grpc_status
                    .unwrap_or_else(|| local_reply::grpc_status(said.status));
                let status =
                    StatusCode::from_u16(said.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let mut body = Body::Empty;
                let status = if grpc {
                    headers.insert(
                        header::CONTENT_TYPE,
                        HeaderValue::from_static("application/grpc"),
                    );
                    headers.insert("grpc-status", grpc_status.into());
                    if let Ok(message) = HeaderValue::from_str(&percent_encode(&said.body))
                        && !said.body.is_empty()
                    {
                        headers.insert("grpc-message", message);
                    }
                    StatusCode::OK
                } else {
                    if !said.body.is_empty() {
                        headers.insert(header::CONTENT_LENGTH, said.body.len().into());
                        if let Ok(kind) = HeaderValue::from_str(&said.content_type) {
                            headers.insert(header::CONTENT_TYPE, kind);
                        }
                    }
                    if record.head.method != Method::HEAD {
                        body = Body::full(said.body);
                    }
                    status
                };
                for (name, value) in reply.headers {
                    headers.insert(
                        HeaderName::from_static(name),
                        HeaderValue::from_static(value),
                    );
                }
                for name in further.keys() {
                    headers.remove(name);
                    for value in further.get_all(name) {
                        headers.append(name, value.clone());
                    }
                }
                (status, headers, body)
            }
        };
        if let Some((origin, cors)) = &flow.cors {
            cors.response(origin, &mut headers);
        }
        if flow.answer_metadata {
            headers.insert(PEER_METADATA, self.shared.identity.header.clone());
            headers.insert(PEER_METADATA_ID, self.shared.identity.id.clone());
        }
        let by = || record.route.clone().map(|route| (route, record.weighted));
        if flow.route_headers
            && let Some((route, weighted)) = flow.answered_by.take().or_else(by)
        {
            let mut info = record.info();
            // A reply of our own has no status until the route has said what it adds.
            info.response_code = (!own).then(|| status.as_u16());
            route.apply_response(&mut headers, weighted, &info);
        }
        // Formats that are applied on the way ask for it.
        record.code = Some(status.as_u16());
        Making {
            status,
            headers,
            body,
        }
    }

    fn step(&self, record: &mut Record, making: &mut Making, step: ResponseStep) {
        let headers = &mut making.headers;
        let body = |making: &mut Making| std::mem::replace(&mut making.body, Body::Empty);
        match step {
            ResponseStep::Headers(all) => {
                for (name, value, action) in all {
                    mutate(headers, name, value, action, Direction::Response);
                }
            }
            ResponseStep::Mutations(mutations) => {
                mutations.response(headers, &record.info());
            }
            ResponseStep::HeaderToMetadata(rules) => {
                rules.response(headers, &mut record.metadata);
            }
            ResponseStep::Compress(compressor) => {
                let body = body(making);
                making.body = compressor.response(making.status, &mut making.headers, body);
            }
            ResponseStep::GrpcWeb(dialect) => {
                let body = body(making);
                making.body = dialect.response(making.status, &mut making.headers, body);
            }
            ResponseStep::Decompress(decompressor) => {
                let body = body(making);
                making.body = decompressor.response(&mut making.headers, body);
            }
            ResponseStep::Throttle(bucket) => {
                making.body = throttled(body(making), bucket);
            }
            ResponseStep::Script(..) => {}
        }
    }

    fn end_response(
        self: &Rc<Self>,
        mut record: Box<Record>,
        flow: Flow,
        making: Making,
    ) -> Response {
        let Making {
            status,
            mut headers,
            mut body,
        } = making;
        // Nobody is left to see a status when the client broke its request off.
        record.code = (record.details != "downstream_remote_disconnect").then(|| status.as_u16());
        if let Some(tracing) = &self.manager.tracing {
            if tracing.egress {
                // The other side knows better what it did.
                let told = headers
                    .remove(OPERATION)
                    .and_then(|value| value.to_str().ok().map(str::to_owned))
                    .filter(|value| !value.is_empty());
                if let (Some(told), Some(trace)) = (told, &mut record.trace) {
                    trace.name = told;
                }
            } else if let Some(value) = flow
                .operation
                .and_then(|operation| HeaderValue::try_from(operation).ok())
            {
                headers.insert(OPERATION, value);
            }
        }
        let upgraded = matches!(body, Body::Tunnel(_));
        let request_id = record
            .head
            .headers
            .get(&REQUEST_ID)
            .and_then(|value| value.to_str().ok());
        self.manager
            .rules
            .response(&mut headers, &self.worker.date(), request_id, upgraded);
        if upgraded {
            self.manager.stats.downstream_cx_upgrades_total.inc();
        } else if status == StatusCode::SWITCHING_PROTOCOLS {
            body = Body::Empty;
        }
        Response {
            status,
            headers,
            body,
            close: flow.close,
            stream: Stream::new(record),
        }
    }
}

/// The encoding of `grpc-message`.
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        if (0x20..0x7f).contains(&byte) && byte != b'%' {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
