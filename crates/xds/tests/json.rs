//! JSON -> message -> JSON gives the same JSON, for our own samples and for what istiod sends.

use serde_json::{Value, json};
use std::path::Path;
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::core::v3::TypedExtensionConfig;
use xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds::envoy::config::listener::v3::Listener;
use xds::envoy::config::route::v3::RouteConfiguration;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use xds::istio::envoy::config::filter::http::alpn::v2alpha1::FilterConfig as Alpn;
use xds::{Resource, any, json, type_url};

/// Reads and writes a resource; an error tells where the first difference is.
fn round_trip<R: Resource>(name: &str, value: &Value) -> Result<(), String> {
    let resource: R = json::from_value(value.clone(), true).map_err(|error| error.to_string())?;
    if resource.resource_name() != name {
        return Err(format!("it calls itself {:?}", resource.resource_name()));
    }
    let back = json::to_value(&resource).map_err(|error| error.to_string())?;
    difference(value, &back, String::new()).map_or(Ok(()), Err)
}

fn difference(expected: &Value, actual: &Value, path: String) -> Option<String> {
    match (expected, actual) {
        (Value::Object(left), Value::Object(right)) => left
            .keys()
            .chain(right.keys().filter(|key| !left.contains_key(*key)))
            .find_map(|key| match (left.get(key), right.get(key)) {
                (Some(left), Some(right)) => difference(left, right, format!("{path}.{key}")),
                (Some(left), None) => Some(format!("{path}.{key}: {left} is lost")),
                (None, right) => Some(format!("{path}.{key}: {right:?} is new")),
            }),
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => left
            .iter()
            .zip(right)
            .enumerate()
            .find_map(|(index, (left, right))| difference(left, right, format!("{path}[{index}]"))),
        _ if expected == actual => None,
        _ => Some(format!("{path}: expected {expected}, got {actual}")),
    }
}

fn sample(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/resources")
        .join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn our_samples_survive() {
    const CLUSTER: &str = "outbound|8080|v1|movie-service.cinema.svc.cluster.local";
    assert_eq!(
        round_trip::<Cluster>(CLUSTER, &sample("cluster.json")),
        Ok(())
    );
    assert_eq!(
        round_trip::<ClusterLoadAssignment>(CLUSTER, &sample("endpoint.json")),
        Ok(())
    );
    assert_eq!(
        round_trip::<Listener>("0.0.0.0_8080", &sample("listener.json")),
        Ok(())
    );
    assert_eq!(
        round_trip::<RouteConfiguration>("8080", &sample("route.json")),
        Ok(())
    );
}

#[test]
fn reading_gives_the_same_bytes_every_time() {
    let encoded =
        || any::pack(&json::from_value::<Listener>(sample("listener.json"), true).unwrap()).value;
    let first = encoded();
    assert!((0..20).all(|_| encoded() == first));
}

#[test]
fn both_spellings_are_read_and_unknown_fields_are_noticed() {
    let camel = json!({"name": "a", "connectTimeout": "0.250s", "lbPolicy": "RANDOM"});
    let cluster: Cluster = json::from_value(camel, true).unwrap();
    let snake = json!({"name": "a", "connect_timeout": "0.250s", "lb_policy": "RANDOM"});
    assert_eq!(json::to_value(&cluster).unwrap(), snake);

    let wrong = json!({"name": "a", "colour": "blue"});
    let error = json::from_value::<Cluster>(wrong.clone(), true).unwrap_err();
    assert!(error.to_string().contains("colour"), "{error}");
    assert_eq!(json::from_value::<Cluster>(wrong, false).unwrap().name, "a");
}

#[test]
fn an_any_of_unknown_type_keeps_its_bytes() {
    let cluster: Cluster = json::from_value(sample("cluster.json"), true).unwrap();
    let unknown = cluster.filters[1].typed_config.as_ref().unwrap();
    assert_eq!(unknown.type_url, "type.example.com/somebody.elses.Filter");
    assert_eq!(unknown.value, [0, 1, 2, 255]);

    let fields = json!({"@type": "type.example.com/somebody.elses.Filter", "size": 1});
    let error = json::any_from_value(&fields, true).unwrap_err();
    assert!(
        error.to_string().contains("somebody.elses.Filter"),
        "{error}"
    );

    // Next to one, a structure that only looks like one stays as it is.
    let lookalike = json!({"@type": "type.example.com/a.B", "value": "text"});
    let value = json!({
        "name": "a",
        "metadata": {"filter_metadata": {"x": lookalike}, "typed_filter_metadata": {"y": {"@type": "type.example.com/a.B", "value": "dGV4dA=="}}},
    });
    assert_eq!(round_trip::<Cluster>("a", &value), Ok(()));
}

#[test]
fn messages_go_into_any_and_out_again() {
    let alpn = Alpn::default();
    let packed = any::pack(&alpn);
    assert_eq!(
        packed.type_url,
        "type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig"
    );
    assert!(any::is::<Alpn>(&packed) && !any::is::<Cluster>(&packed));
    assert_eq!(any::unpack::<Alpn>(&packed).unwrap(), Some(alpn));
    assert_eq!(any::unpack::<Cluster>(&packed).unwrap(), None);

    let listener: Listener = json::from_value(sample("listener.json"), true).unwrap();
    let filter = &listener.filter_chains[0].filters[0];
    let Some(xds::envoy::config::listener::v3::filter::ConfigType::TypedConfig(config)) =
        &filter.config_type
    else {
        panic!("no typed config");
    };
    let manager: HttpConnectionManager = any::unpack(config).unwrap().expect("it is one");
    assert_eq!(manager.http_filters.len(), 3);
    assert_eq!(
        json::any_from_value(&json::any_to_value(config).unwrap(), true).unwrap(),
        *config
    );
}

#[test]
fn type_urls_are_those_of_the_messages() {
    fn check<R: Resource>() {
        assert_eq!(R::TYPE_URL, R::type_url());
        assert!(json::descriptor(R::TYPE_URL).is_ok());
    }
    check::<Cluster>();
    check::<ClusterLoadAssignment>();
    check::<Listener>();
    check::<RouteConfiguration>();
    check::<TypedExtensionConfig>();
    check::<xds::envoy::config::route::v3::ScopedRouteConfiguration>();
    check::<xds::envoy::extensions::transport_sockets::tls::v3::Secret>();
    assert_eq!(type_url::short_name(type_url::CLUSTER), "cds");
}

/// `THEATER_GOLDEN` names a directory with what the real istiod sends.
#[test]
fn what_istiod_sends_survives() {
    let Some(golden) = std::env::var_os("THEATER_GOLDEN") else {
        println!("skipped: THEATER_GOLDEN is not set");
        return;
    };
    let xds = Path::new(&golden).join("xds");
    let (mut count, mut failures) = (0, Vec::new());
    for group in ["base", "cases"] {
        for directory in std::fs::read_dir(xds.join(group)).unwrap() {
            for file in std::fs::read_dir(directory.unwrap().path()).unwrap() {
                let path = file.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap();
                if !name.ends_with(".json") || ["input.json", "validation.json"].contains(&name) {
                    continue;
                }
                let mut content: Value =
                    serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                let resources = if group == "base" {
                    content
                } else {
                    content["changed"].take()
                };
                for (kind, resources) in resources.as_object().into_iter().flatten() {
                    for (name, value) in resources.as_object().unwrap() {
                        let result = match kind.as_str() {
                            "clusters" => round_trip::<Cluster>(name, value),
                            "endpoints" => round_trip::<ClusterLoadAssignment>(name, value),
                            "listeners" => round_trip::<Listener>(name, value),
                            "routes" => round_trip::<RouteConfiguration>(name, value),
                            "extension_configs" => round_trip::<TypedExtensionConfig>(name, value),
                            other => Err(format!("what are {other}?")),
                        };
                        count += 1;
                        if let Err(why) = result {
                            failures.push(format!("{} {kind} {name}: {why}", path.display()));
                        }
                    }
                }
            }
        }
    }
    println!("{count} resources");
    assert!(count > 0, "no resources in {}", xds.display());
    assert!(
        failures.is_empty(),
        "{} of {count} differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
}
