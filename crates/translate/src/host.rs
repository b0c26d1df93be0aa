//! Host names: completion of short names, wildcards, which of two is more specific.

use std::cmp::Ordering;

/// Completes a name without a dot to `<name>.<namespace>.svc.<domain>`. Everything with a dot, `*` and IP addresses stay.
pub(crate) fn resolve_short(name: &str, namespace: &str, domain: &str) -> String {
    if name == "*" || name.is_empty() || name.contains('.') || name.contains(':') {
        return name.to_owned();
    }
    format!("{name}.{namespace}.svc.{domain}")
}

/// Whether the name begins with a wildcard.
pub(crate) fn is_wildcard(host: &str) -> bool {
    host.starts_with('*')
}

/// Whether two hosts, either of which may be a wildcard, have a name in common.
pub(crate) fn matches(a: &str, b: &str) -> bool {
    match (is_wildcard(a), is_wildcard(b)) {
        (true, true) => {
            let (a, b) = (&a[1..], &b[1..]);
            a.ends_with(b) || b.ends_with(a)
        }
        (true, false) => b.ends_with(&a[1..]),
        (false, true) => a.ends_with(&b[1..]),
        (false, false) => a == b,
    }
}

/// Whether every name of `a` is a name of `b`.
pub(crate) fn subset_of(a: &str, b: &str) -> bool {
    match (is_wildcard(a), is_wildcard(b)) {
        (_, false) => a == b,
        (true, true) => a[1..].ends_with(&b[1..]),
        (false, true) => a.ends_with(&b[1..]),
    }
}

/// Order of wildcard hosts from the most to the least specific: exact before wildcard, longer before shorter, then by name.
pub(crate) fn by_specificity(a: &str, b: &str) -> Ordering {
    match (is_wildcard(a), is_wildcard(b)) {
        (false, true) => Ordering::Less,
        (true, false) => Ordering::Greater,
        _ => b.len().cmp(&a.len()).then_with(|| a.cmp(b)),
    }
}

/// Whether the text is an IPv4 or IPv6 address.
pub(crate) fn is_ip(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names() {
        assert_eq!(
            resolve_short("reviews", "shop", "cluster.local"),
            "reviews.shop.svc.cluster.local"
        );
        assert_eq!(
            resolve_short("reviews.shop", "x", "cluster.local"),
            "reviews.shop"
        );
        assert_eq!(resolve_short("*", "x", "cluster.local"), "*");
    }

    #[test]
    fn wildcards() {
        assert!(matches("*.foo.com", "a.foo.com"));
        assert!(matches("*", "a.foo.com"));
        assert!(matches("*.foo.com", "*.com"));
        assert!(!matches("*.foo.com", "foo.com"));
        assert!(subset_of("*.foo.com", "*.com"));
        assert!(!subset_of("*.com", "*.foo.com"));
        let mut hosts = vec!["*", "*.com", "a.com", "*.foo.com"];
        hosts.sort_by(|a, b| by_specificity(a, b));
        assert_eq!(hosts, ["a.com", "*.foo.com", "*.com", "*"]);
    }
}
