//! Endpoints and EndpointSlices: which addresses stand behind a Service.

mod legacy;
mod members;
mod mirror;
mod slices;
pub mod trigger;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use kube_client::ENDPOINTS;
use serde_json::Value;

use crate::action::{Action, Target, Verb};

/// What a Service's endpoints are made from.
#[derive(Debug)]
pub struct Observed {
    /// The Service; `None` when it is gone.
    pub service: Option<Arc<Value>>,
    /// Pods of its namespace.
    pub pods: Vec<Arc<Value>>,
    /// The Endpoints object of the same name.
    pub endpoints: Option<Arc<Value>>,
    /// EndpointSlices of its namespace.
    pub slices: Vec<Arc<Value>>,
    /// Zones of nodes, by node name.
    pub zones: BTreeMap<String, String>,
}

/// What is to be done about the EndpointSlices and the Endpoints of a Service. EndpointSlices
/// come first: they are what traffic follows.
pub fn reconcile(observed: &Observed) -> Vec<Action> {
    let Some(service) = &observed.service else {
        // EndpointSlices belong to the Service and go with it; Endpoints only share its name.
        return observed
            .endpoints
            .iter()
            .map(|old| Action::delete(ENDPOINTS, old))
            .collect();
    };
    if service["spec"]["type"] == "ExternalName" {
        return Vec::new();
    }
    if !service["spec"]["selector"].is_object() {
        return mirror::reconcile(service, observed);
    }
    let mut actions = slices::of_service(service, observed);
    actions.extend(legacy::reconcile(service, observed));
    actions
}

/// Label by which an EndpointSlice names its Service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label of Services without a cluster address.
const HEADLESS: &str = "service.kubernetes.io/headless";

fn is_headless(service: &Value) -> bool {
    service["spec"]["clusterIP"] == "None"
}

fn create(resource: kube_client::Resource, object: Value) -> Action {
    let target = Target {
        name: String::new(),
        ..Target::of(resource, &object)
    };
    Action::new(target, Verb::Create(object))
}
