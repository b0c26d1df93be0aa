//! Istio configuration, from people and from other control planes.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use api::istio::{MeshConfig, MeshNetworks};
use api::prune::{self, Duplicates, FieldValidation};
use api::schema::ObjectSchema;
use dataplane::ConfigError;
use dataplane::sim::{Resources, World};
use serde::Deserialize as _;
use serde_json::{Value, json};
use translate::{Built, ClusterObjects, Locality, Output, ProxyInfo, Snapshot, SnapshotInput};

use super::text;
use crate::{Target, seeds};

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "istio-object",
        run: istio_object,
        also: &[],
    },
    Target {
        name: "mesh-config",
        run: mesh_config,
        also: &[],
    },
    Target {
        name: "node-metadata",
        run: node_metadata,
        also: &[],
    },
    Target {
        name: "translate",
        run: translate,
        also: &[],
    },
];

/// The kinds of Istio's CRDs.
fn schemas() -> &'static [(String, String, ObjectSchema)] {
    static SCHEMAS: OnceLock<Vec<(String, String, ObjectSchema)>> = OnceLock::new();
    SCHEMAS.get_or_init(|| {
        let crds = api::istio::crds();
        let resources = crds.iter().flat_map(api::scheme::from_crd);
        resources
            .filter_map(|resource| {
                let schema = ObjectSchema::of(&resource)?;
                Some((resource.api_version(), resource.kind.clone(), schema))
            })
            .collect()
    })
}

/// Decoding as the API server does it, and what the webhook says to the object before and after.
fn istio_object(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let Ok(mut object) = yaml_serde::from_str::<Value>(text) else {
        return;
    };
    let _ = istio_validation::validate(&object);
    let own = |schema: &&(String, String, ObjectSchema)| {
        object["apiVersion"] == schema.0.as_str() && object["kind"] == schema.1.as_str()
    };
    let Some((.., schema)) = schemas().iter().find(own) else {
        return;
    };
    let (fields, once) = (FieldValidation::Warn, Duplicates::default());
    if prune::decode(schema, &mut object, &once, fields).is_err() {
        return;
    }
    let pruned = object.clone();
    if let Ok(warnings) = prune::decode(schema, &mut object, &once, fields) {
        assert!(warnings.is_empty(), "unknown after pruning: {warnings:?}");
    }
    assert_eq!(object, pruned, "pruning twice prunes more");
    api::defaults::apply(schema, &mut object);
    let _ = istio_validation::validate(&object);
}

/// The objects of a small cluster, and its proxies.
struct Scene {
    objects: Vec<Arc<Value>>,
    proxies: Vec<ProxyInfo>,
}

/// A part of a recorded scene: what is tried is the configuration, not the size of the cluster.
fn scene() -> &'static Scene {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    SCENE.get_or_init(|| {
        let path = Path::new("tests/golden/data/xds/scenes/mini.json");
        let text = std::fs::read(seeds::repository().join(path)).expect("a recorded scene");
        let input: Value = serde_json::from_slice(&text).expect("JSON");
        let kept = [
            "httpbin",
            "helloworld",
            "store",
            "ratings",
            "client",
            "istio-ingressgateway",
        ];
        let objects = input["k8s"]["ctx1"].as_array().expect("objects").iter();
        let objects = objects.filter(|object| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            matches!(object["kind"].as_str(), Some("Namespace" | "Node"))
                || kept.iter().any(|kept| name.starts_with(kept))
        });
        let names = ["client", "httpbin-v1", "istio-ingressgateway"];
        let proxies = input["proxies"].as_array().expect("proxies").iter();
        let proxies = proxies.filter(|proxy| names.contains(&proxy["name"].as_str().unwrap_or("")));
        let proxy = |proxy: &Value| {
            let id = proxy["id"].as_str().expect("an id");
            let place = |key: &str| {
                proxy["locality"][key]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            };
            let locality = Locality {
                region: place("region"),
                zone: place("zone"),
                subzone: String::new(),
            };
            ProxyInfo::from_node(id, &proxy["metadata"], locality).expect("a proxy")
        };
        Scene {
            objects: objects.cloned().map(Arc::new).collect(),
            proxies: proxies.map(proxy).collect(),
        }
    })
}

fn snapshot(
    before: Option<&Snapshot>,
    objects: Vec<Arc<Value>>,
    config: Vec<Arc<Value>>,
    mesh: MeshConfig,
    networks: MeshNetworks,
) -> Arc<Snapshot> {
    let input = SnapshotInput {
        config_cluster: "ctx1".to_owned(),
        clusters: vec![ClusterObjects {
            id: "ctx1".to_owned(),
            network: None,
            objects,
        }],
        config,
        mesh,
        networks,
        ..SnapshotInput::default()
    };
    Arc::new(match before {
        Some(before) => before.next(input),
        None => Snapshot::from_objects(input),
    })
}

/// Two documents: the configuration of the mesh, and its networks.
fn mesh_config(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let (mesh, networks) = text.split_once("\n---\n").unwrap_or((text, ""));
    let mesh = yaml_serde::from_str::<MeshConfig>(mesh).unwrap_or_default();
    let networks = yaml_serde::from_str::<MeshNetworks>(networks).unwrap_or_default();
    let scene = scene();
    let snapshot = snapshot(None, scene.objects.clone(), Vec::new(), mesh, networks);
    for proxy in &scene.proxies {
        compiles(&translate::build(&snapshot, proxy));
    }
}

/// Node metadata (JSON), the id of the node behind it on a line of its own.
fn node_metadata(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let (metadata, id) = text.rsplit_once('\n').unwrap_or((text, ""));
    let Ok(metadata) = serde_json::from_str::<Value>(metadata) else {
        return;
    };
    let Ok(proxy) = ProxyInfo::from_node(id, &metadata, Locality::default()) else {
        return;
    };
    static WORLD: OnceLock<Arc<Snapshot>> = OnceLock::new();
    let world = WORLD.get_or_init(|| {
        let objects = scene().objects.clone();
        snapshot(
            None,
            objects,
            Vec::new(),
            MeshConfig::default(),
            MeshNetworks::default(),
        )
    });
    compiles(&translate::build(world, &proxy));
}

/// What is made of objects does not depend on their order, is the same from one moment to the next as all at once, and can be compiled.
fn translate(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let (mut config, mut known) = (Vec::new(), HashSet::new());
    let scene = scene();
    let mut objects = scene.objects.clone();
    for document in yaml_serde::Deserializer::from_str(text) {
        let Ok(mut object) = Value::deserialize(document) else {
            return;
        };
        let of = |pointer: &str| {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .map(ToOwned::to_owned)
        };
        let key = (of("/kind"), of("/metadata/namespace"), of("/metadata/name"));
        if config.len() + objects.len() > 80 || !known.insert(key) {
            continue;
        }
        let istio = of("/apiVersion").is_some_and(|version| version.contains(".istio.io/"));
        // Only what the webhook lets in gets here.
        if istio && istio_validation::validate(&object).error.is_some() {
            continue;
        }
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata
                .entry("creationTimestamp")
                .or_insert_with(|| json!("2026-01-01T00:00:00Z"));
        }
        let list = if istio { &mut config } else { &mut objects };
        list.push(Arc::new(object));
    }
    // Patches of Envoy's own messages may say what they like.
    let patched = config.iter().any(|object| object["kind"] == "EnvoyFilter");
    let (mesh, networks) = (MeshConfig::default, MeshNetworks::default);
    let all = snapshot(None, objects.clone(), config.clone(), mesh(), networks());
    let reversed = snapshot(
        None,
        objects.clone(),
        config.iter().rev().cloned().collect(),
        mesh(),
        networks(),
    );
    let half = config[..config.len() / 2].to_vec();
    let first = snapshot(None, scene.objects.clone(), half, mesh(), networks());
    let second = snapshot(Some(&first), objects, config, mesh(), networks());
    for proxy in &scene.proxies {
        let want = translate::build(&all, proxy);
        same(
            &want,
            &translate::build(&reversed, proxy),
            "in another order",
        );
        let (mut built, mut output) = Built::new(first.clone(), proxy);
        built.advance(second.clone(), proxy).apply(&mut output);
        same(&want, &output, "after a change");
        let mut refused = compiles(&want);
        // That is said plainly, and the list is `dataplane::unread`.
        refused.retain(|error| !error.to_string().contains("not carried out"));
        assert!(patched || refused.is_empty(), "{refused:#?}");
    }
}

fn same(want: &Output, got: &Output, when: &str) {
    assert_eq!(want.clusters, got.clusters, "clusters {when}");
    assert_eq!(want.endpoints, got.endpoints, "endpoints {when}");
    assert_eq!(want.listeners, got.listeners, "listeners {when}");
    assert_eq!(want.routes, got.routes, "routes {when}");
    assert_eq!(
        want.extension_configs, got.extension_configs,
        "extensions {when}"
    );
}

/// Compiles everything, as the proxy does; what cannot be used.
fn compiles(output: &Output) -> Vec<ConfigError> {
    let resources = Resources {
        listeners: output.listeners.values().cloned().collect(),
        routes: output.routes.values().cloned().collect(),
        clusters: output.clusters.values().cloned().collect(),
        endpoints: output.endpoints.values().cloned().collect(),
    };
    World::compile(&resources, 7).1
}
