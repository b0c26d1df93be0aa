//! The admission webhook for sidecar injection (admission.k8s.io/v1).

pub mod inject;
pub mod probes;
pub mod review;
