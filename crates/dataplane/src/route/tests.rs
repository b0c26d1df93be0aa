//! Routes as istiod writes them.

use super::*;
use crate::stream::Connection;
use http::{HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use std::time::UNIX_EPOCH;

fn table(json: Value) -> RouteTable {
    RouteTable::compile(&xds::json::from_value(json, true).expect("a valid message"))
        .expect("compiles")
}

fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
    list.iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .collect()
}

fn find(
    table: &RouteTable,
    authority: &str,
    path: &str,
    list: &[(&'static str, &'static str)],
    draw: u64,
) -> Outcome {
    let headers = headers(list);
    let head = RequestHead {
        method: &Method::GET,
        scheme: "http",
        authority,
        path,
        headers: &headers,
    };
    let metadata = Metadata::new();
    let facts = MatchFacts {
        metadata: &metadata,
        client_certificate: None,
        source: std::net::Ipv4Addr::LOCALHOST.into(),
    };
    table.find(&head, &facts, &mut || draw)
}

fn cluster(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Forward { cluster, .. } => cluster.to_string(),
        Outcome::Direct { status, .. } => format!("direct {status}"),
        Outcome::Redirect {
            status, location, ..
        } => format!("{status} {location}"),
        Outcome::NotFound { virtual_host } => format!("none {virtual_host:?}"),
    }
}

fn canary() -> RouteTable {
    table(
        json!({"name": "8000", "ignore_port_in_host_matching": true, "validate_clusters": false, "virtual_hosts": [
        {"name": "reviews:8000", "domains": ["reviews.default.svc.cluster.local", "reviews"], "include_request_attempt_count": true, "routes": [
            {"name": "jason", "match": {"prefix": "/", "case_sensitive": true, "headers": [{"name": "end-user", "string_match": {"exact": "jason"}}]},
             "route": {"cluster": "v2", "timeout": "0s", "max_grpc_timeout": "0s"}},
            {"match": {"safe_regex": {"regex": "/api/v[0-9]+/.*"}}, "route": {"cluster": "api", "timeout": "0.5s", "max_grpc_timeout": "0.5s"}},
            {"match": {"prefix": "/"}, "route": {"timeout": "0s", "weighted_clusters": {"clusters": [{"name": "v1", "weight": 80}, {"name": "v3", "weight": 20}]}}}]},
        {"name": "block_all", "domains": ["*"], "routes": [{"name": "block_all", "match": {"prefix": "/"}, "direct_response": {"status": 502}}]}]}),
    )
}

#[test]
fn the_first_route_that_matches_wins() {
    let table = canary();
    assert_eq!(
        cluster(&find(
            &table,
            "Reviews:8000",
            "/",
            &[("end-user", "jason")],
            0
        )),
        "v2"
    );
    assert_eq!(
        cluster(&find(&table, "reviews", "/api/v1/x?y=/z", &[], 0)),
        "api"
    );
    assert_eq!(
        cluster(&find(&table, "reviews", "/x/api/v1/x", &[], 79)),
        "v1"
    );
    assert_eq!(cluster(&find(&table, "reviews", "/", &[], 80)), "v3");
    assert_eq!(cluster(&find(&table, "unknown", "/", &[], 0)), "direct 502");
    assert_eq!(
        table.clusters().map(|name| &**name).collect::<Vec<_>>(),
        ["v2", "api", "v1", "v3"]
    );
    let Outcome::Forward { route, .. } = find(&table, "reviews", "/", &[], 0) else {
        panic!("forwarded")
    };
    assert!(route.timeout.is_none() && route.attempt_count_in_request);
    assert_eq!(&*route.virtual_host, "reviews:8000");
}

#[test]
fn eighty_twenty_is_eighty_twenty() {
    let table = canary();
    let v3 = (0..1000)
        .filter(|draw| cluster(&find(&table, "reviews", "/", &[], *draw)) == "v3")
        .count();
    assert_eq!(v3, 200);
}

fn single(route: Value) -> RouteTable {
    table(
        json!({"name": "r", "virtual_hosts": [{"name": "v", "domains": ["a.example:80", "a.example"], "routes": [route]}]}),
    )
}

#[test]
fn paths_match_without_query_and_by_byte() {
    let matches = |matcher: Value, path: &str| {
        let table = single(json!({"match": matcher, "route": {"cluster": "c"}}));
        matches!(
            find(&table, "a.example", path, &[], 0),
            Outcome::Forward { .. }
        )
    };
    assert!(matches(json!({"path": "/exact"}), "/exact?q"));
    assert!(!matches(json!({"path": "/exact"}), "/exact/"));
    assert!(matches(
        json!({"path": "/Exact", "case_sensitive": false}),
        "/eXACT"
    ));
    assert!(matches(json!({"prefix": "/foo"}), "/foobar"));
    assert!(
        matches(json!({"path_separated_prefix": "/psp"}), "/psp")
            && matches(json!({"path_separated_prefix": "/psp"}), "/psp/a")
    );
    assert!(!matches(json!({"path_separated_prefix": "/psp"}), "/pspa"));
    assert!(matches(
        json!({"prefix": "/", "query_parameters": [{"name": "v", "string_match": {"exact": "2"}}]}),
        "/?a&v=2"
    ));
    assert!(!matches(
        json!({"prefix": "/", "query_parameters": [{"name": "v", "present_match": true}]}),
        "/?a"
    ));
    assert!(!matches(json!({"prefix": "/", "grpc": {}}), "/"));
    let outcome = find(
        &single(json!({"match": {"path": "/x"}, "route": {"cluster": "c"}})),
        "a.example",
        "/y",
        &[],
        0,
    );
    assert_eq!(cluster(&outcome), "none Some(\"v\")");
    assert_eq!(
        cluster(&find(&canary_without_default(), "b", "/", &[], 0)),
        "none None"
    );
}

fn canary_without_default() -> RouteTable {
    single(json!({"match": {"prefix": "/"}, "route": {"cluster": "c"}}))
}

#[test]
fn redirects_keep_what_they_do_not_replace() {
    let redirect = |redirect: Value| {
        let table = single(json!({"match": {"prefix": "/old"}, "redirect": redirect}));
        cluster(&find(&table, "a.example:80", "/old/x?q=1", &[], 0))
    };
    assert_eq!(
        redirect(json!({"path_redirect": "/new"})),
        "301 http://a.example:80/new?q=1"
    );
    assert_eq!(
        redirect(json!({"https_redirect": true, "response_code": "PERMANENT_REDIRECT"})),
        "308 https://a.example/old/x?q=1"
    );
    assert_eq!(
        redirect(
            json!({"host_redirect": "b", "port_redirect": 8080, "prefix_rewrite": "/n", "response_code": "FOUND"})
        ),
        "302 http://b:8080/n/x?q=1"
    );
    assert_eq!(
        redirect(json!({"port_redirect": 8443, "strip_query": true})),
        "301 http://a.example:8443/old/x"
    );
    assert_eq!(
        redirect(json!({"path_redirect": "/new?fixed"})),
        "301 http://a.example:80/new?fixed"
    );
    let tls = table(
        json!({"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "require_tls": "ALL", "routes": []}]}),
    );
    assert_eq!(
        cluster(&find(&tls, "a:80", "/x?y", &[], 0)),
        "301 https://a:80/x?y"
    );
}

fn applied(
    route: Value,
    path: &str,
    list: &[(&'static str, &'static str)],
) -> (String, String, HeaderMap) {
    let table = single(route);
    let Outcome::Forward {
        route, weighted, ..
    } = find(&table, "a.example", path, list, 0)
    else {
        panic!("forwarded")
    };
    let connection = Connection {
        id: 1,
        remote: "192.0.2.1:1".parse().unwrap(),
        local: "192.0.2.2:2".parse().unwrap(),
        tls: None,
        server_name: None,
        start: UNIX_EPOCH,
    };
    let metadata = Metadata::new();
    let info = StreamInfo::new(&connection, &metadata, UNIX_EPOCH);
    let (mut authority, mut path, mut headers) =
        ("a.example".to_owned(), path.to_owned(), headers(list));
    let mut head = RequestHeadMut {
        method: &Method::GET,
        scheme: "http",
        authority: &mut authority,
        path: &mut path,
        headers: &mut headers,
    };
    route.apply_request(&mut head, weighted, &info, false);
    (authority, path, headers)
}

#[test]
fn rewrites_replace_what_matched() {
    let path = |matcher: Value, action: Value, path: &str| {
        applied(json!({"match": matcher, "route": action}), path, &[]).1
    };
    assert_eq!(
        path(
            json!({"prefix": "/b"}),
            json!({"cluster": "c", "prefix_rewrite": "/"}),
            "/b/x?q"
        ),
        "//x?q"
    );
    assert_eq!(
        path(
            json!({"path": "/b"}),
            json!({"cluster": "c", "prefix_rewrite": "/new"}),
            "/b?q"
        ),
        "/new?q"
    );
    assert_eq!(
        path(
            json!({"safe_regex": {"regex": "/b.*"}}),
            json!({"cluster": "c", "prefix_rewrite": "/n"}),
            "/b/x?q"
        ),
        "/n?q"
    );
    let regex = json!({"cluster": "c", "regex_rewrite": {"pattern": {"regex": "^/b/([^/]+)"}, "substitution": "/\\1/v"}});
    assert_eq!(
        path(json!({"prefix": "/"}), regex, "/b/x/y?b/z"),
        "/x/v/y?b/z"
    );
    let route = json!({"match": {"prefix": "/b"}, "route": {"cluster": "c", "prefix_rewrite": "/c", "host_rewrite_literal": "new.example"}});
    let (authority, path, headers) = applied(route, "/b", &[]);
    assert_eq!((authority.as_str(), path.as_str()), ("new.example", "/c"));
    assert_eq!(
        (
            &headers["x-envoy-original-path"],
            &headers["x-envoy-original-host"]
        ),
        (&"/b".parse().unwrap(), &"a.example".parse().unwrap())
    );
}

#[test]
fn headers_change_from_the_cluster_outwards() {
    let set = |value: &str| json!([{"header": {"key": "x", "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]);
    let table_json = json!({"name": "r", "request_headers_to_add": set("config"), "virtual_hosts": [{"name": "v", "domains": ["*"], "request_headers_to_add": set("host"), "routes": [
        {"match": {"prefix": "/"}, "request_headers_to_add": set("route"), "request_headers_to_remove": ["gone"],
         "route": {"weighted_clusters": {"clusters": [{"name": "c", "weight": 1, "request_headers_to_add": [{"header": {"key": "y", "value": "%REQ(:path)% %ROUTE_NAME%"}}]}]}}}]}]});
    let mut ascending = table_json.clone();
    ascending["most_specific_header_mutations_wins"] = json!(true);
    for (json, winner) in [(table_json, "config"), (ascending, "route")] {
        let table = table(json);
        let Outcome::Forward {
            route, weighted, ..
        } = find(&table, "a", "/p", &[], 0)
        else {
            panic!("forwarded")
        };
        let connection = Connection {
            id: 1,
            remote: "192.0.2.1:1".parse().unwrap(),
            local: "192.0.2.2:2".parse().unwrap(),
            tls: None,
            server_name: None,
            start: UNIX_EPOCH,
        };
        let metadata = Metadata::new();
        let mut info = StreamInfo::new(&connection, &metadata, UNIX_EPOCH);
        info.route_name = Some("n");
        let (mut authority, mut path, mut headers) =
            ("a".to_owned(), "/p".to_owned(), headers(&[("gone", "1")]));
        let mut head = RequestHeadMut {
            method: &Method::GET,
            scheme: "http",
            authority: &mut authority,
            path: &mut path,
            headers: &mut headers,
        };
        route.apply_request(&mut head, weighted, &info, false);
        assert_eq!(headers["x"], winner);
        assert_eq!(headers["y"], "/p n");
        assert!(!headers.contains_key("gone"));
    }
}

#[test]
fn timeouts_follow_route_and_caller() {
    let timeouts = |action: Value, list: &[(&'static str, &'static str)]| {
        let table = single(json!({"match": {"prefix": "/"}, "route": action}));
        let Outcome::Forward { route, .. } = find(&table, "a.example", "/", list, 0) else {
            panic!("forwarded")
        };
        let headers = headers(list);
        route.timeouts(&RequestHead {
            method: &Method::GET,
            scheme: "http",
            authority: "a",
            path: "/",
            headers: &headers,
        })
    };
    let ms = Duration::from_millis;
    assert_eq!(
        timeouts(json!({"cluster": "c"}), &[]).global,
        Some(ms(15_000))
    );
    assert_eq!(
        timeouts(json!({"cluster": "c", "timeout": "0s"}), &[]).global,
        None
    );
    let retry =
        json!({"cluster": "c", "timeout": "2s", "retry_policy": {"per_try_timeout": "0.5s"}});
    let both = timeouts(retry.clone(), &[]);
    assert_eq!((both.global, both.per_try), (Some(ms(2000)), Some(ms(500))));
    assert_eq!(both.expected(ms(1800)), Some(ms(200)), "what is left");
    assert_eq!(
        timeouts(retry, &[("x-envoy-upstream-rq-timeout-ms", "400")]).per_try,
        None,
        "longer than the whole"
    );
    let grpc = [("content-type", "application/grpc"), ("grpc-timeout", "3S")];
    assert_eq!(
        timeouts(
            json!({"cluster": "c", "timeout": "0s", "max_grpc_timeout": "0s"}),
            &grpc
        )
        .global,
        Some(ms(3000))
    );
    assert_eq!(
        timeouts(
            json!({"cluster": "c", "timeout": "1s", "max_grpc_timeout": "1s"}),
            &grpc
        )
        .global,
        Some(ms(1000))
    );
    let inbound = json!({"cluster": "c", "timeout": "0s", "max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"}});
    assert_eq!(timeouts(inbound.clone(), &[]), Timeouts::default());
    assert_eq!(timeouts(inbound, &grpc).max_stream, Some(ms(3000)));
}

#[test]
fn hash_policies_take_the_first_terminal_value() {
    let table = single(
        json!({"match": {"prefix": "/"}, "route": {"cluster": "c", "hash_policy": [
        {"header": {"header_name": "x-user"}, "terminal": true}, {"cookie": {"name": "id", "ttl": "0s"}}]}}),
    );
    let hash = |list: &[(&'static str, &'static str)]| {
        let Outcome::Forward { route, .. } = find(&table, "a.example", "/", list, 0) else {
            panic!("forwarded")
        };
        let headers = headers(list);
        let head = RequestHead {
            method: &Method::GET,
            scheme: "http",
            authority: "a",
            path: "/",
            headers: &headers,
        };
        route.hash(&head, "192.0.2.1".parse().unwrap(), &mut || 0xab)
    };
    assert_eq!(
        hash(&[("x-user", "abc")]),
        HashResult {
            hash: Some(0x44bc_2cf5_ad77_0999),
            set_cookies: vec![]
        }
    );
    assert_eq!(
        hash(&[("cookie", "id=abc")]).hash,
        Some(0x44bc_2cf5_ad77_0999)
    );
    assert_eq!(hash(&[]).set_cookies, ["id=\"00000000000000ab\"; HttpOnly"]);
}

#[test]
fn filter_configs_come_from_the_most_specific_level() {
    let fault = |status: u32| json!({"envoy.filters.http.fault": {"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault", "abort": {"http_status": status}}});
    let table = table(
        json!({"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "typed_per_filter_config": fault(500), "routes": [
        {"match": {"path": "/own"}, "typed_per_filter_config": fault(503), "route": {"cluster": "c"}}, {"match": {"prefix": "/"}, "route": {"cluster": "c"}}]}]}),
    );
    let config = |path: &str| {
        let Outcome::Forward { route, .. } = find(&table, "a", path, &[], 0) else {
            panic!("forwarded")
        };
        let any = route
            .filter_config("envoy.filters.http.fault", None)
            .expect("a config");
        let fault =
            xds::any::unpack::<xds::envoy::extensions::filters::http::fault::v3::HttpFault>(any)
                .unwrap()
                .unwrap();
        crate::fault::Fault::compile(&fault).expect("compiles");
        fault.abort.unwrap().error_type
    };
    use xds::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;
    assert_eq!(config("/own"), Some(ErrorType::HttpStatus(503)));
    assert_eq!(config("/"), Some(ErrorType::HttpStatus(500)));
}

#[test]
fn mirrors_may_mark_the_host() {
    let table = single(
        json!({"match": {"prefix": "/"}, "route": {"cluster": "c", "request_mirror_policies": [
        {"cluster": "m", "runtime_fraction": {"default_value": {"numerator": 500_000, "denominator": "MILLION"}}},
        {"cluster": "n", "disable_shadow_host_suffix_append": true}]}}),
    );
    let Outcome::Forward { route, .. } = find(&table, "a.example", "/", &[], 0) else {
        panic!("forwarded")
    };
    assert_eq!(
        route.mirrors[0].authority("foo.com:80"),
        "foo.com-shadow:80"
    );
    assert_eq!(route.mirrors[1].authority("foo.com:80"), "foo.com:80");
    assert!(route.mirrors[0].draw(&mut || 499_999) && !route.mirrors[0].draw(&mut || 500_000));
    assert!(route.mirrors[1].draw(&mut || panic!("no draw is needed")));
}

#[test]
fn errors_say_where() {
    let config = xds::json::from_value(
        json!({"name": "r", "virtual_hosts": [{"name": "v", "domains": ["a", "A"], "routes": [
            {"match": {"safe_regex": {"regex": "("}}, "route": {"cluster": "c"}}, {"match": {"prefix": "/"}}, {"match": {"prefix": "/"}, "direct_response": {"status": 700}}]}]}),
        true,
    )
    .expect("a valid message");
    let errors: Vec<String> = RouteTable::compile(&config)
        .expect_err("invalid")
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(errors.len(), 4, "{errors:?}");
    assert!(
        errors[0].starts_with("virtual_hosts[0].domains: the domain \"A\""),
        "{errors:?}"
    );
    assert!(
        errors[1]
            .starts_with("virtual_hosts[0].routes[0].match.safe_regex.regex: \"(\" is not a valid"),
        "{errors:?}"
    );
    assert!(
        errors[2].contains("routes[1].action: is missing"),
        "{errors:?}"
    );
    assert!(
        errors[3].contains("routes[2].direct_response.status: 700"),
        "{errors:?}"
    );
}

#[test]
fn in_a_long_list_the_same_route_is_found_as_one_by_one() {
    let matches = [
        json!({"prefix": "/a-long-prefix/"}),
        json!({"prefix": "/a-long-prefiX/"}),
        json!({"path": "/exactly/this"}),
        json!({"path": "/exactly/this/"}),
        json!({"path_separated_prefix": "/separated/part"}),
        json!({"prefix": "/ANY-CASE/here/", "case_sensitive": false}),
        json!({"safe_regex": {"regex": "/regex/[a-z]+"}}),
        json!({"prefix": "/eight-b"}),
        json!({"prefix": "/seven-"}),
        json!({"connect_matcher": {}}),
        json!({"path": "/exactly/"}),
        json!({"prefix": "/no"}),
    ];
    let route = |(at, matches): (usize, &Value)| json!({"match": matches, "route": {"cluster": format!("c{at}")}});
    let of = |routes: Vec<Value>| {
        table(
            json!({"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]}),
        )
    };
    let long = of(matches.iter().enumerate().map(route).collect());
    let each: Vec<RouteTable> = matches
        .iter()
        .enumerate()
        .map(|one| of(vec![route(one)]))
        .collect();
    assert!(!long.virtual_hosts[0].quick.is_empty() && each[0].virtual_hosts[0].quick.is_empty());
    let none = cluster(&Outcome::NotFound {
        virtual_host: Some("v".into()),
    });
    let mut found = 0;
    for path in [
        "/a-long-prefix/x",
        "/a-long-prefix",
        "/a-long-prefiX/",
        "/exactly/this",
        "/exactly/this?q",
        "/exactly/this/",
        "/exactly/this/x",
        "/exactly/",
        "/exactly",
        "/separated/part",
        "/separated/part/x",
        "/separated/parts",
        "/any-case/HERE/",
        "/regex/abc",
        "/regex/1",
        "/eight-b",
        "/eight-",
        "/seven-",
        "/seven",
        "/nothing",
        "/n",
        "/",
        "/#/a-long-prefix/",
    ] {
        let one_by_one = each
            .iter()
            .map(|table| cluster(&find(table, "a", path, &[], 0)));
        let expected = one_by_one.into_iter().find(|answer| *answer != none);
        found += usize::from(expected.is_some());
        assert_eq!(
            cluster(&find(&long, "a", path, &[], 0)),
            expected.unwrap_or(none.clone()),
            "{path}"
        );
    }
    assert_eq!(found, 13);
}
