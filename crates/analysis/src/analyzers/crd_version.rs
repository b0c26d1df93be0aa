//! `k8sgateway.CRDVersionAnalyzer`: kinds of the Gateway API that are older than Istio needs (IST0176).

use crate::context::Context;
use crate::kind::Kind;
use crate::messages;

/// The annotation with the version of the Gateway API.
const VERSION: &str = "gateway.networking.k8s.io/bundle-version";

/// The oldest versions that Istio reads (`pkg/config/schema/gatewayapi`).
const MINIMUM: [(&str, [u64; 3]); 4] = [
    ("grpcroutes.gateway.networking.k8s.io", [1, 1, 0]),
    ("backendtlspolicies.gateway.networking.k8s.io", [1, 4, 0]),
    ("tlsroutes.gateway.networking.k8s.io", [1, 5, 0]),
    ("tcproutes.gateway.networking.k8s.io", [1, 6, 0]),
];

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    for definition in context.each(Kind::CustomResourceDefinition) {
        let name = definition.name();
        if let Some((installed, minimum)) = too_old(name, definition.annotation(VERSION)) {
            context.report(messages::gateway_apicrd_version_below_minimum(
                definition, name, &installed, &minimum,
            ));
        }
    }
}

/// The version of a CRD of the Gateway API and the oldest one that is read, if the former is older. Such kinds are not read.
#[must_use]
pub fn too_old(name: &str, version: &str) -> Option<(String, String)> {
    let (_, minimum) = MINIMUM.iter().find(|(known, _)| *known == name)?;
    let (numbers, rest) = parse(version)?;
    let text = |numbers: &[u64; 3]| format!("{}.{}.{}", numbers[0], numbers[1], numbers[2]);
    (numbers < *minimum).then(|| (format!("{}{rest}", text(&numbers)), text(minimum)))
}

/// The three numbers of a semantic version, and what follows them.
fn parse(version: &str) -> Option<([u64; 3], &str)> {
    let version = version.strip_prefix('v').unwrap_or(version);
    let end = version.find(['-', '+']).unwrap_or(version.len());
    let (numbers, rest) = version.split_at(end);
    let mut result = [0; 3];
    let parts: Vec<&str> = numbers.split('.').collect();
    if parts.len() > result.len() {
        return None;
    }
    for (number, part) in result.iter_mut().zip(parts) {
        *number = part.parse().ok()?;
    }
    Some((result, rest))
}

#[cfg(test)]
mod tests {
    use super::too_old;

    #[test]
    fn a_candidate_counts_as_its_version() {
        let tls = "tlsroutes.gateway.networking.k8s.io";
        assert_eq!(
            too_old(tls, "v0.8.0"),
            Some(("0.8.0".into(), "1.5.0".into()))
        );
        assert_eq!(
            too_old(tls, "v1.4.1-rc.1"),
            Some(("1.4.1-rc.1".into(), "1.5.0".into()))
        );
        assert_eq!(too_old(tls, "v1.5.0-rc.1"), None);
        assert_eq!(too_old(tls, "latest"), None);
        assert_eq!(
            too_old("gateways.gateway.networking.k8s.io", "v0.1.0"),
            None
        );
    }
}
