//! Subresources: halves of objects, and things done to them.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Call, scope};
use crate::admission::{self, Attributes, Operation};
use crate::error::{ApiError, ApiResult};
use crate::http_types::{Answer, json_answer};
use crate::machinery;
use crate::target::Query;
use crate::{review, streaming};

/// Answers a request for a subresource.
pub(crate) async fn handle(call: &Call<'_>, verb: &str) -> ApiResult<Answer> {
    let sub = call.target.subresource.as_str();
    if !call.resource.has(sub) {
        return Err(ApiError::no_such_subresource());
    }
    let allowed = call
        .resource
        .subresource(sub)
        .is_some_and(|s| s.verbs.iter().any(|v| v == verb));
    // exec and friends are announced for GET and POST alike; WebSockets arrive as GET.
    if !allowed && !matches!(sub, "exec" | "attach" | "portforward" | "proxy") {
        return Err(ApiError::method_not_allowed(
            &call.target.group,
            &call.target.plural,
            verb,
        ));
    }
    match (sub, verb) {
        ("status" | "approval" | "ephemeralcontainers", "get") => super::read::get(
            call.server,
            call.request,
            &call.resource,
            &scope(call),
            &call.target.name,
            call.form,
        ),
        ("approval", "update") => call.update("approval").await,
        ("approval", "patch") => call.patch("approval").await,
        ("status", "update") => call.update("status").await,
        ("status", "patch") => call.patch("status").await,
        ("scale", _) => scale(call, verb).await,
        ("finalize", _) => finalize(call).await,
        ("binding", _) => binding(call).await,
        ("eviction", _) => super::eviction::evict(call).await,
        ("token", _) => review::token(call).await,
        ("log", _) => streaming::logs(call).await,
        ("exec" | "attach" | "portforward", _) => {
            admit_connection(call, sub).await?;
            streaming::upgrade(call, sub).await
        }
        ("proxy", _) => {
            admit_connection(call, sub).await?;
            crate::proxy::handle(call).await
        }
        ("ephemeralcontainers", "update") => call.update("ephemeralcontainers").await,
        ("ephemeralcontainers", "patch") => call.patch("ephemeralcontainers").await,
        _ => Err(ApiError::method_not_allowed(
            &call.target.group,
            &call.target.plural,
            verb,
        )),
    }
}

/// Asks admission about a connection.
async fn admit_connection(call: &Call<'_>, sub: &str) -> ApiResult<()> {
    let namespace = scope(call);
    let attributes = Attributes {
        operation: Operation::Connect,
        resource: &call.resource,
        namespace: &namespace,
        name: &call.target.name,
        subresource: sub,
        old: None,
        user: &call.request.user,
        dry_run: false,
        warnings: &call.request.warnings,
    };
    let options = connection_options(&call.resource.kind, sub, &call.request.query);
    admission::connect(call.server, &attributes, options).await
}

/// What is asked of a connection, as an object.
fn connection_options(kind: &str, sub: &str, query: &Query) -> Value {
    let all = |key: &'static str| {
        query
            .0
            .iter()
            .filter(move |(k, _)| k == key)
            .map(|(_, v)| v)
    };
    let mut out = match sub {
        "exec" => json!({"kind": "PodExecOptions", "command": all("command").collect::<Vec<_>>()}),
        "attach" => json!({"kind": "PodAttachOptions"}),
        "portforward" => {
            let ports: Vec<u16> = all("ports").filter_map(|p| p.parse().ok()).collect();
            json!({"kind": "PodPortForwardOptions", "ports": ports})
        }
        _ => json!({"kind": format!("{kind}ProxyOptions"), "path": query.text("path")}),
    };
    out["apiVersion"] = "v1".into();
    if matches!(sub, "exec" | "attach") {
        for stream in ["stdin", "stdout", "stderr", "tty"] {
            if query.flag(stream) {
                out[stream] = true.into();
            }
        }
        if let Some(container) = query.get("container") {
            out["container"] = container.into();
        }
    }
    out
}

/// Where an object keeps its replica counts and selector.
struct ScalePaths {
    spec: String,
    status: String,
    selector: String,
}

fn pointer(path: &str) -> String {
    path.replace('.', "/")
}

impl ScalePaths {
    fn of(call: &Call<'_>) -> Self {
        let text = |v: &Value, default: &str| pointer(v.as_str().unwrap_or(default));
        let scale = call
            .resource
            .custom
            .as_ref()
            .map_or(Value::Null, |c| c.version["subresources"]["scale"].clone());
        Self {
            spec: text(&scale["specReplicasPath"], ".spec.replicas"),
            status: text(&scale["statusReplicasPath"], ".status.replicas"),
            selector: match &call.resource.custom {
                Some(_) => text(&scale["labelSelectorPath"], ""),
                None => pointer(".spec.selector"),
            },
        }
    }

    fn view(&self, object: &Value) -> Value {
        let number = |path: &str| object.pointer(path).and_then(Value::as_i64).unwrap_or(0);
        let mut out = json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {}, "spec": {}, "status": {"replicas": number(&self.status)},
        });
        for field in [
            "name",
            "namespace",
            "uid",
            "resourceVersion",
            "creationTimestamp",
        ] {
            if let Some(v) = object["metadata"].get(field) {
                out["metadata"][field] = v.clone();
            }
        }
        let wanted = number(&self.spec);
        if wanted != 0 {
            out["spec"]["replicas"] = wanted.into();
        }
        let selector = match object.pointer(&self.selector) {
            Some(Value::String(s)) if !self.selector.is_empty() => s.clone(),
            Some(v @ Value::Object(_)) if !self.selector.is_empty() => selector_text(v),
            _ => String::new(),
        };
        if !selector.is_empty() {
            out["status"]["selector"] = selector.into();
        }
        out
    }

    fn set(&self, object: &mut Value, replicas: i64) -> ApiResult<()> {
        let mut at = object;
        let mut parts = self.spec.trim_start_matches('/').split('/').peekable();
        while let Some(part) = parts.next() {
            let map = at.as_object_mut().ok_or_else(|| {
                ApiError::internal("the replica path leads through a value that is no object")
            })?;
            if parts.peek().is_none() {
                map.insert(part.to_owned(), replicas.into());
                return Ok(());
            }
            at = map.entry(part.to_owned()).or_insert_with(|| json!({}));
        }
        Ok(())
    }
}

/// A `metav1.LabelSelector` as one line.
fn selector_text(selector: &Value) -> String {
    let mut terms: Vec<String> = api::meta::pairs(&selector["matchLabels"])
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    terms.sort();
    for e in selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let key = e["key"].as_str().unwrap_or("");
        let values: Vec<&str> = e["values"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        terms.push(match e["operator"].as_str() {
            Some("In") => format!("{key} in ({})", values.join(",")),
            Some("NotIn") => format!("{key} notin ({})", values.join(",")),
            Some("DoesNotExist") => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    terms.join(",")
}

/// A scale as `kubectl get --subresource=scale` shows it.
fn scale_table(scale: &Value) -> Value {
    let column = |name: &str, kind: &str| json!({"name": name, "type": kind, "format": "", "description": "", "priority": 0});
    let metadata = &scale["metadata"];
    let created = metadata["creationTimestamp"].as_str();
    let number = |half: &str| scale[half]["replicas"].as_i64().unwrap_or(0);
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": metadata["resourceVersion"]},
        "columnDefinitions": [
            column("Name", "string"), column("Desired", "integer"), column("Available", "integer"), column("Age", "string"),
        ],
        "rows": [{
            "cells": [metadata["name"], number("spec"), number("status"), api::time::age(created, api::time::Time::now_utc())],
            "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata},
        }],
    })
}

async fn scale(call: &Call<'_>, verb: &str) -> ApiResult<Answer> {
    let paths = ScalePaths::of(call);
    let (namespace, name) = (scope(call), &call.target.name);
    if verb == "get" {
        let stored = call
            .server
            .storage
            .cache()
            .get(&call.resource.key(&namespace, name))
            .ok_or_else(|| call.resource.not_found(name))?;
        let view = paths.view(stored.value());
        return Ok(match call.form.shape {
            crate::negotiate::Shape::Table => json_answer(StatusCode::OK, &scale_table(&view)),
            _ => json_answer(StatusCode::OK, &view),
        });
    }
    let writer = call.writer(call.options()?);
    let apply = |object: &Value, scale: &Value| -> ApiResult<Value> {
        let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        if replicas < 0 {
            let e = api::field::FieldError::invalid(
                "spec.replicas",
                &json!(replicas),
                "must be greater than or equal to 0",
            );
            return Err(ApiError::invalid("autoscaling", "Scale", name, &[e]));
        }
        let mut new = object.clone();
        let asked = api::meta::resource_version(scale);
        if !asked.is_empty() {
            api::meta::set(&mut new, "resourceVersion", asked);
        }
        paths.set(&mut new, replicas)?;
        Ok(new)
    };
    let new = if verb == "update" {
        let bytes = call.request.read_body().await?;
        let body = crate::body::parse(call.request.content_type(), &bytes, "Scale")?;
        let edit = |old: &Value| apply(old, &body);
        writer
            .update(&call.resource, &namespace, name, "scale", &edit)
            .await?
    } else {
        let (kind, patch) = call.read_patch().await?;
        let edit = |old: &Value| {
            let shown = paths.view(old);
            let scale = match kind {
                api::patch::PatchKind::Strategic | api::patch::PatchKind::Apply => {
                    api::patch::merge(&shown, &patch)
                }
                other => machinery::patched(&call.resource, other, &shown, &patch)?,
            };
            apply(old, &scale)
        };
        writer
            .update(&call.resource, &namespace, name, "scale", &edit)
            .await?
    };
    Ok(json_answer(StatusCode::OK, &paths.view(new.value())))
}

/// `namespaces/<name>/finalize`: the namespace controller says which contents are gone.
async fn finalize(call: &Call<'_>) -> ApiResult<Answer> {
    let bytes = call.request.read_body().await?;
    let body = crate::body::parse(call.request.content_type(), &bytes, "Namespace")?;
    let writer = call.writer(call.options()?);
    let edit = |old: &Value| {
        let mut new = old.clone();
        new["spec"]["finalizers"] = body["spec"]["finalizers"]
            .as_array()
            .cloned()
            .unwrap_or_default()
            .into();
        Ok(new)
    };
    let new = writer
        .update(&call.resource, "", &call.target.name, "finalize", &edit)
        .await?;
    Ok(call.answer(StatusCode::OK, &new))
}

/// `pods/<name>/binding`: the scheduler puts a pod on a node.
async fn binding(call: &Call<'_>) -> ApiResult<Answer> {
    let bytes = call.request.read_body().await?;
    let body = crate::body::parse(call.request.content_type(), &bytes, "Binding")?;
    bind(call, &call.target.name, &body).await
}

pub(crate) async fn bind(call: &Call<'_>, pod: &str, body: &Value) -> ApiResult<Answer> {
    let node = body["target"]["name"].as_str().unwrap_or("").to_owned();
    if node.is_empty() {
        let e = api::field::FieldError::required("target.name", "");
        return Err(ApiError::invalid("", "Binding", pod, &[e]));
    }
    let pods = call
        .server
        .registry()
        .find("", "v1", "pods")
        .cloned()
        .ok_or_else(ApiError::no_such_path)?;
    let at = crate::state::now();
    let edit = |old: &Value| {
        let have = old["spec"]["nodeName"].as_str().unwrap_or("");
        let refuse = |why: String| Err(ApiError::conflict("", "pods/binding", pod, &why));
        if api::meta::deletion_timestamp(old).is_some() {
            return refuse(format!(
                "pod {pod} is being deleted, cannot be assigned to a host"
            ));
        }
        if !have.is_empty() {
            return refuse(format!("pod {pod} is already assigned to node {have:?}"));
        }
        let mut new = old.clone();
        new["spec"]["nodeName"] = node.clone().into();
        let mut conditions = new["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        conditions.retain(|c| c["type"] != "PodScheduled");
        conditions.push(json!({
            "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": at,
        }));
        new["status"]["conditions"] = conditions.into();
        if let (Some(from), Some(to)) = (
            body["metadata"]["annotations"].as_object(),
            new["metadata"].as_object_mut(),
        ) && let Some(to) = to
            .entry("annotations")
            .or_insert_with(|| json!({}))
            .as_object_mut()
        {
            to.extend(from.clone());
        }
        Ok(new)
    };
    call.writer(call.options()?)
        .update(&pods, &call.target.namespace, pod, "binding", &edit)
        .await?;
    Ok(json_answer(
        StatusCode::CREATED,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_one_line() {
        let s = json!({"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["x", "y"]}]});
        assert_eq!(selector_text(&s), "a=1,b=2,c in (x,y)");
    }

    #[test]
    fn a_connection_says_what_it_wants() {
        let query = Query::parse("command=ls&command=-l&stdin=true&stdout=1&tty=false&container=c");
        assert_eq!(
            connection_options("Pod", "exec", &query),
            json!({"kind": "PodExecOptions", "apiVersion": "v1", "command": ["ls", "-l"], "stdin": true, "stdout": true, "container": "c"})
        );
        assert_eq!(
            connection_options("Service", "proxy", &Query::default()),
            json!({"kind": "ServiceProxyOptions", "apiVersion": "v1", "path": ""})
        );
    }

    #[test]
    fn a_scale_shows_and_sets_replicas() {
        let paths = ScalePaths {
            spec: "/spec/replicas".into(),
            status: "/status/replicas".into(),
            selector: "/spec/selector".into(),
        };
        let mut o = json!({"metadata": {"name": "a"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}}, "status": {"replicas": 2}});
        let v = paths.view(&o);
        assert_eq!(
            (&v["spec"]["replicas"], &v["status"]),
            (&json!(3), &json!({"replicas": 2, "selector": "a=b"}))
        );
        paths.set(&mut o, 0).unwrap();
        assert_eq!(paths.view(&o)["spec"], json!({}));
    }
}
