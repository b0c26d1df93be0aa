//! How answers are shown.

use super::wire::Answer;

/// As they are, one to a line.
pub(super) fn raw(answer: &Answer) -> Vec<u8> {
    let mut out = Vec::new();
    raw_into(answer, &mut out);
    out.push(b'\n');
    out
}

fn raw_into(answer: &Answer, out: &mut Vec<u8>) {
    match answer {
        Answer::Nil => {}
        Answer::Error(text) => {
            out.extend_from_slice(text);
            out.push(b'\n');
        }
        Answer::Status(text) | Answer::Bulk(text) => out.extend_from_slice(text),
        Answer::Int(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Answer::List(items) => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b'\n');
                }
                raw_into(item, out);
            }
        }
    }
}

/// With kinds, quotes and numbers.
pub(super) fn for_people(answer: &Answer) -> Vec<u8> {
    let mut out = Vec::new();
    people_into(answer, 0, &mut out);
    out
}

fn people_into(answer: &Answer, indent: usize, out: &mut Vec<u8>) {
    match answer {
        Answer::Nil => out.extend_from_slice(b"(nil)\n"),
        Answer::Error(text) => {
            out.extend_from_slice(b"(error) ");
            out.extend_from_slice(text);
            out.push(b'\n');
        }
        Answer::Status(text) => {
            out.extend_from_slice(text);
            out.push(b'\n');
        }
        Answer::Int(number) => out.extend_from_slice(format!("(integer) {number}\n").as_bytes()),
        Answer::Bulk(bytes) => {
            quote(bytes, out);
            out.push(b'\n');
        }
        Answer::List(items) if items.is_empty() => out.extend_from_slice(b"(empty array)\n"),
        Answer::List(items) => {
            let width = items.len().to_string().len();
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.extend(std::iter::repeat_n(b' ', indent));
                }
                out.extend_from_slice(format!("{:>width$}) ", index + 1).as_bytes());
                people_into(item, indent + width + 2, out);
            }
        }
    }
}

fn quote(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in bytes {
        match byte {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            7 => out.extend_from_slice(b"\\a"),
            8 => out.extend_from_slice(b"\\b"),
            b' '..=b'~' => out.push(*byte),
            other => out.extend_from_slice(format!("\\x{other:02x}").as_bytes()),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_in_lists() {
        let text = |text: &str| Answer::Bulk(text.as_bytes().to_vec());
        let answer = Answer::List(vec![
            text("0"),
            Answer::List(vec![text("a\n"), Answer::Nil, Answer::Int(3)]),
            Answer::List(Vec::new()),
        ]);
        let shown = String::from_utf8(for_people(&answer)).unwrap();
        assert_eq!(
            shown,
            "1) \"0\"\n2) 1) \"a\\n\"\n   2) (nil)\n   3) (integer) 3\n3) (empty array)\n"
        );
        assert_eq!(raw(&answer), b"0\na\n\n\n3\n\n");
    }
}
