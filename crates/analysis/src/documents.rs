//! Dividing a file into documents, and finding the line of each value in them.

use std::collections::HashMap;

use crate::yaml::{Data, Node};

/// A document of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its text.
    pub text: String,
    /// Line of the file where it is said to begin, starting at 1.
    pub line: usize,
}

/// The documents of a file, divided at lines `---`, with the line where each begins: its first line that is neither empty nor `---`.
#[must_use]
pub fn split(text: &str) -> Vec<Document> {
    let mut lines: Vec<&str> = text.split('\n').collect();
    if lines.last().is_some_and(|last| last.is_empty()) {
        lines.pop();
    }
    let mut documents = Vec::new();
    let mut current = String::new();
    let mut begin = None;
    let mut first = 1;
    for (index, line) in lines.iter().enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if begin.is_none() && !line.is_empty() && line != "---" {
            begin = Some(index + 1);
        }
        let separator = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.trim_end().is_empty());
        if separator && !current.is_empty() {
            documents.push(Document {
                text: std::mem::take(&mut current),
                line: begin.unwrap_or(first),
            });
            begin = None;
            first = index + 2;
            continue;
        }
        // A `---` before anything else stays in the document, and so counts as a line of it.
        current.push_str(line);
        current.push('\n');
    }
    if !current.is_empty() {
        documents.push(Document {
            text: current,
            line: begin.unwrap_or(first),
        });
    }
    documents
}

/// The line of every single value by its path, such as `spec.http[0].route[0].destination.host`, for a document that begins at
/// `begin`. Maps and lists have no line of their own.
#[must_use]
pub fn field_lines(node: &Node, begin: usize) -> HashMap<String, usize> {
    let mut lines = HashMap::new();
    walk(node, begin, "", &mut lines);
    lines
}

fn walk(node: &Node, begin: usize, path: &str, lines: &mut HashMap<String, usize>) {
    let Data::Mapping { entries, .. } = &node.data else {
        return;
    };
    for (key, value) in entries {
        let Data::Scalar { text, .. } = &key.data else {
            continue;
        };
        let path = if path.is_empty() {
            text.clone()
        } else {
            format!("{path}.{text}")
        };
        match &value.data {
            Data::Scalar { .. } => {
                lines.insert(path, value.line + begin - 1);
            }
            Data::Mapping { .. } => walk(value, begin, &path, lines),
            Data::Sequence { items, .. } => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    if matches!(item.data, Data::Scalar { .. }) {
                        lines.insert(path, item.line + begin - 1);
                    } else {
                        walk(item, begin, &path, lines);
                    }
                }
            }
            Data::Alias(_) => {}
        }
    }
}

/// An item of a `kind: List` as Istio reads it: taken out of the list and written again, which removes empty lines and puts what is in
/// brackets on one line. `comments` are the lines of the document that hold nothing but a comment.
#[must_use]
pub fn rewritten(item: &Node, comments: &[usize]) -> Node {
    // Comments right above the item belong to it.
    let above = (1..item.line)
        .rev()
        .take_while(|line| comments.contains(line))
        .count();
    let mut rewriter = Rewriter {
        written: above + 1,
        read: item.line,
        comments,
    };
    let mut item = item.clone();
    rewriter.content(&mut item);
    item
}

struct Rewriter<'a> {
    /// The line that is being written.
    written: usize,
    /// The line of the document that was read last.
    read: usize,
    comments: &'a [usize],
}

impl Rewriter<'_> {
    /// Gives a node the lines at which it is written; it begins on the present one or, in block style, where the document has it.
    fn content(&mut self, node: &mut Node) {
        match &mut node.data {
            Data::Scalar { block_lines, .. } => {
                node.line = self.written;
                if *block_lines > 0 {
                    self.written += *block_lines - 1;
                    self.read += *block_lines - 1;
                }
                return;
            }
            Data::Alias(_) => {}
            Data::Mapping { flow: true, .. } | Data::Sequence { flow: true, .. } => {
                on_one_line(node, self.written);
                return;
            }
            Data::Mapping { entries, .. } => {
                for (key, value) in entries {
                    self.advance(key.line);
                    key.line = self.written;
                    self.content(value);
                }
            }
            Data::Sequence { items, .. } => {
                for item in items {
                    self.advance(item.line);
                    self.content(item);
                }
            }
        }
        node.line = self.written;
    }

    /// Goes to the line where line `read` of the document is written.
    fn advance(&mut self, read: usize) {
        if read > self.read {
            let comments = self
                .comments
                .iter()
                .filter(|comment| **comment > self.read && **comment < read)
                .count();
            self.written += 1 + comments;
            self.read = read;
        }
    }
}

fn on_one_line(node: &mut Node, line: usize) {
    node.line = line;
    match &mut node.data {
        Data::Mapping { entries, .. } => {
            for (key, value) in entries {
                on_one_line(key, line);
                on_one_line(value, line);
            }
        }
        Data::Sequence { items, .. } => {
            for item in items {
                on_one_line(item, line);
            }
        }
        Data::Scalar { .. } | Data::Alias(_) => {}
    }
}

/// The lines of a document that hold nothing but a comment.
#[must_use]
pub fn comment_lines(text: &str) -> Vec<usize> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| line.trim_start().starts_with('#'))
        .map(|(index, _)| index + 1)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    #[test]
    fn documents_begin_at_their_first_line_with_content() {
        let seen = split("# about\n---\n\nkind: A\n---\nkind: B\n--- \nkind: C");
        let seen: Vec<_> = seen
            .iter()
            .map(|document| (document.line, document.text.trim()))
            .collect();
        assert_eq!(
            seen,
            [
                (1, "# about"),
                (4, "kind: A"),
                (6, "kind: B"),
                (8, "kind: C")
            ]
        );
    }

    #[test]
    fn a_leading_separator_counts_as_a_line_of_the_document() {
        let seen = split("---\nkind: A\n");
        assert_eq!(
            seen,
            [Document {
                text: "---\nkind: A\n".into(),
                line: 2
            }]
        );
    }

    #[test]
    fn every_single_value_has_a_line() {
        let text =
            "spec:\n  hosts: [a, b]\n  http:\n  - route:\n    - destination:\n        host: x\n";
        let node = yaml::parse(text).unwrap().unwrap();
        let lines = field_lines(&node, 10);
        assert_eq!(lines["spec.hosts[1]"], 11);
        assert_eq!(lines["spec.http[0].route[0].destination.host"], 15);
        assert!(!lines.contains_key("spec.http[0].route[0].destination"));
    }

    #[test]
    fn items_of_a_list_are_written_again_before_their_lines_are_counted() {
        let text = "items:\n# first\n- kind: A\n\n  spec:\n\n    # why\n    hosts:\n    - a\n\n    - b: |\n        x\n        y\n      c: [1,\n        2]\n      d: 3\n";
        let node = yaml::parse(text).unwrap().unwrap();
        let Data::Mapping { entries, .. } = &node.data else {
            panic!("a map");
        };
        let Data::Sequence { items, .. } = &entries[0].1.data else {
            panic!("a list");
        };
        let lines = field_lines(&rewritten(&items[0], &comment_lines(text)), 1);
        // # first, kind, spec, # why, hosts, - a, - b: |, x, y, c, d
        assert_eq!(lines["kind"], 2);
        assert_eq!(lines["spec.hosts[0]"], 6);
        assert_eq!(lines["spec.hosts[1].b"], 7);
        assert_eq!(lines["spec.hosts[1].c[1]"], 10);
        assert_eq!(lines["spec.hosts[1].d"], 11);
    }
}
