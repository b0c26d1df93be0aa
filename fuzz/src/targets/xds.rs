//! What control planes send to proxies, and what people write into bootstrap files.
//!
//! A resource is read, then taken in use by a proxy without sockets: it is accepted, or refused with a reason. Seeds are messages on
//! the wire, or their JSON.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::UNIX_EPOCH;

use dataplane::StreamInfo;
use dataplane::formatter::Formatter;
use dataplane::request::{RequestHead, RequestHeadMut};
use dataplane::route::{MatchFacts, Outcome, RouteTable};
use dataplane::stream::Metadata;
use proxy::server::{Options, Proxy};
use proxy::xds_client::ads::{Received, Sink as _};
use xds::envoy::config::route::v3::RouteConfiguration;
use xds::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
use xds::prost_types::Any;
use xds::{Wire, type_url};

use super::text;
use crate::Target;

pub(super) const TARGETS: &[Target] = &[
    target("xds-cluster", |input| resource(type_url::CLUSTER, input)),
    target("xds-endpoints", |input| resource(type_url::ENDPOINT, input)),
    target("xds-listener", |input| resource(type_url::LISTENER, input)),
    target("xds-routes", |input| resource(type_url::ROUTE, input)),
    target("xds-secret", |input| resource(type_url::SECRET, input)),
    target("xds-extension", |input| {
        resource(type_url::EXTENSION_CONFIG, input);
    }),
    target("xds-response", response),
    target("bootstrap", bootstrap),
    target("log-format", log_format),
    target("log-filter", log_filter),
    target("regex", regex),
    target("stats-tags", stats_tags),
];

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target {
        name,
        run,
        also: &[],
    }
}

/// A proxy that only looks at configuration. It is made anew now and then: statistics of what was taken in use stay.
struct Looking {
    runtime: tokio::runtime::Runtime,
    proxy: Arc<Proxy>,
    uses: usize,
}

impl Looking {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let options = Options {
            admin: false,
            bind: false,
            ..Options::default()
        };
        let proxy = runtime
            .block_on(async { Proxy::start(Default::default(), &options, None) })
            .expect("a proxy");
        Self {
            runtime,
            proxy,
            uses: 0,
        }
    }
}

fn resource(url: &'static str, input: &[u8]) {
    thread_local! {
        static LOOKING: RefCell<Option<Looking>> = const { RefCell::new(None) };
    }
    let value = match serde_json::from_slice::<serde_json::Value>(input) {
        Ok(json) => match xds::json::dynamic_from_value(url, &json, true) {
            Ok(message) => xds::json::encode(&message),
            Err(_) => return,
        },
        Err(_) => input.to_vec(),
    };
    LOOKING.with_borrow_mut(|looking| {
        if looking.as_ref().is_some_and(|looking| looking.uses >= 300) {
            *looking = None;
        }
        let looking = looking.get_or_insert_with(Looking::new);
        looking.uses += 1;
        let _entered = looking.runtime.enter();
        let manager = &looking.proxy.manager;
        let body = Any {
            type_url: url.into(),
            value,
        };
        let name = xds::name_inside(&body);
        let received = Received {
            name: name.clone(),
            version: "1".into(),
            body,
        };
        if let Err(reason) = manager.apply(url, "1", vec![received], Vec::new()) {
            assert!(!reason.is_empty(), "refused without a reason");
        }
        let _ = manager.interests();
        let _ = manager.apply(url, "2", Vec::new(), vec![name]);
    });
}

/// What is read and written again is read the same.
fn response(input: &[u8]) {
    fn same<M: Wire + PartialEq + std::fmt::Debug>(input: &[u8]) {
        if let Ok(read) = M::from_wire(input) {
            let again = M::from_wire(&read.to_wire());
            assert_eq!(again.ok().as_ref(), Some(&read));
        }
    }
    same::<DiscoveryResponse>(input);
    same::<DeltaDiscoveryResponse>(input);
}

fn bootstrap(input: &[u8]) {
    let Some(text) = text(input) else { return };
    if let Ok(bootstrap) = proxy::bootstrap::parse(text) {
        let _ = proxy::bootstrap::check(&bootstrap);
    }
}

fn log_format(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let metadata = Metadata::new();
    let connection = connection();
    let info = StreamInfo::new(&connection, &metadata, UNIX_EPOCH);
    for format in [Formatter::text(text), Formatter::header(text)]
        .into_iter()
        .flatten()
    {
        let _ = format.value(&info);
    }
    if let Ok(json) = serde_json::from_str(text) {
        let _ = Formatter::json(&json);
    }
}

fn log_filter(input: &[u8]) {
    if let Some(text) = text(input) {
        let _ = proxy::access_log::cel::Expression::parse(text);
    }
}

/// An expression, and after a line feed what it looks at.
fn regex(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let (expression, looked_at) = text.split_once('\n').unwrap_or((text, ""));
    if let Ok(regex) = dataplane::re2::whole(expression) {
        let _ = regex.is_match(looked_at);
    }
}

fn stats_tags(input: &[u8]) {
    let Some(text) = text(input) else { return };
    static TAGS: OnceLock<proxy::stats::tags::Tags> = OnceLock::new();
    let tags = TAGS.get_or_init(|| proxy::stats::tags::Tags::compile(None));
    if tags.shows(text) {
        let _ = tags.extract(text);
    }
}

/// Asks a table with routes of every kind.
pub(super) fn route(head: &RequestHead<'_>) {
    static TABLE: OnceLock<RouteTable> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let json = include_str!("../../seeds/xds-routes/kinds.json");
        let value = serde_json::from_str(json).expect("JSON");
        let message: RouteConfiguration = xds::json::from_value(value, true).expect("routes");
        RouteTable::compile(&message).expect("a table")
    });
    let metadata = Metadata::new();
    let facts = MatchFacts {
        metadata: &metadata,
        client_certificate: None,
        source: IpAddr::from([127, 0, 0, 1]),
    };
    let Outcome::Forward {
        route, weighted, ..
    } = table.find(head, &facts, &mut || 7)
    else {
        return;
    };
    let _ = route.timeouts(head);
    let _ = route.hash(head, facts.source, &mut || 7);
    let (mut authority, mut path) = (head.authority.to_owned(), head.path.to_owned());
    let mut headers = head.headers.clone();
    let mut changed = RequestHeadMut {
        method: head.method,
        scheme: head.scheme,
        authority: &mut authority,
        path: &mut path,
        headers: &mut headers,
    };
    let connection = connection();
    let info = StreamInfo::new(&connection, &metadata, UNIX_EPOCH);
    route.apply_request(&mut changed, weighted, &info, false);
}

/// A connection of nobody in particular.
pub(super) fn connection() -> dataplane::Connection {
    dataplane::Connection {
        id: 1,
        remote: ([10, 0, 0, 1], 1000).into(),
        local: ([10, 0, 0, 2], 80).into(),
        tls: None,
        server_name: None,
        start: UNIX_EPOCH,
    }
}
