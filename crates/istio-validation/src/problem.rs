//! Errors and warnings, and how several become one text: a single one stands alone, several are counted and listed, as
//! Istio's messages do.

use std::fmt;

/// One mistake, or a list of them. A list of one is not the same as one: it says `1 error occurred:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Stands alone.
    One(String),
    /// Counted and listed.
    Many(Vec<String>),
}

impl Problem {
    /// The single texts.
    pub fn texts(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }

    /// Every text with something in front.
    pub fn prefixed(self, prefix: &str) -> Self {
        match self {
            Self::One(text) => Self::One(format!("{prefix} {text}")),
            Self::Many(texts) => Self::Many(
                texts
                    .iter()
                    .map(|text| format!("{prefix} {text}"))
                    .collect(),
            ),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(text) => f.write_str(text),
            Self::Many(texts) => {
                let noun = if texts.len() == 1 { "error" } else { "errors" };
                write!(f, "{} {noun} occurred:", texts.len())?;
                for text in texts {
                    write!(f, "\n\t* {text}")?;
                }
                f.write_str("\n\n")
            }
        }
    }
}

/// What one check found: nothing, or a problem.
pub type Found = Option<Problem>;

/// One text as what was found.
pub fn one(text: impl Into<String>) -> Found {
    Some(Problem::One(text.into()))
}

/// One text as a list.
pub fn listed(text: impl Into<String>) -> Found {
    Some(Problem::Many(vec![text.into()]))
}

/// Puts two findings together; nothing added to something leaves it as it is.
pub fn join(all: &mut Found, more: Found) {
    *all = match (all.take(), more) {
        (None, other) | (other, None) => other,
        (Some(first), Some(second)) => {
            let mut texts = first.texts();
            texts.extend(second.texts());
            Some(Problem::Many(texts))
        }
    };
}

/// Errors and warnings of an object or of a part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validation {
    /// Why it is refused.
    pub error: Found,
    /// What the user should know.
    pub warning: Found,
}

impl Validation {
    /// Adds an error.
    pub fn fail(&mut self, text: impl Into<String>) {
        join(&mut self.error, one(text));
    }

    /// Adds a warning.
    pub fn warn(&mut self, text: impl Into<String>) {
        join(&mut self.warning, one(text));
    }

    /// Adds errors.
    pub fn errors(&mut self, found: Found) {
        join(&mut self.error, found);
    }

    /// Adds errors and warnings.
    pub fn add(&mut self, other: Self) {
        join(&mut self.error, other.error);
        join(&mut self.warning, other.warning);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_are_counted_and_one_stands_alone() {
        let mut all = None;
        join(&mut all, one("a"));
        assert_eq!(all.clone().unwrap().to_string(), "a");
        join(&mut all, one("b"));
        assert_eq!(
            all.unwrap().to_string(),
            "2 errors occurred:\n\t* a\n\t* b\n\n"
        );
        assert_eq!(
            listed("a").unwrap().to_string(),
            "1 error occurred:\n\t* a\n\n"
        );
    }
}
