//! Redirects and rewrites.

use http::HeaderValue;
use xds::envoy::config::route::v3::{
    RedirectAction, RouteAction,
    redirect_action::{PathRewriteSpecifier, SchemeRewriteSpecifier},
    route_action::HostRewriteSpecifier,
};

use xds::envoy::extensions::path::rewrite::uri_template::v3::UriTemplateRewriteConfig;

use super::hosts::port_start;
use super::path::Match;
use crate::error::ConfigError;
use crate::matching::{HeaderKey, Substitution, TemplateRewrite};
use crate::request::{RequestHead, RequestHeadMut, path_only};

/// A `RedirectAction`, compiled.
#[derive(Debug)]
pub(super) struct Redirect {
    pub(super) status: u16,
    scheme: Option<String>,
    host: String,
    port: Option<u32>,
    path: RedirectPath,
    strip_query: bool,
}

#[derive(Debug)]
enum RedirectPath {
    Keep,
    Whole(String),
    Prefix(String),
    Regex(Substitution),
}

impl Redirect {
    pub(super) fn compile(config: &RedirectAction) -> Result<Self, ConfigError> {
        Ok(Self {
            status: match config.response_code {
                1 => 302,
                2 => 303,
                3 => 307,
                4 => 308,
                _ => 301,
            },
            scheme: match &config.scheme_rewrite_specifier {
                Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".to_owned()),
                Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) if !scheme.is_empty() => {
                    Some(scheme.clone())
                }
                _ => None,
            },
            host: config.host_redirect.clone(),
            port: Some(config.port_redirect).filter(|port| *port != 0),
            path: match &config.path_rewrite_specifier {
                Some(PathRewriteSpecifier::PathRedirect(path)) if !path.is_empty() => {
                    RedirectPath::Whole(path.clone())
                }
                Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
                    RedirectPath::Prefix(prefix.clone())
                }
                Some(PathRewriteSpecifier::RegexRewrite(regex)) => RedirectPath::Regex(
                    Substitution::compile(regex).map_err(|e| e.within("regex_rewrite"))?,
                ),
                Some(PathRewriteSpecifier::PathRewrite(rewrite)) if !rewrite.is_empty() => {
                    return Err(ConfigError::new("path_rewrite", "is not supported"));
                }
                _ => RedirectPath::Keep,
            },
            strip_query: config.strip_query,
        })
    }

    pub(super) fn location(&self, head: &RequestHead<'_>, matches: &Match) -> String {
        let scheme = self.scheme.as_deref().unwrap_or(head.scheme);
        let host = if self.host.is_empty() {
            self.request_host(head, scheme)
        } else {
            &self.host
        };
        let port = self.port.map_or(String::new(), |port| format!(":{port}"));
        let own = self.rewritten(head.path, matches);
        let asked = own.as_deref().unwrap_or(head.path);
        let (path, query) = asked.split_at(asked.find('?').unwrap_or(asked.len()));
        let query = if self.strip_query { "" } else { query };
        let path = match &self.path {
            // The query of the configured path wins.
            RedirectPath::Whole(whole) if whole.contains('?') => whole.clone(),
            RedirectPath::Whole(whole) => format!("{whole}{query}"),
            _ => format!("{}{query}", path_only(path)),
        };
        format!("{scheme}://{host}{port}{path}")
    }

    /// What becomes of the request's own path and query before the client is sent there; `None` if it keeps them.
    pub(super) fn rewritten(&self, asked: &str, matches: &Match) -> Option<String> {
        let path = path_only(asked);
        let query = asked.find('?').map_or("", |at| &asked[at..]);
        match &self.path {
            RedirectPath::Keep | RedirectPath::Whole(_) => None,
            RedirectPath::Prefix(prefix) if prefix.is_empty() => None,
            RedirectPath::Prefix(prefix) => {
                let rest = path.get(matches.matched_length(path)..);
                Some(format!("{prefix}{}{query}", rest.unwrap_or_default()))
            }
            RedirectPath::Regex(regex) => Some(format!("{}{query}", regex.apply(path))),
        }
    }

    /// The host of the request; its port goes if another is given or if it was the default of the old scheme.
    fn request_host<'a>(&self, head: &RequestHead<'a>, scheme: &str) -> &'a str {
        let Some(at) = port_start(head.authority) else {
            return head.authority;
        };
        let default = matches!(
            (head.scheme, &head.authority[at..]),
            ("https", ":443") | ("http", ":80")
        );
        if self.port.is_some() || (scheme != head.scheme && default) {
            &head.authority[..at]
        } else {
            head.authority
        }
    }
}

/// What happens to host and path on the way to the upstream.
#[derive(Debug)]
pub(super) struct Rewrite {
    prefix: Option<String>,
    regex: Option<Substitution>,
    template: Option<TemplateRewrite>,
    host: Option<Host>,
    pub(super) append_forwarded_host: bool,
}

#[derive(Debug)]
enum Host {
    Literal(String),
    Header(HeaderKey),
    PathRegex(Substitution),
}

impl Rewrite {
    /// The rewrite, if there is any, and whether the endpoint's name becomes the host.
    // host_rewrite is an alias of old configurations.
    #[allow(deprecated)]
    pub(super) fn compile(
        config: &RouteAction,
        matches: &Match,
    ) -> Result<(Option<Box<Self>>, bool), ConfigError> {
        let mut automatic = false;
        let host = match &config.host_rewrite_specifier {
            Some(
                HostRewriteSpecifier::HostRewriteLiteral(host)
                | HostRewriteSpecifier::HostRewrite(host),
            ) => Some(Host::Literal(host.clone())),
            Some(HostRewriteSpecifier::HostRewriteHeader(name)) => Some(Host::Header(
                HeaderKey::compile(name).map_err(|e| e.within("host_rewrite_header"))?,
            )),
            Some(HostRewriteSpecifier::HostRewritePathRegex(regex)) => Some(Host::PathRegex(
                Substitution::compile(regex).map_err(|e| e.within("host_rewrite_path_regex"))?,
            )),
            Some(HostRewriteSpecifier::AutoHostRewrite(value)) => {
                automatic = *value;
                None
            }
            None => None,
        };
        if !config.path_rewrite.is_empty() {
            return Err(ConfigError::new(
                "path_rewrite",
                "is not supported; use prefix_rewrite or regex_rewrite",
            ));
        }
        let template = match &config.path_rewrite_policy {
            None => None,
            Some(policy) => {
                let any = policy.typed_config.clone().unwrap_or_default();
                let rewrite = xds::any::unpack::<UriTemplateRewriteConfig>(&any);
                let Ok(Some(rewrite)) = rewrite else {
                    return Err(ConfigError::new(
                        "path_rewrite_policy",
                        format!(
                            "{:?} is not supported; only the URI template is",
                            policy.name
                        ),
                    ));
                };
                let matcher = matches.template().ok_or_else(|| {
                    ConfigError::new("path_rewrite_policy", "needs a path_match_policy")
                })?;
                let rewrite = TemplateRewrite::compile(&rewrite.path_template_rewrite, matcher);
                Some(rewrite.map_err(|e| e.within("path_rewrite_policy"))?)
            }
        };
        let regex = config
            .regex_rewrite
            .as_ref()
            .map(Substitution::compile)
            .transpose();
        let rewrite = Self {
            prefix: Some(config.prefix_rewrite.clone()).filter(|prefix| !prefix.is_empty()),
            regex: regex.map_err(|e| e.within("regex_rewrite"))?,
            template,
            host,
            append_forwarded_host: config.append_x_forwarded_host,
        };
        let something = rewrite.prefix.is_some()
            || rewrite.regex.is_some()
            || rewrite.template.is_some()
            || rewrite.host.is_some()
            || rewrite.append_forwarded_host;
        Ok((something.then(|| Box::new(rewrite)), automatic))
    }

    /// Replaces the host.
    pub(super) fn host(&self, head: &mut RequestHeadMut<'_>, suppress: bool) {
        let host = match &self.host {
            None => return,
            Some(Host::Literal(host)) => host.clone(),
            Some(Host::Header(key)) => {
                // Of several lines the first is the host.
                let value = match key {
                    HeaderKey::Name(name) => head
                        .headers
                        .get(name)
                        .and_then(|value| value.to_str().ok())
                        .map(str::to_owned),
                    key => key.value(&head.view()).map(|value| value.into_owned()),
                };
                match value {
                    Some(value) if !value.is_empty() => value,
                    _ => return,
                }
            }
            Some(Host::PathRegex(regex)) => regex.apply(path_only(head.path)).into_owned(),
        };
        replace_host(head, host, self.append_forwarded_host, suppress);
    }

    /// Replaces the path.
    pub(super) fn path(&self, head: &mut RequestHeadMut<'_>, matches: &Match, suppress: bool) {
        let Some(path) = self.rewritten(head.path, matches) else {
            return;
        };
        replace_path(head, path, suppress);
    }

    /// The new path, if it is rewritten.
    pub(super) fn rewritten(&self, path: &str, matches: &Match) -> Option<String> {
        if let Some(prefix) = &self.prefix {
            return Some(format!(
                "{prefix}{}",
                path.get(matches.matched_length(path)..).unwrap_or_default()
            ));
        }
        let plain = path_only(path);
        if let Some(template) = &self.template {
            let new = template.apply(plain)?;
            return Some(format!("{new}{}", &path[plain.len()..]));
        }
        let regex = self.regex.as_ref()?;
        Some(format!("{}{}", regex.apply(plain), &path[plain.len()..]))
    }
}

/// Replaces the path, and tells which it was.
pub(super) fn replace_path(head: &mut RequestHeadMut<'_>, path: String, suppress: bool) {
    if !suppress && let Ok(old) = HeaderValue::from_str(head.path) {
        head.headers.insert("x-envoy-original-path", old);
    }
    *head.path = path;
}

/// Replaces the host, and tells which it was; `append`: also in x-forwarded-host.
pub(super) fn replace_host(
    head: &mut RequestHeadMut<'_>,
    host: String,
    append: bool,
    suppress: bool,
) {
    if append {
        // One line, however many there were.
        let mut all = Vec::new();
        let before = head.headers.get_all("x-forwarded-host").iter();
        for value in before
            .map(HeaderValue::as_bytes)
            .chain([head.authority.as_bytes()])
        {
            if !all.is_empty() {
                all.push(b',');
            }
            all.extend_from_slice(value);
        }
        if let Ok(all) = HeaderValue::from_bytes(&all) {
            head.headers.insert("x-forwarded-host", all);
        }
    }
    if !suppress && let Ok(old) = HeaderValue::from_str(head.authority) {
        head.headers.insert("x-envoy-original-host", old);
    }
    *head.authority = host;
}
