//! Rows of the built-in kinds.

use super::{age, autoscaling, list, pod, storage, text_or};
use crate::meta;
use crate::scheme::ResourceInfo;
use crate::selector::LabelSelector;
use crate::time::{self, Time};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The cells of an object, all columns, wide ones included.
pub fn cells(resource: &ResourceInfo, o: &Value, now: Time) -> Vec<Value> {
    let name: Value = meta::name(o).into();
    let (spec, status) = (&o["spec"], &o["status"]);
    let count = |v: &Value| v.as_i64().unwrap_or(0);
    match resource.kind.as_str() {
        "Pod" => pod::cells(o, now),
        "Deployment" => {
            let ready = format!(
                "{}/{}",
                count(&status["readyReplicas"]),
                count(&spec["replicas"])
            );
            let mut row = vec![
                name,
                ready.into(),
                count(&status["updatedReplicas"]).into(),
                count(&status["availableReplicas"]).into(),
                age(o, now),
            ];
            row.extend(template(spec));
            row
        }
        "ReplicaSet" => {
            let mut row = vec![
                name,
                count(&spec["replicas"]).into(),
                count(&status["replicas"]).into(),
                count(&status["readyReplicas"]).into(),
                age(o, now),
            ];
            row.extend(template(spec));
            row
        }
        "ReplicationController" => {
            let [containers, images] = containers(&spec["template"]);
            vec![
                name,
                count(&spec["replicas"]).into(),
                count(&status["replicas"]).into(),
                count(&status["readyReplicas"]).into(),
                age(o, now),
                containers,
                images,
                labels(&spec["selector"]).into(),
            ]
        }
        "PodTemplate" => {
            let [containers, images] = containers(&o["template"]);
            let own = labels(&o["template"]["metadata"]["labels"]);
            vec![name, containers, images, own.into()]
        }
        "ResourceQuota" => {
            let (requests, limits) = quota(status);
            vec![name, age(o, now), requests.into(), limits.into()]
        }
        "StatefulSet" => {
            let ready = format!(
                "{}/{}",
                count(&status["readyReplicas"]),
                count(&spec["replicas"])
            );
            let [containers, images] = containers(&spec["template"]);
            vec![name, ready.into(), age(o, now), containers, images]
        }
        "DaemonSet" => {
            let mut row = vec![name];
            for field in [
                "desiredNumberScheduled",
                "currentNumberScheduled",
                "numberReady",
                "updatedNumberScheduled",
                "numberAvailable",
            ] {
                row.push(count(&status[field]).into());
            }
            row.push(labels(&spec["template"]["spec"]["nodeSelector"]).into());
            row.push(age(o, now));
            row.extend(template(spec));
            row
        }
        "ControllerRevision" => vec![
            name,
            controller(o).into(),
            o["revision"].clone(),
            age(o, now),
        ],
        "CronJob" => {
            let last = &status["lastScheduleTime"];
            let last: Value = match last.as_str() {
                Some(_) => time::age(last.as_str(), now).into(),
                None => "<none>".into(),
            };
            let suspend = spec["suspend"] == true;
            let mut row = vec![
                name,
                spec["schedule"].clone(),
                text_or(&spec["timeZone"], "<none>").into(),
                if suspend { "True" } else { "False" }.into(),
                size(&status["active"]).into(),
                last,
                age(o, now),
            ];
            row.extend(template(&spec["jobTemplate"]["spec"]));
            row
        }
        "PodDisruptionBudget" => {
            let bound = |v: &Value| match v {
                Value::Null => "N/A".to_owned(),
                Value::String(s) => s.clone(),
                other => other.to_string(),
            };
            vec![
                name,
                bound(&spec["minAvailable"]).into(),
                bound(&spec["maxUnavailable"]).into(),
                count(&status["disruptionsAllowed"]).into(),
                age(o, now),
            ]
        }
        "PriorityClass" => vec![
            name,
            count(&o["value"]).into(),
            (o["globalDefault"] == true).into(),
            age(o, now),
            text_or(&o["preemptionPolicy"], "").into(),
        ],
        "FlowSchema" => {
            let conditions = list(&status["conditions"]).iter();
            let dangling = conditions
                .filter(|c| c["type"] == "Dangling")
                .find_map(|c| c["status"].as_str());
            vec![
                name,
                text_or(&spec["priorityLevelConfiguration"]["name"], "").into(),
                count(&spec["matchingPrecedence"]).into(),
                text_or(&spec["distinguisherMethod"]["type"], "<none>").into(),
                age(o, now),
                dangling.unwrap_or("?").into(),
            ]
        }
        "PriorityLevelConfiguration" => {
            let limited = &spec["limited"];
            let shown = |v: &Value| {
                if v.is_null() {
                    "<none>".into()
                } else {
                    v.clone()
                }
            };
            let queuing = &limited["limitResponse"]["queuing"];
            vec![
                name,
                text_or(&spec["type"], "").into(),
                shown(&limited["nominalConcurrencyShares"]),
                shown(&queuing["queues"]),
                shown(&queuing["handSize"]),
                shown(&queuing["queueLengthLimit"]),
                age(o, now),
            ]
        }
        "APIService" => {
            let service = &spec["service"];
            let place = |part: &str| text_or(&service[part], "");
            let mut conditions = list(&status["conditions"]).iter();
            let available = conditions.rfind(|c| c["type"] == "Available");
            let available = match available {
                Some(c) if c["status"] == "True" => "True".to_owned(),
                Some(c) => format!(
                    "{} ({})",
                    text_or(&c["status"], ""),
                    text_or(&c["reason"], "")
                ),
                None => "Unknown".to_owned(),
            };
            let at = match service {
                Value::Null => "Local".to_owned(),
                _ => format!("{}/{}", place("namespace"), place("name")),
            };
            vec![name, at.into(), available.into(), age(o, now)]
        }
        "RuntimeClass" => vec![name, text_or(&o["handler"], "").into(), age(o, now)],
        "HorizontalPodAutoscaler" => autoscaling::cells(o, now),
        "Job" => job(o, now),
        "Service" => service(o, now),
        "Endpoints" => vec![name, endpoints(o).into(), age(o, now)],
        "EndpointSlice" => vec![
            name,
            o["addressType"].clone(),
            slice_ports(&o["ports"]).into(),
            more(
                list(&o["endpoints"])
                    .iter()
                    .flat_map(|e| list(&e["addresses"]))
                    .filter_map(Value::as_str)
                    .map(String::from)
                    .collect(),
            )
            .into(),
            age(o, now),
        ],
        "Node" => node(o, now),
        "Namespace" => vec![name, text_or(&status["phase"], "").into(), age(o, now)],
        "ConfigMap" => vec![
            name,
            (size(&o["data"]) + size(&o["binaryData"])).into(),
            age(o, now),
        ],
        "Secret" => vec![
            name,
            text_or(&o["type"], "").into(),
            size(&o["data"]).into(),
            age(o, now),
        ],
        "ServiceAccount" => vec![name, size(&o["secrets"]).into(), age(o, now)],
        "Event" => event(o, now),
        "RoleBinding" | "ClusterRoleBinding" => binding(o, now),
        "Lease" => vec![
            name,
            text_or(&spec["holderIdentity"], "").into(),
            age(o, now),
        ],
        "Ingress" => {
            let class = text_or(&spec["ingressClassName"], "<none>");
            let ports = if list(&spec["tls"]).is_empty() {
                "80"
            } else {
                "80, 443"
            };
            vec![
                name,
                class.into(),
                ingress_hosts(list(&spec["rules"])).into(),
                ingress_addresses(list(&status["loadBalancer"]["ingress"])).into(),
                ports.into(),
                age(o, now),
            ]
        }
        "IngressClass" => {
            let p = &spec["parameters"];
            let parameters = match (p.is_object(), p["apiGroup"].as_str()) {
                (false, _) => "<none>".to_owned(),
                (true, Some(group)) => {
                    format!(
                        "{}.{group}/{}",
                        text_or(&p["kind"], ""),
                        text_or(&p["name"], "")
                    )
                }
                (true, None) => format!("{}/{}", text_or(&p["kind"], ""), text_or(&p["name"], "")),
            };
            vec![
                name,
                text_or(&spec["controller"], "").into(),
                parameters.into(),
                age(o, now),
            ]
        }
        "ValidatingAdmissionPolicy" => {
            let kind = &spec["paramKind"];
            let params = match kind.is_object() {
                true => format!(
                    "{}/{}",
                    text_or(&kind["apiVersion"], ""),
                    text_or(&kind["kind"], "")
                ),
                false => "<unset>".to_owned(),
            };
            vec![
                name,
                list(&spec["validations"]).len().into(),
                params.into(),
                age(o, now),
            ]
        }
        "ValidatingAdmissionPolicyBinding" => {
            let p = &spec["paramRef"];
            let params = match (p["name"].as_str(), p["namespace"].as_str()) {
                (Some(name), Some(namespace)) => format!("{namespace}/{name}"),
                (Some(name), None) => format!("*/{name}"),
                _ => "<unset>".to_owned(),
            };
            vec![
                name,
                text_or(&spec["policyName"], "").into(),
                params.into(),
                age(o, now),
            ]
        }
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => {
            vec![name, size(&o["webhooks"]).into(), age(o, now)]
        }
        kind => storage::cells(kind, o, now)
            .unwrap_or_else(|| vec![name, o["metadata"]["creationTimestamp"].clone()]),
    }
}

fn size(v: &Value) -> usize {
    match v {
        Value::Array(a) => a.len(),
        Value::Object(m) => m.len(),
        _ => 0,
    }
}

fn join<'a>(parts: impl Iterator<Item = &'a str>, separator: &str) -> String {
    parts.collect::<Vec<_>>().join(separator)
}

/// Names and images of the containers of a pod template.
fn containers(template: &Value) -> [Value; 2] {
    let containers = list(&template["spec"]["containers"]);
    [
        join(containers.iter().filter_map(|c| c["name"].as_str()), ",").into(),
        join(containers.iter().filter_map(|c| c["image"].as_str()), ",").into(),
    ]
}

/// Used and hard amounts of a quota: of requests and counts, and of limits.
fn quota(status: &Value) -> (String, String) {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let mut hard: Vec<(&str, &str)> = meta::pairs(&status["hard"]).collect();
    hard.sort_unstable();
    for (resource, hard) in hard {
        let used = text_or(&status["used"][resource], "0");
        let to = if resource.starts_with("limits.") {
            &mut limits
        } else {
            &mut requests
        };
        to.push(format!("{resource}: {used}/{hard}"));
    }
    (requests.join(", "), limits.join(", "))
}

/// The managing owner as `statefulset.apps/name`.
fn controller(o: &Value) -> String {
    let Some(owner) = meta::controller_of(o) else {
        return "<none>".to_owned();
    };
    let (group, _) = meta::group_version(text_or(&owner["apiVersion"], ""));
    let kind = text_or(&owner["kind"], "").to_lowercase();
    let dot = if group.is_empty() { "" } else { "." };
    format!("{kind}{dot}{group}/{}", text_or(&owner["name"], ""))
}

/// Containers, images and selector of a workload.
fn template(spec: &Value) -> [Value; 3] {
    let [names, images] = containers(&spec["template"]);
    [
        names,
        images,
        match LabelSelector::from_value(&spec["selector"]) {
            s if s.is_empty() || !spec["selector"].is_object() => "<none>".into(),
            s => s.to_string().into(),
        },
    ]
}

fn job(o: &Value, now: Time) -> Vec<Value> {
    let (spec, status) = (&o["spec"], &o["status"]);
    let done = status["succeeded"].as_i64().unwrap_or(0);
    let completions = match (
        spec["completions"].as_i64(),
        spec["parallelism"].as_i64().unwrap_or(0),
    ) {
        (Some(n), _) => format!("{done}/{n}"),
        (None, p) if p > 1 => format!("{done}/1 of {p}"),
        (None, _) => format!("{done}/1"),
    };
    let duration = match (
        status["startTime"].as_str().and_then(time::parse),
        status["completionTime"].as_str().and_then(time::parse),
    ) {
        (None, _) => String::new(),
        (Some(start), end) => time::human_duration(end.unwrap_or(now) - start),
    };
    let has = |kind: &str| {
        list(&status["conditions"])
            .iter()
            .any(|c| c["type"] == kind && c["status"] == "True")
    };
    let state = if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if meta::deletion_timestamp(o).is_some() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else {
        "Running"
    };
    let mut row = vec![
        meta::name(o).into(),
        state.into(),
        completions.into(),
        duration.into(),
        age(o, now),
    ];
    row.extend(template(spec));
    row
}

fn service(o: &Value, now: Time) -> Vec<Value> {
    let spec = &o["spec"];
    let external: Vec<&str> = list(&spec["externalIPs"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let kind = spec["type"].as_str().unwrap_or("");
    let external = match kind {
        "ClusterIP" | "NodePort" if external.is_empty() => "<none>".to_string(),
        "ClusterIP" | "NodePort" => external.join(","),
        "LoadBalancer" => {
            let ingress: BTreeSet<&str> = list(&o["status"]["loadBalancer"]["ingress"])
                .iter()
                .filter_map(|i| {
                    i["ip"]
                        .as_str()
                        .filter(|s| !s.is_empty())
                        .or(i["hostname"].as_str())
                })
                .collect();
            let all: Vec<&str> = ingress.into_iter().chain(external).collect();
            if all.is_empty() {
                "<pending>".into()
            } else {
                all.join(",")
            }
        }
        "ExternalName" => spec["externalName"].as_str().unwrap_or("").to_string(),
        _ => "<unknown>".into(),
    };
    let ports: Vec<String> = list(&spec["ports"])
        .iter()
        .map(|p| {
            let protocol = p["protocol"].as_str().unwrap_or("");
            match p["nodePort"].as_i64().unwrap_or(0) {
                0 => format!("{}/{protocol}", p["port"]),
                n => format!("{}:{n}/{protocol}", p["port"]),
            }
        })
        .collect();
    vec![
        meta::name(o).into(),
        kind.into(),
        text_or(
            &spec["clusterIPs"][0],
            text_or(&spec["clusterIP"], "<none>"),
        )
        .into(),
        external.into(),
        if ports.is_empty() {
            "<none>".into()
        } else {
            ports.join(",").into()
        },
        age(o, now),
        labels(&spec["selector"]).into(),
    ]
}

/// Labels in order of their keys, `<none>` when there are none.
fn labels(v: &Value) -> String {
    let mut pairs: Vec<String> = meta::pairs(v).map(|(k, v)| format!("{k}={v}")).collect();
    pairs.sort();
    if pairs.is_empty() {
        "<none>".into()
    } else {
        pairs.join(",")
    }
}

/// At most three, then how many more.
fn more(mut all: Vec<String>) -> String {
    let rest = all.len().saturating_sub(3);
    all.truncate(3);
    match (all.is_empty(), rest) {
        (true, _) => "<unset>".into(),
        (_, 0) => all.join(","),
        _ => format!("{} + {rest} more...", all.join(",")),
    }
}

fn slice_ports(ports: &Value) -> String {
    let shown = |p: &Value| match (p["port"].as_i64(), p["name"].as_str()) {
        (Some(n), _) => n.to_string(),
        (None, Some(name)) => name.to_string(),
        (None, None) => "*".into(),
    };
    more(list(ports).iter().map(shown).collect())
}

fn endpoints(o: &Value) -> String {
    let subsets = list(&o["subsets"]);
    if subsets.is_empty() {
        return "<none>".into();
    }
    let mut all = Vec::new();
    for s in subsets {
        let ips: Vec<&str> = list(&s["addresses"])
            .iter()
            .filter_map(|a| a["ip"].as_str())
            .collect();
        let ports = list(&s["ports"]);
        if ports.is_empty() {
            all.extend(ips.iter().map(|ip| ip.to_string()));
        }
        for p in ports {
            all.extend(ips.iter().map(|ip| {
                if ip.contains(':') {
                    format!("[{ip}]:{}", p["port"])
                } else {
                    format!("{ip}:{}", p["port"])
                }
            }));
        }
    }
    if all.is_empty() {
        String::new()
    } else {
        more(all)
    }
}

fn node(o: &Value, now: Time) -> Vec<Value> {
    let status = &o["status"];
    let mut state = match list(&status["conditions"])
        .iter()
        .rfind(|c| c["type"] == "Ready")
    {
        Some(c) if c["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_string();
    if o["spec"]["unschedulable"] == true {
        state.push_str(",SchedulingDisabled");
    }
    let roles: BTreeSet<&str> = meta::labels(o)
        .filter_map(|(k, v)| match k.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None => (k == "kubernetes.io/role").then_some(v),
        })
        .filter(|r| !r.is_empty())
        .collect();
    let roles: Vec<&str> = roles.into_iter().collect();
    let address = |kind: &str| {
        list(&status["addresses"])
            .iter()
            .find(|a| a["type"] == kind)
            .and_then(|a| a["address"].as_str())
            .unwrap_or("<none>")
            .to_string()
    };
    let info = &status["nodeInfo"];
    vec![
        meta::name(o).into(),
        state.into(),
        if roles.is_empty() {
            "<none>".into()
        } else {
            roles.join(",").into()
        },
        age(o, now),
        text_or(&info["kubeletVersion"], "").into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        text_or(&info["osImage"], "<unknown>").into(),
        text_or(&info["kernelVersion"], "<unknown>").into(),
        text_or(&info["containerRuntimeVersion"], "<unknown>").into(),
    ]
}

/// Events of both groups: the fields have two sets of names.
fn event(o: &Value, now: Time) -> Vec<Value> {
    let either = |a: &str, b: &str| {
        if o[a].is_null() {
            o[b].clone()
        } else {
            o[a].clone()
        }
    };
    let since = |v: &Value| time::age(v.as_str(), now);
    let (first, last) = (
        either("firstTimestamp", "deprecatedFirstTimestamp"),
        either("lastTimestamp", "deprecatedLastTimestamp"),
    );
    let first_seen = if first.is_null() {
        since(&o["eventTime"])
    } else {
        since(&first)
    };
    let mut last_seen = if last.is_null() {
        first_seen.clone()
    } else {
        since(&last)
    };
    let mut count = either("count", "deprecatedCount").as_i64().unwrap_or(0);
    if o["series"].is_object() {
        last_seen = since(&o["series"]["lastObservedTime"]);
        count = o["series"]["count"].as_i64().unwrap_or(0);
    } else if count == 0 {
        count = 1;
    }
    let about = either("involvedObject", "regarding");
    let kind = about["kind"].as_str().unwrap_or("").to_lowercase();
    let target = match text_or(&about["name"], "") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let source = either("source", "deprecatedSource");
    let component = text_or(
        &source["component"],
        text_or(
            &o["reportingComponent"],
            text_or(&o["reportingController"], ""),
        ),
    )
    .to_string();
    let source = match text_or(&source["host"], text_or(&o["reportingInstance"], "")) {
        "" => component,
        instance => format!("{component}, {instance}"),
    };
    let message = either("message", "note");
    vec![
        last_seen.into(),
        text_or(&o["type"], "").into(),
        text_or(&o["reason"], "").into(),
        target.into(),
        text_or(&about["fieldPath"], "").into(),
        source.into(),
        message.as_str().unwrap_or("").trim().into(),
        first_seen.into(),
        count.into(),
        meta::name(o).into(),
    ]
}

fn binding(o: &Value, now: Time) -> Vec<Value> {
    let of = |kind: &'static str| {
        list(&o["subjects"])
            .iter()
            .filter(move |s| s["kind"] == kind)
    };
    let names = |kind: &'static str| join(of(kind).filter_map(|s| s["name"].as_str()), ", ");
    let accounts: Vec<String> = of("ServiceAccount")
        .map(|s| match text_or(&s["namespace"], "") {
            "" => format!("/{}", text_or(&s["name"], "")),
            ns => format!("{ns}/{}", text_or(&s["name"], "")),
        })
        .collect();
    let role = &o["roleRef"];
    vec![
        meta::name(o).into(),
        json!(format!(
            "{}/{}",
            text_or(&role["kind"], ""),
            text_or(&role["name"], "")
        )),
        age(o, now),
        names("User").into(),
        names("Group").into(),
        accounts.join(", ").into(),
    ]
}

/// The hosts of an Ingress' rules, the first three.
fn ingress_hosts(rules: &[Value]) -> String {
    const SHOWN: usize = 3;
    let mut hosts: Vec<&str> = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= hosts.len() == SHOWN;
        let host = text_or(&rule["host"], "");
        if !more && !host.is_empty() {
            hosts.push(host);
        }
    }
    match (hosts.is_empty(), more) {
        (true, _) => "*".into(),
        (false, false) => hosts.join(","),
        (false, true) => format!("{} + {} more...", hosts.join(","), rules.len() - SHOWN),
    }
}

/// The addresses where an Ingress is reached, cut to the width of the column.
fn ingress_addresses(points: &[Value]) -> String {
    const WIDTH: usize = 16;
    let all: BTreeSet<&str> = points
        .iter()
        .map(|p| text_or(&p["ip"], text_or(&p["hostname"], "")))
        .filter(|a| !a.is_empty())
        .collect();
    let mut text = all.into_iter().collect::<Vec<_>>().join(",");
    if text.len() > WIDTH {
        text.truncate(WIDTH - 3);
        text.push_str("...");
    }
    text
}
