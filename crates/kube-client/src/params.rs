//! Parameters of requests.

use serde::Serialize;

/// Narrows a list.
#[derive(Debug, Clone, Default)]
pub struct ListParams {
    /// Label selector, for instance `app=web,tier!=db`.
    pub label_selector: Option<String>,
    /// Field selector, for instance `spec.nodeName=n1`.
    pub field_selector: Option<String>,
    /// At most so many items in one answer.
    pub limit: Option<u32>,
    /// Where the previous answer stopped.
    pub continue_: Option<String>,
    /// Of each object its metadata alone (`PartialObjectMetadata`).
    pub metadata_only: bool,
}

impl ListParams {
    /// Of each object its metadata alone.
    pub fn metadata() -> Self {
        Self {
            metadata_only: true,
            ..Self::default()
        }
    }

    /// Only objects with these labels.
    pub fn labels(selector: impl Into<String>) -> Self {
        Self {
            label_selector: Some(selector.into()),
            ..Self::default()
        }
    }

    /// Only objects with these fields.
    pub fn fields(selector: impl Into<String>) -> Self {
        Self {
            field_selector: Some(selector.into()),
            ..Self::default()
        }
    }

    pub(crate) fn query(&self, query: &mut Query) {
        query.add("labelSelector", self.label_selector.as_deref());
        query.add("fieldSelector", self.field_selector.as_deref());
        query.add(
            "limit",
            self.limit.map(|limit| limit.to_string()).as_deref(),
        );
        query.add("continue", self.continue_.as_deref());
    }
}

/// Narrows a watch and says where it starts.
#[derive(Debug, Clone, Default)]
pub struct WatchParams {
    /// Label selector.
    pub label_selector: Option<String>,
    /// Field selector.
    pub field_selector: Option<String>,
    /// Events after this version; `None` starts with the present state.
    pub resource_version: Option<String>,
    /// The server ends the watch after this many seconds.
    pub timeout_seconds: Option<u32>,
    /// Ask for bookmarks.
    pub bookmarks: bool,
    /// Ask for the present state as events, up to a bookmark that says so; not together with `resource_version`.
    pub initial_events: bool,
    /// Of each object its metadata alone (`PartialObjectMetadata`).
    pub metadata_only: bool,
}

/// The form in which answers with objects are asked for.
pub(crate) fn accepted(metadata_only: bool) -> &'static str {
    if metadata_only {
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    } else {
        "application/json"
    }
}

impl WatchParams {
    pub(crate) fn query(&self, query: &mut Query) {
        query.add("watch", Some("true"));
        query.add("labelSelector", self.label_selector.as_deref());
        query.add("fieldSelector", self.field_selector.as_deref());
        query.add("resourceVersion", self.resource_version.as_deref());
        let timeout = self.timeout_seconds.map(|seconds| seconds.to_string());
        query.add("timeoutSeconds", timeout.as_deref());
        query.add("allowWatchBookmarks", self.bookmarks.then_some("true"));
        if self.initial_events {
            query.add("sendInitialEvents", Some("true"));
            query.add("resourceVersionMatch", Some("NotOlderThan"));
        }
    }
}

/// How a patch is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatchType {
    /// A list of operations (RFC 6902).
    Json,
    /// A merge patch (RFC 7386).
    Merge,
    /// A strategic merge patch of Kubernetes.
    Strategic,
    /// Server-side apply.
    Apply {
        /// Name of the field manager.
        manager: String,
        /// Take over fields of other managers.
        force: bool,
    },
}

impl PatchType {
    pub(crate) fn content_type(&self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Apply { .. } => "application/apply-patch+yaml",
        }
    }
}

/// What happens to the dependents of a deleted object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Propagation {
    /// They stay.
    Orphan,
    /// They go after it.
    Background,
    /// They go before it.
    Foreground,
}

/// Conditions on the object to be deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preconditions {
    /// It must have this uid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// It must have this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
}

/// How an object is deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteOptions {
    /// Seconds it may take to end; 0 removes it at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period_seconds: Option<i64>,
    /// What happens to its dependents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation_policy: Option<Propagation>,
    /// Conditions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preconditions: Option<Preconditions>,
}

impl DeleteOptions {
    /// Deletes only the object with this uid.
    pub fn uid(uid: impl Into<String>) -> Self {
        Self {
            preconditions: Some(Preconditions {
                uid: Some(uid.into()),
                resource_version: None,
            }),
            ..Self::default()
        }
    }
}

/// A query string under construction.
#[derive(Debug, Default)]
pub(crate) struct Query(String);

impl Query {
    pub(crate) fn add(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.0.push(if self.0.is_empty() { '?' } else { '&' });
            self.0.push_str(name);
            self.0.push('=');
            encode_into(&mut self.0, value);
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Percent-encodes everything but unreserved characters (RFC 3986) and the colon, which
/// names of RBAC objects use.
pub(crate) fn encode_into(out: &mut String, text: &str) {
    for &byte in text.as_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        let mut query = Query::default();
        ListParams {
            label_selector: Some("app in (a, b)".into()),
            limit: Some(5),
            ..ListParams::default()
        }
        .query(&mut query);
        assert_eq!(
            query.as_str(),
            "?labelSelector=app%20in%20%28a%2C%20b%29&limit=5"
        );
    }

    #[test]
    fn delete_options_hold_only_what_was_said() {
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            propagation_policy: Some(Propagation::Foreground),
            ..DeleteOptions::uid("u")
        };
        assert_eq!(
            serde_json::to_string(&options).unwrap(),
            r#"{"gracePeriodSeconds":0,"propagationPolicy":"Foreground","preconditions":{"uid":"u"}}"#
        );
        assert_eq!(
            serde_json::to_string(&DeleteOptions::default()).unwrap(),
            "{}"
        );
    }
}
