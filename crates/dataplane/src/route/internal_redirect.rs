//! `internal_redirect_policy`: redirects that the proxy follows itself.

use http::HeaderName;
use xds::envoy::config::core::v3::TypedExtensionConfig;
use xds::envoy::config::route::v3::InternalRedirectPolicy;
use xds::envoy::extensions::internal_redirect::allow_listed_routes::v3::AllowListedRoutesConfig;

use crate::error::ConfigError;

/// Which redirects are followed, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InternalRedirect {
    /// `max_internal_redirects` of one request, 1 by default.
    pub max: u32,
    /// `response_headers_to_copy`: headers of the redirect that the next request gets.
    pub copied: Vec<HeaderName>,
    codes: Vec<u16>,
    cross_scheme: bool,
    predicates: Vec<Predicate>,
}

/// What else a redirect must fulfil.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Predicate {
    /// From a route to another one, only once for one request.
    PreviousRoutes,
    /// To these routes only.
    AllowListedRoutes(Vec<String>),
    /// Not to https when the request came without it.
    SafeCrossScheme,
}

/// Where a redirect leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The host.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

/// Why a redirect is passed on instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotFollowed {
    /// Its location is missing or no absolute address.
    BadLocation,
    /// It leads from http to https or back, and that is not allowed.
    UnsafeScheme,
    /// The request was redirected often enough.
    TooMany,
}

impl InternalRedirect {
    /// Compiles a policy.
    ///
    /// # Errors
    /// For predicates that are not there.
    pub fn compile(config: &InternalRedirectPolicy) -> Result<Self, ConfigError> {
        let predicates = config.predicates.iter().enumerate();
        let predicates = predicates.map(|(index, predicate)| {
            Predicate::compile(predicate).map_err(|e| e.within(&format!("predicates[{index}]")))
        });
        let codes: Vec<u16> = config
            .redirect_response_codes
            .iter()
            .map(|code| u16::try_from(*code).unwrap_or_default())
            // Other codes are ignored, as Envoy ignores them.
            .filter(|code| matches!(code, 301 | 302 | 303 | 307 | 308))
            .collect();
        let copied = config.response_headers_to_copy.iter().map(|name| {
            HeaderName::try_from(name.as_str()).map_err(|_| {
                ConfigError::new(
                    "response_headers_to_copy",
                    format!("{name:?} is not a header name"),
                )
            })
        });
        Ok(Self {
            max: config.max_internal_redirects.unwrap_or(1),
            copied: copied.collect::<Result<_, _>>()?,
            codes: if config.redirect_response_codes.is_empty() {
                vec![302]
            } else {
                codes
            },
            cross_scheme: config.allow_cross_scheme_redirect,
            predicates: predicates.collect::<Result<_, _>>()?,
        })
    }

    /// Whether a redirect to a route, found for its target, may be followed. `from` is the route of the request that is redirected,
    /// `steps` are the routes that earlier redirects of it went from and to; this one is added when it is followed.
    pub fn permits(
        &self,
        from: &str,
        to: &str,
        steps: &mut Vec<(String, String)>,
        secure: bool,
        target: &Target,
    ) -> bool {
        let permitted = self.predicates.iter().all(|predicate| match predicate {
            Predicate::PreviousRoutes => !steps.iter().any(|(a, b)| a == from && b == to),
            Predicate::AllowListedRoutes(allowed) => allowed.iter().any(|name| name == to),
            Predicate::SafeCrossScheme => secure || target.scheme == "http",
        });
        if permitted {
            steps.push((from.to_owned(), to.to_owned()));
        }
        permitted
    }

    /// Whether answers with this status are followed.
    pub fn follows(&self, status: u16) -> bool {
        self.codes.contains(&status)
    }

    /// Where a `location` leads, seen from a request with this scheme that was redirected so often already.
    ///
    /// # Errors
    /// Why it is not followed.
    pub fn target(
        &self,
        location: &str,
        scheme: &str,
        followed: u32,
    ) -> Result<Target, NotFollowed> {
        let (wanted, rest) = location.split_once("://").ok_or(NotFollowed::BadLocation)?;
        let wanted = match wanted.to_ascii_lowercase().as_str() {
            "http" => "http",
            "https" => "https",
            _ => return Err(NotFollowed::BadLocation),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.is_empty() || authority.contains(|byte: char| !byte.is_ascii_graphic()) {
            return Err(NotFollowed::BadLocation);
        }
        if !self.cross_scheme && wanted != scheme {
            return Err(NotFollowed::UnsafeScheme);
        }
        if followed >= self.max {
            return Err(NotFollowed::TooMany);
        }
        // A fragment is the browser's business.
        let path = path.split('#').next().unwrap_or_default();
        Ok(Target {
            scheme: wanted,
            authority: authority.to_owned(),
            path: if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("/{path}")
            },
        })
    }
}

impl Predicate {
    fn compile(config: &TypedExtensionConfig) -> Result<Self, ConfigError> {
        let any = config.typed_config.clone().unwrap_or_default();
        Ok(match xds::any::message_name(&any) {
            "envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig" => {
                Self::PreviousRoutes
            }
            "envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig" => {
                Self::SafeCrossScheme
            }
            "envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig" => {
                let list = xds::any::unpack::<AllowListedRoutesConfig>(&any)
                    .map_err(|error| ConfigError::new("typed_config", error.to_string()))?;
                Self::AllowListedRoutes(list.unwrap_or_default().allowed_route_names)
            }
            other => {
                return Err(ConfigError::new("", format!("{other:?} is not supported")));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_addresses_of_the_same_scheme_are_followed_so_often() {
        let policy =
            InternalRedirect::compile(&InternalRedirectPolicy::default()).expect("compiles");
        assert!(policy.follows(302) && !policy.follows(307));
        let target = policy
            .target("http://a.test:81/x?y#z", "http", 0)
            .expect("followed");
        assert_eq!(
            (target.authority.as_str(), target.path.as_str()),
            ("a.test:81", "/x?y")
        );
        let refused = |location, scheme, followed| {
            policy
                .target(location, scheme, followed)
                .expect_err("refused")
        };
        assert_eq!(refused("/x", "http", 0), NotFollowed::BadLocation);
        assert_eq!(
            refused("https://a.test/", "http", 0),
            NotFollowed::UnsafeScheme
        );
        assert_eq!(refused("http://a.test/", "http", 1), NotFollowed::TooMany);
    }
}
