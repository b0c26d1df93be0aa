//! Who a certificate says its holder is.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use x509_parser::extensions::GeneralName;

use crate::{Error, Result, SpiffeId};

/// The names in a certificate. It says nothing about trust: verify the chain first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// URI alternative names in order.
    pub uris: Vec<String>,
    /// DNS alternative names in order.
    pub dns: Vec<String>,
    /// Address alternative names in order.
    pub ips: Vec<IpAddr>,
    /// Common name of the subject.
    pub common_name: Option<String>,
    /// Organizations of the subject.
    pub organizations: Vec<String>,
    /// The whole subject in RFC 2253 order, for instance `CN=alice,O=dev`; empty when there is none.
    pub subject: String,
    /// The whole issuer in the same form.
    pub issuer: String,
    /// The public key with its algorithm (SubjectPublicKeyInfo), in DER.
    pub public_key: Vec<u8>,
    /// Serial number, lower-case hexadecimal without separators.
    pub serial: String,
    /// First moment of validity.
    pub not_before: SystemTime,
    /// Last moment of validity.
    pub not_after: SystemTime,
}

impl PeerIdentity {
    /// The workload identities among the URI names.
    pub fn spiffe_ids(&self) -> impl Iterator<Item = SpiffeId> + '_ {
        self.uris.iter().filter_map(|uri| uri.parse().ok())
    }
}

/// SHA-256 of a DER certificate, lower-case hexadecimal without separators.
#[must_use]
pub fn fingerprint(cert_der: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, cert_der);
    let hex = |byte: &u8| format!("{byte:02x}");
    digest.as_ref().iter().map(hex).collect()
}

/// Reads the names of a DER certificate.
///
/// # Errors
/// When it is not a readable X.509 certificate.
pub fn peer_identity(cert_der: &[u8]) -> Result<PeerIdentity> {
    let (_, cert) = x509_parser::parse_x509_certificate(cert_der)
        .map_err(|error| Error::Certificate(error.to_string()))?;
    let mut identity = PeerIdentity {
        uris: Vec::new(),
        dns: Vec::new(),
        ips: Vec::new(),
        common_name: None,
        organizations: Vec::new(),
        subject: String::new(),
        issuer: rfc2253(cert.issuer()),
        public_key: cert.public_key().raw.to_vec(),
        serial: cert
            .raw_serial()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        not_before: system_time(cert.validity().not_before.timestamp()),
        not_after: system_time(cert.validity().not_after.timestamp()),
    };
    let subject = cert.subject();
    identity.common_name = subject
        .iter_common_name()
        .find_map(|name| name.as_str().ok())
        .map(str::to_owned);
    identity.organizations = subject
        .iter_organization()
        .filter_map(|name| name.as_str().ok())
        .map(str::to_owned)
        .collect();
    identity.subject = rfc2253(subject);
    let names = cert
        .subject_alternative_name()
        .map_err(|error| Error::Certificate(format!("alternative names: {error}")))?;
    for name in names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
    {
        match name {
            GeneralName::URI(uri) => identity.uris.push((*uri).to_owned()),
            GeneralName::DNSName(dns) => identity.dns.push((*dns).to_owned()),
            GeneralName::IPAddress(bytes) => identity.ips.extend(address(bytes)),
            _ => {}
        }
    }
    Ok(identity)
}

fn rfc2253(subject: &x509_parser::x509::X509Name<'_>) -> String {
    let mut parts: Vec<String> = subject
        .iter_attributes()
        .map(|attribute| {
            let oid = attribute.attr_type();
            let key = x509_parser::objects::oid2abbrev(oid, x509_parser::objects::oid_registry())
                .map_or_else(|_| oid.to_id_string(), str::to_owned);
            format!("{key}={}", attribute.as_str().unwrap_or_default())
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

pub(crate) fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        Some(v4.into())
    } else {
        <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
    }
}

fn system_time(seconds: i64) -> SystemTime {
    match u64::try_from(seconds) {
        Ok(after) => SystemTime::UNIX_EPOCH + Duration::from_secs(after),
        Err(_) => SystemTime::UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs()),
    }
}
