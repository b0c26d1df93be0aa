//! The simulation: what one proxy would do with a connection or a request, without any socket. The same
//! decisions in the same order as in the proxy, with everything that led to them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;

use crate::address::Address;
use crate::cluster::Discovery;
use crate::descriptors::Facts as DescriptorFacts;
use crate::lb::PickContext;
use crate::listener::ConnectionFacts;
use crate::local_ratelimit::Verdict as LimitVerdict;
use crate::local_reply::{self, LocalReply};
use crate::request::{RequestHead, RequestHeadMut};
use crate::route::{MatchFacts, Outcome as RouteOutcome, Route, Timeouts};
use crate::stream::{Certificate, Connection, Metadata, StreamInfo, TlsSession};

mod question;
mod world;

pub use question::{ClientTls, Entry, Question, Speech};
use world::{
    ChainModel, ClusterModel, HttpFilterModel, HttpModel, ListenerModel, Routes, Terminal,
};
pub use world::{Resources, World};

/// How it ends.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// It reaches this endpoint.
    Endpoint(Address),
    /// The proxy answers itself.
    Reply(LocalReply),
    /// The client is sent elsewhere.
    Redirect {
        /// The status.
        status: u16,
        /// Where to.
        location: String,
    },
    /// The connection is closed, for this reason.
    Closed(&'static str),
}

/// What the proxy would do, and by which of its resources.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The listener.
    pub listener: Option<String>,
    /// The filter chain; `Some("")` for one without a name.
    pub chain: Option<String>,
    /// The virtual host.
    pub virtual_host: Option<String>,
    /// The route's name.
    pub route: Option<String>,
    /// The HTTP or network filter that ended it.
    pub stopped_by: Option<String>,
    /// The cluster.
    pub cluster: Option<String>,
    /// Which of the cluster's transport sockets is used.
    pub transport: Option<String>,
    /// The authority that the upstream sees.
    pub authority: String,
    /// The path that the upstream sees.
    pub path: String,
    /// The headers that the upstream sees.
    pub headers: HeaderMap,
    /// A delay that is injected first.
    pub delay: Option<Duration>,
    /// The route that forwards it: retries, mirrors and so on.
    pub forwarded_by: Option<Arc<Route>>,
    /// The times that the request has.
    pub timeouts: Option<Timeouts>,
    /// How it ends.
    pub end: End,
}

impl Answer {
    /// In one line: the endpoint, or status and flags, or why the connection is closed.
    pub fn summary(&self) -> String {
        match &self.end {
            End::Endpoint(address) => address.to_string(),
            End::Reply(reply) if reply.flags.is_empty() => {
                format!("{} {}", reply.status, reply.details)
            }
            End::Reply(reply) => format!("{} {}", reply.status, reply.flags),
            End::Redirect { status, location } => format!("{status} {location}"),
            End::Closed(reason) => format!("closed: {reason}"),
        }
    }
}

impl World {
    /// What happens to this connection and request. State that lasts (round robin, token buckets) goes on from
    /// question to question.
    pub fn ask(&self, question: &Question, random: &mut dyn FnMut() -> u64) -> Answer {
        let mut answer = Answer {
            listener: None,
            chain: None,
            virtual_host: None,
            route: None,
            stopped_by: None,
            cluster: None,
            transport: None,
            authority: question.authority.clone(),
            path: question.path.clone(),
            headers: question.headers.clone(),
            delay: None,
            forwarded_by: None,
            timeouts: None,
            end: End::Closed("there is no listener for this address"),
        };
        let Some(listener) = self.listener(question) else {
            return answer;
        };
        answer.listener = Some(listener.name.clone());
        let Some(chain) = chain(listener, question) else {
            answer.end = End::Closed("no filter chain matches (NR filter_chain_not_found)");
            return answer;
        };
        answer.chain = Some(chain.name.clone());
        let connection = match connection(chain, question) {
            Ok(connection) => connection,
            Err(reason) => {
                answer.end = End::Closed(reason);
                return answer;
            }
        };
        let metadata = Metadata::new();
        let info = StreamInfo::new(&connection, &metadata, question.now);
        if chain.rbac.iter().any(|rbac| !rbac.decide(&info).allowed) {
            answer.stopped_by = Some("envoy.filters.network.rbac".to_owned());
            answer.end = End::Closed("access denied");
            return answer;
        }
        match &chain.terminal {
            Terminal::Nothing => answer.end = End::Closed("the filter chain has no end"),
            Terminal::Tcp(clusters) => {
                let total: u64 = clusters.iter().map(|(_, weight)| u64::from(*weight)).sum();
                let mut left = if clusters.len() > 1 {
                    random() % total.max(1)
                } else {
                    0
                };
                let chosen = clusters.iter().find(|(_, weight)| {
                    match left.checked_sub(u64::from(*weight)) {
                        Some(rest) => {
                            left = rest;
                            false
                        }
                        None => true,
                    }
                });
                if let Some((name, _)) = chosen {
                    self.endpoint(
                        name,
                        question,
                        PickContext::default(),
                        false,
                        random,
                        &mut answer,
                    );
                }
            }
            Terminal::Http(_) if question.speech == Speech::Raw => {
                answer.end = End::Closed("this is not HTTP, but the filter chain expects it");
            }
            Terminal::Http(http) => self.http(http, question, &connection, random, &mut answer),
        }
        answer
    }

    /// Asks many times and counts the summaries.
    pub fn distribution(
        &self,
        question: &Question,
        times: usize,
        random: &mut dyn FnMut() -> u64,
    ) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..times {
            *counts
                .entry(self.ask(question, random).summary())
                .or_default() += 1;
        }
        counts
    }

    fn listener(&self, question: &Question) -> Option<&ListenerModel> {
        let inbound = |listener: &&ListenerModel| listener.name == "virtualInbound";
        let exact = |binds: Option<bool>| {
            let fits =
                move |listener: &&ListenerModel| binds.is_none_or(|binds| listener.binds == binds);
            let to = question.destination;
            let same = move |listener: &&ListenerModel| listener.address == Some(to);
            let any = move |listener: &&ListenerModel| {
                listener.address.is_some_and(|address| {
                    address.ip().is_unspecified() && address.port() == to.port()
                })
            };
            let candidates = move || self.listeners.iter().filter(fits);
            candidates().find(same).or_else(|| candidates().find(any))
        };
        match question.entry {
            Entry::Direct => exact(Some(true)),
            Entry::Inbound => self.listeners.iter().find(inbound),
            // The redirecting listener hands over to the one of the original destination, if there is one.
            Entry::Outbound => exact(Some(false)).or_else(|| {
                self.listeners
                    .iter()
                    .find(|listener| listener.use_original_dst && !inbound(listener))
            }),
        }
    }

    fn http(
        &self,
        http: &HttpModel,
        question: &Question,
        connection: &Connection,
        random: &mut dyn FnMut() -> u64,
        answer: &mut Answer,
    ) {
        let (mut authority, mut path, mut headers) = (
            question.authority.clone(),
            question.path.clone(),
            question.headers.clone(),
        );
        match http.conn.normalize(&mut path) {
            crate::http_conn::PathOutcome::Go => {}
            crate::http_conn::PathOutcome::Reject => {
                answer.end = End::Reply(local_reply::PATH_NORMALIZATION_FAILED);
                return;
            }
            crate::http_conn::PathOutcome::Redirect(location) => {
                answer.end = End::Redirect {
                    status: 307,
                    location,
                };
                return;
            }
        }
        let mut head = RequestHeadMut {
            method: &question.method,
            scheme: "",
            authority: &mut authority,
            path: &mut path,
            headers: &mut headers,
        };
        let ingress = match http.conn.request(&mut head, connection, &|| {
            "00000000-0000-4000-8000-000000000000".to_owned()
        }) {
            Ok(ingress) => ingress,
            Err(reply) => {
                answer.end = End::Reply(reply);
                return;
            }
        };
        let mut metadata = Metadata::new();
        let certificate = connection
            .tls
            .as_ref()
            .and_then(|tls| tls.peer.as_ref())
            .map(|_| true);
        let table = match &http.routes {
            Routes::Inline(table) => Some(table),
            Routes::Named(name) => self.routes.get(name),
        };
        let find = |path: &str,
                    headers: &HeaderMap,
                    metadata: &Metadata,
                    random: &mut dyn FnMut() -> u64| {
            let head = RequestHead {
                method: &question.method,
                scheme: ingress.scheme,
                authority: &authority,
                path,
                headers,
            };
            let facts = MatchFacts {
                metadata,
                client_certificate: certificate,
                source: question.source.ip(),
            };
            table.map_or(RouteOutcome::NotFound { virtual_host: None }, |table| {
                table.find(&head, &facts, random)
            })
        };
        let mut outcome = find(&path, &headers, &metadata, random);
        for (name, filter) in &http.filters {
            let route = route_of(&outcome);
            let own = route.and_then(|(route, weighted)| route.filter_config(name, weighted));
            let own = own.and_then(|any| HttpFilterModel::compile(any).ok());
            let filter = own.as_ref().unwrap_or(filter);
            let reply = match filter {
                HttpFilterModel::Other => None,
                HttpFilterModel::Rbac(rbac) => {
                    let mut info = StreamInfo::new(connection, &metadata, question.now);
                    info.downstream_remote = Some(ingress.remote);
                    info.request = Some(RequestHead {
                        method: &question.method,
                        scheme: ingress.scheme,
                        authority: &authority,
                        path: &path,
                        headers: &headers,
                    });
                    let decision = rbac.decide(&info);
                    (!decision.allowed).then(|| decision.reply())
                }
                HttpFilterModel::Jwt(jwt) => {
                    let head = RequestHead {
                        method: &question.method,
                        scheme: ingress.scheme,
                        authority: &authority,
                        path: &path,
                        headers: &headers,
                    };
                    let facts = MatchFacts {
                        metadata: &metadata,
                        client_certificate: certificate,
                        source: question.source.ip(),
                    };
                    match jwt.check(&head, &facts, None, question.now, &|_| None) {
                        Err(failure) => Some(failure.reply(&head).0),
                        Ok(effects) => {
                            let mut same_authority = authority.clone();
                            effects.apply(&mut RequestHeadMut {
                                method: &question.method,
                                scheme: ingress.scheme,
                                authority: &mut same_authority,
                                path: &mut path,
                                headers: &mut headers,
                            });
                            if !effects.metadata.is_empty() {
                                metadata
                                    .insert(crate::jwt::FILTER.to_owned(), effects.metadata.into());
                            }
                            if effects.clear_route_cache {
                                outcome = find(&path, &headers, &metadata, random);
                            }
                            None
                        }
                    }
                }
                HttpFilterModel::Fault(fault) => fault.as_ref().and_then(|fault| {
                    let head = RequestHead {
                        method: &question.method,
                        scheme: ingress.scheme,
                        authority: &authority,
                        path: &path,
                        headers: &headers,
                    };
                    let injection = fault.draw(&head, cluster_of(&outcome), 0, random);
                    answer.delay = injection.delay;
                    injection.abort
                }),
                HttpFilterModel::LocalRateLimit(limit) => limit.as_ref().and_then(|limit| {
                    let head = RequestHead {
                        method: &question.method,
                        scheme: ingress.scheme,
                        authority: &authority,
                        path: &path,
                        headers: &headers,
                    };
                    let facts = DescriptorFacts {
                        remote: ingress.remote.ip(),
                        cluster: cluster_of(&outcome),
                        source_cluster: "",
                        metadata: &metadata,
                        route_metadata: route_of(&outcome)
                            .map_or(&metadata, |(route, _)| &*route.metadata),
                    };
                    let limits =
                        route_of(&outcome).map_or(&[][..], |(route, _)| &route.rate_limits);
                    let now = question.now.duration_since(UNIX_EPOCH).unwrap_or_default();
                    match limit.check(&head, &facts, limits, now, random) {
                        LimitVerdict::Limited { reply, .. } => Some(reply),
                        _ => None,
                    }
                }),
            };
            if let Some(reply) = reply {
                answer.stopped_by = Some(name.clone());
                note_route(&outcome, answer);
                answer.end = End::Reply(reply);
                return;
            }
        }
        note_route(&outcome, answer);
        match outcome {
            RouteOutcome::NotFound { virtual_host } => {
                answer.virtual_host = virtual_host.map(|name| name.to_string());
                answer.end = End::Reply(local_reply::ROUTE_NOT_FOUND);
            }
            RouteOutcome::Direct { status, body, .. } => {
                let body = String::from_utf8_lossy(&body).into_owned();
                let details = "direct_response".into();
                let flags = crate::ResponseFlags::NONE;
                answer.end = End::Reply(LocalReply {
                    status,
                    body: body.into(),
                    flags,
                    details,
                    headers: &[],
                    grpc_status: None,
                });
            }
            RouteOutcome::Redirect {
                status, location, ..
            } => answer.end = End::Redirect { status, location },
            RouteOutcome::Forward {
                route,
                cluster,
                weighted,
            } => {
                let head = RequestHead {
                    method: &question.method,
                    scheme: ingress.scheme,
                    authority: &authority,
                    path: &path,
                    headers: &headers,
                };
                answer.timeouts = Some(route.timeouts(&head));
                answer.forwarded_by = Some(route.clone());
                let hash = if route.has_hash_policy() {
                    route.hash(&head, ingress.remote.ip(), random).hash
                } else {
                    None
                };
                let mut info = StreamInfo::new(connection, &metadata, question.now);
                info.downstream_remote = Some(ingress.remote);
                info.route_name = Some(&route.name);
                let mut head = RequestHeadMut {
                    method: &question.method,
                    scheme: ingress.scheme,
                    authority: &mut authority,
                    path: &mut path,
                    headers: &mut headers,
                };
                route.apply_request(&mut head, weighted, &info, false);
                (answer.authority, answer.path, answer.headers) = (authority, path, headers);
                answer.end = End::Reply(local_reply::cluster_not_found(
                    route.cluster_not_found_status,
                ));
                let criteria = route.criteria(weighted);
                let context = PickContext {
                    hash,
                    criteria: criteria.map(|criteria| &**criteria),
                    ..PickContext::default()
                };
                self.endpoint(&cluster, question, context, true, random, answer);
            }
        }
    }

    /// From the cluster to the endpoint.
    fn endpoint(
        &self,
        name: &str,
        question: &Question,
        context: PickContext<'_>,
        http: bool,
        random: &mut dyn FnMut() -> u64,
        answer: &mut Answer,
    ) {
        answer.cluster = Some(name.to_owned());
        let Some(ClusterModel { config, balancer }) = self.clusters.get(name) else {
            if !http {
                answer.end = End::Closed("the cluster does not exist (NC)");
            }
            return;
        };
        if let Discovery::OriginalDst { port, .. } = &config.discovery {
            let address = SocketAddr::new(
                question.destination.ip(),
                port.unwrap_or(question.destination.port()),
            );
            answer.transport = config.transport(&Metadata::new()).1.map(str::to_owned);
            answer.end = End::Endpoint(Address::Socket(address));
            return;
        }
        match balancer.pick(&context, &(), random) {
            Some(host) => {
                let host = &balancer.hosts().hosts[host];
                answer.transport = config.transport(&host.metadata).1.map(str::to_owned);
                answer.end = End::Endpoint(host.address.clone());
            }
            None if http => answer.end = End::Reply(local_reply::NO_HEALTHY_UPSTREAM),
            None => answer.end = End::Closed("the cluster has no healthy endpoint (UH)"),
        }
    }
}

fn chain<'a>(listener: &'a ListenerModel, question: &Question) -> Option<&'a ChainModel> {
    let port = question.destination.port();
    let empty = ClientTls::default();
    let tls = question
        .tls
        .as_ref()
        .filter(|_| listener.inspects(port, false));
    let alpn: Vec<&str> = match (&tls, question.speech) {
        (Some(tls), _) => tls.alpn.iter().map(String::as_str).collect(),
        (None, Speech::Http1) if question.tls.is_none() && listener.inspects(port, true) => {
            vec!["http/1.1"]
        }
        (None, Speech::Http2) if question.tls.is_none() && listener.inspects(port, true) => {
            vec!["h2c"]
        }
        _ => Vec::new(),
    };
    listener.chain(&ConnectionFacts {
        destination: question.destination,
        source: question.source,
        direct_source: question.source.ip(),
        server_name: &tls.unwrap_or(&empty).server_name,
        transport_protocol: if tls.is_some() { "tls" } else { "raw_buffer" },
        application_protocols: &alpn,
    })
}

fn connection(chain: &ChainModel, question: &Question) -> Result<Connection, &'static str> {
    let terminated = match (chain.tls, &question.tls) {
        (None, _) => None,
        (Some(_), None) => return Err("plain text where TLS is expected"),
        (Some(true), Some(ClientTls { identity: None, .. })) => {
            return Err("the client has no certificate");
        }
        (Some(_), Some(tls)) => Some(tls),
    };
    let session = terminated.map(|tls| {
        let peer = tls.identity.as_ref().map(|uri| {
            Arc::new(Certificate {
                uris: vec![uri.clone()],
                ..Default::default()
            })
        });
        Arc::new(TlsSession {
            version: "TLSv1.3",
            peer,
            ..Default::default()
        })
    });
    Ok(Connection {
        id: 0,
        remote: question.source,
        local: question.destination,
        tls: session,
        server_name: question
            .tls
            .as_ref()
            .map(|tls| tls.server_name.as_str().into()),
        start: question.now,
    })
}

fn route_of(outcome: &RouteOutcome) -> Option<(&Arc<Route>, Option<usize>)> {
    match outcome {
        RouteOutcome::Forward {
            route, weighted, ..
        } => Some((route, *weighted)),
        RouteOutcome::Direct { route, .. } | RouteOutcome::Redirect { route, .. } => {
            Some((route, None))
        }
        RouteOutcome::NotFound { .. } => None,
    }
}

fn cluster_of(outcome: &RouteOutcome) -> &str {
    match outcome {
        RouteOutcome::Forward { cluster, .. } => cluster,
        _ => "",
    }
}

fn note_route(outcome: &RouteOutcome, answer: &mut Answer) {
    if let Some((route, _)) = route_of(outcome) {
        answer.virtual_host = Some(route.virtual_host.to_string());
        answer.route = Some(route.name.to_string());
    }
}
