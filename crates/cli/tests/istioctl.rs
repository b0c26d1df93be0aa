//! `istioctl` against a running theater: ours, and the real one beside it where there is one (`ISTIOCTL=PATH`).

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use support::{LONG, Steps, Theater, eventually, stderr, stdout};

#[test]
fn istioctl_looks_at_the_mesh() {
    if !support::possible() {
        return;
    }
    let theater = Theater::start();
    let theater = &theater;
    let mut steps = Steps::default();
    steps.run("commands of the courses", || {
        commands_of_the_courses(theater)
    });
    steps.run("status", || proxies_have_what_istiod_sent(theater));
    steps.run("describe", || pods_and_services_are_described(theater));
    steps.run("installation", || the_mesh_is_built_in(theater));
    steps.run("remote secret", || {
        a_made_remote_secret_joins_the_clusters(theater)
    });
    steps.run("injection", || {
        sidecars_are_injected_by_hand_and_by_tag(theater)
    });
    steps.run("workload entry", || {
        a_machine_gets_what_it_joins_with(theater)
    });
    steps.run("completion", || shells_complete(theater));
    steps.run("warnings", || what_is_not_carried_out_is_said(theater));
    steps.run("offline", || files_give_what_the_proxy_has(theater));
    steps.run("the real one", || the_real_one_says_the_same(theater));
    steps.finish();
}

/// The name `theater env` puts on the PATH.
fn ours(theater: &Theater) -> Command {
    let program = theater.state().join("bin/istioctl");
    let mut command = theater.shell(&program.to_string_lossy());
    command.env("THEATER_LANG", "en");
    command
}

fn run(theater: &Theater, arguments: &[&str]) -> Output {
    ours(theater)
        .args(arguments)
        .output()
        .expect("istioctl starts")
}

fn says(theater: &Theater, arguments: &[&str]) -> String {
    let output = run(theater, arguments);
    assert!(
        output.status.success(),
        "istioctl {arguments:?}: {}{}",
        stdout(&output),
        stderr(&output)
    );
    stdout(&output)
}

fn commands_of_the_courses(theater: &Theater) {
    let user = "deployment/user-service.theater-msa";
    let clusters = says(theater, &["proxy-config", "cluster", user]);
    for subset in ["ctx1", "ctx2"] {
        let found = clusters.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.starts_with(&[
                "user-service.theater-msa.svc.cluster.local",
                "8081",
                subset,
                "outbound",
                "EDS",
            ])
        });
        assert!(
            found,
            "subset {subset} of user-service is missing in\n{clusters}"
        );
    }
    let endpoints = says(theater, &["proxy-config", "endpoints", user]);
    assert!(
        endpoints.contains(":15443") && endpoints.contains(":8081"),
        "{endpoints}"
    );
    let listeners = says(
        theater,
        &["proxy-config", "listeners", user, "--port", "8081"],
    );
    assert!(listeners.contains("Route: 8081"), "{listeners}");
    let routes = says(theater, &["proxy-config", "route", user]);
    assert!(routes.contains("user-service-vs.theater-msa"), "{routes}");
    let secrets = says(theater, &["pc", "secret", user]);
    assert!(
        secrets.contains("ROOTCA") && secrets.contains("Cert Chain"),
        "{secrets}"
    );
    let bootstrap = says(theater, &["pc", "bootstrap", user, "-o", "short"]);
    assert!(bootstrap.contains("Istio Version: "), "{bootstrap}");
    let log = says(theater, &["pc", "log", user]);
    assert!(log.starts_with("user-service-"), "{log}");
    let output = run(theater, &["pc", "cluster", "nobody.theater-msa"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output).trim(),
        "Error: failed to execute command on nobody.theater-msa sidecar: failure running port forward process: failure \
         running port forward process: building port forwarded: failed retrieving: pods \"nobody\" not found in the \
         \"theater-msa\" namespace"
    );
}

fn proxies_have_what_istiod_sent(theater: &Theater) {
    let table = eventually("proxies are connected", LONG, || {
        let table = says(theater, &["proxy-status"]);
        if table.contains("user-service-") {
            Ok(table)
        } else {
            Err(table)
        }
    });
    let line = table.lines().find(|line| line.starts_with("user-service-"));
    let words: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
    assert_eq!(words[1], "ctx1", "{table}");
    assert!(words[2].starts_with("istiod-"), "{table}");
    assert!(
        line.unwrap_or_default().contains("(CDS,LDS,EDS,RDS"),
        "{table}"
    );
    let verbose = says(theater, &["ps", "-v", "1", "-n", "theater-msa"]);
    assert!(verbose.contains("SYNCED ("), "{verbose}");
    assert!(
        !verbose.contains("istio-ingressgateway"),
        "only of the namespace: {verbose}"
    );
    let compared = says(theater, &["ps", "deployment/user-service.theater-msa"]);
    for kind in ["Clusters Match", "Listeners Match", "Routes Match"] {
        assert!(compared.contains(kind), "{compared}");
    }
    let version = says(theater, &["version"]);
    assert!(
        version.contains("control plane version: 1.31.0\n"),
        "{version}"
    );
    assert!(
        version.contains("data plane version: 1.31.0 ("),
        "{version}"
    );
}

fn pods_and_services_are_described(theater: &Theater) {
    let pod = theater.pod("ctx1", "user-service");
    let text = says(
        theater,
        &["x", "describe", "pod", &format!("{pod}.theater-msa")],
    );
    for part in [
        "Service: user-service",
        "DestinationRule: user-service-dr",
        "Matching subsets: ctx1",
        "VirtualService: user-service-vs",
        "subset \"ctx1\" with weight 70%",
        "Effective PeerAuthentication:",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    let text = says(
        theater,
        &["x", "describe", "svc", "api-gateway.theater-msa"],
    );
    assert!(
        text.contains("Exposed on Ingress Gateway http://"),
        "{text}"
    );
}

fn the_mesh_is_built_in(theater: &Theater) {
    let text = says(
        theater,
        &["install", "--set", "values.defaultRevision=default", "-y"],
    );
    assert!(
        text.contains("built into theater") && text.contains("Deployment: istiod.istio-system 1/1"),
        "{text}"
    );
    let text = says(theater, &["uninstall", "--purge", "-y"]);
    assert!(text.contains("not removed"), "{text}");
    assert!(says(theater, &["verify-install"]).contains("verified"), "");
    let output = run(theater, &["dashboard", "kiali"]);
    assert!(
        stderr(&output).contains("no pods found with selector app=kiali"),
        "{}",
        stderr(&output)
    );
}

/// Without the Secret ctx1 forgets ctx2; with the one that istioctl makes, its endpoints are back and answer.
fn a_made_remote_secret_joins_the_clusters(theater: &Theater) {
    let secret = "secret/istio-remote-secret-ctx2";
    let seen = || -> (bool, String) {
        let user = "deployment/user-service.theater-msa";
        let subset = "outbound|8081|ctx2|user-service.theater-msa.svc.cluster.local";
        let endpoints = says(theater, &["pc", "endpoints", user, "--cluster", subset]);
        let clusters = says(theater, &["remote-clusters"]);
        let there = clusters.contains("istio-system/istio-remote-secret-ctx2");
        assert!(there || !clusters.contains("ctx2"), "{clusters}");
        (there, endpoints)
    };
    assert!(seen().0, "ctx1 knows ctx2");
    theater.kubectl("ctx1", &["delete", "-n", "istio-system", secret]);
    eventually("ctx1 forgets ctx2", LONG, || match seen() {
        (false, endpoints) if !endpoints.contains(":15443") => Ok(()),
        (there, endpoints) => Err(format!("{there} {endpoints}")),
    });
    let made = run(
        theater,
        &["create-remote-secret", "--context=ctx2", "--name=ctx2"],
    );
    assert!(made.status.success(), "{}", stderr(&made));
    let warning = stderr(&made);
    assert!(
        warning.starts_with("warn: server in Kubeconfig is https://127.0.0.1:")
            && warning.contains("names https://203.0.113.65:6443"),
        "{warning}"
    );
    let yaml = stdout(&made);
    assert!(
        yaml.starts_with(
            "# This file is autogenerated, do not edit.\napiVersion: v1\nkind: Secret\n"
        ) && yaml.ends_with("---\n"),
        "{yaml}"
    );
    let applied = theater.with_yaml("ctx1", &["apply", "-n", "istio-system", "-f"], &yaml);
    assert!(applied.status.success(), "{}", stderr(&applied));
    eventually("ctx2 is back", LONG, || match seen() {
        (true, endpoints) if endpoints.contains(":15443") => Ok(()),
        (there, endpoints) => Err(format!("{there} {endpoints}")),
    });
    // Made twice, it is the same: the token's Secret is found again.
    let again = run(
        theater,
        &["create-remote-secret", "--context=ctx2", "--name=ctx2"],
    );
    assert_eq!(stdout(&again), yaml);
    let refused = run(
        theater,
        &[
            "create-remote-secret",
            "--context=ctx2",
            "--service-account=nobody",
            "--create-service-account=false",
        ],
    );
    assert_eq!(refused.status.code(), Some(1));
    let text = stderr(&refused);
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines.len() == 2
            && lines[0].starts_with("error: could not get access token")
            && lines[1].strip_prefix("Error:") == lines[0].strip_prefix("error:"),
        "{text}"
    );
}

const BY_HAND: &str = "apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {selector: {app: echo}, ports: [{name: http, port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo}
spec:
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      containers:
      - {name: echo, image: hashicorp/http-echo, args: [-text=hi], ports: [{containerPort: 5678}]}
";

/// In a namespace without injection: by `kube-inject` into the file, then by a tag that the namespace is labelled with.
fn sidecars_are_injected_by_hand_and_by_tag(theater: &Theater) {
    let file = tempfile::NamedTempFile::with_suffix(".yaml").expect("a file");
    std::fs::write(file.path(), BY_HAND).expect("written");
    let injected = says(
        theater,
        &["kube-inject", "-f", &file.path().to_string_lossy()],
    );
    assert!(
        injected.starts_with("apiVersion: v1\nkind: Service\nmetadata: {name: echo}\n"),
        "what has no pods is copied: {injected}"
    );
    let applied = theater.with_yaml("ctx1", &["apply", "-n", "default", "-f"], &injected);
    assert!(applied.status.success(), "{}", stderr(&applied));
    let pods = |more: &str| {
        let columns = "jsonpath={range .items[*]}{.spec.containers[*].name} {.status.conditions[?(@.type==\"Ready\")].status};{end}";
        theater.kubectl(
            "ctx1",
            &["get", "pods", "-n", "default", "-l", more, "-o", columns],
        )
    };
    eventually("the injected pod is ready", LONG, || {
        support::expect(pods("app=echo"), &"echo istio-proxy True;".to_owned())
    });

    let before = says(theater, &["x", "injector", "list"]);
    assert!(
        before.contains("<non-Istio>") || before.contains("default:"),
        "{before}"
    );
    let created = says(theater, &["tag", "set", "prod", "--revision", "default"]);
    assert!(
        created.starts_with("Revision tag \"prod\" created"),
        "{created}"
    );
    let again = run(theater, &["tag", "set", "prod", "--revision", "default"]);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(
        stderr(&again).trim(),
        "Error: revision tag \"prod\" already exists, and --overwrite is false"
    );
    theater.kubectl(
        "ctx1",
        &["label", "namespace", "default", "istio.io/rev=prod"],
    );
    assert_eq!(
        says(theater, &["tag", "list"]),
        "TAG  REVISION NAMESPACES\nprod default  default\n"
    );
    let checked = says(
        theater,
        &["x", "check-inject", "-n", "default", "-l", "app=bare"],
    );
    assert!(
        checked.contains("Namespace label istio.io/rev=prod matches"),
        "{checked}"
    );
    let bare = "apiVersion: v1\nkind: Pod\nmetadata: {name: bare, namespace: default, labels: {app: bare}}\n\
                spec: {containers: [{name: bare, image: busybox, command: [sleep, '600']}]}\n";
    let applied = theater.with_yaml("ctx1", &["apply", "-n", "default", "-f"], bare);
    assert!(applied.status.success(), "{}", stderr(&applied));
    assert!(
        pods("app=bare").starts_with("bare istio-proxy "),
        "{}",
        pods("app=bare")
    );
    let kept = run(theater, &["tag", "remove", "prod"]);
    assert!(
        stdout(&kept).ends_with("[y/N] Aborting operation.\n"),
        "{}",
        stdout(&kept)
    );
    assert_eq!(
        says(theater, &["tag", "remove", "prod", "-y"]),
        "Revision tag prod removed\n"
    );
    theater.kubectl("ctx1", &["label", "namespace", "default", "istio.io/rev-"]);
    theater.kubectl(
        "ctx1",
        &[
            "delete",
            "-n",
            "default",
            "deployment/echo",
            "service/echo",
            "pod/bare",
            "--now",
        ],
    );
    let precheck = run(theater, &["x", "precheck"]);
    assert!(
        precheck.status.success() && stderr(&precheck).contains("No issues found"),
        "{}",
        stderr(&precheck)
    );
    let absent = run(theater, &["bug-report"]);
    assert_eq!(absent.status.code(), Some(64));
    assert!(
        stderr(&absent).contains("is not part of this istioctl"),
        "{}",
        stderr(&absent)
    );
}

/// The script of bash offers commands, and pods of the cluster.
/// Each shell with our script, as if the tabulator had been pressed behind a line.
fn shells_complete(theater: &Theater) {
    let pod = theater.pod("ctx1", "user-service");
    for shell in ["bash", "zsh", "fish"] {
        let script = says(theater, &["completion", shell]);
        let offered = |line: &str| offered(theater, shell, &script, line);
        if offered("istioctl").is_none() {
            eprintln!("  skipped: completion with {shell}, which is not installed");
            assert!(
                !std::env::var("CI").is_ok_and(|ci| ci == "true"),
                "no {shell}"
            );
            continue;
        }
        for (line, want) in [
            ("istioctl pc clu", "cluster"),
            ("istioctl create-r", "create-remote-secret"),
            ("istioctl -n theater-msa pc cluster user-", pod.as_str()),
        ] {
            assert_eq!(offered(line).as_deref(), Some(want), "{shell}: {line}");
        }
    }
}

/// What a shell offers for a line, without explanations; `None` where there is no such shell.
fn offered(theater: &Theater, shell: &str, script: &str, line: &str) -> Option<String> {
    let typed = match shell {
        "bash" => format!(
            "{script}\nCOMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); compopt() {{ :; }}; _istioctl; echo \"${{COMPREPLY[*]}}\""
        ),
        // What the completion system of zsh brings; `_describe` is given names with explanations behind colons.
        "zsh" => format!(
            "compdef() {{ :; }}; _files() {{ :; }}; _describe() {{ print -rl -- \"${{(@P)2%%:*}}\"; }}\n\
             {script}\nwords=({line}); CURRENT=${{#words}}; _istioctl"
        ),
        _ => format!("{script}\ncomplete -C '{line}' | string split -f 1 \\t; true"),
    };
    let path = theater.state().join("bin");
    let all = format!(
        "{}:{}",
        path.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    // Without the user's own settings.
    let bare = match shell {
        "bash" => "--norc",
        "zsh" => "-f",
        _ => "--no-config",
    };
    let mut command = theater.shell(shell);
    command
        .env("PATH", all)
        .env("HOME", theater.state())
        .args([bare, "-c", &typed]);
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("{shell}: {error}"),
    };
    assert!(output.status.success(), "{shell}: {}", stderr(&output));
    Some(stdout(&output).trim().to_owned())
}

/// kubectl shows what an object asks for and Theater does not do.
fn what_is_not_carried_out_is_said(theater: &Theater) {
    let objects = theater.state().join("not-carried-out.yaml");
    let text = "
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: not-carried-out, namespace: theater-msa}
spec:
  workloadSelector: {labels: {app: nobody}}
  configPatches:
  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_INBOUND}
    patch:
      operation: INSERT_FIRST
      value:
        name: out
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor
          grpc_service: {envoy_grpc: {cluster_name: a}}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: not-carried-out, namespace: theater-msa}
spec:
  selector: {matchLabels: {app: nobody}}
  accessLogging: [{providers: [{name: nobody}]}]
";
    std::fs::write(&objects, text).expect("the state directory is ours");
    let file = objects.to_string_lossy();
    for action in ["apply", "delete"] {
        let output = theater
            .shell("kubectl")
            .args([action, "--context=ctx1", "-f", &file])
            .output()
            .expect("kubectl");
        let told = stderr(&output);
        assert!(output.status.success(), "{told}");
        if action == "apply" {
            for warning in [
                "Warning: theater: spec.configPatches[0].patch.value: the proxies do not have the filter \
                 envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
                "Warning: theater: spec.accessLogging[0].providers[0].name: the mesh has no provider \"nobody\"",
            ] {
                assert!(told.contains(warning), "{warning}\nis missing in\n{told}");
            }
        }
    }
}

/// `theater xds` of the manifests has the routes the running proxy has.
fn files_give_what_the_proxy_has(theater: &Theater) {
    let output = support::program()
        .args([
            "xds",
            "-f",
            &Theater::manifests("k8s"),
            "--proxy",
            "user-service.theater-msa",
            "--table",
            "clusters",
        ])
        .output()
        .expect("theater xds");
    assert!(output.status.success(), "{}", stderr(&output));
    let live = says(
        theater,
        &[
            "pc",
            "cluster",
            "deployment/user-service.theater-msa",
            "--fqdn",
            "theater-msa",
        ],
    );
    let rows = |text: &str| -> Vec<String> {
        let rows = text
            .lines()
            .filter(|line| line.contains("theater-msa.svc.cluster.local"));
        rows.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    };
    assert_eq!(rows(&stdout(&output)), rows(&live));
}

/// A real istioctl: the variable, or one on the PATH.
/// The files for a machine outside; where there is a real istioctl, they are those that it writes.
fn a_machine_gets_what_it_joins_with(theater: &Theater) {
    let directory = tempfile::tempdir().expect("a directory");
    let group = directory.path().join("group.yaml");
    std::fs::write(
        &group,
        "apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata: {name: vm, namespace: theater-msa}\n\
         spec: {metadata: {labels: {app: vm}}, template: {ports: {http: 8080}, network: network1}, probe: {httpGet: {port: 8080}}}\n",
    )
    .expect("the file is written");
    let write = |mut command: Command, name: &str, more: &[&str]| -> PathBuf {
        let out = directory.path().join(name);
        let output = command
            .args(["x", "workload", "entry", "configure", "-f"])
            .arg(&group)
            .arg("-o")
            .arg(&out)
            .args(more)
            .output()
            .expect("istioctl starts");
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        out
    };
    let read = |out: &PathBuf, file: &str| {
        std::fs::read_to_string(out.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
    };
    let written = write(ours(theater), "ours", &[]);
    let hosts = read(&written, "hosts");
    assert!(hosts.ends_with(" istiod.istio-system.svc\n"), "{hosts}");
    let environment = read(&written, "cluster.env");
    assert!(
        environment.contains("ISTIO_META_CLUSTER_ID='ctx1'\n"),
        "{environment}"
    );
    assert!(read(&written, "root-cert.pem").starts_with("-----BEGIN CERTIFICATE-----"));
    let token = std::fs::metadata(written.join("istio-token")).expect("a token");
    assert_eq!(token.permissions().mode() & 0o777, 0o600);
    let Some(real) = real() else { return };
    let command = theater.shell(&real.to_string_lossy());
    let expected = write(command, "real", &["--clusterID", "ctx1"]);
    for file in ["mesh.yaml", "cluster.env", "root-cert.pem", "hosts"] {
        assert_eq!(read(&written, file), read(&expected, file), "{file}");
    }
}

fn real() -> Option<PathBuf> {
    let named = std::env::var_os("ISTIOCTL").map(PathBuf::from);
    let on_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
        .map(|directory| directory.join("istioctl"));
    named.into_iter().chain(on_path).find(|path| path.is_file())
}

fn the_real_one_says_the_same(theater: &Theater) {
    let Some(real) = real() else {
        eprintln!("skipped: no real istioctl to compare with; name one with ISTIOCTL=PATH");
        return;
    };
    let user = "deployment/user-service.theater-msa";
    let pod = format!("{}.theater-msa", theater.pod("ctx1", "user-service"));
    let gateway = "deployment/istio-ingressgateway.istio-system";
    let manifests = Theater::manifests("k8s/redis.yaml");
    let cases: Vec<Vec<&str>> = vec![
        vec!["pc", "cluster", user],
        vec![
            "pc",
            "cluster",
            user,
            "--fqdn",
            "user-service",
            "-o",
            "json",
        ],
        vec![
            "pc",
            "cluster",
            user,
            "--fqdn",
            "user-service",
            "-o",
            "yaml",
        ],
        vec!["pc", "listener", user],
        vec!["pc", "listener", user, "--port", "15006", "-o", "json"],
        vec!["pc", "route", user],
        vec!["pc", "route", user, "--name", "8081", "-o", "yaml"],
        vec!["pc", "endpoint", user],
        vec!["pc", "eds", user],
        vec!["pc", "secret", user],
        vec!["pc", "bootstrap", user],
        vec!["pc", "bootstrap", user, "-o", "yaml"],
        vec!["pc", "ecds", user],
        vec!["pc", "all", user],
        vec!["pc", "log", user],
        vec!["pc", "listener", gateway],
        vec!["pc", "route", gateway],
        vec!["pc", "cluster", "nobody.theater-msa"],
        vec!["pc", "cluster", "deploy/nothing.theater-msa"],
        vec!["pc", "eds", user, "-o", "json"],
        vec!["pc", "secret", user, "-o", "json"],
        vec!["ps"],
        vec!["ps", user],
        vec!["x", "describe", "pod", &pod],
        vec!["x", "describe", "svc", "user-service.theater-msa"],
        vec!["x", "describe", "svc", "api-gateway.theater-msa"],
        vec![
            "create-remote-secret",
            "--context=ctx2",
            "--name=ctx2",
            "--server=https://203.0.113.65:6443",
        ],
        vec![
            "create-remote-secret",
            "--context=ctx2",
            "--server=a:1",
            "--type=config",
            "--tls-server-name=b",
        ],
        vec![
            "create-remote-secret",
            "--context=ctx2",
            "--auth-type=wrong",
        ],
        vec![
            "create-remote-secret",
            "--context=ctx2",
            "--secret-name=cacerts",
        ],
        vec!["create-remote-secret", "--name=UP_X"],
        vec!["create-remote-secret", "--context=nope"],
        vec!["create-remote-secret", "--name"],
        vec!["kube-inject", "-f", &manifests],
        vec!["kube-inject", "-f", &manifests, "-r", "nope"],
        vec!["kube-inject"],
        vec!["tag", "list"],
        vec!["tag", "list", "-o", "json"],
        vec!["tag", "set", "prod"],
        vec!["tag", "set", "prod", "-r", "nope"],
        vec!["tag", "remove", "nope"],
        vec!["x", "injector", "list"],
        vec!["x", "check-inject", user],
        vec!["x", "check-inject", "-n", "default", "-l", "app=a"],
        vec!["x", "authz", "check", user],
        vec!["x", "authz", "check"],
        vec!["x", "envoy-stats", user, "-t", "wrong"],
        vec!["x", "precheck"],
        vec!["x", "precheck", "--from-version", "2"],
        vec!["x", "config", "list"],
        vec!["x", "config", "list", "a"],
        vec!["x", "metrics", "user-service"],
        vec!["x", "metrics", "user-service", "-d", "x"],
        vec!["x", "internal-debug"],
        vec!["x", "internal-debug", "syncz"],
        vec!["x", "internal-debug", "syncz", "--all"],
        vec!["x", "internal-debug", "config_dump"],
        vec!["x", "internal-debug", "nothing"],
        vec!["x", "workload", "group", "create", "--name", "a"],
        vec!["x", "workload", "entry", "configure", "--name", "a"],
        vec!["x", "workload", "entry", "configure", "-f", &manifests],
        vec![
            "x",
            "workload",
            "entry",
            "configure",
            "--name",
            "a",
            "-n",
            "b",
            "-o",
            "c",
        ],
        vec![
            "x", "workload", "group", "create", "--name", "a", "-n", "b", "-l", "c=d,e=f", "-p",
            "http=80", "-a", "g=h", "-w", "3",
        ],
        vec![
            "x",
            "describe",
            "svc",
            "user-service.theater-msa",
            "--as",
            "nobody",
        ],
        vec![
            "pc",
            "cluster",
            user,
            "--as",
            "nobody",
            "--as-group",
            "system:masters",
        ],
        vec!["tag", "list", "--as", "nobody"],
        vec!["pc", "cluster", user, "--kubeclient-timeout", "foo"],
    ];
    let mut different = Vec::new();
    for case in &cases {
        let theirs = theater
            .shell(&real.to_string_lossy())
            .args(case)
            .output()
            .expect("the real istioctl starts");
        let own = run(theater, case);
        let seen = |output: &Output| {
            let both = format!("{}{}", stdout(output), stderr(output));
            // Which of two spaces follows "proto:" depends on the build of the real one.
            (output.status.code(), both.replace('\u{a0}', " "))
        };
        let (theirs, own) = (seen(&theirs), seen(&own));
        if theirs != own {
            different.push(format!(
                "istioctl {}:\n{}",
                case.join(" "),
                difference(&theirs.1, &own.1)
            ));
        }
    }
    eprintln!(
        "  {} of {} answers equal",
        cases.len() - different.len(),
        cases.len()
    );
    assert!(different.is_empty(), "{}", different.join("\n"));
    // The client's own version differs; what it reads does not.
    let version = theater
        .shell(&real.to_string_lossy())
        .arg("version")
        .output()
        .expect("starts");
    let version = stdout(&version);
    assert!(
        version.contains("control plane version: 1.31.0\n"),
        "{version}"
    );
    assert!(
        version.contains("data plane version: 1.31.0 ("),
        "{version}"
    );
}

/// The first lines that differ.
fn difference(theirs: &str, own: &str) -> String {
    let (theirs, own): (Vec<&str>, Vec<&str>) = (theirs.lines().collect(), own.lines().collect());
    let mut out = String::new();
    for at in 0..theirs.len().max(own.len()) {
        let (a, b) = (theirs.get(at), own.get(at));
        if a != b {
            out.push_str(&format!(
                "  line {}: real {a:?}\n           ours {b:?}\n",
                at + 1
            ));
            if out.matches('\n').count() > 8 {
                break;
            }
        }
    }
    out
}
