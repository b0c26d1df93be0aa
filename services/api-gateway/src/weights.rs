//! Configured weights, as `/traffic-weights` names them.

use serde_json::{Map, Value};

use crate::clusters::{NAMESPACE, items};

/// A service with weights.
pub struct Weighted {
    /// Its name.
    pub service: &'static str,
    /// How `/traffic-weights` begins its names.
    prefix: &'static str,
    /// What the manifests of the theater begin with, in percent: ctx1, ctx2.
    initial: [u64; 2],
}

/// The services with weights.
pub const WEIGHTED: [Weighted; 3] = [
    Weighted {
        service: "user-service",
        prefix: "UserService",
        initial: [70, 30],
    },
    Weighted {
        service: "movie-service",
        prefix: "MovieService",
        initial: [30, 70],
    },
    Weighted {
        service: "booking-service",
        prefix: "BookingService",
        initial: [50, 50],
    },
];

/// The subsets that weights are about: one for each cluster.
const SUBSETS: [&str; 2] = ["ctx1", "ctx2"];

impl Weighted {
    /// The name of a weight, e.g. `UserServiceCtx1Weight`.
    pub fn name(&self, subset: &str) -> String {
        let (first, rest) = subset.split_at(1);
        format!("{}{}{rest}Weight", self.prefix, first.to_ascii_uppercase())
    }
}

/// The weights the manifests begin with, for an answer that says that the real ones are unknown.
pub fn initial() -> Value {
    WEIGHTED
        .iter()
        .flat_map(|weighted| {
            SUBSETS
                .iter()
                .zip(weighted.initial)
                .map(|(subset, weight)| (weighted.name(subset), weight.into()))
        })
        .collect::<Map<_, _>>()
        .into()
}

/// The weights of a list of VirtualServices: those of the rule without a match. A service without
/// such a rule has none.
pub fn configured(list: &Value) -> Value {
    let mut weights = Map::new();
    for weighted in &WEIGHTED {
        let rule = items(list)
            .filter(|object| routes_to(object, weighted.service))
            .find_map(|object| {
                object["spec"]["http"]
                    .as_array()?
                    .iter()
                    .find(|rule| rule["match"].as_array().is_none_or(Vec::is_empty))
            });
        let Some(destinations) = rule.and_then(|rule| rule["route"].as_array()) else {
            continue;
        };
        for subset in SUBSETS {
            let weight: u64 = destinations
                .iter()
                .filter(|destination| destination["destination"]["subset"] == subset)
                .map(|destination| match destination["weight"].as_u64() {
                    // A single destination without a weight gets everything.
                    None if destinations.len() == 1 => 100,
                    weight => weight.unwrap_or(0),
                })
                .sum();
            weights.insert(weighted.name(subset), weight.into());
        }
    }
    Value::Object(weights)
}

/// Whether a VirtualService is about a service, by its short or full name.
fn routes_to(object: &Value, service: &str) -> bool {
    object["spec"]["hosts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .any(|host| host == service || host == format!("{service}.{NAMESPACE}.svc.cluster.local"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn virtual_service(http: Value) -> Value {
        json!({"items": [{"spec": {"hosts": ["user-service"], "http": http}}]})
    }

    #[test]
    fn weights_come_from_the_rule_without_a_match() {
        let route = |subset: &str, weight: u64| json!({"destination": {"subset": subset}, "weight": weight});
        let list = virtual_service(json!([
            {"match": [{"headers": {}}], "route": [route("ctx2", 100)]},
            {"route": [route("ctx1", 90), route("ctx2", 10)]},
        ]));
        assert_eq!(
            configured(&list),
            json!({"UserServiceCtx1Weight": 90, "UserServiceCtx2Weight": 10})
        );
    }

    #[test]
    fn every_weight_has_an_initial_value_under_the_same_name() {
        let initial = initial();
        assert_eq!(initial["UserServiceCtx1Weight"], 70);
        assert_eq!(initial["MovieServiceCtx2Weight"], 70);
        assert_eq!(initial.as_object().unwrap().len(), 6);
    }

    #[test]
    fn a_single_destination_gets_everything_and_nothing_is_invented() {
        let list = virtual_service(json!([{"route": [{"destination": {"subset": "ctx1"}}]}]));
        assert_eq!(
            configured(&list),
            json!({"UserServiceCtx1Weight": 100, "UserServiceCtx2Weight": 0})
        );
        assert_eq!(configured(&json!({"items": []})), json!({}));
    }
}
