//! What a management server may send: decoding and compiling never panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::route::v3::RouteConfiguration;

fuzz_target!(|data: &[u8]| {
    if let Ok(routes) = RouteConfiguration::decode(data) {
        let _ = dataplane::route::RouteTable::compile(&routes);
    }
    if let Ok(cluster) = Cluster::decode(data) {
        let _ = dataplane::cluster::ClusterConfig::compile(&cluster);
    }
});
