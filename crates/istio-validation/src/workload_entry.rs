//! WorkloadEntry, and the endpoints of a ServiceEntry.

use crate::Object;
use crate::message::Message;
use crate::names;
use crate::problem::Validation;
use api::field::quote;

pub(crate) fn validate(object: &Object<'_>) -> Validation {
    endpoint(object.spec, None)
}

/// An endpoint; those of a ServiceEntry may use the ports of its `service` only and have no names for addresses.
pub(crate) fn endpoint(entry: Message<'_>, service: Option<&[&str]>) -> Validation {
    let mut v = Validation::default();
    let address = entry.text("address");
    if address.is_empty() {
        let network = entry.text("network");
        if network.is_empty() {
            v.fail("address is required");
            return v;
        }
        v.warn(format!("address is unset with network {}", quote(network)));
    }
    let unix = address.strip_prefix("unix://");
    if let Some(path) = unix {
        v.errors(names::unix_address(path));
        if entry.map("ports").is_some_and(|ports| !ports.is_empty()) {
            v.fail(format!("unix endpoint {address} must not include ports"));
        }
    } else if !address.is_empty() && !names::is_ip(address) {
        if service.is_some() {
            v.fail(format!(
                "endpoint address {} is not a valid IP address",
                quote(address)
            ));
        } else if names::fqdn(address).is_some() {
            v.fail(no_address(address));
        }
    }
    ports(entry, service, &mut v);
    v.errors(names::labels(entry, "labels"));
    if unix.is_some() && service.is_some_and(|ports| ports.len() != 1) {
        v.fail("exactly 1 service port required for unix endpoints");
    }
    v
}

pub(crate) fn no_address(address: &str) -> String {
    format!(
        "endpoint address {} is not a valid FQDN or an IP address",
        quote(address)
    )
}

pub(crate) fn ports(entry: Message<'_>, service: Option<&[&str]>, v: &mut Validation) {
    for (name, port) in entry.entries("ports") {
        let port = port.own_int();
        if service.is_some_and(|ports| !ports.contains(&name)) {
            v.fail(format!(
                "endpoint port {port} is not defined by the service entry"
            ));
        }
        v.errors(names::port_name(name));
        v.errors(names::port(port));
    }
}
