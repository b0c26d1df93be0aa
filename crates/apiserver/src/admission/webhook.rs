//! Admission webhooks: other programs change or refuse objects.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::cel::admission::Asked;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Attributes, Operation};
use crate::error::{ApiError, ApiResult};
use crate::http_types::full;
use crate::machinery;
use crate::outbound::{self, Place};
use crate::state::Server;
use crate::storage::Key;

/// Largest answer of a webhook.
const ANSWER_LIMIT: usize = 3 << 20;

/// Calls the mutating webhooks that apply, in the order of their configurations' names. True: one of them has changed the object.
pub(crate) async fn mutate(
    server: &Arc<Server>,
    a: &Attributes<'_>,
    object: &mut Value,
) -> ApiResult<bool> {
    let mut changed = false;
    for hook in applicable(server, a, object, "mutatingwebhookconfigurations") {
        if !conditions_hold(&hook, a, object)? {
            continue;
        }
        let Some(answer) = call(server, a, object, &hook).await? else {
            continue;
        };
        let name = hook["name"].as_str().unwrap_or("");
        changed |= patched(object, &answer)
            .map_err(|why| ApiError::internal(format!("failed calling webhook {name:?}: {why}")))?;
    }
    Ok(changed)
}

/// Carries out the patch of a response; whether it has one.
pub(crate) fn patched(object: &mut Value, response: &Value) -> Result<bool, String> {
    let Some(patch) = response["patch"].as_str() else {
        return Ok(false);
    };
    let bytes = STANDARD
        .decode(patch)
        .map_err(|e| format!("the patch is not base64: {e}"))?;
    let patch: json_patch::Patch = serde_json::from_slice(&bytes)
        .map_err(|e| format!("the patch is not a JSON patch: {e}"))?;
    api::patch::carry_out(object, patch).map_err(|e| format!("the patch does not fit: {e}"))?;
    Ok(true)
}

/// Calls the validating webhooks that apply, all at once.
pub(crate) async fn validate(
    server: &Arc<Server>,
    a: &Attributes<'_>,
    object: &Value,
) -> ApiResult<()> {
    let mut hooks = Vec::new();
    for hook in applicable(server, a, object, "validatingwebhookconfigurations") {
        if conditions_hold(&hook, a, object)? {
            hooks.push(hook);
        }
    }
    let calls = hooks.iter().map(|hook| call(server, a, object, hook));
    for result in futures::future::join_all(calls).await {
        result?;
    }
    Ok(())
}

fn applicable(server: &Server, a: &Attributes<'_>, object: &Value, plural: &str) -> Vec<Value> {
    // The webhooks' own configuration is never asked about: a broken one must stay repairable.
    if a.resource.group == "admissionregistration.k8s.io" || a.resource.is_virtual() {
        return Vec::new();
    }
    let (configurations, _) = server
        .storage
        .cache()
        .list(&format!("admissionregistration.k8s.io/{plural}"), "");
    if configurations.is_empty() {
        return Vec::new();
    }
    let namespace_labels = namespace_labels(server, a, object);
    let mut out = Vec::new();
    for (_, configuration) in configurations {
        for hook in configuration.value()["webhooks"]
            .as_array()
            .into_iter()
            .flatten()
        {
            if applies(hook, a, object, namespace_labels.as_ref()) {
                out.push(hook.clone());
            }
        }
    }
    out
}

/// Do the `matchConditions` of a webhook hold?
fn conditions_hold(hook: &Value, a: &Attributes<'_>, object: &Value) -> ApiResult<bool> {
    let conditions = &hook["matchConditions"];
    if conditions.as_array().is_none_or(Vec::is_empty) {
        return Ok(true);
    }
    let review = review(a, object, "");
    let asked = Asked {
        request: &review["request"],
        namespace: &Value::Null,
        params: &Value::Null,
    };
    let insist = hook["failurePolicy"] != "Ignore";
    api::cel::admission::conditions_hold(conditions, insist, asked)
        .map_err(|why| ApiError::forbidden(&a.resource.group, &a.resource.plural, a.name, &why))
}

/// The labels `namespaceSelector` looks at; `None` where there is no namespace.
pub(super) fn namespace_labels(
    server: &Server,
    a: &Attributes<'_>,
    object: &Value,
) -> Option<Value> {
    if a.resource.is("", "namespaces") {
        let own = if a.operation == Operation::Delete {
            a.old?
        } else {
            object
        };
        return Some(own["metadata"]["labels"].clone());
    }
    if !a.resource.namespaced {
        return None;
    }
    let key = Key::new(&"core/namespaces".into(), "", a.namespace);
    let namespace = server.storage.cache().get(&key)?;
    Some(namespace.value()["metadata"]["labels"].clone())
}

/// Does a webhook want to be asked?
pub(crate) fn applies(
    hook: &Value,
    a: &Attributes<'_>,
    object: &Value,
    namespace: Option<&Value>,
) -> bool {
    let rules = hook["rules"].as_array().into_iter().flatten();
    rules.into_iter().any(|rule| rule_matches(rule, a)) && selected(hook, a, object, namespace)
}

/// Is a rule about the operation and the resource?
pub(super) fn rule_matches(rule: &Value, a: &Attributes<'_>) -> bool {
    let has = |list: &Value, wanted: &str| {
        list.as_array()
            .into_iter()
            .flatten()
            .any(|v| v == "*" || v == wanted)
    };
    let scope_ok = match rule["scope"].as_str() {
        Some("Namespaced") => a.resource.namespaced,
        Some("Cluster") => !a.resource.namespaced,
        _ => true,
    };
    let resource_ok = rule["resources"].as_array().into_iter().flatten().any(|r| {
        let (resource, sub) = r
            .as_str()
            .unwrap_or("")
            .split_once('/')
            .unwrap_or((r.as_str().unwrap_or(""), ""));
        (resource == "*" || resource == a.resource.plural)
            && (sub == a.subresource || (sub == "*" && !r.as_str().unwrap_or("").is_empty()))
    });
    scope_ok
        && resource_ok
        && has(&rule["operations"], a.operation.text())
        && has(&rule["apiGroups"], &a.resource.group)
        && has(&rule["apiVersions"], &a.resource.version)
}

/// Do `namespaceSelector` and `objectSelector` select the request?
pub(super) fn selected(
    selectors: &Value,
    a: &Attributes<'_>,
    object: &Value,
    namespace: Option<&Value>,
) -> bool {
    if let Some(labels) = namespace
        && !machinery::selects(&selectors["namespaceSelector"], labels)
    {
        return false;
    }
    let selector = &selectors["objectSelector"];
    let selected = |o: &Value| machinery::selects(selector, &o["metadata"]["labels"]);
    (!object.is_null() && selected(object)) || a.old.is_some_and(selected)
}

/// The `AdmissionReview` a webhook is sent.
pub(crate) fn review(a: &Attributes<'_>, object: &Value, uid: &str) -> Value {
    let r = a.resource;
    let kind = match object["kind"].as_str() {
        // What is sent along with a connection is of another kind.
        Some(kind) if a.operation == Operation::Connect => {
            json!({"group": "", "version": "v1", "kind": kind})
        }
        _ => json!({"group": r.group, "version": r.version, "kind": r.kind}),
    };
    let resource = json!({"group": r.group, "version": r.version, "resource": r.plural});
    let options = |kind: &str| json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    let options = match a.operation {
        Operation::Create => options("CreateOptions"),
        Operation::Update => options("UpdateOptions"),
        Operation::Delete => options("DeleteOptions"),
        Operation::Connect => Value::Null,
    };
    let mut request = json!({
        "uid": uid, "kind": kind, "resource": resource,
        "requestKind": kind, "requestResource": resource,
        "operation": a.operation.text(), "userInfo": a.user.to_value(),
        "object": object, "oldObject": a.old, "dryRun": a.dry_run,
        "options": options,
    });
    if !a.name.is_empty() {
        request["name"] = a.name.into();
    }
    if r.namespaced || r.is("", "namespaces") {
        request["namespace"] = a.namespace.into();
    }
    if !a.subresource.is_empty() {
        request["subResource"] = a.subresource.into();
        request["requestSubResource"] = a.subresource.into();
    }
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request})
}

/// Asks one webhook. `Ok(None)`: it could not be asked and does not insist.
async fn call(
    server: &Arc<Server>,
    a: &Attributes<'_>,
    object: &Value,
    hook: &Value,
) -> ApiResult<Option<Value>> {
    let name = hook["name"].as_str().unwrap_or("");
    server
        .counters
        .webhook_calls
        .fetch_add(1, Ordering::Relaxed);
    if a.dry_run && !matches!(hook["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")) {
        return Err(ApiError::bad_request(format!(
            "admission webhook {name:?} does not support dry run"
        )));
    }
    let uid = uuid::Uuid::new_v4().to_string();
    let seconds = hook["timeoutSeconds"].as_u64().unwrap_or(10).clamp(1, 30);
    let review = review(a, object, &uid);
    match exchange(server, &hook["clientConfig"], seconds, &review, &uid).await {
        Ok(response) => {
            for text in response["warnings"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
            {
                a.warnings.lock().push(text.to_owned());
            }
            if response["allowed"] == true {
                return Ok(Some(response));
            }
            Err(denied(name, &response["status"]))
        }
        Err(why) if hook["failurePolicy"] == "Ignore" => {
            tracing::warn!(webhook = name, error = %why, "a webhook failed and is ignored");
            Ok(None)
        }
        Err(why) => Err(ApiError::internal(format!(
            "failed calling webhook {name:?}: {why}"
        ))),
    }
}

/// The refusal of a webhook in Kubernetes' words.
pub(crate) fn denied(name: &str, status: &Value) -> ApiError {
    let text = |k: &str| status[k].as_str().filter(|s| !s.is_empty());
    let head = format!("admission webhook {name:?} denied the request");
    let message = match text("message").or_else(|| text("reason")) {
        Some(why) => format!("{head}: {why}"),
        None => format!("{head} without explanation"),
    };
    let code = status["code"]
        .as_u64()
        .and_then(|c| u16::try_from(c).ok())
        .filter(|c| *c >= 400)
        .unwrap_or(400);
    let reason = match text("reason") {
        Some("Forbidden") => "Forbidden",
        Some("Invalid") => "Invalid",
        Some("Conflict") => "Conflict",
        Some("NotFound") => "NotFound",
        Some("InternalError") => "InternalError",
        Some("BadRequest") => "BadRequest",
        _ => "",
    };
    let mut e = ApiError::new(code, reason, message);
    e.details = status["details"].clone();
    e
}

/// The response in the answer to a review of this kind.
pub(crate) fn response(kind: &str, uid: &str, answer: &[u8]) -> Result<Value, String> {
    let mut answer: Value =
        serde_json::from_slice(answer).map_err(|e| format!("the answer is not JSON: {e}"))?;
    if answer["kind"] != kind || !answer["response"].is_object() {
        return Err(format!("the answer is no {kind} with a response"));
    }
    let response = answer["response"].take();
    if response["uid"] != uid {
        return Err(format!(
            "expected response.uid={uid:?}, got {}",
            response["uid"]
        ));
    }
    Ok(response)
}

/// Sends a review to a webhook and takes the response out of its answer, which is a review of the same kind.
pub(crate) async fn exchange(
    server: &Server,
    client: &Value,
    seconds: u64,
    review: &Value,
    uid: &str,
) -> Result<Value, String> {
    let (place, host, path) = place(server, client, seconds)?;
    let url = format!("https://{host}{path}");
    let body = bytes::Bytes::from(review.to_string());
    let request = || {
        http::Request::post(&path)
            .header(http::header::HOST, &host)
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::ACCEPT, "application/json, */*")
            .header(http::header::USER_AGENT, "kube-apiserver-admission")
            .body(full(body.clone()))
    };
    let run = async {
        let (code, body) = server
            .webhooks
            .exchange(&place, ANSWER_LIMIT, request)
            .await
            .map_err(|e| outbound::explain(&e))?;
        if !code.is_success() {
            return Err(format!(
                "an error on the server ({code}): {}",
                String::from_utf8_lossy(&body).trim()
            ));
        }
        response(api::meta::kind(review), uid, &body)
    };
    match tokio::time::timeout(Duration::from_secs(seconds), run).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(why)) => Err(format!("failed to call webhook: Post {url:?}: {why}")),
        Err(_) => Err(format!(
            "failed to call webhook: Post {url:?}: context deadline exceeded"
        )),
    }
}

/// Where a webhook is: address and trust, `host:port`, path with query.
fn place(server: &Server, config: &Value, seconds: u64) -> Result<(Place, String, String), String> {
    let roots_pem = match config["caBundle"].as_str().filter(|b| !b.is_empty()) {
        Some(text) => {
            let bytes = STANDARD
                .decode(text)
                .map_err(|e| format!("caBundle is not base64: {e}"))?;
            String::from_utf8(bytes).map_err(|e| format!("caBundle is not PEM: {e}"))?
        }
        None => {
            return Err(
                "x509: certificate signed by unknown authority: clientConfig.caBundle is empty"
                    .into(),
            );
        }
    };
    let service = &config["service"];
    if service.is_object() {
        let name = service["name"].as_str().unwrap_or("");
        let namespace = service["namespace"].as_str().unwrap_or("");
        let port = service["port"].as_u64().unwrap_or(443);
        let found = server
            .storage
            .cache()
            .get(&Key::new(&"core/services".into(), namespace, name))
            .ok_or_else(|| format!("service {name:?} not found"))?;
        let ip: IpAddr = found.value()["spec"]["clusterIP"]
            .as_str()
            .unwrap_or("")
            .parse()
            .map_err(|_| format!("service {namespace}/{name} has no cluster IP"))?;
        let port = u16::try_from(port).map_err(|_| format!("port {port} is out of range"))?;
        let path = service["path"].as_str().unwrap_or("/");
        let host = format!("{name}.{namespace}.svc");
        return Ok((
            Place {
                address: SocketAddr::new(ip, port),
                name: host.clone(),
                roots_pem,
            },
            format!("{host}:{port}"),
            with_timeout(path, seconds),
        ));
    }
    let url: http::Uri = config["url"]
        .as_str()
        .unwrap_or("")
        .parse()
        .map_err(|e| format!("clientConfig.url is not a URL: {e}"))?;
    let host = url
        .host()
        .ok_or("clientConfig.url has no host")?
        .trim_matches(['[', ']'])
        .to_owned();
    let port = url.port_u16().unwrap_or(443);
    // Names are resolved where the server runs; addresses and localhost need no resolver.
    let ip: IpAddr = if host == "localhost" {
        IpAddr::from([127, 0, 0, 1])
    } else {
        host.parse()
            .map_err(|_| format!("dial tcp: lookup {host}: only addresses can be dialed"))?
    };
    let path = url
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    Ok((
        Place {
            address: SocketAddr::new(ip, port),
            name: host.clone(),
            roots_pem,
        },
        format!("{host}:{port}"),
        with_timeout(path, seconds),
    ))
}

fn with_timeout(path: &str, seconds: u64) -> String {
    let glue = if path.contains('?') { '&' } else { '?' };
    format!("{path}{glue}timeout={seconds}s")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::User;
    use crate::registry::Registry;
    use parking_lot::Mutex;

    fn with_pod(labels: Value, operation: Operation, f: impl FnOnce(&Attributes<'_>, &Value)) {
        let registry = Registry::build(std::iter::empty());
        let resource = registry.find("", "v1", "pods").unwrap().clone();
        let (user, warnings) = (User::default(), Mutex::new(Vec::new()));
        let a = Attributes {
            operation,
            resource: &resource,
            namespace: "d",
            name: "p",
            subresource: "",
            old: None,
            user: &user,
            dry_run: false,
            warnings: &warnings,
        };
        f(&a, &json!({"metadata": {"labels": labels}}));
    }

    #[test]
    fn the_injector_is_asked_about_pods_of_labelled_namespaces() {
        let hook = json!({
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
            "namespaceSelector": {"matchExpressions": [{"key": "istio-injection", "operator": "In", "values": ["enabled"]}]},
            "objectSelector": {"matchExpressions": [{"key": "sidecar.istio.io/inject", "operator": "NotIn", "values": ["false"]}]},
        });
        let enabled = json!({"istio-injection": "enabled"});
        with_pod(json!({}), Operation::Create, |a, o| {
            assert!(applies(&hook, a, o, Some(&enabled)));
            assert!(!applies(&hook, a, o, Some(&json!({}))));
        });
        with_pod(
            json!({"sidecar.istio.io/inject": "false"}),
            Operation::Create,
            |a, o| {
                assert!(!applies(&hook, a, o, Some(&enabled)));
            },
        );
        with_pod(json!({}), Operation::Update, |a, o| {
            assert!(!applies(&hook, a, o, Some(&enabled)));
        });
    }

    #[test]
    fn denials_are_worded_as_kubernetes_words_them() {
        let e = denied(
            "v.istio.io",
            &json!({"message": "bad", "code": 422, "reason": "Invalid"}),
        );
        assert_eq!(
            e.message,
            r#"admission webhook "v.istio.io" denied the request: bad"#
        );
        assert_eq!((e.code, e.reason), (422, "Invalid"));
        assert_eq!(
            denied("x", &Value::Null).message,
            r#"admission webhook "x" denied the request without explanation"#
        );
        assert_eq!(denied("x", &Value::Null).code, 400);
    }

    #[test]
    fn reviews_carry_what_webhooks_read() {
        with_pod(json!({}), Operation::Create, |a, o| {
            let r = review(a, o, "u")["request"].clone();
            assert_eq!(
                (&r["uid"], &r["namespace"], &r["operation"]),
                (&json!("u"), &json!("d"), &json!("CREATE"))
            );
            assert_eq!(
                r["kind"],
                json!({"group": "", "version": "v1", "kind": "Pod"})
            );
        });
    }
}
