//! YAML as the field's programs print it: keys in order, lists at the level of their key, quotes only
//! where a plain word would be read as something else.

use serde_json::Value;

/// The text of a document, with a line feed at its end.
pub fn to_string(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => write_map(value, 0, &mut out),
        Value::Array(items) if !items.is_empty() => write_list(value, 0, &mut out),
        _ => {
            out.push_str(&scalar(value, 0));
            out.push('\n');
        }
    }
    out
}

fn write_map(value: &Value, indent: usize, out: &mut String) {
    let Value::Object(map) = value else { return };
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort_by(|a, b| natural(a, b));
    for (number, key) in keys.into_iter().enumerate() {
        if number > 0 {
            out.extend(std::iter::repeat_n(' ', indent));
        }
        out.push_str(&plain_or_quoted(key, indent));
        out.push(':');
        match &map[key] {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', indent + 2));
                write_map(&map[key], indent + 2, out);
            }
            Value::Array(inner) if !inner.is_empty() => {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', indent));
                write_list(&map[key], indent, out);
            }
            other => {
                out.push(' ');
                out.push_str(&scalar(other, indent));
                out.push('\n');
            }
        }
    }
}

fn write_list(value: &Value, indent: usize, out: &mut String) {
    let Value::Array(items) = value else { return };
    for (number, item) in items.iter().enumerate() {
        if number > 0 {
            out.extend(std::iter::repeat_n(' ', indent));
        }
        out.push_str("- ");
        match item {
            Value::Object(inner) if !inner.is_empty() => write_map(item, indent + 2, out),
            Value::Array(inner) if !inner.is_empty() => write_list(item, indent + 2, out),
            other => {
                out.push_str(&scalar(other, indent));
                out.push('\n');
            }
        }
    }
}

/// The order of keys: letters before digits' values, numbers inside of names by value.
fn natural(a: &str, b: &str) -> std::cmp::Ordering {
    let (left, right): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut digits = false;
    for i in 0..left.len().min(right.len()) {
        let (l, r) = (left[i], right[i]);
        if l == r {
            digits = l.is_numeric();
            continue;
        }
        let (al, ar) = (l.is_alphabetic(), r.is_alphabetic());
        if al && ar {
            return l.cmp(&r);
        }
        if al || ar {
            return if digits {
                ar.cmp(&al).reverse()
            } else {
                al.cmp(&ar)
            };
        }
        let number = |of: &[char]| -> (usize, i64) {
            let text: String = of[i..].iter().take_while(|c| c.is_ascii_digit()).collect();
            (text.len(), text.parse().unwrap_or(0))
        };
        let ((ll, ln), (rl, rn)) = (number(&left), number(&right));
        return ln.cmp(&rn).then(ll.cmp(&rl)).then(l.cmp(&r));
    }
    left.len().cmp(&right.len())
}

fn scalar(value: &Value, indent: usize) -> String {
    match value {
        Value::String(text) if text.contains('\n') && literal(text) => {
            let chomp = match (text.ends_with('\n'), text.ends_with("\n\n")) {
                (false, _) => "-",
                (true, true) => "+",
                (true, false) => "",
            };
            let blanks = " ".repeat(indent + 2);
            let lines: Vec<String> = text
                .strip_suffix('\n')
                .unwrap_or(text)
                .split('\n')
                .map(|line| {
                    if line.is_empty() {
                        String::new()
                    } else {
                        format!("{blanks}{line}")
                    }
                })
                .collect();
            format!("|{chomp}\n{}", lines.join("\n"))
        }
        Value::String(text) => plain_or_quoted(text, indent),
        Value::Array(_) => "[]".to_owned(),
        Value::Object(_) => "{}".to_owned(),
        Value::Null => "null".to_owned(),
        // Go writes whole numbers without a fraction, whatever they were read from.
        Value::Number(number) => {
            let text = number.to_string();
            text.strip_suffix(".0").unwrap_or(&text).to_owned()
        }
        other => other.to_string(),
    }
}

/// Whether a text of several lines can be written as it is.
fn literal(text: &str) -> bool {
    !text.starts_with([' ', '\n'])
        && !text.contains(" \n")
        && text.chars().all(|c| c == '\n' || printable(c))
}

fn printable(c: char) -> bool {
    !c.is_control() && c != '\u{feff}' && c != '\u{2028}' && c != '\u{2029}'
}

fn plain_or_quoted(text: &str, _indent: usize) -> String {
    if !text.chars().all(printable) {
        return double_quoted(text);
    }
    // Words that would be read as another type are in double quotes, texts with signs in single ones.
    if reads_as_other_type(text) {
        return format!("\"{text}\"");
    }
    if plain(text) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "''"))
}

fn reads_as_other_type(text: &str) -> bool {
    if text.is_empty() {
        return true;
    }
    const WORDS: [&str; 9] = ["null", "~", "true", "false", "y", "n", "yes", "no", "on"];
    let lower = text.to_lowercase();
    let same_case = text == lower
        || text == text.to_uppercase()
        || (text.chars().next().is_some_and(char::is_uppercase) && text[1..] == lower[1..]);
    if same_case && (WORDS.contains(&lower.as_str()) || lower == "off") {
        return true;
    }
    if [".nan", ".inf", "+.inf", "-.inf"].contains(&lower.as_str()) || text == "<<" {
        return true;
    }
    number(text) || timestamp(text)
}

fn number(text: &str) -> bool {
    let digits = text
        .strip_prefix(['-', '+'])
        .unwrap_or(text)
        .replace('_', "");
    if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) || digits.is_empty() {
        return false;
    }
    for (prefix, radix) in [("0x", 16), ("0b", 2), ("0o", 8)] {
        if let Some(rest) = digits.strip_prefix(prefix) {
            return u64::from_str_radix(rest, radix).is_ok();
        }
    }
    // Base 60, as YAML 1.1 had it.
    if digits.contains(':') {
        return digits.split(':').all(|part| {
            !part.is_empty() && part.len() <= 2 && part.chars().all(|c| c.is_ascii_digit())
        });
    }
    digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.chars().any(|c| c.is_ascii_digit())
        && digits.parse::<f64>().is_ok()
}

fn timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 8
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && bytes[4] == b'-'
        && (time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)
            .is_ok()
            || text.split('-').count() == 3
                && text
                    .split('-')
                    .all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit())))
}

/// Whether a text can stand without quotes.
fn plain(text: &str) -> bool {
    let first = text.chars().next().unwrap_or(' ');
    let second = text.chars().nth(1);
    if "#,[]{}&*!|>'\"%@`".contains(first) || text.starts_with("---") || text.starts_with("...") {
        return false;
    }
    if "-?:".contains(first) && second.is_none_or(|c| c == ' ') {
        return false;
    }
    if text.starts_with(' ') || text.ends_with(' ') || text.ends_with(':') {
        return false;
    }
    !text.contains(": ") && !text.contains(" #")
}

fn double_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if printable(c) => out.push(c),
            c if u32::from(c) < 0x100 => out.push_str(&format!("\\x{:02X}", u32::from(c))),
            c => out.push_str(&format!("\\u{:04X}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_look_as_people_expect() {
        let value = json!({"b": [{"z": 1, "a": "x"}, "two"], "a": {"c": []}, "p": "80", "t": "a: b", "w": "*"});
        let expected = "a:\n  c: []\nb:\n- a: x\n  z: 1\n- two\np: \"80\"\nt: 'a: b'\nw: '*'\n";
        assert_eq!(to_string(&value), expected, "{}", to_string(&value));
    }

    #[test]
    fn words_that_mean_something_are_quoted() {
        for word in [
            "true",
            "No",
            "null",
            "1",
            "1.5",
            "0x1f",
            "",
            "12:30",
            "2024-01-02",
            ".5",
            "1e3",
        ] {
            assert_eq!(plain_or_quoted(word, 0), format!("\"{word}\""));
        }
        for word in [
            "outbound|80||a.b",
            "10.0.0.1",
            "1.2.3",
            "/",
            "0s",
            "a:b",
            "nope",
            "v1",
        ] {
            assert_eq!(plain_or_quoted(word, 0), word);
        }
    }

    #[test]
    fn whole_numbers_have_no_fraction() {
        assert_eq!(
            to_string(&json!({"a": 790.0, "b": 0.5, "c": 7})),
            "a: 790\nb: 0.5\nc: 7\n"
        );
    }

    #[test]
    fn several_lines_are_a_block() {
        assert_eq!(to_string(&json!({"a": "x\ny\n"})), "a: |\n  x\n  y\n");
        assert_eq!(to_string(&json!({"a": "x\ny"})), "a: |-\n  x\n  y\n");
    }
}
