//! Cross-origin resource sharing.

use dataplane::matching::{Fraction, StringMatch};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use xds::envoy::extensions::filters::http::cors::v3::CorsPolicy;

/// A compiled policy.
pub struct Cors {
    origins: Vec<StringMatch>,
    methods: String,
    headers: String,
    expose: String,
    max_age: String,
    credentials: bool,
    private_network: bool,
    forward_not_matching: bool,
    enabled: Fraction,
}

/// What the policy says about a request.
#[derive(Debug, PartialEq, Eq)]
pub enum CorsOutcome {
    /// It has no origin, or the policy is off.
    None,
    /// The origin is allowed; the answer gets headers.
    Allowed,
    /// The origin is not allowed; the request goes on without headers.
    Denied,
    /// A preflight request, answered with these headers.
    Preflight(HeaderMap),
}

impl Cors {
    /// Compiles a policy.
    ///
    /// # Errors
    /// When a pattern is not one.
    pub fn compile(config: &CorsPolicy) -> Result<Self, String> {
        Ok(Self {
            origins: config
                .allow_origin_string_match
                .iter()
                .map(|origin| {
                    StringMatch::compile(origin)
                        .map_err(|error| format!("allow_origin_string_match: {error}"))
                })
                .collect::<Result<_, _>>()?,
            methods: config.allow_methods.clone(),
            headers: config.allow_headers.clone(),
            expose: config.expose_headers.clone(),
            max_age: config.max_age.clone(),
            credentials: config.allow_credentials.unwrap_or(false),
            private_network: config.allow_private_network_access.unwrap_or(false),
            forward_not_matching: config.forward_not_matching_preflights.unwrap_or(true),
            enabled: Fraction::of_runtime(
                config.filter_enabled.as_ref(),
                Fraction::compile(Some(&xds::envoy::r#type::v3::FractionalPercent {
                    numerator: 100,
                    denominator: 0,
                })),
            ),
        })
    }

    /// Looks at a request.
    pub fn request(
        &self,
        method: &Method,
        headers: &HeaderMap,
        random: &mut dyn FnMut() -> u64,
    ) -> CorsOutcome {
        let origin = headers.get(header::ORIGIN);
        let Some(origin) = origin.filter(|origin| !origin.is_empty()) else {
            return CorsOutcome::None;
        };
        if !self.enabled.draw(random) {
            return CorsOutcome::None;
        }
        let text = origin.to_str().unwrap_or_default();
        // A lone star has always meant anybody.
        let allowed = self.origins.iter().any(|matcher| {
            matcher.matches(text) || matches!(matcher, StringMatch::Exact(star) if star == "*")
        });
        let preflight = *method == Method::OPTIONS
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if !allowed {
            if preflight && !self.forward_not_matching {
                return CorsOutcome::Preflight(HeaderMap::new());
            }
            return CorsOutcome::Denied;
        }
        if !preflight {
            return CorsOutcome::Allowed;
        }
        let mut answer = HeaderMap::new();
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            answer.insert(
                header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
        // A star is answered with what was asked for.
        let asked = |configured: &'_ str, header: HeaderName| -> String {
            match headers.get(header).and_then(|value| value.to_str().ok()) {
                Some(asked) if configured == "*" => asked.to_owned(),
                _ => configured.to_owned(),
            }
        };
        let methods = asked(&self.methods, header::ACCESS_CONTROL_REQUEST_METHOD);
        let allow = asked(&self.headers, header::ACCESS_CONTROL_REQUEST_HEADERS);
        let mut set = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value)
                && !value.is_empty()
            {
                answer.insert(name, value);
            }
        };
        set(header::ACCESS_CONTROL_ALLOW_METHODS, &methods);
        set(header::ACCESS_CONTROL_ALLOW_HEADERS, &allow);
        set(header::ACCESS_CONTROL_EXPOSE_HEADERS, &self.expose);
        set(header::ACCESS_CONTROL_MAX_AGE, &self.max_age);
        if self.private_network
            && headers
                .get("access-control-request-private-network")
                .is_some_and(|v| v == "true")
        {
            answer.insert(
                "access-control-allow-private-network",
                HeaderValue::from_static("true"),
            );
        }
        CorsOutcome::Preflight(answer)
    }

    /// Marks the answer to an allowed origin.
    pub fn response(&self, origin: &HeaderValue, headers: &mut HeaderMap) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
        if let Ok(expose) = HeaderValue::from_str(&self.expose)
            && !expose.is_empty()
        {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose);
        }
    }
}
