//! Hashing requests for consistent hashing load balancers.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use http::HeaderName;
use xds::envoy::config::route::v3::route_action::{HashPolicy, hash_policy::PolicySpecifier};

use crate::cluster::duration;
use crate::error::ConfigError;
use crate::matching::{HeaderKey, Substitution};
use crate::request::RequestHead;

/// The result of hashing a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HashResult {
    /// The hash for ring hash and maglev; `None`: no policy had a value.
    pub hash: Option<u64>,
    /// `set-cookie` headers for the response: cookies that were missing and have a lifetime.
    pub set_cookies: Vec<String>,
}

/// A `HashPolicy`, compiled.
#[derive(Debug)]
pub(super) struct Policy {
    terminal: bool,
    input: Input,
}

#[derive(Debug)]
enum Input {
    Header(HeaderName, Option<Substitution>),
    Pseudo(HeaderKey, Option<Substitution>),
    Cookie {
        name: String,
        ttl: Option<Duration>,
        path: String,
        attributes: Vec<(String, String)>,
    },
    SourceIp,
    Query(String),
    Nothing,
}

impl Policy {
    pub(super) fn compile(config: &HashPolicy) -> Result<Self, ConfigError> {
        let input = match &config.policy_specifier {
            Some(PolicySpecifier::Header(header)) => {
                let rewrite = header
                    .regex_rewrite
                    .as_ref()
                    .map(Substitution::compile)
                    .transpose()?;
                match HeaderKey::compile(&header.header_name).map_err(|e| e.within("header"))? {
                    HeaderKey::Name(name) => Input::Header(name, rewrite),
                    pseudo => Input::Pseudo(pseudo, rewrite),
                }
            }
            Some(PolicySpecifier::Cookie(cookie)) => Input::Cookie {
                name: cookie.name.clone(),
                ttl: duration(cookie.ttl.as_ref()),
                path: cookie.path.clone(),
                attributes: cookie
                    .attributes
                    .iter()
                    .map(|a| (a.name.clone(), a.value.clone()))
                    .collect(),
            },
            Some(PolicySpecifier::ConnectionProperties(properties)) if properties.source_ip => {
                Input::SourceIp
            }
            Some(PolicySpecifier::ConnectionProperties(_)) => Input::Nothing,
            Some(PolicySpecifier::QueryParameter(parameter)) => {
                Input::Query(parameter.name.clone())
            }
            Some(PolicySpecifier::FilterState(_)) => {
                return Err(ConfigError::new("filter_state", "is not supported"));
            }
            None => return Err(ConfigError::new("policy_specifier", "is missing")),
        };
        Ok(Self {
            terminal: config.terminal,
            input,
        })
    }
}

pub(super) fn evaluate(
    policies: &[Policy],
    head: &RequestHead<'_>,
    source: IpAddr,
    random: &mut dyn FnMut() -> u64,
) -> HashResult {
    let mut result = HashResult::default();
    for policy in policies {
        let rewritten = |value: &str, rewrite: &Option<Substitution>, seed| match rewrite {
            Some(rewrite) => xxhash64(rewrite.apply(value).as_bytes(), seed),
            None => xxhash64(value.as_bytes(), seed),
        };
        let new = match &policy.input {
            Input::Nothing => None,
            Input::Header(name, rewrite) => {
                let values = || head.headers.get_all(name).iter().map(crate::request::text);
                match values().count() {
                    0 => None,
                    1 => values().next().map(|value| rewritten(&value, rewrite, 0)),
                    _ => {
                        // Their order must not matter.
                        let mut values: Vec<_> = values().collect();
                        values.sort_unstable();
                        Some(
                            values
                                .iter()
                                .fold(0, |seed, value| rewritten(value, rewrite, seed)),
                        )
                    }
                }
            }
            Input::Pseudo(key, rewrite) => {
                key.value(head).map(|value| rewritten(&value, rewrite, 0))
            }
            Input::SourceIp => Some(xxhash64(source.to_canonical().to_string().as_bytes(), 0)),
            Input::Query(name) => head
                .query_param(name)
                .map(|value| xxhash64(value.as_bytes(), 0)),
            Input::Cookie {
                name,
                ttl,
                path,
                attributes,
            } => match (head.cookie(name), ttl) {
                (Some(value), _) if !value.is_empty() => Some(xxhash64(value.as_bytes(), 0)),
                (_, None) => None,
                (_, Some(ttl)) => {
                    let value = format!("{:016x}", random());
                    result
                        .set_cookies
                        .push(set_cookie(name, &value, *ttl, path, attributes));
                    Some(xxhash64(value.as_bytes(), 0))
                }
            },
        };
        if let Some(new) = new {
            // Rotating keeps two equal policies from cancelling each other out.
            result.hash = Some(result.hash.map_or(0, |old: u64| old.rotate_left(1)) ^ new);
        }
        if policy.terminal && result.hash.is_some() {
            break;
        }
    }
    result
}

fn set_cookie(
    name: &str,
    value: &str,
    ttl: Duration,
    path: &str,
    attributes: &[(String, String)],
) -> String {
    let mut cookie = format!("{name}=\"{value}\"");
    if !ttl.is_zero() {
        let _ = write!(cookie, "; Max-Age={}", ttl.as_secs());
    }
    if !path.is_empty() {
        let _ = write!(cookie, "; Path={path}");
    }
    for (name, value) in attributes {
        let _ = if value.is_empty() {
            write!(cookie, "; {name}")
        } else {
            write!(cookie, "; {name}={value}")
        };
    }
    cookie.push_str("; HttpOnly");
    cookie
}

const PRIMES: [u64; 5] = [
    0x9E37_79B1_85EB_CA87,
    0xC2B2_AE3D_27D4_EB4F,
    0x1656_67B1_9E37_79F9,
    0x85EB_CA77_C2B2_AE63,
    0x27D4_EB2F_1656_67C5,
];

/// XXH64, as Envoy hashes with.
pub fn xxhash64(input: &[u8], seed: u64) -> u64 {
    let round = |lane: u64, input: u64| {
        lane.wrapping_add(input.wrapping_mul(PRIMES[1]))
            .rotate_left(31)
            .wrapping_mul(PRIMES[0])
    };
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let mut rest = input;
    let mut hash = if input.len() >= 32 {
        let mut lanes = [
            seed.wrapping_add(PRIMES[0]).wrapping_add(PRIMES[1]),
            seed.wrapping_add(PRIMES[1]),
            seed,
            seed.wrapping_sub(PRIMES[0]),
        ];
        while let Some((stripe, after)) = rest.split_at_checked(32) {
            for (lane, bytes) in lanes.iter_mut().zip(stripe.chunks_exact(8)) {
                *lane = round(*lane, word(bytes));
            }
            rest = after;
        }
        let mut hash = [1, 7, 12, 18]
            .iter()
            .zip(lanes)
            .fold(0_u64, |sum, (by, lane)| {
                sum.wrapping_add(lane.rotate_left(*by))
            });
        for lane in lanes {
            hash = (hash ^ round(0, lane))
                .wrapping_mul(PRIMES[0])
                .wrapping_add(PRIMES[3]);
        }
        hash
    } else {
        seed.wrapping_add(PRIMES[4])
    };
    hash = hash.wrapping_add(input.len() as u64);
    while let Some((bytes, after)) = rest.split_at_checked(8) {
        hash = (hash ^ round(0, word(bytes)))
            .rotate_left(27)
            .wrapping_mul(PRIMES[0])
            .wrapping_add(PRIMES[3]);
        rest = after;
    }
    if let Some((bytes, after)) = rest.split_at_checked(4) {
        let half = u64::from(u32::from_le_bytes(bytes.try_into().expect("four bytes")));
        hash = (hash ^ half.wrapping_mul(PRIMES[0]))
            .rotate_left(23)
            .wrapping_mul(PRIMES[1])
            .wrapping_add(PRIMES[2]);
        rest = after;
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte).wrapping_mul(PRIMES[4]))
            .rotate_left(11)
            .wrapping_mul(PRIMES[0]);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(PRIMES[1]);
    hash = (hash ^ (hash >> 29)).wrapping_mul(PRIMES[2]);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_xxh64() {
        assert_eq!(xxhash64(b"", 0), 0xef46_db37_51d8_e999);
        assert_eq!(xxhash64(b"a", 0), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(xxhash64(b"abc", 0), 0x44bc_2cf5_ad77_0999);
        assert_eq!(
            xxhash64(b"Nobody inspects the spammish repetition", 0),
            0xfbce_a83c_8a37_8bf1
        );
    }

    #[test]
    fn a_generated_cookie_has_its_attributes() {
        let cookie = set_cookie(
            "user",
            "ab",
            Duration::from_secs(10),
            "/",
            &[("SameSite".into(), "Strict".into())],
        );
        assert_eq!(
            cookie,
            "user=\"ab\"; Max-Age=10; Path=/; SameSite=Strict; HttpOnly"
        );
    }
}
