//! Which streams a log is for.

use dataplane::matching::{Fraction, HeaderMatch, MetadataMatch};
use dataplane::{ResponseFlags, StreamInfo};
use http::HeaderMap;
use xds::envoy::config::accesslog::v3::{
    AccessLogFilter, ComparisonFilter, access_log_filter::FilterSpecifier, comparison_filter::Op,
    extension_filter,
};
use xds::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;

use super::Moment;
use super::cel::Expression;

/// Which streams a log or a local reply rule is for.
pub enum Filter {
    /// With any of these flags; with any flag at all when there are none.
    Flags(Vec<ResponseFlags>),
    /// By status.
    Status(Comparison),
    /// By duration in milliseconds.
    Duration(Comparison),
    /// All of them let it pass.
    And(Vec<Filter>),
    /// One of them lets it pass.
    Or(Vec<Filter>),
    /// No health checks.
    NotHealthCheck,
    /// Its spans are collected.
    Traceable,
    /// A share of them: of requests with the same id always the same, unless `independent`.
    Share {
        /// The share.
        share: Fraction,
        /// Each is drawn anew.
        independent: bool,
    },
    /// By a request header.
    Header(HeaderMatch),
    /// By gRPC status; `exclude`: all others.
    Grpc {
        /// The statuses.
        statuses: Vec<i32>,
        /// All but these.
        exclude: bool,
    },
    /// By what filters left.
    Metadata {
        /// The value.
        matcher: Option<MetadataMatch>,
        /// Streams without a value pass.
        absent: bool,
    },
    /// By what is logged.
    Moment {
        /// When.
        moments: Vec<i32>,
        /// All but these.
        exclude: bool,
    },
    /// By an expression.
    Expression(Expression),
}

/// A number compared with a value.
pub struct Comparison {
    op: Op,
    value: u64,
}

impl Comparison {
    fn compile(config: Option<&ComparisonFilter>) -> Result<Self, String> {
        let config = config.ok_or("comparison: is missing")?;
        let value = config.value.as_ref().map_or(0, |value| value.default_value);
        Ok(Self {
            op: Op::try_from(config.op).map_err(|_| format!("comparison.op: {}", config.op))?,
            value: value.into(),
        })
    }

    fn holds(&self, have: u64) -> bool {
        match self.op {
            Op::Eq => have == self.value,
            Op::Ge => have >= self.value,
            Op::Le => have <= self.value,
            Op::Ne => have != self.value,
        }
    }
}

impl Filter {
    /// Compiles a filter.
    ///
    /// # Errors
    /// What of it is wrong or not there.
    pub fn compile(config: &AccessLogFilter) -> Result<Self, String> {
        let all = |filters: &[AccessLogFilter]| -> Result<Vec<Self>, String> {
            filters.iter().map(Self::compile).collect()
        };
        let specifier = config.filter_specifier.as_ref();
        Ok(match specifier.ok_or("filter: is empty")? {
            FilterSpecifier::ResponseFlagFilter(filter) => {
                let flag = |flag: &String| {
                    ResponseFlags::from_short(flag)
                        .ok_or_else(|| format!("response_flag_filter.flags: {flag:?} is no flag"))
                };
                Self::Flags(filter.flags.iter().map(flag).collect::<Result<_, _>>()?)
            }
            FilterSpecifier::StatusCodeFilter(filter) => Self::Status(
                Comparison::compile(filter.comparison.as_ref())
                    .map_err(|error| format!("status_code_filter.{error}"))?,
            ),
            FilterSpecifier::DurationFilter(filter) => Self::Duration(
                Comparison::compile(filter.comparison.as_ref())
                    .map_err(|error| format!("duration_filter.{error}"))?,
            ),
            FilterSpecifier::AndFilter(and) => Self::And(all(&and.filters)?),
            FilterSpecifier::OrFilter(or) => Self::Or(all(&or.filters)?),
            FilterSpecifier::NotHealthCheckFilter(_) => Self::NotHealthCheck,
            FilterSpecifier::TraceableFilter(_) => Self::Traceable,
            FilterSpecifier::RuntimeFilter(filter) => Self::Share {
                share: Fraction::compile(filter.percent_sampled.as_ref()),
                independent: filter.use_independent_randomness,
            },
            FilterSpecifier::HeaderFilter(filter) => {
                let header = filter.header.as_ref();
                let header = header.ok_or("header_filter.header: is missing")?;
                let matcher = HeaderMatch::compile(header);
                Self::Header(matcher.map_err(|error| format!("header_filter.header: {error}"))?)
            }
            FilterSpecifier::GrpcStatusFilter(filter) => Self::Grpc {
                statuses: filter.statuses.clone(),
                exclude: filter.exclude,
            },
            FilterSpecifier::MetadataFilter(filter) => {
                let matcher = filter.matcher.as_ref().map(MetadataMatch::compile);
                Self::Metadata {
                    matcher: matcher
                        .transpose()
                        .map_err(|error| format!("metadata_filter.matcher: {error}"))?,
                    absent: filter.match_if_key_not_found.unwrap_or(true),
                }
            }
            FilterSpecifier::LogTypeFilter(filter) => Self::Moment {
                moments: filter.types.clone(),
                exclude: filter.exclude,
            },
            FilterSpecifier::ExtensionFilter(filter) => {
                let Some(extension_filter::ConfigType::TypedConfig(any)) = &filter.config_type
                else {
                    return Err(format!(
                        "extension_filter {:?}: has no typed_config",
                        filter.name
                    ));
                };
                let at = |error: String| format!("extension_filter {:?}: {error}", filter.name);
                let config = xds::any::unpack::<ExpressionFilter>(any);
                match config.map_err(|error| at(error.to_string()))? {
                    Some(config) => {
                        Self::Expression(Expression::parse(&config.expression).map_err(at)?)
                    }
                    None => {
                        let name = xds::any::message_name(any);
                        return Err(at(format!("{name} is not supported")));
                    }
                }
            }
        })
    }

    /// Whether a stream passes.
    pub fn passes(
        &self,
        moment: Moment,
        info: &StreamInfo<'_>,
        random: &mut dyn FnMut() -> u64,
    ) -> bool {
        match self {
            Self::Flags(flags) => {
                if flags.is_empty() {
                    !info.flags.is_empty()
                } else {
                    flags.iter().any(|flag| info.flags.contains(*flag))
                }
            }
            Self::Status(comparison) => comparison.holds(info.response_code.map_or(0, u64::from)),
            // A stream that is not over has lasted for no time, as far as this filter is concerned.
            Self::Duration(comparison) => comparison.holds(
                info.duration
                    .map_or(0, |duration| duration.as_millis() as u64),
            ),
            Self::And(filters) => filters
                .iter()
                .all(|filter| filter.passes(moment, info, random)),
            Self::Or(filters) => filters
                .iter()
                .any(|filter| filter.passes(moment, info, random)),
            Self::NotHealthCheck => !info.health_check,
            Self::Traceable => info.traced && !info.health_check,
            Self::Share { share, independent } => {
                let id = || {
                    let id = info.request?.header("x-request-id")?;
                    u64::from_str_radix(id.get(..8)?, 16).ok()
                };
                let stable = if *independent { None } else { id() };
                share.hit(stable.unwrap_or_else(random))
            }
            Self::Header(header) => info.request.is_some_and(|head| header.matches(&head)),
            Self::Grpc { statuses, exclude } => statuses.contains(&grpc_status(info)) != *exclude,
            Self::Metadata { matcher, absent } => match matcher {
                Some(matcher) if matcher.finds(info.metadata) => matcher.matches(info.metadata),
                _ => *absent,
            },
            Self::Moment { moments, exclude } => moments.contains(&(moment as i32)) != *exclude,
            Self::Expression(expression) => expression.holds(info),
        }
    }
}

/// The status of a gRPC answer: from trailers, headers, or else from the HTTP status.
fn grpc_status(info: &StreamInfo<'_>) -> i32 {
    let said = |headers: Option<&HeaderMap>| -> Option<i32> {
        headers?.get("grpc-status")?.to_str().ok()?.parse().ok()
    };
    said(info.response_trailers)
        .or_else(|| said(info.response_headers))
        .unwrap_or_else(|| {
            info.response_code
                .map_or(2, |code| dataplane::local_reply::grpc_status(code) as i32)
        })
}
