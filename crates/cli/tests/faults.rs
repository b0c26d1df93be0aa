//! Faults on purpose, and input that a cluster refuses.

mod support;

use support::web::{Answer, count, fits};
use support::{LONG, Steps, Theater, eventually, expect, stderr};

#[test]
fn faults_and_refusals() {
    if !support::possible() {
        return;
    }
    let theater = Theater::start();
    let theater = &theater;
    let mut steps = Steps::default();
    steps.run("aborts", || aborts_are_the_callers(theater));
    steps.run("delay", || a_delay_delays_its_part(theater));
    steps.run("block", || a_blocked_cluster_gets_nothing(theater));
    steps.run("scenarios of the script", || {
        scenarios_do_what_they_promise(theater)
    });
    steps.run("timeout", || a_timeout_is_a_504(theater));
    steps.run("ejection", || a_pod_that_fails_is_ejected(theater));
    steps.run("unknown image", || {
        an_unknown_image_names_the_known(theater)
    });
    steps.run("pending redis", || {
        the_store_belongs_to_the_other_cluster(theater)
    });
    steps.run("bad objects", || {
        bad_objects_are_refused_in_kubernetes_words(theater)
    });
    steps.run("conflict", || an_old_version_conflicts(theater));
    steps.finish();
}

/// The rules of a VirtualService of user-service: one for `x-circuit-test`, one for all others.
fn users(special: &str, fault: &str, more: &str) -> String {
    let split = r#""route":[{"destination":{"host":"user-service","subset":"ctx1"},"weight":70},{"destination":{"host":"user-service","subset":"ctx2"},"weight":30}]"#;
    let special = if special.is_empty() {
        String::new()
    } else {
        format!(
            r#"{{"match":[{{"headers":{{"x-circuit-test":{{"exact":"true"}}}}}}],"fault":{special},{split}}},"#
        )
    };
    let fault = if fault.is_empty() {
        String::new()
    } else {
        format!(r#""fault":{fault},"#)
    };
    format!(r#"{{"spec":{{"http":[{special}{{{fault}{more}{split}}}]}}}}"#)
}

fn abort(percent: u32) -> String {
    format!(r#"{{"abort":{{"percentage":{{"value":{percent}}},"httpStatus":500}}}}"#)
}

fn restore(theater: &Theater) {
    let path = Theater::manifests("k8s/istio-virtualservices.yaml");
    theater.kubectl("ctx1", &["replace", "-f", &path]);
}

fn in_sidecar(theater: &Theater, app: &str, path: &str) -> String {
    let deployment = format!("deploy/{app}");
    theater.kubectl(
        "ctx1",
        &[
            "exec",
            &deployment,
            "-c",
            "istio-proxy",
            "--",
            "pilot-agent",
            "request",
            "GET",
            path,
        ],
    )
}

fn injected(answers: &[Answer]) -> usize {
    let failed: Vec<&Answer> = answers
        .iter()
        .filter(|answer| answer.status != 200)
        .collect();
    for answer in &failed {
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (500, "fault filter abort"),
            "{answer:?}"
        );
    }
    failed.len()
}

/// B30, B31, B34, B38, B39.
fn aborts_are_the_callers(theater: &Theater) {
    theater.merge_patch(
        "ctx1",
        "virtualservice",
        "user-service-vs",
        &users(&abort(90), &abort(30), ""),
    );
    eventually("the fault is there", LONG, || {
        expect(
            injected(&theater.curl(&["-H", "x-circuit-test: true"], "/users/", 10)) > 4,
            &true,
        )
    });
    fits("30%", injected(&theater.get_many("/users/", 300)), 300, 0.3);
    let circuit = theater.curl(&["-H", "x-circuit-test: true"], "/users/", 200);
    fits("90%", injected(&circuit), 200, 0.9);
    eventually("flag FI in the access log", LONG, || {
        let log = theater.kubectl(
            "ctx1",
            &[
                "logs",
                "deploy/api-gateway",
                "-c",
                "istio-proxy",
                "--tail=60",
            ],
        );
        let line = log.lines().find(|line| line.contains(" 500 FI "));
        let Some(line) = line else { return Err(log) };
        assert!(line.contains("fault_filter_abort"), "{line}");
        Ok(())
    });
    let clusters = in_sidecar(theater, "api-gateway", "clusters");
    let endpoints: Vec<&str> = clusters
        .lines()
        .filter(|line| line.starts_with("outbound|8081|") && line.contains("::health_flags::"))
        .collect();
    assert!(!endpoints.is_empty(), "{clusters}");
    for line in endpoints {
        assert!(
            line.ends_with("::health_flags::healthy"),
            "injected faults eject nobody: {line}"
        );
    }
    restore(theater);
    eventually("no fault", LONG, || {
        expect(injected(&theater.get_many("/users/", 30)), &0)
    });
}

/// The lines of an application's access log that tell of requests with this path and contain `cluster`, once there are `count`.
fn logged(
    theater: &Theater,
    (context, app): (&str, &str),
    path: &str,
    cluster: &str,
    count: usize,
) -> Vec<String> {
    let deployment = format!("deploy/{app}");
    let request = format!("\"GET {path} HTTP/1.1\"");
    eventually(&format!("access log of {app} in {context}"), LONG, || {
        let log = theater.kubectl(context, &["logs", &deployment, "-c", "istio-proxy"]);
        let lines: Vec<String> = log
            .lines()
            .filter(|line| line.contains(&request) && line.contains(cluster))
            .map(str::to_owned)
            .collect();
        expect(lines.len(), &count).map(|()| lines)
    })
}

/// B33 as a VirtualService says it: a part of the requests, whatever their destination.
fn a_delay_delays_its_part(theater: &Theater) {
    let delay = r#"{"delay":{"percentage":{"value":50},"fixedDelay":"0.7s"}}"#;
    theater.merge_patch(
        "ctx1",
        "virtualservice",
        "user-service-vs",
        &users("", delay, ""),
    );
    eventually("requests take longer", LONG, || {
        let slow = theater
            .get_many("/users/", 5)
            .iter()
            .filter(|a| a.seconds >= 0.7)
            .count();
        expect(slow > 0, &true)
    });
    let path = "/users/?delay=half";
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..10)
            .map(|_| scope.spawn(|| theater.get_many(path, 10)))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("answers"))
            .collect()
    });
    assert_eq!(count(&answers, |answer| answer.status), [(200, 100)].into());
    // A busy machine may make others as late; which ones were delayed is in the log.
    let lines = logged(
        theater,
        ("ctx1", "api-gateway"),
        path,
        "outbound|8081|",
        100,
    );
    let delayed = lines
        .iter()
        .filter(|line| line.contains(" 200 DI "))
        .count();
    fits("delayed", delayed, 100, 0.5);
    let late = answers.iter().filter(|a| a.seconds >= 0.7).count();
    assert!(late >= delayed, "{late} late, {delayed} delayed");
    restore(theater);
    eventually("quick again", LONG, || {
        let slow = theater
            .get_many("/users/", 20)
            .iter()
            .filter(|a| a.seconds >= 0.7)
            .count();
        expect(slow, &0)
    });
}

/// B08.
fn a_blocked_cluster_gets_nothing(theater: &Theater) {
    let patch = r#"{"spec":{"http":[{"route":[{"destination":{"host":"booking-service","subset":"ctx1"},"weight":100},{"destination":{"host":"booking-service","subset":"ctx2"},"weight":0}]}]}}"#;
    theater.merge_patch("ctx1", "virtualservice", "booking-service-vs", patch);
    let only_ctx1 = |limit| {
        let answers = theater.get_many("/bookings/", limit);
        expect(
            count(&answers, |answer| (answer.status, answer.cluster.clone())),
            &[((200, "ctx1".to_owned()), limit)].into(),
        )
    };
    eventually("ctx1 alone", LONG, || only_ctx1(20));
    only_ctx1(100).expect("ctx1 alone");
    restore(theater);
}

/// Runs `k8s/fault-injection-demo.sh` without a terminal.
fn script(theater: &Theater, arguments: &[&str]) -> std::process::Output {
    theater
        .shell(&Theater::manifests("k8s/fault-injection-demo.sh"))
        .args(arguments)
        .env("THEATER_LANG", "en")
        .output()
        .expect("the script starts")
}

/// What `test` prints: for each URL how often each status came.
fn counts_of(printed: &str) -> Vec<Vec<(usize, String)>> {
    let mut sections: Vec<Vec<(usize, String)>> = Vec::new();
    for line in printed.lines() {
        if line.starts_with("== http") {
            sections.push(Vec::new());
        }
        let mut words = line.split_whitespace();
        let count = words.next().and_then(|word| word.parse().ok());
        if let (Some(count), Some(status), Some(section)) =
            (count, words.next(), sections.last_mut())
        {
            section.push((count, status.to_owned()));
        }
    }
    sections
}

/// B09, B31 to B33, B40, B41, B122: by the script and by `theater fault`, which have the same manifests.
fn scenarios_do_what_they_promise(theater: &Theater) {
    let must = |arguments: &[&str]| {
        let output = script(theater, arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            stderr(&output)
        );
        support::stdout(&output)
    };
    assert!(must(&["--help"]).contains("recover"));
    assert_eq!(script(theater, &["--nonsense"]).status.code(), Some(1));
    assert_eq!(script(theater, &["nonsense"]).status.code(), Some(1));

    // Only answers of ctx2 are late.
    must(&["delay"]);
    let late = |answer: &Answer| answer.seconds >= 3.0;
    eventually("answers of ctx2 are late", LONG, || {
        let answers = theater.get_many("/movies/", 5);
        expect(answers.iter().any(late), &true)
    });
    let path = "/movies/?late=ctx2";
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| theater.get_many(path, 4)))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("answers"))
            .collect()
    });
    for answer in &answers {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.cluster != "ctx2" || late(answer), "{answer:?}");
    }
    let of_ctx2 = answers.iter().filter(|a| a.cluster == "ctx2").count();
    fits("ctx2", of_ctx2, 80, 0.7);
    // A busy machine may make others late too; none of them was delayed.
    let inbound = "inbound|8082||";
    let at_once = logged(
        theater,
        ("ctx1", "movie-service"),
        path,
        inbound,
        80 - of_ctx2,
    );
    assert!(
        !at_once.iter().any(|line| line.contains(" 200 DI ")),
        "{at_once:#?}"
    );

    // The same program, the same manifests.
    let fault = |scenario: &str| {
        let output = theater.command(&["fault", scenario]);
        assert!(output.status.success(), "{scenario}: {}", stderr(&output));
    };
    fault("recover");
    fault("error");
    eventually("errors", LONG, || {
        expect(injected(&theater.get_many("/users/", 20)) > 3, &true)
    });
    fits("50%", injected(&theater.get_many("/users/", 200)), 200, 0.5);
    must(&["setup"]);
    must(&["circuit"]);
    let circuit = || injected(&theater.curl(&["-H", "x-circuit-test: true"], "/users/", 20));
    eventually("90%", LONG, || expect(circuit() > 14, &true));
    let stats = in_sidecar(theater, "api-gateway", "stats");
    let ejections: Vec<&str> = stats
        .lines()
        .filter(|line| {
            line.contains("user-service") && line.contains("outlier_detection.ejections")
        })
        .collect();
    assert!(
        !ejections.is_empty(),
        "ejections are not to be seen in /stats"
    );
    for line in ejections {
        assert!(
            line.ends_with(": 0"),
            "injected faults eject nobody: {line}"
        );
    }
    let status = must(&["status", "--context", "ctx1"]);
    assert!(
        status.contains("abort") && status.contains("consecutive5xxErrors"),
        "{status}"
    );
    must(&["recover"]);
    eventually("as in the beginning", LONG, || {
        expect(
            theater
                .get_many("/users/", 30)
                .iter()
                .all(|answer| answer.status == 200 && answer.seconds < 1.0),
            &true,
        )
    });
    let answers = theater.get_many("/users/", 200);
    fits(
        "ctx1",
        answers
            .iter()
            .filter(|answer| answer.cluster == "ctx1")
            .count(),
        200,
        0.7,
    );
    let rules = theater.kubectl(
        "ctx1",
        &["get", "destinationrules,envoyfilters", "-o", "yaml"],
    );
    assert!(!rules.contains("consecutive5xxErrors: "), "{rules}");

    // Twenty at once, and a circuit breaker that opens; the rule is as it was afterwards.
    let rule = || theater.object("ctx1", "destinationrule", "movie-service-dr")["spec"].clone();
    let before = rule();
    let by_command = theater.command(&["fault", "test"]);
    assert!(by_command.status.success(), "{}", stderr(&by_command));
    for printed in [support::stdout(&by_command), must(&["test"])] {
        let answers = counts_of(&printed);
        assert_eq!(answers.len(), 4, "{printed}");
        for (number, section) in answers.iter().enumerate() {
            let all: usize = section.iter().map(|(count, _)| count).sum();
            assert_eq!(all, 20, "{printed}");
            let refused = section.iter().any(|(_, status)| status == "503");
            assert_eq!(refused, number == 3, "only the breaker refuses: {printed}");
        }
        assert!(printed.contains("reset reason: overflow"), "{printed}");
        assert_eq!(rule(), before);
    }
    eventually("nothing is left out without the breaker", LONG, || {
        let stats = in_sidecar(theater, "api-gateway", "stats");
        let of_movies = stats.lines().filter(|line| line.contains("movie-service"));
        let left =
            of_movies.filter(|line| line.contains("ejections_active") && !line.ends_with(": 0"));
        expect(left.collect::<Vec<_>>(), &Vec::new())
    });

    // A cluster without pods of a service: its part of the requests has nowhere to go.
    theater.kubectl(
        "ctx2",
        &["scale", "deployment", "user-service", "--replicas=0"],
    );
    let refused = |answer: &&Answer| answer.status == 503;
    eventually("no healthy upstream", LONG, || {
        let answers = theater.get_many("/users/", 20);
        let gone = answers.iter().find(refused);
        expect(
            gone.map(|answer| answer.body.clone()),
            &Some("no healthy upstream".to_owned()),
        )
    });
    let answers = theater.get_many("/users/", 200);
    fits("503", answers.iter().filter(refused).count(), 200, 0.3);
    theater.kubectl(
        "ctx2",
        &["scale", "deployment", "user-service", "--replicas=1"],
    );
    eventually("all is well again", LONG, || {
        expect(
            count(&theater.get_many("/users/", 30), |answer| answer.status),
            &[(200, 30)].into(),
        )
    });
}

/// Tells one pod of ctx1 how to behave, by the switch of the services.
fn switch(theater: &Theater, deployment: &str, port: u16, mode: &str) {
    let deployment = format!("deploy/{deployment}");
    let body = format!(r#"{{"mode":"{mode}"}}"#);
    let url = format!("http://127.0.0.1:{port}/fault");
    let answer = theater.kubectl(
        "ctx1",
        &[
            "exec",
            &deployment,
            "-c",
            "istio-proxy",
            "--",
            "curl",
            "-s",
            "-H",
            "content-type: application/json",
            "-d",
            &body,
            &url,
        ],
    );
    assert!(answer.contains(mode), "{answer}");
}

/// A pod that answers too late, and one that answers at the second attempt only by another pod.
fn a_timeout_is_a_504(theater: &Theater) {
    let patch = r#"{"spec":{"http":[{"timeout":"0.5s","route":[{"destination":{"host":"user-service","subset":"ctx1"}}]}]}}"#;
    theater.merge_patch("ctx1", "virtualservice", "user-service-vs", patch);
    switch(theater, "user-service", 8081, "hang");
    let answer = eventually("a timeout", LONG, || {
        let answer = theater.get("/users/");
        if answer.status == 504 {
            Ok(answer)
        } else {
            Err(format!("{answer:?}"))
        }
    });
    assert_eq!(answer.body, "upstream request timeout");
    assert!(answer.seconds >= 0.5, "{answer:?}");
    eventually("flag UT in the access log", LONG, || {
        let log = theater.kubectl(
            "ctx1",
            &[
                "logs",
                "deploy/api-gateway",
                "-c",
                "istio-proxy",
                "--tail=20",
            ],
        );
        if log.contains(" 504 UT ") {
            Ok(())
        } else {
            Err(log)
        }
    });
    switch(theater, "user-service", 8081, "off");
    restore(theater);
    eventually("quick again", LONG, || {
        let answers = theater.get_many("/users/", 20);
        expect(
            answers.iter().all(|a| a.status == 200 && a.seconds < 1.0),
            &true,
        )
    });
}

const EJECTION: &str = r#"{"spec":{"trafficPolicy":{"outlierDetection":{"consecutive5xxErrors":2,"interval":"1s","baseEjectionTime":"3s","maxEjectionPercent":100}}}}"#;

/// The rule, with or without retries, for all requests to movie-service: to ctx1 alone.
fn movies(retries: &str) -> String {
    format!(
        r#"{{"spec":{{"http":[{{{retries}"route":[{{"destination":{{"host":"movie-service","subset":"ctx1"}}}}]}}]}}}}"#
    )
}

/// B42, B50: a pod that really fails answers 500, is taken out after two, and comes back; retries hide it.
fn a_pod_that_fails_is_ejected(theater: &Theater) {
    theater.merge_patch("ctx1", "destinationrule", "movie-service-dr", EJECTION);
    theater.merge_patch("ctx1", "virtualservice", "movie-service-vs", &movies(""));
    eventually("ctx1 alone serves", LONG, || {
        let answers = theater.get_many("/movies/", 20);
        expect(
            answers
                .iter()
                .all(|answer| answer.status == 200 && answer.cluster == "ctx1"),
            &true,
        )
    });
    switch(theater, "movie-service", 8082, "error");
    let first = theater.get("/movies/");
    assert_eq!(
        (first.status, first.service.as_str()),
        (500, "movie-service"),
        "{first:?}"
    );
    eventually("the failing pod is ejected", LONG, || {
        let answer = theater.get("/movies/");
        let clusters = in_sidecar(theater, "api-gateway", "clusters");
        let line = clusters
            .lines()
            .find(|line| {
                line.starts_with("outbound|8082|ctx1|") && line.contains("::health_flags::")
            })
            .unwrap_or_default();
        expect(
            (
                line.ends_with("/failed_outlier_check"),
                answer.body == "no healthy upstream",
            ),
            &(true, true),
        )
        .map_err(|seen| format!("{seen} {line} {answer:?}"))
    });
    switch(theater, "movie-service", 8082, "off");
    eventually("it comes back", LONG, || {
        let answers = theater.get_many("/movies/", 20);
        expect(count(&answers, |answer| answer.status), &[(200, 20)].into())
    });
    restore(theater);
    theater.kubectl(
        "ctx1",
        &[
            "replace",
            "-f",
            &Theater::manifests("k8s/istio-destinationrules.yaml"),
        ],
    );

    // A second pod beside the failing one: with retries no caller sees a fault, without them some do.
    let name = theater.pod("ctx1", "movie-service");
    theater.kubectl(
        "ctx1",
        &["scale", "deployment", "movie-service", "--replicas=2"],
    );
    theater.wait_pods_ready("ctx1", "app=movie-service");
    theater.merge_patch("ctx1", "virtualservice", "movie-service-vs", &movies(""));
    eventually("both pods serve", LONG, || {
        let answers = theater.get_many("/movies/", 20);
        let pods = count(&answers, |answer| answer.pod.as_str());
        expect(
            (
                pods.len(),
                answers.iter().all(|answer| answer.status == 200),
            ),
            &(2, true),
        )
    });
    let pod = name.clone();
    let body = r#"{"mode":"error"}"#;
    theater.kubectl(
        "ctx1",
        &[
            "exec",
            &pod,
            "-c",
            "istio-proxy",
            "--",
            "curl",
            "-s",
            "-H",
            "content-type: application/json",
            "-d",
            body,
            "http://127.0.0.1:8082/fault",
        ],
    );
    let failed = theater
        .get_many("/movies/", 40)
        .iter()
        .filter(|a| a.status == 500)
        .count();
    assert!(
        failed.abs_diff(20) <= 2,
        "in turns every second one fails: {failed} of 40"
    );
    let retries = r#""retries":{"attempts":3,"perTryTimeout":"2s","retryOn":"5xx"},"#;
    theater.merge_patch(
        "ctx1",
        "virtualservice",
        "movie-service-vs",
        &movies(retries),
    );
    eventually("retries find the other pod", LONG, || {
        expect(
            count(&theater.get_many("/movies/", 40), |answer| answer.status),
            &[(200, 40)].into(),
        )
    });
    theater.kubectl("ctx1", &["delete", "pod", &pod]);
    theater.kubectl(
        "ctx1",
        &["scale", "deployment", "movie-service", "--replicas=1"],
    );
    restore(theater);
}

fn an_unknown_image_names_the_known(theater: &Theater) {
    theater.kubectl(
        "ctx1",
        &[
            "create",
            "deployment",
            "stranger",
            "--image=example.com/stranger:v9",
        ],
    );
    eventually("the pod waits for its image", LONG, || {
        let pods = theater.kubectl(
            "ctx1",
            &["get", "pods", "-l", "app=stranger", "--no-headers"],
        );
        let waits = pods.contains("ErrImagePull") || pods.contains("ImagePullBackOff");
        if waits { Ok(()) } else { Err(pods) }
    });
    eventually("its events name what there is", LONG, || {
        let text = theater.kubectl("ctx1", &["describe", "pod", "-l", "app=stranger"]);
        let parts = [
            "Failed",
            "example.com/stranger:v9",
            "user-service",
            "redis",
            "busybox",
        ];
        match parts.iter().find(|part| !text.contains(**part)) {
            Some(part) => Err(format!("{part:?} is missing in\n{text}")),
            None => Ok(()),
        }
    });
    theater.kubectl("ctx1", &["delete", "deployment", "stranger"]);
}

/// B10 of the manifests: redis.yaml may be applied in both clusters.
fn the_store_belongs_to_the_other_cluster(theater: &Theater) {
    theater.kubectl(
        "ctx1",
        &["apply", "-f", &Theater::manifests("k8s/redis.yaml")],
    );
    let expected = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector";
    eventually("the scheduler says why", LONG, || {
        let text = theater.kubectl("ctx1", &["describe", "pod", "-l", "app=redis"]);
        if text.contains(expected) && text.contains("FailedScheduling") {
            Ok(())
        } else {
            Err(text)
        }
    });
    let pods = theater.kubectl("ctx1", &["get", "pods", "-l", "app=redis", "--no-headers"]);
    assert!(pods.contains("Pending"), "{pods}");
    assert_eq!(theater.get("/users/").status, 200);
    theater.kubectl("ctx1", &["delete", "deployment", "redis"]);
}

fn bad_objects_are_refused_in_kubernetes_words(theater: &Theater) {
    let long = "x".repeat(254);
    let cases: [(&str, String, &[&str]); 8] = [
        ("malformed YAML", "apiVersion: v1\nkind: [".into(), &["error"]),
        (
            "unknown field",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nunknown: 1\n".into(),
            &["strict decoding error", "unknown field \"unknown\""],
        ),
        (
            "wrong type",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {replicas: many, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: a}]}}}\n".into(),
            &["replicas"],
        ),
        (
            "name too long",
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {long}}}\n"),
            &["is invalid: metadata.name: Invalid value:", "must be no more than 253 "],
        ),
        (
            "bad name",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Big_Name}\n".into(),
            &["metadata.name: Invalid value: \"Big_Name\"", "a lowercase RFC 1123 subdomain"],
        ),
        (
            "selector does not match",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: a, image: a}]}}}\n".into(),
            &["spec.template.metadata.labels: Invalid value", "`selector` does not match template `labels`"],
        ),
        (
            "no containers",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: []}}}\n".into(),
            &["spec.template.spec.containers: Required value"],
        ),
        (
            "unknown kind",
            "apiVersion: v1\nkind: Theatre\nmetadata: {name: a}\n".into(),
            &["no matches for kind \"Theatre\" in version \"v1\""],
        ),
    ];
    for (what, yaml, parts) in cases {
        let output = theater.apply_output("ctx1", &yaml);
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{what}: {error}");
        for part in parts {
            assert!(
                error.contains(part),
                "{what}: {part:?} is missing in {error}"
            );
        }
    }
    let patch = r#"{"spec":{"selector":{"matchLabels":{"app":"user-service","x":"y"}},"template":{"metadata":{"labels":{"x":"y"}}}}}"#;
    let error = theater.kubectl_fails(
        "ctx1",
        &["patch", "deployment", "user-service", "-p", patch],
    );
    assert!(error.contains("field is immutable"), "{error}");
}

fn an_old_version_conflicts(theater: &Theater) {
    let before = theater.kubectl(
        "ctx1",
        &["get", "configmap", "theater-config", "-o", "yaml"],
    );
    theater.kubectl(
        "ctx1",
        &["annotate", "configmap", "theater-config", "note=newer"],
    );
    let output = theater.with_yaml("ctx1", &["replace", "-f"], &before);
    let error = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("(Conflict)")
            && error.contains(
                "the object has been modified; please apply your changes to the latest version"
            ),
        "{error}"
    );
    theater.kubectl(
        "ctx1",
        &["annotate", "configmap", "theater-config", "note-"],
    );
}
