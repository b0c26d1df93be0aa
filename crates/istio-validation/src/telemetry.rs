//! Telemetry.

use crate::Object;
use crate::message::Message;
use crate::problem::{Found, Validation, one};
use crate::selector;

pub(crate) fn validate(object: &Object<'_>) -> Validation {
    let spec = object.spec;
    let mut v = selector::of_policy(spec);
    metrics(spec, &mut v);
    tracing(spec, &mut v);
    for logging in spec.messages("accessLogging") {
        if let Some(filter) = logging.get("filter")
            && let Err(why) = api::cel::parse(filter.text("expression"))
        {
            v.fail(format!("must be a valid CEL expression, {why}"));
        }
        v.errors(providers(logging));
    }
    v
}

fn providers(message: Message<'_>) -> Found {
    let nameless = |p: Message<'_>| p.text("name").is_empty();
    if message.messages("providers").any(nameless) {
        one("providers.name may not be empty")
    } else {
        None
    }
}

fn metrics(spec: Message<'_>, v: &mut Validation) {
    for metrics in spec.messages("metrics") {
        v.errors(providers(metrics));
        for overriding in metrics.messages("overrides") {
            for (name, tag) in overriding.entries("tagOverrides") {
                if name.is_empty() {
                    v.warn("tagOverrides.name may not be empty");
                }
                let without_value = tag.text("value").is_empty();
                match tag.name("operation", "UPSERT") {
                    "UPSERT" if without_value => {
                        v.fail("tagOverrides.value must be set when operation is UPSERT");
                    }
                    "REMOVE" if !without_value => {
                        v.fail("tagOverrides.value may only be set when operation is UPSERT");
                    }
                    _ => {}
                }
            }
            if overriding.sub("match").maybe_text("customMetric") == Some("") {
                v.fail("customMetric may not be empty");
            }
        }
    }
}

fn tracing(spec: Message<'_>, v: &mut Validation) {
    if spec.list("tracing").len() > 1 {
        v.warn("multiple tracing is not currently supported");
    }
    for tracing in spec.messages("tracing") {
        if tracing.list("providers").len() > 1 {
            v.warn("multiple providers is not currently supported");
        }
        v.errors(providers(tracing));
        if !(0.0..=100.0).contains(&tracing.number("randomSamplingPercentage")) {
            v.fail("randomSamplingPercentage must be in range [0.0, 100.0]");
        }
        for (name, tag) in tracing.entries("customTags") {
            if name.is_empty() {
                v.fail("tag name may not be empty");
            }
            for (kind, field, what) in [
                ("literal", "value", "literal tag value"),
                ("header", "name", "header tag name"),
                ("environment", "name", "environment tag name"),
            ] {
                if tag.get(kind).is_some_and(|t| t.text(field).is_empty()) {
                    v.fail(format!("{what} may not be empty"));
                }
            }
        }
    }
}
