//! `authn.BlockedCIDRsAnalyzer`: RequestAuthentications while istiod fetches keys from anywhere (IST0175).

use crate::context::Context;
use crate::fields::Fields;
use crate::kind::Kind;
use crate::messages;

/// So many names are told, the rest is counted.
const NAMES: usize = 5;

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    let names: Vec<String> = context
        .each(Kind::RequestAuthentication)
        .map(|object| object.full_name())
        .collect();
    if names.is_empty() {
        return;
    }
    for deployment in context.each(Kind::Deployment) {
        if deployment.label("app") != "istiod" {
            continue;
        }
        let spec = deployment.spec.field("template").field("spec");
        let blocked = spec.items("containers").iter().any(|container| {
            container.items("env").iter().any(|variable| {
                variable.text("name") == "BLOCKED_CIDRS_IN_JWKS_URIS"
                    && !variable.text("value").is_empty()
            })
        });
        if !blocked {
            context.report(messages::jwks_uri_fetch_unrestricted(
                deployment,
                names.len() as i64,
                &told(&names),
            ));
        }
    }
}

fn told(names: &[String]) -> String {
    if names.len() <= NAMES {
        return names.join(", ");
    }
    format!(
        "{}, and {} more",
        names[..NAMES].join(", "),
        names.len() - NAMES
    )
}

#[cfg(test)]
mod tests {
    use super::told;

    #[test]
    fn the_sixth_name_is_only_counted() {
        let names: Vec<String> = (1..=7).map(|number| number.to_string()).collect();
        assert_eq!(told(&names[..5]), "1, 2, 3, 4, 5");
        assert_eq!(told(&names), "1, 2, 3, 4, 5, and 2 more");
    }
}
