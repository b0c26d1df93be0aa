//! Everything that is the same for all resources of one proxy.

use crate::access_log::AccessLogs;
use crate::objects::Config;
use crate::registry::endpoint_index::AddressUse;
use crate::registry::kubernetes::Pod;
use crate::registry::{Endpoint, Service, service_entry};
use crate::sidecar_scope::Scope;
use crate::telemetry::Telemetry;
use crate::{Problem, ProxyInfo, Snapshot};
use api::istio::{ConnectionProfile, ConnectionSettings, MeshProxyConfig, WorkloadEntry};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ListenerClass {
    SidecarOutbound,
    SidecarInbound,
    Gateway,
}

/// What a proxy's resources were made from, of that which changes with pods and endpoints. The clusters of a service and
/// their load assignments also come from the endpoints of that service, which is not written down.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reads {
    /// Hosts in lower case.
    pub(crate) hosts: BTreeSet<String>,
    /// Addresses for which services were looked for.
    pub(crate) addresses: BTreeSet<String>,
    /// Cluster and address of pods that were looked for.
    pub(crate) pods: BTreeSet<(String, String)>,
}

/// One proxy at one moment.
pub(crate) struct Context<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) proxy: &'a ProxyInfo,
    pub(crate) scope: Scope<'a>,
    pub(crate) proxy_config: Cow<'a, MeshProxyConfig>,
    /// Limits of downstream connections, with the defaults of the profile.
    pub(crate) connections: Option<ConnectionSettings>,
    pub(crate) telemetry: Telemetry<'a>,
    pub(crate) logs: AccessLogs,
    pub(crate) problems: RefCell<Vec<Problem>>,
    pub(crate) reads: RefCell<Reads>,
    /// The host in lower case whose clusters are being built.
    building: RefCell<Option<String>>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, proxy: &'a ProxyInfo) -> Self {
        let scope = Scope::new(snapshot, proxy);
        let proxy_config = match (&proxy.proxy_config, &snapshot.mesh.default_config) {
            (Some(own), _) => Cow::Borrowed(own),
            (None, Some(mesh)) => Cow::Borrowed(mesh),
            (None, None) => Cow::Owned(MeshProxyConfig::default()),
        };
        let mesh = snapshot.mesh.default_config.as_ref();
        let connections = proxy_config
            .connection_settings
            .as_ref()
            .or_else(|| mesh?.connection_settings.as_ref())
            .map(|settings| with_profile(settings.clone(), proxy.is_router()));
        let telemetry = Telemetry::new(snapshot, proxy);
        let logs = AccessLogs::new(snapshot, &telemetry);
        Self {
            snapshot,
            proxy,
            scope,
            proxy_config,
            connections,
            telemetry,
            logs,
            problems: RefCell::default(),
            reads: RefCell::default(),
            building: RefCell::default(),
        }
    }

    /// Builds the clusters of a service: what is read of its endpoints meanwhile concerns nothing else.
    pub(crate) fn clusters_of<T>(&self, service: &Service, build: impl FnOnce() -> T) -> T {
        self.building
            .replace(Some(service.host.to_ascii_lowercase()));
        let out = build();
        self.building.replace(None);
        out
    }

    fn reads_host(&self, service: &Service) {
        let host = service.host.to_ascii_lowercase();
        if self.building.borrow().as_ref() != Some(&host) {
            self.reads.borrow_mut().hosts.insert(host);
        }
    }

    /// The endpoints of a service.
    pub(crate) fn endpoints_of(&self, service: &Service) -> &'a [Endpoint] {
        self.reads_host(service);
        self.snapshot.endpoints.of(&service.key())
    }

    /// The identities of a service.
    pub(crate) fn accounts_of(&self, service: &Service) -> impl Iterator<Item = &'a String> {
        self.reads_host(service);
        let accounts = self.snapshot.endpoints.accounts(&service.key());
        accounts.into_iter().flatten()
    }

    /// Service ports whose endpoints have this address.
    pub(crate) fn uses_of_address(&self, address: &str) -> &'a [AddressUse] {
        self.reads.borrow_mut().addresses.insert(address.to_owned());
        let snapshot = self.snapshot;
        snapshot.endpoints.by_address(&snapshot.registry, address)
    }

    /// The pod that the proxy is in.
    pub(crate) fn own_pod(&self) -> Option<&'a Arc<Pod>> {
        let (cluster, address) = (&self.proxy.cluster, self.proxy.ip());
        self.reads
            .borrow_mut()
            .pods
            .insert((cluster.clone(), address.to_owned()));
        self.snapshot.cluster(cluster)?.pod_by_ip(address)
    }

    /// The WorkloadEntry at the proxy's address. Of several, the one that is called like the pod, or one of the proxy's namespace.
    pub(crate) fn own_workload_entry(&self) -> Option<&'a Config<WorkloadEntry>> {
        let snapshot = self.snapshot;
        if self.proxy.cluster != snapshot.config_cluster() {
            return None;
        }
        let at_address = |entry: &&Config<WorkloadEntry>| {
            entry.spec.address == self.proxy.ip() && !service_entry::all_labels(entry).is_empty()
        };
        let mut found: Vec<_> = snapshot.workload_entries().filter(at_address).collect();
        found.sort_by_key(|entry| (&entry.namespace, &entry.name));
        let own = |entry: &&&Config<WorkloadEntry>| entry.namespace == self.proxy.namespace;
        found
            .iter()
            .find(|entry| own(entry) && entry.name == self.proxy.name)
            .or_else(|| found.iter().find(own))
            .or_else(|| found.first())
            .copied()
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

/// Fills in the defaults of the profile for gateways that face the internet.
fn with_profile(settings: ConnectionSettings, gateway: bool) -> ConnectionSettings {
    use api::istio::{Duration, HeadersWithUnderscoresAction, PathWithEscapedSlashesAction};
    if !gateway || settings.profile != ConnectionProfile::Edge {
        return settings;
    }
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let mut out = settings;
    out.listener_per_connection_buffer_limit_bytes = out
        .listener_per_connection_buffer_limit_bytes
        .or(Some(32_768));
    out.http_idle_timeout = out.http_idle_timeout.or(seconds(3600));
    out.http_stream_idle_timeout = out.http_stream_idle_timeout.or(seconds(300));
    out.http_request_timeout = out.http_request_timeout.or(seconds(300));
    out.http_request_headers_timeout = out.http_request_headers_timeout.or(seconds(60));
    out.http_max_concurrent_streams = out.http_max_concurrent_streams.or(Some(100));
    out.http2_initial_stream_window_size = out.http2_initial_stream_window_size.or(Some(65_536));
    out.http2_initial_connection_window_size =
        out.http2_initial_connection_window_size.or(Some(1_048_576));
    out.http_merge_slashes = out.http_merge_slashes.or(Some(true));
    if out.http_headers_with_underscores_action == HeadersWithUnderscoresAction::default() {
        out.http_headers_with_underscores_action =
            HeadersWithUnderscoresAction::HeadersWithUnderscoresRejectRequest;
    }
    if out.http_path_with_escaped_slashes_action == PathWithEscapedSlashesAction::default() {
        out.http_path_with_escaped_slashes_action =
            PathWithEscapedSlashesAction::UnescapeAndRedirect;
    }
    out
}
