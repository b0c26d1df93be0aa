use serde_json::json;

use super::*;

fn table() -> Arc<str> {
    "core/configmaps".into()
}

fn object(name: &str, n: u64) -> Value {
    json!({"metadata": {"name": name, "namespace": "d"}, "data": {"n": n.to_string()}})
}

async fn put(s: &Storage, name: &str, expect: Expect, n: u64) -> Result<Arc<Stored>, WriteError> {
    s.write(
        Key::new(&table(), "d", name),
        expect,
        Change::Put(object(name, n)),
    )
    .await
}

#[test]
fn keys_survive_the_way_to_disk_and_back() {
    for (ns, name) in [("d", "a"), ("", "node-1")] {
        let key = Key::new(&table(), ns, name);
        assert_eq!(Key::parse(&key.to_string()), Some(key));
    }
    assert_eq!(Key::parse("/other/x"), None);
}

#[test]
fn the_metadata_of_an_object_is_found_in_its_text() {
    for value in [
        json!({"kind": "K", "metadata": {"name": "a \"b\"", "labels": {}}, "spec": {"metadata": 1}}),
        json!({"spec": [], "metadata": {}}),
        json!({"kind": "K"}),
        json!({}),
        json!([1]),
    ] {
        let Encoded {
            bytes: text,
            metadata,
            ..
        } = encode(&value);
        assert_eq!(String::from_utf8(text.clone()).unwrap(), value.to_string());
        let expected = value
            .get("metadata")
            .map_or(String::new(), Value::to_string);
        assert_eq!(std::str::from_utf8(&text[metadata]).unwrap(), expected);
    }
}

#[test]
fn kind_and_version_come_first_and_can_be_left_out() {
    for (value, whole, without) in [
        (
            json!({"data": 1, "apiVersion": "v1", "kind": "K"}),
            r#"{"kind":"K","apiVersion":"v1","data":1}"#,
            r#""data":1}"#,
        ),
        (json!({"apiVersion": "v1"}), r#"{"apiVersion":"v1"}"#, "}"),
        (
            json!({"data": {"kind": 1}}),
            r#"{"data":{"kind":1}}"#,
            r#""data":{"kind":1}}"#,
        ),
        (json!({}), "{}", "}"),
    ] {
        let stored = Stored::of(value, 1);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        assert_eq!(text(&stored.bytes), whole);
        assert_eq!(text(stored.without_type()), without);
    }
}

#[tokio::test]
async fn compare_and_swap_lets_one_of_two_writers_win() {
    let dir = tempfile::tempdir().unwrap();
    let (s, _writer) = Storage::open(dir.path()).unwrap();
    let first = put(&s, "a", Expect::Absent, 1).await.unwrap();
    assert_eq!(
        put(&s, "a", Expect::Absent, 1).await.unwrap_err(),
        WriteError::Exists
    );
    let (x, y) = tokio::join!(
        put(&s, "a", Expect::Revision(first.revision), 2),
        put(&s, "a", Expect::Revision(first.revision), 3)
    );
    assert!(x.is_ok() != y.is_ok(), "exactly one write wins");
    assert_eq!(x.and(y).unwrap_err(), WriteError::Changed);
    assert_eq!(
        put(&s, "gone", Expect::Revision(1), 1).await.unwrap_err(),
        WriteError::Missing
    );
}

#[tokio::test]
async fn acknowledged_writes_are_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (s, writer) = Storage::open(dir.path()).unwrap();
    let names: Vec<String> = (0..200).map(|i| format!("o{i}")).collect();
    futures::future::try_join_all(names.iter().map(|n| put(&s, n, Expect::Absent, 1)))
        .await
        .unwrap();
    let revision = s.cache().revision();
    drop(s);
    writer.join().unwrap();
    let (s, _writer) = Storage::open(dir.path()).unwrap();
    assert_eq!(s.cache().revision(), revision);
    let (items, _) = s.cache().list("core/configmaps", "d/");
    assert_eq!(items.len(), 200);
    assert_eq!(
        items[0].1.value()["metadata"]["resourceVersion"],
        items[0].1.revision.to_string()
    );
    // Nothing is known about the time before the start.
    assert!(s.cache().since("core/configmaps", revision - 1).is_err());
    assert!(s.cache().since("core/configmaps", revision).is_ok());
}

#[tokio::test]
async fn the_past_can_be_listed_while_it_is_in_the_history() {
    let dir = tempfile::tempdir().unwrap();
    let (s, _writer) = Storage::open(dir.path()).unwrap();
    let a = put(&s, "a", Expect::Absent, 1).await.unwrap();
    let b = put(&s, "b", Expect::Absent, 1).await.unwrap();
    let a2 = put(&s, "a", Expect::Revision(a.revision), 2).await.unwrap();
    s.write(
        Key::new(&table(), "d", "b"),
        Expect::Revision(b.revision),
        Change::Delete(None),
    )
    .await
    .unwrap();
    let names = |rev| -> Vec<(Arc<str>, u64)> {
        s.cache()
            .list_at("core/configmaps", "d/", rev)
            .unwrap()
            .into_iter()
            .map(|(k, v)| (k, v.revision))
            .collect()
    };
    assert_eq!(names(a.revision), [("d/a".into(), a.revision)]);
    assert_eq!(
        names(b.revision),
        [("d/a".into(), a.revision), ("d/b".into(), b.revision)]
    );
    assert_eq!(names(s.cache().revision()), [("d/a".into(), a2.revision)]);
}

#[tokio::test]
async fn events_come_once_each_in_order_and_old_ones_expire() {
    let dir = tempfile::tempdir().unwrap();
    let (s, _writer) = Storage::open(dir.path()).unwrap();
    let mut changed = s.cache().subscribe("core/configmaps");
    let start = s.cache().revision();
    let filler = "x".repeat(40_000);
    let mut last = put(&s, "a", Expect::Absent, 0).await.unwrap();
    changed.changed().await.unwrap();
    for _ in 0..400 {
        let value = json!({"metadata": {"name": "a"}, "data": {"f": filler}});
        last = s
            .write(
                Key::new(&table(), "d", "a"),
                Expect::Revision(last.revision),
                Change::Put(value),
            )
            .await
            .unwrap();
    }
    assert!(matches!(
        s.cache().since("core/configmaps", start),
        Err(TooOld { .. })
    ));
    let batch = s
        .cache()
        .since("core/configmaps", last.revision - 100)
        .unwrap();
    let seen: Vec<u64> = batch.events.iter().map(|e| e.revision).collect();
    let want: Vec<u64> = (last.revision - 99..=last.revision).collect();
    assert_eq!(seen, want);
    assert_eq!(batch.upto, last.revision);
}

#[tokio::test]
async fn values_are_kept_of_what_is_new_or_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (s, _writer) = Storage::open(dir.path()).unwrap();
    let filler = "x".repeat(10_000);
    for i in 0..60 {
        let value = json!({"metadata": {"name": format!("o{i}")}, "data": {"f": filler}});
        let key = Key::new(&table(), "d", &format!("o{i}"));
        s.write(key, Expect::Absent, Change::Put(value))
            .await
            .unwrap();
    }
    let get = |i: usize| {
        let key = Key::new(&table(), "d", &format!("o{i}"));
        s.cache().get(&key).unwrap()
    };
    let kept = |i: usize| get(i).value.get().is_some();
    assert!(kept(59) && !kept(0));
    assert_eq!(get(0).glance()["metadata"]["name"], "o0");
    assert!(!kept(0), "a glance keeps nothing");
    assert_eq!(get(0).value()["metadata"]["name"], "o0");
    assert!(kept(0));
    s.cache().cool();
    assert!(kept(0), "it was asked for since");
    s.cache().cool();
    assert!(!kept(0) && !kept(59));
    // The history forgets with the objects, and watchers see the same.
    let batch = s.cache().since("core/configmaps", get(0).revision).unwrap();
    assert_eq!(batch.events.len(), 59);
    let old = &batch.events[0].object;
    assert!(old.value.get().is_none());
    assert_eq!(old.glance()["data"]["f"], filler.as_str());
    assert!(batch.events[58].object.value.get().is_some());
}
