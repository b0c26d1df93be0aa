//! `deployment.MultiServiceAnalyzer`: services that disagree about the ports of one workload (IST0116, IST0137).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::context::Context;
use crate::fields::Fields;
use crate::in_mesh::deployment_in_mesh;
use crate::kind::Kind;
use crate::labels;
use crate::messages;
use crate::object::Object;

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    for deployment in context.each(Kind::Deployment) {
        let waypoint = deployment.label("gateway.istio.io/managed") == "istio.io-mesh-controller";
        if !waypoint && deployment_in_mesh(deployment, context) {
            let services = services(context, deployment);
            protocols(context, deployment, &services);
            target_ports(context, deployment, &services);
        }
    }
}

/// The services that select the pods of a Deployment.
fn services<'a>(context: &Context<'a>, deployment: &Object) -> Vec<&'a Object> {
    let metadata = deployment.spec.field("template").field("metadata");
    let pod = metadata.texts_by_key("labels");
    context
        .each(Kind::Service)
        .filter(|service| {
            let selector = service.spec.texts_by_key("selector");
            !selector.is_empty()
                && labels::selects(&selector, &pod)
                && service.namespace() == deployment.namespace()
        })
        .collect()
}

fn protocols(context: &mut Context<'_>, deployment: &Object, services: &[&Object]) {
    let mut ports: BTreeMap<i64, BTreeMap<&str, Vec<String>>> = BTreeMap::new();
    for service in services {
        for port in service.spec.items("ports") {
            let protocol = match port.text("protocol") {
                "" => "TCP",
                protocol => protocol,
            };
            ports
                .entry(port.number("port"))
                .or_default()
                .entry(protocol)
                .or_default()
                .push(service.full_name());
        }
    }
    for (port, protocols) in ports {
        if protocols.len() > 1 {
            let mut names: Vec<String> = protocols.into_values().flatten().collect();
            names.sort();
            context.report(
                messages::deployment_associated_to_multiple_services(
                    deployment,
                    deployment.name(),
                    port,
                    &names,
                )
                .at("metadata.name"),
            );
        }
    }
}

fn target_ports(context: &mut Context<'_>, deployment: &Object, services: &[&Object]) {
    let mut targets: BTreeMap<String, BTreeMap<i64, String>> = BTreeMap::new();
    for service in services {
        for port in service.spec.items("ports") {
            let number = port.number("port");
            let target = match target_port(port).as_str() {
                "" | "0" => number.to_string(),
                target => target.to_owned(),
            };
            targets
                .entry(target)
                .or_default()
                .insert(number, service.full_name());
        }
    }
    for (target, ports) in targets {
        if ports.len() > 1 {
            let numbers: Vec<i64> = ports.keys().copied().collect();
            let mut names: Vec<String> = ports.into_values().collect();
            names.sort();
            context.report(
                messages::deployment_conflicting_ports(
                    deployment,
                    deployment.name(),
                    &names,
                    &target,
                    &numbers,
                )
                .at("metadata.name"),
            );
        }
    }
}

/// The target port as text: a number or a name, `0` where there is none.
pub fn target_port(port: &Value) -> String {
    match port.field("targetPort") {
        Value::String(name) => name.clone(),
        Value::Number(number) => number.to_string(),
        _ => "0".to_owned(),
    }
}
