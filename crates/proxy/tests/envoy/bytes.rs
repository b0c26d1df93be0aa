//! Random bytes of HTTP/1: requests and answers that are nearly right. What Envoy makes of them is compared with what we do:
//! the same, or something stricter. The same seed makes the same bytes.

use serde_json::json;

use crate::case::{AnswerFull, AnswerSpec, Case, RequestSpec, Scene, Step};
use crate::generate::Random;
use crate::outcome::Outcome;

/// What is usual, and now and then one of the others.
fn usually<'a>(random: &mut Random, usual: &'a str, others: &[&'a str], percent: usize) -> &'a str {
    if random.chance(percent) {
        random.one(others)
    } else {
        usual
    }
}

fn line_end(random: &mut Random) -> &'static str {
    usually(
        random,
        "\r\n",
        &["\n", "\r", "\r\r\n", " \r\n", "\0\r\n"],
        2,
    )
}

const FIELDS: [&str; 44] = [
    "X: y",
    "X:y",
    "X : y",
    "X y",
    ": y",
    "X:",
    "X:   ",
    "X: \u{1}",
    "X: \u{e9}",
    "x_y: 1",
    "X: a\r\n b",
    "X: a\r\n\tb",
    "X: a\rb",
    " X: y",
    "X: y\0",
    "X@: y",
    "X\u{e9}: y",
    "X: \u{7f}",
    "X: a\tb",
    "X: a  ",
    "Expect: 100-continue",
    "Expect: other",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: x, close",
    "Connection: x-hop\r\nX-Hop: 1",
    "Connection: upgrade\r\nUpgrade: websocket",
    "Upgrade: h2c",
    "Keep-Alive: 5",
    "TE: trailers",
    "TE: gzip",
    "Trailer: t",
    "Proxy-Connection: close",
    "Cookie: a=b\r\nCookie: c=d",
    "X-Forwarded-For: 1.2.3.4",
    "X-Forwarded-Proto: ftp",
    "Content-Type: text/plain",
    "Accept: a, b",
    "X-Envoy-Internal: true",
    "Via: 1.1 x",
    "X-Request-Id: 1",
    "Date: x",
    "Server: x",
    "{long}",
];

/// A body with the headers that announce it, or not quite.
fn body(random: &mut Random, out: &mut String, head: &mut Vec<String>) {
    match random.below(8) {
        0..=2 => {}
        3 | 4 => {
            head.push("Content-Length: 5".into());
            out.push_str("hello");
        }
        5 => {
            let length = random.one(&[
                "5",
                "05",
                "+5",
                "5 ",
                "0x5",
                "5, 5",
                "5,6",
                "-5",
                "",
                "5\r\nContent-Length: 5",
                "5\r\nContent-Length: 6",
                "4",
                "6",
                "5\r\nTransfer-Encoding: chunked",
                "99999999999999999999",
                "5;",
                "\u{ff15}",
            ]);
            head.push(format!("Content-Length: {length}"));
            out.push_str("hello");
        }
        _ => {
            let coding = usually(
                random,
                "chunked",
                &[
                    "Chunked",
                    "chunked, chunked",
                    "gzip, chunked",
                    "chunked, gzip",
                    "identity",
                    "gzip",
                    " chunked",
                    "\tchunked",
                    "chunked ",
                    "xchunked",
                    "chunked;a=b",
                    "",
                    "chunked\r\nTransfer-Encoding: chunked",
                    ",chunked",
                ],
                15,
            );
            let name = usually(
                random,
                "Transfer-Encoding",
                &[
                    "transfer-encoding",
                    "Transfer_Encoding",
                    "Transfer-Encoding ",
                ],
                6,
            );
            head.push(format!("{name}: {coding}"));
            for _ in 0..1 + random.below(3) {
                let size = usually(
                    random,
                    "5",
                    &[
                        "05",
                        "5;a",
                        "5;a=b",
                        "5;a=\"b\"",
                        "5 ",
                        " 5",
                        "0x5",
                        "+5",
                        "-5",
                        "5 ;a",
                        "5;",
                        "4",
                        "6",
                        "5\u{e9}",
                        "5;\u{1}",
                        "",
                        "fffffffffffffffff",
                        "ffffffffffffffff",
                        "5;a\rb",
                        "00000000000000000000005",
                    ],
                    12,
                );
                let (a, b) = (line_end(random), line_end(random));
                out.push_str(&format!("{size}{a}hello{b}"));
            }
            let last = usually(random, "0", &["00", "0;a", "0 ", ""], 5);
            let trailer = usually(
                random,
                "",
                &[
                    "T: v\r\n",
                    "T : v\r\n",
                    "T\r\n",
                    "T: \u{1}\r\n",
                    "Content-Length: 5\r\n",
                    ":path: x\r\n",
                    "T: a\r\n b\r\n",
                    "Host: x\r\n",
                ],
                20,
            );
            let (a, b) = (line_end(random), line_end(random));
            out.push_str(&format!("{last}{a}{trailer}{b}"));
        }
    }
}

fn fields(random: &mut Random, head: &mut Vec<String>) {
    for _ in 0..random.below(3) {
        let field = random.one(&FIELDS);
        head.push(field.to_owned());
    }
    if random.chance(1) {
        head.extend((0..120).map(|index| format!("X-{index}: y")));
    }
}

/// Puts lines in a random order, which is not always the usual one.
fn shuffled(random: &mut Random, mut lines: Vec<String>) -> Vec<String> {
    for index in 1..lines.len() {
        lines.swap(index, random.below(index + 1));
    }
    lines
}

fn request(random: &mut Random, first: bool) -> String {
    let methods = [
        "POST",
        "PUT",
        "OPTIONS",
        "DELETE",
        "PATCH",
        "get",
        "G@T",
        "",
        "CONNECT",
        "TRACE",
        "PRI",
        "M-SEARCH",
        "GE\u{e9}T",
    ];
    let mut method = usually(random, "GET", &methods, 45);
    if first && random.chance(3) {
        method = "HEAD";
    }
    let targets = [
        "/a?b=c",
        "*",
        "http://h.test/x",
        "http://h.test",
        "https://h.test/",
        "//x",
        "/a b",
        "/\u{7f}",
        "/\u{e9}",
        "",
        "a",
        "/%",
        "/#f",
        "/a#f?x",
        "http://u@h.test/",
        "/..%2f",
        "/a\tb",
        "/<>",
        "/\\",
        "/?",
        "h.test:80",
        "http://",
        "HTTP://h.test/",
        "ftp://h.test/x",
    ];
    let target = usually(random, "/", &targets, 30);
    let versions = [
        "HTTP/1.0",
        "HTTP/1.2",
        "HTTP/2.0",
        "http/1.1",
        "HTTP/1.1 ",
        "",
        "HTTP/11",
        "HTTP/0.9",
        "HTTP/1.",
        "HTTP/1.01",
        "HTTP/1.1 x",
    ];
    let version = usually(random, "HTTP/1.1", &versions, 8);
    let gap = |random: &mut Random| usually(random, " ", &["  ", "\t", ""], 2);
    let (a, b, end) = (gap(random), gap(random), line_end(random));
    let before = usually(random, "", &["\r\n", "\n", "\r\n\r\n", " "], 4);
    let mut text = format!("{before}{method}{a}{target}{b}{version}{end}");
    let mut head = Vec::new();
    let hosts = [
        "",
        "Host:",
        "Host: a\r\nHost: b",
        "Host: a b",
        "Host: a/b",
        "host:a:80",
        "HOST: [::1]",
        "Host: \u{e9}",
        "Host: a@b",
        "Host: a,b",
        "Host: a:x",
    ];
    let host = usually(random, "Host: a", &hosts, 10);
    if !host.is_empty() {
        head.push(host.to_owned());
    }
    fields(random, &mut head);
    let mut content = String::new();
    body(random, &mut content, &mut head);
    for line in shuffled(random, head) {
        text.push_str(&line);
        text.push_str(line_end(random));
    }
    text.push_str(line_end(random));
    text.push_str(&content);
    text
}

fn answer(random: &mut Random) -> AnswerFull {
    let lines = [
        "HTTP/1.0 200 OK",
        "HTTP/1.1 200",
        "HTTP/1.1 200 ",
        "HTTP/1.1  200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 abc OK",
        "HTTP/1.1 099 Low",
        "HTTP/1.1 600 High",
        "HTTP/1.1 204 No",
        "HTTP/1.1 304 Not",
        "HTTP/1.1 100 Continue",
        "HTTP/1.1 103 Early",
        "HTTP/1.1 101 Switch",
        "HTTP/2 200 OK",
        "http/1.1 200 OK",
        "200 OK",
        "",
        "HTTP/1.1 404 \u{e9}",
        "HTTP/1.1 500 Bad",
        "ICY 200 OK",
        "HTTP/1.1 205 R",
    ];
    let line = usually(random, "HTTP/1.1 200 OK", &lines, 25);
    let mut text = format!("{line}{}", line_end(random));
    let mut head = Vec::new();
    fields(random, &mut head);
    let mut content = String::new();
    body(random, &mut content, &mut head);
    let lengthless = !head.iter().any(|line| {
        let line = line.to_ascii_lowercase();
        line.starts_with("content-length") || line.starts_with("transfer")
    });
    // What follows an answer that has no body would be taken for the next one, or not, as chance will have it.
    if [" 1", " 204", " 304"]
        .iter()
        .any(|status| line.contains(status))
    {
        content.clear();
    } else if lengthless && random.chance(80) {
        head.push("Content-Length: 2".into());
        content = "hi".into();
    }
    for line in shuffled(random, head) {
        text.push_str(&line);
        text.push_str(line_end(random));
    }
    text.push_str(line_end(random));
    text.push_str(&content);
    AnswerFull {
        raw: Some(text.replace("{long}", &format!("X: {}", "a".repeat(70_000)))),
        then: Some("close".into()),
        cut: Some(usize::MAX),
        ..AnswerFull::default()
    }
}

/// A scene of `cases`, each with eight connections.
pub fn scene(seed: u64, cases: usize) -> Scene {
    let mut random = Random::new(seed ^ 0xb17e5);
    let http = json!({
        "request_timeout": "0.4s",
        "common_http_protocol_options": {"idle_timeout": "0.4s"},
        "delayed_close_timeout": "0.05s",
    });
    let cases = (0..cases)
        .map(|index| {
            // Half of them are about requests, the others about answers.
            let answers = index % 2 == 1;
            let send = (0..8).map(|_| {
                let mut raw = String::new();
                if answers {
                    raw.push_str("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
                } else {
                    for index in 0..1 + usize::from(random.chance(25)) {
                        raw.push_str(&request(&mut random, index == 0));
                    }
                }
                // What is left over would be taken as the beginning of this one.
                if !answers {
                    raw.push_str("GET /end HTTP/1.1\r\nHost: end\r\nConnection: close\r\n\r\n");
                }
                Step::Request(Box::new(RequestSpec {
                    raw: Some(raw.replace("{long}", &format!("X: {}", "a".repeat(70_000)))),
                    answers: Some(20),
                    ..RequestSpec::default()
                }))
            });
            let send = send.collect();
            Case {
                name: format!("bytes {seed}/{index}"),
                routes: vec![
                    json!({"match": {"prefix": "/"}, "route": {"cluster": "once", "timeout": "2s"}}),
                ],
                http: http.as_object().unwrap().clone(),
                answers: (0..if answers { 8 } else { 0 })
                    .map(|_| {
                        let full = AnswerFull {
                            path: Some("/x".into()),
                            ..answer(&mut random)
                        };
                        AnswerSpec::Full(Box::new(full))
                    })
                    .collect(),
                log: Some(String::new()),
                stricter: true,
                send,
                ..Case::default()
            }
        })
        .collect();
    // Who asks next shall not meet what is left of an answer.
    let once = json!({"name": "once", "upstreams": ["a"],
        "http_options": {"common_http_protocol_options": {"max_requests_per_connection": 1}}});
    Scene {
        cases,
        clusters: vec![once],
        ..Scene::default()
    }
}

/// Whether ours is as the other or stricter: a connection is refused where the other one goes on, an answer of an upstream is not
/// taken (502, 503) where the other takes it, and upstreams see nothing that they do not see from the other.
pub fn stricter(theirs: &Outcome, ours: &Outcome) -> bool {
    let refusal = |answer: &str| {
        [
            "<closed>",
            "HTTP/1.1 400",
            "HTTP/1.1 431",
            "HTTP/1.1 426",
            "HTTP/1.1 502",
            "HTTP/1.1 503",
        ]
        .iter()
        .any(|start| answer.starts_with(start))
    };
    // Answers stand one behind the other, those of a connection end with one that is closed: a refusal takes the place of all
    // that the other one says on it.
    let ends = |answer: &str| {
        answer == "<closed>"
            || answer.to_ascii_lowercase().contains("\nconnection: close")
            || answer.contains("<broken off>")
    };
    let by_connection = |outcome: &Outcome| {
        let mut all: Vec<Vec<String>> = vec![Vec::new()];
        for answer in &outcome.answers {
            all.last_mut().unwrap().push(answer.clone());
            if ends(answer) {
                all.push(Vec::new());
            }
        }
        all
    };
    let (theirs_by, ours_by) = (by_connection(theirs), by_connection(ours));
    let answers = theirs_by.len() == ours_by.len()
        && theirs_by.iter().zip(&ours_by).all(|(theirs, ours)| {
            let equal = theirs.iter().zip(ours).take_while(|(a, b)| a == b).count();
            equal == theirs.len() && equal == ours.len()
                || ours
                    .get(equal)
                    .is_some_and(|answer| refusal(answer) || answer.ends_with("<broken off>"))
        });
    // A length is written anew, without zeros in front.
    let plain = |seen: &String| seen.replace("content-length: 05", "content-length: 5");
    let mut left: Vec<String> = theirs.upstream.iter().map(plain).collect();
    let upstream = ours.upstream.iter().all(|seen| {
        let at = left.iter().position(|other| other == seen);
        at.map(|at| left.remove(at)).is_some()
    });
    answers && upstream
}
