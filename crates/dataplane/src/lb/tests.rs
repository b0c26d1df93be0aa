//! Distributions over hosts, with counted or seeded random numbers.

use super::*;
use serde_json::{Value, json};

struct Active(Vec<u64>);

impl HostLoad for Active {
    fn active_requests(&self, host: usize) -> u64 {
        self.0[host]
    }
}

fn cluster(json: Value) -> ClusterConfig {
    ClusterConfig::compile(&xds::json::from_value(json, true).expect("a valid message"))
        .expect("compiles")
}

/// Hosts as (priority, locality, locality weight, [host weight]).
fn hosts(groups: &[(u32, &str, u32, &[u32])]) -> Arc<HostSet> {
    let mut number = 0;
    let mut group = |(priority, region, weight, hosts): &(u32, &str, u32, &[u32])| {
        let endpoint = |weight: &u32| {
            number += 1;
            json!({"load_balancing_weight": weight, "endpoint": {"address": {"socket_address": {"address": format!("10.0.0.{number}"), "port_value": 80}}}})
        };
        let mut json = json!({"priority": priority, "locality": {"region": region}, "lb_endpoints": hosts.iter().map(endpoint).collect::<Vec<_>>()});
        if *weight > 0 {
            json["load_balancing_weight"] = json!(weight);
        }
        json
    };
    let groups: Vec<Value> = groups.iter().map(&mut group).collect();
    let json = json!({"cluster_name": "c", "endpoints": groups});
    Arc::new(
        HostSet::compile(&xds::json::from_value(json, true).expect("a valid message"))
            .expect("compiles"),
    )
}

/// Small, quick, and the same every time.
fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 1
    }
}

fn count(lb: &LoadBalancer, picks: usize) -> Vec<usize> {
    let mut random = random(7);
    let mut counts = vec![0; lb.hosts().hosts.len()];
    for _ in 0..picks {
        counts[lb
            .pick(&PickContext::default(), &(), &mut random)
            .expect("a host")] += 1;
    }
    counts
}

fn nobody(_: usize) -> bool {
    false
}

#[test]
fn round_robin_takes_turns_and_follows_weights() {
    let round_robin = cluster(json!({"name": "c"}));
    let equal = LoadBalancer::new(&round_robin, hosts(&[(0, "a", 0, &[1, 1, 1])]), &nobody, 0);
    assert_eq!(count(&equal, 300), [100, 100, 100]);
    let weighted = LoadBalancer::new(&round_robin, hosts(&[(0, "a", 0, &[3, 1])]), &nobody, 0);
    assert_eq!(count(&weighted, 400), [300, 100]);
    let empty = LoadBalancer::new(&round_robin, hosts(&[]), &nobody, 0);
    assert_eq!(empty.pick(&PickContext::default(), &(), &mut || 0), None);
}

#[test]
fn least_request_takes_the_less_busy_of_two() {
    let least = cluster(json!({"name": "c", "lb_policy": "LEAST_REQUEST"}));
    let lb = LoadBalancer::new(&least, hosts(&[(0, "a", 0, &[1, 1])]), &nobody, 0);
    let mut draws = [0, 1, 1, 0, 0, 0].into_iter();
    let mut random = || draws.next().expect("a draw");
    let busy = Active(vec![5, 2]);
    let mut pick = || lb.pick(&PickContext::default(), &busy, &mut random);
    assert_eq!([pick(), pick(), pick()], [Some(1), Some(1), Some(0)]);
    let weighted = LoadBalancer::new(&least, hosts(&[(0, "a", 0, &[2, 1])]), &nobody, 0);
    assert_eq!(count(&weighted, 300), [200, 100]);
    let mut counts = [0; 2];
    for _ in 0..300 {
        counts[weighted
            .pick(&PickContext::default(), &Active(vec![3, 0]), &mut || 0)
            .expect("a host")] += 1;
    }
    assert!(counts[0] < 110, "2/(3+1) against 1: {counts:?}");
}

struct Ages(Vec<u64>);

impl HostLoad for Ages {
    fn active_requests(&self, _: usize) -> u64 {
        0
    }

    fn age(&self, host: usize) -> std::time::Duration {
        std::time::Duration::from_secs(self.0[host])
    }
}

#[test]
fn a_young_host_gets_a_growing_share() {
    let shares = |policy: &str, ages: Vec<u64>| {
        let field = format!("{}_lb_config", policy.to_lowercase());
        let slow = json!({"slow_start_config": {"slow_start_window": "60s"}});
        let cluster = cluster(json!({"name": "c", "lb_policy": policy, field: slow}));
        let lb = LoadBalancer::new(&cluster, hosts(&[(0, "a", 0, &[1, 1])]), &nobody, 0);
        let (ages, mut random) = (Ages(ages), random(5));
        let mut counts = [0; 2];
        for _ in 0..1100 {
            counts[lb
                .pick(&PickContext::default(), &ages, &mut random)
                .expect("a host")] += 1;
        }
        counts
    };
    for policy in ["ROUND_ROBIN", "LEAST_REQUEST"] {
        let new = shares(policy, vec![100, 0]);
        assert!(
            (90..110).contains(&new[1]),
            "a tenth of the weight at least: {new:?}"
        );
        let half = shares(policy, vec![100, 30]);
        assert!(
            (350..380).contains(&half[1]),
            "half of the weight: {half:?}"
        );
        let grown = shares(policy, vec![100, 60]);
        assert!(
            (500..600).contains(&grown[1]),
            "the whole weight: {grown:?}"
        );
    }
}

#[test]
fn ejected_hosts_get_nothing_unless_in_panic() {
    let istio = cluster(json!({"name": "c", "common_lb_config": {"healthy_panic_threshold": {}}}));
    let three = hosts(&[(0, "a", 0, &[1, 1, 1])]);
    let lb = LoadBalancer::new(&istio, three.clone(), &|host| host == 1, 0);
    assert_eq!(count(&lb, 100), [50, 0, 50]);
    assert_eq!(lb.healthy(), 2);
    let none = LoadBalancer::new(&istio, three.clone(), &|_| true, 0);
    assert_eq!(
        none.pick(&PickContext::default(), &(), &mut || 0),
        None,
        "no panic: UH"
    );
    let envoy = cluster(json!({"name": "c"}));
    let panic = LoadBalancer::new(&envoy, three, &|_| true, 0);
    assert!(panic.in_panic(0));
    assert_eq!(count(&panic, 300), [100, 100, 100]);
}

#[test]
fn traffic_fails_over_by_priority() {
    let istio = cluster(json!({"name": "c", "common_lb_config": {"healthy_panic_threshold": {}}}));
    let two = hosts(&[(0, "near", 0, &[1, 1]), (1, "far", 0, &[1, 1])]);
    let healthy = LoadBalancer::new(&istio, two.clone(), &nobody, 0);
    assert_eq!(count(&healthy, 100), [50, 50, 0, 0]);
    let half = LoadBalancer::new(&istio, two.clone(), &|host| host == 0, 0);
    assert_eq!(
        half.priority_loads().collect::<Vec<_>>(),
        [(70, 0), (30, 0)]
    );
    let counts = count(&half, 10_000);
    assert!(
        (6_800..7_200).contains(&counts[1]) && counts[0] == 0,
        "{counts:?}"
    );
    let away = LoadBalancer::new(&istio, two.clone(), &|host| host < 2, 0);
    assert_eq!(count(&away, 100), [0, 0, 50, 50]);
    let retry = PickContext {
        tried_priorities: &[0],
        ..Default::default()
    };
    assert!(
        healthy.pick(&retry, &(), &mut random(1)).expect("a host") >= 2,
        "previous_priorities"
    );
    let all = PickContext {
        tried_priorities: &[0, 1],
        ..Default::default()
    };
    assert!(healthy.pick(&all, &(), &mut random(1)).expect("a host") < 2);
}

#[test]
fn localities_share_by_weight() {
    let weighted = cluster(
        json!({"name": "c", "common_lb_config": {"healthy_panic_threshold": {}, "locality_weighted_lb_config": {}}}),
    );
    let set = hosts(&[(0, "a", 80, &[1, 1]), (0, "b", 20, &[1]), (0, "c", 0, &[1])]);
    let lb = LoadBalancer::new(&weighted, set.clone(), &nobody, 0);
    assert_eq!(count(&lb, 1000), [400, 400, 200, 0]);
    // Half of "a" is gone: 80 * 0.5 * 1.4 = 56 against 20.
    let lb = LoadBalancer::new(&weighted, set, &|host| host == 0, 0);
    assert_eq!(count(&lb, 760), [0, 560, 200, 0]);
}

#[test]
fn retries_avoid_hosts_that_were_tried() {
    let least = cluster(json!({"name": "c", "lb_policy": "RANDOM"}));
    let lb = LoadBalancer::new(&least, hosts(&[(0, "a", 0, &[1, 1])]), &nobody, 0);
    let mut draws = [0, 0, 1].into_iter();
    let again = PickContext {
        tried: &[0],
        reselections: 5,
        ..Default::default()
    };
    assert_eq!(
        lb.pick(&again, &(), &mut || draws.next().expect("a draw")),
        Some(1)
    );
    let one = LoadBalancer::new(&least, hosts(&[(0, "a", 0, &[1])]), &nobody, 0);
    assert_eq!(
        one.pick(&again, &(), &mut || 0),
        Some(0),
        "a tried host is better than none"
    );
}

#[test]
fn hashes_stick_to_hosts_and_little_moves_when_one_leaves() {
    for policy in [
        json!({"name": "c", "lb_policy": "RING_HASH"}),
        json!({"name": "c", "lb_policy": "MAGLEV"}),
    ] {
        let hashing = cluster(policy);
        let three = hosts(&[(0, "a", 0, &[1, 1, 1])]);
        let before = LoadBalancer::new(&hashing, three.clone(), &nobody, 0);
        let after = LoadBalancer::new(&hashing, three, &|host| host == 2, 0);
        let mut random = random(3);
        let (mut moved, mut counts) = (0, [0; 3]);
        for _ in 0..3000 {
            let context = PickContext {
                hash: Some(random()),
                ..Default::default()
            };
            let pick = |lb: &LoadBalancer| {
                lb.pick(&context, &(), &mut || panic!("no draw"))
                    .expect("a host")
            };
            let (old, new) = (pick(&before), pick(&after));
            assert_eq!(pick(&before), old, "sticky");
            counts[old] += 1;
            moved += usize::from(old != 2 && old != new);
        }
        assert!(
            counts.iter().all(|count| (700..1300).contains(count)),
            "{counts:?}"
        );
        // Maglev moves a few more than a ring, by design.
        assert!(moved < 400, "{moved} of 3000 moved without need");
    }
}
