//! Field errors: what is wrong with one field of an object, worded as Kubernetes words it.

use serde_json::{Value, json};
use std::fmt;

/// Kinds of field errors; the name in `details.causes[].reason` and the first words of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorType {
    /// Something that must exist does not.
    NotFound,
    /// A field that must be set is not.
    Required,
    /// A value that must be unique is there twice.
    Duplicate,
    /// A malformed value.
    Invalid,
    /// A value that is not one of an enumeration.
    NotSupported,
    /// A value that may not be set here, whatever it is.
    Forbidden,
    /// A value longer than allowed.
    TooLong,
    /// A list with more entries than allowed.
    TooMany,
    /// The wrong JSON type.
    TypeInvalid,
    /// An error of the server, not of the value.
    Internal,
}

impl ErrorType {
    /// The machine-readable cause, as in `details.causes[].reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }

    /// The first words of the error text.
    pub fn text(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }
}

/// One field error.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// What kind of mistake.
    pub kind: ErrorType,
    /// Path of the field, for instance `spec.containers[0].image`.
    pub field: String,
    /// The offending value as the text shows it, already formatted; `None` where the kind shows none.
    pub shown: Option<String>,
    /// What is expected.
    pub detail: String,
}

impl FieldError {
    fn new(
        kind: ErrorType,
        field: impl Into<String>,
        shown: Option<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            field: field.into(),
            shown,
            detail: detail.into(),
        }
    }
    /// An invalid value that is shown as given: for values that Kubernetes prints as Go structs and maps.
    pub fn invalid_go(
        field: impl Into<String>,
        shown: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self::new(ErrorType::Invalid, field, Some(shown.into()), detail)
    }
    /// `Required value`.
    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Required, field, None, detail)
    }
    /// `Invalid value: <value>: <detail>`.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Invalid, field, Some(show(value)), detail)
    }
    /// `Invalid value` for a value of the wrong JSON type; same text, different reason.
    pub fn type_invalid(
        field: impl Into<String>,
        value: &Value,
        detail: impl Into<String>,
    ) -> Self {
        Self::new(ErrorType::TypeInvalid, field, Some(show(value)), detail)
    }
    /// `Duplicate value: <value>`.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::new(ErrorType::Duplicate, field, Some(show(value)), "")
    }
    /// `Forbidden: <detail>`.
    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Forbidden, field, None, detail)
    }
    /// `Not found: <value>`.
    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        Self::new(ErrorType::NotFound, field, Some(show(value)), "")
    }
    /// `Unsupported value: <value>: supported values: "A", "B"`, in the given order (built-in kinds sort, CRDs keep theirs).
    pub fn not_supported<S: AsRef<str>>(
        field: impl Into<String>,
        value: &Value,
        supported: &[S],
    ) -> Self {
        let shown = match value {
            Value::Array(_) | Value::Object(_) => crate::go::syntax(value),
            value => show(value),
        };
        Self::not_supported_go(field, shown, supported)
    }
    /// An unsupported value that is shown as given: for values that Kubernetes prints as Go structs and lists.
    pub fn not_supported_go<S: AsRef<str>>(
        field: impl Into<String>,
        shown: impl Into<String>,
        supported: &[S],
    ) -> Self {
        let mut detail = String::new();
        if !supported.is_empty() {
            let quoted: Vec<String> = supported.iter().map(|s| quote(s.as_ref())).collect();
            detail = format!("supported values: {}", quoted.join(", "));
        }
        Self::new(ErrorType::NotSupported, field, Some(shown.into()), detail)
    }
    /// `Too long: may not be more than <max> bytes`.
    pub fn too_long(field: impl Into<String>, max: usize) -> Self {
        Self::new(
            ErrorType::TooLong,
            field,
            None,
            format!("may not be more than {max} bytes"),
        )
    }
    /// `Too many: <actual>: must have at most <max> items`.
    pub fn too_many(field: impl Into<String>, actual: usize, max: usize) -> Self {
        Self::new(
            ErrorType::TooMany,
            field,
            Some(actual.to_string()),
            format!("must have at most {max} items"),
        )
    }
    /// `Internal error: <detail>`.
    pub fn internal(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Internal, field, None, detail)
    }

    /// The text without the field: `Invalid value: "x": must be ...`.
    pub fn body(&self) -> String {
        let mut out = self.kind.text().to_string();
        if let Some(shown) = &self.shown {
            out.push_str(": ");
            out.push_str(shown);
        }
        if !self.detail.is_empty() {
            out.push_str(": ");
            out.push_str(&self.detail);
        }
        out
    }

    /// The entry of `status.details.causes`.
    pub fn cause(&self) -> Value {
        json!({"reason": self.kind.reason(), "message": self.body(), "field": self.field})
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// A Go-quoted string (`%q`), as Kubernetes shows strings in messages.
pub fn quote(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                out.push_str(&format!("\\x{:02x}", c as u32))
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A value as field errors show it: strings quoted, `null` quoted as well, numbers and booleans bare,
/// everything else as compact JSON.
pub fn show(value: &Value) -> String {
    match value {
        Value::Null => "\"null\"".into(),
        Value::String(s) => quote(s),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => match n.as_f64().filter(|_| n.is_f64()) {
            Some(float) => crate::go::strconv::format_float(float),
            None => n.to_string(),
        },
        other => other.to_string(),
    }
}

/// The path of a map entry: `spec.selector[app]`.
pub fn key(path: &str, key: &str) -> String {
    format!("{path}[{key}]")
}

/// The path of a list entry: `spec.containers[0]`.
pub fn index(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

/// The path of a member: `spec.replicas`; the root has the empty path.
pub fn child(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_string()
    } else {
        format!("{path}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_kubernetes() {
        let e = FieldError::invalid("metadata.name", &json!("A"), "bad");
        assert_eq!(e.to_string(), r#"metadata.name: Invalid value: "A": bad"#);
        let e = FieldError::not_supported("spec.type", &json!("X"), &["A", "B"]);
        assert_eq!(
            e.to_string(),
            r#"spec.type: Unsupported value: "X": supported values: "A", "B""#
        );
        assert_eq!(
            FieldError::required("spec", "").to_string(),
            "spec: Required value"
        );
        assert_eq!(
            FieldError::invalid("a", &Value::Null, "x").body(),
            r#"Invalid value: "null": x"#
        );
        assert_eq!(
            FieldError::too_many("a", 3, 2).body(),
            "Too many: 3: must have at most 2 items"
        );
    }
}
