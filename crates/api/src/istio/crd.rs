//! CustomResourceDefinitions of Istio's kinds, with schemas made from the structs.

use super::*;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

/// What a CRD says about a kind beside its schema.
#[derive(Debug, Clone, Copy)]
pub struct CrdInfo {
    /// The kind.
    pub kind: &'static str,
    /// The API group.
    pub group: &'static str,
    /// The plural, as in URLs.
    pub plural: &'static str,
    /// The singular.
    pub singular: &'static str,
    /// Short names for kubectl.
    pub short_names: &'static [&'static str],
    /// Served versions; the first is the stored one.
    pub versions: &'static [&'static str],
    /// Columns for kubectl: name, type, path.
    pub columns: &'static [(&'static str, &'static str, &'static str)],
    /// Whether an object must have a `spec`.
    pub spec_required: bool,
    schema: fn() -> Value,
    rules: &'static [Rule],
}

/// A CEL rule: where in the spec (`[]` items, `{}` values), what, and the message.
type Rule = (&'static str, &'static str, &'static str);

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const TELEMETRY: &str = "telemetry.istio.io";
const EXTENSIONS: &str = "extensions.istio.io";
const AGE: (&str, &str, &str) = ("Age", "date", ".metadata.creationTimestamp");

const ONE_TARGET: Rule = (
    "",
    "(has(self.selector) ? 1 : 0) + (has(self.targetRef) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1",
    "only one of targetRefs or selector can be set",
);
const NO_CROSS_NAMESPACE: Rule = (
    "targetRef.namespace",
    "self.size() == 0",
    "cross namespace referencing is not currently supported",
);
const NO_CROSS_NAMESPACES: Rule = (
    "targetRefs[].namespace",
    "self.size() == 0",
    "cross namespace referencing is not currently supported",
);
const NO_WILDCARD_KEY: Rule = (
    "selector.matchLabels",
    "self.all(key, !key.contains(\"*\"))",
    "wildcard not allowed in label key match",
);
const NO_EMPTY_KEY: Rule = (
    "selector.matchLabels",
    "self.all(key, key.size() != 0)",
    "key must not be empty",
);
const NO_WILDCARD_VALUE: Rule = (
    "selector.matchLabels{}",
    "!self.contains(\"*\")",
    "wildcard not allowed in label value match",
);
const NO_WILDCARD_LABEL: Rule = (
    "workloadSelector.labels{}",
    "!self.contains(\"*\")",
    "wildcard is not supported in selector",
);

/// All kinds of Istio, by name of the CRD.
pub const KINDS: &[CrdInfo] = &[
    CrdInfo {
        kind: "AuthorizationPolicy",
        group: SECURITY,
        plural: "authorizationpolicies",
        singular: "authorizationpolicy",
        short_names: &["ap"],
        versions: &["v1", "v1beta1"],
        columns: &[("Action", "string", ".spec.action"), AGE],
        spec_required: false,
        schema: schema_of::<AuthorizationPolicy>,
        rules: &[
            ONE_TARGET,
            (
                "rules[].from[].source",
                "(has(self.serviceAccounts) || has(self.notServiceAccounts)) ? (!has(self.principals) && \
                 !has(self.notPrincipals) && !has(self.namespaces) && !has(self.notNamespaces)) : true",
                "Cannot set serviceAccounts with namespaces or principals",
            ),
            NO_WILDCARD_KEY,
            NO_EMPTY_KEY,
            NO_WILDCARD_VALUE,
            NO_CROSS_NAMESPACE,
            NO_CROSS_NAMESPACES,
        ],
    },
    CrdInfo {
        kind: "DestinationRule",
        group: NETWORKING,
        plural: "destinationrules",
        singular: "destinationrule",
        short_names: &["dr"],
        versions: &["v1", "v1alpha3", "v1beta1"],
        columns: &[("Host", "string", ".spec.host"), AGE],
        spec_required: false,
        schema: schema_of::<DestinationRule>,
        rules: &[
            (
                "workloadSelector.matchLabels",
                "self.all(key, !key.contains(\"*\"))",
                "wildcard not allowed in label key match",
            ),
            (
                "workloadSelector.matchLabels",
                "self.all(key, key.size() != 0)",
                "key must not be empty",
            ),
            (
                "workloadSelector.matchLabels{}",
                "!self.contains(\"*\")",
                "wildcard not allowed in label value match",
            ),
        ],
    },
    CrdInfo {
        kind: "EnvoyFilter",
        group: NETWORKING,
        plural: "envoyfilters",
        singular: "envoyfilter",
        short_names: &[],
        versions: &["v1alpha3"],
        columns: &[],
        spec_required: false,
        schema: schema_of::<EnvoyFilter>,
        rules: &[
            (
                "",
                "(has(self.workloadSelector) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1",
                "only one of targetRefs or workloadSelector can be set",
            ),
            NO_CROSS_NAMESPACES,
            NO_WILDCARD_LABEL,
        ],
    },
    CrdInfo {
        kind: "Gateway",
        group: NETWORKING,
        plural: "gateways",
        singular: "gateway",
        short_names: &["gw"],
        versions: &["v1", "v1alpha3", "v1beta1"],
        columns: &[],
        spec_required: false,
        schema: schema_of::<Gateway>,
        rules: &[
            (
                "servers[].tls",
                "(has(self.tlsCertificates) ? 1 : 0) + (has(self.credentialNames) ? 1 : 0) <= 1",
                "only one of credentialNames or tlsCertificates can be set",
            ),
            (
                "servers[].tls",
                "(has(self.credentialName) ? 1 : 0) + (has(self.credentialNames) ? 1 : 0) <= 1",
                "only one of credentialName or credentialNames can be set",
            ),
        ],
    },
    CrdInfo {
        kind: "PeerAuthentication",
        group: SECURITY,
        plural: "peerauthentications",
        singular: "peerauthentication",
        short_names: &["pa"],
        versions: &["v1", "v1beta1"],
        columns: &[("Mode", "string", ".spec.mtls.mode"), AGE],
        spec_required: false,
        schema: schema_of::<PeerAuthentication>,
        rules: &[
            (
                "",
                "has(self.portLevelMtls) ? (((has(self.selector) && has(self.selector.matchLabels)) ? \
                 self.selector.matchLabels : {}).size() > 0) : true",
                "portLevelMtls requires selector",
            ),
            (
                "portLevelMtls",
                "self.all(key, 0 < int(key) && int(key) <= 65535)",
                "port must be between 1-65535",
            ),
            NO_WILDCARD_KEY,
            NO_EMPTY_KEY,
            NO_WILDCARD_VALUE,
        ],
    },
    CrdInfo {
        kind: "ProxyConfig",
        group: NETWORKING,
        plural: "proxyconfigs",
        singular: "proxyconfig",
        short_names: &[],
        versions: &["v1beta1"],
        columns: &[],
        spec_required: false,
        schema: schema_of::<ProxyConfig>,
        rules: &[NO_WILDCARD_KEY, NO_EMPTY_KEY, NO_WILDCARD_VALUE],
    },
    CrdInfo {
        kind: "RequestAuthentication",
        group: SECURITY,
        plural: "requestauthentications",
        singular: "requestauthentication",
        short_names: &["ra"],
        versions: &["v1", "v1beta1"],
        columns: &[],
        spec_required: false,
        schema: schema_of::<RequestAuthentication>,
        rules: &[
            ONE_TARGET,
            (
                "jwtRules[]",
                "(has(self.jwksUri) ? 1 : 0) + (has(self.jwks_uri) ? 1 : 0) + (has(self.jwks) ? 1 : 0) <= 1",
                "only one of jwks or jwksUri can be set",
            ),
            (
                "jwtRules[].jwksUri",
                "url(self).getScheme() in [\"http\", \"https\"]",
                "url must have scheme http:// or https://",
            ),
            NO_WILDCARD_KEY,
            NO_EMPTY_KEY,
            NO_WILDCARD_VALUE,
            NO_CROSS_NAMESPACE,
            NO_CROSS_NAMESPACES,
        ],
    },
    CrdInfo {
        kind: "ServiceEntry",
        group: NETWORKING,
        plural: "serviceentries",
        singular: "serviceentry",
        short_names: &["se"],
        versions: &["v1", "v1alpha3", "v1beta1"],
        columns: &[
            ("Hosts", "string", ".spec.hosts"),
            ("Location", "string", ".spec.location"),
            ("Resolution", "string", ".spec.resolution"),
            AGE,
        ],
        spec_required: true,
        schema: schema_of::<ServiceEntry>,
        rules: &[
            (
                "",
                "(has(self.workloadSelector) ? 1 : 0) + (has(self.endpoints) ? 1 : 0) <= 1",
                "only one of WorkloadSelector or Endpoints can be set",
            ),
            (
                "",
                "!((has(self.addresses) ? self.addresses : []).exists(k, k.contains(\"/\")) && !((has(self.resolution) ? \
                 self.resolution : \"NONE\") in [\"STATIC\", \"NONE\"]))",
                "CIDR addresses are allowed only for NONE/STATIC resolution types",
            ),
            (
                "",
                "((has(self.resolution) ? self.resolution : \"NONE\") == \"NONE\") ? !has(self.endpoints) : true",
                "NONE mode cannot set endpoints",
            ),
            (
                "",
                "((has(self.resolution) ? self.resolution : \"\") == \"DNS_ROUND_ROBIN\") ? ((has(self.endpoints) ? \
                 self.endpoints : []).size() <= 1) : true",
                "DNS_ROUND_ROBIN mode cannot have multiple endpoints",
            ),
            (
                "endpoints[]",
                "has(self.address) || has(self.network)",
                "Address is required",
            ),
            (
                "endpoints[]",
                "(has(self.address) ? self.address : \"\").startsWith(\"unix://\") ? !has(self.ports) : true",
                "UDS may not include ports",
            ),
            ("hosts[]", "self != \"*\"", "hostname cannot be wildcard"),
            (
                "ports[].number",
                "0 < self && self <= 65535",
                "port must be between 1-65535",
            ),
            (
                "ports",
                "self.all(l1, self.exists_one(l2, l1.number == l2.number))",
                "port number cannot be duplicated",
            ),
            NO_WILDCARD_LABEL,
        ],
    },
    CrdInfo {
        kind: "Sidecar",
        group: NETWORKING,
        plural: "sidecars",
        singular: "sidecar",
        short_names: &[],
        versions: &["v1", "v1alpha3", "v1beta1"],
        columns: &[],
        spec_required: false,
        schema: schema_of::<Sidecar>,
        rules: &[NO_WILDCARD_LABEL],
    },
    CrdInfo {
        kind: "Telemetry",
        group: TELEMETRY,
        plural: "telemetries",
        singular: "telemetry",
        short_names: &["telemetry"],
        versions: &["v1alpha1", "v1"],
        columns: &[AGE],
        spec_required: false,
        schema: schema_of::<Telemetry>,
        rules: &[
            ONE_TARGET,
            (
                "metrics[].overrides[].tagOverrides{}",
                "((has(self.operation) ? self.operation : \"\") == \"UPSERT\") ? (self.value != \"\") : true",
                "value must be set when operation is UPSERT",
            ),
            (
                "metrics[].overrides[].tagOverrides{}",
                "((has(self.operation) ? self.operation : \"\") == \"REMOVE\") ? !has(self.value) : true",
                "value must not be set when operation is REMOVE",
            ),
            NO_WILDCARD_KEY,
            NO_EMPTY_KEY,
            NO_WILDCARD_VALUE,
            NO_CROSS_NAMESPACE,
            NO_CROSS_NAMESPACES,
        ],
    },
    CrdInfo {
        kind: "TrafficExtension",
        group: EXTENSIONS,
        plural: "trafficextensions",
        singular: "trafficextension",
        short_names: &[],
        versions: &["v1alpha1"],
        columns: &[AGE],
        spec_required: true,
        schema: schema_of::<TrafficExtension>,
        rules: &[(
            "",
            "has(self.wasm) != has(self.lua)",
            "exactly one of wasm or lua must be set",
        )],
    },
    CrdInfo {
        kind: "VirtualService",
        group: NETWORKING,
        plural: "virtualservices",
        singular: "virtualservice",
        short_names: &["vs"],
        versions: &["v1", "v1alpha3", "v1beta1"],
        columns: &[
            ("Gateways", "string", ".spec.gateways"),
            ("Hosts", "string", ".spec.hosts"),
            AGE,
        ],
        spec_required: false,
        schema: schema_of::<VirtualService>,
        rules: &[],
    },
    CrdInfo {
        kind: "WasmPlugin",
        group: EXTENSIONS,
        plural: "wasmplugins",
        singular: "wasmplugin",
        short_names: &[],
        versions: &["v1alpha1"],
        columns: &[AGE],
        spec_required: true,
        schema: schema_of::<WasmPlugin>,
        rules: &[ONE_TARGET],
    },
    CrdInfo {
        kind: "WorkloadEntry",
        group: NETWORKING,
        plural: "workloadentries",
        singular: "workloadentry",
        short_names: &["we"],
        versions: &["v1", "v1alpha3", "v1beta1"],
        columns: &[AGE, ("Address", "string", ".spec.address")],
        spec_required: true,
        schema: schema_of::<WorkloadEntry>,
        rules: &[
            (
                "",
                "has(self.address) || has(self.network)",
                "Address is required",
            ),
            (
                "",
                "(has(self.address) ? self.address : \"\").startsWith(\"unix://\") ? !has(self.ports) : true",
                "UDS may not include ports",
            ),
            (
                "ports{}",
                "0 < self && self <= 65535",
                "port must be between 1-65535",
            ),
        ],
    },
    CrdInfo {
        kind: "WorkloadGroup",
        group: NETWORKING,
        plural: "workloadgroups",
        singular: "workloadgroup",
        short_names: &["wg"],
        versions: &["v1", "v1alpha3", "v1beta1"],
        columns: &[AGE],
        spec_required: true,
        schema: schema_of::<WorkloadGroup>,
        rules: &[],
    },
];

/// The CustomResourceDefinitions of all kinds of Istio.
pub fn crds() -> Vec<Value> {
    KINDS.iter().map(crd).collect()
}

fn crd(info: &CrdInfo) -> Value {
    let category = info.group.replace('.', "-");
    let mut spec = (info.schema)();
    for (path, rule, message) in info.rules {
        add_rule(&mut spec, path, rule, message);
    }
    let versions: Vec<Value> = info
        .versions
        .iter()
        .enumerate()
        .map(|(index, version)| version_of(info, version, index == 0, &spec))
        .collect();
    let mut names = json!({
        "categories": ["istio-io", category],
        "kind": info.kind,
        "listKind": format!("{}List", info.kind),
        "plural": info.plural,
        "singular": info.singular,
    });
    if !info.short_names.is_empty() {
        names["shortNames"] = json!(info.short_names);
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{}", info.plural, info.group),
            "annotations": {"helm.sh/resource-policy": "keep"},
            "labels": {
                "app.kubernetes.io/instance": "istio",
                "app.kubernetes.io/managed-by": "Helm",
                "app.kubernetes.io/part-of": "istio",
                "app.kubernetes.io/version": "1.0.0",
                "helm.sh/chart": "base-1.0.0",
            },
        },
        "spec": {"group": info.group, "names": names, "scope": "Namespaced", "versions": versions},
    })
}

fn version_of(info: &CrdInfo, version: &str, storage: bool, spec: &Value) -> Value {
    let mut schema = json!({
        "type": "object",
        "properties": {
            "spec": spec,
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        },
    });
    if info.spec_required {
        schema["required"] = json!(["spec"]);
    }
    let mut out = json!({
        "name": version,
        "served": true,
        "storage": storage,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    });
    if !info.columns.is_empty() {
        let columns = info
            .columns
            .iter()
            .map(|(name, kind, path)| json!({"name": name, "type": kind, "jsonPath": path}));
        out["additionalPrinterColumns"] = columns.collect();
    }
    out
}

fn schema_of<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft07()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    structural(&mut schema);
    if let Some(object) = schema.as_object_mut() {
        object.remove("title");
        object.remove("$schema");
    }
    schema
}

/// Rewrites a JSON schema into the structural form that Kubernetes demands: a type everywhere, no null, no alternatives.
fn structural(schema: &mut Value) {
    if *schema == Value::Bool(true) {
        *schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        return;
    }
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    for key in ["default", "title", "$schema", "definitions"] {
        object.remove(key);
    }
    // Option<T>: one alternative is null.
    for key in ["anyOf", "oneOf"] {
        let Some(Value::Array(alternatives)) = object.remove(key) else {
            continue;
        };
        let mut names = Vec::new();
        for mut alternative in alternatives {
            if alternative["type"] == "null" {
                continue;
            }
            if let Some(name) = alternative.get("const") {
                names.push(name.clone());
            } else if let Some(Value::Array(values)) = alternative
                .get("enum")
                .filter(|_| alternative.get("properties").is_none())
            {
                names.extend(values.iter().cloned());
            } else if alternative.get("oneOf").is_some() {
                structural(&mut alternative);
                names.extend(alternative["enum"].as_array().cloned().unwrap_or_default());
            } else if let Value::Object(inner) = alternative {
                for (key, value) in inner {
                    object.entry(key).or_insert(value);
                }
            }
        }
        if !names.is_empty() {
            object.insert("type".to_owned(), json!("string"));
            object.insert("enum".to_owned(), Value::Array(names));
        }
    }
    if let Some(Value::Array(types)) = object.get("type") {
        let single = types
            .iter()
            .find(|kind| **kind != "null")
            .cloned()
            .unwrap_or(json!("object"));
        object.insert("type".to_owned(), single);
    }
    if let Some(Value::Array(names)) = object.get_mut("enum") {
        names.retain(|name| !name.is_null());
    }
    match object.get("format").and_then(Value::as_str) {
        Some("uint32") => {
            object.remove("format");
            object.insert("maximum".to_owned(), json!(u32::MAX));
        }
        Some("uint64" | "uint") => {
            object.remove("format");
        }
        _ => {}
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(structural);
    }
    for key in ["items", "additionalProperties"] {
        match object.get_mut(key) {
            Some(Value::Bool(false)) => {
                object.remove(key);
            }
            Some(inner) => structural(inner),
            None => {}
        }
    }
    if object.get("type").is_none() {
        object.insert("type".to_owned(), json!("object"));
        object.insert(
            "x-kubernetes-preserve-unknown-fields".to_owned(),
            json!(true),
        );
    }
}

/// Adds a CEL rule at a path such as `rules[].from[].source`.
fn add_rule(schema: &mut Value, path: &str, rule: &str, message: &str) {
    if path.is_empty() {
        if let Some(object) = schema.as_object_mut() {
            let rules = object
                .entry("x-kubernetes-validations")
                .or_insert_with(|| Value::Array(Vec::new()));
            if let Some(rules) = rules.as_array_mut() {
                rules.push(json!({"message": message, "rule": rule}));
            }
        }
        return;
    }
    let (step, rest) = if let Some(rest) = path.strip_prefix("[]") {
        ("items", rest)
    } else if let Some(rest) = path.strip_prefix("{}") {
        ("additionalProperties", rest)
    } else {
        let path = path.trim_start_matches('.');
        let end = path.find(['.', '[', '{']).unwrap_or(path.len());
        let (name, rest) = path.split_at(end);
        let empty = &mut Value::Object(Map::new());
        let inner = schema
            .get_mut("properties")
            .and_then(|properties| properties.get_mut(name))
            .unwrap_or(empty);
        return add_rule(inner, rest, rule, message);
    };
    if let Some(inner) = schema.get_mut(step) {
        add_rule(inner, rest, rule, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schema: &Value, path: &str) {
        let object = schema
            .as_object()
            .unwrap_or_else(|| panic!("{path}: no object: {schema}"));
        assert!(
            object.get("type").is_some_and(Value::is_string),
            "{path}: no single type: {schema}"
        );
        for key in [
            "$ref",
            "anyOf",
            "oneOf",
            "allOf",
            "definitions",
            "default",
            "const",
        ] {
            assert!(!object.contains_key(key), "{path}: {key} in {schema}");
        }
        for (name, inner) in object
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            check(inner, &format!("{path}.{name}"));
        }
        for key in ["items", "additionalProperties"] {
            if let Some(inner) = object.get(key) {
                check(inner, &format!("{path}.{key}"));
            }
        }
    }

    #[test]
    fn schemas_are_structural() {
        for crd in crds() {
            let versions = crd["spec"]["versions"].as_array().unwrap();
            assert_eq!(
                versions
                    .iter()
                    .filter(|version| version["storage"] == true)
                    .count(),
                1
            );
            for version in versions {
                check(
                    &version["schema"]["openAPIV3Schema"],
                    crd["metadata"]["name"].as_str().unwrap(),
                );
            }
        }
    }

    #[test]
    fn fields_of_a_virtual_service() {
        let crd = crds()
            .into_iter()
            .find(|crd| crd["spec"]["names"]["kind"] == "VirtualService")
            .unwrap();
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        assert_eq!(
            spec["properties"]["http"]["items"]["properties"]["match"]["items"]["properties"]["port"]
                ["type"],
            "integer"
        );
        assert_eq!(
            spec["properties"]["http"]["items"]["properties"]["timeout"]["type"],
            "string"
        );
        assert_eq!(
            spec["properties"]["http"]["items"]["properties"]["redirect"]["properties"]["derivePort"]
                ["enum"],
            json!(["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"])
        );
        assert_eq!(crd["spec"]["names"]["shortNames"], json!(["vs"]));
    }

    #[test]
    fn rules_land_where_they_belong() {
        for info in KINDS {
            let crd = crd(info);
            let text = crd.to_string();
            for (path, rule, _) in info.rules {
                let rule = serde_json::to_string(rule).unwrap();
                assert!(
                    text.contains(&rule),
                    "{} {path}: rule is not in the schema",
                    info.kind
                );
            }
        }
    }
}
