//! ClusterRoles that are the sum of others are given the others' rules.

use kube_client::CLUSTER_ROLES;
use serde_json::{Value, json};

use super::Context;
use crate::action::{Action, Executor};
use crate::work::{WorkQueue, Worked};

pub(super) async fn run(context: &Context) {
    let queue = WorkQueue::new();
    let roles = context.cluster_roles.clone();
    queue.feed(&context.cluster_roles, &context.token, move |_| {
        // Which sums a role was or is part of is told by their selectors only; there are few sums.
        roles
            .list()
            .iter()
            .filter(|role| role["aggregationRule"].is_object())
            .map(|role| api::meta::name(role).to_owned())
            .collect::<Vec<_>>()
    });
    let executor = context.executor("clusterrole-aggregation-controller");
    let work = {
        let context = context.clone();
        move |name| work(context.clone(), executor.clone(), name)
    };
    queue
        .run("cluster-role-aggregation", &context.token, work)
        .await;
}

async fn work(context: Context, executor: Executor, name: String) -> Worked {
    let Some(role) = context.cluster_roles.get("", &name) else {
        return Ok(None);
    };
    let all = context.cluster_roles.list();
    let action = sum(&role, all.iter().map(|role| &**role));
    Ok(executor
        .run(action.into_iter().collect())
        .await
        .map(|()| None)?)
}

fn sum<'a>(role: &Value, all: impl Iterator<Item = &'a Value>) -> Option<Action> {
    let rules = api::rbac::aggregated_rules(role, all)?;
    let has = role["rules"].as_array().map_or(&[][..], Vec::as_slice);
    (has != rules).then(|| Action::patch(CLUSTER_ROLES, role, json!({"rules": rules})))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Verb;

    #[test]
    fn a_sum_is_written_when_it_is_another() {
        let sum_of = |rules: Value| {
            json!({"metadata": {"name": "sum"}, "rules": rules,
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}})
        };
        let part = json!({"metadata": {"name": "part", "labels": {"a": "b"}}, "rules": [{"verbs": ["get"]}]});
        let new = sum(&sum_of(Value::Null), [&part].into_iter()).unwrap();
        assert_eq!(
            new.verb,
            Verb::Patch(json!({"rules": [{"verbs": ["get"]}]}), None)
        );
        assert_eq!(
            sum(&sum_of(part["rules"].clone()), [&part].into_iter()),
            None
        );
        assert_eq!(sum(&sum_of(Value::Null), [].into_iter()), None);
        assert_eq!(sum(&part, [].into_iter()), None);
    }
}
