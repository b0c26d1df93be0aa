//! Certificate authorities: a root, intermediates, and the leaves they issue.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use ring::rand::SecureRandom as _;

use crate::{Error, KeyPair, Result, csr, pem};

/// From when to when a certificate is valid. Certificates count in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First moment of validity.
    pub not_before: SystemTime,
    /// Last moment of validity.
    pub not_after: SystemTime,
}

impl Validity {
    /// Valid for `ttl` from `now`.
    pub fn starting(now: SystemTime, ttl: Duration) -> Self {
        Self {
            not_before: now,
            not_after: now + ttl,
        }
    }

    /// The same, but beginning earlier by `skew`, for peers whose clocks are behind. Istio
    /// issues workload certificates two minutes back.
    #[must_use]
    pub fn backdated(self, skew: Duration) -> Self {
        Self {
            not_before: self.not_before.checked_sub(skew).unwrap_or(self.not_before),
            ..self
        }
    }
}

/// What a leaf certificate should say.
#[derive(Debug, Clone)]
pub struct CertRequest {
    /// Common name; empty for none. Kubernetes reads it as the user name.
    pub cn: String,
    /// Organizations, at most two. Kubernetes reads them as groups.
    pub orgs: Vec<String>,
    /// DNS alternative names; a leading `*.` is allowed.
    pub dns: Vec<String>,
    /// Address alternative names.
    pub ips: Vec<IpAddr>,
    /// URI alternative names (SPIFFE identities).
    pub uris: Vec<String>,
    /// Usable as a TLS client certificate.
    pub client: bool,
    /// Usable as a TLS server certificate.
    pub server: bool,
    /// Lifetime.
    pub validity: Validity,
}

impl CertRequest {
    /// A request for a client certificate of a user and its groups.
    pub fn client(cn: &str, orgs: &[&str], validity: Validity) -> Self {
        Self {
            cn: cn.to_owned(),
            orgs: orgs.iter().map(|&org| org.to_owned()).collect(),
            dns: Vec::new(),
            ips: Vec::new(),
            uris: Vec::new(),
            client: true,
            server: false,
            validity,
        }
    }

    /// A request for a server certificate with DNS names and addresses.
    pub fn server(cn: &str, dns: &[&str], ips: &[IpAddr], validity: Validity) -> Self {
        Self {
            cn: cn.to_owned(),
            orgs: Vec::new(),
            dns: dns.iter().map(|&name| name.to_owned()).collect(),
            ips: ips.to_vec(),
            uris: Vec::new(),
            client: false,
            server: true,
            validity,
        }
    }
}

/// A leaf certificate with its key.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The leaf alone.
    pub cert_pem: String,
    /// The leaf followed by the intermediates up to, but without, the root: what a TLS server or
    /// client presents.
    pub chain_pem: String,
    /// The private key, PKCS#8 PEM.
    pub key_pem: String,
}

/// A certificate authority that can sign.
pub struct Authority {
    cert_pem: String,
    key_pem: String,
    /// Own certificate and the ones above it, without the root; empty for a root.
    chain_pem: String,
    root_pem: String,
    issuer: Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    /// A new self-signed root, valid `days` days from `not_before`.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new_root(cn: &str, org: &str, not_before: SystemTime, days: u32) -> Result<Self> {
        let key = KeyPair::generate()?;
        let validity = days_from(not_before, days);
        let params = authority_params(cn, org, validity, None)?;
        let cert = params
            .self_signed(key.rcgen())
            .map_err(|error| issue_error(cn, error))?;
        let cert_pem = pem::encode_certificate(cert.der());
        Self::from_pem(&cert_pem, &key.to_pem(), "")
    }

    /// A new intermediate authority signed by this one. It may only sign leaves.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn intermediate(
        &self,
        cn: &str,
        org: &str,
        not_before: SystemTime,
        days: u32,
    ) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = authority_params(cn, org, days_from(not_before, days), Some(0))?;
        params.use_authority_key_identifier_extension = true;
        let cert = params
            .signed_by(key.rcgen(), &self.issuer)
            .map_err(|error| issue_error(cn, error))?;
        let cert_pem = pem::encode_certificate(cert.der());
        Self::from_pem(
            &cert_pem,
            &key.to_pem(),
            &format!("{}{}", self.chain_pem, self.root_pem),
        )
    }

    /// An authority read from stored PEM. `ancestors_pem` holds the certificates above it up to
    /// and including the root; empty when `cert_pem` is the root itself.
    ///
    /// # Errors
    /// When something is damaged, the certificate is no authority, or key and certificate do not
    /// belong together.
    pub fn from_pem(cert_pem: &str, key_pem: &str, ancestors_pem: &str) -> Result<Self> {
        let own = pem::certificates(cert_pem, "authority certificate")?;
        let own = &own[0];
        let key = rcgen::KeyPair::from_pem(key_pem)
            .map_err(|error| Error::Key(format!("authority key: {error}")))?;
        check_authority(own, &key)?;
        let issuer = Issuer::from_ca_cert_der(own, key)
            .map_err(|error| Error::Certificate(format!("authority certificate: {error}")))?;
        let cert_pem = pem::encode_certificate(own);
        let (chain_pem, root_pem) = if ancestors_pem.trim().is_empty() {
            (String::new(), cert_pem.clone())
        } else {
            let ancestors = pem::certificates(ancestors_pem, "authority chain")?;
            let mut encoded: Vec<String> = ancestors
                .iter()
                .map(|der| pem::encode_certificate(der))
                .collect();
            let root = encoded.pop().unwrap_or_default();
            (format!("{cert_pem}{}", encoded.concat()), root)
        };
        Ok(Self {
            cert_pem,
            key_pem: key_pem.to_owned(),
            chain_pem,
            root_pem,
            issuer,
        })
    }

    /// This authority's certificate.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// This authority's private key, PKCS#8 PEM.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The certificate at the top: what verifiers trust.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// This authority and those above it without the root (empty for a root): what follows a
    /// leaf in a presented chain.
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// Issues a leaf with a new key.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate, or there are more than two organizations.
    pub fn issue(&self, request: &CertRequest) -> Result<Issued> {
        let key = KeyPair::generate()?;
        let cert_pem = self.sign(request, key.rcgen())?;
        Ok(Issued {
            chain_pem: format!("{cert_pem}{}", self.chain_pem),
            cert_pem,
            key_pem: key.to_pem(),
        })
    }

    /// Signs the public key of a request for the identities `uris`, usable by client and server.
    ///
    /// Every name and extension the request carries is ignored: who the caller is was decided
    /// by its credentials, not by its request. Returns the leaf followed by the
    /// intermediates, without the root.
    ///
    /// # Errors
    /// When the request is damaged or its signature is wrong.
    pub fn sign_csr(&self, csr_pem: &str, uris: &[String], validity: Validity) -> Result<String> {
        let request = CertRequest {
            cn: String::new(),
            orgs: Vec::new(),
            dns: Vec::new(),
            ips: Vec::new(),
            uris: uris.to_vec(),
            client: true,
            server: true,
            validity,
        };
        self.sign_key_of(csr_pem, &request)
    }

    /// Signs the public key of a request for what `granted` says, whatever names the request asks for. Returns the leaf
    /// followed by the intermediates, without the root.
    ///
    /// # Errors
    /// When the request is damaged or its signature is wrong, or a granted name cannot stand in a certificate.
    pub fn sign_key_of(&self, csr_pem: &str, granted: &CertRequest) -> Result<String> {
        let spki = csr::verified_public_key(csr_pem)?;
        let public_key = SubjectPublicKeyInfo::from_der(&spki)
            .map_err(|error| Error::Request(format!("public key: {error}")))?;
        let leaf = self.sign(granted, &public_key)?;
        Ok(format!("{leaf}{}", self.chain_pem))
    }

    fn sign(&self, request: &CertRequest, key: &impl PublicKeyData) -> Result<String> {
        let params = leaf_params(request)?;
        let cert = params
            .signed_by(key, &self.issuer)
            .map_err(|error| issue_error(&label(request), error))?;
        Ok(pem::encode_certificate(cert.der()))
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

fn check_authority(der: &[u8], key: &rcgen::KeyPair) -> Result<()> {
    let (_, cert) = x509_parser::parse_x509_certificate(der)
        .map_err(|error| Error::Certificate(format!("authority certificate: {error}")))?;
    if !cert.is_ca() {
        return Err(Error::Certificate(format!(
            "{} is not a certificate authority (basic constraints lack CA)",
            cert.subject()
        )));
    }
    if cert.public_key().raw != key.subject_public_key_info() {
        return Err(Error::Key(format!(
            "it does not belong to the certificate of {}",
            cert.subject()
        )));
    }
    Ok(())
}

fn days_from(not_before: SystemTime, days: u32) -> Validity {
    Validity::starting(not_before, Duration::from_secs(u64::from(days) * 86_400))
}

fn authority_params(
    cn: &str,
    org: &str,
    validity: Validity,
    path_len: Option<u8>,
) -> Result<CertificateParams> {
    let mut params = base_params(validity)?;
    if !org.is_empty() {
        params
            .distinguished_name
            .push(DnType::OrganizationName, org);
    }
    params.distinguished_name.push(DnType::CommonName, cn);
    params.is_ca = IsCa::Ca(match path_len {
        Some(length) => BasicConstraints::Constrained(length),
        None => BasicConstraints::Unconstrained,
    });
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    Ok(params)
}

fn leaf_params(request: &CertRequest) -> Result<CertificateParams> {
    let wrong = |reason: String| Error::Issue {
        subject: label(request),
        reason,
    };
    let mut params = base_params(request.validity)?;
    params.use_authority_key_identifier_extension = true;
    // rcgen keeps one value per attribute type; the same attribute named by its number counts as
    // another type, which gives room for a second organization.
    let kinds = [
        DnType::OrganizationName,
        DnType::CustomDnType(vec![2, 5, 4, 10]),
    ];
    if request.orgs.len() > kinds.len() {
        return Err(wrong(format!(
            "{} organizations asked for, at most {} are possible",
            request.orgs.len(),
            kinds.len()
        )));
    }
    for (kind, org) in kinds.into_iter().zip(&request.orgs) {
        params.distinguished_name.push(kind, org.as_str());
    }
    if !request.cn.is_empty() {
        params
            .distinguished_name
            .push(DnType::CommonName, request.cn.as_str());
    }
    for name in &request.dns {
        let value = name
            .as_str()
            .try_into()
            .map_err(|error: rcgen::Error| wrong(format!("DNS name {name:?}: {error}")))?;
        params.subject_alt_names.push(SanType::DnsName(value));
    }
    for &ip in &request.ips {
        params.subject_alt_names.push(SanType::IpAddress(ip));
    }
    for uri in &request.uris {
        let value = uri
            .as_str()
            .try_into()
            .map_err(|error: rcgen::Error| wrong(format!("URI {uri:?}: {error}")))?;
        params.subject_alt_names.push(SanType::URI(value));
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    if request.server {
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    if request.client {
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ClientAuth);
    }
    Ok(params)
}

fn base_params(validity: Validity) -> Result<CertificateParams> {
    let mut serial = [0u8; 16];
    ring::rand::SystemRandom::new()
        .fill(&mut serial)
        .map_err(|_| Error::Key("the operating system gave no randomness".to_owned()))?;
    // A serial number is positive, and never shorter than its bytes (RFC 5280 4.1.2.2).
    serial[0] = (serial[0] & 0x7f) | 0x40;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
    Ok(params)
}

fn label(request: &CertRequest) -> String {
    [&request.cn]
        .into_iter()
        .chain(&request.uris)
        .chain(&request.dns)
        .find(|name| !name.is_empty())
        .cloned()
        .unwrap_or_default()
}

fn issue_error(subject: &str, error: rcgen::Error) -> Error {
    Error::Issue {
        subject: subject.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::peer_identity;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_760_000_000)
    }

    fn day() -> Validity {
        Validity::starting(now(), Duration::from_secs(86_400))
    }

    fn leaf(chain_pem: &str) -> crate::PeerIdentity {
        peer_identity(&pem::certificates(chain_pem, "chain").unwrap()[0]).unwrap()
    }

    #[test]
    fn a_chain_is_leaf_then_intermediate_and_root_stays_out() {
        let root = Authority::new_root("Root CA", "Theater", now(), 3650).unwrap();
        let middle = root
            .intermediate("Intermediate CA", "Theater", now(), 730)
            .unwrap();
        let issued = middle
            .issue(&CertRequest::client("kube", &["system:masters"], day()))
            .unwrap();
        let chain = pem::certificates(&issued.chain_pem, "chain").unwrap();
        assert_eq!(chain.len(), 2);
        assert_eq!(pem::encode_certificate(&chain[1]), middle.cert_pem());
        assert_eq!(middle.root_pem(), root.cert_pem());
        assert_eq!(root.chain_pem(), "");
        let again =
            Authority::from_pem(middle.cert_pem(), middle.key_pem(), root.cert_pem()).unwrap();
        assert_eq!(again.chain_pem(), middle.chain_pem());
        assert_eq!(again.root_pem(), root.root_pem());
    }

    #[test]
    fn subject_and_names_are_as_asked() {
        let root = Authority::new_root("Root CA", "Theater", now(), 10).unwrap();
        let mut request = CertRequest::client("alice", &["dev", "ops"], day());
        request.dns = vec!["a.example".into(), "*.b.example".into()];
        request.ips = vec!["10.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        let who = leaf(&root.issue(&request).unwrap().cert_pem);
        assert_eq!(who.common_name.as_deref(), Some("alice"));
        assert_eq!(who.organizations, ["dev", "ops"]);
        assert_eq!(who.dns, ["a.example", "*.b.example"]);
        assert_eq!(who.ips, request.ips);
        assert_eq!(who.not_before, now());
        assert_eq!(who.not_after, now() + Duration::from_secs(86_400));
        request.orgs.push("third".into());
        assert!(root.issue(&request).is_err());
    }

    #[test]
    fn a_signed_request_carries_the_callers_identity_not_its_own_claims() {
        let root = Authority::new_root("Root CA", "Theater", now(), 10).unwrap();
        let key = KeyPair::generate().unwrap();
        let csr = csr::create(&key, &["spiffe://evil/ns/x/sa/y".to_owned()]).unwrap();
        let id = crate::spiffe::id("cluster.local", "ns", "sa");
        let chain = root
            .sign_csr(&csr, std::slice::from_ref(&id), day())
            .unwrap();
        let who = leaf(&chain);
        assert_eq!(who.uris, [id]);
        assert_eq!(who.common_name, None);
    }

    #[test]
    fn a_request_with_a_broken_signature_is_refused() {
        let root = Authority::new_root("Root CA", "Theater", now(), 10).unwrap();
        let key = KeyPair::generate().unwrap();
        let csr = csr::create(&key, &[]).unwrap();
        let mut der = <rustls_pki_types::CertificateSigningRequestDer as rustls_pki_types::pem::PemObject>::from_pem_slice(csr.as_bytes()).unwrap().to_vec();
        let last = der.len() - 1;
        der[last] ^= 1;
        let broken = pem::encode("CERTIFICATE REQUEST", &der);
        let error = root.sign_csr(&broken, &[], day()).unwrap_err().to_string();
        assert!(error.contains("signature"), "{error}");
        assert!(root.sign_csr("nonsense", &[], day()).is_err());
    }

    #[test]
    fn key_and_certificate_must_belong_together() {
        let one = Authority::new_root("One", "", now(), 10).unwrap();
        let two = Authority::new_root("Two", "", now(), 10).unwrap();
        let error = Authority::from_pem(one.cert_pem(), two.key_pem(), "").unwrap_err();
        assert!(error.to_string().contains("does not belong"), "{error}");
        let issued = one.issue(&CertRequest::client("leaf", &[], day())).unwrap();
        let error = Authority::from_pem(&issued.cert_pem, &issued.key_pem, "").unwrap_err();
        assert!(
            error.to_string().contains("not a certificate authority"),
            "{error}"
        );
    }

    #[test]
    fn two_certificates_never_share_a_serial() {
        let root = Authority::new_root("Root CA", "", now(), 10).unwrap();
        let request = CertRequest::client("a", &[], day());
        let one = leaf(&root.issue(&request).unwrap().cert_pem);
        let two = leaf(&root.issue(&request).unwrap().cert_pem);
        assert_ne!(one.serial, two.serial);
    }
}
