//! Clusters that exist in every proxy: passthrough, inbound passthrough and the black hole.

use super::connection_pool::{self, HttpOptions, Upstream};
use super::{metadata_exchange, set_http_options};
use crate::context::Context;
use crate::names;
use crate::proto::{duration, socket};
use crate::protocol::Protocol;
use crate::traffic_policy::Policy;
use api::istio::Duration;
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};
use xds::envoy::config::core::v3::BindConfig;

/// No endpoints at all.
pub(crate) fn black_hole(context: &Context<'_>) -> Cluster {
    Cluster {
        name: names::BLACK_HOLE.to_owned(),
        alt_stat_name: names::stat(names::BLACK_HOLE),
        connect_timeout: Some(duration(context.snapshot.mesh.connect_timeout())),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        ..Default::default()
    }
}

/// The address the client asked for.
pub(crate) fn outbound(context: &Context<'_>) -> Cluster {
    let mut cluster = passthrough(context, names::PASSTHROUGH);
    if !context.proxy.plain_envoy {
        cluster.filters.push(metadata_exchange());
    }
    cluster
}

/// The address the client asked for, reached from an address that is not redirected again.
pub(crate) fn inbound(context: &Context<'_>) -> Cluster {
    let mut cluster = passthrough(context, names::INBOUND_PASSTHROUGH);
    cluster.upstream_bind_config = Some(inbound_bind());
    cluster
}

/// The source address of connections to the application.
pub(crate) fn inbound_bind() -> BindConfig {
    BindConfig {
        source_address: Some(socket("127.0.0.6", 0)),
        ..Default::default()
    }
}

fn passthrough(context: &Context<'_>, name: &str) -> Cluster {
    let mut cluster = Cluster {
        name: name.to_owned(),
        alt_stat_name: names::stat(names::PASSTHROUGH),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(
            DiscoveryType::OriginalDst as i32,
        )),
        lb_policy: LbPolicy::ClusterProvided as i32,
        ..Default::default()
    };
    // Of the mesh's connection pool, only what is not HTTP's.
    let pool = connection_pool::effective_pool(context, &Policy::default());
    let mut unused = HttpOptions::new(Protocol::Auto, true);
    connection_pool::apply(context, &mut cluster, &mut unused, pool, None);
    let mut options = HttpOptions::new(Protocol::Auto, true);
    options.upstream = Upstream::Downstream;
    options.idle_timeout(Duration::from_secs(300));
    if context
        .proxy_config
        .proxy_headers
        .as_ref()
        .is_some_and(|headers| headers.preserve_http1_header_case == Some(true))
    {
        options.preserve_case(Protocol::Auto);
    }
    if let Some(options) = options.finish() {
        set_http_options(&mut cluster, &options);
    }
    cluster
}
