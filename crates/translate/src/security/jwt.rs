//! Tokens: the JWT filter from RequestAuthentication policies.

use crate::context::{Context, ListenerClass};
use crate::http_filters::http_filter;
use crate::security::applies;
use api::istio::JwtRule;
use std::collections::BTreeSet;
use xds::envoy::config::core::v3::{DataSource, data_source};
use xds::envoy::extensions::filters::http::jwt_authn::v3 as jwt;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

/// The filter, if any rule applies to the workload.
pub(crate) fn filter(context: &Context<'_>, class: ListenerClass) -> Option<HttpFilter> {
    let proxy = context.proxy;
    let mut policies: Vec<_> = context
        .snapshot
        .request_authentications
        .iter()
        .filter(|policy| {
            let spec = &policy.spec;
            let attached = spec.target_ref.is_some() || !spec.target_refs.is_empty();
            !attached && applies(context, &policy.namespace, spec.selector.as_ref())
        })
        .collect();
    policies.sort_by_key(|policy| policy.namespace != proxy.namespace);
    let rules = policies.iter().flat_map(|policy| &policy.spec.jwt_rules);
    let mut rules: Vec<&JwtRule> = rules.collect();
    if rules.is_empty() {
        return None;
    }
    rules.sort_by(|a, b| a.issuer.cmp(&b.issuer));
    let mut config = jwt::JwtAuthentication {
        bypass_cors_preflight: true,
        ..Default::default()
    };
    let mut names = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let name = format!("origins-{index}");
        config
            .providers
            .insert(name.clone(), provider(context, rule, class));
        names.push(name);
    }
    config.rules.push(jwt::RequirementRule {
        r#match: Some(crate::route::matches::route_match(None, false)),
        requirement_type: Some(jwt::requirement_rule::RequirementType::Requires(
            requirement(names),
        )),
    });
    Some(http_filter(
        "envoy.filters.http.jwt_authn",
        xds::any::pack(&config),
    ))
}

fn requirement_of(kind: jwt::jwt_requirement::RequiresType) -> jwt::JwtRequirement {
    jwt::JwtRequirement {
        requires_type: Some(kind),
    }
}

/// No token is fine; one that is there has to be valid for its issuer.
fn requirement(names: Vec<String>) -> jwt::JwtRequirement {
    use jwt::jwt_requirement::RequiresType::{
        AllowMissing, ProviderName, RequiresAll, RequiresAny,
    };
    let one_or_none = |name: &String| {
        let requirements = vec![
            requirement_of(ProviderName(name.clone())),
            requirement_of(AllowMissing(())),
        ];
        requirement_of(RequiresAny(jwt::JwtRequirementOrList { requirements }))
    };
    if let [only] = names.as_slice() {
        return one_or_none(only);
    }
    let mut any: Vec<_> = names
        .iter()
        .map(|name| requirement_of(ProviderName(name.clone())))
        .collect();
    let all = jwt::JwtRequirementAndList {
        requirements: names.iter().map(one_or_none).collect(),
    };
    any.push(requirement_of(RequiresAll(all)));
    requirement_of(RequiresAny(jwt::JwtRequirementOrList { requirements: any }))
}

fn provider(context: &Context<'_>, rule: &JwtRule, class: ListenerClass) -> jwt::JwtProvider {
    let mut delimited: BTreeSet<String> = ["permission", "scope"].map(str::to_owned).into();
    delimited.extend(rule.space_delimited_claims.iter().cloned());
    let keys = if rule.jwks.is_empty() {
        context.snapshot.jwks_of(rule).to_owned()
    } else {
        rule.jwks.clone()
    };
    jwt::JwtProvider {
        issuer: rule.issuer.clone(),
        audiences: rule.audiences.clone(),
        forward: rule.forward_original_token,
        forward_payload_header: rule.output_payload_to_header.clone(),
        payload_in_metadata: "payload".to_owned(),
        normalize_payload_in_metadata: Some(jwt::jwt_provider::NormalizePayload {
            space_delimited_claims: delimited.into_iter().collect(),
        }),
        from_headers: rule
            .from_headers
            .iter()
            .map(|header| jwt::JwtHeader {
                name: header.name.clone(),
                value_prefix: header.prefix.clone(),
            })
            .collect(),
        from_params: rule.from_params.clone(),
        from_cookies: rule.from_cookies.clone(),
        claim_to_headers: rule
            .output_claim_to_headers
            .iter()
            .map(|output| jwt::JwtClaimToHeader {
                header_name: output.header.clone(),
                claim_name: output.claim.clone(),
                ..Default::default()
            })
            .collect(),
        clear_route_cache: class == ListenerClass::Gateway,
        jwks_source_specifier: Some(jwt::jwt_provider::JwksSourceSpecifier::LocalJwks(
            DataSource {
                specifier: Some(data_source::Specifier::InlineString(keys)),
                ..Default::default()
            },
        )),
        ..Default::default()
    }
}
