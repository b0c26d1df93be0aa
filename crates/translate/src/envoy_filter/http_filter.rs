//! Patches of the filters inside of the HTTP connection manager.

use super::listener::{ListenerPatches, filter_name};
use super::{Patch, list, merge};
use crate::Problem;
use api::istio::PatchOperation;
use xds::envoy::config::listener::v3::{Filter, filter::ConfigType};
use xds::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_filter,
};

pub(super) const HTTP_CONNECTION_MANAGER: &str = "envoy.filters.network.http_connection_manager";

impl ListenerPatches<'_, '_> {
    /// Patches the HTTP filters of a connection manager; `patches` are those that match the filter chain.
    pub(super) fn connection_manager(&self, filter: &mut Filter, patches: &[&Patch]) {
        let patches: Vec<&Patch> = patches
            .iter()
            .copied()
            .filter(|patch| filter_name(patch).is_none_or(|name| name == filter.name))
            .collect();
        let Some(ConfigType::TypedConfig(any)) = &mut filter.config_type else {
            return;
        };
        if patches.is_empty() {
            return;
        }
        let Ok(Some(mut manager)) = xds::any::unpack::<HttpConnectionManager>(any) else {
            return;
        };
        for patch in &patches {
            let name = sub_filter_name(patch);
            list::edit(
                &mut manager.http_filters,
                patch,
                name.is_some(),
                |filter: &HttpFilter| Some(filter.name.as_str()) == name,
            );
        }
        for filter in &mut manager.http_filters {
            for patch in &patches {
                if patch.operation == PatchOperation::Merge
                    && sub_filter_name(patch).is_none_or(|name| name == filter.name)
                {
                    self.note(merge_filter(filter, patch));
                }
            }
        }
        *any = xds::any::pack(&manager);
    }
}

fn sub_filter_name(patch: &Patch) -> Option<&str> {
    let chain = patch.listener.as_ref()?.filter_chain.as_ref()?;
    Some(&chain.filter.as_ref()?.sub_filter.as_ref()?.name)
}

fn merge_filter(filter: &mut HttpFilter, patch: &Patch) -> Result<(), Problem> {
    let Some(value) = patch.message::<HttpFilter>() else {
        return Ok(());
    };
    let Some(http_filter::ConfigType::TypedConfig(own)) = &mut filter.config_type else {
        return Err(patch.problem(
            ".patch",
            format!("filter {:?} has no typed_config to merge into", filter.name),
        ));
    };
    if let Some(http_filter::ConfigType::TypedConfig(other)) = &value.config_type {
        merge::any(own, other, patch)?;
    }
    if !value.name.is_empty() {
        filter.name = value.name;
    }
    Ok(())
}
