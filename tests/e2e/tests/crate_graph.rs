//! The crates keep to their floors: arrows point down only (ARCHITECTURE.md, "The crates").

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// The floor of each crate. A crate may depend on crates of lower floors only.
fn floor(name: &str) -> Option<u32> {
    Some(match name {
        "theater-wire" => 0,
        "theater-api" | "theater-xds" | "theater-lua" => 1,
        "theater-translate" | "theater-dataplane" | "theater-pki" => 2,
        "theater-runtime" | "theater-istio-validation" => 2,
        "theater-kube-client" | "theater-sandbox" | "theater-analysis" => 3,
        "theater-apiserver"
        | "theater-controllers"
        | "theater-kubelet"
        | "theater-istiod"
        | "theater-proxy"
        | "theater-istioctl" => 4,
        // The agent holds a proxy.
        "theater-agent" => 5,
        "theater" => 6,
        // The application and the images know nothing of the mesh: see `knows_nothing_of_the_mesh`.
        _ => return None,
    })
}

fn workspace_dependencies() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .output()
        .expect("cargo metadata runs");
    assert!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let name = package["name"].as_str().expect("name").to_owned();
            let dependencies = package["dependencies"]
                .as_array()
                .expect("dependencies")
                .iter()
                // Tests may look up: they are not part of what is built.
                .filter(|dependency| dependency["kind"].is_null() && dependency["path"].is_string())
                .map(|dependency| dependency["name"].as_str().expect("name").to_owned())
                .collect();
            (name, dependencies)
        })
        .collect()
}

#[test]
fn arrows_point_down_only() {
    let mut wrong = Vec::new();
    for (name, dependencies) in workspace_dependencies() {
        let Some(own) = floor(&name) else { continue };
        for dependency in dependencies {
            if floor(&dependency).is_some_and(|other| other >= own) {
                wrong.push(format!("{name} -> {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that do not point down: {wrong:?}");
}

#[test]
fn application_and_images_know_nothing_of_the_mesh() {
    let mut wrong = Vec::new();
    for (name, dependencies) in workspace_dependencies() {
        // xtask writes generated code and is no part of what is built.
        let exempt = name == "theater" || name == "xtask" || name.starts_with("theater-");
        if exempt || floor(&name).is_some() {
            continue;
        }
        for dependency in dependencies {
            if dependency.starts_with("theater") {
                wrong.push(format!("{name} -> {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn pure_crates_stay_pure() {
    let impure = ["tokio", "tonic", "hyper"];
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .output()
        .expect("cargo metadata runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("name");
        if ![
            "theater-translate",
            "theater-istio-validation",
            "theater-dataplane",
            "theater-pki",
            "theater-api",
            "theater-analysis",
        ]
        .contains(&name)
        {
            continue;
        }
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let depends_on = dependency["name"].as_str().expect("name");
            assert!(
                !dependency["kind"].is_null() || !impure.contains(&depends_on),
                "{name} must not depend on {depends_on}"
            );
        }
    }
}
