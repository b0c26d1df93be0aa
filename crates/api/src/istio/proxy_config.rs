//! ProxyConfig: settings of single proxies.

use super::LabelSelector;
use std::collections::BTreeMap;

message! {
    /// Settings of the proxies that are selected.
    pub struct ProxyConfig {
        /// The workloads.
        pub selector: Option<LabelSelector>,
        /// Worker threads.
        pub concurrency: Option<i32>,
        /// Environment variables of the proxy.
        pub environment_variables: BTreeMap<String, String>,
        /// The image.
        pub image: Option<ProxyImage>,
    }

    /// The image of a proxy.
    pub struct ProxyImage {
        /// `default`, `debug` or `distroless`.
        pub image_type: String,
    }
}
