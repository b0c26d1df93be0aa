//! Which type of proxy image a pod should have.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::context::Context;
use crate::fields::Fields;
use crate::kind::Kind;
use crate::labels::{self, Labels};
use crate::object::Object;
use crate::yaml;

/// The image types that the mesh configuration and ProxyConfigs ask for.
#[derive(Debug)]
pub struct ImageTypes<'a> {
    mesh: &'a str,
    root: &'a str,
    namespaces: BTreeMap<&'a str, &'a str>,
    workloads: Vec<(&'a str, Labels, &'a str)>,
}

impl<'a> ImageTypes<'a> {
    /// Those of the mesh.
    #[must_use]
    pub fn of(context: &Context<'a>) -> Self {
        let mesh = context.mesh();
        let root_namespace = match mesh.text("rootNamespace") {
            "" => "istio-system",
            name => name,
        };
        let mut types = Self {
            mesh: image_type(mesh.field("defaultConfig")),
            root: "",
            namespaces: BTreeMap::new(),
            workloads: Vec::new(),
        };
        for config in context.each(Kind::ProxyConfig) {
            let image_type = image_type(&config.spec);
            if config.namespace() == root_namespace {
                types.root = image_type;
            } else if let Some(selector) = labels::match_labels(&config.spec) {
                types
                    .workloads
                    .push((config.namespace(), selector, image_type));
            } else {
                types.namespaces.insert(config.namespace(), image_type);
            }
        }
        types
    }

    /// The type for a pod; empty for the usual one.
    #[must_use]
    pub fn of_pod(&self, pod: &Object) -> String {
        let own = yaml::parse(pod.annotation("proxy.istio.io/config"))
            .ok()
            .flatten()
            .and_then(|node| yaml::to_json(&node).ok())
            .unwrap_or_default();
        let workloads = self
            .workloads
            .iter()
            .filter(|(namespace, selector, _)| {
                *namespace == pod.namespace() && labels::selects(selector, &pod.labels)
            })
            .map(|(_, _, image_type)| *image_type);
        let of_namespace = self.namespaces.get(pod.namespace()).copied();
        // The narrower comes later and wins.
        let chosen = [self.mesh, self.root]
            .into_iter()
            .chain(of_namespace)
            .chain(workloads)
            .chain([image_type(&own)])
            .rfind(|image_type| !image_type.is_empty())
            .unwrap_or_default();
        if chosen == "default" {
            String::new()
        } else {
            chosen.to_owned()
        }
    }
}

fn image_type(config: &Value) -> &str {
    config.field("image").text("imageType")
}
