//! Base64 as Go's `encoding/base64` reads it.

/// Whether `text` is base64 of the standard alphabet with padding; line breaks are skipped.
///
/// # Errors
/// Go's text, with the place: `illegal base64 data at input byte 1`.
pub fn check(text: &str) -> Result<(), String> {
    let corrupt = |at: usize| Err(format!("illegal base64 data at input byte {at}"));
    let bytes = text.as_bytes();
    let after_breaks = |mut at: usize| {
        while matches!(bytes.get(at), Some(b'\n' | b'\r')) {
            at += 1;
        }
        at
    };
    let (mut at, mut count) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'\n' | b'\r' => {}
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => count = (count + 1) % 4,
            b'=' if count >= 2 => {
                at = after_breaks(at);
                if count == 2 {
                    match bytes.get(at) {
                        None => return corrupt(bytes.len()),
                        Some(b'=') => at = after_breaks(at + 1),
                        Some(_) => return corrupt(at - 1),
                    }
                }
                return if at < bytes.len() {
                    corrupt(at)
                } else {
                    Ok(())
                };
            }
            _ => return corrupt(at - 1),
        }
    }
    match count {
        0 => Ok(()),
        // Go tells the beginning of what is not complete.
        count => corrupt(at - count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_mistakes_are_those_of_go() {
        for text in ["", "aGVsbG8=", "aGVs\nbG8h", "aA==", "aA=\n="] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        for (text, at) in [
            ("a.b", 1),
            ("hello world", 5),
            ("abc", 0),
            ("aGVsbG8", 4),
            ("aA=", 3),
            ("aA=x", 2),
            ("aA==x", 4),
            ("====", 0),
            ("aG\nVsb", 5),
            ("aA=\n", 4),
        ] {
            let want = format!("illegal base64 data at input byte {at}");
            assert_eq!(check(text), Err(want), "{text}");
        }
    }
}
