//! Who answers: the service, its pod and its cluster.

/// Who a process is, as its answers say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The service's name: header `X-Service-Name`.
    pub service: String,
    /// The cluster: header `X-Service-Cluster`.
    pub cluster: String,
    /// The pod: header `X-Pod-Name`.
    pub pod: String,
}

impl Identity {
    /// The identity for the given environment: the cluster is `CLUSTER_NAME`, else the one that
    /// the pod's name contains, else `unknown`; the pod is `HOSTNAME`.
    pub fn from_environment(service: &str, variable: impl Fn(&str) -> Option<String>) -> Self {
        let pod = variable("HOSTNAME")
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "unknown".into());
        let cluster = variable("CLUSTER_NAME")
            .filter(|name| !name.is_empty())
            .or_else(|| {
                ["ctx1", "ctx2"]
                    .into_iter()
                    .find(|name| pod.contains(name))
                    .map(Into::into)
            })
            .unwrap_or_else(|| "unknown".into());
        Self {
            service: service.into(),
            cluster,
            pod,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(pairs: &[(&str, &str)]) -> Identity {
        Identity::from_environment("user-service", |name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_cluster_is_told_else_read_from_the_pod_name_else_unknown() {
        assert_eq!(
            identity(&[("CLUSTER_NAME", "ctx2"), ("HOSTNAME", "user-ctx1-x")]).cluster,
            "ctx2"
        );
        assert_eq!(identity(&[("HOSTNAME", "user-ctx1-x")]).cluster, "ctx1");
        assert_eq!(identity(&[("HOSTNAME", "laptop")]).cluster, "unknown");
        assert_eq!(identity(&[]).pod, "unknown");
    }
}
