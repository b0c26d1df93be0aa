//! socat's addresses.

use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// One of the two ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// Standard input and output.
    Stdio,
    /// A connection to a host.
    Connect { host: String, port: u16 },
    /// Connections that come in; with `fork` many, else one.
    Listen { port: u16, fork: bool },
}

impl FromStr for Address {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (address, options) = text.split_once(',').unwrap_or((text, ""));
        let options: Vec<&str> = options.split(',').filter(|o| !o.is_empty()).collect();
        let (kind, rest) = address.split_once(':').unwrap_or((address, ""));
        let unknown = |known: &[&str]| {
            options
                .iter()
                .find(|option| !known.contains(option))
                .copied()
        };
        let refuse = |option: &str| format!("unknown option \"{option}\" of {address}");
        match kind.to_ascii_uppercase().as_str() {
            "-" | "STDIO" => match unknown(&[]) {
                Some(option) => bail!(refuse(option)),
                None => Ok(Address::Stdio),
            },
            "TCP" | "TCP4" | "TCP-CONNECT" | "TCP4-CONNECT" => {
                if let Some(option) = unknown(&[]) {
                    bail!(refuse(option));
                }
                let (host, port) = rest
                    .rsplit_once(':')
                    .with_context(|| format!("{address}: HOST:PORT is expected"))?;
                Ok(Address::Connect {
                    host: host.to_owned(),
                    port: number(port)?,
                })
            }
            "TCP-LISTEN" | "TCP4-LISTEN" | "TCP-L" => {
                if let Some(option) = unknown(&["fork", "reuseaddr"]) {
                    bail!(refuse(option));
                }
                Ok(Address::Listen {
                    port: number(rest)?,
                    fork: options.contains(&"fork"),
                })
            }
            _ => bail!("unknown device/address \"{kind}\"; TCP, TCP-LISTEN, STDIO and - are known"),
        }
    }
}

fn number(text: &str) -> Result<u16> {
    text.parse().with_context(|| format!("{text:?} is no port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_socat_reads_them() {
        assert_eq!(
            "tcp-listen:8080,fork,reuseaddr".parse::<Address>().unwrap(),
            Address::Listen {
                port: 8080,
                fork: true
            }
        );
        assert_eq!(
            "TCP4:redis.theater-msa:6379".parse::<Address>().unwrap(),
            Address::Connect {
                host: "redis.theater-msa".into(),
                port: 6379
            }
        );
        assert!("TCP:redis:no".parse::<Address>().is_err());
    }
}
