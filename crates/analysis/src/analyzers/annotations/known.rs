//! The annotations that Istio knows (`istio.io/api/annotation`).

/// An annotation.
#[derive(Debug)]
pub struct Known {
    /// Its name.
    pub name: &'static str,
    /// Whether it should not be used any more.
    pub deprecated: bool,
    /// The kinds it can be on, as messages name them; `Any` for all.
    pub kinds: &'static str,
}

const fn known(name: &'static str, deprecated: bool, kinds: &'static str) -> Known {
    Known {
        name,
        deprecated,
        kinds,
    }
}

const NEW: bool = false;
const OLD: bool = true;

/// All of them.
pub const KNOWN: &[Known] = &[
    known("alpha.istio.io/canonical-serviceaccounts", OLD, "Service"),
    known("alpha.istio.io/kubernetes-serviceaccounts", OLD, "Service"),
    known("ambient.istio.io/bypass-inbound-capture", NEW, "Pod"),
    known("ambient.istio.io/dns-capture", NEW, "Pod"),
    known("ambient.istio.io/redirection", NEW, "Pod"),
    known(
        "ambient.istio.io/waypoint-inbound-binding",
        NEW,
        "GatewayClass, Gateway",
    ),
    known("galley.istio.io/analyze-suppress", NEW, "Any"),
    known("gateway.istio.io/controller-version", NEW, "Any"),
    known("gateway.istio.io/name-override", NEW, "Gateway"),
    known("gateway.istio.io/service-account", NEW, "Gateway"),
    known("inject.istio.io/templates", NEW, "Pod"),
    known("istio.io/autoRegistrationGroup", NEW, "WorkloadEntry"),
    known("istio.io/connectedAt", NEW, "WorkloadEntry"),
    known("istio.io/disconnectedAt", NEW, "WorkloadEntry"),
    known("istio.io/dry-run", NEW, "AuthorizationPolicy"),
    known("istio.io/reroute-virtual-interfaces", NEW, "Pod"),
    known("istio.io/rev", NEW, "Pod"),
    known(
        "istio.io/use-waypoint-canary-weight",
        NEW,
        "Service, ServiceEntry, Namespace",
    ),
    known("istio.io/workloadController", NEW, "WorkloadEntry"),
    known("kubernetes.io/ingress.class", NEW, "Ingress"),
    known("networking.istio.io/exportTo", NEW, "Service"),
    known("networking.istio.io/service-type", NEW, "Gateway"),
    known(
        "networking.istio.io/traffic-distribution",
        NEW,
        "Namespace, Service, ServiceEntry",
    ),
    known("prometheus.istio.io/merge-metrics", NEW, "Pod"),
    known("proxy.istio.io/config", NEW, "Pod"),
    known("proxy.istio.io/overrides", NEW, "Pod"),
    known(
        "readiness.status.sidecar.istio.io/applicationPorts",
        NEW,
        "Pod",
    ),
    known(
        "readiness.status.sidecar.istio.io/failureThreshold",
        NEW,
        "Pod",
    ),
    known(
        "readiness.status.sidecar.istio.io/initialDelaySeconds",
        NEW,
        "Pod",
    ),
    known(
        "readiness.status.sidecar.istio.io/periodSeconds",
        NEW,
        "Pod",
    ),
    known("sidecar.istio.io/agentLogLevel", NEW, "Pod"),
    known("sidecar.istio.io/bootstrapOverride", NEW, "Pod"),
    known("sidecar.istio.io/componentLogLevel", NEW, "Pod"),
    known("sidecar.istio.io/discoveryAddress", OLD, "Pod"),
    known("sidecar.istio.io/extraStatTags", OLD, "Pod"),
    known("sidecar.istio.io/inject", OLD, "Pod"),
    known("sidecar.istio.io/interceptionMode", NEW, "Pod"),
    known("sidecar.istio.io/logLevel", NEW, "Pod"),
    known("sidecar.istio.io/nativeSidecar", NEW, "Pod"),
    known("sidecar.istio.io/proxyCPU", NEW, "Pod"),
    known("sidecar.istio.io/proxyCPULimit", NEW, "Pod"),
    known("sidecar.istio.io/proxyImage", NEW, "Pod"),
    known("sidecar.istio.io/proxyImageType", NEW, "Pod"),
    known("sidecar.istio.io/proxyMemory", NEW, "Pod"),
    known("sidecar.istio.io/proxyMemoryLimit", NEW, "Pod"),
    known("sidecar.istio.io/rewriteAppHTTPProbers", NEW, "Pod"),
    known("sidecar.istio.io/statsCompression", OLD, "Pod"),
    known("sidecar.istio.io/statsEvictionInterval", NEW, "Pod"),
    known("sidecar.istio.io/statsFlushInterval", NEW, "Pod"),
    known("sidecar.istio.io/statsHistogramBins", NEW, "Pod"),
    known("sidecar.istio.io/statsHistogramBuckets", NEW, "Pod"),
    known("sidecar.istio.io/statsInclusionPrefixes", OLD, "Pod"),
    known("sidecar.istio.io/statsInclusionRegexps", OLD, "Pod"),
    known("sidecar.istio.io/statsInclusionSuffixes", OLD, "Pod"),
    known("sidecar.istio.io/status", NEW, "Pod"),
    known("sidecar.istio.io/userVolume", NEW, "Pod"),
    known("sidecar.istio.io/userVolumeMount", NEW, "Pod"),
    known("status.sidecar.istio.io/port", NEW, "Pod"),
    known("topology.istio.io/controlPlaneClusters", NEW, "Namespace"),
    known("traffic.istio.io/nodeSelector", NEW, "Service"),
    known("traffic.sidecar.istio.io/excludeInboundPorts", NEW, "Pod"),
    known("traffic.sidecar.istio.io/excludeInterfaces", NEW, "Pod"),
    known(
        "traffic.sidecar.istio.io/excludeOutboundIPRanges",
        NEW,
        "Pod",
    ),
    known("traffic.sidecar.istio.io/excludeOutboundPorts", NEW, "Pod"),
    known("traffic.sidecar.istio.io/includeInboundPorts", NEW, "Pod"),
    known(
        "traffic.sidecar.istio.io/includeOutboundIPRanges",
        NEW,
        "Pod",
    ),
    known("traffic.sidecar.istio.io/includeOutboundPorts", NEW, "Pod"),
    known("traffic.sidecar.istio.io/kubevirtInterfaces", OLD, "Pod"),
];
