//! Everything that is the same for all resources of one proxy.

use crate::access_log::AccessLogs;
use crate::sidecar_scope::Scope;
use crate::telemetry::Telemetry;
use crate::{Problem, ProxyInfo, Snapshot};
use api::istio::MeshProxyConfig;
use std::borrow::Cow;
use std::cell::RefCell;

/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ListenerClass {
    SidecarOutbound,
    SidecarInbound,
    Gateway,
}

/// One proxy at one moment.
pub(crate) struct Context<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) proxy: &'a ProxyInfo,
    pub(crate) scope: Scope<'a>,
    pub(crate) proxy_config: Cow<'a, MeshProxyConfig>,
    pub(crate) telemetry: Telemetry<'a>,
    pub(crate) logs: AccessLogs,
    pub(crate) problems: RefCell<Vec<Problem>>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, proxy: &'a ProxyInfo) -> Self {
        let scope = Scope::new(snapshot, proxy);
        let proxy_config = match (&proxy.proxy_config, &snapshot.mesh.default_config) {
            (Some(own), _) => Cow::Borrowed(own),
            (None, Some(mesh)) => Cow::Borrowed(mesh),
            (None, None) => Cow::Owned(MeshProxyConfig::default()),
        };
        let telemetry = Telemetry::new(snapshot, proxy);
        let logs = AccessLogs::new(snapshot, &telemetry, &scope);
        Self {
            snapshot,
            proxy,
            scope,
            proxy_config,
            telemetry,
            logs,
            problems: RefCell::default(),
        }
    }

    pub(crate) fn problem(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// Whether requests carry the host that the client asked for.
    pub(crate) fn x_forwarded_host(&self) -> bool {
        let headers = self.proxy_config.proxy_headers.as_ref();
        headers
            .and_then(|headers| headers.x_forwarded_host.as_ref())
            .is_some_and(|switch| switch.enabled == Some(true))
    }

    /// The namespace of the configuration that counts for this proxy.
    pub(crate) fn namespace(&self) -> &'a str {
        &self.proxy.namespace
    }
}
