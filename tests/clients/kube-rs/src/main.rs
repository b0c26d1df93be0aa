//! What operators written in Rust do with a cluster, done with the kube crate: create, watch, list in pages, apply, run a
//! command in a pod, forward a port, read logs, evict. The cluster is that of `KUBECONFIG`; ends with 1 at the first thing that
//! is not as on a real cluster.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{
    AttachParams, DeleteParams, EvictParams, ListParams, LogParams, Patch, PatchParams, PostParams,
};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// For everything that a busy machine may delay.
const PATIENCE: Duration = Duration::from_secs(90);

const NAMESPACE: &str = "kube-rs";

#[tokio::main]
async fn main() -> Result<()> {
    // Linked with ring only, which must be named as soon as another crate could bring a second one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_default().await.context("KUBECONFIG")?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let own = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
    namespaces.create(&PostParams::default(), &own).await?;
    let result = all(&client).await;
    namespaces
        .delete(NAMESPACE, &DeleteParams::default())
        .await?;
    result
}

async fn all(client: &Client) -> Result<()> {
    let version = client.apiserver_version().await?;
    ensure!(version.major == "1", "version {version:?}");
    objects(client).await.context("objects")?;
    watching(client).await.context("watching")?;
    pods(client).await.context("pods")
}

/// Errors keep reason and code; pages have a continuation; server-side apply tells conflicts.
async fn objects(client: &Client) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let missing = maps.get("nobody").await;
    ensure!(
        matches!(&missing, Err(kube::Error::Api(status)) if status.code == 404 && status.reason == "NotFound"),
        "an object that is not there: {missing:?}"
    );
    for number in 0..5 {
        let map = serde_json::from_value(
            json!({"metadata": {"generateName": "page-"}, "data": {"number": number.to_string()}}),
        )?;
        maps.create(&PostParams::default(), &map).await?;
    }
    let mut seen = 0;
    let mut parameters = ListParams::default().limit(2);
    loop {
        let page = maps.list(&parameters).await?;
        ensure!(page.items.len() <= 2, "a page of {}", page.items.len());
        seen += page
            .items
            .iter()
            .filter(|map| map.name_any().starts_with("page-"))
            .count();
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => break,
        }
    }
    ensure!(seen == 5, "{seen} of 5 objects in pages of two");
    let apply = |manager: &str, colour: &str| {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"colour": colour}});
        let (maps, parameters) = (maps.clone(), PatchParams::apply(manager));
        async move {
            maps.patch("applied", &parameters, &Patch::Apply(object))
                .await
        }
    };
    apply("one", "green").await?;
    let conflict = apply("two", "red").await;
    ensure!(
        matches!(&conflict, Err(kube::Error::Api(status)) if status.code == 409),
        "two managers of one field: {conflict:?}"
    );
    Ok(())
}

/// A watcher begins with what is there and goes on with what happens, each once and in order.
async fn watching(client: &Client) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    // Both ways to begin: list and watch, and a watch that sends the initial list itself.
    for config in [
        watcher::Config::default(),
        watcher::Config::default().streaming_lists(),
    ] {
        let config = config.labels("watched=yes");
        let (reader, writer) = reflector::store();
        let events = watcher(maps.clone(), config)
            .default_backoff()
            .reflect(writer)
            .applied_objects();
        let mut events = std::pin::pin!(events);
        for colour in ["green", "red", "blue"] {
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "watched", "labels": {"watched": "yes"}}, "data": {"colour": colour}});
            maps.patch(
                "watched",
                &PatchParams::apply("kube-rs").force(),
                &Patch::Apply(map),
            )
            .await?;
            let event = tokio::time::timeout(PATIENCE, events.try_next())
                .await
                .with_context(|| format!("no event for {colour}"))??
                .context("the watch has ended")?;
            let data = event.data.unwrap_or_default();
            ensure!(
                data.get("colour").is_some_and(|seen| seen == colour),
                "expected {colour}, seen {data:?}"
            );
        }
        ensure!(
            reader.state().len() == 1,
            "the store has {} objects",
            reader.state().len()
        );
        maps.delete("watched", &DeleteParams::default()).await?;
    }
    Ok(())
}

/// Runs a pod and everything that goes through the node's agent.
async fn pods(client: &Client) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [
            {"name": "web", "image": "hashicorp/http-echo", "args": ["-text=hello"]},
            {"name": "shell", "image": "busybox", "command": ["sh", "-c", "echo begun; exec sleep 3600"]},
        ]},
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    let running = await_condition(pods.clone(), "web", conditions::is_pod_running());
    tokio::time::timeout(PATIENCE, running)
        .await
        .context("the pod does not run")??;
    exec(&pods).await.context("exec")?;
    forward(&pods).await.context("port-forward")?;
    let logs = LogParams {
        container: Some("shell".into()),
        ..LogParams::default()
    };
    let said = pods.logs("web", &logs).await?;
    ensure!(said == "begun\n", "logs: {said:?}");
    let evicted = pods.evict("web", &EvictParams::default()).await?;
    ensure!(evicted.is_success(), "eviction: {evicted:?}");
    let uid = pods
        .get("web")
        .await
        .ok()
        .and_then(|pod| pod.metadata.uid)
        .unwrap_or_default();
    let gone = await_condition(pods.clone(), "web", conditions::is_deleted(&uid));
    tokio::time::timeout(PATIENCE, gone)
        .await
        .context("the evicted pod is still there")??;
    Ok(())
}

/// Both streams, standard input, and the exit status come over one WebSocket.
async fn exec(pods: &Api<Pod>) -> Result<()> {
    let parameters = AttachParams::default()
        .container("shell")
        .stdin(true)
        .stderr(true);
    let command = [
        "sh",
        "-c",
        "read line; echo out $line; echo err >&2; exit 3",
    ];
    let mut process = pods.exec("web", command, &parameters).await?;
    let mut input = process.stdin().context("standard input")?;
    input.write_all(b"typed\n").await?;
    let (mut out, mut err) = (String::new(), String::new());
    let (mut stdout, mut stderr) = (
        process.stdout().context("standard output")?,
        process.stderr().context("standard error")?,
    );
    let status = process.take_status().context("status")?;
    tokio::time::timeout(PATIENCE, async {
        tokio::try_join!(
            stdout.read_to_string(&mut out),
            stderr.read_to_string(&mut err)
        )
    })
    .await
    .context("the command does not end")??;
    let status = status.await.context("no status came")?;
    ensure!(
        (out.as_str(), err.as_str()) == ("out typed\n", "err\n"),
        "seen {out:?} and {err:?}"
    );
    let code = status
        .details
        .and_then(|details| details.causes)
        .unwrap_or_default();
    ensure!(
        code.iter()
            .any(|cause| cause.reason.as_deref() == Some("ExitCode")
                && cause.message.as_deref() == Some("3")),
        "exit status: {code:?}"
    );
    Ok(())
}

/// Requests one after the other over forwarded connections.
async fn forward(pods: &Api<Pod>) -> Result<()> {
    const PORT: u16 = 5678;
    for _ in 0..2 {
        let mut forwarder = pods.portforward("web", &[PORT]).await?;
        let mut stream = forwarder.take_stream(PORT).context("the port's stream")?;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer))
            .await
            .context("no answer comes")??;
        ensure!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello\n"),
            "seen {answer:?}"
        );
        // The pod has closed the connection, and with it the WebSocket: there is nothing to wait for.
        forwarder.abort();
    }
    Ok(())
}
