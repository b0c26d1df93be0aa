//! The JSONPath of printer columns and `kubectl`: `.spec.hosts`, `.status.conditions[?(@.type=="Ready")].status`.

use serde_json::Value;

/// A compiled path.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Member(String),
    Wildcard,
    Recursive,
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    Union(Vec<Step>),
    Filter(Vec<Step>, Option<(String, Value)>),
}

/// The member at a dotted path of plain names; null when absent.
pub fn field<'a>(obj: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(obj, |v, name| &v[name])
}

impl JsonPath {
    /// Compiles a path; the leading dot, `$` and surrounding braces are optional.
    pub fn parse(path: &str) -> Result<Self, String> {
        let p = path.trim();
        let p = p
            .strip_prefix('{')
            .and_then(|p| p.strip_suffix('}'))
            .unwrap_or(p);
        let p = p.strip_prefix('$').unwrap_or(p);
        Ok(Self {
            steps: steps(p).map_err(|why| format!("invalid JSONPath {path:?}: {why}"))?,
        })
    }

    /// All values the path leads to.
    pub fn find<'a>(&self, obj: &'a Value) -> Vec<&'a Value> {
        walk(&self.steps, vec![obj])
    }
}

fn steps(p: &str) -> Result<Vec<Step>, String> {
    let mut out = Vec::new();
    let b: Vec<char> = p.chars().collect();
    let mut i = 0;
    while i < b.len() {
        match b[i] {
            '.' => {
                i += 1;
                if b.get(i) == Some(&'.') {
                    out.push(Step::Recursive);
                    i += 1;
                }
                if b.get(i) == Some(&'[') || i >= b.len() {
                    continue;
                }
                let mut name = String::new();
                while i < b.len() && b[i] != '.' && b[i] != '[' {
                    if b[i] == '\\' && i + 1 < b.len() {
                        i += 1;
                    }
                    name.push(b[i]);
                    i += 1;
                }
                if name.is_empty() {
                    return Err("empty name".into());
                }
                out.push(if name == "*" {
                    Step::Wildcard
                } else {
                    Step::Member(name)
                });
            }
            '[' => {
                let (mut depth, mut quoted, start) = (1, None, i + 1);
                i += 1;
                while i < b.len() && depth > 0 {
                    match (b[i], quoted) {
                        ('\\', Some(_)) => i += 1,
                        (c, Some(q)) if c == q => quoted = None,
                        (_, Some(_)) => {}
                        (c @ ('"' | '\''), None) => quoted = Some(c),
                        ('[', None) => depth += 1,
                        (']', None) => depth -= 1,
                        _ => {}
                    }
                    i += 1;
                }
                if depth > 0 {
                    return Err("unterminated array".into());
                }
                let inner: String = b[start..i - 1].iter().collect();
                out.push(bracket(inner.trim())?);
            }
            _ => {
                // A path may start without a dot.
                if !out.is_empty() {
                    return Err(format!("unexpected {:?}", b[i]));
                }
                return steps(&format!(".{p}"));
            }
        }
    }
    Ok(out)
}

fn unquote(s: &str) -> Option<String> {
    let q = s.chars().next().filter(|c| *c == '\'' || *c == '"')?;
    if s.len() < 2 || !s.ends_with(q) {
        return None;
    }
    Some(s[1..s.len() - 1].replace(&format!("\\{q}"), &q.to_string()))
}

fn bracket(s: &str) -> Result<Step, String> {
    if s == "*" {
        return Ok(Step::Wildcard);
    }
    if let Some(f) = s.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
        for op in ["==", "!=", "<=", ">=", "<", ">"] {
            if let Some(at) = f.find(op) {
                let left = f[..at]
                    .trim()
                    .strip_prefix('@')
                    .ok_or("a filter starts with @")?;
                let right = f[at + op.len()..].trim();
                let value = unquote(right).map_or_else(
                    || {
                        serde_json::from_str(right)
                            .map_err(|_| format!("unreadable value {right:?}"))
                    },
                    |s| Ok(Value::String(s)),
                )?;
                return Ok(Step::Filter(steps(left)?, Some((op.into(), value))));
            }
        }
        let left = f.trim().strip_prefix('@').ok_or("a filter starts with @")?;
        return Ok(Step::Filter(steps(left)?, None));
    }
    if let Some(name) = unquote(s).filter(|_| !s.contains("','")) {
        return Ok(Step::Member(name));
    }
    if s.contains(',') {
        return Ok(Step::Union(
            s.split(',')
                .map(|p| bracket(p.trim()))
                .collect::<Result<_, _>>()?,
        ));
    }
    let number = |t: &str| -> Result<Option<i64>, String> {
        let t = t.trim();
        if t.is_empty() {
            Ok(None)
        } else {
            t.parse()
                .map(Some)
                .map_err(|_| format!("invalid array index {s}"))
        }
    };
    if let Some((from, to)) = s.split_once(':') {
        return Ok(Step::Slice(number(from)?, number(to)?));
    }
    Ok(Step::Index(number(s)?.ok_or("empty index")?))
}

fn walk<'a>(steps: &[Step], mut current: Vec<&'a Value>) -> Vec<&'a Value> {
    for step in steps {
        current = current.into_iter().flat_map(|v| apply(step, v)).collect();
    }
    current
}

fn apply<'a>(step: &Step, v: &'a Value) -> Vec<&'a Value> {
    match step {
        Step::Member(name) => v.get(name).into_iter().collect(),
        Step::Wildcard => match v {
            Value::Array(a) => a.iter().collect(),
            Value::Object(m) => m.values().collect(),
            _ => vec![],
        },
        Step::Recursive => {
            let mut out = vec![v];
            let children: Vec<&Value> = apply(&Step::Wildcard, v);
            out.extend(
                children
                    .into_iter()
                    .flat_map(|c| apply(&Step::Recursive, c)),
            );
            out
        }
        Step::Index(i) => {
            let Some(a) = v.as_array() else { return vec![] };
            let i = if *i < 0 { a.len() as i64 + i } else { *i };
            usize::try_from(i)
                .ok()
                .and_then(|i| a.get(i))
                .into_iter()
                .collect()
        }
        Step::Slice(from, to) => {
            let Some(a) = v.as_array() else { return vec![] };
            let clamp = |i: i64| {
                (if i < 0 { a.len() as i64 + i } else { i }).clamp(0, a.len() as i64) as usize
            };
            let (from, to) = (
                clamp(from.unwrap_or(0)),
                clamp(to.unwrap_or(a.len() as i64)),
            );
            if from < to {
                a[from..to].iter().collect()
            } else {
                vec![]
            }
        }
        Step::Union(steps) => steps.iter().flat_map(|s| apply(s, v)).collect(),
        Step::Filter(left, test) => {
            let Some(a) = v.as_array() else { return vec![] };
            a.iter()
                .filter(|e| {
                    let found = walk(left, vec![e]);
                    match (found.first(), test) {
                        (None, _) => false,
                        (Some(_), None) => true,
                        (Some(l), Some((op, r))) => compare(l, op, r),
                    }
                })
                .collect()
        }
    }
}

fn compare(l: &Value, op: &str, r: &Value) -> bool {
    use std::cmp::Ordering::*;
    let order = match (l, r) {
        (Value::String(a), Value::String(b)) => a.partial_cmp(b),
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (a, b) if a == b => Some(Equal),
        _ => None,
    };
    match op {
        "==" => order == Some(Equal),
        "!=" => order != Some(Equal),
        "<" => order == Some(Less),
        ">" => order == Some(Greater),
        "<=" => matches!(order, Some(Less | Equal)),
        _ => matches!(order, Some(Greater | Equal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_of_printer_columns() {
        let o = json!({"spec": {"hosts": ["a", "b"], "http": [{"n": 1}, {"n": 2}]}, "metadata": {"labels": {"a.b/c": "d"}},
                       "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "X", "status": "False"}]}});
        for (p, want) in [
            (".spec.hosts", json!([["a", "b"]])),
            ("{.spec.hosts[0]}", json!(["a"])),
            (".spec.http[*].n", json!([1, 2])),
            (".spec.http[-1].n", json!([2])),
            (".spec.http[0:1].n", json!([1])),
            (
                ".status.conditions[?(@.type==\"Ready\")].status",
                json!(["True"]),
            ),
            (
                ".status.conditions[?(@.type=='X')].status",
                json!(["False"]),
            ),
            (".metadata.labels.a\\.b/c", json!(["d"])),
            (".metadata.labels['a.b/c']", json!(["d"])),
            ("..n", json!([1, 2])),
            (".spec.none", json!([])),
            ("spec.hosts[0,1]", json!(["a", "b"])),
        ] {
            assert_eq!(json!(JsonPath::parse(p).unwrap().find(&o)), want, "{p}");
        }
        assert!(JsonPath::parse(".a[").is_err());
    }
}
