//! What a person types: the real kubectl against the server.
#![allow(missing_docs)]

mod support;

use std::path::Path;
use std::process::{Command, Output};

use support::World;

fn kubectl(config: &Path, line: &str, stdin: &str) -> Output {
    use std::io::Write as _;
    let mut child = Command::new("kubectl")
        .env("KUBECONFIG", config)
        .env("HOME", config.parent().unwrap())
        .args(line.split_whitespace())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(stdin.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

/// Runs a command that must succeed and returns what it printed.
fn ok(config: &Path, line: &str, stdin: &str) -> String {
    let out = kubectl(config, line, stdin);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        out.status.success(),
        "kubectl {line}\n{text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    text
}

/// Runs a command that must fail and returns its complaint.
fn refused(config: &Path, line: &str, stdin: &str) -> String {
    let out = kubectl(config, line, stdin);
    assert!(
        !out.status.success(),
        "kubectl {line} succeeded: {}",
        String::from_utf8_lossy(&out.stdout)
    );
    String::from_utf8_lossy(&out.stderr).into_owned()
}

const DEPLOYMENT: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: nginx, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]}
";

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_feels_at_home() {
    if Command::new("kubectl")
        .arg("version")
        .arg("--client")
        .output()
        .is_err()
    {
        println!("skipped: no kubectl on the PATH (https://kubernetes.io/docs/tasks/tools/)");
        return;
    }
    let w = World::new().await;
    let k = w.kubeconfig();
    tokio::task::spawn_blocking(move || {
        assert!(ok(&k, "version", "").contains("Server Version: v1.32"));
        assert!(ok(&k, "api-resources", "").contains("deployments"));
        assert_eq!(ok(&k, "create configmap settings --from-literal=a=b", ""), "configmap/settings created\n");
        assert_eq!(ok(&k, "get configmap settings -o jsonpath={.data.a}", ""), "b");
        assert_eq!(ok(&k, "apply -f -", DEPLOYMENT), "deployment.apps/web created\nservice/web created\n");
        assert_eq!(ok(&k, "apply -f -", DEPLOYMENT), "deployment.apps/web unchanged\nservice/web unchanged\n");
        let table = ok(&k, "get service web", "");
        assert!(table.starts_with("NAME") && table.contains("203.0.113.10"), "{table}");
        assert!(ok(&k, "describe deployment web", "").contains("Replicas:               2 desired"));
        ok(&k, "label deployment web tier=front", "");
        assert!(ok(&k, "get deployments -l tier=front -o name", "").contains("deployment.apps/web"));
        ok(&k, "scale deployment web --replicas=0", "");
        assert_eq!(ok(&k, "get deployment web -o jsonpath={.spec.replicas}/{.metadata.generation}", ""), "0/2");
        ok(&k, r#"patch deployment web --type=merge -p {"spec":{"replicas":3}}"#, "");
        ok(&k, r#"patch deployment web -p {"spec":{"template":{"spec":{"containers":[{"name":"web","image":"httpd"}]}}}}"#, "");
        assert_eq!(
            ok(&k, "get deployment web -o jsonpath={.spec.replicas}{.spec.template.spec.containers[*].image}{.spec.template.spec.containers[0].ports[0].containerPort}", ""),
            "3httpd80"
        );
        assert!(refused(&k, "get pod nowhere", "").contains(r#"Error from server (NotFound): pods "nowhere" not found"#));
        assert!(refused(&k, "get nonsense", "").contains("the server doesn't have a resource type \"nonsense\""));
        assert_eq!(ok(&k, "auth can-i delete pods", "").trim(), "yes");
        assert!(refused(&k, "get pods --as=bob", "").contains("forbidden: User \"bob\" cannot list resource \"pods\""));
        assert_eq!(ok(&k, "create namespace team", ""), "namespace/team created\n");
        assert!(ok(&k, "get namespaces -o name", "").contains("namespace/team"));
        assert!(ok(&k, "explain deployment.spec.replicas", "").contains("replicas"));
        assert_eq!(ok(&k, "apply --dry-run=server -f -", DEPLOYMENT.replace("replicas: 2", "replicas: 7").as_str()).lines().next(), Some("deployment.apps/web configured (server dry run)"));
        assert_eq!(ok(&k, "delete -f -", DEPLOYMENT), "deployment.apps \"web\" deleted\nservice \"web\" deleted\n");
        assert!(ok(&k, "get --raw /readyz", "").contains("ok"));
    })
    .await
    .unwrap();
}
