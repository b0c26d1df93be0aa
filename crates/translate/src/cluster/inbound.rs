//! Clusters from a sidecar to its application.

use super::connection_pool::{self, HttpOptions, Upstream};
use super::{metadata, passthrough, set_http_options};
use crate::context::Context;
use crate::inbound_targets::InboundTarget;
use crate::names;
use crate::proto::{address, text};
use crate::registry::{Resolution, Service, ServicePort, TargetPort};
use crate::traffic_policy::Policy;
use api::istio::InboundTrafficPolicyMode;
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, LbConfig, LbPolicy, OriginalDstLbConfig,
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
    let pattern = &context.snapshot.mesh.inbound_cluster_stat_name;
    if !pattern.is_empty() {
        cluster.alt_stat_name = stat_name(context, target, pattern);
    }
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
            cluster.lb_config = port_override(target);
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
    // Also the rule of the own service counts only where the Sidecar object lets the proxy see that service.
    let seen = target.service();
    let seen = seen.and_then(|service| context.scope.service(&service.host));
    let rule = seen.and_then(|service| {
        context.snapshot.destination_rules.inbound(
            context.namespace(),
            &service.host,
            &service.namespace,
        )
    });
    let policy = Policy::of_rule(rule.map(|rule| &rule.spec), target.service_port());
    let sidecar = context.scope.sidecar.map(|sidecar| &sidecar.spec);
    let own_pool = target
        .ingress
        .and_then(|ingress| ingress.connection_pool.as_ref())
        .or_else(|| sidecar.and_then(|sidecar| sidecar.inbound_connection_pool.as_ref()));
    let pool = own_pool.or_else(|| connection_pool::effective_pool(context, &policy));
    // All services whose port is that of the first, each host once.
    let mut services: Vec<&Service> = Vec::new();
    for (service, port) in &target.services {
        let first = target.services.first().is_some_and(|(_, own)| own == port);
        let known = services.iter().any(|other| other.host == service.host);
        if first && !known && (target.ingress.is_none() || services.is_empty()) {
            services.push(service);
        }
    }
    if services
        .first()
        .is_some_and(|service| service.mesh_external)
    {
        services.clear();
    }
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

/// The target port that a ServiceEntry without resolution says.
fn port_override(target: &InboundTarget<'_>) -> Option<LbConfig> {
    let (service, port) = target.services.first()?;
    let own = !service.kubernetes && service.resolution == Resolution::Passthrough;
    match service.port(*port)?.target {
        TargetPort::Number(number) if own && target.ingress.is_none() => {
            Some(LbConfig::OriginalDstLbConfig(OriginalDstLbConfig {
                upstream_port_override: Some(number),
                ..OriginalDstLbConfig::default()
            }))
        }
        _ => None,
    }
}

/// The statistics name by the pattern of the mesh.
fn stat_name(context: &Context<'_>, target: &InboundTarget<'_>, pattern: &str) -> String {
    let port = ServicePort::bare(target.service_port(), target.port_name());
    if let Some(service) = target.service() {
        let filled = names::filled(pattern, service, &service.host, "", &port, target.port);
        return names::stat(&filled);
    }
    // An ingress listener that no service leads to has the name of the Sidecar object.
    let host = context.scope.sidecar.map_or_else(String::new, |sidecar| {
        format!("{}.{}", sidecar.name, sidecar.namespace)
    });
    let filled = pattern
        .replace("%SERVICE%", &host)
        .replace("%SERVICE_NAME%", &host)
        .replace("%SERVICE_FQDN%", &host)
        .replace("%SUBSET_NAME%", "")
        .replace("%TARGET_PORT%", &target.port.to_string())
        .replace("%SERVICE_PORT%", &port.number.to_string())
        .replace("%SERVICE_PORT_NAME%", &port.name);
    names::stat(&filled)
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
        // Addresses of the other family stand for those that the proxy has.
        let first = |v6: bool| {
            let mut own = context.proxy.addresses.iter();
            own.find(|address| address.contains(':') == v6).cloned()
        };
        let has_v4 = first(false).is_some();
        let address = match host {
            "0.0.0.0" => first(false).unwrap_or_else(|| "127.0.0.1".to_owned()),
            "[::]" => first(true).unwrap_or_else(|| "::1".to_owned()),
            "127.0.0.1" if has_v4 => "127.0.0.1".to_owned(),
            "[::1]" if first(true).is_none() => "127.0.0.1".to_owned(),
            "127.0.0.1" | "[::1]" => "::1".to_owned(),
            // Anything else is the address the client asked for.
            _ => return None,
        };
        return Some((address, port));
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
