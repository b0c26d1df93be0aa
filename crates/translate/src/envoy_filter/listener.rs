//! Patches of listeners, listener filters, filter chains and network filters.

use super::http_filter::HTTP_CONNECTION_MANAGER;
use super::{GatewayPorts, Patch, Patches, list, merge};
use crate::Problem;
use crate::context::ListenerClass;
use api::istio::{ApplyTo, PatchOperation};
use std::collections::BTreeSet;
use xds::envoy::config::core::v3::address::Address;
use xds::envoy::config::core::v3::socket_address::PortSpecifier;
use xds::envoy::config::core::v3::transport_socket;
use xds::envoy::config::listener::v3::filter::ConfigType;
use xds::envoy::config::listener::v3::{Filter, FilterChain, Listener, ListenerFilter};
use xds::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager::RouteSpecifier,
};

/// The patches that matter for the listeners of one direction.
pub(super) struct ListenerPatches<'a, 'b> {
    pub(super) all: &'b Patches<'a>,
    listeners: Vec<&'a Patch>,
    listener_filters: Vec<&'a Patch>,
    chains: Vec<&'a Patch>,
    filters: Vec<&'a Patch>,
    pub(super) http_filters: Vec<&'a Patch>,
}

impl Patches<'_> {
    /// Patches the listeners of one direction, and the routes that are written inside of them.
    pub(crate) fn listeners(
        &self,
        class: ListenerClass,
        mut listeners: Vec<Listener>,
    ) -> Vec<Listener> {
        if self.is_empty() {
            return listeners;
        }
        let patches = ListenerPatches {
            all: self,
            listeners: self.of(ApplyTo::Listener, class),
            listener_filters: self.of(ApplyTo::ListenerFilter, class),
            chains: self.of(ApplyTo::FilterChain, class),
            filters: self.of(ApplyTo::NetworkFilter, class),
            http_filters: self.of(ApplyTo::HttpFilter, class),
        };
        if class == ListenerClass::SidecarInbound {
            self.inline_routes(class, &mut listeners);
        }
        listeners.retain_mut(|listener| patches.listener(listener));
        for patch in patches.listeners {
            if !patch.adds_to(class) {
                continue;
            }
            let Some(added) = patch.message::<Listener>() else {
                continue;
            };
            if listeners.iter().any(|known| known.name == added.name) {
                self.report(patch.problem(
                    ".patch.value.name",
                    format!(
                        "there is a listener {:?} already; MERGE changes it",
                        added.name
                    ),
                ));
                continue;
            }
            listeners.push(added);
        }
        listeners
    }

    fn inline_routes(&self, class: ListenerClass, listeners: &mut [Listener]) {
        let ports = GatewayPorts::new();
        let routes = self.routes(class, &ports);
        if routes.is_empty() {
            return;
        }
        for filter in listeners.iter_mut().flat_map(filters_mut) {
            let Some(ConfigType::TypedConfig(any)) = &mut filter.config_type else {
                continue;
            };
            let Ok(Some(mut manager)) = xds::any::unpack::<HttpConnectionManager>(any) else {
                continue;
            };
            if let Some(RouteSpecifier::RouteConfig(configuration)) = &mut manager.route_specifier {
                routes.apply(configuration);
                *any = xds::any::pack(&manager);
            }
        }
    }
}

fn filters_mut(listener: &mut Listener) -> impl Iterator<Item = &mut Filter> {
    listener
        .filter_chains
        .iter_mut()
        .chain(&mut listener.default_filter_chain)
        .flat_map(|chain| &mut chain.filters)
}

/// Names of the route configurations that listeners ask for.
pub(crate) fn route_names<'a>(
    listeners: impl IntoIterator<Item = &'a Listener>,
) -> BTreeSet<String> {
    listeners
        .into_iter()
        .flat_map(|listener| {
            listener
                .filter_chains
                .iter()
                .chain(&listener.default_filter_chain)
        })
        .flat_map(|chain| &chain.filters)
        .filter_map(|filter| match &filter.config_type {
            Some(ConfigType::TypedConfig(any)) => {
                xds::any::unpack::<HttpConnectionManager>(any).ok()?
            }
            _ => None,
        })
        .filter_map(|manager| match manager.route_specifier {
            Some(RouteSpecifier::Rds(rds)) => Some(rds.route_config_name),
            _ => None,
        })
        .collect()
}

/// Names of the filters whose configuration listeners ask for.
pub(crate) fn discovered_names<'a>(
    listeners: impl IntoIterator<Item = &'a Listener>,
) -> BTreeSet<String> {
    fn find(value: &serde_json::Value, out: &mut BTreeSet<String>) {
        match value {
            serde_json::Value::Object(map) => {
                if map.contains_key("config_discovery")
                    && let Some(name) = map.get("name").and_then(serde_json::Value::as_str)
                {
                    out.insert(name.to_owned());
                }
                map.values().for_each(|value| find(value, out));
            }
            serde_json::Value::Array(items) => items.iter().for_each(|value| find(value, out)),
            _ => {}
        }
    }
    let mut out = BTreeSet::new();
    for listener in listeners {
        if let Ok(value) = xds::json::to_value(listener) {
            find(&value, &mut out);
        }
    }
    out
}

impl ListenerPatches<'_, '_> {
    /// Whether the listener stays.
    fn listener(&self, listener: &mut Listener) -> bool {
        for patch in &self.listeners {
            if !is_listener(patch, listener) {
                continue;
            }
            if patch.operation == PatchOperation::Remove {
                return false;
            }
            if patch.is_merge() {
                self.note(merge::message(listener, patch));
            }
        }
        for patch in &self.listener_filters {
            if is_listener(patch, listener) {
                let name = patch
                    .listener
                    .as_ref()
                    .map_or("", |wanted| wanted.listener_filter.as_str());
                if patch.operation == PatchOperation::Merge && !name.is_empty() {
                    // As at istiod, into every filter of the listener.
                    for filter in &mut listener.listener_filters {
                        self.note(merge_listener_filter(filter, patch));
                    }
                    continue;
                }
                list::edit(
                    &mut listener.listener_filters,
                    patch,
                    !name.is_empty(),
                    |filter: &ListenerFilter| filter.name == name,
                );
            }
        }
        self.filter_chains(listener);
        true
    }

    fn filter_chains(&self, listener: &mut Listener) {
        let mut chains = std::mem::take(&mut listener.filter_chains);
        chains.retain_mut(|chain| !chain.filters.is_empty() && self.filter_chain(listener, chain));
        let default = listener.default_filter_chain.take();
        listener.default_filter_chain =
            default.and_then(|mut chain| self.filter_chain(listener, &mut chain).then_some(chain));
        for patch in &self.chains {
            if patch.operation == PatchOperation::Add && is_listener(patch, listener) {
                // One without filters is left out.
                let added = patch.message::<FilterChain>();
                chains.extend(added.filter(|chain| !chain.filters.is_empty()));
            }
        }
        listener.filter_chains = chains;
    }

    /// Whether the filter chain stays.
    fn filter_chain(&self, listener: &Listener, chain: &mut FilterChain) -> bool {
        for patch in &self.chains {
            if !is_listener(patch, listener) || !is_chain(patch, listener, chain) {
                continue;
            }
            if patch.operation == PatchOperation::Remove {
                return false;
            }
            if patch.is_merge() {
                self.note(merge_chain(chain, patch));
            }
        }
        let filters: Vec<&Patch> = self.of_chain(&self.filters, listener, chain);
        for patch in &filters {
            let name = filter_name(patch);
            list::edit(
                &mut chain.filters,
                patch,
                name.is_some(),
                |filter: &Filter| Some(filter.name.as_str()) == name,
            );
        }
        let http_filters = self.of_chain(&self.http_filters, listener, chain);
        for filter in &mut chain.filters {
            for patch in &filters {
                if patch.operation == PatchOperation::Merge
                    && filter_name(patch).is_none_or(|name| name == filter.name)
                {
                    self.note(merge_filter(filter, patch));
                }
            }
            if filter.name == HTTP_CONNECTION_MANAGER {
                self.connection_manager(filter, &http_filters);
            }
        }
        true
    }

    fn of_chain<'p>(
        &self,
        patches: &[&'p Patch],
        listener: &Listener,
        chain: &FilterChain,
    ) -> Vec<&'p Patch> {
        patches
            .iter()
            .copied()
            .filter(|patch| is_listener(patch, listener) && is_chain(patch, listener, chain))
            .collect()
    }

    pub(super) fn note(&self, result: Result<(), Problem>) {
        if let Err(problem) = result {
            self.all.report(problem);
        }
    }
}

/// Into a transport socket of the same name only its configuration is merged, as at istiod; the rest of the patch has no effect.
fn merge_chain(chain: &mut FilterChain, patch: &Patch) -> Result<(), Problem> {
    let value = patch.message::<FilterChain>();
    if let (Some(own), Some(value)) = (
        &mut chain.transport_socket,
        value.and_then(|value| value.transport_socket),
    ) && own.name == value.name
    {
        if let (
            Some(transport_socket::ConfigType::TypedConfig(own)),
            Some(transport_socket::ConfigType::TypedConfig(value)),
        ) = (&mut own.config_type, &value.config_type)
        {
            merge::any(own, value, patch)?;
        }
        return Ok(());
    }
    merge::message(chain, patch)
}

fn merge_filter(filter: &mut Filter, patch: &Patch) -> Result<(), Problem> {
    let Some(value) = patch.message::<Filter>() else {
        return Ok(());
    };
    let Some(ConfigType::TypedConfig(own)) = &mut filter.config_type else {
        return Err(patch.problem(
            ".patch",
            format!("filter {:?} has no typed_config to merge into", filter.name),
        ));
    };
    if let Some(ConfigType::TypedConfig(other)) = &value.config_type {
        merge::any(own, other, patch)?;
    }
    if !value.name.is_empty() {
        filter.name = value.name;
    }
    Ok(())
}

/// Only the configuration is merged, not the name.
fn merge_listener_filter(filter: &mut ListenerFilter, patch: &Patch) -> Result<(), Problem> {
    use xds::envoy::config::listener::v3::listener_filter::ConfigType;
    let value = patch.message::<ListenerFilter>();
    if let Some(ConfigType::TypedConfig(own)) = &mut filter.config_type
        && let Some(ConfigType::TypedConfig(other)) = value.and_then(|value| value.config_type)
    {
        merge::any(own, &other, patch)?;
    }
    Ok(())
}

/// The network filter that a patch names.
pub(super) fn filter_name(patch: &Patch) -> Option<&str> {
    let chain = patch.listener.as_ref()?.filter_chain.as_ref()?;
    Some(&chain.filter.as_ref()?.name)
}

/// The listeners that take all redirected connections. Their filter chains have the port.
fn is_virtual(listener: &Listener) -> bool {
    matches!(listener.name.as_str(), "virtualInbound" | "virtualOutbound")
}

fn is_listener(patch: &Patch, listener: &Listener) -> bool {
    let Some(wanted) = &patch.listener else {
        return true;
    };
    if !wanted.name.is_empty() && wanted.name != listener.name {
        return false;
    }
    if wanted.port_number == 0 || patch.apply_to != ApplyTo::Listener && is_virtual(listener) {
        return true;
    }
    let address = listener.address.as_ref().and_then(|it| it.address.as_ref());
    matches!(address, Some(Address::SocketAddress(socket))
        if socket.port_specifier == Some(PortSpecifier::PortValue(wanted.port_number)))
}

fn is_chain(patch: &Patch, listener: &Listener, chain: &FilterChain) -> bool {
    let Some(wanted) = &patch.listener else {
        return true;
    };
    let conditions = chain.filter_chain_match.clone().unwrap_or_default();
    let port = conditions.destination_port.map_or(0, Into::into);
    if is_virtual(listener) && wanted.port_number != 0 && wanted.port_number != port {
        return false;
    }
    let Some(wanted) = &wanted.filter_chain else {
        return true;
    };
    let protocols = || wanted.application_protocols.split(',');
    (wanted.name.is_empty() || wanted.name == chain.name)
        && (wanted.sni.is_empty() || conditions.server_names.contains(&wanted.sni))
        && (wanted.transport_protocol.is_empty()
            || wanted.transport_protocol == conditions.transport_protocol)
        && (wanted.application_protocols.is_empty()
            || protocols().all(|it| conditions.application_protocols.iter().any(|own| own == it)))
        && (wanted.destination_port == 0 || wanted.destination_port == port)
}
