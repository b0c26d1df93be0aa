//! Quantities.

use super::super::eval::Outcome;
use super::super::functions::no_overload;
use super::super::value::Value;
use crate::quantity::Quantity;
use std::cmp::Ordering;

pub(super) fn call(function: &str, values: &[Value]) -> Outcome {
    use Value::{Bool, Double, Int, Quantity as Amount, String as Text};
    match (function, values) {
        ("quantity", [Text(text)]) => Quantity::parse(text)
            .map(Amount)
            .map_err(|why| why.to_string()),
        ("isQuantity", [Text(text)]) => Ok(Bool(Quantity::parse(text).is_ok())),
        ("isInteger", [Amount(q)]) => Ok(Bool(q.is_integer())),
        ("asInteger", [Amount(q)]) if q.is_integer() => Ok(Int(q.value())),
        ("asInteger", [Amount(_)]) => Err("cannot convert value to integer".into()),
        ("asApproximateFloat", [Amount(q)]) => Ok(Double(q.as_f64())),
        ("sign", [Amount(q)]) => Ok(Int(if q.is_zero() {
            0
        } else if q.is_negative() {
            -1
        } else {
            1
        })),
        ("add", [Amount(a), Amount(b)]) => Ok(Amount(a.plus(*b))),
        ("add", [Amount(a), Int(i)]) => Ok(Amount(a.plus(Quantity::from_units(*i)))),
        ("sub", [Amount(a), Amount(b)]) => Ok(Amount(a.minus(*b))),
        ("sub", [Amount(a), Int(i)]) => Ok(Amount(a.minus(Quantity::from_units(*i)))),
        ("isLessThan", [Amount(a), Amount(b)]) => Ok(Bool(a < b)),
        ("isGreaterThan", [Amount(a), Amount(b)]) => Ok(Bool(a > b)),
        ("compareTo", [Amount(a), Amount(b)]) => Ok(Int(match a.cmp(b) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        })),
        _ => no_overload(),
    }
}
