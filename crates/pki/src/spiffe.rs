//! Workload identities: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// The identity of a service account in a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    /// Trust domain of the mesh, for instance `cluster.local`.
    pub trust_domain: String,
    /// Namespace of the service account.
    pub namespace: String,
    /// Name of the service account.
    pub service_account: String,
}

/// The URI of a service account's identity.
pub fn id(trust_domain: &str, namespace: &str, service_account: &str) -> String {
    format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&id(
            &self.trust_domain,
            &self.namespace,
            &self.service_account,
        ))
    }
}

impl FromStr for SpiffeId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Spiffe {
            text: text.to_owned(),
        };
        let rest = text.strip_prefix("spiffe://").ok_or_else(wrong)?;
        let parts: Vec<&str> = rest.split('/').collect();
        match parts[..] {
            [trust_domain, "ns", namespace, "sa", service_account]
                if ![trust_domain, namespace, service_account].contains(&"") =>
            {
                Ok(Self {
                    trust_domain: trust_domain.to_owned(),
                    namespace: namespace.to_owned(),
                    service_account: service_account.to_owned(),
                })
            }
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_round_trip() {
        let text = id("cluster.local", "theater-msa", "user-service");
        let parsed: SpiffeId = text.parse().unwrap();
        assert_eq!(parsed.namespace, "theater-msa");
        assert_eq!(parsed.to_string(), text);
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "https://cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/a/sa/",
            "spiffe:///ns/a/sa/b",
            "spiffe://cluster.local/ns/a/sa/b/c",
            "spiffe://cluster.local/sa/b/ns/a",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }
}
