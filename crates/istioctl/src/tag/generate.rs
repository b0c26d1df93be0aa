//! The objects of a revision tag: webhooks that inject for namespaces and pods labelled with it, and a Service of its name.

use analysis::{Kind, Level, OWN_CLUSTER, Object, Store, analyzers};
use anyhow::{Result, anyhow};
use serde_json::{Map, Value, json};

use super::{REVISION, TAG};
use crate::yaml;

/// The tag that is the mesh's default: it injects where `istio-injection: enabled` is said, and validates everywhere.
pub(super) const DEFAULT: &str = "default";
/// The webhook that validates for the default revision.
pub(super) const VALIDATOR: &str = "istiod-default-validator";
const INJECT: &str = "sidecar.istio.io/inject";
const INJECTION: &str = "istio-injection";

/// What a tag is made from.
pub(super) struct Wanted<'a> {
    pub tag: &'a str,
    pub revision: &'a str,
    /// Name of the webhook configuration; empty: from the tag.
    pub webhook_name: &'a str,
    /// The default tag injects into all namespaces.
    pub everywhere: bool,
    pub istio_namespace: &'a str,
    /// The webhook configuration of the revision.
    pub canonical: &'a Value,
    /// The validating one that is there, if one is.
    pub validator: Option<&'a Value>,
}

impl Wanted<'_> {
    /// Name of the webhook configuration.
    pub(super) fn name(&self) -> String {
        match self.webhook_name {
            "" => format!("istio-revision-tag-{}", self.tag),
            named => named.to_owned(),
        }
    }
}

/// The objects, in the order in which they are printed.
///
/// # Errors
/// When the revision's configuration has no webhook of injection.
pub(super) fn objects(wanted: &Wanted<'_>) -> Result<Vec<Value>> {
    let canonical = wanted.canonical;
    let injector = canonical["webhooks"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|webhook| {
            webhook["name"]
                .as_str()
                .is_some_and(|name| name.ends_with("sidecar-injector.istio.io"))
        })
        .ok_or_else(|| {
            anyhow!(
                "failed to create tag webhook config: could not find sidecar-injector webhook in canonical webhook {:?}",
                api::meta::name(canonical)
            )
        })?;
    let mut out = vec![mutating(wanted, &injector["clientConfig"])];
    if wanted.tag == DEFAULT {
        out.push(validating(wanted, &injector["clientConfig"]));
    }
    out.push(service(wanted));
    Ok(out)
}

/// The objects as one text.
pub(super) fn documents(objects: &[Value]) -> String {
    let documents: Vec<String> = objects.iter().map(yaml::to_string).collect();
    documents.join("\n---\n")
}

/// The labels of an object, and over them those of the revision's configuration except what it is called.
fn labels(own: Value, wanted: &Wanted<'_>) -> Value {
    let mut labels = own.as_object().cloned().unwrap_or_default();
    labels.insert(TAG.to_owned(), wanted.tag.into());
    for (name, value) in wanted.canonical["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
    {
        if name != "app" && !name.contains("operator.istio.io") {
            labels.insert(name.clone(), value.clone());
        }
    }
    labels.into()
}

fn has(key: &str, operator: &str, values: &[&str]) -> Value {
    match values {
        [] => json!({"key": key, "operator": operator}),
        values => json!({"key": key, "operator": operator, "values": values}),
    }
}

fn select(expressions: &[Value]) -> Value {
    json!({"matchExpressions": expressions})
}

fn mutating(wanted: &Wanted<'_>, client: &Value) -> Value {
    let tag = [wanted.tag];
    let not_off = has(INJECT, "NotIn", &["false"]);
    let unlabelled = [
        has(INJECTION, "DoesNotExist", &[]),
        has(REVISION, "DoesNotExist", &[]),
    ];
    let no_revision = has(REVISION, "DoesNotExist", &[]);
    let mut selected = vec![
        (
            "rev.namespace",
            select(&[
                has(REVISION, "In", &tag),
                has(INJECTION, "DoesNotExist", &[]),
            ]),
            select(std::slice::from_ref(&not_off)),
        ),
        (
            "rev.object",
            select(&[
                has(REVISION, "DoesNotExist", &[]),
                has(INJECTION, "DoesNotExist", &[]),
            ]),
            select(&[not_off.clone(), has(REVISION, "In", &tag)]),
        ),
    ];
    if wanted.tag == DEFAULT {
        selected.push((
            "namespace",
            select(&[has(INJECTION, "In", &["enabled"])]),
            select(&[not_off]),
        ));
        selected.push((
            "object",
            select(&unlabelled),
            select(&[has(INJECT, "In", &["true"]), no_revision.clone()]),
        ));
        if wanted.everywhere {
            let [injection, revision] = unlabelled;
            let system = [
                "kube-system",
                "kube-public",
                "kube-node-lease",
                "local-path-storage",
            ];
            let others = has("kubernetes.io/metadata.name", "NotIn", &system);
            selected.push((
                "auto",
                select(&[injection, revision, others]),
                select(&[has(INJECT, "DoesNotExist", &[]), no_revision]),
            ));
        }
    }
    let webhooks: Vec<Value> = selected
        .into_iter()
        .map(|(name, namespaces, objects)| {
            json!({
                "name": format!("{name}.sidecar-injector.istio.io"),
                "admissionReviewVersions": ["v1"],
                "clientConfig": client,
                "failurePolicy": "Fail",
                "namespaceSelector": namespaces,
                "objectSelector": objects,
                "reinvocationPolicy": "Never",
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "sideEffects": "None",
            })
        })
        .collect();
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {
            "labels": labels(json!({"app": "sidecar-injector", "release": "istio"}), wanted),
            "name": wanted.name(),
        },
        "webhooks": webhooks,
    })
}

fn validating(wanted: &Wanted<'_>, injector: &Value) -> Value {
    let mut client = Map::new();
    client.insert("caBundle".to_owned(), injector["caBundle"].clone());
    match &injector["service"] {
        Value::Null => client.insert("url".to_owned(), injector["url"].clone()),
        service => client.insert(
            "service".to_owned(),
            json!({"name": service["name"], "namespace": service["namespace"], "path": "/validate"}),
        ),
    };
    let mut webhook = json!({
        "name": "validation.istio.io",
        "admissionReviewVersions": ["v1"],
        "clientConfig": client,
        "objectSelector": select(&[has(REVISION, "DoesNotExist", &[])]),
        "rules": [{
            "apiGroups": ["security.istio.io", "networking.istio.io", "telemetry.istio.io", "extensions.istio.io"],
            "apiVersions": ["*"],
            "operations": ["CREATE", "UPDATE"],
            "resources": ["*"],
        }],
        "sideEffects": "None",
    });
    // istiod makes it strict when it answers; that is not undone.
    let strict = wanted.validator.is_some_and(|validator| {
        validator["webhooks"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|webhook| webhook["failurePolicy"] == "Fail")
    });
    if !strict {
        webhook["failurePolicy"] = "Ignore".into();
    }
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {
            "labels": labels(json!({"app": "istiod", "istio": "istiod"}), wanted),
            "name": VALIDATOR,
        },
        "webhooks": [webhook],
    })
}

fn service(wanted: &Wanted<'_>) -> Value {
    /// The API server takes the port itself.
    const SAME: u16 = 0;
    let port = |name: &str, port: u16, target: u16| json!({"name": name, "port": port, "protocol": "TCP", "targetPort": target});
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "labels": {
                "app": "istiod", "istio": "pilot", "release": "istio",
                REVISION: wanted.revision, TAG: wanted.tag,
            },
            "name": format!("istiod-revision-tag-{}", wanted.tag),
            "namespace": wanted.istio_namespace,
        },
        "spec": {
            "ports": [
                port("grpc-xds", 15010, SAME),
                port("https-dns", 15012, SAME),
                port("https-webhook", 443, 15017),
                port("http-monitoring", 15014, SAME),
            ],
            "selector": {"app": "istiod", REVISION: wanted.revision},
        },
        "status": {"loadBalancer": {}},
    })
}

/// What speaks against a new webhook configuration beside those that are there; nothing when it may be applied.
pub(super) fn conflicts(new: &Value, present: &[Value], services: &[Value]) -> Option<String> {
    let mut store = Store::default();
    for kind in [Kind::MutatingWebhookConfiguration, Kind::Service] {
        store.offer(kind);
    }
    let name = api::meta::name(new);
    let others = present.iter().filter(|one| api::meta::name(one) != name);
    for configuration in others.chain([new]) {
        store.add(Object::new(
            Kind::MutatingWebhookConfiguration,
            configuration.clone(),
            OWN_CLUSTER,
            None,
        ));
    }
    for service in services {
        store.add(Object::new(
            Kind::Service,
            service.clone(),
            OWN_CLUSTER,
            None,
        ));
    }
    let options = analysis::Options {
        namespace: String::new(),
        suppressions: Vec::new(),
        now: 0,
    };
    let analyzers = analyzers::named(&["webhook.Analyzer".to_owned()]);
    let mut messages = analysis::analyze(&analyzers, &store, &options).messages;
    let of_new = format!("MutatingWebhookConfiguration {name}");
    messages.retain(|message| {
        message.level == Level::Error && message.origin.friendly_name() == of_new
    });
    (!messages.is_empty()).then(|| {
        // The empty place of the file is printed, too.
        let lines = messages.iter().map(|message| {
            format!(
                "{} [{}] ({of_new} ) {}\n",
                message.level, message.code, message.text
            )
        });
        format!(
            "creating tag would conflict, pass --skip-confirmation to proceed:\n{}",
            lines.collect::<String>()
        )
    })
}
