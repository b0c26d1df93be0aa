//! Kubernetes' libraries of functions, one file a theme.

mod format;
mod lists;
mod net;
mod quantity;
mod strings;
mod time;

use super::eval::Outcome;
use super::functions::no_overload;
use super::value::Value;

/// Calls a function; with `member` the first value is the target.
pub(super) fn call(function: &str, member: bool, values: &[Value]) -> Outcome {
    if let Some(name) = function.strip_prefix("format.") {
        return format::named(name, values);
    }
    match values.first() {
        Some(Value::List(..)) => lists::call(function, values),
        Some(Value::Timestamp(_) | Value::Duration(_)) => time::call(function, values),
        Some(Value::Quantity(_)) => quantity::call(function, values),
        Some(Value::Format(name)) => format::validate(name, values),
        Some(Value::Url(_) | Value::Ip(_) | Value::Cidr(..)) => net::call(function, values),
        Some(Value::String(_)) if member || matches!(function, "matches" | "strings.quote") => {
            strings::call(function, values)
        }
        Some(Value::String(_)) if function.ends_with("uantity") => quantity::call(function, values),
        Some(Value::String(_)) => net::call(function, values),
        _ => no_overload(),
    }
}
