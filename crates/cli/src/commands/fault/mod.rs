//! `theater fault SCENARIO`: what `k8s/fault-injection-demo.sh` does, with the same manifests, through the API servers
//! of the running theater.

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use kube_client::{
    Client, DESTINATION_RULES, DeleteOptions, ENVOY_FILTERS, ListParams, Resource, VIRTUAL_SERVICES,
};
use serde_json::{Value, json};

mod exercise;
mod requests;

use super::runtime;
use crate::language;
use crate::state::StateDir;
use crate::topology::CLUSTERS;

const CIRCUIT_BREAKER: &str = include_str!("../../../../../k8s/istio-circuit-breaker.yaml");
const DELAY: &str = include_str!("../../../../../k8s/fault-injection/delay.yaml");
const CIRCUIT: &str = include_str!("../../../../../k8s/fault-injection/circuit.yaml");
const ERROR: &str = include_str!("../../../../../k8s/fault-injection/error.yaml");
const BLOCK: &str = include_str!("../../../../../k8s/fault-injection/block.yaml");
const CHAOS: &str = include_str!("../../../../../k8s/fault-injection/chaos.yaml");
const RULES: &str = include_str!("../../../../../k8s/istio-virtualservices.yaml");
const DESTINATIONS: &str = include_str!("../../../../../k8s/istio-destinationrules.yaml");

/// Objects that a scenario adds, rather than changes, carry this label.
const LABEL: &str = "theater/fault";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What `theater fault` can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Circuit breakers: pods that really fail are ejected
    Setup,
    /// movie-service: answers of ctx2 take 3 s, those of ctx1 do not
    Delay,
    /// user-service: 30 % of the requests fail, 90 % with the header x-circuit-test: true
    Circuit,
    /// user-service: 50 % of the requests fail
    Error,
    /// booking-service: nothing goes to ctx2
    Block,
    /// delay, error and block together
    Chaos,
    /// Everything as it was in the beginning
    #[value(alias = "reset")]
    Recover,
    /// Which faults are in force
    Status,
    /// 20 requests at once to each service, counted; then to movie-service behind a circuit breaker that opens
    Test,
}

/// Runs a scenario in one cluster, or in both.
///
/// # Errors
/// When no theater is running, or a cluster refuses.
pub fn run(state: &StateDir, scenario: Scenario, cluster: Option<&str>) -> Result<()> {
    // Its kubeconfig alone proves nothing.
    let file = super::run_file(state)?;
    let known = CLUSTERS.map(|facts| facts.name);
    let clusters: Vec<&str> = match cluster {
        None => known.to_vec(),
        Some(name) if known.contains(&name) => vec![name],
        Some(name) => bail!("there is no cluster {name:?}, only {}", known.join(", ")),
    };
    let manifest = match scenario {
        Scenario::Setup => CIRCUIT_BREAKER,
        Scenario::Delay => DELAY,
        Scenario::Circuit => CIRCUIT,
        Scenario::Error => ERROR,
        Scenario::Block => BLOCK,
        Scenario::Chaos => CHAOS,
        Scenario::Recover | Scenario::Status | Scenario::Test => "",
    };
    runtime()?.block_on(async {
        let clusters = clusters
            .into_iter()
            .map(|cluster| {
                let client = Client::from_kubeconfig_file(&state.kubeconfig(), Some(cluster))?;
                Ok((cluster, client))
            })
            .collect::<Result<Vec<_>>>()?;
        if scenario == Scenario::Test {
            return exercise::run(&file, &clusters).await;
        }
        for (cluster, client) in &clusters {
            let done = match scenario {
                Scenario::Recover => recover(client, cluster).await,
                Scenario::Status => status(client, cluster).await,
                _ => apply(client, cluster, manifest).await,
            };
            done.with_context(|| (*cluster).to_owned())?;
        }
        Ok(())
    })
}

fn documents(text: &str) -> Result<Vec<Value>> {
    text.split("\n---\n")
        .map(|document| Ok(yaml_serde::from_str(document)?))
        .collect()
}

fn resource_of(object: &Value) -> Result<Resource> {
    [VIRTUAL_SERVICES, DESTINATION_RULES, ENVOY_FILTERS]
        .into_iter()
        .find(|resource| object["kind"] == *resource.kind)
        .with_context(|| format!("unexpected kind {}", object["kind"]))
}

/// Puts objects in place, whole: nothing that was patched in before is left.
async fn apply(client: &Client, cluster: &str, text: &str) -> Result<()> {
    for mut object in documents(text)? {
        let resource = resource_of(&object)?;
        let name = api::meta::name(&object).to_owned();
        let namespace = api::meta::namespace(&object).to_owned();
        // As `kubectl apply` would, so that it can go on from here.
        let applied = format!("{object}\n");
        object["metadata"]["annotations"] = json!({LAST_APPLIED: applied});
        match client.get(&resource, Some(&namespace), &name).await {
            Ok(present) => {
                object["metadata"]["resourceVersion"] =
                    present["metadata"]["resourceVersion"].clone();
                client.update(&resource, Some(&namespace), &object).await?;
            }
            Err(error) if error.is_not_found() => {
                client.create(&resource, Some(&namespace), &object).await?;
            }
            Err(error) => return Err(error.into()),
        }
        println!(
            "{}",
            language::fault_applied(cluster, &resource.kind, &name)
        );
    }
    Ok(())
}

async fn recover(client: &Client, cluster: &str) -> Result<()> {
    let added = client
        .list(&ENVOY_FILTERS, None, &ListParams::labels(LABEL))
        .await?;
    for object in added.items {
        let (namespace, name) = (api::meta::namespace(&object), api::meta::name(&object));
        client
            .delete(
                &ENVOY_FILTERS,
                Some(namespace),
                name,
                &DeleteOptions::default(),
            )
            .await?;
        println!("{}", language::fault_removed(cluster, "EnvoyFilter", name));
    }
    apply(client, cluster, RULES).await?;
    apply(client, cluster, DESTINATIONS).await
}

async fn status(client: &Client, cluster: &str) -> Result<()> {
    let everything = ListParams::default();
    for resource in [VIRTUAL_SERVICES, DESTINATION_RULES, ENVOY_FILTERS] {
        for object in client.list(&resource, None, &everything).await?.items {
            for fault in faults(&object) {
                let name = api::meta::name(&object);
                println!("{cluster}  {}/{name}  {fault}", resource.kind);
            }
        }
    }
    Ok(())
}

/// What of an object is a fault, or answers to one.
fn faults(object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for rule in object["spec"]["http"].as_array().into_iter().flatten() {
        if !rule["fault"].is_null() {
            found.push(format!("fault {}", rule["fault"]));
        }
        for route in rule["route"].as_array().into_iter().flatten() {
            if route["weight"] == 0 {
                found.push(format!(
                    "nothing to subset {}",
                    route["destination"]["subset"]
                ));
            }
        }
    }
    let ejection = &object["spec"]["trafficPolicy"]["outlierDetection"];
    if !ejection.is_null() {
        found.push(format!("outlierDetection {ejection}"));
    }
    if !object["metadata"]["labels"][LABEL].is_null() {
        found.push(object["metadata"]["labels"][LABEL].to_string());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manifest_is_readable_and_of_a_known_kind() {
        for text in [
            CIRCUIT_BREAKER,
            DELAY,
            CIRCUIT,
            ERROR,
            BLOCK,
            CHAOS,
            RULES,
            DESTINATIONS,
        ] {
            let documents = documents(text).unwrap();
            assert!(!documents.is_empty());
            for object in documents {
                resource_of(&object).unwrap();
                assert_eq!(api::meta::namespace(&object), "theater-msa");
            }
        }
    }

    #[test]
    fn scenarios_say_what_they_do_and_the_beginning_has_no_fault() {
        let seen = |text: &str| -> Vec<String> {
            documents(text).unwrap().iter().flat_map(faults).collect()
        };
        assert_eq!(seen(CIRCUIT).len(), 2, "{:?}", seen(CIRCUIT));
        assert_eq!(seen(CHAOS).len(), 3, "{:?}", seen(CHAOS));
        assert_eq!(seen(CIRCUIT_BREAKER).len(), 3);
        assert_eq!(seen(RULES), Vec::<String>::new());
        assert_eq!(seen(DESTINATIONS), Vec::<String>::new());
    }
}
