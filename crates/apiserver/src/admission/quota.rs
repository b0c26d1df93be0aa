//! ResourceQuotas: what would exceed one is refused, and what is admitted is charged at once.

use std::sync::Arc;

use api::quota::{self, Usage};
use serde_json::{Value, json};

use super::{Attributes, Operation};
use crate::error::{ApiError, ApiResult};
use crate::state::Server;
use crate::storage::{Change, Expect, Key, WriteError};

/// How often a charge that lost a race is tried again.
const ATTEMPTS: usize = 20;

/// What the object uses more than before.
fn growth(a: &Attributes<'_>, object: &Value) -> Usage {
    let (group, plural) = (a.resource.group.as_str(), a.resource.plural.as_str());
    let mut usage = quota::usage(group, plural, object);
    if let Some(old) = a.old {
        for (resource, before) in quota::usage(group, plural, old) {
            if let Some(now) = usage.get_mut(&resource) {
                *now = now.minus(before);
            }
        }
    }
    usage.retain(|_, n| !n.is_zero() && !n.is_negative());
    usage
}

/// Decides about one quota: what its status becomes, or why the object is refused.
fn charge(quota: &Value, growth: &Usage) -> Result<Option<Value>, String> {
    let name = api::meta::name(quota);
    let hard = &quota["status"]["hard"];
    let used = &quota["status"]["used"];
    let mut new_used = used.clone();
    let (mut asked, mut had, mut limit) = (Usage::new(), Usage::new(), Usage::new());
    let mut touched = false;
    for (resource, more) in growth {
        if hard[resource].is_null() {
            continue;
        }
        touched = true;
        let (now, most) = (
            quota::amount(&used[resource]),
            quota::amount(&hard[resource]),
        );
        let sum = now.plus(*more);
        if sum > most {
            asked.insert(resource.clone(), *more);
            had.insert(resource.clone(), now);
            limit.insert(resource.clone(), most);
        }
        new_used[resource] = sum.to_string().into();
    }
    if !asked.is_empty() {
        return Err(format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            quota::show(&asked),
            quota::show(&had),
            quota::show(&limit)
        ));
    }
    if !touched {
        return Ok(None);
    }
    let mut new = quota.clone();
    new["status"]["used"] = new_used;
    Ok(Some(new))
}

/// Refuses or charges.
pub(crate) async fn admit(
    server: &Arc<Server>,
    a: &Attributes<'_>,
    object: &Value,
) -> ApiResult<()> {
    if a.namespace.is_empty()
        || !a.subresource.is_empty()
        || a.operation == Operation::Delete
        || a.resource.is_virtual()
        || (a.operation == Operation::Update && !a.resource.is("", "services"))
    {
        return Ok(());
    }
    let table: Arc<str> = "core/resourcequotas".into();
    let cache = server.storage.cache();
    let (quotas, _) = cache.list(&table, &format!("{}/", a.namespace));
    if quotas.is_empty() {
        return Ok(());
    }
    let refuse = |why: &str| {
        Err(ApiError::forbidden(
            &a.resource.group,
            &a.resource.plural,
            a.name,
            why,
        ))
    };
    let growth = growth(a, object);
    let (group, plural) = (a.resource.group.as_str(), a.resource.plural.as_str());
    let concerned: Vec<Arc<str>> = quotas
        .into_iter()
        .filter(|(_, quota)| quota::is_about(quota.value(), group, plural, object))
        .map(|(path, _)| path)
        .collect();
    // All of them are asked before one is charged.
    for dry in [true, false] {
        if !dry && a.dry_run {
            break;
        }
        for path in &concerned {
            let key = Key {
                table: table.clone(),
                path: path.clone(),
            };
            for attempt in 0..ATTEMPTS {
                let Some(current) = cache.get(&key) else {
                    break;
                };
                let quota = current.value();
                let hard = &quota["spec"]["hard"];
                let restricted = restricted(hard, group, plural);
                if a.resource.is("", "pods")
                    && let Some(why) = quota::missing(&restricted, object)
                {
                    return refuse(&format!("failed quota: {}: {why}", api::meta::name(quota)));
                }
                let unknown: Vec<&str> = api::meta::pairs(&restricted)
                    .map(|(resource, _)| resource)
                    .filter(|resource| quota["status"]["used"][*resource].is_null())
                    .collect();
                if !unknown.is_empty() && !growth.is_empty() {
                    if dry && attempt + 1 < ATTEMPTS {
                        // The controller counts a new quota within moments.
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                        continue;
                    }
                    return refuse(&format!(
                        "status unknown for quota: {}, resources: {}",
                        api::meta::name(quota),
                        unknown.join(",")
                    ));
                }
                let charged = match charge(quota, &growth) {
                    Ok(charged) => charged,
                    Err(why) => return refuse(&why),
                };
                let (false, Some(new)) = (dry, charged) else {
                    break;
                };
                let write = server.storage.write(
                    key.clone(),
                    Expect::Revision(current.revision),
                    Change::Put(new),
                );
                match write.await {
                    Err(WriteError::Changed) if attempt + 1 < ATTEMPTS => {}
                    Err(WriteError::Missing) | Ok(_) => break,
                    Err(e) => {
                        return Err(crate::error::from_write(e, "", "resourcequotas", path));
                    }
                }
            }
        }
    }
    Ok(())
}

/// The part of a quota that this kind of object counts towards.
fn restricted(hard: &Value, group: &str, plural: &str) -> Value {
    let mut out = json!({});
    for (resource, most) in hard.as_object().into_iter().flatten() {
        if quota::counted(resource).is_some_and(|(g, p)| g == group && p == plural) {
            out[resource] = most.clone();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::quantity::Quantity;

    #[test]
    fn a_quota_is_charged_until_it_is_full() {
        let quota = json!({"metadata": {"name": "q"}, "status": {"hard": {"pods": "2"}, "used": {"pods": "1"}}});
        let one: Usage = [("pods".to_owned(), Quantity::from_units(1))].into();
        let after = charge(&quota, &one).unwrap().unwrap();
        assert_eq!(after["status"]["used"]["pods"], "2");
        assert_eq!(
            charge(&after, &one).unwrap_err(),
            "exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"
        );
        let other: Usage = [("secrets".to_owned(), Quantity::from_units(1))].into();
        assert_eq!(charge(&after, &other).unwrap(), None);
    }
}
