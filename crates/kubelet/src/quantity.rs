//! The part of `resource.Quantity` a node agent needs: read one, divide it.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Thousandths of the unit: `500m` → 500, `1Ki` → 1 024 000. `None` when it is not a quantity.
pub fn milli(text: &str) -> Option<i128> {
    let text = text.trim();
    let (number, factor_milli): (&str, f64) = if let Some(rest) = suffix(text, &BINARY) {
        (rest.0, rest.1 * 1000.0)
    } else if let Some(rest) = suffix(text, &DECIMAL) {
        (rest.0, rest.1 * 1000.0)
    } else {
        (text, 1000.0)
    };
    let number: f64 = number.parse().ok()?;
    if !number.is_finite() {
        return None;
    }
    // Quantities are rounded up, never down: a limit of 0.1 byte is one byte.
    Some((number * factor_milli - 1e-6).ceil() as i128)
}

/// Whole units, rounded up: `1500m` → 2, `128Mi` → 134217728.
pub fn units(quantity: &Quantity) -> Option<u64> {
    let milli = milli(&quantity.0)?;
    u64::try_from(milli.div_euclid(1000) + i128::from(milli.rem_euclid(1000) != 0)).ok()
}

const BINARY: [(&str, f64); 6] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
];
const DECIMAL: [(&str, f64); 9] = [
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
];

fn suffix<'a>(text: &'a str, table: &[(&str, f64)]) -> Option<(&'a str, f64)> {
    table
        .iter()
        .find_map(|(name, factor)| text.strip_suffix(name).map(|rest| (rest, *factor)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (text, expected) in [
            ("500m", Some(500)),
            ("2", Some(2000)),
            ("0.1", Some(100)),
            ("1Ki", Some(1_024_000)),
            ("128Mi", Some(134_217_728_000)),
            ("1e3", Some(1_000_000)),
            ("3k", Some(3_000_000)),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(milli(text), expected, "{text}");
        }
        assert_eq!(units(&Quantity("1500m".into())), Some(2));
    }
}
