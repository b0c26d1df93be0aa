//! IPv4 networks in CIDR notation.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IPv4 network: address and prefix length. The host bits of the address are kept as given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    /// The address, host bits included.
    pub addr: Ipv4Addr,
    /// Prefix length, 0 to 32.
    pub prefix: u8,
}

impl Cidr {
    /// Address and prefix; a prefix above 32 is taken as 32.
    #[must_use]
    pub fn new(addr: Ipv4Addr, prefix: u8) -> Self {
        Self {
            addr,
            prefix: prefix.min(32),
        }
    }
    /// The network mask.
    #[must_use]
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(
            u32::MAX
                .checked_shl(32 - u32::from(self.prefix))
                .unwrap_or(0),
        )
    }
    /// The network address: host bits cleared.
    #[must_use]
    pub fn network(&self) -> Ipv4Addr {
        self.addr & self.mask()
    }
    /// Whether the address lies in this network.
    #[must_use]
    pub fn contains(&self, ip: Ipv4Addr) -> bool {
        ip & self.mask() == self.network()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = String;
    /// `10.0.0.0/8`; an address alone is a /32.
    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || format!("\"{s}\" is not an IPv4 network such as 10.0.0.0/8");
        let (addr, prefix) = s.split_once('/').unwrap_or((s, "32"));
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        if prefix > 32 {
            return Err(bad());
        }
        Ok(Self {
            addr: addr.parse().map_err(|_| bad())?,
            prefix,
        })
    }
}

impl TryFrom<String> for Cidr {
    type Error = String;
    fn try_from(s: String) -> Result<Self, String> {
        s.parse()
    }
}

impl From<Cidr> for String {
    fn from(c: Cidr) -> String {
        c.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_zero_contains_everything_and_32_only_itself() {
        let all: Cidr = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains(Ipv4Addr::new(255, 1, 2, 3)));
        let one: Cidr = "10.0.0.1".parse().unwrap();
        assert!(one.contains(Ipv4Addr::new(10, 0, 0, 1)));
        assert!(!one.contains(Ipv4Addr::new(10, 0, 0, 2)));
    }

    #[test]
    fn network_clears_host_bits() {
        let c: Cidr = "203.0.113.70/26".parse().unwrap();
        assert_eq!(c.network(), Ipv4Addr::new(203, 0, 113, 64));
        assert_eq!(c.to_string(), "203.0.113.70/26");
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for s in ["", "10.0.0.0/33", "10.0.0/8", "a/8", "10.0.0.0/x"] {
            assert!(s.parse::<Cidr>().unwrap_err().contains("10.0.0.0/8"), "{s}");
        }
    }
}
