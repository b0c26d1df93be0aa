//! Roles and bindings as they are asked about with every request: read once, and again only what has been written since.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::Value;

use super::{Rights, Subject};
use crate::storage::{Cache, Stored};

/// The four kinds, in the order of [`Rights::read_at`].
const CLUSTER_ROLE_BINDINGS: usize = 0;
const ROLE_BINDINGS: usize = 1;
const CLUSTER_ROLES: usize = 2;
const ROLES: usize = 3;
const TABLES: [&str; 4] = [
    "rbac.authorization.k8s.io/clusterrolebindings",
    "rbac.authorization.k8s.io/rolebindings",
    "rbac.authorization.k8s.io/clusterroles",
    "rbac.authorization.k8s.io/roles",
];

/// A role: its rules.
pub(super) struct Role {
    revision: u64,
    pub rules: Vec<Value>,
}

/// A binding.
pub(super) struct Binding {
    revision: u64,
    /// Plural of its kind.
    pub plural: &'static str,
    /// `namespace/name`, or `name`.
    pub path: Arc<str>,
    pub subjects: Vec<Subject>,
    pub role_kind: String,
    pub role_name: String,
    role_path: String,
}

/// What is read of the objects of one kind.
pub(super) type Read<T> = HashMap<Arc<str>, Arc<T>>;

/// The rights as of the last write to a role or a binding.
#[derive(Default)]
pub(crate) struct Rbac(RwLock<Arc<Rights>>);

impl Rbac {
    /// The present rights: whoever has seen a write answered is judged by it.
    pub fn rights(&self, cache: &Cache) -> Arc<Rights> {
        // Before the objects: what is written meanwhile is read the next time.
        let now = cache.changed_at(&TABLES);
        let known = self.0.read().clone();
        if known.read_at == Some(now) {
            return known;
        }
        let rights = Arc::new(known.next(cache, now));
        *self.0.write() = rights.clone();
        rights
    }
}

impl Rights {
    fn next(&self, cache: &Cache, now: [u64; 4]) -> Self {
        fn all<T>(
            cache: &Cache,
            table: &str,
            known: &Read<T>,
            revision: impl Fn(&T) -> u64,
            read: impl Fn(&Arc<str>, &Stored) -> T,
        ) -> Read<T> {
            let (objects, _) = cache.list(table, "");
            objects
                .into_iter()
                .map(|(path, stored)| {
                    let same = known
                        .get(&path)
                        .filter(|known| revision(known) == stored.revision);
                    let one = match same {
                        Some(same) => same.clone(),
                        None => Arc::new(read(&path, &stored)),
                    };
                    (path, one)
                })
                .collect()
        }
        let roles = |at: usize, known: &Read<Role>| {
            all(
                cache,
                TABLES[at],
                known,
                |r| r.revision,
                |_, s| Role::read(s),
            )
        };
        let bindings = |at: usize, known: &[Arc<Binding>]| {
            let known = known.iter().map(|b| (b.path.clone(), b.clone())).collect();
            let read = |path: &Arc<str>, s: &Stored| Binding::read(at, path, s);
            let read = all(cache, TABLES[at], &known, |b| b.revision, read);
            let mut read: Vec<Arc<Binding>> = read.into_values().collect();
            read.sort_by(|a, b| a.path.cmp(&b.path));
            read
        };
        Self {
            read_at: Some(now),
            cluster_role_bindings: bindings(CLUSTER_ROLE_BINDINGS, &self.cluster_role_bindings),
            role_bindings: bindings(ROLE_BINDINGS, &self.role_bindings),
            cluster_roles: roles(CLUSTER_ROLES, &self.cluster_roles),
            roles: roles(ROLES, &self.roles),
        }
    }

    /// The bindings that hold in a namespace, or cluster-wide where it is empty: first those of the cluster.
    pub(super) fn bindings(&self, namespace: &str) -> impl Iterator<Item = &Arc<Binding>> {
        let inside = move |binding: &&Arc<Binding>| {
            let of = binding.path.split_once('/').map(|(of, _)| of);
            !namespace.is_empty() && of == Some(namespace)
        };
        let own = self.role_bindings.iter().filter(inside);
        self.cluster_role_bindings.iter().chain(own)
    }

    /// The role of a binding, if it is there.
    pub(super) fn role(&self, binding: &Binding) -> Option<&Role> {
        let roles = match binding.role_kind.as_str() {
            "ClusterRole" => &self.cluster_roles,
            _ => &self.roles,
        };
        roles.get(binding.role_path.as_str()).map(AsRef::as_ref)
    }
}

impl Role {
    fn read(stored: &Stored) -> Self {
        Self {
            revision: stored.revision,
            rules: stored.glance()["rules"]
                .as_array()
                .cloned()
                .unwrap_or_default(),
        }
    }
}

impl Binding {
    fn read(at: usize, path: &Arc<str>, stored: &Stored) -> Self {
        let object = stored.glance();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let namespace = path.split_once('/').map_or("", |(namespace, _)| namespace);
        let (role_kind, role_name) = (
            text(&object["roleRef"]["kind"]),
            text(&object["roleRef"]["name"]),
        );
        Self {
            revision: stored.revision,
            plural: TABLES[at].rsplit('/').next().unwrap_or_default(),
            path: path.clone(),
            subjects: object["subjects"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|subject| Subject::read(subject, namespace))
                .collect(),
            role_path: match role_kind.as_str() {
                "ClusterRole" => role_name.clone(),
                _ => format!("{namespace}/{role_name}"),
            },
            role_kind,
            role_name,
        }
    }
}
