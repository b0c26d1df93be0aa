//! Host names of services.

const SUFFIX: &str = ".svc.cluster.local";

/// A host within a scope of namespaces: `*/basket.shop.svc.cluster.local`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScopedHost {
    /// The namespace that sees it; `*` for all.
    pub scope: String,
    /// The full host name.
    pub host: String,
}

impl ScopedHost {
    /// The host `host`, as somebody in `namespace` writes it, in `scope`.
    #[must_use]
    pub fn new(scope: &str, namespace: &str, host: &str) -> Self {
        Self {
            scope: scope.to_owned(),
            host: full_host(namespace, host),
        }
    }
}

impl std::fmt::Display for ScopedHost {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.scope, self.host)
    }
}

/// Makes a short name a full one; names with a dot and wildcards are taken as full.
#[must_use]
pub fn full_host(namespace: &str, host: &str) -> String {
    if host.starts_with('*') || host.contains('.') {
        host.to_owned()
    } else {
        format!("{host}.{namespace}{SUFFIX}")
    }
}

/// Namespace and name of the service with this host: a full name names both, anything else is a name in `namespace`.
#[must_use]
pub fn service_of_host<'a>(namespace: &'a str, host: &'a str) -> (&'a str, &'a str) {
    host.strip_suffix(SUFFIX)
        .and_then(|rest| rest.rsplit_once('.'))
        .filter(|(name, namespace)| !name.is_empty() && !namespace.is_empty())
        .map_or((namespace, host), |(name, namespace)| (namespace, name))
}

/// Whether two hosts, each possibly with a leading `*`, have a host in common.
#[must_use]
pub fn hosts_meet(one: &str, other: &str) -> bool {
    match (one.strip_prefix('*'), other.strip_prefix('*')) {
        (Some(one), Some(other)) => {
            if one.len() < other.len() {
                other.ends_with(one)
            } else {
                one.ends_with(other)
            }
        }
        (Some(one), None) => other.ends_with(one),
        (None, Some(other)) => one.ends_with(other),
        (None, None) => one == other,
    }
}

/// Namespace and name of an object that somebody in `namespace` names, possibly with its namespace before a slash.
#[must_use]
pub fn short_or_full_name<'a>(namespace: &'a str, name: &'a str) -> (&'a str, &'a str) {
    name.split_once('/').unwrap_or((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_completed_and_taken_apart() {
        assert_eq!(full_host("shop", "basket"), "basket.shop.svc.cluster.local");
        assert_eq!(full_host("shop", "basket.other"), "basket.other");
        assert_eq!(full_host("shop", "*"), "*");
        assert_eq!(
            service_of_host("a", "basket.shop.svc.cluster.local"),
            ("shop", "basket")
        );
        assert_eq!(service_of_host("a", "basket.shop"), ("a", "basket.shop"));
    }

    #[test]
    fn wildcards_meet() {
        assert!(hosts_meet("*.example", "www.example"));
        assert!(hosts_meet("*", "*.example"));
        assert!(!hosts_meet("*.example", "www.other"));
    }
}
