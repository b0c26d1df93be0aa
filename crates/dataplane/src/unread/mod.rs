//! What a message says that nobody here reads. Such a resource is refused: a rule that is configured and does not
//! apply is worse than one that cannot be configured.
//!
//! Messages are walked in their encoded form. The fields that matter stand in `fields.txt`, which the test of this
//! module makes of the list in `not_read.rs` and of the descriptors: a proxy does not need those at run time.

use std::collections::HashMap;
use std::sync::LazyLock;

use xds::Wire;

use crate::error::ConfigError;

#[cfg(test)]
mod not_read;
#[cfg(test)]
mod tests;

/// What is to be done with a field that is set.
enum Step {
    /// Nobody reads it: unless it is a wrapped false, 0 or empty text, it is an error or, less bad, worth a line.
    Unread { wrapped: bool, kind: Unread },
    /// A message to look into, by its index.
    Into(usize),
    /// A `google.protobuf.Any`.
    Any,
}

/// How bad it is that nobody reads a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unread {
    Refused,
    Ignored,
}

/// The fields of one message that matter.
type Fields = HashMap<u32, (&'static str, Step)>;

struct Rules {
    messages: Vec<Fields>,
    by_name: HashMap<&'static str, usize>,
}

static RULES: LazyLock<Rules> = LazyLock::new(|| Rules::parse(include_str!("fields.txt")));

impl Rules {
    /// A message a line without indent; below it `NUMBER NAME WHAT`, where WHAT is `refuse` or `ignore` (with a `?` for wrapped
    /// values), `any` or the name of a message.
    fn parse(text: &'static str) -> Self {
        let names = text.lines().filter(|line| !line.starts_with(' '));
        let by_name: HashMap<&str, usize> =
            names.enumerate().map(|(at, name)| (name, at)).collect();
        let mut messages: Vec<Fields> = Vec::with_capacity(by_name.len());
        for line in text.lines() {
            let Some(field) = line.strip_prefix(' ') else {
                messages.push(Fields::new());
                continue;
            };
            let mut words = field.split(' ');
            let (Some(number), Some(name), Some(what), Some(fields)) = (
                words.next(),
                words.next(),
                words.next(),
                messages.last_mut(),
            ) else {
                continue;
            };
            let step = match what {
                "refuse" | "refuse?" | "ignore" | "ignore?" => Step::Unread {
                    wrapped: what.ends_with('?'),
                    kind: match what.starts_with('r') {
                        true => Unread::Refused,
                        false => Unread::Ignored,
                    },
                },
                "any" => Step::Any,
                message => Step::Into(by_name[message]),
            };
            fields.insert(number.parse().expect("a number"), (name, step));
        }
        Self { messages, by_name }
    }

    fn walk(&self, fields: &Fields, mut bytes: &[u8], wanted: Unread, found: &mut Vec<String>) {
        while let Some((number, value)) = next(&mut bytes) {
            let Some((name, step)) = fields.get(&number) else {
                continue;
            };
            let before = found.len();
            match (step, value) {
                (Step::Unread { kind, .. }, _) if *kind != wanted => {}
                (Step::Unread { wrapped: true, .. }, Value::Bytes([])) => {}
                (Step::Unread { .. }, _) => found.push(String::new()),
                (Step::Into(index), Value::Bytes(inner)) => {
                    self.walk(&self.messages[*index], inner, wanted, found);
                }
                (Step::Any, Value::Bytes(inner)) => self.any(inner, wanted, found),
                _ => {}
            }
            for path in &mut found[before..] {
                *path = match path.is_empty() {
                    true => (*name).to_owned(),
                    false => format!("{name}.{path}"),
                };
            }
        }
    }

    fn any(&self, mut bytes: &[u8], wanted: Unread, found: &mut Vec<String>) {
        let (mut url, mut message) = ("", &[][..]);
        while let Some((number, value)) = next(&mut bytes) {
            match (number, value) {
                (1, Value::Bytes(bytes)) => url = std::str::from_utf8(bytes).unwrap_or_default(),
                (2, Value::Bytes(bytes)) => message = bytes,
                _ => {}
            }
        }
        if let Some(index) = self.by_name.get(xds::type_url::message_name(url)) {
            self.walk(&self.messages[*index], message, wanted, found);
        }
    }
}

enum Value<'a> {
    Bytes(&'a [u8]),
    Number,
}

/// The next field of an encoded message; `None` at the end, or where it is no message.
fn next<'a>(bytes: &mut &'a [u8]) -> Option<(u32, Value<'a>)> {
    if bytes.is_empty() {
        return None;
    }
    let key = varint(bytes)?;
    let skip = |bytes: &mut &'a [u8], count: usize| {
        let (first, rest) = bytes.split_at_checked(count)?;
        *bytes = rest;
        Some(first)
    };
    let value = match key & 7 {
        0 => varint(bytes).map(|_| Value::Number)?,
        1 => skip(bytes, 8).map(|_| Value::Number)?,
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            Value::Bytes(skip(bytes, length)?)
        }
        5 => skip(bytes, 4).map(|_| Value::Number)?,
        _ => return None,
    };
    Some((u32::try_from(key >> 3).ok()?, value))
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn find<M: Wire>(message: &M, wanted: Unread) -> Vec<String> {
    let rules = &*RULES;
    let Some(index) = rules.by_name.get(M::FULL_NAME) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    rules.walk(
        &rules.messages[*index],
        &message.to_wire(),
        wanted,
        &mut found,
    );
    found.sort_unstable();
    found.dedup();
    found
}

/// The fields of a message, also of messages inside of it, that are set and that nobody reads.
pub fn unread<M: Wire>(message: &M) -> Vec<ConfigError> {
    find(message, Unread::Refused)
        .into_iter()
        .map(|field| ConfigError::new(field, "is not carried out by this proxy; remove it"))
        .collect()
}

/// Those without which traffic flows all the same; they are worth a line in the log.
pub fn ignored<M: Wire>(message: &M) -> Vec<String> {
    find(message, Unread::Ignored)
}
