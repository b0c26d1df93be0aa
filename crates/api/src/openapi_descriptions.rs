//! What Kubernetes says of its kinds and fields, taken out of a dependency by the build script; empty where that was not found.

use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::LazyLock;

/// What the build script found.
pub const TEXT: &str = include_str!(concat!(env!("OUT_DIR"), "/descriptions.txt"));

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// By definition, then by field (its name in lower case; the definition itself: no name).
static ALL: LazyLock<HashMap<&str, HashMap<&str, &str>>> = LazyLock::new(|| {
    let mut all: HashMap<&str, HashMap<&str, &str>> = HashMap::new();
    let mut definition = "";
    for line in TEXT.lines() {
        if let Some(name) = line.strip_prefix("= ") {
            definition = name;
        } else if let Some((field, text)) = line.split_once('\t') {
            all.entry(definition).or_default().insert(field, text);
        }
    }
    all
});

fn of(definition: &str, field: &str) -> Option<Value> {
    let text = ALL.get(definition)?.get(field)?;
    Some(text.replace("\\n", "\n").into())
}

/// Of `apiVersion` and `kind`, which every object has.
pub fn of_type(field: &str) -> Option<Value> {
    of(&format!("{META}DeleteOptions"), field)
}

/// Of the `metadata` of an object.
pub fn of_metadata() -> Option<Value> {
    of("io.k8s.api.core.v1.Pod", "metadata")
}

/// Writes descriptions into the components of a document, before all else that is said of them.
pub fn describe(schemas: &mut Map<String, Value>) {
    let put = |schema: &mut Value, text: Option<Value>| {
        if let (Some(schema), Some(text)) = (schema.as_object_mut(), text)
            && !schema.contains_key("description")
        {
            schema.shift_insert(0, "description".into(), text);
        }
    };
    for (name, schema) in schemas {
        let text = of(name, "");
        put(schema, text);
        // Not by index, which would write a null where there are none.
        let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
        for (field, schema) in properties.into_iter().flatten() {
            let lower = field.to_ascii_lowercase();
            let text = of(name, &lower).or_else(|| {
                matches!(field.as_str(), "apiVersion" | "kind").then(|| of_type(&lower))?
            });
            put(schema, text);
        }
    }
}
