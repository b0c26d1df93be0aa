//! Istio object kinds: serde structs, one file a kind, and the CRDs derived from them.
