//! Header values with Envoy's variables: `%REQ(x-a)%`.

/// Where the reader is in a value.
enum At {
    /// In plain text.
    Text,
    /// In the name of a variable.
    Name,
    /// Behind `(`.
    Arguments,
    /// Expecting a quoted argument.
    Quote,
    /// In an argument.
    Argument,
    /// Behind a quoted argument.
    Separator,
    /// Expecting `)`.
    Close,
    /// Expecting `%`.
    End,
}

/// Whether the percent signs of a value form variables.
///
/// # Errors
/// Istio's text.
pub(crate) fn check(value: &str) -> Result<(), String> {
    let fail = |why: &str| Err(format!("invalid header configuration. {why}"));
    let bytes = value.as_bytes();
    let mut at = At::Text;
    let mut i = 0;
    while i < bytes.len() {
        let (c, next) = (bytes[i], bytes.get(i + 1));
        match at {
            At::Text => match (c, next) {
                (b'%', None) => return fail("Un-escaped %"),
                (b'%', Some(b'%')) => i += 1,
                (b'%', Some(_)) => at = At::Name,
                _ => {}
            },
            At::Name => match c {
                b'%' => at = At::Text,
                b'(' => at = At::Arguments,
                _ => {}
            },
            At::Arguments => match c {
                b'[' => at = At::Quote,
                b' ' => {}
                _ => at = At::Argument,
            },
            At::Separator => match c {
                b',' => at = At::Quote,
                b']' => at = At::Close,
                b' ' => {}
                _ => return fail("Expecting ',', ']', or whitespace"),
            },
            At::Quote => match c {
                b'"' => at = At::Argument,
                b' ' => {}
                _ => return fail("Expecting '\"'"),
            },
            At::Argument => match (c, next) {
                (b'\\', None) => return fail("Un-terminated backslash in JSON string"),
                (b'\\', Some(_)) => i += 1,
                (b')', _) => at = At::End,
                (b'"', _) => at = At::Separator,
                _ => {}
            },
            At::Close => match c {
                b')' => at = At::End,
                b' ' => {}
                _ => return fail("Expecting ')' or whitespace after '{}', but found '{}'"),
            },
            At::End => match c {
                b'%' => at = At::Text,
                b' ' => {}
                _ => return fail("Expecting '%' or whitespace after"),
            },
        }
        i += 1;
    }
    match at {
        At::Text => Ok(()),
        _ => fail(&format!("Un-terminated variable expression '{value}'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables() {
        for fine in [
            "",
            "a",
            "100%%",
            "%REQ(x-a)%",
            "%A([\"b\", \"c\"])% d",
            "%X%",
        ] {
            assert_eq!(check(fine), Ok(()), "{fine}");
        }
        for (value, why) in [
            ("50%", "Un-escaped %"),
            ("%A", "Un-terminated variable expression '%A'"),
            ("%A(b)c", "Expecting '%' or whitespace after"),
            ("%A([b])%", "Expecting '\"'"),
        ] {
            assert_eq!(
                check(value).unwrap_err(),
                format!("invalid header configuration. {why}")
            );
        }
    }
}
