//! Certificate signing requests (PKCS#10).

use rcgen::{CertificateParams, DistinguishedName, SanType};

use crate::{Error, KeyPair, Result};

/// The names a request asks for. They are wishes: whoever signs decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Common name; empty for none.
    pub common_name: String,
    /// Organizations of the subject.
    pub organizations: Vec<String>,
    /// DNS alternative names.
    pub dns: Vec<String>,
    /// Address alternative names.
    pub ips: Vec<std::net::IpAddr>,
    /// Whether there are alternative names of other sorts (mail, URI).
    pub others: bool,
}

/// Reads the names a request (PEM) asks for, after checking its signature.
///
/// # Errors
/// When the request is damaged or its signature is wrong.
pub fn wanted(csr_pem: &str) -> Result<Wanted> {
    use x509_parser::extensions::{GeneralName, ParsedExtension};
    use x509_parser::prelude::FromDer as _;

    verified_public_key(csr_pem)?;
    let der = <rustls_pki_types::CertificateSigningRequestDer as rustls_pki_types::pem::PemObject>::from_pem_slice(csr_pem.as_bytes())
        .map_err(|error| Error::Request(format!("not valid PEM: {error}")))?;
    let (_, request) = x509_parser::certification_request::X509CertificationRequest::from_der(&der)
        .map_err(|error| Error::Request(format!("not valid DER: {error}")))?;
    let subject = &request.certification_request_info.subject;
    let text =
        |name: &x509_parser::x509::AttributeTypeAndValue<'_>| name.as_str().ok().map(str::to_owned);
    let mut out = Wanted {
        common_name: subject
            .iter_common_name()
            .find_map(text)
            .unwrap_or_default(),
        organizations: subject.iter_organization().filter_map(text).collect(),
        ..Wanted::default()
    };
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else {
            continue;
        };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(dns) => out.dns.push((*dns).to_owned()),
                GeneralName::IPAddress(bytes) => out.ips.extend(crate::peer::address(bytes)),
                _ => out.others = true,
            }
        }
    }
    Ok(out)
}

/// A signing request for `key` with the given URI names and no subject, the form an Istio
/// agent sends. Returns PEM.
///
/// # Errors
/// When a name is not ASCII.
pub fn create(key: &KeyPair, uris: &[String]) -> Result<String> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for uri in uris {
        let name = uri
            .as_str()
            .try_into()
            .map_err(|error: rcgen::Error| Error::Request(format!("name {uri:?}: {error}")))?;
        params.subject_alt_names.push(SanType::URI(name));
    }
    let request = params
        .serialize_request(key.rcgen())
        .map_err(|error| Error::Request(error.to_string()))?;
    request
        .pem()
        .map_err(|error| Error::Request(error.to_string()))
}

/// The DER SubjectPublicKeyInfo of a request whose signature proves that the sender holds the
/// private key. Nothing else of a request is trusted.
pub(crate) fn verified_public_key(csr_pem: &str) -> Result<Vec<u8>> {
    use x509_parser::prelude::FromDer as _;

    let wrong = |reason: &str| Error::Request(reason.to_owned());
    let der = <rustls_pki_types::CertificateSigningRequestDer as rustls_pki_types::pem::PemObject>::from_pem_slice(csr_pem.as_bytes())
        .map_err(|error| Error::Request(format!("not valid PEM: {error}")))?;
    let (rest, request) =
        x509_parser::certification_request::X509CertificationRequest::from_der(&der)
            .map_err(|error| Error::Request(format!("not valid DER: {error}")))?;
    if !rest.is_empty() {
        return Err(wrong("bytes left over after the request"));
    }
    request
        .verify_signature()
        .map_err(|_| wrong("its signature does not verify with the public key it carries"))?;
    Ok(request.certification_request_info.subject_pki.raw.to_vec())
}
