//! Admission webhooks with which the suite tests admission.

use std::time::Duration;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::{Value, json};

use crate::flags::{Flag, Flags};
use crate::server::{self, Request, handler, log, text};

/// Serves the webhooks over TLS.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let flags = Flags::parse(
        args,
        &[
            Flag::Value("tls-cert-file", ""),
            Flag::Value("tls-private-key-file", ""),
            Flag::Value("port", "443"),
            Flag::Value("sidecar-image", ""),
            // Verbosity of the logging library; there is one level here.
            Flag::Short("v", 'v', "0"),
            Flag::Switch("alsologtostderr", false),
        ],
    )?;
    let tls = server::tls_from_files(
        flags.text("tls-cert-file"),
        flags.text("tls-private-key-file"),
    )?;
    let sidecar = flags.text("sidecar-image").to_owned();
    let handler = handler(move |request: Request| {
        let sidecar = sidecar.clone();
        async move {
            if request.path == "/readyz" {
                return text(StatusCode::OK, "ok");
            }
            let Some(hook) = Hook::at(&request.path) else {
                return text(StatusCode::NOT_FOUND, "404 page not found\n");
            };
            let review: Value = match serde_json::from_slice(&request.body) {
                Ok(review) => review,
                Err(error) => {
                    return text(
                        StatusCode::BAD_REQUEST,
                        format!("Request could not be decoded: {error}\n"),
                    );
                }
            };
            log(&format!(
                "handling request: {} {}",
                request.path, review["request"]["name"]
            ));
            match hook.decide(&review["request"], &sidecar) {
                Decision::Never => std::future::pending().await,
                Decision::Now(response) => {
                    if matches!(hook, Hook::AllowSlowly) {
                        tokio::time::sleep(Duration::from_secs(5)).await;
                    }
                    server::json(&with_uid(&review, response))
                }
            }
        }
    });
    server::block_on(server::listen_and_serve(
        flags.get("port")?,
        Some(tls),
        handler,
    ))
}

fn with_uid(review: &Value, mut response: Value) -> Value {
    response["uid"] = review["request"]["uid"].clone();
    json!({"kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response})
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Hook {
    AllowSlowly,
    Deny,
    AddLabel,
    Pods,
    Attach,
    MutatePods,
    AddSidecar,
    ConfigMaps,
    MutateData,
    CustomResources,
    Definitions,
}

#[derive(Debug, PartialEq)]
enum Decision {
    Now(Value),
    /// The answer is never sent.
    Never,
}

impl Hook {
    fn at(path: &str) -> Option<Self> {
        Some(match path {
            "/always-allow-delay-5s" => Self::AllowSlowly,
            "/always-deny" => Self::Deny,
            "/add-label" => Self::AddLabel,
            "/pods" => Self::Pods,
            "/pods/attach" => Self::Attach,
            "/mutating-pods" => Self::MutatePods,
            "/mutating-pods-sidecar" => Self::AddSidecar,
            "/configmaps" => Self::ConfigMaps,
            "/mutating-configmaps" | "/mutating-custom-resource" => Self::MutateData,
            "/custom-resource" => Self::CustomResources,
            "/crd" => Self::Definitions,
            _ => return None,
        })
    }

    fn decide(self, request: &Value, sidecar: &str) -> Decision {
        let object = if request["operation"] == "DELETE" {
            &request["oldObject"]
        } else {
            &request["object"]
        };
        let label = object["metadata"]["labels"]["webhook-e2e-test"].as_str();
        Decision::Now(match self {
            Self::AllowSlowly => {
                let mut response = allow();
                response["status"] =
                    json!({"metadata": {}, "message": "this webhook allows all requests"});
                response
            }
            Self::Deny => deny("this webhook denies all requests"),
            Self::AddLabel => add_label(object),
            Self::Pods if label == Some("wait-forever") => return Decision::Never,
            Self::Pods => {
                let mut why = Vec::new();
                if label == Some("webhook-disallow") {
                    why.push("the pod contains unwanted label;");
                }
                for container in object["spec"]["containers"]
                    .as_array()
                    .into_iter()
                    .flatten()
                {
                    if container["name"]
                        .as_str()
                        .is_some_and(|n| n.contains("webhook-disallow"))
                    {
                        why.push("the pod contains unwanted container name;");
                    }
                }
                if why.is_empty() {
                    allow()
                } else {
                    deny(&why.join(" "))
                }
            }
            Self::Attach => {
                let asked = &request["object"];
                if request["name"] == "to-be-attached-pod"
                    && asked["stdin"] == true
                    && asked["container"] == "container1"
                {
                    deny("attaching to pod 'to-be-attached-pod' is not allowed")
                } else {
                    allow()
                }
            }
            Self::MutatePods => {
                let name = "webhook-added-init-container";
                if object["metadata"]["name"] == "webhook-to-be-mutated"
                    && !has_container(&object["spec"]["initContainers"], name)
                {
                    patch(&json!([{"op": "add", "path": "/spec/initContainers",
                        "value": [{"image": "webhook-added-image", "name": name, "resources": {}}]}]))
                } else {
                    allow()
                }
            }
            Self::AddSidecar => {
                let name = "webhook-added-sidecar";
                if sidecar.is_empty() {
                    deny("No image specified by the sidecar-image parameter")
                } else if has_container(&object["spec"]["containers"], name) {
                    allow()
                } else {
                    patch(&json!([{"op": "add", "path": "/spec/containers/-",
                        "value": {"image": sidecar, "name": name, "resources": {}}}]))
                }
            }
            Self::MutateData => {
                let data = &object["data"];
                let stage = if data["mutation-stage-1"] == "yes" {
                    Some(2)
                } else if data["mutation-start"] == "yes" {
                    Some(1)
                } else {
                    None
                };
                stage.map_or_else(allow, |n| {
                    patch(&json!([{"op": "add", "path": format!("/data/mutation-stage-{n}"), "value": "yes"}]))
                })
            }
            Self::ConfigMaps => by_data(
                request,
                object,
                "the configmap contains unwanted key and value",
                "the configmap cannot be deleted because it contains unwanted key and value",
            ),
            Self::CustomResources => by_data(
                request,
                object,
                "the custom resource contains unwanted data",
                "the custom resource cannot be deleted because it contains unwanted key and value",
            ),
            Self::Definitions if label == Some("webhook-disallow") => {
                deny("the crd contains unwanted label")
            }
            Self::Definitions => allow(),
        })
    }
}

fn allow() -> Value {
    json!({"allowed": true})
}

fn deny(message: &str) -> Value {
    json!({"allowed": false, "status": {"metadata": {}, "message": message}})
}

fn patch(operations: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())})
}

fn by_data(request: &Value, object: &Value, unwanted: &str, kept: &str) -> Value {
    // These give a reason and no message.
    let refuse = |why: &str| json!({"allowed": false, "status": {"metadata": {}, "reason": why}});
    let writing = request["operation"] == "CREATE" || request["operation"] == "UPDATE";
    match object["data"]["webhook-e2e-test"].as_str() {
        Some("webhook-disallow") if writing => refuse(unwanted),
        Some("webhook-nondeletable") if request["operation"] == "DELETE" => refuse(kept),
        _ => allow(),
    }
}

fn add_label(object: &Value) -> Value {
    let labels = object["metadata"]["labels"].as_object();
    match labels {
        None => patch(
            &json!([{"op": "add", "path": "/metadata/labels", "value": {"added-label": "yes"}}]),
        ),
        Some(labels) if labels.is_empty() => patch(
            &json!([{"op": "add", "path": "/metadata/labels", "value": {"added-label": "yes"}}]),
        ),
        Some(labels) => match labels.get("added-label") {
            None => patch(
                &json!([{"op": "add", "path": "/metadata/labels/added-label", "value": "yes"}]),
            ),
            Some(value) if value != "yes" => patch(
                &json!([{"op": "replace", "path": "/metadata/labels/added-label", "value": "yes"}]),
            ),
            Some(_) => allow(),
        },
    }
}

fn has_container(list: &Value, name: &str) -> bool {
    list.as_array()
        .into_iter()
        .flatten()
        .any(|container| container["name"] == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unwanted_config_map_is_refused_with_a_reason() {
        let request = json!({"operation": "CREATE", "object": {"data": {"webhook-e2e-test": "webhook-disallow"}}});
        let Decision::Now(response) = Hook::ConfigMaps.decide(&request, "") else {
            panic!("no answer")
        };
        assert_eq!(response["allowed"], false);
        assert_eq!(
            response["status"]["reason"],
            "the configmap contains unwanted key and value"
        );
    }

    #[test]
    fn data_is_mutated_in_two_stages() {
        let of = |data: Value| match Hook::MutateData.decide(&json!({"object": {"data": data}}), "")
        {
            Decision::Now(response) => response["patch"]
                .as_str()
                .map(|p| String::from_utf8(STANDARD.decode(p).unwrap()).unwrap()),
            Decision::Never => None,
        };
        assert!(
            of(json!({"mutation-start": "yes"}))
                .unwrap()
                .contains("stage-1")
        );
        assert!(
            of(json!({"mutation-start": "yes", "mutation-stage-1": "yes"}))
                .unwrap()
                .contains("stage-2")
        );
        assert_eq!(of(json!({})), None);
    }
}
