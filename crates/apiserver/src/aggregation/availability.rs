//! Whether an extension API server can be reached, in the words of the real aggregator.

use api::meta::list;
use serde_json::Value;

use crate::condition::Condition;

/// Available, or the reason and message of why not.
pub(super) type Verdict = Result<(), (&'static str, String)>;

/// What the objects of the cluster say, before anybody is asked.
pub(super) fn reachable(
    spec: &Value,
    service: Option<&Value>,
    endpoints: Option<&Value>,
) -> Verdict {
    let wanted = &spec["service"];
    let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
    let (name, namespace) = (text(&wanted["name"]), text(&wanted["namespace"]));
    let of = format!("service/{name} in {namespace:?}");
    let Some(service) = service else {
        return Err(("ServiceNotFound", format!("{of} is not present")));
    };
    if service["spec"]["type"].as_str().unwrap_or("ClusterIP") != "ClusterIP" {
        return Ok(());
    }
    let port = wanted["port"].as_u64().unwrap_or(443);
    let Some(found) = list(&service["spec"]["ports"])
        .iter()
        .find(|p| p["port"] == port)
    else {
        return Err((
            "ServicePortError",
            format!("{of} is not listening on port {port}"),
        ));
    };
    let Some(endpoints) = endpoints else {
        return Err((
            "EndpointsNotFound",
            format!("cannot find endpoints for {of}"),
        ));
    };
    let port_name = text(&found["name"]);
    let ready = list(&endpoints["subsets"]).iter().any(|subset| {
        !list(&subset["addresses"]).is_empty()
            && list(&subset["ports"])
                .iter()
                .any(|p| text(&p["name"]) == port_name)
    });
    if ready {
        return Ok(());
    }
    let why = format!("endpoints for {of} have no addresses with port name {port_name:?}");
    Err(("MissingEndpoints", why))
}

/// The condition of an APIService.
pub(super) fn condition(verdict: &Verdict) -> Condition<'_> {
    let (status, reason, message) = match verdict {
        Ok(()) => ("True", "Passed", "all checks passed"),
        Err((reason, message)) => ("False", *reason, message.as_str()),
    };
    Condition {
        kind: "Available",
        status,
        reason,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_missing_is_named() {
        let spec = json!({"service": {"namespace": "d", "name": "s", "port": 443}});
        let service = json!({"spec": {"ports": [{"name": "https", "port": 443}]}});
        let other = json!({"spec": {"ports": [{"port": 80}]}});
        let endpoints = |address: Value| json!({"subsets": [{"addresses": address, "ports": [{"name": "https", "port": 8443}]}]});
        let asked = |service, endpoints: Option<&Value>| {
            reachable(&spec, service, endpoints)
                .map_err(|(reason, message)| format!("{reason}: {message}"))
        };
        assert_eq!(
            asked(None, None),
            Err("ServiceNotFound: service/s in \"d\" is not present".into())
        );
        assert_eq!(
            asked(Some(&other), None),
            Err("ServicePortError: service/s in \"d\" is not listening on port 443".into())
        );
        assert_eq!(
            asked(Some(&service), None),
            Err("EndpointsNotFound: cannot find endpoints for service/s in \"d\"".into())
        );
        assert_eq!(
            asked(Some(&service), Some(&endpoints(json!([])))),
            Err("MissingEndpoints: endpoints for service/s in \"d\" have no addresses with port name \"https\"".into())
        );
        assert_eq!(
            asked(
                Some(&service),
                Some(&endpoints(json!([{"ip": "10.0.0.1"}])))
            ),
            Ok(())
        );
    }
}
