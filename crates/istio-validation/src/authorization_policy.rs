//! AuthorizationPolicy.

use crate::Object;
use crate::message::Message;
use crate::problem::{Found, Problem, Validation, join, one};
use crate::selector;
use api::field::quote;
use api::go::{netip, strconv};

pub(crate) fn validate(object: &Object<'_>) -> Validation {
    let spec = object.spec;
    let mut v = selector::of_policy(spec);
    let action = spec.name("action", "ALLOW");
    let rules: Vec<Message<'_>> = spec.messages("rules").collect();
    let meaningless = || {
        one(format!(
            "{action} action without `rules` is meaningless as it will never be triggered, add an empty rule `{{}}` if you want it be triggered for every request"
        ))
    };
    if action == "CUSTOM" {
        if rules.is_empty() {
            v.errors(meaningless());
        } else if spec.sub("provider").text("name").is_empty() {
            v.fail("`provider.name` must not be empty");
        }
        for rule in &rules {
            custom(*rule, &mut v);
        }
    }
    if spec.has("provider") && action != "CUSTOM" {
        v.fail(format!(
            "`provider` must not be with non CUSTOM action, found {action}"
        ));
    }
    if action == "DENY" && rules.is_empty() {
        v.errors(meaningless());
    }
    for (i, rule) in rules.iter().enumerate() {
        check_rule(*rule, i, action, &mut v);
    }
    let prefix = format!("invalid policy {}.{}:", object.name, object.namespace);
    v.error = v.error.map(|problem| problem.prefixed(&prefix));
    v
}

/// What an external authorizer cannot decide by.
fn custom(rule: Message<'_>, v: &mut Validation) {
    let mut unsupported = |name: &str| {
        v.fail(format!(
            "{name} is currently not supported with CUSTOM action"
        ));
    };
    for from in rule.messages("from") {
        let source = from.sub("source");
        for (field, name) in [
            ("namespaces", "Namespaces"),
            ("notNamespaces", "NotNamespaces"),
            ("serviceAccounts", "ServiceAccounts"),
            ("notServiceAccounts", "NotServiceAccounts"),
            ("trustDomains", "TrustDomains"),
            ("notTrustDomains", "NotTrustDomains"),
            ("principals", "Principals"),
            ("notPrincipals", "NotPrincipals"),
            ("requestPrincipals", "RequestPrincipals"),
            ("notRequestPrincipals", "NotRequestPrincipals"),
        ] {
            if !source.list(field).is_empty() {
                unsupported(&format!("From.{name}"));
            }
        }
    }
    for when in rule.messages("when") {
        let key = when.text("key");
        let own = [
            "source.namespace",
            "source.serviceAccount",
            "source.trustDomain",
            "source.principal",
        ];
        if own.contains(&key) || key.starts_with("request.auth.") {
            unsupported(key);
        }
    }
}

fn check_rule(rule: Message<'_>, number: usize, action: &str, v: &mut Validation) {
    let (mut with_from, mut tcp_from) = (false, false);
    let (mut with_to, mut tcp_to) = (false, false);
    for from in rule.messages("from") {
        match from.get("source") {
            None => v.fail(format!(
                "`from.source` must not be nil, found at rule {number}"
            )),
            Some(source) => {
                with_from = true;
                v.errors(check_source(source, number));
                let tcp = [
                    "principals",
                    "notPrincipals",
                    "ipBlocks",
                    "notIpBlocks",
                    "namespaces",
                    "notNamespaces",
                    "remoteIpBlocks",
                    "notRemoteIpBlocks",
                    "serviceAccounts",
                    "notServiceAccounts",
                ];
                tcp_from |= tcp.iter().any(|field| !source.list(field).is_empty());
            }
        }
    }
    for to in rule.messages("to") {
        match to.get("operation") {
            None => v.fail(format!(
                "`to.operation` must not be nil, found at rule {number}"
            )),
            Some(operation) => {
                with_to = true;
                v.errors(check_operation(operation, number));
                tcp_to |= ["ports", "notPorts"]
                    .iter()
                    .any(|field| !operation.list(field).is_empty());
            }
        }
    }
    for condition in rule.messages("when") {
        v.errors(check_condition(condition));
    }
    if action == "DENY" && (with_from && !with_to && !tcp_from || with_to && !tcp_to) {
        v.warn("configured AuthorizationPolicy will deny all traffic to TCP ports under its scope due to the use of only HTTP attributes in a DENY rule; it is recommended to explicitly specify the port");
    }
}

/// The lists of a source: field and the name in texts.
const SOURCE: &[(&str, &str)] = &[
    ("principals", "Principals"),
    ("requestPrincipals", "RequestPrincipals"),
    ("namespaces", "Namespaces"),
    ("serviceAccounts", "ServiceAccounts"),
    ("trustDomains", "TrustDomains"),
    ("ipBlocks", "IpBlocks"),
    ("remoteIpBlocks", "RemoteIpBlocks"),
    ("notPrincipals", "NotPrincipals"),
    ("notRequestPrincipals", "NotRequestPrincipals"),
    ("notNamespaces", "NotNamespaces"),
    ("notServiceAccounts", "NotServiceAccounts"),
    ("notTrustDomains", "NotTrustDomains"),
    ("notIpBlocks", "NotIpBlocks"),
    ("notRemoteIpBlocks", "NotRemoteIpBlocks"),
];

fn check_source(source: Message<'_>, number: usize) -> Found {
    let mut errors = None;
    let some = |field: &&str| !source.list(field).is_empty();
    let identities = ["principals", "notPrincipals", "namespaces", "notNamespaces"];
    let accounts = ["serviceAccounts", "notServiceAccounts"];
    if identities.iter().any(some) && accounts.iter().any(some) {
        join(
            &mut errors,
            one(format!(
                "cannot set serviceAccounts with namespaces or principals, found at rule {number}"
            )),
        );
    }
    if !SOURCE.iter().any(|(field, _)| some(field)) {
        join(
            &mut errors,
            one(format!(
                "`from.source` must not be empty, found at rule {number}"
            )),
        );
    }
    for field in [
        "ipBlocks",
        "notIpBlocks",
        "remoteIpBlocks",
        "notRemoteIpBlocks",
    ] {
        join(&mut errors, ips(&source.texts(field)));
    }
    for (field, name) in SOURCE {
        let values = source.texts(field);
        join(
            &mut errors,
            match *name {
                "ServiceAccounts" | "NotServiceAccounts" => service_accounts(name, &values),
                "TrustDomains" | "NotTrustDomains" => trust_domains(name, &values),
                name => no_empty(name, &values),
            },
        );
    }
    errors
}

fn check_operation(operation: Message<'_>, number: usize) -> Found {
    const LISTS: &[(&str, &str)] = &[
        ("ports", "Ports"),
        ("methods", "Methods"),
        ("paths", "Paths"),
        ("hosts", "Hosts"),
        ("notPorts", "NotPorts"),
        ("notMethods", "NotMethods"),
        ("notPaths", "NotPaths"),
        ("notHosts", "NotHosts"),
    ];
    let mut errors = None;
    if LISTS
        .iter()
        .all(|(field, _)| operation.list(field).is_empty())
    {
        join(
            &mut errors,
            one(format!(
                "`to.operation` must not be empty, found at rule {number}"
            )),
        );
    }
    join(&mut errors, ports(&operation.texts("ports")));
    join(&mut errors, ports(&operation.texts("notPorts")));
    for (field, name) in LISTS {
        join(&mut errors, no_empty(name, &operation.texts(field)));
    }
    for (field, name) in [("paths", "Paths"), ("notPaths", "NotPaths")] {
        join(&mut errors, path_templates(name, &operation.texts(field)));
    }
    errors
}

fn check_condition(condition: Message<'_>) -> Found {
    let key = condition.text("key");
    if key.is_empty() {
        return one("`key` must not be empty");
    }
    let (values, not_values) = (condition.texts("values"), condition.texts("notValues"));
    if values.is_empty() && not_values.is_empty() {
        return one(format!(
            "at least one of `values` or `notValues` must be set for key {key}"
        ));
    }
    let mut errors = None;
    for (what, values) in [("value", values), ("notValue", not_values)] {
        if let Some(why) = attribute(key, &values) {
            join(
                &mut errors,
                one(format!("invalid `{what}` for `key` {key}: {why}")),
            );
        }
    }
    errors
}

fn no_empty(name: &str, values: &[&str]) -> Found {
    values
        .contains(&"")
        .then(|| Problem::One(format!("empty value not allowed, found in {name}")))
}

fn ips(values: &[&str]) -> Found {
    let bad: Vec<String> = values
        .iter()
        .filter_map(|value| {
            if value.contains('/') {
                let why = netip::parse_prefix(value).err()?;
                Some(format!("bad CIDR range ({value}): {why}"))
            } else {
                netip::parse_addr(value).err()?;
                Some(format!("bad IP address ({value})"))
            }
        })
        .collect();
    (!bad.is_empty()).then_some(Problem::Many(bad))
}

fn ports(values: &[&str]) -> Found {
    let bad: Vec<String> = values
        .iter()
        .filter_map(|value| match strconv::parse_uint(value, 32) {
            Ok(port) if port <= 65535 => None,
            Ok(_) => Some(format!("bad port ({value}): <nil>")),
            Err(why) => Some(format!("bad port ({value}): {why}")),
        })
        .collect();
    (!bad.is_empty()).then_some(Problem::Many(bad))
}

fn wildcards(name: &str, values: &[&str]) -> Found {
    if let problem @ Some(_) = no_empty(name, values) {
        return problem;
    }
    for value in values {
        match value.matches('*').count() {
            0 => {}
            1 if value.starts_with('*') || value.ends_with('*') => {}
            1 => {
                return one(format!(
                    "wildcard is only allowed at the start or end, found in {name}: {}",
                    quote(value)
                ));
            }
            _ => {
                return one(format!(
                    "at most one wildcard is allowed, found in {name}: {}",
                    quote(value)
                ));
            }
        }
    }
    None
}

fn trust_domains(name: &str, values: &[&str]) -> Found {
    wildcards(name, values).or_else(|| {
        let bad = values.iter().find(|value| value.contains('/'))?;
        one(format!(
            "trust domain must not contain '/', found in {name}: {}",
            quote(bad)
        ))
    })
}

fn service_accounts(name: &str, values: &[&str]) -> Found {
    if values.len() > 16 {
        return one("may not have more than 16 values");
    }
    const FORM: &str = "expected format 'serviceAccount' or 'namespace/serviceAccount', found";
    for value in values {
        if value.is_empty() {
            return one(format!("empty value not allowed, found in {name}"));
        }
        if value.contains('*') {
            return one(format!("wildcard not allowed, found in {name}"));
        }
        let shown = quote(value);
        if value.matches('/').count() > 1 {
            return one(format!("{FORM} {shown} in {name}"));
        }
        if value.len() > 320 {
            return one(format!(
                "value cannot exceed 320 characters, found {shown} in {name}"
            ));
        }
        if let Some((namespace, account)) = value.split_once('/') {
            for (part, what) in [(namespace, "namespace"), (account, "serviceAccount")] {
                if part.is_empty() {
                    return one(format!("{FORM} empty {what} {shown} in {name}"));
                }
            }
        }
    }
    None
}

/// Paths with `{*}` and, as the last of them, `{**}`.
fn path_templates(name: &str, paths: &[&str]) -> Found {
    for path in paths {
        let templated = path.contains("{*}") || path.contains("{**}");
        let path = path.trim_matches('/');
        let mut last = false;
        for glob in path.split('/') {
            let why = match glob {
                "{*}" | "{**}" if last => "{**} is not the last operator".to_string(),
                "{*}" => continue,
                "{**}" => {
                    last = true;
                    continue;
                }
                glob if glob.contains(['{', '}']) => {
                    "Contains '{' or '}' beyond a supported path template".to_string()
                }
                glob if templated && !is_literal(glob) => {
                    format!("Contains segment {glob} with invalid string literal")
                }
                _ => continue,
            };
            return one(format!(
                "invalid or unsupported path {path}, found in {name}. {why}"
            ));
        }
    }
    None
}

fn is_literal(glob: &str) -> bool {
    !glob.is_empty()
        && glob
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&b))
}

/// The values of a condition.
fn attribute(key: &str, values: &[&str]) -> Found {
    if let problem @ Some(_) = no_empty(key, values) {
        return problem;
    }
    let bracketed = || {
        let open = key.find('[').unwrap_or(0);
        if key.ends_with(']') && open > 0 && open + 2 < key.len() {
            None
        } else {
            one(format!("bad key ({key}): should have format a[b]"))
        }
    };
    match key {
        key if key.starts_with("request.headers")
            || key.starts_with("request.auth.claims")
            || key.starts_with("experimental.envoy.filters.") =>
        {
            bracketed()
        }
        "source.ip" | "remote.ip" | "destination.ip" => ips(values),
        "source.serviceAccount" => service_accounts(key, values),
        "source.trustDomain" => wildcards(key, values),
        "destination.port" => ports(values),
        "source.namespace"
        | "source.principal"
        | "request.auth.principal"
        | "request.auth.audiences"
        | "request.auth.presenter"
        | "connection.sni" => None,
        "destination.namespace" => one(format!(
            "attribute {key} is replaced by the metadata.namespace"
        )),
        key if key.starts_with("destination.labels") => one(format!(
            "attribute {key} is replaced by the workload selector"
        )),
        "destination.name" | "destination.user" => one(format!(
            "deprecated attribute {key}: only supported in v1alpha1"
        )),
        _ => one(format!("unknown attribute: {key}")),
    }
}
