//! Pod addresses of one node.

use std::collections::HashSet;
use std::net::Ipv4Addr;

/// Hands out pod IPs from the node's pod CIDR.
///
/// The first host address belongs to the node (bridge, gateway). Addresses are given upwards and
/// wrap around, so that an address is reused as late as possible: a peer that still holds a
/// connection pool to a dead pod must not meet an unrelated new one.
#[derive(Debug)]
pub struct Ipam {
    first: u32,
    last: u32,
    next: u32,
    used: HashSet<u32>,
}

/// Why no address could be had.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IpamError {
    /// The text is not `a.b.c.d/n` with room for at least one pod.
    #[error("pod CIDR {0:?} is not an IPv4 prefix between /8 and /30, such as 10.10.0.0/16")]
    BadCidr(String),
    /// Every address is in use.
    #[error("no free address in the pod CIDR: {0} pods have one")]
    Exhausted(usize),
}

/// Splits `10.10.0.0/16` into network address and prefix length.
///
/// # Errors
/// When the text is no IPv4 prefix between /8 and /30.
pub fn parse_cidr(text: &str) -> Result<(Ipv4Addr, u8), IpamError> {
    let bad = || IpamError::BadCidr(text.to_owned());
    let (address, length) = text.split_once('/').ok_or_else(bad)?;
    let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
    let length: u8 = length.parse().map_err(|_| bad())?;
    if !(8..=30).contains(&length) {
        return Err(bad());
    }
    let mask = u32::MAX << (32 - length);
    Ok((Ipv4Addr::from(u32::from(address) & mask), length))
}

impl Ipam {
    /// An empty pool over `cidr`.
    ///
    /// # Errors
    /// When `cidr` is no usable IPv4 prefix.
    pub fn new(cidr: &str) -> Result<Self, IpamError> {
        let (network, length) = parse_cidr(cidr)?;
        let network = u32::from(network);
        let size = 1_u32 << (32 - length);
        // .0 is the network, .1 the node, the last one broadcast.
        let first = network + 2;
        Ok(Self {
            first,
            last: network + size - 2,
            next: first,
            used: HashSet::new(),
        })
    }

    /// Marks an address as taken (known from before a restart); addresses outside the pool are ignored.
    /// The next address given is above every reserved one, as long as there is one.
    pub fn reserve(&mut self, ip: Ipv4Addr) {
        let ip = u32::from(ip);
        if (self.first..=self.last).contains(&ip) {
            self.used.insert(ip);
        }
    }

    /// Continues after `ip`: the highest address known from before a restart, so that addresses of
    /// pods that other clusters may still remember are not handed out first.
    pub fn continue_after(&mut self, ip: Ipv4Addr) {
        let ip = u32::from(ip);
        if (self.first..=self.last).contains(&ip) {
            self.next = if ip == self.last { self.first } else { ip + 1 };
        }
    }

    /// Takes the lowest free address above the last one given, wrapping around.
    ///
    /// # Errors
    /// When all are in use.
    pub fn allocate(&mut self) -> Result<Ipv4Addr, IpamError> {
        let size = self.last - self.first + 1;
        for offset in 0..size {
            let candidate = self.first + (self.next - self.first + offset) % size;
            if self.used.insert(candidate) {
                self.next = if candidate == self.last {
                    self.first
                } else {
                    candidate + 1
                };
                return Ok(Ipv4Addr::from(candidate));
            }
        }
        Err(IpamError::Exhausted(self.used.len()))
    }

    /// Gives an address back.
    pub fn release(&mut self, ip: Ipv4Addr) {
        self.used.remove(&u32::from(ip));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_unique_and_reused_as_late_as_possible() {
        let mut pool = Ipam::new("10.10.0.0/29").unwrap();
        let got: Vec<String> = (0..5)
            .map(|_| pool.allocate().unwrap().to_string())
            .collect();
        assert_eq!(
            got,
            [
                "10.10.0.2",
                "10.10.0.3",
                "10.10.0.4",
                "10.10.0.5",
                "10.10.0.6"
            ]
        );
        assert_eq!(pool.allocate(), Err(IpamError::Exhausted(5)));
        pool.release("10.10.0.4".parse().unwrap());
        assert_eq!(pool.allocate().unwrap().to_string(), "10.10.0.4");

        let mut pool = Ipam::new("10.10.0.0/16").unwrap();
        let first = pool.allocate().unwrap();
        pool.release(first);
        assert_ne!(pool.allocate().unwrap(), first);
    }

    #[test]
    fn after_a_restart_known_addresses_are_never_given_again() {
        let mut pool = Ipam::new("10.10.0.0/29").unwrap();
        pool.reserve("10.10.0.2".parse().unwrap());
        pool.reserve("192.0.2.1".parse().unwrap());
        assert_eq!(pool.allocate().unwrap().to_string(), "10.10.0.3");
        pool.continue_after("10.10.0.6".parse().unwrap());
        assert_eq!(pool.allocate().unwrap().to_string(), "10.10.0.4");
    }

    #[test]
    fn a_bad_cidr_is_named() {
        for text in ["", "10.0.0.0", "10.0.0.0/31", "10.0.0.0/x", "::/64"] {
            assert_eq!(Ipam::new(text).err(), Some(IpamError::BadCidr(text.into())));
        }
        assert_eq!(
            parse_cidr("10.10.7.1/16").unwrap().0.to_string(),
            "10.10.0.0"
        );
    }
}
