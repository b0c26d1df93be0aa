//! ValidatingAdmissionPolicies, their bindings, and the match conditions that webhooks have as well.

use super::{Errors, access, invalid_each, label_selector, list, names, text};
use crate::cel::Type;
use crate::cel::admission::Scope;
use crate::field::FieldError;
use serde_json::Value;

/// The most match conditions of one webhook or policy.
const MOST_CONDITIONS: usize = 64;

/// `matchConditions`: each named once, each an expression that yields true or false.
pub(super) fn match_conditions(path: &str, conditions: &Value, scope: &Scope) -> Errors {
    let mut out = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    let conditions = list(conditions);
    if conditions.len() > MOST_CONDITIONS {
        out.push(FieldError::too_many(
            path,
            conditions.len(),
            MOST_CONDITIONS,
        ));
    }
    for (i, condition) in conditions.iter().enumerate() {
        let at = format!("{path}[{i}]");
        match text(&condition["expression"]).trim() {
            "" => out.push(FieldError::required(format!("{at}.expression"), "")),
            source => out.extend(expression(
                format!("{at}.expression"),
                source,
                scope,
                &[Type::Bool],
            )),
        }
        let name = text(&condition["name"]);
        let here = format!("{at}.name");
        if name.is_empty() {
            out.push(FieldError::required(here, ""));
            continue;
        }
        out.extend(invalid_each(
            &here,
            &condition["name"],
            names::qualified_name(name),
        ));
        if seen.contains(&name) {
            out.push(FieldError::duplicate(here, &condition["name"]));
        }
        seen.push(name);
    }
    out
}

fn expression(path: String, source: &str, scope: &Scope, wanted: &[Type]) -> Option<FieldError> {
    scope
        .refusal(source, wanted)
        .map(|why| FieldError::invalid(path, &source.into(), why))
}

fn one_of(out: &mut Errors, path: &str, v: &Value, allowed: &[&str]) {
    if v.is_null() {
        out.push(FieldError::required(path, ""));
    } else if !allowed.contains(&text(v)) {
        out.push(FieldError::not_supported(path, v, allowed));
    }
}

fn match_resources(path: &str, resources: &Value) -> Errors {
    let mut out = Vec::new();
    let at = format!("{path}.matchPolicy");
    one_of(
        &mut out,
        &at,
        &resources["matchPolicy"],
        &["Equivalent", "Exact"],
    );
    for field in ["namespaceSelector", "objectSelector"] {
        out.extend(label_selector(
            &format!("{path}.{field}"),
            &resources[field],
        ));
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        for (i, rule) in list(&resources[field]).iter().enumerate() {
            let at = format!("{path}.{field}[{i}]");
            for (j, name) in list(&rule["resourceNames"]).iter().enumerate() {
                out.extend(invalid_each(
                    &format!("{at}.resourceNames[{j}]"),
                    name,
                    names::path_segment(text(name)),
                ));
            }
            out.extend(access::resource_rule(&at, rule));
        }
    }
    out
}

fn param_kind(path: &str, kind: &Value) -> Errors {
    let mut out = Vec::new();
    for field in ["apiVersion", "kind"] {
        if text(&kind[field]).is_empty() {
            out.push(FieldError::required(format!("{path}.{field}"), ""));
        }
    }
    if !text(&kind["kind"]).is_empty() {
        let found = names::dns_1035_label(&text(&kind["kind"]).to_lowercase());
        if !found.is_empty() {
            out.push(FieldError::invalid(
                format!("{path}.kind"),
                &kind["kind"],
                format!(
                    "may have mixed case, but should otherwise match: {}",
                    found.join(",")
                ),
            ));
        }
    }
    out
}

/// A ValidatingAdmissionPolicy.
pub(super) fn policy(obj: &Value) -> Errors {
    let spec = &obj["spec"];
    let mut out = Vec::new();
    one_of(
        &mut out,
        "spec.failurePolicy",
        &spec["failurePolicy"],
        &["Fail", "Ignore"],
    );
    if spec["paramKind"].is_object() {
        out.extend(param_kind("spec.paramKind", &spec["paramKind"]));
    }
    let constraints = &spec["matchConstraints"];
    if constraints.is_null() {
        out.push(FieldError::required("spec.matchConstraints", ""));
    } else {
        out.extend(match_resources("spec.matchConstraints", constraints));
        if list(&constraints["resourceRules"]).is_empty() {
            out.push(FieldError::required(
                "spec.matchConstraints.resourceRules",
                "",
            ));
        }
    }
    let has_params = spec["paramKind"].is_object();
    out.extend(match_conditions(
        "spec.matchConditions",
        &spec["matchConditions"],
        &Scope::conditions(has_params),
    ));
    let mut scope = Scope::policy(has_params);
    for (i, v) in list(&spec["variables"]).iter().enumerate() {
        out.extend(variable(&format!("spec.variables[{i}]"), v, &mut scope));
    }
    let (validations, annotations) = (list(&spec["validations"]), list(&spec["auditAnnotations"]));
    if validations.is_empty() && annotations.is_empty() {
        for field in ["validations", "auditAnnotations"] {
            out.push(FieldError::required(
                format!("spec.{field}"),
                "validations or auditAnnotations must contain at least one item",
            ));
        }
    }
    for (i, v) in validations.iter().enumerate() {
        out.extend(validation(&format!("spec.validations[{i}]"), v, &scope));
    }
    for (i, v) in annotations.iter().enumerate() {
        let at = format!("spec.auditAnnotations[{i}].valueExpression");
        match text(&v["valueExpression"]).trim() {
            "" => out.push(FieldError::required(at, "valueExpression is not specified")),
            source => out.extend(expression(at, source, &scope, &[Type::String, Type::Null])),
        }
    }
    out
}

fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn variable(path: &str, v: &Value, scope: &mut Scope) -> Errors {
    let mut out = Vec::new();
    let name = text(&v["name"]);
    if name.trim().is_empty() {
        out.push(FieldError::required(
            format!("{path}.name"),
            "name is not specified",
        ));
    } else if !is_identifier(name) {
        out.push(FieldError::invalid(
            format!("{path}.name"),
            &v["name"],
            "name is not a valid CEL identifier",
        ));
    }
    let source = text(&v["expression"]);
    let at = format!("{path}.expression");
    if source.trim().is_empty() {
        out.push(FieldError::required(at, "expression is not specified"));
        return out;
    }
    match scope.type_of(source) {
        Ok(ty) => scope.declare(name, ty),
        Err(why) => {
            out.push(FieldError::invalid(at, &v["expression"], why));
            // Nothing more is said about what reads it.
            scope.declare(name, Type::Dyn);
        }
    }
    out
}

fn validation(path: &str, v: &Value, scope: &Scope) -> Errors {
    let mut out = Vec::new();
    let source = text(&v["expression"]);
    let at = format!("{path}.expression");
    if source.trim().is_empty() {
        out.push(FieldError::required(at, "expression is not specified"));
    } else {
        out.extend(expression(at, source, scope, &[Type::Bool]));
    }
    if let Some(source) = v["messageExpression"].as_str().filter(|s| !s.is_empty()) {
        let at = format!("{path}.messageExpression");
        if source.trim().is_empty() {
            out.push(FieldError::invalid(
                at,
                &source.into(),
                "must be non-empty if specified",
            ));
        } else {
            out.extend(expression(at, source, scope, &[Type::String]));
        }
    }
    let message = text(&v["message"]);
    let at = format!("{path}.message");
    if !message.is_empty() && message.trim().is_empty() {
        out.push(FieldError::invalid(
            at,
            &v["message"],
            "message must be non-empty if specified",
        ));
    } else if message.trim().contains(['\n', '\r']) {
        out.push(FieldError::invalid(
            at,
            &v["message"],
            "message must not contain line breaks",
        ));
    }
    const REASONS: [&str; 4] = [
        "Forbidden",
        "Invalid",
        "RequestEntityTooLarge",
        "Unauthorized",
    ];
    if !v["reason"].is_null() && !REASONS.contains(&text(&v["reason"])) {
        out.push(FieldError::not_supported(
            format!("{path}.reason"),
            &v["reason"],
            &REASONS,
        ));
    }
    out
}

/// A ValidatingAdmissionPolicyBinding.
pub(super) fn binding(obj: &Value) -> Errors {
    let spec = &obj["spec"];
    let mut out = Vec::new();
    let name = text(&spec["policyName"]);
    if name.is_empty() {
        out.push(FieldError::required("spec.policyName", ""));
    } else {
        out.extend(invalid_each(
            "spec.policyName",
            &spec["policyName"],
            names::dns_subdomain(name),
        ));
    }
    let params = &spec["paramRef"];
    if params.is_object() {
        let (named, selected) = (
            !text(&params["name"]).is_empty(),
            !params["selector"].is_null(),
        );
        let both = "name and selector are mutually exclusive";
        match (named, selected) {
            (true, true) => {
                out.push(FieldError::forbidden("spec.paramRef.name", both));
                out.push(FieldError::forbidden("spec.paramRef.selector", both));
            }
            (false, false) => out.push(FieldError::required(
                "spec.paramRef",
                "one of name or selector must be specified",
            )),
            _ => {}
        }
        out.extend(label_selector(
            "spec.paramRef.selector",
            &params["selector"],
        ));
        one_of(
            &mut out,
            "spec.paramRef.parameterNotFoundAction",
            &params["parameterNotFoundAction"],
            &["Deny", "Allow"],
        );
    }
    if spec["matchResources"].is_object() {
        out.extend(match_resources(
            "spec.matchResources",
            &spec["matchResources"],
        ));
    }
    out.extend(actions(
        "spec.validationActions",
        &spec["validationActions"],
    ));
    out
}

fn actions(path: &str, actions: &Value) -> Errors {
    let mut out = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for (i, action) in list(actions).iter().enumerate() {
        let at = format!("{path}[{i}]");
        if !["Deny", "Warn", "Audit"].contains(&text(action)) {
            out.push(FieldError::not_supported(
                at.as_str(),
                action,
                &["Audit", "Deny", "Warn"],
            ));
        }
        if seen.contains(&text(action)) {
            out.push(FieldError::duplicate(at, action));
        }
        seen.push(text(action));
    }
    if seen.is_empty() {
        out.push(FieldError::required(
            path,
            "at least one validation action is required",
        ));
    }
    if seen.contains(&"Deny") && seen.contains(&"Warn") {
        let shown: Vec<String> = seen.iter().map(|s| crate::field::quote(s)).collect();
        out.push(FieldError::invalid_go(
            path,
            format!("[]admissionregistration.ValidationAction{{{}}}", shown.join(", ")),
            "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)",
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(errors: Errors) -> Vec<String> {
        errors.iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn conditions_must_compile_and_be_named_once() {
        let conditions = json!([
            {"name": "a", "expression": "object.metadata.name == 'x'"},
            {"name": "a", "expression": "1"},
            {"name": "b", "expression": "... [][]expression"},
            {"expression": ""},
        ]);
        let found = texts(match_conditions("m", &conditions, &Scope::default()));
        assert_eq!(
            found[0],
            "m[1].expression: Invalid value: \"1\": must evaluate to bool but got int"
        );
        assert_eq!(found[1], "m[1].name: Duplicate value: \"a\"");
        assert!(
            found[2].contains("m[2].expression: Invalid value")
                && found[2].contains("compilation failed"),
            "{}",
            found[2]
        );
        assert_eq!(
            found[3..],
            [
                "m[3].expression: Required value",
                "m[3].name: Required value"
            ]
        );
    }

    #[test]
    fn a_policy_without_anything_to_say_is_refused() {
        let found = texts(policy(&json!({"spec": {"failurePolicy": "Fail"}})));
        assert_eq!(
            found,
            [
                "spec.matchConstraints: Required value",
                "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
                "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
            ]
        );
    }

    #[test]
    fn a_variable_has_the_type_of_its_expression() {
        let spec = |last: &str| {
            json!({"spec": {"failurePolicy": "Fail",
                "matchConstraints": {"matchPolicy": "Equivalent", "resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"],
                    "operations": ["CREATE"], "resources": ["deployments"]}]},
                "variables": [{"name": "n", "expression": "object.spec.replicas"}, {"name": "odd", "expression": "variables.n % 2 == 1"}],
                "validations": [{"expression": last}]}})
        };
        assert!(texts(policy(&spec("variables.odd"))).is_empty());
        assert!(
            texts(policy(&spec("variables.n")))[0].ends_with("must evaluate to bool but got dyn")
        );
    }

    #[test]
    fn a_binding_says_what_it_does() {
        let found = texts(binding(
            &json!({"spec": {"policyName": "p", "validationActions": ["Deny", "Warn"], "paramRef": {"parameterNotFoundAction": "Deny"}}}),
        ));
        assert_eq!(
            found[0],
            "spec.paramRef: Required value: one of name or selector must be specified"
        );
        assert!(found[1].contains("must not contain both Deny and Warn"));
        let found = texts(binding(&json!({"spec": {}})));
        assert_eq!(
            found,
            [
                "spec.policyName: Required value",
                "spec.validationActions: Required value: at least one validation action is required"
            ]
        );
    }
}
