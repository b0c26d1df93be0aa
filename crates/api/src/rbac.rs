//! Roles that are the sum of others.

use crate::meta;
use crate::selector::LabelSelector;
use serde_json::Value;

/// The rules of an aggregating ClusterRole: those of the roles it selects, by name, each rule once. `None`: the role has its own.
/// The roles come in any order; the role itself is not among its sources.
pub fn aggregated_rules<'a>(
    role: &Value,
    all: impl IntoIterator<Item = &'a Value>,
) -> Option<Vec<Value>> {
    let selectors: Vec<LabelSelector> = role["aggregationRule"]["clusterRoleSelectors"]
        .as_array()?
        .iter()
        .map(LabelSelector::from_value)
        .collect();
    let mut sources: Vec<&Value> = all
        .into_iter()
        .filter(|other| {
            meta::name(other) != meta::name(role) && selectors.iter().any(|s| s.matches(other))
        })
        .collect();
    sources.sort_by_key(|other| meta::name(other));
    let mut out: Vec<Value> = Vec::new();
    for rule in sources
        .iter()
        .flat_map(|other| other["rules"].as_array().into_iter().flatten())
    {
        if !out.contains(rule) {
            out.push(rule.clone());
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_come_once_and_by_the_name_of_their_role() {
        let role = |name: &str, verbs: &[&str]| {
            let rules: Vec<Value> = verbs.iter().map(|v| json!({"verbs": [v]})).collect();
            json!({"metadata": {"name": name, "labels": {"to": "sum"}}, "rules": rules})
        };
        let mut sum = role("sum", &["old"]);
        sum["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"to": "sum"}}]});
        let other = json!({"metadata": {"name": "a"}, "rules": [{"verbs": ["other"]}]});
        let all = [
            role("z", &["list", "get"]),
            role("b", &["get"]),
            other,
            sum.clone(),
        ];
        assert_eq!(
            aggregated_rules(&sum, &all),
            Some(vec![json!({"verbs": ["get"]}), json!({"verbs": ["list"]})])
        );
        assert_eq!(aggregated_rules(&all[0], &all), None);
    }
}
