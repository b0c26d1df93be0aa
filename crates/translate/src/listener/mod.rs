//! Listeners.

pub(crate) mod filter_chain;
pub(crate) mod gateway;
pub(crate) mod inbound;
pub(crate) mod inspectors;
pub(crate) mod outbound;
pub(crate) mod tcp_routes;
pub(crate) mod virtual_outbound;

use crate::ProxyInfo;
use serde_json::Value;
use xds::envoy::config::listener::v3::listener::ConnectionBalanceConfig;
use xds::envoy::config::listener::v3::listener::connection_balance_config::{
    BalanceType, ExactBalance,
};

/// Whether connections are spread evenly over the threads of a proxy: by a switch in its metadata, one for each direction.
fn balance(proxy: &ProxyInfo, switch: &str) -> Option<ConnectionBalanceConfig> {
    proxy.switch(switch).then_some(ConnectionBalanceConfig {
        balance_type: Some(BalanceType::ExactBalance(ExactBalance {})),
    })
}

/// Whether a proxy itself listens on a port of all addresses: for health and metrics.
fn is_static_port(proxy: &ProxyInfo, port: u32) -> bool {
    [
        "ENVOY_STATUS_PORT",
        "ENVOY_PROMETHEUS_PORT",
        "ENVOY_SECURE_METRICS_PORT",
        "ENVOY_SECURE_MERGED_METRICS_PORT",
    ]
    .into_iter()
    .any(|key| proxy.metadata.get(key).and_then(Value::as_f64) == Some(f64::from(port)))
}
