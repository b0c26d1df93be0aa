//! Gateway: what a gateway proxy listens for.

use super::{ConnectionPoolSettings, Port};
use std::collections::BTreeMap;

message! {
    /// Servers of the gateway pods that are selected.
    pub struct Gateway {
        /// Labels of the gateway pods.
        pub selector: BTreeMap<String, String>,
        /// What to listen for.
        pub servers: Vec<Server>,
    }

    /// One port, its hosts and its TLS.
    pub struct Server {
        /// A name for statistics.
        pub name: String,
        /// The service port.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub port: Option<Port>,
        /// The address to bind.
        pub bind: String,
        /// Hosts, optionally with the namespace of their VirtualServices: `ns/host`.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub hosts: Vec<String>,
        /// TLS.
        pub tls: Option<ServerTlsSettings>,
        /// Not used for gateways.
        pub default_endpoint: String,
    }

    /// TLS of a server.
    pub struct ServerTlsSettings {
        /// Answer plain HTTP with a redirect to https.
        pub https_redirect: bool,
        /// Which kind of TLS.
        pub mode: ServerTlsMode,
        /// Path of the certificate.
        pub server_certificate: String,
        /// Path of the key.
        pub private_key: String,
        /// Path of the CA certificates of clients.
        pub ca_certificates: String,
        /// Path of a revocation list.
        pub ca_crl: String,
        /// Name of a Secret.
        pub credential_name: String,
        /// Names of several Secrets.
        pub credential_names: Vec<String>,
        /// Name of a Secret with the CA of clients.
        pub ca_cert_credential_name: String,
        /// Several certificates by path.
        pub tls_certificates: Vec<TlsCertificate>,
        /// Names that clients have to have.
        pub subject_alt_names: Vec<String>,
        /// Hashes of allowed client keys.
        pub verify_certificate_spki: Vec<String>,
        /// Hashes of allowed client certificates.
        pub verify_certificate_hash: Vec<String>,
        /// Lowest version.
        pub min_protocol_version: TlsProtocol,
        /// Highest version.
        pub max_protocol_version: TlsProtocol,
        /// Allowed ciphers.
        pub cipher_suites: Vec<String>,
    }

    /// A certificate by path.
    pub struct TlsCertificate {
        /// Path of the certificate.
        pub server_certificate: String,
        /// Path of the key.
        pub private_key: String,
        /// Path of the CA certificates of clients.
        pub ca_certificates: String,
    }

    /// A port of a sidecar: ingress.
    pub struct IstioIngressListener {
        /// The port.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub port: Option<Port>,
        /// The address to bind.
        pub bind: String,
        /// How traffic gets here.
        pub capture_mode: super::CaptureMode,
        /// Where the application listens.
        pub default_endpoint: String,
        /// TLS of the listener.
        pub tls: Option<ServerTlsSettings>,
        /// Limits of connections to the application.
        pub connection_pool: Option<ConnectionPoolSettings>,
    }
}

proto_enum! {
    /// Kinds of TLS of a server.
    pub enum ServerTlsMode {
        /// Forward by server name.
        Passthrough,
        /// The server has a certificate.
        Simple,
        /// Both have certificates.
        Mutual,
        /// Forward by server name that names a service of the mesh.
        AutoPassthrough,
        /// Both have the mesh's certificates.
        IstioMutual,
        /// A client may have a certificate.
        OptionalMutual,
    }

    /// Versions of TLS.
    #[allow(clippy::upper_case_acronyms)]
    pub enum TlsProtocol {
        /// As Envoy decides.
        TlsAuto,
        /// 1.0
        #[serde(rename = "TLSV1_0")]
        V1_0,
        /// 1.1
        #[serde(rename = "TLSV1_1")]
        V1_1,
        /// 1.2
        #[serde(rename = "TLSV1_2")]
        V1_2,
        /// 1.3
        #[serde(rename = "TLSV1_3")]
        V1_3,
    }
}
