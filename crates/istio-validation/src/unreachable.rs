//! Rules of a VirtualService that can never apply, because rules before them take everything they match.

use crate::message::Message;
use api::field::quote;
use serde_json::Value;
use std::collections::BTreeMap;

/// The warnings about unreachable rules and matches, in Istio's order.
pub(crate) fn warnings(spec: Message<'_>) -> Vec<String> {
    let mut out = Vec::new();
    for kind in ["http", "tcp", "tls"] {
        rules(spec, kind, &mut out);
    }
    out
}

fn unused(rule: &str, why: &str) -> String {
    format!("virtualService rule {rule} not used ({why})")
}

fn ineffective(rule: &str, matched: &str, other: &str) -> String {
    format!(
        "virtualService rule {rule} match {matched} is not used (duplicate/overlapping match in rule {other})"
    )
}

/// `"name"` or `#3`. Only HTTP rules and matches have names.
fn name(message: Message<'_>, number: usize, http: bool) -> String {
    match message.text("name") {
        name if http && !name.is_empty() => quote(name),
        _ => format!("#{number}"),
    }
}

fn rules(spec: Message<'_>, kind: &str, out: &mut Vec<String>) {
    let http = kind == "http";
    let routes: Vec<Message<'_>> = spec.messages(kind).collect();
    let mut seen: Vec<(Value, usize)> = Vec::new();
    let mut catch_all = false;
    let mut prefixes = Vec::new();
    for (number, route) in routes.iter().enumerate() {
        let rule = name(*route, number, http);
        let matches: Vec<Message<'_>> = route.messages("match").collect();
        if matches.is_empty() {
            if catch_all {
                out.push(unused(&rule, "only the last rule can have no matches"));
            }
            catch_all = true;
            continue;
        }
        let mut duplicates = 0;
        for (at, matched) in matches.iter().enumerate() {
            if catch_all {
                out.push(unused(&rule, "route without matches defined before"));
                continue;
            }
            let own = name(*matched, at, http);
            let conditions = conditions(*matched, http);
            if let Some((_, first)) = seen.iter().find(|(other, _)| *other == conditions) {
                out.push(ineffective(
                    &rule,
                    &own,
                    &name(routes[*first], *first, http),
                ));
                duplicates += 1;
                continue;
            }
            seen.push((conditions, number));
            if http && let Some(prefix) = Prefix::of(*matched, rule.clone(), own) {
                prefixes.push(prefix);
            }
        }
        if duplicates == matches.len() {
            out.push(unused(&rule, "all matches used by prior rules"));
        }
    }
    for (i, first) in prefixes.iter().enumerate() {
        for later in &prefixes[i + 1..] {
            if later.path != first.path && first.covers(later) {
                out.push(ineffective(
                    &later.rule,
                    &format!("{} of prefix {}", later.matched, later.path),
                    &format!(
                        "{} of prefix {} on {}",
                        first.matched, first.path, first.rule
                    ),
                ));
            }
        }
    }
}

/// The conditions of a match without its name.
fn conditions(matched: Message<'_>, http: bool) -> Value {
    let mut conditions = matched.0.clone();
    if let Value::Object(map) = &mut conditions {
        if http {
            map.shift_remove("name");
        }
        map.retain(|_, v| !is_default(v));
    }
    conditions
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        _ => false,
    }
}

/// A match by the prefix of the path, with its other conditions.
struct Prefix<'a> {
    rule: String,
    matched: String,
    path: &'a str,
    port: i64,
    method: String,
    authority: String,
    maps: [BTreeMap<&'a str, String>; 3],
}

impl<'a> Prefix<'a> {
    fn of(message: Message<'a>, rule: String, matched: String) -> Option<Self> {
        let path = message.sub("uri").text("prefix");
        if path.is_empty() {
            return None;
        }
        let mut method = text(message.sub("method"));
        if method.is_empty() {
            method = "exact:GET".into();
        }
        let map = |field| message.entries(field).map(|(k, v)| (k, text(v))).collect();
        Some(Self {
            rule,
            matched,
            path,
            port: message.int("port"),
            method,
            authority: text(message.sub("authority")),
            maps: [map("headers"), map("queryParams"), map("withoutHeaders")],
        })
    }

    /// Whether every request of the later match is taken by this one already. The comparison of the other conditions is
    /// Istio's, which is lenient in one direction.
    fn covers(&self, later: &Self) -> bool {
        let pairs = |a: &BTreeMap<&str, String>, b: &BTreeMap<&str, String>| {
            a.len() == b.len()
                && a.iter()
                    .all(|(k, v)| b.get(k).is_some_and(|other| v.starts_with(other.as_str())))
        };
        later.path.starts_with(self.path)
            && later.port == self.port
            && self.method.starts_with(&later.method)
            && self.authority.starts_with(&later.authority)
            && self.maps.iter().zip(&later.maps).all(|(a, b)| pairs(a, b))
    }
}

fn text(matched: Message<'_>) -> String {
    for kind in ["exact", "prefix"] {
        if !matched.text(kind).is_empty() {
            return format!("{kind}:{}", matched.text(kind));
        }
    }
    String::new()
}
