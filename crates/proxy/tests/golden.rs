//! What a real istiod sends is accepted. The recordings are not part of this repository: `GOLDEN` names their
//! directory (with `base/` and `cases/`), without it the test says so and passes.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proxy::xds_client::ads::{Received, Sink};
use serde_json::Value;
use support::*;

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.extension().is_some_and(|end| end == "json") && !path.ends_with("input.json")
        {
            all.push(path);
        }
    }
    all.sort();
    all
}

#[test]
fn what_istiod_sends_is_accepted() {
    let Some(golden) = std::env::var_os("GOLDEN") else {
        println!("skipped: GOLDEN does not name a directory of recorded xDS");
        return;
    };
    let yaml = http(
        &["{match: {prefix: /}, direct_response: {status: 200}}"],
        &cluster("x", &[], ""),
        "",
    );
    let mut reasons: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let mut resources = 0;
    for file in files(Path::new(&golden)) {
        let Ok(text) = std::fs::read_to_string(&file) else {
            continue;
        };
        let Ok(all) = serde_json::from_str::<Value>(&text) else {
            continue;
        };
        let all = all.get("changed").cloned().unwrap_or(all);
        let running = Running::start(&yaml);
        for (kind, url) in [
            ("clusters", xds::type_url::CLUSTER),
            ("endpoints", xds::type_url::ENDPOINT),
            ("listeners", xds::type_url::LISTENER),
            ("routes", xds::type_url::ROUTE),
        ] {
            let Some(Value::Object(entries)) = all.get(kind) else {
                continue;
            };
            for (name, body) in entries {
                let mut body = body.clone();
                if kind == "listeners" {
                    // Many files, one machine: the ports are not opened.
                    body["bind_to_port"] = false.into();
                    body["access_log"] = Value::Null;
                }
                let Ok(message) = xds::json::dynamic_from_value(url, &body, false) else {
                    continue;
                };
                let body = xds::prost_types::Any {
                    type_url: url.to_owned(),
                    value: xds::json::encode(&message),
                };
                resources += 1;
                let resource = Received {
                    name: name.clone(),
                    version: "1".into(),
                    body,
                };
                if let Err(error) =
                    running
                        .proxy
                        .manager
                        .apply(url, "1", vec![resource], Vec::new())
                {
                    let reason = error.rsplit(": ").next().unwrap_or_default().to_owned();
                    let entry = reasons
                        .entry(reason)
                        .or_insert((0, format!("{}: {error}", file.display())));
                    entry.0 += 1;
                }
            }
        }
    }
    let refused: usize = reasons.values().map(|(count, _)| count).sum();
    for (reason, (count, example)) in &reasons {
        println!("{count:5} {reason}\n      {example}");
    }
    println!("{refused} of {resources} refused");
    let limit = std::env::var("GOLDEN_REFUSED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    assert!(refused <= limit, "{refused} of {resources} refused");
}
