//! Durations as text (Go's `time.ParseDuration`).

/// A text in quotes as Go's `time` writes it: byte by byte where it is not printable ASCII.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='\u{7f}' => out.push(c),
            _ => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    out.push_str(&format!("\\x{byte:02x}"));
                }
            }
        }
    }
    out.push('"');
    out
}

/// The length in nanoseconds.
///
/// # Errors
/// Go's text.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    // One more than i64::MAX is allowed, for the most negative length.
    const LIMIT: u128 = 1 << 63;
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let digits = |from: usize| {
            rest[from..]
                .find(|c: char| !c.is_ascii_digit())
                .map_or(rest.len(), |n| from + n)
        };
        let mut number_end = digits(0);
        if rest[number_end..].starts_with('.') {
            number_end = digits(number_end + 1);
        }
        let number = &rest[..number_end];
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let after = &rest[number_end..];
        let unit_end = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let unit = &after[..unit_end];
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", quote(text)));
        }
        let scale: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => {
                return Err(format!(
                    "time: unknown unit {} in duration {}",
                    quote(unit),
                    quote(text)
                ));
            }
        };
        let mut value = if whole.is_empty() {
            0
        } else {
            whole
                .parse::<u128>()
                .ok()
                .and_then(|n| n.checked_mul(scale))
                .ok_or_else(invalid)?
        };
        if !fraction.is_empty() {
            // Digits beyond a nanosecond do not count.
            let digits = &fraction[..fraction.len().min(18)];
            let numerator: u128 = digits.parse().map_err(|_| invalid())?;
            value += numerator * scale / 10u128.pow(digits.len() as u32);
        }
        total += value;
        if total > LIMIT {
            return Err(invalid());
        }
        rest = &after[unit_end..];
    }
    if negative {
        return Ok((total as i128).wrapping_neg() as i64);
    }
    i64::try_from(total).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_errors_are_those_of_go() {
        assert_eq!(parse_duration("1h30m"), Ok(5_400_000_000_000));
        assert_eq!(parse_duration("-1.5s"), Ok(-1_500_000_000));
        assert_eq!(parse_duration("100us"), Ok(100_000));
        for (text, want) in [
            ("10", r#"time: missing unit in duration "10""#),
            ("fast", r#"time: invalid duration "fast""#),
            ("1d", r#"time: unknown unit "d" in duration "1d""#),
            ("", r#"time: invalid duration """#),
            ("é", r#"time: invalid duration "\xc3\xa9""#),
            ("1000000000h", r#"time: invalid duration "1000000000h""#),
        ] {
            assert_eq!(parse_duration(text).unwrap_err(), want);
        }
    }
}
