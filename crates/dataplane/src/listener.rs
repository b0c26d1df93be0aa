//! Which filter chain of a listener serves a connection, and which listener filters look at it.

use std::net::{IpAddr, SocketAddr};

use xds::envoy::config::core::v3::CidrRange;
use xds::envoy::config::listener::v3::{
    FilterChain, FilterChainMatch, ListenerFilterChainMatchPredicate as PredicateConfig,
    listener_filter_chain_match_predicate as predicate,
};

use crate::address::Cidr;
use crate::error::ConfigError;

/// What is known of a connection when its filter chain is chosen.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionFacts<'a> {
    /// The address the client wanted (the original destination where connections are redirected).
    pub destination: SocketAddr,
    /// The client; through the PROXY protocol where that is used.
    pub source: SocketAddr,
    /// The peer of the TCP connection itself.
    pub direct_source: IpAddr,
    /// The server name of the client hello; empty when there is none.
    pub server_name: &'a str,
    /// `raw_buffer` or `tls`.
    pub transport_protocol: &'a str,
    /// ALPN of the client hello, or what the HTTP inspector found (`http/1.0`, `http/1.1`, `h2c`).
    pub application_protocols: &'a [&'a str],
}

/// The chain that serves a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// The chain with this index in `filter_chains`.
    Index(usize),
    /// `default_filter_chain`.
    Default,
}

/// One chain's match, every criterion as the list of values it accepts; an empty list accepts all.
#[derive(Debug, Default, PartialEq)]
struct Entry {
    port: Option<u16>,
    destinations: Vec<Cidr>,
    /// Lower case; `.example.com` stands for `*.example.com`.
    server_names: Vec<String>,
    transport: String,
    protocols: Vec<String>,
    direct_sources: Vec<Cidr>,
    source_type: SourceType,
    sources: Vec<Cidr>,
    source_ports: Vec<u16>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum SourceType {
    #[default]
    Any,
    Local,
    External,
}

/// The filter chain matches of one listener, compiled.
///
/// Envoy decides criterion by criterion (destination port, destination address, server name, transport
/// protocol, application protocols, direct source, source type, source address, source port). At each of
/// them only the chains with the most specific value that fits go on; there is no way back.
#[derive(Debug)]
pub struct FilterChainMatcher {
    entries: Vec<Entry>,
    default: bool,
}

impl FilterChainMatcher {
    /// Compiles the matches. Two chains with the same match are an error, as in Envoy.
    pub fn new(
        chains: &[FilterChain],
        default: Option<&FilterChain>,
    ) -> Result<Self, Vec<ConfigError>> {
        let mut entries: Vec<Entry> = Vec::with_capacity(chains.len());
        let mut errors = Vec::new();
        for (index, chain) in chains.iter().enumerate() {
            let at = format!("filter_chains[{index}].filter_chain_match");
            match Entry::compile(
                chain
                    .filter_chain_match
                    .as_ref()
                    .unwrap_or(&FilterChainMatch::default()),
            ) {
                Ok(entry) => {
                    if let Some(other) = entries.iter().position(|other| other.overlaps(&entry)) {
                        let problem = format!(
                            "has the same matching rules as filter_chains[{other}]; every chain needs its own"
                        );
                        errors.push(ConfigError::new(at, problem));
                    }
                    entries.push(entry);
                }
                Err(error) => errors.push(error.within(&at)),
            }
        }
        if errors.is_empty() {
            Ok(Self {
                entries,
                default: default.is_some(),
            })
        } else {
            Err(errors)
        }
    }

    /// The chain for a connection; `None`: close it (`NR`, `filter_chain_not_found`).
    pub fn find(&self, facts: &ConnectionFacts<'_>) -> Option<Chain> {
        let mut left: Vec<usize> = (0..self.entries.len()).collect();
        let destination = facts.destination.ip().to_canonical();
        self.narrow(&mut left, |entry| match entry.port {
            None => Some(0),
            Some(port) => (port == facts.destination.port()).then_some(1),
        });
        self.narrow(&mut left, |entry| longest(&entry.destinations, destination));
        self.narrow(&mut left, |entry| entry.server_name(facts.server_name));
        self.narrow(&mut left, |entry| match entry.transport.as_str() {
            "" => Some(0),
            transport => (transport == facts.transport_protocol).then_some(1),
        });
        self.narrow(&mut left, |entry| {
            if entry.protocols.is_empty() {
                return Some(0);
            }
            // The client's first choice wins.
            let known = |offered: &&str| entry.protocols.iter().any(|protocol| protocol == offered);
            facts
                .application_protocols
                .iter()
                .position(known)
                .map(|at| usize::MAX - at)
        });
        self.narrow(&mut left, |entry| {
            longest(&entry.direct_sources, facts.direct_source)
        });
        let source = facts.source.ip().to_canonical();
        let local = source == destination || source.is_loopback();
        self.narrow(&mut left, |entry| match entry.source_type {
            SourceType::Any => Some(0),
            SourceType::Local => local.then_some(1),
            SourceType::External => (!local).then_some(1),
        });
        self.narrow(&mut left, |entry| longest(&entry.sources, source));
        self.narrow(&mut left, |entry| match entry.source_ports.as_slice() {
            [] => Some(0),
            ports => ports.contains(&facts.source.port()).then_some(1),
        });
        match left.first() {
            Some(index) => Some(Chain::Index(*index)),
            None => self.default.then_some(Chain::Default),
        }
    }

    /// Keeps the entries with the highest score; those without one go.
    fn narrow(&self, left: &mut Vec<usize>, score: impl Fn(&Entry) -> Option<usize>) {
        let best = left
            .iter()
            .filter_map(|index| score(&self.entries[*index]))
            .max();
        left.retain(|index| score(&self.entries[*index]).is_some_and(|score| Some(score) == best));
    }
}

/// One more than the length of the longest prefix that contains the address; 0 if all addresses are welcome.
fn longest(ranges: &[Cidr], address: IpAddr) -> Option<usize> {
    if ranges.is_empty() {
        return Some(0);
    }
    // An explicit 0.0.0.0/0 is the same to Envoy as no range at all.
    ranges
        .iter()
        .filter(|range| range.contains(address))
        .map(|range| usize::from(range.length()))
        .max()
}

impl Entry {
    fn compile(config: &FilterChainMatch) -> Result<Self, ConfigError> {
        let port = |port: u32, field: &str| {
            u16::try_from(port)
                .map_err(|_| ConfigError::new(field, format!("{port} is not a port")))
        };
        let ranges = |ranges: &[CidrRange], field: &str| {
            ranges
                .iter()
                .map(Cidr::compile)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| e.within(field))
        };
        if !config.address_suffix.is_empty() || config.suffix_len.is_some() {
            return Err(ConfigError::new(
                "address_suffix",
                "is not implemented, neither here nor in Envoy",
            ));
        }
        let name = |name: &String| {
            let lower = name.to_ascii_lowercase();
            match lower.strip_prefix('*') {
                Some(rest) if rest.starts_with('.') && !rest.contains('*') => Ok(rest.to_owned()),
                None if !lower.contains('*') => Ok(lower),
                _ => Err(ConfigError::new(
                    "server_names",
                    format!("{name:?}: a wildcard must be the whole first label"),
                )),
            }
        };
        Ok(Self {
            port: config
                .destination_port
                .filter(|port| *port != 0)
                .map(|p| port(p, "destination_port"))
                .transpose()?,
            destinations: ranges(&config.prefix_ranges, "prefix_ranges")?,
            server_names: config
                .server_names
                .iter()
                .map(name)
                .collect::<Result<_, _>>()?,
            transport: config.transport_protocol.clone(),
            protocols: config.application_protocols.clone(),
            direct_sources: ranges(
                &config.direct_source_prefix_ranges,
                "direct_source_prefix_ranges",
            )?,
            source_type: match config.source_type {
                1 => SourceType::Local,
                2 => SourceType::External,
                _ => SourceType::Any,
            },
            sources: ranges(&config.source_prefix_ranges, "source_prefix_ranges")?,
            source_ports: config
                .source_ports
                .iter()
                .map(|p| port(*p, "source_ports"))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Exact names beat wildcards, longer wildcards beat shorter ones.
    fn server_name(&self, asked: &str) -> Option<usize> {
        if self.server_names.is_empty() {
            return Some(0);
        }
        let asked = asked.as_bytes();
        let score = |name: &String| {
            let name = name.as_bytes();
            if asked.eq_ignore_ascii_case(name) {
                Some(usize::MAX)
            } else if name.first() == Some(&b'.') && asked.len() > name.len() {
                asked[asked.len() - name.len()..]
                    .eq_ignore_ascii_case(name)
                    .then_some(name.len())
            } else {
                None
            }
        };
        self.server_names.iter().filter_map(score).max()
    }

    /// Whether some connection would find both equally good.
    fn overlaps(&self, other: &Self) -> bool {
        fn common<T: PartialEq>(a: &[T], b: &[T]) -> bool {
            (a.is_empty() && b.is_empty()) || a.iter().any(|value| b.contains(value))
        }
        self.port == other.port
            && common(&self.destinations, &other.destinations)
            && common(&self.server_names, &other.server_names)
            && self.transport == other.transport
            && common(&self.protocols, &other.protocols)
            && common(&self.direct_sources, &other.direct_sources)
            && self.source_type == other.source_type
            && common(&self.sources, &other.sources)
            && common(&self.source_ports, &other.source_ports)
    }
}

/// `filter_disabled` of a listener filter, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterPredicate {
    /// Always, or never.
    Any(bool),
    /// Destination ports from .. below.
    Ports(std::ops::Range<i32>),
    /// None of ...
    Not(Box<FilterPredicate>),
    /// One of ...
    Or(Vec<FilterPredicate>),
    /// All of ...
    And(Vec<FilterPredicate>),
}

impl FilterPredicate {
    /// Compiles a predicate.
    pub fn compile(config: &PredicateConfig) -> Result<Self, ConfigError> {
        let all = |set: &predicate::MatchSet, field| {
            set.rules
                .iter()
                .map(Self::compile)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| e.within(field))
        };
        Ok(match &config.rule {
            Some(predicate::Rule::AnyMatch(any)) => Self::Any(*any),
            Some(predicate::Rule::DestinationPortRange(range)) => {
                Self::Ports(range.start..range.end)
            }
            Some(predicate::Rule::NotMatch(inner)) => Self::Not(Box::new(
                Self::compile(inner).map_err(|e| e.within("not_match"))?,
            )),
            Some(predicate::Rule::OrMatch(set)) => Self::Or(all(set, "or_match")?),
            Some(predicate::Rule::AndMatch(set)) => Self::And(all(set, "and_match")?),
            None => return Err(ConfigError::new("rule", "is missing")),
        })
    }

    /// Whether the filter is disabled for this destination port.
    pub fn disabled(&self, destination_port: u16) -> bool {
        match self {
            Self::Any(any) => *any,
            Self::Ports(range) => range.contains(&i32::from(destination_port)),
            Self::Not(inner) => !inner.disabled(destination_port),
            Self::Or(any) => any.iter().any(|inner| inner.disabled(destination_port)),
            Self::And(all) => all.iter().all(|inner| inner.disabled(destination_port)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn matcher(matches: &[Value]) -> Result<FilterChainMatcher, Vec<ConfigError>> {
        let chain = |value: &Value| FilterChain {
            filter_chain_match: Some(
                xds::json::from_value(value.clone(), true).expect("a valid match"),
            ),
            ..Default::default()
        };
        FilterChainMatcher::new(&matches.iter().map(chain).collect::<Vec<_>>(), None)
    }

    const PLAIN: ConnectionFacts<'static> = ConnectionFacts {
        destination: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 80),
        source: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9)), 4000),
        direct_source: IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9)),
        server_name: "",
        transport_protocol: "raw_buffer",
        application_protocols: &[],
    };

    fn found(matcher: &FilterChainMatcher, facts: &ConnectionFacts<'_>) -> Option<usize> {
        match matcher.find(facts)? {
            Chain::Index(index) => Some(index),
            Chain::Default => Some(usize::MAX),
        }
    }

    /// The five chains of an undeclared port in PERMISSIVE mode.
    #[test]
    fn permissive_ports_sort_mesh_and_plain_clients() {
        let chains = matcher(&[
            json!({"transport_protocol": "tls", "application_protocols": ["istio-http/1.0", "istio-http/1.1", "istio-h2"]}),
            json!({"transport_protocol": "raw_buffer", "application_protocols": ["http/1.1", "h2c"]}),
            json!({"transport_protocol": "tls", "application_protocols": ["istio-peer-exchange", "istio"]}),
            json!({"transport_protocol": "raw_buffer"}),
            json!({"transport_protocol": "tls"}),
        ])
        .expect("compiles");
        let with = |transport: &'static str, alpn: &'static [&'static str]| {
            found(
                &chains,
                &ConnectionFacts {
                    transport_protocol: transport,
                    application_protocols: alpn,
                    ..PLAIN
                },
            )
        };
        assert_eq!(
            with("tls", &["istio-http/1.1", "istio", "http/1.1"]),
            Some(0)
        );
        assert_eq!(with("raw_buffer", &["http/1.1"]), Some(1));
        assert_eq!(with("tls", &["istio-peer-exchange", "istio"]), Some(2));
        assert_eq!(with("raw_buffer", &[]), Some(3));
        assert_eq!(with("tls", &["h2"]), Some(4), "the application's own TLS");
    }

    #[test]
    fn a_known_port_never_falls_back_to_chains_without_port() {
        let chains = matcher(&[
            json!({"destination_port": 80, "transport_protocol": "tls"}),
            json!({}),
        ])
        .expect("compiles");
        assert_eq!(found(&chains, &PLAIN), None);
        let other = ConnectionFacts {
            destination: "10.0.0.1:81".parse().unwrap(),
            ..PLAIN
        };
        assert_eq!(found(&chains, &other), Some(1));
    }

    #[test]
    fn the_longest_prefix_and_the_most_specific_name_win() {
        let chains = matcher(&[
            json!({"prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]}),
            json!({"prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 24}], "server_names": ["*.example.com"]}),
            json!({"prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 24}], "server_names": ["*.www.example.com"]}),
            json!({"prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 24}], "server_names": ["www.example.com"]}),
        ])
        .expect("compiles");
        let named = |name: &'static str| {
            found(
                &chains,
                &ConnectionFacts {
                    server_name: name,
                    ..PLAIN
                },
            )
        };
        assert_eq!(named("www.example.com"), Some(3));
        assert_eq!(named("a.www.example.com"), Some(2));
        assert_eq!(named("b.example.com"), Some(1));
        assert_eq!(
            named("example.com"),
            None,
            "no way back to the shorter prefix"
        );
        let far = ConnectionFacts {
            destination: "10.9.0.1:80".parse().unwrap(),
            ..PLAIN
        };
        assert_eq!(found(&chains, &far), Some(0));
    }

    #[test]
    fn equal_matches_are_refused() {
        let errors = matcher(&[
            json!({"server_names": ["a", "b"]}),
            json!({"server_names": ["b", "c"]}),
        ])
        .expect_err("overlap");
        assert!(
            errors[0]
                .to_string()
                .contains("filter_chains[1].filter_chain_match"),
            "{errors:?}"
        );
        assert!(matcher(&[json!({"server_names": ["w*.example.com"]})]).is_err());
    }

    #[test]
    fn inspectors_are_disabled_by_port() {
        let config: PredicateConfig = xds::json::from_value(
            json!({"or_match": {"rules": [{"destination_port_range": {"start": 80, "end": 81}}, {"destination_port_range": {"start": 15006, "end": 15007}}]}}),
            true,
        )
        .expect("a valid predicate");
        let predicate = FilterPredicate::compile(&config).expect("compiles");
        assert!(predicate.disabled(80) && predicate.disabled(15006) && !predicate.disabled(81));
        assert!(!FilterPredicate::Not(Box::new(predicate)).disabled(80));
    }
}
