//! Filter chains of outbound listeners and what they match.

use crate::context::{Context, ListenerClass};
use crate::names;
use crate::network_filters::{logged_proxy, outbound_chain};
use crate::proto::seconds;
use crate::registry::UNSPECIFIED;
use std::collections::BTreeSet;
use std::net::IpAddr;
use xds::envoy::config::core::v3::{CidrRange, Metadata};
use xds::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch};

/// Application protocols of plain HTTP.
pub(crate) const PLAIN_HTTP: [&str; 2] = ["http/1.1", "h2c"];

/// A chain while its listener is being put together.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Chain {
    pub(crate) server_names: Vec<String>,
    pub(crate) cidrs: Vec<String>,
    /// Only what looks like plain HTTP.
    pub(crate) sniffed_http: bool,
    /// The route configuration that it asks for.
    pub(crate) routes: Option<String>,
    pub(crate) filters: Vec<Filter>,
    pub(crate) metadata: Option<Metadata>,
}

impl Chain {
    pub(crate) fn is_match_all(&self) -> bool {
        let any_name =
            self.server_names.is_empty() || self.server_names.iter().any(|name| name == "*");
        any_name && self.cidrs.is_empty() && !self.sniffed_http
    }

    /// Whether both would match the same connections.
    pub(crate) fn same_match(&self, other: &Self) -> bool {
        let names = |chain: &Self| -> BTreeSet<String> {
            let names = chain.server_names.iter().filter(|name| *name != "*");
            names.cloned().collect()
        };
        let ranges = |chain: &Self| -> BTreeSet<(IpAddr, u32)> {
            let ranges = chain.cidrs.iter().filter_map(|cidr| masked(cidr));
            ranges
                .filter(|(address, _)| !address.is_unspecified() || address.is_ipv6())
                .collect()
        };
        self.sniffed_http == other.sniffed_http
            && names(self) == names(other)
            && ranges(self) == ranges(other)
    }

    pub(crate) fn finish(self) -> FilterChain {
        let filter_chain_match = (!self.is_match_all()).then(|| self.chain_match());
        FilterChain {
            filter_chain_match,
            filters: self.filters,
            metadata: self.metadata,
            transport_socket_connect_timeout: Some(seconds(15)),
            ..Default::default()
        }
    }

    fn chain_match(&self) -> FilterChainMatch {
        let mut out = FilterChainMatch::default();
        if !self.server_names.iter().any(|name| name == "*") {
            out.server_names = self.server_names.clone();
            out.server_names.sort();
        }
        let mut cidrs = self.cidrs.clone();
        cidrs.sort();
        out.prefix_ranges = cidrs
            .iter()
            .filter_map(|cidr| cidr_range(cidr))
            .filter(|range| range.address_prefix != UNSPECIFIED)
            .collect();
        if self.sniffed_http {
            out.application_protocols = PLAIN_HTTP.map(str::to_owned).to_vec();
            out.transport_protocol = "raw_buffer".to_owned();
        }
        out
    }
}

/// `10.0.0.0/8`, or an address.
pub(crate) fn cidr_range(text: &str) -> Option<CidrRange> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, length.parse().ok()?),
        None => (text, if text.contains(':') { 128 } else { 32 }),
    };
    crate::host::is_ip(address).then(|| CidrRange {
        address_prefix: address.to_owned(),
        prefix_len: Some(length),
    })
}

/// A range of addresses without the bits behind its prefix.
fn masked(text: &str) -> Option<(IpAddr, u32)> {
    let range = cidr_range(text)?;
    let length = range.prefix_len?;
    let address = match range.address_prefix.parse().ok()? {
        IpAddr::V4(address) => {
            let mask = u32::MAX
                .checked_shl(32u32.saturating_sub(length))
                .unwrap_or(0);
            IpAddr::from((u32::from(address) & mask).to_be_bytes())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX
                .checked_shl(128u32.saturating_sub(length))
                .unwrap_or(0);
            IpAddr::from((u128::from(address) & mask).to_be_bytes())
        }
    };
    Some((address, length))
}

/// The chain for everything that no other chain takes: to the address the client asked for, or nowhere.
pub(crate) fn fallthrough(context: &Context<'_>) -> FilterChain {
    FilterChain {
        filter_chain_match: Some(FilterChainMatch::default()),
        filters: unknown_traffic(context),
        name: names::PASSTHROUGH_CHAIN.to_owned(),
        ..Default::default()
    }
}

/// Filters for connections to unknown destinations.
pub(crate) fn unknown_traffic(context: &Context<'_>) -> Vec<Filter> {
    let cluster = match (&context.scope.egress_proxy, context.scope.mode) {
        (_, api::istio::OutboundTrafficPolicyMode::RegistryOnly) => names::BLACK_HOLE,
        (Some(cluster), _) => cluster.as_str(),
        (None, _) => names::PASSTHROUGH,
    };
    let class = ListenerClass::SidecarOutbound;
    outbound_chain(context, class, &logged_proxy(context, class, cluster))
}
