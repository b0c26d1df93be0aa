//! `schema.ValidationAnalyzer.*`: what the webhook says about an object (IST0106, IST0130, IST0131, IST0133).

use crate::context::Context;
use crate::kind::Kind;
use crate::message::Message;
use crate::messages;
use crate::object::Object;
use crate::validation::{self, Findings};

/// Validates the objects of `kind`.
pub fn analyze(context: &mut Context<'_>, kind: Kind) {
    for object in context.each(kind) {
        let Findings { errors, warnings } = validation::findings(object);
        for error in errors {
            context.report(messages::schema_validation_error(object, &error));
        }
        for warning in warnings {
            context.report(warned(object, &warning));
        }
    }
}

/// Warnings about rules without effect have codes of their own.
fn warned(object: &Object, warning: &str) -> Message {
    if let Some(rule) = warning.strip_prefix("virtualService rule ") {
        let unused = rule
            .split_once(" not used (")
            .and_then(|(rule, reason)| Some((rule, reason.strip_suffix(')')?)));
        let ineffective = rule
            .strip_suffix(')')
            .and_then(|rest| rest.split_once(" is not used (duplicate/overlapping match in rule "))
            .and_then(|(rule, other)| Some((rule.split_once(" match ")?, other)));
        if let Some(((rule, condition), other)) = ineffective {
            return messages::virtual_service_ineffective_match(object, rule, condition, other);
        }
        if let Some((rule, reason)) = unused {
            return messages::virtual_service_unreachable_rule(object, rule, reason);
        }
    }
    messages::schema_warning(object, warning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn warnings_about_rules_without_effect_have_codes_of_their_own() {
        let object = Object::new(
            Kind::VirtualService,
            json!({"metadata": {"name": "a"}}),
            "default",
            None,
        );
        for (warning, code, text) in [
            (
                "virtualService rule \"beta\" not used (route without matches defined before)",
                "IST0130",
                "VirtualService rule \"beta\" not used (route without matches defined before).",
            ),
            (
                "virtualService rule #1 match #0 is not used (duplicate/overlapping match in rule #0)",
                "IST0131",
                "VirtualService rule #1 match #0 is not used (duplicate/overlapping match in rule #0).",
            ),
            (
                "something else",
                "IST0133",
                "Schema validation warning: something else",
            ),
        ] {
            let message = warned(&object, warning);
            assert_eq!((message.code, message.text.as_str()), (code, text));
        }
    }
}
