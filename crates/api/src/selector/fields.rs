//! Field selectors: `metadata.name=x,status.phase!=Running`, with the fields that each kind indexes.

use crate::field::quote;
use crate::scheme::ResourceInfo;
use crate::status::StatusError;
use serde_json::Value;
use std::borrow::Cow;

/// A field selector; all terms must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// (field, equal, value)
    pub terms: Vec<(String, bool, String)>,
}

impl FieldSelector {
    /// Parses `?fieldSelector=`: `metadata.name=x,status.phase!=Running`. A field the kind does not index is an error.
    pub fn parse(s: &str, resource: &ResourceInfo) -> Result<Self, StatusError> {
        let mut terms = Vec::new();
        for term in split_unescaped(s) {
            if term.is_empty() {
                continue;
            }
            let unequal = term.find("!=").map(|i| (&term[..i], false, &term[i + 2..]));
            let equal = term.find("==").map(|i| (&term[..i], true, &term[i + 2..]));
            let plain = term.find('=').map(|i| (&term[..i], true, &term[i + 1..]));
            // The operator that comes first counts; of two at the same place, the longer one.
            let parts = [unequal, equal, plain]
                .into_iter()
                .flatten()
                .min_by_key(|p| p.0.len());
            let Some((field, equal, value)) = parts else {
                return Err(StatusError::bad_request(format!(
                    "invalid selector: '{s}'; can't understand '{term}'"
                )));
            };
            let value = unescape(value).map_err(|c| {
                StatusError::bad_request(format!(
                    "invalid field selector: unescaped character in value: {}",
                    c as u32
                ))
            })?;
            terms.push((field.to_string(), equal, value));
        }
        // Only what can be read as a whole is looked at in its parts.
        for (field, ..) in &terms {
            if !supports(resource, field) {
                let message = match wording(resource) {
                    Wording::Plain => format!("field label not supported: {field}"),
                    Wording::Kind => format!(
                        "field label {} not supported for {}",
                        quote(field),
                        resource.kind
                    ),
                    Wording::Default => format!(
                        "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                        quote(field)
                    ),
                };
                return Err(StatusError::bad_request(message));
            }
        }
        Ok(Self { terms })
    }

    /// The object satisfies the selector.
    pub fn matches(&self, obj: &Value) -> bool {
        self.terms
            .iter()
            .all(|(field, equal, value)| (field_of(obj, field) == *value) == *equal)
    }

    /// Selects everything.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that the field must have, when the selector pins it down.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|(f, equal, _)| f == field && *equal)
            .map(|t| t.2.as_str())
    }
}

/// How a kind words that it does not know a field.
enum Wording {
    Plain,
    Kind,
    Default,
}

fn wording(resource: &ResourceInfo) -> Wording {
    match (resource.group.as_str(), resource.kind.as_str()) {
        _ if resource.crd.is_some() => Wording::Plain,
        ("", "Pod" | "Node" | "Service" | "Secret" | "Event" | "Namespace")
        | ("events.k8s.io" | "certificates.k8s.io", _) => Wording::Plain,
        ("batch", "Job") => Wording::Kind,
        _ => Wording::Default,
    }
}

fn supports(resource: &ResourceInfo, field: &str) -> bool {
    if field == "metadata.name"
        || (field == "metadata.namespace" && (resource.namespaced || resource.crd.is_none()))
    {
        return true;
    }
    if let Some(crd) = &resource.crd {
        return crd["spec"]["versions"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|v| v["name"] == resource.version.as_str())
            .flat_map(|v| v["selectableFields"].as_array().into_iter().flatten())
            .any(|f| {
                f["jsonPath"]
                    .as_str()
                    .is_some_and(|p| p.trim_start_matches('.') == field)
            });
    }
    let fields: &[&str] = match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("", "Node") => &["spec.unschedulable"],
        ("", "Namespace") => &["status.phase"],
        ("", "Secret") => &["type"],
        ("", "Service") => &["spec.clusterIP", "spec.type"],
        ("", "Event") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("events.k8s.io", "Event") => &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        ("batch", "Job") => &["status.successful"],
        ("certificates.k8s.io", _) => &["spec.signerName"],
        _ => &[],
    };
    fields.contains(&field)
}

/// The first text that is not empty.
fn first_text<'a>(values: [&'a Value; 3]) -> Cow<'a, str> {
    values
        .into_iter()
        .filter_map(Value::as_str)
        .find(|text| !text.is_empty())
        .unwrap_or("")
        .into()
}

fn field_of<'a>(obj: &'a Value, field: &str) -> Cow<'a, str> {
    let count = |v: &Value| v.as_i64().unwrap_or(0).to_string().into();
    // Fields whose value is not simply what the path says.
    match field {
        // Old and new form of events keep their source under different names.
        "source" => {
            return first_text([
                &obj["source"]["component"],
                &obj["reportingComponent"],
                &obj["reportingController"],
            ]);
        }
        "reportingController" => {
            return first_text([
                &obj["reportingController"],
                &obj["reportingComponent"],
                &obj["source"]["component"],
            ]);
        }
        "status.successful" => return count(&obj["status"]["succeeded"]),
        "spec.unschedulable" | "spec.hostNetwork"
            if crate::jsonpath::field(obj, field).is_null() =>
        {
            return "false".into();
        }
        "status.replicas" => return count(&obj["status"]["replicas"]),
        "reportingComponent" if obj["reportingComponent"].as_str().unwrap_or("").is_empty() => {
            return obj["source"]["component"].as_str().unwrap_or("").into();
        }
        _ => {}
    }
    match crate::jsonpath::field(obj, field) {
        Value::Null => "".into(),
        Value::String(s) => s.into(),
        other => other.to_string().into(),
    }
}

fn split_unescaped(s: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in s.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == ',' {
            out.push(&s[start..i]);
            start = i + 1;
        }
    }
    out.push(&s[start..]);
    out
}

/// Backslashes make `,`, `=` and themselves plain; an unescaped one is the error.
fn unescape(s: &str) -> Result<String, char> {
    let mut out = String::new();
    let mut chars = s.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(e @ ('\\' | ',' | '=')) => out.push(e),
                Some(e) => return Err(e),
                None => return Err('\\'),
            },
            ',' | '=' => return Err(c),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn field_selectors_select() {
        let pods = crate::scheme::find("", "v1", "pods").unwrap();
        let pod = json!({"metadata": {"name": "x"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
        for (s, want) in [
            ("metadata.name=x", true),
            ("spec.nodeName!=n", false),
            ("status.phase==Running,metadata.name=x", true),
            ("spec.hostNetwork=false", true),
            ("", true),
        ] {
            assert_eq!(
                FieldSelector::parse(s, &pods).unwrap().matches(&pod),
                want,
                "{s}"
            );
        }
        assert_eq!(
            FieldSelector::parse("metadata.name=x", &pods)
                .unwrap()
                .exact("metadata.name"),
            Some("x")
        );
    }

    #[test]
    fn mistakes_are_named_as_the_real_server_names_them() {
        let of = |gv: (&str, &str), plural: &str, s: &str| {
            FieldSelector::parse(s, &crate::scheme::find(gv.0, gv.1, plural).unwrap())
                .unwrap_err()
                .message
        };
        assert_eq!(
            of(("", "v1"), "pods", "spec.x=1"),
            "field label not supported: spec.x"
        );
        assert_eq!(
            of(("", "v1"), "pods", "bad"),
            "invalid selector: 'bad'; can't understand 'bad'"
        );
        assert_eq!(
            of(("", "v1"), "pods", "a=b=c"),
            "invalid field selector: unescaped character in value: 61"
        );
        let only = "\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"";
        assert_eq!(of(("", "v1"), "configmaps", "spec.x=1"), only);
        assert_eq!(of(("apps", "v1"), "deployments", "spec.x=1"), only);
        assert_eq!(
            of(("batch", "v1"), "jobs", "spec.x=1"),
            "field label \"spec.x\" not supported for Job"
        );
    }
}
