//! theater-pki
