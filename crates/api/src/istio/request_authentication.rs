//! RequestAuthentication: which tokens are accepted.

use super::{Duration, LabelSelector, PolicyTargetReference};

message! {
    /// Token rules of workloads.
    pub struct RequestAuthentication {
        /// The workloads.
        pub selector: Option<LabelSelector>,
        /// An object the policy is attached to.
        pub target_ref: Option<PolicyTargetReference>,
        /// Objects the policy is attached to.
        pub target_refs: Vec<PolicyTargetReference>,
        /// The rules.
        pub jwt_rules: Vec<JwtRule>,
    }

    /// The tokens of one issuer.
    pub struct JwtRule {
        /// The issuer.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub issuer: String,
        /// Accepted audiences; none means any.
        pub audiences: Vec<String>,
        /// Where the keys are.
        #[serde(alias = "jwks_uri")]
        pub jwks_uri: String,
        /// The keys.
        pub jwks: String,
        /// Headers that carry the token.
        pub from_headers: Vec<JwtHeader>,
        /// Query parameters that carry the token.
        pub from_params: Vec<String>,
        /// Cookies that carry the token.
        pub from_cookies: Vec<String>,
        /// Header that gets the payload.
        pub output_payload_to_header: String,
        /// Leave the token in the request.
        pub forward_original_token: bool,
        /// Headers that get single claims.
        pub output_claim_to_headers: Vec<ClaimToHeader>,
        /// Time limit for fetching keys.
        pub timeout: Option<Duration>,
        /// Claims that are lists separated by blanks.
        pub space_delimited_claims: Vec<String>,
    }

    /// A header that carries a token.
    pub struct JwtHeader {
        /// Its name.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub name: String,
        /// What stands before the token.
        pub prefix: String,
    }

    /// A header that gets a claim.
    pub struct ClaimToHeader {
        /// The header.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub header: String,
        /// The claim.
        #[cfg_attr(feature = "schemas", schemars(required))]
        pub claim: String,
    }
}
