//! What Go's standard library accepts and says where Kubernetes and Istio pass its errors on to the user.
//!
//! The checks follow Go's documented behaviour, which differs from Rust's in places that users meet: `0x10` and `1_0` as
//! numbers, zones in addresses, RE2 syntax, requests URIs.

pub mod fmt;
pub mod netip;
pub mod regexp;
pub mod strconv;
pub mod time;
pub mod url;
