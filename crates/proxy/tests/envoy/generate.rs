//! Random routes and requests: everything that has one right answer. The same seed makes the same cases.

use serde_json::{Value, json};

use crate::case::{Case, RequestSpec, Scene, Step};

/// A small generator (xorshift64*), so that a seed means the same everywhere.
pub struct Random(u64);

impl Random {
    /// Seeds that differ by one have nothing in common.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn one<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

const PATHS: [&str; 16] = [
    "/",
    "/a",
    "/a/",
    "/a/b",
    "/a/b/c",
    "/ab",
    "/b",
    "/B",
    "/b/1",
    "/b/12/x",
    "/c.html",
    "/a//b",
    "/a/./b",
    "/%61",
    "/x%2Fy",
    "/long/path/to/somewhere",
];
const NAMES: [&str; 4] = ["x-user", "x-version", "x-flag", "x-other"];
const VALUES: [&str; 8] = ["a", "A", "ab", "abc", "1", "17", "-3", ""];
const PARAMETERS: [&str; 3] = ["q", "page", "debug"];
const HOSTS: [&str; 4] = [
    "test.local",
    "shop.test",
    "www.shop.test:8080",
    "TEST.local",
];

fn string_match(random: &mut Random) -> Value {
    let value = random.one(&VALUES[..6]);
    match random.below(6) {
        0 => json!({"exact": value}),
        1 => json!({"prefix": value}),
        2 => json!({"suffix": value}),
        3 => json!({"contains": value}),
        4 => json!({"exact": value, "ignore_case": true}),
        _ => {
            json!({"safe_regex": {"regex": random.one(&["[a-z]+", "a.*", "[0-9]{1,2}", "(a|1).?"])}})
        }
    }
}

fn header_match(random: &mut Random) -> Value {
    let mut matcher = json!({"name": random.one(&NAMES)});
    match random.below(5) {
        0 => matcher["present_match"] = json!(random.chance(70)),
        1 => matcher["range_match"] = json!({"start": -5, "end": 17}),
        _ => matcher["string_match"] = string_match(random),
    }
    if random.chance(25) {
        matcher["invert_match"] = json!(true);
    }
    if random.chance(15) {
        matcher["treat_missing_header_as_empty"] = json!(true);
    }
    matcher
}

fn route_match(random: &mut Random) -> Value {
    let path = random.one(&PATHS);
    let mut matcher = match random.below(6) {
        0 | 1 => json!({"prefix": path}),
        2 => json!({"path": path}),
        3 => json!({"path_separated_prefix": random.one(&["/a", "/a/b", "/b", "/long"])}),
        4 => {
            json!({"safe_regex": {"regex": random.one(&["/a.*", "/b/[0-9]+.*", ".*\\.html", "/(a|b)/.+", "/"])}})
        }
        _ => json!({"prefix": "/"}),
    };
    if random.chance(20) && matcher.get("safe_regex").is_none() {
        matcher["case_sensitive"] = json!(false);
    }
    if random.chance(45) {
        let count = 1 + random.below(2);
        matcher["headers"] = (0..count).map(|_| header_match(random)).collect();
    }
    if random.chance(20) {
        let name = random.one(&PARAMETERS);
        matcher["query_parameters"] = json!([if random.chance(50) {
            json!({"name": name, "present_match": true})
        } else {
            json!({"name": name, "string_match": string_match(random)})
        }]);
    }
    if random.chance(10) {
        let numerator = if random.chance(50) { 0 } else { 100 };
        matcher["runtime_fraction"] = json!({"default_value": {"numerator": numerator}});
    }
    matcher
}

fn header_options(random: &mut Random) -> Value {
    let actions = [
        "APPEND_IF_EXISTS_OR_ADD",
        "ADD_IF_ABSENT",
        "OVERWRITE_IF_EXISTS_OR_ADD",
        "OVERWRITE_IF_EXISTS",
    ];
    (0..1 + random.below(2))
        .map(|_| {
            json!({
                "header": {"key": random.one(&NAMES),
                    "value": random.one(&["set", "%REQ(x-user)%", "%PROTOCOL%", "%REQ(:path)%", "p%%"])},
                "append_action": random.one(&actions),
            })
        })
        .collect()
}

fn action(random: &mut Random, route: &mut Value) {
    match random.below(10) {
        0 | 1 => {
            let status = [200, 201, 204, 302, 404, 429, 503][random.below(7)];
            let mut direct = json!({"status": status});
            if random.chance(60) && status != 204 {
                direct["body"] = json!({"inline_string": "said here"});
            }
            route["direct_response"] = direct;
        }
        2 | 3 => {
            let mut redirect = json!({});
            if random.chance(50) {
                redirect["host_redirect"] = json!("elsewhere.test");
            }
            match random.below(4) {
                0 => redirect["path_redirect"] = json!("/there"),
                1 => redirect["path_redirect"] = json!("/there?own=1"),
                2 => redirect["prefix_rewrite"] = json!("/moved"),
                _ => {
                    redirect["regex_rewrite"] =
                        json!({"pattern": {"regex": "/b"}, "substitution": "/bee"})
                }
            }
            match random.below(3) {
                0 => redirect["https_redirect"] = json!(true),
                1 => redirect["port_redirect"] = json!(8443),
                _ => {}
            }
            redirect["strip_query"] = json!(random.chance(25));
            redirect["response_code"] = json!(random.one(&[
                "MOVED_PERMANENTLY",
                "FOUND",
                "SEE_OTHER",
                "TEMPORARY_REDIRECT"
            ]));
            route["redirect"] = redirect;
        }
        _ => {
            let mut action = match random.below(5) {
                0 => json!({"weighted_clusters": {"header_name": "x-draw", "clusters": [
                    {"name": "app", "weight": 30}, {"name": "other", "weight": 70}]}}),
                1 => json!({"cluster_header": "x-to"}),
                _ => {
                    json!({"cluster": random.one(&["app", "other", "h2", "empty", "refused", "nowhere"])})
                }
            };
            match random.below(4) {
                0 => action["prefix_rewrite"] = json!("/new"),
                1 => {
                    action["regex_rewrite"] =
                        json!({"pattern": {"regex": "a"}, "substitution": "o"})
                }
                _ => {}
            }
            match random.below(4) {
                0 => action["host_rewrite_literal"] = json!("other.host"),
                1 => action["host_rewrite_header"] = json!("x-user"),
                _ => {}
            }
            if random.chance(40) {
                action["retry_policy"] = json!({
                    "retry_on": random.one(&["5xx", "gateway-error", "reset", "connect-failure", "retriable-4xx", "retriable-status-codes"]),
                    "retriable_status_codes": [404], "num_retries": random.below(3), "retry_back_off": {"base_interval": "0.001s"}});
            }
            route["route"] = action;
        }
    }
    for (field, percent) in [
        ("request_headers_to_add", 30),
        ("response_headers_to_add", 30),
    ] {
        if random.chance(percent) {
            route[field] = header_options(random);
        }
    }
    if random.chance(15) {
        route["request_headers_to_remove"] = json!([random.one(&NAMES)]);
    }
}

/// A rule for requests, as an RBAC permission.
fn permission(random: &mut Random, depth: usize) -> Value {
    match random.below(if depth > 2 { 3 } else { 6 }) {
        0 => json!({"header": header_match(random)}),
        1 => json!({"url_path": {"path": {"prefix": random.one(&["/a", "/b", "/", "/x"])}}}),
        2 => json!({"any": true}),
        3 => json!({"not_rule": permission(random, depth + 1)}),
        4 => {
            json!({"and_rules": {"rules": [permission(random, depth + 1), permission(random, depth + 1)]}})
        }
        _ => {
            json!({"or_rules": {"rules": [permission(random, depth + 1), permission(random, depth + 1)]}})
        }
    }
}

fn rbac(random: &mut Random) -> Value {
    let policies: serde_json::Map<String, Value> = (0..1 + random.below(3))
        .map(|index| {
            let principal = match random.below(3) {
                0 => json!({"header": header_match(random)}),
                1 => json!({"not_id": {"header": header_match(random)}}),
                _ => json!({"any": true}),
            };
            let policy = json!({"permissions": [permission(random, 0)], "principals": [principal]});
            (format!("p{index}"), policy)
        })
        .collect();
    json!({"action": random.one(&["ALLOW", "DENY"]), "policies": policies})
}

/// Filters before the router, and what routes say to them.
fn filters(random: &mut Random, case: &mut Case) {
    if random.chance(30) {
        case.filters.push(json!({"rbac": {"rules": rbac(random)}}));
        for route in &mut case.routes {
            match random.below(8) {
                0 => {
                    route["typed_per_filter_config"]["rbac"] =
                        json!({"rbac": {"rules": rbac(random)}})
                }
                1 => route["typed_per_filter_config"]["rbac"] = json!({}),
                _ => {}
            }
        }
    }
    if random.chance(20) {
        let enabled = json!({"default_value": {"numerator": 100}});
        let origins = json!([{"suffix": ".friend.test"}]);
        let mut csrf = json!({"filter_enabled": enabled});
        if random.chance(50) {
            csrf["additional_origins"] = origins;
        }
        case.filters.push(json!({ "csrf": csrf }));
    }
    if random.chance(25) {
        let percentage = json!({"numerator": if random.chance(70) { 100 } else { 0 }});
        let status = [400, 418, 503][random.below(3)];
        case.filters.push(json!({"fault": {
            "abort": {"http_status": status, "percentage": percentage},
            "headers": [header_match(random)],
        }}));
    }
    if random.chance(20) {
        let code = random.one(&[
            "function envoy_on_request(h) h:headers():replace('x-user', (h:headers():get('x-user') or 'none') .. '!') end",
            "function envoy_on_request(h) if h:headers():get('x-flag') == 'a' then h:respond({[':status'] = '401'}, 'no') end end",
            "function envoy_on_response(h) h:headers():add('x-seen', h:headers():get(':status')) end",
            "function envoy_on_request(h) h:headers():remove('x-version') end\nfunction envoy_on_response(h) h:headers():replace('x-other', 'lua') end",
        ]);
        case.filters.push(json!({"lua": {"inline_code": code}}));
    }
}

/// Settings of the connection manager.
fn manager(random: &mut Random, case: &mut Case) {
    let mut maybe = |percent: usize, field: &str, value: Value| {
        if random.chance(percent) {
            case.http.insert(field.to_owned(), value);
        }
    };
    maybe(30, "normalize_path", json!(true));
    maybe(20, "merge_slashes", json!(true));
    maybe(
        15,
        "path_with_escaped_slashes_action",
        json!("UNESCAPE_AND_FORWARD"),
    );
    maybe(
        10,
        "path_with_escaped_slashes_action",
        json!("REJECT_REQUEST"),
    );
    maybe(30, "use_remote_address", json!(true));
    maybe(20, "xff_num_trusted_hops", json!(1));
    maybe(15, "skip_xff_append", json!(true));
    maybe(15, "via", json!("theater"));
    maybe(15, "server_name", json!("named"));
    maybe(15, "server_header_transformation", json!("PASS_THROUGH"));
    maybe(20, "strip_matching_host_port", json!(true));
    maybe(20, "always_set_request_id_in_response", json!(true));
    maybe(15, "preserve_external_request_id", json!(true));
    maybe(
        20,
        "common_http_protocol_options",
        json!({"headers_with_underscores_action": "DROP_HEADER"}),
    );
}

/// Which requests are logged.
fn log_filter(random: &mut Random) -> Value {
    let expression = |text: &str| {
        json!({"extension_filter": {"name": "cel", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
            "expression": text}}})
    };
    match random.below(6) {
        0 => json!({"status_code_filter": {"comparison":
            {"op": random.one(&["EQ", "GE", "LE", "NE"]), "value": {"default_value": 404, "runtime_key": "none"}}}}),
        1 => json!({"header_filter": {"header": header_match(random)}}),
        2 => {
            json!({"response_flag_filter": {"flags": [random.one(&["NR", "UH", "UF", "URX", "NC"])]}})
        }
        3 => {
            json!({"grpc_status_filter": {"statuses": ["UNAVAILABLE", "UNIMPLEMENTED"], "exclude": random.chance(50)}})
        }
        _ => expression(random.one(&[
            "response.code >= 400 || request.method == 'POST'",
            "request.headers['x-user'] == 'a'",
            "!('x-version' in request.headers)",
            "request.url_path.startsWith('/a') && response.flags == 0",
            "xds.cluster_name in ['app', 'other']",
            "response.code_details == 'direct_response' ? true : request.path.size() > 3",
        ])),
    }
}

fn request(random: &mut Random) -> RequestSpec {
    let mut path = random.one(&PATHS).to_owned();
    if random.chance(35) {
        path.push_str(random.one(&["?q=1", "?q", "?page=a&q=ab", "?debug=17", "?"]));
    }
    let mut headers = Vec::new();
    for name in NAMES {
        if random.chance(40) {
            headers.push(format!("{name}: {}", random.one(&VALUES)));
        }
    }
    if random.chance(10) {
        headers.push("x-user: twice".to_owned());
    }
    headers.push(format!("x-draw: {}", random.below(120)));
    headers.push(format!(
        "x-to: {}",
        random.one(&["app", "other", "nowhere"])
    ));
    if random.chance(10) {
        headers.push("x-forwarded-proto: https".to_owned());
    }
    for (percent, header) in [
        (10, "x-forwarded-for: 1.2.3.4, 5.6.7.8"),
        (10, "under_score: 1"),
        (10, "x-request-id: 12345678-1234-4234-8234-123456789abc"),
        (10, "origin: http://test.local"),
        (10, "origin: http://a.friend.test"),
        (10, "x-envoy-retry-on: 5xx"),
        (10, "x-envoy-max-retries: 2"),
        (5, "x-envoy-retriable-status-codes: 404,409"),
        (5, "x-envoy-original-path: /forged"),
        (5, "via: 1.1 somebody"),
    ] {
        if random.chance(percent) {
            headers.push(header.to_owned());
        }
    }
    let method = random.one(&["GET", "GET", "GET", "POST", "HEAD", "DELETE"]);
    RequestSpec {
        method: Some(method.to_owned()),
        path: Some(path),
        host: Some(random.one(&HOSTS).to_owned()),
        headers,
        body: (method == "POST").then(|| "hello".to_owned()),
        http2: random.chance(20),
        ..RequestSpec::default()
    }
}

/// A scene of `cases` with ten requests each.
pub fn scene(seed: u64, cases: usize) -> Scene {
    let mut random = Random::new(seed);
    let cases = (0..cases)
        .map(|index| {
            let routes = (0..4 + random.below(6))
                .map(|_| {
                    let mut route = json!({"match": route_match(&mut random)});
                    action(&mut random, &mut route);
                    route
                })
                .collect();
            let mut case = Case {
                name: format!("random {seed}/{index}"),
                routes,
                ..Case::default()
            };
            manager(&mut random, &mut case);
            filters(&mut random, &mut case);
            if random.chance(20) {
                case.log_filter = Some(log_filter(&mut random));
            }
            for field in ["request_headers_to_add", "response_headers_to_add"] {
                if random.chance(20) {
                    let options = header_options(&mut random);
                    case.virtual_host.insert(field.into(), options);
                }
            }
            if random.chance(25) {
                case.virtual_host
                    .insert("include_request_attempt_count".into(), json!(true));
            }
            // Some upstream answers are bad, so that retries have something to do.
            case.answers = (0..random.below(8))
                .map(|_| {
                    let status = [503, 500, 404, 409, 200][random.below(5)];
                    crate::case::AnswerSpec::Status(status)
                })
                .collect();
            case.send = (0..10)
                .map(|_| Step::Request(Box::new(request(&mut random))))
                .collect();
            case
        })
        .collect();
    Scene {
        cases,
        ..Scene::default()
    }
}
