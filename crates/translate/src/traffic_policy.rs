//! The policy of a DestinationRule for one port and one subset.

use api::istio::{
    ClientTlsSettings, ConnectionPoolSettings, DestinationRule, LoadBalancerSettings,
    MeshTrafficPolicy, OutlierDetection, PortTrafficPolicy, ProxyProtocol, RetryBudget,
    TrafficPolicy, TunnelSettings,
};

/// The blocks that count.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Policy<'a> {
    pub(crate) pool: Option<&'a ConnectionPoolSettings>,
    pub(crate) load_balancer: Option<&'a LoadBalancerSettings>,
    pub(crate) outlier: Option<&'a OutlierDetection>,
    pub(crate) tls: Option<&'a ClientTlsSettings>,
    pub(crate) tunnel: Option<&'a TunnelSettings>,
    pub(crate) proxy_protocol: Option<&'a ProxyProtocol>,
    pub(crate) retry_budget: Option<&'a RetryBudget>,
}

/// The entry of a policy for one port.
pub(crate) fn port_entry(policy: &TrafficPolicy, port: u32) -> Option<&PortTrafficPolicy> {
    policy.port_level_settings.iter().find(|entry| {
        entry
            .port
            .as_ref()
            .is_some_and(|selector| selector.number == port)
    })
}

impl<'a> Policy<'a> {
    /// The policy of the whole rule for a port. An entry for the port replaces everything.
    pub(crate) fn of_rule(rule: Option<&'a DestinationRule>, port: u32) -> Self {
        rule.and_then(|rule| rule.traffic_policy.as_ref())
            .map_or_else(Self::default, |policy| Self::for_port(policy, port))
    }

    fn for_port(policy: &'a TrafficPolicy, port: u32) -> Self {
        match port_entry(policy, port) {
            Some(entry) => Self {
                pool: entry.connection_pool.as_ref(),
                load_balancer: entry.load_balancer.as_ref(),
                outlier: entry.outlier_detection.as_ref(),
                tls: entry.tls.as_ref(),
                ..Self::default()
            },
            None => Self {
                pool: policy.connection_pool.as_ref(),
                load_balancer: policy.load_balancer.as_ref(),
                outlier: policy.outlier_detection.as_ref(),
                tls: policy.tls.as_ref(),
                tunnel: policy.tunnel.as_ref(),
                proxy_protocol: policy.proxy_protocol.as_ref(),
                retry_budget: policy.retry_budget.as_ref(),
            },
        }
    }

    /// The policy with the mesh's defaults for the blocks that it lacks. Those of a subset come after them.
    pub(crate) fn or_of_mesh(self, defaults: Option<&'a MeshTrafficPolicy>) -> Self {
        let Some(defaults) = defaults else {
            return self;
        };
        Self {
            pool: self.pool.or(defaults.connection_pool.as_ref()),
            outlier: self.outlier.or(defaults.outlier_detection.as_ref()),
            ..self
        }
    }

    /// The policy of a subset for a port: its own blocks replace those of the rule; of an entry for the port also those that it lacks.
    pub(crate) fn with_subset(self, subset: Option<&'a TrafficPolicy>, port: u32) -> Self {
        let Some(subset) = subset else {
            return Self {
                tunnel: None,
                ..self
            };
        };
        if let Some(entry) = port_entry(subset, port) {
            return Self {
                pool: entry.connection_pool.as_ref(),
                load_balancer: entry.load_balancer.as_ref(),
                outlier: entry.outlier_detection.as_ref(),
                tls: entry.tls.as_ref(),
                ..self
            };
        }
        Self {
            pool: subset.connection_pool.as_ref().or(self.pool),
            load_balancer: subset.load_balancer.as_ref().or(self.load_balancer),
            outlier: subset.outlier_detection.as_ref().or(self.outlier),
            tls: subset.tls.as_ref().or(self.tls),
            tunnel: subset.tunnel.as_ref(),
            proxy_protocol: subset.proxy_protocol.as_ref().or(self.proxy_protocol),
            retry_budget: subset.retry_budget.as_ref().or(self.retry_budget),
        }
    }
}

/// The subset of a rule by name.
pub(crate) fn subset<'a>(rule: &'a DestinationRule, name: &str) -> Option<&'a api::istio::Subset> {
    rule.subsets.iter().find(|subset| subset.name == name)
}
