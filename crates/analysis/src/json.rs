//! Where a text that begins like JSON is none, in the words of Go's decoder.
//!
//! Kubernetes' tools take a document that begins with `{` for JSON, not for YAML, so such a document is either right JSON or an error.

use api::go::json::Extent;

/// Whether a document is taken for JSON.
#[must_use]
pub fn is_meant(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// Whether `text` is one JSON value.
///
/// # Errors
/// What Go's decoder says about the first byte that does not fit.
pub fn check(text: &str) -> Result<(), String> {
    api::go::json::value(text, Extent::Whole).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn the_first_wrong_byte_is_told_as_go_does() {
        for (text, expected) in [
            (
                "{\"a\": 1,}",
                "invalid character '}' looking for beginning of object key string",
            ),
            (
                "{a: 1}",
                "invalid character 'a' looking for beginning of object key string",
            ),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            (
                "{\"a\": b}",
                "invalid character 'b' looking for beginning of value",
            ),
            (
                "{\"a\": 1 \"b\"}",
                "invalid character '\"' after object key:value pair",
            ),
            (
                "{\"a\": [1 2]}",
                "invalid character '2' after array element",
            ),
            (
                "{\"a\": tru}",
                "invalid character '}' in literal true (expecting 'e')",
            ),
            ("{\"a\": 1", "unexpected end of JSON input"),
            ("{} x", "invalid character 'x' after top-level value"),
        ] {
            assert_eq!(check(text), Err(expected.to_owned()), "{text}");
        }
        assert_eq!(
            check("{\"a\": [1, -2.5e3, \"\\u00e9\", null, true]}\n"),
            Ok(())
        );
    }
}
