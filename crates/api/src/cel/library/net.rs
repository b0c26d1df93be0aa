//! URLs, addresses, blocks of addresses.

use super::super::eval::Outcome;
use super::super::functions::no_overload;
use super::super::value::{Key, Map, Value};
use crate::go::{netip, url};
use std::net::IpAddr;
use std::sync::Arc;

pub(super) fn call(function: &str, values: &[Value]) -> Outcome {
    use Value::{Bool, Cidr, Int, Ip, String as Text, Url};
    match (function, values) {
        ("url", [Text(text)]) => match url::parse_request_uri(text) {
            Ok(parsed) => Ok(Url(Arc::new(parsed))),
            Err(why) => Err(format!(
                "URL parse error during conversion from string: {why}"
            )),
        },
        ("isURL", [Text(text)]) => Ok(Bool(url::parse_request_uri(text).is_ok())),
        ("getScheme", [Url(url)]) => Ok(Value::text(url.scheme.as_str())),
        ("getHost", [Url(url)]) => Ok(Value::text(url.host.as_str())),
        ("getHostname", [Url(url)]) => Ok(Value::text(url.hostname())),
        ("getPort", [Url(url)]) => Ok(Value::text(url.port())),
        ("getEscapedPath", [Url(url)]) => Ok(Value::text(url.escaped_path.as_str())),
        ("getQuery", [Url(url)]) => {
            let mut out: indexmap::IndexMap<String, Vec<Value>> = indexmap::IndexMap::new();
            for (key, value) in url.query_values() {
                out.entry(key).or_default().push(Value::text(value));
            }
            let map: Map = out
                .into_iter()
                .map(|(key, values)| (Key::String(key.into()), Value::list(values)))
                .collect();
            Ok(Value::Map(Arc::new(map)))
        }
        ("ip", [Text(text)]) => match address(text) {
            Ok(ip) => Ok(Ip(ip)),
            Err(why) => Err(format!(
                "IP Address {text:?} parse error during conversion from string: {why}"
            )),
        },
        ("isIP", [Text(text)]) => Ok(Bool(address(text).is_ok())),
        ("ip.isCanonical", [Text(text)]) => match address(text) {
            Ok(ip) => Ok(Bool(ip.to_string() == **text)),
            Err(why) => Err(format!(
                "IP Address {text:?} parse error during conversion from string: {why}"
            )),
        },
        ("family", [Ip(ip)]) => Ok(Int(if ip.is_ipv4() { 4 } else { 6 })),
        ("isUnspecified", [Ip(ip)]) => Ok(Bool(ip.is_unspecified())),
        ("isLoopback", [Ip(ip)]) => Ok(Bool(ip.is_loopback())),
        ("isLinkLocalMulticast", [Ip(ip)]) => Ok(Bool(match ip {
            IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
            IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
        })),
        ("isLinkLocalUnicast", [Ip(ip)]) => Ok(Bool(link_local(*ip))),
        ("isGlobalUnicast", [Ip(ip)]) => {
            let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
            Ok(Bool(
                !broadcast
                    && !ip.is_unspecified()
                    && !ip.is_loopback()
                    && !ip.is_multicast()
                    && !link_local(*ip),
            ))
        }
        ("cidr", [Text(text)]) => match block(text) {
            Ok((ip, bits)) => Ok(Cidr(ip, bits)),
            Err(why) => Err(format!(
                "network address parse error during conversion from string: {why}"
            )),
        },
        ("isCIDR", [Text(text)]) => Ok(Bool(block(text).is_ok())),
        ("containsIP", [Cidr(ip, bits), Ip(other)]) => Ok(Bool(contains(*ip, *bits, *other))),
        ("containsIP", [Cidr(ip, bits), Text(text)]) => match address(text) {
            Ok(other) => Ok(Bool(contains(*ip, *bits, other))),
            Err(why) => Err(why),
        },
        ("containsCIDR", [Cidr(ip, bits), Cidr(other, length)]) => {
            Ok(Bool(bits <= length && contains(*ip, *bits, *other)))
        }
        ("containsCIDR", [Cidr(ip, bits), Text(text)]) => {
            let (other, length) = block(text)?;
            Ok(Bool(*bits <= length && contains(*ip, *bits, other)))
        }
        ("ip", [Cidr(ip, _)]) => Ok(Ip(*ip)),
        ("masked", [Cidr(ip, bits)]) => Ok(Cidr(masked(*ip, *bits), *bits)),
        ("prefixLength", [Cidr(_, bits)]) => Ok(Int((*bits).into())),
        _ => no_overload(),
    }
}

fn link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

/// Zones and addresses of one kind inside of the other are not allowed here.
fn address(text: &str) -> Result<IpAddr, String> {
    let ip = netip::parse_addr(text)?;
    if text.contains('%') {
        return Err(format!(
            "IP address with zone value is not allowed: {text:?}"
        ));
    }
    if matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
        return Err(format!("IPv4-mapped IPv6 address is not allowed: {text:?}"));
    }
    Ok(ip)
}

fn block(text: &str) -> Result<(IpAddr, u8), String> {
    let (ip, bits) = netip::parse_prefix(text)?;
    if matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
        return Err(format!("IPv4-mapped IPv6 address is not allowed: {text:?}"));
    }
    Ok((ip, bits))
}

fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

fn contains(ip: IpAddr, bits: u8, other: IpAddr) -> bool {
    ip.is_ipv4() == other.is_ipv4() && masked(ip, bits) == masked(other, bits)
}
