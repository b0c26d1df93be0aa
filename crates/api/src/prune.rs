//! Decoding: from the bytes of a request to an object that has only known fields of the right types.

mod custom;
mod duplicates;
pub(crate) mod typed;

pub use typed::json_type;

pub use duplicates::parse as json;

use crate::field::quote;
use crate::patch::PatchKind;
use crate::schema::ObjectSchema;
use crate::status::StatusError;
use crate::{meta, scheme};
use serde_json::Value;

/// What to do about unknown and duplicate fields (`?fieldValidation=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and say so in a `Warning` header; the default.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

impl FieldValidation {
    /// Reads the query parameter; an unknown value is the 422 of the real server. `options`: `CreateOptions`,
    /// `UpdateOptions` or `PatchOptions`.
    pub fn parse(value: Option<&str>, options: &str) -> Result<Self, StatusError> {
        match value {
            None | Some("" | "Warn") => Ok(Self::Warn),
            Some("Ignore") => Ok(Self::Ignore),
            Some("Strict") => Ok(Self::Strict),
            Some(other) => Err(StatusError::invalid(
                "meta.k8s.io",
                options,
                "",
                &[crate::field::FieldError::not_supported(
                    "fieldValidation",
                    &other.into(),
                    &["", "Ignore", "Strict", "Warn"],
                )],
            )),
        }
    }
}

/// Fields that a body has twice.
#[derive(Debug, Clone, PartialEq)]
pub enum Duplicates {
    /// Their paths in a JSON body.
    Paths(Vec<String>),
    /// What is said of them in a YAML body.
    Lines(Vec<String>),
}

impl Default for Duplicates {
    fn default() -> Self {
        Self::Paths(Vec::new())
    }
}

/// Drops unknown fields without a word, and brings a built-in object into its wire form: for what patches, webhooks and
/// stored objects bring. Values of a wrong type stay for [`crate::validate`] to name.
pub fn prune(schema: &ObjectSchema, obj: &mut Value) {
    let mut unknown = Vec::new();
    if schema.builtin {
        // A wrong type here stops the walk; decode() is where it is an error.
        let _ = typed::walk_object(schema, obj, &mut unknown);
    } else {
        let _ = custom::prune(schema, obj, &mut unknown);
    }
}

/// Checks kind and types (built-in kinds) and unknown fields, prunes, and brings a built-in object into the form the API
/// server writes (no nulls, no empty optional fields, empty structs where Go has them). `duplicates` comes from [`parse`].
/// Returns the warnings to send, or the 400 that names every problem.
pub fn decode(
    schema: &ObjectSchema,
    obj: &mut Value,
    duplicates: &Duplicates,
    validation: FieldValidation,
) -> Result<Vec<String>, StatusError> {
    check_kind(schema, obj).map_err(|wrong| wrong.status(schema))?;
    walk(schema, obj, duplicates, validation).map_err(|why| {
        StatusError::bad_request(format!(
            "{} in version {} cannot be handled as a {}: {why}",
            schema.kind,
            quote(&schema.version),
            schema.kind
        ))
    })
}

/// [`decode`] for the outcome of a patch: what is wrong is a 422 on the patch, with the patched object (`patched` makes it once more), or,
/// when it was a strategic merge patch, with the patch itself.
pub fn decode_patched(
    schema: &ObjectSchema,
    obj: &mut Value,
    patch: (PatchKind, &Value),
    patched: &dyn Fn() -> Value,
    validation: FieldValidation,
) -> Result<Vec<String>, StatusError> {
    let refused = |why: String| match patch {
        (PatchKind::Strategic, patch) => crate::patch::unconvertible(patch, &why),
        (PatchKind::Merge, patch) => crate::patch::undecodable(&patched(), patch, &why),
        _ => crate::patch::undecodable(&patched(), &Value::Null, &why),
    };
    if schema.builtin && patch.0 == PatchKind::Strategic {
        // What is patched is a struct, and its kind is that of the struct whatever the patch says.
        for key in ["apiVersion", "kind"] {
            obj[key] = "".into();
        }
    }
    check_kind(schema, obj).map_err(|wrong| match wrong.kind {
        Some(_) => refused(wrong.why),
        None => wrong.status(schema),
    })?;
    walk(schema, obj, &Duplicates::default(), validation).map_err(refused)
}

fn walk(
    schema: &ObjectSchema,
    obj: &mut Value,
    duplicates: &Duplicates,
    validation: FieldValidation,
) -> Result<Vec<String>, String> {
    let mut unknown = Vec::new();
    let paths = match duplicates {
        Duplicates::Paths(paths) => paths.as_slice(),
        Duplicates::Lines(_) => &[],
    };
    let original = (!paths.is_empty()).then(|| obj.clone());
    if schema.builtin {
        typed::walk_object(schema, obj, &mut unknown)?;
    } else {
        custom::prune(schema, obj, &mut unknown)?;
    }
    if validation == FieldValidation::Ignore {
        return Ok(Vec::new());
    }
    let mut problems = merge(original.as_ref(), paths, unknown);
    if let Duplicates::Lines(lines) = duplicates
        && !lines.is_empty()
    {
        let first = match validation {
            FieldValidation::Strict => {
                vec![format!("yaml: unmarshal errors:\n  {}", lines.join("\n  "))]
            }
            _ => lines.clone(),
        };
        problems.splice(0..0, first);
    }
    if validation == FieldValidation::Strict && !problems.is_empty() {
        return Err(format!("strict decoding error: {}", problems.join(", ")));
    }
    Ok(problems)
}

/// Duplicate and unknown fields in the order of the document, as the real decoder meets them.
fn merge(original: Option<&Value>, duplicates: &[String], unknown: Vec<String>) -> Vec<String> {
    let mut all: Vec<(usize, String)> = unknown
        .iter()
        .map(|u| (0, format!("unknown field {}", quote(u))))
        .collect();
    if let Some(original) = original {
        let mut order = Vec::new();
        paths(original, "", &mut order);
        let rank = |path: &str| order.iter().position(|p| p == path).unwrap_or(usize::MAX);
        for (entry, path) in all.iter_mut().zip(&unknown) {
            entry.0 = rank(path);
        }
        all.extend(
            duplicates
                .iter()
                .map(|d| (rank(d), format!("duplicate field {}", quote(d)))),
        );
        all.sort_by_key(|e| e.0);
    }
    all.into_iter().map(|e| e.1).collect()
}

/// All member paths of a value in document order.
fn paths(v: &Value, path: &str, into: &mut Vec<String>) {
    match v {
        Value::Object(m) => {
            for (k, v) in m {
                let here = crate::field::child(path, k);
                into.push(here.clone());
                paths(v, &here, into);
            }
        }
        Value::Array(a) => a
            .iter()
            .enumerate()
            .for_each(|(i, v)| paths(v, &format!("{path}[{i}]"), into)),
        _ => {}
    }
}

/// An object of another kind than it should be.
struct WrongKind {
    /// What it says it is, version and kind; nothing where custom resources are served.
    kind: Option<(String, String)>,
    why: String,
}

impl WrongKind {
    fn status(self, schema: &ObjectSchema) -> StatusError {
        let Self { kind, why } = self;
        StatusError::bad_request(match kind {
            Some((version, kind)) => format!(
                "{kind} in version {} cannot be handled as a {}: {why}",
                quote(&version),
                schema.kind
            ),
            None => why,
        })
    }
}

/// Fills in `apiVersion` and `kind` of built-in kinds where absent; another kind is an error.
fn check_kind(schema: &ObjectSchema, obj: &mut Value) -> Result<(), WrongKind> {
    let (av, kind) = (
        meta::api_version(obj).to_string(),
        meta::kind(obj).to_string(),
    );
    let expected = meta::join_group_version(&schema.group, &schema.version);
    if (av.is_empty() || av == expected) && (kind.is_empty() || kind == schema.kind) {
        if av.is_empty() {
            obj["apiVersion"] = expected.into();
        }
        if kind.is_empty() {
            obj["kind"] = schema.kind.clone().into();
        }
        return Ok(());
    }
    let av = if av.is_empty() { expected } else { av };
    let kind = if kind.is_empty() {
        schema.kind.clone()
    } else {
        kind
    };
    let (group, version) = meta::group_version(&av);
    let why = if !schema.builtin {
        return Err(WrongKind {
            kind: None,
            why: format!(
                "the API version in the data ({av}) does not match the expected API version ({})",
                meta::join_group_version(&schema.group, &schema.version)
            ),
        });
    } else if scheme::find_kind(group, version, &kind).is_some() {
        let go = |g: &str| {
            if g.is_empty() {
                "core".to_string()
            } else {
                g.split('.').next().unwrap_or(g).to_string()
            }
        };
        format!(
            "converting ({version}.{kind}) to ({}.{}): unknown conversion",
            go(&schema.group),
            schema.kind
        )
    } else {
        format!(
            "no kind {} is registered for version {} in scheme \"pkg/runtime/scheme.go:100\"",
            quote(&kind),
            quote(&av)
        )
    };
    Err(WrongKind {
        kind: Some((version.to_owned(), kind)),
        why,
    })
}

/// Parses a JSON (or, with `yaml`, YAML) body of the kind; also returns the fields that are there twice.
pub fn parse(
    schema: &ObjectSchema,
    body: &[u8],
    yaml: bool,
) -> Result<(Value, Duplicates), StatusError> {
    let unrecognized = |why: &str| {
        StatusError::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): {why} ({})",
            schema.kind,
            summary(body)
        ))
    };
    let unkind = |why: String| {
        unrecognized(&format!(
            "couldn't get version/kind; json parse error: {why}"
        ))
    };
    let (value, duplicates) = if yaml {
        let text = std::str::from_utf8(body).map_err(|e| unrecognized(&format!("yaml: {e}")))?;
        let (value, lines) =
            crate::go::yaml::read(text).map_err(|e| unrecognized(&e.to_string()))?;
        (value, Duplicates::Lines(lines))
    } else {
        let (value, paths) = duplicates::parse(body).map_err(|e| {
            unkind(if body.iter().all(u8::is_ascii_whitespace) {
                "unexpected end of JSON input".to_owned()
            } else {
                e.to_string()
            })
        })?;
        (value, Duplicates::Paths(paths))
    };
    if !value.is_object() {
        let what = typed::json_type(&value);
        return Err(unkind(format!(
            "json: cannot unmarshal {what} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
        )));
    }
    Ok((value, duplicates))
}

/// The beginning of an unreadable body: JSON as it is, anything else as hexadecimal digits.
fn summary(body: &[u8]) -> String {
    const MAX: usize = 30;
    let start = &body[..body.len().min(MAX)];
    let text = match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(start).into_owned(),
        Some(_) => start.iter().map(|b| format!("{b:02x}")).collect(),
    };
    if body.len() > MAX {
        text + " ..."
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment() -> ObjectSchema {
        ObjectSchema::builtin("apps", "v1", "Deployment").unwrap()
    }

    #[test]
    fn unknown_and_duplicate_fields_are_named_with_their_path() {
        let s = deployment();
        let body =
            br#"{"foo":1,"metadata":{"name":"x","foo":1},"spec":{"bar":1,"replicas":1,"replicas":2,
            "template":{"spec":{"containers":[{"name":"a","image":"b","zz":1},{"imagee":"x"}]}}}}"#;
        let (mut o, dup) = parse(&s, body, false).unwrap();
        let e = decode(&s, &mut o.clone(), &dup, FieldValidation::Strict).unwrap_err();
        assert_eq!(
            e.message,
            "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: unknown field \"foo\", unknown field \"metadata.foo\", unknown field \"spec.bar\", duplicate field \"spec.replicas\", unknown field \"spec.template.spec.containers[0].zz\", unknown field \"spec.template.spec.containers[1].imagee\""
        );
        let warnings = decode(&s, &mut o, &dup, FieldValidation::Warn).unwrap();
        assert_eq!(warnings.len(), 6);
        assert_eq!(o["spec"]["replicas"], 2);
        assert!(o["spec"].get("bar").is_none());
    }

    #[test]
    fn keys_that_a_yaml_body_has_twice_are_named_with_their_line() {
        let s = ObjectSchema::builtin("", "v1", "ConfigMap").unwrap();
        let body = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: dup\n  name: dup2\n  foo: x\ndata:\n  a: \"1\"\n  a: \"3\"\noops: 1\n";
        let (mut o, dup) = parse(&s, body, true).unwrap();
        let e = decode(&s, &mut o.clone(), &dup, FieldValidation::Strict).unwrap_err();
        assert_eq!(
            e.message,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: yaml: unmarshal errors:\n  line 5: key \"name\" already set in map\n  line 9: key \"a\" already set in map, unknown field \"metadata.foo\", unknown field \"oops\""
        );
        let warnings = decode(&s, &mut o, &dup, FieldValidation::Warn).unwrap();
        assert_eq!(
            (warnings.len(), warnings[1].as_str()),
            (4, "line 9: key \"a\" already set in map")
        );
        assert_eq!(o["data"], json!({"a": "3"}));
        let e = parse(&s, b"apiVersion: v1\n kind: ConfigMap\n", true).unwrap_err();
        assert_eq!(
            e.message,
            "the object provided is unrecognized (must be of type ConfigMap): yaml: line 2: mapping values are not allowed in this context (61706956657273696f6e3a2076310a206b696e643a20436f6e6669674d61 ...)"
        );
    }

    #[test]
    fn a_map_of_times_is_left_out_when_it_is_empty() {
        let s = ObjectSchema::builtin("policy", "v1", "PodDisruptionBudget").unwrap();
        let mut o =
            json!({"metadata": {"name": "b"}, "status": {"expectedPods": 1, "disruptedPods": {}}});
        decode(&s, &mut o, &Duplicates::default(), FieldValidation::Strict).unwrap();
        assert!(o["status"].get("disruptedPods").is_none(), "{o}");
    }

    #[test]
    fn a_patch_cannot_make_another_kind_of_an_object() {
        let s = deployment();
        let patched = json!({"apiVersion": "apps/v1", "kind": "Other", "metadata": {"name": "d"}});
        let decoded = |kind| {
            let mut object = patched.clone();
            let patch = json!({"kind": "Other"});
            decode_patched(
                &s,
                &mut object,
                (kind, &patch),
                &|| patched.clone(),
                FieldValidation::Warn,
            )
            .map(|_| object["kind"].clone())
        };
        for kind in [PatchKind::Merge, PatchKind::Json] {
            let e = decoded(kind).unwrap_err();
            let why = "no kind \"Other\" is registered for version \"apps/v1\" in scheme \"pkg/runtime/scheme.go:100\"";
            assert_eq!(e.code, 422);
            assert!(e.message.ends_with(why), "{}", e.message);
        }
        assert_eq!(decoded(PatchKind::Strategic).unwrap(), "Deployment");
    }

    #[test]
    fn wrong_types_are_refused_in_the_words_of_go() {
        let s = deployment();
        for (spec, want) in [
            (
                json!({"replicas": "x"}),
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                json!({"template": {"spec": {"containers": {}}}}),
                "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
            ),
            (
                json!({"template": {"spec": {"containers": [{"ports": [{"containerPort": 80.5}]}]}}}),
                "json: cannot unmarshal number 80.5 into Go struct field ContainerPort.spec.template.spec.containers.ports.containerPort of type int32",
            ),
            (
                json!([]),
                "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec",
            ),
            (
                json!({"selector": {"matchLabels": {"a": true}}}),
                "json: cannot unmarshal bool into Go struct field LabelSelector.spec.selector.matchLabels of type string",
            ),
            (
                json!({"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "abc"}}}]}}}),
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
            (
                json!({"strategy": {"rollingUpdate": {"maxSurge": true}}}),
                "json: cannot unmarshal bool into Go struct field RollingUpdateDeployment.spec.strategy.rollingUpdate.maxSurge of type int32",
            ),
        ] {
            let e = decode(
                &s,
                &mut json!({"metadata": {"name": "x"}, "spec": spec}),
                &Duplicates::default(),
                FieldValidation::Warn,
            )
            .unwrap_err();
            assert_eq!(
                e.message,
                format!("Deployment in version \"v1\" cannot be handled as a Deployment: {want}")
            );
        }
    }

    #[test]
    fn another_kind_is_refused() {
        let s = deployment();
        let e = decode(
            &s,
            &mut json!({"apiVersion": "v1", "kind": "Pod"}),
            &Duplicates::default(),
            FieldValidation::Warn,
        )
        .unwrap_err();
        assert_eq!(
            e.message,
            "Pod in version \"v1\" cannot be handled as a Deployment: converting (v1.Pod) to (apps.Deployment): unknown conversion"
        );
    }

    #[test]
    fn builtin_objects_take_their_wire_form() {
        let s = ObjectSchema::builtin("", "v1", "Pod").unwrap();
        let mut o = json!({"metadata": {"name": "x", "labels": {}}, "spec": {"hostNetwork": false, "nodeName": "", "volumes": [],
            "containers": [{"name": "a", "resources": {"limits": {"cpu": 0.1, "memory": "1024Mi"}}, "securityContext": {"privileged": false},
                            "ports": [{"containerPort": 80}]}]}});
        decode(&s, &mut o, &Duplicates::default(), FieldValidation::Warn).unwrap();
        assert_eq!(
            o,
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "x", "creationTimestamp": null}, "status": {},
                   "spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "100m", "memory": "1Gi"}},
                                            "securityContext": {"privileged": false}, "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}})
        );
    }

    #[test]
    fn custom_resources_are_pruned() {
        let crd = json!({"spec": {"group": "g.io", "names": {"kind": "W"}, "versions": [{"name": "v1", "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"},
                "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"k": {"type": "object", "properties": {}}}},
                "list": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"n": {"type": "integer"}}}}}}}}}}]}});
        let s = ObjectSchema::from_crd(&crd, "v1").unwrap();
        let mut o = json!({"apiVersion": "g.io/v1", "kind": "W", "metadata": {"name": "x", "zz": 1}, "top": 1,
            "spec": {"a": "b", "c": 1, "any": {"x": 1, "k": {"y": 1}}, "list": [{"n": 1, "m": 2}], "map": {"q": {"n": 1, "m": 2}}}});
        let w = decode(&s, &mut o, &Duplicates::default(), FieldValidation::Warn).unwrap();
        assert_eq!(
            w,
            [
                "metadata.zz",
                "spec.any.k.y",
                "spec.c",
                "spec.list[0].m",
                "spec.map.q.m",
                "top"
            ]
            .map(|p| format!("unknown field \"{p}\""))
        );
        assert_eq!(
            o["spec"],
            json!({"a": "b", "any": {"x": 1, "k": {}}, "list": [{"n": 1}], "map": {"q": {"n": 1}}})
        );
    }
}
