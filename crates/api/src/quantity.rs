//! Resource quantities: `100m`, `1.5Gi`, `2e3`.
//!
//! Grammar and rounding are those of Kubernetes' `resource.Quantity`: binary (`Ki`..`Ei`), decimal (`n`..`E`) and
//! exponent suffixes; nothing finer than a nano is kept (rounded up).

use std::cmp::Ordering;
use std::fmt;

/// How a quantity was written, and is written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `Ki`, `Mi`, ...
    BinarySI,
    /// `m`, `k`, `M`, ... or no suffix.
    DecimalSI,
    /// `e3`, `E6`, ...
    DecimalExponent,
}

/// An amount, exact to a nano.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a string is not a quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not of the grammar.
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    /// A number, but no such suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const NANO: i128 = 1_000_000_000;

impl Quantity {
    /// A whole number of units.
    pub fn from_units(units: i64) -> Self {
        Self {
            nanos: units as i128 * NANO,
            format: Format::DecimalSI,
        }
    }
    /// A number of thousandths.
    pub fn from_millis(millis: i64) -> Self {
        Self {
            nanos: millis as i128 * (NANO / 1000),
            format: Format::DecimalSI,
        }
    }
    /// Parses a quantity; the error is the text Kubernetes gives.
    pub fn parse(s: &str) -> Result<Self, QuantityError> {
        let (negative, rest) = match s.as_bytes().first() {
            Some(b'-') => (true, &s[1..]),
            Some(b'+') => (false, &s[1..]),
            _ => (false, s),
        };
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, frac) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && frac.is_empty()) || frac.contains('.') {
            return Err(QuantityError::Format);
        }
        if !suffix
            .chars()
            .all(|c| "eEinumkKMGTP+-".contains(c) || c.is_ascii_digit())
        {
            return Err(QuantityError::Format);
        }
        let (multiplier, divisor, format) = suffix_factor(suffix)?;
        // digits / 10^scale * multiplier / divisor, in nanos, rounded away from zero as Kubernetes rounds up.
        let frac = &frac[..frac.len().min(18)];
        let digits: i128 = format!("0{whole}{frac}")
            .parse()
            .map_err(|_| QuantityError::Format)?;
        let numerator = digits
            .checked_mul(multiplier)
            .and_then(|n| n.checked_mul(NANO));
        let denominator = 10i128.pow(frac.len() as u32).saturating_mul(divisor);
        let nanos = match numerator {
            Some(n) => n / denominator + i128::from(n % denominator != 0),
            None => i64::MAX as i128 * NANO,
        }
        .min(i64::MAX as i128 * NANO);
        Ok(Self {
            nanos: if negative { -nanos } else { nanos },
            format,
        })
    }
    /// How it was written.
    pub fn format(&self) -> Format {
        self.format
    }
    /// Whole units, rounded up.
    pub fn value(&self) -> i64 {
        div_up(self.nanos, NANO)
    }
    /// Thousandths, rounded up.
    pub fn millis(&self) -> i64 {
        div_up(self.nanos, NANO / 1000)
    }
    /// As a floating-point number of units.
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANO as f64
    }
    /// Below zero.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }
    /// Exactly zero.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }
    /// A whole number of units.
    pub fn is_integer(&self) -> bool {
        self.nanos % NANO == 0
    }
    /// The sum, in the format of `self`.
    pub fn plus(self, other: Self) -> Self {
        Self {
            nanos: self.nanos + other.nanos,
            format: self.format,
        }
    }
    /// The difference, in the format of `self`.
    pub fn minus(self, other: Self) -> Self {
        Self {
            nanos: self.nanos - other.nanos,
            format: self.format,
        }
    }
}

fn div_up(n: i128, d: i128) -> i64 {
    let q = n / d + i128::from(n % d > 0) - i128::from(n % d < 0);
    q.clamp(i64::MIN as i128, i64::MAX as i128) as i64
}

/// (multiplier, divisor, format) of a suffix.
fn suffix_factor(suffix: &str) -> Result<(i128, i128, Format), QuantityError> {
    use Format::*;
    const K: i128 = 1000;
    const B: i128 = 1024;
    Ok(match suffix {
        "" => (1, 1, DecimalSI),
        "n" => (1, NANO, DecimalSI),
        "u" => (1, 1_000_000, DecimalSI),
        "m" => (1, 1000, DecimalSI),
        "k" => (K, 1, DecimalSI),
        "M" => (K.pow(2), 1, DecimalSI),
        "G" => (K.pow(3), 1, DecimalSI),
        "T" => (K.pow(4), 1, DecimalSI),
        "P" => (K.pow(5), 1, DecimalSI),
        "E" => (K.pow(6), 1, DecimalSI),
        "Ki" => (B, 1, BinarySI),
        "Mi" => (B.pow(2), 1, BinarySI),
        "Gi" => (B.pow(3), 1, BinarySI),
        "Ti" => (B.pow(4), 1, BinarySI),
        "Pi" => (B.pow(5), 1, BinarySI),
        "Ei" => (B.pow(6), 1, BinarySI),
        _ => {
            let exponent = suffix
                .strip_prefix(['e', 'E'])
                .ok_or(QuantityError::Suffix)?;
            let n: i32 = exponent.parse().map_err(|_| QuantityError::Suffix)?;
            match n {
                0..=18 => (10i128.pow(n as u32), 1, DecimalExponent),
                -18..0 => (1, 10i128.pow(-n as u32), DecimalExponent),
                _ => return Err(QuantityError::Suffix),
            }
        }
    })
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the largest suffix that allows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let sign = if self.nanos < 0 { "-" } else { "" };
        let n = self.nanos.abs();
        // A binary quantity below 1 Ki, or with a fraction, is written in decimal.
        if self.format == Format::BinarySI && n % NANO == 0 && n / NANO >= 1024 {
            let mut v = n / NANO;
            let mut unit = "";
            for u in ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"] {
                if v % 1024 != 0 {
                    break;
                }
                v /= 1024;
                unit = u;
            }
            return write!(f, "{sign}{v}{unit}");
        }
        let mut v = n;
        let mut step = 0;
        while step < 9 && v % 1000 == 0 {
            v /= 1000;
            step += 1;
        }
        if self.format == Format::DecimalExponent {
            let e = step as i32 * 3 - 9;
            return if e == 0 {
                write!(f, "{sign}{v}")
            } else {
                write!(f, "{sign}{v}e{e}")
            };
        }
        let unit = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][step];
        write!(f, "{sign}{v}{unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms() {
        for (input, out) in [
            ("0", "0"),
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1000m", "1"),
            ("1.5", "1500m"),
            ("2000", "2k"),
            ("1Gi", "1Gi"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Mi", "512Ki"),
            ("1e3", "1e3"),
            ("12e6", "12e6"),
            ("128974848", "128974848"),
            ("-5", "-5"),
            ("0.0000000001", "1n"),
            (".5", "500m"),
            ("512", "512"),
            ("100Ki", "100Ki"),
            ("1000Ki", "1000Ki"),
            ("0.1Ki", "102400m"),
            ("1E", "1E"),
        ] {
            assert_eq!(Quantity::parse(input).unwrap().to_string(), out, "{input}");
        }
    }

    #[test]
    fn refuses_what_is_no_quantity() {
        for bad in ["", "abc", "1.2.3", "1 Gi", "Gi", "-"] {
            assert_eq!(
                Quantity::parse(bad).unwrap_err(),
                QuantityError::Format,
                "{bad}"
            );
        }
        for bad in ["1Kii", "1K", "1mm"] {
            assert_eq!(
                Quantity::parse(bad).unwrap_err(),
                QuantityError::Suffix,
                "{bad}"
            );
        }
    }

    #[test]
    fn compares_and_adds_across_formats() {
        let a = Quantity::parse("1Gi").unwrap();
        let b = Quantity::parse("1G").unwrap();
        assert!(a > b);
        assert_eq!(
            Quantity::parse("1").unwrap(),
            Quantity::parse("1000m").unwrap()
        );
        assert_eq!(a.plus(a).to_string(), "2Gi");
        assert_eq!(Quantity::parse("1500m").unwrap().value(), 2);
        assert_eq!(Quantity::parse("1500m").unwrap().millis(), 1500);
    }
}
