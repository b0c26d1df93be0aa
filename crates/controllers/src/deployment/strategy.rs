//! The numbers of a rollout: how many pods more, how many fewer.

use serde_json::Value;

use crate::object::int;

pub(super) fn replicas(deployment: &Value) -> i64 {
    deployment["spec"]["replicas"].as_i64().unwrap_or(1)
}

pub(super) fn is_recreate(deployment: &Value) -> bool {
    deployment["spec"]["strategy"]["type"] == "Recreate"
}

/// How many pods there may be beyond the wanted ones.
pub(super) fn max_surge(deployment: &Value) -> i64 {
    if is_recreate(deployment) {
        0
    } else {
        fenceposts(deployment).0
    }
}

/// How many of the wanted pods may be missing.
pub(super) fn max_unavailable(deployment: &Value) -> i64 {
    let replicas = replicas(deployment);
    if is_recreate(deployment) || replicas == 0 {
        return 0;
    }
    fenceposts(deployment).1.min(replicas)
}

/// Surge rounded up, unavailable rounded down; both zero would mean standstill.
fn fenceposts(deployment: &Value) -> (i64, i64) {
    let replicas = replicas(deployment);
    let rolling = &deployment["spec"]["strategy"]["rollingUpdate"];
    let surge = share(&rolling["maxSurge"], replicas, true);
    let unavailable = share(&rolling["maxUnavailable"], replicas, false);
    if surge == 0 && unavailable == 0 {
        (0, 1)
    } else {
        (surge, unavailable)
    }
}

/// A number, or a percentage of `total`. Absent: 25%.
fn share(value: &Value, total: i64, up: bool) -> i64 {
    if value.is_i64() || value.is_u64() {
        return int(value);
    }
    let percent = value
        .as_str()
        .unwrap_or("25%")
        .trim_end_matches('%')
        .parse::<i64>()
        .unwrap_or(0);
    if up {
        (percent * total + 99) / 100
    } else {
        percent * total / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn surge_rounds_up_and_unavailable_down() {
        let table = [
            // replicas, surge, unavailable, expected
            (4, json!("25%"), json!("25%"), (1, 1)),
            (1, json!("25%"), json!("25%"), (1, 0)),
            (10, json!("25%"), json!("25%"), (3, 2)),
            (2, json!(1), json!(0), (1, 0)),
            (2, json!(0), json!("25%"), (0, 1)),
            (3, json!(0), json!(5), (0, 3)),
            (5, json!(null), json!(null), (2, 1)),
        ];
        for (replicas, surge, unavailable, expected) in table {
            let deployment = json!({"spec": {"replicas": replicas, "strategy": {"rollingUpdate":
                {"maxSurge": surge, "maxUnavailable": unavailable}}}});
            assert_eq!(
                (max_surge(&deployment), max_unavailable(&deployment)),
                expected,
                "{deployment}"
            );
        }
        let recreate = json!({"spec": {"replicas": 3, "strategy": {"type": "Recreate"}}});
        assert_eq!((max_surge(&recreate), max_unavailable(&recreate)), (0, 0));
    }
}
