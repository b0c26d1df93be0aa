//! Which kinds an API server serves.

use http::Method;
use serde_json::Value;

use crate::{Client, Error, Resource, Result};

/// A kind as discovery tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiResource {
    /// Group, version, plural and kind.
    pub resource: Resource,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What can be done: `get`, `list`, `delete`, ...
    pub verbs: Vec<String>,
}

impl ApiResource {
    /// Whether all these verbs are offered.
    pub fn can(&self, verbs: &[&str]) -> bool {
        verbs
            .iter()
            .all(|&verb| self.verbs.iter().any(|known| known == verb))
    }
}

/// All kinds in the preferred version of their group, without subresources.
///
/// # Errors
/// When a discovery document cannot be read: a partial answer would be taken for the whole.
pub async fn preferred_resources(client: &Client) -> Result<Vec<ApiResource>> {
    let groups = document(client, "/apis").await?;
    let mut versions = vec![("/api/v1".to_owned(), String::new(), "v1".to_owned())];
    for group in groups["groups"].as_array().into_iter().flatten() {
        let name = group["name"].as_str().unwrap_or_default().to_owned();
        let version = &group["preferredVersion"]["version"];
        let version = version.as_str().unwrap_or_default().to_owned();
        versions.push((format!("/apis/{name}/{version}"), name, version));
    }
    let documents =
        futures::future::try_join_all(versions.iter().map(|(path, _, _)| document(client, path)))
            .await?;
    Ok(versions
        .iter()
        .zip(&documents)
        .flat_map(|((_, group, version), document)| resources(group, version, document))
        .collect())
}

async fn document(client: &Client, path: &str) -> Result<Value> {
    let (status, body) = client.raw(Method::GET, path, None, None).await?;
    if !status.is_success() {
        return Err(Error::from_response(status.as_u16(), &body));
    }
    serde_json::from_slice(&body).map_err(|error| Error::Protocol {
        server: client.server().to_owned(),
        reason: format!("{path}: not JSON: {error}"),
    })
}

fn resources(group: &str, version: &str, document: &Value) -> Vec<ApiResource> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    document["resources"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|entry| !text(&entry["name"]).contains('/'))
        .map(|entry| ApiResource {
            resource: Resource::new(group, version, &text(&entry["name"]), &text(&entry["kind"])),
            namespaced: entry["namespaced"].as_bool().unwrap_or(false),
            verbs: entry["verbs"]
                .as_array()
                .into_iter()
                .flatten()
                .map(text)
                .collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn subresources_are_left_out() {
        let document = json!({"resources": [
            {"name": "pods", "kind": "Pod", "namespaced": true, "verbs": ["get", "list", "delete"]},
            {"name": "pods/log", "kind": "Pod", "namespaced": true, "verbs": ["get"]},
        ]});
        let found = resources("", "v1", &document);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].resource, crate::PODS);
        assert!(
            found[0].namespaced && found[0].can(&["list", "delete"]) && !found[0].can(&["watch"])
        );
    }
}
