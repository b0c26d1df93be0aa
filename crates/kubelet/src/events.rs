//! `v1/Event` objects about pods and the node, repeated ones counted instead of repeated.

use std::collections::HashMap;

use kube_client::{Client, EVENTS, PatchType};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::clock::{self, Millis, rfc3339};

/// How many different events are remembered for counting.
const REMEMBERED: usize = 4096;

/// One thing that happened to an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Happening {
    /// Kind of the object: `Pod` or `Node`.
    pub kind: &'static str,
    /// Its namespace; empty for a node.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Part of the object, `spec.containers{app}`; may be empty.
    pub field_path: String,
    /// `Warning` rather than `Normal`.
    pub warning: bool,
    /// CamelCase reason.
    pub reason: String,
    /// Sentence for people.
    pub message: String,
}

/// Writes events in the background, in order. Losing one never harms a pod.
#[derive(Clone)]
pub struct Recorder {
    sender: mpsc::UnboundedSender<(Happening, Millis)>,
}

struct Known {
    name: String,
    count: u32,
}

impl Recorder {
    /// Starts the writer; it ends when the last clone is dropped.
    pub fn start(client: Client, node: String) -> Self {
        let (sender, mut receiver) = mpsc::unbounded_channel::<(Happening, Millis)>();
        tokio::spawn(async move {
            let mut known: HashMap<Happening, Known> = HashMap::new();
            while let Some((happening, at)) = receiver.recv().await {
                if known.len() > REMEMBERED {
                    known.clear();
                }
                if let Err(problem) = write(&client, &node, &mut known, happening, at).await {
                    tracing::debug!(%problem, "event not written");
                }
            }
        });
        Self { sender }
    }

    /// Records something that happens now.
    pub fn record(&self, happening: Happening) {
        let _ = self.sender.send((happening, clock::now()));
    }
}

async fn write(
    client: &Client,
    node: &str,
    known: &mut HashMap<Happening, Known>,
    happening: Happening,
    at: Millis,
) -> kube_client::Result<()> {
    let namespace = if happening.namespace.is_empty() {
        "default"
    } else {
        &happening.namespace
    }
    .to_owned();
    if let Some(entry) = known.get_mut(&happening) {
        entry.count += 1;
        let patch = json!({"count": entry.count, "lastTimestamp": rfc3339(at)});
        let name = entry.name.clone();
        match client
            .patch(
                &EVENTS,
                Some(&namespace),
                &name,
                &PatchType::Merge,
                &patch,
                None,
            )
            .await
        {
            // Expired on the server: start anew.
            Err(problem) if problem.is_not_found() => known.remove(&happening),
            other => return other.map(|_| ()),
        };
    }
    let body = body(&happening, node, &namespace, at, rand::random());
    let name = body["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    client.create(&EVENTS, Some(&namespace), &body).await?;
    known.insert(happening, Known { name, count: 1 });
    Ok(())
}

fn body(happening: &Happening, node: &str, namespace: &str, at: Millis, unique: u64) -> Value {
    let mut object = json!({"kind": happening.kind, "apiVersion": "v1", "name": happening.name, "uid": happening.uid});
    if !happening.namespace.is_empty() {
        object["namespace"] = json!(happening.namespace);
    }
    if !happening.field_path.is_empty() {
        object["fieldPath"] = json!(happening.field_path);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": format!("{}.{unique:016x}", happening.name), "namespace": namespace},
        "involvedObject": object,
        "reason": happening.reason,
        "message": happening.message,
        "source": {"component": "kubelet", "host": node},
        "firstTimestamp": rfc3339(at),
        "lastTimestamp": rfc3339(at),
        "count": 1,
        "type": if happening.warning { "Warning" } else { "Normal" },
        "eventTime": null,
        "reportingComponent": "kubelet",
        "reportingInstance": node,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_names_its_object_and_container() {
        let happening = Happening {
            kind: "Pod",
            namespace: "ns".into(),
            name: "p".into(),
            uid: "u".into(),
            field_path: "spec.containers{c}".into(),
            warning: true,
            reason: "BackOff".into(),
            message: "m".into(),
        };
        let event = body(&happening, "n1", "ns", 1_700_000_000_000, 255);
        assert_eq!(event["metadata"]["name"], "p.00000000000000ff");
        assert_eq!(event["involvedObject"]["fieldPath"], "spec.containers{c}");
        assert_eq!(
            (&event["type"], &event["count"]),
            (&json!("Warning"), &json!(1))
        );
        assert_eq!(
            event["source"],
            json!({"component": "kubelet", "host": "n1"})
        );
    }
}
