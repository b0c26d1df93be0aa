//! The names of Istio's messages, as errors tell them. Measured with `istioctl validate`, which names the message of a field that it does
//! not know.

/// The name of the message in `field` of the message `parent`, which is empty for the message of a kind (the field is then the kind).
pub(crate) fn name(parent: &str, field: &str) -> &'static str {
    let of_parent = AMBIGUOUS
        .iter()
        .find(|(known, name, _)| *name == field && *known == parent);
    let of_field = || MESSAGES.iter().find(|(name, _)| *name == field);
    match of_parent {
        Some((_, _, message)) => message,
        None => of_field().map_or("istio", |(_, message)| message),
    }
}

/// Fields that hold the same message wherever they are.
const MESSAGES: &[(&str, &str)] = &[
    (
        "AuthorizationPolicy",
        "istio.security.v1beta1.AuthorizationPolicy",
    ),
    (
        "DestinationRule",
        "istio.networking.v1alpha3.DestinationRule",
    ),
    ("EnvoyFilter", "istio.networking.v1alpha3.EnvoyFilter"),
    ("Gateway", "istio.networking.v1alpha3.Gateway"),
    (
        "PeerAuthentication",
        "istio.security.v1beta1.PeerAuthentication",
    ),
    ("ProxyConfig", "istio.networking.v1beta1.ProxyConfig"),
    (
        "RequestAuthentication",
        "istio.security.v1beta1.RequestAuthentication",
    ),
    ("ServiceEntry", "istio.networking.v1alpha3.ServiceEntry"),
    ("Sidecar", "istio.networking.v1alpha3.Sidecar"),
    ("Telemetry", "istio.telemetry.v1alpha1.Telemetry"),
    (
        "TrafficExtension",
        "istio.extensions.v1alpha1.TrafficExtension",
    ),
    ("VirtualService", "istio.networking.v1alpha3.VirtualService"),
    ("WasmPlugin", "istio.extensions.v1alpha1.WasmPlugin"),
    ("WorkloadEntry", "istio.networking.v1alpha3.WorkloadEntry"),
    ("WorkloadGroup", "istio.networking.v1alpha3.WorkloadGroup"),
    (
        "abort",
        "istio.networking.v1alpha3.HTTPFaultInjection.Abort",
    ),
    ("accessLogging", "istio.telemetry.v1alpha1.AccessLogging"),
    ("allowOrigins", "istio.networking.v1alpha3.StringMatch"),
    (
        "attributes",
        "istio.networking.v1alpha3.LoadBalancerSettings.ConsistentHashLB.HTTPCookie.Attribute",
    ),
    ("authority", "istio.networking.v1alpha3.StringMatch"),
    ("body", "istio.networking.v1alpha3.HTTPBody"),
    (
        "cluster",
        "istio.networking.v1alpha3.EnvoyFilter.ClusterMatch",
    ),
    (
        "configPatches",
        "istio.networking.v1alpha3.EnvoyFilter.EnvoyConfigObjectPatch",
    ),
    (
        "connectionPool",
        "istio.networking.v1alpha3.ConnectionPoolSettings",
    ),
    (
        "consistentHash",
        "istio.networking.v1alpha3.LoadBalancerSettings.ConsistentHashLB",
    ),
    ("corsPolicy", "istio.networking.v1alpha3.CorsPolicy"),
    ("customTags", "istio.telemetry.v1alpha1.Tracing.CustomTag"),
    (
        "delay",
        "istio.networking.v1alpha3.HTTPFaultInjection.Delay",
    ),
    ("delegate", "istio.networking.v1alpha3.Delegate"),
    ("destination", "istio.networking.v1alpha3.Destination"),
    (
        "directResponse",
        "istio.networking.v1alpha3.HTTPDirectResponse",
    ),
    (
        "distribute",
        "istio.networking.v1alpha3.LocalityLoadBalancerSetting.Distribute",
    ),
    ("egress", "istio.networking.v1alpha3.IstioEgressListener"),
    ("egressProxy", "istio.networking.v1alpha3.Destination"),
    ("endpoints", "istio.networking.v1alpha3.WorkloadEntry"),
    ("env", "istio.extensions.v1alpha1.EnvVar"),
    (
        "environment",
        "istio.telemetry.v1alpha1.Tracing.Environment",
    ),
    ("exec", "istio.networking.v1alpha3.ExecHealthCheckConfig"),
    ("fault", "istio.networking.v1alpha3.HTTPFaultInjection"),
    (
        "filterChain",
        "istio.networking.v1alpha3.EnvoyFilter.ListenerMatch.FilterChainMatch",
    ),
    ("formatter", "istio.telemetry.v1alpha1.Tracing.Formatter"),
    ("from", "istio.security.v1beta1.Rule.From"),
    ("fromHeaders", "istio.security.v1beta1.JWTHeader"),
    ("grpc", "istio.networking.v1alpha3.GrpcHealthCheckConfig"),
    ("header", "istio.telemetry.v1alpha1.Tracing.RequestHeader"),
    (
        "http2KeepAlive",
        "istio.networking.v1alpha3.ConnectionPoolSettings.HTTPSettings.ConnectionKeepalive",
    ),
    (
        "httpCookie",
        "istio.networking.v1alpha3.LoadBalancerSettings.ConsistentHashLB.HTTPCookie",
    ),
    ("httpGet", "istio.networking.v1alpha3.HTTPHealthCheckConfig"),
    ("httpHeaders", "istio.networking.v1alpha3.HTTPHeader"),
    ("image", "istio.networking.v1beta1.ProxyImage"),
    (
        "inboundConnectionPool",
        "istio.networking.v1alpha3.ConnectionPoolSettings",
    ),
    ("ingress", "istio.networking.v1alpha3.IstioIngressListener"),
    ("jwtRules", "istio.security.v1beta1.JWTRule"),
    (
        "listener",
        "istio.networking.v1alpha3.EnvoyFilter.ListenerMatch",
    ),
    ("literal", "istio.telemetry.v1alpha1.Tracing.Literal"),
    (
        "loadBalancer",
        "istio.networking.v1alpha3.LoadBalancerSettings",
    ),
    (
        "localityLbSetting",
        "istio.networking.v1alpha3.LocalityLoadBalancerSetting",
    ),
    ("lua", "istio.extensions.v1alpha1.LuaConfig"),
    (
        "maglev",
        "istio.networking.v1alpha3.LoadBalancerSettings.ConsistentHashLB.MagLev",
    ),
    (
        "metadata",
        "istio.networking.v1alpha3.WorkloadGroup.ObjectMeta",
    ),
    ("method", "istio.networking.v1alpha3.StringMatch"),
    ("metrics", "istio.telemetry.v1alpha1.Metrics"),
    ("mirror", "istio.networking.v1alpha3.Destination"),
    ("mirrorPercentage", "istio.networking.v1alpha3.Percent"),
    ("mirrors", "istio.networking.v1alpha3.HTTPMirrorPolicy"),
    (
        "mtls",
        "istio.security.v1beta1.PeerAuthentication.MutualTLS",
    ),
    ("operation", "istio.security.v1beta1.Operation"),
    (
        "outboundTrafficPolicy",
        "istio.networking.v1alpha3.OutboundTrafficPolicy",
    ),
    (
        "outlierDetection",
        "istio.networking.v1alpha3.OutlierDetection",
    ),
    (
        "outputClaimToHeaders",
        "istio.security.v1beta1.ClaimToHeader",
    ),
    ("overrides", "istio.telemetry.v1alpha1.MetricsOverrides"),
    ("patch", "istio.networking.v1alpha3.EnvoyFilter.Patch"),
    ("percentage", "istio.networking.v1alpha3.Percent"),
    (
        "portLevelMtls",
        "istio.security.v1beta1.PeerAuthentication.MutualTLS",
    ),
    (
        "portLevelSettings",
        "istio.networking.v1alpha3.TrafficPolicy.PortTrafficPolicy",
    ),
    ("probe", "istio.networking.v1alpha3.ReadinessProbe"),
    (
        "provider",
        "istio.security.v1beta1.AuthorizationPolicy.ExtensionProvider",
    ),
    ("providers", "istio.telemetry.v1alpha1.ProviderRef"),
    ("proxy", "istio.networking.v1alpha3.EnvoyFilter.ProxyMatch"),
    (
        "proxyProtocol",
        "istio.networking.v1alpha3.TrafficPolicy.ProxyProtocol",
    ),
    ("queryParams", "istio.networking.v1alpha3.StringMatch"),
    ("redirect", "istio.networking.v1alpha3.HTTPRedirect"),
    (
        "request",
        "istio.networking.v1alpha3.Headers.HeaderOperations",
    ),
    (
        "response",
        "istio.networking.v1alpha3.Headers.HeaderOperations",
    ),
    ("retries", "istio.networking.v1alpha3.HTTPRetry"),
    (
        "retryBudget",
        "istio.networking.v1alpha3.TrafficPolicy.RetryBudget",
    ),
    ("rewrite", "istio.networking.v1alpha3.HTTPRewrite"),
    (
        "ringHash",
        "istio.networking.v1alpha3.LoadBalancerSettings.ConsistentHashLB.RingHash",
    ),
    (
        "routeConfiguration",
        "istio.networking.v1alpha3.EnvoyFilter.RouteConfigurationMatch",
    ),
    ("rules", "istio.security.v1beta1.Rule"),
    ("scheme", "istio.networking.v1alpha3.StringMatch"),
    ("selector", "istio.type.v1beta1.WorkloadSelector"),
    ("servers", "istio.networking.v1alpha3.Server"),
    ("source", "istio.security.v1beta1.Source"),
    ("subsets", "istio.networking.v1alpha3.Subset"),
    (
        "tagOverrides",
        "istio.telemetry.v1alpha1.MetricsOverrides.TagOverride",
    ),
    ("targetRef", "istio.type.v1beta1.PolicyTargetReference"),
    ("targetRefs", "istio.type.v1beta1.PolicyTargetReference"),
    (
        "tcpKeepalive",
        "istio.networking.v1alpha3.ConnectionPoolSettings.TCPSettings.TcpKeepalive",
    ),
    (
        "tcpSocket",
        "istio.networking.v1alpha3.TCPHealthCheckConfig",
    ),
    ("template", "istio.networking.v1alpha3.WorkloadEntry"),
    (
        "tlsCertificates",
        "istio.networking.v1alpha3.ServerTLSSettings.TLSCertificate",
    ),
    ("to", "istio.security.v1beta1.Rule.To"),
    ("tracing", "istio.telemetry.v1alpha1.Tracing"),
    ("trafficPolicy", "istio.networking.v1alpha3.TrafficPolicy"),
    (
        "tunnel",
        "istio.networking.v1alpha3.TrafficPolicy.TunnelSettings",
    ),
    ("uri", "istio.networking.v1alpha3.StringMatch"),
    ("uriRegexRewrite", "istio.networking.v1alpha3.RegexRewrite"),
    (
        "vhost",
        "istio.networking.v1alpha3.EnvoyFilter.RouteConfigurationMatch.VirtualHostMatch",
    ),
    ("vmConfig", "istio.extensions.v1alpha1.VmConfig"),
    ("warmup", "istio.networking.v1alpha3.WarmupConfiguration"),
    ("wasm", "istio.extensions.v1alpha1.WasmConfig"),
    (
        "waypoint",
        "istio.networking.v1alpha3.EnvoyFilter.WaypointMatch",
    ),
    ("when", "istio.security.v1beta1.Condition"),
    ("withoutHeaders", "istio.networking.v1alpha3.StringMatch"),
    (
        "zoneAwareLbSetting",
        "istio.networking.v1alpha3.ZoneAwareLoadBalancerSetting",
    ),
];

/// Fields whose message depends on the one they are in.
const AMBIGUOUS: &[(&str, &str, &str)] = &[
    (
        "istio.extensions.v1alpha1.TrafficExtension",
        "match",
        "istio.extensions.v1alpha1.TrafficSelector",
    ),
    (
        "istio.extensions.v1alpha1.TrafficSelector",
        "ports",
        "istio.type.v1beta1.PortSelector",
    ),
    (
        "istio.extensions.v1alpha1.WasmPlugin",
        "match",
        "istio.extensions.v1alpha1.WasmPlugin.TrafficSelector",
    ),
    (
        "istio.extensions.v1alpha1.WasmPlugin.TrafficSelector",
        "ports",
        "istio.type.v1beta1.PortSelector",
    ),
    (
        "istio.networking.v1alpha3.ConnectionPoolSettings",
        "http",
        "istio.networking.v1alpha3.ConnectionPoolSettings.HTTPSettings",
    ),
    (
        "istio.networking.v1alpha3.ConnectionPoolSettings",
        "tcp",
        "istio.networking.v1alpha3.ConnectionPoolSettings.TCPSettings",
    ),
    (
        "istio.networking.v1alpha3.Destination",
        "port",
        "istio.networking.v1alpha3.PortSelector",
    ),
    (
        "istio.networking.v1alpha3.DestinationRule",
        "workloadSelector",
        "istio.type.v1beta1.WorkloadSelector",
    ),
    (
        "istio.networking.v1alpha3.EnvoyFilter",
        "workloadSelector",
        "istio.networking.v1alpha3.WorkloadSelector",
    ),
    (
        "istio.networking.v1alpha3.EnvoyFilter.EnvoyConfigObjectPatch",
        "match",
        "istio.networking.v1alpha3.EnvoyFilter.EnvoyConfigObjectMatch",
    ),
    (
        "istio.networking.v1alpha3.EnvoyFilter.ListenerMatch.FilterChainMatch",
        "filter",
        "istio.networking.v1alpha3.EnvoyFilter.ListenerMatch.FilterMatch",
    ),
    (
        "istio.networking.v1alpha3.EnvoyFilter.ListenerMatch.FilterMatch",
        "subFilter",
        "istio.networking.v1alpha3.EnvoyFilter.ListenerMatch.SubFilterMatch",
    ),
    (
        "istio.networking.v1alpha3.EnvoyFilter.RouteConfigurationMatch.VirtualHostMatch",
        "route",
        "istio.networking.v1alpha3.EnvoyFilter.RouteConfigurationMatch.RouteMatch",
    ),
    (
        "istio.networking.v1alpha3.EnvoyFilter.WaypointMatch",
        "filter",
        "istio.networking.v1alpha3.EnvoyFilter.WaypointMatch.FilterMatch",
    ),
    (
        "istio.networking.v1alpha3.EnvoyFilter.WaypointMatch",
        "route",
        "istio.networking.v1alpha3.EnvoyFilter.WaypointMatch.RouteMatch",
    ),
    (
        "istio.networking.v1alpha3.EnvoyFilter.WaypointMatch.FilterMatch",
        "subFilter",
        "istio.networking.v1alpha3.EnvoyFilter.WaypointMatch.FilterMatch.SubFilterMatch",
    ),
    (
        "istio.networking.v1alpha3.HTTPMatchRequest",
        "headers",
        "istio.networking.v1alpha3.StringMatch",
    ),
    (
        "istio.networking.v1alpha3.HTTPRoute",
        "headers",
        "istio.networking.v1alpha3.Headers",
    ),
    (
        "istio.networking.v1alpha3.HTTPRoute",
        "match",
        "istio.networking.v1alpha3.HTTPMatchRequest",
    ),
    (
        "istio.networking.v1alpha3.HTTPRoute",
        "route",
        "istio.networking.v1alpha3.HTTPRouteDestination",
    ),
    (
        "istio.networking.v1alpha3.HTTPRouteDestination",
        "headers",
        "istio.networking.v1alpha3.Headers",
    ),
    (
        "istio.networking.v1alpha3.IstioEgressListener",
        "port",
        "istio.networking.v1alpha3.SidecarPort",
    ),
    (
        "istio.networking.v1alpha3.IstioIngressListener",
        "port",
        "istio.networking.v1alpha3.SidecarPort",
    ),
    (
        "istio.networking.v1alpha3.IstioIngressListener",
        "tls",
        "istio.networking.v1alpha3.ServerTLSSettings",
    ),
    (
        "istio.networking.v1alpha3.LocalityLoadBalancerSetting",
        "failover",
        "istio.networking.v1alpha3.LocalityLoadBalancerSetting.Failover",
    ),
    (
        "istio.networking.v1alpha3.Server",
        "port",
        "istio.networking.v1alpha3.Port",
    ),
    (
        "istio.networking.v1alpha3.Server",
        "tls",
        "istio.networking.v1alpha3.ServerTLSSettings",
    ),
    (
        "istio.networking.v1alpha3.ServiceEntry",
        "ports",
        "istio.networking.v1alpha3.ServicePort",
    ),
    (
        "istio.networking.v1alpha3.ServiceEntry",
        "workloadSelector",
        "istio.networking.v1alpha3.WorkloadSelector",
    ),
    (
        "istio.networking.v1alpha3.Sidecar",
        "workloadSelector",
        "istio.networking.v1alpha3.WorkloadSelector",
    ),
    (
        "istio.networking.v1alpha3.TCPRoute",
        "match",
        "istio.networking.v1alpha3.L4MatchAttributes",
    ),
    (
        "istio.networking.v1alpha3.TCPRoute",
        "route",
        "istio.networking.v1alpha3.RouteDestination",
    ),
    (
        "istio.networking.v1alpha3.TLSRoute",
        "match",
        "istio.networking.v1alpha3.TLSMatchAttributes",
    ),
    (
        "istio.networking.v1alpha3.TLSRoute",
        "route",
        "istio.networking.v1alpha3.RouteDestination",
    ),
    (
        "istio.networking.v1alpha3.TrafficPolicy",
        "tls",
        "istio.networking.v1alpha3.ClientTLSSettings",
    ),
    (
        "istio.networking.v1alpha3.TrafficPolicy.PortTrafficPolicy",
        "port",
        "istio.networking.v1alpha3.PortSelector",
    ),
    (
        "istio.networking.v1alpha3.TrafficPolicy.PortTrafficPolicy",
        "tls",
        "istio.networking.v1alpha3.ClientTLSSettings",
    ),
    (
        "istio.networking.v1alpha3.VirtualService",
        "http",
        "istio.networking.v1alpha3.HTTPRoute",
    ),
    (
        "istio.networking.v1alpha3.VirtualService",
        "tcp",
        "istio.networking.v1alpha3.TCPRoute",
    ),
    (
        "istio.networking.v1alpha3.VirtualService",
        "tls",
        "istio.networking.v1alpha3.TLSRoute",
    ),
    (
        "istio.networking.v1alpha3.ZoneAwareLoadBalancerSetting",
        "failover",
        "istio.networking.v1alpha3.ZoneAwareLoadBalancerSetting.Failover",
    ),
    (
        "istio.telemetry.v1alpha1.AccessLogging",
        "filter",
        "istio.telemetry.v1alpha1.AccessLogging.Filter",
    ),
    (
        "istio.telemetry.v1alpha1.AccessLogging",
        "match",
        "istio.telemetry.v1alpha1.AccessLogging.LogSelector",
    ),
    (
        "istio.telemetry.v1alpha1.MetricsOverrides",
        "match",
        "istio.telemetry.v1alpha1.MetricSelector",
    ),
    (
        "istio.telemetry.v1alpha1.Tracing",
        "match",
        "istio.telemetry.v1alpha1.Tracing.TracingSelector",
    ),
];
