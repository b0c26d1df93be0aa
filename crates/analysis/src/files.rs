//! Objects of files, as Istio's in-memory source of Kubernetes objects takes them.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::decode;
use crate::documents::{self, Document};
use crate::go;
use crate::json;
use crate::kind::Kind;
use crate::object::{OWN_CLUSTER, Object, Place};
use crate::yaml::{self, Data, Node};

/// Namespaces of Kubernetes itself, which are never analyzed.
pub const IGNORED_NAMESPACES: [&str; 4] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "local-path-storage",
];

/// A file.
#[derive(Debug, Clone)]
pub struct File {
    /// Its name as it was given; `-` for the standard input.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// What was read from files.
#[derive(Debug, Default)]
pub struct FileObjects {
    /// The objects; the later of two with one name replaces the earlier.
    pub objects: Vec<Object>,
    /// What could not be read, each with file and number of the document.
    pub warnings: Vec<String>,
    /// The same by file, as the command tells it.
    pub errors: Vec<String>,
}

impl FileObjects {
    /// All errors in one text; `None` if there are none.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        (!self.errors.is_empty()).then(|| go::multierror(&self.errors))
    }
}

/// The objects of `kinds` in `files`. Objects without namespace get `default_namespace`, unless that is empty.
#[must_use]
pub fn read(files: &[File], kinds: &BTreeSet<Kind>, default_namespace: &str) -> FileObjects {
    let mut result = FileObjects::default();
    for file in files {
        let mut errors = Vec::new();
        for (number, document) in documents::split(&file.text).iter().enumerate() {
            let reader = Reader {
                file: &file.name,
                kinds,
                default_namespace,
            };
            let text = document.text.trim();
            if text.is_empty() {
                continue;
            }
            let document = Document {
                text: text.to_owned(),
                line: document.line,
            };
            match reader.document(&document) {
                Ok(objects) => {
                    for object in objects {
                        store(&mut result.objects, object);
                    }
                }
                Err(Failure::Unknown) => {}
                Err(Failure::Error(text)) => {
                    let text = format!("error processing {}[{number}]: {text}", file.name);
                    result.warnings.push(format!("{text} - skipping"));
                    errors.push(text);
                }
            }
        }
        if !errors.is_empty() {
            result.errors.push(format!(
                "errors parsing content {}: {}",
                go::quote(&file.name),
                go::multierror(&errors)
            ));
        }
    }
    result
}

fn store(objects: &mut Vec<Object>, object: Object) {
    if IGNORED_NAMESPACES.contains(&object.origin.belongs_to()) {
        return;
    }
    let same = objects.iter_mut().find(|other| {
        other.origin.kind == object.origin.kind
            && other.origin.namespace == object.origin.namespace
            && other.origin.name == object.origin.name
    });
    match same {
        Some(other) => *other = object,
        None => objects.push(object),
    }
}

enum Failure {
    /// A kind nobody asks for: passed over in silence.
    Unknown,
    Error(String),
}

struct Reader<'a> {
    file: &'a str,
    kinds: &'a BTreeSet<Kind>,
    default_namespace: &'a str,
}

impl Reader<'_> {
    fn document(&self, document: &Document) -> Result<Vec<Object>, Failure> {
        let convert =
            |error: yaml::Error| Failure::Error(format!("failed converting YAML to JSON: {error}"));
        if json::is_meant(&document.text) {
            json::check(&document.text).map_err(|error| {
                Failure::Error(format!(
                    "failed interpreting jsonChunk: couldn't get version/kind; json parse error: {error}"
                ))
            })?;
        }
        let Some(node) = yaml::parse(&document.text).map_err(convert)? else {
            return Ok(Vec::new());
        };
        let comments = documents::comment_lines(&document.text);
        self.node(&node, document.line, &comments)
    }

    fn node(&self, node: &Node, line: usize, comments: &[usize]) -> Result<Vec<Object>, Failure> {
        let value = yaml::to_json(node)
            .map_err(|error| Failure::Error(format!("failed converting YAML to JSON: {error}")))?;
        if value.is_null() {
            return Ok(Vec::new());
        }
        let (group, version, kind) = decode::type_of(&value)
            .map_err(|error| Failure::Error(format!("failed interpreting jsonChunk: {error}")))?;
        if kind == "List" {
            return self.list(node, line, comments);
        }
        if group.is_empty() && version.is_empty() && kind.is_empty() {
            return Err(Failure::Error(
                "unable to parse resource with no group, version and kind".to_owned(),
            ));
        }
        let known = Kind::find(group, version, kind).filter(|kind| self.kinds.contains(kind));
        let Some(kind) = known else {
            return Err(Failure::Unknown);
        };
        decode::check(kind, &value).map_err(|error| {
            Failure::Error(format!("failed parsing JSON for built-in type: {error}"))
        })?;
        let place = Place {
            file: self.file.to_owned(),
            line,
            fields: documents::field_lines(node, line),
        };
        Ok(vec![self.object(kind, value, place)])
    }

    fn object(&self, kind: Kind, mut value: Value, place: Place) -> Object {
        let namespaced = kind.info().namespaced;
        let blank = value["metadata"]["namespace"]
            .as_str()
            .is_none_or(str::is_empty);
        if namespaced && blank && !self.default_namespace.is_empty() {
            if !value["metadata"].is_object() {
                value["metadata"] = Value::Object(serde_json::Map::new());
            }
            value["metadata"]["namespace"] = Value::String(self.default_namespace.to_owned());
        }
        Object::new(kind, value, OWN_CLUSTER, Some(place))
    }

    /// The items of a list. One item of a kind that is passed over takes the whole list with it, as in Istio.
    fn list(&self, node: &Node, line: usize, comments: &[usize]) -> Result<Vec<Object>, Failure> {
        let malformed = || {
            Failure::Error(
                "failed extracting resource chunks from list yaml chunk: failed parsing yamlChunk: malformed items field"
                    .to_owned(),
            )
        };
        let Data::Mapping { entries, .. } = &node.data else {
            return Err(malformed());
        };
        let items = entries
            .iter()
            .find(|(key, _)| matches!(&key.data, Data::Scalar { text, .. } if text == "items"));
        let Some((
            _,
            Node {
                data: Data::Sequence { items, .. },
                ..
            },
        )) = items
        else {
            return Err(malformed());
        };
        if items
            .iter()
            .any(|item| !matches!(item.data, Data::Mapping { .. }))
        {
            return Err(malformed());
        }
        let mut objects = Vec::new();
        for item in items {
            let rewritten = documents::rewritten(item, comments);
            let read = self.node(&rewritten, item.line + line, &[]);
            objects.extend(read.map_err(|failure| match failure {
                Failure::Unknown => Failure::Unknown,
                Failure::Error(text) => {
                    Failure::Error(format!("failed parsing resource chunk: {text}"))
                }
            })?);
        }
        Ok(objects)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> FileObjects {
        let kinds = [Kind::VirtualService, Kind::Gateway, Kind::Deployment].into();
        let file = File {
            name: "a.yaml".into(),
            text: text.into(),
        };
        read(&[file], &kinds, "shop")
    }

    const VIRTUAL_SERVICE: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec: {hosts: [a]}\n";

    #[test]
    fn kinds_nobody_asks_for_are_passed_over() {
        let seen = read_text(
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\napiVersion: networking.istio.io/v2\nkind: VirtualService\n",
        );
        assert!(
            seen.objects.is_empty() && seen.error().is_none(),
            "{seen:?}"
        );
    }

    #[test]
    fn the_later_of_two_objects_with_one_name_replaces_the_earlier() {
        let seen = read_text(&format!("{VIRTUAL_SERVICE}---\n{VIRTUAL_SERVICE}"));
        assert_eq!(seen.objects.len(), 1);
        let place = seen.objects[0].origin.place.as_ref().expect("a place");
        assert_eq!(place.line, 6);
        assert_eq!(seen.objects[0].namespace(), "shop");
    }

    #[test]
    fn an_unknown_item_takes_its_list_with_it() {
        let item = VIRTUAL_SERVICE.replace('\n', "\n  ");
        let list = format!(
            "apiVersion: v1\nkind: List\nitems:\n- {}\n",
            item.trim_end()
        );
        assert_eq!(read_text(&list).objects.len(), 1);
        let with_service =
            format!("{list}- {{apiVersion: v1, kind: Service, metadata: {{name: b}}}}\n");
        assert_eq!(read_text(&with_service).objects.len(), 0);
    }

    #[test]
    fn what_cannot_be_read_is_told_by_file_and_document() {
        let seen = read_text(&format!(
            "{VIRTUAL_SERVICE}---\nmetadata: {{name: b}}\n---\njust text\n"
        ));
        assert_eq!(seen.objects.len(), 1);
        assert_eq!(
            seen.error().expect("errors"),
            "1 error occurred:\n\t* errors parsing content \"a.yaml\": 2 errors occurred:\n\t* error processing a.yaml[1]: \
             unable to parse resource with no group, version and kind\n\t* error processing a.yaml[2]: failed interpreting jsonChunk: \
             couldn't get version/kind; json parse error: json: cannot unmarshal string into Go value of type \
             struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }\n\n\n\n"
        );
    }
}
