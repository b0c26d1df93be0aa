//! Where two JSON values differ.

use serde_json::Value;

/// How much of a value is shown.
const SHOWN: usize = 200;

/// Every path below `path` at which `got` is not what was recorded. Order in lists counts, in objects it does not; numbers are equal when they
/// have the same value.
pub fn differences(want: &Value, got: &Value, path: &str) -> Vec<String> {
    let mut out = Vec::new();
    collect(want, got, path, &mut out);
    out
}

fn collect(want: &Value, got: &Value, path: &str, out: &mut Vec<String>) {
    match (want, got) {
        (Value::Object(want), Value::Object(got)) => {
            for (key, value) in want {
                let path = below(path, key);
                match got.get(key) {
                    Some(other) => collect(value, other, &path, out),
                    None => out.push(format!("{path}: missing, want {}", short(value))),
                }
            }
            for (key, value) in got.iter().filter(|(key, _)| !want.contains_key(*key)) {
                let path = below(path, key);
                out.push(format!("{path}: not expected, got {}", short(value)));
            }
        }
        (Value::Array(want), Value::Array(got)) => {
            for (index, (value, other)) in want.iter().zip(got).enumerate() {
                collect(value, other, &format!("{path}[{index}]"), out);
            }
            if want.len() != got.len() {
                let (want, got) = (want.len(), got.len());
                out.push(format!("{path}: want {want} items, got {got}"));
            }
        }
        (Value::Number(a), Value::Number(b)) if a == b || a.as_f64() == b.as_f64() => {}
        _ if want == got => {}
        _ => out.push(format!("{path}: want {}, got {}", short(want), short(got))),
    }
}

/// The path of a key: `a.b`, or `a[b.c]` where the key itself looks like a path.
fn below(path: &str, key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '@';
    match (path, key.chars().all(plain) && !key.is_empty()) {
        ("", true) => key.to_owned(),
        (_, true) => format!("{path}.{key}"),
        (_, false) => format!("{path}[{key}]"),
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= SHOWN {
        return text;
    }
    text.chars().take(SHOWN).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_path_is_named_and_order_counts_in_lists_only() {
        let want = json!({"a": 1, "b": [1, 2], "c": {"x.y": "s"}, "d": 1.0});
        assert!(
            differences(
                &want,
                &json!({"d": 1, "c": {"x.y": "s"}, "b": [1, 2], "a": 1}),
                ""
            )
            .is_empty()
        );
        let got = json!({"a": "1", "b": [2, 1, 3], "c": {"z": null}, "d": 1});
        assert_eq!(
            differences(&want, &got, "r"),
            [
                "r.a: want 1, got \"1\"",
                "r.b[0]: want 1, got 2",
                "r.b[1]: want 2, got 1",
                "r.b: want 2 items, got 3",
                "r.c[x.y]: missing, want \"s\"",
                "r.c.z: not expected, got null",
            ]
        );
    }
}
