//! Envoy's bootstrap: the same file drives this proxy.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use xds::envoy::config::bootstrap::v3::Bootstrap;
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::core::v3::address::Address as AddressKind;
use xds::envoy::config::core::v3::api_config_source::ApiType;
use xds::envoy::config::core::v3::grpc_service::TargetSpecifier;
use xds::envoy::config::core::v3::socket_address::PortSpecifier;
use xds::envoy::config::core::v3::transport_socket::ConfigType;
use xds::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use xds::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;

use crate::tls::client::ClientContext;
use crate::tls::secrets::Secrets;
use crate::xds_client::channel::TargetAddress;
use crate::xds_client::{Mode, Target};

/// Reads a bootstrap from YAML or JSON text. Unknown fields are refused.
///
/// # Errors
/// Where the text is not a bootstrap.
pub fn parse(text: &str) -> Result<Bootstrap, String> {
    let value: serde_json::Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(_) => {
            yaml_serde::from_str(text).map_err(|error| format!("neither JSON nor YAML: {error}"))?
        }
    };
    xds::json::from_value::<Bootstrap>(value, true).map_err(|error| error.to_string())
}

/// Reads a bootstrap file.
///
/// # Errors
/// When it cannot be read or is no bootstrap.
pub fn read(path: &Path) -> Result<Bootstrap, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Looks for what this proxy cannot do: an operator must not believe that it is done.
///
/// # Errors
/// The path of the first such field.
pub fn check(bootstrap: &Bootstrap) -> Result<(), String> {
    use xds::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
    let clusters = bootstrap.cluster_manager.as_ref();
    for (field, set) in [
        ("hds_config", bootstrap.hds_config.is_some()),
        ("stats_sinks", !bootstrap.stats_sinks.is_empty()),
        ("flags_path", !bootstrap.flags_path.is_empty()),
        ("header_prefix", !bootstrap.header_prefix.is_empty()),
        ("fatal_actions", !bootstrap.fatal_actions.is_empty()),
        ("config_sources", !bootstrap.config_sources.is_empty()),
        (
            "default_config_source",
            bootstrap.default_config_source.is_some(),
        ),
        (
            "default_socket_interface",
            !bootstrap.default_socket_interface.is_empty(),
        ),
        (
            "certificate_provider_instances",
            !bootstrap.certificate_provider_instances.is_empty(),
        ),
        ("inline_headers", !bootstrap.inline_headers.is_empty()),
        (
            "xds_delegate_extension",
            bootstrap.xds_delegate_extension.is_some(),
        ),
        (
            "xds_config_tracker_extension",
            bootstrap.xds_config_tracker_extension.is_some(),
        ),
        (
            "cluster_manager.local_cluster_name",
            clusters.is_some_and(|manager| !manager.local_cluster_name.is_empty()),
        ),
        (
            "cluster_manager.outlier_detection",
            clusters.is_some_and(|manager| manager.outlier_detection.is_some()),
        ),
        (
            "cluster_manager.load_stats_config",
            clusters.is_some_and(|manager| manager.load_stats_config.is_some()),
        ),
    ] {
        if set {
            return Err(format!("{field}: is not supported"));
        }
    }
    for (index, extension) in bootstrap.bootstrap_extensions.iter().enumerate() {
        // Internal listeners exist only where a listener says so, and such a listener is refused.
        if extension.name != "envoy.bootstrap.internal_listener" {
            return Err(format!(
                "bootstrap_extensions[{index}]: {} is not supported",
                extension.name
            ));
        }
    }
    if let Some(overload) = &bootstrap.overload_manager {
        for (field, set) in [
            ("actions", !overload.actions.is_empty()),
            ("loadshed_points", !overload.loadshed_points.is_empty()),
        ] {
            if set {
                return Err(format!("overload_manager.{field}: are not supported"));
            }
        }
        for (index, monitor) in overload.resource_monitors.iter().enumerate() {
            use xds::envoy::config::overload::v3::resource_monitor::ConfigType;
            use xds::envoy::extensions::resource_monitors::downstream_connections::v3::DownstreamConnectionsConfig;
            let unlimited = match &monitor.config_type {
                Some(ConfigType::TypedConfig(any)) => {
                    xds::any::unpack::<DownstreamConnectionsConfig>(any)
                        .ok()
                        .flatten()
                        .is_some_and(|config| {
                            config.max_active_downstream_connections >= i64::from(i32::MAX)
                        })
                }
                None => false,
            };
            if !unlimited {
                return Err(format!(
                    "overload_manager.resource_monitors[{index}]: {} is not supported (but for connections without a limit)",
                    monitor.name
                ));
            }
        }
    }
    if let Some(dynamic) = &bootstrap.dynamic_resources {
        for (field, source) in [
            ("lds_config", &dynamic.lds_config),
            ("cds_config", &dynamic.cds_config),
        ] {
            let Some(source) = source else { continue };
            if !matches!(
                source.config_source_specifier,
                Some(ConfigSourceSpecifier::Ads(_))
            ) {
                return Err(format!("dynamic_resources.{field}: only ads is supported"));
            }
            if dynamic.ads_config.is_none() {
                return Err(format!(
                    "dynamic_resources.{field}: is ads, but ads_config is missing"
                ));
            }
        }
    }
    Ok(())
}

/// The management server of a bootstrap that has one.
///
/// # Errors
/// When it is described in a way that is not supported.
pub fn management_server(
    bootstrap: &Bootstrap,
    secrets: &Arc<Secrets>,
    mark: Option<u32>,
) -> Result<Option<(Target, Mode)>, String> {
    let Some(ads) = bootstrap
        .dynamic_resources
        .as_ref()
        .and_then(|dynamic| dynamic.ads_config.as_ref())
    else {
        return Ok(None);
    };
    let mode = match ads.api_type() {
        ApiType::DeltaGrpc | ApiType::AggregatedDeltaGrpc => Mode::Delta,
        ApiType::Grpc | ApiType::AggregatedGrpc => Mode::StateOfTheWorld,
        other => {
            return Err(format!(
                "ads_config.api_type {} is not supported",
                other.as_str_name()
            ));
        }
    };
    let service = ads
        .grpc_services
        .first()
        .ok_or("ads_config.grpc_services is empty")?;
    match &service.target_specifier {
        Some(TargetSpecifier::EnvoyGrpc(grpc)) => {
            let cluster = bootstrap
                .static_resources
                .iter()
                .flat_map(|resources| &resources.clusters)
                .find(|cluster| cluster.name == grpc.cluster_name)
                .ok_or_else(|| {
                    format!(
                        "ads_config: there is no static cluster {:?}",
                        grpc.cluster_name
                    )
                })?;
            let mut target = target_of(cluster, secrets, mark)?;
            if !grpc.authority.is_empty() {
                target.authority.clone_from(&grpc.authority);
            }
            Ok(Some((target, mode)))
        }
        Some(TargetSpecifier::GoogleGrpc(grpc)) => {
            let (host, port) = grpc
                .target_uri
                .rsplit_once(':')
                .and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)))
                .ok_or_else(|| {
                    format!(
                        "ads_config: target_uri {:?} is not host:port",
                        grpc.target_uri
                    )
                })?;
            let target = Target {
                authority: grpc.target_uri.clone(),
                address: TargetAddress::Host(host, port),
                tls: None,
                mark,
                token_file: None,
            };
            Ok(Some((target, mode)))
        }
        None => Err("ads_config.grpc_services[0] names no target".into()),
    }
}

fn target_of(
    cluster: &Cluster,
    secrets: &Arc<Secrets>,
    mark: Option<u32>,
) -> Result<Target, String> {
    let address = cluster
        .load_assignment
        .iter()
        .flat_map(|assignment| &assignment.endpoints)
        .flat_map(|locality| &locality.lb_endpoints)
        .find_map(|endpoint| match &endpoint.host_identifier {
            Some(HostIdentifier::Endpoint(endpoint)) => endpoint.address.as_ref()?.address.as_ref(),
            _ => None,
        })
        .ok_or_else(|| format!("cluster {:?} has no endpoint", cluster.name))?;
    let address = match address {
        AddressKind::SocketAddress(socket) => {
            let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else {
                return Err(format!(
                    "cluster {:?}: its endpoint has no port",
                    cluster.name
                ));
            };
            TargetAddress::Host(socket.address.clone(), port as u16)
        }
        AddressKind::Pipe(pipe) => TargetAddress::Pipe(PathBuf::from(&pipe.path)),
        AddressKind::EnvoyInternalAddress(_) => {
            return Err("internal addresses are not supported".into());
        }
    };
    let tls = match cluster
        .transport_socket
        .as_ref()
        .and_then(|socket| socket.config_type.as_ref())
    {
        Some(ConfigType::TypedConfig(any)) => match xds::any::unpack::<UpstreamTlsContext>(any) {
            Ok(Some(context)) => Some(Arc::new(
                ClientContext::new(&context, secrets.clone()).map_err(|error| error.to_string())?,
            )),
            _ => None,
        },
        None => None,
    };
    let authority = match &address {
        TargetAddress::Host(host, port) => format!("{host}:{port}"),
        TargetAddress::Pipe(_) => cluster.name.clone(),
    };
    Ok(Target {
        address,
        tls,
        authority,
        mark,
        token_file: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_done_is_refused_by_its_path() {
        for (yaml, field) in [
            ("hds_config: {api_type: GRPC}", "hds_config: "),
            ("stats_sinks: [{name: s}]", "stats_sinks: "),
            (
                "dynamic_resources: {lds_config: {path_config_source: {path: /x}}}",
                "dynamic_resources.lds_config: only ads",
            ),
            (
                "dynamic_resources: {cds_config: {ads: {}}}",
                "dynamic_resources.cds_config: is ads, but ads_config is missing",
            ),
            (
                "overload_manager: {actions: [{name: a}]}",
                "overload_manager.actions: ",
            ),
            (
                "bootstrap_extensions: [{name: envoy.bootstrap.wasm}]",
                "bootstrap_extensions[0]: envoy.bootstrap.wasm",
            ),
        ] {
            let error = check(&parse(yaml).expect("a bootstrap")).expect_err(yaml);
            assert!(error.starts_with(field), "{error}");
        }
        check(&parse("node: {id: x}").expect("a bootstrap")).expect("nothing to refuse");
    }
}
