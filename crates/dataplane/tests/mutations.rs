//! Good configuration with a few bytes changed, by a fixed seed: whatever a management server sends, decoding and compiling it
//! neither panics nor hangs.

use serde_json::json;
use theater_dataplane::cluster::ClusterConfig;
use theater_dataplane::route::RouteTable;
use theater_dataplane::unread::unread;
use xds::envoy::config::cluster::v3::Cluster;
use xds::envoy::config::route::v3::RouteConfiguration;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit.max(1)
    }

    fn mutate(&mut self, good: &[u8]) -> Vec<u8> {
        let mut bytes = good.to_vec();
        for _ in 0..1 + self.below(4) {
            let at = self.below(bytes.len());
            match self.below(5) {
                0 => bytes[at] = self.below(256) as u8,
                1 => bytes[at] ^= 1 << self.below(8),
                2 => bytes.insert(at, [0, 1, 0x7f, 0x80, 0xff, b'%', b'{'][self.below(7)]),
                3 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        bytes
    }
}

fn read<M: xds::Wire>(text: serde_json::Value) -> Vec<u8> {
    let message: M = xds::json::from_value(text, true).expect("a good message");
    message.to_wire()
}

/// How many of the changed messages could be decoded: some, or nothing was tried.
fn decoded<M: xds::Wire>(good: &[u8], seed: u64, check: impl Fn(&M)) -> usize {
    let mut random = Random(seed);
    let mut count = 0;
    for _ in 0..1500 {
        if let Ok(message) = M::from_wire(&random.mutate(good)) {
            check(&message);
            count += 1;
        }
    }
    count
}

#[test]
fn changed_routes_are_compiled_or_refused() {
    let good = read::<RouteConfiguration>(json!({
        "name": "routes", "request_headers_to_add": [{"header": {"key": "x-a", "value": "%REQ(x-b?:path):5% %%"}}],
        "virtual_hosts": [{"name": "v", "domains": ["a.test", "*.b.test", "*"], "routes": [
            {"match": {"prefix": "/a", "headers": [{"name": "x", "string_match": {"safe_regex": {"regex": "a+(b|c)"}}}],
                "query_parameters": [{"name": "q", "string_match": {"exact": "1"}}]},
             "route": {"weighted_clusters": {"clusters": [{"name": "one", "weight": 30}, {"name": "two", "weight": 70}]},
                "regex_rewrite": {"pattern": {"regex": "^/a/(.*)$"}, "substitution": "/\\1"}, "timeout": "3s",
                "retry_policy": {"retry_on": "5xx,reset", "num_retries": 2, "retriable_status_codes": [503]},
                "hash_policy": [{"cookie": {"name": "c", "ttl": "10s"}}]}},
            {"match": {"path_match_policy": {"name": "t", "typed_config":
                {"@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig", "path_template": "/{a}/x/{b=**}"}}},
             "route": {"cluster": "one", "path_rewrite_policy": {"name": "r", "typed_config":
                {"@type": "type.googleapis.com/envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig", "path_template_rewrite": "/{b}/{a}"}}}},
            {"match": {"safe_regex": {"regex": "/r/.*"}}, "redirect": {"host_redirect": "c.test", "prefix_rewrite": "/n", "response_code": "FOUND"}},
            {"match": {"path": "/d"}, "direct_response": {"status": 418, "body": {"inline_string": "tea"}}}]}]}));
    let count = decoded::<RouteConfiguration>(&good, 1, |routes| {
        let _ = RouteTable::compile(routes);
        let _ = unread(routes);
    });
    assert!(count > 100, "{count} of 1500 could be decoded");
}

#[test]
fn changed_clusters_are_compiled_or_refused() {
    let good = read::<Cluster>(json!({
        "name": "c", "type": "STRICT_DNS", "connect_timeout": "1s", "lb_policy": "RING_HASH",
        "ring_hash_lb_config": {"minimum_ring_size": 64, "maximum_ring_size": 1024, "hash_function": "MURMUR_HASH_2"},
        "lb_subset_config": {"fallback_policy": "ANY_ENDPOINT", "subset_selectors": [{"keys": ["version"]}]},
        "load_assignment": {"cluster_name": "c", "endpoints": [{"locality": {"region": "r", "zone": "z"}, "priority": 0,
            "load_balancing_weight": 3, "lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "a.test", "port_value": 80}}},
                "metadata": {"filter_metadata": {"envoy.lb": {"version": "v1"}}}}]}]},
        "outlier_detection": {"consecutive_5xx": 3, "interval": "10s", "max_ejection_percent": 50},
        "circuit_breakers": {"thresholds": [{"max_connections": 10, "retry_budget": {"budget_percent": {"value": 20}}}]},
        "transport_socket": {"name": "p", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
            "config": {"version": "V2"}, "transport_socket": {"name": "t", "typed_config":
                {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "sni": "a.test"}}}}}));
    let count = decoded::<Cluster>(&good, 2, |cluster| {
        let _ = ClusterConfig::compile(cluster);
        let _ = unread(cluster);
    });
    assert!(count > 100, "{count} of 1500 could be decoded");
}
