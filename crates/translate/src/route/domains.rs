//! Domains of virtual hosts.

use crate::context::Context;
use crate::registry::{Service, UNSPECIFIED};
use std::collections::HashSet;

/// All domains of a service, and which of them are short forms that must not hide another service.
pub(crate) fn of_service(
    context: &Context<'_>,
    service: &Service,
) -> (Vec<String>, HashSet<String>) {
    let mut domains = Vec::new();
    let mut short = HashSet::new();
    names_of(
        context,
        &service.host.to_ascii_lowercase(),
        &mut domains,
        &mut short,
    );
    if service.is_headless() && service.kubernetes {
        let wildcards: Vec<String> = domains.iter().map(|domain| format!("*.{domain}")).collect();
        domains.extend(wildcards);
    }
    for alias in &service.aliases {
        names_of(context, alias, &mut domains, &mut short);
    }
    for address in service.addresses_for(context.proxy) {
        if address != UNSPECIFIED {
            domains.push(ipv6_in_brackets(address));
        }
    }
    (domains, short)
}

fn names_of(
    context: &Context<'_>,
    host: &str,
    domains: &mut Vec<String>,
    short: &mut HashSet<String>,
) {
    domains.push(host.to_owned());
    domains.push(format!("{host}."));
    for name in short_forms(host, &context.proxy.dns_domain) {
        short.insert(name.clone());
        domains.push(name);
    }
}

/// A host, the same with a dot at its end, and its short forms.
pub(crate) fn all_forms(host: &str, client_domain: &str) -> Vec<String> {
    let mut out = vec![host.to_owned(), format!("{host}.")];
    out.extend(short_forms(host, client_domain));
    out
}

/// Short forms of `<name>.<namespace>.svc.<domain>` for a client with this domain.
fn short_forms(host: &str, client_domain: &str) -> Vec<String> {
    let Some((client_namespace, rest)) = client_domain.split_once('.') else {
        return Vec::new();
    };
    let Some(prefix) = host
        .strip_suffix(rest)
        .and_then(|prefix| prefix.strip_suffix('.'))
    else {
        return Vec::new();
    };
    let Some((name, namespace)) = prefix.rsplit_once('.') else {
        return Vec::new();
    };
    if namespace == client_namespace {
        vec![
            name.to_owned(),
            format!("{name}.{namespace}.svc"),
            format!("{name}.{namespace}"),
        ]
    } else {
        vec![
            format!("{name}.{namespace}"),
            format!("{name}.{namespace}.svc"),
        ]
    }
}

/// IPv6 addresses stand in brackets.
pub(crate) fn ipv6_in_brackets(address: &str) -> String {
    if address.contains(':') && !address.starts_with('[') {
        format!("[{address}]")
    } else {
        address.to_owned()
    }
}

/// Removes domains that another virtual host has, without regard to case, and short forms that are full names of other services.
pub(crate) fn without_duplicates(
    domains: Vec<String>,
    taken: &mut HashSet<String>,
    short: &HashSet<String>,
    known: &HashSet<String>,
) -> Vec<String> {
    domains
        .into_iter()
        .filter(|domain| {
            !(short.contains(domain) && known.contains(domain))
                && taken.insert(domain.to_ascii_lowercase())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_depend_on_the_client() {
        assert_eq!(
            short_forms("a.shop.svc.cluster.local", "shop.svc.cluster.local"),
            ["a", "a.shop.svc", "a.shop"]
        );
        assert_eq!(
            short_forms("a.shop.svc.cluster.local", "other.svc.cluster.local"),
            ["a.shop", "a.shop.svc"]
        );
        assert!(short_forms("api.example.com", "other.svc.cluster.local").is_empty());
    }
}
