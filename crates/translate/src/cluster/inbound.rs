//! Clusters from a sidecar to its application.

use super::connection_pool::{self, HttpOptions, Upstream};
use super::{metadata, passthrough, set_http_options};
use crate::context::Context;
use crate::inbound_targets::InboundTarget;
use crate::names;
use crate::proto::{address, text};
use crate::traffic_policy::Policy;
use api::istio::InboundTrafficPolicyMode;
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, LbPolicy,
};
use xds::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use xds::prost_types::Duration;

pub(crate) fn cluster(context: &Context<'_>, target: &InboundTarget<'_>) -> Cluster {
    let name = names::inbound(target.port);
    let mut cluster = Cluster {
        name: name.clone(),
        alt_stat_name: names::stat(&name),
        ..Default::default()
    };
    let destination = destination(context, target);
    match &destination {
        None => {
            cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(
                DiscoveryType::OriginalDst as i32,
            ));
            cluster.lb_policy = LbPolicy::ClusterProvided as i32;
            cluster.cleanup_interval = Some(Duration {
                seconds: 9_223_372_035,
                nanos: 0,
            });
            cluster.common_lb_config = Some(CommonLbConfig::default());
            cluster.upstream_bind_config = Some(passthrough::inbound_bind());
        }
        Some((host, port)) => {
            cluster.cluster_discovery_type =
                Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32));
            cluster.load_assignment = Some(single_endpoint(&name, host, *port));
            cluster.common_lb_config = Some(CommonLbConfig::default());
            if host != "127.0.0.1" && host != "::1" {
                cluster.upstream_bind_config = Some(passthrough::inbound_bind());
            }
        }
    }
    let rule = target.service().and_then(|service| {
        context.snapshot.destination_rules.inbound(
            context.namespace(),
            &service.host,
            &service.namespace,
        )
    });
    let service_port = target
        .services
        .first()
        .map_or(target.port, |(_, port)| *port);
    let policy = Policy::of_rule(rule.map(|rule| &rule.spec), service_port);
    let sidecar = context.scope.sidecar.map(|sidecar| &sidecar.spec);
    let own_pool = target
        .ingress
        .and_then(|ingress| ingress.connection_pool.as_ref())
        .or_else(|| sidecar.and_then(|sidecar| sidecar.inbound_connection_pool.as_ref()));
    let pool = own_pool.or_else(|| connection_pool::effective_pool(context, &policy));
    let services: Vec<_> = target
        .services
        .iter()
        .take(1)
        .map(|(service, _)| service.as_ref())
        .collect();
    let mut extra = Vec::new();
    if let Some(rule) = rule.filter(|rule| rule.spec.traffic_policy.is_some()) {
        extra.push((
            "config",
            text(names::config_path(
                "destination-rule",
                &rule.namespace,
                &rule.name,
            )),
        ));
    }
    if !services.is_empty() {
        cluster.metadata = Some(metadata(&services, extra));
    }
    let mut options = HttpOptions::new(target.protocol, true);
    if pool
        .and_then(|pool| pool.http.as_ref())
        .is_some_and(|http| http.use_client_protocol)
    {
        options.upstream = Upstream::Downstream;
    }
    connection_pool::apply(
        context,
        &mut cluster,
        &mut options,
        pool,
        policy.retry_budget,
    );
    if context
        .proxy_config
        .proxy_headers
        .as_ref()
        .is_some_and(|headers| headers.preserve_http1_header_case == Some(true))
    {
        options.preserve_case(target.protocol);
    }
    if let Some(options) = options.finish() {
        set_http_options(&mut cluster, &options);
    }
    cluster
}

/// Where the application listens, if it is not the address the client asked for.
fn destination(context: &Context<'_>, target: &InboundTarget<'_>) -> Option<(String, u32)> {
    if let Some(ingress) = target.ingress {
        let endpoint = ingress.default_endpoint.as_str();
        if endpoint.starts_with("unix://") {
            return Some((endpoint.to_owned(), 0));
        }
        let (host, port) = endpoint.rsplit_once(':')?;
        let port = port.parse().ok()?;
        return Some(match host {
            "0.0.0.0" | "[::]" => (context.proxy.ip().to_owned(), port),
            host => (host.trim_matches(['[', ']']).to_owned(), port),
        });
    }
    let policy = context.snapshot.mesh.inbound_traffic_policy.as_ref()?;
    (policy.mode == InboundTrafficPolicyMode::Localhost)
        .then(|| ("127.0.0.1".to_owned(), target.port))
}

fn single_endpoint(name: &str, host: &str, port: u32) -> ClusterLoadAssignment {
    let endpoint = LbEndpoint {
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(Endpoint {
            address: Some(address(host, port)),
            ..Default::default()
        })),
        ..Default::default()
    };
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![endpoint],
            ..Default::default()
        }],
        ..Default::default()
    }
}
