//! Certificates, keys and tokens: everything both meshes and clusters sign or check.
//!
//! Pure: bytes in, bytes out. No sockets and no clock; where the time matters it is an argument.
//! Keys are ECDSA P-256 in PKCS#8 PEM, certificates X.509 v3 in PEM.

pub mod authority;
pub mod csr;
mod error;
pub mod jwt;
pub mod key;
pub mod peer;
pub mod pem;
pub mod spiffe;
pub mod tls;

pub use authority::{Authority, CertRequest, Issued, Validity};
pub use error::Error;
pub use key::KeyPair;
pub use peer::{PeerIdentity, fingerprint, peer_identity};
pub use spiffe::SpiffeId;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
