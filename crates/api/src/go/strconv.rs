//! Numbers and booleans as text (Go's `strconv`), and `host:port` (Go's `net.SplitHostPort`).

use crate::field::quote;

const SYNTAX: &str = "invalid syntax";
const RANGE: &str = "value out of range";

fn error(function: &str, text: &str, why: &str) -> String {
    format!("strconv.{function}: parsing {}: {why}", quote(text))
}

/// `strconv.ParseBool`.
///
/// # Errors
/// Go's text.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(error("ParseBool", text, SYNTAX)),
    }
}

/// `strconv.ParseUint(text, 10, bits)`.
///
/// # Errors
/// Go's text.
pub fn parse_uint(text: &str, bits: u32) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(error("ParseUint", text, SYNTAX));
    }
    text.parse::<u64>()
        .ok()
        .filter(|n| bits >= 64 || *n < 1 << bits)
        .ok_or_else(|| error("ParseUint", text, RANGE))
}

/// `strconv.Atoi`.
///
/// # Errors
/// Go's text.
pub fn atoi(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(error("Atoi", text, SYNTAX));
    }
    text.parse().map_err(|_| error("Atoi", text, RANGE))
}

/// `net.SplitHostPort`: host and port, brackets of IPv6 addresses taken off.
///
/// # Errors
/// Go's text.
pub fn split_host_port(text: &str) -> Result<(&str, &str), String> {
    let fail = |why: &str| Err(format!("address {text}: {why}"));
    let Some(last) = text.rfind(':') else {
        return fail("missing port in address");
    };
    let (host, opened) = if text.starts_with('[') {
        let Some(end) = text.find(']') else {
            return fail("missing ']' in address");
        };
        if end + 1 == text.len() {
            return fail("missing port in address");
        }
        if end + 1 != last {
            return fail(if text.as_bytes()[end + 1] == b':' {
                "too many colons in address"
            } else {
                "missing port in address"
            });
        }
        (&text[1..end], (1, end + 1))
    } else {
        if text[..last].contains(':') {
            return fail("too many colons in address");
        }
        (&text[..last], (0, 0))
    };
    if text[opened.0..].contains('[') {
        return fail("unexpected '[' in address");
    }
    if text[opened.1..].contains(']') {
        return fail("unexpected ']' in address");
    }
    Ok((host, &text[last + 1..]))
}

/// A float as `%v` prints it: the shortest form, with an exponent where it is small or large.
pub fn format_float(value: f64) -> String {
    let exponent = format!("{value:e}");
    let power = exponent
        .split_once('e')
        .and_then(|(_, power)| power.parse::<i32>().ok())
        .unwrap_or(0);
    // `%v` is `%g`, whose shortest form has an exponent from a million on.
    if value == 0.0 || (-4..6).contains(&power) {
        return format!("{value}");
    }
    let digits = exponent.split('e').next().unwrap_or("");
    let sign = if power < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", power.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_go() {
        assert_eq!(
            parse_uint("80-90", 32).unwrap_err(),
            r#"strconv.ParseUint: parsing "80-90": invalid syntax"#
        );
        assert_eq!(
            parse_uint("99999999999", 32).unwrap_err(),
            r#"strconv.ParseUint: parsing "99999999999": value out of range"#
        );
        assert_eq!(atoi("-7"), Ok(-7));
        assert_eq!(
            atoi("").unwrap_err(),
            r#"strconv.Atoi: parsing "": invalid syntax"#
        );
        assert!(parse_bool("yes").is_err());
    }

    #[test]
    fn floats() {
        assert_eq!(format_float(150.0), "150");
        assert_eq!(format_float(0.00005), "5e-05");
        assert_eq!(format_float(-1.5), "-1.5");
        assert_eq!(format_float(123_456.5), "123456.5");
        assert_eq!(format_float(12_345_678.0), "1.2345678e+07");
        assert_eq!(format_float(1e10), "1e+10");
    }

    #[test]
    fn hosts_and_ports() {
        assert_eq!(split_host_port("a:1"), Ok(("a", "1")));
        assert_eq!(split_host_port(":1"), Ok(("", "1")));
        assert_eq!(split_host_port("[::1]:80"), Ok(("::1", "80")));
        for (text, why) in [
            ("127.0.0.1", "missing port in address"),
            ("::1:80", "too many colons in address"),
            ("[::1]", "missing port in address"),
            ("[::1", "missing ']' in address"),
        ] {
            assert_eq!(
                split_host_port(text).unwrap_err(),
                format!("address {text}: {why}")
            );
        }
    }
}
