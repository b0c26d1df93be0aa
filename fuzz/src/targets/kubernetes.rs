//! Objects, patches, selectors, expressions: what clients send to API servers.

use api::patch::Writer;
use api::prune::FieldValidation;
use api::schema::ObjectSchema;
use api::scheme::{self, ResourceInfo};
use api::selector::{FieldSelector, LabelSelector};
use api::table::{Cells, IncludeObject, Source};
use api::time::Time;
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};

use super::text;
use crate::Target;

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "quantity",
        run: quantity,
        also: &[],
    },
    Target {
        name: "kubernetes-object",
        run: object,
        also: &[],
    },
    Target {
        name: "kubernetes-patch",
        run: patch,
        also: &[],
    },
    Target {
        name: "custom-resource",
        run: custom_resource,
        also: &[],
    },
    Target {
        name: "selectors",
        run: selectors,
        also: &[],
    },
    Target {
        name: "cel",
        run: cel,
        also: &[],
    },
    Target {
        name: "jsonpath",
        run: jsonpath,
        also: &[],
    },
    Target {
        name: "times",
        run: times,
        also: &[],
    },
    Target {
        name: "yaml",
        run: yaml,
        also: &[],
    },
];

const NOW: &str = "2025-01-02T03:04:05Z";

fn now() -> Time {
    api::time::parse(NOW).expect("a time")
}

fn quantity(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let Ok(quantity) = api::quantity::Quantity::parse(text) else {
        return;
    };
    let written = quantity.to_string();
    let again = api::quantity::Quantity::parse(&written);
    assert_eq!(
        again.map(|again| again.to_string()).ok().as_ref(),
        Some(&written),
        "{text:?} is written as {written:?}, which is read otherwise"
    );
}

/// Two parts of an input, separated by a line `---`.
pub(super) fn parts(input: &[u8]) -> Option<(&[u8], &[u8])> {
    const LINE: &[u8] = b"\n---\n";
    let at = input.windows(LINE.len()).position(|w| w == LINE)?;
    Some((&input[..at], &input[at + LINE.len()..]))
}

/// An object of a kind that is built in, with its resource and its schema.
fn built_in(value: &Value) -> Option<(Arc<ResourceInfo>, ObjectSchema)> {
    let (group, version) = api::meta::group_version(api::meta::api_version(value));
    let resource = scheme::find_kind(group, version, api::meta::kind(value))?;
    let schema = ObjectSchema::of(&resource)?;
    Some((resource, schema))
}

/// JSON, or YAML.
fn read(body: &[u8]) -> Option<Value> {
    if body.first() == Some(&b'{') {
        return serde_json::from_slice(body).ok();
    }
    Some(api::go::yaml::read(as_yaml(body)?).ok()?.0)
}

/// The input as text that a YAML parser may be given. The library's scanner panics for some tags, which is caught, but libFuzzer does not
/// wait for that.
pub(super) fn as_yaml(input: &[u8]) -> Option<&str> {
    let text = text(input)?;
    let tags = text.split('!').skip(1);
    let strange = |tag: &str| {
        let end = tag.find(char::is_whitespace).unwrap_or(tag.len());
        tag[..end].contains([',', '%'])
    };
    (!tags.into_iter().any(strange)).then_some(text)
}

fn writer(manager: &str) -> Writer<'_> {
    Writer {
        manager,
        subresource: "",
        now: NOW,
    }
}

/// A row of a table that is not kept.
struct Row {
    object: Arc<Value>,
    text: Vec<u8>,
    kept: OnceLock<Option<Arc<Cells>>>,
}

impl Source for Row {
    fn object(&self) -> Arc<Value> {
        self.object.clone()
    }
    fn text(&self) -> &[u8] {
        &self.text
    }
    fn metadata(&self) -> &[u8] {
        b"{}"
    }
    fn kept(&self) -> &OnceLock<Option<Arc<Cells>>> {
        &self.kept
    }
}

/// The object as rows of a table, fresh and from what was kept, which are the same.
fn show(resource: &Arc<ResourceInfo>, object: &Value) {
    let row = Row {
        object: Arc::new(object.clone()),
        text: object.to_string().into_bytes(),
        kept: OnceLock::new(),
    };
    let table = || {
        let rows: [&dyn Source; 1] = [&row];
        api::table::table(
            resource,
            &rows,
            &json!({}),
            IncludeObject::Object,
            true,
            now(),
        )
    };
    let fresh = table();
    serde_json::from_slice::<serde::de::IgnoredAny>(&fresh).expect("a table is JSON");
    assert!(fresh == table(), "the row is another one when it is kept");
}

/// The way of a new object through the server, as far as it needs no server. What comes out goes through unchanged.
fn write(
    resource: &Arc<ResourceInfo>,
    schema: &ObjectSchema,
    object: &mut Value,
    validation: FieldValidation,
) -> bool {
    let (mut value, duplicates) =
        match api::prune::parse(schema, object.to_string().as_bytes(), false) {
            Ok(parsed) => parsed,
            Err(_) => return false,
        };
    if api::prune::decode(schema, &mut value, &duplicates, validation).is_err() {
        return false;
    }
    api::defaults::apply(schema, &mut value);
    api::patch::track_update(schema, None, &mut value, writer("creator"));
    if api::meta::nests_deeper(&value, api::meta::DEEPEST) {
        return false;
    }
    show(resource, &value);
    if !api::validate::create(resource, schema, &value).is_empty() {
        return false;
    }
    if super::has_fractions(&value) {
        *object = value;
        return true;
    }
    let bytes = value.to_string();
    let mut again: Value = serde_json::from_str(&bytes).expect("what is stored can be read");
    assert_eq!(
        again, value,
        "the object is read otherwise than it was written"
    );
    api::prune::prune(schema, &mut again);
    api::defaults::apply(schema, &mut again);
    assert_eq!(
        again, value,
        "the object changes on its way through once more"
    );
    let _ = api::validate::update(resource, schema, &value, &value, None);
    let _ = api::validate::update(resource, schema, &value, &value, Some("status"));
    *object = value;
    true
}

fn object(input: &[u8]) {
    let Some(value) = read(input) else { return };
    let Some((resource, schema)) = built_in(&value) else {
        return;
    };
    if !value.is_object() {
        return;
    }
    let yaml = input.first() != Some(&b'{');
    let _ = api::prune::parse(&schema, input, yaml);
    for validation in [
        FieldValidation::Warn,
        FieldValidation::Strict,
        FieldValidation::Ignore,
    ] {
        write(&resource, &schema, &mut value.clone(), validation);
    }
}

/// An object and a patch of it, of every kind that it could be. What was patched can be patched the same way once more, and nothing changes
/// where the kind of the patch promises that.
fn patch(input: &[u8]) {
    let Some((body, patch)) = parts(input) else {
        return;
    };
    let (Some(mut live), Some(patch)) = (read(body), read(patch)) else {
        return;
    };
    let Some((resource, schema)) = built_in(&live) else {
        return;
    };
    if !write(&resource, &schema, &mut live, FieldValidation::Ignore) {
        return;
    }
    if patch.is_array() {
        if let Ok(mut new) = api::patch::json(&live, &patch) {
            patched(&schema, &live, &mut new);
        }
        return;
    }
    if !patch.is_object() {
        return;
    }
    let mut merged = api::patch::merge(&live, &patch);
    assert_eq!(
        api::patch::merge(&merged, &patch),
        merged,
        "a merge patch changes something the second time"
    );
    patched(&schema, &live, &mut merged);
    if let Ok(mut new) = api::patch::strategic(&schema, &live, &patch) {
        patched(&schema, &live, &mut new);
    }
    apply(&schema, &live, &patch);
}

/// What follows a patch, whatever came of it.
fn patched(schema: &ObjectSchema, live: &Value, new: &mut Value) {
    if !new.is_object() {
        return;
    }
    api::prune::prune(schema, new);
    api::defaults::apply(schema, new);
    api::patch::track_update(schema, Some(live), new, writer("patcher"));
}

/// Applied twice is applied once.
fn apply(schema: &ObjectSchema, live: &Value, wanted: &Value) {
    let mut wanted = wanted.clone();
    for key in ["apiVersion", "kind"] {
        wanted[key] = live[key].clone();
    }
    let mut decoded = wanted.clone();
    let known = api::prune::decode(
        schema,
        &mut decoded,
        &Default::default(),
        FieldValidation::Warn,
    );
    // What the schema does not know is refused before it is applied.
    if known.is_ok_and(|unknown| unknown.is_empty()) {
        let apply = |live: &Value| {
            let mut new = api::patch::apply(schema, Some(live), &wanted, writer("applier"), true)?;
            api::prune::prune(schema, &mut new);
            api::defaults::apply(schema, &mut new);
            Ok::<_, api::status::StatusError>(new)
        };
        if let Ok(once) = apply(live) {
            assert_eq!(
                apply(&once).expect("it is applied once more"),
                once,
                "applying changes something the second time"
            );
        }
    }
    let _ = api::patch::apply(schema, None, &wanted, writer("applier"), false);
    let _ = api::patch::apply(schema, Some(live), &wanted, writer("kubectl"), false);
}

/// A definition and a resource of it.
fn custom_resource(input: &[u8]) {
    let Some((definition, body)) = parts(input) else {
        return;
    };
    let Some(mut definition) = read(definition).filter(Value::is_object) else {
        return;
    };
    definition["apiVersion"] = "apiextensions.k8s.io/v1".into();
    definition["kind"] = "CustomResourceDefinition".into();
    let Some((resource, schema)) = built_in(&definition) else {
        return;
    };
    if !write(&resource, &schema, &mut definition, FieldValidation::Warn) {
        return;
    }
    let status = scheme::established_status(&definition, NOW);
    definition["status"] = status;
    let served = scheme::from_crd(&definition);
    let all: Vec<&Arc<ResourceInfo>> = served.iter().collect();
    if let Some(one) = served.first() {
        let _ = api::openapi::document(&served, &one.group, &one.version);
        let _ = api::discovery::resource_list(&served, &one.group, &one.version);
    }
    let _ = api::discovery::aggregated(&served, false);
    let Some(value) = read(body) else { return };
    for resource in all {
        let Some(schema) = ObjectSchema::of(resource) else {
            continue;
        };
        let mut value = value.clone();
        if value.is_object() {
            value["apiVersion"] = resource.api_version().into();
            value["kind"] = resource.kind.clone().into();
            write(resource, &schema, &mut value, FieldValidation::Warn);
            apply(&schema, &value, &value);
        }
    }
}

/// A label selector, or a field selector of pods; as a query has them, and as objects have them.
fn selectors(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let labelled =
        json!({"metadata": {"name": "a", "labels": {"app": "web", "a/b": "", "n": "10"}}});
    if let Ok(selector) = LabelSelector::parse(text) {
        selector.matches(&labelled);
        selector.matches(&json!({}));
    }
    let pods = scheme::find("", "v1", "pods").expect("pods are served");
    if let Ok(selector) = FieldSelector::parse(text, &pods) {
        selector.matches(&labelled);
        selector.matches(&json!({"spec": [], "status": 1}));
    }
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        LabelSelector::from_value(&value).matches(&labelled);
        LabelSelector::from_map(&value).matches(&labelled);
    }
}

/// An expression over a pod.
fn cel(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let mut scope = api::cel::admission::Scope::policy(true);
    scope.declare("v", api::cel::Type::Dyn);
    let _ = scope.type_of(text);
    let Ok(expression) = api::cel::parse(text) else {
        return;
    };
    let pod = json!({"metadata": {"name": "web", "labels": {"app": "web"}, "creationTimestamp": NOW},
        "spec": {"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 80}, {"containerPort": 8080}]}],
            "weight": 1.5, "many": [3, 1, 2], "text": "1h30m", "address": "10.0.0.1/8", "cpu": "100m", "nothing": null}});
    let object = api::cel::plain(&pod);
    let variables = [
        ("object", object.clone()),
        ("self", object),
        ("params", api::cel::plain(&Value::Null)),
    ];
    let _ = expression.eval(&variables);
}

fn jsonpath(input: &[u8]) {
    let Some(text) = text(input) else { return };
    if let Ok(path) = api::jsonpath::JsonPath::parse(text) {
        path.find(&json!({"spec": {"hosts": ["a", "b"], "n": 1, "items": [{"type": "Ready", "status": "True", "n": 1}, {"type": "x"}]}}));
    }
}

/// Times, durations as Go has them, schedules.
fn times(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let _ = api::time::age(Some(text), now());
    if let Some(time) = api::time::parse(text) {
        let written = api::time::rfc3339_micro(time);
        let again = api::time::parse(&written).expect("what is written can be read");
        assert_eq!(
            api::time::rfc3339_micro(again),
            written,
            "{text:?} is written as {written:?}, which is read otherwise"
        );
    }
    let _ = api::go::time::parse_duration(text);
    if let Ok(schedule) = api::cron::Schedule::parse(text)
        && let Some(next) = schedule.next(now())
    {
        assert!(next > now(), "{text:?} is due in the past");
    }
}

/// YAML as the server and istioctl read it. As JSON it says the same.
fn yaml(input: &[u8]) {
    let Some(text) = as_yaml(input) else { return };
    let Ok((value, _)) = api::go::yaml::read(text) else {
        return;
    };
    let written = value.to_string();
    let again: Value = serde_json::from_str(&written).expect("it is JSON");
    if !super::has_fractions(&value) {
        assert_eq!(again.to_string(), written);
    }
}
