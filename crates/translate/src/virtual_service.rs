//! VirtualServices made ready: short names completed, gateways named in full, delegates put in place.

use crate::Problem;
use crate::host;
use crate::ingress::{INGRESS_SEMANTICS, SEMANTICS_ANNOTATION};
use crate::objects::Config;
use crate::visibility::Visibility;
use api::istio::{
    Destination, HttpMatchRequest, HttpRoute, MatchKind, StringMatch, VirtualService,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The name that stands for all sidecars.
pub(crate) const MESH_GATEWAY: &str = "mesh";

/// A VirtualService made ready.
#[derive(Debug)]
pub(crate) struct VirtualServiceConfig {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) visibility: Visibility,
    /// With full names everywhere; `gateways` is never empty.
    pub(crate) spec: VirtualService,
    /// Whether it stands for Kubernetes Ingresses, whose prefixes end at a `/`.
    pub(crate) ingress: bool,
}

impl VirtualServiceConfig {
    pub(crate) fn is_for_gateway(&self, gateway: &str) -> bool {
        self.spec.gateways.iter().any(|name| name == gateway)
    }
}

/// Makes all VirtualServices ready. The input is sorted by age, and so is the output.
pub(crate) fn prepare(
    configs: Vec<Config<VirtualService>>,
    domain: &str,
    default_export_to: &[String],
    problems: &mut Vec<Problem>,
) -> Vec<Arc<VirtualServiceConfig>> {
    let mut roots = Vec::new();
    let mut delegates: HashMap<(String, String), VirtualServiceConfig> = HashMap::new();
    for mut config in configs {
        complete_names(&mut config, domain);
        let ready = VirtualServiceConfig {
            visibility: Visibility::new(
                &config.spec.export_to,
                &config.namespace,
                default_export_to,
            ),
            ingress: config
                .annotations
                .get(SEMANTICS_ANNOTATION)
                .is_some_and(|semantics| semantics == INGRESS_SEMANTICS),
            name: config.name,
            namespace: config.namespace,
            spec: config.spec,
        };
        if ready.spec.hosts.is_empty() {
            delegates
                .entry((ready.namespace.clone(), ready.name.clone()))
                .or_insert(ready);
        } else {
            roots.push(ready);
        }
    }
    for root in &mut roots {
        if !root.ingress && root.spec.http.iter().any(|route| route.delegate.is_some()) {
            root.spec.http = with_delegates(root, &delegates, problems);
        }
    }
    roots.into_iter().map(Arc::new).collect()
}

fn complete_names(config: &mut Config<VirtualService>, domain: &str) {
    let namespace = config.namespace.clone();
    let spec = &mut config.spec;
    for name in &mut spec.hosts {
        *name = host::resolve_short(name, &namespace, domain);
    }
    if spec.gateways.is_empty() {
        spec.gateways.push(MESH_GATEWAY.to_owned());
    }
    let complete = |gateways: &mut Vec<String>| {
        for gateway in gateways {
            *gateway = gateway_name(gateway, &namespace);
        }
    };
    complete(&mut spec.gateways);
    let full = |destination: &mut Destination| {
        destination.host = host::resolve_short(&destination.host, &namespace, domain)
    };
    for route in &mut spec.http {
        route
            .matches
            .iter_mut()
            .for_each(|matches| complete(&mut matches.gateways));
        route
            .route
            .iter_mut()
            .for_each(|target| full(&mut target.destination));
        route.mirror.iter_mut().for_each(full);
        route
            .mirrors
            .iter_mut()
            .for_each(|mirror| full(&mut mirror.destination));
    }
    for route in &mut spec.tcp {
        route
            .matches
            .iter_mut()
            .for_each(|matches| complete(&mut matches.gateways));
        route
            .route
            .iter_mut()
            .for_each(|target| full(&mut target.destination));
    }
    for route in &mut spec.tls {
        route
            .matches
            .iter_mut()
            .for_each(|matches| complete(&mut matches.gateways));
        route
            .route
            .iter_mut()
            .for_each(|target| full(&mut target.destination));
    }
}

/// `mesh`, or `namespace/name`; `name.namespace` is the old form.
fn gateway_name(gateway: &str, namespace: &str) -> String {
    if gateway == MESH_GATEWAY || gateway.contains('/') {
        return gateway.to_owned();
    }
    let mut parts = gateway.split('.');
    match (parts.next(), parts.next()) {
        (Some(name), Some(other)) => format!("{other}/{name}"),
        _ => format!("{namespace}/{gateway}"),
    }
}

fn with_delegates(
    root: &VirtualServiceConfig,
    delegates: &HashMap<(String, String), VirtualServiceConfig>,
    problems: &mut Vec<Problem>,
) -> Vec<HttpRoute> {
    let object = format!("VirtualService/{}/{}", root.namespace, root.name);
    let mut out = Vec::new();
    for (index, route) in root.spec.http.iter().enumerate() {
        let Some(delegate) = &route.delegate else {
            out.push(route.clone());
            continue;
        };
        let namespace = if delegate.namespace.is_empty() {
            &root.namespace
        } else {
            &delegate.namespace
        };
        let field = format!("spec.http[{index}].delegate");
        let Some(found) = delegates.get(&(namespace.clone(), delegate.name.clone())) else {
            let message = format!(
                "there is no VirtualService {namespace}/{} without hosts; the rule is left out",
                delegate.name
            );
            problems.push(Problem::new(object.as_str(), field, message));
            continue;
        };
        if !found.visibility.allows(&found.namespace, &root.namespace) {
            let message = format!(
                "{namespace}/{} is not exported to namespace {}; the rule is left out",
                delegate.name, root.namespace
            );
            problems.push(Problem::new(object.as_str(), field, message));
            continue;
        }
        for inner in found
            .spec
            .http
            .iter()
            .filter(|inner| inner.delegate.is_none())
        {
            match merge_route(route, inner) {
                Some(merged) => out.push(merged),
                None => problems.push(Problem::new(
                    format!("VirtualService/{}/{}", found.namespace, found.name),
                    "spec.http",
                    format!(
                        "rule {:?} contradicts the matches of {object} and is left out",
                        inner.name
                    ),
                )),
            }
        }
    }
    out
}

fn merge_route(root: &HttpRoute, delegate: &HttpRoute) -> Option<HttpRoute> {
    let matches = merge_matches(&root.matches, &delegate.matches)?;
    let inherit = delegate.clone();
    Some(HttpRoute {
        matches,
        name: join_names(&root.name, &delegate.name),
        rewrite: inherit.rewrite.or_else(|| root.rewrite.clone()),
        direct_response: inherit
            .direct_response
            .or_else(|| root.direct_response.clone()),
        timeout: inherit.timeout.or(root.timeout),
        retries: inherit.retries.or_else(|| root.retries.clone()),
        fault: inherit.fault.or_else(|| root.fault.clone()),
        mirror: inherit.mirror.or_else(|| root.mirror.clone()),
        mirrors: if inherit.mirrors.is_empty() {
            root.mirrors.clone()
        } else {
            inherit.mirrors
        },
        mirror_percent: inherit.mirror_percent.or(root.mirror_percent),
        mirror_percentage: inherit
            .mirror_percentage
            .or_else(|| root.mirror_percentage.clone()),
        cors_policy: inherit.cors_policy.or_else(|| root.cors_policy.clone()),
        headers: inherit.headers.or_else(|| root.headers.clone()),
        ..delegate.clone()
    })
}

fn join_names(root: &str, delegate: &str) -> String {
    match (root.is_empty(), delegate.is_empty()) {
        (false, false) => format!("{root}-{delegate}"),
        (true, false) => delegate.to_owned(),
        _ => root.to_owned(),
    }
}

/// Every item of the delegate with every item of the root that it does not contradict; `None` if one contradicts all.
fn merge_matches(
    root: &[HttpMatchRequest],
    delegate: &[HttpMatchRequest],
) -> Option<Vec<HttpMatchRequest>> {
    if root.is_empty() {
        return Some(delegate.to_vec());
    }
    if delegate.is_empty() {
        return Some(root.to_vec());
    }
    let mut out = Vec::new();
    for inner in delegate {
        let before = out.len();
        out.extend(
            root.iter()
                .filter(|outer| !contradicts(outer, inner))
                .map(|outer| merge_match(outer, inner)),
        );
        if out.len() == before {
            return None;
        }
    }
    Some(out)
}

fn merge_match(root: &HttpMatchRequest, delegate: &HttpMatchRequest) -> HttpMatchRequest {
    fn both<T: Clone>(
        root: &BTreeMap<String, T>,
        delegate: &BTreeMap<String, T>,
    ) -> BTreeMap<String, T> {
        let mut out = root.clone();
        out.extend(
            delegate
                .iter()
                .map(|(key, value)| (key.clone(), value.clone())),
        );
        out
    }
    let either = |root: &str, delegate: &str| {
        if delegate.is_empty() {
            root.to_owned()
        } else {
            delegate.to_owned()
        }
    };
    HttpMatchRequest {
        name: join_names(&root.name, &delegate.name),
        uri: delegate.uri.clone().or_else(|| root.uri.clone()),
        scheme: delegate.scheme.clone().or_else(|| root.scheme.clone()),
        method: delegate.method.clone().or_else(|| root.method.clone()),
        authority: delegate
            .authority
            .clone()
            .or_else(|| root.authority.clone()),
        headers: both(&root.headers, &delegate.headers),
        port: if delegate.port == 0 {
            root.port
        } else {
            delegate.port
        },
        source_labels: both(&root.source_labels, &delegate.source_labels),
        gateways: if delegate.gateways.is_empty() {
            root.gateways.clone()
        } else {
            delegate.gateways.clone()
        },
        query_params: both(&root.query_params, &delegate.query_params),
        ignore_uri_case: delegate.ignore_uri_case,
        without_headers: both(&root.without_headers, &delegate.without_headers),
        source_namespace: either(&root.source_namespace, &delegate.source_namespace),
        stat_prefix: either(&root.stat_prefix, &delegate.stat_prefix),
    }
}

fn contradicts(root: &HttpMatchRequest, leaf: &HttpMatchRequest) -> bool {
    let pairs = [
        (&root.uri, &leaf.uri),
        (&root.scheme, &leaf.scheme),
        (&root.method, &leaf.method),
        (&root.authority, &leaf.authority),
    ];
    if pairs
        .iter()
        .any(|(root, leaf)| strings_contradict(root.as_ref(), leaf.as_ref()))
    {
        return true;
    }
    let maps = [
        (&root.headers, &leaf.headers),
        (&root.without_headers, &leaf.without_headers),
        (&root.query_params, &leaf.query_params),
    ];
    if maps.iter().any(|(root, leaf)| {
        leaf.iter()
            .any(|(key, value)| strings_contradict(root.get(key), Some(value)))
    }) {
        return true;
    }
    let labels = leaf.source_labels.iter().any(|(key, value)| {
        root.source_labels
            .get(key)
            .is_some_and(|other| other != value)
    });
    let gateways = !root.gateways.is_empty()
        && !leaf.gateways.is_empty()
        && (root.gateways.len() < leaf.gateways.len()
            || leaf
                .gateways
                .iter()
                .any(|gateway| !root.gateways.contains(gateway)));
    root.ignore_uri_case != leaf.ignore_uri_case
        || root.port > 0 && leaf.port > 0 && root.port != leaf.port
        || !root.source_namespace.is_empty() && root.source_namespace != leaf.source_namespace
        || labels
        || gateways
}

fn strings_contradict(root: Option<&StringMatch>, leaf: Option<&StringMatch>) -> bool {
    let (Some(root), Some(leaf)) = (root, leaf) else {
        return false;
    };
    match (root.kind(), leaf.kind()) {
        (MatchKind::Regex(_), MatchKind::Present) | (MatchKind::Present, _) => {
            !matches!(root.kind(), MatchKind::Regex(_))
        }
        (MatchKind::Regex(_), _) | (_, MatchKind::Regex(_)) => true,
        (MatchKind::Exact(root), MatchKind::Exact(leaf)) => root != leaf,
        (MatchKind::Exact(_), _) => true,
        (MatchKind::Prefix(root), MatchKind::Prefix(leaf) | MatchKind::Exact(leaf)) => {
            !leaf.starts_with(root)
        }
        (MatchKind::Prefix(_), MatchKind::Present) => true,
    }
}

/// VirtualServices that concern one of these services, by any of their hosts.
pub(crate) fn select<'a>(
    configs: &[&'a Arc<VirtualServiceConfig>],
    has_host: impl Fn(&str) -> bool,
    service_hosts: &[&str],
) -> Vec<&'a Arc<VirtualServiceConfig>> {
    configs
        .iter()
        .filter(|config| {
            config.spec.hosts.iter().any(|name| {
                if host::is_wildcard(name) {
                    service_hosts
                        .iter()
                        .any(|service| host::matches(name, service))
                } else {
                    has_host(name)
                        || service_hosts.iter().any(|service| {
                            host::is_wildcard(service) && host::matches(name, service)
                        })
                }
            })
        })
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Option<StringMatch> {
        Some(StringMatch {
            prefix: Some(text.into()),
            ..StringMatch::default()
        })
    }

    #[test]
    fn gateway_names() {
        assert_eq!(gateway_name("mesh", "a"), "mesh");
        assert_eq!(gateway_name("gw", "a"), "a/gw");
        assert_eq!(gateway_name("b/gw", "a"), "b/gw");
        assert_eq!(gateway_name("gw.b.svc.cluster.local", "a"), "b/gw");
    }

    #[test]
    fn a_delegate_narrows_its_root() {
        let of = |text| HttpMatchRequest {
            uri: prefix(text),
            ..HttpMatchRequest::default()
        };
        let merged = merge_matches(&[of("/a")], &[of("/a/b")]).unwrap();
        assert_eq!(merged[0].uri, prefix("/a/b"));
        assert!(merge_matches(&[of("/a")], &[of("/b")]).is_none());
        assert_eq!(merge_matches(&[], &[of("/b")]).unwrap().len(), 1);
    }
}
