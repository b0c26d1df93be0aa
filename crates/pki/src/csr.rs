//! Certificate signing requests (PKCS#10).

use rcgen::{CertificateParams, DistinguishedName, SanType};

use crate::{Error, KeyPair, Result};

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
