//! The requests around the objects: paths, queries, headers, Kubernetes' protobuf, streams, DNS, logs.

use std::sync::LazyLock;

use apiserver::parsers;
use kubelet::dns;
use serde_json::{Value, json};

use super::text;
use crate::Target;

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "kubernetes-body",
        run: body,
        also: &[],
    },
    Target {
        name: "kubernetes-request",
        run: request,
        also: &[],
    },
    Target {
        name: "spdy",
        run: spdy,
        also: &[],
    },
    Target {
        name: "exec-channel",
        run: channel,
        also: &[],
    },
    Target {
        name: "dns-question",
        run: dns_question,
        also: &[],
    },
    Target {
        name: "log-line",
        run: log_line,
        also: &[],
    },
    Target {
        name: "webhook-answer",
        run: webhook_answer,
        also: &[],
    },
    Target {
        name: "rbac-rule",
        run: rbac_rule,
        also: &[],
    },
    Target {
        name: "watch-event",
        run: watch_event,
        also: &[],
    },
];

/// A body in each of the encodings.
fn body(input: &[u8]) {
    let yaml = super::kubernetes::as_yaml(input).is_some();
    for media in [
        "application/json",
        "application/yaml",
        "application/vnd.kubernetes.protobuf",
    ] {
        if media == "application/yaml" && !yaml {
            continue;
        }
        if let Ok(object) = parsers::body(media, input) {
            let written = object.to_string();
            let readable = !api::meta::nests_deeper(&object, api::meta::DEEPEST);
            if readable && !super::has_fractions(&object) {
                let again: Value = serde_json::from_str(&written).expect("it is JSON");
                assert_eq!(again.to_string(), written);
            }
        }
    }
}

/// An object, a line `---`, and what an admission webhook answers about it.
fn webhook_answer(input: &[u8]) {
    let Some((object, answer)) = super::kubernetes::parts(input) else {
        return;
    };
    let Ok(object) = serde_json::from_slice::<Value>(object) else {
        return;
    };
    match parsers::webhook_answer(&object, answer) {
        Ok(_) => {
            let review: Value =
                serde_json::from_slice(answer).expect("what was understood is JSON");
            assert_eq!(review["response"]["allowed"], true, "it was not allowed");
        }
        Err((code, message)) => {
            assert!((400..600).contains(&code), "{code} is no refusal");
            assert!(!message.is_empty(), "a refusal without a word");
        }
    }
}

/// A rule of a role as JSON, and of an action, a line each: verb, group, resource, subresource, name, path. A rule allows no less when
/// one of its lists is wider.
fn rbac_rule(input: &[u8]) {
    let Some((rule, action)) = super::kubernetes::parts(input) else {
        return;
    };
    let (Ok(rule), Some(action)) = (serde_json::from_slice::<Value>(rule), text(action)) else {
        return;
    };
    let mut lines = action.lines();
    let mut line = || lines.next().unwrap_or_default();
    let (verb, group, resource, subresource, name, path) =
        (line(), line(), line(), line(), line(), line());
    let allows =
        |rule: &Value| parsers::rule_allows(rule, verb, group, (resource, subresource), name);
    let on_path = |rule: &Value| parsers::rule_allows_path(rule, verb, path);
    if !rule.is_object() {
        assert!(!allows(&rule) && !on_path(&rule), "{rule} allows something");
        return;
    }
    for (list, all) in [
        ("verbs", json!(["*"])),
        ("apiGroups", json!(["*"])),
        ("resources", json!(["*"])),
        ("resourceNames", json!([])),
        ("nonResourceURLs", json!(["*"])),
    ] {
        let mut wider = rule.clone();
        wider[list] = all;
        assert!(allows(&wider) || !allows(&rule), "{rule} {action:?}");
        assert!(on_path(&wider) || !on_path(&rule), "{rule} {action:?}");
    }
    for list in ["verbs", "apiGroups", "resources"] {
        let mut empty = rule.clone();
        empty[list] = json!([]);
        assert!(!allows(&empty), "{empty} {action:?}");
    }
}

/// The head of a request: its path with the query, then headers, a line each.
fn request(input: &[u8]) {
    let mut lines = input.split(|b| *b == b'\n');
    let Some(first) = lines.next().and_then(text) else {
        return;
    };
    let (path, query) = first.split_once('?').unwrap_or((first, ""));
    if let Some(parts) = parsers::path(path) {
        let [group, version, namespace, plural, name, subresource, _] = &parts;
        for part in [group, version, namespace, plural, name, subresource] {
            assert!(
                path.len() >= part.len(),
                "{part:?} does not come from {path:?}"
            );
        }
    }
    for (key, value) in parsers::query(query) {
        if key == "continue"
            && let Some(token) = parsers::continue_token(&value)
        {
            assert_eq!(parsers::continue_token(&token), Some(token.clone()));
        }
    }
    let mut headers = http::HeaderMap::new();
    for line in lines {
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if let (Ok(name), Ok(value)) = (
            http::HeaderName::from_bytes(name),
            http::HeaderValue::from_bytes(value),
        ) {
            if let Ok(accept) = value.to_str() {
                let _ = parsers::accept(accept);
            }
            headers.append(name, value);
        }
    }
    let _ = parsers::identity(&headers);
}

/// Frames do not depend on how their bytes arrive.
fn spdy(input: &[u8]) {
    let frames = |step| kubelet::server::parsers::spdy(input, step);
    let whole = frames(input.len());
    for step in [1, 7] {
        assert_eq!(frames(step), whole, "in pieces of {step} bytes");
    }
}

fn channel(input: &[u8]) {
    let _ = kubelet::server::parsers::channel(input);
    if let Some(text) = text(input) {
        let values: Vec<String> = text.split('&').map(str::to_owned).collect();
        let _ = kubelet::server::parsers::ports(&values);
    }
}

/// A cluster with a service of each kind.
static TABLE: LazyLock<dns::Table> = LazyLock::new(|| {
    let port = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
    let services = [
        json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"clusterIP": "10.97.0.7", "type": "ClusterIP", "ports": port}}),
        json!({"metadata": {"name": "db", "namespace": "shop"}, "spec": {"clusterIP": "None", "type": "ClusterIP", "ports": port}}),
        json!({"metadata": {"name": "away", "namespace": "shop"}, "spec": {"externalName": "example.com", "type": "ExternalName"}}),
    ];
    let slices = [
        json!({"metadata": {"name": "db-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "db"}}, "addressType": "IPv4",
        "ports": port, "endpoints": [{"addresses": ["10.10.0.9"], "hostname": "db-0", "conditions": {"ready": true}}]}),
    ];
    dns::Table::build("cluster.local", &services, &slices)
});

/// A question gets an answer that fits, whatever it is.
fn dns_question(input: &[u8]) {
    match dns::parse_question(input) {
        Ok(question) => {
            let answer = dns::answer(&TABLE, &question, 1, true);
            assert!(answer.len() <= 4096, "{} bytes over UDP", answer.len());
            assert_eq!(answer[..2], input[..2], "the answer has another id");
            let _ = dns::answer(&TABLE, &question, 0, false);
        }
        Err(refusal) => {
            if let Some(refusal) = refusal {
                assert_eq!(refusal[..2], input[..2], "the refusal has another id");
            }
        }
    }
}

fn log_line(input: &[u8]) {
    for line in input.split(|b| *b == b'\n') {
        if let Some(entry) = kubelet::logs::parse_line(line) {
            assert!(line.ends_with(entry.text));
        }
    }
}

/// A line of a watch, as informers keep it: what they leave out is the same whether they read it or were given it.
fn watch_event(input: &[u8]) {
    let _ = kube_client::watch::document(input);
}
