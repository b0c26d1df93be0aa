//! Evaluation.

use super::parser::{Fold, Kind, Node};
use super::value::{Key, Map, Value};
use super::{Expression, functions};
use std::cell::Cell;
use std::sync::Arc;

/// The most steps of one evaluation, as Kubernetes bounds the cost of a rule.
const BUDGET: u64 = 1_000_000;

pub(super) type Outcome = Result<Value, String>;

/// The names in scope and the steps that are left.
struct Scope<'a> {
    names: Vec<(&'a str, Value)>,
    left: &'a Cell<u64>,
}

impl Expression {
    /// Evaluates the expression with these variables.
    ///
    /// # Errors
    /// The runtime error in the words of cel-go: `no such key: x`, `division by zero`, ...
    pub fn eval(&self, variables: &[(&str, Value)]) -> Outcome {
        let left = Cell::new(BUDGET);
        let mut scope = Scope {
            names: variables.to_vec(),
            left: &left,
        };
        eval(&self.root, &mut scope)
    }
}

fn spend(left: &Cell<u64>, steps: u64) -> Result<(), String> {
    match left.get().checked_sub(steps) {
        Some(rest) => {
            left.set(rest);
            Ok(())
        }
        None => Err("operation cancelled: actual cost limit exceeded".into()),
    }
}

fn eval<'a>(node: &'a Node, scope: &mut Scope<'a>) -> Outcome {
    spend(scope.left, 1)?;
    match &node.kind {
        Kind::Literal(value) => Ok(value.clone()),
        Kind::Name(name) => name_of(name, scope),
        Kind::Select {
            target,
            field,
            test,
            optional,
        } => {
            let target = eval(target, scope)?;
            select(&target, field, *test, *optional)
        }
        Kind::Call {
            function,
            target,
            args,
        } => call(function, target.as_deref(), args, scope),
        Kind::List(entries) => {
            let mut out = Vec::with_capacity(entries.len());
            for (optional, entry) in entries {
                match eval(entry, scope)? {
                    Value::Optional(inner) if *optional => out.extend(inner.map(|v| (*v).clone())),
                    value => out.push(value),
                }
            }
            Ok(Value::list(out))
        }
        Kind::Map(entries) => {
            let mut out = Map::new();
            for (optional, key, value) in entries {
                let key = eval(key, scope)?;
                let value = match eval(value, scope)? {
                    Value::Optional(None) if *optional => continue,
                    Value::Optional(Some(inner)) if *optional => (*inner).clone(),
                    value => value,
                };
                let key = key.key().ok_or("unsupported key type")?;
                out.insert(key, value);
            }
            Ok(Value::Map(Arc::new(out)))
        }
        Kind::Fold {
            fold,
            range,
            name,
            filter,
            body,
        } => folded(*fold, range, name, filter.as_deref(), body, scope),
        Kind::Bind { name, value, body } => {
            let value = eval(value, scope)?;
            with(scope, name, value, body)
        }
        Kind::OptMap {
            target,
            name,
            body,
            flat,
        } => match eval(target, scope)? {
            Value::Optional(None) => Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => {
                let result = with(scope, name, (*inner).clone(), body)?;
                Ok(if *flat {
                    result
                } else {
                    Value::Optional(Some(Arc::new(result)))
                })
            }
            _ => Err("no such overload".into()),
        },
    }
}

fn with<'a>(scope: &mut Scope<'a>, name: &'a str, value: Value, body: &'a Node) -> Outcome {
    scope.names.push((name, value));
    let result = eval(body, scope);
    scope.names.pop();
    result
}

fn name_of(name: &str, scope: &Scope<'_>) -> Outcome {
    if let Some((_, value)) = scope.names.iter().rev().find(|(n, _)| *n == name) {
        return Ok(value.clone());
    }
    Ok(Value::Type(name.into()))
}

fn select(target: &Value, field: &Arc<str>, test: bool, optional: bool) -> Outcome {
    let some = |value: Option<Value>| Value::Optional(value.map(Arc::new));
    match target {
        Value::Optional(None) => Ok(if test {
            Value::Bool(false)
        } else {
            Value::Optional(None)
        }),
        Value::Optional(Some(inner)) => {
            let found = lookup(inner, field)?;
            Ok(if test {
                Value::Bool(found.is_some())
            } else {
                some(found)
            })
        }
        target => {
            let found = lookup(target, field)?;
            if test {
                return Ok(Value::Bool(found.is_some()));
            }
            if optional {
                return Ok(some(found));
            }
            found.ok_or_else(|| format!("no such key: {field}"))
        }
    }
}

fn lookup(target: &Value, field: &Arc<str>) -> Result<Option<Value>, String> {
    match target {
        Value::Map(map) => Ok(map.get(&Key::String(field.clone())).cloned()),
        _ => Err("no such overload".into()),
    }
}

fn truth(value: &Outcome) -> Option<bool> {
    match value {
        Ok(Value::Bool(b)) => Some(*b),
        _ => None,
    }
}

/// `&&` and `||`: a side that decides wins over an error of the other.
fn either(decisive: bool, left: Outcome, right: impl FnOnce() -> Outcome) -> Outcome {
    if truth(&left) == Some(decisive) {
        return Ok(Value::Bool(decisive));
    }
    let right = right();
    match (truth(&left), truth(&right)) {
        (_, Some(b)) if b == decisive => Ok(Value::Bool(decisive)),
        (Some(_), Some(_)) => Ok(Value::Bool(!decisive)),
        _ => {
            left?;
            right?;
            Err("no such overload".into())
        }
    }
}

fn call<'a>(
    function: &str,
    target: Option<&'a Node>,
    args: &'a [Node],
    scope: &mut Scope<'a>,
) -> Outcome {
    match (function, args) {
        ("_&&_" | "_||_", [left, right]) => {
            let decisive = function == "_||_";
            let left = eval(left, scope);
            return either(decisive, left, || eval(right, scope));
        }
        ("_?_:_", [condition, yes, no]) => {
            return match eval(condition, scope)? {
                Value::Bool(true) => eval(yes, scope),
                Value::Bool(false) => eval(no, scope),
                _ => Err("no such overload".into()),
            };
        }
        // The other side is not looked at when there is a value.
        ("orValue" | "or", [other]) if target.is_some() => {
            let Some(target) = target else {
                return Err("no such overload".into());
            };
            return match eval(target, scope)? {
                Value::Optional(None) => eval(other, scope),
                value @ Value::Optional(_) if function == "or" => Ok(value),
                Value::Optional(Some(inner)) => Ok((*inner).clone()),
                _ => Err("no such overload".into()),
            };
        }
        _ => {}
    }
    let mut values = Vec::with_capacity(args.len() + 1);
    for node in target.into_iter().chain(args) {
        values.push(eval(node, scope)?);
    }
    spend(scope.left, cost(function, &values, scope.left.get()))?;
    functions::call(function, target.is_some(), &values)
}

/// What a call takes: a step for each item or ten bytes that it looks at, or that it makes. Nothing is made before it is paid for.
fn cost(function: &str, values: &[Value], left: u64) -> u64 {
    // Lists and maps share what they hold, so that a short expression can stand for any number of values. Some functions walk them all.
    let all = matches!(
        function,
        "_==_"
            | "_!=_"
            | "@in"
            | "format"
            | "string"
            | "indexOf"
            | "lastIndexOf"
            | "distinct"
            | "join"
    ) || function.starts_with("sets.");
    let looked_at: u64 = values
        .iter()
        .map(|value| match value {
            _ if all => weight(value, left),
            Value::String(s) => s.len() as u64 / 10,
            Value::List(items, _) => items.len() as u64,
            _ => 0,
        })
        .sum();
    let made = match (function, values) {
        (
            "replace",
            [
                Value::String(text),
                Value::String(old),
                Value::String(new),
                ..,
            ],
        ) => text.matches(&**old).count().saturating_mul(new.len()),
        ("join", [Value::List(items, _), Value::String(between)]) => {
            items.len().saturating_mul(between.len())
        }
        ("matches" | "find" | "findAll", [Value::String(text), Value::String(pattern), ..]) => {
            text.len().saturating_mul(pattern.len() / 4)
        }
        _ => 0,
    };
    looked_at.saturating_add(made as u64 / 10)
}

/// The number of values in a value, texts counted by ten bytes; no more than a little over `limit` is counted.
fn weight(value: &Value, limit: u64) -> u64 {
    let mut sum = 1;
    let mut add = |inner: &Value| {
        if sum <= limit {
            sum += weight(inner, limit - sum.min(limit));
        }
    };
    match value {
        Value::List(items, _) => items.iter().for_each(&mut add),
        Value::Map(map) => map.values().for_each(&mut add),
        Value::Optional(Some(inner)) => add(inner),
        Value::String(text) => sum += text.len() as u64 / 10,
        Value::Bytes(bytes) => sum += bytes.len() as u64 / 10,
        _ => {}
    }
    sum
}

fn folded<'a>(
    fold: Fold,
    range: &'a Node,
    name: &'a str,
    filter: Option<&'a Node>,
    body: &'a Node,
    scope: &mut Scope<'a>,
) -> Outcome {
    let items: Vec<Value> = match eval(range, scope)? {
        Value::List(items, _) => items.to_vec(),
        Value::Map(map) => map
            .keys()
            .map(|key| match key {
                Key::Bool(b) => Value::Bool(*b),
                Key::Int(i) => {
                    i64::try_from(*i).map_or_else(|_| Value::Uint(*i as u64), Value::Int)
                }
                Key::String(s) => Value::String(s.clone()),
            })
            .collect(),
        _ => return Err("no such overload".into()),
    };
    let mut out = Vec::new();
    let mut count = 0;
    let mut error = None;
    for item in items {
        if let Some(filter) = filter {
            match with(scope, name, item.clone(), filter)? {
                Value::Bool(true) => {}
                Value::Bool(false) => continue,
                _ => return Err("no such overload".into()),
            }
        }
        let result = with(scope, name, item.clone(), body);
        match fold {
            Fold::Map => out.push(result?),
            Fold::All | Fold::Exists => {
                let decisive = fold == Fold::Exists;
                match truth(&result) {
                    Some(b) if b == decisive => return Ok(Value::Bool(decisive)),
                    Some(_) => {}
                    // A later item may still decide.
                    None => error = Some(result.err().unwrap_or("no such overload".into())),
                }
                if scope.left.get() == 0 {
                    break;
                }
            }
            Fold::ExistsOne | Fold::Filter => match result? {
                Value::Bool(true) => {
                    count += 1;
                    out.push(item);
                }
                Value::Bool(false) => {}
                _ => return Err("no such overload".into()),
            },
        }
    }
    match (fold, error) {
        (_, Some(error)) => Err(error),
        (Fold::All, None) => Ok(Value::Bool(true)),
        (Fold::Exists, None) => Ok(Value::Bool(false)),
        (Fold::ExistsOne, None) => Ok(Value::Bool(count == 1)),
        (Fold::Map | Fold::Filter, None) => Ok(Value::list(out)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cel::parse;

    #[test]
    fn what_a_short_expression_multiplies_is_paid_for() {
        let doubled = |innermost: &str, last: &str| {
            let bind = |n: usize| format!("cel.bind(v{}, [v{n}, v{n}], ", n + 1);
            let binds: String = (0..40).map(bind).collect();
            format!("cel.bind(v0, {innermost}, {binds}{last}{}", ")".repeat(41))
        };
        let text = format!("cel.bind(t, '{}', ", "x".repeat(20_000));
        let refused = "operation cancelled: actual cost limit exceeded";
        for (source, expected) in [
            (doubled("[1]", "v40 == v40"), Err(refused)),
            (doubled("[1]", "size('%s'.format([v40])) > 0"), Err(refused)),
            (doubled("[1]", "size(v40) == 2"), Ok(true)),
            (format!("{text}size(t.replace('x', t)) > 0)"), Err(refused)),
            (format!("{text}size(t.replace('y', t)) == 20000)"), Ok(true)),
            (
                format!("{text}size(t.split('').join(t)) > 0)"),
                Err(refused),
            ),
        ] {
            let seen = parse(&source).and_then(|e| e.eval(&[]));
            let seen = match &seen {
                Ok(Value::Bool(truth)) => Ok(*truth),
                Ok(other) => panic!("{source}: {other:?}"),
                Err(why) => Err(why.as_str()),
            };
            assert_eq!(seen, expected, "{source}");
        }
    }
}
