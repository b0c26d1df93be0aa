//! Addresses and address ranges of the Envoy API.

use std::net::{IpAddr, SocketAddr};

use xds::envoy::config::core::v3::{self as core, address, socket_address::PortSpecifier};

use crate::error::ConfigError;

/// An IPv4 or IPv6 prefix. IPv4-mapped IPv6 addresses count as IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    address: IpAddr,
    length: u8,
}

impl Cidr {
    /// A prefix; host bits are cleared, a length that is too long is cut to the whole address.
    pub fn new(address: IpAddr, length: u8) -> Self {
        let address = address.to_canonical();
        let length = length.min(if address.is_ipv4() { 32 } else { 128 });
        Self {
            address: mask(address, length),
            length,
        }
    }

    /// Reads a `CidrRange`.
    pub fn compile(range: &core::CidrRange) -> Result<Self, ConfigError> {
        let address = range.address_prefix.parse().map_err(|_| {
            ConfigError::new(
                "address_prefix",
                format!("{:?} is not an IP address", range.address_prefix),
            )
        })?;
        Ok(Self::new(
            address,
            range.prefix_len.unwrap_or(0).min(128) as u8,
        ))
    }

    /// The number of fixed bits.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether the address lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && mask(address, self.length) == self.address
    }
}

fn mask(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let bits = u32::from(v4) & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4(bits.into())
        }
        IpAddr::V6(v6) => {
            let bits = u128::from(v6) & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6(bits.into())
        }
    }
}

/// Where something listens or can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// IP address and port.
    Socket(SocketAddr),
    /// A name still to be resolved, and a port.
    Name {
        /// The DNS name.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix domain socket; `@` begins an abstract one.
    Pipe(String),
}

impl Address {
    /// Reads an `Address`; internal listeners and named ports are refused.
    pub fn compile(config: &core::Address) -> Result<Self, ConfigError> {
        match &config.address {
            Some(address::Address::SocketAddress(socket)) => {
                let port = match &socket.port_specifier {
                    Some(PortSpecifier::PortValue(port)) => u16::try_from(*port).map_err(|_| {
                        ConfigError::new(
                            "socket_address.port_value",
                            format!("{port} is not a port"),
                        )
                    })?,
                    Some(PortSpecifier::NamedPort(name)) => {
                        return Err(ConfigError::new(
                            "socket_address.named_port",
                            format!("the named port {name:?} cannot be resolved; give its number"),
                        ));
                    }
                    None => 0,
                };
                Ok(match socket.address.parse::<IpAddr>() {
                    Ok(ip) => Self::Socket(SocketAddr::new(ip, port)),
                    Err(_) => Self::Name {
                        host: socket.address.clone(),
                        port,
                    },
                })
            }
            Some(address::Address::Pipe(pipe)) => Ok(Self::Pipe(pipe.path.clone())),
            Some(address::Address::EnvoyInternalAddress(_)) => Err(ConfigError::new(
                "envoy_internal_address",
                "internal listeners are not supported",
            )),
            None => Err(ConfigError::new("address", "is missing")),
        }
    }

    /// The socket address, if it is one.
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(address) => Some(*address),
            _ => None,
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Pipe(path) => f.write_str(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_contain_what_shares_their_bits() {
        let net = Cidr::new("10.1.2.3".parse().unwrap(), 8);
        assert!(net.contains("10.255.0.1".parse().unwrap()));
        assert!(
            net.contains("::ffff:10.0.0.1".parse().unwrap()),
            "mapped IPv4"
        );
        assert!(!net.contains("11.0.0.1".parse().unwrap()));
        assert!(Cidr::new("0.0.0.0".parse().unwrap(), 0).contains("9.9.9.9".parse().unwrap()));
        assert!(!Cidr::new("::".parse().unwrap(), 0).contains("9.9.9.9".parse().unwrap()));
    }
}
