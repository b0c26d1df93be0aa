//! `csrf`: requests that change something must come from the site itself.

use std::sync::Arc;

use dataplane::matching::{Fraction, StringMatch};
use dataplane::request::RequestHead;
use http::{Method, Uri, header};
use xds::envoy::extensions::filters::http::csrf::v3::CsrfPolicy;

use crate::stats::groups::CsrfStats;

/// The policy, compiled.
pub struct Csrf {
    enabled: Fraction,
    shadow: Fraction,
    origins: Vec<StringMatch>,
}

impl Csrf {
    /// Compiles a policy.
    ///
    /// # Errors
    /// What of it is wrong.
    pub fn compile(config: &CsrfPolicy) -> Result<Self, String> {
        let enabled = config.filter_enabled.as_ref();
        let enabled = enabled.ok_or("filter_enabled: is missing")?;
        let origins = config.additional_origins.iter().enumerate();
        let origin = |(index, origin)| {
            StringMatch::compile(origin)
                .map_err(|error| format!("additional_origins[{index}]: {error}"))
        };
        Ok(Self {
            enabled: Fraction::of_runtime(Some(enabled), Fraction::ALL),
            shadow: Fraction::of_runtime(config.shadow_enabled.as_ref(), Fraction::NONE),
            origins: origins.map(origin).collect::<Result<_, _>>()?,
        })
    }

    /// Whether the request may go on.
    pub fn allows(
        &self,
        head: &RequestHead<'_>,
        stats: &Arc<CsrfStats>,
        random: &mut dyn FnMut() -> u64,
    ) -> bool {
        let enforced = self.enabled.draw(random);
        if !enforced && !self.shadow.draw(random) {
            return true;
        }
        let changes = [Method::POST, Method::PUT, Method::DELETE, Method::PATCH];
        if !changes.contains(head.method) {
            return true;
        }
        let source = source(head);
        let valid = !source.is_empty()
            && (source == host_and_port(head.authority)
                || self.origins.iter().any(|origin| origin.matches(&source)));
        match (valid, source.is_empty()) {
            (true, _) => &stats.request_valid,
            (false, true) => &stats.missing_source_origin,
            (false, false) => &stats.request_invalid,
        }
        .inc();
        valid || !enforced
    }
}

/// Host and port of the site that made the client ask.
fn source(head: &RequestHead<'_>) -> String {
    let header = |name: header::HeaderName| head.header(name.as_str()).unwrap_or_default();
    let origin = header(header::ORIGIN);
    match &*origin {
        "" => host_and_port(&header(header::REFERER)),
        // A browser that keeps it to itself: its referer does not count, either.
        "null" => String::new(),
        origin => host_and_port(origin),
    }
}

fn host_and_port(url: &str) -> String {
    match url.parse::<Uri>() {
        Ok(parsed) if parsed.scheme().is_some() => {
            parsed.authority().map_or("", |host| host.as_str()).into()
        }
        _ => url.to_owned(),
    }
}
