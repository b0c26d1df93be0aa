//! The match of one route.

use regex::Regex;
use xds::envoy::config::route::v3::{RouteMatch, route_match::PathSpecifier};
use xds::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;

use super::MatchFacts;
use crate::error::ConfigError;
use crate::matching::{Fraction, HeaderMatch, MetadataMatch, QueryMatch, StringMatch, full_regex};
use crate::request::{RequestHead, path_only};

/// A `RouteMatch`, compiled.
#[derive(Debug)]
pub(super) struct Match {
    path: Path,
    case_sensitive: bool,
    headers: Box<[HeaderMatch]>,
    query: Box<[QueryMatch]>,
    cookies: Box<[(String, StringMatch, bool)]>,
    metadata: Box<[MetadataMatch]>,
    fraction: Fraction,
    grpc: bool,
    certificate: Option<(Option<bool>, Option<bool>)>,
    ignore_parameters: bool,
}

#[derive(Debug)]
enum Path {
    Exact(Box<str>),
    Prefix(Box<str>),
    SeparatedPrefix(Box<str>),
    Regex(Regex),
    Template(Regex),
    Connect,
}

/// The end of the text that a path has to begin with, and where it ends: in a long list most routes are passed over by this alone,
/// without looking at them where they lie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Quick {
    /// 0 where nothing is known.
    end: u32,
    tail: [u8; 8],
}

impl Quick {
    /// `false`: the route does not match this path (without its query).
    #[inline]
    pub(super) fn may_match(self, path: &str) -> bool {
        let end = self.end as usize;
        end == 0 || path.as_bytes().get(end - 8..end) == Some(&self.tail[..])
    }
}

impl Match {
    /// What is known ahead about the paths that match.
    pub(super) fn quick(&self) -> Quick {
        match &self.path {
            Path::Exact(text) | Path::Prefix(text) | Path::SeparatedPrefix(text)
                if self.case_sensitive && !self.ignore_parameters =>
            {
                let tail = text.as_bytes().last_chunk::<8>();
                tail.map_or(Quick::default(), |tail| Quick {
                    end: u32::try_from(text.len()).unwrap_or(0),
                    tail: *tail,
                })
            }
            _ => Quick::default(),
        }
    }

    /// Every request.
    pub(super) fn everything() -> Self {
        Self {
            path: Path::Prefix("".into()),
            case_sensitive: true,
            headers: Box::default(),
            query: Box::default(),
            cookies: Box::default(),
            metadata: Box::default(),
            fraction: Fraction::ALL,
            grpc: false,
            certificate: None,
            ignore_parameters: false,
        }
    }

    pub(super) fn compile(
        config: &RouteMatch,
        ignore_parameters: bool,
    ) -> Result<Self, ConfigError> {
        let path = match &config.path_specifier {
            Some(PathSpecifier::Path(path)) => Path::Exact(path.as_str().into()),
            Some(PathSpecifier::Prefix(prefix)) => Path::Prefix(prefix.as_str().into()),
            Some(PathSpecifier::PathSeparatedPrefix(prefix)) => {
                if !prefix.starts_with('/') || prefix.ends_with('/') || prefix.contains(['?', '#'])
                {
                    return Err(ConfigError::new(
                        "path_separated_prefix",
                        format!(
                            "{prefix:?} must begin with a slash, not end with one, and have no ? or #"
                        ),
                    ));
                }
                Path::SeparatedPrefix(prefix.as_str().into())
            }
            Some(PathSpecifier::SafeRegex(regex)) => {
                Path::Regex(full_regex(regex).map_err(|e| e.within("safe_regex"))?)
            }
            Some(PathSpecifier::ConnectMatcher(_)) => Path::Connect,
            Some(PathSpecifier::PathMatchPolicy(policy)) => {
                let template = policy
                    .typed_config
                    .as_ref()
                    .map(xds::any::unpack::<UriTemplateMatchConfig>);
                match template {
                    Some(Ok(Some(template))) => Path::Template(
                        crate::matching::uri_template(&template.path_template)
                            .map_err(|e| e.within("path_match_policy"))?,
                    ),
                    _ => {
                        let problem = format!(
                            "{:?} is not supported; only the URI template matcher is",
                            policy.name
                        );
                        return Err(ConfigError::new("path_match_policy", problem));
                    }
                }
            }
            None => {
                return Err(ConfigError::new(
                    "path_specifier",
                    "is missing: give prefix, path or safe_regex",
                ));
            }
        };
        if !config.filter_state.is_empty() {
            return Err(ConfigError::new("filter_state", "is not supported"));
        }
        let cookie = |cookie: &xds::envoy::config::route::v3::CookieMatcher| {
            let value = match &cookie.string_match {
                Some(value) => StringMatch::compile(value).map_err(|e| e.within("cookies"))?,
                None => StringMatch::Any,
            };
            Ok((cookie.name.clone(), value, cookie.invert_match))
        };
        Ok(Self {
            path,
            case_sensitive: config.case_sensitive.unwrap_or(true),
            headers: all(&config.headers, HeaderMatch::compile, "headers")?,
            query: all(
                &config.query_parameters,
                QueryMatch::compile,
                "query_parameters",
            )?,
            cookies: config
                .cookies
                .iter()
                .map(cookie)
                .collect::<Result<_, ConfigError>>()?,
            metadata: all(
                &config.dynamic_metadata,
                MetadataMatch::compile,
                "dynamic_metadata",
            )?,
            fraction: Fraction::of_runtime(config.runtime_fraction.as_ref(), Fraction::ALL),
            grpc: config.grpc.is_some(),
            certificate: config
                .tls_context
                .as_ref()
                .map(|tls| (tls.presented, tls.validated)),
            ignore_parameters,
        })
    }

    /// The template that the path must match.
    pub(super) fn template(&self) -> Option<&Regex> {
        match &self.path {
            Path::Template(template) => Some(template),
            _ => None,
        }
    }

    pub(super) fn matches(
        &self,
        head: &RequestHead<'_>,
        facts: &MatchFacts<'_>,
        random: &mut dyn FnMut() -> u64,
    ) -> bool {
        self.path_matches(head)
            && (!self.grpc || head.is_grpc())
            && self.headers.iter().all(|header| header.matches(head))
            && self.query.iter().all(|query| query.matches(head))
            && self.cookies.iter().all(|(name, value, invert)| {
                head.cookie(name)
                    .is_some_and(|cookie| value.matches(cookie))
                    != *invert
            })
            && self
                .metadata
                .iter()
                .all(|metadata| metadata.matches(facts.metadata))
            && self.certificate.is_none_or(|(presented, validated)| {
                presented.is_none_or(|wanted| facts.client_certificate.is_some() == wanted)
                    && validated
                        .is_none_or(|wanted| facts.client_certificate.unwrap_or(false) == wanted)
            })
            && self.fraction.draw(random)
    }

    fn path_matches(&self, head: &RequestHead<'_>) -> bool {
        let connect = head.method == http::Method::CONNECT;
        if let Path::Connect = self.path {
            return connect;
        }
        // A CONNECT without path has nothing that other routes could match.
        if head.path.is_empty() {
            return false;
        }
        let path = head.path_only();
        if self.ignore_parameters && path.contains(';') {
            let plain: Vec<&str> = path
                .split('/')
                .map(|part| part.split(';').next().unwrap_or_default())
                .collect();
            return self.test(&plain.join("/"));
        }
        self.test(path)
    }

    fn test(&self, path: &str) -> bool {
        let begins = |prefix: &str| match path.as_bytes().get(..prefix.len()) {
            Some(start) if self.case_sensitive => start == prefix.as_bytes(),
            Some(start) => start.eq_ignore_ascii_case(prefix.as_bytes()),
            None => false,
        };
        match &self.path {
            Path::Exact(exact) => path.len() == exact.len() && begins(exact),
            Path::Prefix(prefix) => begins(prefix),
            Path::SeparatedPrefix(prefix) => {
                begins(prefix)
                    && path
                        .as_bytes()
                        .get(prefix.len())
                        .is_none_or(|next| *next == b'/')
            }
            Path::Regex(regex) | Path::Template(regex) => regex.is_match(path),
            Path::Connect => false,
        }
    }

    /// How much of the path a prefix rewrite replaces: the prefix, else the whole path without the query.
    pub(super) fn matched_length(&self, path: &str) -> usize {
        match &self.path {
            Path::Prefix(prefix) | Path::SeparatedPrefix(prefix) if path.len() >= prefix.len() => {
                prefix.len()
            }
            _ => path_only(path).len(),
        }
    }
}

fn all<C, T>(
    configs: &[C],
    compile: impl Fn(&C) -> Result<T, ConfigError>,
    field: &str,
) -> Result<Box<[T]>, ConfigError> {
    let each =
        |(index, config)| compile(config).map_err(|e| e.within(&format!("{field}[{index}]")));
    configs.iter().enumerate().map(each).collect()
}
