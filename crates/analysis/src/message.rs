//! Messages: what an analyzer found, in the order and form in which they are told.

use std::fmt;
use std::sync::Arc;

use crate::object::{Object, Origin};

/// How bad it is. The worst is the smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something does not work.
    Error,
    /// Something probably does not do what was meant.
    Warning,
    /// Something to know.
    Info,
}

impl Level {
    /// The levels in the order in which help texts name them.
    pub const ALL: [Level; 3] = [Level::Info, Level::Warning, Level::Error];

    /// The level with this name, in any case.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|level| level.to_string().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Level::Error => "Error",
            Level::Warning => "Warning",
            Level::Info => "Info",
        })
    }
}

/// Kinds of messages that somebody may ask not to be told, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suppression {
    /// A code, such as `IST0102`.
    pub code: String,
    /// Names of resources as messages tell them; `*` stands for anything.
    pub resource: String,
}

/// A message about an object.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its code, such as `IST0101`.
    pub code: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What is wrong.
    pub text: String,
    /// The object it is about.
    pub origin: Arc<Origin>,
    /// The line it is about, where it is not the first one of the object.
    pub line: Option<usize>,
    /// Whether to say which cluster the object is in.
    pub with_cluster: bool,
}

impl Message {
    /// A message about `object`.
    #[must_use]
    pub fn new(code: &'static str, level: Level, object: &Object, text: String) -> Self {
        Self {
            code,
            level,
            text,
            origin: Arc::clone(&object.origin),
            line: None,
            with_cluster: false,
        }
    }

    /// The same message at the line of a single value, if that is known.
    #[must_use]
    pub fn at(mut self, path: &str) -> Self {
        self.line = self
            .origin
            .place
            .as_ref()
            .and_then(|place| place.fields.get(path).copied());
        self
    }

    /// Where the object was read: `file:line`.
    #[must_use]
    pub fn reference(&self) -> Option<String> {
        self.origin.reference(self.line)
    }

    /// Everything after the level: ` [IST0101] (VirtualService shop/basket a.yaml:3) text`.
    #[must_use]
    pub fn rest(&self) -> String {
        let cluster = if self.with_cluster {
            format!(" [cluster-{}]", self.origin.cluster)
        } else {
            String::new()
        };
        let place = self
            .reference()
            .map(|place| format!(" {place}"))
            .unwrap_or_default();
        format!(
            " [{}]{cluster} ({}{place}) {}",
            self.code,
            self.origin.friendly_name(),
            self.text
        )
    }

    /// The page that explains the code.
    #[must_use]
    pub fn documentation(&self) -> String {
        format!(
            "{DOCUMENTATION}/{}/?ref=istioctl-analyze",
            self.code.to_lowercase()
        )
    }
}

/// Where all codes are explained. The version is the one that the measured `istioctl` names.
pub const DOCUMENTATION: &str = "https://istio.io/v1.30/docs/reference/config/analysis";

impl fmt::Display for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", self.level, self.rest())
    }
}

/// Sorts by cluster, level, code, object and text, and leaves out what would be told twice in a row.
pub fn sort(messages: &mut Vec<Message>) {
    messages.sort_by_cached_key(|message| {
        (
            message.origin.cluster.clone(),
            message.level,
            message.code,
            message.origin.comparator(),
            message.to_string(),
        )
    });
    messages.dedup_by(|a, b| a.to_string() == b.to_string());
}

/// Leaves out what nobody asked for: other namespaces than `namespace` (unless that is empty), and what is suppressed.
pub fn filter(messages: &mut Vec<Message>, namespace: &str, suppressions: &[Suppression]) {
    messages.retain(|message| {
        let belongs_to = message.origin.belongs_to();
        if !namespace.is_empty() && !belongs_to.is_empty() && belongs_to != namespace {
            return false;
        }
        let annotated = &message.origin.suppressed;
        if annotated
            .iter()
            .any(|code| code == "*" || code == message.code)
        {
            return false;
        }
        !suppressions.iter().any(|suppression| {
            suppression.code == message.code
                && matches_glob(&suppression.resource, &message.origin.friendly_name())
        })
    });
}

/// Whether `text` is `pattern`, in which `*` stands for any text.
fn matches_glob(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(position) = text.find(part) else {
            return false;
        };
        text = &text[position + part.len()..];
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, expected) in [
            ("*", "Pod a/b", true),
            ("Pod *", "Pod a/b", true),
            ("Pod *", "Service a/b", false),
            ("*a/*", "Pod a/b", true),
            ("Pod a/b", "Pod a/b", true),
            ("Pod a/b", "Pod a/bc", false),
            ("*b*b", "ab", false),
            ("", "", true),
        ] {
            assert_eq!(matches_glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn levels_are_read_in_any_case() {
        assert_eq!(Level::parse("wArning"), Some(Level::Warning));
        assert_eq!(Level::parse("Fatal"), None);
        assert!(Level::Error < Level::Info);
    }
}
