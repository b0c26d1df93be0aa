//! How Go prints values (package `fmt`).

use serde_json::Value;
use std::fmt::Write as _;

/// A decoded JSON value as `%v` prints it: `map[a:1 b:[x <nil>]]`, keys in order.
pub fn value(v: &Value) -> String {
    let mut out = String::new();
    write(v, &mut out);
    out
}

fn write(v: &Value, out: &mut String) {
    match v {
        Value::Null => out.push_str("<nil>"),
        Value::Bool(b) => _ = write!(out, "{b}"),
        Value::Number(n) => _ = write!(out, "{n}"),
        Value::String(s) => out.push_str(s),
        Value::Array(list) => {
            out.push('[');
            for (i, item) in list.iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push_str("map[");
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            for (i, key) in keys.into_iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                out.push_str(key);
                out.push(':');
                write(&map[key], out);
            }
            out.push(']');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn maps_are_printed_in_the_order_of_their_keys() {
        assert_eq!(
            value(&json!({"b": [1, "x y", null], "a": {"c": true}})),
            "map[a:map[c:true] b:[1 x y <nil>]]"
        );
    }
}
