//! What a store holds, and who is told about changes. No input or output here.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::mpsc;

use super::StoreEvent;

#[derive(Default)]
pub(super) struct Content {
    /// Namespace, then name.
    objects: BTreeMap<String, BTreeMap<String, Arc<Value>>>,
    subscribers: Vec<mpsc::UnboundedSender<StoreEvent>>,
}

impl Content {
    pub(super) fn get(&self, ns: &str, name: &str) -> Option<Arc<Value>> {
        self.objects.get(ns)?.get(name).cloned()
    }

    pub(super) fn list(&self) -> Vec<Arc<Value>> {
        self.objects
            .values()
            .flat_map(BTreeMap::values)
            .cloned()
            .collect()
    }

    pub(super) fn list_namespace(&self, ns: &str) -> Vec<Arc<Value>> {
        self.objects
            .get(ns)
            .into_iter()
            .flat_map(BTreeMap::values)
            .cloned()
            .collect()
    }

    pub(super) fn len(&self) -> usize {
        self.objects.values().map(BTreeMap::len).sum()
    }

    pub(super) fn subscribe(&mut self) -> mpsc::UnboundedReceiver<StoreEvent> {
        let (sender, receiver) = mpsc::unbounded_channel();
        for object in self.list() {
            // The receiver is in our hands; sending cannot fail.
            let _ = sender.send(StoreEvent::Added(object));
        }
        self.subscribers.push(sender);
        receiver
    }

    /// Takes over a complete list. Returns whether anything changed.
    pub(super) fn replace(&mut self, items: Vec<Value>) -> bool {
        let mut gone = std::mem::take(&mut self.objects);
        for object in gone.values().flat_map(BTreeMap::values) {
            let (ns, name) = key(object);
            self.objects
                .entry(ns.to_owned())
                .or_default()
                .insert(name.to_owned(), object.clone());
        }
        let mut changed = false;
        for item in items {
            let (ns, name) = key(&item);
            if let Some(names) = gone.get_mut(ns) {
                names.remove(name);
            }
            changed |= self.put(item);
        }
        for object in gone.into_values().flat_map(BTreeMap::into_values) {
            changed |= self.remove(&object);
        }
        changed
    }

    /// Adds or changes an object. Returns false when that state, or a later one, is known.
    pub(super) fn put(&mut self, object: Value) -> bool {
        let (ns, name) = key(&object);
        let known = self.get(ns, name);
        if let Some(old) = &known
            && same_uid(old, &object)
            && !is_newer(&object, old)
        {
            return false;
        }
        let new = Arc::new(object);
        let (ns, name) = key(&new);
        self.objects
            .entry(ns.to_owned())
            .or_default()
            .insert(name.to_owned(), new.clone());
        match known {
            None => self.tell(StoreEvent::Added(new)),
            Some(old) if same_uid(&old, &new) => self.tell(StoreEvent::Modified { old, new }),
            Some(old) => {
                // Deleted and made again while nobody looked.
                self.tell(StoreEvent::Deleted(old));
                self.tell(StoreEvent::Added(new));
            }
        }
        true
    }

    /// Removes an object. Returns false when it is unknown, or another one has its name now.
    pub(super) fn remove(&mut self, object: &Value) -> bool {
        let (ns, name) = key(object);
        let Some(names) = self.objects.get_mut(ns) else {
            return false;
        };
        if !names.get(name).is_some_and(|known| same_uid(known, object)) {
            return false;
        }
        names.remove(name);
        if names.is_empty() {
            self.objects.remove(ns);
        }
        self.tell(StoreEvent::Deleted(Arc::new(object.clone())));
        true
    }

    fn tell(&mut self, event: StoreEvent) {
        self.subscribers
            .retain(|subscriber| subscriber.send(event.clone()).is_ok());
    }
}

fn key(object: &Value) -> (&str, &str) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    (text("namespace"), text("name"))
}

fn same_uid(one: &Value, other: &Value) -> bool {
    one["metadata"]["uid"] == other["metadata"]["uid"]
}

/// Whether `new` is a later state than `old`. Versions are numbers that grow (KEP-5504); where
/// they are not, every difference counts as later.
fn is_newer(new: &Value, old: &Value) -> bool {
    let (new, old) = (version_of(new), version_of(old));
    match (version_number(&new), version_number(&old)) {
        (Some(new), Some(old)) => new > old,
        _ => new != old,
    }
}

pub(super) fn version_of(object: &Value) -> String {
    object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

pub(super) fn version_number(resource_version: &str) -> Option<u64> {
    resource_version.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(name: &str, uid: &str, version: u64) -> Value {
        json!({"metadata": {"namespace": "n", "name": name, "uid": uid, "resourceVersion": version.to_string()}})
    }

    fn drain(receiver: &mut mpsc::UnboundedReceiver<StoreEvent>) -> Vec<String> {
        std::iter::from_fn(|| receiver.try_recv().ok())
            .map(|event| {
                let kind = match &event {
                    StoreEvent::Added(_) => "+",
                    StoreEvent::Modified { .. } => "~",
                    StoreEvent::Deleted(_) => "-",
                };
                let metadata = &event.object()["metadata"];
                format!(
                    "{kind}{}{}",
                    metadata["name"].as_str().unwrap(),
                    metadata["resourceVersion"].as_str().unwrap()
                )
            })
            .collect()
    }

    #[test]
    fn a_subscriber_first_hears_what_is_there() {
        let mut content = Content::default();
        content.put(object("a", "1", 1));
        let mut events = content.subscribe();
        content.put(object("b", "2", 2));
        content.put(object("a", "1", 3));
        content.remove(&object("b", "2", 4));
        assert_eq!(drain(&mut events), ["+a1", "+b2", "~a3", "-b4"]);
        assert_eq!(content.len(), 1);
    }

    #[test]
    fn old_news_are_no_news() {
        let mut content = Content::default();
        assert!(content.put(object("a", "1", 5)));
        assert!(!content.put(object("a", "1", 5)));
        assert!(!content.put(object("a", "1", 4)));
        assert!(!content.remove(&object("b", "9", 6)));
    }

    #[test]
    fn a_relist_tells_only_the_differences() {
        let mut content = Content::default();
        for (name, uid) in [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")] {
            content.put(object(name, uid, 1));
        }
        let mut events = content.subscribe();
        drain(&mut events);
        // a unchanged, b changed, c gone, d made again, e new
        let list = vec![
            object("a", "1", 1),
            object("b", "2", 7),
            object("d", "5", 8),
            object("e", "6", 9),
        ];
        assert!(content.replace(list.clone()));
        assert_eq!(drain(&mut events), ["~b7", "-d1", "+d8", "+e9", "-c1"]);
        assert!(!content.replace(list));
        assert!(drain(&mut events).is_empty());
    }

    #[test]
    fn the_end_of_a_predecessor_does_not_remove_the_successor() {
        let mut content = Content::default();
        content.put(object("a", "2", 5));
        assert!(!content.remove(&object("a", "1", 6)));
        assert_eq!(content.len(), 1);
    }
}
