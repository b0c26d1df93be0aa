//! The admission webhooks (admission.k8s.io/v1): sidecar injection, and validation of Istio's objects.

pub mod inject;
pub mod probes;
pub mod registration;
pub mod review;
pub mod validate;
