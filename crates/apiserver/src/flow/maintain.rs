//! Keeps the objects of flow control: those that must be there, the conditions of schemas, and what is compared with requests.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{GROUP, LEVELS, SCHEMAS};
use crate::authn;
use crate::condition::Condition;
use crate::rest::write::{WriteOptions, Writer};
use crate::state::{Server, now};
use crate::storage::Key;

/// How often seats are lent anew.
const ADJUST: Duration = Duration::from_secs(10);
/// How many of these until the suggested objects are looked at again.
const MAINTAIN: u32 = 6;

/// The objects of a fresh cluster.
pub(crate) fn defaults() -> impl Iterator<Item = Value> {
    api::flowcontrol::defaults().iter().map(|o| {
        let mut object = o.clone();
        object["apiVersion"] = format!("{GROUP}/v1").into();
        object["metadata"]["annotations"] = json!({api::flowcontrol::AUTOUPDATE: "true"});
        object
    })
}

/// Whether the level that a schema names is there: the words of its condition.
fn dangling(schema: &Value, found: bool) -> (&'static str, &'static str, String) {
    let level = schema["spec"]["priorityLevelConfiguration"]["name"]
        .as_str()
        .unwrap_or("");
    let (status, reason, end) = if found {
        ("False", "Found", "and it exists")
    } else {
        ("True", "NotFound", "but there is no such object")
    };
    let message = format!(
        "This FlowSchema references the PriorityLevelConfiguration object named {level:?} {end}"
    );
    (status, reason, message)
}

fn condition<'a>(status: &'static str, reason: &'static str, message: &'a str) -> Condition<'a> {
    Condition {
        kind: "Dangling",
        status,
        reason,
        message,
    }
}

/// Brings back what must be there. `all`: what is suggested as well.
async fn restore(server: &Arc<Server>, all: bool) {
    let warnings = parking_lot::Mutex::default();
    let writer = writer(
        server,
        "api-priority-and-fairness-config-producer-v1",
        &warnings,
    );
    let registry = server.registry();
    for object in defaults() {
        let (table, plural) = match object["kind"].as_str() {
            Some("FlowSchema") => (SCHEMAS, "flowschemas"),
            _ => (LEVELS, "prioritylevelconfigurations"),
        };
        let name = api::meta::name(&object);
        let Some(resource) = registry.find(GROUP, "v1", plural) else {
            continue;
        };
        let must = api::flowcontrol::MANDATORY.contains(&name);
        if !(must || all) {
            continue;
        }
        let done = match server
            .storage
            .cache()
            .get(&Key::new(&table.into(), "", name))
        {
            None => writer
                .create(resource, "", object.clone())
                .await
                .map(|_| ()),
            Some(stored) => {
                let kept = api::meta::annotation(stored.value(), api::flowcontrol::AUTOUPDATE);
                if must || kept != Some("true") || stored.value()["spec"] == object["spec"] {
                    continue;
                }
                let edit = |old: &Value| {
                    let mut new = old.clone();
                    new["spec"] = object["spec"].clone();
                    Ok(new)
                };
                writer
                    .update(resource, "", name, "", &edit)
                    .await
                    .map(|_| ())
            }
        };
        if let Err(e) = done {
            tracing::debug!(error = %e, name, "an object of flow control could not be restored");
        }
    }
}

fn writer<'a>(
    server: &'a Arc<Server>,
    manager: &str,
    warnings: &'a parking_lot::Mutex<Vec<String>>,
) -> Writer<'a> {
    Writer {
        server,
        user: authn::itself(),
        options: WriteOptions {
            manager: manager.into(),
            ..WriteOptions::default()
        },
        warnings,
    }
}

/// Writes which schemas name a level that is not there.
async fn conditions(server: &Arc<Server>) {
    let warnings = parking_lot::Mutex::default();
    let writer = writer(
        server,
        "api-priority-and-fairness-config-consumer-v1",
        &warnings,
    );
    let registry = server.registry();
    let Some(resource) = registry.find(GROUP, "v1", "flowschemas") else {
        return;
    };
    let (levels, _) = server.storage.cache().list(LEVELS, "");
    let at = now();
    let says = |schema: &Value| {
        let level = &schema["spec"]["priorityLevelConfiguration"]["name"];
        dangling(schema, levels.iter().any(|(name, _)| level == &**name))
    };
    let (schemas, _) = server.storage.cache().list(SCHEMAS, "");
    let writes = schemas.iter().filter_map(|(name, schema)| {
        let (status, reason, message) = says(schema.value());
        let holds = condition(status, reason, &message).holds(schema.value());
        (!holds).then_some(name)
    });
    let writes = writes.map(|name| async {
        let edit = |old: &Value| {
            let mut new = old.clone();
            let (status, reason, message) = says(old);
            condition(status, reason, &message).set(&mut new, &at);
            Ok(new)
        };
        if let Err(e) = writer.update(resource, "", name, "status", &edit).await {
            tracing::debug!(error = %e, name = &**name, "the condition of a FlowSchema could not be written");
        }
    });
    futures::future::join_all(writes).await;
}

/// Follows the objects, and lends seats anew now and then.
pub(crate) async fn run(server: Arc<Server>) {
    let mut schemas = server.storage.cache().subscribe(SCHEMAS);
    let mut levels = server.storage.cache().subscribe(LEVELS);
    let mut ticks = tokio::time::interval(ADJUST);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.reset();
    let mut round: u32 = 0;
    loop {
        schemas.borrow_and_update();
        levels.borrow_and_update();
        server.flow.rebuild(&server);
        restore(&server, round == 0).await;
        conditions(&server).await;
        loop {
            tokio::select! {
                c = schemas.changed() => match c { Ok(()) => break, Err(_) => return },
                c = levels.changed() => match c { Ok(()) => break, Err(_) => return },
                _ = ticks.tick() => {
                    server.flow.measure();
                    round = (round + 1) % MAINTAIN;
                    if round == 0 {
                        restore(&server, true).await;
                    }
                }
                () = server.shutdown.cancelled() => return,
            }
        }
        round = round.max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_says_whether_its_level_is_there() {
        let schema = json!({"spec": {"priorityLevelConfiguration": {"name": "l"}}});
        let missing = "This FlowSchema references the PriorityLevelConfiguration object named \"l\" but there is no such object";
        assert_eq!(
            dangling(&schema, false),
            ("True", "NotFound", missing.into())
        );
        let (status, reason, _) = dangling(&schema, true);
        assert_eq!((status, reason), ("False", "Found"));
    }
}
