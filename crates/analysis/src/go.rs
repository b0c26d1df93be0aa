//! How Go writes values: the texts of messages are made by its `fmt` package.

use std::fmt::Display;

pub use api::field::quote;

/// `%v` of a slice: `[a b]`.
#[must_use]
pub fn slice<T: Display>(items: &[T]) -> String {
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    format!("[{}]", items.join(" "))
}

/// `%q` of a slice of texts: `["a" "b"]`.
#[must_use]
pub fn quoted_slice(items: &[String]) -> String {
    let items: Vec<_> = items.iter().map(|item| quote(item)).collect();
    format!("[{}]", items.join(" "))
}

/// The text of several errors as `go-multierror` lists them.
#[must_use]
pub fn multierror(errors: &[String]) -> String {
    match errors {
        [one] => format!("1 error occurred:\n\t* {one}\n\n"),
        several => format!(
            "{} errors occurred:\n\t* {}\n\n",
            several.len(),
            several.join("\n\t* ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_written_as_go_does() {
        assert_eq!(slice(&[80, 9090]), "[80 9090]");
        assert_eq!(quoted_slice(&["a".into(), "b".into()]), "[\"a\" \"b\"]");
        assert_eq!(slice::<i32>(&[]), "[]");
    }
}
