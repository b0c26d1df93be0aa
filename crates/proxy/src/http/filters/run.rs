//! The filters of a request, one after the other.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dataplane::ResponseFlags;
use dataplane::descriptors::Facts;
use dataplane::fault::Injection;
use dataplane::header_mutation::Mutations;
use dataplane::local_ratelimit::{LocalRateLimit, Verdict};
use dataplane::local_reply::{self, LocalReply};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use xds::envoy::config::core::v3::header_value_option::HeaderAppendAction;

use super::basic_auth;
use super::grpc_web::{Dialect, FromText};
use super::throttle::{self, Bucket};
use super::{HttpFilter, LocalLimit, NamedFilter, PerRoute, ResponseStep};
use crate::body::{Body, Replay};
use crate::http::connection::{Answer, Connection, Flow};
use crate::http::cors::CorsOutcome;
use crate::http::istio::{PEER_METADATA, PEER_METADATA_ID};
use crate::http::message::Protocol;
use crate::http::record::{Head, Record};

/// Faults let bodies pass in portions of a sixteenth of a second, as Envoy does.
const FAULT_PORTION: Duration = Duration::from_micros(62_500);

fn overwriting(headers: HeaderMap) -> Vec<(HeaderName, HeaderValue, HeaderAppendAction)> {
    let one = |(name, value): (Option<HeaderName>, HeaderValue)| {
        Some((name?, value, HeaderAppendAction::OverwriteIfExistsOrAdd))
    };
    headers.into_iter().filter_map(one).collect()
}

/// What a mutation filter does to the answer: its own changes first, then those of the route. Steps are taken from the last to the first.
fn push_mutations(own: &Arc<Mutations>, route: Option<&Arc<Mutations>>, flow: &mut Flow) {
    for mutations in route.into_iter().chain([own]) {
        if !mutations.keeps_response() {
            flow.response
                .push(ResponseStep::Mutations(mutations.clone()));
        }
    }
}

impl Connection {
    /// Runs one filter; an answer ends the request here.
    pub(in crate::http) async fn filter(
        self: &Rc<Self>,
        index: usize,
        named: &NamedFilter,
        record: &mut Record,
        flow: &mut Flow,
    ) -> Option<Answer> {
        let name = &named.name;
        let found = self.per_route(record, flow, name);
        let per_route = match found.as_deref() {
            Some(PerRoute::Switch { disabled: true, .. }) => return None,
            Some(PerRoute::Switch { config, .. }) => config.as_deref(),
            None if named.disabled => return None,
            other => other,
        };
        let mut held = None;
        match named.filter.of(index, &flow.discovered, &mut held)? {
            HttpFilter::PeerMetadata(exchange) => {
                if exchange.from_downstream {
                    let id = record.head.headers.remove(PEER_METADATA_ID);
                    let metadata = record.head.headers.remove(PEER_METADATA);
                    flow.answer_metadata =
                        exchange.to_downstream && (id.is_some() || metadata.is_some());
                    if let Some(metadata) = metadata {
                        let id = id
                            .as_ref()
                            .and_then(|id| id.to_str().ok())
                            .unwrap_or_default();
                        record.peer = self.shared.identity.peer(id, metadata.as_bytes());
                    }
                }
                flow.tell_upstream = exchange.to_upstream
                    && !(exchange.skip_external
                        && record
                            .cluster
                            .as_ref()
                            .is_some_and(|cluster| cluster.service.is_none()));
                flow.learn_upstream = exchange.from_upstream;
            }
            HttpFilter::Alpn(alpn) => flow.alpn = Some(alpn.clone()),
            HttpFilter::Fault(own) => {
                let fault = match per_route {
                    Some(PerRoute::Fault(fault)) => fault,
                    _ => own,
                };
                let cluster = record.cluster_name.as_deref().unwrap_or_default();
                let active = self.manager.stats.fault_active_faults.get();
                if fault.overflows(active) {
                    self.manager.stats.fault_faults_overflow.inc();
                    return None;
                }
                let injection: Injection =
                    fault.draw(&record.head.view(), cluster, active, &mut || {
                        self.worker.random()
                    });
                if injection.delay.is_some()
                    || injection.abort.is_some()
                    || injection.response_rate.is_some()
                {
                    record.fault_active = true;
                    self.manager.stats.fault_active_faults.inc();
                }
                if let Some(delay) = injection.delay {
                    self.manager.stats.fault_delays_injected.inc();
                    record.flags.set(ResponseFlags::DELAY_INJECTED);
                    tokio::time::sleep(delay).await;
                }
                if let Some(rate) = injection.response_rate {
                    self.manager.stats.fault_response_rl_injected.inc();
                    let bucket = Bucket::new(rate, FAULT_PORTION);
                    flow.response.push(ResponseStep::Throttle(Arc::new(bucket)));
                }
                if let Some(reply) = injection.abort {
                    self.manager.stats.fault_aborts_injected.inc();
                    return Some(Answer::Local(reply));
                }
            }
            HttpFilter::Rbac(own) => {
                let rules = match per_route {
                    Some(PerRoute::Rbac(rules)) => rules,
                    _ => own,
                };
                let stats = &self.manager.stats;
                let noted = rules.shadow(&record.info()).map(|decision| {
                    let counter = if decision.allowed {
                        &stats.rbac_shadow_allowed
                    } else {
                        &stats.rbac_shadow_denied
                    };
                    counter.inc();
                    rules.shadow_metadata(&decision)
                });
                if let Some(fields) = noted {
                    // Two filters of one name may watch for different reasons.
                    let entry = record.metadata.entry(name.clone());
                    match entry.or_insert_with(|| serde_json::Map::new().into()) {
                        serde_json::Value::Object(all) => all.extend(fields),
                        other => *other = fields.into(),
                    }
                }
                if rules.enforces() {
                    let info = record.info();
                    let decision = rules.decide(&info);
                    if !decision.allowed {
                        stats.rbac_denied.inc();
                        return Some(Answer::Local(decision.reply()));
                    }
                    stats.rbac_allowed.inc();
                }
            }
            HttpFilter::Cors => {
                if let Some(PerRoute::Cors(cors)) = per_route {
                    match cors.request(&record.head.method, &record.head.headers, &mut || {
                        self.worker.random()
                    }) {
                        CorsOutcome::None => {}
                        CorsOutcome::Denied => self.manager.stats.cors_origin_invalid.inc(),
                        CorsOutcome::Allowed => {
                            self.manager.stats.cors_origin_valid.inc();
                            flow.cors = record
                                .head
                                .headers
                                .get(header::ORIGIN)
                                .cloned()
                                .zip(Some(cors.clone()));
                        }
                        CorsOutcome::Preflight(headers) => {
                            if headers.is_empty() {
                                self.manager.stats.cors_origin_invalid.inc();
                            } else {
                                self.manager.stats.cors_origin_valid.inc();
                            }
                            record.details = Cow::Borrowed("cors_response");
                            return Some(Answer::Ready(StatusCode::OK, headers, Body::Empty, true));
                        }
                    }
                }
            }
            HttpFilter::IstioStats(_) => {}
            HttpFilter::Jwt(jwt) => {
                let route = match per_route {
                    Some(PerRoute::Jwt(route)) => Some(route),
                    _ => None,
                };
                // Apart, here and below: requests without such a filter do not carry the room for it.
                return Box::pin(jwt.run(self, record, flow, route)).await;
            }
            HttpFilter::LocalRateLimit(own) => {
                let limit = match per_route {
                    Some(PerRoute::LocalRateLimit(limit)) => &**limit,
                    _ => own,
                };
                return self.local_limit(limit, record, flow);
            }
            HttpFilter::RateLimit(limit) => {
                let route = match per_route {
                    Some(PerRoute::RateLimit(route)) => Some(route),
                    _ => None,
                };
                return Box::pin(limit.run(self, record, flow, route)).await;
            }
            HttpFilter::ExtAuthz(service) => {
                let route = match per_route {
                    Some(PerRoute::ExtAuthz(route)) => Some(route),
                    _ => None,
                };
                return Box::pin(service.run(self, record, flow, route)).await;
            }
            HttpFilter::Buffer(own) => {
                let limit = match per_route {
                    Some(PerRoute::Buffer(None)) => return None,
                    Some(PerRoute::Buffer(Some(limit))) => *limit,
                    _ => *own,
                };
                if let Some(replay) = record.replay.clone() {
                    let http2 = record.protocol == Protocol::Http2;
                    match Box::pin(Replay::buffer(&replay, limit)).await {
                        // Over HTTP/2 the last frame is not measured.
                        Ok(read) if read.complete || http2 && read.last => {
                            let headers = &mut record.head.headers;
                            if !headers.contains_key(header::CONTENT_LENGTH) {
                                headers.insert(header::CONTENT_LENGTH, read.total.into());
                            }
                        }
                        Ok(read) => {
                            // What has come was received, though nobody gets it; the rest is not read.
                            replay.borrow_mut().bytes += read.total as u64;
                            flow.close = !http2;
                            return Some(Answer::Local(local_reply::REQUEST_TOO_LARGE));
                        }
                        // The client is gone; sending will notice it as well.
                        Err(_) => {}
                    }
                }
            }
            HttpFilter::HeaderMutation(own) => {
                let route = match per_route {
                    Some(PerRoute::HeaderMutation(route)) => Some(route),
                    _ => None,
                };
                for mutations in std::iter::once(own).chain(route) {
                    let mut head = std::mem::replace(&mut record.head, Head::empty());
                    {
                        let mut info = record.info();
                        info.request = None;
                        mutations.request(&mut head.change(), &info);
                    }
                    record.head = head;
                }
                push_mutations(own, route, flow);
            }
            HttpFilter::HeaderToMetadata(own) => {
                let rules = match per_route {
                    Some(PerRoute::HeaderToMetadata(rules)) => rules,
                    _ => own,
                };
                rules.request(&mut record.head.change(), &mut record.metadata);
                if rules.reads_response() {
                    flow.response
                        .push(ResponseStep::HeaderToMetadata(rules.clone()));
                }
            }
            HttpFilter::SetMetadata(values) => values.apply(&mut record.metadata),
            HttpFilter::Compressor(compressor) => {
                if compressor.request(&mut record.head.headers) {
                    flow.response
                        .push(ResponseStep::Compress(compressor.clone()));
                }
            }
            HttpFilter::GrpcWeb => {
                if let Some(dialect) = Dialect::of(&record.head.headers) {
                    let text = dialect.request(&mut record.head.headers);
                    record.grpc = true;
                    if let (true, Some(replay)) = (text, &record.replay) {
                        let mut replay = replay.borrow_mut();
                        replay.wrap(|body| Body::Boxed(Box::new(FromText::new(body))));
                    }
                    flow.response.push(ResponseStep::GrpcWeb(dialect));
                }
            }
            HttpFilter::Csrf(own, stats) => {
                let policy = match per_route {
                    Some(PerRoute::Csrf(policy)) => policy,
                    _ => own,
                };
                let mut random = || self.worker.random();
                if !policy.allows(&record.head.view(), stats, &mut random) {
                    return Some(Answer::Local(LocalReply {
                        status: 403,
                        body: "Invalid origin".into(),
                        flags: ResponseFlags::NONE,
                        details: Cow::Borrowed("csrf_origin_mismatch"),
                        ..local_reply::ROUTE_NOT_FOUND
                    }));
                }
            }
            HttpFilter::BasicAuth(auth) => {
                let users = match per_route {
                    Some(PerRoute::BasicAuth(users)) => Some(users),
                    _ => None,
                };
                match auth.check(&record.head.view(), users) {
                    basic_auth::Outcome::Nobody => {}
                    basic_auth::Outcome::User(user) => {
                        auth.forward(&mut record.head.headers, &user);
                        if auth.metadata {
                            let fields = serde_json::json!({ "username": user });
                            record.metadata.insert(name.clone(), fields);
                        }
                    }
                    basic_auth::Outcome::Denied(reply, headers) => {
                        return Some(Answer::Refused(reply, headers));
                    }
                }
            }
            HttpFilter::Decompressor(decompressor) => {
                decompressor.advertise(&mut record.head.headers);
                if let Some(replay) = &record.replay
                    && let Some(wrap) = decompressor.request(&mut record.head.headers)
                {
                    replay.borrow_mut().wrap(wrap);
                }
                flow.response
                    .push(ResponseStep::Decompress(decompressor.clone()));
            }
            HttpFilter::BandwidthLimit(own) => {
                let limit = match per_route {
                    Some(PerRoute::BandwidthLimit(limit)) => limit,
                    _ => own,
                };
                if let (Some(bucket), Some(replay)) = (limit.request(&self.shared), &record.replay)
                {
                    let mut replay = replay.borrow_mut();
                    replay.wrap(|body| throttle::throttled(body, bucket));
                }
                if let Some(bucket) = limit.response(&self.shared) {
                    flow.response.push(ResponseStep::Throttle(bucket));
                }
            }
            HttpFilter::HealthCheck(check) => {
                use super::health_check::Outcome;
                let (headers, answer) = match check.check(&record.head.view(), &self.shared) {
                    Outcome::Traffic(headers) => (headers, None),
                    Outcome::Pass(headers) => {
                        record.health_check = true;
                        (headers, None)
                    }
                    Outcome::Answer(reply, headers) => {
                        record.health_check = true;
                        (headers, Some(Answer::Local(reply)))
                    }
                };
                if !headers.is_empty() {
                    flow.response
                        .push(ResponseStep::Headers(overwriting(headers)));
                }
                return answer;
            }
            HttpFilter::Lua(lua) => {
                let route = match per_route {
                    Some(PerRoute::Lua(route)) => Some(&**route),
                    _ => None,
                };
                if lua.wants_response(route) {
                    flow.scripts = true;
                    flow.response
                        .push(ResponseStep::Script(index, found.clone()));
                }
                return Box::pin(lua.request(self, record, flow, name, route)).await;
            }
        }
        None
    }

    /// Filters behind the one that has answered do not see the request; some have a say about the answer all the same.
    pub(in crate::http) fn pass_by(&self, from: usize, record: &Record, flow: &mut Flow) {
        for (index, named) in self.manager.filters.iter().enumerate().skip(from) {
            let mut held = None;
            let filter = named.filter.of(index, &flow.discovered, &mut held);
            let Some(filter @ (HttpFilter::Lua(_) | HttpFilter::HeaderMutation(_))) = filter else {
                continue;
            };
            let found = self.per_route(record, flow, &named.name);
            let config = match found.as_deref() {
                Some(PerRoute::Switch { disabled: true, .. }) => continue,
                None if named.disabled => continue,
                other => other.and_then(PerRoute::config),
            };
            match (filter, config) {
                (HttpFilter::Lua(lua), config) => {
                    let route = match config {
                        Some(PerRoute::Lua(route)) => Some(&**route),
                        _ => None,
                    };
                    if lua.wants_response(route) {
                        flow.scripts = true;
                        flow.response.push(ResponseStep::Script(index, found));
                    }
                }
                (HttpFilter::HeaderMutation(own), config) => {
                    let route = match config {
                        Some(PerRoute::HeaderMutation(route)) => Some(route),
                        _ => None,
                    };
                    push_mutations(own, route, flow);
                }
                _ => {}
            }
        }
    }

    fn local_limit(
        &self,
        shared_limit: &LocalLimit,
        record: &mut Record,
        flow: &mut Flow,
    ) -> Option<Answer> {
        let limit = shared_limit.limit.as_ref()?;
        let stats = shared_limit.stats(&self.shared);
        let own;
        let limit = if limit.per_connection {
            own = self.own_limit(limit);
            &*own
        } else {
            limit
        };
        let none = dataplane::stream::Metadata::new();
        let route = record.route.as_deref();
        let verdict = limit.check(
            &record.head.view(),
            &Facts {
                remote: record.remote.unwrap_or(self.info.remote).ip(),
                cluster: record.cluster_name.as_deref().unwrap_or_default(),
                source_cluster: &self.shared.node.cluster,
                metadata: &record.metadata,
                route_metadata: route.map_or(&none, |route| &*route.metadata),
            },
            route.map_or(&[], |route| &route.rate_limits),
            self.shared.started.elapsed(),
            &mut || self.worker.random(),
        );
        if !matches!(verdict, Verdict::Disabled) {
            stats.enabled.inc();
        }
        match verdict {
            Verdict::Disabled => None,
            Verdict::Ok { headers } => {
                stats.ok.inc();
                if !headers.is_empty() {
                    flow.response
                        .push(ResponseStep::Headers(overwriting(headers)));
                }
                None
            }
            Verdict::NotEnforced => {
                stats.rate_limited.inc();
                let mut head = std::mem::replace(&mut record.head, Head::empty());
                {
                    let mut info = record.info();
                    info.request = None;
                    limit
                        .unenforced_headers
                        .apply_request(&mut head.change(), &info);
                }
                record.head = head;
                None
            }
            Verdict::Limited { reply, mut headers } => {
                stats.rate_limited.inc();
                stats.enforced.inc();
                limit
                    .response_headers
                    .apply_response(&mut headers, &record.info());
                Some(Answer::Refused(reply, headers))
            }
        }
    }

    /// The buckets of this connection for a limit whose buckets are not shared.
    fn own_limit(&self, limit: &LocalRateLimit) -> Rc<LocalRateLimit> {
        let key = std::ptr::from_ref(limit) as usize;
        let mut own = self.limits.borrow_mut();
        if let Some((_, found)) = own.iter().find(|(other, _)| *other == key) {
            return found.clone();
        }
        let made = Rc::new(limit.fresh());
        own.push((key, made.clone()));
        made
    }

    fn per_route(&self, record: &Record, flow: &Flow, name: &str) -> Option<Arc<PerRoute>> {
        flow.routes
            .as_ref()?
            .filter(record.route.as_deref()?, name, record.weighted)
    }
}
