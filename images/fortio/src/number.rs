//! Numbers as C and Go print them with `%g`.

/// `%.{precision}g`; without a precision as many digits as the number needs.
pub(crate) fn g(value: f64, precision: Option<usize>) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value == 0.0 {
            "0".into()
        } else {
            value.to_string()
        };
    }
    let (digits, threshold) = match precision {
        Some(precision) => (precision.max(1) - 1, precision.max(1)),
        None => (usize::MAX, 6),
    };
    let scientific = if digits == usize::MAX {
        format!("{value:e}")
    } else {
        format!("{value:.digits$e}")
    };
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let mantissa = if mantissa.contains('.') {
        mantissa.trim_end_matches('0').trim_end_matches('.')
    } else {
        mantissa
    };
    // Whether the exponent is written depends on the digits asked for, or on six of them.
    let significant = mantissa.chars().filter(char::is_ascii_digit).count();
    if exponent < -4 || exponent >= i32::try_from(threshold).unwrap_or(i32::MAX) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let decimals = i32::try_from(significant).unwrap_or(0) - 1 - exponent;
    format!("{value:.*}", usize::try_from(decimals.max(0)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_like_those_of_the_original() {
        for (value, precision, text) in [
            (0.969_262_49, Some(8), "0.96926249"),
            (0.0244, Some(4), "0.0244"),
            (0.930_234_627, None, "0.930234627"),
            (2_883_584.0, None, "2.883584e+06"),
            (109_905_960.0, Some(9), "109905960"),
            (1_092_777_820.0, Some(9), "1.09277782e+09"),
            (261.0, None, "261"),
            (0.000_012, None, "1.2e-05"),
            (0.0015, Some(6), "0.0015"),
            (0.0, Some(4), "0"),
            (3_492_999.0, Some(4), "3.493e+06"),
        ] {
            assert_eq!(g(value, precision), text);
        }
    }
}
