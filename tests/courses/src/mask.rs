//! Takes out of kubectl's output what differs from one cluster and moment to the next: ages, times, identities,
//! addresses, generated names, versions. Pure.

use std::sync::LazyLock;

use regex::Regex;

/// What is replaced, in this order.
static MASKS: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    [
        // Escapes of terminals.
        (r"\x1b\[[0-9;]*m", ""),
        // Time and process of kubectl's own log lines.
        (r"(?m)^([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ ", "$1 "),
        // The kubeconfig, and the name of its context.
        (r"/tmp/\S+/(kube)?config\b", "CONFIG"),
        (r#"Context "(peer|ctx1)""#, "Context CONTEXT"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "TIME"),
        (r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}", "TIME"),
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UID"),
        (r"https://[\w.:\[\]-]+:\d+", "SERVER"),
        (r#"(resourceVersion(?:\\?"){0,2}: ?|Resource Version: +)(?:\\?")?\d+(?:\\?")?"#, "${1}RV"),
        (r"\b(ctx[12]-node-1|node-[12])\b", "NODE"),
        (r"\b\d{1,3}(\.\d{1,3}){3}(/\d+)?\b", "IP"),
        (r"\b3[0-2]\d{3}\b", "NODEPORT"),
        (r"v1\.3\d\.\d+[\w.+-]*", "VERSION"),
        // Deployment-hash-pod, then names with a generated end.
        (r"\b([a-z][a-z0-9-]*?)-[bcdf0-9]?[bcdfghjklmnpqrstvwxz2456789]{6,9}[0-9a-z]?-[bcdfghjklmnpqrstvwxz2456789]{5}\b", "$1-HASH-POD"),
        (r"\b(pod-template-hash[=:] ?)[a-z0-9]{6,10}\b", "${1}HASH"),
        (r"\b([a-z][a-z0-9-]*?)-([bcdf0-9]?[bcdfghjklmnpqrstvwxz2456789]{8,10})\b", "$1-HASH"),
        (r"\b([a-z][a-z0-9]*)-[bcdfghjklmnpqrstvwxz2456789]{5}\b", "$1-RANDOM"),
        (r"\b\d+(m\d+s|h\d+m|d\d+h|ms|s|m|h|d)\b", "AGE"),
        (r"<invalid>", "AGE"),
        (r"[ \t]+", " "),
        (r"(?m) +$", ""),
        (r"-{3,}", "---"),
    ]
    .into_iter()
    .map(|(pattern, by)| (Regex::new(pattern).expect("the expression is well-formed"), by))
    .collect()
});

/// `text` with all of that taken out.
#[must_use]
pub fn mask(text: &str) -> String {
    let mut masked = text.to_owned();
    for (expression, by) in MASKS.iter() {
        masked = expression.replace_all(&masked, *by).into_owned();
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_by_chance_is_the_same_afterwards() {
        for (one, other) in [
            (
                "web-6d8c7b4f59-x7k2p   1/1     Running   0          3m12s   10.10.0.4\n",
                "web-7c5ddbdf54-abcde   1/1     Running   0          5s   10.244.0.12\n"
                    .replace("abcde", "bcdfg")
                    .leak() as &str,
            ),
            (
                "creationTimestamp: \"2026-11-29T19:12:11Z\"\nresourceVersion: \"12\"\nuid: 0d3f7e3e-9c3c-4c55-8f6e-0b6f1c2d3e4f",
                "creationTimestamp: \"2025-01-01T00:00:00Z\"\nresourceVersion: \"99999\"\nuid: 1d3f7e3e-9c3c-4c55-8f6e-0b6f1c2d3e4f",
            ),
        ] {
            assert_eq!(mask(one), mask(other));
        }
    }

    #[test]
    fn what_matters_stays() {
        assert_ne!(mask("replicas: 2"), mask("replicas: 3"));
        assert_ne!(mask("pods \"a\" not found"), mask("pods \"b\" not found"));
        assert_ne!(mask("web 1/1 Running"), mask("web 0/1 Running"));
    }
}
