//! AuthorizationPolicy: who may do what.

use super::{LabelSelector, PolicyTargetReference};

message! {
    /// Access rules of workloads.
    pub struct AuthorizationPolicy {
        /// The workloads.
        pub selector: Option<LabelSelector>,
        /// An object the policy is attached to.
        pub target_ref: Option<PolicyTargetReference>,
        /// Objects the policy is attached to.
        pub target_refs: Vec<PolicyTargetReference>,
        /// The rules; any one has to match.
        pub rules: Vec<AuthorizationRule>,
        /// What a match means.
        pub action: AuthorizationAction,
        /// Who decides, with CUSTOM.
        pub provider: Option<ExtensionProviderRef>,
    }

    /// A provider of the mesh configuration.
    pub struct ExtensionProviderRef {
        /// Its name.
        pub name: String,
    }

    /// Who, what and when.
    pub struct AuthorizationRule {
        /// Who; the items are alternatives.
        pub from: Vec<RuleFrom>,
        /// What; the items are alternatives.
        pub to: Vec<RuleTo>,
        /// Conditions that hold together.
        pub when: Vec<Condition>,
    }

    /// Who.
    pub struct RuleFrom {
        /// The source.
        pub source: Option<AuthorizationSource>,
    }

    /// What.
    pub struct RuleTo {
        /// The operation.
        pub operation: Option<Operation>,
    }

    /// Properties of a source that hold together.
    pub struct AuthorizationSource {
        /// Identities from the certificate.
        pub principals: Vec<String>,
        /// Identities it must not have.
        pub not_principals: Vec<String>,
        /// Identities from the token.
        pub request_principals: Vec<String>,
        /// Token identities it must not have.
        pub not_request_principals: Vec<String>,
        /// Namespaces.
        pub namespaces: Vec<String>,
        /// Namespaces it must not be in.
        pub not_namespaces: Vec<String>,
        /// Addresses of the peer.
        pub ip_blocks: Vec<String>,
        /// Addresses the peer must not have.
        pub not_ip_blocks: Vec<String>,
        /// Addresses of the original client.
        pub remote_ip_blocks: Vec<String>,
        /// Addresses the original client must not have.
        pub not_remote_ip_blocks: Vec<String>,
        /// Service accounts.
        pub service_accounts: Vec<String>,
        /// Service accounts it must not have.
        pub not_service_accounts: Vec<String>,
        /// Trust domains.
        pub trust_domains: Vec<String>,
        /// Trust domains it must not have.
        pub not_trust_domains: Vec<String>,
    }

    /// Properties of a request that hold together.
    pub struct Operation {
        /// Hosts.
        pub hosts: Vec<String>,
        /// Hosts it must not have.
        pub not_hosts: Vec<String>,
        /// Ports of the workload.
        pub ports: Vec<String>,
        /// Ports it must not have.
        pub not_ports: Vec<String>,
        /// Methods.
        pub methods: Vec<String>,
        /// Methods it must not have.
        pub not_methods: Vec<String>,
        /// Paths.
        pub paths: Vec<String>,
        /// Paths it must not have.
        pub not_paths: Vec<String>,
    }

    /// A further condition.
    pub struct Condition {
        /// The attribute.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub key: String,
        /// Allowed values.
        pub values: Vec<String>,
        /// Values it must not have.
        pub not_values: Vec<String>,
    }
}

proto_enum! {
    /// What a match means.
    pub enum AuthorizationAction {
        /// It is allowed.
        Allow,
        /// It is refused.
        Deny,
        /// It is recorded.
        Audit,
        /// A provider decides.
        Custom,
    }
}
