//! The messages of Istio's analyzers by code; the texts are those that `istioctl analyze` prints (`pkg/config/analysis/msg`).

use crate::go;
use crate::message::{Level, Message};
use crate::object::Object;

macro_rules! argument {
    (text) => {
        &str
    };
    (quoted) => {
        &str
    };
    (number) => {
        i64
    };
    (list) => {
        &[String]
    };
    (quoted_list) => {
        &[String]
    };
    (numbers) => {
        &[i64]
    };
    (text $value:ident) => {
        $value
    };
    (quoted $value:ident) => {
        go::quote($value)
    };
    (number $value:ident) => {
        $value
    };
    (list $value:ident) => {
        go::slice($value)
    };
    (quoted_list $value:ident) => {
        go::quoted_slice($value)
    };
    (numbers $value:ident) => {
        go::slice($value)
    };
}

macro_rules! messages {
    ($($code:literal $level:ident $name:ident ($($argument:ident: $kind:tt),*) $text:literal;)*) => {
        $(
            #[doc = concat!("The message ", $code, " about `object`.")]
            #[must_use]
            pub fn $name(object: &Object $(, $argument: argument!($kind))*) -> Message {
                $(let $argument = argument!($kind $argument);)*
                Message::new($code, Level::$level, object, format!($text))
            }
        )*
    };
}

/// All codes that Istio knows; some belong to other commands.
pub const CODES: &[&str] = &[
    "IST0001", "IST0002", "IST0101", "IST0102", "IST0103", "IST0106", "IST0107", "IST0108",
    "IST0109", "IST0110", "IST0111", "IST0112", "IST0116", "IST0118", "IST0123", "IST0125",
    "IST0126", "IST0127", "IST0128", "IST0129", "IST0130", "IST0131", "IST0132", "IST0133",
    "IST0134", "IST0135", "IST0136", "IST0137", "IST0138", "IST0139", "IST0140", "IST0141",
    "IST0142", "IST0143", "IST0144", "IST0145", "IST0146", "IST0147", "IST0148", "IST0149",
    "IST0150", "IST0151", "IST0152", "IST0153", "IST0154", "IST0155", "IST0156", "IST0157",
    "IST0158", "IST0159", "IST0160", "IST0161", "IST0162", "IST0163", "IST0164", "IST0165",
    "IST0166", "IST0167", "IST0168", "IST0169", "IST0170", "IST0171", "IST0172", "IST0173",
    "IST0174", "IST0175", "IST0176", "IST0177",
];

messages! {
    "IST0002" Warning deprecated (detail: text)
        "Deprecated: {detail}";
    "IST0101" Error referenced_resource_not_found (reftype: text, refval: quoted)
        "Referenced {reftype} not found: {refval}";
    "IST0102" Info namespace_not_injected (namespace: text, namespace2: text)
        "The namespace is not enabled for Istio injection. Run 'kubectl label namespace {namespace} istio-injection=enabled' to enable it, or 'kubectl label namespace {namespace2} istio-injection=disabled' to explicitly mark it as not needing injection.";
    "IST0103" Warning pod_missing_proxy (pod_name: text)
        "The pod {pod_name} is missing the Istio proxy. This can often be resolved by restarting or redeploying the workload.";
    "IST0106" Error schema_validation_error (err: text)
        "Schema validation error: {err}";
    "IST0107" Warning misplaced_annotation (annotation: text, kind: text)
        "Misplaced annotation: {annotation} can only be applied to {kind}";
    "IST0108" Warning unknown_annotation (annotation: text)
        "Unknown annotation: {annotation}";
    "IST0109" Error conflicting_mesh_gateway_virtual_service_hosts (virtual_services: text, host: text)
        "The VirtualServices {virtual_services} associated with mesh gateway define the same host {host} which can lead to undefined behavior. This can be fixed by merging the conflicting VirtualServices into a single resource.";
    "IST0110" Error conflicting_sidecar_workload_selectors (conflicting_sidecars: list, namespace: quoted, workload_pod: quoted)
        "The Sidecars {conflicting_sidecars} in namespace {namespace} select the same workload pod {workload_pod}, which can lead to undefined behavior.";
    "IST0111" Error multiple_sidecars_without_workload_selectors (conflicting_sidecars: list, namespace: quoted)
        "The Sidecars {conflicting_sidecars} in namespace {namespace} have no workload selector, which can lead to undefined behavior.";
    "IST0112" Error virtual_service_destination_port_selector_required (dest_host: quoted, dest_ports: numbers)
        "This VirtualService routes to a service {dest_host} that exposes multiple ports {dest_ports}. Specifying a port in the destination is required to disambiguate.";
    "IST0116" Warning deployment_associated_to_multiple_services (deployment: text, port: number, services: list)
        "This deployment {deployment} is associated with multiple services using port {port} but different protocols: {services}";
    "IST0118" Info port_name_is_not_under_naming_convention (port_name: text, port: number, target_port: text)
        "Port name {port_name} (port: {port}, targetPort: {target_port}) doesn't follow the naming convention of Istio port.";
    "IST0123" Warning namespace_multiple_injection_labels (labels: list)
        "The namespace has more than one type of injection labels {labels}, which may lead to undefined behavior. Make sure only one injection label exists.";
    "IST0125" Warning invalid_annotation (annotation: text, problem: text)
        "Invalid annotation {annotation}: {problem}";
    "IST0126" Error unknown_mesh_networks_service_registry (serviceregistry: text, network: text)
        "Unknown service registry {serviceregistry} in network {network}";
    "IST0127" Warning no_matching_workloads_found (labels: text)
        "No matching workloads for this resource with the following labels: {labels}";
    "IST0128" Warning no_server_certificate_verification_destination_level (destinationrule: text, namespace: text, mode: text, host: text)
        "DestinationRule {destinationrule} in namespace {namespace} has TLS mode set to {mode} but no caCertificates are set to validate server identity for host: {host}";
    "IST0129" Warning no_server_certificate_verification_port_level (destinationrule: text, namespace: text, mode: text, host: text, port: text)
        "DestinationRule {destinationrule} in namespace {namespace} has TLS mode set to {mode} but no caCertificates are set to validate server identity for host: {host} at port {port}";
    "IST0130" Warning virtual_service_unreachable_rule (ruleno: text, reason: text)
        "VirtualService rule {ruleno} not used ({reason}).";
    "IST0131" Info virtual_service_ineffective_match (ruleno: text, matchno: text, dupno: text)
        "VirtualService rule {ruleno} match {matchno} is not used (duplicate/overlapping match in rule {dupno}).";
    "IST0132" Warning virtual_service_host_not_found_in_gateway (host: list, virtualservice: text, gateway: text)
        "one or more host {host} defined in VirtualService {virtualservice} not found in Gateway {gateway}.";
    "IST0133" Warning schema_warning (err: text)
        "Schema validation warning: {err}";
    "IST0134" Warning service_entry_addresses_required ()
        "ServiceEntry addresses are required for this protocol.";
    "IST0135" Info deprecated_annotation (annotation: quoted, extra: text)
        "Annotation {annotation} has been deprecated{extra} and may not work in future Istio versions.";
    "IST0137" Warning deployment_conflicting_ports (deployment: text, services: list, target_port: quoted, ports: numbers)
        "This deployment {deployment} is associated with multiple services {services} using targetPort {target_port} but different ports: {ports}.";
    "IST0138" Warning gateway_duplicate_certificate (gateways: list)
        "Duplicate certificate in multiple gateways {gateways} may cause 404s if clients re-use HTTP2 connections.";
    "IST0139" Error invalid_webhook (error: text)
        "{error}";
    "IST0140" Warning ingress_route_rules_not_affected (virtualservicesubset: text, virtualservice: text)
        "Subset in virtual service {virtualservicesubset} has no effect on ingress gateway {virtualservice} requests";
    "IST0144" Warning invalid_application_uid ()
        "User ID (UID) 1337 is reserved for the sidecar proxy.";
    "IST0145" Error conflicting_gateways (gateway: text, selector: text, portnumber: text, hosts: text)
        "Conflict with gateways {gateway} (workload selector {selector}, port {portnumber}, hosts {hosts}).";
    "IST0146" Warning image_auto_without_injection_warning (resource_type: text, resource_name: text)
        "{resource_type} {resource_name} contains `image: auto` but does not match any Istio injection webhook selectors.";
    "IST0147" Error image_auto_without_injection_error (resource_type: text, resource_name: text)
        "{resource_type} {resource_name} contains `image: auto` but does not match any Istio injection webhook selectors.";
    "IST0148" Info namespace_injection_enabled_by_default ()
        "is enabled for Istio injection, as Istio is installed with enableNamespacesByDefault as true.";
    "IST0149" Error jwt_claim_based_routing_without_request_auth_n (key: text, gateway: text, pod: text)
        "The virtual service uses the JWT claim based routing (key: {key}) but found no request authentication for the gateway ({gateway}) pod ({pod}). The request authentication must first be applied for the gateway pods to validate the JWT token and make the claims available for routing.";
    "IST0150" Warning external_name_service_type_invalid_port_name ()
        "Port name for ExternalName service is invalid. Proxy may prevent tcp named ports and unmatched traffic for ports serving TCP protocol from being forwarded correctly";
    "IST0151" Warning envoy_filter_uses_relative_operation ()
        "This EnvoyFilter does not have a priority and has a relative patch operation set which can cause the EnvoyFilter not to be applied. Using the INSERT_FIRST of ADD option or setting the priority may help in ensuring the EnvoyFilter is applied correctly.";
    "IST0152" Error envoy_filter_uses_replace_operation_incorrectly ()
        "The REPLACE operation is only valid for HTTP_FILTER and NETWORK_FILTER.";
    "IST0153" Error envoy_filter_uses_add_operation_incorrectly ()
        "The ADD operation will be ignored when applyTo is set to ROUTE_CONFIGURATION, or HTTP_ROUTE.";
    "IST0154" Error envoy_filter_uses_remove_operation_incorrectly ()
        "The REMOVE operation will be ignored when applyTo is set to ROUTE_CONFIGURATION, or HTTP_ROUTE.";
    "IST0155" Warning envoy_filter_uses_relative_operation_with_proxy_version ()
        "This EnvoyFilter does not have a priority and has a relative patch operation (NSTERT_BEFORE/AFTER, REPLACE, MERGE, DELETE) and proxyVersion set which can cause the EnvoyFilter not to be applied during an upgrade. Using the INSERT_FIRST or ADD option or setting the priority may help in ensuring the EnvoyFilter is applied correctly.";
    "IST0157" Warning invalid_telemetry_provider (name: text, namespace: quoted)
        "The Telemetry {name} in namespace {namespace} with empty providers will be ignored.";
    "IST0158" Warning pods_istio_proxy_image_mismatch_in_namespace (pod_names: list)
        "The Istio proxy images of the pods running in the namespace do not match the image defined in the injection configuration (pod names: {pod_names}). This often happens after upgrading the Istio control-plane and can be fixed by redeploying the pods.";
    "IST0159" Error conflicting_telemetry_workload_selectors (conflicting_telemetries: list, namespace: quoted, workload_pod: quoted)
        "The Telemetries {conflicting_telemetries} in namespace {namespace} select the same workload pod {workload_pod}, which can lead to undefined behavior.";
    "IST0160" Error multiple_telemetries_without_workload_selectors (conflicting_telemetries: list, namespace: quoted)
        "The Telemetries {conflicting_telemetries} in namespace {namespace} have no workload selector, which can lead to undefined behavior.";
    "IST0161" Error invalid_gateway_credential (gateway_name: text, gateway_namespace: text)
        "The credential referenced by the Gateway {gateway_name} in namespace {gateway_namespace} is invalid, which can cause the traffic not to work as expected.";
    "IST0162" Warning gateway_port_not_defined_on_service (port: number, selector: text)
        "The gateway is listening on a target port (port {port}) that is not defined in the Service associated with its workload instances (Pod selector {selector}). If you need to access the gateway port through the gateway Service, it will not be available.";
    "IST0163" Warning invalid_external_control_plane_config (hostname: text, webhook: text, msg: text)
        "The hostname ({hostname}) that was provided for the webhook ({webhook}) to reach the ingress gateway on the external control plane cluster {msg}. Traffic may not flow properly.";
    "IST0164" Info external_control_plane_address_is_not_a_hostname (hostname: text, webhook: text)
        "The address ({hostname}) that was provided for the webhook ({webhook}) to reach the ingress gateway on the external control plane cluster is an IP address. This is not recommended for a production environment.";
    "IST0165" Warning referenced_internal_gateway (virtualservice: text, gateway: text)
        "Gateway reference in VirtualService {virtualservice} is to an implementation-generated internal Gateway: {gateway}.";
    "IST0166" Warning ineffective_selector (gateway: text)
        "Ineffective selector on Kubernetes Gateway {gateway}. Use the TargetRef field instead.";
    "IST0167" Warning ineffective_policy (reason: text)
        "The policy has no impact: {reason}.";
    "IST0170" Warning multi_cluster_inconsistent_service (service_name: text, namespace: quoted, clusters: quoted_list, error: text)
        "The service {service_name} in namespace {namespace} is inconsistent across clusters {clusters}, which can lead to undefined behaviors. The inconsistent behaviors are: {error}.";
    "IST0171" Warning negative_condition_status (condition_type: text, reason: text, message: text)
        "A condition with a negative status is present: type={condition_type}, reason={reason}, message={message}.";
    "IST0173" Error destination_rule_subset_not_select_pods (subset: text)
        "The Subset {subset} defined in the DestinationRule does not select any pods. Which may lead to 503 UH (NoHealthyUpstream).";
    "IST0174" Warning unknown_destination_rule_host (host: text)
        "The host {host} defined in the DestinationRule does not match any services in the mesh.";
    "IST0175" Warning jwks_uri_fetch_unrestricted (count: number, names: text)
        "BLOCKED_CIDRS_IN_JWKS_URIS is not configured but {count} RequestAuthentication resource(s) exist ({names}). Consider configuring it to restrict JWKS URI fetches to trusted networks.";
    "IST0176" Warning gateway_apicrd_version_below_minimum (crd: quoted, installed_version: quoted, minimum_version: quoted)
        "Gateway API CRD {crd} is at version {installed_version} but Istio requires at least {minimum_version}; resources of this kind will not be processed. Upgrade the Gateway API CRDs to satisfy the minimum version.";
    "IST0177" Warning conflicting_service_entry_protocol (service_entry_names: text, host: quoted, port: number, protocols: text)
        "Multiple ServiceEntries ({service_entry_names}) define the same host {host} and port {port} with conflicting protocols ({protocols}).";
}
