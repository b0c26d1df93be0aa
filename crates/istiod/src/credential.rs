//! Credentials of gateways: how they are named, and what Secrets hold them.

use base64::Engine;
use serde_json::Value;
use xds::envoy::config::core::v3::{DataSource, data_source::Specifier};
use xds::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret,
};

/// A credential as a gateway asks for it: `kubernetes://name`, `kubernetes://namespace/name` or
/// `kubernetes-gateway://namespace/name`, with `-cacert` at the end for the CA of client certificates.
#[derive(Debug, PartialEq, Eq)]
pub struct CredentialName {
    /// Namespace of the Secret.
    pub namespace: String,
    /// Name of the Secret.
    pub name: String,
    /// Whether only its certificates of authorities are wanted.
    pub ca_only: bool,
}

impl CredentialName {
    /// Reads a name; one without a namespace means that of the proxy. `None` for other names.
    pub fn parse(text: &str, own_namespace: &str) -> Option<Self> {
        let rest = text
            .strip_prefix("kubernetes://")
            .or_else(|| text.strip_prefix("kubernetes-gateway://"))?;
        let (namespace, name) = rest.split_once('/').unwrap_or((own_namespace, rest));
        let (name, ca_only) = match name.strip_suffix("-cacert") {
            Some(name) => (name, true),
            None => (name, false),
        };
        (!name.is_empty()).then(|| Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ca_only,
        })
    }
}

/// The secret for a proxy from a Secret object of type `kubernetes.io/tls` or of the generic form
/// (`cert`, `key`, `cacert`).
pub fn credential(name: &str, ca_only: bool, object: &Value) -> Option<Secret> {
    let data = |keys: [&str; 2]| {
        keys.iter().find_map(|key| {
            let text = object["data"][*key].as_str()?;
            base64::engine::general_purpose::STANDARD.decode(text).ok()
        })
    };
    let inline = |bytes: Vec<u8>| DataSource {
        specifier: Some(Specifier::InlineBytes(bytes.into())),
        ..Default::default()
    };
    let kind = if ca_only {
        let ca = data(["ca.crt", "cacert"])?;
        secret::Type::ValidationContext(CertificateValidationContext {
            trusted_ca: Some(inline(ca)),
            ..Default::default()
        })
    } else {
        secret::Type::TlsCertificate(TlsCertificate {
            certificate_chain: Some(inline(data(["tls.crt", "cert"])?)),
            private_key: Some(inline(data(["tls.key", "key"])?)),
            ..Default::default()
        })
    };
    Some(Secret {
        name: name.to_owned(),
        r#type: Some(kind),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn credential_names_of_all_forms() {
        let parse = |text| CredentialName::parse(text, "istio-system");
        let name = parse("kubernetes://theater-tls").unwrap();
        assert_eq!(
            (name.namespace.as_str(), name.name.as_str()),
            ("istio-system", "theater-tls")
        );
        let name = parse("kubernetes-gateway://other/tls-cacert").unwrap();
        assert_eq!(
            (name.namespace.as_str(), name.name.as_str(), name.ca_only),
            ("other", "tls", true)
        );
        assert_eq!(parse("default"), None);
        assert_eq!(parse("kubernetes://"), None);
    }

    #[test]
    fn both_forms_of_secrets_are_read() {
        for (certificate, key) in [("tls.crt", "tls.key"), ("cert", "key")] {
            let object = json!({"data": {certificate: "Yw==", key: "aw=="}});
            assert!(credential("n", false, &object).is_some(), "{certificate}");
        }
        assert!(credential("n", false, &json!({"data": {"tls.crt": "Yw=="}})).is_none());
        assert!(credential("n", true, &json!({"data": {"ca.crt": "Yw=="}})).is_some());
    }
}
