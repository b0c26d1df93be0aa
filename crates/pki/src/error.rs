//! What can go wrong with certificates, keys and tokens.

/// An error of this crate. Every text names the thing and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Text that should hold PEM sections does not.
    #[error("{what}: not valid PEM: {reason}")]
    Pem {
        /// Which input was read, for instance "client CA bundle".
        what: String,
        /// What the parser met.
        reason: String,
    },
    /// A private key that cannot be used.
    #[error("private key: {0}")]
    Key(String),
    /// A certificate that cannot be read.
    #[error("certificate: {0}")]
    Certificate(String),
    /// A certificate request that cannot be read, or whose signature is wrong.
    #[error("certificate signing request: {0}")]
    Request(String),
    /// A certificate that cannot be made from what was asked for.
    #[error("cannot issue certificate {subject:?}: {reason}")]
    Issue {
        /// Common name, or first alternative name, of the certificate asked for.
        subject: String,
        /// What is wrong with the request.
        reason: String,
    },
    /// A text that is not a SPIFFE identity.
    #[error(
        "{text:?} is not a workload identity of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>"
    )]
    Spiffe {
        /// The text that was read.
        text: String,
    },
    /// A TLS configuration that rustls refuses.
    #[error("TLS configuration: {0}")]
    Tls(String),
}
