//! What could not be used, and why.

/// An object, or a part of it, that was left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// `Kind/namespace/name`.
    pub object: String,
    /// The field, such as `spec.http[0].route`; empty for the whole object.
    pub field: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(
        object: impl Into<String>,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            object: object.into(),
            field: field.into(),
            message: message.into(),
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.field.is_empty() {
            return write!(f, "{}: {}", self.object, self.message);
        }
        write!(f, "{}: {}: {}", self.object, self.field, self.message)
    }
}
