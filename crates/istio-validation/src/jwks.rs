//! Key sets of RequestAuthentications, with the words of the key library that istiod uses (jwx).

use crate::decode::mismatch;
use api::go::json::{self, Extent};
use serde_json::{Map, Value};

/// A key of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    /// Whether it holds what nobody else may know.
    pub private: bool,
}

/// The keys of a set, or the one key that stands for a set.
///
/// # Errors
/// Why the text is none.
pub(crate) fn parse(text: &str) -> Result<Vec<Key>, String> {
    set(text).map_err(|why| format!("failed to unmarshal JWK set: {why}"))
}

fn set(text: &str) -> Result<Vec<Key>, String> {
    let text = json::value(text, Extent::First)?;
    let members = members(text)?;
    if let Some(keys) = members.get("keys") {
        let listed = match keys {
            Value::Null => &[][..],
            Value::Array(keys) => keys,
            other => {
                let why = mismatch(other, "[]json.RawMessage");
                return Err(format!("failed to decode \"keys\": {why}"));
            }
        };
        let each = listed.iter().enumerate().map(|(number, value)| {
            key(value).map_err(|why| format!("failed to decode key #{number} in \"keys\": {why}"))
        });
        return each.collect();
    }
    match key(&Value::Object(members)) {
        Ok(key) => Ok(vec![key]),
        Err(why) => Err(format!("failed to parse sole key in key set: {why}")),
    }
}

/// The members of an object. The library reads token by token, and a value that is no object ends too early.
fn members(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(Value::Array(_)) => Err("expected '{', but got '['".into()),
        Ok(Value::String(text)) if text == "keys" => Err("failed to decode \"keys\": EOF".into()),
        Ok(Value::String(text)) => Err(format!(
            "failed to decode value for key {}: EOF",
            api::field::quote(&text)
        )),
        Ok(_) => Err("error reading token: EOF".into()),
        Err(error) => Err(error.to_string()),
    }
}

fn key(value: &Value) -> Result<Key, String> {
    let hint = |why: String| Err(format!("failed to unmarshal JSON into key hint: {why}"));
    let members = match value {
        Value::Object(members) => members,
        Value::Null => &Map::new(),
        other => {
            let expected =
                "struct { Kty string \"json:\\\"kty\\\"\"; D json.RawMessage \"json:\\\"d\\\"\" }";
            return hint(mismatch(other, expected));
        }
    };
    let kind = match members.get("kty") {
        None | Some(Value::Null) => "",
        Some(Value::String(kind)) => kind,
        Some(other) => {
            let what = crate::decode::go_type(other);
            return hint(format!(
                "json: cannot unmarshal {what} into Go struct field .kty of type string"
            ));
        }
    };
    let private = members.contains_key("d");
    let required: &[&str] = match (kind, private) {
        ("RSA", false) => &["e", "n"],
        ("RSA", true) => &["d", "e", "n"],
        ("EC", false) => &["crv", "x", "y"],
        ("EC", true) => &["crv", "d", "x", "y"],
        ("OKP", false) => &["crv", "x"],
        ("OKP", true) => &["crv", "d", "x"],
        ("oct", _) => &["k"],
        (other, _) => return Err(format!("invalid key type from JSON ({other})")),
    };
    let of_go = match (kind, private) {
        ("RSA", false) => "rsaPublicKey",
        ("RSA", true) => "rsaPrivateKey",
        ("EC", false) => "ecdsaPublicKey",
        ("EC", true) => "ecdsaPrivateKey",
        ("OKP", false) => "okpPublicKey",
        ("OKP", true) => "okpPrivateKey",
        _ => "symmetricKey",
    };
    let wrong = |why: String| {
        Err(format!(
            "failed to unmarshal JSON into key (*jwk.{of_go}): {why}"
        ))
    };
    for (name, value) in members {
        if let Err(why) = member(name, value) {
            return wrong(format!("failed to decode value for key {name}: {why}"));
        }
    }
    if let Some(missing) = required.iter().find(|name| !members.contains_key(**name)) {
        return wrong(format!("required field {missing} is missing"));
    }
    Ok(Key {
        private: private || kind == "oct",
    })
}

/// Checks a parameter of a key: numbers are in base64, the others texts.
fn member(name: &str, value: &Value) -> Result<(), String> {
    let number = matches!(
        name,
        "e" | "n" | "d" | "p" | "q" | "dp" | "dq" | "qi" | "x" | "y" | "k"
    );
    if !number
        && !matches!(
            name,
            "alg" | "kid" | "use" | "x5t" | "x5t#S256" | "x5u" | "crv"
        )
    {
        return Ok(());
    }
    match value {
        Value::String(text) if number && !base64(text) => {
            Err("expected base64 encoded []byte (string)".into())
        }
        Value::String(_) | Value::Null => Ok(()),
        other => Err(format!(
            "error reading next value: {}",
            mismatch(other, "string")
        )),
    }
}

/// Whether a text is base64 of either alphabet, with padding or without.
fn base64(text: &str) -> bool {
    let url = text.contains(['-', '_']);
    let other = if url { ['+', '/'] } else { ['-', '_'] };
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    let whole =
        digits.len() % 4 != 1 && (padding == 0 || text.len().is_multiple_of(4) && padding < 3);
    whole
        && !digits.contains(other)
        && digits
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+/-_".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_and_single_keys() {
        let keys =
            parse(r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"oct","k":"c2Vj"}]}"#);
        let private = keys
            .unwrap()
            .iter()
            .map(|key| key.private)
            .collect::<Vec<_>>();
        assert_eq!(private, [false, true]);
        // What follows the first value is not read.
        assert_eq!(
            parse(r#"{"kty":"EC","crv":"P-256","x":"AQ","y":"AQ"} and more"#)
                .unwrap()
                .len(),
            1
        );
        assert_eq!(parse(r#"{"keys":[]}"#), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_set_is_said_in_the_words_of_the_library() {
        for (text, want) in [
            (
                "foo",
                "invalid character 'o' in literal false (expecting 'a')",
            ),
            ("1.2.3.4", "error reading token: EOF"),
            ("[]", "expected '{', but got '['"),
            (
                r#"{"keys": "none"}"#,
                r#"failed to decode "keys": json: cannot unmarshal string into Go value of type []json.RawMessage"#,
            ),
            (
                r#"{"keys": [{"kty": "RSA"}]}"#,
                r#"failed to decode key #0 in "keys": failed to unmarshal JSON into key (*jwk.rsaPublicKey): required field e is missing"#,
            ),
            (
                "{}",
                "failed to parse sole key in key set: invalid key type from JSON ()",
            ),
        ] {
            assert_eq!(
                parse(text),
                Err(format!("failed to unmarshal JWK set: {want}")),
                "{text}"
            );
        }
    }
}
