//! `theater fault test`: what requests get under the faults in force, and an exercise with a circuit breaker that opens.

use std::time::Duration;

use anyhow::{Context as _, Result};
use kube_client::{Client, DESTINATION_RULES, DeleteOptions, ListParams, PODS};
use serde_json::Value;

use super::requests;
use crate::language;
use crate::supervisor::RunFile;

const BREAKER: &str = include_str!("../../../../../k8s/fault-injection/breaker.yaml");
/// The path whose service the exercise is about.
const MOVIES: &str = "/movies/";
/// How long a rule may take to reach the proxy that asks.
const IN_FORCE_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);
/// The admin interface of a sidecar.
const ADMIN: u16 = 15000;

/// Asks every service, then movie-service once more behind a narrow circuit breaker in these clusters. The rule that was there
/// is put back, also when the exercise is interrupted.
///
/// # Errors
/// When a cluster refuses; not when requests fail, which is what is looked at.
pub(super) async fn run(file: &RunFile, clusters: &[(&str, Client)]) -> Result<()> {
    for path in ["/users/", MOVIES, "/bookings/"] {
        ask(file, path).await;
    }
    println!("{}", language::fault_breaker());
    let rule = super::documents(BREAKER)?
        .pop()
        .context("the rule of the exercise")?;
    let mut before = Vec::new();
    let mut outcome = Ok(());
    for (cluster, client) in clusters {
        let done = put(client, &rule).await;
        match done.with_context(|| (*cluster).to_owned()) {
            Ok(spec) => before.push((*cluster, client, spec)),
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    if outcome.is_ok() {
        tokio::select! {
            () = exercise(file, clusters) => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    }
    for (cluster, client, spec) in before {
        put_back(client, &rule, spec)
            .await
            .with_context(|| cluster.to_owned())?;
        println!(
            "{}",
            language::fault_restored(cluster, "DestinationRule", api::meta::name(&rule))
        );
    }
    outcome
}

async fn exercise(file: &RunFile, clusters: &[(&str, Client)]) {
    for (cluster, client) in clusters {
        if !in_force(client).await {
            println!("{}", language::fault_not_seen(cluster));
        }
    }
    ask(file, MOVIES).await;
}

async fn ask(file: &RunFile, path: &str) {
    let outcomes = requests::at_once(&file.domain, path).await;
    let url = format!("{}{path}", file.url());
    println!("{}", language::fault_asked(url, requests::AT_ONCE));
    print!("{}", requests::counted(&outcomes));
}

/// Puts the spec of a rule in place; the one that was there, if there was one.
async fn put(client: &Client, rule: &Value) -> Result<Option<Value>> {
    let (namespace, name) = (api::meta::namespace(rule), api::meta::name(rule));
    match client.get(&DESTINATION_RULES, Some(namespace), name).await {
        Ok(mut present) => {
            let before = std::mem::replace(&mut present["spec"], rule["spec"].clone());
            client
                .update(&DESTINATION_RULES, Some(namespace), &present)
                .await?;
            Ok(Some(before))
        }
        Err(error) if error.is_not_found() => {
            client
                .create(&DESTINATION_RULES, Some(namespace), rule)
                .await?;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

async fn put_back(client: &Client, rule: &Value, spec: Option<Value>) -> Result<()> {
    let (namespace, name) = (api::meta::namespace(rule), api::meta::name(rule));
    match spec {
        Some(spec) => {
            let mut present = client
                .get(&DESTINATION_RULES, Some(namespace), name)
                .await?;
            present["spec"] = spec;
            client
                .update(&DESTINATION_RULES, Some(namespace), &present)
                .await?;
        }
        None => {
            let at_once = DeleteOptions::default();
            client
                .delete(&DESTINATION_RULES, Some(namespace), name, &at_once)
                .await?;
        }
    }
    Ok(())
}

/// Waits until the sidecars that ask movie-service have the limits; whether they have.
async fn in_force(client: &Client) -> bool {
    let deadline = tokio::time::Instant::now() + IN_FORCE_LIMIT;
    loop {
        if tokio::time::timeout_at(deadline, all_limited(client))
            .await
            .is_ok_and(|limited| limited.unwrap_or(false))
        {
            return true;
        }
        if tokio::time::Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn all_limited(client: &Client) -> Result<bool> {
    let callers = ListParams::labels("app=api-gateway");
    let pods = client.list(&PODS, Some("theater-msa"), &callers).await?;
    for pod in &pods.items {
        let stream = client
            .port_forward("theater-msa", api::meta::name(pod), ADMIN)
            .await?;
        let request = requests::get("localhost", "/clusters")?;
        let page = kube_client::exchange(stream, request).await?.into_body();
        if !is_limited(&String::from_utf8_lossy(&page)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a proxy's page of clusters shows the limits of the exercise for every cluster of movie-service.
fn is_limited(page: &str) -> bool {
    const LIMIT: &str = "::default_priority::max_connections::";
    let mut limits = page
        .lines()
        .filter(|line| line.contains("|movie-service."))
        .filter_map(|line| line.split_once(LIMIT))
        .peekable();
    limits.peek().is_some() && limits.all(|(_, limit)| limit.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_is_the_narrow_one_of_the_exercise() {
        let rule = super::super::documents(BREAKER).unwrap().pop().unwrap();
        let policy = &rule["spec"]["trafficPolicy"];
        assert_eq!(policy["connectionPool"]["tcp"]["maxConnections"], 1);
        assert_eq!(
            policy["connectionPool"]["http"]["http1MaxPendingRequests"],
            1
        );
        assert_eq!(policy["outlierDetection"]["maxEjectionPercent"], 100);
        assert_eq!(api::meta::name(&rule), "movie-service-dr");
    }

    #[test]
    fn limits_are_read_from_the_page_of_clusters() {
        let page = |limit: &str| {
            format!(
                "outbound|8081||user-service.x::default_priority::max_connections::4294967295\n\
                 outbound|8082|ctx1|movie-service.x::default_priority::max_connections::1\n\
                 outbound|8082|ctx2|movie-service.x::default_priority::max_connections::{limit}\n\
                 outbound|8082|ctx2|movie-service.x::high_priority::max_connections::1024\n"
            )
        };
        assert!(is_limited(&page("1")));
        assert!(!is_limited(&page("4294967295")));
        assert!(!is_limited(""));
    }
}
