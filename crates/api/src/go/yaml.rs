//! YAML as Kubernetes' tools read it: the values of YAML 1.1 with the position of every node and the errors of libyaml.
//!
//! Kubernetes reads YAML with ports of libyaml, whose error texts people search for. So does this: events come from such a port, and what a
//! plain scalar means is decided in [`scalar`].

mod scalar;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use libyaml_safer::{ErrorKind, EventData, MappingStyle, Parser, ScalarStyle, SequenceStyle};
use serde_json::{Map, Number, Value};

pub use scalar::{Scalar, resolve};

/// A node of a document.
#[derive(Debug, Clone)]
pub struct Node {
    /// Line of its first character within the document, starting at 1.
    pub line: usize,
    /// What it is.
    pub data: Data,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Data {
    /// A single value.
    Scalar {
        /// Its text.
        text: String,
        /// Whether it was written without quotes, so that it may be a number, a boolean or nothing.
        plain: bool,
        /// An explicit tag.
        tag: Option<String>,
        /// Lines it takes, when it is a block (`|` or `>`).
        block_lines: usize,
    },
    /// A list.
    Sequence {
        /// Its items.
        items: Vec<Node>,
        /// Whether it is written in brackets.
        flow: bool,
    },
    /// A map.
    Mapping {
        /// Keys and values in the order of the text; a key may come more than once.
        entries: Vec<(Node, Node)>,
        /// Whether it is written in braces.
        flow: bool,
    },
    /// A reference to a node with an anchor: the node itself.
    Alias(Arc<Node>),
}

/// Why a document cannot be read; the text is the one of Go's library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

impl std::fmt::Display for Error {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "yaml: {}", self.0)
    }
}

impl std::error::Error for Error {}

impl Error {
    /// An error of the parser in a text whose last line is `last`, counted from 0.
    fn of_parser(error: &libyaml_safer::Error, last: u64) -> Self {
        // Go's library takes the line as counted from 0, except for the errors of the scanner.
        let scanner = error.kind() == ErrorKind::Scanner;
        // Errors of the parser may be on the line after the end.
        let last = if scanner { last } else { last + 1 };
        let problem = error.problem_mark().map_or(0, |mark| mark.line.min(last));
        let context = error.context_mark().map_or(0, |mark| mark.line);
        let line = match problem {
            0 => context,
            line => line + u64::from(scanner),
        };
        Self(match line {
            0 => error.problem().to_owned(),
            line => format!("line {line}: {}", error.problem()),
        })
    }
}

/// The first document of `text`; `None` where there is none (nothing but comments).
///
/// # Errors
/// The text is not YAML.
pub fn parse(text: &str) -> Result<Option<Node>, Error> {
    // The parser's own library panics where a tag is followed by a comma, or has an escape that is no character.
    std::panic::catch_unwind(|| load(text)).unwrap_or_else(|_| {
        Err(Error(
            "did not find expected whitespace or line break after a tag".to_owned(),
        ))
    })
}

fn load(text: &str) -> Result<Option<Node>, Error> {
    let last = text.trim_end_matches('\n').matches('\n').count() as u64;
    // The parser wants the last line of a block scalar to have an end.
    let text = format!("{text}\n");
    let mut input = text.as_bytes();
    let mut parser = Parser::new();
    parser.set_input(&mut input);
    let mut loader = Loader {
        parser,
        anchors: HashMap::new(),
        open: Vec::new(),
        depth: 0,
        nodes: 0,
        repeated: 0,
        last,
    };
    loop {
        match loader.next()?.0 {
            EventData::DocumentStart { .. } => return loader.node().map(|node| Some(node.0)),
            EventData::StreamEnd => return Ok(None),
            _ => {}
        }
    }
}

/// The first document of `text` as JSON (nothing: null), and the keys that it has twice, as [`duplicate_keys`] tells of them.
///
/// # Errors
/// The text is not YAML, or says something that JSON cannot.
pub fn read(text: &str) -> Result<(Value, Vec<String>), Error> {
    Ok(match parse(text)? {
        None => (Value::Null, Vec::new()),
        Some(node) => (to_json(&node)?, duplicate_keys(&node)),
    })
}

/// Keys that a map has twice, in the words of Go's library: `line 9: key "hosts" already set in map`.
#[must_use]
pub fn duplicate_keys(node: &Node) -> Vec<String> {
    match &node.data {
        Data::Scalar { .. } | Data::Alias(_) => Vec::new(),
        Data::Sequence { items, .. } => items.iter().flat_map(duplicate_keys).collect(),
        Data::Mapping { entries, .. } => {
            let mut found = Vec::new();
            let mut keys = HashSet::new();
            for (key, value) in entries {
                found.extend(duplicate_keys(value));
                let Data::Scalar {
                    text, plain, tag, ..
                } = &key.data
                else {
                    continue;
                };
                if *plain && text == "<<" {
                    continue;
                }
                // A number and the text of it are two keys.
                let shown = match resolve(text, *plain, tag.as_deref()) {
                    Ok(Scalar::Text(_)) | Err(_) => crate::field::quote(text),
                    Ok(Scalar::Bool(value)) => value.to_string(),
                    Ok(_) => text.clone(),
                };
                if keys.contains(&shown) {
                    let line = value.line;
                    found.push(format!("line {line}: key {shown} already set in map"));
                }
                keys.insert(shown);
            }
            found
        }
    }
}

/// The document as JSON, as `sigs.k8s.io/yaml` converts it: later keys replace earlier ones, keys become strings, `<<` is merged.
///
/// # Errors
/// The text is not YAML, or says something that JSON cannot.
pub fn to_json(node: &Node) -> Result<Value, Error> {
    Ok(match &node.data {
        Data::Alias(target) => to_json(target)?,
        Data::Sequence { items, .. } => {
            Value::Array(items.iter().map(to_json).collect::<Result<_, _>>()?)
        }
        Data::Mapping { entries, .. } => {
            let mut object = Map::new();
            merge(entries, &mut object)?;
            // As Go's encoder, so that the first of several mistakes is the same.
            object.sort_keys();
            Value::Object(object)
        }
        Data::Scalar {
            text, plain, tag, ..
        } => match resolve(text, *plain, tag.as_deref()).map_err(Error)? {
            Scalar::Null => Value::Null,
            Scalar::Bool(value) => Value::Bool(value),
            Scalar::Int(value) => Value::Number(value.into()),
            Scalar::Unsigned(value) => Value::Number(value.into()),
            Scalar::Float(value) => {
                if value.fract() == 0.0 && value.abs() < 9.0e15 {
                    Value::Number((value as i64).into())
                } else {
                    Number::from_f64(value).map_or_else(
                        || Err(Error("json: unsupported value".to_owned())),
                        |number| Ok(Value::Number(number)),
                    )?
                }
            }
            Scalar::Text(value) => Value::String(value),
        },
    })
}

fn merge(entries: &[(Node, Node)], object: &mut Map<String, Value>) -> Result<(), Error> {
    for (key, value) in entries {
        let Data::Scalar {
            text, plain, tag, ..
        } = &key.data
        else {
            return Err(Error(format!("invalid map key: {}", go_syntax(key)?)));
        };
        if *plain && text == "<<" {
            merge_all(value, object)?;
            continue;
        }
        let name = match resolve(text, *plain, tag.as_deref()).map_err(Error)? {
            Scalar::Bool(value) => value.to_string(),
            Scalar::Int(value) => value.to_string(),
            Scalar::Unsigned(value) => value.to_string(),
            Scalar::Float(value) => value.to_string(),
            Scalar::Null => "null".to_owned(),
            Scalar::Text(value) => value,
        };
        object.insert(name, to_json(value)?);
    }
    Ok(())
}

/// A list or map as Go writes it in its own syntax.
fn go_syntax(node: &Node) -> Result<String, Error> {
    Ok(match to_json(node)? {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(Value::to_string).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(entries) => {
            let entries: Vec<_> = entries
                .iter()
                .map(|(key, value)| format!("{}:{value}", crate::field::quote(key)))
                .collect();
            format!(
                "map[interface {{}}]interface {{}}{{{}}}",
                entries.join(", ")
            )
        }
        single => single.to_string(),
    })
}

fn merge_all(value: &Node, object: &mut Map<String, Value>) -> Result<(), Error> {
    match &value.data {
        Data::Mapping { entries, .. } => merge(entries, object),
        Data::Alias(target) => merge_all(target, object),
        // Of several, the earlier ones win.
        Data::Sequence { items, .. } => items
            .iter()
            .rev()
            .try_for_each(|item| merge_all(item, object)),
        Data::Scalar { .. } => Err(Error(
            "map merge requires map or sequence of maps as the value".to_owned(),
        )),
    }
}

/// Deeper documents are refused, as deeper JSON is: nothing that is applied to a cluster comes near, and the walks over it are recursive.
/// A reference counts with all that it stands for.
const DEPTH: usize = 127;

/// Whether so many of the nodes of a document may come from references, each of which counts with all that it stands for. A document of
/// a few lines could fill any memory. The bounds are those of Go's library: nearly all of 400 000 nodes, a tenth of 4 000 000.
fn excessive(repeated: usize, nodes: usize) -> bool {
    const FEW: usize = 400_000;
    const MANY: usize = 4_000_000;
    if repeated <= 100 || nodes <= 1000 {
        return false;
    }
    let percent = match nodes {
        ..=FEW => 99,
        MANY.. => 10,
        _ => 99 - 89 * (nodes - FEW) / (MANY - FEW),
    };
    // A document is a few megabytes: no overflow in sight.
    repeated * 100 > percent * nodes
}

/// A node with an anchor, and what a reference to it brings along.
struct Anchored {
    node: Arc<Node>,
    height: usize,
    nodes: usize,
}

struct Loader<'a, 'b> {
    parser: Parser<&'a mut &'b [u8]>,
    anchors: HashMap<String, Anchored>,
    /// Anchors of nodes that are not yet at their end.
    open: Vec<String>,
    depth: usize,
    /// Nodes so far, those behind references included, and how many of them those are.
    nodes: usize,
    repeated: usize,
    /// The last line of the text, counted from 0.
    last: u64,
}

impl Loader<'_, '_> {
    fn next(&mut self) -> Result<(EventData, usize, usize), Error> {
        let event = self
            .parser
            .parse()
            .map_err(|error| Error::of_parser(&error, self.last))?;
        let lines = event.end_mark.line.saturating_sub(event.start_mark.line) as usize;
        Ok((event.data, event.start_mark.line as usize + 1, lines))
    }

    fn node(&mut self) -> Result<(Node, usize), Error> {
        let (event, line, lines) = self.next()?;
        self.started(event, line, lines)
    }

    /// The node that begins with `event`, and its height.
    fn started(
        &mut self,
        event: EventData,
        line: usize,
        lines: usize,
    ) -> Result<(Node, usize), Error> {
        let too_deep = || Error(format!("line {line}: exceeded max depth of {DEPTH}"));
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(too_deep());
        }
        let before = self.nodes;
        self.nodes += 1;
        let mut height = 1;
        let (anchor, data) = match event {
            EventData::Alias { anchor } => {
                if self.open.contains(&anchor) {
                    return Err(Error(format!("anchor '{anchor}' value contains itself")));
                }
                let Some(target) = self.anchors.get(&anchor) else {
                    return Err(Error(format!("unknown anchor '{anchor}' referenced")));
                };
                height = target.height;
                self.nodes += target.nodes;
                self.repeated += target.nodes;
                if self.depth + height > DEPTH {
                    return Err(too_deep());
                }
                if excessive(self.repeated, self.nodes) {
                    return Err(Error("document contains excessive aliasing".to_owned()));
                }
                (None, Data::Alias(target.node.clone()))
            }
            EventData::Scalar {
                anchor,
                tag,
                value,
                plain_implicit,
                style,
                ..
            } => {
                let block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                let plain = plain_implicit && style == ScalarStyle::Plain;
                (
                    anchor,
                    Data::Scalar {
                        text: value,
                        plain,
                        tag: tag.filter(|tag| tag != "!"),
                        block_lines: if block { lines } else { 0 },
                    },
                )
            }
            EventData::SequenceStart { anchor, style, .. } => {
                self.open.extend(anchor.clone());
                let mut items = Vec::new();
                loop {
                    let (event, line, lines) = self.next()?;
                    if matches!(event, EventData::SequenceEnd) {
                        break;
                    }
                    let (item, below) = self.started(event, line, lines)?;
                    height = height.max(below + 1);
                    items.push(item);
                }
                let flow = style == SequenceStyle::Flow;
                (anchor, Data::Sequence { items, flow })
            }
            EventData::MappingStart { anchor, style, .. } => {
                self.open.extend(anchor.clone());
                let mut entries = Vec::new();
                loop {
                    let (event, line, lines) = self.next()?;
                    if matches!(event, EventData::MappingEnd) {
                        break;
                    }
                    let (key, below_key) = self.started(event, line, lines)?;
                    let (value, below) = self.node()?;
                    height = height.max(below.max(below_key) + 1);
                    entries.push((key, value));
                }
                let flow = style == MappingStyle::Flow;
                (anchor, Data::Mapping { entries, flow })
            }
            other => return Err(Error(format!("line {line}: unexpected {other:?}"))),
        };
        self.depth -= 1;
        let node = Node { line, data };
        if let Some(anchor) = anchor {
            self.open.retain(|open| *open != anchor);
            let anchored = Anchored {
                node: Arc::new(node.clone()),
                height,
                nodes: self.nodes - before,
            };
            self.anchors.insert(anchor, anchored);
        }
        Ok((node, height))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_tag_that_the_parser_cannot_take_is_an_error() {
        let refused = parse("[!!str, x]").map(|_| ()).unwrap_err().to_string();
        assert_eq!(
            refused,
            "yaml: did not find expected whitespace or line break after a tag"
        );
    }

    #[test]
    fn references_make_no_document_that_is_larger_or_deeper_than_a_written_one() {
        let refused = |text: &str| parse(text).map(|_| ()).map_err(|e| e.to_string());
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        let mut chain = "a0: &a0 [x]\n".to_owned();
        for n in 1..200 {
            let before = n - 1;
            let nine = vec![format!("*a{before}"); 9].join(", ");
            laughs += &format!("a{n}: &a{n} [{nine}]\n");
            chain += &format!("a{n}: &a{n} [*a{before}]\n");
        }
        assert_eq!(
            refused(&laughs),
            Err("yaml: document contains excessive aliasing".into())
        );
        let deep = refused(&chain).unwrap_err();
        assert!(deep.ends_with("exceeded max depth of 127"), "{deep}");
        let deep = refused(&"[".repeat(200)).unwrap_err();
        assert!(deep.ends_with("exceeded max depth of 127"), "{deep}");
        // What people write to say a thing once.
        let often = format!("a: &a {{b: 1}}\nc: [{}]\n", vec!["*a"; 500].join(", "));
        assert_eq!(refused(&often), Ok(()));
    }

    fn read(text: &str) -> Value {
        to_json(&parse(text).unwrap().expect("a document")).unwrap()
    }

    #[test]
    fn words_and_numbers_mean_what_yaml_1_1_says() {
        assert_eq!(
            read(
                "{a: yes, b: 'yes', c: 010, d: 0x10, e: 1_000, f: ~, g: 1.5, h: 2.0, i: on, j: 1.2.3, k: 2020-01-02}"
            ),
            json!({"a": true, "b": "yes", "c": 8, "d": 16, "e": 1000, "f": null, "g": 1.5, "h": 2, "i": true, "j": "1.2.3", "k": "2020-01-02"})
        );
    }

    #[test]
    fn keys_become_strings_and_the_last_of_two_wins() {
        assert_eq!(
            read("8080: a\ntrue: b\nx: 1\nx: 2\n"),
            json!({"8080": "a", "true": "b", "x": 2})
        );
    }

    #[test]
    fn keys_that_are_there_twice_are_told_of_where_their_value_begins() {
        let text = "a: 1\nspec:\n  x: 1\nspec:\n\n  b: z\n  \"b\": w\n  c: [{d: 1, d:\n   2}]\n1: x\n\"1\": x\nyes: x\ntrue: y\n";
        assert_eq!(
            read_twice(text),
            [
                "line 7: key \"b\" already set in map",
                "line 9: key \"d\" already set in map",
                "line 6: key \"spec\" already set in map",
                "line 13: key true already set in map",
            ]
        );
        assert!(read_twice("a:\n  b:\n    c: 1\n  d: 1\nb: 2\nd: 3\n---\na: 1\na: 2\n").is_empty());
    }

    fn read_twice(text: &str) -> Vec<String> {
        super::read(text).unwrap().1
    }

    #[test]
    fn anchors_and_merges_are_followed() {
        assert_eq!(
            read("a: &one {x: 1, z: 2}\nb: *one\nc:\n  <<: *one\n  z: 3\n"),
            json!({"a": {"x": 1, "z": 2}, "b": {"x": 1, "z": 2}, "c": {"x": 1, "z": 3}})
        );
    }

    #[test]
    fn errors_are_those_of_gos_library() {
        for (text, expected) in [
            (
                "# c\na: 1\nmetadata:\n  name: b\n namespace: s\n",
                "yaml: line 4: did not find expected key",
            ),
            (
                "a:\n\tb: 1\n",
                "yaml: line 2: found character that cannot start any token",
            ),
            ("a: \"x", "yaml: found unexpected end of stream"),
            ("a: *b\n", "yaml: unknown anchor 'b' referenced"),
            ("a: &x\n  b: *x\n", "yaml: anchor 'x' value contains itself"),
            ("a: [1\n", "yaml: line 1: did not find expected ',' or ']'"),
        ] {
            let seen = parse(text).expect_err(text).to_string();
            assert_eq!(seen, expected, "{text:?}");
        }
    }

    #[test]
    fn nothing_that_is_cut_off_stops_the_program() {
        let text = "%YAML 1.1\n%TAG !e! tag:e,2000:\n---\n# c\na: &x [1, 'b''c', \"d\\x41\\u00e9\\\n e\", {f: g, ? h : i}]\n\
                    ? k\n: !!str |2-\n   l\n\n   m\nn: >+\n o\n p\n\nq: *x\nr: !<tag:x> s\n<<: {t: u}\nv:\n- - w\n  - x: !e!y z\n...\n---\nü: \u{2028}b\n";
        for end in 0..=text.len() {
            if let Some(prefix) = text.get(..end) {
                let _ = parse(prefix).map(|node| node.as_ref().map(to_json));
                let _ = parse(&prefix.replace('\n', "\r\n"));
            }
            if let Some(suffix) = text.get(end..) {
                let _ = parse(suffix).map(|node| node.as_ref().map(to_json));
            }
        }
    }

    #[test]
    fn a_block_may_end_with_the_text() {
        assert_eq!(read("a: |\n  b\n  c"), json!({"a": "b\nc\n"}));
    }

    #[test]
    fn comments_alone_are_no_document() {
        assert!(parse("# nothing\n").unwrap().is_none());
    }
}
