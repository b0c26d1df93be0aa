//! What names and metadata of resources say about where they come from.

use std::cmp::Ordering;

use serde_json::Value;

/// `DIRECTION|PORT|SUBSET|HOST`, or another name, which then is the host.
#[derive(Debug, PartialEq, Eq)]
pub struct ClusterName<'a> {
    /// `inbound`, `outbound`, or empty.
    pub direction: &'a str,
    /// Port of the service; 0 where there is none.
    pub port: i64,
    /// Subset; empty: none.
    pub subset: &'a str,
    /// Host name of the service, or the whole name.
    pub host: &'a str,
}

impl<'a> ClusterName<'a> {
    /// Takes the name of a cluster apart.
    pub fn parse(name: &'a str) -> Self {
        Self::structured(name).unwrap_or(Self {
            direction: "",
            port: 0,
            subset: "",
            host: name,
        })
    }

    /// As [`ClusterName::parse`], for names with at least three bars; those of gateways that pass TLS on have
    /// dots and underscores instead.
    pub fn structured(name: &'a str) -> Option<Self> {
        let parts: Vec<&str> = name.split('|').collect();
        if parts.len() < 4 {
            return None;
        }
        Some(Self {
            direction: parts[0].strip_suffix("-vip").unwrap_or(parts[0]),
            port: parts[1].parse().unwrap_or(0),
            subset: parts[2],
            host: parts[3],
        })
    }

    /// By host, subset, port, direction.
    pub fn order(&self, other: &Self) -> Ordering {
        self.host
            .cmp(other.host)
            .then(self.subset.cmp(other.subset))
            .then(self.port.cmp(&other.port))
            .then(self.direction.cmp(other.direction))
    }
}

/// The Istio object a resource was made from: `NAME.NAMESPACE`.
pub fn managed_by(metadata: &Value) -> String {
    let Some(config) = metadata["filter_metadata"]["istio"]
        .as_object()
        .and_then(|istio| istio.get("config"))
    else {
        return String::new();
    };
    let path = config.as_str().unwrap_or_default();
    if !path.starts_with("/apis/networking.istio.io/") {
        return "<unknown>".to_owned();
    }
    match path.split('/').collect::<Vec<_>>()[..] {
        [_, _, _, _, _, namespace, _, name] => format!("{name}.{namespace}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_of_clusters_are_taken_apart() {
        let name = ClusterName::parse("outbound|80|v1|a.b.svc.cluster.local");
        assert_eq!(
            (name.direction, name.port, name.subset, name.host),
            ("outbound", 80, "v1", "a.b.svc.cluster.local")
        );
        assert_eq!(ClusterName::parse("agent").host, "agent");
        assert_eq!(ClusterName::structured("a|b"), None);
    }

    #[test]
    fn metadata_names_the_object() {
        let metadata = |path: &str| json!({"filter_metadata": {"istio": {"config": path}}});
        let path = "/apis/networking.istio.io/v1/namespaces/shop/destination-rule/basket";
        assert_eq!(managed_by(&metadata(path)), "basket.shop");
        assert_eq!(managed_by(&metadata("/elsewhere")), "<unknown>");
        assert_eq!(managed_by(&json!(null)), "");
    }
}
