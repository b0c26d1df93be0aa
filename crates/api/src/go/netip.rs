//! Addresses and prefixes as text (Go's `net/netip`).

use crate::field::quote;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `netip.ParseAddr`. A zone (`fe80::1%eth0`) is accepted and left out of the result.
///
/// # Errors
/// Go's text.
pub fn parse_addr(text: &str) -> Result<IpAddr, String> {
    let fail = |why: &str| Err(format!("ParseAddr({}): {why}", quote(text)));
    let Some(first) = text.find(['.', ':', '%']) else {
        return fail("unable to parse IP");
    };
    match text.as_bytes()[first] {
        b'.' => match v4(text) {
            Ok(addr) => Ok(addr.into()),
            Err(why) => fail(&why),
        },
        b':' => {
            let (address, zone) = match text.split_once('%') {
                Some((_, "")) => return fail("zone must be a non-empty string"),
                Some((address, zone)) => (address, Some(zone)),
                None => (text, None),
            };
            let _ = zone;
            match address.parse::<Ipv6Addr>() {
                Ok(addr) => Ok(addr.into()),
                Err(_) => fail(&v6_problem(address)),
            }
        }
        _ => fail("missing IPv6 address"),
    }
}

fn v4(text: &str) -> Result<Ipv4Addr, String> {
    let mut octets = [0u8; 4];
    let mut at = 0;
    let (mut value, mut digits) = (0u32, 0);
    let bytes = text.as_bytes();
    for (i, &b) in bytes.iter().enumerate() {
        if b.is_ascii_digit() {
            if digits == 1 && value == 0 {
                return Err("IPv4 field has octet with leading zero".into());
            }
            value = value * 10 + u32::from(b - b'0');
            digits += 1;
            if value > 255 {
                return Err("IPv4 field has value >255".into());
            }
        } else if b == b'.' {
            if i == 0 || i == bytes.len() - 1 || bytes[i - 1] == b'.' {
                return Err(format!(
                    "IPv4 field must have at least one digit (at {})",
                    quote(&text[i..])
                ));
            }
            if at == 3 {
                return Err("IPv4 address too long".into());
            }
            octets[at] = value as u8;
            at += 1;
            (value, digits) = (0, 0);
        } else {
            return Err(format!("unexpected character (at {})", quote(&text[i..])));
        }
    }
    if at < 3 {
        return Err("IPv4 address too short".into());
    }
    octets[3] = value as u8;
    Ok(octets.into())
}

/// The commonest reasons; Go names the place as well, where it is one.
fn v6_problem(text: &str) -> String {
    if let Some(i) = text.find(|c: char| !c.is_ascii_hexdigit() && c != ':' && c != '.') {
        return format!(
            "unexpected character, want colon (at {})",
            quote(&text[i..])
        );
    }
    if text.matches("::").count() > 1 {
        let i = text.rfind("::").unwrap_or(0);
        return format!("multiple :: in address (at {})", quote(&text[i + 1..]));
    }
    if text
        .split(':')
        .any(|field| field.len() > 4 && !field.contains('.'))
    {
        return "each group must have 4 or less digits".into();
    }
    if !text.contains("::") && text.split(':').count() < 8 {
        return "address string too short".into();
    }
    "trailing garbage after address".into()
}

/// `netip.ParsePrefix`: the address as written, and the length.
///
/// # Errors
/// Go's text.
pub fn parse_prefix(text: &str) -> Result<(IpAddr, u8), String> {
    let fail = |why: &str| Err(format!("netip.ParsePrefix({}): {why}", quote(text)));
    let Some((address, bits)) = text.rsplit_once('/') else {
        return fail("no '/'");
    };
    let addr = match parse_addr(address) {
        Ok(addr) => addr,
        Err(why) => return fail(&why),
    };
    if address.contains('%') {
        return fail("IPv6 zones cannot be present in a prefix");
    }
    let padded = bits.len() > 1 && !(b'1'..=b'9').contains(&bits.as_bytes()[0]);
    let number = bits
        .parse::<i64>()
        .ok()
        .filter(|_| !padded && bits.bytes().all(|b| b.is_ascii_digit()));
    let Some(number) = number else {
        return fail(&format!("bad bits after slash: {}", quote(bits)));
    };
    let most = if addr.is_ipv4() { 32 } else { 128 };
    match u8::try_from(number) {
        Ok(length) if length <= most => Ok((addr, length)),
        _ => fail("prefix length out of range"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_go() {
        assert!(parse_addr("10.1.2.3").is_ok() && parse_addr("fe80::1%eth0").is_ok());
        assert_eq!(parse_prefix("10.0.0.5/8").unwrap().1, 8);
        for (text, want) in [
            ("10.0.0.0/33", "prefix length out of range"),
            ("10.0.0.0/x", r#"bad bits after slash: "x""#),
            ("10.0.0.0/08", r#"bad bits after slash: "08""#),
            ("10.0.0/8", r#"ParseAddr("10.0.0"): IPv4 address too short"#),
            (
                "10.0.0.256/8",
                r#"ParseAddr("10.0.0.256"): IPv4 field has value >255"#,
            ),
            ("a/8", r#"ParseAddr("a"): unable to parse IP"#),
            ("10.0.0.1", "no '/'"),
        ] {
            assert_eq!(
                parse_prefix(text).unwrap_err(),
                format!("netip.ParsePrefix(\"{text}\"): {want}")
            );
        }
    }
}
