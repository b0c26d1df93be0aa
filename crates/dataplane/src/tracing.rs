//! Tracing: which requests become spans, how a trace is carried in headers, and what a span says.

use http::header::HeaderMap;
use http::{HeaderName, HeaderValue};
use serde_json::Value;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::Tracing as Config;
use xds::envoy::config::route::v3::Tracing as RouteTracing;
use xds::envoy::r#type::v3::fractional_percent::DenominatorType;
use xds::envoy::r#type::v3::FractionalPercent;
use xds::envoy::r#type::metadata::v3::metadata_kind::Kind as MetadataOf;
use xds::envoy::r#type::tracing::v3::custom_tag::Type as TagType;

use crate::error::ConfigError;
use crate::formatter::Formatter;
use crate::matching::Fraction;
use crate::request::RequestHead;
use crate::stream::StreamInfo;

/// Why a request is traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It is not.
    NotTraceable,
    /// It was drawn, here or by a proxy before us.
    Sampled,
    /// A service asked for it (`x-envoy-force-trace`).
    ServiceForced,
    /// A client asked for it (`x-client-trace-id`).
    ClientForced,
}

/// The place in a UUID that tells the version; proxies write the reason there, so that all of them decide alike.
const PLACE: usize = 14;

impl Reason {
    fn mark(self) -> &'static str {
        match self {
            Self::NotTraceable => "4",
            Self::Sampled => "9",
            Self::ServiceForced => "a",
            Self::ClientForced => "b",
        }
    }

    fn of_request_id(id: &str) -> Self {
        match (id.len(), id.as_bytes().get(PLACE)) {
            (36, Some(b'9')) => Self::Sampled,
            (36, Some(b'a')) => Self::ServiceForced,
            (36, Some(b'b')) => Self::ClientForced,
            _ => Self::NotTraceable,
        }
    }
}

/// Where a trace's context stands in headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// `x-b3-*` (Zipkin).
    B3,
    /// `traceparent` and `tracestate` (OpenTelemetry).
    W3c,
}

/// The context of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: u128,
    /// The span.
    pub span: u64,
    /// Its parent.
    pub parent: Option<u64>,
    /// Whether spans are reported; `None`: nobody has decided yet.
    pub sampled: Option<bool>,
}

impl Context {
    /// Reads the context of a request.
    pub fn read(headers: &HeaderMap, propagation: Propagation) -> Option<Self> {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        match propagation {
            Propagation::W3c => {
                let value = text("traceparent")?;
                let mut parts = value.split('-');
                let (version, trace, span, flags) =
                    (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
                if version.len() != 2 || version == "ff" || trace.len() != 32 || span.len() != 16 {
                    return None;
                }
                let trace = u128::from_str_radix(trace, 16).ok()?;
                let span = u64::from_str_radix(span, 16).ok()?;
                let flags = u8::from_str_radix(flags, 16).ok()?;
                (trace != 0 && span != 0).then_some(Self {
                    trace,
                    span,
                    parent: None,
                    sampled: Some(flags & 1 == 1),
                })
            }
            Propagation::B3 => {
                if let Some(single) = text("b3") {
                    let mut parts = single.split('-');
                    let trace = u128::from_str_radix(parts.next()?, 16).ok()?;
                    let span = u64::from_str_radix(parts.next()?, 16).ok()?;
                    let sampled = parts.next().map(|flag| matches!(flag, "1" | "d"));
                    let parent = parts.next().and_then(|id| u64::from_str_radix(id, 16).ok());
                    return Some(Self {
                        trace,
                        span,
                        parent,
                        sampled,
                    });
                }
                let debug = text("x-b3-flags") == Some("1");
                Some(Self {
                    trace: u128::from_str_radix(text("x-b3-traceid")?, 16).ok()?,
                    span: u64::from_str_radix(text("x-b3-spanid")?, 16).ok()?,
                    parent: text("x-b3-parentspanid")
                        .and_then(|id| u64::from_str_radix(id, 16).ok()),
                    sampled: text("x-b3-sampled")
                        .map(|flag| matches!(flag, "1" | "true"))
                        .or(debug.then_some(true)),
                })
            }
        }
    }

    /// Writes the context for the next one.
    pub fn write(&self, headers: &mut HeaderMap, propagation: Propagation) {
        let mut set = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        let sampled = u8::from(self.sampled == Some(true));
        match propagation {
            Propagation::W3c => set(
                "traceparent",
                format!("00-{:032x}-{:016x}-{sampled:02x}", self.trace, self.span),
            ),
            Propagation::B3 => {
                set("x-b3-traceid", trace_id(self.trace));
                set("x-b3-spanid", format!("{:016x}", self.span));
                set("x-b3-sampled", sampled.to_string());
                match self.parent {
                    Some(parent) => set("x-b3-parentspanid", format!("{parent:016x}")),
                    None => {
                        headers.remove("x-b3-parentspanid");
                    }
                }
            }
        }
    }

    /// The context of a span below this one, or of the first of a trace.
    pub fn child(
        parent: Option<&Self>,
        sampled: bool,
        wide: bool,
        random: &mut dyn FnMut() -> u64,
    ) -> Self {
        let span = loop {
            let id = random();
            if id != 0 {
                break id;
            }
        };
        match parent {
            Some(parent) => Self {
                trace: parent.trace,
                span,
                parent: Some(parent.span),
                sampled: Some(parent.sampled.unwrap_or(sampled)),
            },
            None => Self {
                trace: if wide {
                    u128::from(random()) << 64 | u128::from(span)
                } else {
                    u128::from(span)
                },
                span,
                parent: None,
                sampled: Some(sampled),
            },
        }
    }
}

/// A trace's number as it is written: 64 bits if it has no more.
pub fn trace_id(trace: u128) -> String {
    if trace >> 64 == 0 {
        format!("{trace:016x}")
    } else {
        format!("{trace:032x}")
    }
}

/// The `tracing` of a connection manager, compiled.
#[derive(Debug)]
pub struct Tracing {
    shares: Shares,
    max_path: usize,
    tags: Vec<(String, Tag)>,
    /// A span for each try, below that of the request.
    pub upstream_spans: bool,
    /// The context is not passed on.
    pub silent: bool,
    operation: Option<Formatter>,
}

/// How many of the requests are traced.
#[derive(Debug, Clone, Copy)]
struct Shares {
    client: Fraction,
    random: Fraction,
    overall: Fraction,
}

#[derive(Debug)]
enum Tag {
    Literal(String),
    Environment(String),
    Header(String, String),
    Metadata(MetadataFrom, Vec<String>, String),
    Value(Formatter),
}

#[derive(Debug, Clone, Copy)]
enum MetadataFrom {
    Request,
    Route,
    Cluster,
    Host,
}

impl Tracing {
    /// Compiles the settings; `variable` reads variables of the environment.
    ///
    /// # Errors
    /// The field that cannot be carried out.
    pub fn compile(
        config: &Config,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        use xds::envoy::r#type::metadata::v3::metadata_key::path_segment::Segment;
        let share = |percent: Option<&xds::envoy::r#type::v3::Percent>| {
            let percent = percent.map_or(100.0, |percent| percent.value.clamp(0.0, 100.0));
            Fraction::compile(Some(&FractionalPercent {
                numerator: (percent * 10_000.0).round() as u32,
                denominator: DenominatorType::Million as i32,
            }))
        };
        let mut tags = Vec::new();
        for (index, tag) in config.custom_tags.iter().enumerate() {
            let at = |error: ConfigError| error.within(&format!("custom_tags[{index}]"));
            let kind = match &tag.r#type {
                Some(TagType::Literal(literal)) => Tag::Literal(literal.value.clone()),
                Some(TagType::Environment(of)) => {
                    Tag::Environment(variable(&of.name).unwrap_or(of.default_value.clone()))
                }
                Some(TagType::RequestHeader(header)) => Tag::Header(
                    header.name.to_ascii_lowercase(),
                    header.default_value.clone(),
                ),
                Some(TagType::Metadata(metadata)) => {
                    let from = match metadata.kind.as_ref().and_then(|kind| kind.kind.as_ref()) {
                        None | Some(MetadataOf::Request(_)) => MetadataFrom::Request,
                        Some(MetadataOf::Route(_)) => MetadataFrom::Route,
                        Some(MetadataOf::Cluster(_)) => MetadataFrom::Cluster,
                        Some(MetadataOf::Host(_)) => MetadataFrom::Host,
                    };
                    let key = metadata.metadata_key.clone().unwrap_or_default();
                    let rest = key.path.into_iter().filter_map(|part| match part.segment {
                        Some(Segment::Key(key)) => Some(key),
                        _ => None,
                    });
                    let path = std::iter::once(key.key).chain(rest).collect();
                    Tag::Metadata(from, path, metadata.default_value.clone())
                }
                Some(TagType::Value(format)) => Tag::Value(Formatter::header(format).map_err(at)?),
                None => return Err(at(ConfigError::new("type", "is missing"))),
            };
            tags.push((tag.tag.clone(), kind));
        }
        Ok(Self {
            shares: Shares {
                client: share(config.client_sampling.as_ref()),
                random: share(config.random_sampling.as_ref()),
                overall: share(config.overall_sampling.as_ref()),
            },
            max_path: config.max_path_tag_length.unwrap_or(256) as usize,
            tags,
            upstream_spans: config.spawn_upstream_span.unwrap_or(false),
            silent: config.no_context_propagation,
            operation: if config.operation.is_empty() {
                None
            } else {
                Some(
                    Formatter::header(&config.operation)
                        .map_err(|error| error.within("operation"))?,
                )
            },
        })
    }

    /// Decides, and notes the decision in the request id, which it keeps where it is no UUID. A decision that a proxy
    /// before us has noted stands. A route may have shares of its own.
    pub fn decide(
        &self,
        headers: &mut HeaderMap,
        route: Option<&RouteTracing>,
        random: &mut dyn FnMut() -> u64,
    ) -> Reason {
        let shares = route.map_or(self.shares, |route| {
            let share = |own: &Option<FractionalPercent>, default: Fraction| match own {
                Some(own) => Fraction::compile(Some(own)),
                None => default,
            };
            Shares {
                client: share(&route.client_sampling, self.shares.client),
                random: share(&route.random_sampling, self.shares.random),
                overall: share(&route.overall_sampling, self.shares.overall),
            }
        });
        let Some(id) = headers
            .get("x-request-id")
            .and_then(|value| value.to_str().ok())
            .filter(|id| id.len() == 36)
            .map(str::to_owned)
        else {
            return Reason::NotTraceable;
        };
        let noted = Reason::of_request_id(&id);
        if noted != Reason::NotTraceable {
            return noted;
        }
        let mut reason = if headers.contains_key("x-client-trace-id") && shares.client.draw(random)
        {
            Reason::ClientForced
        } else if headers.contains_key("x-envoy-force-trace") {
            Reason::ServiceForced
        } else if shares.random.draw(random) {
            Reason::Sampled
        } else {
            Reason::NotTraceable
        };
        if reason != Reason::NotTraceable && !shares.overall.draw(random) {
            reason = Reason::NotTraceable;
        }
        let mut id = id;
        id.replace_range(PLACE..=PLACE, reason.mark());
        if let Ok(value) = HeaderValue::try_from(id) {
            headers.insert("x-request-id", value);
        }
        reason
    }

    /// The name of a request's span: what the route says, else the host.
    pub fn operation(&self, info: &StreamInfo<'_>, head: &RequestHead<'_>) -> String {
        match &self.operation {
            Some(format) => format.value(info),
            None => head.authority.to_owned(),
        }
    }

    /// What the span of a request says, once it is over.
    pub fn tags(
        &self,
        info: &StreamInfo<'_>,
        head: &RequestHead<'_>,
        node: &str,
    ) -> Vec<(String, String)> {
        let header = |name: &str| {
            head.header(name)
                .map_or_else(String::new, |value| value.into_owned())
        };
        let or = |text: String, default: &str| {
            if text.is_empty() {
                default.to_owned()
            } else {
                text
            }
        };
        let path: String = header("x-envoy-original-path");
        let path: String = or(path, head.path).chars().take(self.max_path).collect();
        let code = info.response_code.unwrap_or(0);
        let mut tags: Vec<(String, String)> = vec![
            ("guid:x-request-id".into(), header("x-request-id")),
            (
                "http.url".into(),
                format!(
                    "{}://{}{path}",
                    or(header("x-forwarded-proto"), head.scheme),
                    head.authority
                ),
            ),
            ("http.method".into(), head.method.as_str().into()),
            (
                "downstream_cluster".into(),
                or(header("x-envoy-downstream-service-cluster"), "-"),
            ),
            ("user_agent".into(), or(header("user-agent"), "-")),
            (
                "http.protocol".into(),
                info.protocol.unwrap_or_default().into(),
            ),
            (
                "peer.address".into(),
                info.connection.remote.ip().to_canonical().to_string(),
            ),
            ("request_size".into(), info.bytes_received.to_string()),
            ("node_id".into(), node.into()),
            ("component".into(), "proxy".into()),
            ("response_size".into(), info.bytes_sent.to_string()),
            (
                "response_flags".into(),
                if info.flags.is_empty() {
                    "-".into()
                } else {
                    info.flags.short()
                },
            ),
            ("http.status_code".into(), code.to_string()),
        ];
        if let Some(cluster) = info.upstream_cluster_raw {
            tags.push(("upstream_cluster".into(), cluster.into()));
            tags.push((
                "upstream_cluster.name".into(),
                info.upstream_cluster.unwrap_or(cluster).into(),
            ));
        }
        if let Some(id) = head.header("x-client-trace-id") {
            tags.push(("guid:x-client-trace-id".into(), id.into_owned()));
        }
        for name in ["grpc-status", "grpc-message"] {
            let value = [info.response_trailers, info.response_headers]
                .into_iter()
                .flatten()
                .find_map(|headers| headers.get(name)?.to_str().ok());
            if let Some(value) = value {
                tags.push((
                    name.replace("grpc-", "grpc.")
                        .replace("status", "status_code"),
                    value.into(),
                ));
            }
        }
        if code == 0 || code >= 500 {
            tags.push(("error".into(), "true".into()));
        }
        tags.extend(self.custom(info, head));
        tags
    }

    fn custom(&self, info: &StreamInfo<'_>, head: &RequestHead<'_>) -> Vec<(String, String)> {
        let value = |tag: &Tag| match tag {
            Tag::Literal(text) | Tag::Environment(text) => text.clone(),
            Tag::Header(name, default) => match head.header(name) {
                Some(value) => value.into_owned(),
                None => default.clone(),
            },
            Tag::Value(format) => format.value(info),
            Tag::Metadata(from, path, default) => {
                let root = match from {
                    MetadataFrom::Request => Some(info.metadata),
                    MetadataFrom::Route => info.route_metadata,
                    MetadataFrom::Cluster => info.cluster_metadata,
                    MetadataFrom::Host => info.upstream_metadata,
                };
                let mut parts = path.iter();
                let mut found = root.and_then(|root| root.get(parts.next()?));
                for part in parts {
                    found = found.and_then(|value| value.get(part));
                }
                match found {
                    None => default.clone(),
                    Some(Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                }
            }
        };
        self.tags
            .iter()
            .map(|(name, tag)| (name.clone(), value(tag)))
            .filter(|(_, value)| !value.is_empty())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tracing(config: Value) -> Tracing {
        let config = xds::json::from_value(config, true).expect("a message");
        Tracing::compile(&config, &|_| None).expect("compiles")
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::try_from(*value).unwrap(),
                )
            })
            .collect()
    }

    const ID: &str = "0262c270-e8af-4b6e-a35b-1240adf6ee81";

    #[test]
    fn the_request_id_tells_every_proxy_the_same() {
        let half = tracing(json!({"random_sampling": {"value": 50}}));
        let mut one = headers(&[("x-request-id", ID)]);
        assert_eq!(
            half.decide(&mut one, None, &mut || 499_999),
            Reason::Sampled
        );
        assert_eq!(one["x-request-id"], "0262c270-e8af-9b6e-a35b-1240adf6ee81");
        let never = tracing(json!({"random_sampling": {"value": 0}}));
        assert_eq!(
            never.decide(&mut one, None, &mut || 0),
            Reason::Sampled,
            "the decision stands"
        );
        let mut other = headers(&[("x-request-id", ID)]);
        assert_eq!(
            half.decide(&mut other, None, &mut || 500_000),
            Reason::NotTraceable
        );
        assert_eq!(other["x-request-id"], ID);
        let mut forced = headers(&[("x-request-id", ID), ("x-envoy-force-trace", "true")]);
        assert_eq!(
            never.decide(&mut forced, None, &mut || 0),
            Reason::ServiceForced
        );
    }

    #[test]
    fn contexts_are_read_and_written_in_both_forms() {
        let b3 = headers(&[
            ("x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7"),
            ("x-b3-spanid", "05e3ac9a4f6e3b90"),
            ("x-b3-sampled", "1"),
        ]);
        let parent = Context::read(&b3, Propagation::B3).expect("a context");
        assert_eq!(
            (parent.trace, parent.span, parent.sampled),
            (
                0x80f1_98ee_5634_3ba8_64fe_8b2a_57d3_eff7,
                0x05e3_ac9a_4f6e_3b90,
                Some(true)
            )
        );
        let child = Context::child(Some(&parent), false, true, &mut || 7);
        let mut out = HeaderMap::new();
        child.write(&mut out, Propagation::B3);
        assert_eq!(out["x-b3-traceid"], "80f198ee56343ba864fe8b2a57d3eff7");
        assert_eq!(out["x-b3-spanid"], "0000000000000007");
        assert_eq!(out["x-b3-parentspanid"], "05e3ac9a4f6e3b90");
        assert_eq!(out["x-b3-sampled"], "1", "who began the trace decides");
        let w3c = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parent = Context::read(&headers(&[("traceparent", w3c)]), Propagation::W3c);
        let mut out = HeaderMap::new();
        parent.expect("a context").write(&mut out, Propagation::W3c);
        assert_eq!(out["traceparent"], w3c);
        assert_eq!(
            Context::read(&headers(&[("traceparent", "00-0-0-01")]), Propagation::W3c),
            None
        );
    }
}
