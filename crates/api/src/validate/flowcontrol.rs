//! FlowSchemas and PriorityLevelConfigurations.

use super::{Errors, gostring, invalid_each, list, names, text};
use crate::field::{FieldError, quote};
use crate::flowcontrol::mandatory;
use crate::meta;
use serde_json::Value;

const VERBS: [&str; 9] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "proxy",
    "update",
    "watch",
];
/// Greatest `matchingPrecedence`.
const LAST: i64 = 10_000;
/// Bits of a hash that dealing a hand may use up.
const HASH_BITS: f64 = 60.0;

/// The fixed spec of a mandatory object, where `obj` has another one.
fn other_than_fixed(kind: &str, obj: &Value) -> Option<&'static Value> {
    mandatory(kind, meta::name(obj)).filter(|fixed| **fixed != obj["spec"])
}

/// A FlowSchema.
pub fn schema(obj: &Value) -> Errors {
    let mut out = Vec::new();
    let (name, spec) = (meta::name(obj), &obj["spec"]);
    let precedence = spec["matchingPrecedence"].as_i64().unwrap_or(0);
    let at = "spec.matchingPrecedence";
    let shown = &spec["matchingPrecedence"];
    if precedence <= 0 {
        out.push(FieldError::invalid(at, shown, "must be a positive value"));
    }
    if precedence > LAST {
        let why = format!("must not be greater than {LAST}");
        out.push(FieldError::invalid(at, shown, why));
    }
    if precedence == 1 && name != "exempt" {
        let why = "only the schema named 'exempt' may have matchingPrecedence 1";
        out.push(FieldError::invalid(at, shown, why));
    }
    let method = &spec["distinguisherMethod"];
    if !method.is_null() && !["ByNamespace", "ByUser"].contains(&text(&method["type"])) {
        let go = quote(text(&method["type"]));
        out.push(FieldError::not_supported_go(
            "spec.distinguisherMethod.type",
            format!("flowcontrol.FlowDistinguisherMethod{{Type:{go}}}"),
            &["ByNamespace", "ByUser"],
        ));
    }
    let level = &spec["priorityLevelConfiguration"]["name"];
    let at = "spec.priorityLevelConfiguration.name";
    if text(level).is_empty() {
        out.push(FieldError::required(at, "must reference a priority level"));
    } else {
        out.extend(invalid_each(at, level, names::dns_subdomain(text(level))));
    }
    for (i, r) in list(&spec["rules"]).iter().enumerate() {
        rule(&format!("spec.rules[{i}]"), r, &mut out);
    }
    if other_than_fixed("FlowSchema", obj).is_some() {
        let why = format!("spec of '{name}' must equal the fixed value");
        out.push(FieldError::invalid_go("spec", crate::go::syntax(spec), why));
    }
    out
}

fn rule(at: &str, rule: &Value, out: &mut Errors) {
    let subjects = list(&rule["subjects"]);
    if subjects.is_empty() {
        out.push(FieldError::required(
            format!("{at}.subjects"),
            "subjects must contain at least one value",
        ));
    }
    for (i, s) in subjects.iter().enumerate() {
        subject(&format!("{at}.subjects[{i}]"), s, out);
    }
    let (resources, paths) = (
        list(&rule["resourceRules"]),
        list(&rule["nonResourceRules"]),
    );
    if resources.is_empty() && paths.is_empty() {
        out.push(FieldError::required(
            at,
            "at least one of resourceRules and nonResourceRules has to be non-empty",
        ));
    }
    for (i, r) in resources.iter().enumerate() {
        resource_rule(&format!("{at}.resourceRules[{i}]"), r, out);
    }
    for (i, r) in paths.iter().enumerate() {
        let at = format!("{at}.nonResourceRules[{i}]");
        verbs(&at, &r["verbs"], out);
        let urls = &r["nonResourceURLs"];
        let field = format!("{at}.nonResourceURLs");
        if list(urls).is_empty() {
            let why = "nonResourceURLs must contain at least one value";
            out.push(FieldError::required(field, why));
        } else if list(urls).iter().any(|u| u == "*") {
            alone(&field, urls, "non-resource URLs", out);
        } else {
            for (i, url) in list(urls).iter().enumerate() {
                if let Some(why) = wrong_path(text(url)) {
                    out.push(FieldError::invalid(format!("{field}[{i}]"), url, why));
                }
            }
        }
    }
}

/// `*` stands alone.
fn alone(field: &str, values: &Value, what: &str, out: &mut Errors) {
    if list(values).len() > 1 {
        out.push(FieldError::invalid_go(
            field,
            gostring::strings(values),
            format!("if '*' is present, must not specify other {what}"),
        ));
    }
}

fn wrong_path(path: &str) -> Option<&'static str> {
    Some(match path {
        "" => "must not be empty",
        "/" => return None,
        p if !p.starts_with('/') => "must start with slash",
        p if p.contains(' ') => "must not contain white-space",
        p if p.contains("//") => "must not contain double slash",
        p if p.trim_end_matches("/*").contains('*') => "wildcard can only do suffix matching",
        _ => return None,
    })
}

fn verbs(at: &str, verbs: &Value, out: &mut Errors) {
    let field = format!("{at}.verbs");
    let all = list(verbs);
    if all.is_empty() {
        let why = "verbs must contain at least one value";
        out.push(FieldError::required(field, why));
    } else if all.iter().any(|v| v == "*") {
        alone(&field, verbs, "verbs", out);
    } else if !all.iter().all(|v| VERBS.contains(&text(v))) {
        let go = gostring::strings(verbs);
        out.push(FieldError::not_supported_go(field, go, &VERBS));
    }
}

fn resource_rule(at: &str, rule: &Value, out: &mut Errors) {
    verbs(at, &rule["verbs"], out);
    for (field, one, many) in [
        ("apiGroups", "api group", "api groups"),
        ("resources", "resource", "resources"),
    ] {
        let values = &rule[field];
        let path = format!("{at}.{field}");
        if list(values).is_empty() {
            let why = format!("resource rules must supply at least one {one}");
            out.push(FieldError::required(path, why));
        } else if list(values).iter().any(|v| v == "*") {
            alone(&path, values, many, out);
        }
    }
    let namespaces = list(&rule["namespaces"]);
    let field = format!("{at}.namespaces");
    if namespaces.is_empty() {
        if rule["clusterScope"] != true {
            let why =
                "resource rules that are not cluster scoped must supply at least one namespace";
            out.push(FieldError::required(field, why));
        }
    } else if namespaces.iter().any(|n| n == "*") {
        alone(&field, &rule["namespaces"], "namespaces", out);
    } else {
        for (i, namespace) in namespaces.iter().enumerate() {
            for why in names::dns_label(text(namespace)) {
                let why =
                    format!("each member of this list must be '*' or a DNS-1123 label; {why}");
                out.push(FieldError::invalid(format!("{field}[{i}]"), namespace, why));
            }
        }
    }
}

fn subject(at: &str, subject: &Value, out: &mut Errors) {
    // In the order in which the real server looks at the members of each kind.
    let kinds = [
        ("ServiceAccount", "serviceAccount"),
        ("User", "user"),
        ("Group", "group"),
    ];
    let kind = text(&subject["kind"]);
    let Some((_, own)) = kinds.iter().find(|(k, _)| *k == kind) else {
        let known = ["Group", "ServiceAccount", "User"];
        let kind = Value::from(kind);
        out.push(FieldError::not_supported(
            format!("{at}.kind"),
            &kind,
            &known,
        ));
        return;
    };
    for (other, member) in kinds.iter().filter(|(_, member)| member != own) {
        if !subject[member].is_null() {
            let why = format!("{member} is forbidden when subject kind is not '{other}'");
            out.push(FieldError::forbidden(format!("{at}.{member}"), why));
        }
    }
    let at = format!("{at}.{own}");
    let who = &subject[own];
    if who.is_null() {
        let why = format!("{own} is required when subject kind is '{kind}'");
        out.push(FieldError::required(at, why));
        return;
    }
    let name = &who["name"];
    let field = format!("{at}.name");
    if text(name).is_empty() {
        out.push(FieldError::required(field, ""));
    } else if kind == "ServiceAccount" && name != "*" {
        out.extend(invalid_each(&field, name, names::dns_subdomain(text(name))));
    }
    if kind == "ServiceAccount" {
        let field = format!("{at}.namespace");
        let namespace = &who["namespace"];
        if text(namespace).is_empty() {
            let why = "must specify namespace for service account";
            out.push(FieldError::required(field, why));
        } else {
            let wrong = names::dns_label(text(namespace));
            out.extend(invalid_each(&field, namespace, wrong));
        }
    }
}

/// A PriorityLevelConfiguration.
pub fn level(obj: &Value) -> Errors {
    let mut out = Vec::new();
    let (name, spec) = (meta::name(obj), &obj["spec"]);
    let kind = text(&spec["type"]);
    if !["Exempt", "Limited"].contains(&kind) {
        let shown = Value::from(kind);
        let known = ["Exempt", "Limited"];
        out.push(FieldError::not_supported("spec.type", &shown, &known));
        return out;
    }
    if (kind == "Exempt") != (name == "exempt") {
        out.push(FieldError::invalid(
            "spec.type",
            &spec["type"],
            "type must be 'Exempt' if and only if name is 'exempt'",
        ));
    }
    let (own, other, not) = match kind {
        "Exempt" => ("exempt", "limited", "is not"),
        _ => ("limited", "exempt", "is"),
    };
    if !spec[other].is_null() {
        let why = format!("must be nil if the type {not} Limited");
        out.push(FieldError::forbidden(format!("spec.{other}"), why));
    }
    let own = &spec[own];
    if kind == "Limited" && own.is_null() {
        let why = "must not be empty when type is Limited";
        out.push(FieldError::required("spec.limited", why));
    } else if !own.is_null() {
        shares(kind, own, &mut out);
    }
    let differs = other_than_fixed("PriorityLevelConfiguration", obj).is_some_and(|fixed| {
        // The shares of the exempt level are the one thing that may be set.
        name != "exempt" || spec["type"] != fixed["type"] || !spec["limited"].is_null()
    });
    if differs {
        let except = match name {
            "exempt" => " except the 'spec.exempt' field",
            _ => "",
        };
        let why = format!("spec of '{name}'{except} must equal the fixed value");
        out.push(FieldError::invalid_go("spec", crate::go::syntax(spec), why));
    }
    out
}

fn shares(kind: &str, own: &Value, out: &mut Errors) {
    let at = format!("spec.{}", kind.to_lowercase());
    let number = |field: &str| own[field].as_i64();
    let mut check = |field: &str, wrong: bool, why: &str| {
        if wrong {
            out.push(FieldError::invalid(
                format!("{at}.{field}"),
                &own[field],
                why,
            ));
        }
    };
    let below = |n: Option<i64>| n.is_some_and(|n| n < 0);
    let shares = number("nominalConcurrencyShares");
    check(
        "nominalConcurrencyShares",
        below(shares),
        "must be a non-negative integer",
    );
    let lendable = number("lendablePercent").is_some_and(|n| !(0..=100).contains(&n));
    check(
        "lendablePercent",
        lendable,
        "must be between 0 and 100, inclusive",
    );
    let borrowing = below(number("borrowingLimitPercent"));
    check(
        "borrowingLimitPercent",
        borrowing,
        "if specified, must be a non-negative integer",
    );
    if kind == "Limited" {
        response("spec.limited.limitResponse", &own["limitResponse"], out);
    }
}

fn response(at: &str, response: &Value, out: &mut Errors) {
    let queuing = &response["queuing"];
    let field = format!("{at}.queuing");
    match text(&response["type"]) {
        "Reject" => {
            if !queuing.is_null() {
                let why = "must be nil if limited.limitResponse.type is not Limited";
                out.push(FieldError::forbidden(field, why));
            }
        }
        "Queue" => {
            if queuing.is_null() {
                let why = "must not be empty if limited.limitResponse.type is Limited";
                out.push(FieldError::required(field, why));
            } else {
                queues(&field, queuing, out);
            }
        }
        other => {
            let shown = Value::from(other);
            let known = ["Queue", "Reject"];
            let field = format!("{at}.type");
            out.push(FieldError::not_supported(field, &shown, &known));
        }
    }
}

fn queues(at: &str, queuing: &Value, out: &mut Errors) {
    const MOST: i64 = 10_000_000;
    for field in ["queueLengthLimit", "queues", "handSize"] {
        if queuing[field].as_i64().unwrap_or(0) <= 0 {
            let path = format!("{at}.{field}");
            out.push(FieldError::invalid(
                path,
                &queuing[field],
                "must be positive",
            ));
        }
    }
    let (queues, hand) = (
        queuing["queues"].as_i64().unwrap_or(0),
        queuing["handSize"].as_i64().unwrap_or(0),
    );
    if queues > MOST {
        let why = format!("must not be greater than {MOST}");
        let path = format!("{at}.queues");
        out.push(FieldError::invalid(path, &queuing["queues"], why));
    }
    let path = format!("{at}.handSize");
    if hand > queues {
        let why = format!("should not be greater than queues ({queues})");
        out.push(FieldError::invalid(path, &queuing["handSize"], why));
    } else if hand > 0 && entropy(queues, hand) > HASH_BITS {
        let why = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"
        );
        out.push(FieldError::invalid(path, &queuing["handSize"], why));
    }
}

/// Bits of a hash that dealing a hand takes.
#[allow(clippy::cast_precision_loss)] // both are small
fn entropy(queues: i64, hand: i64) -> f64 {
    ((queues as f64).log2() * hand as f64).ceil()
}
