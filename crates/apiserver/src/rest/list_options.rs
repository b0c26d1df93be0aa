//! The options of lists and watches that do not depend on objects.

use api::field::FieldError;

use crate::error::{ApiError, ApiResult};
use crate::target::Query;

/// The numbers among the options.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// Objects of a page; 0: all.
    pub limit: usize,
    /// For how many seconds a watch lives; `None`: the server chooses.
    pub timeout: Option<u64>,
}

/// Reads the numbers, and refuses options that do not go together, in the words of the real server.
pub(crate) fn check(query: &Query, watch: bool) -> ApiResult<Numbers> {
    let number = |name: &str| match query.text(name) {
        "" => Ok(0),
        text => integer(text).map_err(ApiError::bad_request),
    };
    let (limit, timeout) = (number("limit")?, number("timeoutSeconds")?);
    let errors = contradictions(query, watch);
    if !errors.is_empty() {
        return Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", &errors));
    }
    Ok(Numbers {
        limit: usize::try_from(limit).unwrap_or(0),
        // What should have ended before it began ends at once.
        timeout: (timeout != 0).then(|| u64::try_from(timeout).unwrap_or(0)),
    })
}

fn contradictions(query: &Query, watch: bool) -> Vec<FieldError> {
    const MATCH: &str = "resourceVersionMatch";
    let wanted = query.text(MATCH);
    let initial = query.get("sendInitialEvents").is_some();
    let mut errors = Vec::new();
    let mut forbid = |field: &str, why: &str| errors.push(FieldError::forbidden(field, why));
    if watch && initial && wanted != "NotOlderThan" {
        forbid(
            MATCH,
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        );
    }
    if !wanted.is_empty() {
        if watch && !initial {
            forbid(
                MATCH,
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            );
        }
        if !watch && query.text("resourceVersion").is_empty() {
            forbid(
                MATCH,
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            );
        }
        if !query.text("continue").is_empty() {
            forbid(MATCH, "resourceVersionMatch is forbidden for continue");
        }
        if !watch && wanted == "Exact" && query.text("resourceVersion") == "0" {
            forbid(
                MATCH,
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            );
        }
        if !watch && !matches!(wanted, "Exact" | "NotOlderThan") {
            errors.push(FieldError::not_supported(
                MATCH,
                &wanted.into(),
                &["Exact", "NotOlderThan", ""],
            ));
        }
    }
    if !watch && initial {
        errors.push(FieldError::forbidden(
            "sendInitialEvents",
            "sendInitialEvents is forbidden for list",
        ));
    }
    errors
}

/// `strconv.ParseInt(text, 10, 64)`.
fn integer(text: &str) -> Result<i64, String> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    text.parse().map_err(|e: std::num::ParseIntError| {
        let why = match e.kind() {
            NegOverflow | PosOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!(
            "strconv.ParseInt: parsing {}: {why}",
            api::field::quote(text)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_mean_nothing_are_refused_as_the_real_server_does() {
        for (query, watch, expected) in [
            ("limit=5&timeoutSeconds=3", false, Ok((5, Some(3)))),
            ("limit=-1&timeoutSeconds=-5", true, Ok((0, Some(0)))),
            ("", true, Ok((0, None))),
            (
                "limit=x",
                false,
                Err((400, "strconv.ParseInt: parsing \"x\": invalid syntax")),
            ),
            (
                "timeoutSeconds=99999999999999999999",
                true,
                Err((
                    400,
                    "strconv.ParseInt: parsing \"99999999999999999999\": value out of range",
                )),
            ),
            (
                "resourceVersionMatch=Nope",
                false,
                Err((
                    422,
                    "ListOptions.meta.k8s.io \"\" is invalid: [resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided, resourceVersionMatch: Unsupported value: \"Nope\": supported values: \"Exact\", \"NotOlderThan\", \"\"]",
                )),
            ),
            (
                "sendInitialEvents=true",
                false,
                Err((
                    422,
                    "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
                )),
            ),
            (
                "sendInitialEvents=true",
                true,
                Err((
                    422,
                    "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                )),
            ),
        ] {
            let seen = check(&Query::parse(query), watch);
            let seen = match &seen {
                Ok(numbers) => Ok((numbers.limit, numbers.timeout)),
                Err(e) => Err((e.code, e.message.as_str())),
            };
            assert_eq!(seen, expected, "{query}, watch: {watch}");
        }
    }
}
