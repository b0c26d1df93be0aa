//! What must be true of every patch, tried with random objects from fixed seeds.

use serde_json::{Map, Value, json};
use theater_api::patch::{self, Writer};
use theater_api::schema::ObjectSchema;
use theater_api::scheme;

/// Always the same numbers (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).unwrap()
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// Some labels, containers and variables of a Deployment that one manager is interested in.
fn deployment(random: &mut Random, own: &[&str]) -> Value {
    let mut labels = Map::new();
    let mut containers = Vec::new();
    for name in own {
        if random.coin() {
            labels.insert(format!("l-{name}"), random.below(3).to_string().into());
        }
        if random.coin() {
            let env: Vec<Value> = (0..random.below(3))
                .map(|i| json!({"name": format!("V{i}"), "value": random.below(3).to_string()}))
                .collect();
            containers
                .push(json!({"name": name, "image": format!("i:{}", random.below(3)), "env": env}));
        }
    }
    let mut o = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d", "labels": labels},
        "spec": {"template": {"spec": {"containers": containers}}}});
    if random.coin() {
        o["spec"]["replicas"] = random.below(5).into();
    }
    o
}

fn schema() -> ObjectSchema {
    ObjectSchema::of(&scheme::find_kind("apps", "v1", "Deployment").unwrap()).unwrap()
}

fn apply(schema: &ObjectSchema, live: Option<&Value>, o: &Value, manager: &str) -> Value {
    let writer = Writer {
        manager,
        subresource: "",
        now: "2030-01-01T00:00:00Z",
    };
    patch::apply(schema, live, o, writer, true).unwrap()
}

#[test]
fn applying_twice_is_applying_once() {
    let schema = schema();
    let mut random = Random(7);
    for round in 0..300 {
        let first = deployment(&mut random, &["a", "b"]);
        let other = deployment(&mut random, &["b", "c"]);
        let live = apply(&schema, None, &first, "one");
        let once = apply(&schema, Some(&live), &other, "two");
        let twice = apply(&schema, Some(&once), &other, "two");
        assert_eq!(once, twice, "round {round}: {first} {other}");
    }
}

#[test]
fn what_another_one_owns_stays() {
    let schema = schema();
    let mut random = Random(11);
    for round in 0..300 {
        let mine = deployment(&mut random, &["a", "b"]);
        let theirs = deployment(&mut random, &["x", "y"]);
        let live = apply(&schema, None, &theirs, "they");
        let both = apply(&schema, Some(&live), &mine, "me");
        // Then nothing of mine is wanted any more.
        let bare =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}});
        let after = apply(&schema, Some(&both), &bare, "me");
        let containers = |o: &Value| -> Vec<Value> {
            o["spec"]["template"]["spec"]["containers"]
                .as_array()
                .cloned()
                .unwrap_or_default()
        };
        // Defaults may have been added to a container; what was said of it stands.
        let kept = |o: &Value, container: &Value| {
            containers(o)
                .iter()
                .any(|now| now["name"] == container["name"] && now["image"] == container["image"])
        };
        for container in containers(&theirs) {
            assert!(kept(&both, &container), "round {round}: {both}");
            assert!(kept(&after, &container), "round {round}: {after}");
        }
        for container in containers(&mine) {
            let name = &container["name"];
            assert!(
                !containers(&after).iter().any(|c| c["name"] == *name),
                "round {round}: {after}"
            );
        }
        for (key, value) in theirs["metadata"]["labels"].as_object().unwrap() {
            assert_eq!(&after["metadata"]["labels"][key], value, "round {round}");
        }
        for key in mine["metadata"]["labels"].as_object().unwrap().keys() {
            assert!(
                after["metadata"]["labels"][key].is_null(),
                "round {round}: {after}"
            );
        }
    }
}

#[test]
fn a_strategic_patch_twice_is_the_patch_once_and_keeps_other_containers() {
    let schema = schema();
    let mut random = Random(13);
    for round in 0..300 {
        let live = deployment(&mut random, &["a", "b", "c"]);
        let change = deployment(&mut random, &["b"]);
        let once = patch::strategic(&schema, &live, &change).unwrap();
        let twice = patch::strategic(&schema, &once, &change).unwrap();
        assert_eq!(once, twice, "round {round}: {live} {change}");
        let named = |o: &Value, name: &str| {
            o["spec"]["template"]["spec"]["containers"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|c| c["name"] == name)
                .cloned()
        };
        for name in ["a", "c"] {
            assert_eq!(named(&once, name), named(&live, name), "round {round}");
        }
    }
}

/// Any value, three levels deep.
fn any(random: &mut Random, depth: usize) -> Value {
    match random.below(if depth == 0 { 3 } else { 5 }) {
        0 => random.below(3).into(),
        1 => ["x", "y", "z"][random.below(3)].into(),
        2 => random.coin().into(),
        3 => (0..random.below(3))
            .map(|_| any(random, depth - 1))
            .collect(),
        _ => {
            let mut map = Map::new();
            for _ in 0..random.below(4) {
                let key = ["a", "b", "c", "d"][random.below(4)];
                let value = any(random, depth - 1);
                map.insert(key.into(), value);
            }
            Value::Object(map)
        }
    }
}

#[test]
fn a_merge_patch_follows_its_rfc() {
    let mut random = Random(17);
    for round in 0..2000 {
        let object = any(&mut random, 3);
        let patch = any(&mut random, 3);
        let once = patch::merge(&object, &patch);
        assert_eq!(
            patch::merge(&once, &patch),
            once,
            "round {round}: {object} {patch}"
        );
        if let (Some(old), Some(change), Some(new)) =
            (object.as_object(), patch.as_object(), once.as_object())
        {
            for (key, value) in old.iter().filter(|(key, _)| !change.contains_key(*key)) {
                assert_eq!(new.get(key), Some(value), "round {round}: {object} {patch}");
            }
        }
    }
}
