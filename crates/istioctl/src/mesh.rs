//! The cluster a command talks to: Kubernetes objects, and ports of pods behind its API server.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use bytes::Bytes;
use kube_client::{
    Client, Config, ListParams, MUTATING_WEBHOOK_CONFIGURATIONS, PODS, PortForward, Resource,
};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{Global, Shell, kubeconfig};

/// Longest wait for an answer of a pod.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A cluster as one user.
#[derive(Clone)]
pub struct Mesh {
    /// The client of its API server.
    pub client: Client,
    /// `--namespace`, if given.
    pub namespace: Option<String>,
    /// Namespace of the control plane.
    pub istio_namespace: String,
    /// The namespace the kubeconfig's context chooses.
    context_namespace: String,
}

impl Mesh {
    /// The cluster that flags, `$KUBECONFIG` and the home directory choose, in this order.
    ///
    /// # Errors
    /// When no usable kubeconfig is found.
    pub fn connect(global: &Global, shell: &Shell<'_>) -> Result<Self> {
        let context = global.context.as_deref();
        let (config, namespace) = match kubeconfig::find(global, shell)? {
            Some(found) => {
                if let Some(context) = context
                    && !found.config.contexts().any(|known| known == context)
                {
                    return Err(no_context(context));
                }
                (
                    found.reach(context)?,
                    found.config.namespace(context).map(str::to_owned),
                )
            }
            None => match context {
                Some(context) => return Err(no_context(context)),
                // Where a client without configuration looks.
                None => (
                    Config::new("http://localhost:8080", "", kube_client::Auth::None),
                    None,
                ),
            },
        };
        Ok(Self {
            client: Client::new(config.user_agent("istioctl"))?,
            namespace: global.namespace.clone(),
            istio_namespace: global.istio_namespace.clone(),
            context_namespace: namespace.unwrap_or_else(|| "default".to_owned()),
        })
    }

    /// The namespace objects are looked for in.
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or(&self.context_namespace)
    }

    /// The pod that `[TYPE/]NAME[.NAMESPACE]` means: name and namespace. Of several, the one `kubectl logs` would choose.
    ///
    /// # Errors
    /// When there is none.
    pub async fn pod(&self, text: &str) -> Result<(String, String)> {
        let (name, namespace) = split_namespace(text, self.namespace());
        let Some((kind, object)) = name.split_once('/') else {
            return Ok((name.to_owned(), namespace.to_owned()));
        };
        let mut pods = match self.named(kind, object, namespace).await? {
            Named::Pod => return Ok((object.to_owned(), namespace.to_owned())),
            Named::Pods(pods) => pods,
        };
        pods.sort_by_key(by_logging);
        match pods.first() {
            Some(pod) => Ok((api::meta::name(pod).to_owned(), namespace.to_owned())),
            None => bail!("no pods match {name:?}"),
        }
    }

    /// All pods that `[TYPE/]NAME[.NAMESPACE]` means, and their namespace.
    ///
    /// # Errors
    /// When the object does not exist.
    pub async fn pods(&self, text: &str) -> Result<(Vec<String>, String)> {
        let (name, namespace) = split_namespace(text, self.namespace());
        let names = match name.split_once('/') {
            None => vec![name.to_owned()],
            Some((kind, object)) => match self.named(kind, object, namespace).await? {
                Named::Pod => vec![object.to_owned()],
                Named::Pods(pods) => pods
                    .iter()
                    .map(|pod| api::meta::name(pod).to_owned())
                    .collect(),
            },
        };
        Ok((names, namespace.to_owned()))
    }

    /// Names of the pods with these labels in the namespace objects are looked for in; at least one.
    ///
    /// # Errors
    /// When there is none.
    pub async fn selected(&self, selector: &str) -> Result<Vec<String>> {
        let params = ListParams::labels(selector);
        let found = self
            .client
            .list(&PODS, Some(self.namespace()), &params)
            .await;
        let found = found
            .map_err(|error| anyhow!("not able to locate pod with selector {selector}: {error}"))?;
        if found.items.is_empty() {
            bail!("no pods found");
        }
        let names = found
            .items
            .iter()
            .map(|pod| api::meta::name(pod).to_owned());
        Ok(names.collect())
    }

    async fn named(&self, kind: &str, name: &str, namespace: &str) -> Result<Named> {
        let failed =
            |reason: String| anyhow!("failed retrieving: {reason} in the {namespace:?} namespace");
        let Some(resource) = self.resource(kind).await? else {
            return Err(failed(format!(
                "the server doesn't have a resource type {kind:?}"
            )));
        };
        let object = self.client.get(&resource, Some(namespace), name).await;
        let object = object.map_err(|error| failed(error.to_string()))?;
        if resource.plural == PODS.plural {
            return Ok(Named::Pod);
        }
        let selector = selector_of(&object).map_err(|reason| {
            anyhow!(
                "{:?} does not refer to a pod: {reason}",
                format!("{kind}/{name}")
            )
        })?;
        let params = ListParams::labels(selector);
        Ok(Named::Pods(
            self.client
                .list(&PODS, Some(namespace), &params)
                .await?
                .items,
        ))
    }

    /// The resource of a plural, singular or short name, with or without group, in any case.
    async fn resource(&self, name: &str) -> Result<Option<Resource>> {
        let wanted = name.to_lowercase();
        let known = kube_client::discovery::preferred_resources(&self.client).await?;
        let short = |wanted: &str| {
            Some(match wanted {
                "po" => "pods",
                "svc" => "services",
                "deploy" => "deployments",
                "rs" => "replicasets",
                "sts" => "statefulsets",
                "ds" => "daemonsets",
                "rc" => "replicationcontrollers",
                _ => return None,
            })
        };
        let (plain, group) = match wanted.split_once('.') {
            Some((plain, group)) => (plain, Some(group)),
            None => (wanted.as_str(), None),
        };
        let plain = short(plain).unwrap_or(plain);
        Ok(known
            .into_iter()
            .map(|of| of.resource)
            .filter(|resource| group.is_none_or(|group| resource.group.starts_with(group)))
            .find(|resource| *resource.plural == *plain || resource.kind.to_lowercase() == plain))
    }

    /// Pods of a label selector in a namespace that run.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn running(&self, namespace: Option<&str>, selector: &str) -> Result<Vec<Value>> {
        let pods = self
            .client
            .list(&PODS, namespace, &ListParams::labels(selector))
            .await;
        let mut pods = pods
            .map_err(|error| anyhow!("unable to retrieve Pods: {error}"))?
            .items;
        pods.retain(|pod| pod["status"]["phase"] == "Running");
        Ok(pods)
    }

    /// The running pods of the control plane.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn control_planes(&self) -> Result<Vec<Value>> {
        self.running(Some(&self.istio_namespace), "app=istiod")
            .await
    }

    /// The configurations of mutating webhooks that a label selector finds; all, when it is empty.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn webhooks(&self, selector: &str) -> Result<Vec<Value>> {
        let found = self
            .client
            .list(
                &MUTATING_WEBHOOK_CONFIGURATIONS,
                None,
                &ListParams::labels(selector),
            )
            .await?;
        Ok(found.items)
    }

    /// Connects to a port of a running pod.
    ///
    /// # Errors
    /// When the pod does not run or cannot be reached.
    pub async fn connect_to(&self, namespace: &str, pod: &str, port: u16) -> Result<PortForward> {
        let object = self.client.get(&PODS, Some(namespace), pod).await.map_err(|error| {
            anyhow!("building port forwarded: failed retrieving: {error} in the {namespace:?} namespace")
        })?;
        let phase = object["status"]["phase"].as_str().unwrap_or_default();
        if phase != "Running" {
            bail!("building port forwarded: pod is not running. Status={phase}");
        }
        Ok(self.client.port_forward(namespace, pod, port).await?)
    }

    /// Asks a server in a pod over HTTP; the body of a good answer.
    ///
    /// # Errors
    /// When there is none.
    pub async fn ask(
        &self,
        pod: (&str, &str),
        method: &str,
        path: &str,
        port: u16,
    ) -> Result<Bytes> {
        let failed = |reason: String| anyhow!("failure running port forward process: {reason}");
        let (name, namespace) = pod;
        let stream = self
            .connect_to(namespace, name, port)
            .await
            .map_err(|error| failed(failed(error.to_string()).to_string()))?;
        let problem = stream.problem_handle();
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, format!("localhost:{port}"))
            .body(Bytes::new())?;
        let asked = exchange(stream, request);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
        match answer {
            Ok(Ok((http::StatusCode::OK, body))) => Ok(body),
            Ok(Ok((status, _))) => bail!("unexpected status code: {}", status.as_u16()),
            Ok(Err(error)) => Err(failed(problem().unwrap_or_else(|| error.to_string()))),
            Err(_) => Err(failed(format!(
                "{name}.{namespace} gave no answer on port {port} within {} s",
                ANSWER_TIMEOUT.as_secs()
            ))),
        }
    }
}

/// Sends one request over a connection; status and body of the answer.
///
/// # Errors
/// When none comes.
pub(crate) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: http::Request<Bytes>,
) -> Result<(http::StatusCode, Bytes)> {
    let (head, body) = kube_client::exchange(stream, request).await?.into_parts();
    Ok((head.status, body))
}

fn no_context(name: &str) -> anyhow::Error {
    anyhow!("failed to setup client: context {name:?} does not exist")
}

enum Named {
    Pod,
    Pods(Vec<Value>),
}

/// Splits `[TYPE/]NAME[.NAMESPACE]`; a type may have dots itself.
pub fn split_namespace<'a>(text: &'a str, default: &'a str) -> (&'a str, &'a str) {
    let start = text.rfind('/').filter(|at| *at > 0).unwrap_or(0);
    match text[start..].rfind('.') {
        Some(dot) => (&text[..start + dot], &text[start + dot + 1..]),
        None => (text, default),
    }
}

/// The label selector of a workload or a Service.
pub(crate) fn selector_of(object: &Value) -> Result<String, String> {
    let selector = &object["spec"]["selector"];
    let labels = if object["kind"] == "Service" || object["kind"] == "ReplicationController" {
        selector
    } else {
        &selector["matchLabels"]
    };
    let mut terms: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    for expression in selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let key = expression["key"].as_str().unwrap_or_default();
        let values: Vec<&str> = expression["values"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let values = values.join(",");
        terms.push(match expression["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    let name = api::meta::name(object);
    if terms.is_empty() {
        return Err(if object["kind"] == "Service" {
            format!("invalid service '{name}': Service is defined without a selector")
        } else {
            format!(
                "cannot extract pod selector from {}",
                object["kind"].as_str().unwrap_or_default()
            )
        });
    }
    Ok(terms.join(","))
}

/// Smaller comes first: assigned, running, ready, ready for long, restarted seldom, old.
pub(crate) fn by_logging(pod: &Value) -> (bool, u8, bool, String, u64, String) {
    let phase = match pod["status"]["phase"].as_str() {
        Some("Running") => 0,
        Some("Unknown") => 1,
        _ => 2,
    };
    let ready = pod["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    let since = ready.and_then(|condition| condition["lastTransitionTime"].as_str());
    let restarts = pod["status"]["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|status| status["restartCount"].as_u64())
        .max();
    let created = pod["metadata"]["creationTimestamp"].as_str();
    (
        pod["spec"]["nodeName"].as_str().is_none_or(str::is_empty),
        phase,
        ready.is_none(),
        since.unwrap_or("~").to_owned(),
        restarts.unwrap_or(0),
        created.unwrap_or("~").to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_may_carry_type_and_namespace() {
        assert_eq!(split_namespace("a", "d"), ("a", "d"));
        assert_eq!(split_namespace("a.b", "d"), ("a", "b"));
        assert_eq!(split_namespace("deploy/a", "d"), ("deploy/a", "d"));
        assert_eq!(
            split_namespace("deployments.apps/a.b", "d"),
            ("deployments.apps/a", "b")
        );
        assert_eq!(
            split_namespace("deployments.apps/a", "d"),
            ("deployments.apps/a", "d")
        );
    }

    #[test]
    fn selectors_become_text() {
        let deployment = json!({"kind": "Deployment", "spec": {"selector": {"matchLabels": {"app": "a"},
            "matchExpressions": [{"key": "v", "operator": "In", "values": ["1", "2"]}]}}});
        assert_eq!(selector_of(&deployment).unwrap(), "app=a,v in (1,2)");
        let service = json!({"kind": "Service", "metadata": {"name": "s"}, "spec": {}});
        assert_eq!(
            selector_of(&service).unwrap_err(),
            "invalid service 's': Service is defined without a selector"
        );
    }

    #[test]
    fn a_ready_pod_is_chosen_before_others() {
        let pod = |phase: &str, ready: &str| {
            json!({"spec": {"nodeName": "n"}, "status": {"phase": phase,
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2024-01-01T00:00:00Z"}]}})
        };
        let mut pods = [
            pod("Pending", "False"),
            pod("Running", "False"),
            pod("Running", "True"),
        ];
        pods.sort_by_key(by_logging);
        assert_eq!(pods[0]["status"]["conditions"][0]["status"], "True");
        assert_eq!(pods[2]["status"]["phase"], "Pending");
    }
}
