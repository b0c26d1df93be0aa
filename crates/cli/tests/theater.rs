//! The course's scene: two clusters, one mesh, one theater, used as its text uses it.

mod support;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

use serde_json::{Value, json};
use support::web::{by_cluster, count, fits};
use support::{LONG, Theater, eventually, expect, stderr, stdout};

/// The patch of the course: 90/10, and x-canary to ctx2.
const CANARY: &str = r#"{"spec":{"http":[
  {"match":[{"headers":{"x-canary":{"exact":"true"}}}],"route":[{"destination":{"host":"user-service","subset":"ctx2"},"weight":100}]},
  {"route":[{"destination":{"host":"user-service","subset":"ctx1"},"weight":90},{"destination":{"host":"user-service","subset":"ctx2"},"weight":10}]}]}}"#;

#[test]
fn the_scene_of_the_course() {
    if !support::possible() {
        return;
    }
    let theater = Theater::start();
    let theater = &theater;
    let mut steps = support::Steps::default();
    steps.run("pods", || pods_have_their_sidecars(theater));
    steps.run("one port", || one_port_speaks_http_and_https(theater));
    steps.run("api", || the_api_answers_through_the_mesh(theater));
    steps.run("weights", || weights_are_kept(theater));
    steps.run("canary header", || the_canary_rule_comes_first(theater));
    steps.run("kubectl reads", || kubectl_reads(theater));
    steps.run("logs", || logs_tell_of_requests(theater));
    steps.run("page data", || the_page_reads_both_clusters(theater));
    steps.run("bookings", || a_seat_is_sold_once(theater));
    steps.run("neighbours", || services_call_each_other(theater));
    steps.run("apply -k", || {
        applying_the_manifests_again_breaks_nothing(theater)
    });
    steps.run("patch", || {
        a_patch_takes_effect_without_a_lost_request(theater)
    });
    steps.run("round robin", || replicas_take_turns(theater));
    steps.run("scale", || a_cluster_without_pods(theater));
    steps.run("api-gateway in ctx2", || {
        the_gateway_of_the_other_cluster_stays_pending(theater)
    });
    steps.run("immutable", || a_selector_is_immutable(theater));
    steps.run("changes", || changes_of_every_kind_lose_no_request(theater));
    steps.finish();
}

/// B90, and the names that commands of the course rely on.
fn pods_have_their_sidecars(theater: &Theater) {
    let expected = |context| match context {
        "ctx1" => [
            "api-gateway",
            "booking-service",
            "movie-service",
            "user-service",
        ],
        _ => ["booking-service", "movie-service", "redis", "user-service"],
    };
    for context in ["ctx1", "ctx2"] {
        let table = theater.kubectl(context, &["get", "pods", "--no-headers"]);
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows.len(), 4, "{table}");
        for (row, app) in rows.iter().zip(expected(context)) {
            assert!(row[0].starts_with(&format!("{app}-")), "{table}");
            assert_eq!(row[1..4], ["2/2", "Running", "0"], "{table}");
            let containers = theater.kubectl(
                context,
                &[
                    "get",
                    "pod",
                    row[0],
                    "-o",
                    "jsonpath={.spec.containers[*].name} {.spec.initContainers[*].name}",
                ],
            );
            // Istio's own order: the proxy is a restartable init container.
            let mut names: Vec<&str> = containers.split_whitespace().collect();
            names.sort_unstable();
            let mut wanted = vec![app, "istio-init", "istio-proxy"];
            wanted.sort_unstable();
            assert_eq!(names, wanted);
        }
        let mesh = theater.kubectl(
            context,
            &["get", "pods", "-n", "istio-system", "--no-headers"],
        );
        for name in ["istiod", "istio-ingressgateway", "istio-eastwestgateway"] {
            assert!(
                mesh.lines()
                    .any(|line| line.starts_with(name) && line.contains("1/1")),
                "{name} is not ready:\n{mesh}"
            );
        }
    }
    let label = "jsonpath={.items[0].metadata.labels.cluster-name} {.items[0].metadata.labels.cloud-provider}";
    assert_eq!(
        theater.kubectl("ctx1", &["get", "nodes", "-o", label]),
        "ctx1 naver"
    );
    assert_eq!(
        theater.kubectl("ctx2", &["get", "nodes", "-o", label]),
        "ctx2 nhn"
    );
}

/// B80, B86.
fn one_port_speaks_http_and_https(theater: &Theater) {
    for scheme in ["http", "https"] {
        let page = theater
            .curl_url(&[], &theater.url(scheme, "/"), 1)
            .remove(0);
        assert_eq!(page.status, 200, "{scheme}");
        assert!(page.body.contains("<!doctype html>") || page.body.contains("<!DOCTYPE html>"));
        let users = theater
            .curl_url(&[], &theater.url(scheme, "/users/"), 1)
            .remove(0);
        assert_eq!(users.status, 200, "{scheme}: {users:?}");
        assert_eq!(users.service, "user-service");
        assert!(users.pod.starts_with("user-service-"), "{users:?}");
        assert!(
            ["ctx1", "ctx2"].contains(&users.cluster.as_str()),
            "{users:?}"
        );
    }
    let head = theater
        .shell("curl")
        .args(["-sS", "-I", &theater.url("http", "/")])
        .output()
        .expect("curl");
    let head = stdout(&head);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("server: istio-envoy"), "{head}");
    let elsewhere = theater.curl(&["-H", "Host: nobody.example"], "/users/", 1);
    assert_eq!(elsewhere[0].status, 404, "{elsewhere:?}");
}

/// B81, B82 and the errors of the API.
fn the_api_answers_through_the_mesh(theater: &Theater) {
    for _ in 0..5 {
        assert_eq!(
            theater.get("/users/").json().as_array().map(Vec::len),
            Some(3)
        );
        assert_eq!(
            theater.get("/movies/").json().as_array().map(Vec::len),
            Some(3)
        );
        assert_eq!(theater.get("/bookings/").json(), json!([]));
    }
    let user = theater.post("/users/", r#"{"name":"장영실","email":"jang@example.com"}"#);
    assert_eq!(user.status, 201, "{user:?}");
    let id = user.json()["id"].as_str().expect("an id").to_owned();
    for seen in theater.get_many(&format!("/users/{id}"), 30) {
        assert_eq!(seen.status, 200, "{seen:?}");
        assert_eq!(seen.json()["name"], "장영실");
    }
    let movie = theater.post(
        "/movies/",
        r#"{"title":"Inception","genre":"SF","year":2010}"#,
    );
    assert_eq!(movie.status, 201, "{movie:?}");
    for (path, body, status) in [
        ("/users/", "{", 400),
        ("/users/", r#"{"email":"x@example.com"}"#, 400),
        (
            "/bookings/",
            r#"{"userId":"1","movieId":"1","seats":["Z99"]}"#,
            400,
        ),
    ] {
        let answer = theater.post(path, body);
        assert_eq!(answer.status, status, "{path} {body}: {answer:?}");
        assert!(answer.body.contains("\"message\""), "{answer:?}");
    }
    assert_eq!(theater.get("/users/nobody").status, 404);
    let verb = theater.curl(&["-X", "PUT"], "/users/", 1);
    assert_eq!(verb[0].status, 405, "{verb:?}");
}

/// B01, B02, B03.
fn weights_are_kept(theater: &Theater) {
    for (path, ctx1) in [("/users/", 0.7), ("/movies/", 0.3), ("/bookings/", 0.5)] {
        let answers = theater.get_many(path, 300);
        let statuses = count(&answers, |answer| answer.status);
        assert_eq!(statuses.get(&200), Some(&300), "{path}: {statuses:?}");
        let seen = by_cluster(&answers);
        let first = seen.get("ctx1").copied().unwrap_or_default();
        fits(&format!("{path} in ctx1"), first, 300, ctx1);
        assert_eq!(
            seen.get("ctx2").copied().unwrap_or_default(),
            300 - first,
            "{seen:?}"
        );
    }
}

/// B04, B05, B10.
fn the_canary_rule_comes_first(theater: &Theater) {
    let canary = theater.curl(&["-H", "x-canary: true"], "/users/", 50);
    assert_eq!(by_cluster(&canary), [("ctx1", 50)].into());
    let other = theater.curl(&["-H", "x-canary: yes"], "/users/", 100);
    let ctx2 = by_cluster(&other).get("ctx2").copied().unwrap_or_default();
    fits("x-canary: yes in ctx2", ctx2, 100, 0.3);
}

fn kubectl_reads(theater: &Theater) {
    let wide = theater.kubectl("ctx1", &["get", "pods", "-o", "wide"]);
    assert!(
        wide.contains("NODE") && wide.contains("ctx1-node-1") && wide.contains(" 10.10.0."),
        "{wide}"
    );
    let pod = theater.pod("ctx1", "user-service");
    let text = theater.kubectl("ctx1", &["describe", "pod", &pod]);
    for part in [
        "Node:             ctx1-node-1/10.10.0.1",
        "Status:           Running",
        "Image:          theater-msa/user-service:latest",
        "Successfully assigned theater-msa/",
        "Started container user-service",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    // B93: a watch shows the row there is, and the next.
    let mut watch = theater
        .kubectl_command(
            "ctx1",
            &["get", "deployment", "user-service", "-w", "--no-headers"],
        )
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl");
    let mut lines = BufReader::new(watch.stdout.take().expect("its output")).lines();
    let mut next = || lines.next().expect("a row").expect("a row");
    assert!(next().contains("1/1"));
    theater.kubectl(
        "ctx1",
        &["annotate", "deployment", "user-service", "note=seen"],
    );
    let row = next();
    let _ = watch.kill();
    let _ = watch.wait();
    assert!(row.starts_with("user-service"), "{row}");
    theater.kubectl("ctx1", &["annotate", "deployment", "user-service", "note-"]);
    let sorted = theater.kubectl(
        "ctx1",
        &[
            "get",
            "pods",
            "--sort-by=.metadata.creationTimestamp",
            "-o",
            "name",
        ],
    );
    assert_eq!(sorted.lines().count(), 4, "{sorted}");
    for kind in [
        "vs",
        "dr",
        "gateways.networking.istio.io -A",
        "endpointslices",
        "events",
        "rs",
        "cm",
        "sa",
    ] {
        let mut arguments = vec!["get"];
        arguments.extend(kind.split(' '));
        theater.kubectl("ctx1", &arguments);
    }
}

fn logs_tell_of_requests(theater: &Theater) {
    // The gateway gives every request from outside an id of its own; the query tells this one apart.
    let path = format!("/users/?e2e={}", std::process::id());
    let answer = theater.curl(&["-H", "x-canary: true"], &path, 1);
    assert_eq!(answer[0].status, 200);
    // Istio's default format, one line for each of the two proxies.
    for (app, cluster) in [
        ("user-service", "inbound|8081||"),
        (
            "api-gateway",
            "outbound|8081|ctx1|user-service.theater-msa.svc.cluster.local",
        ),
    ] {
        eventually(&format!("access log of {app}"), LONG, || {
            let pod = format!("deploy/{app}");
            let log = theater.kubectl("ctx1", &["logs", &pod, "-c", "istio-proxy", "--tail=10"]);
            let line = log
                .lines()
                .find(|line| line.contains(&path) && line.contains(cluster));
            let Some(line) = line else { return Err(log) };
            assert!(line.starts_with("[20"), "{line}");
            let request = format!("\"GET {path} HTTP/1.1\" 200 - via_upstream - \"-\" 0 ");
            assert!(line.contains(&request), "{line}");
            assert!(line.contains("\"user-service:8081\""), "{line}");
            Ok(())
        });
    }
    eventually("log of the application", LONG, || {
        let log = theater.kubectl("ctx1", &["logs", "deploy/user-service", "--tail=20"]);
        let line = log.lines().rev().find(|line| line.contains("/users"));
        let Some(line) = line else { return Err(log) };
        let line: Value = serde_json::from_str(line).map_err(|_| log.clone())?;
        expect(line["status"].as_u64(), &Some(200))
    });
}

/// B84, B85 as the page reads them.
fn the_page_reads_both_clusters(theater: &Theater) {
    let weights = theater.get("/traffic-weights").json();
    assert_eq!(weights["UserServiceCtx1Weight"], 70, "{weights}");
    assert_eq!(weights["MovieServiceCtx2Weight"], 70, "{weights}");
    let status = theater.get("/deployment-status").json();
    for (index, cluster) in ["ctx1", "ctx2"].into_iter().enumerate() {
        let seen = &status["clusters"][index];
        assert_eq!(seen["name"], cluster, "{status}");
        let pods = seen["pods"].as_array().expect("pods");
        assert_eq!(pods.len(), 4, "{status}");
        for pod in pods {
            assert_eq!(pod["status"], "Running", "{status}");
        }
    }
    let history = theater.get("/traffic-history?last=10").json();
    let requests = history["users"]["requests"].as_array().map(Vec::len);
    assert_eq!(requests, Some(10), "{history}");
}

/// Two people, two clusters, one seat.
fn a_seat_is_sold_once(theater: &Theater) {
    let literal = theater.post(
        "/bookings/",
        r#"{"userId":"user-id","movieId":"movie-id","seats":2}"#,
    );
    assert_eq!(literal.status, 201, "{literal:?}");
    let named = theater.post(
        "/bookings/",
        r#"{"userId":"1","movieId":"1","seats":["A1"]}"#,
    );
    assert_eq!(named.status, 201, "{named:?}");
    assert_eq!(
        named.json()["userName"],
        "홍길동",
        "names come over the mesh: {named:?}"
    );
    for seat in ["B1", "B2", "B3"] {
        let body = format!(r#"{{"userId":"1","movieId":"1","seats":["{seat}"]}}"#);
        let mut statuses: Vec<u16> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| theater.post("/bookings/", &body).status))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("a status"))
                .collect()
        });
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409, 409, 409], "seat {seat}");
    }
    let map = theater.get("/bookings/seats/1").json();
    assert_eq!(map["taken"], json!(["A1", "B1", "B2", "B3"]), "{map}");
    let clusters = by_cluster(&theater.get_many("/bookings/", 30)).len();
    assert_eq!(clusters, 2, "both clusters answer");
    for seen in theater.get_many("/bookings/", 30) {
        assert_eq!(seen.json().as_array().map(Vec::len), Some(5), "{seen:?}");
    }
}

/// B70, B72: a pod of one cluster reaches the services of both, the store of the other included.
fn services_call_each_other(theater: &Theater) {
    let redis = theater.kubectl(
        "ctx1",
        &["get", "endpoints", "redis", "-o", "jsonpath={.subsets}"],
    );
    assert_eq!(redis, "", "redis has no pod in ctx1");
    let address = "http://movie-service.theater-msa.svc.cluster.local:8082/movies/";
    let answer = theater.kubectl(
        "ctx1",
        &[
            "exec",
            "deploy/user-service",
            "-c",
            "user-service",
            "--",
            "curl",
            "-s",
            address,
        ],
    );
    assert!(answer.contains("\"title\""), "{answer}");
    let clusters = theater.kubectl(
        "ctx1",
        &[
            "exec",
            "deploy/user-service",
            "-c",
            "istio-proxy",
            "--",
            "pilot-agent",
            "request",
            "GET",
            "clusters",
        ],
    );
    let remote = clusters.lines().any(|line| {
        line.starts_with("outbound|8082|ctx2|movie-service")
            && line.contains(":15443::health_flags::healthy")
    });
    assert!(remote, "no east-west gateway among\n{clusters}");
}

fn applying_the_manifests_again_breaks_nothing(theater: &Theater) {
    let load = theater.load("/movies/");
    let before = theater.pods("ctx1", "app=user-service");
    for context in ["ctx1", "ctx2"] {
        let path = Theater::manifests(&format!("deploy/{context}"));
        theater.kubectl(context, &["apply", "-k", &path]);
        let again = theater.kubectl(context, &["apply", "-k", &path]);
        let changed: Vec<&str> = again
            .lines()
            .filter(|line| !line.ends_with(" unchanged"))
            .collect();
        assert!(
            changed.is_empty(),
            "applied twice in {context}: {changed:?}"
        );
    }
    let after = theater.pods("ctx1", "app=user-service");
    assert_eq!(
        after[0]["metadata"]["uid"], before[0]["metadata"]["uid"],
        "no pod is made anew"
    );
    let seen = load.end();
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["200"], "{seen:?}");
}

/// B06 and the second half of B04.
fn a_patch_takes_effect_without_a_lost_request(theater: &Theater) {
    let load = theater.load("/users/");
    theater.merge_patch("ctx1", "virtualservice", "user-service-vs", CANARY);
    let patched = Instant::now();
    eventually("x-canary leads to ctx2", LONG, || {
        let answer = theater
            .curl(&["-H", "x-canary: true"], "/users/", 1)
            .remove(0);
        expect(answer.cluster, &"ctx2".to_owned())
    });
    // On an idle machine it is a few milliseconds; curl's own start is in this figure.
    eprintln!("  effective after {:?}", patched.elapsed());
    let canary = theater.curl(&["-H", "x-canary: true"], "/users/", 50);
    assert_eq!(by_cluster(&canary), [("ctx2", 50)].into());
    let answers = theater.get_many("/users/", 300);
    let ctx1 = by_cluster(&answers)
        .get("ctx1")
        .copied()
        .unwrap_or_default();
    fits("ctx1 after the patch", ctx1, 300, 0.9);
    eventually("the weights are told", LONG, || {
        let weights = theater.get("/traffic-weights").json();
        let of = |name: &str| weights[name].as_u64();
        let seen = (of("UserServiceCtx1Weight"), of("UserServiceCtx2Weight"));
        expect(seen, &(Some(90), Some(10)))
    });
    let seen = load.end();
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["200"], "{seen:?}");
}

/// B07.
fn replicas_take_turns(theater: &Theater) {
    theater.kubectl(
        "ctx1",
        &["scale", "deployment", "user-service", "--replicas=3"],
    );
    theater.kubectl(
        "ctx1",
        &[
            "rollout",
            "status",
            "deployment",
            "user-service",
            "--timeout=90s",
        ],
    );
    // x-canary now leads to ctx2: another header value keeps to the weights, and ctx1 is counted.
    eventually("three pods take part", LONG, || {
        let answers = theater.get_many("/users/", 40);
        let pods = count(&answers, |answer| answer.pod.clone());
        let ctx1 = pods.keys().filter(|pod| {
            answers
                .iter()
                .any(|a| a.pod == **pod && a.cluster == "ctx1")
        });
        expect(ctx1.count(), &3)
    });
    let answers = theater.get_many("/users/", 300);
    let ctx1: Vec<_> = answers
        .into_iter()
        .filter(|answer| answer.cluster == "ctx1")
        .collect();
    let pods = count(&ctx1, |answer| answer.pod.as_str());
    let share = ctx1.len() / 3;
    for seen in pods.values() {
        assert!(seen.abs_diff(share) <= 3, "in turns: {pods:?}");
    }
    theater.kubectl(
        "ctx1",
        &["scale", "deployment", "user-service", "--replicas=1"],
    );
    eventually("one pod is left", LONG, || {
        expect(theater.pods("ctx1", "app=user-service").len(), &1)
    });
}

/// B40, B41, B73: with weights as at first.
fn a_cluster_without_pods(theater: &Theater) {
    theater.kubectl(
        "ctx1",
        &[
            "apply",
            "-f",
            &Theater::manifests("k8s/istio-virtualservices.yaml"),
        ],
    );
    theater.kubectl(
        "ctx2",
        &["scale", "deployment", "user-service", "--replicas=0"],
    );
    eventually("requests for ctx2 find nobody", LONG, || {
        let answers = theater.get_many("/users/", 20);
        let ctx2 = answers.iter().any(|answer| answer.cluster == "ctx2");
        let nobody = answers
            .iter()
            .any(|answer| answer.body == "no healthy upstream");
        if !ctx2 && nobody {
            Ok(())
        } else {
            Err(format!(
                "{:?}",
                count(&answers, |a| (a.status, a.body.clone()))
            ))
        }
    });
    let answers = theater.get_many("/users/", 200);
    let failed: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status != 200)
        .collect();
    fits("503 without pods in ctx2", failed.len(), 200, 0.3);
    for answer in failed {
        assert_eq!(
            (answer.status, answer.body.as_str(), answer.cluster.as_str()),
            (503, "no healthy upstream", "")
        );
    }
    eventually("flag UH in the access log", LONG, || {
        let log = theater.kubectl(
            "ctx1",
            &[
                "logs",
                "deploy/api-gateway",
                "-c",
                "istio-proxy",
                "--tail=200",
            ],
        );
        let told = log.contains(" 503 UH no_healthy_upstream - ");
        if told { Ok(()) } else { Err(log) }
    });
    assert_eq!(
        count(&theater.get_many("/movies/", 40), |answer| answer.status),
        [(200, 40)].into()
    );

    theater.kubectl(
        "ctx2",
        &["scale", "deployment", "user-service", "--replicas=1"],
    );
    eventually("ctx2 serves again", LONG, || {
        let answers = theater.get_many("/users/", 40);
        let all = answers.iter().all(|answer| answer.status == 200);
        let ctx2 = answers.iter().any(|answer| answer.cluster == "ctx2");
        expect((all, ctx2), &(true, true))
    });
    assert_eq!(
        count(&theater.get_many("/users/", 100), |answer| answer.status),
        [(200, 100)].into()
    );
}

/// B71.
fn the_gateway_of_the_other_cluster_stays_pending(theater: &Theater) {
    theater.kubectl(
        "ctx2",
        &["apply", "-f", &Theater::manifests("k8s/api-gateway.yaml")],
    );
    eventually("the scheduler says why", LONG, || {
        let events = theater.kubectl(
            "ctx2",
            &["get", "events", "--field-selector=reason=FailedScheduling"],
        );
        if events.contains("didn't match Pod's node affinity/selector") {
            Ok(())
        } else {
            Err(events)
        }
    });
    let pods = theater.kubectl(
        "ctx2",
        &["get", "pods", "-l", "app=api-gateway", "--no-headers"],
    );
    assert!(pods.contains("0/2") && pods.contains("Pending"), "{pods}");
    theater.kubectl("ctx2", &["delete", "deployment", "api-gateway"]);
    eventually("no pod is left", LONG, || {
        expect(theater.pods("ctx2", "app=api-gateway").len(), &0)
    });
}

/// B92.
fn a_selector_is_immutable(theater: &Theater) {
    let patch = r#"{"spec":{"selector":{"matchLabels":{"app":"other"}},"template":{"metadata":{"labels":{"app":"other"}}}}}"#;
    let error = theater.kubectl_fails(
        "ctx1",
        &["patch", "deployment", "user-service", "-p", patch],
    );
    assert!(
        error.contains("field is immutable") && error.contains("spec.selector"),
        "{error}"
    );
    let missing = theater.kubectl_output("ctx1", &["get", "pod", "nobody"]);
    assert_eq!(
        stderr(&missing).trim(),
        "Error from server (NotFound): pods \"nobody\" not found"
    );
}

/// The benchmark of changes in short. None of them means a failure: every request under way must be answered.
fn changes_of_every_kind_lose_no_request(theater: &Theater) {
    let python = std::process::Command::new("python3")
        .arg("--version")
        .output();
    if !python.is_ok_and(|output| output.status.success()) {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "no python3");
        println!("skipped: python3 is not on the PATH");
        return;
    }
    let output = std::process::Command::new("python3")
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../bench/changes.py"
        ))
        .args(["--changes", "40", "--seconds", "0", "--connections", "4"])
        .arg("--state-dir")
        .arg(theater.state())
        .arg(support::program().get_program())
        .output()
        .expect("python3");
    let text = stdout(&output);
    assert!(output.status.success(), "{text}{}", stderr(&output));
    assert!(text.contains("40 changes"), "{text}");
    print!("{text}");
}
