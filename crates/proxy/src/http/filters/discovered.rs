//! Filters whose settings come on their own (ECDS): a stream has those that were there when it began, the next one on the same connection
//! may have others.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use xds::envoy::config::core::v3::ExtensionConfigSource;
use xds::prost_types::Any;

use super::{FilterContext, HttpFilter};
use crate::config::Shared;
use crate::config::listener::unwrap_struct;

/// The type of the router's settings: it is implied where it stands last.
pub const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";

/// Where the settings of a filter are.
pub enum Settings {
    /// They stand in the listener.
    Own(HttpFilter),
    /// They come on their own.
    Discovered(Discovered),
}

/// Settings that come on their own.
pub struct Discovered {
    /// None: it does nothing, or nothing has come yet.
    now: ArcSwapOption<HttpFilter>,
    /// The types they may have.
    type_urls: Vec<String>,
    stat_prefix: String,
    direction: i32,
}

impl Discovered {
    /// A filter without settings.
    pub fn new(source: &ExtensionConfigSource, context: &FilterContext<'_>) -> Self {
        Self {
            now: ArcSwapOption::empty(),
            type_urls: source.type_urls.clone(),
            stat_prefix: context.stat_prefix.to_owned(),
            direction: context.direction,
        }
    }

    /// Takes settings for all streams from now on; what cannot be used changes nothing.
    pub fn set(&self, settings: &Any, shared: &Shared) -> Result<(), String> {
        let any = unwrap_struct(settings)?;
        let kind = xds::any::message_name(&any);
        let is = |url: &String| xds::type_url::message_name(url) == kind;
        if !self.type_urls.iter().any(is) {
            return Err(format!(
                "config_discovery.type_urls: {kind} is not among them"
            ));
        }
        let context = FilterContext {
            shared,
            stat_prefix: &self.stat_prefix,
            direction: self.direction,
        };
        let filter = match kind == ROUTER {
            true => None,
            false => HttpFilter::compile(&any, &context)?,
        };
        self.now.store(filter.map(Arc::new));
        Ok(())
    }

    /// The filter with the settings of this moment.
    pub fn now(&self) -> Option<Arc<HttpFilter>> {
        self.now.load_full()
    }
}

/// The filters of a stream whose settings came on their own, by their place.
#[derive(Default)]
pub struct Found(Vec<(usize, Arc<HttpFilter>)>);

impl Found {
    /// As they are now.
    pub fn now<'a>(all: impl Iterator<Item = &'a Settings>) -> Self {
        let found = all
            .enumerate()
            .filter_map(|(index, settings)| match settings {
                Settings::Own(_) => None,
                Settings::Discovered(discovered) => Some((index, discovered.now()?)),
            });
        Self(found.collect())
    }

    fn at(&self, index: usize) -> Option<Arc<HttpFilter>> {
        let found = self.0.iter().find(|(at, _)| *at == index);
        found.map(|(_, filter)| filter.clone())
    }
}

impl Settings {
    /// The filter of a stream; `held` keeps what it does not own. None: the filter does nothing.
    pub fn of<'a>(
        &'a self,
        index: usize,
        found: &Found,
        held: &'a mut Option<Arc<HttpFilter>>,
    ) -> Option<&'a HttpFilter> {
        match self {
            Self::Own(filter) => Some(filter),
            Self::Discovered(_) => {
                *held = found.at(index);
                held.as_deref()
            }
        }
    }
}
