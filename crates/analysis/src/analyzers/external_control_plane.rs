//! `externalcontrolplane.ExternalControlPlaneAnalyzer`: webhooks of a control plane outside (IST0163, IST0164).

use std::net::IpAddr;

use crate::context::Context;
use crate::fields::Fields;
use crate::kind::Kind;
use crate::messages;
use crate::object::Object;

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    for configuration in context.each(Kind::ValidatingWebhookConfiguration) {
        let name = configuration.name();
        if name == "istiod-default-validator" || name.starts_with("istio-validator") {
            webhooks(context, configuration);
        }
    }
    for configuration in context.each(Kind::MutatingWebhookConfiguration) {
        if configuration.name().starts_with("istio-sidecar-injector") {
            webhooks(context, configuration);
        }
    }
}

fn webhooks(context: &mut Context<'_>, configuration: &Object) {
    for webhook in configuration.spec.items("webhooks") {
        let name = webhook.text("name");
        let client = webhook.field("clientConfig");
        if let Some(url) = client.field("url").as_str() {
            match host(url) {
                None => context.report(messages::invalid_external_control_plane_config(
                    configuration,
                    url,
                    name,
                    "was provided in an invalid format",
                )),
                Some(host) if host.parse::<IpAddr>().is_ok() => {
                    context.report(messages::external_control_plane_address_is_not_a_hostname(
                        configuration,
                        url,
                        name,
                    ));
                }
                Some(_) => {}
            }
        } else if !client.has("service") {
            context.report(messages::invalid_external_control_plane_config(
                configuration,
                "",
                name,
                "is blank",
            ));
        }
    }
}

/// The host of a URL as Go's `net/url` finds it; `None` for what it refuses.
fn host(url: &str) -> Option<&str> {
    if url.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return None;
    }
    let rest = match url.find(':') {
        Some(0) => return None,
        Some(colon) if is_scheme(&url[..colon]) => &url[colon + 1..],
        // Without a scheme a colon may only come after a slash.
        Some(colon) if !url[..colon].contains(['/', '?', '#']) => return None,
        _ => url,
    };
    let Some(authority) = rest.strip_prefix("//") else {
        return Some("");
    };
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    if authority.contains([' ', '<', '>', '"', '\\', '^', '`', '{', '}', '|']) {
        return None;
    }
    let (host, port) = if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, port) = bracketed.split_once(']')?;
        (host, port)
    } else {
        match authority.rfind(':') {
            Some(colon) => authority.split_at(colon),
            None => (authority, ""),
        }
    };
    let digits = match port {
        "" => "",
        port => port.strip_prefix(':')?,
    };
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(host)
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && text
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '+' | '-' | '.'))
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn the_host_of_a_url_is_found_as_go_does() {
        assert_eq!(
            host("https://203.0.113.9:15017/inject"),
            Some("203.0.113.9")
        );
        assert_eq!(
            host("https://[2001:db8::1]:15017/inject"),
            Some("2001:db8::1")
        );
        assert_eq!(
            host("https://istiod.example/inject"),
            Some("istiod.example")
        );
        assert_eq!(host("203.0.113.9:15017/inject"), None);
        assert_eq!(host("https://istiod.example:https/inject"), None);
        assert_eq!(host(""), Some(""));
    }
}
