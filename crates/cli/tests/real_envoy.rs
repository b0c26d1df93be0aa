//! A real Envoy as the sidecar of half the pods of a service. Needs `ENVOY=PATH`, a program of Envoy's own.

mod support;

use std::collections::BTreeSet;

use serde_json::Value;
use support::web::fits;
use support::{LONG, Theater, eventually, expect, stdout};

/// The second half of user-service: the Deployment that is there, under another name and with a real Envoy.
fn with_envoy(original: &Value) -> Value {
    let mut copy = original.clone();
    copy["metadata"] = serde_json::json!({
        "name": "user-service-envoy",
        "namespace": original["metadata"]["namespace"],
        "labels": original["metadata"]["labels"],
    });
    copy["status"].take();
    for labels in [
        "/spec/selector/matchLabels",
        "/spec/template/metadata/labels",
    ] {
        copy.pointer_mut(labels).expect("labels")["sidecar"] = "envoy".into();
    }
    let metadata = &mut copy["spec"]["template"]["metadata"];
    for (name, value) in [
        (
            "sidecar.istio.io/proxyImage",
            "docker.io/istio/proxyv2-envoy",
        ),
        ("sidecar.istio.io/statsInclusionSuffixes", "ssl.handshake"),
    ] {
        metadata["annotations"][name] = value.into();
    }
    copy
}

#[test]
fn half_the_pods_of_a_service_run_envoy() {
    let Some(envoy) = std::env::var_os("ENVOY") else {
        eprintln!("skipped: ENVOY names no program");
        return;
    };
    if !support::possible() {
        return;
    }
    // SAFETY: no memory involved.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("skipped: Envoy marks no packets, so it needs user 1337, and that needs root");
        return;
    }
    let theater = Theater::start_with(&["--envoy", &envoy.to_string_lossy()]);
    let theater = &theater;
    // Nobody answers a request that a policy would refuse: what passes below came in mutual TLS.
    for context in ["ctx1", "ctx2"] {
        theater.apply(
            context,
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: strict, namespace: theater-msa}\nspec: {mtls: {mode: STRICT}}\n",
        );
        let original = theater.object(context, "deployment", "user-service");
        theater.apply(context, &with_envoy(&original).to_string());
    }
    for context in ["ctx1", "ctx2"] {
        theater.wait_pods_ready(context, "sidecar=envoy");
    }
    let mut steps = support::Steps::default();
    steps.run("it is Envoy", || it_is_envoy(theater));
    steps.run("inbound", || both_halves_answer(theater));
    steps.run("outbound", || envoy_calls_the_mesh(theater));
    steps.run("plaintext", || plaintext_is_refused(theater));
    steps.run("synced", || istiod_says_synced(theater));
    steps.run("a patch", || a_patch_reaches_envoy(theater));
    steps.run("metrics", || metrics_are_merged(theater));
    steps.finish();
}

/// How many lines are this.
fn lines(text: &str, wanted: &str) -> usize {
    text.lines().filter(|line| line.trim() == wanted).count()
}

/// Whether one of these statistics is not zero.
fn counted(statistics: &str) -> bool {
    statistics
        .lines()
        .any(|line| !line.trim_end().ends_with(": 0"))
}

fn envoy_pod(theater: &Theater, context: &str) -> String {
    let pods = theater.pods(context, "sidecar=envoy");
    assert_eq!(pods.len(), 1, "{pods:?}");
    pods[0]["metadata"]["name"]
        .as_str()
        .expect("a name")
        .to_owned()
}

/// What a program prints in the sidecar of the pod with Envoy.
fn agent(theater: &Theater, context: &str, request: &str) -> String {
    let pod = envoy_pod(theater, context);
    let arguments = [
        "exec",
        &pod,
        "-c",
        "istio-proxy",
        "--",
        "pilot-agent",
        "request",
        "GET",
        request,
    ];
    theater.kubectl(context, &arguments)
}

fn it_is_envoy(theater: &Theater) {
    let info: Value = serde_json::from_str(&agent(theater, "ctx1", "server_info")).expect("JSON");
    let version = info["version"].as_str().unwrap_or_default();
    assert!(
        version.contains("/RELEASE/") || version.contains("BoringSSL"),
        "a real Envoy tells its build: {version}"
    );
    assert_eq!(info["state"], "LIVE");
    // Nothing that istiod sends is refused.
    let rejected = agent(theater, "ctx1", "stats?filter=update_rejected$");
    let refused: Vec<&str> = rejected
        .lines()
        .filter(|line| !line.ends_with(": 0"))
        .collect();
    assert!(refused.is_empty(), "NACKs: {refused:?}");
}

/// Every pod of both halves, in both clusters, is asked over the gateway and the sidecars.
fn both_halves_answer(theater: &Theater) {
    let mut wanted = BTreeSet::new();
    for context in ["ctx1", "ctx2"] {
        for pod in theater.pods(context, "app=user-service") {
            wanted.insert(format!(
                "{context}/{}",
                pod["metadata"]["name"].as_str().unwrap_or_default()
            ));
        }
    }
    assert_eq!(wanted.len(), 4, "{wanted:?}");
    let mut seen = BTreeSet::new();
    eventually("every pod answers", LONG, || {
        // At the same time: the connection over an east-west gateway stays with the pod it was opened to.
        for answer in theater.curl(&["-Z", "-o", "/dev/null"], "/users/", 24) {
            assert_eq!(answer.status, 200, "{answer:?}");
            seen.insert(format!("{}/{}", answer.cluster, answer.pod));
        }
        expect(seen.clone(), &wanted)
    });
    // The Envoy itself has seen mutual TLS.
    let inbound = agent(
        theater,
        "ctx1",
        "stats?filter=^listener\\..*15006.ssl.handshake$",
    );
    assert!(counted(&inbound), "no handshake at Envoy: {inbound:?}");
}

/// Answers with their heads to requests that the application beside Envoy sends.
fn ask(theater: &Theater, context: &str, options: &str, url: &str, many: usize) -> String {
    let pod = envoy_pod(theater, context);
    let script = format!(
        "i=0; while [ $i -lt {many} ]; do curl -sSi {options} {url}; echo; i=$((i+1)); done"
    );
    let arguments = [
        "exec",
        &pod,
        "-c",
        "user-service",
        "--",
        "sh",
        "-c",
        &script,
    ];
    theater.kubectl(context, &arguments)
}

/// Requests to services in both clusters.
fn envoy_calls_the_mesh(theater: &Theater) {
    for (context, url) in [
        ("ctx1", "http://movie-service:8082/movies/"),
        ("ctx2", "http://booking-service:8083/bookings/"),
    ] {
        let text = ask(theater, context, "", url, 10);
        assert_eq!(
            lines(&text, "HTTP/1.1 200 OK"),
            10,
            "{context} {url}: {text}"
        );
    }
    let upstream = agent(
        theater,
        "ctx1",
        "stats?filter=^cluster\\.outbound.*movie-service.*ssl.handshake$",
    );
    assert!(
        counted(&upstream),
        "Envoy opened no mutual TLS: {upstream:?}"
    );
}

fn plaintext_is_refused(theater: &Theater) {
    let pods = theater.pods("ctx1", "sidecar=envoy");
    let address = pods[0]["status"]["podIP"].as_str().expect("an address");
    let pod = theater.pod("ctx1", "movie-service");
    let url = format!("http://{address}:8081/health");
    // The sidecar itself calls: its own connections are not captured, so they are plaintext.
    let arguments = [
        "exec",
        &pod,
        "-c",
        "istio-proxy",
        "--",
        "curl",
        "-sS",
        "-m",
        "5",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        &url,
    ];
    let output = theater.kubectl_output("ctx1", &arguments);
    // curl's word for no answer at all.
    assert_eq!(stdout(&output).trim(), "000", "plaintext was let in");
}

fn istiod_says_synced(theater: &Theater) {
    let istioctl = |arguments: &[&str]| {
        let mut command = theater.shell(support::PROGRAM);
        command.arg("istioctl").args(arguments);
        stdout(&command.output().expect("istioctl"))
    };
    for context in ["ctx1", "ctx2"] {
        let pod = envoy_pod(theater, context);
        // Between a push and its acknowledgement it is stale for a moment.
        eventually("Envoy has what was sent", LONG, || {
            let table = istioctl(&["--context", context, "proxy-status"]);
            let row = table.lines().find(|line| line.starts_with(&pod));
            let synced = row.is_some_and(|row| {
                row.contains("4 (CDS,LDS,EDS,RDS)")
                    && !row.contains("STALE")
                    && !row.contains("ERROR")
            });
            if synced { Ok(()) } else { Err(table) }
        });
    }
    // What Envoy has is what istiod would send.
    let name = format!("{}.theater-msa", envoy_pod(theater, "ctx1"));
    eventually("Envoy has what istiod would send", LONG, || {
        let matches = istioctl(&["--context", "ctx1", "proxy-status", &name]);
        let all = ["Clusters", "Listeners", "Routes"]
            .iter()
            .all(|kind| matches.contains(&format!("{kind} Match")));
        if all { Ok(()) } else { Err(matches) }
    });
}

/// Weights of a VirtualService are those of Envoy, too.
fn a_patch_reaches_envoy(theater: &Theater) {
    let to = |subset: &str, weight| {
        let destination = serde_json::json!({"host": "movie-service", "subset": subset});
        serde_json::json!({"destination": destination, "weight": weight})
    };
    let patch = serde_json::json!({"spec": {"http": [
        {"match": [{"headers": {"x-all": {"exact": "ctx2"}}}], "route": [to("ctx2", 100)]},
        {
            "match": [{"headers": {"x-all": {"exact": "tea"}}}],
            "fault": {"abort": {"httpStatus": 418, "percentage": {"value": 100}}},
            "route": [to("ctx1", 100)],
        },
        {"route": [to("ctx1", 70), to("ctx2", 30)]},
    ]}});
    theater.patch("virtualservice", "movie-service-vs", &patch.to_string());
    let url = "http://movie-service:8082/movies/";
    eventually("the fault is there", LONG, || {
        let text = ask(theater, "ctx1", "-H 'x-all: tea'", url, 1);
        let status = text.lines().next().unwrap_or_default().to_owned();
        expect(status.starts_with("HTTP/1.1 418"), &true).map_err(|_| text)
    });
    let all = ask(theater, "ctx1", "-H 'x-all: ctx2'", url, 10);
    assert_eq!(lines(&all, "x-service-cluster: ctx2"), 10, "{all}");
    let text = ask(theater, "ctx1", "", url, 60);
    let there = lines(&text, "x-service-cluster: ctx2");
    assert_eq!(
        there + lines(&text, "x-service-cluster: ctx1"),
        60,
        "{text}"
    );
    fits("weight 30 at Envoy", there, 60, 0.3);
}

/// The agent's port gives Envoy's statistics with Istio's names.
fn metrics_are_merged(theater: &Theater) {
    let pod = envoy_pod(theater, "ctx1");
    let arguments = [
        "exec",
        &pod,
        "-c",
        "istio-proxy",
        "--",
        "curl",
        "-sS",
        "http://127.0.0.1:15020/stats/prometheus",
    ];
    let text = theater.kubectl("ctx1", &arguments);
    assert!(
        text.contains("envoy_server_live{} 1") || text.contains("envoy_server_live 1"),
        "{text}"
    );
    assert!(text.contains("istio_build{component=\"proxy\""), "{text}");
}
