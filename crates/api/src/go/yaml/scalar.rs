//! What a scalar means: the rules of YAML 1.1 as `go.yaml.in/yaml/v2` applies them.

/// The value of a scalar.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// Nothing.
    Null,
    /// `true`, `yes`, `on` and their opposites.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number too big for the former.
    Unsigned(u64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
}

const PREFIX: &str = "tag:yaml.org,2002:";

/// The value of the scalar `text`, written `plain` (without quotes) and with the explicit `tag`.
///
/// # Errors
/// The tag demands a value that the text is not.
pub fn resolve(text: &str, plain: bool, tag: Option<&str>) -> Result<Scalar, String> {
    let kind = tag.map(|tag| tag.strip_prefix(PREFIX).unwrap_or(tag));
    let value = match kind {
        None if plain => meaning(text),
        Some("null" | "bool" | "int" | "float" | "timestamp") => meaning(text),
        _ => return Ok(Scalar::Text(text.to_owned())),
    };
    let seen = match &value {
        Scalar::Null => "null",
        Scalar::Bool(_) => "bool",
        Scalar::Int(_) | Scalar::Unsigned(_) => "int",
        Scalar::Float(_) => "float",
        Scalar::Text(_) => "str",
    };
    match (kind, value) {
        (None, value) => Ok(value),
        (Some("timestamp"), Scalar::Text(text)) => Ok(Scalar::Text(text)),
        (Some("float"), Scalar::Int(number)) => Ok(Scalar::Float(number as f64)),
        (Some(wanted), value) if wanted == seen => Ok(value),
        (Some(wanted), _) => Err(format!("cannot decode !!{seen} `{text}` as a !!{wanted}")),
    }
}

fn meaning(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Scalar::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Scalar::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let first = text.as_bytes()[0];
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return Scalar::Text(text.to_owned());
    }
    number(text).unwrap_or_else(|| Scalar::Text(text.to_owned()))
}

fn number(text: &str) -> Option<Scalar> {
    let plain = text.replace('_', "");
    if !text.starts_with('.')
        && let Some(value) = integer(&plain)
    {
        return Some(value);
    }
    if is_float(&plain) {
        return plain.parse().ok().map(Scalar::Float);
    }
    None
}

/// As Go's `ParseInt` with base 0: `0x`, `0b`, `0o` and a leading `0` choose the base.
fn integer(text: &str) -> Option<Scalar> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = if let Some(rest) = lower.strip_prefix("0x") {
        (16, rest)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (2, rest)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (8, rest)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let value = u64::from_str_radix(digits, base).ok()?;
    if negative {
        0i64.checked_sub_unsigned(value).map(Scalar::Int)
    } else {
        Some(i64::try_from(value).map_or(Scalar::Unsigned(value), Scalar::Int))
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let whole = digits(rest);
    rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let count = digits(fraction);
        if whole == 0 && count == 0 {
            return false;
        }
        rest = &fraction[count..];
    } else if whole == 0 {
        return false;
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        let count = digits(exponent);
        return count > 0 && count == exponent.len();
    }
    rest.is_empty()
}
