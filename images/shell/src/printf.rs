//! `printf`.

/// The text and what was wrong with the arguments.
pub(crate) fn format(args: &[String]) -> Result<(Vec<u8>, Vec<String>), String> {
    let args = match args {
        [dashes, rest @ ..] if dashes == "--" => rest,
        args => args,
    };
    let (format, mut values) = args.split_first().ok_or("usage: printf FORMAT [ARG]...")?;
    let mut out = Vec::new();
    let mut errors = Vec::new();
    loop {
        let before = values.len();
        let stop = once(format, &mut values, &mut out, &mut errors)?;
        // The format is used again as long as it takes arguments and some are left.
        if stop || values.is_empty() || values.len() == before {
            return Ok((out, errors));
        }
    }
}

#[derive(Default)]
struct Spec {
    left: bool,
    zero: bool,
    plus: bool,
    blank: bool,
    alternate: bool,
    width: usize,
    precision: Option<usize>,
}

fn once(
    format: &str,
    values: &mut &[String],
    out: &mut Vec<u8>,
    errors: &mut Vec<String>,
) -> Result<bool, String> {
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let rest: String = chars.clone().collect();
                let (bytes, used, stop) = escape(&rest, false);
                out.extend(bytes);
                if stop {
                    return Ok(true);
                }
                for _ in 0..used {
                    chars.next();
                }
            }
            '%' if chars.next_if_eq(&'%').is_some() => out.push(b'%'),
            '%' => {
                let mut spec = Spec::default();
                while let Some(flag) = chars.next_if(|c| "-0+ #".contains(*c)) {
                    match flag {
                        '-' => spec.left = true,
                        '0' => spec.zero = true,
                        '+' => spec.plus = true,
                        ' ' => spec.blank = true,
                        _ => spec.alternate = true,
                    }
                }
                let mut take = || {
                    let (first, rest) = values.split_first()?;
                    *values = rest;
                    Some(first.as_str())
                };
                let mut size = |chars: &mut std::iter::Peekable<std::str::Chars>| {
                    if chars.next_if_eq(&'*').is_some() {
                        return take().and_then(|text| text.parse::<i64>().ok());
                    }
                    let mut number = None;
                    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                        let digit = i64::from(digit.to_digit(10).unwrap_or(0));
                        number = Some((number.unwrap_or(0) * 10 + digit).min(1 << 20));
                    }
                    number
                };
                if let Some(width) = size(&mut chars) {
                    spec.left |= width < 0;
                    spec.width = width.unsigned_abs().min(1 << 20) as usize;
                }
                if chars.next_if_eq(&'.').is_some() {
                    spec.precision = usize::try_from(size(&mut chars).unwrap_or(0)).ok();
                }
                let kind = chars.next().ok_or("%: missing conversion")?;
                let value = take();
                match kind {
                    's' => pad(
                        out,
                        &spec,
                        cut(value.unwrap_or_default(), spec.precision).as_bytes(),
                    ),
                    'c' => {
                        let text: String = value.unwrap_or_default().chars().take(1).collect();
                        pad(out, &spec, text.as_bytes());
                    }
                    'b' => {
                        let (bytes, stop) = unescape(value.unwrap_or_default());
                        pad(out, &spec, &bytes);
                        if stop {
                            return Ok(true);
                        }
                    }
                    'd' | 'i' => {
                        let number = whole(value, errors);
                        let digits = number.unsigned_abs().to_string();
                        numeric(out, &spec, number < 0, "", &digits);
                    }
                    'u' => numeric(
                        out,
                        &spec,
                        false,
                        "",
                        &(whole(value, errors) as u64).to_string(),
                    ),
                    'o' => numeric(
                        out,
                        &spec,
                        false,
                        if spec.alternate { "0" } else { "" },
                        &format!("{:o}", whole(value, errors)),
                    ),
                    'x' => numeric(
                        out,
                        &spec,
                        false,
                        if spec.alternate { "0x" } else { "" },
                        &format!("{:x}", whole(value, errors)),
                    ),
                    'X' => numeric(
                        out,
                        &spec,
                        false,
                        if spec.alternate { "0X" } else { "" },
                        &format!("{:X}", whole(value, errors)),
                    ),
                    'f' | 'F' | 'e' | 'E' | 'g' | 'G' => {
                        let number = fraction(value, errors);
                        let digits = float(number.abs(), kind, spec.precision.unwrap_or(6));
                        let spec = Spec {
                            precision: None,
                            ..spec
                        };
                        numeric(out, &spec, number.is_sign_negative(), "", &digits);
                    }
                    other => return Err(format!("%{other}: invalid directive")),
                }
            }
            c => out.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Ok(false)
}

fn cut(text: &str, precision: Option<usize>) -> &str {
    match precision.and_then(|length| text.char_indices().nth(length)) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

fn pad(out: &mut Vec<u8>, spec: &Spec, bytes: &[u8]) {
    let missing = spec
        .width
        .saturating_sub(String::from_utf8_lossy(bytes).chars().count());
    let blanks = std::iter::repeat_n(b' ', missing);
    if spec.left {
        out.extend_from_slice(bytes);
        out.extend(blanks);
    } else {
        out.extend(blanks);
        out.extend_from_slice(bytes);
    }
}

fn numeric(out: &mut Vec<u8>, spec: &Spec, negative: bool, prefix: &str, digits: &str) {
    let sign = match (negative, spec.plus, spec.blank) {
        (true, _, _) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        _ => "",
    };
    let mut digits = digits.to_owned();
    let least = match spec.precision {
        Some(precision) => precision,
        None if spec.zero && !spec.left => spec.width.saturating_sub(sign.len() + prefix.len()),
        None => 0,
    };
    if digits.len() < least {
        digits.insert_str(0, &"0".repeat(least - digits.len()));
    }
    pad(out, spec, format!("{sign}{prefix}{digits}").as_bytes());
}

fn float(number: f64, kind: char, precision: usize) -> String {
    let exponential = |number: f64, precision: usize| {
        let text = format!("{number:.precision$e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let sign = if exponent < 0 { '-' } else { '+' };
        (
            mantissa.to_owned(),
            exponent,
            format!("e{sign}{:02}", exponent.abs()),
        )
    };
    if !number.is_finite() {
        return if number.is_nan() {
            "nan".into()
        } else {
            "inf".into()
        };
    }
    let text = match kind.to_ascii_lowercase() {
        'f' => format!("{number:.precision$}"),
        'e' => {
            let (mantissa, _, suffix) = exponential(number, precision);
            mantissa + &suffix
        }
        _ => {
            let precision = precision.max(1);
            let (mantissa, exponent, suffix) = exponential(number, precision - 1);
            let short = |text: &str| {
                if text.contains('.') {
                    text.trim_end_matches('0').trim_end_matches('.').to_owned()
                } else {
                    text.to_owned()
                }
            };
            if exponent < -4 || exponent >= i32::try_from(precision).unwrap_or(i32::MAX) {
                short(&mantissa) + &suffix
            } else {
                let decimals =
                    usize::try_from(i32::try_from(precision).unwrap_or(1) - 1 - exponent)
                        .unwrap_or(0);
                short(&format!("{number:.decimals$}"))
            }
        }
    };
    if kind.is_ascii_uppercase() {
        text.to_ascii_uppercase()
    } else {
        text
    }
}

fn whole(value: Option<&str>, errors: &mut Vec<String>) -> i64 {
    let Some(text) = value else { return 0 };
    // 'c: the number of a character.
    if let Some(rest) = text.strip_prefix(['\'', '"']) {
        return rest.chars().next().map_or(0, |c| i64::from(u32::from(c)));
    }
    let trimmed = text.trim_start();
    let (negative, digits) = match trimmed.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, trimmed.strip_prefix('+').unwrap_or(trimmed)),
    };
    let (digits, radix) = match digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        Some(hex) => (hex, 16),
        None if digits.len() > 1 && digits.starts_with('0') => (&digits[1..], 8),
        None => (digits, 10),
    };
    let good = digits
        .find(|c: char| !c.is_digit(radix))
        .unwrap_or(digits.len());
    let number = i64::from_str_radix(&digits[..good], radix);
    if good < digits.len() || number.is_err() {
        errors.push(format!("{text}: expected numeric value"));
    }
    let number = number.unwrap_or(0);
    if negative {
        number.wrapping_neg()
    } else {
        number
    }
}

fn fraction(value: Option<&str>, errors: &mut Vec<String>) -> f64 {
    let Some(text) = value else { return 0.0 };
    text.trim_start().parse().unwrap_or_else(|_| {
        errors.push(format!("{text}: expected numeric value"));
        0.0
    })
}

/// What follows a backslash: the bytes, how many characters it took, whether all output ends.
/// `zero`: octal numbers begin with one (`echo -e`, `%b`).
pub(crate) fn escape(rest: &str, zero: bool) -> (Vec<u8>, usize, bool) {
    let Some(first) = rest.chars().next() else {
        return (vec![b'\\'], 0, false);
    };
    let simple = match first {
        'a' => 7,
        'b' => 8,
        'e' => 27,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' => b'\\',
        '"' if !zero => b'"',
        'c' => return (Vec::new(), 1, true),
        'x' => {
            let digits: String = rest[1..]
                .chars()
                .take(2)
                .take_while(char::is_ascii_hexdigit)
                .collect();
            return match u8::from_str_radix(&digits, 16) {
                Ok(byte) => (vec![byte], 1 + digits.len(), false),
                Err(_) => (b"\\x".to_vec(), 1, false),
            };
        }
        '0'..='7' => {
            let skip = usize::from(zero && first == '0');
            let digits: String = rest[skip..]
                .chars()
                .take(3)
                .take_while(|c| c.is_digit(8))
                .collect();
            let number = u32::from_str_radix(&digits, 8).unwrap_or(0);
            return (vec![(number & 255) as u8], skip + digits.len(), false);
        }
        other => {
            let mut bytes = vec![b'\\'];
            bytes.extend(other.encode_utf8(&mut [0; 4]).as_bytes());
            return (bytes, 1, false);
        }
    };
    (vec![simple], 1, false)
}

/// A text with its escapes carried out; whether all output ends.
pub(crate) fn unescape(text: &str) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let (bytes, used, stop) = escape(chars.as_str(), true);
        out.extend(bytes);
        if stop {
            return (out, true);
        }
        for _ in 0..used {
            chars.next();
        }
    }
    (out, false)
}

#[cfg(test)]
mod tests {
    fn printed(args: &[&str]) -> String {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        String::from_utf8(super::format(&args).unwrap().0).unwrap()
    }

    #[test]
    fn formats() {
        for (args, expected) in [
            (&["%s-%s\\n", "a", "b", "c"][..], "a-b\nc-\n"),
            (&["%5d|%-5d|%05d", "42", "42", "-42"], "   42|42   |-0042"),
            (&["%x %X %o %#x", "255", "255", "8", "255"], "ff FF 10 0xff"),
            (
                &["%.2f %e %g", "3.14159", "12345.678", "0.0001"],
                "3.14 1.234568e+04 0.0001",
            ),
            (&["%b", "a\\tb\\0101"], "a\tbA"),
            (&["%c%c", "hello", "x"], "hx"),
            (&["100%%"], "100%"),
            (&["%d", "'A"], "65"),
            (&["%.3s|%*d", "abcdef", "5", "7"], "abc|    7"),
        ] {
            assert_eq!(printed(args), expected, "{args:?}");
        }
    }
}
