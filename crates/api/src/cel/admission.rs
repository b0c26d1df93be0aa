//! The expressions of admission: match conditions of webhooks and policies, and what a ValidatingAdmissionPolicy asks.
//!
//! Their variables and the words of their errors are those of a real API server, except that there is no `authorizer`: an
//! expression that reads it does not compile here.

use super::types::{self, Type};
use super::value::{Key, Map, Value};
use super::{Expression, check, parse};
use crate::schema::{Document, NodeId};
use serde_json::{Value as Json, json};
use std::sync::{Arc, LazyLock};

/// The types of `request` and `namespaceObject`.
struct Shapes {
    doc: Document,
    request: NodeId,
    namespace: NodeId,
}

static SHAPES: LazyLock<Shapes> = LazyLock::new(|| {
    let text = || json!({"type": "string"});
    let texts = |names: &[&str]| -> Json {
        let all: serde_json::Map<String, Json> =
            names.iter().map(|n| ((*n).to_owned(), text())).collect();
        json!({"type": "object", "properties": all})
    };
    let list = |items: Json| json!({"type": "array", "items": items});
    let map = |values: Json| json!({"type": "object", "additionalProperties": values});
    let time = || json!({"type": "string", "format": "date-time"});
    let kind = || texts(&["group", "version", "kind"]);
    let resource = || texts(&["group", "version", "resource"]);
    let (doc, root) = Document::from_schema(&json!({"type": "object", "properties": {
        "request": {"type": "object", "properties": {
            "kind": kind(), "requestKind": kind(), "resource": resource(), "requestResource": resource(),
            "subResource": text(), "requestSubResource": text(), "name": text(), "namespace": text(),
            "operation": text(), "dryRun": {"type": "boolean"},
            // Of any form.
            "options": {"x-kubernetes-int-or-string": true},
            "userInfo": {"type": "object", "properties": {"username": text(), "uid": text(),
                "groups": list(text()), "extra": map(list(text()))}},
        }},
        "namespace": {"type": "object", "properties": {
            "metadata": {"type": "object", "properties": {
                "name": text(), "generateName": text(), "namespace": text(), "resourceVersion": text(),
                "labels": map(text()), "annotations": map(text()), "finalizers": list(text()),
                "generation": {"type": "integer"}, "deletionGracePeriodSeconds": {"type": "integer"},
                "creationTimestamp": time(), "deletionTimestamp": time(),
            }},
            "spec": {"type": "object", "properties": {"finalizers": list(text())}},
            "status": {"type": "object", "properties": {"phase": text()}},
        }},
    }}));
    let inside = &doc.resolve(root).properties;
    let (request, namespace) = (inside["request"], inside["namespace"]);
    Shapes {
        doc,
        request,
        namespace,
    }
});

/// Which variables an expression may read besides `object`, `oldObject` and `request`.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// `params`: the policy has a `paramKind`.
    params: bool,
    /// `namespaceObject` and `variables`.
    policy: bool,
    /// The types of the variables declared so far.
    variables: Vec<(String, Type)>,
}

impl Scope {
    /// What match conditions may read; `params`: those of a policy with a `paramKind`.
    pub fn conditions(params: bool) -> Self {
        Self {
            params,
            ..Self::default()
        }
    }

    /// What the body of a policy may read.
    pub fn policy(params: bool) -> Self {
        Self {
            params,
            policy: true,
            ..Self::default()
        }
    }

    /// Declares a variable of a policy for the expressions after it.
    pub fn declare(&mut self, name: &str, ty: Type) {
        self.variables.push((name.to_owned(), ty));
    }

    /// The type of an expression.
    ///
    /// # Errors
    /// Why it does not compile: `compilation failed: ERROR: ...`.
    pub fn type_of(&self, source: &str) -> Result<Type, String> {
        let mut types = vec![
            ("object", Type::Dyn),
            ("oldObject", Type::Dyn),
            ("request", Type::Object(SHAPES.request)),
        ];
        if self.params {
            types.push(("params", Type::Dyn));
        }
        if self.policy {
            types.push(("namespaceObject", Type::Object(SHAPES.namespace)));
            types.push(("variables", Type::Fields(self.variables.as_slice().into())));
        }
        parse(source)
            .and_then(|expression| check(&expression, &SHAPES.doc, &types))
            .map(|checked| checked.result)
            .map_err(|why| format!("compilation failed: {why}"))
    }

    /// Why an expression may not stand where a value of one of these types is wanted.
    pub fn refusal(&self, source: &str, wanted: &[Type]) -> Option<String> {
        match self.type_of(source) {
            Err(why) => Some(why),
            Ok(found) if wanted.contains(&found) => None,
            Ok(found) => {
                let names: Vec<String> = wanted.iter().map(Type::to_string).collect();
                let wanted = match names.as_slice() {
                    [only] => only.clone(),
                    several => format!("one of [{}]", several.join(" ")),
                };
                Some(format!("must evaluate to {wanted} but got {found}"))
            }
        }
    }
}

/// One request as expressions see it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The `request` of an AdmissionReview, with `object` and `oldObject`.
    pub request: &'a Json,
    /// The Namespace of the object; null when it has none.
    pub namespace: &'a Json,
    /// The parameters of a policy; null when it has none.
    pub params: &'a Json,
}

/// The values of the variables, without those a policy declares.
fn bindings(asked: Asked<'_>) -> Vec<(&'static str, Value)> {
    let shaped = |id, json: &Json| match json {
        Json::Null => Value::Null,
        json => types::to_value(&SHAPES.doc, id, json, false),
    };
    vec![
        ("object", types::plain(&asked.request["object"])),
        ("oldObject", types::plain(&asked.request["oldObject"])),
        ("request", shaped(SHAPES.request, asked.request)),
        ("params", types::plain(asked.params)),
        ("namespaceObject", shaped(SHAPES.namespace, asked.namespace)),
    ]
}

fn text(v: &Json) -> &str {
    v.as_str().unwrap_or("")
}

fn list(v: &Json) -> &[Json] {
    v.as_array().map_or(&[], Vec::as_slice)
}

fn evaluate(source: &str, variables: &[(&str, Value)]) -> Result<Value, String> {
    parse(source)
        .and_then(|expression: Expression| expression.eval(variables))
        .map_err(|why| format!("expression '{source}' resulted in error: {why}"))
}

/// Do all of these `matchConditions` hold? One that does not hold decides, whatever became of the others.
///
/// # Errors
/// What went wrong in a condition, if none of them says no and `insist` (the failure policy is not Ignore).
pub fn conditions_hold(conditions: &Json, insist: bool, asked: Asked<'_>) -> Result<bool, String> {
    let conditions = list(conditions);
    if conditions.is_empty() {
        return Ok(true);
    }
    let variables = bindings(asked);
    let mut errors = Vec::new();
    for condition in conditions {
        match evaluate(text(&condition["expression"]).trim(), &variables) {
            Ok(Value::Bool(false)) => return Ok(false),
            Ok(_) => {}
            Err(why) => errors.push(why),
        }
    }
    match errors.as_slice() {
        [] => Ok(true),
        _ if !insist => Ok(false),
        [only] => Err(only.clone()),
        several => Err(format!("[{}]", several.join(", "))),
    }
}

/// An objection of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// What is said about the request.
    pub message: String,
    /// The reason of the Status; empty for the usual one.
    pub reason: String,
}

/// The longest text that an expression may give as a message.
const LONGEST_MESSAGE: usize = 5 * 1024;

/// What a ValidatingAdmissionPolicy objects to in a request that it is about.
pub fn objections(policy: &Json, asked: Asked<'_>) -> Vec<Objection> {
    let spec = &policy["spec"];
    let insist = spec["failurePolicy"] != "Ignore";
    let failed = |message: String| Objection {
        message,
        reason: String::new(),
    };
    match conditions_hold(&spec["matchConditions"], insist, asked) {
        Ok(true) => {}
        Ok(false) => return Vec::new(),
        Err(why) => return vec![failed(why)],
    }
    let mut outer = bindings(asked);
    outer.push(("variables", Value::Map(Arc::new(Map::new()))));
    // Variables are looked at when they are needed: a broken one that nobody reads does no harm.
    let mut known = Map::new();
    let mut broken: Vec<(String, String)> = Vec::new();
    for variable in list(&spec["variables"]) {
        let name = text(&variable["name"]);
        let result = parse(text(&variable["expression"])).and_then(|e| e.eval(&outer));
        match result {
            Ok(value) => {
                known.insert(Key::String(name.into()), value);
            }
            Err(why) => broken.push((name.to_owned(), cause(&broken, why))),
        }
        if let Some(last) = outer.last_mut() {
            last.1 = Value::Map(Arc::new(known.clone()));
        }
    }
    let mut out = Vec::new();
    for validation in list(&spec["validations"]) {
        let source = text(&validation["expression"]);
        match parse(source).and_then(|e| e.eval(&outer)) {
            Ok(Value::Bool(true)) => {}
            Ok(_) => out.push(Objection {
                message: message(validation, source, &outer),
                reason: text(&validation["reason"]).to_owned(),
            }),
            Err(why) if insist => out.push(failed(format!(
                "expression '{source}' resulted in error: {}",
                cause(&broken, why)
            ))),
            Err(_) => {}
        }
    }
    out
}

/// An error, or the error of the variable that is missing because of its own.
fn cause(broken: &[(String, String)], why: String) -> String {
    match broken
        .iter()
        .find(|(name, _)| why == format!("no such key: {name}"))
    {
        Some((name, own)) => format!("composited variable {name:?} fails to evaluate: {own}"),
        None => why,
    }
}

fn message(validation: &Json, source: &str, variables: &[(&str, Value)]) -> String {
    let computed = validation["messageExpression"]
        .as_str()
        .and_then(|expression| parse(expression).and_then(|e| e.eval(variables)).ok());
    if let Some(Value::String(text)) = computed {
        let text = text.trim();
        if !text.is_empty() && !text.contains('\n') && text.len() <= LONGEST_MESSAGE {
            return text.to_owned();
        }
    }
    match text(&validation["message"]).trim() {
        "" => format!("failed expression: {}", source.trim()),
        message => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(request: &Json) -> Asked<'_> {
        Asked {
            request,
            namespace: &Json::Null,
            params: &Json::Null,
        }
    }

    #[test]
    fn one_condition_that_says_no_decides() {
        let request = json!({"operation": "CREATE", "object": {"metadata": {"name": "skip-me"}}});
        let conditions = |texts: &[&str]| -> Json {
            texts
                .iter()
                .map(|t| json!({"name": "c", "expression": t}))
                .collect()
        };
        let hold =
            |texts: &[&str], insist| conditions_hold(&conditions(texts), insist, asked(&request));
        assert_eq!(
            hold(&["object.metadata.name != 'skip-me'"], true),
            Ok(false)
        );
        assert_eq!(hold(&["request.operation == 'CREATE'"], true), Ok(true));
        assert_eq!(hold(&["object.spec.x == 1", "false"], true), Ok(false));
        assert_eq!(hold(&["object.spec.x == 1"], false), Ok(false));
        assert_eq!(
            hold(&["object.spec.x == 1"], true),
            Err("expression 'object.spec.x == 1' resulted in error: no such key: spec".into())
        );
    }

    #[test]
    fn a_policy_objects_in_its_own_words() {
        let policy = json!({"spec": {
            "variables": [
                {"name": "n", "expression": "object.spec.replicas"},
                {"name": "odd", "expression": "variables.n % 2 == 1"},
                {"name": "none", "expression": "object.spec.missing"},
            ],
            "validations": [
                {"expression": "variables.odd", "messageExpression": "'even: ' + string(variables.n)"},
                {"expression": "namespaceObject.metadata.labels['env'] == 'test'", "message": "not here", "reason": "Forbidden"},
                {"expression": "variables.n < 3"},
            ],
        }});
        let found = |replicas: u32| {
            let request = json!({"object": {"spec": {"replicas": replicas}}});
            let namespace = json!({"metadata": {"labels": {"env": "live"}}});
            let asked = Asked {
                request: &request,
                namespace: &namespace,
                params: &Json::Null,
            };
            objections(&policy, asked)
                .into_iter()
                .map(|o| format!("{}/{}", o.message, o.reason))
                .collect::<Vec<_>>()
        };
        assert_eq!(found(1), ["not here/Forbidden"]);
        assert_eq!(
            found(4),
            [
                "even: 4/",
                "not here/Forbidden",
                "failed expression: variables.n < 3/"
            ]
        );
    }

    #[test]
    fn a_broken_variable_is_named_where_it_is_read() {
        let policy = |failure: &str| {
            json!({"spec": {"failurePolicy": failure, "variables": [{"name": "x", "expression": "object.a.b"}],
                "validations": [{"expression": "variables.x == 1"}, {"expression": "true"}]}})
        };
        let request = json!({"object": {}});
        let found = objections(&policy("Fail"), asked(&request));
        assert_eq!(
            found[0].message,
            "expression 'variables.x == 1' resulted in error: composited variable \"x\" fails to evaluate: no such key: a"
        );
        assert!(objections(&policy("Ignore"), asked(&request)).is_empty());
    }

    #[test]
    fn expressions_are_checked_before_they_are_taken() {
        let mut scope = Scope::policy(false);
        assert_eq!(
            scope.type_of("object.spec.replicas % 2 == 1"),
            Ok(Type::Bool)
        );
        scope.declare("odd", Type::Bool);
        assert_eq!(scope.refusal("variables.odd", &[Type::Bool]), None);
        assert_eq!(
            scope.refusal("1", &[Type::Bool]).unwrap(),
            "must evaluate to bool but got int"
        );
        let wrong = |source: &str| scope.refusal(source, &[Type::Bool]).unwrap();
        assert!(wrong("variables.even").contains("undefined field 'even'"));
        assert!(wrong("params.a == 1").contains("undeclared reference to 'params'"));
        assert!(wrong("request.nothing == 1").contains("undefined field 'nothing'"));
        assert!(wrong("[][]").starts_with("compilation failed: ERROR: <input>:1:4: Syntax error"));
    }
}
