//! Lists and sets.

use super::super::eval::Outcome;
use super::super::functions::{self, no_overload};
use super::super::value::Value;
use std::cmp::Ordering;

pub(super) fn call(function: &str, values: &[Value]) -> Outcome {
    use Value::{Bool, List};
    let Some(List(items, _)) = values.first() else {
        return no_overload();
    };
    match (function, &values[1..]) {
        ("isSorted", []) => {
            for pair in items.windows(2) {
                match pair[0].compare(&pair[1]) {
                    Some(Ordering::Greater) => return Ok(Bool(false)),
                    Some(_) => {}
                    None => return no_overload(),
                }
            }
            Ok(Bool(true))
        }
        ("sum", []) => {
            let Some((first, rest)) = items.split_first() else {
                return Ok(Value::Int(0));
            };
            let mut total = first.clone();
            for item in rest {
                total = functions::call("_+_", false, &[total, item.clone()])?;
            }
            Ok(total)
        }
        ("min" | "max", []) => {
            let wanted = if function == "min" {
                Ordering::Less
            } else {
                Ordering::Greater
            };
            let Some((first, rest)) = items.split_first() else {
                return Err(format!("{function} called on empty list"));
            };
            let mut best = first;
            for item in rest {
                match item.compare(best) {
                    Some(order) if order == wanted => best = item,
                    Some(_) => {}
                    None => return no_overload(),
                }
            }
            Ok(best.clone())
        }
        ("indexOf", [value]) => Ok(Value::Int(
            items
                .iter()
                .position(|item| item == value)
                .map_or(-1, |i| i as i64),
        )),
        ("lastIndexOf", [value]) => Ok(Value::Int(
            items
                .iter()
                .rposition(|item| item == value)
                .map_or(-1, |i| i as i64),
        )),
        ("join", rest) => {
            let separator = match rest {
                [Value::String(s)] => &**s,
                _ => "",
            };
            let mut texts = Vec::with_capacity(items.len());
            for item in items.iter() {
                match item {
                    Value::String(s) => texts.push(&**s),
                    _ => return no_overload(),
                }
            }
            Ok(Value::text(texts.join(separator)))
        }
        ("sets.contains", [List(other, _)]) => {
            Ok(Bool(other.iter().all(|item| items.contains(item))))
        }
        ("sets.intersects", [List(other, _)]) => {
            Ok(Bool(other.iter().any(|item| items.contains(item))))
        }
        ("sets.equivalent", [List(other, _)]) => Ok(Bool(
            other.iter().all(|item| items.contains(item))
                && items.iter().all(|item| other.contains(item)),
        )),
        _ => no_overload(),
    }
}
