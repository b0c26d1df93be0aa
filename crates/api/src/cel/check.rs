//! Types of expressions, and the mistakes that show in them.

use super::parser::{Kind, Node};
use super::signatures::{self, Form};
use super::types::{self, Type};
use super::value::Value;
use super::{Expression, Mistake, report};
use crate::schema::Document;
use std::collections::HashMap;

/// What is known about a checked expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Its type.
    pub result: Type,
    /// The outer variables that it reads.
    pub variables: Vec<String>,
}

/// Checks an expression whose variables have these types; `doc` explains the objects among them.
///
/// # Errors
/// The mistakes with their places, worded as cel-go words them.
pub fn check(
    expression: &Expression,
    doc: &Document,
    variables: &[(&str, Type)],
) -> Result<Checked, String> {
    let mut checker = Checker {
        doc,
        scope: variables
            .iter()
            .map(|(name, ty)| ((*name).to_string(), ty.clone()))
            .collect(),
        outer: variables.len(),
        used: Vec::new(),
        mistakes: Vec::new(),
    };
    let result = checker.type_of(&expression.root);
    if checker.mistakes.is_empty() {
        checker.used.sort();
        checker.used.dedup();
        Ok(Checked {
            result,
            variables: checker.used,
        })
    } else {
        Err(report(&expression.source, &checker.mistakes))
    }
}

struct Checker<'a> {
    doc: &'a Document,
    /// Names from the outside in.
    scope: Vec<(String, Type)>,
    outer: usize,
    used: Vec<String>,
    mistakes: Vec<Mistake>,
}

const TYPES: [&str; 10] = [
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
    "type",
];

impl Checker<'_> {
    fn wrong(&mut self, at: usize, what: String) -> Type {
        self.mistakes.push(Mistake { at, what });
        // Nothing more is said about what depends on it.
        Type::Dyn
    }

    fn type_of(&mut self, node: &Node) -> Type {
        match &node.kind {
            Kind::Literal(value) => match value {
                Value::Null => Type::Null,
                Value::Bool(_) => Type::Bool,
                Value::Int(_) => Type::Int,
                Value::Uint(_) => Type::Uint,
                Value::Double(_) => Type::Double,
                Value::String(_) => Type::String,
                _ => Type::Bytes,
            },
            Kind::Name(name) => self.name(node.at, name),
            Kind::Select {
                target,
                field,
                test,
                optional,
            } => {
                let of = self.type_of(target);
                let found = self.select(node.at, of, field, *optional);
                if *test { Type::Bool } else { found }
            }
            Kind::Call {
                function,
                target,
                args,
            } => {
                let mut types: Vec<Type> = target.iter().map(|t| self.type_of(t)).collect();
                types.extend(args.iter().map(|a| self.type_of(a)));
                self.call(node.at, function, target.is_some(), &types)
            }
            Kind::List(entries) => {
                let mut inner: Option<Type> = None;
                for (optional, entry) in entries {
                    let mut ty = self.type_of(entry);
                    if *optional && let Type::Optional(wrapped) = ty {
                        ty = *wrapped;
                    }
                    inner = Some(joined(inner, ty));
                }
                Type::List(Box::new(inner.unwrap_or(Type::Dyn)))
            }
            Kind::Map(entries) => {
                let (mut keys, mut values) = (None, None);
                for (optional, key, value) in entries {
                    keys = Some(joined(keys, self.type_of(key)));
                    let mut ty = self.type_of(value);
                    if *optional && let Type::Optional(wrapped) = ty {
                        ty = *wrapped;
                    }
                    values = Some(joined(values, ty));
                }
                Type::Map(
                    Box::new(keys.unwrap_or(Type::Dyn)),
                    Box::new(values.unwrap_or(Type::Dyn)),
                )
            }
            Kind::Fold {
                fold,
                range,
                name,
                filter,
                body,
            } => {
                let over = self.type_of(range);
                let (element, is_map) = match &over {
                    Type::List(inner) => ((**inner).clone(), false),
                    Type::Map(key, _) => ((**key).clone(), true),
                    Type::Dyn => (Type::Dyn, false),
                    other => {
                        let what = format!(
                            "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                        );
                        (self.wrong(range.at, what), false)
                    }
                };
                self.scope.push((name.to_string(), element.clone()));
                if let Some(filter) = filter {
                    let ty = self.type_of(filter);
                    self.must_be_bool(filter.at, "_?_:_", &ty);
                }
                let ty = self.type_of(body);
                self.scope.pop();
                use super::parser::Fold;
                match fold {
                    Fold::Map => Type::List(Box::new(ty)),
                    Fold::Filter => {
                        self.must_be_bool(body.at, "_?_:_", &ty);
                        // Filtering a map leaves a list of its keys.
                        let _ = is_map;
                        Type::List(Box::new(element))
                    }
                    Fold::All => {
                        self.must_be_bool(body.at, "_&&_", &ty);
                        Type::Bool
                    }
                    Fold::Exists => {
                        self.must_be_bool(body.at, "_||_", &ty);
                        Type::Bool
                    }
                    Fold::ExistsOne => {
                        self.must_be_bool(body.at, "_?_:_", &ty);
                        Type::Bool
                    }
                }
            }
            Kind::Bind { name, value, body } => {
                let ty = self.type_of(value);
                self.scope.push((name.to_string(), ty));
                let result = self.type_of(body);
                self.scope.pop();
                result
            }
            Kind::OptMap {
                target,
                name,
                body,
                flat,
            } => {
                let inner = match self.type_of(target) {
                    Type::Optional(inner) => *inner,
                    _ => Type::Dyn,
                };
                self.scope.push((name.to_string(), inner));
                let result = self.type_of(body);
                self.scope.pop();
                if *flat {
                    result
                } else {
                    Type::Optional(Box::new(result))
                }
            }
        }
    }

    fn must_be_bool(&mut self, at: usize, function: &str, ty: &Type) {
        if matches!(ty, Type::Bool | Type::Dyn) {
            return;
        }
        let args = if function == "_?_:_" {
            format!("({ty}, bool, bool)")
        } else {
            format!("(bool, {ty})")
        };
        self.wrong(
            at,
            format!("found no matching overload for '{function}' applied to '{args}'"),
        );
    }

    fn name(&mut self, at: usize, name: &str) -> Type {
        if let Some(i) = self.scope.iter().rposition(|(n, _)| n == name) {
            if i < self.outer {
                self.used.push(name.to_string());
            }
            return self.scope[i].1.clone();
        }
        if TYPES.contains(&name) {
            return Type::Type;
        }
        self.wrong(
            at,
            format!("undeclared reference to '{name}' (in container '')"),
        )
    }

    fn select(&mut self, at: usize, of: Type, name: &str, optional: bool) -> Type {
        let wrap = |ty: Type| {
            if optional && !matches!(ty, Type::Optional(_)) {
                Type::Optional(Box::new(ty))
            } else {
                ty
            }
        };
        match of {
            Type::Dyn => wrap(Type::Dyn),
            Type::Map(_, value) => wrap(*value),
            Type::Optional(inner) => {
                let found = self.select(at, *inner, name, false);
                Type::Optional(Box::new(found))
            }
            Type::Object(_) | Type::Resource(_) | Type::Metadata | Type::Fields(_) => {
                match types::field(self.doc, &of, name) {
                    Some(ty) => wrap(ty),
                    None => self.wrong(at, format!("undefined field '{name}'")),
                }
            }
            other => self.wrong(
                at,
                format!("type '{other}' does not support field selection"),
            ),
        }
    }

    fn call(&mut self, at: usize, function: &str, member: bool, args: &[Type]) -> Type {
        let forms = signatures::forms(function);
        if forms.is_empty() {
            return self.wrong(
                at,
                format!("undeclared reference to '{function}' (in container '')"),
            );
        }
        let mut result: Option<Type> = None;
        for form in forms.iter().filter(|form| form.member == member) {
            let Some(ty) = apply(form, args) else {
                continue;
            };
            result = Some(match result {
                Some(before) if before != ty => Type::Dyn,
                _ => ty,
            });
        }
        if let Some(result) = result {
            return result;
        }
        let list = |types: &[Type]| {
            let all: Vec<String> = types.iter().map(Type::to_string).collect();
            all.join(", ")
        };
        let shown = match args.split_first() {
            Some((target, rest)) if member => format!("{target}.({})", list(rest)),
            _ => format!("({})", list(args)),
        };
        self.wrong(
            at,
            format!("found no matching overload for '{function}' applied to '{shown}'"),
        )
    }
}

/// The result of a form for these types; None when it does not fit.
fn apply(form: &Form, args: &[Type]) -> Option<Type> {
    if form.params.len() != args.len() {
        return None;
    }
    let mut bound = HashMap::new();
    form.params
        .iter()
        .zip(args)
        .all(|(param, arg)| fits(param, arg, &mut bound))
        .then(|| substitute(&form.result, &bound))
}

fn fits(param: &Type, arg: &Type, bound: &mut HashMap<char, Type>) -> bool {
    match (param, arg) {
        (Type::Param(name), _) => match bound.get(name).cloned() {
            None => {
                bound.insert(*name, arg.clone());
                true
            }
            Some(before) => {
                let both = fits(&before, arg, bound) || fits(arg, &before, bound);
                // The more general one stands for both.
                if both && (before == Type::Null || *arg == Type::Dyn) {
                    bound.insert(*name, arg.clone());
                }
                both
            }
        },
        (Type::Dyn, _) | (_, Type::Dyn) => true,
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => {
            fits(a, b, bound)
        }
        (Type::Map(k, v), Type::Map(l, w)) => fits(k, l, bound) && fits(v, w, bound),
        (
            Type::Object(_)
            | Type::Resource(_)
            | Type::Metadata
            | Type::Duration
            | Type::Timestamp
            | Type::Opaque(_),
            Type::Null,
        ) => true,
        (a, b) => a == b,
    }
}

fn substitute(ty: &Type, bound: &HashMap<char, Type>) -> Type {
    match ty {
        Type::Param(name) => bound.get(name).cloned().unwrap_or(Type::Dyn),
        Type::List(inner) => Type::List(Box::new(substitute(inner, bound))),
        Type::Optional(inner) => Type::Optional(Box::new(substitute(inner, bound))),
        Type::Map(key, value) => Type::Map(
            Box::new(substitute(key, bound)),
            Box::new(substitute(value, bound)),
        ),
        other => other.clone(),
    }
}

/// The type of entries of both types.
fn joined(before: Option<Type>, ty: Type) -> Type {
    match before {
        None => ty,
        Some(before) if before == ty => ty,
        Some(_) => Type::Dyn,
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use serde_json::json;

    fn checked(text: &str) -> Result<Type, String> {
        let schema = json!({"type": "object", "properties": {
            "n": {"type": "integer"}, "s": {"type": "string"}, "d": {"type": "number"},
            "list": {"type": "array", "items": {"type": "string"}},
            "map": {"type": "object", "additionalProperties": {"type": "integer"}},
            "either": {"x-kubernetes-int-or-string": true},
            "when": {"type": "string", "format": "date-time"},
            "o": {"type": "object", "properties": {"x-y": {"type": "boolean"}}}}});
        let (doc, root) = Document::from_schema(&schema);
        let self_type = types::of_schema(&doc, root, false).unwrap();
        check(&parse(text)?, &doc, &[("self", self_type)]).map(|c| c.result)
    }

    #[test]
    fn results() {
        for (text, want) in [
            ("self.n > 1 && self.d < 2", "bool"),
            ("self.list.map(x, x.size())", "list(int)"),
            ("has(self.o.x__dash__y) ? self.o.x__dash__y : false", "bool"),
            ("self.map['a'] + 1", "int"),
            ("self.either == 1 || self.either == 'a'", "bool"),
            ("self.when.getFullYear()", "int"),
            (
                "(has(self.list) ? self.list : []).exists(k, k == 'a')",
                "bool",
            ),
            ("self.map.all(k, k.startsWith('a'))", "bool"),
            ("self.?n.orValue(0)", "int"),
            ("format.dns1123Label().validate(self.s).hasValue()", "bool"),
            ("self.o != null", "bool"),
            ("quantity(self.s).isLessThan(quantity('1'))", "bool"),
            ("type(self.n) == int", "bool"),
            ("'%s'.format([self.s, self.n])", "string"),
        ] {
            assert_eq!(checked(text).unwrap().to_string(), want, "{text}");
        }
    }

    #[test]
    fn mistakes_are_worded_as_by_cel_go() {
        for (text, what) in [
            ("self.x == 1", "undefined field 'x'"),
            (
                "self.n == 's'",
                "found no matching overload for '_==_' applied to '(int, string)'",
            ),
            (
                "self.n.startsWith('a')",
                "found no matching overload for 'startsWith' applied to 'int.(string)'",
            ),
            ("other", "undeclared reference to 'other' (in container '')"),
            (
                "self.s.foo()",
                "undeclared reference to 'foo' (in container '')",
            ),
            ("self.s.x", "type 'string' does not support field selection"),
            (
                "self.s == null",
                "found no matching overload for '_==_' applied to '(string, null)'",
            ),
            (
                "self.n.all(x, true)",
                "expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
            ),
        ] {
            let text = checked(text).unwrap_err();
            assert!(text.contains(what), "{text}");
        }
        assert_eq!(
            checked("self.x == 1").unwrap_err(),
            "ERROR: <input>:1:5: undefined field 'x'\n | self.x == 1\n | ....^"
        );
    }
}
