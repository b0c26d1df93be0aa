use serde_json::json;

use super::*;

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u1",
            "labels": {"app": "x", "tier": "a \"b\""}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i",
            "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "64Mi"}}}]}
    }))
    .unwrap()
}

fn objects() -> Objects {
    let mut objects = Objects::new();
    let map = json!({"data": {"color": "red", "bad=name": "x"}, "binaryData": {"bin": "AAE="}});
    let secret = json!({"data": {"password": "c2VjcmV0", "raw": "/w=="}});
    objects.insert((RefKind::ConfigMap, "cfg".into()), Arc::new(map));
    objects.insert((RefKind::Secret, "sec".into()), Arc::new(secret));
    objects
}

fn resolve(container: serde_json::Value) -> Result<Vec<(String, String)>, EnvError> {
    let container: Container = serde_json::from_value(container).unwrap();
    let pod = pod();
    let mut allocatable = BTreeMap::new();
    allocatable.insert(
        "memory".to_owned(),
        k8s_openapi::apimachinery::pkg::api::resource::Quantity("2Gi".into()),
    );
    let fields = FieldContext {
        pod_ip: "10.10.0.5".into(),
        host_ip: "10.10.0.1".into(),
        allocatable,
    };
    let objects = objects();
    let services = vec![("DB_SERVICE_HOST".to_owned(), "10.97.0.7".to_owned())];
    let image = vec![
        ("PATH".to_owned(), "/bin".to_owned()),
        ("MODE".to_owned(), "image".to_owned()),
    ];
    environment(
        &container,
        &EnvContext {
            pod: &pod,
            fields: &fields,
            objects: &objects,
            services: &services,
            image: &image,
        },
    )
}

fn get<'a>(environment: &'a [(String, String)], name: &str) -> Option<&'a str> {
    environment
        .iter()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.as_str())
}

#[test]
fn every_source_of_a_variable() {
    let environment = resolve(json!({
        "name": "c",
        "envFrom": [{"configMapRef": {"name": "cfg"}}, {"prefix": "S_", "secretRef": {"name": "sec"}},
                    {"configMapRef": {"name": "none", "optional": true}}],
        "env": [
            {"name": "MODE", "value": "own"},
            {"name": "URL", "value": "redis://$(DB_SERVICE_HOST)/$(MODE)/$(color)/$$(MODE)"},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "SA", "valueFrom": {"fieldRef": {"fieldPath": "spec.serviceAccountName"}}},
            {"name": "TIER", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['tier']"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "password"}}},
            {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "cfg", "key": "color"}}},
            {"name": "MISSING", "valueFrom": {"configMapKeyRef": {"name": "cfg", "key": "x", "optional": true}}},
        ],
        "resources": {"limits": {"cpu": "1500m"}}
    }))
    .unwrap();
    for (name, expected) in [
        ("PATH", Some("/bin")),
        ("MODE", Some("own")),
        ("color", Some("red")),
        ("S_password", Some("secret")),
        // envFrom is not visible to $(…) in env: the kubelet expands from env and services only.
        ("URL", Some("redis://10.97.0.7/own/$(color)/$(MODE)")),
        ("POD_NAME", Some("p")),
        ("IP", Some("10.10.0.5")),
        ("HOST", Some("10.10.0.1")),
        ("NODE", Some("n1")),
        ("SA", Some("default")),
        ("TIER", Some("a \"b\"")),
        ("CPU", Some("2")),
        ("MEM", Some("2048")),
        ("PW", Some("secret")),
        ("COLOR", Some("red")),
        ("MISSING", None),
        ("bad=name", None),
        ("S_raw", None),
    ] {
        assert_eq!(get(&environment, name), expected, "{name}");
    }
}

#[test]
fn missing_things_are_named_as_the_kubelet_names_them() {
    for (container, expected) in [
        (
            json!({"name": "c", "envFrom": [{"secretRef": {"name": "gone"}}]}),
            "secret \"gone\" not found",
        ),
        (
            json!({"name": "c", "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "gone", "key": "k"}}}]}),
            "configmap \"gone\" not found",
        ),
        (
            json!({"name": "c", "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cfg", "key": "k"}}}]}),
            "couldn't find key k in ConfigMap ns/cfg",
        ),
        (
            json!({"name": "c", "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.foo"}}}]}),
            "unsupported fieldPath: spec.foo",
        ),
    ] {
        assert_eq!(resolve(container).unwrap_err().to_string(), expected);
    }
}

#[test]
fn downward_labels_are_one_quoted_line_each() {
    let text = field_ref(&pod(), "metadata.labels", &FieldContext::default()).unwrap();
    assert_eq!(text, "app=\"x\"\ntier=\"a \\\"b\\\"\"");
}

#[test]
fn command_and_args_replace_entrypoint_and_cmd() {
    let entry = ["/app".to_owned()];
    let cmd = ["serve".to_owned()];
    let env = [("PORT".to_owned(), "80".to_owned())];
    for (container, expected) in [
        (json!({"name": "c"}), vec!["/app", "serve"]),
        (
            json!({"name": "c", "args": ["-p", "$(PORT)"]}),
            vec!["/app", "-p", "80"],
        ),
        (json!({"name": "c", "command": ["sh"]}), vec!["sh"]),
        (
            json!({"name": "c", "command": ["sh"], "args": ["-c", "$(NO)"]}),
            vec!["sh", "-c", "$(NO)"],
        ),
    ] {
        let container: Container = serde_json::from_value(container).unwrap();
        assert_eq!(argv(&container, &entry, &cmd, &env), expected);
    }
}

#[test]
fn service_variables_in_link_format() {
    let service = |namespace: &str, name: &str| ServiceEnv {
        name: name.into(),
        namespace: namespace.into(),
        cluster_ip: "10.97.0.9".into(),
        ports: vec![("http-web".into(), 80, "TCP".into())],
    };
    let all = [
        service("default", "kubernetes"),
        service("ns", "user-service"),
        service("other", "x"),
    ];
    let variables = service_variables(&all, "ns", true);
    assert_eq!(
        get(&variables, "KUBERNETES_SERVICE_HOST"),
        Some("10.97.0.9")
    );
    assert_eq!(
        get(&variables, "USER_SERVICE_SERVICE_PORT_HTTP_WEB"),
        Some("80")
    );
    assert_eq!(
        get(&variables, "USER_SERVICE_PORT"),
        Some("tcp://10.97.0.9:80")
    );
    assert_eq!(
        get(&variables, "USER_SERVICE_PORT_80_TCP_ADDR"),
        Some("10.97.0.9")
    );
    assert_eq!(get(&variables, "X_SERVICE_HOST"), None);
    assert!(
        service_variables(&all, "ns", false)
            .iter()
            .all(|(name, _)| name.starts_with("KUBERNETES_"))
    );
}
