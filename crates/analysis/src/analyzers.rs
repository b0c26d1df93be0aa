//! The analyzers, one file each.

mod annotations;
mod application_uid;
mod authorization_policies;
mod blocked_cidrs;
mod ca_certificates;
mod conditions;
mod conflicting_gateway;
mod conflicting_mesh_gateway_hosts;
mod conflicting_service_entries;
mod crd_version;
mod deprecation;
mod destination_hosts;
mod destination_rules;
mod destinations;
mod envoy_filter;
mod external_control_plane;
mod gateway_certificate;
mod gateway_secret;
mod image_auto;
mod ingress_gateway_port;
mod injection;
mod injection_image;
mod jwt_claim_route;
mod mesh_networks;
mod multi_service;
mod multicluster_service;
mod port_name;
mod protocol_addresses;
mod schema;
mod sidecar_selector;
mod subset;
mod telemetry_default_selector;
mod telemetry_lightstep;
mod telemetry_provider;
mod telemetry_selector;
mod virtual_service_gateways;
mod webhook;
mod workload_selector;

use std::borrow::Cow;

pub use crd_version::too_old;
pub use mesh_networks::REMOTE_SECRET_LABEL;

use crate::context::Context;
use crate::kind::Kind;
use crate::object::Object;

/// An analyzer.
#[derive(Debug, Clone)]
pub struct Analyzer {
    /// Its name, such as `virtualservice.GatewayAnalyzer`.
    pub name: Cow<'static, str>,
    /// What it does.
    pub description: Cow<'static, str>,
    /// The kinds it needs.
    pub inputs: Vec<Kind>,
    run: Run,
}

#[derive(Debug, Clone, Copy)]
enum Run {
    Rules(fn(&mut Context<'_>)),
    Schema(Kind),
}

impl Analyzer {
    /// Looks at the objects and reports what it finds.
    pub fn run(&self, context: &mut Context<'_>) {
        match self.run {
            Run::Rules(rules) => rules(context),
            Run::Schema(kind) => schema::analyze(context, kind),
        }
    }
}

/// Kinds whose objects are validated as the webhook does, in the order of Istio's schemas.
const VALIDATED: [Kind; 17] = [
    Kind::AuthorizationPolicy,
    Kind::DestinationRule,
    Kind::EnvoyFilter,
    Kind::Gateway,
    Kind::PeerAuthentication,
    Kind::ProxyConfig,
    Kind::RequestAuthentication,
    Kind::ServiceEntry,
    Kind::Sidecar,
    Kind::Telemetry,
    Kind::TrafficExtension,
    Kind::VirtualService,
    Kind::WasmPlugin,
    Kind::WorkloadEntry,
    Kind::WorkloadGroup,
    Kind::MeshNetworks,
    Kind::MeshConfig,
];

/// All analyzers, in the order in which they run.
#[must_use]
pub fn all() -> Vec<Analyzer> {
    let mut analyzers: Vec<Analyzer> = RULES
        .iter()
        .map(|(name, description, inputs, run)| Analyzer {
            name: Cow::Borrowed(name),
            description: Cow::Borrowed(description),
            inputs: inputs.to_vec(),
            run: Run::Rules(*run),
        })
        .collect();
    analyzers.extend(VALIDATED.into_iter().map(|kind| {
        let name = kind.info().name;
        Analyzer {
            name: Cow::Owned(format!("schema.ValidationAnalyzer.{name}")),
            description: Cow::Owned(format!(
                "Runs schema validation as an analyzer on '{name}' resources"
            )),
            inputs: vec![kind],
            run: Run::Schema(kind),
        }
    }));
    analyzers
}

/// The analyzers with these names; all, if no name is known.
#[must_use]
pub fn named(names: &[String]) -> Vec<Analyzer> {
    let mut analyzers = all();
    if analyzers
        .iter()
        .any(|analyzer| names.iter().any(|name| *name == analyzer.name))
    {
        analyzers.retain(|analyzer| names.iter().any(|name| *name == analyzer.name));
    }
    analyzers
}

/// The names of objects in order.
fn names(objects: &[&Object]) -> Vec<String> {
    let mut names: Vec<String> = objects
        .iter()
        .map(|object| object.name().to_owned())
        .collect();
    names.sort();
    names
}

type Rules = (
    &'static str,
    &'static str,
    &'static [Kind],
    fn(&mut Context<'_>),
);

/// The analyzers with rules of their own.
const RULES: &[Rules] = &[
    (
        "annotations.K8sAnalyzer",
        "Checks for misplaced and invalid Istio annotations in Kubernetes resources",
        &[Kind::Namespace, Kind::Service, Kind::Pod, Kind::Deployment],
        annotations::analyze,
    ),
    (
        "authn.BlockedCIDRsAnalyzer",
        "Checks that BLOCKED_CIDRS_IN_JWKS_URIS is configured on istiod when RequestAuthentication resources exist",
        &[Kind::RequestAuthentication, Kind::Deployment],
        blocked_cidrs::analyze,
    ),
    (
        "auth.AuthorizationPoliciesAnalyzer",
        "Checks the validity of authorization policies",
        &[
            Kind::MeshConfig,
            Kind::AuthorizationPolicy,
            Kind::Namespace,
            Kind::Pod,
        ],
        authorization_policies::analyze,
    ),
    (
        "conditions.ConditionAnalyzer",
        "Checks for negative status conditions on resources",
        &[
            Kind::Service,
            Kind::ServiceEntry,
            Kind::WorkloadEntry,
            Kind::AuthorizationPolicy,
            Kind::KubernetesGateway,
            Kind::HttpRoute,
            Kind::GrpcRoute,
        ],
        conditions::analyze,
    ),
    (
        "deployment.MultiServiceAnalyzer",
        "Checks association between services and pods",
        &[Kind::Service, Kind::Deployment, Kind::Namespace],
        multi_service::analyze,
    ),
    (
        "applicationUID.Analyzer",
        "Checks invalid application UID",
        &[Kind::Pod, Kind::Deployment],
        application_uid::analyze,
    ),
    (
        "destinationrule.CaCertificateAnalyzer",
        "Checks if caCertificates is set when TLS mode is SIMPLE/MUTUAL",
        &[Kind::DestinationRule],
        ca_certificates::analyze,
    ),
    (
        "destinationrule.SubsetSelectPodAnalyzer",
        "Checks if pods are selected by subsets in destination rules.",
        &[
            Kind::DestinationRule,
            Kind::Pod,
            Kind::Service,
            Kind::ServiceEntry,
            Kind::Node,
        ],
        subset::analyze,
    ),
    (
        "deprecation.DeprecationAnalyzer",
        "Checks for deprecated Istio types and fields",
        &[
            Kind::VirtualService,
            Kind::Sidecar,
            Kind::CustomResourceDefinition,
        ],
        deprecation::analyze,
    ),
    (
        "envoyfilter.EnvoyPatchAnalyzer",
        "Checks an envoyFilters ",
        &[Kind::EnvoyFilter],
        envoy_filter::analyze,
    ),
    (
        "externalcontrolplane.ExternalControlPlaneAnalyzer",
        "Checks that the remote IstioOperator resources reference an external control plane",
        &[
            Kind::ValidatingWebhookConfiguration,
            Kind::MutatingWebhookConfiguration,
        ],
        external_control_plane::analyze,
    ),
    (
        "gateway.IngressGatewayPortAnalyzer",
        "Checks a gateway's ports against the gateway's Kubernetes service ports",
        &[Kind::Gateway, Kind::Pod, Kind::Service],
        ingress_gateway_port::analyze,
    ),
    (
        "gateway.CertificateAnalyzer",
        "Checks a gateway certificate",
        &[Kind::Gateway],
        gateway_certificate::analyze,
    ),
    (
        "gateway.SecretAnalyzer",
        "Checks a gateway's referenced secrets for correctness",
        &[Kind::Gateway, Kind::Pod, Kind::Secret],
        gateway_secret::analyze,
    ),
    (
        "gateway.ConflictingGatewayAnalyzer",
        "Checks a gateway's selector, port number and hosts",
        &[Kind::Gateway, Kind::Pod],
        conflicting_gateway::analyze,
    ),
    (
        "injection.Analyzer",
        "Checks conditions related to Istio sidecar injection",
        &[Kind::Namespace, Kind::Pod, Kind::ConfigMap],
        injection::analyze,
    ),
    (
        "injection.ImageAnalyzer",
        "Checks the image of auto-injection configured with the running proxies on pods",
        &[
            Kind::Namespace,
            Kind::Pod,
            Kind::ConfigMap,
            Kind::MeshConfig,
            Kind::ProxyConfig,
        ],
        injection_image::analyze,
    ),
    (
        "injection.ImageAutoAnalyzer",
        "Makes sure that Pods and Deployments with `image: auto` are going to be injected",
        &[
            Kind::Namespace,
            Kind::Pod,
            Kind::Deployment,
            Kind::MutatingWebhookConfiguration,
        ],
        image_auto::analyze,
    ),
    (
        "k8sgateway.SelectorAnalyzer",
        "Check that selectors are effective for Kubernetes gateway",
        &[
            Kind::AuthorizationPolicy,
            Kind::RequestAuthentication,
            Kind::Telemetry,
            Kind::WasmPlugin,
            Kind::Pod,
        ],
        workload_selector::analyze,
    ),
    (
        "k8sgateway.CRDVersionAnalyzer",
        "Checks Gateway API CRDs are at the minimum version required by this Istio version",
        &[Kind::CustomResourceDefinition],
        crd_version::analyze,
    ),
    (
        "meshnetworks.MeshNetworksAnalyzer",
        "Check the validity of MeshNetworks in the cluster",
        &[Kind::MeshNetworks, Kind::Secret],
        mesh_networks::analyze,
    ),
    (
        "services.MultiClusterServiceAnalyzer",
        "Check the validity of services in the multi-cluster environment",
        &[Kind::Service],
        multicluster_service::analyze,
    ),
    (
        "service.PortNameAnalyzer",
        "Checks the port names associated with each service",
        &[Kind::Service],
        port_name::analyze,
    ),
    (
        "sidecar.SelectorAnalyzer",
        "Validates that sidecars that define a workload selector match at least one pod, and that there aren't multiple sidecar resources that select overlapping pods",
        &[Kind::Sidecar, Kind::Pod, Kind::Namespace],
        sidecar_selector::analyze,
    ),
    (
        "virtualservice.ConflictingMeshGatewayHostsAnalyzer",
        "Checks if multiple virtual services associated with the mesh gateway have conflicting hosts",
        &[Kind::VirtualService],
        conflicting_mesh_gateway_hosts::analyze,
    ),
    (
        "virtualservice.DestinationHostAnalyzer",
        "Checks the destination hosts associated with each virtual service",
        &[Kind::ServiceEntry, Kind::VirtualService, Kind::Service],
        destination_hosts::analyze,
    ),
    (
        "virtualservice.DestinationRuleAnalyzer",
        "Checks the destination rules associated with each virtual service",
        &[Kind::VirtualService, Kind::DestinationRule],
        destination_rules::analyze,
    ),
    (
        "virtualservice.GatewayAnalyzer",
        "Checks the gateways associated with each virtual service",
        &[Kind::Gateway, Kind::KubernetesGateway, Kind::VirtualService],
        virtual_service_gateways::analyze,
    ),
    (
        "virtualservice.JWTClaimRouteAnalyzer",
        "Checks the VirtualService using JWT claim based routing has corresponding RequestAuthentication",
        &[
            Kind::VirtualService,
            Kind::RequestAuthentication,
            Kind::Gateway,
            Kind::Pod,
        ],
        jwt_claim_route::analyze,
    ),
    (
        "serviceentry.Analyzer",
        "Checks the validity of ServiceEntry",
        &[Kind::ServiceEntry, Kind::MeshConfig],
        protocol_addresses::analyze,
    ),
    (
        "serviceentry.ConflictingServiceEntryProtocolAnalyzer",
        "Checks if multiple ServiceEntries define the same host and port with different protocols",
        &[Kind::ServiceEntry],
        conflicting_service_entries::analyze,
    ),
    (
        "webhook.Analyzer",
        "Checks the validity of Istio webhooks",
        &[Kind::MutatingWebhookConfiguration, Kind::Service],
        webhook::analyze,
    ),
    (
        "telemetry.ProviderAnalyzer",
        "Validates that providers in telemetry resource is valid",
        &[Kind::Telemetry, Kind::MeshConfig],
        telemetry_provider::analyze,
    ),
    (
        "telemetry.SelectorAnalyzer",
        "Validates that telemetries that define a selector match at least one pod, and that there aren't multiple telemetry resources that select overlapping pods",
        &[Kind::Telemetry, Kind::Pod],
        telemetry_selector::analyze,
    ),
    (
        "telemetry.DefaultSelectorAnalyzer",
        "Validates that there aren't multiple telemetry resources that have no selector",
        &[Kind::Telemetry],
        telemetry_default_selector::analyze,
    ),
    (
        "telemetry.LightstepAnalyzer",
        "Validates that lightstep provider is still used",
        &[Kind::Telemetry, Kind::MeshConfig],
        telemetry_lightstep::analyze,
    ),
];
